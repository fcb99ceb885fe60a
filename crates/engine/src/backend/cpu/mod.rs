//! The processor, with packed weights and fused kernels.
//!
//! Weights are packed once, in f32, bf16, f16 or quantized blocks; arithmetic is f32, or for products bf16. Kernels are
//! compiled for each instruction set that the architecture has and chosen at run time. A row's results have the same bits
//! whatever else is in the batch, however many threads there are: see the modules `matmul`, `attention` and `head` for how.

#![allow(
    clippy::inline_always,
    reason = "a kernel takes on the instruction set of the function that it is inlined into; see `with_isa`"
)]

mod attention;
mod blocks;
mod contract;
mod experts;
mod head;
mod latent;
mod machine;
mod matmul;
mod pack;
mod recurrent;
mod rotary;
mod rounding;
mod routing;
mod rows;
mod rowwise;
mod simd;
mod streams;
mod tiles;

use checkpoint::Tensor;
use glossary::Edit;

pub use self::machine::Machine;
use self::rows::Line;
pub use self::simd::Isa;
use self::simd::LANES;
use super::{
    Arithmetic, AttentionShape, Backend, ConvolutionParams, Convolved, ExpertParams, HeadNorms, HeadOutput,
    HeadWants, LatentShape, NormParams, QuantizedPart, RecurrenceParams, Stacking, WeightDtype, WriteParams,
};
use crate::LoadError;
use crate::blueprint::{Activation, GateActivation, Rope};
use crate::plan::Plan;

pub(crate) use pack::check_finite;

/// The processor as a back end.
pub struct Cpu {
    isa: Isa,
    arithmetic: Arithmetic,
    head: head::HeadScratch,
    experts: experts::ExpertScratch,
    /// The input of a product in bf16, rounded.
    rounded: rows::Rows,
}

impl Cpu {
    /// The best instruction set that the processor has.
    pub fn new() -> Self {
        Self::with_isa(*Isa::available().last().expect("the portable set is always there"))
    }

    /// A chosen instruction set, one of [`Isa::available`].
    pub fn with_isa(isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this processor has no {}", isa.name());
        Self {
            isa,
            arithmetic: Arithmetic::F32,
            head: head::HeadScratch::default(),
            experts: experts::ExpertScratch::default(),
            rounded: rows::Rows::default(),
        }
    }

    /// The same with products in a chosen arithmetic.
    #[must_use]
    pub fn computing_in(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

/// A vector, padded with zeros to whole lines.
pub struct Vector {
    lines: Vec<Line>,
}

/// An embedding matrix: rows are decoded from the checkpoint as they are needed, so it takes no memory.
pub struct Table {
    tensor: Tensor,
    dtype: WeightDtype,
}

/// The edits of one writer by edit index.
pub struct Edits(Vec<Option<rowwise::EditLines>>);

/// Runs tasks on all threads; each is taken by the next free thread.
fn parallel(tasks: usize, f: impl Fn(usize) + Sync) {
    use rayon::prelude::*;
    if tasks == 1 {
        return f(0);
    }
    (0..tasks).into_par_iter().with_max_len(1).for_each(&f);
}

/// Like [`parallel`] for small tasks: at least `grain` of them at a time.
fn parallel_rows(rows: usize, grain: usize, f: impl Fn(usize) + Sync) {
    use rayon::prelude::*;
    if rows <= grain {
        return (0..rows).for_each(f);
    }
    (0..rows).into_par_iter().with_min_len(grain).for_each(&f);
}

/// What a product reads: x itself, or x rounded.
fn input<'a>(
    isa: Isa,
    arithmetic: Arithmetic,
    x: &'a rows::Rows,
    weights: &matmul::Matrix,
    rounded: &'a mut rows::Rows,
) -> &'a rows::Rows {
    match arithmetic {
        Arithmetic::F32 => x,
        Arithmetic::Bf16 => {
            assert_eq!(x.cols(), weights.k, "the input's columns are the weights' inputs");
            rounding::round_rows(isa, x, weights, rounded);
            rounded
        }
    }
}

/// Makes the outputs of a gated layer of a computed tile of gate and up projections.
///
/// # Safety
/// No other thread may touch these rows and columns of the output.
unsafe fn gate(
    isa: Isa,
    done: &matmul::Computed,
    bias: Option<&Vector>,
    activation: Activation,
    out: rows::Shared,
) {
    let pair = done.panel / 2;
    let bias = bias.map(|it| {
        let (gate, up) = it.lines.split_at(it.lines.len() / 2);
        (&gate[pair..], &up[pair..])
    });
    let tile = rowwise::GateTile {
        rows: done.rows,
        pairs: done.panels / 2,
        y: done.y,
        y_stride: done.stride,
        bias,
        activation,
        // SAFETY: as the caller promises.
        out: unsafe { out.at(done.row, pair * LANES) },
        out_stride: out.stride(),
    };
    // SAFETY: the tile has these rows and panels.
    unsafe { rowwise::gate(isa, &tile) }
}

/// Adds the bias to a computed tile and puts it through the activation, in place.
///
/// # Safety
/// No other thread may touch the tile.
unsafe fn activate(isa: Isa, done: &matmul::Computed, bias: Option<&Vector>, activation: Activation) {
    // SAFETY: the tile has these rows and panels; a bias covers all panels.
    unsafe {
        if let Some(bias) = bias {
            matmul::add_bias(isa, done, &bias.lines[done.panel..]);
        }
        for row in 0..done.rows {
            rowwise::gate_by(isa, activation, done.panels, done.y.add(row * done.stride), None);
        }
    }
}

fn norm_view(norm: &NormParams<Vector>) -> rowwise::NormView<'_> {
    rowwise::NormView {
        kind: norm.kind,
        gain: &norm.gain.lines,
        bias: norm.bias.as_ref().map(|it| it.lines.as_slice()),
        epsilon: norm.epsilon,
        width: norm.width,
    }
}

/// Rows that one thread takes at a time in row-wise operations.
const ROW_GRAIN: usize = 4;

impl Backend for Cpu {
    type Matrix = matmul::Matrix;
    type Vector = Vector;
    type Table = Table;
    type Rows = rows::Rows;
    type Pages = attention::Pages;
    type Edits = Edits;
    type Angles = rotary::Angles;
    type States = recurrent::States;

    fn describe(&self) -> String {
        let isa = self.isa.name();
        match self.arithmetic {
            Arithmetic::F32 => format!("cpu ({isa})"),
            Arithmetic::Bf16 if self.isa.multiplies_bf16() => format!("cpu ({isa}), products in bf16"),
            Arithmetic::Bf16 => {
                format!(
                    "cpu ({isa}), products of numbers rounded to bf16 at the speed of f32: {isa} has no other"
                )
            }
        }
    }

    fn row_block(&self) -> usize {
        // Measured, see LAB.md: activations of 192 rows stay in the second-level caches, weights are read
        // seldom enough not to matter.
        192
    }

    fn matrix(
        &self,
        parts: &[Tensor],
        stacking: Stacking,
        dtype: WeightDtype,
    ) -> Result<Self::Matrix, LoadError> {
        let packing = match self.arithmetic {
            Arithmetic::F32 => pack::Packing::Single(dtype),
            Arithmetic::Bf16 => {
                assert_eq!(dtype, WeightDtype::Bf16, "bf16 arithmetic is for weights in bf16");
                if self.isa.multiplies_bf16() {
                    pack::Packing::Bf16Pairs
                } else {
                    pack::Packing::Single(dtype)
                }
            }
        };
        pack::pack(parts, stacking, packing)
    }

    fn quantized(&self, parts: &[QuantizedPart], stacking: Stacking) -> Result<Self::Matrix, LoadError> {
        assert_eq!(self.arithmetic, Arithmetic::F32, "quantized weights are multiplied in f32");
        pack::pack_blocks(parts, stacking)
    }

    fn scaled(&self, matrix: Self::Matrix, parts: &[(usize, f32)], stacking: Stacking) -> Self::Matrix {
        let scales = pack::scales(parts, stacking);
        assert_eq!(scales.len(), matrix.panel_count(), "the parts of the matrix");
        matmul::Matrix { scales, ..matrix }
    }

    fn bytes(&self, matrix: &Self::Matrix) -> usize {
        matrix.bytes()
    }

    fn vector(&self, values: &[f32]) -> Vector {
        Vector { lines: pack::lines(values) }
    }

    fn table(&self, tensor: &Tensor, dtype: WeightDtype) -> Result<Table, LoadError> {
        use rayon::prelude::*;
        (0..tensor.rows()).into_par_iter().with_min_len(64).try_for_each_init(
            || vec![0.0; tensor.row_len()],
            |values, row| {
                tensor.read_row(row, values);
                check_finite(tensor, row, values)
            },
        )?;
        Ok(Table { tensor: tensor.clone(), dtype })
    }

    fn rows(&self, cols: usize) -> Self::Rows {
        rows::Rows::new(cols)
    }

    fn pages(&self, shape: &AttentionShape) -> Self::Pages {
        attention::Pages::new(shape)
    }

    fn edits(&self, edits: &[Option<&Edit>], width: usize) -> Edits {
        let lines = |it: &[f32]| it.chunks(width).flat_map(pack::lines).collect();
        let prepare = |edit: &Edit| {
            assert_eq!(edit.width(), width, "the edit's width is the writer's");
            rowwise::EditLines {
                rank: edit.rank(),
                p: lines(edit.p()),
                q: lines(edit.q()),
                s: edit.s().map(pack::lines),
            }
        };
        Edits(edits.iter().map(|edit| edit.map(prepare)).collect())
    }

    fn angles(&self, rope: &Rope) -> Self::Angles {
        rotary::Angles::new(rope)
    }

    fn reserve(&mut self, pages: &mut Self::Pages, count: usize) {
        pages.reserve(count);
    }

    fn embed(&mut self, table: &Table, plan: &Plan, scale: f32, out: &mut Self::Rows) {
        out.resize(plan.rows());
        let cols = out.cols();
        let shared = out.shared();
        parallel_rows(plan.rows(), ROW_GRAIN, |row| {
            // SAFETY: each task has its own row.
            let values = unsafe { std::slice::from_raw_parts_mut(shared.at(row, 0), cols) };
            let token = plan.tokens[row].index();
            table.tensor.read_row(if token < table.tensor.rows() { token } else { 0 }, values);
            for value in values {
                *value = scale
                    * match table.dtype {
                        WeightDtype::F32 => *value,
                        WeightDtype::Bf16 => half::bf16::from_f32(*value).to_f32(),
                        WeightDtype::F16 => half::f16::from_f32(*value).to_f32(),
                    };
            }
        });
    }

    fn norm(&mut self, x: &Self::Rows, norm: &NormParams<Vector>, out: &mut Self::Rows) {
        contract::norm(Some(norm), x.cols().min(out.cols()));
        out.resize(x.rows());
        let (isa, view, shared) = (self.isa, norm_view(norm), out.shared());
        parallel_rows(x.rows(), ROW_GRAIN, |row| {
            // SAFETY: each task has its own row of buffers as wide as the norm.
            unsafe { rowwise::norm(isa, x.row(row).as_ptr(), &view, shared.at(row, 0)) }
        });
    }

    fn linear(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Vector>,
        out: &mut Self::Rows,
    ) {
        contract::product(weights, bias, out);
        let (isa, x) = (self.isa, input(self.isa, self.arithmetic, x, weights, &mut self.rounded));
        matmul::product(isa, x, weights, bias.map(|it| it.lines.as_slice()), out);
    }

    fn linear_by_head(&mut self, x: &Self::Rows, weights: &[Self::Matrix], out: &mut Self::Rows) {
        latent::linear_by_head(self.isa, self.arithmetic, x, weights, &mut self.rounded, out);
    }

    fn gated_linear(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Vector>,
        activation: Activation,
        out: &mut Self::Rows,
    ) {
        contract::gated_product(weights, bias, out.cols());
        out.resize(x.rows());
        let (isa, shared) = (self.isa, out.shared());
        let x = input(isa, self.arithmetic, x, weights, &mut self.rounded);
        matmul::product_tiles(isa, x, weights, 2, None, |done| {
            // SAFETY: each task has its own rows and columns.
            unsafe { gate(isa, &done, bias, activation, shared) }
        });
    }

    fn gate(&mut self, x: &mut Self::Rows, activation: Activation, by: Option<&Self::Rows>) {
        let (isa, size, lines) = (self.isa, (x.rows(), x.cols()), x.vectors());
        assert!(by.is_none_or(|it| (it.rows(), it.cols()) == size), "a number for each number");
        let x = x.shared();
        parallel_rows(size.0, ROW_GRAIN, |row| {
            let by = by.map(|it| it.row(row).as_ptr());
            // SAFETY: each task has its own row of as many lines.
            unsafe { rowwise::gate_by(isa, activation, lines, x.at(row, 0), by) }
        });
    }

    fn experts(
        &mut self,
        x: &Self::Rows,
        scores: &Self::Rows,
        params: ExpertParams<'_, Self>,
        plan: &Plan,
        out: &mut Self::Rows,
    ) {
        contract::experts(x, scores, &params, out);
        let Self { isa, arithmetic, experts, rounded, .. } = self;
        experts::mix(*isa, *arithmetic, x, scores, &params, plan, experts, rounded, out);
    }

    fn rotate_and_store(
        &mut self,
        qkv: &mut Self::Rows,
        shape: &AttentionShape,
        norms: HeadNorms<'_, Vector>,
        angles: Option<&mut rotary::Angles>,
        plan: &Plan,
        pages: Option<&mut Self::Pages>,
    ) {
        if let Some(pages) = &pages {
            contract::pages(pages, shape);
        }
        contract::norm(norms.query, shape.n_heads * shape.d_head);
        contract::norm(norms.key, shape.n_kv_heads * shape.d_head);
        contract::norm(norms.value, shape.n_kv_heads * shape.d_value());
        rotary::rotate_and_store(self.isa, qkv, shape, &norms, angles, plan, pages);
    }

    fn rotate_and_store_latents(
        &mut self,
        query: &mut Self::Rows,
        kept: &mut Self::Rows,
        shape: &LatentShape,
        norm: &NormParams<Vector>,
        angles: &mut rotary::Angles,
        plan: &Plan,
        pages: &mut Self::Pages,
    ) {
        contract::norm(Some(norm), shape.d_latent);
        contract::pages(pages, &shape.over_latents());
        latent::rotate_and_store(self.isa, query, kept, shape, &norm_view(norm), angles, plan, pages);
    }

    fn attend(
        &mut self,
        qkv: &Self::Rows,
        shape: &AttentionShape,
        sinks: Option<&Vector>,
        plan: &Plan,
        pages: &Self::Pages,
        out: &mut Self::Rows,
    ) {
        contract::attend(qkv, shape, sinks, pages, out);
        attention::attend_all(self.isa, qkv, shape, sinks.map(|it| it.lines.as_slice()), plan, pages, out);
    }

    fn states(&self, shape: [usize; 2]) -> Self::States {
        recurrent::States::new(shape)
    }

    fn reserve_states(&mut self, states: &mut Self::States, count: usize) {
        states.reserve(count);
    }

    fn convolve(
        &mut self,
        x: &Self::Rows,
        how: Convolved,
        params: &ConvolutionParams<Vector>,
        plan: &Plan,
        states: &mut Self::States,
        out: &mut Self::Rows,
    ) {
        contract::convolve(x, how, params, plan.rows(), states);
        recurrent::convolve(self.isa, x, how, params, plan, states, out);
    }

    fn recur(
        &mut self,
        convolved: &Self::Rows,
        x: &Self::Rows,
        strengths: &Self::Rows,
        params: &RecurrenceParams<Vector>,
        plan: &Plan,
        states: &mut Self::States,
        out: &mut Self::Rows,
    ) {
        contract::recur(convolved, x, strengths, params, plan.rows(), states, out);
        recurrent::recur(self.isa, convolved, x, strengths, params, plan, states, out);
    }

    fn gate_by(
        &mut self,
        y: &mut Self::Rows,
        gates: &Self::Rows,
        first: usize,
        each: usize,
        activation: GateActivation,
    ) {
        let (isa, cols, shared) = (self.isa, y.cols(), y.shared());
        assert!(cols.is_multiple_of(each), "a gate for so many numbers");
        assert_eq!(y.rows(), gates.rows(), "gates of each row");
        parallel_rows(gates.rows(), ROW_GRAIN, |row| {
            let gates = &gates.row(row)[first..][..cols / each];
            // SAFETY: each task has its own row, of so many numbers.
            unsafe {
                if (each, activation) == (1, GateActivation::Sigmoid) {
                    rowwise::gate_by_sigmoid(isa, gates, shared.at(row, 0));
                } else {
                    let y = std::slice::from_raw_parts_mut(shared.at(row, 0), cols);
                    rowwise::gate_groups(y, gates, each, activation);
                }
            }
        });
    }

    fn write(
        &mut self,
        y: &mut Self::Rows,
        params: WriteParams<'_, Self>,
        plan: &Plan,
        residual: &mut Self::Rows,
        x: &mut Self::Rows,
    ) {
        let rows = y.rows();
        contract::write(y, &params, residual, x);
        if params.next_norm.is_some() {
            x.resize(rows);
        }
        let (isa, lines) = (self.isa, y.vectors());
        let (y, residual, x) = (y.shared(), residual.shared(), x.shared());
        let bias = params.bias.map(|it| it.lines.as_slice());
        let (post_norm, next_norm) = (params.post_norm.map(norm_view), params.next_norm.map(norm_view));
        parallel_rows(rows, ROW_GRAIN, |row| {
            let edit = params.edits.and_then(|it| it.0[plan.edits[row] as usize].as_ref());
            let share = params.gates.map_or(1.0, |it| 1.0 / (1.0 + (-f64::from(it.row(row)[0])).exp()));
            // SAFETY: each task has its own row of each buffer.
            unsafe {
                let task = rowwise::WriteRow {
                    lines,
                    y: y.at(row, 0),
                    edit,
                    bias,
                    post_norm,
                    scale: (f64::from(params.scale) * share) as f32,
                    stream_scale: params.stream_scale,
                    residual: residual.at(row, 0),
                    next_norm,
                    x: if next_norm.is_some() { x.at(row, 0) } else { std::ptr::null_mut() },
                };
                rowwise::write(isa, &task);
            }
        });
    }

    fn threshold(&mut self, x: &mut Self::Rows, deviations: f32) {
        streams::threshold(self.isa, x, deviations);
    }

    fn predict(
        &mut self,
        routed: &Self::Rows,
        weights: &Vector,
        active: usize,
        streams: &mut [Self::Rows],
        residual: &mut Self::Rows,
    ) {
        streams::predict(self.isa, routed, weights, active, streams, residual);
    }

    fn correct(
        &mut self,
        routed: &Self::Rows,
        weights: &Vector,
        active: usize,
        streams: &mut [Self::Rows],
        residual: &mut Self::Rows,
    ) {
        streams::correct(self.isa, routed, weights, active, streams, residual);
    }

    fn match_size(&mut self, y: &mut Self::Rows, like: &Self::Rows, smallest: f32) {
        streams::match_size(self.isa, y, like, smallest);
    }

    fn select(&mut self, x: &Self::Rows, rows: &[u32], out: &mut Self::Rows) {
        out.resize(rows.len());
        for (to, &from) in rows.iter().enumerate() {
            out.row_mut(to).copy_from_slice(x.row(from as usize));
        }
    }

    fn head(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Vector>,
        scale: f32,
        softcap: Option<f32>,
        wants: &HeadWants,
        out: &mut HeadOutput,
    ) {
        assert!(
            bias.is_none_or(|it| it.lines.len() >= weights.panel_count()),
            "a line of the head's bias for each panel"
        );
        let x = input(self.isa, self.arithmetic, x, weights, &mut self.rounded);
        let bias = bias.map(|it| it.lines.as_slice());
        head::head(self.isa, x, weights, bias, scale, softcap, wants, &mut self.head, out);
    }

    fn download(&mut self, x: &Self::Rows, out: &mut Vec<f32>) {
        for row in 0..x.rows() {
            out.extend_from_slice(x.row(row));
        }
    }
}
