//! Qwen 3: Llama with a norm of each query and key head.

use serde_json::Value;

use super::decoder::{self, Decoder};
use super::gguf::{self, Gguf};
use super::{Family, qwen2};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["qwen3"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, &[]),
    }),
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, None)?;
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
