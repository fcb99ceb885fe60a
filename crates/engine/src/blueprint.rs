//! What a model is made of, as data.
//!
//! A family reads a checkpoint's hyper-parameters and answers with a [`Blueprint`]: which tensors there are, how
//! they are joined, and what each branch of a block does. The loader and the executor work from the blueprint
//! alone; they know no family. The output projection of every [`Branch`] is a *declared writer*: its output is
//! added to the residual stream, so nothing that writes can be forgotten.

use std::ops::Range;

use crate::backend::AttentionShape;

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Positions that the model was made for, where it says so.
    pub context_length: Option<usize>,
    /// Where tokens become vectors.
    pub embedding: Embedding,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// The norm before the head.
    pub final_norm: Norm,
    /// Where vectors become logits.
    pub head: Head,
}

/// The embedding matrix `[vocab, d_model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The tensor's name.
    pub weight: String,
    /// What its rows are multiplied with.
    pub scale: f32,
}

/// The output projection `[vocab, d_model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The tensor's name; the embedding's where the two are tied.
    pub weight: String,
    /// What logits are multiplied with.
    pub scale: f32,
    /// `c` in `c tanh(logit / c)`.
    pub softcap: Option<f32>,
}

/// A decoder block: two branches that write to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Mixes positions.
    pub mixer: Branch<Mixer>,
    /// Works on each position alone.
    pub mlp: Branch<Mlp>,
    /// What the second branch reads.
    pub arrangement: Arrangement,
}

/// What the second branch of a block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// The stream with the first branch's output in it.
    Sequential,
    /// What the first branch read; its own `pre_norm` is not used.
    Parallel,
}

/// A layer between two taps of the residual stream: `residual += scale * post_norm(writer(inner(pre_norm(residual))))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch<T> {
    /// The norm that the branch reads through.
    pub pre_norm: Option<Norm>,
    /// What the branch does.
    pub inner: T,
    /// What it writes with.
    pub writer: Projection,
    /// The norm between the writer and the stream.
    pub post_norm: Option<Norm>,
    /// What is added is multiplied with this.
    pub scale: f32,
}

/// A layer that mixes positions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mixer {
    /// Softmax attention.
    Attention(Attention),
}

/// A layer that works on each position alone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mlp {
    /// `activation(gate(x)) ∘ up(x)`.
    Gated {
        /// Goes through the activation.
        gate: Projection,
        /// Is multiplied with it.
        up: Projection,
        /// The activation.
        activation: Activation,
    },
}

/// Softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Head counts, scale, window.
    pub shape: AttentionShape,
    /// Queries.
    pub query: Projection,
    /// Keys.
    pub key: Projection,
    /// Values.
    pub value: Projection,
    /// A norm of each query head, or of all of them together where it is as wide as they are.
    pub query_norm: Option<Norm>,
    /// The same of keys.
    pub key_norm: Option<Norm>,
    /// How queries and keys are rotated; `None`: not at all.
    pub rope: Option<Rope>,
    /// A tensor `[n_heads]` of scores for a position with value zero.
    pub sinks: Option<String>,
}

/// A linear layer `[outputs, inputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The weight tensor's name.
    pub weight: String,
    /// Which of its rows, where several layers share one tensor.
    pub rows: Option<Range<usize>>,
    /// The bias tensor's name.
    pub bias: Option<String>,
    /// Width of the output.
    pub outputs: usize,
    /// Width of the input.
    pub inputs: usize,
}

/// A norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// What is divided by.
    pub kind: NormKind,
    /// What is multiplied with after that.
    pub gain: Gain,
    /// Added to the gain on loading: 1 where a checkpoint stores the difference from 1.
    pub gain_offset: f32,
    /// The bias tensor's name.
    pub bias: Option<String>,
    /// Added to the mean square.
    pub epsilon: f32,
    /// How many numbers are normed together.
    pub width: usize,
}

/// Where the gains of a norm lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Gain {
    /// A tensor `[width]`, the same for all heads where heads are normed.
    Shared(String),
    /// A tensor `[heads, width]`, a row for each head.
    Rows {
        /// The tensor's name.
        tensor: String,
        /// How many heads there are.
        heads: usize,
    },
    /// A tensor `[width]` for each head.
    Each(Vec<String>),
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square (Zhang & Sennrich 2019, arXiv:1910.07467).
    RootMeanSquare,
    /// The standard deviation, after the mean is taken away (Ba et al. 2016, arXiv:1607.06450).
    Layer,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^−x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
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

/// Which numbers of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `i` and `i + n`, n pairs in all.
    Halves,
    /// `2 i` and `2 i + 1`.
    Neighbors,
}

impl Projection {
    /// How many weights it has.
    pub fn weights(&self) -> usize {
        self.outputs.saturating_mul(self.inputs) // not yet checked against the tensors
    }
}

impl Norm {
    /// The tensor of a gain that is not of heads.
    pub fn shared_gain(&self) -> Option<&str> {
        match &self.gain {
            Gain::Shared(tensor) => Some(tensor),
            Gain::Rows { .. } | Gain::Each(_) => None,
        }
    }
}

impl Block {
    /// Numbers that are kept of every token of a sequence: its keys and values.
    pub fn cached_numbers(&self) -> usize {
        let Mixer::Attention(Attention { key, value, .. }) = &self.mixer.inner;
        key.outputs.saturating_add(value.outputs)
    }

    /// Positions for which its rotary embedding holds, where there is such a limit.
    pub fn position_limit(&self) -> Option<usize> {
        let Mixer::Attention(Attention { rope, .. }) = &self.mixer.inner;
        rope.as_ref().and_then(|it| it.limit)
    }

    /// Weights that take part in products for every token.
    pub fn weights(&self) -> usize {
        let Mixer::Attention(Attention { query, key, value, .. }) = &self.mixer.inner;
        let Mlp::Gated { gate, up, .. } = &self.mlp.inner;
        [query, key, value, &self.mixer.writer, gate, up, &self.mlp.writer]
            .into_iter()
            .map(Projection::weights)
            .fold(0, usize::saturating_add)
    }
}
