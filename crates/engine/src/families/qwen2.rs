//! Qwen 2 and 2.5: Llama with biases of queries, keys and values, and windows from some layer on where they are
//! switched on.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &["Qwen2ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen2"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder =
        Decoder { qkv_bias: true, output_bias: false, ..Decoder::read(config, decoder::LLAMA, None)? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, slides(&decoder, layer)?)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}

/// Whether a layer has a window: those from `max_window_layers` on, if windows are switched on at all.
pub(super) fn slides(decoder: &Decoder<'_>, layer: usize) -> Result<bool, ConfigError> {
    const FIRST: usize = 28; // the reference stack's default
    let switched_on = decoder.config.flag("use_sliding_window")? == Some(true);
    let first = decoder.config.count("max_window_layers")?.unwrap_or(FIRST);
    Ok(switched_on && decoder.slides(layer, |layer| layer >= first)?)
}
