//! Step 3.7: attention with norms of heads and a gate of each head, more heads in the layers with a window; dense layers, then
//! experts by logistic scores with a correction, and one for every token; in some layers hidden numbers are cut off.
//!
//! The released configuration has lists with an entry for each layer, and entries for further layers, which predict further
//! tokens: they are not used, and written as they were.

use serde_json::{Map, Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::experts::STEP;
use crate::backend::AttentionShape;
use crate::blueprint::{
    Activation, Attention, Blueprint, Experts, FeedForward, GateActivation, Mlp, OutputGate, Routing, Scores,
};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "step3p7", architectures: &["Step3p7ForConditionalGeneration"], blueprint, gguf: None };

const TRAITS: Traits =
    Traits { epsilon: ("rms_norm_eps", 1e-5), gain_offset: 1.0, partial: true, ..decoder::LLAMA };

/// Keys that say in another way what [`defaults`] says for each kind of layer.
const ROTATION: &[&str] = &["rope_theta", "rope_scaling", "partial_rotary_factor"];

/// Values for what a configuration leaves out, or has under the names of the released model.
fn defaults(config: &Config<'_>) -> Result<Value, ConfigError> {
    let count = |key: &str, otherwise| Ok::<_, ConfigError>(config.count(key)?.unwrap_or(otherwise));
    Ok(json!({
        "head_dim": 128,
        "num_key_value_heads": count("num_attention_groups", 8)?,
        "n_routed_experts": count("moe_num_experts", 288)?,
        "num_experts_per_tok": count("moe_top_k", 8)?,
        "moe_intermediate_size": 1280,
        "share_expert_dim": count("share_expert_dims", 1280)?,
        "max_position_embeddings": config.count("max_seq_len")?,
        "rope_parameters": ropes(config)?,
    }))
}

/// The rotary embedding of each kind of layer, of which every layer of a kind says the same; scaling is that of layers
/// without a window.
fn ropes(config: &Config<'_>) -> Result<Value, ConfigError> {
    let of_layer = |key: &str, layer| match config.get(key) {
        Some(Value::Array(list)) => list.get(layer).cloned(),
        other => other.cloned(),
    };
    let types = config.list("layer_types")?;
    let first = |kind: &str| types.map_or(Some(0), |it| it.iter().position(|it| it.as_str() == Some(kind)));
    let mut ropes = Map::new();
    for kind in [decoder::FULL, decoder::SLIDING] {
        let Some(layer) = first(kind) else { continue };
        let mut rope = json!({
            "rope_type": "default",
            "rope_theta": of_layer("rope_theta", layer).unwrap_or(json!(10_000.0)),
            "partial_rotary_factor": of_layer("partial_rotary_factors", layer).unwrap_or(json!(1.0)),
        });
        if let (decoder::FULL, Some(Value::Object(scaling))) = (kind, config.get("rope_scaling")) {
            rope.as_object_mut().expect("made above").extend(scaling.clone());
        }
        ropes.insert(kind.to_owned(), rope);
    }
    Ok(Value::Object(ropes))
}

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let text = config.section("text_config").unwrap_or(*config);
    let defaults = defaults(&text)?;
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, Some(&defaults))? };
    let decoder = Decoder { config: decoder.config.without(ROTATION), ..decoder };
    let config = &decoder.config;
    decoder::refuse_flag(config, "use_bidirectional_attention")?;
    let routing = Routing {
        chosen: config.size("num_experts_per_tok")?,
        softcap: None,
        scores: Scores::Sigmoid,
        groups: None,
        normalized: true,
        scale: config.number("moe_router_scaling_factor")?.unwrap_or(1.0) as f32,
    };
    let listed = layers_with_experts(config)?;
    decoder.blueprint(|layer| {
        let has_experts = |layer| listed.as_ref().map_or(layer >= 3, |it| it.contains(&layer));
        let mlp = if decoder.is_dense(layer, |layer| !has_experts(layer))? {
            Mlp::Dense(FeedForward {
                activation: activation(config, "swiglu_limits_shared", layer)?,
                ..decoder.gated_in(layer, "mlp", decoder.d_mlp)?
            })
        } else {
            sparse(&decoder, layer, routing)?
        };
        let slides = decoder.slides(layer, |_| false)?;
        let n_heads = heads_of_layer(&decoder, layer, slides)?;
        let attention = attention(&Decoder { n_heads, ..decoder }, layer, slides)?;
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

/// The layers with experts, numbers in a list or in a text, where the configuration has one of them.
fn layers_with_experts(config: &Config<'_>) -> Result<Option<Vec<usize>>, ConfigError> {
    const KEY: &str = "moe_layers_enum";
    let unknown = |found: &str| ConfigError::unsupported(KEY, found, "numbers of layers");
    let numbers: Vec<Option<usize>> = match config.get(KEY) {
        None => return Ok(None),
        Some(Value::String(text)) => {
            let items = text.split(',').map(str::trim).filter(|it| !it.is_empty());
            items.map(|it| it.parse().ok()).collect()
        }
        Some(Value::Array(list)) => list.iter().map(|it| it.as_u64().map(|it| it as usize)).collect(),
        Some(other) => return Err(unknown(&other.to_string())),
    };
    let all: Option<Vec<usize>> = numbers.into_iter().collect();
    all.map(Some).ok_or_else(|| unknown("something else"))
}

/// How many query heads a layer has.
fn heads_of_layer(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<usize, ConfigError> {
    const KEY: &str = "num_attention_heads";
    let config = &decoder.config;
    let own = config.section("per_layer_config");
    let own = own.and_then(|it| it.section(&layer.to_string())).map_or(Ok(None), |it| it.count(KEY))?;
    let of_windows = || -> Result<Option<usize>, ConfigError> {
        let named = config.count("num_sliding_attention_heads")?;
        let other = config.section("attention_other_setting").map_or(Ok(None), |it| it.count(KEY))?;
        Ok(named.or(other).filter(|_| slides))
    };
    let n_heads = own.or(of_windows()?).unwrap_or(decoder.n_heads);
    let wide = n_heads.saturating_mul(decoder.d_head) > decoder::WIDEST;
    if n_heads == 0 || wide || !n_heads.is_multiple_of(decoder.n_kv_heads) {
        let known = format!("multiples of num_key_value_heads = {}", decoder.n_kv_heads);
        return Err(ConfigError::unsupported(&format!("{KEY} of layer {layer}"), n_heads, known));
    }
    Ok(n_heads)
}

fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    let attention = decoder.attention(layer, slides)?;
    let scalar = decoder.config.number("query_pre_attn_scalar")?;
    let shape = AttentionShape {
        scale: scalar.map_or(attention.shape.scale, |it| (1.0 / it.sqrt()) as f32),
        ..attention.shape
    };
    let gate = decoder.projection(layer, "self_attn.g_proj", false, decoder.n_heads, decoder.d_model);
    Ok(Attention {
        shape,
        query_norm: Some(decoder.norm(layer, "self_attn.q_norm", decoder.d_head)?),
        key_norm: Some(decoder.norm(layer, "self_attn.k_norm", decoder.d_head)?),
        gate: Some(OutputGate { parts: vec![gate], activation: GateActivation::Sigmoid }),
        ..attention
    })
}

fn sparse(decoder: &Decoder<'_>, layer: usize, routing: Routing) -> Result<Mlp, ConfigError> {
    let config = &decoder.config;
    let of_shared = activation(config, "swiglu_limits_shared", layer)?;
    let shared = decoder.either_module(layer, ["share_expert", "mlp.shared_experts"], "down_proj.weight");
    let shared = decoder.shared(layer, shared, config.size("share_expert_dim")?)?;
    let experts = decoder.experts_as(STEP, layer, config.size("moe_intermediate_size")?, routing)?;
    let activation = activation(config, "swiglu_limits", layer)?;
    let correction = ["moe.router_bias", "mlp.gate.e_score_correction_bias"];
    Ok(Mlp::Experts(Experts {
        correction: Some(decoder.either(layer, correction)),
        shared: shared.map(|it| FeedForward { activation: of_shared, ..it }),
        experts: experts.experts.into_iter().map(|it| FeedForward { activation, ..it }).collect(),
        ..experts
    }))
}

/// `SiLU`, cut off where a list has a number other than zero for the layer.
fn activation(config: &Config<'_>, key: &str, layer: usize) -> Result<Activation, ConfigError> {
    let plain = config.word("hidden_act", "silu", &[("silu", Activation::Silu)])?;
    let limit = match config.list(key)?.map(|it| it.get(layer)) {
        None | Some(Some(Value::Null)) => return Ok(plain),
        Some(found) => found.and_then(Value::as_f64).filter(|it| *it >= 0.0).ok_or_else(|| {
            let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
            ConfigError::unsupported(&format!("{key}[{layer}]"), found, "numbers from 0, and null")
        })?,
    };
    Ok(if limit > 0.0 { Activation::CappedSilu { limit: limit as f32 } } else { plain })
}
