//! A GGUF file.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::output::{Content, Meter, Output};
use super::replacement::stored_as;
use super::staging::Staging;
use super::{Progress, Replacements, Settings, WriteError, Written, dequantized};
use crate::gguf::{self, Header, StoredType};
use crate::mapped_file::MappedFile;
use crate::{Checkpoint, CheckpointError};

/// Keys that say which part of a split file this is. One file is written, whatever was read.
const PART_KEYS: &str = "split.";

/// A tensor of the output.
pub(super) struct Planned<'a> {
    pub(super) name: &'a str,
    /// Row-major.
    pub(super) shape: &'a [usize],
    /// The number of the type.
    pub(super) kind: u32,
    pub(super) content: Content<'a>,
}

/// What a file is made of.
pub(super) struct Layout<'a> {
    pub(super) version: u32,
    /// Key, type and value of each entry of the metadata, as in the file.
    pub(super) entries: Vec<&'a [u8]>,
    pub(super) alignment: u64,
    pub(super) tensors: Vec<Planned<'a>>,
}

pub(super) fn write(
    checkpoint: &Checkpoint,
    replacements: &Replacements,
    target: &Path,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let parts = gguf::parts::read(checkpoint.path())?;
    let (first, first_header) = parts.first().expect("a file has at least one part");
    let mut planned = Vec::new();
    let others = dequantized::others(checkpoint, replacements);
    for (file, header) in &parts {
        plan(file, header, [replacements, &others], settings, &mut planned)?;
    }
    let malformed =
        |problem| WriteError::Checkpoint(CheckpointError::Gguf { path: first.path().to_owned(), problem });
    let entries = gguf::entry_ranges(first.bytes()).map_err(malformed)?;
    let kept = entries.into_iter().filter(|(key, _)| !key.starts_with(PART_KEYS));
    let layout = Layout {
        version: first_header.version,
        entries: kept.map(|(_, range)| &first.bytes()[range]).collect(),
        alignment: first_header.alignment,
        tensors: planned,
    };
    let mut metadata = first_header.metadata.clone();
    metadata.retain(|key, _| !key.starts_with(PART_KEYS));
    write_layout(&layout, &metadata, target, progress)
}

/// Writes a file where nothing is yet. `metadata`: the values of its entries, as they are expected to be read back.
pub(super) fn write_layout(
    layout: &Layout,
    metadata: &Map<String, Value>,
    target: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    // Unlike a folder, a file does not take the place of an empty folder.
    if target.symlink_metadata().is_ok() {
        return Err(WriteError::Exists { path: target.to_owned() });
    }
    let start = header(layout);
    let total = layout.tensors.iter().map(|it| it.content.size()).sum();
    let staging = Staging::beside(target)?;
    staging.expect_space(total + start.len() as u64)?;

    let mut meter = Meter { progress: Progress { done: 0, total }, report: progress };
    let mut output = Output::create(staging.path().to_owned(), &mut meter)?;
    output.write(&start)?;
    for tensor in &layout.tensors {
        output.tensor(tensor.name, &tensor.content)?;
        let padding = padded(tensor.content.size(), layout.alignment) - tensor.content.size();
        output.write(&vec![0; padding as usize])?;
    }
    output.finish()?;
    check(staging.path(), metadata, &layout.tensors)?;
    staging.keep()?;
    let files = vec![target.to_owned()];
    Ok(Written { files, tensor_bytes: total, left_out: Vec::new(), links_out: Vec::new() })
}

fn plan<'a>(
    file: &'a Arc<MappedFile>,
    header: &'a Header,
    replacements: [&'a Replacements; 2],
    settings: &Settings,
    planned: &mut Vec<Planned<'a>>,
) -> Result<(), WriteError> {
    for tensor in &header.tensors {
        let replacement = replacements.into_iter().find_map(|it| it.get(&tensor.name));
        let (kind, content) = match (replacement, tensor.stored) {
            (Some(replacement), StoredType::Decoded(dtype)) => {
                let dtype = stored_as(&tensor.name, dtype, settings.dequantized)?;
                (StoredType::Decoded(dtype), Content::Replaced { replacement, dtype })
            }
            (_, stored) => {
                let range = match stored {
                    StoredType::Decoded(_) => tensor.range.clone(),
                    StoredType::Other(_) => range_of_unknown_size(tensor.range.start, file, header),
                };
                (stored, Content::Copied { file, range })
            }
        };
        let (name, shape) = (&tensor.name, &tensor.shape);
        planned.push(Planned { name, shape, kind: kind.number(), content });
    }
    Ok(())
}

/// Where a tensor lies whose type is not known here, and so not its size: up to the next one. That may take in padding,
/// which does no harm behind it.
fn range_of_unknown_size(start: usize, file: &MappedFile, header: &Header) -> Range<usize> {
    let others = header.tensors.iter().map(|it| it.range.start).filter(|&it| it > start);
    start..others.min().unwrap_or(file.bytes().len())
}

/// Everything before the tensor data: the metadata, and the places of the tensors.
fn header(layout: &Layout) -> Vec<u8> {
    let Layout { version, entries, alignment, tensors } = layout;
    let mut header = gguf::MAGIC.to_vec();
    header.extend(version.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend(entries.concat());
    let mut offset = 0_u64;
    for tensor in tensors {
        header.extend((tensor.name.len() as u64).to_le_bytes());
        header.extend(tensor.name.as_bytes());
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        header.extend(tensor.shape.iter().rev().flat_map(|&it| (it as u64).to_le_bytes()));
        header.extend(tensor.kind.to_le_bytes());
        header.extend(offset.to_le_bytes());
        // Sizes are those of mapped files, or at most 16 times as many: far from the end of 64 bits.
        offset += padded(tensor.content.size(), *alignment);
    }
    let padding = padded(header.len() as u64, *alignment) as usize;
    header.resize(padding, 0);
    header
}

fn padded(size: u64, alignment: u64) -> u64 {
    size.next_multiple_of(alignment)
}

/// Opens what was written and compares metadata and tensors with what was planned.
fn check(path: &Path, metadata: &Map<String, Value>, planned: &[Planned]) -> Result<(), WriteError> {
    let file = MappedFile::open(path)?;
    let wrong = |what: String| Err(WriteError::ReadBack { path: path.to_owned(), what });
    let found = match Header::parse(file.bytes()) {
        Ok(found) => found,
        Err(problem) => return wrong(problem.to_string()),
    };
    if *metadata != found.metadata {
        return wrong("its metadata differ from what was to be written".to_owned());
    }
    if planned.len() != found.tensors.len() {
        return wrong(format!("expected {} tensors, found {}", planned.len(), found.tensors.len()));
    }
    for (planned, found) in planned.iter().zip(&found.tensors) {
        let expected = (planned.name, planned.shape, planned.kind);
        let found = (&*found.name, &*found.shape, found.stored.number());
        if expected != found {
            return wrong(format!("tensor {expected:?} is {found:?}"));
        }
    }
    Ok(())
}
