//! Qwen 2 and 2.5: Llama with biases of queries, keys and values, and windows from some layer on where they are
//! switched on. Alone, or the language model of a container with an image tower.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architectures: &[
        "Qwen2ForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
    ],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen2"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

/// In a container.
const HELD: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 1_000_000.0, ..decoder::LLAMA };

// The language model of a container writes down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 152_064,
        "hidden_size": 8192,
        "intermediate_size": 29_568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32_768,
        "sliding_window": 4096,
        "max_window_layers": 80,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let held = config.section("vision_config").is_some();
    let (traits, defaults) = if held { (HELD, Some(&*DEFAULTS)) } else { (decoder::LLAMA, None) };
    let decoder = Decoder { qkv_bias: true, output_bias: false, ..Decoder::read(config, traits, defaults)? };
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
