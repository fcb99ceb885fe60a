//! Laguna: attention with norms of heads and a gate of each head or number, as many heads as a list says for each layer, some
//! layers with a window; experts by logistic scores with a correction, and one for every token.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Attention, Blueprint, Experts, GateActivation, Mlp, OutputGate, Routing, Scores};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "laguna", architectures: &["LagunaForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { partial: true, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "head_dim": 128,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "sliding_window": 512,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "rope_parameters": {
            decoder::FULL: {"rope_type": "default", "rope_theta": 500_000.0, "partial_rotary_factor": 0.5},
            decoder::SLIDING: {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
        },
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, Some(&DEFAULTS))? };
    // Only what is said for each kind of layer counts.
    let decoder =
        Decoder { config: decoder.config.without(&["rope_scaling", "partial_rotary_factor"]), ..decoder };
    let config = &decoder.config;
    decoder::refuse_flag(config, "moe_apply_router_weight_on_input")?;
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        softcap: config.number("moe_router_logit_softcapping")?.filter(|it| *it > 0.0).map(|it| it as f32),
        scores: Scores::Sigmoid,
        groups: None,
        normalized: true,
        scale: config.number("moe_routed_scaling_factor")?.unwrap_or(1.0) as f32,
    };
    let by_number = gates_numbers(config)?;
    decoder.blueprint(|layer| {
        let dense = decoder.is_dense(layer, |layer| layer == 0)?;
        let mlp = if dense { decoder.gated(layer)? } else { sparse(&decoder, layer, routing)? };
        let n_heads = heads_of_layer(&decoder, layer)?;
        let attention = attention(&Decoder { n_heads, ..decoder }, layer, by_number)?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

/// Whether there is a gate for each number of attention's output, and not for each head.
fn gates_numbers(config: &Config<'_>) -> Result<bool, ConfigError> {
    const KINDS: &[(&str, bool)] = &[("per-head", false), ("per-element", true)];
    match config.get("gating") {
        None | Some(Value::Bool(true)) => Ok(false),
        Some(Value::Bool(false)) => {
            Err(ConfigError::unsupported("gating", "false", "`true`, `per-head`, `per-element`"))
        }
        Some(_) => config.word("gating", "per-head", KINDS),
    }
}

/// How many query heads a layer has.
fn heads_of_layer(decoder: &Decoder<'_>, layer: usize) -> Result<usize, ConfigError> {
    const KEY: &str = "num_attention_heads_per_layer";
    let Some(list) = decoder.config.list(KEY)? else { return Ok(decoder.n_heads) };
    let known = || format!("multiples of num_key_value_heads = {}", decoder.n_kv_heads);
    let found = list.get(layer).and_then(Value::as_u64).map(|it| it as usize);
    let fits = |it: &usize| {
        *it > 0
            && it.is_multiple_of(decoder.n_kv_heads)
            && it.saturating_mul(decoder.d_head) <= decoder::WIDEST
    };
    found.filter(fits).ok_or_else(|| {
        let found = list.get(layer).map_or_else(|| "nothing".to_owned(), Value::to_string);
        ConfigError::unsupported(&format!("{KEY}[{layer}]"), found, known())
    })
}

fn attention(decoder: &Decoder<'_>, layer: usize, by_number: bool) -> Result<Attention, ConfigError> {
    let slides = decoder.slides(layer, |_| false)?;
    let gates = decoder.n_heads * if by_number { decoder.d_head } else { 1 };
    let gate = decoder.projection(layer, "self_attn.g_proj", false, gates, decoder.d_model);
    Ok(Attention {
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.d_head)?),
        gate: Some(OutputGate { parts: vec![gate], activation: GateActivation::Softplus }),
        ..decoder.attention(layer, slides)?
    })
}

fn sparse(decoder: &Decoder<'_>, layer: usize, routing: Routing) -> Result<Mlp, ConfigError> {
    let config = &decoder.config;
    let correction = ["mlp.experts.e_score_correction_bias", "mlp.gate.e_score_correction_bias"];
    let shared =
        decoder.either_module(layer, ["mlp.shared_expert", "mlp.shared_experts"], "down_proj.weight");
    Ok(Mlp::Experts(Experts {
        correction: Some(decoder.either(layer, correction)),
        shared: decoder.shared(layer, shared, config.size("shared_expert_intermediate_size")?)?,
        ..decoder.experts(layer, config.size("moe_intermediate_size")?, routing)?
    }))
}
