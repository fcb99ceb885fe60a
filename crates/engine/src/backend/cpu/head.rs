//! Logits, reduced while they are in the cache.
//!
//! A vocabulary of 262,144 makes 1 MiB of logits a row; written to memory and read back they would cost more
//! than everything else of a decoding step. So each tile of the product is reduced at once: its largest logits,
//! its sum of exponentials, the logits of wanted tokens. Tiles have a fixed number of panels, so the order of
//! summation depends on nothing but the vocabulary.
//!
//! NaN is never lost: it counts as larger than every number, so that a row with one NaN among its logits has it as
//! its largest, and its logsumexp is NaN.

use glossary::TokenId;

use super::attention::softcap;
use super::matmul::{Computed, Matrix, product_tiles};
use super::rows::{Line, Rows};
use super::simd::{Isa, LANES, Simd, with_isa};
use crate::backend::{HeadOutput, HeadWants};

/// Panels of a tile: 256 tokens, whose logits for 192 rows are 192 KiB.
const PANELS: usize = 16;

/// What a tile says of one row.
#[derive(Clone, Copy)]
struct Partial {
    largest: f32,
    /// Σ e^(logit − largest)
    sum: f32,
}

/// Memory that is kept from step to step.
#[derive(Default)]
pub(super) struct HeadScratch {
    /// `[tiles][rows]`
    partials: Vec<Partial>,
    /// `[tiles][rows][top]`
    top: Vec<(TokenId, f32)>,
}

/// A raw pointer that tasks write disjoint parts through.
struct Out<T>(*mut T);
// SAFETY: tasks write disjoint parts; see the uses.
unsafe impl<T> Sync for Out<T> {}
impl<T> Out<T> {
    /// # Safety
    /// `index` must be in bounds and no other thread's.
    unsafe fn write(&self, index: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index).write(value) }
    }
}

#[expect(clippy::too_many_arguments, reason = "the operands of `Backend::head`, and where things are kept")]
pub(super) fn head(
    isa: Isa,
    x: &Rows,
    weights: &Matrix,
    bias: Option<&[Line]>,
    scale: f32,
    cap: Option<f32>,
    wants: &HeadWants,
    scratch: &mut HeadScratch,
    out: &mut HeadOutput,
) {
    let (rows, vocab) = (x.rows(), weights.n);
    let top = wants.top.min(vocab);
    let tiles = weights.panel_count().div_ceil(PANELS);
    scratch.partials.clear();
    scratch.partials.resize(tiles * rows, Partial { largest: f32::NEG_INFINITY, sum: 0.0 });
    scratch.top.clear();
    scratch.top.resize(tiles * rows * top, (TokenId(0), f32::NEG_INFINITY));
    let first_logit = out.logits.len();
    if wants.logits {
        out.logits.resize(first_logit + rows * vocab, 0.0);
    }
    let first_target = out.targets.len();
    if !wants.targets.is_empty() {
        assert_eq!(wants.targets.len(), rows, "a target for each row");
        out.targets.resize(first_target + rows, 0.0);
    }
    let partials = Out(scratch.partials.as_mut_ptr());
    let tops = Out(scratch.top.as_mut_ptr());
    let logits = Out(out.logits[first_logit..].as_mut_ptr());
    let targets = Out(out.targets[first_target..].as_mut_ptr());

    product_tiles(isa, x, weights, 1, Some(PANELS), |done: Computed| {
        let tile = done.panel / PANELS;
        let token = done.panel * LANES;
        let width = (done.panels * LANES).min(vocab - token);
        for r in 0..done.rows {
            let row = done.row + r;
            let line = LogitLine {
                // SAFETY: the tile has this row.
                logits: unsafe { done.y.add(r * done.stride) },
                width,
                bias: bias.map(|it| &it[done.panel..]),
                scale,
                cap,
                sum: wants.logsumexp,
            };
            // SAFETY: a row of a tile has whole panels behind its start.
            let (partial, values) = unsafe {
                let mut partial = Partial { largest: 0.0, sum: 0.0 };
                finish_line(isa, &line, &mut partial);
                (partial, std::slice::from_raw_parts(line.logits, width))
            };
            // SAFETY: each tile has its own partials and logits of each row; a target lies in one tile.
            unsafe {
                partials.write(tile * rows + row, partial);
                let place = (tile * rows + row) * top;
                largest(values, partial.largest, top, |rank, index, value| {
                    tops.write(place + rank, (TokenId((token + index) as u32), value));
                });
                if wants.logits {
                    for (i, value) in values.iter().enumerate() {
                        logits.write(row * vocab + token + i, *value);
                    }
                }
                if let Some(target) = wants.targets.get(row).map(|it| it.index())
                    && (token..token + width).contains(&target)
                {
                    targets.write(row, values[target - token]);
                }
            }
        }
    });

    for row in 0..rows {
        if wants.logsumexp {
            out.logsumexp.push(merge_logsumexp((0..tiles).map(|tile| scratch.partials[tile * rows + row])));
        }
        merge_top((0..tiles).map(|tile| &scratch.top[(tile * rows + row) * top..][..top]), top, &mut out.top);
    }
}

/// The logarithm of the sum of exponentials over all tiles, summed in f64.
fn merge_logsumexp(partials: impl Iterator<Item = Partial> + Clone) -> f32 {
    let largest = partials.clone().fold(f32::NEG_INFINITY, |a, it| a.max(it.largest));
    let sum: f64 = partials.map(|it| f64::from(it.sum) * f64::from(it.largest - largest).exp()).sum();
    (f64::from(largest) + sum.ln()) as f32
}

/// Whether a logit stands before one of a later token.
fn precedes(earlier: f32, later: f32) -> bool {
    earlier >= later || earlier.is_nan()
}

/// The largest of the tiles' largest, appended in order; of equal ones the lower token first.
fn merge_top<'a>(
    tiles: impl Iterator<Item = &'a [(TokenId, f32)]>,
    top: usize,
    out: &mut Vec<(TokenId, f32)>,
) {
    let start = out.len();
    for tile in tiles {
        for &(token, value) in tile {
            let kept = &out[start..];
            // Tiles come in order of token, so an equal one stays behind.
            let place = kept.partition_point(|it| precedes(it.1, value));
            if place >= top {
                break;
            }
            if kept.len() == top {
                out.pop();
            }
            out.insert(start + place, (token, value));
        }
    }
}

/// Finds the `top` largest of a row's logits and tells them in order; `known` is the largest of all.
fn largest(values: &[f32], known: f32, top: usize, mut tell: impl FnMut(usize, usize, f32)) {
    match top {
        0 => {}
        1 => {
            let is_known = |it: &f32| it.to_bits() == known.to_bits() || it.is_nan() && known.is_nan();
            let index = values.iter().position(is_known).expect("the largest is one of them");
            tell(0, index, known);
        }
        _ => {
            let mut best: Vec<(usize, f32)> = Vec::with_capacity(top + 1);
            for (index, &value) in values.iter().enumerate() {
                if best.len() == top && precedes(best[top - 1].1, value) {
                    continue;
                }
                let place = best.partition_point(|it| precedes(it.1, value));
                best.insert(place, (index, value));
                best.truncate(top);
            }
            for (rank, (index, value)) in best.into_iter().enumerate() {
                tell(rank, index, value);
            }
        }
    }
}

/// A row of one tile's logits.
struct LogitLine<'a> {
    logits: *mut f32,
    width: usize,
    bias: Option<&'a [Line]>,
    scale: f32,
    cap: Option<f32>,
    /// Whether the sum of exponentials is wanted.
    sum: bool,
}

#[inline(always)]
unsafe fn finish_kernel<S: Simd>(line: &LogitLine<'_>, partial: &mut Partial) {
    let vectors = line.width.div_ceil(LANES);
    // SAFETY: whole lines lie behind the pointer.
    unsafe {
        if let Some(bias) = line.bias {
            for (i, bias) in bias.iter().enumerate().take(vectors) {
                let at = line.logits.add(i * LANES);
                S::store(at, S::add(S::load(at), S::load(bias.0.as_ptr())));
            }
        }
        if line.scale.to_bits() != 1.0_f32.to_bits() || line.cap.is_some() {
            for i in 0..vectors {
                let at = line.logits.add(i * LANES);
                let mut v = S::mul(S::load(at), S::splat(line.scale));
                if let Some(cap) = line.cap {
                    v = softcap::<S>(v, cap);
                }
                S::store(at, v);
            }
        }
        // The pad past the vocabulary never wins and adds nothing.
        for i in line.width..vectors * LANES {
            line.logits.add(i).write(f32::NEG_INFINITY);
        }
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in 0..vectors {
            largest = S::max_or_nan(largest, S::load(line.logits.add(i * LANES)));
        }
        partial.largest = S::largest(largest);
        if line.sum {
            let shift = S::splat(partial.largest);
            let mut sum = S::splat(0.0);
            for i in 0..vectors {
                sum = S::add(sum, S::exp(S::sub(S::load(line.logits.add(i * LANES)), shift)));
            }
            partial.sum = S::sum(sum);
        }
    }
}
with_isa! { unsafe fn finish_line(line: &LogitLine<'_>, partial: &mut Partial) = finish_kernel }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_told_in_order_and_ties_by_token() {
        let mut told = Vec::new();
        largest(&[1.0, 5.0, 3.0, 5.0, 4.0], 5.0, 3, |_, index, value| told.push((index, value)));
        assert_eq!(told, [(1, 5.0), (3, 5.0), (4, 4.0)]);
        let mut out = Vec::new();
        let a = [(TokenId(0), 2.0), (TokenId(1), 1.0)];
        let b = [(TokenId(9), 2.0), (TokenId(8), 1.5)];
        merge_top([&a[..], &b[..]].into_iter(), 2, &mut out);
        assert_eq!(out, [(TokenId(0), 2.0), (TokenId(9), 2.0)]);
    }

    #[test]
    fn nan_stands_before_every_number() {
        let (nan, token) = (f32::NAN, TokenId);
        for top in 1..=3 {
            let mut told = Vec::new();
            largest(&[1.0, 7.0, nan, 9.0, -nan], nan, top, |_, index, _| told.push(index));
            assert_eq!(told, [2, 4, 3][..top]);
        }
        let (a, b, c) = ([(token(1), 9.0)], [(token(20), -nan)], [(token(40), 10.0)]);
        for tiles in [[&a[..], &b[..], &c[..]], [&b[..], &c[..], &a[..]], [&c[..], &a[..], &b[..]]] {
            let mut out = Vec::new();
            merge_top(tiles.into_iter(), 1, &mut out);
            assert_eq!(out[0].0, token(20));
        }
    }

    #[test]
    fn one_nan_among_the_logits_leaves_no_statistic_finite_on_every_instruction_set() {
        for isa in Isa::available() {
            for (at, nan) in [(0, f32::NAN), (16, -f32::NAN), (20, f32::NAN)] {
                let mut logits = [1.0_f32; 2 * LANES];
                logits[at] = nan;
                for cap in [None, Some(30.0)] {
                    let line = LogitLine {
                        logits: logits.as_mut_ptr(),
                        width: 21,
                        bias: None,
                        scale: 1.0,
                        cap,
                        sum: true,
                    };
                    let mut partial = Partial { largest: 0.0, sum: 0.0 };
                    // SAFETY: two lines.
                    unsafe { finish_line(isa, &line, &mut partial) };
                    assert!(partial.largest.is_nan() && partial.sum.is_nan(), "{}", isa.name());
                    let healthy = Partial { largest: 1.0, sum: 1.0 };
                    let tiles = [[healthy, partial], [partial, healthy]];
                    assert!(tiles.into_iter().all(|it| !merge_logsumexp(it.into_iter()).is_finite()));
                }
            }
        }
    }

    #[test]
    fn logsumexp_of_tiles_is_that_of_the_whole() {
        let tiles = [Partial { largest: 1.0, sum: 1.0 }, Partial { largest: 3.0, sum: 2.0 }];
        let exact = (1.0_f64.exp() + 2.0 * 3.0_f64.exp()).ln();
        assert!((f64::from(merge_logsumexp(tiles.into_iter())) - exact).abs() < 1e-6);
    }
}
