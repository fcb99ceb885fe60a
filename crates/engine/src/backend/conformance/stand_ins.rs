//! Numbers, tensors and buffers to try operations on.

use checkpoint::{Checkpoint, Tensor};
use glossary::TokenId;
use safetensors::tensor::{Dtype, TensorView};

use super::UNIT;
use crate::backend::{Backend, NormParams, WeightDtype};
use crate::blueprint::NormKind;
use crate::plan::{Plan, Slot};

/// Numbers that look random: splitmix64.
pub(super) struct Noise(u64);

impl Noise {
    /// The stream of a seed and a purpose.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In −1..1.
    pub(super) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// From 0 to before `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub(super) fn row(&mut self, cols: usize, scale: f32) -> Vec<f32> {
        (0..cols).map(|_| self.number() * scale).collect()
    }

    pub(super) fn grid(&mut self, rows: usize, cols: usize, scale: f32) -> Vec<Vec<f32>> {
        (0..rows).map(|_| self.row(cols, scale)).collect()
    }

    /// A grid of numbers around a mean.
    pub(super) fn around(&mut self, mean: f32, rows: usize, cols: usize, scale: f32) -> Vec<Vec<f32>> {
        let mut grid = self.grid(rows, cols, scale);
        grid.iter_mut().flatten().for_each(|it| *it += mean);
        grid
    }
}

/// A tensor `[rows, cols]` in f32, in a file of its own that is gone when the tensor is.
pub(super) fn tensor(grid: &[Vec<f32>]) -> Tensor {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = grid.iter().flatten().flat_map(|it| it.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![grid.len(), grid[0].len()], &bytes).unwrap();
    safetensors::serialize_to_file([("tensor", view)], None, &folder.path().join("model.safetensors"))
        .unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    Checkpoint::open(folder.path()).unwrap().tensor("tensor").unwrap()
}

/// A plan of unconnected rows: row `i` is token `i`, under the edit of its index.
pub(super) fn plan(edits: &[u32]) -> Plan {
    let mut plan = Plan::default();
    for (row, &edit) in edits.iter().enumerate() {
        plan.push_row(TokenId(row as u32), 0, edit, Slot { page: 0, offset: 0 }, 0);
    }
    plan
}

/// Brings rows onto a back end, bit for bit: as an embedding of tokens 0, 1, 2, ….
pub(super) fn upload<B: Backend>(backend: &mut B, grid: &[Vec<f32>]) -> B::Rows {
    let mut rows = backend.rows(grid[0].len());
    let table = backend.table(&tensor(grid), WeightDtype::F32).unwrap();
    backend.embed(&table, &plan(&vec![0; grid.len()]), 1.0, &mut rows);
    rows
}

/// All rows of a buffer.
pub(super) fn download<B: Backend>(backend: &mut B, rows: &B::Rows, count: usize) -> Vec<Vec<f32>> {
    let mut numbers = Vec::new();
    backend.download(rows, &mut numbers);
    numbers.chunks(numbers.len() / count).map(<[f32]>::to_vec).collect()
}

/// A norm as a case describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SomeNorm {
    pub(super) kind: NormKind,
    pub(super) bias: bool,
}

impl SomeNorm {
    const EPSILON: f32 = 1e-5;

    pub(super) fn gain(width: usize, seed: u64) -> Vec<f32> {
        Noise::new(seed, 101).row(width, 2.0)
    }

    fn offsets(self, width: usize, seed: u64) -> Option<Vec<f32>> {
        self.bias.then(|| Noise::new(seed, 102).row(width, 1.0))
    }

    pub(super) fn params<B: Backend>(self, backend: &B, width: usize, seed: u64) -> NormParams<B::Vector> {
        NormParams {
            kind: self.kind,
            width,
            gain: backend.vector(&Self::gain(width, seed)),
            bias: self.offsets(width, seed).map(|it| backend.vector(&it)),
            epsilon: Self::EPSILON,
        }
    }

    /// The norm of a row in f64, and how far from it an f32 implementation may be that reads numbers which are off
    /// by `error`.
    ///
    /// With c = x − mean: a sum of n squares in 16 lanes is off by n/16 + 5 roundings of itself, an error e of c
    /// moves the scale by e · scale of itself at most (Cauchy-Schwarz), and the mean adds its own rounding.
    pub(super) fn exact(self, x: &[f64], error: f64, seed: u64) -> (Vec<f64>, f64) {
        let n = x.len() as f64;
        let roundings = (n / 16.0).ceil() + 8.0;
        let (mean, error) = match self.kind {
            NormKind::RootMeanSquare | NormKind::Nothing => (0.0, error),
            NormKind::Layer => (x.iter().sum::<f64>() / n, 2.0 * error + roundings * UNIT * largest(x)),
        };
        let centered: Vec<f64> = x.iter().map(|it| it - mean).collect();
        let square = centered.iter().map(|it| it * it).sum::<f64>() / n;
        let root = (square + f64::from(Self::EPSILON)).sqrt();
        let scale = if self.kind == NormKind::Nothing { 1.0 } else { 1.0 / root };
        let (gain, offsets) = (Self::gain(x.len(), seed), self.offsets(x.len(), seed));
        let row: Vec<f64> = centered
            .iter()
            .enumerate()
            .map(|(i, it)| {
                it * scale * f64::from(gain[i]) + offsets.as_ref().map_or(0.0, |it| f64::from(it[i]))
            })
            .collect();
        let peak = largest(&centered) * scale;
        let gain = gain.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let moved = if self.kind == NormKind::Nothing { 0.0 } else { scale * error };
        let error = f64::from(gain) * (scale * error + peak * (roundings * UNIT + moved));
        let error = error + 2.0 * UNIT * largest(&row);
        (row, error)
    }
}

pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a: f64, b| a.max(b.abs()))
}

pub(super) fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&it| f64::from(it)).collect()
}
