//! The short way beside a block's mixer.

use std::time::Instant;

use super::{Executor, lap, plainly};
use crate::backend::{Backend, WriteParams};
use crate::plan::Plan;

impl<B: Backend> Executor<B> {
    /// Adds to the stream what goes past the mixer, if the block has such a way. It reads what the mixer is about to read.
    pub(super) fn add_laurel(&mut self, index: usize, plan: &Plan) {
        let Self { backend, model, edits, buffers, times, .. } = self;
        let Some(weights) = &model.blocks[index].laurel else { return };
        let mut start = Instant::now();
        let narrow = buffers.laurel.get(index);
        backend.linear(&buffers.x, &weights.left, None, narrow);
        backend.linear(narrow, &weights.right, None, &mut buffers.y);
        lap(&mut times.products, &mut start);
        let edited =
            WriteParams { edits: edits[index].laurel.as_ref(), post_norm: Some(&weights.norm), ..plainly() };
        let (residual, unused) = (&mut buffers.residual, &mut buffers.chosen);
        backend.write(&mut buffers.y, edited, plan, residual, unused);
        backend.write(&mut buffers.x, plainly(), plan, residual, unused);
        lap(&mut times.rest, &mut start);
    }
}
