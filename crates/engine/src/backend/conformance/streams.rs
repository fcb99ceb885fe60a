//! Operations on several streams of a row, and on the sizes of rows.

use proptest::prelude::*;
use proptest::sample::select;

use super::stand_ins::{Noise, download, largest, upload, widened};
use super::{Case, UNIT};
use crate::backend::Backend;
use crate::blueprint::MAX_STREAMS;

const WIDTHS: [usize; 7] = [1, 7, 15, 16, 17, 97, 576];

/// Streams predicted from each other, or corrected by what became of one of them.
#[derive(Clone, Debug)]
pub(super) struct Update {
    corrects: bool,
    count: usize,
    active: usize,
    cols: usize,
    rows: usize,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn updates() -> impl Strategy<Value = Update> {
    let sizes = (1..=MAX_STREAMS, 0..MAX_STREAMS, select(&WIDTHS[..]), 1..40_usize);
    (any::<bool>(), sizes, any::<u64>()).prop_map(|(corrects, (count, active, cols, rows), seed)| Update {
        corrects,
        count,
        active: active % count,
        cols,
        rows,
        seed,
        only: None,
    })
}

impl Update {
    fn grid(&self, purpose: usize, cols: usize, scale: f32) -> Vec<Vec<f32>> {
        let grid = Noise::new(self.seed, purpose as u64).grid(self.rows, cols, scale);
        self.only.map_or(grid.clone(), |it| vec![grid[it].clone()])
    }

    fn routed(&self) -> Vec<Vec<f32>> {
        self.grid(1, self.count, 2.0)
    }

    fn residual(&self) -> Vec<Vec<f32>> {
        self.grid(2, self.cols, 5.0)
    }

    fn streams(&self) -> Vec<Vec<Vec<f32>>> {
        (0..self.count).map(|it| self.grid(10 + it, self.cols, 5.0)).collect()
    }

    fn weights(&self) -> Vec<f32> {
        let per_stream = if self.corrects { 1 } else { self.count };
        Noise::new(self.seed, 3).row(self.count * per_stream * self.count, 1.5)
    }

    /// The sizes of a row's coefficients.
    fn coefficients(&self, routed: &[f32]) -> Vec<f64> {
        let dot = |row: &[f32]| {
            row.iter().zip(routed).map(|(w, r)| f64::from(*w) * f64::from(*r).tanh()).sum::<f64>().abs()
        };
        self.weights().chunks(self.count).map(dot).collect()
    }
}

impl Case for Update {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    /// All streams of a row, then what is left as the residual.
    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let routed = self.routed();
        let count = routed.len();
        let routed = upload(backend, &routed);
        let mut streams: Vec<B::Rows> = self.streams().iter().map(|it| upload(backend, it)).collect();
        let weights = backend.vector(&self.weights());
        let mut residual = upload(backend, &self.residual());
        if self.corrects {
            backend.correct(&routed, &weights, self.active, &mut streams, &mut residual);
        } else {
            backend.predict(&routed, &weights, self.active, &mut streams, &mut residual);
        }
        let mut rows = vec![Vec::new(); count];
        for stream in streams.iter().chain([&residual]) {
            for (row, stream) in rows.iter_mut().zip(download(backend, stream, count)) {
                row.extend(stream);
            }
        }
        rows
    }

    /// A rounding or two of each number that is added up, and of each coefficient.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let (streams, residual) = (self.streams(), self.residual());
        let size = |stream: usize, row: usize| largest(&widened(&streams[stream][row]));
        let of_row = |(row, routed): (usize, &Vec<f32>)| {
            let coefficients = self.coefficients(routed);
            let added = |to: usize| {
                if self.corrects {
                    let found = largest(&widened(&residual[row])) + size(self.active, row);
                    return (1.0 + coefficients[to]) * found;
                }
                (0..self.count).map(|from| coefficients[to * self.count + from] * size(from, row)).sum()
            };
            let roundings = self.count as f64 + 4.0;
            let allowed = |to: usize| roundings * UNIT * (size(to, row) + added(to));
            let all = (0..self.count).chain([self.active]);
            all.flat_map(|to| vec![allowed(to); self.cols]).collect()
        };
        self.routed().iter().enumerate().map(of_row).collect()
    }
}

/// Rows brought to the size of others.
#[derive(Clone, Debug)]
pub(super) struct Match {
    cols: usize,
    rows: usize,
    /// Of the numbers: with 0.001 a row is smaller than the smallest.
    size: f32,
    seed: u64,
    only: Option<usize>,
}

const SMALLEST: f32 = 1e-5;

pub(super) fn matches() -> impl Strategy<Value = Match> {
    (select(&WIDTHS[..]), 1..40_usize, select(vec![0.001, 1.0, 30.0]), any::<u64>())
        .prop_map(|(cols, rows, size, seed)| Match { cols, rows, size, seed, only: None })
}

impl Case for Match {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let [y, like] = [(1, self.size), (2, 3.0)].map(|(purpose, size)| {
            let grid = Noise::new(self.seed, purpose).grid(self.rows, self.cols, size);
            self.only.map_or(grid.clone(), |it| vec![grid[it].clone()])
        });
        let count = y.len();
        let (mut y, like) = (upload(backend, &y), upload(backend, &like));
        backend.match_size(&mut y, &like, SMALLEST);
        download(backend, &y, count)
    }

    /// Two sums of n squares in 16 lanes, their roots, a quotient and a product.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let roundings = (self.cols as f64 / 16.0).ceil() + 10.0;
        let allowed = |row: &Vec<f32>| row.iter().map(|it| roundings * UNIT * f64::from(it.abs())).collect();
        exact.iter().map(allowed).collect()
    }
}

/// Rows of which few numbers pass.
#[derive(Clone, Debug)]
pub(super) struct Threshold {
    cols: usize,
    rows: usize,
    deviations: f32,
    /// How far the numbers lie from zero.
    mean: f32,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn thresholds() -> impl Strategy<Value = Threshold> {
    let numbers = (select(vec![-1.0, 0.0, 0.5, 1.5]), select(vec![-40.0, 0.0, 3.0]));
    (select(&WIDTHS[..]), 1..40_usize, numbers, any::<u64>()).prop_map(
        |(cols, rows, (deviations, mean), seed)| Threshold { cols, rows, deviations, mean, seed, only: None },
    )
}

impl Threshold {
    fn x(&self) -> Vec<Vec<f32>> {
        let x = Noise::new(self.seed, 1).around(self.mean, self.rows, self.cols, 2.0);
        self.only.map_or(x.clone(), |it| vec![x[it].clone()])
    }
}

impl Case for Threshold {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let x = self.x();
        let mut rows = upload(backend, &x);
        backend.threshold(&mut rows, self.deviations);
        download(backend, &rows, x.len())
    }

    /// The mean is off by n/16 + 5 roundings of the largest number; so is each distance from it, and with these the
    /// standard deviation, which is their length.
    fn tolerance(&self, _exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let roundings = (self.cols as f64 / 16.0).ceil() + 8.0;
        let allowed = |row: &Vec<f32>| {
            let most = largest(&widened(row));
            vec![roundings * UNIT * most * (2.0 + 4.0 * f64::from(self.deviations.abs())); self.cols]
        };
        self.x().iter().map(allowed).collect()
    }
}
