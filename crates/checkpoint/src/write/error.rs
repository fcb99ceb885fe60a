//! What can go wrong while a model is written.

use std::io;
use std::path::{Path, PathBuf};

use crate::{CheckpointError, TensorDtype};

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something stands at the target already.
    #[error("`{}` exists already\n\nhint: name a new place, or remove it first", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// A new tensor has a name that the checkpoint does not know.
    #[error("there is no tensor `{name}` in `{}` to replace", path.display())]
    UnknownTensor {
        /// The name.
        name: String,
        /// The checkpoint.
        path: PathBuf,
    },
    /// A new tensor has another shape than the one it replaces.
    #[error("tensor `{name}`: its replacement has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the checkpoint.
        expected: Vec<usize>,
        /// The shape of the replacement.
        found: Vec<usize>,
    },
    /// A tensor's type is not one that new numbers can be rounded to.
    #[error(
        "tensor `{name}` is stored as {found}, only F64, F32, F16 and BF16 (and quantized types of GGUF files) can be \
         replaced\n\nhint: convert the model to BF16 first"
    )]
    NotReplaceable {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A number is infinite or not a number in the tensor's type.
    #[error(
        "tensor `{name}`, row {row}, column {column}: `{value:e}` has no finite value as {dtype}\
         \n\nhint: a smaller strength makes smaller weights; BF16 and F32 have room for larger ones than F16"
    )]
    Unrepresentable {
        /// The tensor.
        name: String,
        /// Which row.
        row: usize,
        /// Which number of the row.
        column: usize,
        /// The number.
        value: f64,
        /// The type that it should have been stored in.
        dtype: TensorDtype,
    },
    /// The disk does not have room for the model.
    #[error(
        "no space left for `{}`, the model takes {needed} bytes{}\
         \n\nhint: free some, or name a place on another disk",
        path.display(), free.map_or(String::new(), |it| format!(", {it} are free"))
    )]
    NoSpace {
        /// The file or folder.
        path: PathBuf,
        /// How many bytes the model takes.
        needed: u64,
        /// How many are free, if that was known before writing.
        free: Option<u64>,
    },
    /// The system refused something else.
    #[error("cannot write `{}`: {problem}\n\nhint: name a place that you may write to", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The input could not be read again, or what was written could not be read back.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What was written is not what was to be written: the disk, the input, or this program is broken.
    #[error("`{}` was written, but reads back wrong: {what}", path.display())]
    ReadBack {
        /// The file or folder, under its temporary name.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The caller asked to stop.
    #[error("writing was cancelled")]
    Cancelled,
}

impl WriteError {
    pub(super) fn io(path: &Path, problem: io::Error) -> Self {
        Self::Io { path: path.to_owned(), problem }
    }
}
