//! Hugging Face folders: `config.json`, weights in safetensors files, text assets beside them.
//!
//! A safetensors file is the length of its header (8 bytes, little-endian), the header in JSON (name, type, shape
//! and byte range of each tensor) and the tensor data, which the ranges cover without gap or overlap.

mod error;
mod folder;
mod header;

pub use error::SafetensorsError;
pub(crate) use folder::{Weights, files_with_extension, read_config, read_tensors, read_weights};
pub use header::{Header, TensorInfo};
