//! What happens to single rows, in f64.

use checkpoint::Tensor;
use glossary::Edit;

use crate::LoadError;
use crate::backend::{NormParams, WeightDtype};
use crate::blueprint::{Activation, NormKind, Pairing, Rope, Routing, Scores};

pub(super) fn rounded(value: f32, dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::F32 => value,
        WeightDtype::Bf16 => half::bf16::from_f32(value).to_f32(),
        WeightDtype::F16 => half::f16::from_f32(value).to_f32(),
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

pub(super) fn weights_of(tensor: &Tensor, dtype: WeightDtype) -> Result<Vec<Vec<f32>>, LoadError> {
    (0..tensor.rows())
        .map(|row| {
            let mut values = vec![0.0; tensor.row_len()];
            tensor.read_row(row, &mut values);
            crate::backend::cpu::check_finite(tensor, row, &values)?;
            Ok(values.into_iter().map(|it| rounded(it, dtype)).collect())
        })
        .collect()
}

/// The norm of head `head`, or of a whole row.
pub(super) fn norm_row(x: &[f32], norm: &NormParams<Vec<f32>>, head: usize) -> Vec<f32> {
    let several = norm.gain.len() > norm.width;
    let gain = &norm.gain[if several { head * norm.width.next_multiple_of(16) } else { 0 }..];
    let n = x.len() as f64;
    let mean = match norm.kind {
        NormKind::RootMeanSquare | NormKind::Nothing => 0.0,
        NormKind::Layer => x.iter().map(|&it| f64::from(it)).sum::<f64>() / n,
    };
    let square = x.iter().map(|&it| (f64::from(it) - mean).powi(2)).sum::<f64>() / n;
    let scale = match norm.kind {
        NormKind::RootMeanSquare | NormKind::Layer => 1.0 / (square + f64::from(norm.epsilon)).sqrt(),
        NormKind::Nothing => 1.0,
    };
    x.iter()
        .enumerate()
        .map(|(i, &it)| {
            let bias = norm.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
            ((f64::from(it) - mean) * scale * f64::from(gain[i]) + bias) as f32
        })
        .collect()
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// Norms heads, one after the other or all together.
pub(super) fn norm_heads(heads: &mut [f32], norm: Option<&NormParams<Vec<f32>>>) {
    let Some(norm) = norm else { return };
    for (head, numbers) in heads.chunks_mut(norm.width).enumerate() {
        numbers.copy_from_slice(&norm_row(numbers, norm, head));
    }
}

pub(super) fn activate(activation: Activation, x: f64, up: f64) -> f64 {
    match activation {
        Activation::Silu => silu(x) * up,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)) * up,
        Activation::SquaredRelu => x.max(0.0).powi(2) * up,
        Activation::Xielu { positive, negative } => {
            let curve = if x > 0.0 { x * x } else { x.exp_m1() - x };
            let bend = f64::from(if x > 0.0 { positive } else { negative });
            (bend * curve + 0.5 * x) * up
        }
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh()) * up
        }
        Activation::CappedSilu { limit } => {
            let (x, limit) = (silu(x), f64::from(limit));
            (if x > limit { limit } else { x }) * up.clamp(-limit, limit)
        }
        Activation::ClampedSilu { steepness, limit } => {
            let (steepness, limit) = (f64::from(steepness), f64::from(limit));
            let x = if x > limit { limit } else { x };
            x / (1.0 + (-steepness * x).exp()) * (up.clamp(-limit, limit) + 1.0)
        }
    }
}

/// The error function: its power series, and past 6 the 1 that it is there to f64's precision.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    // 2 / sqrt(π) e^(−x²) Σ 2^n x^(2n+1) / (1 · 3 · … · (2n+1)): all terms have one sign, so nothing cancels.
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// The experts of a row and their shares.
pub(super) fn route(outputs: &[f32], correction: Option<&Vec<f32>>, routing: &Routing) -> Vec<(usize, f64)> {
    let capped = |x: f64| routing.softcap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh());
    let outputs: Vec<f64> = outputs.iter().map(|&it| capped(f64::from(it))).collect();
    if let Scores::OneByOne { tolerance } = routing.scores {
        let mut left = largest_first(&outputs);
        let shares = (0..routing.chosen).map(|_| {
            let best = outputs[left[0]];
            let near = left.iter().map(|&it| outputs[it]).filter(|output| {
                let relative = (best - output) / output.abs().max(best);
                relative.is_nan() || relative <= f64::from(tolerance)
            });
            let share = 1.0 / near.map(|it| (it - best).exp()).sum::<f64>();
            (left.remove(0), share * f64::from(routing.scale))
        });
        return shares.collect();
    }
    let largest = outputs.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = outputs.iter().map(|it| (it - largest).exp()).sum();
    let scores: Vec<f64> = outputs
        .iter()
        .map(|it| match routing.scores {
            Scores::Sigmoid => sigmoid(*it),
            Scores::Softmax | Scores::OneByOne { .. } => (it - largest).exp() / sum,
        })
        .collect();
    let wanted: Vec<f64> =
        scores.iter().enumerate().map(|(i, it)| it + correction.map_or(0.0, |c| f64::from(c[i]))).collect();
    let mut candidates = largest_first(&wanted);
    if let Some(groups) = routing.groups {
        let size = wanted.len() / groups.count;
        let score =
            |group: &[f64]| largest_first(group).iter().take(groups.best).map(|&it| group[it]).sum::<f64>();
        let kept = largest_first(&wanted.chunks(size).map(score).collect::<Vec<_>>());
        candidates.retain(|it| kept[..groups.chosen].contains(&(it / size)));
    }
    candidates.truncate(routing.chosen);
    let total: f64 = candidates.iter().map(|&it| scores[it]).sum();
    let divisor = if routing.normalized { total + 1e-20 } else { 1.0 };
    candidates.into_iter().map(|it| (it, scores[it] / divisor * f64::from(routing.scale))).collect()
}

/// The places of numbers in order, of equal ones the first.
pub(super) fn largest_first(numbers: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order
}

pub(super) fn rotate(head: &mut [f32], rope: &Rope, position: u32) {
    let pairs = rope.frequencies.len();
    for (i, frequency) in rope.frequencies.iter().enumerate() {
        let angle = f64::from(position as f32 * frequency);
        let (sin, cos) = angle.sin_cos();
        let (a, b) = match rope.pairing {
            Pairing::Halves => (i, i + pairs),
            Pairing::Neighbors => (2 * i, 2 * i + 1),
        };
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        let magnitude = f64::from(rope.magnitude);
        head[a] = ((x * cos - y * sin) * magnitude) as f32;
        head[b] = ((y * cos + x * sin) * magnitude) as f32;
    }
}

pub(super) fn edit_row(y: &mut [f32], edit: &Edit) {
    let width = edit.width();
    let dots: Vec<f64> = (0..edit.rank()).map(|j| dot(&edit.q()[j * width..][..width], y)).collect();
    for (i, y) in y.iter_mut().enumerate() {
        let mut value = f64::from(*y);
        for (j, dot) in dots.iter().enumerate() {
            value -= f64::from(edit.p()[j * width + i]) * dot;
        }
        *y = (value * edit.s().map_or(1.0, |s| f64::from(s[i]))) as f32;
    }
}
