//! OLMo 2 and 3: both branches write through a norm and read the stream itself; norms over all queries and over all
//! keys. OLMo 3 adds windows, and scales the rotation of the layers without one only.

use serde_json::Value;

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "olmo",
    architectures: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["olmo2"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| gguf::stored(name, gguf::NORMS_AROUND),
    }),
};

const TRAITS: Traits = Traits {
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 500_000.0,
    local_theta: Some(("rope_theta", 500_000.0)),
    ..decoder::LLAMA
};

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const PATTERN: usize = 4;
    // Only OLMo 3 has windows, whatever the configuration of OLMo 2 says.
    let second = config.architecture() == "Olmo2ForCausalLM";
    let traits = if second { Traits { theta: 10_000.0, local_theta: None, ..TRAITS } } else { TRAITS };
    let decoder = Decoder::read(config, traits, None)?;
    let windows = !second && config.count("sliding_window")?.is_some();
    decoder.blueprint(|layer| {
        let slides = windows && decoder.slides(layer, |layer| !(layer + 1).is_multiple_of(PATTERN))?;
        decoder.block(layer, attention(&decoder, layer, slides)?, decoder.gated(layer)?, decoder::AFTER)
    })
}

/// A layer's attention, with norms over all queries and over all keys.
pub(super) fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    Ok(Attention {
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.n_heads * decoder.d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.n_kv_heads * decoder.d_head)?),
        ..decoder.attention(layer, slides)?
    })
}
