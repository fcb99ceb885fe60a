//! DeepSeek V2 and V2 Lite: latent attention; dense layers, then experts by softmax scores, some of which every token is
//! sent to.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder};
use super::latent::refuse_alternation;
use crate::blueprint::{Blueprint, Groups, Pairing, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "deepseek_v2", architectures: &["DeepseekV2ForCausalLM"], blueprint, gguf: None };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "first_k_dense_replace": 0,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "moe_intermediate_size": 1407,
        "routed_scaling_factor": 1.0,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, Some(&DEFAULTS))?;
    let config = &decoder.config;
    refuse_alternation(config)?;
    let dense = config.count("first_k_dense_replace")?.unwrap_or(0);
    let routing = routing(config)?;
    decoder.blueprint(|layer| {
        let mlp = if layer < dense { decoder.gated(layer)? } else { decoder.sparse(layer, routing)? };
        let attention = decoder.latent_attention(layer, Pairing::Neighbors)?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

/// Shares are never made to add up to one: the reference stack does not read `norm_topk_prob`.
fn routing(config: &Config<'_>) -> Result<Routing, ConfigError> {
    config.word("scoring_func", "softmax", &[("softmax", ())])?;
    let limited =
        config.word("topk_method", "greedy", &[("greedy", false), ("group_limited_greedy", true)])?;
    let mut chosen = config.size("num_experts_per_tok")?;
    let mut groups = None;
    if limited {
        let (count, kept) = (config.size("n_group")?, config.size("topk_group")?);
        // More than are left of the groups would have a share of zero.
        chosen = chosen.min(config.size("n_routed_experts")? / count * kept);
        groups = Some(Groups { count, chosen: kept, best: 1 });
    }
    Ok(Routing {
        chosen,
        softcap: None,
        scores: Scores::Softmax,
        groups,
        normalized: false,
        scale: config.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
    })
}
