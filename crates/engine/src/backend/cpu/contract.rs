//! What operations ask of their operands.
//!
//! Kernels walk through memory by pointers. Everything that they rely on is checked here or beside the loop that starts
//! them, once for each operation and in every build: operands of other sizes end in a panic that names both, never in
//! memory of something else. What is checked row by row anyway, by slices, is not repeated.

use super::attention::Pages;
use super::matmul::Matrix;
use super::recurrent::States;
use super::rows::Rows;
use super::simd::LANES;
use super::{Cpu, Edits, Vector};
use crate::backend::{
    AttentionShape, ConvolutionParams, Convolved, ExpertParams, NormParams, RecurrenceParams, RuleParams,
    WriteParams,
};

/// A vector with room for so many numbers.
fn covers(what: &str, vector: Option<&Vector>, count: usize) {
    if let Some(vector) = vector {
        let found = vector.lines.len() * LANES;
        assert!(found >= count, "{what}: {found} numbers with their pad, {count} are needed");
    }
}

/// Rows that are wide enough.
fn wide(what: &str, rows: &Rows, cols: usize) {
    assert!(rows.cols() >= cols, "{what}: {} columns, {cols} are needed", rows.cols());
}

/// As many rows as of something else.
fn rows_of(what: &str, rows: &Rows, count: usize) {
    assert!(rows.rows() >= count, "{what}: {} rows, {count} are needed", rows.rows());
}

/// A norm of so many columns or of the first of them; of heads that lie within them each by itself.
pub(super) fn norm(norm: Option<&NormParams<Vector>>, cols: usize) {
    let Some(norm) = norm else { return };
    assert!(0 < norm.width && norm.width <= cols, "a norm of {} of {cols} columns", norm.width);
    covers("a norm's gain", Some(&norm.gain), norm.width);
    covers("a norm's bias", norm.bias.as_ref(), norm.width);
}

/// A product into rows, whole panels of outputs at a time.
pub(super) fn product(weights: &Matrix, bias: Option<&Vector>, out: &Rows) {
    let panels = weights.panel_count();
    assert!(panels <= out.vectors(), "{} outputs into {} columns", weights.n, out.cols());
    covers("a bias", bias, panels * LANES);
}

/// A product whose outputs are halved by a gate.
pub(super) fn gated_product(weights: &Matrix, bias: Option<&Vector>, cols: usize) {
    let panels = weights.panel_count();
    assert!(panels.is_multiple_of(2), "{panels} panels of gates and values");
    assert!(panels / 2 <= cols.div_ceil(LANES), "{} outputs, halved, into {cols} columns", weights.n);
    if let Some(bias) = bias {
        assert_eq!(bias.lines.len(), panels, "a line of bias for each panel");
    }
}

/// Edits of rows of so many lines.
pub(super) fn edits(edits: &Edits, lines: usize) {
    for edit in edits.0.iter().flatten() {
        let expected = edit.rank * lines;
        assert_eq!((edit.p.len(), edit.q.len()), (expected, expected), "an edit of {lines} lines");
        assert!(edit.s.as_ref().is_none_or(|it| it.len() == lines), "an edit's scale of {lines} lines");
    }
}

/// Experts that are all of one shape, between rows of these widths.
pub(super) fn experts(x: &Rows, scores: &Rows, params: &ExpertParams<'_, Cpu>, out: &Rows) {
    rows_of("scores of experts", scores, x.rows());
    assert!(!params.experts.is_empty(), "a mixture of no experts");
    let shape = |it: &Matrix| (it.n, it.k, it.panel_count());
    let first = &params.experts[0];
    for expert in params.experts {
        let same = [shape(&expert.up), shape(&expert.down)] == [shape(&first.up), shape(&first.down)];
        assert!(same && expert.gated == first.gated, "experts of one shape");
        product(&expert.down, expert.down_bias.as_ref(), out);
        if expert.gated {
            gated_product(&expert.up, expert.up_bias.as_ref(), expert.down.k);
        } else {
            let (panels, hidden) = (expert.up.panel_count(), expert.down.k.div_ceil(LANES));
            assert!(panels <= hidden, "{} outputs into {} columns", expert.up.n, expert.down.k);
            covers("an expert's bias", expert.up_bias.as_ref(), panels * LANES);
        }
    }
    params.edits.iter().flatten().for_each(|it| edits(it, out.vectors()));
}

/// Keys and values of this shape.
pub(super) fn pages(pages: &Pages, shape: &AttentionShape) {
    assert_eq!(pages.layout(), Pages::layout_of(shape), "pages of this attention");
}

/// Attention into rows.
pub(super) fn attend(qkv: &Rows, shape: &AttentionShape, sinks: Option<&Vector>, stored: &Pages, out: &Rows) {
    pages(stored, shape);
    wide("queries", qkv, shape.query_cols());
    wide("attention's output", out, shape.n_heads * shape.d_value());
    covers("sinks", sinks, shape.n_heads);
    assert!(shape.n_heads.is_multiple_of(shape.n_kv_heads), "query heads for each key head");
}

/// A convolution of channels.
pub(super) fn convolve(
    x: &Rows,
    how: Convolved,
    params: &ConvolutionParams<Vector>,
    rows: usize,
    states: &States,
) {
    let (lines, taps) = (params.channels.div_ceil(LANES), params.taps);
    assert!(taps > 0, "a convolution of no positions");
    rows_of("what is convolved", x, rows);
    for first in [Some(how.input), how.before, how.after].into_iter().flatten() {
        wide("what is convolved", x, first + params.channels);
    }
    covers("a convolution's weights", Some(&params.weight), taps * lines * LANES);
    covers("a convolution's bias", params.bias.as_ref(), params.channels);
    assert!(states.lines() >= (taps - 1) * lines, "states of {} lines", states.lines());
}

/// A recurrence of heads.
pub(super) fn recur(
    convolved: &Rows,
    x: &Rows,
    strengths: &Rows,
    params: &RecurrenceParams<Vector>,
    rows: usize,
    states: &States,
    out: &Rows,
) {
    let shape = params.shape;
    rows_of("what recurs", x, rows);
    rows_of("what was convolved", convolved, x.rows());
    let (keys, outputs) = (shape.groups * shape.d_key, shape.outputs());
    assert!(shape.groups > 0 && shape.heads.is_multiple_of(shape.groups), "groups of heads");
    let last = [shape.values + outputs, shape.keys + keys, shape.queries + keys];
    wide("what was convolved", convolved, last.into_iter().max().unwrap_or(0));
    wide("a recurrence's output", out, outputs);
    wide("what recurs", x, params.gate + outputs);
    let by_channel = matches!(params.rule, RuleParams::Delta { by_channel: true, .. });
    let decays = shape.decays(by_channel);
    wide("what recurs", x, params.decay + decays);
    if let RuleParams::Delta { .. } = params.rule {
        rows_of("strengths", strengths, rows);
        wide("strengths", strengths, params.strength + shape.heads);
    }
    covers("a recurrence's steps", Some(&params.decay_bias), decays);
    covers("a recurrence's rates", Some(&params.rate), shape.heads);
    if let RuleParams::StateSpace { skip, .. } = &params.rule {
        covers("a recurrence's skips", Some(skip), shape.heads);
    }
    if let Some(norm) = &params.norm {
        let whole = norm.width > 0 && outputs.is_multiple_of(norm.width);
        assert!(whole, "norms of {} of {outputs} numbers", norm.width);
        covers("a recurrence's norm", Some(&norm.gain), outputs);
    }
    let lines = shape.heads * shape.d_key * shape.d_value.div_ceil(LANES);
    assert!(states.lines() >= lines, "states of {} lines, {lines} are needed", states.lines());
}

/// What a writer said, on its way into the stream.
pub(super) fn write(y: &Rows, params: &WriteParams<'_, Cpu>, residual: &Rows, x: &Rows) {
    assert_eq!((y.rows(), y.cols()), (residual.rows(), residual.cols()), "a row of the stream for each row");
    covers("a writer's bias", params.bias, y.vectors() * LANES);
    norm(params.post_norm, y.cols());
    norm(params.next_norm, y.cols());
    if params.next_norm.is_some() {
        wide("the next layer's input", x, y.cols());
    }
    if let Some(gates) = params.gates {
        rows_of("gates", gates, y.rows());
    }
    if let Some(all) = params.edits {
        edits(all, y.vectors());
    }
}
