//! Operations on several streams of a row: how they are predicted from each other and corrected, and the sizes of rows.
//!
//! The few coefficients of a row are summed in f64, in order, and rounded once; the streams themselves pass a chain of
//! multiply-adds in the order of the streams, lane by lane.

use super::rows::{Rows, numbers};
use super::rowwise::without_pad;
use super::simd::{Isa, LANES, Simd, sum_of_squares, with_isa};
use super::{ROW_GRAIN, Vector, parallel_rows};
use crate::blueprint::MAX_STREAMS;

/// `Σ_k weights_ik tanh(routed_k)` for each i that there is room for.
fn coefficients(routed: &[f32], weights: &[f32], out: &mut [f32]) {
    let mut modalities = [0.0_f64; MAX_STREAMS];
    for (modality, routed) in modalities.iter_mut().zip(routed) {
        *modality = f64::from(*routed).tanh();
    }
    for (out, weights) in out.iter_mut().zip(weights.chunks(routed.len())) {
        *out = weights.iter().zip(&modalities).map(|(w, m)| f64::from(*w) * m).sum::<f64>() as f32;
    }
}

/// One row of all streams, and what is done to it.
struct StreamRow<'a> {
    lines: usize,
    coefficients: &'a [f32],
    streams: &'a [*mut f32],
    active: usize,
    residual: *mut f32,
}

#[inline(always)]
unsafe fn predict_kernel<S: Simd>(row: &StreamRow<'_>) {
    let StreamRow { lines, coefficients, streams, active, residual } = *row;
    // SAFETY: the caller promises whole lines behind all pointers.
    unsafe {
        for i in 0..lines {
            let mut before = [S::splat(0.0); MAX_STREAMS];
            for (before, stream) in before.iter_mut().zip(streams) {
                *before = S::load(stream.add(i * LANES));
            }
            for (to, row) in coefficients.chunks_exact(streams.len()).enumerate() {
                let mut sum = before[to];
                for (coefficient, before) in row.iter().zip(&before) {
                    sum = S::fma(S::splat(*coefficient), *before, sum);
                }
                S::store(streams[to].add(i * LANES), sum);
            }
            S::store(residual.add(i * LANES), S::load(streams[active].add(i * LANES)));
        }
    }
}
with_isa! {
    /// All streams of a row from each other; `coefficients` are `[streams, streams]`.
    unsafe fn predict_row(row: &StreamRow<'_>) = predict_kernel
}

#[inline(always)]
unsafe fn correct_kernel<S: Simd>(row: &StreamRow<'_>) {
    let StreamRow { lines, coefficients, streams, active, residual } = *row;
    // SAFETY: the caller promises whole lines behind all pointers.
    unsafe {
        for i in 0..lines {
            let residual = residual.add(i * LANES);
            let found = S::sub(S::load(residual), S::load(streams[active].add(i * LANES)));
            for (stream, coefficient) in streams.iter().zip(coefficients) {
                let stream = stream.add(i * LANES);
                S::store(stream, S::fma(S::splat(1.0 + coefficient), found, S::load(stream)));
            }
            S::store(residual, S::load(streams[active].add(i * LANES)));
        }
    }
}
with_isa! {
    /// All streams of a row by what became of the active one; `coefficients` are `[streams]`.
    unsafe fn correct_row(row: &StreamRow<'_>) = correct_kernel
}

/// What is done to all streams of a row, with coefficients made of what was routed.
type Kernel = unsafe fn(Isa, &StreamRow<'_>);

fn each_row(
    isa: Isa,
    kernel: Kernel,
    (routed, weights): (&Rows, &Vector),
    per_stream: usize,
    active: usize,
    streams: &mut [Rows],
    residual: &mut Rows,
) {
    let (rows, count) = (routed.rows(), streams.len());
    assert!(count <= MAX_STREAMS && routed.cols() == count, "a number for each of a few streams");
    assert!(streams.iter().all(|it| it.rows() == rows && it.cols() == residual.cols()), "alike in size");
    residual.resize(rows);
    let lines = residual.vectors();
    let mut shared = [residual.shared(); MAX_STREAMS];
    for (shared, stream) in shared.iter_mut().zip(&mut *streams) {
        *shared = stream.shared();
    }
    let residual = residual.shared();
    let weights = numbers(&weights.lines);
    parallel_rows(rows, ROW_GRAIN, |row| {
        let mut room = [0.0; MAX_STREAMS * MAX_STREAMS];
        let own = &mut room[..count * per_stream];
        coefficients(routed.row(row), weights, own);
        // SAFETY: each task has its own row of each buffer, of as many lines.
        unsafe {
            let streams = &shared.map(|it| it.at(row, 0))[..count];
            let residual = residual.at(row, 0);
            kernel(isa, &StreamRow { lines, coefficients: own, streams, active, residual });
        }
    });
}

pub(super) fn predict(
    isa: Isa,
    routed: &Rows,
    weights: &Vector,
    active: usize,
    streams: &mut [Rows],
    residual: &mut Rows,
) {
    let per_stream = streams.len();
    each_row(isa, predict_row, (routed, weights), per_stream, active, streams, residual);
}

pub(super) fn correct(
    isa: Isa,
    routed: &Rows,
    weights: &Vector,
    active: usize,
    streams: &mut [Rows],
    residual: &mut Rows,
) {
    assert_eq!(residual.rows(), routed.rows(), "a row of the stream for each routed row");
    each_row(isa, correct_row, (routed, weights), 1, active, streams, residual);
}

#[inline(always)]
unsafe fn match_size_kernel<S: Simd>(width: usize, y: *mut f32, like: *const f32, smallest: f32) {
    // SAFETY: the caller promises whole lines behind both pointers; their pads hold zeros.
    unsafe {
        let mean_square = |row: *const f32| sum_of_squares::<S>(row, width) / width as f32;
        let own = mean_square(y).max(smallest);
        let scale = S::splat(mean_square(like).sqrt() / own.sqrt());
        for i in 0..width.div_ceil(LANES) {
            let y = y.add(i * LANES);
            S::store(y, S::mul(S::load(y), scale));
        }
    }
}
with_isa! {
    unsafe fn match_size_of_row(width: usize, y: *mut f32, like: *const f32, smallest: f32) = match_size_kernel
}

pub(super) fn match_size(isa: Isa, y: &mut Rows, like: &Rows, smallest: f32) {
    let (rows, cols) = (y.rows(), y.cols());
    assert_eq!((rows, cols), (like.rows(), like.cols()), "a row for each row");
    let y = y.shared();
    parallel_rows(rows, ROW_GRAIN, |row| {
        // SAFETY: each task has its own row.
        unsafe { match_size_of_row(isa, cols, y.at(row, 0), like.row(row).as_ptr(), smallest) }
    });
}

#[inline(always)]
unsafe fn threshold_kernel<S: Simd>(width: usize, deviations: f32, x: *mut f32) {
    let lines = width.div_ceil(LANES);
    // SAFETY: the caller promises whole lines behind the pointer; the pad holds zeros.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in 0..lines {
            sum = S::add(sum, S::load(x.add(i * LANES)));
        }
        let mean = S::splat(S::sum(sum) / width as f32);
        let mut square = S::splat(0.0);
        for i in 0..lines {
            let v = without_pad::<S>(S::sub(S::load(x.add(i * LANES)), mean), i, width);
            square = S::fma(v, v, square);
        }
        let deviation = (S::sum(square) / width as f32).sqrt();
        let threshold = S::fma(S::splat(deviations), S::splat(deviation), mean);
        for i in 0..lines {
            let x = x.add(i * LANES);
            // The number comes second, so that NaN stays NaN.
            let passed = S::max(S::splat(0.0), S::sub(S::load(x), threshold));
            S::store(x, without_pad::<S>(passed, i, width));
        }
    }
}
with_isa! {
    unsafe fn threshold_of_row(width: usize, deviations: f32, x: *mut f32) = threshold_kernel
}

pub(super) fn threshold(isa: Isa, x: &mut Rows, deviations: f32) {
    let (rows, cols, x) = (x.rows(), x.cols(), x.shared());
    parallel_rows(rows, ROW_GRAIN, |row| {
        // SAFETY: each task has its own row.
        unsafe { threshold_of_row(isa, cols, deviations, x.at(row, 0)) }
    });
}
