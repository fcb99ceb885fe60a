//! Writing the model that parameters make: an ordinary checkpoint, in the format and the types of the original.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ablation::{Merged, Parameters};
use checkpoint::Format;
use checkpoint::write::{self, Replacement, Replacements};
use engine::WriterInfo;
use rayon::prelude::*;

use crate::candidates::{Stored, WriterEdit};
use crate::{Cancel, Event, Events, PipelineError, Session, Stage};

/// Where a model of this format goes: a folder, or for GGUF a file; of a folder that is named for a GGUF model, the
/// file in it that has the original's name.
pub fn target(session: &Session, wanted: &Path) -> PathBuf {
    let checkpoint = &session.model.checkpoint;
    match (checkpoint.format(), checkpoint.path().file_name()) {
        (Format::Gguf, Some(name)) if !is_gguf(wanted) => wanted.join(name),
        _ => wanted.to_owned(),
    }
}

/// Whether a path is that of a GGUF file, by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"))
}

/// Writes the model; see [`write::write_model`] for what is kept and what happens when it fails.
pub fn save(
    session: &mut Session,
    parameters: &Parameters,
    target: &Path,
    how: &write::Settings,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<write::Written, PipelineError> {
    session.find_directions(events, cancel)?;
    let (model, edits) = session.writer_edits(parameters)?;
    let stored: Vec<Stored<'_>> = edits.iter().map(|it| Stored(&it.info.weight)).collect();
    let replacements = replacements(&edits, &stored)?;
    to_disk("model", target, events, cancel, |progress| {
        write::write_model(&model.checkpoint, &replacements, target, how, progress)
    })
}

/// Has something written to the target, makes the folder around it, and tells how far it has come.
pub(crate) fn to_disk(
    what: &'static str,
    target: &Path,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
    write: impl FnOnce(
        &mut dyn FnMut(write::Progress) -> ControlFlow<()>,
    ) -> Result<write::Written, write::WriteError>,
) -> Result<write::Written, PipelineError> {
    if let Some(folder) = target.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })?;
    }
    let written = write(&mut |progress| {
        let mebibytes = |it: u64| (it >> 20) as usize;
        let (done, all) = (mebibytes(progress.done), mebibytes(progress.total));
        events(Event::Progress { stage: Stage::Saving, done, all, tokens: 0 });
        if cancel.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let written = match written {
        Err(write::WriteError::Cancelled) if cancel.requested() => {
            return Err(PipelineError::Interrupted);
        }
        other => other?,
    };
    events(Event::Saved { what, path: target.display().to_string() });
    Ok(written)
}

/// The new contents of all tensors that edited writers have a part in.
fn replacements<'a>(
    edits: &'a [WriterEdit<'_>],
    stored: &'a [Stored<'a>],
) -> Result<Replacements<'a>, PipelineError> {
    let mut by_tensor: BTreeMap<&str, Vec<Part<'a>>> = BTreeMap::new();
    for (edit, weight) in edits.iter().zip(stored) {
        let tensor = edit.info.weight.name();
        let merged = Merged::new(weight, &edit.target, edit.strength)
            .map_err(|source| PipelineError::Writer { tensor: tensor.to_owned(), source })?;
        by_tensor.entry(tensor).or_default().push(Part { info: edit.info, merged });
    }
    Ok(by_tensor.into_iter().map(|(name, parts)| (name.to_owned(), replacement(parts))).collect())
}

/// A writer of a tensor, edited.
struct Part<'a> {
    info: &'a WriterInfo,
    merged: Merged<'a, Stored<'a>>,
}

/// The new content of one tensor: all of it one writer's, or that of one expert after the other.
fn replacement(parts: Vec<Part<'_>>) -> Replacement<'_> {
    let weight = &parts[0].info.weight;
    let share = parts[0].info.share.clone();
    let (d_model, d_in) = (weight.rows(), weight.row_len());
    let experts = share.as_ref().and_then(|it| it.expert).map(|it| it.1);
    let transposed = share.is_some_and(|it| it.transposed);
    let (rows, row_len) = if transposed { (d_in, d_model) } else { (d_model, d_in) };
    let shape = experts.into_iter().chain([rows, row_len]).collect();
    // Of a tensor that lies the other way round: the expert at hand, one row of outputs after the other.
    let whole: RefCell<Option<(usize, Vec<f64>)>> = RefCell::new(None);
    Replacement::new(shape, move |first, out| {
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_len)) {
            let (expert, row) = (row / rows, row % rows);
            // All experts of a layer are edited or none: the parts are in their order and without gaps.
            let merged = &parts[expert].merged;
            if !transposed {
                merged.row_f64(row, out);
                continue;
            }
            let mut whole = whole.borrow_mut();
            if whole.as_ref().is_none_or(|it| it.0 != expert) {
                let mut numbers = vec![0.0; d_model * d_in];
                numbers
                    .par_chunks_exact_mut(d_in)
                    .enumerate()
                    .for_each(|(row, out)| merged.row_f64(row, out));
                *whole = Some((expert, numbers));
            }
            let numbers = &whole.as_ref().expect("it was made just now").1;
            for (out, outputs) in out.iter_mut().zip(numbers.chunks_exact(d_in)) {
                *out = outputs[row];
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use ablation::{RowNormalization, WriterFacts};
    use checkpoint::{Checkpoint, TensorDtype};
    use engine::backend::WeightDtype;
    use engine::{Answer, DtypeChoice, Engine, Generation, LoadOptions, Request};
    use glossary::{Direction, EditSet, TokenId};

    use super::*;

    /// Rounding the edited weights to f32 on one side, p, q and s on the other; a wrong expert moves whole digits.
    const RELATIVE: f32 = 2e-5;

    fn golden(name: &str) -> Checkpoint {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
        Checkpoint::open(&goldens.join(name)).unwrap()
    }

    fn load(checkpoint: &Checkpoint) -> Engine {
        let dtype = DtypeChoice::Fixed(WeightDtype::F32);
        let options = LoadOptions { dtype, threads: 1, ..LoadOptions::default() };
        Engine::load(checkpoint, &options, &mut |_, _| {}).unwrap()
    }

    /// A direction of its own for each writer.
    fn direction(width: usize, seed: usize) -> Direction {
        let component = |i: usize| ((i * i + 7 * seed * i + 3 * seed + 1) % 101) as f64 - 50.0;
        Direction::normalized(&(0..width).map(component).collect::<Vec<_>>()).unwrap()
    }

    fn edits(writers: &[WriterInfo], mode: RowNormalization) -> Vec<WriterEdit<'_>> {
        let mut edits = Vec::with_capacity(writers.len());
        for (index, info) in writers.iter().enumerate() {
            let facts = WriterFacts::of(&Stored(&info.weight), mode).unwrap();
            let r = direction(info.weight.rows(), index);
            let target = facts.targets(&Stored(&info.weight), &[&r], None).unwrap().remove(0);
            edits.push(WriterEdit { info, target, strength: 0.9 });
        }
        edits
    }

    fn answers(engine: &mut Engine, edit: usize) -> Vec<Answer> {
        let prompt = |i: u32| (0..3 + 5 * i).map(|j| TokenId((7 * i + 3 * j * j) % 60)).collect();
        let requests: Vec<Request> = (0..4).map(|it| Request { tokens: prompt(it), edit }).collect();
        let how =
            Generation { max_tokens: 4, top: 2, logits: true, residuals: true, ..Generation::default() };
        engine.generate(&requests, &how, &mut |_, _| false).unwrap()
    }

    fn expect_close(found: &[f32], expected: &[f32], place: &str) {
        let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let worst = found.iter().zip(expected).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(worst <= RELATIVE * largest, "{place}: off by {worst} of {largest}");
    }

    fn written_is_edited(name: &str) {
        written_is_edited_of(&golden(name), name);
    }

    /// Of writers that are written in f32, so that nothing is rounded on the way: what is not quantized keeps its type.
    fn written_is_edited_of(checkpoint: &Checkpoint, name: &str) {
        let mut engine = load(checkpoint);
        let in_f32 = |it: &&WriterInfo| it.weight.is_quantized() || it.weight.dtype() == TensorDtype::F32;
        let writers: Vec<WriterInfo> = engine.info().writers.iter().filter(in_f32).cloned().collect();
        assert!(!writers.is_empty(), "{name}");
        let original = answers(&mut engine, 0);
        for mode in [RowNormalization::None, RowNormalization::Full] {
            let edits = edits(&writers, mode);
            let set: EditSet =
                edits.iter().map(|it| (it.info.writer, it.target.edit(it.strength).unwrap())).collect();
            engine.set_edits(&[set]).unwrap();
            let edited = answers(&mut engine, 1);
            assert_ne!(edited, original, "{name}: the edit does something");
            let stored: Vec<Stored<'_>> = edits.iter().map(|it| Stored(&it.info.weight)).collect();
            let replacements = replacements(&edits, &stored).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let each = &mut |_| ControlFlow::Continue(());
            write::write_model(checkpoint, &replacements, &out, &write::Settings::default(), each).unwrap();
            let written = answers(&mut load(&Checkpoint::open(&out).unwrap()), 0);
            for (index, (found, expected)) in written.iter().zip(&edited).enumerate() {
                let place = format!("{name}, {mode:?}, prompt {index}");
                expect_close(&found.residuals, &expected.residuals, &place);
                let logits = |it: &Answer| it.first_token.as_ref().unwrap().logits.clone();
                expect_close(&logits(found), &logits(expected), &place);
                assert_eq!(found.tokens, expected.tokens, "{place}");
            }
        }
    }

    #[test]
    fn a_written_model_answers_as_the_edited_one_does() {
        written_is_edited("llama_gqa_tied");
    }

    #[test]
    fn experts_in_tensors_of_their_own_are_written_as_they_are_edited() {
        written_is_edited("mixtral");
    }

    #[test]
    fn experts_in_one_tensor_are_written_as_they_are_edited() {
        written_is_edited("mixtral_window");
    }

    #[test]
    fn experts_in_one_tensor_that_lies_the_other_way_round_are_written_as_they_are_edited() {
        written_is_edited("gpt_oss_plain");
    }

    #[test]
    fn a_quantized_model_is_written_as_an_ordinary_one_and_as_it_is_edited() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
        let all = std::fs::read_dir(goldens).unwrap().map(|it| it.unwrap().path());
        let quantized = |it: &PathBuf| {
            let name = it.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("quantized_") || name == "gpt_oss_blocks"
        };
        let mut seen = 0;
        for golden in all.filter(quantized) {
            seen += 1;
            // In f32, so that nothing is rounded on the way.
            let folder = tempfile::tempdir().unwrap();
            let config = std::fs::read_to_string(golden.join("config.json")).unwrap();
            std::fs::write(folder.path().join("config.json"), config.replace("bfloat16", "float32")).unwrap();
            let weights = "model.safetensors";
            std::fs::copy(golden.join(weights), folder.path().join(weights)).unwrap();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            written_is_edited_of(&checkpoint, &golden.file_name().unwrap().to_string_lossy());
        }
        assert!(seen >= 8, "{seen}");
    }
}
