//! What can be wrong with a GGUF file.

use crate::TensorDtype;

/// Why bytes are not a GGUF file that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with `{}`, expected `GGUF`", found.escape_ascii())]
    BadMagic {
        /// The bytes in the magic's place.
        found: [u8; 4],
    },
    /// The version is that of a file written in big-endian order.
    #[error(
        "the GGUF file is big-endian, only little-endian files are read\n\n\
         hint: convert the model again on or for a little-endian machine"
    )]
    BigEndian,
    /// Only versions 2 and 3 are read.
    #[error("GGUF version {found} is not supported, expected 2 or 3\n\nhint: convert the model again")]
    UnsupportedVersion {
        /// The version in the file.
        found: u32,
    },
    /// The header goes on where the file has ended.
    #[error(
        "the file ends inside its header: {reading} at byte {offset} takes {needed} bytes, {available} are left\
         \n\nhint: an interrupted download looks like this, fetch the file again"
    )]
    UnexpectedEnd {
        /// What was being read.
        reading: &'static str,
        /// Where it starts, in bytes from the start of the file.
        offset: usize,
        /// How many bytes it takes.
        needed: u64,
        /// How many bytes the file still has there.
        available: usize,
    },
    /// A count claims more than the rest of the file can hold.
    #[error("{count} {things} are announced, the {available} bytes that follow cannot hold them")]
    CountExceedsFile {
        /// What is counted.
        things: &'static str,
        /// How many, as the file says.
        count: u64,
        /// How many bytes follow.
        available: usize,
    },
    /// A count is within the file's size but beyond anything sensible.
    #[error("the header holds more than {limit} {things}")]
    TooMany {
        /// What is counted.
        things: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// A string is not UTF-8.
    #[error("{reading} at byte {offset} is not valid UTF-8")]
    NotUtf8 {
        /// Which string.
        reading: &'static str,
        /// Where it starts, in bytes from the start of the file.
        offset: usize,
    },
    /// A metadata key appears twice.
    #[error("metadata key `{key}` appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata value has a type that the format does not define.
    #[error("metadata key `{key}`: value type {found} is unknown, expected 0 to 12")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The number in the type's place.
        found: u32,
    },
    /// A boolean is neither 0 nor 1.
    #[error("metadata key `{key}`: expected a boolean 0 or 1, found {found}")]
    BadBool {
        /// The key.
        key: String,
        /// The byte in its place.
        found: u8,
    },
    /// Arrays within arrays within arrays.
    #[error("metadata key `{key}`: arrays are nested more than {limit} deep")]
    NestedTooDeep {
        /// The key.
        key: String,
        /// The depth that is accepted.
        limit: usize,
    },
    /// The alignment is no power of two.
    #[error("metadata key `general.alignment`: expected a power of two as a 32-bit number, found `{found}`")]
    BadAlignment {
        /// The value.
        found: String,
    },
    /// Two tensors have one name.
    #[error("tensor `{name}` appears twice")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A tensor has more dimensions than the format allows.
    #[error("tensor `{name}`: expected at most {limit} dimensions, found {found}")]
    TooManyDimensions {
        /// The tensor.
        name: String,
        /// How many the format allows.
        limit: usize,
        /// How many the file says.
        found: u32,
    },
    /// The size of a tensor does not fit into this machine's integers.
    #[error("tensor `{name}`: the size of shape {shape:?} overflows")]
    SizeOverflow {
        /// The tensor.
        name: String,
        /// Its dimensions as stored, fastest first.
        shape: Vec<u64>,
    },
    /// A row is not a whole number of blocks.
    #[error("tensor `{name}`: rows of {row_len} numbers are not whole {dtype} blocks of {block}")]
    PartialBlock {
        /// The tensor.
        name: String,
        /// Its last dimension.
        row_len: usize,
        /// Its type.
        dtype: TensorDtype,
        /// How many numbers a block holds.
        block: usize,
    },
    /// A tensor does not start at a multiple of the alignment.
    #[error("tensor `{name}`: offset {offset} is not a multiple of the alignment {alignment}")]
    MisalignedOffset {
        /// The tensor.
        name: String,
        /// Its offset, in bytes from the start of the tensor data.
        offset: u64,
        /// The file's alignment in bytes.
        alignment: u64,
    },
    /// A tensor ends behind the end of the file.
    #[error(
        "the file has {found} bytes, but tensor `{name}` ends at byte {expected}\
         \n\nhint: an interrupted download looks like this, fetch the file again"
    )]
    Truncated {
        /// The tensor that ends last.
        name: String,
        /// Where it ends: the size that the file should at least have, in bytes.
        expected: u64,
        /// The size that the file has, in bytes.
        found: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
}
