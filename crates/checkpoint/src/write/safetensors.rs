//! A Hugging Face folder.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::output::{Content, Meter, Output};
use super::replacement::stored_as;
use super::side_files::{MODEL_CARD, SideFiles, write_file};
use super::staging::Staging;
use super::{Dequantized, Progress, Replacements, Settings, WriteError, Written, dequantized};
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
    let others = dequantized::others(checkpoint, replacements);
    let planned = plan(checkpoint, replacements, &others)?;
    let expected = facts(&planned);
    let total = planned.iter().map(|it| it.content.size()).sum();
    let shards = shards(planned, settings.max_shard_size.bytes());
    // Before there is anything of ours that could be found.
    let side_files = SideFiles::of(checkpoint.path(), dequantized::side_files(checkpoint))?;
    let config = dequantized::config(checkpoint)?;
    let staging = Staging::beside(target)?;
    let needed = total + side_files.bytes;
    staging.expect_space(needed)?;

    let folder = staging.path();
    fs::create_dir(folder).map_err(|problem| WriteError::io(folder, problem))?;
    let mut written =
        Written { files: Vec::new(), tensor_bytes: total, left_out: Vec::new(), links_out: Vec::new() };
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
    let card = settings.model_card.as_deref().map(|it| (MODEL_CARD, it));
    let config = config.as_deref().map(|it| (dequantized::CONFIG, it));
    let texts: Vec<(&str, &str)> = card.into_iter().chain(config).collect();
    side_files.copy(checkpoint.path(), folder, &texts, needed, &mut written)?;
    check(&expected, folder)?;
    // What the tensors were read from was not left out, but written anew.
    let read: HashSet<&Path> = checkpoint.weight_files().into_iter().collect();
    written.left_out.retain(|it| !read.contains(&**it) && *it != checkpoint.path().join(INDEX));
    let renamed = written.files.iter().map(|it| target.join(it.strip_prefix(folder).unwrap_or(it))).collect();
    staging.keep()?;
    Ok(Written { files: renamed, ..written })
}

fn plan<'a>(
    checkpoint: &'a Checkpoint,
    replacements: &'a Replacements,
    others: &'a Replacements,
) -> Result<Vec<Planned<'a>>, WriteError> {
    let planned = checkpoint.entries().iter().map(|entry| {
        let replacement = replacements.get(&*entry.name).or_else(|| others.get(&*entry.name));
        let content = match (replacement, &entry.dtype) {
            (Some(replacement), Ok(dtype)) => {
                let dtype = if entry.quantized {
                    dequantized::dtype(checkpoint, entry)
                } else {
                    // Safetensors files hold no types in blocks, so the second choice is never made.
                    stored_as(&entry.name, entry.adapted.unwrap_or(*dtype), Dequantized::default())?
                };
                Content::Replaced { replacement, dtype }
            }
            _ => Content::Copied { file: &entry.file, range: entry.range.clone() },
        };
        let (dtype, width) = match (&content, &entry.dtype) {
            (Content::Replaced { dtype, .. }, _) | (_, Ok(dtype)) => (dtype.name(), dtype.block().1),
            (_, Err(name)) => (&**name, if name == "C64" { 8 } else { 1 }), // floats of 4 and 6 bits
        };
        Ok(Planned { name: &entry.name, shape: &entry.shape, dtype, width, content })
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

/// Shape and type of each tensor.
type Facts = BTreeMap<String, (Vec<usize>, String)>;

fn facts(planned: &[Planned<'_>]) -> Facts {
    planned.iter().map(|it| (it.name.to_owned(), (it.shape.to_vec(), it.dtype.to_owned()))).collect()
}

/// Opens what was written and compares names, shapes and types with what was planned.
fn check(expected: &Facts, folder: &Path) -> Result<(), WriteError> {
    let written = Checkpoint::open(folder)?;
    let dtype = |it: &Entry| it.dtype.as_ref().map_or_else(Clone::clone, ToString::to_string);
    let found: Facts =
        written.entries().iter().map(|it| (it.name.to_string(), (it.shape.clone(), dtype(it)))).collect();
    if *expected == found {
        return Ok(());
    }
    let differs = |name: &&String| expected.get(*name) != found.get(*name);
    let name = expected.keys().chain(found.keys()).find(differs).cloned().unwrap_or_default();
    let what = format!("tensor `{name}`: expected {:?}, found {:?}", expected.get(&name), found.get(&name));
    Err(WriteError::ReadBack { path: folder.to_owned(), what })
}
