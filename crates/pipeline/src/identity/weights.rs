//! A digest of weights that costs little for 60 GB.
//!
//! SHA-256 over the tensors in the order of their names: of each its name, type, shape and length, and the digest of its
//! contents. Up to [`BUDGET`] bytes of tensors are read whole. Of more, each tensor has a part of the budget, at least two
//! pages, spread evenly from its first page to its last: whatever rewrites a tensor (training, merging, editing,
//! quantizing, a download that broke off) changes nearly all of its pages, and a slice of a fused tensor, an expert say, is
//! larger than the distance between them. A change of single elements of a large model can be missed; the full digests
//! that `reproduce.json` has see it.

use checkpoint::{Checkpoint, StoredTensor};
use rayon::prelude::*;

/// Bytes of a model that are read, about: a second of a fast disk.
const BUDGET: usize = 1 << 30;

/// Bytes that are read together.
const PAGE: usize = 1 << 16;

/// Pages of a tensor at least.
const FEWEST: usize = 2;

/// The digest of a model's weights, the same whatever files they are spread over.
pub fn digest(checkpoint: &Checkpoint) -> String {
    let mut tensors: Vec<StoredTensor<'_>> = checkpoint.stored_tensors().collect();
    tensors.sort_by_key(|it| it.name);
    digest_within(&tensors, BUDGET)
}

/// The digest of tensors, of which about `budget` bytes are read.
fn digest_within(tensors: &[StoredTensor<'_>], budget: usize) -> String {
    let total: usize = tensors.iter().map(|it| it.bytes.len()).sum();
    let parts: Vec<String> = tensors
        .par_iter()
        .map(|it| {
            let pages = if total <= budget { usize::MAX } else { pages(it.bytes.len(), total, budget) };
            let contents = hub::sha256(sampled(it.bytes, pages));
            format!("{}\0{}\0{:?}\0{}\0{contents}\n", it.name, it.dtype, it.shape, it.bytes.len())
        })
        .collect();
    hub::sha256(parts)
}

/// How many pages of a tensor are read.
fn pages(length: usize, total: usize, budget: usize) -> usize {
    let share = length as f64 / total as f64 * (budget / PAGE) as f64;
    (share.ceil() as usize).max(FEWEST)
}

/// So many pages, spread evenly from the first to the last; all bytes where that is no less.
fn sampled(bytes: &[u8], pages: usize) -> Vec<&[u8]> {
    let length = bytes.len();
    if pages.saturating_mul(PAGE) >= length {
        return vec![bytes];
    }
    let last = length - PAGE;
    let gaps = pages.saturating_sub(1).max(1);
    (0..pages)
        .map(|it| (last as u128 * it as u128 / gaps as u128) as usize)
        .map(|at| &bytes[at..at + PAGE])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<'a>(name: &'a str, bytes: &'a [u8], shape: &'a [usize]) -> StoredTensor<'a> {
        StoredTensor { name, dtype: "BF16", shape, bytes }
    }

    #[test]
    fn what_is_small_is_read_whole() {
        let mut bytes = vec![7; 300_000];
        let of = |bytes: &[u8]| digest_within(&[tensor("a", bytes, &[bytes.len() / 2])], BUDGET);
        let before = of(&bytes);
        for place in [0, 123_456, 299_999] {
            bytes[place] ^= 1;
            assert_ne!(of(&bytes), before, "{place}");
            bytes[place] ^= 1;
        }
        assert_eq!(of(&bytes), before);
    }

    #[test]
    fn of_what_is_large_every_tensor_and_every_slice_of_a_fused_one_is_seen() {
        // 64 slices of 1 MiB and a small tensor; a budget of an eighth: a page of each half MiB.
        let (slices, slice) = (64, 1 << 20);
        let mut fused = vec![1_u8; slices * slice];
        let mut small = vec![1_u8; 3 * PAGE];
        let of = |fused: &[u8], small: &[u8]| {
            let shapes = ([slices, slice], [small.len()]);
            let tensors = [tensor("fused", fused, &shapes.0), tensor("small", small, &shapes.1)];
            digest_within(&tensors, slices * slice / 8)
        };
        let before = of(&fused, &small);
        for at in [0, 1, 31, slices - 1] {
            fused[at * slice..(at + 1) * slice].fill(2);
            assert_ne!(of(&fused, &small), before, "slice {at}");
            fused[at * slice..(at + 1) * slice].fill(1);
        }
        small.fill(2);
        assert_ne!(of(&fused, &small), before);
    }

    #[test]
    fn name_type_shape_and_length_are_part_of_it() {
        let bytes = [0_u8; 64];
        let one = |it: StoredTensor<'_>| digest_within(&[it], BUDGET);
        let plain = tensor("a", &bytes, &[4, 8]);
        let others = [
            tensor("b", &bytes, &[4, 8]),
            tensor("a", &bytes, &[8, 4]),
            tensor("a", &bytes[..32], &[4, 8]),
            StoredTensor { dtype: "F16", ..plain },
        ];
        for other in others {
            assert_ne!(one(other), one(plain), "{other:?}");
        }
    }

    #[test]
    fn pages_lie_from_the_first_byte_to_the_last() {
        let bytes = vec![0; 10 * PAGE + 17];
        let first = bytes.as_ptr() as usize;
        let places: Vec<usize> = sampled(&bytes, 3).iter().map(|it| it.as_ptr() as usize - first).collect();
        assert_eq!(places, [0, (9 * PAGE + 17).div_euclid(2), 9 * PAGE + 17]);
        assert_eq!(sampled(&bytes, 11).len(), 1, "whole");
        assert_eq!(sampled(&[], 2), [&[0_u8; 0][..]]);
    }
}
