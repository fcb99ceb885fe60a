//! What a model is made of, as data.
//!
//! A family reads a checkpoint's hyper-parameters and answers with a [`Blueprint`]: which tensors there are, how
//! they are joined, and what each branch of a block does. The loader and the executor work from the blueprint
//! alone; they know no family. What a branch adds to the residual stream comes out of its *declared writers*, which
//! [`Block::writers`] lists, so nothing that writes can be forgotten.

mod recurrent;
mod streams;

use glossary::Component;

pub use self::recurrent::{
    Convolution, GatedNorm, Gating, Rate, Recurrence, RecurrenceShape, Rule, ShortConvolution,
};
pub use self::streams::{Laurel, MAX_STREAMS, StreamUpdate, Streams};

use crate::backend::{AttentionShape, LatentShape};

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
    /// Where blocks have embeddings of their own.
    pub per_layer: Option<PerLayerEmbedding>,
    /// Where the residual stream is one of several.
    pub streams: Option<Streams>,
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

/// The embeddings of all blocks, side by side in one matrix `[tokens, blocks * width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayerEmbedding {
    /// The tensor's name.
    pub weight: String,
    /// How many tokens it knows; the others of the vocabulary have the row of the first.
    pub tokens: usize,
    /// How wide the embedding of a block is.
    pub width: usize,
    /// What its rows are multiplied with.
    pub scale: f32,
}

/// The output projection `[vocab, d_model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The tensor's name; the embedding's where the two are tied.
    pub weight: String,
    /// A tensor `[vocab]` that is added.
    pub bias: Option<String>,
    /// What logits are multiplied with.
    pub scale: f32,
    /// `c` in `c tanh(logit / c)`.
    pub softcap: Option<f32>,
}

/// A decoder block: two branches that write to the residual stream, in some models three or four.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Mixes positions.
    pub mixer: Branch<Mixer>,
    /// Mixes positions, too: it reads the stream that the first one reads, and adds to what that has added.
    pub beside: Option<Branch<Mixer>>,
    /// Works on each position alone.
    pub mlp: Branch<Mlp>,
    /// What the MLP reads.
    pub arrangement: Arrangement,
    /// What it does to further streams.
    pub update: Option<StreamUpdate>,
    /// A short way beside the mixer.
    pub laurel: Option<Laurel>,
    /// Adds what the block knows of the token itself, after the other two.
    pub per_layer: Option<Branch<PerLayer>>,
    /// What the stream is multiplied with when all has been added to it.
    pub scale: f32,
}

/// What the MLP of a block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// The stream with the mixer's output in it.
    Sequential,
    /// What the mixer read; its own `pre_norm` is not used.
    Parallel,
}

/// A layer between two taps of the residual stream: `residual += scale * post_norm(inner(pre_norm(residual)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch<T> {
    /// The norm that the branch reads through.
    pub pre_norm: Option<Norm>,
    /// What the branch does; it ends with its writers.
    pub inner: T,
    /// The norm between the writers and the stream.
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
    /// Softmax attention whose keys and values are made of one short vector.
    Latent(LatentAttention),
    /// A gated convolution over a few positions.
    ShortConvolution(ShortConvolution),
    /// A matrix for each head that every token decays and adds to.
    Recurrence(Recurrence),
    /// Nothing, in blocks of an MLP alone.
    Nothing,
}

/// A layer that works on each position alone.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per layer, and a box would be in the way of every match"
)]
#[non_exhaustive]
pub enum Mlp {
    /// The same for every token.
    Dense(FeedForward),
    /// The same with a gate that lets few numbers pass.
    Sparse(Sparse),
    /// A choice of several for each token.
    Experts(Experts),
    /// Nothing, in blocks of a mixer alone.
    Nothing,
    /// One for every token, and beside it a choice of several.
    Beside(Beside),
}

/// `down(activation(gate(x)) ∘ up(x))`, or without a gate `down(activation(up(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForward {
    /// Goes through the activation; `None`: the up projection does.
    pub gate: Option<Projection>,
    /// Is multiplied with it.
    pub up: Projection,
    /// The activation.
    pub activation: Activation,
    /// The writer.
    pub down: Projection,
}

/// The same with `max(g − t, 0)` in place of g, what goes through the activation: the threshold `t = mean + deviations *
/// deviation`, where mean and standard deviation are those of the numbers of g (statistical top-k, You et al. 2025,
/// arXiv:2506.06644).
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// Its projections and its activation.
    pub inner: FeedForward,
    /// How many standard deviations above their mean numbers begin to pass.
    pub deviations: f32,
}

/// A mixture of experts: `Σ share_e expert_e(x) + share shared(x)`, the sum over the experts that the token is sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Tells how well each expert suits a token.
    pub router: Projection,
    /// A tensor `[experts]` that is added to the scores when experts are chosen, and not to the shares.
    pub correction: Option<String>,
    /// Who is chosen, and with what share.
    pub routing: Routing,
    /// The experts, of equal shapes and activations.
    pub experts: Vec<FeedForward>,
    /// One that every token is sent to.
    pub shared: Option<FeedForward>,
    /// One number from a token, the logistic function of which is that one's share; `None`: a share of 1.
    pub shared_gate: Option<Projection>,
}

/// `norm(dense(x)) + norm(Σ share_e expert_e(norm(stream)))`: an MLP that reads through the branch's norm, and a mixture
/// with norms of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// For every token.
    pub dense: FeedForward,
    /// The norm that it writes through.
    pub dense_norm: Norm,
    /// The mixture, all of it.
    pub experts: Experts,
    /// The norm that its router reads the stream through.
    pub router_norm: Norm,
    /// The norm that its experts read the stream through.
    pub experts_pre_norm: Norm,
    /// The norm that they write through.
    pub experts_post_norm: Norm,
    /// A tensor `[experts]` that shares are multiplied with last.
    pub share_scales: String,
}

/// From what the router says of a token to its experts and their shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// How many experts a token is sent to; of equal scores the lower expert comes first.
    pub chosen: usize,
    /// What the router's outputs mean.
    pub scores: Scores,
    /// Which groups of experts there is a choice of; `None`: all experts.
    pub groups: Option<Groups>,
    /// Whether the shares of the chosen are made to add up to one.
    pub normalized: bool,
    /// What shares are multiplied with after that.
    pub scale: f32,
}

/// What the router's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// An expert's score and share is its part of the softmax.
    Softmax,
    /// The logistic function of its own output.
    Sigmoid,
    /// `SparseMixer` (Liu et al. 2024, arXiv:2409.12136), in use after training: experts are chosen one after the other;
    /// the share of each is its part of the softmax over those that are left and not much worse. An output is much
    /// worse than the best one when they differ by more than `tolerance` of its size, or of the best if that is larger.
    OneByOne {
        /// The largest relative difference.
        tolerance: f32,
    },
}

/// Experts in groups of equal size, of which the best are kept before experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many groups there are.
    pub count: usize,
    /// How many of them are kept.
    pub chosen: usize,
    /// A group's score is the sum of so many of its best.
    pub best: usize,
}

/// `projection(activation(gate(x)) ∘ own)`, where `own = table[token] + scale * norm(context(e))`: e is the row that the
/// model's embedding has for the token, and the table the block's part of [`PerLayerEmbedding`].
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayer {
    /// Goes through the activation, `[width, d_model]`.
    pub gate: Projection,
    /// The activation.
    pub activation: Activation,
    /// Reads the model's embedding, `[width, d_model]`.
    pub context: Projection,
    /// The norm behind it.
    pub context_norm: Norm,
    /// What is added to the table's row is multiplied with this.
    pub context_scale: f32,
    /// The writer, `[d_model, width]`.
    pub projection: Projection,
}

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
    /// What the output is multiplied with, after a sigmoid: parts end to end, `[n_heads * d_head]`; empty: nothing.
    pub gate: Vec<Projection>,
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
    /// The writer.
    pub output: Projection,
}

/// A linear layer `[outputs, inputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The weight tensor's name.
    pub weight: String,
    /// Which part of it, where several layers share one tensor.
    pub share: Option<Share>,
    /// The bias tensor's name; shared like the weight.
    pub bias: Option<String>,
    /// What its outputs are multiplied with, the bias included.
    pub scale: f32,
    /// Width of the output.
    pub outputs: usize,
    /// Width of the input.
    pub inputs: usize,
}

/// A layer's part of a tensor `[outputs, inputs]`, or of that of an expert in `[experts, outputs, inputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which expert of how many.
    pub expert: Option<(usize, usize)>,
    /// The layer's first output.
    pub first: usize,
    /// How many of its outputs lie side by side: 1 where those of two layers alternate, d_head where their heads do.
    pub together: usize,
    /// From the first of so many outputs to the first of the next: 2 where those of two layers alternate.
    pub step: usize,
    /// How many outputs there are in all.
    pub of: usize,
    /// Whether the tensor, or that of each expert, is `[inputs, outputs]`.
    pub transposed: bool,
    /// The tensor of scales, where that of the weight holds microscaled blocks.
    pub scales: Option<String>,
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
    /// A tensor `[width]`, multiplied with a number.
    Scaled {
        /// The tensor's name.
        tensor: String,
        /// The number.
        by: f32,
    },
    /// None: ones.
    Ones,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square (Zhang & Sennrich 2019, arXiv:1910.07467).
    RootMeanSquare,
    /// The standard deviation, after the mean is taken away (Ba et al. 2016, arXiv:1607.06450).
    Layer,
    /// Nothing: there is a gain alone.
    Nothing,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x / (1 + e^−x)`.
    Silu,
    /// x times the share of the normal distribution below it (Hendrycks & Gimpel 2016, arXiv:1606.08415).
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// The square of x, or zero where x is negative (So et al. 2021, arXiv:2109.08668).
    SquaredRelu,
    /// `positive x² + x / 2` above zero, `negative (e^x − 1 − x) + x / 2` below (xIELU, Huang & Schlag 2024,
    /// arXiv:2411.13010).
    Xielu {
        /// How strongly it is bent above zero.
        positive: f32,
        /// How strongly below.
        negative: f32,
    },
    /// `x / (1 + e^(−steepness x))` of x up to a limit; what it is multiplied with is kept within ± the limit, and then
    /// 1 larger.
    ClampedSilu {
        /// What x is multiplied with in the exponent.
        steepness: f32,
        /// Where numbers are cut off.
        limit: f32,
    },
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

impl Routing {
    /// Experts by their parts of the softmax, which are made to add up to one.
    pub fn by_softmax(chosen: usize) -> Self {
        Self { chosen, scores: Scores::Softmax, groups: None, normalized: true, scale: 1.0 }
    }
}

impl Share {
    /// A layer's outputs from `first` on, one after the other, of a tensor `[of, inputs]`.
    pub fn part(first: usize, of: usize) -> Self {
        Self { expert: None, first, together: 1, step: 1, of, transposed: false, scales: None }
    }

    /// Which row of the tensor, or of that of an expert, is an output of the layer.
    pub fn row(&self, output: usize) -> usize {
        let (group, place) = (output / self.together, output % self.together);
        self.first.saturating_add(group.saturating_mul(self.step)).saturating_add(place)
    }

    /// The shape of a tensor that holds a matrix or a vector for each expert, or one for all.
    pub(crate) fn shape(&self, of_one: &[usize]) -> Vec<usize> {
        self.expert.map(|it| it.1).into_iter().chain(of_one.iter().copied()).collect()
    }
}

impl Norm {
    /// The tensor of a gain that is not of heads.
    pub fn shared_gain(&self) -> Option<&str> {
        match &self.gain {
            Gain::Shared(tensor) => Some(tensor),
            Gain::Rows { .. } | Gain::Each(_) | Gain::Scaled { .. } | Gain::Ones => None,
        }
    }
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
        [&self.query].into_iter().chain(own.iter().copied()).chain(&self.gate).collect()
    }
}

impl Mixer {
    /// The writer.
    pub fn output(&self) -> Option<&Projection> {
        match self {
            Self::Attention(Attention { output, .. })
            | Self::Latent(LatentAttention { output, .. })
            | Self::ShortConvolution(ShortConvolution { output, .. })
            | Self::Recurrence(Recurrence { output, .. }) => Some(output),
            Self::Nothing => None,
        }
    }

    /// The attention, if it is one over keys and values.
    pub fn attention(&self) -> Option<&Attention> {
        match self {
            Self::Attention(attention) => Some(attention),
            Self::Latent(_) | Self::ShortConvolution(_) | Self::Recurrence(_) | Self::Nothing => None,
        }
    }

    /// Whether later positions need something of a row that it leaves behind.
    pub fn remembers(&self) -> bool {
        match self {
            Self::Attention(attention) => attention.memory == Memory::Own,
            Self::Latent(_) | Self::ShortConvolution(_) | Self::Recurrence(_) => true,
            Self::Nothing => false,
        }
    }

    /// Its rotary embedding, if it has one.
    pub fn rope(&self) -> Option<&Rope> {
        match self {
            Self::Attention(attention) => attention.rope.as_ref(),
            Self::Latent(attention) => Some(&attention.rope),
            Self::ShortConvolution(_) | Self::Recurrence(_) | Self::Nothing => None,
        }
    }

    /// All that takes part in products for a token.
    fn projections(&self) -> Vec<&Projection> {
        let inputs = match self {
            Self::Attention(attention) => attention.inputs(),
            Self::Latent(LatentAttention { query_latent, query, latent, expansion, .. }) => {
                let before = query_latent.iter().map(|it| &it.0);
                before.chain([query, latent, expansion]).collect()
            }
            Self::ShortConvolution(convolution) => convolution.inputs().to_vec(),
            Self::Recurrence(recurrence) => recurrence.inputs(),
            Self::Nothing => Vec::new(),
        };
        inputs.into_iter().chain(self.output()).collect()
    }

    /// Numbers of a row of what it makes of what it reads, side by side: of latent attention the queries.
    pub(crate) fn input_cols(&self) -> usize {
        let all = |projections: Vec<&Projection>| projections.into_iter().map(|it| it.outputs).sum();
        match self {
            Self::Attention(attention) => all(attention.inputs()),
            Self::Latent(attention) => attention.query.outputs,
            Self::ShortConvolution(convolution) => all(convolution.inputs().to_vec()),
            Self::Recurrence(recurrence) => all(recurrence.inputs()),
            Self::Nothing => 0,
        }
    }

    /// See [`Block::cached_numbers`].
    fn cached_numbers(&self) -> usize {
        match self {
            Self::Attention(Attention { key, value, memory: Memory::Own, .. }) => {
                key.outputs.saturating_add(value.outputs)
            }
            Self::Latent(LatentAttention { latent, .. }) => latent.outputs,
            Self::Attention(_) | Self::ShortConvolution(_) | Self::Recurrence(_) | Self::Nothing => 0,
        }
    }

    /// See [`Block::state_numbers`].
    fn state_numbers(&self) -> usize {
        let numbers = |[rows, cols]: [usize; 2]| rows.saturating_mul(cols);
        match self {
            Self::Attention(_) | Self::Latent(_) | Self::Nothing => 0,
            Self::ShortConvolution(it) => numbers(it.convolution.state()),
            Self::Recurrence(it) => numbers(it.convolution.state()).saturating_add(numbers(it.shape.state())),
        }
    }
}

impl Blueprint {
    /// A mixer by its number, if there is one: those of the blocks come first, then what is beside each of them.
    pub(crate) fn mixer(&self, number: usize) -> Option<&Branch<Mixer>> {
        match number.checked_sub(self.blocks.len()) {
            None => Some(&self.blocks[number].mixer),
            Some(block) => self.blocks[block].beside.as_ref(),
        }
    }
}

impl Block {
    /// What mixes positions.
    pub fn mixers(&self) -> impl Iterator<Item = &Mixer> {
        std::iter::once(&self.mixer).chain(&self.beside).map(|it| &it.inner)
    }

    /// Numbers that are kept of every token of a sequence: its keys and values, or what they are made of.
    pub fn cached_numbers(&self) -> usize {
        self.mixers().map(Mixer::cached_numbers).fold(0, usize::saturating_add)
    }

    /// Numbers that are kept of a sequence however long it is: the states of recurrent layers.
    pub fn state_numbers(&self) -> usize {
        self.mixers().map(Mixer::state_numbers).fold(0, usize::saturating_add)
    }

    /// Positions for which its rotary embeddings hold, where there is such a limit.
    pub fn position_limit(&self) -> Option<usize> {
        self.mixers().filter_map(|it| it.rope()?.limit).min()
    }

    /// Weights that take part in products for a token: of experts, those of as many as it is sent to.
    pub fn weights(&self) -> usize {
        let mlp = match &self.mlp.inner {
            Mlp::Nothing => 0,
            Mlp::Dense(inner) | Mlp::Sparse(Sparse { inner, .. }) => inner.weights(),
            Mlp::Experts(experts) => experts.weights(),
            Mlp::Beside(Beside { dense, experts, .. }) => dense.weights().saturating_add(experts.weights()),
        };
        let per_layer = self.per_layer.iter().flat_map(|it| {
            let PerLayer { gate, context, projection, .. } = &it.inner;
            [gate, context, projection]
        });
        let laurel = self.laurel.iter().flat_map(|it| [&it.left, &it.right]);
        let beside = per_layer.chain(laurel).chain(self.update.iter().map(|it| &it.router));
        let others = self.mixers().flat_map(Mixer::projections).chain(beside);
        others.map(Projection::weights).fold(mlp, usize::saturating_add)
    }

    /// Everything that writes to the stream: which part of the block it belongs to, which expert it is, if one of
    /// several, and the norm behind it.
    pub fn writers(&self) -> Vec<DeclaredWriter<'_>> {
        let of_mlp = |expert, projection| DeclaredWriter {
            component: Component::MlpOutput,
            beside: false,
            expert,
            projection,
            post_norm: self.mlp.post_norm.as_ref(),
        };
        let beside = self.beside.iter().map(|it| (it, true));
        let mixers = std::iter::once((&self.mixer, false)).chain(beside);
        let of_mixers = mixers.filter_map(|(branch, beside)| {
            Some(DeclaredWriter {
                component: Component::AttentionOutput,
                beside,
                expert: None,
                projection: branch.inner.output()?,
                post_norm: branch.post_norm.as_ref(),
            })
        });
        let mut writers: Vec<_> = of_mixers.collect();
        match &self.mlp.inner {
            Mlp::Nothing => {}
            Mlp::Dense(inner) | Mlp::Sparse(Sparse { inner, .. }) => {
                writers.push(of_mlp(None, &inner.down));
            }
            Mlp::Experts(Experts { experts, shared, .. }) => {
                writers.extend(shared.iter().map(|it| of_mlp(None, &it.down)));
                writers.extend(experts.iter().enumerate().map(|(index, it)| of_mlp(Some(index), &it.down)));
            }
            // Of the two norms behind each the one that both share is named.
            Mlp::Beside(Beside { dense, experts: Experts { experts, .. }, .. }) => {
                writers.push(of_mlp(None, &dense.down));
                writers.extend(experts.iter().enumerate().map(|(index, it)| of_mlp(Some(index), &it.down)));
            }
        }
        writers.extend(self.laurel.as_ref().map(|it| DeclaredWriter {
            component: Component::LaurelOutput,
            beside: false,
            expert: None,
            projection: &it.right,
            post_norm: Some(&it.norm),
        }));
        writers.extend(self.per_layer.as_ref().map(|it| DeclaredWriter {
            component: Component::PerLayerProjection,
            beside: false,
            expert: None,
            projection: &it.inner.projection,
            post_norm: it.post_norm.as_ref(),
        }));
        writers
    }
}

/// A layer that writes to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredWriter<'a> {
    /// Which part of the block it belongs to.
    pub component: Component,
    /// Whether it belongs to the mixer beside the first.
    pub beside: bool,
    /// Which expert it is; `None` in a dense block, and for the expert that every token is sent to.
    pub expert: Option<usize>,
    /// The layer.
    pub projection: &'a Projection,
    /// The norm between it and the stream.
    pub post_norm: Option<&'a Norm>,
}

impl Experts {
    /// Weights that take part in products for a token.
    fn weights(&self) -> usize {
        let Self { router, routing, experts, shared, .. } = self;
        let used = experts.iter().take(routing.chosen).chain(shared).map(FeedForward::weights);
        used.fold(router.weights(), usize::saturating_add)
    }
}

impl FeedForward {
    /// What its input is multiplied with, in the order in which it is laid out.
    pub fn inputs(&self) -> Vec<&Projection> {
        self.gate.iter().chain([&self.up]).collect()
    }

    fn weights(&self) -> usize {
        let all = self.inputs().into_iter().chain([&self.down]);
        all.map(Projection::weights).fold(0, usize::saturating_add)
    }
}
