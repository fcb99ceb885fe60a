//! Youtu-LLM: the attention of DeepSeek V3, and dense layers.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::latent::pairing;
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "youtu", architectures: &["YoutuForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { tied: true, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_interleave": true,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, Some(&DEFAULTS))? };
    let pairing = pairing(&decoder.config)?;
    decoder.blueprint(|layer| {
        let attention = decoder.latent_attention(layer, pairing)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}
