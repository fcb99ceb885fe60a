//! Mistral 4: the attention of DeepSeek V3, and experts by softmax scores after a choice among groups of them, alone or the
//! language model of a container with an image tower.
//!
//! Past the length of its training the scores grow with the position; sequences end there.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder};
use super::latent::pairing;
use super::{Family, experts, ministral3};
use crate::blueprint::{Blueprint, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "mistral4", architectures: &["Mistral4ForCausalLM"], blueprint, gguf: None };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 131_072,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 1_048_576,
        "rms_norm_eps": 1e-6,
        "kv_lora_rank": 256,
        "q_lora_rank": 1024,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_interleave": true,
        "first_k_dense_replace": 0,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 2048,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": true,
        "routed_scaling_factor": 1.0,
    })
});

static DEFAULTS_WITH_ROPE: LazyLock<Value> =
    LazyLock::new(|| ministral3::with_yarn(&DEFAULTS, 10_000.0, 128.0, 8192));

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let defaults: &Value = if decoder::says_how_to_rotate(config) { &DEFAULTS } else { &DEFAULTS_WITH_ROPE };
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, decoder::LLAMA, Some(defaults))? };
    let config = &decoder.config;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let routing = experts::in_told_groups(config, Scores::Softmax)?;
    let (shape, pairing) = (decoder.latent_shape()?, pairing(config)?);
    // The share of whole queries that is rotated may be written down or not.
    let parameters = crate::rope::said(config);
    let sections = parameters.into_iter().chain([*config]);
    let said = sections.map(|it| it.number("partial_rotary_factor")).collect::<Result<Vec<_>, _>>()?;
    let said = said.into_iter().any(|it| it.is_some());
    let rope = decoder.latent_rope(&shape, pairing, if said { shape.d_query() } else { shape.d_rope })?;
    decoder.blueprint(|layer| {
        let mlp = if layer < dense { decoder.gated(layer)? } else { decoder.sparse(layer, routing)? };
        let attention = decoder.latent_attention_with(layer, shape, rope.clone())?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}
