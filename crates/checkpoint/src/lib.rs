//! Model files as they lie on the disk: named tensors, hyper-parameters and the text assets beside them.
//!
//! Two formats: a Hugging Face folder (`config.json`, safetensors shards, tokenizer files) and a GGUF file.
//! This room knows nothing of model families, devices or text: it says what is there, maps it into memory and
//! turns rows of weights into f32. What a tensor means is the engine's business, what a template means that of
//! `prompts`.

/// A named tensor of a checkpoint: a view of mapped memory that is decoded row by row.
pub struct Tensor;
