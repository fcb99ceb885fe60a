//! DeepSeek V3.2 and GLM 5: DeepSeek V3 whose attention is sparse. An indexer chooses `index_topk` positions for each token;
//! up to that many there are no others, and attention is that of DeepSeek V3. Longer sequences are refused.
//!
//! The tensors of the indexer take no part, and are written as they were, as are layers past the last one.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::latent::{by_logistic_scores, refuse_alternation};
use super::{Family, deepseek_v3};
use crate::blueprint::{Blueprint, LatentAttention, Pairing};
use crate::config::kind_of_layer;
use crate::{Config, ConfigError};

/// The family of DeepSeek V3.2.
pub(super) const FAMILY: Family = Family {
    name: "deepseek_v32",
    architectures: &["DeepseekV32ForCausalLM"],
    blueprint: |config| blueprint(config, decoder::LLAMA, &DEFAULTS),
    gguf: None,
};

/// The family of GLM 5. Which layers choose positions of their own, and which take those of the layer before, makes no
/// difference where all are chosen.
pub(super) const GLM: Family = Family {
    name: "glm_moe_dsa",
    architectures: &["GlmMoeDsaForCausalLM"],
    blueprint: |config| {
        let traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };
        blueprint(config, traits, &GLM_DEFAULTS)
    },
    gguf: None,
};

/// Those of DeepSeek V3, and how many positions are chosen.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = deepseek_v3::DEFAULTS.clone();
    defaults["index_topk"] = json!(2048);
    defaults
});

static GLM_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = DEFAULTS.clone();
    for (key, value) in [("q_lora_rank", 2048), ("qk_nope_head_dim", 192), ("v_head_dim", 256)] {
        defaults[key] = json!(value);
    }
    defaults["n_group"] = json!(1);
    defaults["topk_group"] = json!(1);
    defaults
});

/// Kinds of layers, as transformers 5 names them, and as its first versions did.
const LAYERS: &[(&str, ())] = &[("indexed_attention", ()), ("deepseek_sparse_attention", ())];

fn blueprint(config: &Config<'_>, traits: Traits, defaults: &Value) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, traits, Some(defaults))? };
    let config = &decoder.config;
    refuse_alternation(config)?;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let types = config.list("layer_types")?;
    let routing = by_logistic_scores(config)?;
    let chosen = Some(config.size("index_topk")?);
    decoder.blueprint(|layer| {
        if let Some(types) = types {
            kind_of_layer(types, "layer_types", layer, LAYERS)?;
        }
        let dense = decoder.is_dense(layer, |layer| layer < dense)?;
        let mlp = if dense { decoder.gated(layer)? } else { decoder.sparse(layer, routing)? };
        let attention = LatentAttention { chosen, ..decoder.latent_attention(layer, Pairing::Neighbors)? };
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
