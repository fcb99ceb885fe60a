//! Linear layers of heads, and what latent attention keeps of a token.

use glossary::TokenId;
use proptest::prelude::*;
use proptest::sample::select;

use super::products::product;
use super::rows::{dtypes, some_norm};
use super::stand_ins::{Noise, SomeNorm, download, largest, tensor, upload, widened};
use super::{Case, UNIT};
use crate::backend::{Backend, LatentShape, Stacking, WeightDtype};
use crate::blueprint::{Pairing, Rope};
use crate::plan::{PageTable, Plan};

/// A linear layer for each of several heads.
#[derive(Clone, Debug)]
pub(super) struct ByHead {
    heads: usize,
    n: usize,
    k: usize,
    /// Numbers of a head that no layer reads.
    rest: usize,
    rows: usize,
    /// Whether the weights come as `[k, n]`.
    transposed: bool,
    dtype: WeightDtype,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn by_head() -> impl Strategy<Value = ByHead> {
    let widths = select(vec![1, 7, 16, 24, 33, 130]);
    let inputs = select(vec![1, 8, 15, 16, 33, 400]);
    let rows = prop_oneof![4 => 1..=30_usize, 1 => select(vec![100, 193])];
    (1..=5_usize, widths, inputs, select(vec![0, 1, 6, 16]), rows, any::<bool>(), dtypes(), any::<u64>())
        .prop_map(|(heads, n, k, rest, rows, transposed, dtype, seed)| ByHead {
            heads,
            n,
            k,
            rest,
            rows,
            transposed,
            dtype,
            seed,
            only: None,
        })
}

impl ByHead {
    /// The same with weights for products in bf16.
    pub(super) fn in_bf16(self) -> Self {
        Self { dtype: WeightDtype::Bf16, ..self }
    }

    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).grid(self.rows, self.heads * (self.k + self.rest), 1.0);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }

    /// `[n, k]`
    fn weights(&self, head: usize) -> Vec<Vec<f32>> {
        Noise::new(self.seed, 10 + head as u64).grid(self.n, self.k, 1.0)
    }
}

impl Case for ByHead {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let x = self.x();
        let weights = |head: usize| {
            let rows = self.weights(head);
            if self.transposed {
                let column = |k: usize| rows.iter().map(|row| row[k]).collect();
                let columns: Vec<Vec<f32>> = (0..self.k).map(column).collect();
                backend.matrix(&[tensor(&columns)], Stacking::Transposed, self.dtype).unwrap()
            } else {
                backend.matrix(&[tensor(&rows)], Stacking::EndToEnd, self.dtype).unwrap()
            }
        };
        let weights: Vec<_> = (0..self.heads).map(weights).collect();
        let rows = upload(backend, &x);
        let mut out = backend.rows(self.heads * (self.n + self.rest));
        backend.linear_by_head(&rows, &weights, &mut out);
        download(backend, &out, x.len())
    }

    /// Those of a product; what is not read is not changed.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let row = |row: &Vec<f32>| {
            let heads = row.chunks(self.k + self.rest).enumerate();
            let allowed = heads.flat_map(|(head, numbers)| {
                let products = product(&numbers[..self.k], &self.weights(head), None);
                products.into_iter().map(|it| it.1).chain(vec![0.0; self.rest]).collect::<Vec<_>>()
            });
            allowed.collect()
        };
        self.x().iter().map(row).collect()
    }
}

/// Queries, latents and shared keys, normed and rotated in place.
#[derive(Clone, Debug)]
pub(super) struct Latents {
    shape: LatentShape,
    norm: SomeNorm,
    pairing: Pairing,
    magnitude: f32,
    rows: usize,
    furthest: usize,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn latents() -> impl Strategy<Value = Latents> {
    let widths =
        (1..=5_usize, select(vec![1, 12, 16, 40]), select(vec![1, 9, 16]), select(vec![2, 6, 32, 40]));
    let shape = widths.prop_map(|(n_heads, d_latent, d_nope, d_rope)| LatentShape {
        n_heads,
        d_latent,
        d_nope,
        d_rope,
        d_value: 1,
        scale: 1.0,
    });
    let how = (some_norm(), select(vec![Pairing::Halves, Pairing::Neighbors]), select(vec![1.0, 1.37]));
    (shape, how, 1..30_usize, select(vec![1, 50, 5000]), any::<u64>()).prop_map(
        |(shape, (norm, pairing, magnitude), rows, furthest, seed)| Latents {
            shape,
            norm,
            pairing,
            magnitude,
            rows,
            furthest,
            seed,
            only: None,
        },
    )
}

impl Latents {
    fn grid(&self, purpose: u64, cols: usize) -> Vec<Vec<f32>> {
        let all = Noise::new(self.seed, purpose).grid(self.rows, cols, 3.0);
        self.only.map_or(all.clone(), |it| vec![all[it].clone()])
    }

    fn kept(&self) -> Vec<Vec<f32>> {
        self.grid(4, self.shape.d_kept())
    }
}

impl Case for Latents {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    /// Queries, then what is kept, row by row.
    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let mut noise = Noise::new(self.seed, 2);
        let positions: Vec<u32> = (0..self.rows).map(|_| noise.below(self.furthest) as u32).collect();
        let positions = self.only.map_or(positions.clone(), |it| vec![positions[it]]);
        let (mut table, mut plan) = (PageTable::default(), Plan::default());
        for (row, &position) in positions.iter().enumerate() {
            let sequence = table.open();
            plan.push_row(TokenId(0), position, 0, table.append(sequence), row as u32);
        }
        let mut pages = backend.pages(&self.shape.over_latents());
        backend.reserve(&mut pages, table.pages());
        let mut query = upload(backend, &self.grid(3, self.shape.n_heads * self.shape.d_query()));
        let mut kept = upload(backend, &self.kept());
        let norm = self.norm.params(backend, self.shape.d_latent, self.seed);
        let mut angles = backend.angles(&some_rope(self.shape.d_rope, self.pairing, self.magnitude));
        backend.rotate_and_store_latents(
            &mut query,
            &mut kept,
            &self.shape,
            &norm,
            &mut angles,
            &plan,
            &mut pages,
        );
        let mut rows = download(backend, &query, positions.len());
        for (row, kept) in rows.iter_mut().zip(download(backend, &kept, positions.len())) {
            row.extend(kept);
        }
        rows
    }

    /// A rotation keeps the length of a pair, a norm is off as far as it says; the rest of a query passes untouched.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let LatentShape { n_heads, d_latent, d_nope, d_rope, .. } = self.shape;
        let rotated = |numbers: &[f32]| vec![12.0 * UNIT * largest(&widened(numbers)); d_rope];
        let row = |(raw, exact): (&Vec<f32>, &Vec<f32>)| {
            let (queries, kept) = exact.split_at(n_heads * (d_nope + d_rope));
            let heads = queries.chunks(d_nope + d_rope);
            let mut allowed: Vec<f64> =
                heads.flat_map(|it| [vec![0.0; d_nope], rotated(&it[d_nope..])].concat()).collect();
            let error = self.norm.exact(&widened(&raw[..d_latent]), 0.0, self.seed).1;
            allowed.extend(vec![error; d_latent]);
            allowed.extend(rotated(&kept[d_latent..]));
            allowed
        };
        self.kept().iter().zip(exact).map(row).collect()
    }
}

/// A rotation of so many numbers.
pub(super) fn some_rope(d_rope: usize, pairing: Pairing, magnitude: f32) -> Rope {
    let frequency = |i: usize| 1000_f64.powf(-2.0 * i as f64 / d_rope as f64) as f32;
    Rope { frequencies: (0..d_rope / 2).map(frequency).collect(), magnitude, pairing, limit: None }
}
