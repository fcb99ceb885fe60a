//! GLM 4.7 Flash: DeepSeek V3 with a list of which layers have experts.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::latent::{by_logistic_scores, pairing};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "glm4_moe_lite", architectures: &["Glm4MoeLiteForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "rope_interleave": true,
        "n_routed_experts": 64,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": true,
        "routed_scaling_factor": 1.8,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, Some(&DEFAULTS))? };
    let config = &decoder.config;
    let (routing, pairing) = (by_logistic_scores(config)?, pairing(config)?);
    decoder.blueprint(|layer| {
        // Where there is no list, the first layer alone is dense.
        let dense = decoder.is_dense(layer, |layer| layer == 0)?;
        let mlp = if dense { decoder.gated(layer)? } else { decoder.sparse(layer, routing)? };
        decoder.block(layer, decoder.latent_attention(layer, pairing)?, mlp, decoder::BEFORE)
    })
}
