//! Layers with states: sequences that begin alike and go on by themselves, in one pass or several.

use glossary::TokenId;
use proptest::prelude::*;
use proptest::sample::select;

use super::stand_ins::{Noise, download, upload};
use super::{Case, UNIT};
use crate::backend::{Backend, ConvolutionParams, Convolved, GatedNormParams, RecurrenceParams, RuleParams};
use crate::blueprint::RecurrenceShape;
use crate::plan::{PageTable, Plan, SequenceId};

/// What is done with the rows.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Convolution {
        channels: usize,
        taps: usize,
        bias: bool,
        silu: bool,
        gated: bool,
    },
    /// Of the delta rule the largest strength.
    Recurrence {
        shape: RecurrenceShape,
        delta: Option<f32>,
        by_channel: bool,
        norm: Option<usize>,
        gate_first: bool,
        sigmoid: bool,
    },
}

/// Sequences that share a head, then rows of their own, then one more each.
#[derive(Clone, Debug)]
pub(super) struct Remembering {
    layer: Layer,
    /// Positions of the common head.
    head: usize,
    /// The number of each sequence, and its rows in the second pass.
    forks: Vec<(u64, usize)>,
    in_one_piece: bool,
    seed: u64,
}

fn convolutions() -> impl Strategy<Value = Layer> {
    (select(vec![1, 15, 16, 40, 300]), 1..=5_usize, any::<[bool; 3]>()).prop_map(
        |(channels, taps, [bias, silu, gated])| Layer::Convolution { channels, taps, bias, silu, gated },
    )
}

fn recurrences() -> impl Strategy<Value = Layer> {
    let sizes = (1..=3_usize, 1..=3_usize, select(vec![1, 7, 16, 33]), select(vec![1, 15, 16, 50, 80]));
    let delta = select(vec![None, Some(1.0), Some(2.0)]);
    (sizes, delta, any::<[bool; 4]>(), 0..3_usize).prop_map(
        |((groups, each, d_key, d_value), delta, [gate_first, order, by_channel, sigmoid], norm)| {
            let by_channel = by_channel && delta.is_some();
            let (heads, keys) = (groups * each, groups * d_key);
            let values = if order { 0 } else { 2 * keys };
            let first = if order { heads * d_value } else { 0 };
            let shape =
                RecurrenceShape { heads, groups, d_key, d_value, queries: first, keys: first + keys, values };
            let norm = [None, Some(d_value), Some(heads * d_value / groups)][norm];
            Layer::Recurrence { shape, delta, by_channel, norm, gate_first, sigmoid }
        },
    )
}

pub(super) fn remembering() -> impl Strategy<Value = Remembering> {
    let layers = prop_oneof![convolutions(), recurrences()];
    let forks = prop::collection::vec(1..=9_usize, 1..=4);
    (layers, prop_oneof![Just(0), 1..=12_usize], forks, any::<u64>()).prop_map(
        |(layer, head, forks, seed)| Remembering {
            layer,
            head,
            forks: (0..).zip(forks).collect(),
            in_one_piece: false,
            seed,
        },
    )
}

impl Remembering {
    /// The same sequences, none of which shares a state.
    pub(super) fn in_one_piece(&self) -> Self {
        Self { in_one_piece: true, ..self.clone() }
    }

    fn row(&self, fork: u64, position: usize, cols: usize) -> Vec<f32> {
        let owner = if position < self.head { 0 } else { fork + 1 };
        Noise::new(self.seed, 1000 * owner + position as u64 + 10).row(cols, 1.0)
    }

    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let mut memory = Memory::new(self, backend);
        let mut table = PageTable::recurrent();
        let head = table.open();
        if !self.in_one_piece && self.head > 0 {
            memory.pass(backend, &mut table, &[(head, 0, self.head)]);
        }
        let sequences: Vec<SequenceId> = self
            .forks
            .iter()
            .map(|_| if self.in_one_piece { table.open() } else { table.fork(head) })
            .collect();
        table.close(head);
        let first = if self.in_one_piece { self.head } else { 0 };
        let feeds = |rows: &dyn Fn(usize) -> usize| -> Vec<(SequenceId, u64, usize)> {
            let each = sequences.iter().zip(&self.forks);
            each.map(|(&sequence, &(fork, own))| (sequence, fork, rows(own))).collect()
        };
        let mut outcome = memory.pass(backend, &mut table, &feeds(&|own| first + own));
        let last = memory.pass(backend, &mut table, &feeds(&|_| 1));
        for ((all, next), &(_, own)) in outcome.iter_mut().zip(last).zip(&self.forks) {
            let cols = all.len() / (first + own);
            all.drain(..first * cols);
            all.extend(next);
        }
        outcome
    }
}

/// The weights and the states of a case under way.
struct Memory<'a, B: Backend> {
    case: &'a Remembering,
    states: B::States,
    convolution: Option<ConvolutionParams<B::Vector>>,
    recurrence: Option<RecurrenceParams<B::Vector>>,
}

impl<'a, B: Backend> Memory<'a, B> {
    fn new(case: &'a Remembering, backend: &B) -> Self {
        let mut noise = Noise::new(case.seed, 1);
        match case.layer {
            Layer::Convolution { channels, taps, bias, .. } => {
                let mut weight = Vec::new();
                for _ in 0..taps {
                    weight.extend(noise.row(channels, 1.0));
                    weight.resize(weight.len().next_multiple_of(16), 0.0);
                }
                let convolution = ConvolutionParams {
                    channels,
                    taps,
                    weight: backend.vector(&weight),
                    bias: bias.then(|| backend.vector(&noise.row(channels, 1.0))),
                };
                Self {
                    case,
                    states: backend.states([taps - 1, channels]),
                    convolution: Some(convolution),
                    recurrence: None,
                }
            }
            Layer::Recurrence { shape, delta, by_channel, norm, gate_first, sigmoid } => {
                let decays = shape.decays(by_channel);
                let mut vector = |width: usize| noise.row(width, 1.0);
                let rate: Vec<f32> = vector(shape.heads).into_iter().map(|it| -it.exp()).collect();
                let rule = match delta {
                    Some(scale) => RuleParams::Delta { scale, by_channel },
                    None => RuleParams::StateSpace {
                        skip: backend.vector(&vector(shape.heads)),
                        limits: (0.1, 1.0),
                    },
                };
                let params = RecurrenceParams {
                    shape,
                    decay_bias: backend.vector(&vector(decays)),
                    rate: backend.vector(&rate),
                    rule,
                    norm: norm.map(|width| GatedNormParams {
                        gain: backend.vector(&vector(shape.outputs())),
                        width,
                        epsilon: 0.01,
                    }),
                    gate_first,
                    sigmoid,
                    gate: 3,
                    decay: 3 + shape.outputs(),
                    strength: 2,
                };
                Self {
                    case,
                    states: backend.states(shape.state()),
                    convolution: None,
                    recurrence: Some(params),
                }
            }
        }
    }

    /// Appends rows to sequences, `(sequence, fork, rows)`; what the layer says, by sequence.
    fn pass(
        &mut self,
        backend: &mut B,
        table: &mut PageTable,
        feeds: &[(SequenceId, u64, usize)],
    ) -> Vec<Vec<f32>> {
        let mut plan = Plan::default();
        let mut places = Vec::new();
        for &(sequence, fork, rows) in feeds {
            let context = plan.next_context();
            for _ in 0..rows {
                let position = table.len(sequence);
                places.push((fork, position as usize));
                let slot = table.append(sequence);
                plan.push_row(TokenId(0), position, 0, slot, context);
            }
            let state = table.advance(sequence);
            plan.push_recurrent_context(table.chunks(sequence), state);
        }
        backend.reserve_states(&mut self.states, table.states());
        let grid = |cols: usize| -> Vec<Vec<f32>> {
            places.iter().map(|&(fork, position)| self.case.row(fork, position, cols)).collect()
        };
        let out = match (&self.case.layer, &self.convolution, &self.recurrence) {
            (Layer::Convolution { channels, silu, gated, .. }, Some(params), _) => {
                let how = Convolved {
                    input: 2 * channels,
                    before: gated.then_some(0),
                    after: gated.then_some(*channels),
                    silu: *silu,
                };
                let x = upload(backend, &grid(3 * channels));
                let mut out = backend.rows(*channels);
                backend.convolve(&x, how, params, &plan, &mut self.states, &mut out);
                out
            }
            (Layer::Recurrence { shape, by_channel, .. }, _, Some(params)) => {
                let beside = shape.channels() + 3 + shape.outputs() + shape.decays(*by_channel);
                let all = beside + 2 + shape.heads;
                let rows = grid(all);
                let part = |range: std::ops::Range<usize>| -> Vec<Vec<f32>> {
                    rows.iter().map(|it| it[range.clone()].to_vec()).collect()
                };
                let convolved = upload(backend, &part(0..shape.channels()));
                let x = upload(backend, &part(shape.channels()..beside));
                let strengths = upload(backend, &part(beside..all));
                let mut out = backend.rows(shape.outputs());
                backend.recur(&convolved, &x, &strengths, params, &plan, &mut self.states, &mut out);
                out
            }
            _ => unreachable!("a layer has its parameters"),
        };
        table.settle();
        let mut found = download(backend, &out, places.len()).into_iter();
        feeds.iter().map(|feed| found.by_ref().take(feed.2).flatten().collect()).collect()
    }
}

impl Case for Remembering {
    fn parts(&self) -> usize {
        self.forks.len()
    }

    fn only(&self, part: usize) -> Self {
        Self { forks: vec![self.forks[part]], ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        self.run(backend)
    }

    /// A convolution sums up to five products and a bias of numbers up to 1: 20 roundings of at most 6. States decay, and
    /// the delta rule moves them towards values no larger than 1, so that errors do not grow from position to position;
    /// a state takes part in sums over `d_key`, and a norm may make small sums, of which each error is a larger part, ten
    /// times as large (its epsilon is 0.01).
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let allowed = match self.layer {
            Layer::Convolution { .. } => 120.0 * UNIT,
            Layer::Recurrence { shape, norm, .. } => {
                let positions = self.head + self.forks.iter().map(|it| it.1).max().unwrap_or(0) + 1;
                let sums = (shape.d_key + positions + 20) as f64 * (shape.d_key as f64 + 1.0);
                let value = 4.0 * sums * UNIT;
                if norm.is_some() { 10.0 * value } else { value }
            }
        };
        exact.iter().map(|it| vec![allowed; it.len()]).collect()
    }
}

/// Sequences that share the state of their head have the bits of sequences that do not.
pub(super) fn shared_states_have_the_same_bits<B: Backend>(
    backend: impl Fn() -> B,
    case: &Remembering,
) -> Result<(), TestCaseError> {
    let (shared, alone) = (case.run(&mut backend()), case.in_one_piece().run(&mut backend()));
    prop_assert_eq!(super::bits(&shared), super::bits(&alone));
    Ok(())
}
