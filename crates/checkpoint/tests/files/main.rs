//! Checkpoints seen from outside: what is read from good files, and one test for each way a file can be broken.

mod folders;
mod folders_malformed;
mod gguf_builder;
mod gguf_malformed;
mod gguf_parts;
mod gguf_read;
mod quantized;
mod quantized_malformed;
mod round_trips;
mod safetensors_malformed;
mod tensors;
mod text_assets;
mod write_folders;
mod write_gguf;
