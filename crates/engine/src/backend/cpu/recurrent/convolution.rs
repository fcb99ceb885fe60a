//! Causal convolutions of channels: 16 channels at a time, position after position.

use super::super::rows::{Rows, Shared, numbers};
use super::super::rowwise::silu;
use super::super::simd::{Isa, LANES, Simd, load_part, store_part, with_isa};
use super::super::{Vector, parallel};
use super::States;
use crate::backend::{ConvolutionParams, Convolved};
use crate::plan::{Plan, Run};

/// Lines of channels that one thread takes at a time.
const GRAIN: usize = 16;

/// Some lines of channels of a run.
struct Task<'a> {
    x: &'a Rows,
    how: Convolved,
    params: &'a ConvolutionParams<Vector>,
    run: Run,
    /// Of the state, `[taps − 1, channels]` in lines; `None`: zeros.
    from: Option<*const f32>,
    plan: &'a Plan,
    states: &'a States,
    lines: std::ops::Range<usize>,
    out: Shared,
}

pub(in super::super) fn convolve(
    isa: Isa,
    x: &Rows,
    how: Convolved,
    params: &ConvolutionParams<Vector>,
    plan: &Plan,
    states: &mut States,
    out: &mut Rows,
) {
    let lines = params.channels.div_ceil(LANES);
    assert!(out.cols() >= params.channels, "a column of the output for each channel");
    out.resize(x.rows());
    let runs = states.take_runs(plan);
    let (of_runs, out) = (&*states, out.shared());
    let blocks = lines.div_ceil(GRAIN);
    parallel(runs.len() * blocks, |task| {
        let (run, block) = (runs[task / blocks], task % blocks);
        let task = Task {
            x,
            how,
            params,
            run,
            from: plan.state_of(run).from.map(|it| of_runs.state(it).cast_const()),
            plan,
            states: of_runs,
            lines: block * GRAIN..((block + 1) * GRAIN).min(lines),
            out,
        };
        // SAFETY: each task has its own lines of its own rows and states; no slot that is read by one run is written by
        // another.
        unsafe { convolve_lines(isa, &task) }
    });
    states.runs = runs;
}

#[inline(always)]
unsafe fn convolve_lines_kernel<S: Simd>(task: &Task<'_>) {
    let Task { x, how, params, run, .. } = task;
    let (taps, channels) = (params.taps, params.channels);
    let stride = channels.div_ceil(LANES) * LANES;
    let weights = numbers(&params.weight.lines).as_ptr();
    for line in task.lines.clone() {
        let at = line * LANES;
        let count = (channels - at).min(LANES);
        // SAFETY: columns of inputs and outputs end with the last channel; weights and states are whole lines.
        unsafe {
            let column = |row: usize, first: usize| {
                load_part::<S>(x.row(run.first + row).as_ptr().add(first + at), count)
            };
            // What is convolved at a position of the run; those before it lie in the state.
            let input = |position: isize| -> S::V {
                if position >= 0 {
                    let input = column(position as usize, how.input);
                    return how
                        .before
                        .map_or(input, |before| S::mul(column(position as usize, before), input));
                }
                match task.from {
                    Some(from) => {
                        let back = (taps as isize - 1 + position) as usize;
                        S::load(from.add(back * stride + at))
                    }
                    None => S::splat(0.0),
                }
            };
            for row in 0..run.rows {
                let mut sum = match &params.bias {
                    Some(bias) => S::load(bias.lines[line].0.as_ptr()),
                    None => S::splat(0.0),
                };
                for tap in 0..taps {
                    let weight = S::load(weights.add(tap * stride + at));
                    sum = S::fma(weight, input(row as isize + 1 + tap as isize - taps as isize), sum);
                }
                if how.silu {
                    sum = silu::<S>(sum);
                }
                if let Some(after) = how.after {
                    sum = S::mul(sum, column(row, after));
                }
                store_part::<S>(task.out.at(run.first + row, at), sum, count);
            }
            // From the oldest on: a state that goes on in its own slot is read before it is written over.
            for back in 0..taps - 1 {
                let position = run.rows as isize + back as isize - (taps as isize - 1);
                let value = input(position);
                for slot in task.plan.states_after(*run) {
                    S::store(task.states.state(slot).add(back * stride + at), value);
                }
            }
        }
    }
}
with_isa! {
    /// Some lines of channels of one run.
    unsafe fn convolve_lines(task: &Task<'_>) = convolve_lines_kernel
}
