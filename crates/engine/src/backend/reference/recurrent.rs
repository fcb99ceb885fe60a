//! Convolutions and recurrences, position by position in f64.

use super::{Grid, sigmoid, silu};
use crate::backend::{
    ConvolutionParams, Convolved, RecurrenceParams, RuleParams, UNIT_LENGTH_EPSILON, softplus,
};
use crate::plan::{Plan, Run};

fn scale(numbers: &mut [f64], by: f64) {
    for number in numbers {
        *number *= by;
    }
}

/// The state before a run.
fn before(plan: &Plan, run: Run, states: &[Vec<f32>]) -> Vec<f64> {
    match plan.state_of(run).from {
        Some(slot) => states[slot as usize].iter().map(|&it| f64::from(it)).collect(),
        None => vec![0.0; states[0].len()],
    }
}

/// Keeps the state after a run.
fn after(plan: &Plan, run: Run, state: &[f64], states: &mut [Vec<f32>]) {
    for slot in plan.states_after(run) {
        states[slot as usize] = state.iter().map(|&it| it as f32).collect();
    }
}

pub(super) fn convolve(
    x: &Grid,
    how: Convolved,
    params: &ConvolutionParams<Vec<f32>>,
    plan: &Plan,
    states: &mut [Vec<f32>],
    out: &mut Grid,
) {
    let (channels, taps) = (params.channels, params.taps);
    let (width, padded) = (channels * (taps - 1), channels.next_multiple_of(16));
    out.rows.clear();
    // Runs go on from states as they were before the pass.
    let old = states.to_vec();
    for run in plan.runs() {
        let mut window = before(plan, run, &old);
        for row in &x.rows[run.first..run.first + run.rows] {
            let at = |first: usize, channel: usize| f64::from(row[first + channel]);
            window.extend((0..channels).map(|channel| {
                f64::from((at(how.input, channel) * how.before.map_or(1.0, |it| at(it, channel))) as f32)
            }));
            let output = (0..channels).map(|channel| {
                let bias = params.bias.as_ref().map_or(0.0, |it| f64::from(it[channel]));
                let sum: f64 = (0..taps)
                    .map(|tap| {
                        f64::from(params.weight[tap * padded + channel]) * window[tap * channels + channel]
                    })
                    .sum();
                let y = if how.silu { silu(sum + bias) } else { sum + bias };
                (y * how.after.map_or(1.0, |it| at(it, channel))) as f32
            });
            out.rows.push(output.collect());
            window.drain(..channels);
        }
        debug_assert_eq!(window.len(), width, "the window moves on");
        after(plan, run, &window, states);
    }
}

pub(super) fn recur(
    convolved: &Grid,
    x: &Grid,
    strengths: &Grid,
    params: &RecurrenceParams<Vec<f32>>,
    plan: &Plan,
    states: &mut [Vec<f32>],
    out: &mut Grid,
) {
    let shape = params.shape;
    let (d_key, d_value) = (shape.d_key, shape.d_value);
    out.rows.clear();
    let old = states.to_vec();
    for run in plan.runs() {
        let mut state = before(plan, run, &old);
        for row in run.first..run.first + run.rows {
            let (channels, inputs) = (&convolved.rows[row], &x.rows[row]);
            let part = |first: usize, index: usize, width: usize| -> Vec<f64> {
                channels[first + index * width..][..width].iter().map(|&it| f64::from(it)).collect()
            };
            let mut y = Vec::with_capacity(shape.outputs());
            for (head, state) in state.chunks_mut(d_key * d_value).enumerate() {
                let group = head / (shape.heads / shape.groups);
                let mut query = part(shape.queries, group, d_key);
                let mut key = part(shape.keys, group, d_key);
                let mut value = part(shape.values, head, d_value);
                let rate = |index: usize| {
                    softplus(f64::from(inputs[params.decay + index] + params.decay_bias[index]))
                };
                let mut skip = vec![0.0; d_value];
                // Of each number of a key.
                let decays: Vec<f64> = match &params.rule {
                    RuleParams::StateSpace { skip: direct, limits } => {
                        let step = rate(head).clamp(f64::from(limits.0), f64::from(limits.1));
                        skip = value.iter().map(|it| it * f64::from(direct[head])).collect();
                        scale(&mut value, step);
                        vec![(step * f64::from(params.rate[head])).exp(); d_key]
                    }
                    RuleParams::Delta { by_channel, .. } => {
                        for vector in [&mut query, &mut key] {
                            let square: f64 = vector.iter().map(|it| it * it).sum();
                            scale(vector, 1.0 / (square + UNIT_LENGTH_EPSILON).sqrt());
                        }
                        scale(&mut query, 1.0 / (d_key as f64).sqrt());
                        let of = |key| if *by_channel { rate(head * d_key + key) } else { rate(head) };
                        (0..d_key).map(|key| (of(key) * f64::from(params.rate[head])).exp()).collect()
                    }
                };
                for (numbers, decay) in state.chunks_mut(d_value).zip(decays) {
                    scale(numbers, decay);
                }
                if let RuleParams::Delta { scale, .. } = params.rule {
                    let strength = f64::from(strengths.rows[row][params.strength + head]);
                    let strength = f64::from(scale) * sigmoid(strength);
                    for (i, value) in value.iter_mut().enumerate() {
                        let known: f64 =
                            key.iter().zip(state.chunks(d_value)).map(|(key, state)| key * state[i]).sum();
                        *value = strength * (*value - known);
                    }
                }
                for (key, state) in key.iter().zip(state.chunks_mut(d_value)) {
                    state.iter_mut().zip(&value).for_each(|(state, value)| *state += key * value);
                }
                for (i, skip) in skip.iter().enumerate() {
                    let read: f64 =
                        query.iter().zip(state.chunks(d_value)).map(|(query, state)| query * state[i]).sum();
                    y.push(read + skip);
                }
            }
            out.rows.push(gated(&y, &inputs[params.gate..], params));
        }
        after(plan, run, &state, states);
    }
}

/// `norm(y) ∘ silu(gate)`, or `norm(y ∘ silu(gate))`; or the logistic function in place of the `SiLU`.
fn gated(y: &[f64], gates: &[f32], params: &RecurrenceParams<Vec<f32>>) -> Vec<f32> {
    let activation = if params.sigmoid { sigmoid } else { silu };
    let gates: Vec<f64> = gates[..y.len()].iter().map(|&it| activation(f64::from(it))).collect();
    let times = |y: &[f64]| -> Vec<f64> { y.iter().zip(&gates).map(|(y, gate)| y * gate).collect() };
    let mut y = if params.gate_first { times(y) } else { y.to_vec() };
    if let Some(norm) = &params.norm {
        for (group, gains) in y.chunks_mut(norm.width).zip(norm.gain.chunks(norm.width)) {
            let square = group.iter().map(|it| it * it).sum::<f64>() / group.len() as f64;
            let length = (square + f64::from(norm.epsilon)).sqrt();
            group.iter_mut().zip(gains).for_each(|(y, gain)| *y *= f64::from(*gain) / length);
        }
    }
    let y = if params.gate_first { y } else { times(&y) };
    y.into_iter().map(|it| it as f32).collect()
}
