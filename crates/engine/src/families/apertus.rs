//! Apertus: a norm of each query and key head, and an MLP without a gate whose activation is learned layer by layer.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Norms, Traits};
use super::{Family, qwen3};
use crate::blueprint::{Activation, Blueprint, Mlp};
use crate::{Config, ConfigError};

/// The family.
pub(super) const FAMILY: Family =
    Family { name: "apertus", architectures: &["ApertusForCausalLM"], blueprint, gguf: None };

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), theta: 12_000_000.0, ..decoder::LLAMA };

const LEARNED: &str = "xielu";

const NORMS: Norms = Norms {
    before_attention: Some("attention_layernorm"),
    before_mlp: Some("feedforward_layernorm"),
    ..decoder::BEFORE
};

/// The rotation where the configuration does not say.
static ROTATION: LazyLock<Value> = LazyLock::new(|| {
    json!({"rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 12_000_000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }})
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let defaults = if decoder::says_how_to_rotate(config) { None } else { Some(&*ROTATION) };
    let decoder = Decoder { mlp_bias: false, ..Decoder::read(config, TRAITS, defaults)? };
    let learned = config.text("hidden_act")?.unwrap_or(LEARNED) == LEARNED;
    decoder.blueprint(|layer| {
        let attention = qwen3::attention(&decoder, layer, false)?;
        let activation = if learned { xielu(&decoder, layer)? } else { decoder.activation()? };
        let mlp = decoder.plain_with(layer, ["mlp.up_proj", "mlp.down_proj"], decoder.d_mlp, activation);
        decoder.block(layer, attention, Mlp::Dense(mlp), NORMS)
    })
}

/// The activation of a layer, made of the numbers that it has in the checkpoint.
fn xielu(decoder: &Decoder<'_>, layer: usize) -> Result<Activation, ConfigError> {
    const SLOPE: f64 = 0.5;
    let number = |name: &str| -> Result<Option<f64>, ConfigError> {
        let name = decoder.name(layer, &format!("mlp.act_fn.{name}"));
        match decoder.config.tensor_values(&name).as_deref() {
            None => Ok(None),
            Some(&[value]) if value.is_finite() => Ok(Some(f64::from(value))),
            Some(values) => Err(ConfigError::unsupported(
                &name,
                format!("{} numbers, the first {:?}", values.len(), values.first()),
                "one finite number",
            )),
        }
    };
    let needed = |name: &str| {
        let key = || decoder.name(layer, &format!("mlp.act_fn.{name}"));
        number(name)?.ok_or_else(|| ConfigError::Missing { key: key() })
    };
    if let Some(slope) = number("beta")?.filter(|&it| it != SLOPE) {
        return Err(ConfigError::unsupported(&decoder.name(layer, "mlp.act_fn.beta"), slope, SLOPE));
    }
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    Ok(Activation::Xielu {
        positive: softplus(needed("alpha_p")?) as f32,
        negative: (SLOPE + softplus(needed("alpha_n")?)) as f32,
    })
}
