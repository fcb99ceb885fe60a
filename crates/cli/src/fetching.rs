//! Models of the hub: which files are needed, and how far they have come.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use hub::{Access, Client, Repository};

use crate::interrupt;
use crate::naming::{Named, is_gguf};
use crate::terminal::{Progress, remark};

/// A client as the environment says, which shows how far files have come.
pub(crate) fn client() -> Client {
    watched(Client::from_environment())
}

/// The same client, showing how far files have come, and stopping when it is interrupted.
pub(crate) fn watched(client: Client) -> Client {
    let client = client.stopping_when(interrupt::requested);
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

/// The short name and the revision of a model that is named by its address on the hub; others are what they are.
///
/// # Errors
/// When the address is not one of a model.
pub(crate) fn by_address(model: &Path) -> anyhow::Result<(PathBuf, Option<String>)> {
    let text = model.to_string_lossy();
    match Named::by_address(&text, &Access::from_environment().endpoint).filter(|_| !model.exists()) {
        Some(named) => named.map(|it| (PathBuf::from(it.name()), it.revision)),
        None => Ok((model.to_owned(), None)),
    }
}

/// Where a model's files are: a path of this machine, or what was downloaded of a repository of the hub.
///
/// `owner/name` is a repository, `owner/name/file.gguf` a file of one; addresses of the hub are taken for these.
pub(crate) fn model(path: &Path, commit: Option<&str>) -> anyhow::Result<PathBuf> {
    // What is there, is meant.
    if path.exists() {
        return Ok(path.to_owned());
    }
    let name = path.to_string_lossy();
    let client = client();
    let named = match Named::by_address(&name, &client.access().endpoint) {
        Some(named) => Some(named?),
        None => Named::by_name(&name),
    };
    let Some(Named { repository, file, revision }) = named else {
        anyhow::bail!(
            "`{name}`: No such file or folder\n\n\
             hint: a model is a folder, a GGUF file, or a repository of the hub: OWNER/NAME or its address"
        );
    };
    let revision = match (commit, &revision) {
        (Some(commit), Some(named)) if commit != named => anyhow::bail!(
            "`{name}` is at `{named}`, and `model_commit` is `{commit}`\n\nhint: name one of them"
        ),
        (Some(commit), _) => commit,
        (None, named) => named.as_deref().unwrap_or("main"),
    };
    let info = client
        .info(&repository, revision)
        .with_context(|| format!("`{name}` is no file or folder here; as a model of the hub"))?;
    let files: Vec<String> = info.files.iter().map(|it| it.path.clone()).collect();
    let get = |file: &str| client.file(&repository, &info.commit, file).map_err(anyhow::Error::from);
    if let Some(file) = file {
        for part in parts(&file, &files) {
            get(part)?;
        }
        return get(&file);
    }
    let index = files.iter().find(|it| *it == INDEX).map(|it| get(it)).transpose()?;
    let index = index.map(|it| std::fs::read_to_string(&it).with_context(|| it.display().to_string()));
    let index = index.transpose()?;
    let needed = needed(&files, index.as_deref());
    if info.cached {
        let index = index.as_deref().filter(|_| !files.iter().any(|it| it == ADAPTER[0]));
        expect_whole(&repository, &files, index, client.access().offline)?;
    }
    if !needed.iter().any(|it| it.ends_with(WEIGHTS)) {
        let gguf: Vec<&str> = files.iter().map(String::as_str).filter(|it| is_gguf(it)).collect();
        let hint = match gguf.first() {
            Some(file) => format!("it has GGUF files; name one of them: {}/{file}", repository.id),
            None => "weights in other formats than safetensors and GGUF cannot be read".to_owned(),
        };
        if files.iter().any(|it| it == ADAPTER[0]) {
            anyhow::bail!(
                "{repository} is an adapter without `{}`\n\nhint: load it in Python and save it again with \
                 `save_pretrained`",
                ADAPTER[1]
            );
        }
        anyhow::bail!("{repository} has no safetensors files\n\nhint: {hint}");
    }
    if needed.len() > MOST_FILES {
        anyhow::bail!(
            "{repository}: a model would need {} of its files, at most {MOST_FILES} are fetched\n\n\
             hint: is it one model? Download what you need with `hf download`",
            needed.len()
        );
    }
    let wanted: HashSet<&String> = needed.iter().collect();
    let size: u64 = info.files.iter().filter(|it| wanted.contains(&it.path)).filter_map(|it| it.size).sum();
    let missing = needed.iter().any(|it| !client.folder(&repository, &info.commit).join(it).exists());
    if missing {
        remark(&format!("{repository} at {}: {} files, {} MiB", info.commit, needed.len(), size >> 20));
    }
    for file in &needed {
        get(file)?;
    }
    Ok(client.folder(&repository, &info.commit))
}

/// An error where the cache, which is all that is known, has only a part of a model.
fn expect_whole(
    repository: &Repository,
    files: &[String],
    index: Option<&str>,
    offline: bool,
) -> anyhow::Result<()> {
    let missing = match index.map(shards) {
        Some(shards) => shards.into_iter().find(|it| !files.contains(it)),
        None if files.iter().any(|it| it.ends_with(WEIGHTS)) => None,
        // Without an index nobody knows how many there are; of a repository of GGUF files one is named.
        None => Some("its weights".to_owned()).filter(|_| !files.iter().any(|it| is_gguf(it))),
    };
    let described = ["config.json", ADAPTER[0]].iter().any(|name| files.iter().any(|it| it == name));
    let missing = missing.or((!described).then(|| "config.json".to_owned()));
    let Some(missing) = missing else { return Ok(()) };
    let (why, hint) = if offline {
        (
            "and the network is not to be used (HF_HUB_OFFLINE)",
            "unset HF_HUB_OFFLINE and run the command again",
        )
    } else {
        ("and the hub cannot be reached", "run the command again when the network is there")
    };
    let few: Vec<&str> = files.iter().take(5).map(String::as_str).collect();
    let more = if files.len() > few.len() { ", …" } else { "" };
    anyhow::bail!(
        "{repository} is only half downloaded, {why}: the cache has {}{more}, but not {missing}\n\n\
         hint: {hint}; the download goes on where it stopped",
        few.join(", ")
    );
}

/// The other parts of a GGUF file in several parts, of which the first is named.
fn parts<'a>(file: &str, files: &'a [String]) -> Vec<&'a str> {
    let Some((stem, count)) = file.strip_suffix(".gguf").and_then(|it| it.split_once("-00001-of-")) else {
        return Vec::new();
    };
    let ending = format!("-of-{count}.gguf");
    let is_part = |it: &&String| {
        let number =
            it.strip_prefix(stem).and_then(|it| it.strip_suffix(&ending)).and_then(|it| it.strip_prefix('-'));
        number.is_some_and(|it| it.len() == 5 && it.bytes().all(|it| it.is_ascii_digit()))
    };
    files.iter().filter(is_part).map(String::as_str).collect()
}

/// Files of one model that are fetched at most: shards, and small texts beside them.
const MOST_FILES: usize = 2000;

/// Where an adapter's files are: a path of this machine, or what was downloaded of a repository of the hub.
pub(crate) fn adapter(path: &Path) -> anyhow::Result<PathBuf> {
    model(path, None)
}

/// The list of weights that lie in several files.
const INDEX: &str = "model.safetensors.index.json";

const WEIGHTS: &str = ".safetensors";

/// The files that an index names.
fn shards(index: &str) -> HashSet<String> {
    let index: Option<serde_json::Value> = serde_json::from_str(index).ok();
    let map = index.as_ref().and_then(|it| it.get("weight_map")?.as_object());
    map.into_iter().flatten().filter_map(|it| it.1.as_str()).map(str::to_owned).collect()
}

/// What an adapter of peft is.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// The files of a repository that a model needs: its weights as safetensors and once, and what stands beside them.
fn needed(files: &[String], index: Option<&str>) -> Vec<String> {
    let shards = index.map(shards).filter(|it| !it.is_empty());
    let single = files.iter().any(|it| it == "model.safetensors");
    // Where there is an adapter, its base model is another repository's, as it is for transformers.
    let adapter = files.iter().any(|it| it == ADAPTER[0]);
    let weights = |file: &str| match &shards {
        _ if adapter => file == ADAPTER[1],
        Some(shards) => shards.contains(file),
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
        let files =
            names(&["adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"]);
        assert_eq!(needed(&files, None), ["adapter_config.json", "adapter_model.safetensors", "config.json"]);
    }

    #[test]
    fn a_listing_without_end_takes_no_time_without_end() {
        let files: Vec<String> = (0..200_000).map(|it| format!("f{it:07}.json")).collect();
        let entries: Vec<String> =
            (0..200_000).map(|it| format!(r#""t{it}": "s{it}.safetensors""#)).collect();
        let index = format!(r#"{{"weight_map": {{{}}}}}"#, entries.join(","));
        let begun = std::time::Instant::now();
        assert_eq!(needed(&files, Some(&index)).len(), files.len());
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn all_parts_of_a_gguf_file_are_fetched() {
        let files = names(&["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf", "q/y-00002-of-00002.gguf"]);
        assert_eq!(
            parts("q/x-00001-of-00002.gguf", &files),
            ["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf"]
        );
        assert!(parts("q/x.gguf", &files).is_empty());
    }

    #[test]
    fn half_a_model_in_the_cache_is_called_that() {
        let repository = Repository::new(hub::Kind::Model, "a/b").unwrap();
        let said = |files: &[&str], index: Option<&str>| {
            expect_whole(&repository, &names(files), index, true).unwrap_err().to_string()
        };
        let without = said(&["config.json", "tokenizer.json"], None);
        assert!(without.contains("half downloaded") && without.contains("but not its weights"), "{without}");
        assert!(without.contains("hint: unset HF_HUB_OFFLINE"), "{without}");
        let index = r#"{"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}"#;
        let one = said(&["1.safetensors", "config.json", INDEX], Some(index));
        assert!(one.contains("but not 2.safetensors"), "{one}");
        assert!(said(&["model.safetensors"], None).contains("but not config.json"));
        expect_whole(&repository, &names(&["config.json", "model.safetensors"]), None, true).unwrap();
    }
}
