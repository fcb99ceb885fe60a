//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use crate::gguf::GgufError;
use crate::hugging_face::SafetensorsError;

/// Why a checkpoint, or a tensor of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused to open or map a file.
    #[error("cannot read `{}`: {problem}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: std::io::Error,
    },
    /// A folder, pipe or device stands where a file is expected.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// A text file of a folder is a link that leaves the folder.
    #[error(
        "`{}` is a link that leads out of the model's folder, to `{}`, and is not followed: a downloaded folder could so \
         have any file of yours copied and published\
         \n\nhint: if that file belongs to the model, put a copy of it in place of the link",
        path.display(), target.display()
    )]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file has no bytes.
    #[error("`{}` is empty\n\nhint: an interrupted download looks like this, fetch the file again", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file holds the address of its content in Git's large file storage, not the content.
    #[error(
        "`{}` is a Git LFS pointer, not the file itself\
         \n\nhint: run `git lfs pull` in the folder, or download the file", path.display()
    )]
    GitLfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file is recognized as something else than its name says.
    #[error("`{}` is {found}, not {expected}\n\nhint: {hint}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// A path leads to something that is no checkpoint.
    #[error("`{}` is not a checkpoint: {found}\n\nhint: {hint}", path.display())]
    NotACheckpoint {
        /// The path given to [`Checkpoint::open`](crate::Checkpoint::open).
        path: PathBuf,
        /// What is there instead.
        found: String,
        /// What the user can do.
        hint: String,
    },
    /// A text file is not UTF-8.
    #[error("`{}` is not valid UTF-8 from byte {valid_up_to} on", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// How many bytes are fine, from the start.
        valid_up_to: usize,
    },
    /// A file is not JSON.
    #[error("`{}`: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong; its message names line and column.
        problem: serde_json::Error,
    },
    /// A JSON value is of another kind than its meaning asks for.
    #[error("`{}`: {what} should be {expected}, found {found}", path.display())]
    UnexpectedJson {
        /// The file.
        path: PathBuf,
        /// Which value.
        what: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A GGUF file's header is not what it should be.
    #[error("`{}`: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: GgufError,
    },
    /// A safetensors file's header is not what it should be.
    #[error("`{}`: {problem}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: SafetensorsError,
    },
    /// A download manager's control file says that a file is not complete, whatever its size.
    #[error(
        "`{}` is not complete: `{}` of a download manager lies beside it\
         \n\nhint: let the download finish (`aria2c -c`); if it has, remove the control file",
        path.display(), control.display()
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// The control file.
        control: PathBuf,
    },
    /// Files that the index (or the first part) names are not there.
    #[error(
        "`{}` is missing ({missing} of {total} {kind} are)\
         \n\nhint: an interrupted download looks like this, fetch the model again", path.display()
    )]
    MissingShard {
        /// The first of the missing files.
        path: PathBuf,
        /// How many are missing.
        missing: usize,
        /// How many there should be.
        total: usize,
        /// What the files are called: shards or parts.
        kind: &'static str,
    },
    /// An index names a shard by something that is not a plain file name.
    #[error("`{}` names the shard `{shard}`, which is not a plain file name", index.display())]
    ShardName {
        /// The index file.
        index: PathBuf,
        /// The name.
        shard: String,
    },
    /// A tensor that is needed is not in the shard that the index says, nor in another one.
    #[error(
        "tensor `{name}` is not in `{}`, where the index places it\
         \n\nhint: the index and the shards are of different models or versions, fetch the model again",
        shard.display()
    )]
    NotInShard {
        /// The tensor.
        name: String,
        /// The shard.
        shard: PathBuf,
    },
    /// Two shards hold a tensor of the same name, and nothing says which one counts.
    #[error("tensor `{name}` is in both `{}` and `{}`", first.display(), second.display())]
    InTwoShards {
        /// The tensor.
        name: String,
        /// One shard.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The parts of a split GGUF file do not fit together.
    #[error("`{}`: {what} should be {expected}, found {found}{hint}", path.display())]
    Parts {
        /// The part.
        path: PathBuf,
        /// Which fact about it.
        what: &'static str,
        /// What the first part, or the file's name, says.
        expected: String,
        /// What the part says.
        found: String,
        /// Empty, or a blank line and what the user can do.
        hint: String,
    },
    /// There is no tensor of this name.
    #[error("tensor `{name}` is not in `{}`{hint}", path.display())]
    MissingTensor {
        /// The name that was asked for.
        name: String,
        /// The checkpoint.
        path: PathBuf,
        /// Empty, or a blank line and names that resemble it.
        hint: String,
    },
    /// A tensor has another shape than its use asks for.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// The weights are quantized in a way that is not known here.
    #[error(
        "`{}`: the quantization's `{key}` is `{found}`; known are {known}\
         \n\nhint: take the model before it was quantized, or a GGUF file of it", path.display()
    )]
    UnknownQuantization {
        /// The file that describes it.
        path: PathBuf,
        /// Which of its settings.
        key: String,
        /// What it says.
        found: String,
        /// What is known.
        known: String,
    },
    /// The stored tensors of a quantized weight do not fit each other.
    #[error("tensor `{name}`: {what}\n\nhint: the file is damaged, or quantized in another way than it says")]
    QuantizedTensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor's type cannot be decoded.
    #[error(
        "tensor `{name}`: type {found} cannot be decoded, only {supported}\n\nhint: convert the model to one of these"
    )]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// The types that can be, in this format.
        supported: String,
    },
}
