//! Ministral 3: Llama with YaRN, alone or the language model of a container with an image tower.
//!
//! Past the length of its training the scores grow with the position; sequences end there.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "ministral3", architectures: &["Ministral3ForCausalLM"], blueprint, gguf: None };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 131_072,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 34,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-5,
    })
});

static DEFAULTS_WITH_ROPE: LazyLock<Value> =
    LazyLock::new(|| with_yarn(&DEFAULTS, 1_000_000.0, 16.0, 16_384));

/// Defaults with the rotary embedding that models of this line have where nothing is said of it.
pub(super) fn with_yarn(defaults: &Value, theta: f64, factor: f64, original: usize) -> Value {
    let mut defaults = defaults.clone();
    defaults["rope_parameters"] = json!({
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    });
    defaults
}

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let defaults: &Value = if decoder::says_how_to_rotate(config) { &DEFAULTS } else { &DEFAULTS_WITH_ROPE };
    let decoder = Decoder::read(config, decoder::LLAMA, Some(defaults))?;
    decoder.blueprint(|layer| {
        let attention = decoder.attention(layer, true)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}
