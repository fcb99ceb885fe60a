//! An MLP for every token and a mixture of experts beside it.

use crate::backend::{Backend, ExpertParams, WriteParams};
use crate::blueprint::Beside;
use crate::model::BesideWeights;
use crate::plan::Plan;

use super::{BlockEdits, Buffers, feed_forward, plainly};

/// What both write together, in `buffers.y`. The MLP reads `buffers.x`, experts and router the stream itself.
pub(super) fn beside<B: Backend>(
    backend: &mut B,
    index: usize,
    (beside, weights): (&Beside, &BesideWeights<B>),
    edits: &BlockEdits<B>,
    buffers: &mut Buffers<B>,
    plan: &Plan,
) {
    let Buffers { residual, x, y, shared, hidden, scores, chosen, .. } = buffers;
    let (hidden, scores) = (hidden.get(index), scores.get(index));
    backend.norm(residual, &weights.router_norm, chosen);
    backend.linear(chosen, &weights.router, None, scores);
    backend.norm(residual, &weights.experts_pre_norm, chosen);
    let mixture = ExpertParams {
        routing: &beside.experts.routing,
        correction: None,
        share_scales: Some(&weights.share_scales),
        experts: &weights.experts,
        activation: beside.dense.activation,
        edits: &edits.experts,
    };
    backend.experts(chosen, scores, mixture, plan, y);
    backend.norm(y, &weights.experts_post_norm, chosen);
    std::mem::swap(y, chosen);
    let dense = &weights.dense;
    feed_forward(backend, x, dense, beside.dense.activation, hidden, shared);
    // It joins what the experts wrote as a writer's output joins the stream.
    let join = WriteParams {
        edits: edits.mlp.as_ref(),
        bias: dense.down_bias.as_ref(),
        post_norm: Some(&weights.dense_norm),
        ..plainly()
    };
    backend.write(shared, join, plan, y, chosen);
}
