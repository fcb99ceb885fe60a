//! The first half of a block: positions are mixed, and the mixer's writer joins the stream.

use std::time::Instant;

use super::{Buffers, Executor, Memory, lap, plainly};
use crate::backend::{Backend, Convolved, HeadNorms, WriteParams};
use crate::blueprint::{self, Arrangement, Mixer, Mlp};
use crate::model::{LinearWeights, MixerWeights};
use crate::plan::Plan;

/// The rows that go on where not all do: which they are, and their plan.
pub(super) type Kept<'a> = Option<(&'a [u32], &'a Plan)>;

impl<B: Backend> Executor<B> {
    /// What a block's mixers add to the stream, for the rows that go on. Every row leaves behind what later positions
    /// need of it.
    pub(super) fn mix(&mut self, index: usize, plan: &Plan, keep: Kept<'_>) {
        self.add_laurel(index, plan);
        let Self { backend, model, buffers, times, .. } = self;
        if let Some(weights) = &model.blocks[index].beside {
            // Before the first one writes: both read the same stream, each through a norm of its own.
            let number = model.blocks.len() + index;
            let mut start = Instant::now();
            if let Some(norm) = &weights.pre_norm {
                backend.norm(&buffers.residual, norm, &mut buffers.y);
            }
            lap(&mut times.rest, &mut start);
            std::mem::swap(&mut buffers.x, &mut buffers.y);
            self.mix_one(number, plan, keep);
            std::mem::swap(&mut self.buffers.x, &mut self.buffers.y);
        }
        self.mix_one(index, plan, keep);
    }

    /// What the mixer of a number, see [`blueprint::Blueprint::mixer`], has to say. A block's first one writes it, and what
    /// the one beside it has said.
    fn mix_one(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        match self.blueprint.mixer(number).map_or(&Mixer::Nothing, |it| &it.inner) {
            Mixer::Attention(_) => self.attend(number, plan, keep),
            Mixer::Latent(_) => self.attend_to_latents(number, plan, keep),
            Mixer::ShortConvolution(_) => self.convolve(number, plan, keep),
            Mixer::Recurrence(_) => self.recur(number, plan, keep),
            Mixer::Nothing => keep_stream(&mut self.backend, &mut self.buffers, keep, true),
        }
    }

    fn attend(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(number);
        let mut start = Instant::now();
        let Self { backend, blueprint, model, angles, memory, buffers, times, .. } = self;
        let (Some(branch), Some(weights)) = (blueprint.mixer(number), model.mixer(number)) else { return };
        let (
            Mixer::Attention(attention),
            MixerWeights::Attention { query_norm, key_norm, value_norm, sinks, .. },
        ) = (&branch.inner, &weights.inner)
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let mut qkv = buffers.inputs.get(number);
        let norms = HeadNorms {
            query: query_norm.as_ref(),
            key: key_norm.as_ref(),
            value: value_norm.as_ref(),
            last: attention.norms_last,
            clip: attention.clip,
        };
        let own = match &mut memory[number] {
            Memory::Pages(pages) => Some(pages),
            Memory::States { .. } | Memory::Nothing => None,
        };
        backend.rotate_and_store(qkv, &attention.shape, norms, angles.get(number).as_mut(), plan, own);
        let rest = match keep {
            None => plan,
            Some((rows, rest)) => {
                if rows.is_empty() {
                    return;
                }
                let chosen = buffers.chosen_inputs.get(number);
                backend.select(qkv, rows, chosen);
                qkv = chosen;
                rest
            }
        };
        lap(&mut times.rest, &mut start);
        let source = match attention.memory {
            blueprint::Memory::Own => number,
            blueprint::Memory::Of(block) => block,
        };
        let Memory::Pages(pages) = &memory[source] else {
            unreachable!("what is attended to has been stored")
        };
        let mixed = buffers.mixed.get(number);
        backend.attend(qkv, &attention.shape, sinks.as_ref(), rest, pages, mixed);
        if let Some(gate) = &attention.gate {
            // It lies behind what is the block's own.
            let first = match attention.memory {
                blueprint::Memory::Own => attention.shape.qkv_cols(),
                blueprint::Memory::Of(_) => attention.shape.query_cols(),
            };
            let each = attention.output.inputs / gate.outputs();
            backend.gate_by(mixed, qkv, first, each, gate.activation);
        }
        lap(&mut times.attention, &mut start);
        self.write(number, keep, rest);
    }

    fn convolve(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(number);
        let mut start = Instant::now();
        let Self { backend, model, memory, buffers, times, .. } = self;
        let (Some(MixerWeights::ShortConvolution { convolution, .. }), Memory::States { window, .. }) =
            (model.mixer(number).map(|it| &it.inner), &mut memory[number])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let channels = convolution.channels;
        let how = Convolved { before: Some(0), after: Some(channels), input: 2 * channels, silu: false };
        let inputs = buffers.inputs.get(number);
        backend.convolve(inputs, how, convolution, plan, window, buffers.mixed.get(number));
        lap(&mut times.attention, &mut start);
        self.write_all(number, plan, keep);
    }

    fn recur(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        self.project(number);
        let mut start = Instant::now();
        let Self { backend, model, memory, buffers, times, .. } = self;
        let through_norm = model.mixer(number).is_some_and(|it| it.pre_norm.is_some());
        let (
            Some(MixerWeights::Recurrence { convolution, latents, params, .. }),
            Memory::States { window, state: Some(state) },
        ) = (model.mixer(number).map(|it| &it.inner), &mut memory[number])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let how = Convolved { input: 0, before: None, after: None, silu: true };
        let (inputs, convolved) = (buffers.inputs.get(number), buffers.convolved.get(number));
        backend.convolve(inputs, how, convolution, plan, window, convolved);
        let beside = match latents {
            None => &*inputs,
            Some(latents) => {
                let (narrow, wide) = (buffers.narrow.get(number), buffers.wide.get(number));
                let input = if through_norm { &buffers.x } else { &buffers.residual };
                backend.linear(input, &latents.inputs, None, narrow);
                backend.linear_by_head(narrow, &latents.by_head, wide);
                &*wide
            }
        };
        backend.recur(convolved, beside, inputs, params, plan, state, buffers.mixed.get(number));
        lap(&mut times.attention, &mut start);
        self.write_all(number, plan, keep);
    }

    /// What a mixer makes of what it reads.
    fn project(&mut self, number: usize) {
        let Self { backend, model, buffers, times, .. } = self;
        let Some(weights) = model.mixer(number) else { return };
        let mut start = Instant::now();
        let (MixerWeights::Attention { qkv: matrix, bias, .. }
        | MixerWeights::ShortConvolution { inputs: matrix, bias, .. }
        | MixerWeights::Recurrence { inputs: matrix, bias, .. }) = &weights.inner
        else {
            return;
        };
        let x = if weights.pre_norm.is_some() { &buffers.x } else { &buffers.residual };
        backend.linear(x, matrix, bias.as_ref(), buffers.inputs.get(number));
        lap(&mut times.products, &mut start);
    }

    /// The same for a mixer that had to see every row.
    fn write_all(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        let Self { backend, buffers, .. } = self;
        if let Some((rows, rest)) = keep {
            if !rows.is_empty() {
                let (mixed, chosen) = (buffers.mixed.get(number), buffers.chosen_mixed.get(number));
                backend.select(mixed, rows, chosen);
                std::mem::swap(mixed, chosen);
                self.write(number, keep, rest);
            }
        } else {
            self.write(number, keep, plan);
        }
    }

    /// The writer of what has been mixed for the rows that go on: edited, added to the stream, and the stream normed for
    /// who reads it next. What a mixer beside another says waits for that one.
    pub(super) fn write(&mut self, number: usize, keep: Kept<'_>, plan: &Plan) {
        let Self { backend, blueprint, model, edits, buffers, times, .. } = self;
        let mut start = Instant::now();
        let weights = model.mixer(number).expect("what mixes is there");
        let LinearWeights { matrix, bias } = weights.inner.output().expect("what mixes has a writer");
        let index = number % blueprint.blocks.len();
        let said = if number == index { &mut buffers.y } else { &mut buffers.shared };
        backend.linear(buffers.mixed.get(number), matrix, None, said);
        lap(&mut times.products, &mut start);
        if number != index {
            return;
        }
        let block = &blueprint.blocks[index];
        keep_stream(backend, buffers, keep, block.arrangement == Arrangement::Parallel);
        let next_norm = match (block.arrangement, &block.mlp.inner) {
            (_, Mlp::Nothing) => model.entry_norm(index + 1),
            (Arrangement::Sequential, _) => model.blocks[index].mlp.pre_norm.as_ref(),
            (Arrangement::Parallel, _) => None,
        };
        let beside = block.beside.as_ref().zip(model.blocks[index].beside.as_ref());
        let params = WriteParams {
            edits: edits[index].mixer.as_ref(),
            bias: bias.as_ref(),
            post_norm: weights.post_norm.as_ref(),
            scale: block.mixer.scale,
            stream_scale: block.laurel.as_ref().map_or(1.0, |it| it.scale),
            next_norm: next_norm.filter(|_| beside.is_none()),
            ..plainly()
        };
        backend.write(&mut buffers.y, params, plan, &mut buffers.residual, &mut buffers.x);
        if let Some((branch, weights)) = beside {
            let params = WriteParams {
                edits: edits[index].beside.as_ref(),
                bias: weights.inner.output().and_then(|it| it.bias.as_ref()),
                post_norm: weights.post_norm.as_ref(),
                scale: branch.scale,
                next_norm,
                ..plainly()
            };
            backend.write(&mut buffers.shared, params, plan, &mut buffers.residual, &mut buffers.x);
        }
        lap(&mut times.rest, &mut start);
    }
}

/// Leaves those rows of the stream that go on, and of its norm if the next layer reads the same.
fn keep_stream<B: Backend>(backend: &mut B, buffers: &mut Buffers<B>, keep: Kept<'_>, normed: bool) {
    let Some((rows, _)) = keep else { return };
    let Buffers { residual, streams, chosen, .. } = buffers;
    for stream in std::iter::once(residual).chain(streams) {
        backend.select(stream, rows, chosen);
        std::mem::swap(stream, chosen);
    }
    if normed {
        backend.select(&buffers.x, rows, &mut buffers.chosen);
        std::mem::swap(&mut buffers.x, &mut buffers.chosen);
    }
}
