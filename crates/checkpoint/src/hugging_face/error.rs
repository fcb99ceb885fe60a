//! What can be wrong with a safetensors file.

/// Why bytes are not a safetensors file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file is too short to say how long its header is.
    #[error("the file has {found} bytes, a safetensors file has at least 8{HINT}")]
    TooShort {
        /// The size of the file in bytes.
        found: usize,
    },
    /// The header would end behind the end of the file.
    #[error("the header takes {expected} bytes, {found} follow its length{HINT}")]
    HeaderExceedsFile {
        /// The length that the file says, in bytes.
        expected: u64,
        /// How many bytes there are.
        found: usize,
    },
    /// The header is longer than the format allows.
    #[error("the header takes {found} bytes, at most {limit} are allowed")]
    HeaderTooLong {
        /// The length that the file says, in bytes.
        found: u64,
        /// The format's limit, in bytes.
        limit: u64,
    },
    /// The header is not UTF-8.
    #[error("the header is not valid UTF-8 from its byte {valid_up_to} on")]
    NotUtf8 {
        /// How many bytes are fine, from the header's start.
        valid_up_to: usize,
    },
    /// The header is not the JSON that it should be: broken, a type unknown, a name twice.
    #[error("header: {0}")]
    Json(serde_json::Error),
    /// The size of a tensor does not fit into this machine's integers.
    #[error("tensor `{name}`: the size of shape {shape:?} overflows")]
    SizeOverflow {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The range of a tensor is not as long as its shape and type say.
    #[error("tensor `{name}`: {dtype} {shape:?} takes {expected} bytes, its range {start}..{end} does not")]
    Size {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many bytes these take.
        expected: usize,
        /// Where its range starts, in bytes from the start of the data.
        start: usize,
        /// Where its range ends.
        end: usize,
    },
    /// Ranges overlap or leave a gap.
    #[error("tensor `{name}` starts at byte {found} of the data, the one before it ends at {expected}")]
    Offset {
        /// The tensor.
        name: String,
        /// Where the one before it ends, in bytes from the start of the data.
        expected: usize,
        /// Where it starts.
        found: usize,
    },
    /// The file is shorter than its tensors.
    #[error("the file has {found} bytes, its tensors end at byte {expected}{HINT}")]
    Truncated {
        /// The size that the file should have, in bytes.
        expected: u64,
        /// The size that it has.
        found: usize,
    },
    /// The file goes on after its last tensor.
    #[error("the file has {found} bytes, {surplus} more than its tensors")]
    Surplus {
        /// The size of the file in bytes.
        found: usize,
        /// How many bytes belong to no tensor.
        surplus: u64,
    },
}

const HINT: &str = "\n\nhint: an interrupted download looks like this, fetch the file again";
