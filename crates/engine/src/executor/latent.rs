//! Latent attention in a pass.

use std::time::Instant;

use super::mixing::Kept;
use super::{Executor, Memory, PerBlock, lap};
use crate::backend::Backend;
use crate::blueprint::{LatentAttention, Mixer};
use crate::model::{LatentWeights, MixerWeights};
use crate::plan::Plan;

/// Activations, kept from pass to pass; of no columns where a mixer has no latents.
pub(super) struct Buffers<B: Backend> {
    /// What queries are made of.
    before: PerBlock<B::Rows>,
    normed: PerBlock<B::Rows>,
    /// What is kept of tokens.
    kept: PerBlock<B::Rows>,
    /// Queries as latents meet them.
    met: PerBlock<B::Rows>,
    /// What attention finds: of each head a sum of latents.
    found: PerBlock<B::Rows>,
}

impl<B: Backend> Buffers<B> {
    pub(super) fn new(backend: &B, mixers: &[&Mixer]) -> Self {
        let widths = |width: &dyn Fn(&LatentAttention) -> usize| {
            let of = |mixer: &&Mixer| match mixer {
                Mixer::Latent(attention) => width(attention),
                _ => 0,
            };
            PerBlock::new(mixers.iter().map(of), |&cols| backend.rows(cols))
        };
        let before = |it: &LatentAttention| it.query_latent.as_ref().map_or(0, |it| it.0.outputs);
        Self {
            before: widths(&before),
            normed: widths(&before),
            kept: widths(&|it| it.shape.d_kept()),
            met: widths(&|it| it.shape.n_heads * it.shape.d_kept()),
            found: widths(&|it| it.shape.n_heads * it.shape.d_latent),
        }
    }
}

impl<B: Backend> Executor<B> {
    /// Queries, latents and shared keys of a mixer; then attention for the rows that go on.
    pub(super) fn attend_to_latents(&mut self, number: usize, plan: &Plan, keep: Kept<'_>) {
        let Self { backend, blueprint, model, angles, memory, buffers, times, .. } = self;
        let (Some(branch), Some(weights)) = (blueprint.mixer(number), model.mixer(number)) else { return };
        let through_norm = weights.pre_norm.is_some();
        let (Mixer::Latent(attention), MixerWeights::Latent(weights), Some(angles), Memory::Pages(pages)) =
            (&branch.inner, &weights.inner, angles.get(number), &mut memory[number])
        else {
            unreachable!("weights and memory are those of the blueprint")
        };
        let LatentWeights { query_latent, query, query_bias, latent, latent_bias, latent_norm, .. } = weights;
        let (queries, shape) = (buffers.inputs.get(number), &attention.shape);
        let own = &mut buffers.latent;
        let (before, normed) = (own.before.get(number), own.normed.get(number));
        let (kept, met, found) = (own.kept.get(number), own.met.get(number), own.found.get(number));

        let mut start = Instant::now();
        let input = if through_norm { &buffers.x } else { &buffers.residual };
        backend.linear(input, latent, latent_bias.as_ref(), kept);
        let input = match query_latent {
            None => input,
            Some((projection, norm)) => {
                backend.linear(input, &projection.matrix, projection.bias.as_ref(), before);
                backend.norm(before, norm, normed);
                &*normed
            }
        };
        backend.linear(input, query, query_bias.as_ref(), queries);
        lap(&mut times.products, &mut start);
        backend.rotate_and_store_latents(queries, kept, shape, latent_norm, angles, plan, pages);
        let (mut queries, mut rest) = (&*queries, plan);
        if let Some((rows, plan)) = keep {
            if rows.is_empty() {
                return;
            }
            let chosen = buffers.chosen_inputs.get(number);
            backend.select(queries, rows, chosen);
            (queries, rest) = (&*chosen, plan);
        }
        lap(&mut times.rest, &mut start);
        backend.linear_by_head(queries, &weights.to_latent, met);
        lap(&mut times.products, &mut start);
        backend.attend(met, &shape.over_latents(), None, rest, pages, found);
        lap(&mut times.attention, &mut start);
        backend.linear_by_head(found, &weights.from_latent, buffers.mixed.get(number));
        lap(&mut times.products, &mut start);
        self.write(number, keep, rest);
    }
}
