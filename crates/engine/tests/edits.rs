//! Edits as functions of a writer's output against weights that were edited one by one in f64.
//!
//! The closed form (p, q, s) is computed here from the checkpoint's weights, and so is the edited matrix, from its
//! definition; the latter is written to the disk and loaded like any other model.

mod support;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use checkpoint::Checkpoint;
use engine::backend::cpu::Isa;
use engine::{Answer, Continuation, Device, Engine, EngineError, Generation, Request, WriterInfo};
use glossary::{Component, Edit, EditSet, LayerIndex, TokenId, Writer};
use safetensors::tensor::{Dtype, TensorView};
use support::{Golden, goldens, largest, largest_difference};

/// Rounding the edited weights to f32 on one side, p, q and s on the other, was seen to move residuals and logits
/// by up to 6e-6 of their largest value, and by 2.1e-5 where many blocks attend to the same keys and values.
const RELATIVE: f32 = 4e-5;

/// What a mistake must move at least, so that a test which finds no difference means something; the least seen
/// is 0.056.
const VISIBLE: f32 = 1e-2;

/// The same of an expert: it may be asked by a token or two, and a direction may happen to miss what it says of them.
const VISIBLE_OF_FEW: f32 = 3e-4;

const HOW: Generation =
    Generation { max_tokens: 8, stop_tokens: Vec::new(), batch: 128, top: 2, logits: true, residuals: true };

/// What becomes of the lengths of a weight matrix's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RowNormalization {
    None,
    Pre,
    Full,
}

const MODES: [RowNormalization; 3] = [RowNormalization::None, RowNormalization::Pre, RowNormalization::Full];

/// Numbers that look random: splitmix64.
struct Noise(u64);

impl Noise {
    /// A stream for a purpose and a checkpoint, whatever other checkpoints there are.
    fn of(golden: &Golden, purpose: u64) -> Self {
        Self(
            golden
                .name
                .bytes()
                .fold(purpose, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)),
        )
    }

    /// In −1..1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn unit(&mut self, width: usize) -> Vec<f64> {
        let v: Vec<f64> = (0..width).map(|_| self.next()).collect();
        let length = v.iter().map(|it| it * it).sum::<f64>().sqrt();
        v.into_iter().map(|it| it / length).collect()
    }
}

/// A writer's weights `[d_model, d_in]` in f64.
#[derive(Clone)]
struct Weights(Vec<Vec<f64>>);

impl Weights {
    fn row_lengths(&self) -> Vec<f64> {
        self.0.iter().map(|row| row.iter().map(|it| it * it).sum::<f64>().sqrt()).collect()
    }

    /// Rows multiplied with numbers.
    fn scaled(&self, by: &[f64]) -> Self {
        Self(self.0.iter().zip(by).map(|(row, by)| row.iter().map(|it| it * by).collect()).collect())
    }

    /// `Wᵀ r`
    fn project(&self, r: &[f64]) -> Vec<f64> {
        let mut sum = vec![0.0; self.0[0].len()];
        for (row, r) in self.0.iter().zip(r) {
            sum.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * r);
        }
        sum
    }

    /// `W − v aᵀ`
    fn minus(&self, v: &[f64], a: &[f64]) -> Self {
        let row = |(row, v): (&Vec<f64>, &f64)| row.iter().zip(a).map(|(w, a)| w - v * a).collect();
        Self(self.0.iter().zip(v).map(row).collect())
    }

    /// The edited matrix, by the definition of each mode.
    fn edited(&self, mode: RowNormalization, r: &[f64], strength: f64) -> Self {
        let lengths = self.row_lengths();
        let unit = self.scaled(&lengths.iter().map(|it| 1.0 / it).collect::<Vec<_>>());
        let times = |by: &[f64]| r.iter().zip(by).map(|(r, by)| strength * r * by).collect::<Vec<_>>();
        let ones = vec![1.0; r.len()];
        match mode {
            RowNormalization::None => self.minus(&times(&ones), &self.project(r)),
            RowNormalization::Pre => self.minus(&times(&lengths), &unit.project(r)),
            RowNormalization::Full => {
                let edited = unit.minus(&times(&ones), &unit.project(r));
                let again: Vec<f64> =
                    edited.row_lengths().iter().zip(&lengths).map(|(found, wanted)| wanted / found).collect();
                edited.scaled(&again)
            }
        }
    }

    /// The same edit as a function of the output.
    fn closed_form(&self, mode: RowNormalization, r: &[f64], strength: f64) -> Edit {
        let lengths = match mode {
            RowNormalization::None => vec![1.0; r.len()],
            RowNormalization::Pre | RowNormalization::Full => self.row_lengths(),
        };
        let p = r.iter().zip(&lengths).map(|(r, n)| (strength * r * n) as f32).collect();
        let q = r.iter().zip(&lengths).map(|(r, n)| (r / n) as f32).collect();
        let s = (mode == RowNormalization::Full).then(|| {
            let unit = self.scaled(&lengths.iter().map(|it| 1.0 / it).collect::<Vec<_>>());
            let a = unit.project(r);
            let square: f64 = a.iter().map(|it| it * it).sum();
            let u = unit.0.iter().map(|row| row.iter().zip(&a).map(|(w, a)| w * a).sum::<f64>());
            let scale = |(r, u): (&f64, f64)| 1.0 - 2.0 * strength * r * u + (strength * r).powi(2) * square;
            r.iter().zip(u).map(|it| (1.0 / scale(it).sqrt()) as f32).collect()
        });
        Edit::new(r.len(), p, q, s).unwrap()
    }
}

/// A golden checkpoint, its writers and their weights.
struct Subject {
    golden: Golden,
    checkpoint: Checkpoint,
    writers: Vec<WriterInfo>,
    requests: Vec<Request>,
}

impl Subject {
    fn all() -> Vec<Self> {
        goldens().into_iter().map(Self::new).collect()
    }

    fn new(golden: Golden) -> Self {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let writers = golden.engine(Device::Cpu).info().writers.clone();
        let requests = golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 1 }).collect();
        Self { golden, checkpoint, writers, requests }
    }

    fn weights(writer: &WriterInfo) -> Weights {
        let numbers = writer.weight.to_f32();
        Weights(
            numbers
                .chunks(writer.weight.row_len())
                .map(|it| it.iter().map(|&it| f64::from(it)).collect())
                .collect(),
        )
    }

    /// The answers of the loaded model under an edit set.
    fn under(&self, set: EditSet, device: Device) -> Vec<Answer> {
        let mut engine = self.golden.engine(device);
        engine.set_edits(&[set]).unwrap();
        engine.generate(&self.requests, &HOW, &mut |_, _| false).unwrap()
    }

    /// How far residuals and logits move when a writer is silenced and others are edited, at most 1: not at all for an
    /// expert that no token is sent to, and little for one that is chosen seldom.
    fn reach(&self, writer: &WriterInfo, others: &EditSet) -> f32 {
        let d_model = writer.weight.rows();
        let silent = Edit::new(d_model, Vec::new(), Vec::new(), Some(vec![0.0; d_model])).unwrap();
        let others = || others.iter().map(|(writer, edit)| (writer, edit.clone()));
        let silenced = self.under(others().chain([(writer.writer, silent)]).collect(), Device::Cpu);
        difference(&silenced, &self.under(others().collect(), Device::Cpu), d_model).0.min(1.0)
    }

    /// The answers of a model whose files hold other weights.
    fn rewritten(&self, weights: &HashMap<Writer, Weights>) -> Vec<Answer> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path(), weights);
        let requests: Vec<Request> =
            self.requests.iter().map(|it| Request { edit: 0, ..it.clone() }).collect();
        support::engine(folder.path(), Device::Cpu).generate(&requests, &HOW, &mut |_, _| false).unwrap()
    }

    fn write(&self, folder: &Path, weights: &HashMap<Writer, Weights>) {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .checkpoint
            .names()
            .map(|name| {
                let tensor = self.checkpoint.tensor(name).unwrap();
                let mut numbers = tensor.to_f32();
                for writer in self.writers.iter().filter(|it| it.weight.name() == name) {
                    if let Some(weights) = weights.get(&writer.writer) {
                        place(writer, weights, &mut numbers);
                    }
                }
                let bytes = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
                (name.to_owned(), tensor.shape().to_vec(), bytes)
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
        std::fs::copy(self.golden.folder.join("config.json"), folder.join("config.json")).unwrap();
    }

    /// A direction for each writer, and the same edit of all writers in both ways.
    fn both_ways(&self, mode: RowNormalization, strength: f64) -> (EditSet, HashMap<Writer, Weights>) {
        let mut noise = Noise(7);
        let mut set = EditSet::new();
        let mut weights = HashMap::new();
        for writer in &self.writers {
            let original = Subject::weights(writer);
            let r = noise.unit(original.0.len());
            set.insert(writer.writer, original.closed_form(mode, &r, strength));
            weights.insert(writer.writer, original.edited(mode, &r, strength));
        }
        (set, weights)
    }
}

/// Puts a writer's weights where they belong in a tensor.
fn place(writer: &WriterInfo, weights: &Weights, tensor: &mut [f32]) {
    let (rows, columns) = (writer.weight.rows(), writer.weight.row_len());
    let share = writer.share.as_ref();
    let expert = share.and_then(|it| it.expert).map_or(0, |it| it.0);
    let own = &mut tensor[expert * rows * columns..][..rows * columns];
    for (row, numbers) in weights.0.iter().enumerate() {
        for (column, number) in numbers.iter().enumerate() {
            let transposed = share.is_some_and(|it| it.transposed);
            own[if transposed { column * rows + row } else { row * columns + column }] = *number as f32;
        }
    }
}

/// The largest difference of residuals and logits, relative to the largest value of each site and of the logits,
/// and where it is.
fn difference(a: &[Answer], b: &[Answer], d_model: usize) -> (f32, String) {
    let mut worst = (0.0, String::from("nowhere"));
    let mut compare = |a: &[f32], b: &[f32], place: &dyn Fn() -> String| {
        let by = largest_difference(a, b).0 / largest(b);
        if by > worst.0 {
            worst = (by, place());
        }
    };
    for (prompt, (a, b)) in a.iter().zip(b).enumerate() {
        for (site, (a, b)) in a.residuals.chunks(d_model).zip(b.residuals.chunks(d_model)).enumerate() {
            compare(a, b, &|| format!("prompt {prompt}, site {site}"));
        }
        let (a, b) = (a.first_token.as_ref().unwrap(), b.first_token.as_ref().unwrap());
        compare(&a.logits, &b.logits, &|| format!("prompt {prompt}, logits"));
    }
    worst
}

fn width(engine: &Engine) -> usize {
    engine.info().d_model
}

#[test]
fn every_mode_at_several_strengths_is_the_model_with_explicitly_edited_weights() {
    for subject in Subject::all() {
        for mode in MODES {
            for strength in [0.35, 1.0, 1.5] {
                let (set, weights) = subject.both_ways(mode, strength);
                let d_model = weights.values().next().unwrap().0.len();
                let explicit = subject.rewritten(&weights);
                let devices: Vec<Device> = match strength {
                    1.0 => {
                        Isa::available().into_iter().map(Device::CpuWith).chain([Device::Reference]).collect()
                    }
                    _ => vec![Device::Cpu],
                };
                for device in devices {
                    let closed = subject.under(set.clone(), device);
                    let (by, place) = difference(&closed, &explicit, d_model);
                    let name = &subject.golden.name;
                    assert!(
                        by <= RELATIVE,
                        "{name}, {mode:?} {strength}, {device:?}: {place} differs by {by:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn each_writer_alone_changes_the_model_as_its_explicitly_edited_weights_do() {
    for subject in Subject::all() {
        let mut noise = Noise::of(&subject.golden, 3);
        let original = subject.under(EditSet::new(), Device::Cpu);
        for (index, writer) in subject.writers.iter().enumerate() {
            let weights = Subject::weights(writer);
            let r = noise.unit(weights.0.len());
            let mode = MODES[index % 3];
            let place = format!("{}, {}, {mode:?}", subject.golden.name, writer.writer);
            let set: EditSet = [(writer.writer, weights.closed_form(mode, &r, 1.0))].into_iter().collect();
            let closed = subject.under(set, Device::Cpu);
            let explicit =
                subject.rewritten(&HashMap::from([(writer.writer, weights.edited(mode, &r, 1.0))]));
            let (by, at) = difference(&closed, &explicit, r.len());
            assert!(by <= RELATIVE, "{place}: {at} differs by {by:e}");
            let (by, _) = difference(&closed, &original, r.len());
            let reach = subject.reach(writer, &EditSet::new());
            assert_eq!(reach == 0.0, by == 0.0, "{place}: an expert without tokens moves nothing");
            let visible = if writer.writer.expert.is_some() { VISIBLE_OF_FEW } else { VISIBLE };
            assert!(by >= visible * reach, "{place}: the edit moves nothing by more than {by:e}");
            // Nothing before the writer's block moves.
            let sites = (writer.writer.layer.0 + 1) * r.len();
            for (closed, original) in closed.iter().zip(&original) {
                assert_eq!(closed.residuals[..sites], original.residuals[..sites], "{place}: earlier sites");
            }
        }
    }
}

#[test]
fn a_flipped_sign_a_wrong_layer_or_a_forgotten_writer_is_seen() {
    for subject in Subject::all() {
        let (set, weights) = subject.both_ways(RowNormalization::Full, 1.0);
        let explicit = subject.rewritten(&weights);
        let flipped = set.iter().map(|(writer, edit)| {
            let p = edit.p().iter().map(|it| -it).collect();
            (writer, Edit::new(edit.width(), p, edit.q().to_vec(), edit.s().map(<[f32]>::to_vec)).unwrap())
        });
        let layers = subject.writers.last().unwrap().writer.layer.0 + 1;
        let there = |writer: &Writer| subject.writers.iter().any(|it| it.writer == *writer);
        let elsewhere = set.iter().map(|(writer, edit)| {
            (Writer { layer: LayerIndex((writer.layer.0 + 1) % layers), ..writer }, edit.clone())
        });
        let mut mistakes: Vec<(String, EditSet, f32)> = vec![
            ("flipped sign".to_owned(), flipped.collect(), VISIBLE),
            // Of a single layer the next one is itself.
            (
                "next layer".to_owned(),
                elsewhere.filter(|it| there(&it.0)).collect(),
                if layers > 1 { VISIBLE } else { 0.0 },
            ),
        ];
        for forgotten in &subject.writers {
            let rest = set.iter().filter(|it| it.0 != forgotten.writer).map(|it| (it.0, it.1.clone()));
            let rest: EditSet = rest.collect();
            let visible = if forgotten.writer.expert.is_some() { VISIBLE_OF_FEW } else { VISIBLE };
            let least = visible * subject.reach(forgotten, &rest);
            mistakes.push((format!("{} forgotten", forgotten.writer), rest, least));
        }
        for (mistake, set, least) in mistakes.into_iter().filter(|it| it.2 > 0.0) {
            // Where every block has another kind of writer than the next one there is nothing to mistake.
            let Some((_, edit)) = set.iter().next() else { continue };
            let d_model = edit.width();
            let (by, _) = difference(&subject.under(set, Device::Cpu), &explicit, d_model);
            let name = &subject.golden.name;
            assert!(by > least, "{name}, {mistake}: moves nothing by more than {by:e}");
        }
    }
}

#[test]
fn an_edit_of_two_directions_with_a_scale_is_the_model_with_explicitly_edited_weights() {
    let mut noise = Noise(11);
    for subject in Subject::all() {
        let mut set = EditSet::new();
        let mut explicit = HashMap::new();
        let mut d_model = 0;
        for writer in &subject.writers {
            let original = Subject::weights(writer);
            d_model = original.0.len();
            let vectors: Vec<Vec<f64>> = (0..4).map(|_| noise.unit(d_model)).collect();
            let s: Vec<f64> = (0..d_model).map(|_| 1.0 + 0.2 * noise.next()).collect();
            // W' = diag(s) (W − p₁ q₁ᵀ W − p₂ q₂ᵀ W)
            let edited = original
                .minus(&vectors[0], &original.project(&vectors[2]))
                .minus(&vectors[1], &original.project(&vectors[3]))
                .scaled(&s);
            explicit.insert(writer.writer, edited);
            let flat = |vectors: &[Vec<f64>]| vectors.iter().flatten().map(|&it| it as f32).collect();
            let s = s.iter().map(|&it| it as f32).collect();
            set.insert(
                writer.writer,
                Edit::new(d_model, flat(&vectors[..2]), flat(&vectors[2..]), Some(s)).unwrap(),
            );
        }
        let explicit = subject.rewritten(&explicit);
        for device in [Device::Cpu, Device::Reference] {
            let (by, place) = difference(&subject.under(set.clone(), device), &explicit, d_model);
            assert!(by <= RELATIVE, "{}, {device:?}: {place} differs by {by:e}", subject.golden.name);
        }
    }
}

/// Five candidates: all writers; one writer; every other one, in another mode; the last layers; the last writer.
fn candidates(subject: &Subject) -> Vec<EditSet> {
    let (all, _) = subject.both_ways(RowNormalization::Full, 1.0);
    let (pre, _) = subject.both_ways(RowNormalization::Pre, 0.6);
    let one = all.iter().take(1).map(|it| (it.0, it.1.clone())).collect();
    let every_other = pre.iter().step_by(2).map(|it| (it.0, it.1.clone())).collect();
    let from = |place: usize| all.iter().skip(place).map(|it| (it.0, it.1.clone())).collect();
    let (later, last) = (from(2), from(subject.writers.len() - 1));
    vec![all, one, every_other, later, last]
}

#[test]
fn candidates_in_one_batch_have_the_bits_of_a_run_with_one_of_them() {
    for subject in Subject::all() {
        let sets = candidates(&subject);
        // Prompts with a common head, so that it is shared within each candidate and between none.
        let mut prompts = subject.golden.prompts();
        let head = prompts.iter().max_by_key(|it| it.len()).unwrap().clone();
        let with_head = |last: u32| [&head[..], &[TokenId(last), TokenId(last + 1)]].concat();
        for shared in [false, true] {
            if shared {
                prompts = (3..8).map(with_head).collect();
            }
            let interleaved: Vec<Request> = prompts
                .iter()
                .flat_map(|tokens| (0..=sets.len()).map(|edit| Request { tokens: tokens.clone(), edit }))
                .collect();
            let mut engine = subject.golden.engine(Device::Cpu);
            engine.set_edits(&sets).unwrap();
            for batch in [5, 128] {
                let together =
                    engine.generate(&interleaved, &Generation { batch, ..HOW }, &mut |_, _| false).unwrap();
                for edit in 0..=sets.len() {
                    let mut engine = subject.golden.engine(Device::Cpu);
                    engine.set_edits(&sets[edit.saturating_sub(1)..edit]).unwrap();
                    let requests: Vec<Request> = prompts
                        .iter()
                        .map(|tokens| Request { tokens: tokens.clone(), edit: edit.min(1) })
                        .collect();
                    let alone = engine.generate(&requests, &HOW, &mut |_, _| false).unwrap();
                    for (prompt, alone) in alone.iter().enumerate() {
                        let found = &together[prompt * (sets.len() + 1) + edit];
                        let place = format!("{}, batch {batch}, edit {edit}", subject.golden.name);
                        assert!(found == alone, "{place}: prompt {prompt} differs, shared head: {shared}");
                    }
                }
            }
        }
    }
}

#[test]
fn candidates_share_what_comes_before_their_first_edits() {
    let subject = Subject::new(goldens().remove(0));
    let (all, _) = subject.both_ways(RowNormalization::Full, 1.0);
    let edited_from = |layer: usize| -> EditSet {
        all.iter().filter(|it| it.0.layer.0 >= layer).map(|it| (it.0, it.1.clone())).collect()
    };
    let mut engine = subject.golden.engine(Device::Cpu);
    assert_eq!(engine.info().n_layers, 3);
    // One candidate begins at layer 1, two at layer 2.
    engine.set_edits(&[edited_from(2), edited_from(1), edited_from(2)]).unwrap();
    let tokens: Vec<TokenId> = (0..20).map(|it| TokenId(it % 5 + 1)).collect();
    let requests = |edits: &[usize]| -> Vec<Request> {
        edits.iter().map(|&edit| Request { tokens: tokens.clone(), edit }).collect()
    };
    let mut cost = |edits: &[usize]| {
        let before = engine.block_rows();
        let prompts_only = Generation { max_tokens: 0, ..HOW };
        engine.generate(&requests(edits), &prompts_only, &mut |_, _| false).unwrap();
        engine.block_rows() - before
    };
    assert_eq!(cost(&[1]), 20 * 3);
    assert_eq!(cost(&[1, 2, 3]), 20 * (1 + 2 + 3));
    assert_eq!(cost(&[0, 1, 2, 3]), 20 * (1 + 2 + 4));
}

#[test]
fn forced_continuations_of_several_candidates_have_the_bits_of_a_run_with_one_of_them() {
    for subject in Subject::all() {
        let sets = candidates(&subject);
        let mut continuations = Vec::new();
        for (index, prompt) in subject.golden.prompts().into_iter().enumerate() {
            let continuation: Vec<TokenId> = (3..6 + index as u32).map(TokenId).collect();
            let request = Continuation { prompt, continuation, edit: 0 };
            continuations.extend((0..=sets.len()).map(|edit| Continuation { edit, ..request.clone() }));
        }
        let told = |engine: &mut Engine, requests: &[Continuation]| {
            let mut told = vec![Vec::new(); requests.len()];
            let visit = &mut |it: engine::Forced<'_>| {
                told[it.request].push((it.token, it.logit.to_bits(), it.logsumexp.to_bits(), it.choice));
            };
            engine.force(requests, false, visit).unwrap();
            told
        };
        let mut engine = subject.golden.engine(Device::Cpu);
        engine.set_edits(&sets).unwrap();
        let together = told(&mut engine, &continuations);
        assert_ne!(together[0], together[1], "the edits do something");
        for (index, request) in continuations.iter().enumerate() {
            engine.set_edits(&sets[request.edit.saturating_sub(1)..request.edit]).unwrap();
            let alone = told(&mut engine, &[Continuation { edit: request.edit.min(1), ..request.clone() }]);
            assert_eq!(alone[0], together[index], "{}, request {index}", subject.golden.name);
        }
    }
}

#[test]
fn continuations_are_visited_only_as_long_as_it_is_said_so_and_the_next_ones_are_as_ever() {
    let golden = goldens().remove(0);
    let mut engine = golden.engine(Device::Cpu);
    let tokens: Vec<TokenId> = (0..100).map(|it| TokenId(it % 20)).collect();
    let request =
        |first| Continuation { prompt: vec![TokenId(first)], continuation: tokens.clone(), edit: 0 };
    let requests: Vec<Continuation> = (0..20).map(request).collect();
    let whole = |engine: &mut Engine| {
        let mut bits = Vec::new();
        engine.force(&requests, true, &mut |it| bits.push(it.logit.to_bits())).unwrap();
        bits
    };
    let before = whole(&mut engine);
    assert_eq!(before.len(), 2000);
    for passes in 0..2_u32 {
        let (left, mut seen) = (Cell::new(passes), 0);
        let go_on = || left.replace(left.get().saturating_sub(1)) > 0;
        engine.force_while(&requests, true, &go_on, &mut |_| seen += 1).unwrap();
        assert!((passes == 0) == (seen == 0) && seen < before.len(), "{passes} passes: {seen}");
    }
    assert_eq!(whole(&mut engine), before);
}

#[test]
fn threads_that_no_machine_has_use_of_are_refused_with_how_many_are_allowed() {
    for threads in [10_000, usize::MAX] {
        let error = engine::check_threads(threads).unwrap_err().to_string();
        assert!(error.contains(&threads.to_string()) && error.contains("at most"), "{error}");
    }
    for threads in [0, 1, 64] {
        engine::check_threads(threads).unwrap();
    }
}

#[test]
fn an_edit_of_an_unknown_writer_is_refused_and_named() {
    let mut engine = goldens()[0].engine(Device::Cpu);
    let edit = Edit::new(width(&engine), Vec::new(), Vec::new(), None).unwrap();
    let fine: EditSet = [(engine.info().writers[0].writer, edit.clone())].into_iter().collect();
    let beyond = Writer::dense(LayerIndex(engine.info().n_layers), Component::MlpOutput);
    let expert = Writer { expert: Some(3), ..engine.info().writers[0].writer };
    for (writer, name) in [(beyond, "layer 3 mlp.down_proj"), (expert, "layer 0 attn.o_proj expert 3")] {
        let set: EditSet = [(writer, edit.clone())].into_iter().collect();
        let error = engine.set_edits(&[fine.clone(), set]).unwrap_err();
        assert_eq!(error, EngineError::UnknownWriter { set: 2, writer: name.to_owned() });
        assert_eq!(error.to_string(), format!("edit set 2: the model has no writer `{name}`"));
    }
}

#[test]
fn an_edit_of_another_width_is_refused_with_both_widths() {
    let mut engine = goldens()[0].engine(Device::Cpu);
    let (expected, writer) = (width(&engine), engine.info().writers[1].writer);
    let narrow = Edit::new(expected - 1, Vec::new(), Vec::new(), None).unwrap();
    let error = engine.set_edits(&[[(writer, narrow)].into_iter().collect()]).unwrap_err();
    let writer = writer.to_string();
    assert_eq!(error, EngineError::EditWidth { set: 1, writer, expected, found: expected - 1 });
}

#[test]
fn an_edit_index_that_was_not_set_is_refused_with_how_many_there_are() {
    let subject = Subject::new(goldens().remove(0));
    let mut engine = subject.golden.engine(Device::Cpu);
    let request = |edit: usize| Request { edit, ..subject.requests[0].clone() };
    let error = engine.generate(&[request(0), request(1)], &HOW, &mut |_, _| false).unwrap_err();
    assert_eq!(error, EngineError::UnknownEdit { request: 1, edit: 1, sets: 0 });
    engine.set_edits(&candidates(&subject)).unwrap();
    let error = engine.generate(&[request(6)], &HOW, &mut |_, _| false).unwrap_err();
    assert_eq!(error, EngineError::UnknownEdit { request: 0, edit: 6, sets: 5 });
    let tokens = subject.requests[0].tokens.clone();
    let forced = Continuation { prompt: tokens.clone(), continuation: tokens, edit: 9 };
    let error = engine.force(&[forced], false, &mut |_| {}).unwrap_err();
    assert_eq!(error, EngineError::UnknownEdit { request: 0, edit: 9, sets: 5 });
}

#[test]
fn refused_edits_leave_the_ones_before_in_place() {
    let subject = Subject::new(goldens().remove(0));
    let mut engine = subject.golden.engine(Device::Cpu);
    engine.set_edits(&candidates(&subject)).unwrap();
    let before = engine.generate(&subject.requests, &HOW, &mut |_, _| false).unwrap();
    let narrow = Edit::new(1, Vec::new(), Vec::new(), None).unwrap();
    engine.set_edits(&[[(subject.writers[0].writer, narrow)].into_iter().collect()]).unwrap_err();
    assert_eq!(engine.generate(&subject.requests, &HOW, &mut |_, _| false).unwrap(), before);
}
