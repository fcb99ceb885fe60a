//! Operations on several streams of a row.

use super::Grid;

/// `Σ_k weights_ik tanh(routed_k)` for every i.
fn coefficients(routed: &[f32], weights: &[f32]) -> Vec<f64> {
    let modalities: Vec<f64> = routed.iter().map(|&it| f64::from(it).tanh()).collect();
    let sum = |row: &[f32]| row.iter().zip(&modalities).map(|(w, m)| f64::from(*w) * m).sum();
    weights.chunks(routed.len()).map(sum).collect()
}

pub(super) fn predict(
    routed: &Grid,
    weights: &[f32],
    active: usize,
    streams: &mut [Grid],
    residual: &mut Grid,
) {
    let n = streams.len();
    for (row, routed) in routed.rows.iter().enumerate() {
        let before: Vec<Vec<f32>> = streams.iter().map(|it| it.rows[row].clone()).collect();
        let coefficients = coefficients(routed, weights);
        for (stream, coefficients) in streams.iter_mut().zip(coefficients.chunks(n)) {
            for (i, number) in stream.rows[row].iter_mut().enumerate() {
                let others = before.iter().zip(coefficients).map(|(it, c)| c * f64::from(it[i]));
                *number = (f64::from(*number) + others.sum::<f64>()) as f32;
            }
        }
    }
    residual.rows.clone_from(&streams[active].rows);
}

pub(super) fn correct(
    routed: &Grid,
    weights: &[f32],
    active: usize,
    streams: &mut [Grid],
    residual: &mut Grid,
) {
    for (row, routed) in routed.rows.iter().enumerate() {
        let predicted = streams[active].rows[row].clone();
        for (stream, coefficient) in streams.iter_mut().zip(coefficients(routed, weights)) {
            for (i, number) in stream.rows[row].iter_mut().enumerate() {
                let found = f64::from(residual.rows[row][i]) - f64::from(predicted[i]);
                *number = (f64::from(*number) + (1.0 + coefficient) * found) as f32;
            }
        }
    }
    residual.rows.clone_from(&streams[active].rows);
}

fn mean_square(row: &[f32]) -> f64 {
    row.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>() / row.len() as f64
}

pub(super) fn match_size(y: &mut Grid, like: &Grid, smallest: f32) {
    for (y, like) in y.rows.iter_mut().zip(&like.rows) {
        let scale = (mean_square(like) / mean_square(y).max(f64::from(smallest))).sqrt();
        for number in y {
            *number = (f64::from(*number) * scale) as f32;
        }
    }
}

pub(super) fn threshold(x: &mut Grid, deviations: f32) {
    for row in &mut x.rows {
        let n = row.len() as f64;
        let mean = row.iter().map(|&it| f64::from(it)).sum::<f64>() / n;
        let variance = row.iter().map(|&it| (f64::from(it) - mean).powi(2)).sum::<f64>() / n;
        let threshold = mean + f64::from(deviations) * variance.sqrt();
        for number in row {
            let above = f64::from(*number) - threshold;
            *number = if above < 0.0 { 0.0 } else { above as f32 }; // NaN stays NaN
        }
    }
}
