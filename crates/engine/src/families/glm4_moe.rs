//! GLM 4.5 and 4.6, Solar Open: dense layers, then experts by logistic scores with a correction, and one for every token; in
//! GLM a part of each head is rotated, in some models after a norm.
//!
//! Layers past the last one predict further tokens; the reference stack does not use them, and they are written as they were.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::gguf::{self, Gguf};
use super::{Family, experts};
use crate::blueprint::{Attention, Blueprint, Experts, Groups, Mlp, Norm, Routing, Scores};
use crate::{Config, ConfigError};

/// GLM.
pub(super) const FAMILY: Family = Family {
    name: "glm4_moe",
    architectures: &["Glm4MoeForCausalLM"],
    blueprint,
    gguf: Some(Gguf {
        architectures: &["glm4moe"],
        config: gguf_config,
        tensor: |_, name| gguf::stored(name, &[("post_attention_layernorm", "post_attention_norm")]),
    }),
};

/// Solar.
pub(super) const SOLAR: Family = Family {
    name: "solar_open",
    architectures: &["SolarOpenForCausalLM"],
    blueprint: solar_blueprint,
    gguf: None,
};

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), partial: true, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "partial_rotary_factor": 0.5,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": true,
    })
});

static SOLAR_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut defaults = DEFAULTS.clone();
    defaults["partial_rotary_factor"] = json!(1.0);
    defaults["moe_intermediate_size"] = json!(1280);
    defaults["head_dim"] = json!(128);
    // Of dense layers, which there are none of.
    defaults["intermediate_size"] = json!(1);
    defaults
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder { output_bias: false, ..Decoder::read(config, TRAITS, Some(&DEFAULTS))? };
    let dense = config.count("first_k_dense_replace")?.unwrap_or(1);
    // GGUF files say it only by the tensors that they have.
    let there = || config.has_tensor("model.layers.0.self_attn.q_norm.weight");
    let head_norms = config.flag("use_qk_norm")?.unwrap_or_else(there);
    let head_norm = |layer, name| -> Result<Option<Norm>, ConfigError> {
        head_norms.then(|| decoder.norm(layer, name, decoder.d_head)).transpose()
    };
    let sparse = Sparse::read(&decoder.config, "n_shared_experts")?;
    decoder.blueprint(|layer| {
        let attention = Attention {
            query_norm: head_norm(layer, "self_attn.q_norm")?,
            key_norm: head_norm(layer, "self_attn.k_norm")?,
            ..decoder.attention(layer, false)?
        };
        let mlp = if layer < dense { decoder.gated(layer)? } else { sparse.mlp(&decoder, layer)? };
        decoder.block(layer, attention, mlp, decoder::BEFORE)
    })
}

fn solar_blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let traits = Traits { theta: 1_000_000.0, ..TRAITS };
    let decoder = Decoder { output_bias: false, ..Decoder::read(config, traits, Some(&SOLAR_DEFAULTS))? };
    let sparse = Sparse::read(&decoder.config, "n_shared_experts")?;
    decoder.blueprint(|layer| {
        let mlp = sparse.mlp(&decoder, layer)?;
        decoder.block(layer, decoder.attention(layer, false)?, mlp, decoder::BEFORE)
    })
}

/// Experts by logistic scores with a correction, among groups chosen by the two best of each, as in DeepSeek 3; and one for
/// every token.
pub(super) struct Sparse {
    routing: Routing,
    width: usize,
    /// Width of the expert for every token.
    shared: usize,
}

impl Sparse {
    /// `shared` is the key that says how many experts' width the one for every token has.
    pub(super) fn read(config: &Config<'_>, shared: &str) -> Result<Self, ConfigError> {
        let groups = |key: &str| Ok::<_, ConfigError>(config.count(key)?.unwrap_or(1));
        let width = config.size("moe_intermediate_size")?;
        Ok(Self {
            routing: experts::in_groups(
                config,
                Scores::Sigmoid,
                Groups { count: groups("n_group")?, chosen: groups("topk_group")?, best: 2 },
            )?,
            width,
            shared: config.count(shared)?.unwrap_or(0).saturating_mul(width),
        })
    }

    /// A layer's MLP.
    pub(super) fn mlp(&self, decoder: &Decoder<'_>, layer: usize) -> Result<Mlp, ConfigError> {
        let correction = ["mlp.gate.e_score_correction_bias", "mlp.e_score_correction_bias"];
        Ok(Mlp::Experts(Experts {
            correction: Some(decoder.either(layer, correction)),
            shared: decoder.shared(layer, "mlp.shared_experts", self.shared)?,
            ..decoder.experts(layer, self.width, self.routing)?
        }))
    }
}

/// The files count the layers that predict further tokens.
fn gguf_config(metadata: &Value, architecture: &str) -> Result<Value, ConfigError> {
    let mut config = gguf::decoder_config(metadata, architecture)?;
    let count = |key: &str| metadata.get(format!("{architecture}.{key}")).and_then(Value::as_u64);
    if let (Some(all), Some(further)) = (count("block_count"), count("nextn_predict_layers")) {
        config.insert("num_hidden_layers".to_owned(), json!(all.saturating_sub(further)));
    }
    Ok(Value::Object(config))
}
