//! Gemma 3: Gemma 2 with a norm of each query and key head, without soft caps, and with two rotary embeddings, one
//! for the layers with a window and one for the others. Alone, or the language model of a container with an image
//! tower.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Traits};
use super::gguf::{self, Gguf};
use super::{Family, gemma2};
use crate::backend::AttentionShape;
use crate::blueprint::{Attention, Blueprint};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["gemma3"],
        config: gguf_config,
        tensor: |_, name| gguf::stored(name, gguf::NORMS_AROUND),
    }),
};

const LOCAL_THETA: (&str, f64) = ("rope_local_base_freq", 10_000.0);

pub(super) const TRAITS: Traits =
    Traits { theta: 1_000_000.0, local_theta: Some(LOCAL_THETA), ..gemma2::GEMMA };

// The language model of a container writes down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    const PATTERN: usize = 6;
    let decoder = gemma2::read(config, TRAITS, &DEFAULTS)?;
    let pattern = decoder.config.count("sliding_window_pattern")?.unwrap_or(PATTERN);
    let blueprint = decoder.blueprint(|layer| {
        let slides = decoder.slides(layer, |layer| !(layer + 1).is_multiple_of(pattern))?;
        let attention = Attention {
            query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.d_head)?),
            key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.d_head)?),
            ..gemma2::attention(&decoder, layer, slides)?
        };
        // Scores are not capped, whatever the configuration says.
        let shape = AttentionShape { softcap: None, ..attention.shape };
        let attention = Attention { shape, ..attention };
        decoder.block(layer, attention, decoder.gated(layer)?, decoder::AROUND)
    })?;
    let mut blueprint = gemma2::finish(&decoder, blueprint)?;
    // In a container logits are not capped, whatever the configuration says.
    if config.architecture() == "Gemma3ForConditionalGeneration" {
        blueprint.head.softcap = None;
    }
    Ok(blueprint)
}

fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    const LAYERS_OF_27B: u64 = 62;
    let mut config = gemma2::gguf_config(metadata, architecture, LAYERS_OF_27B)?;
    if let Some(theta) = metadata.get(format!("{architecture}.rope.freq_base_swa")) {
        config[LOCAL_THETA.0] = theta.clone();
    }
    // No window at all, where the file has no size of one.
    if config.get("sliding_window").is_none() {
        config["sliding_window_pattern"] = json!(1);
    }
    Ok(config)
}
