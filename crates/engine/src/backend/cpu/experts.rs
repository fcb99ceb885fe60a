//! Mixtures of experts: rows are gathered by expert, so that the weights of each are read once for all of its rows.

use super::matmul::{self, Computed, Group};
use super::rows::{self, Rows};
use super::rowwise::{self, Answer};
use super::{Cpu, Isa, routing};
use crate::backend::{Arithmetic, ExpertParams, FeedForwardParams};
use crate::plan::Plan;

/// Memory that is kept from one mixture to the next.
#[derive(Default)]
pub(super) struct ExpertScratch {
    /// `[rows][experts and groups]`
    keys: Vec<f64>,
    /// `[rows][chosen]`, in the order in which they were chosen.
    chosen: Vec<u32>,
    /// `[rows][chosen]`
    shares: Vec<f32>,
    /// `[rows][chosen]`: where the row lies among those gathered.
    places: Vec<u32>,
    /// By expert: where its rows begin, and one more entry for where the last one's end.
    starts: Vec<u32>,
    /// The experts that have rows.
    busy: Vec<u32>,
    /// `[rows × chosen]`, sorted by expert: what goes in, what is hidden, what comes out.
    gathered: Rows,
    hidden: Rows,
    answers: Rows,
}

impl ExpertScratch {
    /// Sends rows to experts, and finds each a place among the rows of its experts.
    fn send(&mut self, scores: &Rows, correction: Option<&[f32]>, params: &ExpertParams<'_, Cpu>) {
        let (count, chosen) = (scores.rows(), params.routing.chosen);
        let keys = routing::scratch(params.routing, params.experts.len());
        self.keys.resize(count * keys, 0.0);
        self.chosen.resize(count * chosen, 0);
        self.shares.resize(count * chosen, 0.0);
        self.places.resize(count * chosen, 0);
        for row in 0..count {
            routing::route(
                scores.row(row),
                correction,
                params.routing,
                &mut self.keys[row * keys..][..keys],
                &mut self.chosen[row * chosen..][..chosen],
                &mut self.shares[row * chosen..][..chosen],
            );
        }
        if let Some(scales) = params.share_scales {
            let scales = rows::numbers(&scales.lines);
            for (share, &expert) in self.shares.iter_mut().zip(&self.chosen) {
                *share *= scales[expert as usize];
            }
        }
        self.starts.clear();
        self.starts.resize(params.experts.len() + 1, 0);
        for &expert in &self.chosen {
            self.starts[expert as usize + 1] += 1;
        }
        self.busy.clear();
        for expert in 0..params.experts.len() {
            if self.starts[expert + 1] > 0 {
                self.busy.push(expert as u32);
            }
            self.starts[expert + 1] += self.starts[expert];
        }
        for (place, &expert) in self.places.iter_mut().zip(&self.chosen) {
            let next = &mut self.starts[expert as usize];
            *place = *next;
            *next += 1;
        }
        // Each start has moved to the end, which is the next one's start.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }
}

/// See [`Backend::experts`](crate::backend::Backend::experts).
#[expect(clippy::too_many_arguments, reason = "operands, results and the memory in between")]
pub(super) fn mix(
    isa: Isa,
    arithmetic: Arithmetic,
    x: &Rows,
    scores: &Rows,
    params: &ExpertParams<'_, Cpu>,
    plan: &Plan,
    scratch: &mut ExpertScratch,
    rounded: &mut Rows,
    out: &mut Rows,
) {
    assert_eq!(scores.cols(), params.experts.len(), "a score for each expert");
    let correction = params.correction.map(|it| &rows::numbers(&it.lines)[..params.experts.len()]);
    scratch.send(scores, correction, params);
    let ExpertScratch { chosen, shares, places, starts, busy, gathered, hidden, answers, .. } = scratch;
    let (count, each) = (x.rows(), params.routing.chosen);
    let FeedForwardParams { gated, up, down, .. } = &params.experts[0];
    let expert = |group: usize| &params.experts[busy[group] as usize];
    let group = |index: usize, weights| {
        let expert = busy[index] as usize;
        let first = starts[expert] as usize;
        Group { weights, first, rows: starts[expert + 1] as usize - first, column: 0 }
    };

    let x = super::input(isa, arithmetic, x, up, rounded);
    gathered.reshape(count * each, x.cols());
    let to = gathered.shared();
    super::parallel_rows(count * each, super::ROW_GRAIN, |index| {
        let row = x.row(index / each);
        // SAFETY: every place is one row's own, and as wide as x.
        unsafe { to.at(places[index] as usize, 0).copy_from_nonoverlapping(row.as_ptr(), row.len()) }
    });
    hidden.reshape(count * each, down.k);
    let up = |index| group(index, &expert(index).up);
    let bias = |done: &Computed| expert(done.group).up_bias.as_ref();
    if *gated {
        let to = hidden.shared();
        matmul::grouped_product_tiles(isa, gathered, busy.len(), up, 2, |done| {
            // SAFETY: each task has its own rows and columns.
            unsafe { super::gate(isa, &done, bias(&done), params.activation, to) }
        });
    } else {
        matmul::grouped_product(isa, gathered, busy.len(), up, hidden, |done| {
            // SAFETY: each task has its own rows and columns.
            unsafe { super::activate(isa, &done, bias(&done), params.activation) }
        });
    }
    let input = super::input(isa, arithmetic, hidden, down, rounded);
    answers.reshape(count * each, out.cols());
    let down = |index| group(index, &expert(index).down);
    matmul::grouped_product(isa, input, busy.len(), down, answers, |_| {});

    out.resize(count);
    let (lines, stride) = (out.vectors(), out.stride());
    let (answers, out) = (answers.shared(), out.shared());
    super::parallel_rows(count, super::ROW_GRAIN, |row| {
        // SAFETY: each task has its own row and the answers to it.
        unsafe {
            let out = out.at(row, 0);
            std::slice::from_raw_parts_mut(out, stride).fill(0.0);
            for index in row * each..(row + 1) * each {
                let expert = chosen[index] as usize;
                let edits = params.edits.get(expert).and_then(Option::as_ref);
                let answer = Answer {
                    y: answers.at(places[index] as usize, 0),
                    edit: edits.and_then(|it| it.0[plan.edits[row] as usize].as_ref()),
                    bias: params.experts[expert].down_bias.as_ref().map(|it| it.lines.as_slice()),
                    share: shares[index],
                };
                rowwise::add_answer(isa, lines, &answer, out);
            }
        }
    });
}
