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
pub mod reference;

pub use blocks::QuantizedPart;
use checkpoint::Tensor;
use glossary::{Edit, TokenId};

use crate::LoadError;
use crate::blueprint::{Activation, RecurrenceShape, Rope, Routing};
use crate::plan::{PAGE, Plan};

/// What products with weights compute in. Everything else, the residual stream above all, is f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Weights as they are kept times the input as it is, summed in f32.
    #[default]
    F32,
    /// Weights in bf16 times the input rounded to bf16 (to nearest, halves to even), summed in f32.
    ///
    /// This rounds activations, which `F32` never does, whatever the weights are kept in. It is meant for processors
    /// that multiply bf16 faster, and defined alike for all: a back end without such products rounds the input
    /// and computes in f32. A sum may take numbers below the smallest normal one, 1.2e-38, for zero.
    Bf16,
}

impl Arithmetic {
    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The precision that weights are kept in. What they are multiplied in is [`Arithmetic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// 32 bits.
    F32,
    /// 16 bits with f32's range.
    Bf16,
    /// 16 bits with a range of 6e-5 to 65,504.
    F16,
}

impl WeightDtype {
    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// How the outputs of several weight tensors form one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// One after the other.
    EndToEnd,
    /// Two of equal size, gate and up projection, laid out for [`Backend::gated_linear`].
    Paired,
    /// One that is `[k, n]`: what it does to its outputs, the matrix does to its inputs.
    Transposed,
}

/// A norm's parameters on a back end.
pub struct NormParams<V> {
    /// Root mean square or layer norm.
    pub kind: crate::blueprint::NormKind,
    /// How many numbers are normed together.
    pub width: usize,
    /// What the normalized values are multiplied with: `width` numbers, or as many for each head, those of a head
    /// filled up to a multiple of 16.
    pub gain: V,
    /// What is added after that.
    pub bias: Option<V>,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// The numbers of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// `c` in `c tanh(score / c)`.
    pub softcap: Option<f32>,
    /// A row sees this many positions, itself included; `None`: all.
    pub window: Option<usize>,
    /// What is added up.
    pub values: Values,
}

/// What attention adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A vector for each key, as wide as a head.
    Own,
    /// The first numbers of each key, so many of them; they are stored with the key alone.
    OfKeys(usize),
}

impl AttentionShape {
    /// Columns of a row of queries.
    pub fn query_cols(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// Columns of a row of queries, keys and values side by side.
    pub fn qkv_cols(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.d_head
    }

    /// Width of a value.
    pub fn d_value(&self) -> usize {
        match self.values {
            Values::Own => self.d_head,
            Values::OfKeys(width) => width,
        }
    }
}

/// The numbers of a [latent attention](crate::blueprint::LatentAttention).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentShape {
    /// Query heads.
    pub n_heads: usize,
    /// Width of the latent.
    pub d_latent: usize,
    /// Numbers of a query that meet the latent's keys.
    pub d_nope: usize,
    /// Numbers of a query, and of the shared key, that are rotated.
    pub d_rope: usize,
    /// Width of a head's values.
    pub d_value: usize,
    /// What scores are multiplied with.
    pub scale: f32,
}

impl LatentShape {
    /// Width of a query.
    pub fn d_query(&self) -> usize {
        self.d_nope + self.d_rope
    }

    /// Width of what is kept of a token: the latent, then the shared key.
    pub fn d_kept(&self) -> usize {
        self.d_latent + self.d_rope
    }

    /// The attention of all heads, their queries brought to the latent, over what is kept.
    pub fn over_latents(&self) -> AttentionShape {
        AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: 1,
            d_head: self.d_kept(),
            scale: self.scale,
            softcap: None,
            window: None,
            values: Values::OfKeys(self.d_latent),
        }
    }
}

/// What is wanted of the head's output for each row.
#[derive(Clone, Debug, Default)]
pub struct HeadWants {
    /// How many of the largest logits.
    pub top: usize,
    /// Whether the logarithm of the sum of exponentials is wanted.
    pub logsumexp: bool,
    /// Whether all logits are wanted.
    pub logits: bool,
    /// A token per row whose logit is wanted; empty: none.
    pub targets: Vec<TokenId>,
}

/// The head's output, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadOutput {
    /// The largest logits, `[rows, top]`, largest first; of equal ones the lower token first. NaN counts as larger
    /// than every number, so that a row with one cannot look healthy.
    pub top: Vec<(TokenId, f32)>,
    /// `[rows]`, in nats; not finite where a logit is NaN or all are infinite.
    pub logsumexp: Vec<f32>,
    /// `[rows, vocab]`.
    pub logits: Vec<f32>,
    /// `[rows]`.
    pub targets: Vec<f32>,
}

impl HeadOutput {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.top.clear();
        self.logsumexp.clear();
        self.logits.clear();
        self.targets.clear();
    }
}

/// What some models do to queries, keys and values beside the rotation. Norms are of each head where they are as wide as
/// one, of all heads together where they are as wide as all of them.
pub struct HeadNorms<'a, V> {
    /// Of queries.
    pub query: Option<&'a NormParams<V>>,
    /// Of keys.
    pub key: Option<&'a NormParams<V>>,
    /// Of values, which are not rotated.
    pub value: Option<&'a NormParams<V>>,
    /// Whether the rotation comes before them.
    pub last: bool,
    /// Queries, keys and values are kept within ± this, before the rotation and after norms that are not the last.
    pub clip: Option<f32>,
}

/// What [`Backend::write`] does to a writer's output before it joins the residual stream.
pub struct WriteParams<'a, B: Backend> {
    /// The edits of this writer, chosen per row by [`Plan::edits`].
    pub edits: Option<&'a B::Edits>,
    /// The writer's bias, added after the edit.
    pub bias: Option<&'a B::Vector>,
    /// A norm between the writer and the stream.
    pub post_norm: Option<&'a NormParams<B::Vector>>,
    /// A number for each row, `[rows, 1]`: what is added to the stream is multiplied with the logistic function of it.
    pub gates: Option<&'a B::Rows>,
    /// What is added to the stream is multiplied with this last.
    pub scale: f32,
    /// What the stream is multiplied with when that has been added.
    pub stream_scale: f32,
    /// The norm that the next layer reads through.
    pub next_norm: Option<&'a NormParams<B::Vector>>,
}

/// The weights of an MLP on a back end.
pub struct FeedForwardParams<B: Backend> {
    /// Whether it has a gate.
    pub gated: bool,
    /// Gate and up projection, [`Stacking::Paired`]; without a gate the up projection alone.
    pub up: B::Matrix,
    /// Their biases end to end, each filled up to a multiple of 16 numbers.
    pub up_bias: Option<B::Vector>,
    /// The writer.
    pub down: B::Matrix,
    /// Its bias, added after an edit.
    pub down_bias: Option<B::Vector>,
}

/// What [`Backend::experts`] works with.
pub struct ExpertParams<'a, B: Backend> {
    /// Who is chosen, and with what share.
    pub routing: &'a Routing,
    /// `[experts]`, added to the scores when experts are chosen.
    pub correction: Option<&'a B::Vector>,
    /// `[experts]`, multiplied with the shares of the chosen last.
    pub share_scales: Option<&'a B::Vector>,
    /// The experts, all of the same shape, with gates or without.
    pub experts: &'a [FeedForwardParams<B>],
    /// Their activation.
    pub activation: Activation,
    /// The edits of their writers, by expert, chosen per row by [`Plan::edits`]; empty: none of any.
    pub edits: &'a [Option<B::Edits>],
}

/// The weights of a causal convolution of channels on a back end.
pub struct ConvolutionParams<V> {
    /// How many channels there are.
    pub channels: usize,
    /// How many positions each sees, its own included.
    pub taps: usize,
    /// `[taps, channels]`, the channels of a tap filled up to a multiple of 16 numbers.
    pub weight: V,
    /// `[channels]`
    pub bias: Option<V>,
}

/// Which columns [`Backend::convolve`] reads, and what happens beside the convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolved {
    /// The first column of what is convolved.
    pub input: usize,
    /// The first column of what it is multiplied with before.
    pub before: Option<usize>,
    /// The first column of what the result is multiplied with.
    pub after: Option<usize>,
    /// Whether there is a `SiLU` behind the convolution.
    pub silu: bool,
}

/// What [`Backend::recur`] works with, see [`Recurrence`](crate::blueprint::Recurrence).
pub struct RecurrenceParams<V> {
    /// Sizes.
    pub shape: RecurrenceShape,
    /// `[heads]`, added to what decays depend on.
    pub decay_bias: V,
    /// A, `[heads]`, negative.
    pub rate: V,
    /// What is added to states.
    pub rule: RuleParams<V>,
    /// A norm beside the gate.
    pub norm: Option<GatedNormParams<V>>,
    /// Whether the gate is multiplied before the norm.
    pub gate_first: bool,
    /// The first column of the gates.
    pub gate: usize,
    /// The first column of what decays depend on; what strengths depend on follows it.
    pub decay: usize,
}

/// See [`Rule`](crate::blueprint::Rule).
pub enum RuleParams<V> {
    /// Mamba-2's.
    StateSpace {
        /// `[heads]`
        skip: V,
        /// The smallest and the largest step.
        limits: (f32, f32),
    },
    /// The gated delta rule.
    Delta,
}

/// A norm of groups of numbers by the root of their mean square.
pub struct GatedNormParams<V> {
    /// `[heads * d_value]`
    pub gain: V,
    /// How many numbers are normed together.
    pub width: usize,
    /// Added to the mean square.
    pub epsilon: f32,
}

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
    /// `convolved` are queries, keys and values; gates, decays and strengths lie in `x`. States `[heads, d_key,
    /// d_value]` go on.
    fn recur(
        &mut self,
        convolved: &Self::Rows,
        x: &Self::Rows,
        params: &RecurrenceParams<Self::Vector>,
        plan: &Plan,
        states: &mut Self::States,
        out: &mut Self::Rows,
    );

    /// `y ∘= sigmoid(gates[.., first..])`.
    fn gate_by_sigmoid(&mut self, y: &mut Self::Rows, gates: &Self::Rows, first: usize);

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
