//! Writing a model: the checkpoint that was opened, with some of its tensors replaced.
//!
//! What is written has exactly the checkpoint's tensor names and shapes, in the input's types and format:
//!
//! * **A Hugging Face folder** becomes a folder: safetensors files of at most [`Settings::max_shard_size`] bytes, an
//!   index if there are several, and every other file of the input (configuration, tokenizer, templates, licence)
//!   byte for byte. Weights in other formats are left behind, and [`Written::left_out`] lists them. Of a folder whose
//!   weights are quantized the model before that is written: the names and shapes of [`Checkpoint::names`], in the type
//!   that the model computes in, and a configuration that does not speak of quantization (`dequantized.rs` says why).
//! * **A GGUF file** (or several parts of one) becomes one GGUF file with the same metadata, and the tensors in the same
//!   order. Replaced tensors whose type is quantized are stored as F16, or F32 on request: to quantize anew is
//!   another tool's work, and would undo part of an exact edit.
//!
//! Tensors that are not replaced are copied as bytes, a piece at a time; replaced ones are computed a few rows at a
//! time and rounded once, to nearest, ties to even. No whole tensor is ever in memory.
//!
//! Everything is written under another name beside the target, synced, opened again and compared with the input, and
//! then renamed: whatever happens, either the whole model stands at the target or nothing does.
//!
//! Tensors that no input has are written by [`write_new_folder`] and [`write_new_gguf`], which keep the same promises.
//!
//! This module knows no edits: where the new rows come from is the caller's business.

mod dequantized;
mod error;
mod gguf;
mod new_tensors;
mod output;
mod replacement;
mod safetensors;
mod shard_size;
mod side_files;
mod staging;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub use error::WriteError;
pub use new_tensors::{NewTensor, NewValue, write_new_folder, write_new_gguf};
pub use replacement::{Replacement, Replacements};
pub use shard_size::{ShardSize, ShardSizeError};
pub use staging::{Leftovers, remove_leftovers};

use crate::{Checkpoint, Format, TensorDtype};

/// How a model is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How large a safetensors file may become; a single larger tensor gets a file for itself.
    pub max_shard_size: ShardSize,
    /// How replaced tensors of a quantized GGUF file are stored.
    pub dequantized: Dequantized,
    /// The text of `README.md`, in place of the input's.
    pub model_card: Option<String>,
}

/// How tensors are stored that were quantized before they were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dequantized {
    /// In half precision.
    #[default]
    F16,
    /// In single precision.
    F32,
}

impl Dequantized {
    fn dtype(self) -> TensorDtype {
        match self {
            Self::F16 => TensorDtype::F16,
            Self::F32 => TensorDtype::F32,
        }
    }
}

/// How far writing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of tensors written.
    pub done: u64,
    /// Bytes of tensors in all.
    pub total: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The files, in the order in which they were written.
    pub files: Vec<PathBuf>,
    /// Bytes of tensors in them.
    pub tensor_bytes: u64,
    /// What of the input folder was not copied: weights in other files or formats, links to folders, pipes and devices.
    pub left_out: Vec<PathBuf>,
    /// Links of the input folder that lead out of it, which are not followed, and where they lead.
    pub links_out: Vec<(PathBuf, PathBuf)>,
}

/// Writes a model to a place where nothing is yet; a folder may also take the place of an empty one.
///
/// `progress` is called after every few megabytes; when it answers [`ControlFlow::Break`], what was written is removed
/// and the result is [`WriteError::Cancelled`].
///
/// # Errors
/// Before anything is written: [`WriteError::Exists`], [`WriteError::UnknownTensor`], [`WriteError::Shape`],
/// [`WriteError::NotReplaceable`], [`WriteError::NoSpace`]. Later [`WriteError::Unrepresentable`], when a number has no
/// finite value in the tensor's type, and what the system refuses. After an error nothing is left of the output.
pub fn write_model(
    checkpoint: &Checkpoint,
    replacements: &Replacements<'_>,
    target: &Path,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    replacement::check(checkpoint, replacements)?;
    match checkpoint.format() {
        Format::HuggingFace => safetensors::write(checkpoint, replacements, target, settings, progress),
        Format::Gguf => gguf::write(checkpoint, replacements, target, settings, progress),
    }
}
