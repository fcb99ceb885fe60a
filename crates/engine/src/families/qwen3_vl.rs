//! The language models of Qwen 3 VL, dense and with experts: Qwen 3 within a container with an image tower. Text has one
//! position a token, so that the three that images have are the same.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::experts::EITHER;
use super::{Family, qwen3, qwen3_moe};
use crate::blueprint::{Blueprint, Mlp, Routing};
use crate::{Config, ConfigError};

/// Without experts.
pub(super) const DENSE: Family = Family {
    name: "qwen3_vl",
    architectures: &["Qwen3VLForConditionalGeneration"],
    blueprint: dense_blueprint,
    gguf: None,
};

/// With experts.
pub(super) const SPARSE: Family = Family {
    name: "qwen3_vl_moe",
    architectures: &["Qwen3VLMoeForConditionalGeneration"],
    blueprint: sparse_blueprint,
    gguf: None,
};

const TRAITS: Traits = Traits { theta: 500_000.0, ..decoder::LLAMA };

/// What a container leaves out where it is the usual value.
static DENSE_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
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

static SPARSE_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 128_000,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 4,
        "num_experts": 60,
    })
});

fn dense_blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&DENSE_DEFAULTS))?;
    decoder.blueprint(|layer| {
        let attention = qwen3::attention(&decoder, layer, false)?;
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::BEFORE)
    })
}

fn sparse_blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, TRAITS, Some(&SPARSE_DEFAULTS))?;
    let text = &decoder.config;
    let (routing, dense) = (qwen3_moe::routing(text)?, qwen3_moe::Dense::read(text)?);
    let routing = Routing { normalized: true, ..routing };
    let width = text.size("moe_intermediate_size")?;
    decoder.blueprint(|layer| {
        let mlp = if dense.has(layer) {
            decoder.gated(layer)?
        } else {
            Mlp::Experts(decoder.experts_as(EITHER, layer, width, routing)?)
        };
        decoder.block(layer, qwen3::attention(&decoder, layer, false)?, mlp, decoder::BEFORE)
    })
}
