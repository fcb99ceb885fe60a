//! What can go wrong.

use checkpoint::adapter::AdapterError;
use checkpoint::{CheckpointError, Quantization};

use crate::backend::WeightDtype;
use crate::blueprint::PositionLimit;
use crate::config::ConfigError;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint's files are not in order.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An adapter is not in order, or not for this model.
    #[error(transparent)]
    Adapter(Box<AdapterError>),
    /// The hyper-parameters are not in order.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No family knows the architecture.
    #[error(
        "unknown architecture `{found}`\n\n\
         hint: known are {known}; `--family llama` reads it as a Llama (or as one of another family), at your risk"
    )]
    UnknownArchitecture {
        /// What the checkpoint says.
        found: String,
        /// All that the families know.
        known: String,
    },
    /// The architecture is known, and no family reads it.
    #[error("architecture `{found}` is not supported: {why}\n\nhint: {hint}")]
    UnsupportedArchitecture {
        /// What the checkpoint says.
        found: String,
        /// The reason.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The files have more blocks than the configuration counts.
    #[error(
        "the model's configuration: `{key}` is {said}, the files have tensors of {found} blocks, `{tensor}` is one\n\n\
         hint: set `{key}` to {found}; if the model is meant to be shorter, save it without these tensors"
    )]
    MoreBlocks {
        /// How many blocks the configuration counts.
        said: usize,
        /// How many the files have.
        found: usize,
        /// A tensor of one that is too many.
        tensor: String,
        /// The key of the configuration.
        key: &'static str,
    },
    /// A quantized weight is stored with inputs as rows.
    #[error(
        "tensor `{tensor}` is quantized and stored as `[inputs, outputs]`, which cannot be read row by row\n\n\
         hint: take the model before it was quantized"
    )]
    Transposed {
        /// The tensor.
        tensor: String,
    },
    /// There is no family of this name.
    #[error("unknown family `{found}`\n\nhint: known are {known}")]
    UnknownFamily {
        /// What was asked for.
        found: String,
        /// All families.
        known: String,
    },
    /// A weight is infinite or not a number.
    #[error(
        "tensor `{tensor}`: the weight at row {row}, column {column} is `{value}`\n\n\
         hint: the file is damaged, or was saved after a training run that diverged; download it again"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// What stands there.
        value: f32,
    },
    /// A weight is so large that the scale of its block is beyond half precision.
    #[error(
        "tensor `{tensor}`, row {row}: weights of up to {value:e} have no place in {} blocks\n\n\
         hint: leave out --quantize; the file may be damaged",
        quantization.name()
    )]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// The row's largest magnitude.
        value: f32,
        /// The kind of blocks.
        quantization: Quantization,
    },
    /// Products in bf16 were asked for, and quantized weights.
    #[error(
        "weights in {} blocks for products in bf16\n\nhint: quantized weights are multiplied in f32; leave one of \
         the two at its default",
        quantization.name()
    )]
    QuantizedArithmetic {
        /// What weights were to be kept in.
        quantization: Quantization,
    },
    /// Products in bf16 were asked for, and weights, and weights in another precision.
    #[error(
        "weights in {} for products in bf16\n\nhint: products in bf16 need weights in bf16; leave one of the two at \
         its default",
        dtype.name()
    )]
    Arithmetic {
        /// What weights were to be kept in.
        dtype: WeightDtype,
    },
    /// More threads were asked for than the machine has use of.
    #[error(
        "{threads} threads on {cores} cores: at most {most} are started\n\nhint: 0 means one for each core"
    )]
    TooManyThreads {
        /// How many were asked for.
        threads: usize,
        /// How many cores there are.
        cores: usize,
        /// How many threads are allowed.
        most: usize,
    },
    /// The threads of the back end could not be started.
    #[error("starting {threads} threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}

impl From<AdapterError> for LoadError {
    fn from(error: AdapterError) -> Self {
        Self::Adapter(Box::new(error))
    }
}

/// Why a request cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A sequence without tokens has no next token.
    #[error("request {request}: the prompt has no tokens")]
    EmptyPrompt {
        /// The request's place in the list.
        request: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("request {request}: token {token} is outside the vocabulary of {vocab} tokens")]
    UnknownToken {
        /// The request's place in the list.
        request: usize,
        /// The token.
        token: u32,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// A sequence for which the model would be another one.
    #[error(
        "request {request}: position {position} of {}, where {}\n\n\
         hint: shorten the prompt, or ask for fewer new tokens",
        limit.positions, limit.cause
    )]
    TooLong {
        /// The request's place in the list.
        request: usize,
        /// The last position that would have to be computed, from 0.
        position: usize,
        /// How many positions there are, and why.
        limit: PositionLimit,
    },
    /// An edit index that was not set.
    #[error("request {request}: edit set {edit} does not exist; there are {sets} and 0, the original")]
    UnknownEdit {
        /// The request's place in the list.
        request: usize,
        /// The index asked for.
        edit: usize,
        /// How many edit sets there are.
        sets: usize,
    },
    /// An edit of a writer that the model does not have.
    #[error("edit set {set}: the model has no writer `{writer}`")]
    UnknownWriter {
        /// The edit set's index.
        set: usize,
        /// The writer.
        writer: String,
    },
    /// An edit whose width is not that of the residual stream.
    #[error("edit set {set}, writer `{writer}`: expected width {expected}, found {found}")]
    EditWidth {
        /// The edit set's index.
        set: usize,
        /// The writer.
        writer: String,
        /// d_model.
        expected: usize,
        /// The edit's width.
        found: usize,
    },
    /// A continuation without tokens has nothing to score.
    #[error("request {request}: the continuation has no tokens")]
    EmptyContinuation {
        /// The request's place in the list.
        request: usize,
    },
}
