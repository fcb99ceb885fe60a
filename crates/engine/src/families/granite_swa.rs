//! Granite with sliding windows: Granite, dense or with experts, whose attention has sinks, a window in most layers, and in
//! each layer a rotary base of its own.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, FULL, Traits};
use super::{Family, granite, granitemoe};
use crate::blueprint::{Attention, Blueprint};
use crate::rope::rope_of_base;
use crate::{Config, ConfigError};

/// The family of dense models.
pub(super) const FAMILY: Family = Family {
    name: "granite_swa",
    architectures: &["GraniteSWAForCausalLM"],
    blueprint: |config| {
        let decoder = Decoder::read(config, TRAITS, Some(&DEFAULTS))?;
        granite::multiplied(&decoder, |layer| attention(&decoder, layer), |layer| decoder.gated(layer))
    },
    gguf: None,
};

/// The family of models with experts.
pub(super) const SPARSE: Family = Family {
    name: "granitemoe_swa",
    architectures: &["GraniteMoeSWAForCausalLM"],
    blueprint: sparse,
    gguf: None,
};

const TRAITS: Traits = Traits { epsilon: ("rms_norm_eps", 1e-5), tied: true, ..decoder::LLAMA };

static DEFAULTS: LazyLock<Value> = LazyLock::new(|| json!({"sliding_window": 128}));

fn sparse(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read(config, decoder::LLAMA, Some(&DEFAULTS))?;
    granite::multiplied(
        &decoder,
        |layer| attention(&decoder, layer),
        |layer| granitemoe::mlp(&decoder, layer),
    )
}

fn attention(decoder: &Decoder<'_>, layer: usize) -> Result<Attention, ConfigError> {
    const EVERY: usize = 4;
    let slides = decoder.slides(layer, |layer| !layer.is_multiple_of(EVERY))?;
    let mut attention = decoder.attention(layer, slides)?;
    attention.sinks = Some(decoder.name(layer, "self_attn.sinks"));
    if let Some(theta) = base(&decoder.config, layer)? {
        let pairing = decoder.traits.pairing;
        let rope = || rope_of_base(&decoder.config, FULL, decoder.d_head, theta, pairing, false);
        // A base of zero is how files say that a layer does not rotate.
        attention.rope = if theta == 0.0 { None } else { Some(rope()?) };
    }
    Ok(attention)
}

/// The rotary base of a layer, where there is one for each.
fn base(config: &Config<'_>, layer: usize) -> Result<Option<f64>, ConfigError> {
    const KEY: &str = "layer_rope_theta";
    let Some(list) = config.list(KEY)? else { return Ok(None) };
    let entry = list.get(layer);
    match entry.and_then(Value::as_f64).filter(|it| *it >= 0.0) {
        Some(theta) => Ok(Some(theta)),
        None if entry.is_some_and(Value::is_null) => Ok(Some(0.0)),
        None => Err(ConfigError::unsupported(
            &format!("{KEY}[{layer}]"),
            entry.map_or("nothing for this layer".to_owned(), Value::to_string),
            "a base, or 0 for a layer that does not rotate",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoTensors;

    #[test]
    fn a_base_of_zero_or_null_does_not_rotate_and_a_missing_one_is_refused() {
        let value = json!({"layer_rope_theta": [500, 0, 0.0, null, -1.0, "x"]});
        let config = Config::new(&value, &NoTensors);
        let bases: Vec<_> = (0..4).map(|layer| base(&config, layer).unwrap()).collect();
        assert_eq!(bases, [Some(500.0), Some(0.0), Some(0.0), Some(0.0)]);
        for (layer, found) in [(4, "-1.0"), (5, "\"x\""), (6, "nothing")] {
            let error = base(&config, layer).unwrap_err().to_string();
            assert!(
                error.contains(&format!("layer_rope_theta[{layer}]")) && error.contains(found),
                "{error}"
            );
        }
        assert_eq!(base(&Config::new(&json!({}), &NoTensors), 0), Ok(None));
    }
}
