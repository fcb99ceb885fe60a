//! Seed-OSS: Llama with biases of queries, keys and values, and a switch of its own for that of attention's writer.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "seed-oss", architectures: &["SeedOssForCausalLM"], blueprint, gguf: None };

static DEFAULTS: LazyLock<Value> =
    LazyLock::new(|| json!({"head_dim": 128, "num_key_value_heads": 8, "attention_bias": true}));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let output_bias = config.flag("attention_out_bias")?.unwrap_or(false);
    let decoder = Decoder { output_bias, ..Decoder::read(config, decoder::LLAMA, Some(&DEFAULTS))? };
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, false)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}
