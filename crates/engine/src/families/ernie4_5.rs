//! ERNIE 4.5, dense and with experts: neighbouring pairs are rotated, one switch for all biases; experts
//! by their part of the softmax, chosen with a correction, and one for every token.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Family;
use super::decoder::{self, Decoder, Traits};
use crate::blueprint::{Blueprint, Experts, Mlp, Pairing, Routing};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "ernie4_5",
    architectures: &["Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM"],
    blueprint,
    gguf: None,
};

const TRAITS: Traits = Traits {
    epsilon: ("rms_norm_eps", 1e-5),
    theta: 500_000.0,
    pairing: Pairing::Neighbors,
    tied: true,
    ..decoder::LLAMA
};

/// Of the dense models only: heads are no part of `hidden_size / num_attention_heads` there.
static DENSE_DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"head_dim": 128}));

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "num_key_value_heads": 4,
        "moe_intermediate_size": 1536,
        "moe_k": 6,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": -1,
        "moe_layer_interval": 1,
        "moe_norm_min": 1e-12,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    // The two architectures have no key in common that only one of them must have.
    let with_experts = config.text("model_type")?.is_some_and(|it| it.contains("moe"))
        || config.get("moe_num_experts").is_some();
    let defaults: &Value = if with_experts { &DEFAULTS } else { &DENSE_DEFAULTS };
    let decoder = Decoder::read(config, TRAITS, Some(defaults))?;
    let biases = config.flag("use_bias")?.unwrap_or(false);
    let decoder = Decoder { qkv_bias: biases, output_bias: biases, mlp_bias: biases, ..decoder };
    let sparse = if with_experts { Some(Sparse::read(&decoder)?) } else { None };
    let mut blueprint = decoder.blueprint(|layer| {
        let mlp = match &sparse {
            Some(sparse) if sparse.has(layer) => sparse.mlp(&decoder, layer)?,
            _ => decoder.gated(layer)?,
        };
        decoder.block(layer, decoder.attention(layer, false)?, mlp, decoder::BEFORE)
    })?;
    blueprint.head.bias = (biases && with_experts).then(|| "lm_head.bias".to_owned());
    Ok(blueprint)
}

/// The layers with experts.
struct Sparse {
    first: usize,
    last: usize,
    interval: usize,
    width: usize,
    shared: usize,
    routing: Routing,
}

impl Sparse {
    fn read(decoder: &Decoder<'_>) -> Result<Self, ConfigError> {
        // Shares are divided by their sum, or by this where the sum is less; no sum of shares comes near.
        const SMALLEST_SUM: f64 = 1e-6;
        let config = &decoder.config;
        let least = config.number("moe_norm_min")?.unwrap_or(0.0);
        if least > SMALLEST_SUM {
            return Err(ConfigError::unsupported("moe_norm_min", least, format!("up to {SMALLEST_SUM}")));
        }
        let end = config.number("moe_layer_end_index")?.unwrap_or(-1.0);
        let width = config.size("moe_intermediate_size")?;
        Ok(Self {
            first: config.count("moe_layer_start_index")?.unwrap_or(0),
            last: if end < 0.0 { decoder.n_layers - 1 } else { end as usize },
            interval: config.size("moe_layer_interval")?,
            width,
            shared: config.count("moe_num_shared_experts")?.unwrap_or(0).saturating_mul(width),
            routing: Routing::by_softmax(config.size("moe_k")?),
        })
    }

    fn has(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.interval) && (self.first..=self.last).contains(&layer)
    }

    fn mlp(&self, decoder: &Decoder<'_>, layer: usize) -> Result<Mlp, ConfigError> {
        Ok(Mlp::Experts(Experts {
            correction: Some(decoder.either(
                layer,
                ["mlp.moe_statics.e_score_correction_bias", "mlp.gate.moe_statics.e_score_correction_bias"],
            )),
            shared: decoder.shared(layer, "mlp.shared_experts", self.shared)?,
            ..decoder.experts(layer, self.width, self.routing)?
        }))
    }
}
