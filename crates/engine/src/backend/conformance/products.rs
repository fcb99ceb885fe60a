//! Products with weights: linear layers, gated layers, the head.

use glossary::TokenId;
use proptest::prelude::*;
use proptest::sample::select;

use super::rows::dtypes;
use super::stand_ins::{Noise, download, largest, tensor, upload};
use super::{Case, UNIT, Verdict};
use crate::backend::{Backend, HeadOutput, HeadWants, Stacking, WeightDtype};
use crate::blueprint::Activation;

/// Sizes around registers (16), around the length of one chain of sums (384), and past two chains.
const SIZES: [usize; 8] = [1, 15, 16, 17, 383, 384, 385, 770];

pub(super) fn row_counts() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..=30_usize, 1 => select(vec![100, 193, 200])]
}

/// Multiply-adds that the oracle has the patience for.
pub(super) const WORK: usize = 6_000_000;

/// Weights are rounded to f16 or bf16, in bf16 arithmetic the input as well: 1 % covers twice the latter's 2^-9.
pub(super) const ROUNDED: f64 = 1.01;

/// `x Wᵀ + bias` in f64, and how far an f32 implementation may be: one rounding for each of k multiply-adds, in
/// whatever order, of Σ |x| |w| + |bias|. Input and weights as they are before rounding. Products of bf16 numbers
/// are exact in f32, so bf16 arithmetic has no more roundings than that, however a processor adds up pairs.
pub(super) fn product(x: &[f32], weights: &[Vec<f32>], bias: Option<&[f32]>) -> Vec<(f64, f64)> {
    let k = x.len() as f64;
    weights
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let bias = bias.map_or(0.0, |it| f64::from(it[i]));
            let terms = || row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let passed = ROUNDED * terms().map(f64::abs).sum::<f64>() + bias.abs();
            (terms().sum::<f64>() + bias, (k + 3.0) * UNIT * passed)
        })
        .collect()
}

/// What the outputs of a part of a matrix may be multiplied with.
const SCALES: [f32; 3] = [0.3, -1.7, 1.0];

/// The same weights multiplied, as they are in effect.
fn multiplied(mut weights: Vec<Vec<f32>>, by: f32) -> Vec<Vec<f32>> {
    weights.iter_mut().flatten().for_each(|it| *it *= by);
    weights
}

/// A linear layer of one or several stacked matrices.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    parts: Vec<usize>,
    k: usize,
    rows: usize,
    bias: bool,
    scaled: bool,
    dtype: WeightDtype,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn linears() -> impl Strategy<Value = Linear> {
    let parts = prop_oneof![
        3 => select(&SIZES[..]).prop_map(|it| vec![it]),
        1 => prop::collection::vec(select(vec![1, 8, 15, 16, 40]), 2..=3),
    ];
    let vectors = (any::<bool>(), any::<bool>());
    (parts, select(&SIZES[..]), row_counts(), vectors, dtypes(), any::<u64>()).prop_map(
        |(parts, k, rows, (bias, scaled), dtype, seed)| {
            let rows = rows.min(WORK / (k * parts.iter().sum::<usize>())).max(1);
            Linear { parts, k, rows, bias, scaled, dtype, seed, only: None }
        },
    )
}

/// 1 to 30 rows and a few larger counts, for each precision: all groupings of rows that a kernel may have.
pub(super) fn linears_of_every_row_count() -> impl Iterator<Item = Linear> {
    (1..=30).chain([100, 193, 200]).flat_map(|rows| {
        [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16].map(|dtype| Linear {
            parts: vec![150],
            k: 50,
            rows,
            bias: true,
            scaled: false,
            dtype,
            seed: rows as u64,
            only: None,
        })
    })
}

impl Linear {
    /// The same with weights for products in bf16.
    pub(super) fn in_bf16(self) -> Self {
        Self { dtype: WeightDtype::Bf16, ..self }
    }

    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).grid(self.rows, self.k, 1.0);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }

    fn weights(&self) -> Vec<Vec<Vec<f32>>> {
        let part = |(i, n): (usize, &usize)| Noise::new(self.seed, 10 + i as u64).grid(*n, self.k, 1.0);
        self.parts.iter().enumerate().map(part).collect()
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| Noise::new(self.seed, 2).row(self.parts.iter().sum(), 1.0))
    }
}

impl Case for Linear {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let x = self.x();
        let parts: Vec<_> = self.weights().iter().map(|it| tensor(it)).collect();
        let mut matrix = backend.matrix(&parts, Stacking::EndToEnd, self.dtype).unwrap();
        if self.scaled {
            let scales: Vec<_> = self.parts.iter().copied().zip(SCALES).collect();
            matrix = backend.scaled(matrix, &scales, Stacking::EndToEnd);
        }
        let bias = self.bias().map(|it| backend.vector(&it));
        let rows = upload(backend, &x);
        let mut out = backend.rows(self.parts.iter().sum());
        backend.linear(&rows, &matrix, bias.as_ref(), &mut out);
        download(backend, &out, x.len())
    }

    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let mut weights = self.weights();
        if self.scaled {
            weights = weights.into_iter().zip(SCALES).map(|(it, by)| multiplied(it, by)).collect();
        }
        let (weights, bias) = (weights.concat(), self.bias());
        let row = |x: &Vec<f32>| product(x, &weights, bias.as_deref()).into_iter().map(|it| it.1).collect();
        self.x().iter().map(row).collect()
    }
}

/// A gated layer.
#[derive(Clone, Debug)]
pub(super) struct Gated {
    n: usize,
    k: usize,
    rows: usize,
    bias: bool,
    scaled: bool,
    activation: Activation,
    dtype: WeightDtype,
    /// Of the input: gates of ±1,000 must not overflow.
    size: f32,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn gates() -> impl Strategy<Value = Gated> {
    let clamped = Activation::ClampedSilu { steepness: 1.702, limit: 7.0 };
    let capped = Activation::CappedSilu { limit: 0.8 };
    let activation = select(vec![Activation::Silu, Activation::GeluTanh, clamped, capped]);
    let sizes = (select(&SIZES[..]), select(&SIZES[..]), row_counts());
    let vectors = (any::<bool>(), any::<bool>());
    (sizes, vectors, activation, dtypes(), select(vec![0.1, 1.0, 100.0]), any::<u64>()).prop_map(
        |((n, k, rows), (bias, scaled), activation, dtype, size, seed)| {
            let rows = rows.min(WORK / (2 * k * n)).max(1);
            Gated { n, k, rows, bias, scaled, activation, dtype, size, seed, only: None }
        },
    )
}

impl Gated {
    /// The same with weights for products in bf16.
    pub(super) fn in_bf16(self) -> Self {
        Self { dtype: WeightDtype::Bf16, ..self }
    }

    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).grid(self.rows, self.k, self.size);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }

    fn weights(&self) -> [Vec<Vec<f32>>; 2] {
        [10, 11].map(|purpose| Noise::new(self.seed, purpose).grid(self.n, self.k, 1.0))
    }

    fn biases(&self) -> [Option<Vec<f32>>; 2] {
        [2, 3].map(|purpose| self.bias.then(|| Noise::new(self.seed, purpose).row(self.n, 1.0)))
    }
}

impl Case for Gated {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let x = self.x();
        let mut matrix =
            backend.matrix(&self.weights().map(|it| tensor(&it)), Stacking::Paired, self.dtype).unwrap();
        if self.scaled {
            let scales = [(self.n, SCALES[0]), (self.n, SCALES[1])];
            matrix = backend.scaled(matrix, &scales, Stacking::Paired);
        }
        // As the model loader makes them: each half filled up to a multiple of 16.
        let mut both = Vec::new();
        for bias in self.biases().into_iter().flatten() {
            both.extend(bias);
            both.resize(both.len().next_multiple_of(16), 0.0);
        }
        let bias = self.bias.then(|| backend.vector(&both));
        let rows = upload(backend, &x);
        let mut out = backend.rows(self.n);
        backend.gated_linear(&rows, &matrix, bias.as_ref(), self.activation, &mut out);
        download(backend, &out, x.len())
    }

    /// All activations have a slope of at most 1.13 and are off by a few roundings of their argument themselves; one adds
    /// 1 to what it is multiplied with.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let ([mut gates, mut ups], [gate_bias, up_bias]) = (self.weights(), self.biases());
        if self.scaled {
            (gates, ups) = (multiplied(gates, SCALES[0]), multiplied(ups, SCALES[1]));
        }
        let number = |((gate, gate_error), (up, up_error)): ((f64, f64), (f64, f64))| {
            let activation_error = 1.13 * gate_error + 8.0 * UNIT * f64::abs(gate);
            let (gate, up) = (ROUNDED * f64::abs(gate) + gate_error, ROUNDED * f64::abs(up) + up_error + 1.0);
            activation_error * up + gate * (up_error + 2.0 * UNIT * up)
        };
        let row = |x: &Vec<f32>| {
            let (gate, up) = (product(x, &gates, gate_bias.as_deref()), product(x, &ups, up_bias.as_deref()));
            gate.into_iter().zip(up).map(number).collect()
        };
        self.x().iter().map(row).collect()
    }
}

/// The head: logits, and everything that can be wanted of them.
#[derive(Clone, Debug)]
pub(super) struct Head {
    vocab: usize,
    k: usize,
    rows: usize,
    dtype: WeightDtype,
    bias: bool,
    scale: f32,
    softcap: Option<f32>,
    top: usize,
    /// Numbers and weights are small integers: logits are exact, and many of them equal.
    ties: bool,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn heads() -> impl Strategy<Value = Head> {
    let sizes = (select(vec![1, 15, 16, 97, 255, 257, 300, 5000]), select(vec![1, 8, 33, 64]), row_counts());
    // More of the largest than there are is all of them.
    let top = prop_oneof![0..=5_usize, Just(400)];
    let softcap = prop::option::of(select(vec![5.0, 30.0]));
    let after = (any::<bool>(), select(vec![1.0, 0.25, 8.0]), softcap);
    (sizes, dtypes(), after, top, any::<u64>()).prop_map(
        |((vocab, k, rows), dtype, (bias, scale, softcap), top, seed)| {
            let rows = rows.min(WORK / (k * vocab)).max(1);
            Head { vocab, k, rows, dtype, bias, scale, softcap, top, ties: false, seed, only: None }
        },
    )
}

pub(super) fn ties() -> impl Strategy<Value = Head> {
    heads().prop_map(|it| Head { ties: true, bias: false, scale: 1.0, softcap: None, k: it.k.min(8), ..it })
}

impl Head {
    /// The same with weights for products in bf16.
    pub(super) fn in_bf16(self) -> Self {
        Self { dtype: WeightDtype::Bf16, ..self }
    }

    fn grid(&self, purpose: u64, rows: usize) -> Vec<Vec<f32>> {
        let mut noise = Noise::new(self.seed, purpose);
        if self.ties {
            return (0..rows).map(|_| (0..self.k).map(|_| noise.below(5) as f32 - 2.0).collect()).collect();
        }
        noise.grid(rows, self.k, 1.0)
    }

    fn x(&self) -> Vec<Vec<f32>> {
        let x = self.grid(1, self.rows);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }

    fn targets(&self) -> Vec<TokenId> {
        let mut noise = Noise::new(self.seed, 3);
        let targets: Vec<TokenId> = (0..self.rows).map(|_| TokenId(noise.below(self.vocab) as u32)).collect();
        self.only.map_or(targets.clone(), |it| vec![targets[it]])
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| Noise::new(self.seed, 4).row(self.vocab, 1.0))
    }

    fn run<B: Backend>(&self, backend: &mut B, wants: &HeadWants) -> HeadOutput {
        let matrix =
            backend.matrix(&[tensor(&self.grid(2, self.vocab))], Stacking::EndToEnd, self.dtype).unwrap();
        let rows = upload(backend, &self.x());
        let bias = self.bias().map(|it| backend.vector(&it));
        let mut out = HeadOutput::default();
        backend.head(&rows, &matrix, bias.as_ref(), self.scale, self.softcap, wants, &mut out);
        out
    }

    fn everything(&self) -> HeadWants {
        HeadWants { top: self.top, logsumexp: true, logits: true, targets: self.targets() }
    }

    /// Largest logits, targets and logsumexp against the logits that the same back end tells; and less is wanted,
    /// the same is told.
    pub(super) fn consistent<B: Backend>(&self, backend: &mut B) -> Verdict {
        let all = self.run(backend, &self.everything());
        let top = self.top.min(self.vocab);
        for (row, target) in self.targets().into_iter().enumerate() {
            let logits = &all.logits[row * self.vocab..][..self.vocab];
            let mut order: Vec<usize> = (0..self.vocab).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            let expected: Vec<_> = order[..top].iter().map(|&it| (TokenId(it as u32), logits[it])).collect();
            prop_assert_eq!(&all.top[row * top..][..top], &expected[..]);
            prop_assert_eq!(all.targets[row].to_bits(), logits[target.index()].to_bits());
            let largest = f64::from(logits[order[0]]);
            let sum: f64 = logits.iter().map(|&it| (f64::from(it) - largest).exp()).sum();
            let off = f64::from(all.logsumexp[row]) - (largest + sum.ln());
            prop_assert!(
                off.abs() <= LOGSUMEXP + UNIT * largest.abs(),
                "logsumexp of row {row} off by {off:e}"
            );
        }
        let less = HeadWants { logits: false, ..self.everything() };
        prop_assert_eq!(self.run(backend, &less), HeadOutput { logits: Vec::new(), ..all.clone() });
        let one = HeadWants { top: 1, ..HeadWants::default() };
        let first = self.run(backend, &one);
        prop_assert_eq!(first.logsumexp.len() + first.logits.len() + first.targets.len(), 0);
        if top > 0 {
            let expected: Vec<_> = all.top.iter().step_by(top).copied().collect();
            prop_assert_eq!(first.top, expected);
        }
        Ok(())
    }
}

/// Exponentials within 2 ulp each, their sum in f32 over at most 16 lines and a tree of 4: the logarithm turns
/// relative error into absolute.
const LOGSUMEXP: f64 = 32.0 * UNIT;

impl Case for Head {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    /// Of each row: logits, logsumexp, the target's logit, the largest logits, their tokens.
    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let out = self.run(backend, &self.everything());
        let top = self.top.min(self.vocab);
        out.logits
            .chunks(self.vocab)
            .enumerate()
            .map(|(row, logits)| {
                let largest = &out.top[row * top..][..top];
                let mut numbers = logits.to_vec();
                numbers.extend([out.logsumexp[row], out.targets[row]]);
                numbers.extend(largest.iter().map(|it| it.1));
                numbers.extend(largest.iter().map(|it| it.0.0 as f32));
                numbers
            })
            .collect()
    }

    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let weights = self.grid(2, self.vocab);
        let top = self.top.min(self.vocab);
        let scale = f64::from(self.scale);
        // tanh is computed from an exponential, so it is off by a few roundings of 1, not of itself.
        let capped = self.softcap.map_or(0.0, |cap| 8.0 * UNIT * f64::from(cap));
        let row = |(x, exact): (&Vec<f32>, &Vec<f32>)| {
            if self.ties {
                // Everything is exact but the logsumexp.
                let mut allowed = vec![0.0; exact.len()];
                allowed[self.vocab] = LOGSUMEXP + UNIT * f64::from(exact[self.vocab].abs());
                return allowed;
            }
            let error = |(logit, error): (f64, f64)| scale * (error + 2.0 * UNIT * f64::abs(logit)) + capped;
            let bias = self.bias();
            let mut allowed: Vec<f64> =
                product(x, &weights, bias.as_deref()).into_iter().map(error).collect();
            let worst = largest(&allowed);
            allowed.push(worst + LOGSUMEXP + UNIT * f64::from(exact[self.vocab].abs()));
            allowed.push(worst);
            // The i-th largest of numbers that move by no more than this moves by no more than this; which token
            // it is may change.
            allowed.extend(vec![worst; top]);
            allowed.extend(vec![f64::INFINITY; top]);
            allowed
        };
        self.x().iter().zip(exact).map(row).collect()
    }
}
