//! Matrix states: a task is a head of a run and a few lines of its values, whose states fit the first-level cache.

use super::super::rows::{Rows, Shared, numbers};
use super::super::rowwise::{sigmoid, silu};
use super::super::simd::{Isa, LANES, Simd, load_part, store_part, sum_of_squares, with_isa};
use super::super::{ROW_GRAIN, Vector, parallel, parallel_rows};
use super::States;
use crate::backend::{GatedNormParams, RecurrenceParams, RuleParams, UNIT_LENGTH_EPSILON, softplus};
use crate::plan::{Plan, Run};

/// Lines of values whose sums are in registers together.
const TOGETHER: usize = 4;

/// Some lines of the values of a head in a run.
struct Task<'a> {
    convolved: &'a Rows,
    x: &'a Rows,
    strengths: &'a Rows,
    params: &'a RecurrenceParams<Vector>,
    run: Run,
    head: usize,
    /// The first of the lines.
    line: usize,
    /// The state before the run; `None`: zeros.
    from: Option<*const f32>,
    /// Where the state after it goes, and then to its echoes.
    to: *mut f32,
    out: Shared,
}

#[expect(clippy::too_many_arguments, reason = "operands and what is done with them")]
pub(in super::super) fn recur(
    isa: Isa,
    convolved: &Rows,
    x: &Rows,
    strengths: &Rows,
    params: &RecurrenceParams<Vector>,
    plan: &Plan,
    states: &mut States,
    out: &mut Rows,
) {
    let shape = params.shape;
    let value_lines = shape.d_value.div_ceil(LANES);
    out.resize(x.rows());
    let runs = states.take_runs(plan);
    let (of_runs, shared) = (&*states, out.shared());
    let blocks = value_lines.div_ceil(TOGETHER);
    let own_decays = match params.rule {
        RuleParams::Delta { by_channel: true, .. } => shape.d_key,
        RuleParams::Delta { .. } | RuleParams::StateSpace { .. } => 0,
    };
    let head_numbers = shape.d_key * value_lines * LANES;
    parallel(runs.len() * shape.heads * blocks, |task| {
        let (run, rest) = (runs[task / (shape.heads * blocks)], task % (shape.heads * blocks));
        let (head, line) = (rest / blocks, rest % blocks * TOGETHER);
        let step = plan.state_of(run);
        // SAFETY: a state has so many numbers for each head.
        let of_head = |slot: u32| unsafe { of_runs.state(slot).add(head * head_numbers) };
        let task = Task {
            convolved,
            x,
            strengths,
            params,
            run,
            head,
            line,
            from: step.from.map(|it| of_head(it).cast_const()),
            to: of_head(step.to),
            out: shared,
        };
        let lines = (value_lines - line).min(TOGETHER);
        // SAFETY: each task has its own lines of its own rows and states; no slot that is read by one run is written by
        // another.
        unsafe {
            with_decays(own_decays, |decays| recur_lines(isa, lines, &task, decays));
            for echo in plan.states_after(run).skip(1) {
                for key in 0..shape.d_key {
                    let at = (key * value_lines + line) * LANES;
                    std::ptr::copy_nonoverlapping(task.to.add(at), of_head(echo).add(at), lines * LANES);
                }
            }
        }
    });
    parallel_rows(x.rows(), ROW_GRAIN, |row| {
        // SAFETY: each task has its own row.
        unsafe { gate_row(isa, shared.at(row, 0), x.row(row).as_ptr(), params) }
    });
    states.runs = runs;
}

/// Room for so many numbers in memory of the thread.
fn with_decays(count: usize, f: impl FnOnce(&mut [f32])) {
    thread_local! {
        static DECAYS: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    DECAYS.with_borrow_mut(|decays| {
        decays.resize(count.max(decays.len()), 0.0);
        f(&mut decays[..count]);
    });
}

/// What a token does to a head's state.
struct Token {
    /// Of the whole state, where its rows do not decay by themselves.
    decay: f32,
    /// What keys, and queries, are multiplied with.
    key: f32,
    query: f32,
    /// What values are multiplied with: the step, or the strength.
    value: f32,
    /// How much of the value goes straight to the output.
    skip: f32,
}

/// The parameters of a head at a row. The few numbers of each token are computed in f64, so that they have the same bits
/// with every instruction set.
#[inline(always)]
unsafe fn token<S: Simd>(
    task: &Task<'_>,
    row: usize,
    query: *const f32,
    key: *const f32,
    decays: &mut [f32],
) -> Token {
    let Task { params, head, .. } = *task;
    let (shape, inputs) = (params.shape, task.x.row(row));
    let of = |vector: &Vector| numbers(&vector.lines)[head];
    let rate = |index: usize| {
        softplus(f64::from(inputs[params.decay + index] + numbers(&params.decay_bias.lines)[index]))
    };
    let decay = |index: usize| (rate(index) * f64::from(of(&params.rate))).exp() as f32;
    match &params.rule {
        RuleParams::StateSpace { skip, limits } => {
            let step = rate(head).max(f64::from(limits.0)).min(f64::from(limits.1)) as f32;
            Token {
                decay: (f64::from(step) * f64::from(of(&params.rate))).exp() as f32,
                key: 1.0,
                query: 1.0,
                value: step,
                skip: of(skip),
            }
        }
        RuleParams::Delta { scale, by_channel } => {
            let strength = f64::from(task.strengths.row(row)[params.strength + head]);
            for (key, it) in decays.iter_mut().enumerate() {
                *it = decay(head * shape.d_key + key);
            }
            // SAFETY: both have d_key numbers.
            let (query, key) =
                unsafe { (sum_of_squares::<S>(query, shape.d_key), sum_of_squares::<S>(key, shape.d_key)) };
            let unit = |square: f32| 1.0 / (f64::from(square) + UNIT_LENGTH_EPSILON).sqrt();
            Token {
                decay: if *by_channel { 1.0 } else { decay(head) },
                key: unit(key) as f32,
                query: (unit(query) / (shape.d_key as f64).sqrt()) as f32,
                value: (f64::from(*scale) / (1.0 + (-strength).exp())) as f32,
                skip: 0.0,
            }
        }
    }
}

#[inline(always)]
unsafe fn recur_together<S: Simd, const L: usize, const BY_CHANNEL: bool>(
    task: &Task<'_>,
    decays: &mut [f32],
) {
    let Task { params, run, head, line, to, .. } = *task;
    let shape = params.shape;
    let (d_key, d_value) = (shape.d_key, shape.d_value);
    let stride = d_value.div_ceil(LANES) * LANES;
    let group = head / (shape.heads / shape.groups);
    let delta = matches!(params.rule, RuleParams::Delta { .. });
    let at = line * LANES;
    // SAFETY: states have `stride` numbers for each of d_key keys; rows of channels have queries, keys and values where
    // the shape says; the output has d_value numbers for each head.
    unsafe {
        let state = to.add(at);
        for key in 0..d_key {
            for l in 0..L {
                let old = match task.from {
                    Some(from) => S::load(from.add(key * stride + at + l * LANES)),
                    None => S::splat(0.0),
                };
                S::store(state.add(key * stride + l * LANES), old);
            }
        }
        for row in run.first..run.first + run.rows {
            let channels = task.convolved.row(row).as_ptr();
            let query = channels.add(shape.queries + group * d_key);
            let key = channels.add(shape.keys + group * d_key);
            let values = channels.add(shape.values + head * d_value + at);
            let token = token::<S>(task, row, query, key, decays);
            let count = |l: usize| d_value - at - l * LANES;
            let value: [S::V; L] = std::array::from_fn(|l| load_part::<S>(values.add(l * LANES), count(l)));
            let of_all = S::splat(token.decay);
            let decay = |i: usize| if BY_CHANNEL { S::splat(decays[i]) } else { of_all };
            let mut added: [S::V; L] = std::array::from_fn(|l| S::mul(value[l], S::splat(token.value)));
            if delta {
                let mut known = [S::splat(0.0); L];
                for i in 0..d_key {
                    let (key, decay) = (S::splat(*key.add(i) * token.key), decay(i));
                    for (l, known) in known.iter_mut().enumerate() {
                        let old = S::mul(S::load(state.add(i * stride + l * LANES)), decay);
                        *known = S::fma(key, old, *known);
                    }
                }
                for l in 0..L {
                    added[l] = S::mul(S::sub(value[l], known[l]), S::splat(token.value));
                }
            }
            let skip = S::splat(token.skip);
            let mut sums: [S::V; L] = std::array::from_fn(|l| S::mul(value[l], skip));
            for i in 0..d_key {
                let key = S::splat(*key.add(i) * token.key);
                let query = S::splat(*query.add(i) * token.query);
                let decay = decay(i);
                for l in 0..L {
                    let place = state.add(i * stride + l * LANES);
                    let new = S::fma(key, added[l], S::mul(S::load(place), decay));
                    S::store(place, new);
                    sums[l] = S::fma(query, new, sums[l]);
                }
            }
            let out = task.out.at(row, head * d_value + at);
            for (l, sum) in sums.into_iter().enumerate() {
                store_part::<S>(out.add(l * LANES), sum, count(l));
            }
        }
    }
}

#[inline(always)]
unsafe fn recur_kernel<S: Simd>(lines: usize, task: &Task<'_>, decays: &mut [f32]) {
    // SAFETY: as the caller promises.
    unsafe {
        match (lines, decays.is_empty()) {
            (1, true) => recur_together::<S, 1, false>(task, decays),
            (2, true) => recur_together::<S, 2, false>(task, decays),
            (3, true) => recur_together::<S, 3, false>(task, decays),
            (_, true) => recur_together::<S, TOGETHER, false>(task, decays),
            (1, false) => recur_together::<S, 1, true>(task, decays),
            (2, false) => recur_together::<S, 2, true>(task, decays),
            (3, false) => recur_together::<S, 3, true>(task, decays),
            (_, false) => recur_together::<S, TOGETHER, true>(task, decays),
        }
    }
}
with_isa! {
    /// Some lines of values of a head in a run, [`TOGETHER`] at most. `decays` is room for those of a head's keys, and empty
    /// where these do not decay by themselves.
    unsafe fn recur_lines(lines: usize, task: &Task<'_>, decays: &mut [f32]) = recur_kernel
}

/// `y = norm(y) ∘ silu(gate)`, or `y = norm(y ∘ silu(gate))`, or with the logistic function of the gate, in place.
#[inline(always)]
unsafe fn gate_row_kernel<S: Simd>(y: *mut f32, x: *const f32, params: &RecurrenceParams<Vector>) {
    let width = params.shape.outputs();
    let group = params.norm.as_ref().map_or(width, |it| it.width);
    // SAFETY: y and the gates in x have `width` numbers.
    unsafe {
        let gates = x.add(params.gate);
        let activated = |gate| if params.sigmoid { sigmoid::<S>(gate) } else { silu::<S>(gate) };
        for first in (0..width).step_by(group) {
            let lines = (0..group).step_by(LANES);
            let mut square = S::splat(0.0);
            for at in lines.clone() {
                let (place, count) = (y.add(first + at), group - at);
                let mut v = load_part::<S>(place, count);
                if params.gate_first {
                    v = S::mul(v, activated(load_part::<S>(gates.add(first + at), count)));
                    store_part::<S>(place, v, count);
                }
                square = S::fma(v, v, square);
            }
            let norm = params.norm.as_ref();
            let scale = norm.map_or(1.0, |it| 1.0 / (S::sum(square) / group as f32 + it.epsilon).sqrt());
            for at in lines {
                let (place, count) = (y.add(first + at), group - at);
                let mut v = load_part::<S>(place, count);
                if let Some(GatedNormParams { gain, .. }) = norm {
                    let gain = numbers(&gain.lines).as_ptr().add(first + at);
                    v = S::mul(S::mul(v, S::splat(scale)), load_part::<S>(gain, count));
                }
                if !params.gate_first {
                    v = S::mul(v, activated(load_part::<S>(gates.add(first + at), count)));
                }
                store_part::<S>(place, v, count);
            }
        }
    }
}
with_isa! {
    /// The gate of one row, and the norm beside it.
    unsafe fn gate_row(y: *mut f32, x: *const f32, params: &RecurrenceParams<Vector>) = gate_row_kernel
}
