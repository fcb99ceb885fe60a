//! MiMo V2 Flash: values narrower than keys and multiplied with a number; layers with a window have sinks, and twice as many
//! key/value heads; a dense layer, then experts by logistic scores with a correction.
//!
//! The window is `sliding_window_size` positions and the token itself, as in the authors' SGLang and in transformers, or
//! `sliding_window` with the token among them. Which layers have windows, and which experts, is told by `layer_types` and
//! `mlp_layer_types`, or by the lists of the released configuration, which transformers does not read: its defaults are what
//! they say. Layers under `model.mtp` predict further tokens and are written as they were.

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::{Family, glm4_moe};
use crate::backend::{AttentionShape, Values};
use crate::blueprint::{Attention, Blueprint, Projection};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "mimo_v2_flash", architectures: &["MiMoV2FlashForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits =
    Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 5_000_000.0, partial: true, ..decoder::LLAMA };

/// Values for what a configuration leaves out, the rotary embeddings of both kinds of layers among them.
fn defaults(config: &Config<'_>) -> Result<Value, ConfigError> {
    let share = config.number("partial_rotary_factor")?.unwrap_or(0.334);
    let rope = |key, theta| -> Result<Value, ConfigError> {
        let theta = config.number(key)?.unwrap_or(theta);
        Ok(json!({"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share}))
    };
    Ok(json!({
        "head_dim": 192,
        "v_head_dim": 128,
        "attention_value_scale": 0.707,
        "sliding_window": 129,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "norm_topk_prob": true,
        "partial_rotary_factor": share,
        "rope_parameters": {
            decoder::FULL: rope("rope_theta", TRAITS.theta)?,
            decoder::SLIDING: rope("swa_rope_theta", 10_000.0)?,
        },
    }))
}

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let defaults = defaults(config)?;
    let decoder = Decoder::read(config, TRAITS, Some(&defaults))?;
    let config = decoder.config.without(&["rope_scaling"]);
    let decoder = Decoder { config, output_bias: false, mlp_bias: false, ..decoder };
    let config = &decoder.config;
    config.word("scoring_func", "sigmoid", &[("sigmoid", ())])?;
    config.word("topk_method", "noaux_tc", &[("noaux_tc", ())])?;
    let sparse = glm4_moe::Sparse::read(config, "n_shared_experts")?;
    let (windows, experts) = (listed(config, "hybrid_layer_pattern")?, listed(config, "moe_layer_freq")?);
    decoder.blueprint(|layer| {
        let of = |list: &Option<Vec<bool>>, otherwise| {
            list.as_ref().map_or(otherwise, |it| it.get(layer) == Some(&true))
        };
        let slides =
            decoder.slides(layer, |layer| of(&windows, layer != 0 && !(layer + 1).is_multiple_of(6)))?;
        let dense = decoder.is_dense(layer, |layer| !of(&experts, layer != 0))?;
        let mlp = if dense { decoder.gated(layer)? } else { sparse.mlp(&decoder, layer)? };
        decoder.block(layer, attention(&decoder, layer, slides)?, mlp, decoder::BEFORE)
    })
}

fn attention(decoder: &Decoder<'_>, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
    let config = &decoder.config;
    let of_windows = |key, otherwise| Ok::<_, ConfigError>(config.count(key)?.unwrap_or(otherwise));
    let d_value = config.size("v_head_dim")?;
    let (n_kv_heads, d_value, d_head) = if slides {
        let n_kv_heads = of_windows("swa_num_key_value_heads", 2 * decoder.n_kv_heads)?;
        (n_kv_heads, of_windows("swa_v_head_dim", d_value)?, of_windows("swa_head_dim", decoder.d_head)?)
    } else {
        (decoder.n_kv_heads, d_value, decoder.d_head)
    };
    if n_kv_heads == 0 || !decoder.n_heads.is_multiple_of(n_kv_heads) {
        let known = format!("the divisors of num_attention_heads = {}", decoder.n_heads);
        return Err(ConfigError::unsupported("swa_num_key_value_heads", n_kv_heads, known));
    }
    if d_head != decoder.d_head {
        return Err(ConfigError::unsupported(
            "swa_head_dim",
            d_head,
            format!("head_dim = {}", decoder.d_head),
        ));
    }
    if d_value == 0 || d_value.saturating_mul(decoder.n_heads) > decoder::WIDEST {
        return Err(ConfigError::unsupported("v_head_dim", d_value, "widths of a head's values"));
    }
    let attention = Decoder { n_kv_heads, ..*decoder }.attention(layer, slides)?;
    let window = match (slides, config.count("sliding_window_size")?) {
        (true, Some(before)) => Some(before.saturating_add(1)),
        _ => attention.shape.window,
    };
    let sinks = decoder.either(layer, ["self_attn.attention_sink_bias", "self_attn.sinks"]);
    Ok(Attention {
        shape: AttentionShape { window, values: Values::Own(d_value), ..attention.shape },
        value: Projection {
            scale: config.number("attention_value_scale")?.unwrap_or(1.0) as f32,
            outputs: n_kv_heads * d_value,
            ..attention.value
        },
        sinks: (slides || config.has_tensor(&sinks)).then_some(sinks),
        output: Projection { inputs: decoder.n_heads * d_value, ..attention.output },
        ..attention
    })
}

/// A list of zeros and ones, a number for each layer, if there is one.
fn listed(config: &Config<'_>, key: &str) -> Result<Option<Vec<bool>>, ConfigError> {
    if config.get(key).is_none_or(|it| !it.is_array()) {
        return Ok(None);
    }
    Ok(config.numbers(key)?.map(|it| it.into_iter().map(|it| it != 0.0).collect()))
}
