//! What a model is made of, as data.
//!
//! A family reads a checkpoint's hyper-parameters and answers with a [`Blueprint`]: which tensors there are, how
//! they are joined, and what each branch of a block does. The loader and the executor work from the blueprint
//! alone; they know no family. What a branch adds to the residual stream comes out of its *declared writers*, which
//! [`Block::writers`] lists, so nothing that writes can be forgotten.

mod attention;
mod layers;
mod mlp;
mod recurrent;
mod streams;

use glossary::Component;

pub use self::attention::{
    Attention, GateActivation, LatentAttention, LimitCause, Memory, OutputGate, Pairing, PositionLimit, Rope,
};
pub use self::layers::{Gain, Norm, NormKind, Projection, Share};
pub use self::mlp::{Activation, Beside, Experts, FeedForward, Groups, Routing, Scores, Sparse};
pub use self::recurrent::{
    Convolution, GatedNorm, Gating, Rate, Recurrence, RecurrenceShape, Rule, ShortConvolution,
};
pub use self::streams::{Laurel, MAX_STREAMS, StreamUpdate, Streams};

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

    /// See [`Block::position_limit`].
    fn position_limits(&self) -> impl Iterator<Item = PositionLimit> {
        let chosen = match self {
            Self::Latent(attention) => attention.chosen,
            Self::Attention(_) | Self::ShortConvolution(_) | Self::Recurrence(_) | Self::Nothing => None,
        };
        let of = |cause| move |positions| PositionLimit { positions, cause };
        let rotary = self.rope().and_then(|it| it.limit).map(of(LimitCause::RotaryScaling));
        rotary.into_iter().chain(chosen.map(of(LimitCause::SparseAttention)))
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
            Self::Recurrence(recurrence) => recurrence.projections(),
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
    /// All mixers by their numbers.
    pub(crate) fn mixers(&self) -> Vec<&Mixer> {
        let of = |number| self.mixer(number).map_or(&Mixer::Nothing, |it| &it.inner);
        (0..2 * self.blocks.len()).map(of).collect()
    }

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

    /// Up to how many positions its mixers are what they are here, where there is such a limit.
    pub fn position_limit(&self) -> Option<PositionLimit> {
        self.mixers().flat_map(Mixer::position_limits).min()
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
