//! Mistral 4: the attention of DeepSeek V3, and experts by softmax scores after a choice among groups of them, alone or the
//! language model of a container with an image tower.
//!
//! Past the length of its training the scores grow with the position; sequences end there.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use super::latent::pairing;
use crate::blueprint::{Blueprint, Groups, Routing, Scores};
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

static DEFAULTS_WITH_ROPE: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = DEFAULTS.clone();
    defaults["rope_parameters"] = json!({
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    });
    defaults
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let text = config.section("text_config").unwrap_or(*config);
    let rotates =
        ["rope_parameters", "rope_scaling", "rope_theta"].into_iter().any(|it| text.get(it).is_some());
    let defaults: &Value = if rotates { &DEFAULTS } else { &DEFAULTS_WITH_ROPE };
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, decoder::LLAMA, Some(defaults))? };
    let config = &decoder.config;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        scores: Scores::Softmax,
        groups: Some(Groups { count: config.size("n_group")?, chosen: config.size("topk_group")?, best: 2 }),
        normalized: config.flag("norm_topk_prob")?.unwrap_or(false),
        scale: config.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
    };
    let (shape, pairing) = (decoder.latent_shape()?, pairing(config)?);
    // The share of whole queries that is rotated may be written down or not.
    let parameters = ["rope_parameters", "rope_scaling"].into_iter().find_map(|it| config.section(it));
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
