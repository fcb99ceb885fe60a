//! GLM 4 (0414): norms before and after both branches, one tensor of gate and up projection, neighbouring pairs of
//! a part of each head rotated.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Norms, Traits};
use super::gguf::{self, Gguf};
use crate::blueprint::{Blueprint, Pairing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "glm4",
    architectures: &["Glm4ForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["glm4"],
        config: |metadata, architecture| gguf::decoder_config(metadata, architecture).map(Value::Object),
        tensor: |_, name| {
            let norms = [
                ("post_self_attn_layernorm", "post_attention_norm"),
                ("post_mlp_layernorm", "post_ffw_norm"),
            ];
            gguf::stored(name, &norms)
        },
    }),
};

pub(super) const TRAITS: Traits = Traits { pairing: Pairing::Neighbors, partial: true, ..decoder::LLAMA };

const NORMS: Norms = Norms {
    after_attention: Some("post_self_attn_layernorm"),
    after_mlp: Some("post_mlp_layernorm"),
    ..decoder::BEFORE
};

pub(super) static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"partial_rotary_factor": 0.5}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { output_bias: false, ..Decoder::read(config, TRAITS, Some(&DEFAULTS))? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        decoder.block(layer, attention, decoder.gated_in_one(layer)?, NORMS)
    })
}
