//! Where the arithmetic happens.
//!
//! A [`Backend`] offers about a dozen *fused* operations on buffers that it owns. The executor strings them
//! together and never looks at an element, so a back end is free to keep its buffers on another device.
//!
//! Members: [`mod@reference`] (plain loops and f64 sums, the oracle that the others are tested against) and [`cpu`].
//! Adding one is a file here, a line in [`crate::Device`] and the conformance suite.

mod blocks;
#[cfg(test)]
mod conformance;
pub mod cpu;
mod params;
pub mod reference;

pub use self::blocks::QuantizedPart;
pub use self::params::{
    Arithmetic, AttentionShape, ConvolutionParams, Convolved, ExpertParams, FeedForwardParams,
    GatedNormParams, HeadNorms, HeadOutput, HeadWants, LatentShape, NormParams, RecurrenceParams, RuleParams,
    Stacking, Values, WeightDtype, WriteParams,
};
use checkpoint::Tensor;
use glossary::Edit;

use crate::LoadError;
use crate::blueprint::{Activation, GateActivation, Rope};
use crate::plan::{PAGE, Plan};

/// Added to the sum of squares where the gated delta rule makes queries and keys of length 1 (that of the reference
/// implementations, Yang & Zhang 2024, github.com/fla-org/flash-linear-attention).
pub const UNIT_LENGTH_EPSILON: f64 = 1e-6;

/// The logarithm of `1 + e^x`; x itself where that is as good, as the reference stack has it.
pub(crate) fn softplus(x: f64) -> f64 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// A set of fused operations and the buffers that they work on.
///
/// Buffers of type [`Self::Rows`] hold one row per token. Operations set the row count of what they write to that
/// of their input; `plan` must have as many rows as the input. Sizes that do not fit each other are a programming
/// error and panic: the model loader has checked every shape.
#[allow(clippy::too_many_arguments, reason = "fused operations name their operands")]
pub trait Backend: Sized + Send {
    /// A weight matrix that never changes.
    type Matrix: Send;
    /// A vector that never changes.
    type Vector: Send;
    /// An embedding matrix, read by rows.
    type Table: Send;
    /// Activations, one row per token.
    type Rows: Send;
    /// The keys and values of one layer.
    type Pages: Send;
    /// One writer's edits, by edit index.
    type Edits: Send;
    /// Angles of a rotary embedding.
    type Angles: Send;
    /// The states of sequences in one layer.
    type States: Send;

    /// What the back end is, for reports: device, instruction set.
    fn describe(&self) -> String;

    /// How many rows a pass should have at most, so that activations stay in the fast memory.
    fn row_block(&self) -> usize;

    /// A matrix from tensors `[n_i, k]` stacked as told; in [`Arithmetic::Bf16`] its `dtype` is bf16.
    ///
    /// # Errors
    /// [`LoadError::NotFinite`] names the tensor with an infinite number or NaN.
    fn matrix(
        &self,
        parts: &[Tensor],
        stacking: Stacking,
        dtype: WeightDtype,
    ) -> Result<Self::Matrix, LoadError>;

    /// The same from tensors that are kept in blocks: each as it is, or rounded to what its part says. Products are
    /// those with the numbers that the blocks mean, in [`Arithmetic::F32`] alone.
    ///
    /// Where parts have different kinds of blocks, they are stacked end to end and each has a multiple of 16 outputs.
    ///
    /// # Errors
    /// [`LoadError::NotFinite`], and [`LoadError::TooLarge`] for weights that have no place in blocks.
    fn quantized(&self, parts: &[QuantizedPart], stacking: Stacking) -> Result<Self::Matrix, LoadError>;

    /// The same matrix with its outputs multiplied: those of each part that it was stacked of, `(outputs, by)`. It is not
    /// the weights that are, which would round them.
    fn scaled(&self, matrix: Self::Matrix, parts: &[(usize, f32)], stacking: Stacking) -> Self::Matrix;

    /// Memory that a matrix takes, in bytes.
    fn bytes(&self, matrix: &Self::Matrix) -> usize;

    /// A vector from the host.
    fn vector(&self, values: &[f32]) -> Self::Vector;

    /// An embedding matrix `[vocab, d_model]`, its values rounded to `dtype`.
    fn table(&self, tensor: &Tensor, dtype: WeightDtype) -> Result<Self::Table, LoadError>;

    /// An empty buffer for rows of `cols` numbers.
    fn rows(&self, cols: usize) -> Self::Rows;

    /// An empty cache for a layer.
    fn pages(&self, shape: &AttentionShape) -> Self::Pages;

    /// The edits of one writer; entry `i` serves rows whose edit index is `i`, entry 0 is always `None`.
    fn edits(&self, edits: &[Option<&Edit>], width: usize) -> Self::Edits;

    /// A rotary embedding.
    fn angles(&self, rope: &Rope) -> Self::Angles;

    /// Makes room for a number of pages; keeps what is there.
    fn reserve(&mut self, pages: &mut Self::Pages, count: usize);

    /// No states yet, each a matrix `[rows, columns]`.
    fn states(&self, shape: [usize; 2]) -> Self::States;

    /// Makes room for a number of states; keeps what is there.
    fn reserve_states(&mut self, states: &mut Self::States, count: usize);

    /// `out = scale * table[token]`. Tokens that the table has no row for have its first.
    fn embed(&mut self, table: &Self::Table, plan: &Plan, scale: f32, out: &mut Self::Rows);

    /// `out = norm(x)`.
    fn norm(&mut self, x: &Self::Rows, norm: &NormParams<Self::Vector>, out: &mut Self::Rows);

    /// `out = x Wᵀ + bias`.
    fn linear(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Rows,
    );

    /// A linear layer for each of several heads that lie side by side: `out_h = (x_h[..k] W_hᵀ, x_h[k..])`, so that
    /// what a layer does not read of its head follows on its outputs.
    ///
    /// All layers have the same shape `[n, k]`; x is `[rows, heads * (k + rest)]`, `out` `[rows, heads * (n + rest)]`.
    fn linear_by_head(&mut self, x: &Self::Rows, weights: &[Self::Matrix], out: &mut Self::Rows);

    /// `out = activation(x Gᵀ + bias_g) ∘ (x Uᵀ + bias_u)`, weights [`Stacking::Paired`], biases end to end, each
    /// filled up to a multiple of 16 numbers.
    fn gated_linear(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Self::Vector>,
        activation: Activation,
        out: &mut Self::Rows,
    );

    /// `x = activation(x) ∘ by`, both of the same width; without `by`, `x = activation(x)`.
    fn gate(&mut self, x: &mut Self::Rows, activation: Activation, by: Option<&Self::Rows>);

    /// A mixture of experts: `out = Σ_e share_e (edit_e(down_e(hidden_e)) + bias_e)`, `hidden_e` as in
    /// [`Self::gated_linear`], or `activation(x Uᵀ + bias_u)` of experts without gates, the sum in the order in which the
    /// row's experts were chosen.
    ///
    /// `scores [rows, experts]` are the router's outputs.
    fn experts(
        &mut self,
        x: &Self::Rows,
        scores: &Self::Rows,
        params: ExpertParams<'_, Self>,
        plan: &Plan,
        out: &mut Self::Rows,
    );

    /// Norms queries, keys and values, rotates queries and keys, both in place, and stores keys and values at the rows'
    /// slots and their echoes. Without pages the rows hold queries alone.
    fn rotate_and_store(
        &mut self,
        qkv: &mut Self::Rows,
        shape: &AttentionShape,
        norms: HeadNorms<'_, Self::Vector>,
        angles: Option<&mut Self::Angles>,
        plan: &Plan,
        pages: Option<&mut Self::Pages>,
    );

    /// Norms the latents `kept[..d_latent]`, rotates the shared keys behind them and the last `d_rope` numbers of each
    /// query, in place, and stores what is to be kept at the rows' slots and their echoes, in pages for
    /// [`LatentShape::over_latents`].
    ///
    /// # Shapes
    /// - `query`: `[rows, n_heads * d_query]`
    /// - `kept`: `[rows, d_kept]`
    fn rotate_and_store_latents(
        &mut self,
        query: &mut Self::Rows,
        kept: &mut Self::Rows,
        shape: &LatentShape,
        norm: &NormParams<Self::Vector>,
        angles: &mut Self::Angles,
        plan: &Plan,
        pages: &mut Self::Pages,
    );

    /// Attention of each row over its context: `out [rows, n_heads * d_value]`. Queries are the first columns of `qkv`.
    ///
    /// `sinks [n_heads]` are scores of a position with value zero.
    fn attend(
        &mut self,
        qkv: &Self::Rows,
        shape: &AttentionShape,
        sinks: Option<&Self::Vector>,
        plan: &Plan,
        pages: &Self::Pages,
        out: &mut Self::Rows,
    );

    /// Causal convolutions of channels: of every row `out = after ∘ silu(bias + Σ_j weight_j ∘ (before ∘ input)_(t − taps +
    /// 1 + j))`, the rows of a run in turn, those before it from its state `[taps − 1, channels]`, which goes on.
    fn convolve(
        &mut self,
        x: &Self::Rows,
        how: Convolved,
        params: &ConvolutionParams<Self::Vector>,
        plan: &Plan,
        states: &mut Self::States,
        out: &mut Self::Rows,
    );

    /// A recurrence over the rows of each run, and its gate: `out [rows, heads * d_value]`.
    ///
    /// `convolved` are queries, keys and values; gates and decays lie in `x`. States `[heads, d_key, d_value]` go on.
    fn recur(
        &mut self,
        convolved: &Self::Rows,
        x: &Self::Rows,
        strengths: &Self::Rows,
        params: &RecurrenceParams<Self::Vector>,
        plan: &Plan,
        states: &mut Self::States,
        out: &mut Self::Rows,
    );

    /// `y ∘= activation(gates[.., first..])`, each gate for so many numbers side by side.
    fn gate_by(
        &mut self,
        y: &mut Self::Rows,
        gates: &Self::Rows,
        first: usize,
        each: usize,
        activation: GateActivation,
    );

    /// Adds a writer's output to the stream, edited, and normalizes the stream for the next layer:
    /// `y' = s ∘ (y − Σ_j p_j (q_j · y)) + bias`, `residual = stream_scale * (residual + scale * share *
    /// post_norm(y'))`, the share of a row being the logistic function of its gate and 1 without gates, `x =
    /// next_norm(residual)`.
    ///
    /// `y` is left as `post_norm(y')`. Without `next_norm`, `x` is left as it is.
    fn write(
        &mut self,
        y: &mut Self::Rows,
        params: WriteParams<'_, Self>,
        plan: &Plan,
        residual: &mut Self::Rows,
        x: &mut Self::Rows,
    );

    /// Lets few numbers of each row pass: `x = max(x − t, 0)`, `t = mean + deviations * deviation`, where mean and
    /// standard deviation are those of the row's numbers.
    fn threshold(&mut self, x: &mut Self::Rows, deviations: f32);

    /// Predicts streams from each other: `stream_i += Σ_j c_ij stream_j`, all sums made of what they were before,
    /// `c_ij = Σ_k weights_ijk tanh(routed_k)`. A copy of the active one's prediction goes to `residual`.
    ///
    /// # Shapes
    /// - `routed`: `[rows, n]`
    /// - `weights`: `[n, n, n]`
    /// - `streams`: n of `[rows, d_model]`, at most [`MAX_STREAMS`](crate::blueprint::MAX_STREAMS)
    fn predict(
        &mut self,
        routed: &Self::Rows,
        weights: &Self::Vector,
        active: usize,
        streams: &mut [Self::Rows],
        residual: &mut Self::Rows,
    );

    /// Corrects predictions by what became of the active one, `residual`: `stream_i += (1 + c_i) (residual −
    /// stream_active)`, `c_i = Σ_k weights_ik tanh(routed_k)`. A copy of the active one, corrected, goes to `residual`.
    ///
    /// # Shapes
    /// As in [`Self::predict`], but for `weights`: `[n, n]`.
    fn correct(
        &mut self,
        routed: &Self::Rows,
        weights: &Self::Vector,
        active: usize,
        streams: &mut [Self::Rows],
        residual: &mut Self::Rows,
    );

    /// Brings each row to the root mean square of another: `y *= rms(like) / sqrt(max(mean square of y, smallest))`.
    fn match_size(&mut self, y: &mut Self::Rows, like: &Self::Rows, smallest: f32);

    /// `out = x[rows]`.
    fn select(&mut self, x: &Self::Rows, rows: &[u32], out: &mut Self::Rows);

    /// Logits `l = softcap(scale * (x Wᵀ + bias))` and what is wanted of them, appended to `out`.
    fn head(
        &mut self,
        x: &Self::Rows,
        weights: &Self::Matrix,
        bias: Option<&Self::Vector>,
        scale: f32,
        softcap: Option<f32>,
        wants: &HeadWants,
        out: &mut HeadOutput,
    );

    /// Appends all rows to `out`, `[rows, cols]`.
    fn download(&mut self, x: &Self::Rows, out: &mut Vec<f32>);

    /// Waits for what was asked so far; only then is elapsed time meaningful.
    fn synchronize(&mut self) {}
}

/// The pages that a number of positions needs at most, with one partly filled page for a shared head.
pub fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE) + 1
}
