//! Which files of a folder hold its weights, and which tensor lies where.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::header::Header;
use crate::CheckpointError;
use crate::json::{is_git_lfs_pointer, read_object, read_object_of_weights, unexpected};
use crate::mapped_file::MappedFile;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A safetensors file and, of its tensors, those that count.
type Shard = (Arc<MappedFile>, Header);

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
/// With an index, each of its tensors must be in the shard that it names. A tensor that no entry names is still
/// part of the checkpoint, so that a copy loses nothing, unless the index places that name in another shard.
pub(crate) fn read_weights(folder: &Path) -> Result<Vec<Shard>, CheckpointError> {
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(vec![read_shard(&single)?]);
    }
    let index = folder.join(INDEX);
    if let Some(object) = read_object_of_weights(&index)? {
        return read_sharded(folder, &index, &weight_map(&index, object.get("weight_map"))?);
    }
    match files_with_extension(folder, "safetensors")?.as_slice() {
        [only] => Ok(vec![read_shard(only)?]),
        found => Err(no_weights(folder, found)),
    }
}

fn read_shard(path: &Path) -> Result<Shard, CheckpointError> {
    let file = MappedFile::open(path)?;
    if is_git_lfs_pointer(file.bytes()) {
        return Err(CheckpointError::GitLfsPointer { path: path.to_owned() });
    }
    let header = Header::parse(file.bytes())
        .map_err(|problem| CheckpointError::Safetensors { path: path.to_owned(), problem })?;
    Ok((Arc::new(file), header))
}

fn read_sharded(
    folder: &Path,
    index: &Path,
    weight_map: &BTreeMap<String, String>,
) -> Result<Vec<Shard>, CheckpointError> {
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
    for ((_, header), &shard) in shards.iter_mut().zip(&names) {
        header.tensors.retain(|it| weight_map.get(&it.name).is_none_or(|place| place == shard));
    }
    check_against_index(folder, weight_map, &shards)?;
    Ok(shards)
}

fn check_against_index(
    folder: &Path,
    weight_map: &BTreeMap<String, String>,
    shards: &[Shard],
) -> Result<(), CheckpointError> {
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
    match weight_map.iter().find(|(name, _)| !places.contains_key(name.as_str())) {
        None => Ok(()),
        Some((name, shard)) => {
            Err(CheckpointError::NotInShard { name: name.clone(), shard: folder.join(shard) })
        }
    }
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
