//! What can be wrong with an adapter, or between an adapter and its base model.

use std::path::PathBuf;

use crate::CheckpointError;

/// Why an adapter cannot be read, or cannot be added to a model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A path leads to something that is no adapter.
    #[error("`{}` is not an adapter: {found}\n\nhint: {hint}", path.display())]
    NotAnAdapter {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        found: String,
        /// What the user can do.
        hint: String,
    },
    /// A setting changes what the adapter computes in a way that is not known here.
    #[error(
        "`{}`: `{key}` is {found}; {known}\
         \n\nhint: merge the adapter with Python's peft, `merge_and_unload()`, and give the model that it saves",
        path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// Its value.
        found: String,
        /// What is known.
        known: String,
    },
    /// A setting is not what its meaning asks for.
    #[error("`{}`: `{key}` should be {expected}, found {found}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tensor has no known meaning, or not all that belongs to it is there.
    #[error(
        "tensor `{tensor}` of adapter `{}` cannot be used: {what}\
         \n\nhint: an adapter is loaded whole or not at all; check that it belongs to this base model and is complete",
        path.display()
    )]
    Tensor {
        /// The adapter.
        path: PathBuf,
        /// The tensor, as its file calls it.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// What the settings name is not in the file of weights.
    #[error(
        "adapter `{}` is incomplete: `{key}` names `{name}`, and no tensor belongs to it\
         \n\nhint: fetch the adapter again, or save it again with `save_pretrained`", path.display()
    )]
    Incomplete {
        /// The adapter.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What it names.
        name: String,
    },
    /// The adapter was made for another architecture.
    #[error(
        "adapter `{}` is for models of architecture `{found}`, and `{}` has `{expected}`\
         \n\nhint: give the adapter's own base model", path.display(), base.display()
    )]
    Architecture {
        /// The adapter.
        path: PathBuf,
        /// The base model.
        base: PathBuf,
        /// The architecture of the base model.
        expected: String,
        /// That of the adapter.
        found: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
