//! Several streams in a pass.
//!
//! Between blocks all streams are in `buffers.streams`; within a block their predictions are, and `buffers.residual` is
//! what the block makes of the active one's. A model with one stream has none there, and nothing here does anything.

use std::time::Instant;

use super::{Buffers, Executor, lap, plainly};
use crate::backend::{Backend, WriteParams};
use crate::model::UpdateWeights;
use crate::plan::Plan;

/// What a router says of a stream.
fn route<B: Backend>(
    backend: &mut B,
    weights: &UpdateWeights<B>,
    stream: &B::Rows,
    normed: &mut B::Rows,
    routed: &mut B::Rows,
) {
    backend.norm(stream, &weights.router_norm, normed);
    backend.linear(normed, &weights.router, None, routed);
}

impl<B: Backend> Executor<B> {
    /// Makes all streams of the embedding.
    pub(super) fn begin_streams(&mut self) {
        let Self { backend, blueprint, model, buffers, .. } = self;
        let (Some(streams), Some(weights)) = (&blueprint.streams, &model.streams) else { return };
        let Some((first, others)) = buffers.streams.split_first_mut() else { return };
        std::mem::swap(&mut buffers.residual, first);
        for (stream, matrix) in others.iter_mut().zip(&weights.beginnings) {
            backend.linear(first, matrix, None, stream);
            backend.match_size(stream, first, streams.smallest);
        }
    }

    /// Predicts all streams; the block reads and writes a copy of the active one's prediction.
    pub(super) fn predict(&mut self, index: usize) {
        let Self { backend, blueprint, model, buffers, times, .. } = self;
        let weights = &model.blocks[index];
        let (Some(streams), Some(update)) = (&blueprint.streams, &weights.update) else { return };
        let mut start = Instant::now();
        let Buffers { residual, x, streams: all, chosen, routed, .. } = buffers;
        route(backend, update, &all[streams.active], chosen, routed);
        backend.predict(routed, &update.prediction, streams.active, all, residual);
        if let Some(norm) = &weights.mixer.pre_norm {
            backend.norm(residual, norm, x);
        }
        lap(&mut times.rest, &mut start);
    }

    /// Corrects all predictions by what the block has made of the active one.
    pub(super) fn correct(&mut self, index: usize) {
        let Self { backend, blueprint, model, buffers, times, .. } = self;
        let weights = &model.blocks[index];
        let (Some(streams), Some(update)) = (&blueprint.streams, &weights.update) else { return };
        let mut start = Instant::now();
        let Buffers { residual, x, streams: all, chosen, routed, .. } = buffers;
        route(backend, update, residual, chosen, routed);
        backend.correct(routed, &update.correction, streams.active, all, residual);
        if let Some(norm) = weights.per_layer.as_ref().and_then(|it| it.pre_norm.as_ref()) {
            backend.norm(residual, norm, x);
        }
        lap(&mut times.rest, &mut start);
    }

    /// Makes the mean of what all streams end as, and norms it for the head.
    pub(super) fn end_streams(&mut self, plan: &Plan) {
        let Self { backend, blueprint, model, buffers, .. } = self;
        let (Some(streams), Some(weights)) = (&blueprint.streams, &model.streams) else { return };
        let Buffers { streams: all, x, y, .. } = buffers;
        let Some((first, others)) = all.split_first_mut() else { return };
        for (stream, matrix) in others.iter_mut().zip(&weights.endings) {
            backend.linear(stream, matrix, None, y);
            backend.match_size(y, first, streams.smallest);
            std::mem::swap(stream, y);
        }
        let last = others.len();
        for (place, stream) in others.iter_mut().enumerate() {
            let mean = if place + 1 == last { 1.0 / streams.count as f32 } else { 1.0 };
            backend.write(stream, WriteParams { stream_scale: mean, ..plainly() }, plan, first, x);
        }
        backend.norm(first, &model.final_norm, x);
    }
}
