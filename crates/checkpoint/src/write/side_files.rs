//! What lies beside the weights in a folder and makes it a model: configuration, tokenizer, templates, licence, code.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::output::failed;
use super::staging::sync_folder;
use super::{WriteError, Written};
use crate::CheckpointError;
use crate::adapter::FILES;
use crate::links::way_out;

/// Endings of files of weights: those that are written anew, and those that would still hold the original model.
const WEIGHTS: [&str; 10] =
    ["safetensors", "gguf", "bin", "pth", "pt", "ckpt", "h5", "msgpack", "ot", "onnx"];

pub(super) const MODEL_CARD: &str = "README.md";

/// The folder that tells how the input was made: of what is written it would tell lies.
const REPRODUCTION: &str = "reproduce";

/// The files of an input folder, as paths within it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SideFiles {
    copied: Vec<PathBuf>,
    left_out: Vec<PathBuf>,
    /// Links that leave the folder, and where they lead.
    links_out: Vec<(PathBuf, PathBuf)>,
    /// What `copied` takes, in bytes.
    pub(super) bytes: u64,
}

impl SideFiles {
    /// Finds them, in the order of their names. Folders whose name starts with a dot (`.git`, `.cache`) are the tools',
    /// not the model's. Links to files of the folder are followed, and those of the hub's cache; links that leave the
    /// folder are not (`links.rs` says why), nor are links to folders.
    ///
    /// `without`: names of files of the folder that are not to be copied.
    pub(super) fn of(folder: &Path, without: &[&str]) -> Result<Self, WriteError> {
        let mut found = Self::default();
        found.search(folder, Path::new(""))?;
        let (left_out, copied) =
            found.copied.into_iter().partition(|it| without.iter().any(|name| it == Path::new(name)));
        found.copied = copied;
        found.left_out.extend::<Vec<PathBuf>>(left_out);
        Ok(found)
    }

    fn search(&mut self, root: &Path, within: &Path) -> Result<(), WriteError> {
        let folder = root.join(within);
        let io = |problem| WriteError::Checkpoint(CheckpointError::Io { path: folder.clone(), problem });
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            names.push((entry.file_name(), entry.file_type().map_err(io)?.is_dir()));
        }
        names.sort();
        for (name, is_folder) in names {
            let path = within.join(&name);
            if is_folder {
                if path == Path::new(REPRODUCTION) {
                    self.left_out.push(path);
                } else if !name.to_string_lossy().starts_with('.') {
                    self.search(root, &path)?;
                }
                continue;
            }
            // A link that leads nowhere is an error: a model without that file would be another one.
            let io =
                |problem| WriteError::Checkpoint(CheckpointError::Io { path: root.join(&path), problem });
            let facts = fs::metadata(root.join(&path)).map_err(io)?;
            if facts.is_file() && is_weights(&path) {
                self.left_out.push(path);
            } else if facts.is_file() && FILES.iter().any(|it| path == Path::new(it)) {
                // Of an adapter: what it changes is in the weights that are written, and half of it would break the model.
                self.left_out.push(path);
            } else if let Some(target) = way_out(root, &root.join(&path)).map_err(io)? {
                self.links_out.push((path, target));
            } else if facts.is_file() {
                self.bytes += facts.len();
                self.copied.push(path);
            } else {
                self.left_out.push(path);
            }
        }
        Ok(())
    }

    /// Copies them; some have other texts, and what is not there is added.
    pub(super) fn copy(
        self,
        from: &Path,
        to: &Path,
        texts: &[(&str, &str)],
        needed: u64,
        written: &mut Written,
    ) -> Result<(), WriteError> {
        for file in self.copied {
            if texts.iter().any(|it| file == Path::new(it.0)) {
                continue;
            }
            let (source, copy) = (from.join(&file), to.join(&file));
            if let Some(folder) = copy.parent().filter(|it| *it != to) {
                fs::create_dir_all(folder).map_err(|problem| WriteError::io(folder, problem))?;
            }
            let mut source_file = File::open(&source)
                .map_err(|problem| WriteError::Checkpoint(CheckpointError::Io { path: source, problem }))?;
            write_file(&copy, needed, |out| io::copy(&mut source_file, out).map(drop))?;
            if let Some(folder) = copy.parent().filter(|it| *it != to) {
                sync_folder(folder)?;
            }
            written.files.push(copy);
        }
        for (name, text) in texts {
            let path = to.join(name);
            write_file(&path, needed, |out| out.write_all(text.as_bytes()))?;
            written.files.push(path);
        }
        written.left_out.extend(self.left_out.into_iter().map(|it| from.join(it)));
        written.links_out.extend(self.links_out.into_iter().map(|it| (from.join(it.0), it.1)));
        Ok(())
    }
}

/// A small file, synced.
pub(super) fn write_file(
    path: &Path,
    needed: u64,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    let mut file = File::create_new(path).map_err(|problem| WriteError::io(path, problem))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(|problem| failed(path, problem, needed))
}

/// Whether a file holds weights, or says which file holds which: `model.safetensors.index.json`.
fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".index.json").unwrap_or(&name);
    name.rsplit_once('.').is_some_and(|(_, ending)| WEIGHTS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_their_indexes_are_told_from_what_belongs_to_the_model() {
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "original/consolidated.00.pth",
            "Model.GGUF",
        ] {
            assert!(is_weights(Path::new(name)), "{name}");
        }
        for name in [
            "config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "LICENSE",
            "modeling_x.py",
            "index.json",
            ".gitattributes",
        ] {
            assert!(!is_weights(Path::new(name)), "{name}");
        }
    }
}
