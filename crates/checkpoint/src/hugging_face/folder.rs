//! Which files of a folder hold its weights, and which tensor lies where.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::header::{Header, TensorInfo};
use crate::checkpoint::Entry;
use crate::json::{read_object, read_object_of_weights, unexpected};
use crate::mapped_file::MappedFile;
use crate::{CheckpointError, Tensor, adapter, foreign};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A safetensors file and, of its tensors, those that count.
type Shard = (Arc<MappedFile>, Header);

/// The weights of a folder.
pub(crate) struct Weights {
    pub(crate) shards: Vec<Shard>,
    /// Tensors that the index names and no file has, each with the file that should have it.
    pub(crate) absent: BTreeMap<String, PathBuf>,
}

/// `config.json`, which makes a folder a model.
pub(crate) fn read_config(folder: &Path) -> Result<Value, CheckpointError> {
    if let Some(config) = read_object(&folder.join("config.json"))? {
        return Ok(Value::Object(config));
    }
    let gguf = files_with_extension(folder, "gguf")?;
    let hint = match gguf.first() {
        Some(file) => format!("name the GGUF file itself: `{}`", file.display()),
        None => "name the folder that holds the model's `config.json`, or a `.gguf` file".to_owned(),
    };
    Err(CheckpointError::NotACheckpoint {
        path: folder.to_owned(),
        found: "a folder without `config.json`".to_owned(),
        hint,
    })
}

/// Finds, maps and checks the safetensors files of a folder.
///
/// As the Python stack does: `model.safetensors`, else the shards of the index, else the only `*.safetensors`.
///
/// With an index, a tensor that several shards have is read from the one that it names. A tensor that no entry names is
/// still part of the checkpoint, so that a copy loses nothing. One that is in no shard is [`Weights::absent`]: tools that
/// remove tensors forget the index, and whether the model needs it is not known here.
pub(crate) fn read_weights(folder: &Path) -> Result<Weights, CheckpointError> {
    let whole = |shard| Weights { shards: vec![shard], absent: BTreeMap::new() };
    let single = folder.join(SINGLE);
    if single.exists() {
        return read_shard(&single).map(whole);
    }
    let index = folder.join(INDEX);
    if let Some(object) = read_object_of_weights(&index)? {
        return read_sharded(folder, &index, &weight_map(&index, object.get("weight_map"))?);
    }
    let mut found = files_with_extension(folder, "safetensors")?;
    // The weights of an adapter beside those of the model.
    found.retain(|it| !it.file_name().is_some_and(|it| adapter::FILES.iter().any(|file| it == *file)));
    match found.as_slice() {
        [only] => read_shard(only).map(whole),
        found => Err(no_weights(folder, found)),
    }
}

/// All tensors of one file.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<Tensor>, CheckpointError> {
    let (file, header) = read_shard(path)?;
    let tensor = |it: TensorInfo| Entry {
        dtype: it.dtype().ok_or_else(|| it.stored.to_string()),
        name: it.name.into(),
        shape: it.shape,
        file: Arc::clone(&file),
        range: it.range,
        numbers: None,
        adapted: None,
        quantized: false,
    };
    header.tensors.into_iter().map(|it| tensor(it).tensor("types of numbers")).collect()
}

fn read_shard(path: &Path) -> Result<Shard, CheckpointError> {
    let file = MappedFile::open(path)?;
    expect_finished(path)?;
    let header = Header::parse(file.bytes()).map_err(|problem| {
        foreign::error(path, file.bytes(), "a safetensors file")
            .unwrap_or_else(|| CheckpointError::Safetensors { path: path.to_owned(), problem })
    })?;
    Ok((Arc::new(file), header))
}

/// Refuses a file that a download manager is not done with: the file may have its full size, and holes.
fn expect_finished(path: &Path) -> Result<(), CheckpointError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".aria2");
    let control = PathBuf::from(name);
    if control.exists() {
        return Err(CheckpointError::Unfinished { path: path.to_owned(), control });
    }
    Ok(())
}

fn read_sharded(
    folder: &Path,
    index: &Path,
    weight_map: &BTreeMap<String, String>,
) -> Result<Weights, CheckpointError> {
    let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    if let Some(shard) = names.iter().find(|name| !is_plain_file_name(name)) {
        return Err(CheckpointError::ShardName { index: index.to_owned(), shard: (*shard).to_owned() });
    }
    let missing: Vec<&PathBuf> = paths.iter().filter(|path| !path.exists()).collect();
    if let Some(&first) = missing.first() {
        return Err(CheckpointError::MissingShard {
            path: first.clone(),
            missing: missing.len(),
            total: paths.len(),
            kind: "shards",
        });
    }
    let mut shards = paths.iter().map(|path| read_shard(path)).collect::<Result<Vec<_>, _>>()?;
    // Of a tensor that lies where the index says, other shards' are not looked at.
    let lies = |name: &str, shard: &str| weight_map.get(name).is_some_and(|place| place == shard);
    let mut placed = HashSet::new();
    for ((_, header), shard) in shards.iter().zip(&names) {
        let here = header.tensors.iter().filter(|it| lies(&it.name, shard));
        placed.extend(here.map(|it| it.name.clone()));
    }
    for ((_, header), shard) in shards.iter_mut().zip(&names) {
        header.tensors.retain(|it| !placed.contains(&it.name) || lies(&it.name, shard));
    }
    let found = names_once(&shards)?;
    let absent = weight_map.iter().filter(|(name, _)| !found.contains(name.as_str()));
    let absent = absent.map(|(name, shard)| (name.clone(), folder.join(shard))).collect();
    Ok(Weights { shards, absent })
}

/// The names of all tensors, none of which two shards may have.
fn names_once(shards: &[Shard]) -> Result<HashSet<String>, CheckpointError> {
    let mut places: HashMap<&str, &Path> = HashMap::new();
    for (file, header) in shards {
        for tensor in &header.tensors {
            if let Some(first) = places.insert(&tensor.name, file.path()) {
                return Err(CheckpointError::InTwoShards {
                    name: tensor.name.clone(),
                    first: first.to_owned(),
                    second: file.path().to_owned(),
                });
            }
        }
    }
    Ok(places.into_keys().map(str::to_owned).collect())
}

fn weight_map(index: &Path, value: Option<&Value>) -> Result<BTreeMap<String, String>, CheckpointError> {
    let value = value.unwrap_or(&Value::Null);
    let Value::Object(entries) = value else {
        return Err(unexpected(index, "`weight_map`", "an object", value));
    };
    let mut map = BTreeMap::new();
    for (name, shard) in entries {
        let Value::String(file) = shard else {
            return Err(unexpected(index, &format!("the shard of `{name}`"), "a string", shard));
        };
        map.insert(name.clone(), file.clone());
    }
    Ok(map)
}

/// Whether a name leads to a file of the same folder, and not out of it.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\'])
}

fn no_weights(folder: &Path, safetensors: &[PathBuf]) -> CheckpointError {
    let (found, hint) = if safetensors.len() > 1 {
        (
            format!("{} safetensors files without `{INDEX}`", safetensors.len()),
            "fetch the index file too, it says which tensor lies where".to_owned(),
        )
    } else if holds_pickled_weights(folder) {
        (
            "its weights are in PyTorch's pickle format, which can run code when it is read".to_owned(),
            "convert it once in Python: `AutoModelForCausalLM.from_pretrained(folder)\
             .save_pretrained(new_folder, safe_serialization=True)`, and copy the tokenizer files"
                .to_owned(),
        )
    } else {
        (
            "a folder without safetensors files".to_owned(),
            format!("fetch the weights too: `{SINGLE}`, or `{INDEX}` and its shards"),
        )
    };
    CheckpointError::NotACheckpoint { path: folder.to_owned(), found, hint }
}

fn holds_pickled_weights(folder: &Path) -> bool {
    folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists()
}

/// The files of a folder with an extension, by name.
pub(crate) fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, CheckpointError> {
    let io = |problem| CheckpointError::Io { path: folder.to_owned(), problem };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|it| it == extension) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
