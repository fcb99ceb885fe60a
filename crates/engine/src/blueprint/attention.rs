//! Mixers that look at every position: what they project, norm, rotate and keep.

use super::{Mixer, Norm, Projection};
use crate::backend::{AttentionShape, LatentShape};

/// Whose keys and values a block attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Its own.
    Own,
    /// Those that a block before it has stored; it computes queries alone.
    Of(usize),
}

/// Softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Head counts, scale, window.
    pub shape: AttentionShape,
    /// Queries.
    pub query: Projection,
    /// Keys; those of another block have its projections and norms here.
    pub key: Projection,
    /// Values.
    pub value: Projection,
    /// Whose keys and values these are.
    pub memory: Memory,
    /// A norm of each query head, or of all of them together where it is as wide as they are.
    pub query_norm: Option<Norm>,
    /// The same of keys.
    pub key_norm: Option<Norm>,
    /// What the output is multiplied with.
    pub gate: Option<OutputGate>,
    /// The same of values.
    pub value_norm: Option<Norm>,
    /// Whether queries and keys are rotated before their norms.
    pub norms_last: bool,
    /// Queries, keys and values are kept within ± this, after norms.
    pub clip: Option<f32>,
    /// How queries and keys are rotated; `None`: not at all.
    pub rope: Option<Rope>,
    /// A tensor `[n_heads]` of scores for a position with value zero.
    pub sinks: Option<String>,
    /// The writer.
    pub output: Projection,
}

/// What attention's output is multiplied with before the writer reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputGate {
    /// Parts end to end: a number for each of the output's, `[n_heads * d_value]`, or for each head, `[n_heads]`.
    pub parts: Vec<Projection>,
    /// What they go through first.
    pub activation: GateActivation,
}

/// What a gate goes through before something is multiplied with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateActivation {
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// The logarithm of `1 + e^x`.
    Softplus,
}

impl OutputGate {
    /// Gates of all numbers, through the logistic function.
    pub fn sigmoid(parts: Vec<Projection>) -> Self {
        Self { parts, activation: GateActivation::Sigmoid }
    }

    /// How many numbers it is.
    pub fn outputs(&self) -> usize {
        self.parts.iter().map(|it| it.outputs).sum()
    }
}

/// Multi-head latent attention: keys and values of all heads are made of one short vector, the *latent*. With a key that
/// all heads share, which alone is rotated, it is what is kept of a token.
///
/// Query `h` is `(n_h, r_h)`, key `h` of a token with the latent c and the shared key k is `(K_h c, k)`, its value
/// `V_h c`. Keys and values are never made: `n_h · K_h c = (K_hᵀ n_h) · c`, and `Σ p V_h c = V_h Σ p c`, so that heads
/// attend to latents.
///
/// # Source
/// DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentAttention {
    /// Head count, widths, scale.
    pub shape: LatentShape,
    /// What queries are made of, where that is not what the branch reads: a projection of it, and its norm.
    pub query_latent: Option<(Projection, Norm)>,
    /// Queries: of each head first what meets the latent, then what is rotated.
    pub query: Projection,
    /// The latent before its norm, then the shared key before its rotation.
    pub latent: Projection,
    /// The norm of the latent.
    pub latent_norm: Norm,
    /// Keys and values of the latent: of each head `K_h`, then `V_h`; its `scale` is 1.
    pub expansion: Projection,
    /// How the shared key and its part of each query are rotated.
    pub rope: Rope,
    /// How many positions a sparse attention chooses for each token; there may be no more, so that it sees all of them.
    pub chosen: Option<usize>,
    /// The writer.
    pub output: Projection,
}

/// A rotary position embedding (Su et al. 2021, arXiv:2104.09864).
///
/// Pair `i` of a head is rotated by `position * frequencies[i]` radians and multiplied with `magnitude`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position, one for each rotated pair.
    pub frequencies: Vec<f32>,
    /// What cosine and sine are multiplied with; 1 but for YaRN and its relatives.
    pub magnitude: f32,
    /// Which numbers of a head form a pair.
    pub pairing: Pairing,
    /// Positions for which the frequencies hold, where a longer sequence would have others.
    pub limit: Option<usize>,
}

/// Where a model would become another one with the length of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PositionLimit {
    /// Up to how many positions it is what it is.
    pub positions: usize,
    /// What would change after them.
    pub cause: LimitCause,
}

/// What changes with the length of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitCause {
    /// The frequencies of the rotary embedding.
    RotaryScaling,
    /// Which positions a token sees: no longer all of them, but those that an indexer chooses.
    SparseAttention,
}

impl std::fmt::Display for LimitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RotaryScaling => "this model's rotary embedding would begin to change with the length of the sequence",
            Self::SparseAttention => {
                "this model's sparse attention would begin to leave positions out, which this program does not do"
            }
        })
    }
}

/// Which numbers of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `i` and `i + n`, n pairs in all.
    Halves,
    /// `2 i` and `2 i + 1`.
    Neighbors,
}

impl From<Attention> for Mixer {
    fn from(attention: Attention) -> Self {
        Self::Attention(attention)
    }
}

impl From<LatentAttention> for Mixer {
    fn from(attention: LatentAttention) -> Self {
        Self::Latent(attention)
    }
}

impl Attention {
    /// What the stream is multiplied with, in the order in which it is laid out: queries, the block's own keys and values,
    /// the gate.
    pub fn inputs(&self) -> Vec<&Projection> {
        let own: &[_] = match self.memory {
            Memory::Own => &[&self.key, &self.value],
            Memory::Of(_) => &[],
        };
        let gate = self.gate.iter().flat_map(|it| &it.parts);
        [&self.query].into_iter().chain(own.iter().copied()).chain(gate).collect()
    }
}
