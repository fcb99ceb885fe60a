//! The first half of a block: positions are mixed, and the mixer's writer joins the stream.

use std::time::Instant;

use super::{Executor, Memory, lap};
use crate::backend::{Backend, Convolved, HeadNorms, WriteParams};
use crate::blueprint::{Arrangement, Mixer, Mlp};
use crate::model::{MixerWeights, WriterWeights};
use crate::plan::Plan;

/// The rows that go on where not all do: which they are, and their plan.
pub(super) type Kept<'a> = Option<(&'a [u32], &'a Plan)>;

impl<B: Backend> Executor<B> {
    /// What a block's mixer adds to the stream, for the rows that go on. Every row leaves behind what later positions
    /// need of it.
    pub(super) fn mix(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        match self.blueprint.blocks[index].mixer.inner {
            Mixer::Attention(_) => self.attend(index, plan, keep),
            Mixer::ShortConvolution(_) => self.convolve(index, plan, keep),
            Mixer::Recurrence(_) => self.recur(index, plan, keep),
            Mixer::Nothing => self.keep_stream(keep, true),
        }
    }

    fn attend(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(index);
        let mut start = Instant::now();
        let Self { backend, blueprint, model, angles, memory, buffers, times, .. } = self;
        let block = &blueprint.blocks[index];
        let (
            Mixer::Attention(attention),
            MixerWeights::Attention { query_norm, key_norm, sinks, output, .. },
            Memory::Pages(pages),
        ) = (&block.mixer.inner, &model.blocks[index].mixer.inner, &mut memory[index])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let mut qkv = buffers.inputs.get(index);
        let norms = HeadNorms {
            query: query_norm.as_ref(),
            key: key_norm.as_ref(),
            last: attention.norms_last,
            clip: attention.clip,
        };
        backend.rotate_and_store(qkv, &attention.shape, norms, angles.get(index).as_mut(), plan, pages);
        let rest = match keep {
            None => plan,
            Some((rows, rest)) => {
                if rows.is_empty() {
                    return;
                }
                backend.select(qkv, rows, &mut buffers.chosen_inputs);
                qkv = &mut buffers.chosen_inputs;
                rest
            }
        };
        lap(&mut times.rest, &mut start);
        let mixed = buffers.mixed.get(index);
        backend.attend(qkv, &attention.shape, sinks.as_ref(), rest, pages, mixed);
        if !attention.gate.is_empty() {
            backend.gate(mixed, qkv, attention.shape.qkv_cols());
        }
        lap(&mut times.attention, &mut start);
        let WriterWeights { matrix, .. } = output;
        backend.linear(mixed, matrix, None, &mut buffers.y);
        lap(&mut times.products, &mut start);
        let parallel = block.arrangement == Arrangement::Parallel;
        self.keep_stream(keep, parallel);
        self.write(index, rest);
    }

    fn convolve(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(index);
        let mut start = Instant::now();
        let Self { backend, model, memory, buffers, times, .. } = self;
        let (MixerWeights::ShortConvolution { convolution, .. }, Memory::States { window, .. }) =
            (&model.blocks[index].mixer.inner, &mut memory[index])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let channels = convolution.channels;
        let how = Convolved { before: Some(0), after: Some(channels), input: 2 * channels, silu: false };
        let inputs = buffers.inputs.get(index);
        backend.convolve(inputs, how, convolution, plan, window, buffers.mixed.get(index));
        lap(&mut times.attention, &mut start);
        self.write_all_mixed(index, plan, keep);
    }

    fn recur(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(index);
        let mut start = Instant::now();
        let Self { backend, model, memory, buffers, times, .. } = self;
        let (
            MixerWeights::Recurrence { convolution, params, .. },
            Memory::States { window, state: Some(state) },
        ) = (&model.blocks[index].mixer.inner, &mut memory[index])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let how = Convolved { input: 0, before: None, after: None, silu: true };
        let (inputs, convolved) = (buffers.inputs.get(index), buffers.convolved.get(index));
        backend.convolve(inputs, how, convolution, plan, window, convolved);
        backend.recur(convolved, inputs, params, plan, state, buffers.mixed.get(index));
        lap(&mut times.attention, &mut start);
        self.write_all_mixed(index, plan, keep);
    }

    /// What a mixer makes of what it reads.
    fn project(&mut self, index: usize) {
        let Self { backend, model, buffers, times, .. } = self;
        let weights = &model.blocks[index].mixer;
        let mut start = Instant::now();
        let (MixerWeights::Attention { qkv: matrix, bias, .. }
        | MixerWeights::ShortConvolution { inputs: matrix, bias, .. }
        | MixerWeights::Recurrence { inputs: matrix, bias, .. }) = &weights.inner
        else {
            return;
        };
        let x = if weights.pre_norm.is_some() { &buffers.x } else { &buffers.residual };
        backend.linear(x, matrix, bias.as_ref(), buffers.inputs.get(index));
        lap(&mut times.products, &mut start);
    }

    /// The writer of a mixer that had to see every row, for the rows that go on.
    fn write_all_mixed(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        let Self { backend, blueprint, model, buffers, times, .. } = self;
        let mut start = Instant::now();
        let mut mixed = buffers.mixed.get(index);
        let rest = match keep {
            None => plan,
            Some((rows, rest)) => {
                if rows.is_empty() {
                    return;
                }
                backend.select(mixed, rows, &mut buffers.chosen_mixed);
                mixed = &mut buffers.chosen_mixed;
                rest
            }
        };
        backend.linear(mixed, &writer(&model.blocks[index].mixer.inner).matrix, None, &mut buffers.y);
        lap(&mut times.products, &mut start);
        let parallel = blueprint.blocks[index].arrangement == Arrangement::Parallel;
        self.keep_stream(keep, parallel);
        self.write(index, rest);
    }

    /// Leaves those rows of the stream that go on, and of its norm if the next layer reads the same.
    fn keep_stream(&mut self, keep: Kept<'_>, normed: bool) {
        let Some((rows, _)) = keep else { return };
        let Self { backend, buffers, .. } = self;
        backend.select(&buffers.residual, rows, &mut buffers.chosen);
        std::mem::swap(&mut buffers.residual, &mut buffers.chosen);
        if normed {
            backend.select(&buffers.x, rows, &mut buffers.chosen);
            std::mem::swap(&mut buffers.x, &mut buffers.chosen);
        }
    }

    /// Adds what the writer says to the stream, and norms it for who reads it next.
    fn write(&mut self, index: usize, plan: &Plan) {
        let Self { backend, blueprint, model, edits, buffers, times, .. } = self;
        let (block, weights) = (&blueprint.blocks[index], &model.blocks[index]);
        let mut start = Instant::now();
        let params = WriteParams {
            edits: edits[index].mixer.as_ref(),
            bias: writer(&weights.mixer.inner).bias.as_ref(),
            post_norm: weights.mixer.post_norm.as_ref(),
            gates: None,
            scale: block.mixer.scale,
            next_norm: match (block.arrangement, &block.mlp.inner) {
                (_, Mlp::Nothing) => model.entry_norm(index + 1),
                (Arrangement::Sequential, _) => weights.mlp.pre_norm.as_ref(),
                (Arrangement::Parallel, _) => None,
            },
        };
        backend.write(&mut buffers.y, params, plan, &mut buffers.residual, &mut buffers.x);
        lap(&mut times.rest, &mut start);
    }
}

fn writer<B: Backend>(mixer: &MixerWeights<B>) -> &WriterWeights<B> {
    match mixer {
        MixerWeights::Attention { output, .. }
        | MixerWeights::ShortConvolution { output, .. }
        | MixerWeights::Recurrence { output, .. } => output,
        MixerWeights::Nothing => unreachable!("a mixer that mixes has a writer"),
    }
}
