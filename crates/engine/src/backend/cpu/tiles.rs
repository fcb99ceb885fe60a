//! Micro-kernels: one tile of a product, some rows × some panels of weights.
//!
//! How weights are packed, and why bits do not depend on the batch, is said in [`super::matmul`].

use super::blocks::{self, Q4K, Q8_0};
use super::matmul::{Matrix, PairLine, Panels};
#[cfg(target_arch = "x86_64")]
use super::simd::Avx512;
use super::simd::{Isa, LANES, Simd, with_isa};

/// Steps summed in one chain: values of k, or pairs of them. A panel's slice of so many lines is 24 KiB: it stays
/// in a first-level cache of 32 KiB beside the rows.
pub(super) const K_CHUNK: usize = 384;

/// How weights of one kind come into registers and are multiplied there.
trait Storage<S: Simd>: Copy {
    type Element: Copy;
    /// Whether weights are multiplied as they are stored.
    const WIDE: bool = false;
    unsafe fn load(from: *const Self::Element) -> S::V;
    /// `sum + x w`, x being four bytes of a row in every lane.
    #[inline(always)]
    unsafe fn multiply_add(x: S::V, w: S::V, sum: S::V) -> S::V {
        // SAFETY: register arithmetic; the caller promises the instruction set.
        unsafe { S::fma(x, w, sum) }
    }
}

#[derive(Clone, Copy)]
struct F32;
#[derive(Clone, Copy)]
struct Bf16;
#[derive(Clone, Copy)]
struct F16;
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Bf16Pairs;

impl<S: Simd> Storage<S> for F32 {
    type Element = f32;
    const WIDE: bool = true;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }
}
impl<S: Simd> Storage<S> for Bf16 {
    type Element = u16;
    #[inline(always)]
    unsafe fn load(from: *const u16) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16(from) }
    }
}
impl<S: Simd> Storage<S> for F16 {
    type Element = u16;
    #[inline(always)]
    unsafe fn load(from: *const u16) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from) }
    }
}
#[cfg(target_arch = "x86_64")]
impl Storage<Avx512> for Bf16Pairs {
    type Element = u32;
    const WIDE: bool = true;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise. Loads move bits, whatever they mean.
        unsafe { Avx512::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn multiply_add(
        x: std::arch::x86_64::__m512,
        w: std::arch::x86_64::__m512,
        sum: std::arch::x86_64::__m512,
    ) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
        // SAFETY: only reached through `pairs_tile`, which enables AVX512-BF16; 32 bf16 have the size of 16 f32.
        unsafe {
            let pairs = |it| std::mem::transmute::<__m512, __m512bh>(it);
            _mm512_dpbf16_ps(sum, pairs(x), pairs(w))
        }
    }
}

/// A block of rows of x and y, and a run of panels: what one call of the kernel computes.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    pub(super) rows: usize,
    pub(super) panel: usize,
    pub(super) panels: usize,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Room for a widened slice of a panel, `K_CHUNK` lines.
    pub(super) widened: *mut f32,
}

impl Tile<'_> {
    /// The walk over a panel's slice of up to [`K_CHUNK`] of all `k` steps, from `from` on.
    ///
    /// # Safety
    /// The tile must have this panel, and its rows so many steps.
    #[inline(always)]
    pub(super) unsafe fn step(&self, panel: usize, from: usize, k: usize, panel_stride: usize) -> Step {
        // SAFETY: in bounds by the caller's promise.
        let (x, y) = unsafe { (self.x.add(from), self.y.add(panel * LANES)) };
        Step {
            x,
            x_stride: self.x_stride,
            y,
            y_stride: self.y_stride,
            k: K_CHUNK.min(k - from),
            panel_stride,
            first: from == 0,
            ahead: Ahead::NOTHING,
        }
    }
}

/// A walk over the rows of one panel slice.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    pub(super) k: usize,
    /// From one panel of weights to the next, in elements.
    pub(super) panel_stride: usize,
    pub(super) first: bool,
    pub(super) ahead: Ahead,
}

/// Weights that are needed next, asked for while the present ones are worked on.
///
/// With some 100 rows a slice of a panel is worked on for three times as long as it takes to come from memory:
/// asked for early, weights cost no time at all. Every step of k asks for a line, several times the same.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first byte that the present group of rows asks for; null: nothing comes next.
    at: *const u8,
    /// Bytes from one step of k to the next.
    stride: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self { at: std::ptr::null(), stride: 0 };

    /// The part of a slice that group `group` of `groups` asks for, lines of `line` bytes for each step of k.
    fn share(slice: *const u8, k: usize, line: usize, group: usize, groups: usize) -> Self {
        if slice.is_null() {
            return Self::NOTHING;
        }
        let stride = line.div_ceil(groups);
        Self { at: slice.wrapping_add(group * k * stride), stride }
    }
}

/// `R` rows × `P` panels in registers: y (+)= x Wᵀ over one chunk of k.
#[inline(always)]
unsafe fn micro_kernel<S: Simd, W: Storage<S>, const R: usize, const P: usize>(
    step: Step,
    w: *const W::Element,
) {
    // SAFETY: the tile's pointers cover R rows of x and y and P panels of w; `tile_kernel` sees to it.
    unsafe {
        let mut sums = [[S::splat(0.0); P]; R];
        for k in 0..step.k {
            let mut weights = [S::splat(0.0); P];
            for (p, weight) in weights.iter_mut().enumerate() {
                *weight = W::load(w.add(p * step.panel_stride + k * LANES));
            }
            if P <= TOGETHER && R > 4 {
                for p in 0..P {
                    let panel = p * step.panel_stride * size_of::<W::Element>();
                    S::prefetch(step.ahead.at.wrapping_add(panel + k * step.ahead.stride));
                }
            }
            for (r, row) in sums.iter_mut().enumerate() {
                let x = S::splat(*step.x.add(r * step.x_stride + k));
                for (sum, weight) in row.iter_mut().zip(weights) {
                    *sum = W::multiply_add(x, weight, *sum);
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

/// Panels on which many rows are multiplied at once where the registers allow it: each broadcast number then
/// serves two multiply-adds, which takes half the loads and half the traffic of x out of the second-level cache.
const TOGETHER: usize = 2;

/// One group of up to `S::ACCUMULATORS / TOGETHER` rows, at most 12, on two panels.
#[inline(always)]
unsafe fn two_panels<S: Simd, W: Storage<S>>(rows: usize, step: Step, w: *const W::Element) {
    macro_rules! rows {
        ($($n:literal)*) => {
            match rows {
                $($n if TOGETHER * $n <= S::ACCUMULATORS => micro_kernel::<S, W, $n, TOGETHER>(step, w),)*
                _ => unreachable!("row groups are no larger than the registers allow"),
            }
        };
    }
    // SAFETY: as the caller promises.
    unsafe { rows!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// One group of up to `S::ACCUMULATORS` rows on one panel.
#[inline(always)]
unsafe fn one_panel<S: Simd, W: Storage<S>>(rows: usize, step: Step, w: *const W::Element) {
    macro_rules! rows {
        ($($n:literal)*) => {
            match rows {
                $($n if $n <= S::ACCUMULATORS => micro_kernel::<S, W, $n, 1>(step, w),)*
                _ => unreachable!("row groups are no larger than the registers allow"),
            }
        };
    }
    // SAFETY: as the caller promises.
    unsafe { rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24) }
}

/// How many of the panels that are left are worked on at once.
///
/// A few rows need several for enough independent sums to hide the latency of multiply-add.
#[inline(always)]
fn panels_at_once<S: Simd, W: Storage<S>>(rows: usize, left: usize) -> usize {
    let wanted = match rows {
        1 if S::ACCUMULATORS >= 24 => 8,
        2 | 3 if S::ACCUMULATORS >= 24 => 4,
        4 if S::ACCUMULATORS >= 24 => TOGETHER,
        // Half-precision weights are widened for one panel at a time.
        _ if S::ACCUMULATORS >= 24 && W::WIDE => TOGETHER,
        1 if S::ACCUMULATORS >= 4 => 4,
        _ => 1,
    };
    if wanted <= left { wanted } else { 1 }
}

/// All rows of a tile in as few groups as the registers allow, of as equal size as possible.
#[inline(always)]
fn groups(rows: usize, largest: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(largest);
    (0..count).map(move |group| {
        let (from, to) = (group * rows / count, (group + 1) * rows / count);
        (from, to - from)
    })
}

/// All rows of a tile on `count` panels, as many as [`panels_at_once`] said.
///
/// `next` is the slice of weights that is needed after these, null if there is none.
#[inline(always)]
unsafe fn panels<S: Simd, W: Storage<S>>(
    tile: &Tile<'_>,
    count: usize,
    step: Step,
    w: *const W::Element,
    next: *const W::Element,
) {
    let line = LANES * size_of::<W::Element>();
    let ahead = |group, groups| Ahead::share(next.cast(), step.k, line, group, groups);
    // SAFETY: the tile's pointers cover what the groups touch.
    unsafe {
        match (tile.rows, count) {
            (1, 8) => micro_kernel::<S, W, 1, 8>(step, w),
            (1, 4) => micro_kernel::<S, W, 1, 4>(step, w),
            (2, 4) => micro_kernel::<S, W, 2, 4>(step, w),
            (3, 4) => micro_kernel::<S, W, 3, 4>(step, w),
            (rows, TOGETHER) => {
                let most = S::ACCUMULATORS / TOGETHER;
                let all = rows.div_ceil(most);
                for (group, (row, rows)) in groups(rows, most).enumerate() {
                    two_panels::<S, W>(rows, step.of_rows(row, ahead(group, all)), w);
                }
            }
            (rows, _) => {
                let all = rows.div_ceil(S::ACCUMULATORS);
                if !W::WIDE && all > 1 {
                    for k in 0..step.k {
                        S::store(tile.widened.add(k * LANES), W::load(w.add(k * LANES)));
                    }
                    return widened::<S>(tile, step, next.cast(), line);
                }
                for (group, (row, rows)) in groups(rows, S::ACCUMULATORS).enumerate() {
                    one_panel::<S, W>(rows, step.of_rows(row, ahead(group, all)), w);
                }
            }
        }
    }
}

/// All rows of a tile on one panel, of which a slice has been widened; `next` is the slice that is needed after it, of
/// about `line` bytes for each value of k.
#[inline(always)]
pub(super) unsafe fn widened<S: Simd>(tile: &Tile<'_>, step: Step, next: *const u8, line: usize) {
    let all = tile.rows.div_ceil(S::ACCUMULATORS);
    // SAFETY: the tile's pointers cover what the groups touch.
    unsafe {
        for (group, (row, rows)) in groups(tile.rows, S::ACCUMULATORS).enumerate() {
            let ahead = Ahead::share(next, step.k, line, group, all);
            one_panel::<S, F32>(rows, step.of_rows(row, ahead), tile.widened);
        }
    }
}

impl Step {
    /// The same step for the group of rows that begins at `row`.
    #[inline(always)]
    unsafe fn of_rows(self, row: usize, ahead: Ahead) -> Self {
        // SAFETY: the caller promises that the tile has this row.
        unsafe {
            let x = self.x.add(row * self.x_stride);
            Self { x, y: self.y.add(row * self.y_stride), ahead, ..self }
        }
    }
}

#[inline(always)]
unsafe fn tile_kernel<S: Simd>(tile: &Tile<'_>) {
    // SAFETY: the enum says what the pointers point to.
    unsafe {
        match &tile.matrix.panels {
            Panels::F32(lines) => tile_of::<S, F32>(tile, lines.as_ptr().cast()),
            Panels::Bf16(lines) => tile_of::<S, Bf16>(tile, lines.as_ptr().cast()),
            Panels::F16(lines) => tile_of::<S, F16>(tile, lines.as_ptr().cast()),
            Panels::Q8_0(pieces) => blocks::tile::<S, Q8_0>(tile, pieces),
            Panels::Q4K(pieces) => blocks::tile::<S, Q4K>(tile, pieces),
            Panels::Bf16Pairs(_) | Panels::Several(_) => unreachable!("`run_tile` sees to these"),
        }
    }
}

#[inline(always)]
unsafe fn tile_of<S: Simd, W: Storage<S>>(tile: &Tile<'_>, weights: *const W::Element) {
    let k = tile.matrix.steps();
    // SAFETY: `Tile` is only made by `run`, whose bounds it keeps.
    unsafe {
        let slice = |panel: usize, from: usize| weights.add(((tile.panel + panel) * k + from) * LANES);
        for from in (0..k).step_by(K_CHUNK) {
            let mut panel = 0;
            while panel < tile.panels {
                let count = panels_at_once::<S, W>(tile.rows, tile.panels - panel);
                let next = if panel + count < tile.panels {
                    slice(panel + count, from)
                } else if from + K_CHUNK < k {
                    slice(0, from + K_CHUNK)
                } else {
                    std::ptr::null()
                };
                let step = tile.step(panel, from, k, k * LANES);
                panels::<S, W>(tile, count, step, slice(panel, from), next);
                panel += count;
            }
        }
    }
}

with_isa! { unsafe fn run_f32_tile(tile: &Tile<'_>) = tile_kernel }

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16,avx2,fma,f16c")]
unsafe fn run_pairs_tile(tile: &Tile<'_>, weights: &[PairLine]) {
    // SAFETY: as promised by the caller; the features are enabled here.
    unsafe { tile_of::<Avx512, Bf16Pairs>(tile, weights.as_ptr().cast()) }
}

pub(super) unsafe fn run_tile(isa: Isa, tile: &Tile<'_>) {
    // SAFETY: as the caller promises; pairs are only packed for instruction sets that multiply them.
    unsafe {
        match &tile.matrix.panels {
            #[cfg(target_arch = "x86_64")]
            Panels::Bf16Pairs(weights) => run_pairs_tile(tile, weights),
            Panels::Several(matrices) => {
                let (begin, end, mut first) = (tile.panel, tile.panel + tile.panels, 0);
                for matrix in matrices {
                    let last = first + matrix.panel_count();
                    let (from, to) = (begin.max(first), end.min(last));
                    if from < to {
                        let y = tile.y.add((from - begin) * LANES);
                        run_tile(isa, &Tile { matrix, panel: from - first, panels: to - from, y, ..*tile });
                    }
                    first = last;
                }
            }
            _ => run_f32_tile(isa, tile),
        }
    }
}
