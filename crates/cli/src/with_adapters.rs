//! Opening a model with adapters: those that are named, and one that lies where the model is.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::Checkpoint;
use checkpoint::adapter::{Adapter, Values};
use engine::with_adapter;

use crate::fetching;
use crate::terminal::remark;

/// How many adapters may each be the base model of the one before: more are a circle.
const DEEPEST: usize = 8;

/// Opens a model and adds adapters: one that lies in its folder first, as transformers does, then those that are named.
pub(crate) fn open(
    model: &Path,
    commit: Option<&str>,
    named: &[PathBuf],
    family: Option<&str>,
) -> anyhow::Result<Checkpoint> {
    let Found { base, mut adapters } = find(model, commit)?;
    for name in named {
        let path = fetching::adapter(name)?;
        adapters.push(Adapter::open(&path).with_context(|| format!("adapter `{}`", name.display()))?);
    }
    let mut checkpoint = Checkpoint::open(&base)?;
    for adapter in &adapters {
        checkpoint = with_adapter(checkpoint, adapter, family)?;
        remark(&describe(adapter));
    }
    Ok(checkpoint)
}

/// A base model, and the adapters that belong to what was named, in the order in which they are added.
struct Found {
    base: PathBuf,
    adapters: Vec<Adapter>,
}

fn find(model: &Path, commit: Option<&str>) -> anyhow::Result<Found> {
    let mut adapters = Vec::new();
    let (mut name, mut commit) = (model.to_owned(), commit.map(str::to_owned));
    for _ in 0..DEEPEST {
        let path = fetching::model(&name, commit.as_deref())?;
        if !Adapter::is_at(&path) {
            adapters.reverse();
            return Ok(Found { base: path, adapters });
        }
        if !path.is_dir() {
            anyhow::bail!(
                "`{}` is an adapter, and a GGUF file does not say of which model\n\nhint: give the model, and the adapter \
                 beside it: `ablate chat BASE --adapter {}`",
                path.display(),
                name.display()
            );
        }
        let adapter = Adapter::open(&path)?;
        if has_weights(&path) && name.exists() {
            remark(&format!(
                "`{}` holds an adapter beside the weights: it is added to them, as transformers does",
                path.display()
            ));
            adapters.push(adapter);
            adapters.reverse();
            return Ok(Found { base: path, adapters });
        }
        let Some(base) = adapter.base_model().map(PathBuf::from) else {
            anyhow::bail!(
                "`{}` is an adapter that names no base model\n\nhint: give the model, and the adapter beside it: \
                 `ablate chat BASE --adapter {}`",
                path.display(),
                name.display()
            );
        };
        remark(&format!("`{}` is an adapter; its base model is `{}`", name.display(), base.display()));
        let revision = adapter.base_revision().map(str::to_owned);
        fetching::model(&base, revision.as_deref()).with_context(|| {
            format!(
                "the base model of adapter `{}` cannot be had; where you have it under another name, use \
                 `ablate chat BASE --adapter {}`",
                path.display(),
                name.display()
            )
        })?;
        adapters.push(adapter);
        (name, commit) = (base, revision);
    }
    anyhow::bail!(
        "`{}` is an adapter of an adapter, more than {DEEPEST} deep\n\nhint: give the base model and the adapters: \
         `ablate chat BASE --adapter FIRST --adapter SECOND`",
        model.display()
    )
}

/// Whether a folder holds a model, not only an adapter.
fn has_weights(folder: &Path) -> bool {
    let own = |name: &str| {
        let name = name.to_ascii_lowercase();
        !name.starts_with("adapter_model.")
            && [".safetensors", ".safetensors.index.json"].iter().any(|it| name.ends_with(it))
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    folder.join("config.json").is_file()
        && files.map(|it| it.file_name()).any(|it| own(&it.to_string_lossy()))
}

fn describe(adapter: &Adapter) -> String {
    let count = |kind: fn(&Values) -> bool| adapter.parts().iter().filter(|it| kind(&it.values)).count();
    let added = count(|it| matches!(it, Values::Factors(_)));
    let replaced = count(|it| !matches!(it, Values::Factors(_)));
    let replaced =
        if replaced > 0 { format!(", replaces parts of {replaced} tensors") } else { String::new() };
    let path = adapter.path().display();
    format!("adapter `{path}`: changes {added} weights{replaced}; merged in f32 as they are read")
}
