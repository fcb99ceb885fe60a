//! What a block adds for the token that a row stands on.
//!
//! It depends on the token alone until the gate, so nothing is kept between blocks: the rows at hand say which tokens
//! they are, whichever of the pass's rows are left.

use std::time::Instant;

use super::{Buffers, Executor, lap, plainly};
use crate::backend::{Backend, WriteParams};
use crate::plan::Plan;

impl<B: Backend> Executor<B> {
    /// The third branch of a block, if it has one.
    pub(super) fn add_per_layer(&mut self, index: usize, plan: &Plan) {
        let Self { backend, blueprint, model, edits, buffers, times, .. } = self;
        let block = &blueprint.blocks[index];
        let (Some(branch), Some(weights)) = (&block.per_layer, &model.blocks[index].per_layer) else {
            return;
        };
        let scale = blueprint.per_layer.as_ref().map_or(1.0, |it| it.scale);
        let [own, context, gated] = &mut buffers.per_layer;
        let mut start = Instant::now();
        backend.embed(&weights.inner.table, plan, scale, own);
        backend.embed(&model.embedding, plan, blueprint.embedding.scale, &mut buffers.chosen);
        lap(&mut times.rest, &mut start);
        backend.linear(&buffers.chosen, &weights.inner.context, None, context);
        lap(&mut times.products, &mut start);
        // The context joins the table's row as a writer's output joins the stream.
        let join = WriteParams {
            post_norm: Some(&weights.inner.context_norm),
            scale: branch.inner.context_scale,
            ..plainly()
        };
        backend.write(context, join, plan, own, &mut buffers.chosen);
        let input = if weights.pre_norm.is_some() { &buffers.x } else { &buffers.residual };
        backend.linear(input, &weights.inner.gate, None, gated);
        backend.gate(gated, branch.inner.activation, Some(own));
        backend.linear(gated, &weights.inner.projection, None, &mut buffers.y);
        lap(&mut times.products, &mut start);
        let params = WriteParams {
            edits: edits[index].per_layer.as_ref(),
            bias: None,
            post_norm: weights.post_norm.as_ref(),
            scale: branch.scale,
            gates: None,
            stream_scale: block.scale,
            next_norm: model.entry_norm(index + 1),
        };
        let Buffers { residual, streams, x, y, .. } = buffers;
        match streams.split_first_mut() {
            None => backend.write(y, params, plan, residual, x),
            // Edited and normed once, it is added to each.
            Some((_, others)) => {
                let mut next = params;
                for stream in others {
                    let again = WriteParams { scale: branch.scale, ..plainly() };
                    backend.write(y, std::mem::replace(&mut next, again), plan, stream, x);
                }
            }
        }
        lap(&mut times.rest, &mut start);
    }
}
