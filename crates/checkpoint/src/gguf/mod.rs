//! GGUF files: one file (or several numbered parts) with metadata and tensors.
//!
//! Layout, everything little-endian: the magic `GGUF`, the version, the number of tensors, the number of metadata
//! entries, the entries (key, type, value), the tensor infos (name, dimensions with the fastest first, type,
//! offset), padding to the alignment, the tensor data. Versions 2 and 3 are the same in little-endian order;
//! version 1 had 32-bit counts and is refused, as are the rare big-endian files.
//!
//! [`Header::parse`] works on bytes and knows no files; `parts` finds and reads split files.

mod cursor;
mod error;
mod header;
mod metadata;
pub(crate) mod parts;
mod stored_type;

pub use error::GgufError;
pub use header::{Header, TensorInfo};
pub(crate) use metadata::entry_ranges;
pub use stored_type::StoredType;

/// The first four bytes of a GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
