//! Adapters: small files that change a base model's weights, and the checkpoint that has the changes in it.
//!
//! Two formats: a folder of Python's peft (LoRA and DoRA: `adapter_config.json`, `adapter_model.safetensors`), and a GGUF file
//! as llama.cpp reads it. [`Adapter::open`] reads everything that there is and refuses by name what it does not know: an
//! adapter is used whole or not at all. Which tensor of a base model a module's name means is not known here; who knows it
//! makes [`Change`]s of the parts, and [`Checkpoint::with_changes`] is the base model with them.
//!
//! **Merged while rows are read.** The rest of the program sees a checkpoint with ordinary weights, as with quantized ones
//! (`quantized`): no weight is copied, a row of `W + s B A` is computed when it is asked for, in f64 and rounded once to f32.
//! What is written are these numbers, rounded once more to the type of the base model's file.

mod changed;
mod config;
mod error;
mod gguf;
mod parts;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::changed::Change;
pub use self::error::AdapterError;
pub use self::parts::Factors;
use crate::checkpoint::Entry;
use crate::json::read_object;
use crate::{Checkpoint, CheckpointError, Format, Tensor, TensorDtype, hugging_face};

/// The weights of a folder.
const WEIGHTS: &str = "adapter_model.safetensors";

/// The same as old versions of peft wrote them.
const PICKLED: &str = "adapter_model.bin";

/// The files of a folder that are an adapter and no part of a model.
pub(crate) const FILES: [&str; 3] = [config::FILE, WEIGHTS, PICKLED];

/// An adapter that was opened.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    files: Vec<PathBuf>,
    settings: Settings,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Settings {
    Peft(Box<config::Config>),
    Gguf { architecture: String, alpha: f64 },
}

/// What an adapter changes in one module.
#[derive(Debug)]
pub struct Part {
    /// The module, as peft names it; the tensor, as a GGUF file names it.
    pub module: String,
    /// How many parameters of the same module have factors of their own and come later in it.
    pub depth: usize,
    /// A tensor of the adapter that does so.
    pub tensor: String,
    /// What is changed.
    pub values: Values,
}

/// What an adapter does to a module.
#[derive(Clone, Debug)]
pub enum Values {
    /// Adds a product of factors.
    Factors(Box<Factors>),
    /// Replaces a parameter.
    Whole {
        /// `weight` or `bias`.
        parameter: String,
        /// The new one.
        tensor: Tensor,
        /// Whether it is the parameter that factors are added to, and so that of every module that has the same.
        of_base: bool,
    },
    /// Replaces some rows.
    Rows(Tensor),
}

impl Adapter {
    /// Whether something is an adapter, by what it holds: a folder with `adapter_config.json`, or a GGUF file that says so.
    pub fn is_at(path: &Path) -> bool {
        path.join(config::FILE).is_file() || (path.is_file() && gguf::is_adapter(path))
    }

    /// Opens a folder of peft or a GGUF file.
    pub fn open(path: &Path) -> Result<Self, AdapterError> {
        if path.is_dir() { Self::open_folder(path) } else { gguf::open(path) }
    }

    fn open_folder(path: &Path) -> Result<Self, AdapterError> {
        let file = path.join(config::FILE);
        let Some(object) = read_object(&file)? else {
            return Err(AdapterError::NotAnAdapter {
                path: path.to_owned(),
                found: format!("a folder without `{}`", config::FILE),
                hint: "name the folder that `save_pretrained` of peft has written, or a GGUF adapter"
                    .to_owned(),
            });
        };
        let config = config::Config::read(&file, &object)?;
        let weights = path.join(WEIGHTS);
        if !weights.exists() {
            let (found, hint) = if path.join(PICKLED).exists() {
                (
                    "its weights are in PyTorch's pickle format, which can run code when it is read"
                        .to_owned(),
                    "load it in Python and save it again with `save_pretrained`".to_owned(),
                )
            } else {
                (
                    format!("a folder with `{}` and without `{WEIGHTS}`", config::FILE),
                    "fetch the weights, too".to_owned(),
                )
            };
            return Err(AdapterError::NotAnAdapter { path: path.to_owned(), found, hint });
        }
        let tensors = hugging_face::read_tensors(&weights)?;
        let mut parts = Vec::new();
        for ((module, depth), tensors) in parts::by_module(path, tensors.into_iter())? {
            for (tensor, values) in tensors.values(path, config.use_dora)? {
                parts.push(Part { module: module.clone(), depth, tensor, values });
            }
        }
        let adapter = Self {
            path: path.to_owned(),
            files: vec![file, weights],
            settings: Settings::Peft(Box::new(config)),
            parts,
        };
        adapter.expect_complete()?;
        Ok(adapter)
    }

    /// Checks that everything that the settings name has tensors.
    fn expect_complete(&self) -> Result<(), AdapterError> {
        let Settings::Peft(config) = &self.settings else { return Ok(()) };
        let incomplete = |key, name: &str| AdapterError::Incomplete {
            path: self.path.clone(),
            key,
            name: name.to_owned(),
        };
        if self.parts.is_empty() {
            return Err(AdapterError::NotAnAdapter {
                path: self.path.clone(),
                found: format!("`{WEIGHTS}` has no tensors"),
                hint: "fetch the adapter again".to_owned(),
            });
        }
        let any = |name: &str, kind: fn(&Values) -> bool| {
            self.parts.iter().any(|it| config::is_or_ends_with(&it.module, name) && kind(&it.values))
        };
        let of_parameters = !config.target_parameters.is_empty();
        for part in self.parts.iter().filter(|it| matches!(it.values, Values::Factors(_))) {
            if !of_parameters && config.target_modules.name(&part.module) == Some(false) {
                return Err(self.unusable(part, "`target_modules` does not name its module"));
            }
        }
        let whole = |it: &Values| matches!(it, Values::Whole { .. });
        if let Some(name) = config.modules_to_save.iter().find(|it| !any_within(&self.parts, it, whole)) {
            return Err(incomplete("modules_to_save", name));
        }
        let rows = |it: &Values| matches!(it, Values::Rows(_));
        for name in config.token_modules() {
            let there =
                if name.is_empty() { self.parts.iter().any(|it| rows(&it.values)) } else { any(name, rows) };
            if !there {
                return Err(incomplete("trainable_token_indices", name));
            }
        }
        Ok(())
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that it was read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What format its base model has.
    pub fn format(&self) -> Format {
        match self.settings {
            Settings::Peft(_) => Format::HuggingFace,
            Settings::Gguf { .. } => Format::Gguf,
        }
    }

    /// The model that it says it was made for.
    pub fn base_model(&self) -> Option<&str> {
        match &self.settings {
            Settings::Peft(config) => config.base.as_deref(),
            Settings::Gguf { .. } => None,
        }
    }

    /// The revision of that model.
    pub fn base_revision(&self) -> Option<&str> {
        match &self.settings {
            Settings::Peft(config) => config.revision.as_deref(),
            Settings::Gguf { .. } => None,
        }
    }

    /// The architecture that it says it was made for, as GGUF files name it.
    pub fn architecture(&self) -> Option<&str> {
        match &self.settings {
            Settings::Peft(_) => None,
            Settings::Gguf { architecture, .. } => Some(architecture),
        }
    }

    /// What it changes.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Ends of the names of modules that have factors, where its settings tell them so.
    pub fn target_modules(&self) -> &[String] {
        match &self.settings {
            Settings::Peft(config) if config.target_parameters.is_empty() => config.target_modules.names(),
            _ => &[],
        }
    }

    /// The error for a module that its settings name, and that it has no tensors for.
    pub fn incomplete(&self, name: &str) -> AdapterError {
        AdapterError::Incomplete { path: self.path.clone(), key: "target_modules", name: name.to_owned() }
    }

    /// Whether its settings name a parameter, `module.name`, as one that has factors.
    pub fn targets_parameter(&self, name: &str) -> bool {
        match &self.settings {
            Settings::Peft(config) => {
                config.target_parameters.iter().any(|it| config::is_or_ends_with(name, it))
            }
            Settings::Gguf { .. } => false,
        }
    }

    /// What the product of factors of this rank is multiplied with in a module; of a parameter that is none, by its name.
    pub fn scale(&self, module: &str, rank: usize) -> Result<f64, AdapterError> {
        match &self.settings {
            Settings::Peft(config) => config.scale(module, rank),
            Settings::Gguf { alpha, .. } => Ok(if *alpha == 0.0 { 1.0 } else { alpha / rank as f64 }),
        }
    }

    /// The rows of a module that it replaces, in the order in which it has them.
    pub fn token_indices(&self, module: &str) -> Option<&[usize]> {
        match &self.settings {
            Settings::Peft(config) => config.token_indices(module),
            Settings::Gguf { .. } => None,
        }
    }

    /// The error for a part that cannot be used.
    pub fn unusable(&self, part: &Part, what: impl Into<String>) -> AdapterError {
        AdapterError::Tensor { path: self.path.clone(), tensor: part.tensor.clone(), what: what.into() }
    }
}

/// Whether a part belongs to a module of this name or to one within it.
fn any_within(parts: &[Part], name: &str, kind: fn(&Values) -> bool) -> bool {
    let within = |module: &str| {
        let mut ends = module.match_indices('.').map(|it| it.0).chain([module.len()]);
        ends.any(|end| config::is_or_ends_with(&module[..end], name))
    };
    parts.iter().any(|it| kind(&it.values) && within(&it.module))
}

impl Checkpoint {
    /// The same checkpoint with an adapter's changes in its weights, which are f32 then.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] of what is to be changed; [`AdapterError::Tensor`] when two changes meet.
    ///
    /// # Panics
    /// When a change goes beyond its tensor.
    pub fn with_changes(mut self, adapter: &Adapter, changes: Vec<Change>) -> Result<Self, AdapterError> {
        let mut by_tensor: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in changes {
            by_tensor.entry(change.tensor.clone()).or_default().push(change);
        }
        for (name, changes) in by_tensor {
            let base = self.tensor(&name)?;
            let rows = base.rows();
            assert!(changes.iter().all(|it| it.rows.end <= rows), "`{name}` has {rows} rows");
            let dtype = base.dtype();
            let changed = changed::Changed::new(base, changes).map_err(|row| AdapterError::Tensor {
                path: adapter.path.clone(),
                tensor: name.clone(),
                what: format!("row {row} is changed twice"),
            })?;
            let entry = self.entry_mut(&name);
            entry.adapted.get_or_insert(dtype);
            entry.dtype = Ok(TensorDtype::F32);
            entry.numbers = Some(Arc::new(changed));
        }
        Ok(self)
    }

    /// The same checkpoint, which knows that all of an adapter is in it.
    #[must_use]
    pub fn adapted_by(mut self, adapter: &Adapter) -> Self {
        self.note_adapter(adapter);
        self
    }

    /// The same checkpoint with a head of its own, which is a copy of the embedding that it was tied to.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] of the embedding.
    pub fn untied(mut self, embedding: &str, head: &str) -> Result<Self, CheckpointError> {
        self.tensor(embedding)?; // that it is there
        let entry = Entry { name: head.into(), ..self.entry_mut(embedding).clone() };
        self.add_head(entry);
        Ok(self)
    }
}

/// Facts by which the same changes can be known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedAdapter {
    /// Where it was read from.
    pub path: PathBuf,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// Tensors by name, for the readers of both formats.
type Named = HashMap<String, Tensor>;
