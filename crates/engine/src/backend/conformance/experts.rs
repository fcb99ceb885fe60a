//! Mixtures of experts: routing, gathering, edits of every expert.

use glossary::Edit;
use proptest::prelude::*;
use proptest::sample::select;

use super::products::{ROUNDED, product};
use super::rows::dtypes;
use super::stand_ins::{Noise, download, plan, tensor, upload};
use super::{Case, UNIT};
use crate::backend::{Backend, ExpertParams, FeedForwardParams, Stacking, WeightDtype};
use crate::blueprint::{Activation, Groups, Routing, Scores};

/// A mixture of experts.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what a mixture may have, each by itself")]
pub(super) struct Mixture {
    d_model: usize,
    width: usize,
    experts: usize,
    rows: usize,
    routing: Routing,
    correction: bool,
    share_scales: bool,
    gated: bool,
    biases: bool,
    activation: Activation,
    dtype: WeightDtype,
    /// Edit sets; every second expert is edited by each.
    edits: usize,
    seed: u64,
    only: Option<usize>,
}

/// Experts, groups of which some are kept, and how many of those are chosen.
fn choices() -> impl Strategy<Value = (usize, Option<Groups>, usize)> {
    prop_oneof![
        (1..=9_usize).prop_flat_map(|experts| (Just(experts), Just(None), 1..=experts)),
        (1..=3_usize, 2..=3_usize, 1..=2_usize).prop_flat_map(|(count, size, best)| {
            (1..=count).prop_flat_map(move |chosen| {
                (Just(count * size), Just(Some(Groups { count, chosen, best })), 1..=chosen * size)
            })
        }),
    ]
}

pub(super) fn mixtures() -> impl Strategy<Value = Mixture> {
    let activations = vec![
        Activation::Silu,
        Activation::ClampedSilu { steepness: 1.702, limit: 1.5 },
        Activation::CappedSilu { limit: 0.7 },
        Activation::GeluTanh,
    ];
    let scores = vec![Scores::Softmax, Scores::Sigmoid, Scores::OneByOne { tolerance: 0.4 }];
    let sizes = (select(vec![1, 16, 23, 40]), select(vec![1, 15, 16, 33]), 1..30_usize);
    let vectors = (any::<bool>(), any::<bool>(), any::<bool>());
    let softcap = prop::option::weighted(0.3, select(vec![0.5, 3.0]));
    let choice = (select(scores), softcap);
    let how = (choice, any::<bool>(), select(vec![1.0, 2.5]), vectors, any::<bool>());
    (sizes, choices(), how, select(activations), dtypes(), 0..3_usize, any::<u64>()).prop_map(
        |(sizes, (experts, groups, chosen), how, activation, dtype, edits, seed)| {
            let ((d_model, width, rows), (scores, normalized, scale, vectors, biases)) = (sizes, how);
            let (scores, softcap) = scores;
            let (correction, share_scales, gated) = vectors;
            let one_by_one = matches!(scores, Scores::OneByOne { .. });
            let groups = groups.filter(|_| !one_by_one);
            Mixture {
                d_model,
                width,
                experts,
                rows,
                routing: Routing {
                    chosen,
                    softcap,
                    scores,
                    groups,
                    normalized: normalized && !one_by_one,
                    scale,
                },
                correction: correction && !one_by_one,
                share_scales,
                gated,
                biases,
                activation,
                dtype,
                edits,
                seed,
                only: None,
            }
        },
    )
}

impl Mixture {
    /// The same with weights for products in bf16.
    pub(super) fn in_bf16(self) -> Self {
        Self { dtype: WeightDtype::Bf16, ..self }
    }

    fn grid(&self, purpose: u64, cols: usize, scale: f32) -> Vec<Vec<f32>> {
        let all = Noise::new(self.seed, purpose).grid(self.rows, cols, scale);
        self.only.map_or(all.clone(), |it| vec![all[it].clone()])
    }

    /// Gate, up and down projection of an expert; of those without gates the first is not used.
    fn weights(&self, expert: usize) -> [Vec<Vec<f32>>; 3] {
        let shapes = [(self.width, self.d_model), (self.width, self.d_model), (self.d_model, self.width)];
        let mut noise = Noise::new(self.seed, 100 + expert as u64);
        shapes.map(|(n, k)| noise.grid(n, k, 0.5))
    }

    fn bias(&self, expert: usize) -> [Vec<f32>; 3] {
        let mut noise = Noise::new(self.seed, 200 + expert as u64);
        [self.width, self.width, self.d_model].map(|n| noise.row(n, 1.0))
    }

    fn edit(&self, expert: usize, set: usize) -> Option<Edit> {
        let mut noise = Noise::new(self.seed, 300 + (expert * 7 + set) as u64);
        let length = 1.5 / (self.d_model as f32).sqrt();
        let (p, q) = (noise.row(self.d_model, length), noise.row(self.d_model, length));
        let edit = Edit::new(self.d_model, p, q, Some(noise.row(self.d_model, 2.0))).unwrap();
        (expert + set).is_multiple_of(2).then_some(edit)
    }

    fn plan_edits(&self) -> Vec<u32> {
        let mut noise = Noise::new(self.seed, 3);
        let all: Vec<u32> = (0..self.rows).map(|_| noise.below(self.edits + 1) as u32).collect();
        self.only.map_or(all.clone(), |it| vec![all[it]])
    }
}

impl Case for Mixture {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let matrix = |parts: &[Vec<Vec<f32>>], stacking| {
            let parts: Vec<_> = parts.iter().map(|it| tensor(it)).collect();
            backend.matrix(&parts, stacking, self.dtype).unwrap()
        };
        let filled = |it: &Vec<f32>| {
            let mut it = it.clone();
            it.resize(it.len().next_multiple_of(16), 0.0);
            it
        };
        let expert = |index| {
            let [gate, up, down] = self.weights(index);
            let [gate_bias, up_bias, down_bias] = self.bias(index);
            let both = [filled(&gate_bias), filled(&up_bias)].concat();
            FeedForwardParams {
                gated: self.gated,
                up: if self.gated {
                    matrix(&[gate, up], Stacking::Paired)
                } else {
                    matrix(&[up], Stacking::EndToEnd)
                },
                up_bias: self.biases.then(|| backend.vector(if self.gated { &both } else { &up_bias })),
                down: matrix(&[down], Stacking::EndToEnd),
                down_bias: self.biases.then(|| backend.vector(&down_bias)),
            }
        };
        let experts: Vec<FeedForwardParams<B>> = (0..self.experts).map(expert).collect();
        let edits: Vec<Option<B::Edits>> = (0..self.experts)
            .map(|expert| {
                let edits: Vec<Option<Edit>> =
                    std::iter::once(None).chain((1..=self.edits).map(|it| self.edit(expert, it))).collect();
                let edits: Vec<Option<&Edit>> = edits.iter().map(Option::as_ref).collect();
                edits.iter().any(Option::is_some).then(|| backend.edits(&edits, self.d_model))
            })
            .collect();
        let correction = Noise::new(self.seed, 4).row(self.experts, 0.3);
        let correction = self.correction.then(|| backend.vector(&correction));
        // Up to 1, as the tolerance counts on.
        let share_scales = Noise::new(self.seed, 5).row(self.experts, 1.0);
        let share_scales = self.share_scales.then(|| backend.vector(&share_scales));
        let (x, scores) = (self.grid(1, self.d_model, 1.0), self.grid(2, self.experts, 2.0));
        let (x_rows, score_rows) = (upload(backend, &x), upload(backend, &scores));
        let mut out = backend.rows(self.d_model);
        let params = ExpertParams {
            routing: &self.routing,
            correction: correction.as_ref(),
            share_scales: share_scales.as_ref(),
            experts: &experts,
            activation: self.activation,
            edits: if self.edits == 0 { &[] } else { &edits },
        };
        backend.experts(&x_rows, &score_rows, params, &plan(&self.plan_edits()), &mut out);
        download(backend, &out, x.len())
    }

    /// That of the expert whose answer may be off most, as if the row were sent to it alone.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let each = match self.routing.scores {
            _ if self.routing.normalized => 1.0,
            Scores::Softmax => 1.0,
            Scores::Sigmoid | Scores::OneByOne { .. } => self.routing.chosen as f64,
        };
        let shares = each * f64::from(self.routing.scale);
        let experts: Vec<_> = (0..self.experts).map(|it| (it, self.weights(it), self.bias(it))).collect();
        let row = |(x, set): (Vec<f32>, u32)| {
            let worst = experts.iter().map(|(expert, weights, bias)| {
                let (answer, error) = self.answer(&x, weights, bias);
                let (answer, error) = match self.edit(*expert, set as usize).filter(|_| set > 0) {
                    None => (answer, error),
                    Some(edit) => edited(&edit, answer, error),
                };
                // The bias, the share and the sum.
                error + (8.0 + self.routing.chosen as f64) * UNIT * (answer + 1.0)
            });
            vec![shares * worst.fold(0.0, f64::max); self.d_model]
        };
        self.grid(1, self.d_model, 1.0).into_iter().zip(self.plan_edits()).map(row).collect()
    }
}

impl Mixture {
    /// The largest number that an expert's down projection may give for a row, and how far an f32 implementation may be.
    fn answer(&self, x: &[f32], weights: &[Vec<Vec<f32>>; 3], bias: &[Vec<f32>; 3]) -> (f64, f64) {
        let [gates, ups, downs] = weights;
        let bias = |index: usize| self.biases.then_some(&bias[index][..]);
        let up = product(x, ups, bias(1));
        let (gate, up) = if self.gated {
            (product(x, gates, bias(0)), up)
        } else {
            let ones = vec![(1.0, 0.0); up.len()];
            (up, ones)
        };
        let hidden: Vec<(f64, f64)> = gate.into_iter().zip(up).map(|(gate, up)| gated(gate, up)).collect();
        let mut worst = (0.0_f64, 0.0_f64);
        for row in downs {
            let sum = |of: fn(&(f64, f64)) -> f64| -> f64 {
                row.iter().zip(&hidden).map(|(w, it)| f64::from(w.abs()) * of(it)).sum()
            };
            let passed = ROUNDED * sum(|it| it.0);
            let rounded = if self.dtype == WeightDtype::Bf16 { BF16 * passed } else { 0.0 };
            let error = ROUNDED * sum(|it| it.1) + (self.width as f64 + 3.0) * UNIT * passed + rounded;
            worst = (worst.0.max(passed), worst.1.max(error));
        }
        worst
    }
}

/// Products in bf16 round the hidden numbers, and two that differ in the last bit of f32 may be rounded apart.
const BF16: f64 = 1.0 / 256.0;

/// `activation(gate) × up`, or `× (up + 1)`: a bound, and how far it may be off. Activations are no larger than their
/// argument, have a slope of at most 1.13 and are off by a few roundings of their argument themselves.
fn gated((gate, gate_error): (f64, f64), (up, up_error): (f64, f64)) -> (f64, f64) {
    let (gate, up) = (ROUNDED * gate.abs() + gate_error, ROUNDED * up.abs() + up_error + 1.0);
    (gate * up, (1.13 * gate_error + 8.0 * UNIT * gate) * up + gate * (up_error + 2.0 * UNIT * up))
}

/// What becomes of numbers up to `answer` that may be off by `error`.
fn edited(edit: &Edit, answer: f64, error: f64) -> (f64, f64) {
    let largest = |it: &[f32]| it.iter().fold(0.0_f64, |a, b| a.max(f64::from(b.abs())));
    let s = edit.s().map_or(1.0, largest);
    let grows = s * (1.0 + largest(edit.p()) * edit.q().iter().map(|it| f64::from(it.abs())).sum::<f64>());
    let roundings = (edit.width() as f64 / 16.0).ceil() + 12.0;
    (grows * answer, grows * (error + roundings * UNIT * answer))
}
