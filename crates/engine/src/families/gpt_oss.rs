//! gpt-oss: experts with biases and an activation that is cut off, attention with sinks, a window in every second layer, YaRN.
//!
//! The released models hold their experts in microscaled blocks of 4 bits, which are widened on loading.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use super::experts::ALTERNATING;
use super::gguf::{self, Gguf, Stored};
use crate::blueprint::{Activation, Attention, Blueprint, Experts, Mlp, Projection, Routing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "gpt_oss",
    architectures: &["GptOssForCausalLM"],
    blueprint,
    gguf: Some(Gguf { architectures: &["gpt-oss"], config: gguf_config, tensor: gguf_tensor }),
};

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 150_000.0, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "head_dim": 64,
        "sliding_window": 128,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    })
});

static DEFAULTS_WITH_ROPE: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = DEFAULTS.clone();
    defaults["rope_parameters"] = json!({
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": false,
        "original_max_position_embeddings": 4096,
    });
    defaults
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let scaled = crate::rope::said(config).is_some();
    let defaults: &Value = if scaled { &DEFAULTS } else { &DEFAULTS_WITH_ROPE };
    let decoder = Decoder::read(config, TRAITS, Some(defaults))?;
    let config = &decoder.config;
    let routing = Routing::by_softmax(config.size("num_experts_per_tok")?);
    let number = |key: &str| -> Result<f32, ConfigError> {
        let missing = || ConfigError::Missing { key: key.to_owned() };
        Ok(config.limit(key)?.ok_or_else(missing)? as f32)
    };
    decoder.activation()?; // that of the experts is another, but an unknown name means an unknown model
    let activation =
        Activation::ClampedSilu { steepness: number("swiglu_alpha")?, limit: number("swiglu_limit")? };
    decoder.blueprint(|layer| {
        let slides = decoder.slides(layer, |layer| layer.is_multiple_of(2))?;
        let attention = Attention {
            sinks: Some(decoder.name(layer, "self_attn.sinks")),
            ..decoder.attention(layer, slides)?
        };
        let mut experts = decoder.experts_as(ALTERNATING, layer, decoder.d_mlp, routing)?;
        for expert in &mut experts.experts {
            expert.activation = activation;
        }
        let bias = Some(decoder.name(layer, "mlp.router.bias"));
        let mlp = Experts { router: Projection { bias, ..experts.router }, ..experts };
        decoder.block(layer, attention, Mlp::Experts(mlp), decoder::BEFORE)
    })
}

/// The files do not say it; it is part of the architecture.
fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    if let Some(Value::Object(scaling)) = config.get_mut("rope_scaling") {
        scaling.insert("truncate".to_owned(), json!(false));
    }
    if let Some(width) = config.get("moe_intermediate_size").cloned() {
        config.insert("intermediate_size".to_owned(), width);
    }
    Ok(Value::Object(config))
}

fn gguf_tensor(_: &Value, name: &str) -> Option<Stored> {
    if let Some(layer) = name.strip_prefix("model.layers.").and_then(|it| it.strip_suffix(".self_attn.sinks"))
    {
        return Some(Stored { name: format!("blk.{layer}.attn_sinks.weight"), row_order: None });
    }
    let otherwise = [("mlp.router", "ffn_gate_inp"), ("post_attention_layernorm", "post_attention_norm")];
    gguf::stored(name, &otherwise)
}
