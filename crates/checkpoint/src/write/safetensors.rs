//! A Hugging Face folder.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::output::{Content, Meter, Output};
use super::replacement::stored_as;
use super::side_files::{SideFiles, write_file};
use super::staging::Staging;
use super::{Dequantized, Progress, Replacements, Settings, WriteError, Written};
use crate::Checkpoint;
use crate::checkpoint::Entry;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A tensor of the output.
pub(super) struct Planned<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    /// The name of its type.
    pub(super) dtype: &'a str,
    /// How many bytes one number takes.
    pub(super) width: usize,
    pub(super) content: Content<'a>,
}

pub(super) fn write(
    checkpoint: &Checkpoint,
    replacements: &Replacements,
    target: &Path,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let planned = plan(checkpoint, replacements)?;
    let total = planned.iter().map(|it| it.content.size()).sum();
    let shards = shards(planned, settings.max_shard_size.bytes());
    // Before there is anything of ours that could be found.
    let side_files = SideFiles::of(checkpoint.path())?;
    let staging = Staging::beside(target)?;
    let needed = total + side_files.bytes;
    staging.expect_space(needed)?;

    let folder = staging.path();
    fs::create_dir(folder).map_err(|problem| WriteError::io(folder, problem))?;
    let mut written = Written { files: Vec::new(), tensor_bytes: total, left_out: Vec::new() };
    let mut meter = Meter { progress: Progress { done: 0, total }, report: progress };
    let names = shard_names(shards.len());
    for (shard, name) in shards.iter().zip(&names) {
        written.files.push(write_weights(shard, folder.join(name), &mut meter)?);
    }
    if shards.len() > 1 {
        let path = folder.join(INDEX);
        let text = index(&shards, &names, total);
        write_file(&path, needed, |out| out.write_all(text.as_bytes()))?;
        written.files.push(path);
    }
    side_files.copy(checkpoint.path(), folder, settings.model_card.as_deref(), needed, &mut written)?;
    check(checkpoint, folder)?;
    // What the tensors were read from was not left out, but written anew.
    let read: HashSet<&Path> = checkpoint.entries().iter().map(|it| it.file.path()).collect();
    written.left_out.retain(|it| !read.contains(&**it) && *it != checkpoint.path().join(INDEX));
    let renamed = written.files.iter().map(|it| target.join(it.strip_prefix(folder).unwrap_or(it))).collect();
    staging.keep()?;
    Ok(Written { files: renamed, ..written })
}

fn plan<'a>(
    checkpoint: &'a Checkpoint,
    replacements: &'a Replacements,
) -> Result<Vec<Planned<'a>>, WriteError> {
    let planned = checkpoint.entries().iter().map(|entry| {
        let content = match (replacements.get(&*entry.name), &entry.dtype) {
            (Some(replacement), Ok(dtype)) => {
                // Safetensors files hold no quantized types, so the second choice is never made.
                let dtype = stored_as(&entry.name, *dtype, Dequantized::default())?;
                Content::Replaced { replacement, dtype }
            }
            _ => Content::Copied { file: &entry.file, range: entry.range.clone() },
        };
        let dtype = entry.dtype.as_ref().map_or_else(String::as_str, |it| it.name());
        Ok(Planned { name: &entry.name, shape: &entry.shape, dtype, width: width(entry), content })
    });
    planned.collect()
}

/// Fills files in the order of the tensors; each has at least one tensor, and the only one of none is empty.
fn shards(planned: Vec<Planned<'_>>, most: u64) -> Vec<Vec<Planned<'_>>> {
    let (mut shards, mut size) = (vec![Vec::new()], 0_u64);
    for tensor in planned {
        let bytes = tensor.content.size();
        if size + bytes > most && shards.last().is_some_and(|it| !it.is_empty()) {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        shards.last_mut().expect("there is always a last one").push(tensor);
    }
    for shard in &mut shards {
        // Widest numbers first, so that all lie at multiples of their size: readers that map a file may rely on it.
        shard.sort_by_key(|it| std::cmp::Reverse(it.width));
    }
    shards
}

/// How many bytes one number takes.
fn width(entry: &Entry) -> usize {
    match &entry.dtype {
        Ok(dtype) => dtype.block().1,
        Err(name) if name == "C64" => 8,
        Err(_) => 1, // the floats of 4 and 6 bits
    }
}

fn shard_names(count: usize) -> Vec<String> {
    if count == 1 {
        return vec![SINGLE.to_owned()];
    }
    (1..=count).map(|no| format!("model-{no:05}-of-{count:05}.safetensors")).collect()
}

/// One file.
pub(super) fn write_weights(
    tensors: &[Planned],
    path: PathBuf,
    meter: &mut Meter,
) -> Result<PathBuf, WriteError> {
    let header = header(tensors);
    let mut output = Output::create(path, meter)?;
    output.write(&(header.len() as u64).to_le_bytes())?;
    output.write(header.as_bytes())?;
    for tensor in tensors {
        output.tensor(tensor.name, &tensor.content)?;
    }
    output.finish()
}

/// The header, padded with spaces so that the data starts at a multiple of 8.
fn header(tensors: &[Planned]) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for Planned { name, shape, dtype, content, .. } in tensors {
        let end = start + content.size();
        let facts = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        entries.insert((*name).to_owned(), facts);
        start = end;
    }
    let mut header = Value::Object(entries).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header
}

fn index(shards: &[Vec<Planned>], names: &[String], total: u64) -> String {
    let places =
        shards.iter().zip(names).flat_map(|(shard, name)| shard.iter().map(move |it| (it.name, name)));
    let weight_map: BTreeMap<&str, &String> = places.collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    format!("{index:#}\n")
}

/// Opens what was written and compares names, shapes and types with the input.
fn check(checkpoint: &Checkpoint, folder: &Path) -> Result<(), WriteError> {
    let written = Checkpoint::open(folder)?;
    let facts = |it: &Checkpoint| -> BTreeMap<String, (Vec<usize>, Result<crate::TensorDtype, String>)> {
        it.entries().iter().map(|it| (it.name.to_string(), (it.shape.clone(), it.dtype.clone()))).collect()
    };
    let (expected, found) = (facts(checkpoint), facts(&written));
    if expected == found {
        return Ok(());
    }
    let differs = |name: &&String| expected.get(*name) != found.get(*name);
    let name = expected.keys().chain(found.keys()).find(differs).cloned().unwrap_or_default();
    let what = format!("tensor `{name}`: expected {:?}, found {:?}", expected.get(&name), found.get(&name));
    Err(WriteError::ReadBack { path: folder.to_owned(), what })
}
