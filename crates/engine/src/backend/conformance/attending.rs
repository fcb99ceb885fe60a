//! Rotation, the cache of keys and values, and attention over it.

use glossary::TokenId;
use proptest::prelude::*;
use proptest::sample::select;

use super::rows::some_norm;
use super::stand_ins::{Noise, SomeNorm, download, largest, upload, widened};
use super::{Case, UNIT, latent};
use crate::backend::{AttentionShape, Backend, HeadNorms, LatentShape, NormParams, Values};
use crate::blueprint::{NormKind, Pairing, Rope};
use crate::plan::{PageTable, Plan, SequenceId};

const HEAD_WIDTHS: [usize; 6] = [8, 12, 16, 20, 64, 80];

/// What happens to queries, keys and values before they are used.
#[derive(Clone, Debug)]
struct Preparation {
    /// Share of the head that is rotated, which numbers form pairs, magnitude.
    rope: Option<(f64, Pairing, f32)>,
    query_norm: Option<HeadNorm>,
    key_norm: Option<HeadNorm>,
    value_norm: Option<HeadNorm>,
    last: bool,
    clip: Option<f32>,
}

/// A norm of heads.
#[derive(Clone, Copy, Debug)]
struct HeadNorm {
    norm: SomeNorm,
    over: Over,
}

/// What is normed together, and whether heads share a gain.
#[derive(Clone, Copy, Debug)]
enum Over {
    EachHead,
    EachHeadWithItsGain,
    AllHeads,
}

impl HeadNorm {
    /// Numbers normed together.
    fn width(self, d_head: usize, heads: usize) -> usize {
        if matches!(self.over, Over::AllHeads) { heads * d_head } else { d_head }
    }

    /// The seed of a head's gain.
    fn seed(self, head: usize, seed: u64) -> u64 {
        if matches!(self.over, Over::EachHeadWithItsGain) { seed ^ (head as u64 + 1) << 32 } else { seed }
    }

    fn params<B: Backend>(
        self,
        backend: &B,
        d_head: usize,
        heads: usize,
        seed: u64,
    ) -> NormParams<B::Vector> {
        let width = self.width(d_head, heads);
        match self.over {
            Over::EachHead | Over::AllHeads => self.norm.params(backend, width, seed),
            Over::EachHeadWithItsGain => {
                let row = |head| {
                    let mut gain = SomeNorm::gain(width, self.seed(head, seed));
                    gain.resize(width.next_multiple_of(16), 0.0);
                    gain
                };
                // A norm has one bias; with gains of their own, heads have none.
                let shared = SomeNorm { bias: false, ..self.norm }.params(backend, width, seed);
                NormParams { gain: backend.vector(&(0..heads).flat_map(row).collect::<Vec<_>>()), ..shared }
            }
        }
    }

    /// How far from the exact norm each of the heads may be, if their numbers are off by so many roundings of the largest.
    fn errors(self, heads: &[f32], roundings: f64, d_head: usize, seed: u64) -> Vec<f64> {
        let count = heads.len() / d_head;
        let norm =
            SomeNorm { bias: self.norm.bias && !matches!(self.over, Over::EachHeadWithItsGain), ..self.norm };
        let error = |(head, numbers)| {
            let numbers = widened(numbers);
            norm.exact(&numbers, roundings * UNIT * largest(&numbers), self.seed(head, seed)).1
        };
        let errors: Vec<f64> = heads.chunks(self.width(d_head, count)).enumerate().map(error).collect();
        (0..count).map(|head| errors[head % errors.len()]).collect()
    }
}

fn preparations() -> impl Strategy<Value = Preparation> {
    let pairing = select(vec![Pairing::Halves, Pairing::Neighbors]);
    let rope = prop::option::weighted(0.8, (select(vec![1.0, 0.5, 0.25]), pairing, select(vec![1.0, 1.37])));
    let over = select(vec![Over::EachHead, Over::EachHeadWithItsGain, Over::AllHeads]);
    let norm = move || {
        let norm = (some_norm(), over.clone()).prop_map(|(norm, over)| HeadNorm { norm, over });
        prop::option::weighted(0.4, norm)
    };
    let clip = prop::option::weighted(0.3, select(vec![0.5, 2.0]));
    (rope, [norm(), norm(), norm()], any::<bool>(), clip).prop_map(|(rope, norms, last, clip)| {
        let [query_norm, key_norm, value_norm] = norms;
        Preparation { rope, query_norm, key_norm, value_norm, last, clip }
    })
}

impl Preparation {
    fn rope(&self, d_head: usize) -> Option<Rope> {
        self.rope.map(|(share, pairing, magnitude)| {
            let pairs = (d_head as f64 * share) as usize / 2;
            let frequency = |i: usize| 1000_f64.powf(-(i as f64) / pairs as f64) as f32;
            Rope { frequencies: (0..pairs).map(frequency).collect(), magnitude, pairing, limit: None }
        })
    }

    /// Norms, rotates and stores the rows of a plan, in place; of queries alone without pages.
    fn run<B: Backend>(
        &self,
        backend: &mut B,
        shape: &AttentionShape,
        seed: u64,
        plan: &Plan,
        qkv: &mut B::Rows,
        pages: Option<&mut B::Pages>,
    ) {
        let query = self.query_norm.map(|it| it.params(backend, shape.d_head, shape.n_heads, seed));
        let key = self.key_norm.map(|it| it.params(backend, shape.d_head, shape.n_kv_heads, seed + 1));
        let mut angles = self.rope(shape.d_head).map(|it| backend.angles(&it));
        let value = self.value_norm.map(|it| it.params(backend, shape.d_value(), shape.n_kv_heads, seed + 2));
        let (query, key, value) = (query.as_ref(), key.as_ref(), value.as_ref());
        let norms = HeadNorms { query, key, value, last: self.last, clip: self.clip };
        backend.rotate_and_store(qkv, shape, norms, angles.as_mut(), plan, pages);
    }
}

fn shape(n_kv_heads: usize, group: usize, d_head: usize) -> AttentionShape {
    AttentionShape {
        n_heads: n_kv_heads * group,
        n_kv_heads,
        d_head,
        scale: (1.0 / (d_head as f64).sqrt()) as f32,
        softcap: None,
        window: None,
        values: Values::Own(d_head),
    }
}

/// With values as wide as keys, or not.
fn shapes() -> impl Strategy<Value = AttentionShape> {
    let width = || select(&HEAD_WIDTHS[..]);
    let of_values = prop::option::weighted(0.4, width());
    (1..=3_usize, 1..=7_usize, width(), of_values).prop_map(|(kv, group, d_head, d_value)| AttentionShape {
        values: Values::Own(d_value.unwrap_or(d_head)),
        ..shape(kv, group, d_head)
    })
}

/// Queries, keys and values, normed and rotated in place.
#[derive(Clone, Debug)]
pub(super) struct Rotate {
    shape: AttentionShape,
    preparation: Preparation,
    /// Whether there are keys and values beside the queries.
    stored: bool,
    rows: usize,
    furthest: usize,
    seed: u64,
    only: Option<usize>,
}

pub(super) fn rotations() -> impl Strategy<Value = Rotate> {
    let furthest = select(vec![1, 50, 5000]);
    (shapes(), preparations(), prop::bool::weighted(0.8), 1..30_usize, furthest, any::<u64>()).prop_map(
        |(shape, preparation, stored, rows, furthest, seed)| Rotate {
            shape,
            preparation,
            stored,
            rows,
            furthest,
            seed,
            only: None,
        },
    )
}

impl Rotate {
    fn positions(&self) -> Vec<u32> {
        let mut noise = Noise::new(self.seed, 2);
        let positions: Vec<u32> = (0..self.rows).map(|_| noise.below(self.furthest) as u32).collect();
        self.only.map_or(positions.clone(), |it| vec![positions[it]])
    }

    fn qkv(&self) -> Vec<Vec<f32>> {
        let cols = if self.stored { self.shape.qkv_cols() } else { self.shape.query_cols() };
        let qkv = Noise::new(self.seed, 1).grid(self.rows, cols, 3.0);
        self.only.map_or(qkv.clone(), |it| vec![qkv[it].clone()])
    }
}

impl Case for Rotate {
    fn parts(&self) -> usize {
        self.rows
    }

    fn only(&self, part: usize) -> Self {
        Self { only: Some(part), ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        let positions = self.positions();
        let (mut table, mut plan) = (PageTable::default(), Plan::default());
        for (row, &position) in positions.iter().enumerate() {
            let sequence = table.open();
            plan.push_row(TokenId(0), position, 0, table.append(sequence), row as u32);
        }
        let mut pages = backend.pages(&self.shape);
        backend.reserve(&mut pages, table.pages());
        let mut qkv = upload(backend, &self.qkv());
        let pages = self.stored.then_some(&mut pages);
        self.preparation.run(backend, &self.shape, self.seed, &plan, &mut qkv, pages);
        download(backend, &qkv, positions.len())
    }

    /// A rotation keeps the length of a pair: products and cosines are off by a few roundings of the head's largest
    /// number. Values are not rotated. What is normed last is off by what the norm makes of that.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let AttentionShape { n_heads, d_head, .. } = self.shape;
        let d_value = self.shape.d_value();
        let n_kv_heads = if self.stored { self.shape.n_kv_heads } else { 0 };
        let magnitude = self.preparation.rope.map_or(1.0, |it| f64::from(it.2));
        let rotated_first = self.preparation.last;
        let before_norms = if rotated_first {
            let no_norms = Preparation {
                query_norm: None,
                key_norm: None,
                value_norm: None,
                ..self.preparation.clone()
            };
            Self { preparation: no_norms, ..self.clone() }.outcome(&mut super::Reference::default())
        } else {
            self.qkv()
        };
        let roundings = if rotated_first { 12.0 } else { 0.0 };
        let row = |((raw, before_norms), exact): ((&Vec<f32>, &Vec<f32>), &Vec<f32>)| {
            let (queries, rest) = before_norms.split_at(n_heads * d_head);
            let keys = &rest[..n_kv_heads * d_head];
            let values = &raw[(n_heads + n_kv_heads) * d_head..];
            let errors = |norm: Option<HeadNorm>, heads: &[f32], width, seed| {
                let norm = norm.filter(|_| !heads.is_empty());
                norm.map_or(vec![0.0; heads.len() / width], |it| it.errors(heads, roundings, width, seed))
            };
            let mut normed = errors(self.preparation.query_norm, queries, d_head, self.seed);
            normed.extend(errors(self.preparation.key_norm, keys, d_head, self.seed + 1));
            let rotated = exact[..(n_heads + n_kv_heads) * d_head].chunks(d_head);
            let of_rotated = rotated.zip(normed).flat_map(|(exact, normed)| {
                let error = 2.0 * magnitude * normed + 12.0 * UNIT * largest(&widened(exact));
                vec![error; d_head]
            });
            let of_values = errors(self.preparation.value_norm, values, d_value, self.seed + 2);
            let of_values = of_values.into_iter().flat_map(|error| vec![error; d_value]);
            of_rotated.chain(of_values).collect()
        };
        self.qkv().iter().zip(&before_norms).zip(exact).map(row).collect()
    }
}

/// Sequences that begin alike, go on by some tokens in one pass and by one more in another.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    shape: AttentionShape,
    preparation: Preparation,
    sinks: bool,
    /// Positions that all sequences share.
    head: usize,
    /// Whether the head is given up once the sequences have it: the last of them then goes on in its last page.
    close_head: bool,
    /// Whether each sequence computes the head itself instead.
    in_one_piece: bool,
    /// Number and own positions of each sequence.
    forks: Vec<(u64, usize)>,
    seed: u64,
}

pub(super) fn scenarios() -> impl Strategy<Value = Scenario> {
    let head = prop_oneof![1 => Just(0), 4 => 1..=40_usize, 1 => 150..=200_usize];
    let window = prop::option::of(prop_oneof![1..=5_usize, 6..=40_usize]);
    (
        (shapes(), prop::option::of(select(vec![1.0, 20.0])), window, preparations(), any::<bool>()),
        (head, any::<bool>(), prop::collection::vec(1..=40_usize, 1..=4), any::<u64>()),
    )
        .prop_map(|((shape, softcap, window, preparation, sinks), (head, close_head, forks, seed))| {
            Scenario {
                shape: AttentionShape { softcap, window, ..shape },
                // The tolerance counts on values of at most 1.
                preparation: Preparation { value_norm: None, ..preparation },
                sinks,
                head,
                close_head,
                in_one_piece: false,
                forks: (0..).zip(forks).collect(),
                seed,
            }
        })
}

/// The same with many heads that attend to what is kept of tokens. Its last 8 numbers are the shared key.
pub(super) fn scenarios_of_latents() -> impl Strategy<Value = Scenario> {
    let shapes = (prop_oneof![4 => 1..=9_usize, 1 => select(vec![16, 21])], select(vec![9, 16, 40, 72]));
    (scenarios(), shapes).prop_map(|(scenario, (n_heads, d_latent))| Scenario {
        shape: AttentionShape {
            values: Values::OfKeys(d_latent),
            softcap: scenario.shape.softcap,
            window: scenario.shape.window,
            ..shape(1, n_heads, d_latent + SHARED_KEY)
        },
        ..scenario
    })
}

/// Numbers of a shared key.
const SHARED_KEY: usize = 8;

impl Scenario {
    /// Columns of a row of queries and of what is stored.
    fn cols(&self) -> usize {
        match self.shape.values {
            Values::Own(_) => self.shape.qkv_cols(),
            Values::OfKeys(_) => (self.shape.n_heads + 1) * self.shape.d_head,
        }
    }

    /// Norms, rotates and stores rows; the queries, and all heads of the rows.
    fn prepare<B: Backend>(
        &self,
        backend: &mut B,
        grid: &[Vec<f32>],
        plan: &Plan,
        pages: &mut B::Pages,
    ) -> (B::Rows, Vec<Vec<f32>>) {
        let AttentionShape { n_heads, d_head, scale, .. } = self.shape;
        let Values::OfKeys(d_latent) = self.shape.values else {
            let mut rows = upload(backend, grid);
            self.preparation.run(backend, &self.shape, self.seed, plan, &mut rows, Some(pages));
            let heads = download(backend, &rows, grid.len());
            return (rows, heads);
        };
        // Queries that are latents already.
        let shape =
            LatentShape { n_heads, d_latent, d_nope: d_latent, d_rope: SHARED_KEY, d_value: d_latent, scale };
        let split: Vec<_> = grid.iter().map(|row| row.split_at(n_heads * d_head)).collect();
        let (queries, latents): (Vec<_>, Vec<_>) =
            split.into_iter().map(|(query, kept)| (query.to_vec(), kept.to_vec())).unzip();
        let (mut query, mut kept) = (upload(backend, &queries), upload(backend, &latents));
        let (_, pairing, magnitude) = self.preparation.rope.unwrap_or((1.0, Pairing::Neighbors, 1.0));
        let mut angles = backend.angles(&latent::some_rope(SHARED_KEY, pairing, magnitude));
        let norm = SomeNorm { kind: NormKind::RootMeanSquare, bias: false };
        let norm = norm.params(backend, d_latent, self.seed);
        backend.rotate_and_store_latents(&mut query, &mut kept, &shape, &norm, &mut angles, plan, pages);
        let mut heads = download(backend, &query, grid.len());
        for (row, kept) in heads.iter_mut().zip(download(backend, &kept, grid.len())) {
            row.extend(kept);
        }
        (query, heads)
    }

    /// The same sequences, none of which shares pages.
    pub(super) fn in_one_piece(&self) -> Self {
        Self { in_one_piece: true, ..self.clone() }
    }

    /// The row of a sequence's position; positions of the common head are the same in all.
    fn row(&self, fork: u64, position: usize) -> Vec<f32> {
        let owner = if position < self.head { 0 } else { fork + 1 };
        Noise::new(self.seed, 1000 * owner + position as u64 + 10).row(self.cols(), 1.0)
    }

    /// Attention of the forks' own rows, by fork; and the longest query and key that took part.
    fn run<B: Backend>(&self, backend: &mut B) -> (Vec<Vec<f32>>, [f64; 2]) {
        let mut run = Run {
            scenario: self,
            pages: backend.pages(&self.shape),
            table: PageTable::default(),
            longest: [0.0; 2],
        };
        let head = run.table.open();
        if !self.in_one_piece && self.head > 0 {
            run.pass(backend, &[(head, 0, self.head)]);
        }
        let sequences: Vec<SequenceId> = self
            .forks
            .iter()
            .map(|_| if self.in_one_piece { run.table.open() } else { run.table.fork(head) })
            .collect();
        if self.close_head {
            run.table.close(head);
        }
        let feeds = |len: &dyn Fn(usize) -> usize| -> Vec<(SequenceId, u64, usize)> {
            let each = sequences.iter().zip(&self.forks);
            each.map(|(&sequence, &(fork, own))| (sequence, fork, len(own))).collect()
        };
        let first = if self.in_one_piece { self.head } else { 0 };
        let mut outcome = run.pass(backend, &feeds(&|own| first + own));
        for (all, next) in outcome.iter_mut().zip(run.pass(backend, &feeds(&|_| 1))) {
            all.drain(..first * self.shape.n_heads * self.shape.d_value());
            all.extend(next);
        }
        (outcome, run.longest)
    }
}

/// A scenario under way.
struct Run<'a, B: Backend> {
    scenario: &'a Scenario,
    pages: B::Pages,
    table: PageTable,
    longest: [f64; 2],
}

impl<B: Backend> Run<'_, B> {
    /// Appends tokens to sequences, `(sequence, fork, tokens)`; what attention says, by sequence.
    fn pass(&mut self, backend: &mut B, feeds: &[(SequenceId, u64, usize)]) -> Vec<Vec<f32>> {
        let Self { scenario, pages, table, longest } = self;
        let AttentionShape { n_heads, n_kv_heads, d_head, .. } = scenario.shape;
        let (mut plan, mut qkv) = (Plan::default(), Vec::new());
        for &(sequence, fork, count) in feeds {
            let context = plan.next_context();
            for _ in 0..count {
                let position = table.len(sequence);
                qkv.push(scenario.row(fork, position as usize));
                let slot = table.append(sequence);
                plan.push_row(TokenId(0), position, 0, slot, context);
            }
            plan.push_context(table.chunks(sequence));
        }
        backend.reserve(pages, table.pages());
        let (rows, heads) = scenario.prepare(backend, &qkv, &plan, pages);
        for row in heads {
            for (head, numbers) in row.chunks(d_head).take(n_heads + n_kv_heads).enumerate() {
                let length = widened(numbers).iter().map(|it| it * it).sum::<f64>().sqrt();
                let kind = usize::from(head >= n_heads);
                longest[kind] = longest[kind].max(length);
            }
        }
        let sinks = Noise::new(scenario.seed, 3).row(n_heads, 3.0);
        let sinks = scenario.sinks.then(|| backend.vector(&sinks));
        let mut out = backend.rows(n_heads * scenario.shape.d_value());
        backend.attend(&rows, &scenario.shape, sinks.as_ref(), &plan, pages, &mut out);
        let mut found = download(backend, &out, qkv.len()).into_iter();
        feeds.iter().map(|feed| found.by_ref().take(feed.2).flatten().collect()).collect()
    }
}

impl Case for Scenario {
    fn parts(&self) -> usize {
        self.forks.len()
    }

    fn only(&self, part: usize) -> Self {
        Self { forks: vec![self.forks[part]], ..self.clone() }
    }

    fn outcome<B: Backend>(&self, backend: &mut B) -> Vec<Vec<f32>> {
        self.run(backend).0
    }

    /// Scores are off by d + 4 roundings of |q| |k| (Cauchy-Schwarz) and by the preparation of both, which norms
    /// and rotates within 40; that shifts weights by twice as much of themselves. The sum of weights and the
    /// weighted sum of up to n values, each at most 1, are off by one rounding for each position. Latents are normed: no
    /// number of theirs is larger than their length.
    fn tolerance(&self, exact: &[Vec<f32>]) -> Vec<Vec<f64>> {
        let (_, [query, key]) = self.run(&mut super::Reference::default());
        let roundings = self.shape.d_head as f64 + 4.0 + 2.0 * 40.0;
        let score = f64::from(self.shape.scale) * query * key * roundings * UNIT
            + self.shape.softcap.map_or(0.0, |cap| 8.0 * UNIT * f64::from(cap));
        let longest = self.forks.iter().map(|it| self.head + it.1 + 1).max().unwrap_or(0);
        let allowed = 2.0 * score + (longest as f64 + 32.0) * UNIT;
        let allowed = match self.shape.values {
            Values::Own(_) => allowed,
            Values::OfKeys(_) => allowed * key.max(1.0) + 40.0 * UNIT * key,
        };
        exact.iter().map(|it| vec![allowed; it.len()]).collect()
    }
}
