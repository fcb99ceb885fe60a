//! Models of the hub: which files are needed, and how far they have come.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use hub::{Client, Kind, Repository};

use crate::terminal::{Progress, remark};

/// A client as the environment says, which shows how far files have come.
pub(crate) fn client() -> Client {
    watched(Client::from_environment())
}

/// The same client, showing how far files have come.
pub(crate) fn watched(client: Client) -> Client {
    let shown: Mutex<Option<(String, Progress)>> = Mutex::new(None);
    client.watched(move |progress| {
        let Ok(mut shown) = shown.lock() else { return };
        let mebibytes = |bytes: u64| (bytes >> 20) as usize;
        if shown.as_ref().is_none_or(|(file, _)| file != progress.file) {
            *shown = Some((progress.file.to_owned(), Progress::new("hub", mebibytes(progress.all).max(1))));
        }
        if let Some((file, bar)) = shown.as_mut() {
            bar.at(mebibytes(progress.done), &format!("MiB {file}"));
        }
        if progress.done >= progress.all {
            *shown = None;
        }
    })
}

/// Where a model's files are: a path of this machine, or what was downloaded of a repository of the hub.
///
/// `owner/name` is a repository, `owner/name/file.gguf` a file of one.
pub(crate) fn model(path: &Path, commit: Option<&str>) -> anyhow::Result<PathBuf> {
    let name = path.to_string_lossy();
    let parts: Vec<&str> = name.split('/').collect();
    let (id, file) = match parts.as_slice() {
        [owner, name, file] if is_gguf(file) => (format!("{owner}/{name}"), Some(*file)),
        _ => (name.to_string(), None),
    };
    // What looks like a path, and what is there, is one.
    let repository = Repository::new(Kind::Model, &id).filter(|_| id.contains('/') && !is_gguf(&id));
    let Some(repository) = repository.filter(|_| !path.exists()) else {
        if !path.exists() {
            anyhow::bail!(
                "`{name}`: No such file or folder\n\n\
                 hint: a model is a folder, a GGUF file, or a repository of the hub, OWNER/NAME"
            );
        }
        return Ok(path.to_owned());
    };
    let client = client();
    let info = client
        .info(&repository, commit.unwrap_or("main"))
        .with_context(|| format!("`{name}` is no file or folder here; as a model of the hub"))?;
    let files: Vec<String> = info.files.iter().map(|it| it.path.clone()).collect();
    let get = |file: &str| client.file(&repository, &info.commit, file).map_err(anyhow::Error::from);
    if let Some(file) = file {
        return get(file);
    }
    let index = files.iter().find(|it| *it == INDEX).map(|it| get(it)).transpose()?;
    let index = index.map(|it| std::fs::read_to_string(&it).with_context(|| it.display().to_string()));
    let needed = needed(&files, index.transpose()?.as_deref());
    if !needed.iter().any(|it| it.ends_with(WEIGHTS)) {
        let gguf: Vec<&str> = files.iter().map(String::as_str).filter(|it| is_gguf(it)).collect();
        let hint = match gguf.first() {
            Some(file) => format!("it has GGUF files; name one of them: {id}/{file}"),
            None => "weights in other formats than safetensors and GGUF cannot be read".to_owned(),
        };
        anyhow::bail!("{repository} has no safetensors files\n\nhint: {hint}");
    }
    let size: u64 = info.files.iter().filter(|it| needed.contains(&it.path)).filter_map(|it| it.size).sum();
    let missing = needed.iter().any(|it| !client.folder(&repository, &info.commit).join(it).exists());
    if missing {
        remark(&format!("{repository} at {}: {} files, {} MiB", info.commit, needed.len(), size >> 20));
    }
    for file in &needed {
        get(file)?;
    }
    Ok(client.folder(&repository, &info.commit))
}

/// The list of weights that lie in several files.
const INDEX: &str = "model.safetensors.index.json";

const WEIGHTS: &str = ".safetensors";

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// The files of a repository that a model needs: its weights as safetensors and once, and what stands beside them.
fn needed(files: &[String], index: Option<&str>) -> Vec<String> {
    let sharded: Option<serde_json::Value> = index.and_then(|it| serde_json::from_str(it).ok());
    let shards: Option<Vec<&str>> = sharded
        .as_ref()
        .and_then(|it| it.get("weight_map")?.as_object())
        .map(|it| it.values().filter_map(|it| it.as_str()).collect());
    let single = files.iter().any(|it| it == "model.safetensors");
    let weights = |file: &str| match &shards {
        Some(shards) => shards.contains(&file),
        None if single => file == "model.safetensors",
        None => true,
    };
    // Of what is no weights, only what is small text: configuration, tokenizer, template, card, licence.
    let beside = |file: &str| {
        let name = file.to_ascii_lowercase();
        let text = [".json", ".txt", ".model", ".jinja", ".md", ".tiktoken", ".py"]
            .iter()
            .any(|it| name.ends_with(it));
        text || name.starts_with("license") || name.starts_with("notice")
    };
    files
        .iter()
        .filter(|it| !it.contains('/') && !it.starts_with('.'))
        .filter(|it| if it.ends_with(WEIGHTS) { weights(it) } else { beside(it) })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&it| it.to_owned()).collect()
    }

    #[test]
    fn weights_are_fetched_once_and_other_formats_not_at_all() {
        let files = names(&[
            ".gitattributes",
            "LICENSE",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model.fp16.safetensors",
            "model.safetensors",
            "onnx/model.onnx",
            "original/params.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "x.gguf",
        ]);
        assert_eq!(
            needed(&files, None),
            ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json"]
        );
        let files = names(&["a.safetensors", "b.safetensors", "c.safetensors", INDEX]);
        let index = r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "a.safetensors"}}"#;
        assert_eq!(needed(&files, Some(index)), ["a.safetensors", "b.safetensors", INDEX]);
        assert_eq!(needed(&names(&["odd.safetensors"]), None), ["odd.safetensors"]);
    }
}
