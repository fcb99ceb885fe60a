//! What an executor keeps from pass to pass: activations, and what blocks remember of sequences.

use super::latent;
use crate::backend::Backend;
use crate::blueprint::{self, Beside, Block, Blueprint, Experts, FeedForward, Mixer, Mlp, Sparse};

/// What a block's mixer remembers of sequences.
pub(super) enum Memory<B: Backend> {
    /// Keys and values of every position.
    Pages(B::Pages),
    /// The last inputs of a convolution, and the state of a recurrence behind it.
    States {
        window: B::States,
        state: Option<B::States>,
    },
    Nothing,
}

impl<B: Backend> Memory<B> {
    pub(super) fn new(backend: &B, mixer: &Mixer) -> Self {
        match mixer {
            Mixer::Attention(attention) => match attention.memory {
                blueprint::Memory::Own => Self::Pages(backend.pages(&attention.shape)),
                blueprint::Memory::Of(_) => Self::Nothing,
            },
            Mixer::Latent(attention) => Self::Pages(backend.pages(&attention.shape.over_latents())),
            Mixer::ShortConvolution(it) => {
                Self::States { window: backend.states(it.convolution.state()), state: None }
            }
            Mixer::Recurrence(it) => Self::States {
                window: backend.states(it.convolution.state()),
                state: Some(backend.states(it.shape.state())),
            },
            Mixer::Nothing => Self::Nothing,
        }
    }
}

/// Activations, kept from pass to pass.
pub(super) struct Buffers<B: Backend> {
    pub(super) residual: B::Rows,
    /// All streams, where there are several.
    pub(super) streams: Vec<B::Rows>,
    /// What routers say of streams.
    pub(super) routed: B::Rows,
    /// What a branch reads.
    pub(super) x: B::Rows,
    /// What a writer says.
    pub(super) y: B::Rows,
    /// What the expert says that every token is sent to, and before that the mixer beside a block's first.
    pub(super) shared: B::Rows,
    /// What a mixer makes of what it reads: queries, keys and values, or what is convolved.
    pub(super) inputs: PerBlock<B::Rows>,
    pub(super) convolved: PerBlock<B::Rows>,
    /// What gates and decays of a recurrence are made of, and these themselves, where they are not among the inputs.
    pub(super) narrow: PerBlock<B::Rows>,
    pub(super) wide: PerBlock<B::Rows>,
    pub(super) latent: latent::Buffers<B>,
    /// The logits of the share of the expert that every token is sent to.
    pub(super) shared_gate: B::Rows,
    pub(super) mixed: PerBlock<B::Rows>,
    pub(super) hidden: PerBlock<B::Rows>,
    /// What a sparse gate is multiplied with.
    pub(super) up: PerBlock<B::Rows>,
    pub(super) laurel: PerBlock<B::Rows>,
    /// What routers say.
    pub(super) scores: PerBlock<B::Rows>,
    /// What blocks have of a token, what the embedding adds to that, and what passes the gate.
    pub(super) per_layer: [B::Rows; 3],
    /// Where chosen rows of the buffers above go.
    pub(super) chosen: B::Rows,
    pub(super) chosen_inputs: PerBlock<B::Rows>,
    pub(super) chosen_mixed: PerBlock<B::Rows>,
    pub(super) tap: Vec<f32>,
}

impl<B: Backend> Buffers<B> {
    pub(super) fn new(backend: &B, blueprint: &Blueprint) -> Self {
        let blocks = &blueprint.blocks;
        let widths = |width: &dyn Fn(&Block) -> usize| {
            PerBlock::new(blocks.iter().map(width), |&cols| backend.rows(cols))
        };
        let mixers = blueprint.mixers();
        let of_mixers = |width: &dyn Fn(&Mixer) -> usize| {
            PerBlock::new(mixers.iter().map(|it| width(it)), |&cols| backend.rows(cols))
        };
        let d = blueprint.d_model;
        let per_layer = blueprint.per_layer.as_ref().map_or(0, |it| it.width);
        let streams = blueprint.streams.as_ref().map_or(0, |it| it.count);
        Self {
            residual: backend.rows(d),
            streams: (0..streams).map(|_| backend.rows(d)).collect(),
            routed: backend.rows(streams),
            x: backend.rows(d),
            y: backend.rows(d),
            shared: backend.rows(d),
            inputs: of_mixers(&Mixer::input_cols),
            convolved: of_mixers(&convolved_cols),
            narrow: of_mixers(&|it| beside_cols(it)[0]),
            wide: of_mixers(&|it| beside_cols(it)[1]),
            latent: latent::Buffers::new(backend, &mixers),
            mixed: of_mixers(&mixed_cols),
            shared_gate: backend.rows(1),
            hidden: widths(&hidden_cols),
            up: widths(&sparse_cols),
            laurel: widths(&laurel_cols),
            scores: widths(&|it| experts(it).len()),
            per_layer: std::array::from_fn(|_| backend.rows(per_layer)),
            chosen: backend.rows(d),
            chosen_inputs: of_mixers(&Mixer::input_cols),
            chosen_mixed: of_mixers(&mixed_cols),
            tap: Vec::new(),
        }
    }
}

/// Something that every block uses, or every mixer, shared by those that need the same.
pub(super) struct PerBlock<T> {
    items: Vec<T>,
    of: Vec<usize>,
}

impl<T> PerBlock<T> {
    pub(super) fn new<K: PartialEq>(keys: impl Iterator<Item = K>, make: impl Fn(&K) -> T) -> Self {
        let mut distinct: Vec<K> = Vec::new();
        let mut of = Vec::new();
        for key in keys {
            of.push(distinct.iter().position(|it| *it == key).unwrap_or_else(|| {
                distinct.push(key);
                distinct.len() - 1
            }));
        }
        Self { items: distinct.iter().map(make).collect(), of }
    }

    pub(super) fn get(&mut self, block: usize) -> &mut T {
        &mut self.items[self.of[block]]
    }
}

/// How wide the MLP is that every token goes through, if there is one.
fn hidden_cols(block: &Block) -> usize {
    match &block.mlp.inner {
        Mlp::Dense(inner) | Mlp::Sparse(Sparse { inner, .. }) | Mlp::Beside(Beside { dense: inner, .. }) => {
            inner.down.inputs
        }
        Mlp::Experts(Experts { shared, .. }) => shared.as_ref().map_or(0, |it| it.down.inputs),
        Mlp::Nothing => 0,
    }
}

/// How wide what is behind a sparse gate is.
fn sparse_cols(block: &Block) -> usize {
    match &block.mlp.inner {
        Mlp::Sparse(Sparse { inner, .. }) => inner.up.outputs,
        _ => 0,
    }
}

fn laurel_cols(block: &Block) -> usize {
    block.laurel.as_ref().map_or(0, |it| it.left.outputs)
}

pub(super) fn experts(block: &Block) -> &[FeedForward] {
    match &block.mlp.inner {
        Mlp::Dense(_) | Mlp::Sparse(_) | Mlp::Nothing => &[],
        Mlp::Experts(Experts { experts, .. })
        | Mlp::Beside(Beside { experts: Experts { experts, .. }, .. }) => experts,
    }
}

/// Numbers that a mixer's writer reads.
fn mixed_cols(mixer: &Mixer) -> usize {
    mixer.output().map_or(0, |it| it.inputs)
}

/// Numbers that gates and decays of a recurrence are made of, and of these, where they are not among the inputs.
fn beside_cols(mixer: &Mixer) -> [usize; 2] {
    let Mixer::Recurrence(recurrence) = mixer else { return [0; 2] };
    let Some(latents) = &recurrence.latents else { return [0; 2] };
    let wide = recurrence.gate.iter().chain(&recurrence.decay);
    [latents.iter().map(|it| it.outputs).sum(), wide.map(|it| it.outputs).sum()]
}

fn convolved_cols(mixer: &Mixer) -> usize {
    match mixer {
        Mixer::Recurrence(recurrence) => recurrence.convolution.channels,
        _ => 0,
    }
}
