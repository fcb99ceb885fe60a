//! Operations on one row at a time: embedding, norms, and how a writer joins the residual stream.

use glossary::{Edit, TokenId};
use proptest::prelude::*;
use proptest::sample::select;

use super::stand_ins::{Noise, SomeNorm, download, largest, plan, tensor, upload, widened};
use super::{Case, UNIT};
use crate::backend::{Backend, WeightDtype, WriteParams};
use crate::blueprint::{Activation, GateActivation, NormKind};
use crate::plan::{Plan, Slot};

const WIDTHS: [usize; 9] = [1, 2, 7, 15, 16, 17, 48, 97, 576];

pub(super) fn dtypes() -> impl Strategy<Value = WeightDtype> {
    select(vec![WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16])
}

pub(super) fn some_norm() -> impl Strategy<Value = SomeNorm> {
    (select(vec![NormKind::RootMeanSquare, NormKind::Layer, NormKind::Nothing]), any::<bool>())
        .prop_map(|(kind, bias)| SomeNorm { kind, bias })
}

/// Tokens looked up, scaled, and some of the rows chosen in some order.
#[derive(Clone, Debug)]
pub(super) struct Embed {
    cols: usize,
    rows: usize,
    dtype: WeightDtype,
    scale: f32,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn embeds() -> impl Strategy<Value = Embed> {
    (select(&WIDTHS[..]), 1..40_usize, dtypes(), select(vec![1.0, 0.5, 24.0]), any::<u64>())
        .prop_map(|(cols, rows, dtype, scale, seed)| Embed { cols, rows, dtype, scale, seed, only: None })
}

impl Case for Embed {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        const VOCAB: usize = 11;
        let table = tensor(&Noise::new(self.seed, 1).grid(VOCAB, self.cols, 1.0));
        let table = backend.table(&table, self.dtype).unwrap();
        let mut noise = Noise::new(self.seed, 2);
        // Some are not in the table.
        let tokens: Vec<u32> = (0..self.rows).map(|_| noise.below(VOCAB + 3) as u32).collect();
        let tokens = self.only.map_or(tokens.clone(), |it| vec![tokens[it]]);
        let mut plan = Plan::default();
        for &token in &tokens {
            plan.push_row(TokenId(token), 0, 0, Slot { page: 0, offset: 0 }, 0);
        }
        let (mut rows, mut chosen) = (backend.rows(self.cols), backend.rows(self.cols));
        backend.embed(&table, &plan, self.scale, &mut rows);
        // Backwards, so that the order counts.
        let backwards: Vec<u32> = (0..tokens.len() as u32).rev().collect();
        backend.select(&rows, &backwards, &mut chosen);
        download(backend, &chosen, tokens.len())
    }

    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        exact.iter().map(|it| vec![0.0; it.len()]).collect()
    }
}

/// A norm of rows.
#[derive(Clone, Debug)]
pub(super) struct NormRows {
    cols: usize,
    rows: usize,
    norm: SomeNorm,
    /// How far the numbers lie from zero: 300 times their spread makes a layer norm that forgets to centre first
    /// lose everything.
    mean: f32,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn norms() -> impl Strategy<Value = NormRows> {
    (select(&WIDTHS[..]), 1..40_usize, some_norm(), select(vec![0.0, 3.0, 300.0]), any::<u64>())
        .prop_map(|(cols, rows, norm, mean, seed)| NormRows { cols, rows, norm, mean, seed, only: None })
}

impl NormRows {
    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).around(self.mean, self.rows, self.cols, 1.0);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }
}

impl Case for NormRows {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let x = self.x();
        let rows = upload(backend, &x);
        let mut out = backend.rows(self.cols);
        let norm = self.norm.params(backend, self.cols, self.seed);
        backend.norm(&rows, &norm, &mut out);
        download(backend, &out, x.len())
    }

    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let allowed = |row: &Vec<f32>| vec![self.norm.exact(&widened(row), 0.0, self.seed).1; self.cols];
        self.x().iter().map(allowed).collect()
    }
}

/// A writer's output, edited and added to the stream.
#[derive(Clone, Debug)]
pub(super) struct Write {
    cols: usize,
    rows: usize,
    /// Rank and whether there is a scale, of the edits from index 1 on; `None`: the set leaves this writer alone.
    edits: Vec<Option<(usize, bool)>>,
    bias: bool,
    post_norm: Option<SomeNorm>,
    gates: bool,
    scale: f32,
    stream_scale: f32,
    next_norm: Option<SomeNorm>,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn writes() -> impl Strategy<Value = Write> {
    let edit = prop::option::weighted(0.8, (0..=3_usize, any::<bool>()));
    let norm = || prop::option::of(some_norm());
    (
        (select(&WIDTHS[..]), 1..40_usize, prop::collection::vec(edit, 0..=4)),
        (
            any::<bool>(),
            norm(),
            any::<bool>(),
            (select(vec![1.0, 0.22, -1.5]), select(vec![1.0, 0.7])),
            norm(),
            any::<u64>(),
        ),
    )
        .prop_map(
            |((cols, rows, edits), (bias, post_norm, gates, (scale, stream_scale), next_norm, seed))| Write {
                cols,
                rows,
                edits,
                bias,
                post_norm,
                gates,
                scale,
                stream_scale,
                next_norm,
                seed,
                only: None,
            },
        )
}

/// A writer's output, the stream before it, and the edit of each row.
type Operands = (Vec<Vec<f32>>, Vec<Vec<f32>>, Vec<u32>);

impl Write {
    fn operands(&self) -> Operands {
        let y = Noise::new(self.seed, 1).grid(self.rows, self.cols, 2.0);
        let residual = Noise::new(self.seed, 2).grid(self.rows, self.cols, 10.0);
        let mut noise = Noise::new(self.seed, 3);
        let indices: Vec<u32> = (0..self.rows).map(|_| noise.below(self.edits.len() + 1) as u32).collect();
        match self.only {
            None => (y, residual, indices),
            Some(row) => (vec![y[row].clone()], vec![residual[row].clone()], vec![indices[row]]),
        }
    }

    /// By edit index; 0 is the original.
    fn edits(&self) -> Vec<Option<Edit>> {
        let edit = |(set, it): (usize, &Option<(usize, bool)>)| {
            it.map(|(rank, scaled)| {
                let mut noise = Noise::new(self.seed, 10 + set as u64);
                // About unit vectors, so that edits neither vanish nor explode.
                let length = 1.5 / (self.cols as f32).sqrt();
                let (p, q) = (noise.row(rank * self.cols, length), noise.row(rank * self.cols, length));
                Edit::new(self.cols, p, q, scaled.then(|| noise.row(self.cols, 2.0))).unwrap()
            })
        };
        std::iter::once(None).chain(self.edits.iter().enumerate().map(edit)).collect()
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| Noise::new(self.seed, 4).row(self.cols, 1.0))
    }

    /// What the shares of rows are the logistic function of.
    fn gates(&self) -> Option<Vec<Vec<f32>>> {
        let gates = self.gates.then(|| Noise::new(self.seed, 5).grid(self.rows, 1, 4.0))?;
        Some(self.only.map_or(gates.clone(), |row| vec![gates[row].clone()]))
    }

    /// The row after edit and bias, and how far an f32 implementation may be from it: a projection is off by
    /// n/16 + 5 roundings of Σ |q| |y|, and each number passes a handful of operations.
    fn edited(&self, y: &[f32], edit: Option<&Edit>) -> (Vec<f64>, f64) {
        let n = self.cols;
        let mut row = widened(y);
        let mut passed: Vec<f64> = row.iter().map(|it| it.abs()).collect();
        if let Some(edit) = edit {
            let y = row.clone();
            for (p, q) in edit.p().chunks(n).zip(edit.q().chunks(n)) {
                let dot: f64 = q.iter().zip(&y).map(|(q, y)| f64::from(*q) * y).sum();
                let sum: f64 = q.iter().zip(&y).map(|(q, y)| (f64::from(*q) * y).abs()).sum();
                for (i, p) in p.iter().enumerate() {
                    row[i] -= f64::from(*p) * dot;
                    passed[i] += f64::from(p.abs()) * sum;
                }
            }
            for (i, s) in edit.s().unwrap_or(&[]).iter().enumerate() {
                row[i] *= f64::from(*s);
                passed[i] *= f64::from(s.abs());
            }
        }
        for (i, bias) in self.bias().unwrap_or_default().into_iter().enumerate() {
            row[i] += f64::from(bias);
            passed[i] += f64::from(bias.abs());
        }
        let roundings = (n as f64 / 16.0).ceil() + 12.0;
        (row, roundings * UNIT * largest(&passed))
    }
}

impl Case for Write {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let (y, residual, indices) = self.operands();
        let (mut y, mut stream) = (upload(backend, &y), upload(backend, &residual));
        let mut x = backend.rows(self.cols);
        let edits = self.edits();
        let by_index: Vec<Option<&Edit>> = edits.iter().map(Option::as_ref).collect();
        let edits = by_index.iter().any(Option::is_some).then(|| backend.edits(&by_index, self.cols));
        let bias = self.bias().map(|it| backend.vector(&it));
        let post_norm = self.post_norm.map(|it| it.params(backend, self.cols, self.seed));
        let next_norm = self.next_norm.map(|it| it.params(backend, self.cols, self.seed + 1));
        let gates = self.gates().map(|it| upload(backend, &it));
        let params = WriteParams {
            edits: edits.as_ref(),
            bias: bias.as_ref(),
            post_norm: post_norm.as_ref(),
            gates: gates.as_ref(),
            scale: self.scale,
            stream_scale: self.stream_scale,
            next_norm: next_norm.as_ref(),
        };
        backend.write(&mut y, params, &plan(&indices), &mut stream, &mut x);
        let mut rows = download(backend, &stream, indices.len());
        if next_norm.is_some() {
            for (row, x) in rows.iter_mut().zip(download(backend, &x, indices.len())) {
                row.extend(x);
            }
        }
        for (row, y) in rows.iter_mut().zip(download(backend, &y, indices.len())) {
            row.extend(y);
        }
        rows
    }

    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let (y, residual, indices) = self.operands();
        let edits = self.edits();
        let gates = self.gates();
        let row = |place: usize| {
            let (y, residual, index) = (&y[place], &residual[place], &indices[place]);
            let share = gates.as_ref().map_or(1.0, |it| 1.0 / (1.0 + (-f64::from(it[place][0])).exp()));
            let (scale, stream_scale) = (f64::from(self.scale) * share, f64::from(self.stream_scale));
            let (mut row, mut error) = self.edited(y, edits[*index as usize].as_ref());
            if let Some(norm) = self.post_norm {
                (row, error) = norm.exact(&row, error, self.seed);
            }
            let stream: Vec<f64> = row
                .iter()
                .zip(residual)
                .map(|(y, residual)| stream_scale * (f64::from(*residual) + scale * y))
                .collect();
            let error_of_y = error;
            let error = scale.abs() * error + 3.0 * UNIT * (10.0 + scale.abs() * largest(&row));
            let mut allowed = vec![error; self.cols];
            if let Some(norm) = self.next_norm {
                allowed.extend(vec![norm.exact(&stream, error, self.seed + 1).1; self.cols]);
            }
            allowed.extend(vec![error_of_y; self.cols]);
            allowed
        };
        (0..y.len()).map(row).collect()
    }
}

/// Numbers that pass through an activation and are multiplied with others.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    cols: usize,
    rows: usize,
    activation: Activation,
    /// Whether there are others.
    by: bool,
    /// Of the numbers: ±100 must not overflow.
    size: f32,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn gates() -> impl Strategy<Value = Gate> {
    let xielu = Activation::Xielu { positive: 0.8, negative: 1.1 };
    let activation = select(vec![
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::SquaredRelu,
        xielu,
    ]);
    let sizes = (select(&WIDTHS[..]), 1..40_usize, select(vec![0.01, 1.0, 100.0]));
    (sizes, activation, any::<bool>(), any::<u64>()).prop_map(|((cols, rows, size), activation, by, seed)| {
        Gate { cols, rows, activation, by, size, seed, only: None }
    })
}

impl Gate {
    /// What passes, and what it is multiplied with.
    fn operands(&self) -> [Vec<Vec<f32>>; 2] {
        [1, 2].map(|purpose| {
            let grid = Noise::new(self.seed, purpose).grid(self.rows, self.cols, self.size);
            self.only.map_or(grid.clone(), |it| vec![grid[it].clone()])
        })
    }
}

impl Case for Gate {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let [x, by] = self.operands();
        let (mut rows, by) = (upload(backend, &x), upload(backend, &by));
        backend.gate(&mut rows, self.activation, self.by.then_some(&by));
        download(backend, &rows, x.len())
    }

    /// An activation is off by a few roundings of its argument, or of itself where that is larger; one is a small
    /// difference of e^x and 1.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let [x, by] = self.operands();
        let number = |((x, by), exact): ((&f32, &f32), &f32)| {
            let by = if self.by { f64::from(by.abs()) } else { 1.0 };
            let one = if matches!(self.activation, Activation::Xielu { .. }) { 1.0 } else { 0.0 };
            10.0 * UNIT * ((f64::from(x.abs()) + one) * by + f64::from(exact.abs()))
        };
        let row = |((x, by), exact): ((&Vec<f32>, &Vec<f32>), &Vec<f32>)| {
            x.iter().zip(by).zip(exact).map(number).collect()
        };
        x.iter().zip(&by).zip(exact).map(row).collect()
    }
}

/// Numbers that are multiplied with gates, each for so many of them.
#[derive(Clone, Debug)]
pub(super) struct GateBy {
    groups: usize,
    each: usize,
    rows: usize,
    /// Columns before the gates.
    first: usize,
    activation: GateActivation,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn gates_of_groups() -> impl Strategy<Value = GateBy> {
    let activation = select(vec![GateActivation::Sigmoid, GateActivation::Softplus]);
    let sizes = (select(&WIDTHS[..7]), select(vec![1, 1, 2, 7, 16, 20]), 1..40_usize, select(vec![0, 3, 16]));
    (sizes, activation, any::<u64>()).prop_map(|((groups, each, rows, first), activation, seed)| GateBy {
        groups,
        each,
        rows,
        first,
        activation,
        seed,
        only: None,
    })
}

impl GateBy {
    /// What is multiplied, and the rows that gates are part of; some are as large as e^x overflows for.
    fn operands(&self) -> [Vec<Vec<f32>>; 2] {
        [(1, self.groups * self.each, 3.0), (2, self.first + self.groups, 30.0)].map(
            |(purpose, cols, size)| {
                let mut grid = Noise::new(self.seed, purpose).grid(self.rows, cols, size);
                grid[0][cols - 1] *= 10.0;
                self.only.map_or(grid.clone(), |it| vec![grid[it].clone()])
            },
        )
    }
}

impl Case for GateBy {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let [y, gates] = self.operands();
        let (mut rows, gates) = (upload(backend, &y), upload(backend, &gates));
        backend.gate_by(&mut rows, &gates, self.first, self.each, self.activation);
        download(backend, &rows, y.len())
    }

    /// A sigmoid is off by a few roundings of itself, or of the exponent where that is larger, and so is the product.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let row = |row: &Vec<f32>| row.iter().map(|it| 12.0 * UNIT * f64::from(it.abs())).collect();
        exact.iter().map(row).collect()
    }
}
