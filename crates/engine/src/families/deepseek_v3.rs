//! DeepSeek V3 and R1, Kimi K2, Moonlight: latent attention; dense layers, then experts by logistic scores, and one for
//! every token.
//!
//! Layers past the last one predict further tokens; the reference stack does not use them, and they are kept as they are.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use super::latent::{by_logistic_scores, pairing, refuse_alternation};
use crate::blueprint::Blueprint;
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "deepseek_v3", architectures: &["DeepseekV3ForCausalLM"], blueprint, gguf: None };

/// What transformers' `DeepseekV3Config` has where a configuration is silent.
pub(super) static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_interleave": true,
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "n_group": 8,
        "topk_group": 4,
        "norm_topk_prob": true,
        "routed_scaling_factor": 2.5,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, decoder::LLAMA, Some(&DEFAULTS))? };
    let config = &decoder.config;
    refuse_alternation(config)?;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let (routing, pairing) = (by_logistic_scores(config)?, pairing(config)?);
    decoder.blueprint(|layer| {
        let mlp = if layer < dense { decoder.gated(layer)? } else { decoder.sparse(layer, routing)? };
        decoder.block(layer, decoder.latent_attention(layer, pairing)?, mlp, decoder::BEFORE)
    })
}
