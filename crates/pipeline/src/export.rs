//! Writing the model that parameters make: an ordinary checkpoint, in the format and the types of the original.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ablation::{Merged, Parameters};
use checkpoint::Format;
use checkpoint::write::{self, Replacement, Replacements};

use crate::candidates::Stored;
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
    let error = |tensor: &str, source| PipelineError::Writer { tensor: tensor.to_owned(), source };
    let stored: Vec<Stored<'_>> = edits.iter().map(|it| Stored(&it.info.weight)).collect();
    let mut replacements = Replacements::new();
    for (edit, weight) in edits.iter().zip(&stored) {
        let name = edit.info.weight.name();
        let merged = Merged::new(weight, &edit.target, edit.strength).map_err(|it| error(name, it))?;
        let d_in = edit.info.weight.row_len();
        let fill = move |first: usize, out: &mut [f64]| {
            for (row, out) in out.chunks_exact_mut(d_in).enumerate() {
                merged.row_f64(first + row, out);
            }
        };
        replacements.insert(name.to_owned(), Replacement::new(edit.info.weight.shape().to_vec(), fill));
    }
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
        events(Event::Progress { stage: Stage::Saving, done, all });
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
