//! Model files as they lie on the disk: named tensors, hyper-parameters and the text assets beside them.
//!
//! Two formats: a Hugging Face folder (`config.json`, safetensors shards, tokenizer files) and a GGUF file.
//! This room knows nothing of model families, devices or text: it says what is there, maps it into memory, turns
//! rows of weights into f32 and f32 into quantized blocks. What a tensor means is the engine's business, what a
//! template means that of `prompts`. [`mod@write`] puts the same files out again with some tensors replaced.
//!
//! Files come from strangers. Every length and offset in them is checked before it is used, no count in a file
//! decides how much memory is reserved, and whatever is wrong is an error that names the file and the thing.

pub mod adapter;
mod checkpoint;
mod decode;
mod dtype;
mod error;
mod foreign;
pub mod gguf;
pub mod hugging_face;
mod json;
pub mod links;
mod mapped_file;
mod quantize;
mod quantized;
mod tensor;
mod text_assets;
pub mod write;

pub use checkpoint::{Checkpoint, Format, StoredTensor};
pub use dtype::TensorDtype;
pub use error::CheckpointError;
pub use quantize::{Quantization, SuperBlock};
pub use tensor::Tensor;
pub use text_assets::{TextAssets, TokenizerSource};
