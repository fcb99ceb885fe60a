//! Products with a weight matrix that never changes: `y = x Wᵀ`, x `[m, k]`, W `[n, k]`, y `[m, n]`.
//!
//! The weights are packed once into panels of 16 outputs, `[n / 16][k][16]`, in their own precision. The
//! micro-kernel holds up to [`Simd::ACCUMULATORS`] rows × 16 outputs in registers and walks along k: per step one
//! line of weights and one broadcast number per row. Half-precision weights are widened in registers when they
//! serve one group of rows, and into a buffer in the first-level cache when they serve several.
//!
//! **The order of summation never depends on the batch.** Every output is a sum of partial sums over [`K_CHUNK`]
//! values of k, each a single chain of multiply-adds in order of k, whichever kernel computes it. So a row's
//! result has the same bits whatever rows are computed beside it, on one thread or many.
//!
//! **Products of bf16 with bf16** ([`Arithmetic::Bf16`](crate::backend::Arithmetic)) read x rounded to bf16
//! ([`super::rounding`]). Where the processor has AVX512-BF16, weights are packed as pairs along k,
//! `[n / 16][k / 2][16][2]`, and a step of the kernels above is a step over two values of k: one line of pairs, one
//! broadcast pair per row, one `vdpbf16ps` that adds both products to a sum in f32. Everything else stays as it is.
//! The instruction takes subnormal numbers for zeros, and how it rounds between its two additions is the
//! processor's affair; so bits are those of the same kind of processor, with an error of at most two roundings a
//! step. Elsewhere the f32 kernels multiply the rounded numbers, whose products are exact in f32.

use super::blocks::{self, Piece, Q4K, Q8_0};
use super::rows::{Line, Rows, Shared};
#[cfg(target_arch = "x86_64")]
use super::simd::Avx512;
use super::simd::{Isa, LANES, Simd, with_isa};

/// Steps summed in one chain: values of k, or pairs of them. A panel's slice of so many lines is 24 KiB: it stays
/// in a first-level cache of 32 KiB beside the rows.
pub(super) const K_CHUNK: usize = 384;

/// Rows of x that one task works on: 192 rows of 1,536 f32 are 1.1 MiB, about a second-level cache.
const ROW_BLOCK: usize = 192;

/// A packed weight matrix `[n, k]`.
pub struct Matrix {
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) panels: Panels,
    /// What outputs are multiplied with, a line for each panel; empty: nothing.
    pub(super) scales: Vec<Line>,
}

/// Panels of 16 outputs, `[n / 16][k][16]`, the last one filled up with zeros.
pub(super) enum Panels {
    F32(Vec<Line>),
    Bf16(Vec<HalfLine>),
    F16(Vec<HalfLine>),
    /// `[n / 16][k / 2][16][2]` in bf16; of an odd k the last number's partner is zero. Only where the processor
    /// [multiplies pairs](Isa::multiplies_bf16).
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "no other processor's pairs are used")
    )]
    Bf16Pairs(Vec<PairLine>),
    /// Quantized blocks, see [`blocks`].
    Q8_0(Vec<Piece>),
    Q4K(Vec<Piece>),
    /// Matrices of the same k, one after the other, each of whole panels.
    Several(Vec<Matrix>),
}

/// Sixteen pairs of bf16 numbers, the one of the lower k in the lower half.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct PairLine(pub(super) [u32; LANES]);

/// Sixteen half-precision numbers.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(super) struct HalfLine(pub(super) [u16; LANES]);

impl Matrix {
    /// A matrix whose outputs are as its panels have them.
    pub(super) fn new(n: usize, k: usize, panels: Panels) -> Self {
        Self { n, k, panels, scales: Vec::new() }
    }

    /// Panels of 16 outputs.
    pub(super) fn panel_count(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// Whether it is multiplied by pairs.
    pub(super) fn in_pairs(&self) -> bool {
        matches!(self.panels, Panels::Bf16Pairs(_))
    }

    /// Lines of a panel, and columns of what it is multiplied with: k, or half of it.
    pub(super) fn steps(&self) -> usize {
        if self.in_pairs() { self.k.div_ceil(2) } else { self.k }
    }

    /// Memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(lines) => size_of_val(lines.as_slice()),
            Panels::Bf16(lines) | Panels::F16(lines) => size_of_val(lines.as_slice()),
            Panels::Bf16Pairs(lines) => size_of_val(lines.as_slice()),
            Panels::Q8_0(pieces) | Panels::Q4K(pieces) => size_of_val(pieces.as_slice()),
            Panels::Several(matrices) => matrices.iter().map(Self::bytes).sum(),
        }
    }
}

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
                let step = Step {
                    x: tile.x.add(from),
                    x_stride: tile.x_stride,
                    y: tile.y.add(panel * LANES),
                    y_stride: tile.y_stride,
                    k: K_CHUNK.min(k - from),
                    panel_stride: k * LANES,
                    first: from == 0,
                    ahead: Ahead::NOTHING,
                };
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

unsafe fn run_tile(isa: Isa, tile: &Tile<'_>) {
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

/// Rows of x, one after the other, and the weights that their numbers from a column on are multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) weights: &'a Matrix,
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
}

/// What a task computed: rows × panels of y, still in a cache.
pub(super) struct Computed {
    /// The group of rows that it belongs to.
    pub(super) group: usize,
    /// The first row.
    pub(super) row: usize,
    /// How many rows.
    pub(super) rows: usize,
    /// The first panel.
    pub(super) panel: usize,
    /// How many panels.
    pub(super) panels: usize,
    /// Row `row`, panel `panel`.
    pub(super) y: *mut f32,
    /// Numbers from one row of y to the next.
    pub(super) stride: usize,
}

/// How the work is cut into tasks.
struct Cut {
    row_blocks: usize,
    panels_per_task: usize,
    /// Of each group.
    tasks: usize,
}

impl Cut {
    /// Tasks of a multiple of `unit` panels: several per thread, so that a slow thread is helped out.
    fn new(groups: usize, rows: usize, panels: usize, unit: usize, threads: usize) -> Self {
        const TASKS_PER_THREAD: usize = 6;
        // Fewer panels than this would leave a single row too few independent sums.
        const SMALLEST: usize = 4;
        let row_blocks = rows.div_ceil(ROW_BLOCK);
        let wanted = (threads * TASKS_PER_THREAD).div_ceil(groups * row_blocks);
        let per_task = if threads == 1 { panels.min(32) } else { panels.div_ceil(wanted) };
        let panels_per_task = per_task.max(SMALLEST).next_multiple_of(unit);
        Self { row_blocks, panels_per_task, tasks: row_blocks * panels.div_ceil(panels_per_task) }
    }
}

thread_local! {
    /// A thread's scratch memory: a widened panel slice, then a tile of outputs.
    static SCRATCH: std::cell::RefCell<Vec<Line>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The first-level buffer for a widened panel slice and, behind it, a tile of so many lines.
fn with_scratch<T>(tile_lines: usize, f: impl FnOnce(*mut f32, *mut f32) -> T) -> T {
    SCRATCH.with_borrow_mut(|lines| {
        if lines.len() < K_CHUNK + tile_lines {
            lines.resize(K_CHUNK + tile_lines, Line::default());
        }
        let start = lines.as_mut_ptr().cast::<f32>();
        // SAFETY: the buffer holds K_CHUNK lines and a tile behind them.
        f(start, unsafe { start.add(K_CHUNK * LANES) })
    })
}

/// `y = x Wᵀ` straight into a buffer.
pub(super) fn product(isa: Isa, x: &Rows, weights: &Matrix, bias: Option<&[Line]>, out: &mut Rows) {
    out.resize(x.rows());
    let out = out.shared();
    run(
        isa,
        x,
        1,
        |_| all(x, weights),
        1,
        None,
        Some(out),
        |done| {
            if let Some(bias) = bias {
                // SAFETY: the task owns these rows and panels; a bias covers all panels.
                unsafe { add_bias(isa, &done, &bias[done.panel..]) }
            }
        },
    );
}

/// `y = x Wᵀ` tile by tile into scratch memory; `consume` sees each tile while it is in the cache.
///
/// Tasks have `panels_per_task` panels if given, else a multiple of `unit`.
pub(super) fn product_tiles(
    isa: Isa,
    x: &Rows,
    weights: &Matrix,
    unit: usize,
    panels_per_task: Option<usize>,
    consume: impl Fn(Computed) + Sync,
) {
    run(isa, x, 1, |_| all(x, weights), unit, panels_per_task, None, consume);
}

/// The same for groups of rows that are multiplied with matrices of their own, all of one shape.
pub(super) fn grouped_product_tiles<'a>(
    isa: Isa,
    x: &Rows,
    groups: usize,
    group: impl Fn(usize) -> Group<'a> + Sync,
    unit: usize,
    consume: impl Fn(Computed) + Sync,
) {
    run(isa, x, groups, group, unit, None, None, consume);
}

/// [`product`] for groups of rows, without biases; `finish` sees each tile of the buffer while it is in the cache.
pub(super) fn grouped_product<'a>(
    isa: Isa,
    x: &Rows,
    groups: usize,
    group: impl Fn(usize) -> Group<'a> + Sync,
    out: &mut Rows,
    finish: impl Fn(Computed) + Sync,
) {
    out.resize(x.rows());
    let out = out.shared();
    run(isa, x, groups, group, 1, None, Some(out), finish);
}

fn all<'a>(x: &Rows, weights: &'a Matrix) -> Group<'a> {
    assert_eq!(x.cols(), weights.steps(), "the input's columns are the weights' inputs");
    Group { weights, first: 0, rows: x.rows(), column: 0 }
}

#[expect(clippy::too_many_arguments, reason = "what the functions above differ in")]
fn run<'a>(
    isa: Isa,
    x: &Rows,
    groups: usize,
    group: impl Fn(usize) -> Group<'a> + Sync,
    unit: usize,
    panels_per_task: Option<usize>,
    out: Option<Shared>,
    consume: impl Fn(Computed) + Sync,
) {
    let largest = (0..groups).map(|it| group(it).rows).max().unwrap_or(0);
    if largest == 0 {
        return;
    }
    let panels = group(0).weights.panel_count();
    let mut cut = Cut::new(groups, largest, panels, unit, rayon::current_num_threads());
    if let Some(fixed) = panels_per_task {
        cut = Cut { panels_per_task: fixed, tasks: cut.row_blocks * panels.div_ceil(fixed), ..cut };
    }
    let input = Input { start: x.as_ptr(), stride: x.stride() };
    super::parallel(groups * cut.tasks, |task| {
        let (index, task) = (task / cut.tasks, task % cut.tasks);
        let Group { weights, first, rows, column } = group(index);
        assert!(column + weights.steps() <= x.cols(), "the input's columns are the weights' inputs");
        // Neighbouring tasks share weights, not rows: weights are the larger part to bring in.
        let (block, chunk) = (task % cut.row_blocks, task / cut.row_blocks);
        let (from, to) = (block * rows / cut.row_blocks, (block + 1) * rows / cut.row_blocks);
        if from == to {
            return;
        }
        let panel = chunk * cut.panels_per_task;
        let count = cut.panels_per_task.min(panels - panel);
        let tile_lines = if out.is_some() { 0 } else { (to - from) * (count | 1) };
        with_scratch(tile_lines, |widened, scratch| {
            let (y, y_stride) = match out {
                // SAFETY: tasks have disjoint rows and panels of a buffer that covers all of both.
                Some(out) => (unsafe { out.at(first + from, panel * LANES) }, out.stride()),
                None => (scratch, (count | 1) * LANES),
            };
            let tile = Tile {
                matrix: weights,
                x: input.at(first + from, column),
                x_stride: input.stride,
                rows: to - from,
                panel,
                panels: count,
                y,
                y_stride,
                widened,
            };
            // SAFETY: x has these rows and k columns; y has these rows and panels, here or in scratch memory.
            unsafe { run_tile(isa, &tile) };
            let row = first + from;
            let done =
                Computed { group: index, row, rows: to - from, panel, panels: count, y, stride: y_stride };
            if !weights.scales.is_empty() {
                // SAFETY: the task owns these rows and panels; there is a line for each panel.
                unsafe { scale(isa, &done, &weights.scales[panel..]) }
            }
            consume(done);
        });
    });
}

/// x, read from several threads.
#[derive(Clone, Copy)]
struct Input {
    start: *const f32,
    stride: usize,
}

// SAFETY: the buffer behind it is borrowed for the whole product and only read.
unsafe impl Sync for Input {}

impl Input {
    fn at(self, row: usize, column: usize) -> *const f32 {
        // SAFETY: callers ask for places in the buffer.
        unsafe { self.start.add(row * self.stride + column) }
    }
}

#[inline(always)]
unsafe fn add_bias_kernel<S: Simd>(tile: &Computed, bias: &[Line]) {
    // SAFETY: the tile has these rows and panels; the caller gave a bias for each panel.
    unsafe {
        for row in 0..tile.rows {
            for (panel, bias) in bias[..tile.panels].iter().enumerate() {
                let y = tile.y.add(row * tile.stride + panel * LANES);
                S::store(y, S::add(S::load(y), S::load(bias.0.as_ptr())));
            }
        }
    }
}
with_isa! { pub(super) unsafe fn add_bias(tile: &Computed, bias: &[Line]) = add_bias_kernel }

#[inline(always)]
unsafe fn scale_kernel<S: Simd>(tile: &Computed, scales: &[Line]) {
    // SAFETY: the tile has these rows and panels; the caller gave a line for each panel.
    unsafe {
        for row in 0..tile.rows {
            for (panel, scales) in scales[..tile.panels].iter().enumerate() {
                let y = tile.y.add(row * tile.stride + panel * LANES);
                S::store(y, S::mul(S::load(y), S::load(scales.0.as_ptr())));
            }
        }
    }
}
with_isa! { unsafe fn scale(tile: &Computed, scales: &[Line]) = scale_kernel }
