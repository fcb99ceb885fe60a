//! Qwen 3: Llama with a norm of each query and key head. Alone, or the language model of a container with an image tower.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use super::{Family, qwen2};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen3"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

/// In a container.
const HELD: Traits = Traits { theta: 500_000.0, ..decoder::LLAMA };

// The language model of a container writes down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 128_000,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let held = config.section("vision_config").is_some();
    let (traits, defaults) = if held { (HELD, Some(&*DEFAULTS)) } else { (decoder::LLAMA, None) };
    let decoder = Decoder::read(config, traits, defaults)?;
    decoder.blueprint(|layer| {
        let attention = attention(&decoder, layer, qwen2::slides(&decoder, layer)?)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}

/// Attention with a norm of each query and key head.
pub(super) fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    Ok(Attention {
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.d_head)?),
        ..decoder.attention(layer, slides)?
    })
}
