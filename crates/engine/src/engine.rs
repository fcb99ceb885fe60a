//! A loaded model, whatever its back end.

use checkpoint::{Checkpoint, Quantization, Tensor, TensorDtype};
use glossary::{EditSet, LayerIndex, TokenId, Writer};

use crate::backend::cpu::{Cpu, Isa};
use crate::backend::reference::Reference;
use crate::backend::{Arithmetic, Backend, WeightDtype};
use crate::blueprint::{Blueprint, DeclaredWriter, PositionLimit, Share, Streams};
use crate::executor::{Compute, Executor, Output, PartTimes, Wants};
use crate::families::Source;
use crate::model::{Loader, Weights};
use crate::plan::{Following, PAGE, PageTable, Plan, SequenceId};
use crate::rules::{LogitRules, SeenTokens};
use crate::{EngineError, LoadError};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The processor with a chosen instruction set, for tests and comparisons.
    CpuWith(Isa),
    /// Plain loops in f64: the oracle. Very slow.
    Reference,
}

/// The precision that weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeChoice {
    /// That of the checkpoint's largest tensors; f32 where adapters have changed any, or where they are quantized in blocks, or with scales in f32, since only
    /// f32 holds their values exactly: weights quantized with scales of 16 bits have values of these. With [`Arithmetic::Bf16`] always bf16.
    Auto,
    /// As told.
    Fixed(WeightDtype),
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// What its weights are kept in.
    pub dtype: DtypeChoice,
    /// The blocks that weights of products are kept in; `None`: none. What has no place in blocks is kept in `dtype`.
    pub quantize: Option<Quantization>,
    /// What products with its weights compute in.
    pub arithmetic: Arithmetic,
    /// Threads; 0: as many as the machine has.
    pub threads: usize,
    /// A family to try whatever the checkpoint says.
    pub family: Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: DtypeChoice::Auto,
            quantize: None,
            arithmetic: Arithmetic::F32,
            threads: 0,
            family: None,
        }
    }
}

/// What is known of a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The family's name.
    pub family: &'static str,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Positions that the model was made for, where it says so.
    pub context_length: Option<usize>,
    /// Positions past which sequences are refused; `None`: never.
    pub position_limit: Option<PositionLimit>,
    /// What its weights are kept in, if not in blocks.
    pub dtype: WeightDtype,
    /// The blocks that were asked for.
    pub quantization: Option<Quantization>,
    /// Numbers in all matrices: those of blocks and experts, and the head.
    pub weights: usize,
    /// Memory that these take, in bytes.
    pub weight_bytes: usize,
    /// What products with its weights compute in.
    pub arithmetic: Arithmetic,
    /// All writers, in order of layer.
    pub writers: Vec<WriterInfo>,
    /// What each block multiplies the stream with at its end; 1 in most models.
    pub stream_scales: Vec<f32>,
    /// Weights that take part in a product for a token, the head's not counted; of experts, those of as many as it is
    /// sent to.
    pub block_weights: usize,
    /// Weights of the head.
    pub head_weights: usize,
    /// Memory for the keys and values of one position of one sequence, in bytes.
    pub cache_bytes_per_token: usize,
    /// Memory for the states of recurrent layers of one sequence, in bytes.
    pub state_bytes_per_sequence: usize,
    /// What a user should know about the files although they can be read, a sentence each.
    pub notices: Vec<String>,
}

/// A layer that writes to the residual stream.
#[derive(Clone, Debug)]
pub struct WriterInfo {
    /// Which one.
    pub writer: Writer,
    /// Its weight as the checkpoint has it, `[d_model, d_in]`; the name is that of the file. Of a tensor that holds
    /// several experts, a part.
    pub weight: Tensor,
    /// Which part, where the tensor holds several experts.
    pub share: Option<Share>,
    /// The gain of a norm between the writer and the stream, `[d_model]`.
    pub gain: Option<Vec<f32>>,
    /// The tensor of its bias, which edits leave alone, by its name in the file; of several experts, that of all.
    pub bias: Option<String>,
}

/// A model that is ready to compute.
pub struct Engine {
    compute: Box<dyn Compute>,
    threads: rayon::ThreadPool,
    info: ModelInfo,
    /// How it was loaded.
    options: LoadOptions,
    pub(crate) edit_sets: usize,
    /// The first block that each edit index changes, at most the last one.
    first_edited: Vec<usize>,
    /// How often edits have been set.
    pub(crate) edition: u64,
    pub(crate) table: PageTable,
    /// The rows of the pass at hand, and which of them have an output; kept for their memory.
    plan: Plan,
    outputs: Vec<u32>,
    /// What answers obey.
    pub(crate) rules: LogitRules,
    pub(crate) seen: SeenTokens,
}

/// Tokens to append to sequences that differ in their edits alone.
pub(crate) struct Feed<'a> {
    pub(crate) tokens: &'a [TokenId],
    pub(crate) variants: Vec<Variant>,
    /// How many of the last tokens have an output.
    pub(crate) outputs: usize,
    /// For each output the token whose logit is wanted; empty: none.
    pub(crate) targets: &'a [TokenId],
}

/// One of the sequences that the same tokens are appended to.
#[derive(Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) sequence: SequenceId,
    pub(crate) edit: usize,
}

/// Which output a row of outputs is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) feed: usize,
    pub(crate) variant: usize,
    pub(crate) output: usize,
}

/// An error for a number of threads that no machine of this kind has use of: more than eight a core, and more than 64.
/// Each has a stack, and all of them wait for each other.
pub fn check_threads(threads: usize) -> Result<(), LoadError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = (8 * cores).max(64);
    if threads > most { Err(LoadError::TooManyThreads { threads, cores, most }) } else { Ok(()) }
}

impl Engine {
    /// Loads a checkpoint; `progress(done, all)` is called after each block.
    pub fn load(
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Self, LoadError> {
        let source = Source::new(checkpoint, options.family.as_deref())?;
        let blueprint = source.blueprint()?;
        let arithmetic = options.arithmetic;
        let dtype = match (options.dtype, arithmetic) {
            (DtypeChoice::Auto | DtypeChoice::Fixed(WeightDtype::Bf16), Arithmetic::Bf16) => {
                WeightDtype::Bf16
            }
            (DtypeChoice::Fixed(dtype), Arithmetic::Bf16) => return Err(LoadError::Arithmetic { dtype }),
            (DtypeChoice::Fixed(dtype), Arithmetic::F32) => dtype,
            (DtypeChoice::Auto, Arithmetic::F32) => natural_dtype(checkpoint),
        };
        if let (Some(quantization), Arithmetic::Bf16) = (options.quantize, arithmetic) {
            return Err(LoadError::QuantizedArithmetic { quantization });
        }
        check_threads(options.threads)?;
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("ablate-{index}"))
            .build()
            .map_err(|source| LoadError::Threads { threads: options.threads, source })?;
        let mut info = describe(&source, &blueprint, dtype, arithmetic)?;
        let table =
            if info.state_bytes_per_sequence > 0 { PageTable::recurrent() } else { PageTable::default() };
        let held = (dtype, options.quantize);
        let (compute, weights) = threads.install(|| match options.device {
            Device::Cpu => execute(Cpu::new().computing_in(arithmetic), &source, blueprint, held, progress),
            Device::CpuWith(isa) => {
                execute(Cpu::with_isa(isa).computing_in(arithmetic), &source, blueprint, held, progress)
            }
            Device::Reference => {
                execute(Reference::computing_in(arithmetic), &source, blueprint, held, progress)
            }
        })?;
        info.quantization = options.quantize;
        (info.weights, info.weight_bytes) = (weights.numbers, weights.bytes);
        Ok(Self {
            compute,
            threads,
            first_edited: vec![info.n_layers.saturating_sub(1)],
            info,
            options: options.clone(),
            edit_sets: 0,
            edition: 0,
            table,
            plan: Plan::default(),
            outputs: Vec::new(),
            rules: LogitRules::default(),
            seen: SeenTokens::default(),
        })
    }

    /// Has all answers obey rules from now on. Distributions and given continuations are not changed by them.
    pub fn obey(&mut self, rules: LogitRules) {
        self.seen.reserve(self.info.vocab);
        self.rules = rules;
    }

    /// The same model with weights as its checkpoint has them, computed in the same way.
    pub fn unquantized(&self, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let options = LoadOptions { quantize: None, ..self.options.clone() };
        Self::load(checkpoint, &options, &mut |_, _| {})
    }

    /// What is known of the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The back end: device, instruction set.
    pub fn device(&self) -> String {
        self.compute.describe()
    }

    /// Threads that it computes on.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Sets the candidates: edit index `i + 1` means `sets[i]`, index 0 the original model.
    ///
    /// An empty list takes all edits off; nothing of them is left.
    pub fn set_edits(&mut self, sets: &[EditSet]) -> Result<(), EngineError> {
        for (index, set) in sets.iter().enumerate() {
            for (writer, edit) in set.iter() {
                let set = index + 1;
                if !self.info.writers.iter().any(|it| it.writer == writer) {
                    return Err(EngineError::UnknownWriter { set, writer: writer.to_string() });
                }
                if edit.width() != self.info.d_model {
                    return Err(EngineError::EditWidth {
                        set,
                        writer: writer.to_string(),
                        expected: self.info.d_model,
                        found: edit.width(),
                    });
                }
            }
        }
        self.compute.set_edits(sets);
        let last = self.info.n_layers.saturating_sub(1);
        let first = |set: &EditSet| set.iter().map(|it| it.0.layer.0).min().map_or(last, |it| it.min(last));
        self.first_edited = std::iter::once(last).chain(sets.iter().map(first)).collect();
        self.edit_sets = sets.len();
        self.edition += 1;
        Ok(())
    }

    /// The time spent in each part since this was last asked.
    pub fn take_times(&mut self) -> PartTimes {
        std::mem::take(self.compute.times())
    }

    /// How often a block has computed a token, since the model was loaded.
    pub fn block_rows(&self) -> u64 {
        self.compute.block_rows()
    }

    /// Positions that there is room for in the key/value cache, used or free; it grows and never shrinks.
    pub fn cache_positions(&self) -> usize {
        self.table.pages() * PAGE
    }

    /// Runs tokens through the model, in passes of about `rows` rows and as equal as possible.
    ///
    /// Outputs come pass by pass, in the order of the feeds, their variants and their tokens. After every pass
    /// `each` sees which ones it had; what it leaves in `out` stays there.
    pub(crate) fn run(
        &mut self,
        feeds: &[Feed<'_>],
        rows: usize,
        wants: &mut Wants,
        out: &mut Output,
        each: &mut dyn FnMut(&[Place], &mut Output),
    ) {
        self.run_while(&|| true, feeds, rows, wants, out, each);
    }

    /// The same as long as `go_on` says so, which is asked before each pass.
    pub(crate) fn run_while(
        &mut self,
        go_on: &dyn Fn() -> bool,
        feeds: &[Feed<'_>],
        rows: usize,
        wants: &mut Wants,
        out: &mut Output,
        each: &mut dyn FnMut(&[Place], &mut Output),
    ) {
        let total: usize = feeds.iter().map(|it| it.tokens.len() * it.variants.len()).sum();
        if total == 0 {
            return;
        }
        let rows = total.div_ceil(total.div_ceil(rows.min(self.compute.row_block())));
        let mut places = Vec::new();
        let (mut feed, mut offset) = (0, 0);
        while feed < feeds.len() && go_on() {
            self.plan.clear();
            self.outputs.clear();
            wants.head.targets.clear();
            places.clear();
            while let Some(Feed { tokens, variants, outputs, targets }) = feeds.get(feed) {
                let room = rows.saturating_sub(self.plan.rows()) / variants.len();
                if room == 0 && self.plan.rows() > 0 {
                    break;
                }
                let end = tokens.len().min(offset + room.max(1));
                let first_output = (tokens.len() - outputs.min(&tokens.len())).max(offset);
                let first_row = self.plan.rows();
                for (index, &Variant { sequence, edit }) in variants.iter().enumerate() {
                    self.push(sequence, &tokens[offset..end], edit, first_output - offset);
                    let new = (first_output..end).map(|it| it - (tokens.len() - outputs));
                    places.extend(new.clone().map(|output| Place { feed, variant: index, output }));
                    if !targets.is_empty() {
                        wants.head.targets.extend(new.map(|it| targets[it]));
                    }
                }
                self.follow(variants, first_row, end - offset);
                offset = end;
                if offset == tokens.len() {
                    (feed, offset) = (feed + 1, 0);
                }
            }
            self.forward(wants, out);
            each(&places, out);
        }
    }

    /// Of variants whose rows begin at a row of the plan, lets all follow the one whose edits begin last.
    fn follow(&mut self, variants: &[Variant], first_row: usize, rows: usize) {
        let begins = |it: &Variant| self.first_edited[it.edit];
        let Some((leader, _)) = variants.iter().enumerate().max_by_key(|it| begins(it.1)) else { return };
        for (index, variant) in variants.iter().enumerate() {
            let until = begins(variant);
            if index == leader || until == 0 {
                continue;
            }
            for row in 0..rows {
                let leader = (first_row + leader * rows + row) as u32;
                self.plan.follow(first_row + index * rows + row, Following { leader, until });
            }
        }
    }

    /// One more token for each of many sequences, every one with an output.
    ///
    /// Allocates nothing once it has been called with as many sequences, but for pages of the cache.
    pub(crate) fn step(
        &mut self,
        sequences: impl Iterator<Item = (SequenceId, TokenId, usize)> + Clone,
        wants: &Wants,
        out: &mut Output,
    ) {
        let total = sequences.clone().count();
        let rows = total.div_ceil(total.div_ceil(self.compute.row_block()).max(1)).max(1);
        let mut rest = sequences;
        loop {
            self.plan.clear();
            self.outputs.clear();
            for (sequence, token, edit) in rest.by_ref().take(rows) {
                self.push(sequence, &[token], edit, 0);
            }
            if self.plan.rows() == 0 {
                return;
            }
            self.forward(wants, out);
        }
    }

    /// The pass that has been planned.
    fn forward(&mut self, wants: &Wants, out: &mut Output) {
        let Self { compute, threads, plan, outputs, table, .. } = self;
        threads.install(|| {
            compute.reserve(table.pages(), table.states());
            compute.forward(plan, outputs, wants, out);
        });
        table.settle();
    }

    /// Adds tokens to the plan; those from `first_output` on have an output.
    fn push(&mut self, sequence: SequenceId, tokens: &[TokenId], edit: usize, first_output: usize) {
        let first_row = self.plan.rows();
        let first_position = self.table.len(sequence);
        let context = self.plan.next_context();
        for (i, &token) in tokens.iter().enumerate() {
            let slot = self.table.append(sequence);
            self.plan.push_row(token, first_position + i as u32, edit as u32, slot, context);
            if i >= first_output {
                self.outputs.push((first_row + i) as u32);
            }
        }
        let state = self.table.advance(sequence);
        self.plan.push_recurrent_context(self.table.chunks(sequence), state);
    }
}

fn execute<B: Backend + 'static>(
    backend: B,
    source: &Source<'_>,
    blueprint: Blueprint,
    (dtype, quantize): (WeightDtype, Option<Quantization>),
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<(Box<dyn Compute>, Weights), LoadError> {
    let all = blueprint.blocks.len();
    let loader = Loader::new(&backend, source, dtype).quantizing(quantize, &blueprint)?;
    let model = loader.model(&blueprint, &mut |done| progress(done, all))?;
    let weights = loader.matrices();
    Ok((Box::new(Executor::new(backend, blueprint, model)), weights))
}

/// The precision of most of a checkpoint's numbers.
fn natural_dtype(checkpoint: &Checkpoint) -> WeightDtype {
    // What an adapter adds is f32, and would be rounded in the file's type.
    if checkpoint.is_adapted() {
        return WeightDtype::F32;
    }
    let mut bytes = [(WeightDtype::F32, 0), (WeightDtype::Bf16, 0), (WeightDtype::F16, 0)];
    for name in checkpoint.names() {
        let Ok(tensor) = checkpoint.tensor(name) else { continue };
        let place = match tensor.dtype() {
            // A float of 4 bits times a power of two is one of bf16, too.
            TensorDtype::BF16 | TensorDtype::MXFP4 => 1,
            TensorDtype::F16 => 2,
            // Parts of microscaled blocks, whose numbers fit into what the others are in.
            TensorDtype::U8 | TensorDtype::F8E8M0 => continue,
            _ => 0,
        };
        bytes[place].1 += tensor.size();
    }
    bytes.into_iter().max_by_key(|it| it.1).map_or(WeightDtype::F32, |it| it.0)
}

fn describe(
    source: &Source<'_>,
    blueprint: &Blueprint,
    dtype: WeightDtype,
    arithmetic: Arithmetic,
) -> Result<ModelInfo, LoadError> {
    let mut writers = Vec::with_capacity(2 * blueprint.blocks.len());
    for (layer, block) in blueprint.blocks.iter().enumerate() {
        for DeclaredWriter { component, beside, expert, projection, post_norm } in block.writers() {
            let norm = post_norm.and_then(|it| Some((it, it.shared_gain()?)));
            let gain = norm.map(|(norm, tensor)| {
                let (_, stored) = source.vector(tensor, norm.width)?;
                Ok::<_, LoadError>(stored.into_iter().map(|it| it + norm.gain_offset).collect())
            });
            writers.push(WriterInfo {
                writer: Writer { layer: LayerIndex(layer), component, beside, expert },
                weight: source.projection(projection)?,
                share: projection.share.clone(),
                gain: gain.transpose()?,
                bias: source.bias(projection)?.map(|(tensor, _)| tensor.name().to_owned()),
            });
        }
    }
    if let Some(first) = writers.first() {
        source.expect_no_more_blocks(first.weight.name(), blueprint.blocks.len())?;
    }
    Ok(ModelInfo {
        notices: source.notices(blueprint),
        family: source.family.name,
        n_layers: blueprint.blocks.len(),
        d_model: blueprint.d_model,
        vocab: blueprint.vocab,
        context_length: blueprint.context_length,
        position_limit: blueprint.blocks.iter().filter_map(crate::blueprint::Block::position_limit).min(),
        dtype,
        quantization: None,
        weights: 0,
        weight_bytes: 0,
        arithmetic,
        writers,
        stream_scales: blueprint.blocks.iter().map(|it| it.scale).collect(),
        block_weights: blueprint
            .blocks
            .iter()
            .map(crate::blueprint::Block::weights)
            .chain(blueprint.streams.iter().map(Streams::weights))
            .fold(0, usize::saturating_add),
        head_weights: blueprint.vocab * blueprint.d_model,
        cache_bytes_per_token: blueprint
            .blocks
            .iter()
            .map(crate::blueprint::Block::cached_numbers)
            .fold(0, usize::saturating_add)
            * size_of::<f32>(),
        state_bytes_per_sequence: blueprint
            .blocks
            .iter()
            .map(crate::blueprint::Block::state_numbers)
            .fold(0, usize::saturating_add)
            * size_of::<f32>(),
    })
}
