//! Products with weights in quantized blocks.
//!
//! What they are is defined by the decoder: a matrix in blocks is the matrix of the numbers that the blocks mean. So the
//! processor gives the bits of those numbers kept in f32, and agrees with the oracle as closely.

use checkpoint::Quantization;
use proptest::prelude::*;
use proptest::sample::select;

use super::products::{WORK, product, row_counts};
use super::stand_ins::{Noise, download, tensor, upload};
use super::{Case, Verdict};
use crate::backend::cpu::{Cpu, Isa};
use crate::backend::{Backend, QuantizedPart, Stacking, WeightDtype};
use crate::blueprint::Activation;

/// A linear or gated layer of tensors in blocks.
#[derive(Clone, Debug)]
pub(super) struct Quantized {
    parts: Vec<(usize, Quantization)>,
    k: usize,
    rows: usize,
    gated: bool,
    seed: u64,
    only: Option<usize>,
}

/// Lengths around a chain of sums (384) and blocks of 256, some not whole 256.
const LENGTHS: [usize; 7] = [32, 96, 256, 384, 416, 512, 1024];

pub(super) fn layers() -> impl Strategy<Value = Quantized> {
    let kind = select(Quantization::ALL.to_vec());
    let several = prop::collection::vec((select(vec![16, 48, 80]), kind.clone()), 2..=3);
    let parts = prop_oneof![
        3 => (select(vec![1, 15, 16, 17, 150, 300]), kind.clone()).prop_map(|it| vec![it]),
        2 => several,
        2 => (select(vec![1, 16, 40, 150]), kind).prop_map(|it| vec![it; 2]),
    ];
    (parts, select(&LENGTHS[..]), row_counts(), any::<bool>(), any::<u64>()).prop_map(
        |(parts, k, rows, gated, seed)| {
            let q4_k = parts.iter().any(|it| it.1 == Quantization::Q4_K);
            let k = if q4_k { k.next_multiple_of(256) } else { k };
            let gated = gated && parts.len() == 2 && parts[0] == parts[1];
            let rows = rows.min(WORK / (k * parts.iter().map(|it| it.0).sum::<usize>())).max(1);
            Quantized { parts, k, rows, gated, seed, only: None }
        },
    )
}

/// 1 to 30 rows and a few larger counts of each kind: all groupings of rows that a kernel may have.
pub(super) fn of_every_row_count() -> impl Iterator<Item = Quantized> {
    (1..=30).chain([100, 193, 200]).flat_map(|rows| {
        Quantization::ALL.map(|kind| Quantized {
            parts: vec![(150, kind)],
            k: 512,
            rows,
            gated: false,
            seed: rows as u64,
            only: None,
        })
    })
}

impl Quantized {
    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).grid(self.rows, self.k, 1.0);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }

    fn weights(&self) -> Vec<Vec<Vec<f32>>> {
        let part =
            |(i, &(n, _)): (usize, &(usize, _))| Noise::new(self.seed, 10 + i as u64).grid(n, self.k, 1.0);
        self.parts.iter().enumerate().map(part).collect()
    }

    /// The numbers that the blocks of the weights mean.
    fn decoded(&self) -> Vec<Vec<Vec<f32>>> {
        let decoded = |row: &Vec<f32>, kind: Quantization| {
            let mut bytes = vec![0; kind.dtype().row_bytes(row.len()).unwrap()];
            kind.encode(row, &mut bytes);
            let mut numbers = vec![0.0; row.len()];
            kind.dtype().decode(&bytes, &mut numbers);
            numbers
        };
        let parts = self.weights().into_iter().zip(&self.parts);
        parts.map(|(rows, &(_, kind))| rows.iter().map(|it| decoded(it, kind)).collect()).collect()
    }

    fn stacking(&self) -> Stacking {
        if self.gated { Stacking::Paired } else { Stacking::EndToEnd }
    }

    fn layer<B: Backend>(&self, backend: &mut B, matrix: &B::Matrix) -> Vec<Vec<f32>> {
        let x = self.x();
        let rows = upload(backend, &x);
        let n: usize = self.parts.iter().map(|it| it.0).sum();
        let mut out = backend.rows(if self.gated { n / 2 } else { n });
        if self.gated {
            backend.gated_linear(&rows, matrix, None, Activation::Silu, &mut out);
        } else {
            backend.linear(&rows, matrix, None, &mut out);
        }
        download(backend, &out, x.len())
    }

    /// On every instruction set the bits of the numbers that the blocks mean, kept in f32.
    pub(super) fn is_that_of_its_numbers(&self) -> Verdict {
        for isa in Isa::available() {
            let mut cpu = Cpu::with_isa(isa);
            let parts: Vec<_> = self.decoded().iter().map(|it| tensor(it)).collect();
            let matrix = cpu.matrix(&parts, self.stacking(), WeightDtype::F32).unwrap();
            let expected = self.layer(&mut cpu, &matrix);
            let found = self.outcome(&mut cpu);
            prop_assert_eq!(super::bits(&found), super::bits(&expected), "{}", isa.name());
        }
        Ok(())
    }
}

impl Case for Quantized {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let weights = self.weights();
        let part = |(rows, &(_, quantization)): (&Vec<Vec<f32>>, &(usize, Quantization))| QuantizedPart {
            tensor: tensor(rows),
            quantization,
        };
        let parts: Vec<_> = weights.iter().zip(&self.parts).map(part).collect();
        let matrix = backend.quantized(&parts, self.stacking()).unwrap();
        self.layer(backend, &matrix)
    }

    /// As of products with the decoded weights; silu has a slope of at most 1.1.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let weights = self.decoded();
        let linear = |x: &Vec<f32>, rows: &[Vec<f32>]| product(x, rows, None);
        let row = |x: &Vec<f32>| {
            if !self.gated {
                return linear(x, &weights.concat()).into_iter().map(|it| it.1).collect();
            }
            let pairs = linear(x, &weights[0]).into_iter().zip(linear(x, &weights[1]));
            let pair = |((gate, gate_error), (up, up_error)): ((f64, f64), (f64, f64))| {
                let activation_error = 1.13 * gate_error + 8.0 * super::UNIT * gate.abs();
                activation_error * (up.abs() + up_error)
                    + gate.abs() * (up_error + 2.0 * super::UNIT * up.abs())
            };
            pairs.map(pair).collect()
        };
        self.x().iter().map(row).collect()
    }
}
