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

use super::blocks::Piece;
use super::rows::{Line, Rows, Shared};
use super::simd::{Isa, LANES, Simd, with_isa};
use super::tiles::{K_CHUNK, Tile, run_tile};

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
    /// Quantized blocks, see [`super::blocks`].
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
    expect_room(weights, out);
    assert!(bias.is_none_or(|it| it.len() >= weights.panel_count()), "a line of bias for each panel");
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
    if groups > 0 {
        expect_room(group(0).weights, out);
    }
    out.resize(x.rows());
    let out = out.shared();
    run(isa, x, groups, group, 1, None, Some(out), finish);
}

/// Checks that rows have room for whole panels of a product's outputs.
fn expect_room(weights: &Matrix, out: &Rows) {
    let panels = weights.panel_count();
    assert!(panels <= out.vectors(), "{} outputs into {} columns", weights.n, out.cols());
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
    for index in 0..groups {
        let Group { weights, first, rows, column } = group(index);
        assert!(column + weights.steps() <= x.cols(), "the input's columns are the weights' inputs");
        assert!(first + rows <= x.rows(), "rows {first} to {} of {}", first + rows, x.rows());
        assert_eq!(weights.panel_count(), panels, "groups of one shape");
    }
    let mut cut = Cut::new(groups, largest, panels, unit, rayon::current_num_threads());
    if let Some(fixed) = panels_per_task {
        cut = Cut { panels_per_task: fixed, tasks: cut.row_blocks * panels.div_ceil(fixed), ..cut };
    }
    let input = Input { start: x.as_ptr(), stride: x.stride() };
    super::parallel(groups * cut.tasks, |task| {
        let (index, task) = (task / cut.tasks, task % cut.tasks);
        let Group { weights, first, rows, column } = group(index);
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
                // SAFETY: the rows and columns of every group lie in x, as checked above.
                x: unsafe { input.at(first + from, column) },
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
    /// Where a column of a row lies.
    ///
    /// # Safety
    /// Row and column must lie in the buffer.
    unsafe fn at(self, row: usize, column: usize) -> *const f32 {
        // SAFETY: in bounds by the caller's promise.
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
