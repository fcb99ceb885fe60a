//! Tensors that no input has: what is written beside a model, an adapter for example.
//!
//! In the same formats as models, with the same promises: under another name first, read back, then renamed.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::gguf::{self, Layout};
use super::output::{Content, Meter};
use super::safetensors::{self, write_weights};
use super::side_files::write_file;
use super::staging::Staging;
use super::{Progress, Replacement, WriteError, Written};
use crate::TensorDtype;
use crate::gguf::StoredType;
use crate::hugging_face::Header;
use crate::mapped_file::MappedFile;

/// How new tensors are stored.
const DTYPE: TensorDtype = TensorDtype::F32;

/// The version of GGUF files that are written from nothing.
const GGUF_VERSION: u32 = 3;

/// Where tensors of such files are aligned, in bytes: what readers take where a file says nothing.
const GGUF_ALIGNMENT: u64 = 32;

/// A tensor of a new file; it is stored as F32.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, row-major.
    pub shape: Vec<usize>,
    /// As many numbers as the shape has places.
    pub numbers: Vec<f64>,
}

impl NewTensor {
    fn replacement(&self) -> Replacement<'_> {
        let row_len = self.shape.last().copied().unwrap_or(1);
        Replacement::new(self.shape.clone(), move |first, out| {
            out.copy_from_slice(&self.numbers[first * row_len..][..out.len()]);
        })
    }
}

/// A value of a new GGUF file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum NewValue {
    /// A text.
    Text(String),
    /// A number in single precision.
    F32(f32),
}

/// Writes a folder of one safetensors file and some texts, by their names, to a place where nothing is yet; it may also
/// take the place of an empty folder.
///
/// # Errors
/// As [`write_model`](super::write_model), of which it is a small sibling.
///
/// # Panics
/// When a tensor has fewer numbers than its shape has places.
pub fn write_new_folder(
    target: &Path,
    weights: &str,
    tensors: &[NewTensor],
    texts: &[(&str, String)],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let replacements: Vec<Replacement<'_>> = tensors.iter().map(NewTensor::replacement).collect();
    let planned = tensors.iter().zip(&replacements).map(|(tensor, replacement)| safetensors::Planned {
        name: &tensor.name,
        shape: &tensor.shape,
        dtype: DTYPE.name(),
        width: DTYPE.block().1,
        content: Content::Replaced { replacement, dtype: DTYPE },
    });
    let planned: Vec<safetensors::Planned<'_>> = planned.collect();
    let total = planned.iter().map(|it| it.content.size()).sum();
    let needed = total + texts.iter().map(|it| it.1.len() as u64).sum::<u64>();
    let staging = Staging::beside(target)?;
    staging.expect_space(needed)?;

    let folder = staging.path();
    fs::create_dir(folder).map_err(|problem| WriteError::io(folder, problem))?;
    let mut meter = Meter { progress: Progress { done: 0, total }, report: progress };
    let file = write_weights(&planned, folder.join(weights), &mut meter)?;
    check(&file, &planned)?;
    for (name, text) in texts {
        write_file(&folder.join(name), needed, |out| out.write_all(text.as_bytes()))?;
    }
    staging.keep()?;
    let names = std::iter::once(weights).chain(texts.iter().map(|it| it.0));
    let files = names.map(|it| target.join(it)).collect();
    Ok(Written { files, tensor_bytes: total, left_out: Vec::new(), links_out: Vec::new() })
}

/// Reads a safetensors file back and compares names, shapes and types.
fn check(path: &Path, planned: &[safetensors::Planned]) -> Result<(), WriteError> {
    let wrong = |what: String| WriteError::ReadBack { path: path.to_owned(), what };
    let file = MappedFile::open(path)?;
    let found = Header::parse(file.bytes()).map_err(|problem| wrong(problem.to_string()))?;
    if found.tensors.len() != planned.len() {
        return Err(wrong(format!("expected {} tensors, found {}", planned.len(), found.tensors.len())));
    }
    for (planned, found) in planned.iter().zip(&found.tensors) {
        let (expected, stored) = ((planned.name, planned.shape), (&*found.name, &*found.shape));
        if expected != stored || found.dtype().map(TensorDtype::name) != Some(planned.dtype) {
            return Err(wrong(format!("tensor {expected:?} is {found:?}")));
        }
    }
    Ok(())
}

/// Writes a GGUF file of metadata and tensors to a place where nothing is yet.
///
/// # Errors
/// As [`write_model`](super::write_model).
///
/// # Panics
/// When a tensor has fewer numbers than its shape has places.
pub fn write_new_gguf(
    target: &Path,
    metadata: &[(&str, NewValue)],
    tensors: &[NewTensor],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let replacements: Vec<Replacement<'_>> = tensors.iter().map(NewTensor::replacement).collect();
    let planned = tensors.iter().zip(&replacements).map(|(tensor, replacement)| gguf::Planned {
        name: &tensor.name,
        shape: &tensor.shape,
        kind: StoredType::Decoded(DTYPE).number(),
        content: Content::Replaced { replacement, dtype: DTYPE },
    });
    let entries: Vec<Vec<u8>> = metadata.iter().map(|(key, value)| entry(key, value)).collect();
    let layout = Layout {
        version: GGUF_VERSION,
        entries: entries.iter().map(Vec::as_slice).collect(),
        alignment: GGUF_ALIGNMENT,
        tensors: planned.collect(),
    };
    let as_read = |value: &NewValue| match value {
        NewValue::Text(text) => Value::from(text.as_str()),
        NewValue::F32(number) => Value::from(f64::from(*number)),
    };
    let expected: Map<String, Value> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), as_read(value))).collect();
    gguf::write_layout(&layout, &expected, target, progress)
}

/// An entry of the metadata: its key, the number of the type, the value.
fn entry(key: &str, value: &NewValue) -> Vec<u8> {
    const F32: u32 = 6;
    const STRING: u32 = 8;
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    let mut bytes = Vec::new();
    text(&mut bytes, key);
    match value {
        NewValue::F32(number) => {
            bytes.extend(F32.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        NewValue::Text(value) => {
            bytes.extend(STRING.to_le_bytes());
            text(&mut bytes, value);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<NewTensor> {
        let tensor = |name: &str, shape: &[usize]| {
            let count = shape.iter().product();
            let numbers = (0..count).map(|it: usize| it as f64 / 3.0).collect();
            NewTensor { name: name.to_owned(), shape: shape.to_vec(), numbers }
        };
        vec![tensor("b.up", &[5, 2]), tensor("a.down", &[2, 3]), tensor("b.length", &[5])]
    }

    fn quietly(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn expected(tensor: &NewTensor) -> Vec<f32> {
        tensor.numbers.iter().map(|&it| it as f32).collect()
    }

    #[test]
    fn a_folder_holds_the_tensors_rounded_to_f32_and_the_texts() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        let texts = [("config.json", "{}".to_owned()), ("README.md", "A card.\n".to_owned())];
        let written =
            write_new_folder(&target, "adapter.safetensors", &tensors(), &texts, &mut quietly).unwrap();
        assert_eq!(written.files.len(), 3);
        assert_eq!(written.tensor_bytes, 4 * (10 + 6 + 5));
        assert_eq!(fs::read_to_string(target.join("README.md")).unwrap(), "A card.\n");
        let bytes = fs::read(target.join("adapter.safetensors")).unwrap();
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.metadata["format"], "pt");
        for (found, tensor) in header.tensors.iter().zip(&tensors()) {
            assert_eq!((&found.name, &found.shape), (&tensor.name, &tensor.shape));
            let mut numbers = vec![0.0; tensor.numbers.len()];
            DTYPE.decode(&bytes[found.range.clone()], &mut numbers);
            assert_eq!(numbers, expected(tensor));
        }
        let again = write_new_folder(&target, "adapter.safetensors", &tensors(), &texts, &mut quietly);
        assert!(matches!(again, Err(WriteError::Exists { .. })));
    }

    #[test]
    fn a_gguf_file_holds_metadata_and_tensors_and_opens_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter.gguf");
        let metadata =
            [("general.type", NewValue::Text("adapter".to_owned())), ("a.number", NewValue::F32(0.1))];
        write_new_gguf(&target, &metadata, &tensors(), &mut quietly).unwrap();
        let checkpoint = crate::Checkpoint::open(&target).unwrap();
        assert_eq!(checkpoint.config()["general.type"], "adapter");
        assert_eq!(checkpoint.config()["a.number"], f64::from(0.1_f32));
        for tensor in tensors() {
            let found = checkpoint.tensor(&tensor.name).unwrap();
            assert_eq!(found.shape(), tensor.shape);
            assert_eq!(found.to_f32(), expected(&tensor));
        }
        let again = write_new_gguf(&target, &metadata, &tensors(), &mut quietly);
        assert!(matches!(again, Err(WriteError::Exists { .. })));
    }

    #[test]
    fn nothing_is_left_of_what_was_stopped_or_could_not_be_stored() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        let stop = &mut |_| ControlFlow::Break(());
        let stopped = write_new_folder(&target, "a.safetensors", &tensors(), &[], stop);
        assert!(matches!(stopped, Err(WriteError::Cancelled)));
        let mut beyond = tensors();
        beyond[0].numbers[3] = 1e39;
        let error = write_new_gguf(&target, &[], &beyond, &mut quietly).unwrap_err();
        let place =
            matches!(&error, WriteError::Unrepresentable { name, row: 1, column: 1, .. } if name == "b.up");
        assert!(place, "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
