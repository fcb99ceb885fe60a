//! One pass of packed rows through the blocks.
//!
//! The executor strings a back end's fused operations together as the blueprint says. It looks at no element and
//! knows no family, no text and no sequence: rows come with their positions and the pages that they attend to.

mod beside;
mod buffers;
mod latent;
mod laurel;
mod mixing;
mod per_layer;
mod streams;

use std::time::{Duration, Instant};

use glossary::{Component, EditSet, LayerIndex, Writer};

use self::buffers::{Buffers, Memory, PerBlock, experts};
use crate::backend::{Backend, ExpertParams, FeedForwardParams, HeadOutput, HeadWants, WriteParams};
use crate::blueprint::{Activation, Arrangement, Block, Blueprint, Experts, Mixer, Mlp, Sparse};
use crate::model::{BlockWeights, LinearWeights, MlpWeights, Model};
use crate::plan::Plan;
use crate::stage::Stage;

/// What is wanted of the output rows of a pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wants {
    pub(crate) head: HeadWants,
    /// Whether the residual stream is read at every site.
    pub(crate) residuals: bool,
}

/// What a pass has found, output row after output row. Grows until it is cleared.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) head: HeadOutput,
    /// `[rows, sites, d_model]`, the last site after the final norm.
    pub(crate) residuals: Vec<f32>,
}

impl Output {
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.residuals.clear();
    }
}

/// Time spent in the parts of the computation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartTimes {
    /// Products with weights, the gated activation included.
    pub products: Duration,
    /// The head: its product, its reductions.
    pub head: Duration,
    /// Attention proper.
    pub attention: Duration,
    /// Everything else: embedding, norms, rotation, edits, residual sums.
    pub rest: Duration,
}

/// A model on some back end. This is what is left when the back end's type is forgotten.
pub(crate) trait Compute: Send {
    fn describe(&self) -> String;
    fn row_block(&self) -> usize;
    /// Makes room for so many pages of keys and values and so many states of sequences.
    fn reserve(&mut self, pages: usize, states: usize);
    fn set_edits(&mut self, sets: &[EditSet]);
    fn forward(&mut self, plan: &Plan, outputs: &[u32], wants: &Wants, out: &mut Output);
    fn times(&mut self) -> &mut PartTimes;
    /// Rows that blocks have computed, all blocks together.
    fn block_rows(&self) -> u64;
}

pub(crate) struct Executor<B: Backend> {
    backend: B,
    blueprint: Blueprint,
    model: Model<B>,
    /// Rotary angles, one for each distinct embedding.
    angles: PerBlock<Option<B::Angles>>,
    /// By mixer, see [`Blueprint::mixer`].
    memory: Vec<Memory<B>>,
    /// By block.
    edits: Vec<BlockEdits<B>>,
    buffers: Buffers<B>,
    /// The plan of the rows that are left when keys and values have been stored for all.
    selected: Plan,
    stage: Stage,
    times: PartTimes,
    block_rows: u64,
}

struct BlockEdits<B: Backend> {
    mixer: Option<B::Edits>,
    beside: Option<B::Edits>,
    /// Of the MLP, or of the expert that every token is sent to.
    mlp: Option<B::Edits>,
    /// By expert; empty where none is edited.
    experts: Vec<Option<B::Edits>>,
    laurel: Option<B::Edits>,
    per_layer: Option<B::Edits>,
}

/// `residual += y` and no more.
fn plainly<'a, B: Backend>() -> WriteParams<'a, B> {
    WriteParams {
        edits: None,
        bias: None,
        post_norm: None,
        gates: None,
        scale: 1.0,
        stream_scale: 1.0,
        next_norm: None,
    }
}

/// What an MLP says before its writer's bias.
fn feed_forward<B: Backend>(
    backend: &mut B,
    input: &B::Rows,
    weights: &FeedForwardParams<B>,
    activation: Activation,
    hidden: &mut B::Rows,
    out: &mut B::Rows,
) {
    let FeedForwardParams { gated, up, up_bias, down, .. } = weights;
    if *gated {
        backend.gated_linear(input, up, up_bias.as_ref(), activation, hidden);
    } else {
        backend.linear(input, up, up_bias.as_ref(), hidden);
        backend.gate(hidden, activation, None);
    }
    backend.linear(hidden, down, None, out);
}

/// Adds the time since `start` to a part and starts anew.
fn lap(part: &mut Duration, start: &mut Instant) {
    let now = Instant::now();
    *part += now - *start;
    *start = now;
}

impl<B: Backend> Executor<B> {
    pub(crate) fn new(backend: B, blueprint: Blueprint, model: Model<B>) -> Self {
        let blocks = &blueprint.blocks;
        let mixers = blueprint.mixers();
        let buffers = Buffers::new(&backend, &blueprint);
        Self {
            angles: PerBlock::new(mixers.iter().map(|it| it.rope()), |rope| {
                rope.map(|it| backend.angles(it))
            }),
            memory: mixers.iter().map(|it| Memory::new(&backend, it)).collect(),
            edits: blocks
                .iter()
                .map(|_| BlockEdits {
                    mixer: None,
                    beside: None,
                    mlp: None,
                    experts: Vec::new(),
                    laurel: None,
                    per_layer: None,
                })
                .collect(),
            buffers,
            selected: Plan::default(),
            stage: Stage::default(),
            times: PartTimes::default(),
            block_rows: 0,
            backend,
            blueprint,
            model,
        }
    }

    /// Appends the residual stream of some rows at a site: `out.residuals[row][site]`.
    fn tap(&mut self, source: Tap, rows: Option<&[u32]>, site: usize, first_row: usize, out: &mut Output) {
        let Self { backend, buffers, blueprint, .. } = self;
        let from = match source {
            Tap::Residual => match &blueprint.streams {
                Some(streams) => &buffers.streams[streams.active],
                None => &buffers.residual,
            },
            Tap::Normed => &buffers.x,
        };
        buffers.tap.clear();
        if let Some(rows) = rows {
            backend.select(from, rows, &mut buffers.chosen);
            backend.download(&buffers.chosen, &mut buffers.tap);
        } else {
            backend.download(from, &mut buffers.tap);
        }
        let (d, sites) = (blueprint.d_model, blueprint.blocks.len() + 1);
        for (row, values) in buffers.tap.chunks_exact(d).enumerate() {
            let at = ((first_row + row) * sites + site) * d;
            out.residuals[at..at + d].copy_from_slice(values);
        }
    }

    /// The MLP of a block, and the norm that the next block or the head reads through.
    fn transform(&mut self, index: usize, plan: &Plan) {
        let Self { backend, blueprint, model, edits, buffers, times, .. } = self;
        let (block, weights) = (&blueprint.blocks[index], &model.blocks[index].mlp);
        if let Mlp::Nothing = block.mlp.inner {
            return;
        }
        let mut start = Instant::now();
        let normed = match block.arrangement {
            Arrangement::Sequential => weights.pre_norm.is_some(),
            Arrangement::Parallel => model.blocks[index].mixer.pre_norm.is_some(),
        };
        // The last branch ends the block, or its streams are corrected first.
        let (stream_scale, next_norm) = match &model.blocks[index] {
            BlockWeights { update: Some(_), .. } => (1.0, None),
            BlockWeights { per_layer: Some(per_layer), .. } => (1.0, per_layer.pre_norm.as_ref()),
            _ => (block.scale, model.entry_norm(index + 1)),
        };
        let mut params = WriteParams {
            post_norm: weights.post_norm.as_ref(),
            scale: block.mlp.scale,
            stream_scale,
            next_norm,
            ..plainly()
        };
        let own_edits = &edits[index];
        if let (Mlp::Beside(both), MlpWeights::Beside(matrices)) = (&block.mlp.inner, &weights.inner) {
            beside::beside(backend, index, (both, matrices), own_edits, buffers, plan);
        }
        let input = if normed { &buffers.x } else { &buffers.residual };
        let hidden = buffers.hidden.get(index);
        match (&block.mlp.inner, &weights.inner) {
            (Mlp::Dense(dense), MlpWeights::Dense(matrices)) => {
                feed_forward(backend, input, matrices, dense.activation, hidden, &mut buffers.y);
                let bias = matrices.down_bias.as_ref();
                params = WriteParams { edits: own_edits.mlp.as_ref(), bias, ..params };
            }
            (Mlp::Sparse(Sparse { inner, deviations }), MlpWeights::Sparse { inputs, down }) => {
                let ups = buffers.up.get(index);
                for (LinearWeights { matrix, bias }, out) in inputs.iter().zip([&mut *hidden, &mut *ups]) {
                    backend.linear(input, matrix, bias.as_ref(), out);
                }
                backend.threshold(hidden, *deviations);
                backend.gate(hidden, inner.activation, (inputs.len() > 1).then_some(&*ups));
                backend.linear(hidden, &down.matrix, None, &mut buffers.y);
                params = WriteParams { edits: own_edits.mlp.as_ref(), bias: down.bias.as_ref(), ..params };
            }
            (
                Mlp::Experts(Experts { routing, experts, shared, .. }),
                MlpWeights::Experts {
                    router,
                    router_bias,
                    correction,
                    experts: matrices,
                    shared: for_all,
                    shared_gate,
                },
            ) => {
                let scores = buffers.scores.get(index);
                backend.linear(input, router, router_bias.as_ref(), scores);
                let mixture = ExpertParams {
                    routing,
                    correction: correction.as_ref(),
                    share_scales: None,
                    experts: matrices,
                    activation: experts[0].activation,
                    edits: &own_edits.experts,
                };
                backend.experts(input, scores, mixture, plan, &mut buffers.y);
                if let (Some(shared), Some(for_all)) = (shared, for_all) {
                    let said = &mut buffers.shared;
                    feed_forward(backend, input, for_all, shared.activation, hidden, said);
                    if let Some(gate) = shared_gate {
                        backend.linear(input, gate, None, &mut buffers.shared_gate);
                    }
                    // What it writes joins what the experts wrote as a writer's output joins the stream.
                    let join = WriteParams {
                        edits: own_edits.mlp.as_ref(),
                        bias: for_all.down_bias.as_ref(),
                        gates: shared_gate.as_ref().map(|_| &buffers.shared_gate),
                        ..plainly()
                    };
                    backend.write(&mut buffers.shared, join, plan, &mut buffers.y, &mut buffers.chosen);
                }
            }
            (Mlp::Beside(_), MlpWeights::Beside(_)) => {}
            _ => unreachable!("weights are loaded as the blueprint says"),
        }
        lap(&mut times.products, &mut start);
        backend.write(&mut buffers.y, params, plan, &mut buffers.residual, &mut buffers.x);
        lap(&mut times.rest, &mut start);
        self.correct(index);
        self.add_per_layer(index, plan);
    }

    /// Makes rows of copies of rows, where what is to enter a block is.
    fn spread(&mut self, index: usize, copies: &[u32]) {
        let Self { backend, model, buffers, .. } = self;
        let Buffers { residual, streams, chosen, .. } = buffers;
        for stream in std::iter::once(residual).chain(streams) {
            backend.select(stream, copies, chosen);
            std::mem::swap(stream, chosen);
        }
        if model.entry_norm(index).is_some() {
            backend.select(&buffers.x, copies, &mut buffers.chosen);
            std::mem::swap(&mut buffers.x, &mut buffers.chosen);
        }
    }

    /// One pass; in the last block every row is computed for itself, if it is computed at all.
    fn pass(&mut self, pass: &Plan, stage: &mut Stage, outputs: &[u32], wants: &Wants, out: &mut Output) {
        let blocks = self.blueprint.blocks.len();
        let sites = blocks + 1;
        let first_row = out.residuals.len() / (sites * self.blueprint.d_model);
        if wants.residuals {
            out.residuals.resize((first_row + outputs.len()) * sites * self.blueprint.d_model, 0.0);
        }
        let taps = wants.residuals && !outputs.is_empty();
        let mut start = Instant::now();
        let Self { backend, blueprint, model, buffers, .. } = self;
        let shared = pass.has_followers();
        if shared {
            stage.begin(pass);
        }
        let plan = if shared { &stage.plan } else { pass };
        backend.embed(&model.embedding, plan, blueprint.embedding.scale, &mut buffers.residual);
        if let Some(norm) = model.entry_norm(0) {
            backend.norm(&buffers.residual, norm, &mut buffers.x);
        }
        self.begin_streams();
        lap(&mut self.times.rest, &mut start);

        // Past the last block that stores keys and values, rows without an output are needed for nothing. Rows that follow
        // others are all there in the last block only.
        let stores = |it: &Block| it.mixers().any(Mixer::remembers);
        let last_stored = self.blueprint.blocks.iter().rposition(stores).filter(|_| !shared);
        let narrows = last_stored.unwrap_or(blocks.saturating_sub(1));
        let mut narrowed: Option<Plan> = None;
        for index in 0..blocks {
            if shared && let Some(copies) = stage.advance(pass, index) {
                self.spread(index, copies);
            }
            if taps {
                let rows = if shared { stage.places(outputs) } else { outputs };
                self.tap(Tap::Residual, narrowed.is_none().then_some(rows), index, first_row, out);
            }
            lap(&mut self.times.rest, &mut start);
            let plan = narrowed.as_ref().unwrap_or(if shared { &stage.plan } else { pass });
            self.block_rows += plan.rows() as u64;
            // This block's keys and values are all that rows without an output are still needed for.
            let keep = (index == narrows && outputs.len() < plan.rows()).then_some(outputs);
            let mut chosen = std::mem::take(&mut self.selected);
            if let Some(keep) = keep {
                plan.select(keep, &mut chosen);
            }
            self.predict(index);
            self.mix(index, plan, keep.map(|it| (it, &chosen)));
            if index == narrows && outputs.is_empty() {
                self.selected = chosen;
                return;
            }
            if keep.is_some() {
                narrowed = Some(chosen);
            } else {
                self.selected = chosen;
            }
            let plan = narrowed.as_ref().unwrap_or(if shared { &stage.plan } else { pass });
            self.transform(index, plan);
            start = Instant::now();
        }
        self.end_streams(narrowed.as_ref().unwrap_or(if shared { &stage.plan } else { pass }));
        if let Some(selected) = narrowed {
            self.selected = selected;
        }
        if taps {
            self.tap(Tap::Normed, None, blocks, first_row, out);
            lap(&mut self.times.rest, &mut start);
        }
        let Self { backend, blueprint, model, buffers, times, .. } = self;
        let head = &blueprint.head;
        if wants.head.top > 0 || wants.head.logsumexp || wants.head.logits || !wants.head.targets.is_empty() {
            let (matrix, bias) = (&model.head, model.head_bias.as_ref());
            backend.head(&buffers.x, matrix, bias, head.scale, head.softcap, &wants.head, &mut out.head);
            backend.synchronize();
            lap(&mut times.head, &mut start);
        }
    }
}

/// What a tap reads.
#[derive(Clone, Copy)]
enum Tap {
    Residual,
    Normed,
}

impl<B: Backend> Compute for Executor<B> {
    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn row_block(&self) -> usize {
        self.backend.row_block()
    }

    fn reserve(&mut self, pages: usize, states: usize) {
        for layer in &mut self.memory {
            match layer {
                Memory::Pages(layer) => self.backend.reserve(layer, pages),
                Memory::States { window, state } => {
                    for layer in [Some(window), state.as_mut()].into_iter().flatten() {
                        self.backend.reserve_states(layer, states);
                    }
                }
                Memory::Nothing => {}
            }
        }
    }

    fn set_edits(&mut self, sets: &[EditSet]) {
        let Self { backend, blueprint, edits, .. } = self;
        let of = |writer| {
            let by_index: Vec<_> =
                std::iter::once(None).chain(sets.iter().map(|it| it.get(writer))).collect();
            by_index.iter().any(Option::is_some).then(|| backend.edits(&by_index, blueprint.d_model))
        };
        for (index, (edits, block)) in edits.iter_mut().zip(&blueprint.blocks).enumerate() {
            let layer = LayerIndex(index);
            let expert =
                |expert| Writer { expert: Some(expert), ..Writer::dense(layer, Component::MlpOutput) };
            let mut experts: Vec<_> = (0..experts(block).len()).map(|it| of(expert(it))).collect();
            if experts.iter().all(Option::is_none) {
                experts.clear();
            }
            *edits = BlockEdits {
                mixer: of(Writer::dense(layer, Component::AttentionOutput)),
                beside: of(Writer { beside: true, ..Writer::dense(layer, Component::AttentionOutput) }),
                mlp: of(Writer::dense(layer, Component::MlpOutput)),
                experts,
                laurel: of(Writer::dense(layer, Component::LaurelOutput)),
                per_layer: of(Writer::dense(layer, Component::PerLayerProjection)),
            };
        }
    }

    fn forward(&mut self, plan: &Plan, outputs: &[u32], wants: &Wants, out: &mut Output) {
        let mut stage = std::mem::take(&mut self.stage);
        self.pass(plan, &mut stage, outputs, wants, out);
        self.stage = stage;
    }

    fn times(&mut self) -> &mut PartTimes {
        &mut self.times
    }

    fn block_rows(&self) -> u64 {
        self.block_rows
    }
}
