//! Rotary embeddings from a checkpoint's configuration.
//!
//! Two notations are read: `rope_theta` and `rope_scaling` at the top (transformers 4), and `rope_parameters`
//! (transformers 5), the latter optionally one for each layer type.

use std::f64::consts::PI;

use crate::blueprint::{Pairing, Rope};
use crate::config::{Config, ConfigError};

/// How frequencies are changed for contexts longer than the model was trained on.
#[derive(Clone, Copy)]
enum Scaling {
    Default,
    Dynamic,
    Linear,
    Llama3,
    Yarn,
}

const SCALINGS: [(&str, Scaling); 5] = [
    ("default", Scaling::Default),
    ("linear", Scaling::Linear),
    ("dynamic", Scaling::Dynamic),
    ("llama3", Scaling::Llama3),
    ("yarn", Scaling::Yarn),
];

/// The rotary embedding of one layer type.
///
/// `theta` is the base where the configuration names none.
///
/// # Source
/// Position interpolation: Chen et al. 2023, arXiv:2306.15595. YaRN: Peng et al. 2023, arXiv:2309.00071.
/// Llama 3's rule: the Llama 3.1 model card.
pub(crate) fn rope(
    config: &Config<'_>,
    layer_type: Option<&str>,
    d_head: usize,
    theta: f64,
    pairing: Pairing,
) -> Result<Rope, ConfigError> {
    let parameters = config.section("rope_parameters");
    let parameters = match (&parameters, layer_type) {
        (Some(all), Some(layer_type)) => all.section(layer_type).or(parameters),
        _ => parameters,
    };
    let scaling = parameters.or_else(|| config.section("rope_scaling"));
    let own = |key: &str| -> Result<Option<f64>, ConfigError> {
        match &scaling {
            Some(scaling) => scaling.number(key),
            None => Ok(None),
        }
    };
    let theta = match own("rope_theta")? {
        Some(theta) => theta,
        None => config.number("rope_theta")?.unwrap_or(theta),
    };
    let share = match own("partial_rotary_factor")? {
        Some(share) => share,
        None => config.number("partial_rotary_factor")?.unwrap_or(1.0),
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(ConfigError::Unsupported {
            key: "partial_rotary_factor".to_owned(),
            found: share.to_string(),
            known: "numbers from 0 to 1".to_owned(),
        });
    }
    let rotated = (d_head as f64 * share) as usize / 2 * 2;
    let kind = match &scaling {
        None => Scaling::Default,
        Some(scaling) if scaling.get("rope_type").is_some() => {
            scaling.word("rope_type", "default", &SCALINGS)?
        }
        Some(scaling) => scaling.word("type", "default", &SCALINGS)?,
    };
    let needed =
        |key: &str| own(key)?.ok_or_else(|| ConfigError::Missing { key: format!("rope_scaling.{key}") });
    let trained_length = || -> Result<f64, ConfigError> {
        match own("original_max_position_embeddings")? {
            Some(length) => Ok(length),
            None => Ok(config.size("max_position_embeddings")? as f64),
        }
    };

    let plain = |i: usize| theta.powf(-2.0 * i as f64 / rotated as f64);
    let pairs = 0..rotated / 2;
    let (mut magnitude, mut limit) = (1.0, None);
    let frequencies: Vec<f64> = match kind {
        Scaling::Default => pairs.map(plain).collect(),
        Scaling::Dynamic => {
            // Up to the model's length they are the default ones. Past it the reference stack computes all of them
            // anew for the longest sequence of the batch, while keys already in the cache keep their old rotation:
            // an answer would depend on the company and on how its prompt was cut into passes. So it ends there.
            limit = Some(config.size("max_position_embeddings")?);
            pairs.map(plain).collect()
        }
        Scaling::Linear => {
            let factor = needed("factor")?;
            pairs.map(|i| plain(i) / factor).collect()
        }
        Scaling::Llama3 => {
            let (factor, low, high) =
                (needed("factor")?, needed("low_freq_factor")?, needed("high_freq_factor")?);
            let length = trained_length()?;
            pairs
                .map(|i| {
                    let frequency = plain(i);
                    // Turns that the pair makes over the trained length.
                    let turns = length * frequency / (2.0 * PI);
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (kept + (1.0 - kept) / factor)
                })
                .collect()
        }
        Scaling::Yarn => {
            let factor = needed("factor")?;
            magnitude =
                yarn_magnitude(factor, own("attention_factor")?, own("mscale")?, own("mscale_all_dim")?);
            let length = trained_length()?;
            let truncate = scaling.as_ref().map_or(Ok(None), |it| it.flag("truncate"))?.unwrap_or(true);
            // The pair that makes so many turns over the trained length.
            let pair_of =
                |turns: f64| rotated as f64 * (length / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) =
                (pair_of(own("beta_fast")?.unwrap_or(32.0)), pair_of(own("beta_slow")?.unwrap_or(1.0)));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(rotated as f64 - 1.0));
            if low.to_bits() == high.to_bits() {
                high += 0.001; // as the reference stack does, against a division by zero
            }
            pairs
                .map(|i| {
                    let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    plain(i) * (1.0 - stretched + stretched / factor)
                })
                .collect()
        }
    };
    Ok(Rope {
        frequencies: frequencies.into_iter().map(|it| it as f32).collect(),
        magnitude: magnitude as f32,
        pairing,
        limit,
    })
}

fn yarn_magnitude(factor: f64, given: Option<f64>, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    match (given, mscale, mscale_all_dim) {
        (Some(given), _, _) => given,
        (None, Some(a), Some(b)) if a != 0.0 && b != 0.0 => of(a) / of(b),
        _ => of(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &serde_json::Value) -> Rope {
        rope(&Config::new(value, &crate::config::NoTensors), None, 4, 10_000.0, Pairing::Halves).unwrap()
    }

    #[test]
    fn both_notations_mean_the_same() {
        let old = json!({"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}});
        let new = json!({"rope_parameters": {"rope_theta": 100.0, "rope_type": "linear", "factor": 4.0}});
        assert_eq!(read(&old), read(&new));
        assert_eq!(read(&old).frequencies, [0.25, 0.025]); // 100^0 / 4, 100^(-1/2) / 4
    }

    #[test]
    fn llama_3_keeps_fast_pairs_and_slows_slow_ones() {
        let value = json!({"rope_theta": 10_000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 100}});
        let frequencies = read(&value).frequencies;
        assert_eq!(frequencies[0], 1.0, "16 turns in 100 positions: kept");
        assert_eq!(frequencies[1], 0.01 / 8.0, "a sixth of a turn: divided by the factor");
    }

    #[test]
    fn dynamic_scaling_holds_as_long_as_the_model_does() {
        let value = json!({"max_position_embeddings": 64, "rope_theta": 100.0,
            "rope_scaling": {"type": "dynamic", "factor": 4.0}});
        assert_eq!((read(&value).frequencies, read(&value).limit), (vec![1.0, 0.1], Some(64)));
        let plain = json!({"max_position_embeddings": 64, "rope_theta": 100.0});
        assert_eq!((read(&plain).frequencies, read(&plain).limit), (vec![1.0, 0.1], None));
    }

    #[test]
    fn an_unknown_scaling_is_refused_with_the_known_ones() {
        let value = json!({"rope_scaling": {"rope_type": "spiral"}});
        let error =
            rope(&Config::new(&value, &crate::config::NoTensors), None, 4, 1e4, Pairing::Halves).unwrap_err();
        assert!(error.to_string().contains("`spiral`; known are `default`, `linear`"), "{error}");
    }

    #[test]
    fn part_of_a_head_can_be_rotated() {
        let value = json!({"partial_rotary_factor": 0.5});
        assert_eq!(read(&value).frequencies, [1.0]);
    }
}
