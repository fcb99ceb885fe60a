//! Which experts a row is sent to, and with what share.
//!
//! A few hundred numbers a row, so all of it runs in f64, one number after the other: the same on every instruction set.

use std::cmp::Ordering;

use crate::blueprint::{Groups, Routing, Scores};

/// Numbers of scratch memory that [`route`] needs.
pub(super) fn scratch(routing: &Routing, experts: usize) -> usize {
    experts + routing.groups.map_or(0, |it| it.count)
}

/// Chooses experts for one row.
///
/// # Shapes
/// - `outputs`, `correction`: `[experts]`
/// - `keys`: as many as [`scratch`] says
/// - `chosen`, `shares`: `[routing.chosen]`
pub(super) fn route(
    outputs: &[f32],
    correction: Option<&[f32]>,
    routing: &Routing,
    keys: &mut [f64],
    chosen: &mut [u32],
    shares: &mut [f32],
) {
    let (keys, groups) = keys.split_at_mut(outputs.len());
    let capped = |output: f32| {
        let output = f64::from(output);
        routing.softcap.map_or(output, |cap| f64::from(cap) * (output / f64::from(cap)).tanh())
    };
    for (key, output) in keys.iter_mut().zip(outputs) {
        *key = capped(*output);
    }
    let largest = keys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = keys.iter().map(|it| (it - largest).exp()).sum();
    let score = |output: f64| match routing.scores {
        Scores::Softmax => (output - largest).exp() / sum,
        Scores::Sigmoid => 1.0 / (1.0 + (-output).exp()),
        Scores::OneByOne { .. } => output,
    };
    for (index, key) in keys.iter_mut().enumerate() {
        *key = score(*key) + correction.map_or(0.0, |it| f64::from(it[index]));
    }
    if let Some(limited) = routing.groups {
        leave_out(limited, keys, groups);
    }
    let mut last = None;
    let mut total = 0.0;
    for (chosen, share) in chosen.iter_mut().zip(&mut *shares) {
        let (index, key) = following(keys, last);
        let value = match routing.scores {
            Scores::OneByOne { tolerance } => 1.0 / sum_of_near(keys, last, key, f64::from(tolerance)),
            Scores::Softmax | Scores::Sigmoid => score(capped(outputs[index])),
        };
        last = Some((index, key));
        total += value;
        (*chosen, *share) = (index as u32, value as f32);
    }
    // So small that it only counts where all shares are zero.
    let divisor = if routing.normalized { total + 1e-20 } else { 1.0 };
    for share in shares {
        *share = (f64::from(*share) / divisor * f64::from(routing.scale)) as f32;
    }
}

/// Larger keys come first, of equal ones the lower index.
fn order(a: (usize, f64), b: (usize, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The first in order after another one, or of all.
fn following(keys: &[f64], last: Option<(usize, f64)>) -> (usize, f64) {
    let left = keys.iter().copied().enumerate().filter(|&it| last.is_none_or(|last| order(last, it).is_lt()));
    left.min_by(|&a, &b| order(a, b)).expect("no more are chosen than there are")
}

/// The sum of `e^(key − best)` over the keys from `best` on in order that are not much worse.
fn sum_of_near(keys: &[f64], last: Option<(usize, f64)>, best: f64, tolerance: f64) -> f64 {
    let left = keys.iter().copied().enumerate().filter(|&it| last.is_none_or(|last| order(last, it).is_lt()));
    let much_worse = |key: f64| (best - key) / key.abs().max(best) > tolerance;
    left.filter(|&(_, key)| !much_worse(key)).map(|(_, key)| (key - best).exp()).sum()
}

/// Gives the experts of all groups but the best ones a key that is never chosen.
fn leave_out(limited: Groups, keys: &mut [f64], groups: &mut [f64]) {
    let size = keys.len() / limited.count;
    for (group, keys) in groups.iter_mut().zip(keys.chunks(size)) {
        let mut last = None;
        *group = 0.0;
        for _ in 0..limited.best {
            let best = following(keys, last);
            *group += best.1;
            last = Some(best);
        }
    }
    let mut kept = None;
    for _ in 0..limited.chosen {
        kept = Some(following(groups, kept));
    }
    for (index, keys) in keys.chunks_mut(size).enumerate() {
        if kept.is_some_and(|kept| order(kept, (index, groups[index])).is_lt()) {
            keys.fill(f64::NEG_INFINITY);
        }
    }
}
