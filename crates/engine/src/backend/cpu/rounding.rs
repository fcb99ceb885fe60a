//! Inputs of products in bf16: rounded once per product, in the layout that the product reads.
//!
//! Rounding is to the nearest bf16, halves to even, in integer arithmetic, so that every instruction set gives the
//! same bits. (The processors' own conversion, `vcvtneps2bf16`, would make zeros of subnormal numbers.)

use super::matmul::Matrix;
use super::rows::Rows;
use super::simd::{Isa, Simd, with_isa};

/// The bits of the nearest bf16; NaN stays NaN.
#[inline(always)]
pub(super) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { nearest }) as u16
}

/// The rows of x as a product with `weights` reads them: pairs of bf16 where it multiplies pairs, else rounded f32.
pub(super) fn round_rows(isa: Isa, x: &Rows, weights: &Matrix, to: &mut Rows) {
    to.reshape(x.rows(), weights.steps());
    let (pairs, count, out) = (weights.in_pairs(), x.cols(), to.shared());
    super::parallel_rows(x.rows(), super::ROW_GRAIN, |row| {
        // SAFETY: each task has its own row of a buffer with a number for each of x, or for each two of them.
        unsafe {
            if pairs {
                let pairs = std::slice::from_raw_parts_mut(out.at(row, 0).cast(), count.next_multiple_of(2));
                round_to_pairs(isa, x.row(row), pairs);
            } else {
                round_to_f32(isa, x.row(row), std::slice::from_raw_parts_mut(out.at(row, 0), count));
            }
        }
    });
}

/// The first numbers of each of the heads in a row of x, as many as its layer of `weights` reads, as a product with it
/// reads them.
pub(super) fn round_heads(isa: Isa, x: &Rows, weights: &[Matrix], to: &mut Rows) {
    let (width, steps, k) = (x.cols() / weights.len(), weights[0].steps(), weights[0].k);
    to.reshape(x.rows(), weights.len() * steps);
    let (pairs, out) = (weights[0].in_pairs(), to.shared());
    super::parallel_rows(x.rows(), super::ROW_GRAIN, |row| {
        for (head, numbers) in x.row(row).chunks_exact(width).enumerate() {
            // SAFETY: each task has its own row of a buffer with a number for each of a head, or for each two of them.
            unsafe {
                let to = out.at(row, head * steps);
                if pairs {
                    let pairs = std::slice::from_raw_parts_mut(to.cast(), 2 * steps);
                    round_to_pairs(isa, &numbers[..k], pairs);
                } else {
                    round_to_f32(isa, &numbers[..k], std::slice::from_raw_parts_mut(to, steps));
                }
            }
        }
    });
}

// Plain loops over slices, which the compiler turns into vectors of the instruction set at hand.

#[inline(always)]
unsafe fn pairs_kernel<S: Simd>(from: &[f32], to: &mut [u16]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = bf16_bits(*from);
    }
    to[from.len()..].fill(0);
}
with_isa! {
    /// Rounds to bf16; what is left of `to` is filled with zeros.
    unsafe fn round_to_pairs(from: &[f32], to: &mut [u16]) = pairs_kernel
}

#[inline(always)]
unsafe fn widened_kernel<S: Simd>(from: &[f32], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(bf16_bits(*from)) << 16);
    }
}
with_isa! {
    /// Rounds to bf16 and widens again.
    unsafe fn round_to_f32(from: &[f32], to: &mut [f32]) = widened_kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_half_rounds_them_on_every_instruction_set() {
        // Every exponent and sign, mantissas around ties, NaN and infinity among them.
        let lows = [0_u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        let values: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| lows.map(|low| f32::from_bits(u32::from(high) << 16 | low)))
            .collect();
        for isa in Isa::available() {
            for count in [15, 16, 37, 48] {
                for values in values.chunks_exact(count) {
                    let (mut pairs, mut wide) = ([u16::MAX; 50], [f32::MAX; 50]);
                    // SAFETY: the instruction set is there.
                    unsafe {
                        round_to_pairs(isa, values, &mut pairs[..count.next_multiple_of(2)]);
                        round_to_f32(isa, values, &mut wide[..count]);
                    }
                    for (i, value) in values.iter().enumerate() {
                        let expected = half::bf16::from_f32(*value);
                        assert_eq!(pairs[i], expected.to_bits(), "{}: {value:e}", isa.name());
                        assert_eq!(
                            wide[i].to_bits(),
                            expected.to_f32().to_bits(),
                            "{}: {value:e}",
                            isa.name()
                        );
                    }
                    assert_eq!(
                        pairs[count],
                        if count % 2 == 1 { 0 } else { u16::MAX },
                        "an odd one has a zero"
                    );
                }
            }
        }
    }
}
