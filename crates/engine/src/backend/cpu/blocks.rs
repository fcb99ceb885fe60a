//! Products with weights in quantized blocks.
//!
//! Blocks are those of the files, Q8_0 and Q4_K, laid out for 16 outputs at a time: what the outputs of a panel have for
//! the same 32 values of k lies together, so that a line of 16 integers is loaded as one.
//!
//! ```text
//! Q8_0, for each 32 of k:    d [16] in f16, q [32][16] signed bytes                                   544 bytes
//! Q4_K, for each 256 of k:   d [16], dmin [16] in f16, then for each 32 of them:                     2,368 bytes
//!                            s [16], m [16] in bytes, q [16][16] bytes: lower half k, upper half k + 1
//! ```
//!
//! That is 8.5 and 4.625 bits a weight (a file has 4.5: it packs s and m into 6 bits each). Integers become the f32 numbers
//! that the format's decoder makes of them, to the last bit: `d q` is rounded once, and of `d s q − dmin m` only the
//! difference is, because the products fit into 24 bits. From there on everything is as with weights in f32, the order
//! of summation too, so that results are those of the decoded weights, bit for bit.
//!
//! With few rows, a block's scales stay in registers while its lines are widened there and multiplied. With more rows a slice
//! of a panel is widened into the first-level cache first and serves all of them through the kernels for f32.

use super::simd::{LANES, Simd};
use super::tiles::{K_CHUNK, Step, Tile, widened};

/// Values of k that share a scale.
pub(super) const GROUP: usize = 32;

/// 32 bytes of packed blocks; all parts of them are multiples of it but scales and minima.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(super) struct Piece(pub(super) [u8; 32]);

/// Pieces as bytes.
pub(super) fn bytes_mut(pieces: &mut [Piece]) -> &mut [u8] {
    // SAFETY: a piece is 32 bytes without padding.
    unsafe { std::slice::from_raw_parts_mut(pieces.as_mut_ptr().cast(), size_of_val(pieces)) }
}

/// A kind of blocks, as panels have them.
pub(super) trait Blocks: Copy {
    /// Values of k in a block, and the bytes that it takes in a panel.
    const SIZE: (usize, usize);

    /// Bytes of a panel.
    fn panel_bytes(k: usize) -> usize {
        k / Self::SIZE.0 * Self::SIZE.1
    }

    /// Where group `index` of 32 values of k begins in a panel.
    fn place(index: usize) -> usize;
}

/// How blocks come into registers.
pub(super) trait Widen<S: Simd>: Blocks {
    /// What a group's integers are multiplied with, and what is taken away.
    type Scales: Copy;

    /// Those of group `index` of a panel.
    unsafe fn scales(panel: *const u8, index: usize) -> Self::Scales;

    /// The lines `2 pair` and `2 pair + 1` of the group that begins at `group`.
    unsafe fn lines(group: *const u8, pair: usize, scales: Self::Scales) -> [S::V; 2];
}

#[derive(Clone, Copy)]
pub(super) struct Q8_0;
#[derive(Clone, Copy)]
pub(super) struct Q4K;

impl Q8_0 {
    /// Where the integers begin in a group.
    pub(super) const INTEGERS: usize = 2 * LANES;
}

impl Q4K {
    /// Where a block's groups begin.
    pub(super) const GROUPS: usize = 4 * LANES;
    /// Bytes of a group.
    const GROUP_BYTES: usize = Self::INTEGERS + GROUP * LANES / 2;
    /// Where the integers begin in a group: after scales and minima.
    pub(super) const INTEGERS: usize = 2 * LANES;
}

impl Blocks for Q8_0 {
    const SIZE: (usize, usize) = (GROUP, Self::INTEGERS + GROUP * LANES);

    #[inline(always)]
    fn place(index: usize) -> usize {
        index * Self::SIZE.1
    }
}

impl Blocks for Q4K {
    const SIZE: (usize, usize) = (8 * GROUP, Self::GROUPS + 8 * Self::GROUP_BYTES);

    #[inline(always)]
    fn place(index: usize) -> usize {
        index / 8 * Self::SIZE.1 + Self::GROUPS + index % 8 * Self::GROUP_BYTES
    }
}

impl<S: Simd> Widen<S> for Q8_0 {
    type Scales = S::V;

    #[inline(always)]
    unsafe fn scales(panel: *const u8, index: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(panel.add(Self::place(index)).cast()) }
    }

    #[inline(always)]
    unsafe fn lines(group: *const u8, pair: usize, d: S::V) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let line: *const i8 = group.add(Self::INTEGERS + 2 * pair * LANES).cast();
            [S::mul(d, S::load_i8(line)), S::mul(d, S::load_i8(line.add(LANES)))]
        }
    }
}

impl<S: Simd> Widen<S> for Q4K {
    type Scales = (S::V, S::V);

    #[inline(always)]
    unsafe fn scales(panel: *const u8, index: usize) -> (S::V, S::V) {
        // SAFETY: the caller's promise.
        unsafe {
            let block: *const u16 = panel.add(index / 8 * Self::SIZE.1).cast();
            let group = panel.add(Self::place(index));
            let scale = S::mul(S::load_f16(block), S::load_u8(group));
            (scale, S::mul(S::load_f16(block.add(LANES)), S::load_u8(group.add(LANES))))
        }
    }

    #[inline(always)]
    unsafe fn lines(group: *const u8, pair: usize, (scale, minimum): (S::V, S::V)) -> [S::V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let [low, high] = S::load_nibbles(group.add(Self::INTEGERS + pair * LANES));
            // The product is exact: fused or not, this is rounded once.
            [S::sub(S::mul(scale, low), minimum), S::sub(S::mul(scale, high), minimum)]
        }
    }
}

/// `R` rows × `P` panels in registers: y (+)= x Wᵀ over one chunk of k, from group `first` of each panel on.
#[inline(always)]
unsafe fn few_rows<S: Simd, W: Widen<S>, const R: usize, const P: usize>(
    step: Step,
    panels: *const u8,
    first: usize,
) {
    // SAFETY: the tile's pointers cover R rows of x and y and P panels; `tile` sees to it.
    unsafe {
        let mut sums = [[S::splat(0.0); P]; R];
        for group in 0..step.k / GROUP {
            // No closures here: only loops take on the instruction set.
            let mut scales = [W::scales(panels, first + group); P];
            for (p, scales) in scales.iter_mut().enumerate().skip(1) {
                *scales = W::scales(panels.add(p * step.panel_stride), first + group);
            }
            let place = W::place(first + group);
            for pair in 0..GROUP / 2 {
                let k = group * GROUP + 2 * pair;
                for (p, scales) in scales.iter().enumerate() {
                    let panel = panels.add(p * step.panel_stride);
                    let [even, odd] = W::lines(panel.add(place), pair, *scales);
                    for (r, row) in sums.iter_mut().enumerate() {
                        let x = step.x.add(r * step.x_stride + k);
                        row[p] = S::fma(S::splat(*x), even, row[p]);
                        row[p] = S::fma(S::splat(*x.add(1)), odd, row[p]);
                    }
                }
            }
        }
        for (r, row) in sums.iter().enumerate() {
            for (p, sum) in row.iter().enumerate() {
                let y = step.y.add(r * step.y_stride + p * LANES);
                S::store(y, if step.first { *sum } else { S::add(S::load(y), *sum) });
            }
        }
    }
}

/// Widens a slice of a panel.
#[inline(always)]
unsafe fn widen<S: Simd, W: Widen<S>>(panel: *const u8, first: usize, k: usize, to: *mut f32) {
    // SAFETY: the panel has these groups, and `to` has room for k lines.
    unsafe {
        for group in 0..k / GROUP {
            let scales = W::scales(panel, first + group);
            let from = panel.add(W::place(first + group));
            for pair in 0..GROUP / 2 {
                let [even, odd] = W::lines(from, pair, scales);
                let to = to.add((group * GROUP + 2 * pair) * LANES);
                S::store(to, even);
                S::store(to.add(LANES), odd);
            }
        }
    }
}

/// How many of the panels that are left are worked on at once: several for few rows, whose sums are too few to hide
/// the latency of multiply-add.
#[inline(always)]
fn panels_at_once<S: Simd>(rows: usize, left: usize) -> usize {
    let wanted = match rows {
        1 if S::ACCUMULATORS >= 24 => 4,
        2 | 3 if S::ACCUMULATORS >= 24 => 2,
        1 if S::ACCUMULATORS >= 4 => 2,
        _ => 1,
    };
    if wanted <= left { wanted } else { 1 }
}

/// All rows and panels of a tile; `weights` are the matrix's panels.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, W: Widen<S>>(tile: &Tile<'_>, weights: &[Piece]) {
    let k = tile.matrix.k;
    let stride = W::panel_bytes(k);
    let weights: *const u8 = weights.as_ptr().cast();
    // SAFETY: `Tile` is only made by `matmul::run`, whose bounds it keeps.
    unsafe {
        let panels = weights.add(tile.panel * stride);
        for from in (0..k).step_by(K_CHUNK) {
            let first = from / GROUP;
            let mut panel = 0;
            while panel < tile.panels {
                let count = panels_at_once::<S>(tile.rows, tile.panels - panel);
                let step = tile.step(panel, from, k, stride);
                let at = panels.add(panel * stride);
                match (tile.rows, count) {
                    (1, 4) => few_rows::<S, W, 1, 4>(step, at, first),
                    (1, 2) => few_rows::<S, W, 1, 2>(step, at, first),
                    (1, 1) => few_rows::<S, W, 1, 1>(step, at, first),
                    (2, 2) => few_rows::<S, W, 2, 2>(step, at, first),
                    (3, 2) => few_rows::<S, W, 3, 2>(step, at, first),
                    _ => {
                        widen::<S, W>(at, first, step.k, tile.widened);
                        let next = if panel + 1 < tile.panels {
                            at.add(stride + W::place(first))
                        } else if from + K_CHUNK < k {
                            panels.add(W::place((from + K_CHUNK) / GROUP))
                        } else {
                            std::ptr::null()
                        };
                        widened::<S>(tile, step, next, W::SIZE.1.div_ceil(W::SIZE.0));
                    }
                }
                panel += count;
            }
        }
    }
}
