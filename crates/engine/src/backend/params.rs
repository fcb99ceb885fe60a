//! What operations are told beside the buffers that they work on, and what the head answers.

use glossary::TokenId;

use super::Backend;
use crate::blueprint::{Activation, RecurrenceShape, Routing};

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
    /// Width of a query and of a key.
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
    /// A vector for each key, so wide.
    Own(usize),
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
        self.query_cols() + self.n_kv_heads * (self.d_head + self.d_value())
    }

    /// Width of a value.
    pub fn d_value(&self) -> usize {
        match self.values {
            Values::Own(width) | Values::OfKeys(width) => width,
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
    /// The edits of this writer, chosen per row by [`Plan::edits`](crate::plan::Plan::edits).
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
    /// The edits of their writers, by expert, chosen per row by [`Plan::edits`](crate::plan::Plan::edits); empty: none of any.
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
    /// Added to what decays depend on: `[heads]`, or `[heads * d_key]` of decays by channel.
    pub decay_bias: V,
    /// A, `[heads]`, negative.
    pub rate: V,
    /// What is added to states.
    pub rule: RuleParams<V>,
    /// A norm beside the gate.
    pub norm: Option<GatedNormParams<V>>,
    /// Whether the gate is multiplied before the norm.
    pub gate_first: bool,
    /// Whether the gate goes through the logistic function, and not through a `SiLU`.
    pub sigmoid: bool,
    /// The first column of the gates.
    pub gate: usize,
    /// The first column of what decays depend on.
    pub decay: usize,
    /// The first column of what strengths depend on.
    pub strength: usize,
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
    Delta {
        /// The largest strength.
        scale: f32,
        /// Whether every number of a key decays by itself.
        by_channel: bool,
    },
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
