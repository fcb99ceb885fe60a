//! Rotary embeddings from a checkpoint's configuration.
//!
//! Two notations are read: `rope_theta` and `rope_scaling` at the top (transformers 4), and `rope_parameters`
//! (transformers 5), the latter optionally one for each layer type. Where a file has both, `rope_scaling` counts and
//! nothing of `rope_parameters` does, as in transformers.
//!
//! Where a model's rotation would begin to depend on the length of the sequence, the embedding ends
//! ([`Rope::limit`]): keys already in the cache keep their old rotation, so an answer would depend on the company and
//! on how its prompt was cut into passes.

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
    Long,
    Proportional,
    Yarn,
}

const SCALINGS: [(&str, Scaling); 9] = [
    ("default", Scaling::Default),
    ("linear", Scaling::Linear),
    ("dynamic", Scaling::Dynamic),
    ("llama3", Scaling::Llama3),
    ("yarn", Scaling::Yarn),
    ("longrope", Scaling::Long),
    ("su", Scaling::Long),
    ("proportional", Scaling::Proportional),
    // Positions of images in three dimensions; those of text are the same in all.
    ("mrope", Scaling::Default),
];

/// What a configuration says of the rotation apart from numbers at its top, in either notation; nothing is what an empty
/// object says.
pub(crate) fn said<'a>(config: &Config<'a>) -> Option<Config<'a>> {
    config.section("rope_scaling").filter(|it| !it.is_empty()).or_else(|| config.section("rope_parameters"))
}

/// The parameters of one layer type, in either notation.
struct Parameters<'a> {
    config: Config<'a>,
    scaling: Option<Config<'a>>,
    /// Whether other layer types have parameters of their own.
    of_layer_type: bool,
}

impl<'a> Parameters<'a> {
    fn read(config: &Config<'a>, layer_type: &str) -> Result<Self, ConfigError> {
        let scaling = match said(config) {
            Some(all) if all.holds_sections() => Some(
                all.section(layer_type)
                    .ok_or_else(|| ConfigError::Missing { key: format!("rope_parameters.{layer_type}") })?,
            ),
            all => all,
        };
        let of_layer_type = said(config).is_some_and(|it| it.holds_sections());
        Ok(Self { config: *config, scaling, of_layer_type })
    }

    fn kind(&self) -> Result<Scaling, ConfigError> {
        match &self.scaling {
            None => Ok(Scaling::Default),
            Some(scaling) if scaling.get("rope_type").is_some() => {
                scaling.word("rope_type", "default", &SCALINGS)
            }
            Some(scaling) => scaling.word("type", "default", &SCALINGS),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.scaling.as_ref().map_or(Ok(None), |it| it.number(key))
    }

    /// A number that may stand at the top as well.
    fn number_or_top(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        Ok(self.number(key)?.or(self.config.number(key)?))
    }

    fn needed(&self, key: &str) -> Result<f64, ConfigError> {
        self.number(key)?.ok_or_else(|| ConfigError::Missing { key: format!("rope_scaling.{key}") })
    }

    /// Positions before the context was made longer.
    fn trained_length(&self) -> Result<f64, ConfigError> {
        const KEY: &str = "original_max_position_embeddings";
        // One at the top counts more, as in transformers, but for parameters of layer types.
        let top = if self.of_layer_type { None } else { self.config.number(KEY)? };
        match top.or(self.number(KEY)?) {
            Some(length) if length > 1.0 => Ok(length),
            Some(length) => {
                Err(ConfigError::unsupported("original_max_position_embeddings", length, "numbers above 1"))
            }
            None => Ok(self.config.size("max_position_embeddings")? as f64),
        }
    }
}

/// A rotary embedding of whole heads, not scaled.
pub(crate) fn plain_rope(d_head: usize, theta: f64, pairing: Pairing) -> Rope {
    let frequency = |i: usize| theta.powf(-2.0 * i as f64 / d_head as f64) as f32;
    Rope { frequencies: (0..d_head / 2).map(frequency).collect(), magnitude: 1.0, pairing, limit: None }
}

/// The rotary embedding of one layer type.
///
/// `theta` is the base where the configuration names none; `partial`: whether models of this architecture rotate a part of
/// each head where the configuration says so. The others do not look at `partial_rotary_factor`.
///
/// # Source
/// Position interpolation: Chen et al. 2023, arXiv:2306.15595. YaRN: Peng et al. 2023, arXiv:2309.00071. LongRoPE:
/// Ding et al. 2024, arXiv:2402.13753, with the short factors only.
/// Llama 3's rule: the Llama 3.1 model card.
pub(crate) fn rope(
    config: &Config<'_>,
    layer_type: &str,
    d_head: usize,
    theta: f64,
    pairing: Pairing,
    partial: bool,
) -> Result<Rope, ConfigError> {
    let theta = Parameters::read(config, layer_type)?.number_or_top("rope_theta")?.unwrap_or(theta);
    rope_of_base(config, layer_type, d_head, theta, pairing, partial)
}

/// The rotary embedding of one layer type with this base, whichever one the configuration names.
pub(crate) fn rope_of_base(
    config: &Config<'_>,
    layer_type: &str,
    d_head: usize,
    theta: f64,
    pairing: Pairing,
    partial: bool,
) -> Result<Rope, ConfigError> {
    let parameters = Parameters::read(config, layer_type)?;
    let own = |key: &str| parameters.number(key);
    let needed = |key: &str| parameters.needed(key);
    let trained_length = || parameters.trained_length();
    let said = parameters.number_or_top("partial_rotary_factor")?.unwrap_or(1.0);
    let share = match parameters.kind()? {
        Scaling::Default if !partial => 1.0,
        // This kind means parts of heads.
        Scaling::Proportional => said,
        _ if !partial && said < 1.0 => {
            return Err(ConfigError::unsupported(
                "partial_rotary_factor",
                said,
                "1: models of this architecture rotate whole heads",
            ));
        }
        _ => said,
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(ConfigError::unsupported("partial_rotary_factor", share, "numbers from 0 to 1"));
    }
    // Where that is an odd number, the reference stack rotates one more, at frequencies for as many as that.
    let rotated = (d_head as f64 * share) as usize;
    let plain = |i: usize| theta.powf(-2.0 * i as f64 / rotated as f64);
    let count = rotated.div_ceil(2).min(d_head / 2);
    let pairs = 0..count;
    let (mut magnitude, mut limit) = (1.0, None);
    let frequencies: Vec<f64> = match parameters.kind()? {
        Scaling::Default => pairs.map(plain).collect(),
        Scaling::Dynamic => {
            // Up to the model's length they are the default ones. Past it the reference stack computes all of them
            // anew for the longest sequence of the batch.
            limit = Some(config.size("max_position_embeddings")?);
            pairs.map(plain).collect()
        }
        Scaling::Long => {
            // A list of divisors for sequences up to the trained length, another one for longer ones.
            let length = trained_length()?;
            limit = Some(length as usize);
            let factor = match own("factor")? {
                Some(factor) => factor,
                None => config.size("max_position_embeddings")? as f64 / length,
            };
            let stretched = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / length.ln()).sqrt() };
            magnitude = own("attention_factor")?.unwrap_or(stretched);
            let divisors = short_factors(parameters.scaling.as_ref(), count)?;
            pairs.zip(divisors).map(|(i, divisor)| plain(i) / divisor).collect()
        }
        Scaling::Proportional => {
            // The frequencies of whole heads; the slower ones are not rotated at all.
            let factor = own("factor")?.unwrap_or(1.0);
            let rotated = (share * d_head as f64 / 2.0) as usize;
            let frequency = |i: usize| theta.powf(-2.0 * i as f64 / d_head as f64) / factor;
            (0..d_head / 2).map(|i| if i < rotated { frequency(i) } else { 0.0 }).collect()
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
            let truncate =
                parameters.scaling.as_ref().map_or(Ok(None), |it| it.flag("truncate"))?.unwrap_or(true);
            // The pair that makes so many turns over the trained length.
            let pair_of =
                |turns: f64| rotated as f64 * (length / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (fast, slow) = (own("beta_fast")?.unwrap_or(32.0), own("beta_slow")?.unwrap_or(1.0));
            let (low, high) = yarn_ramp(pair_of(fast), pair_of(slow), truncate, rotated);
            pairs
                .map(|i| {
                    let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    plain(i) * (1.0 - stretched + stretched / factor)
                })
                .collect()
        }
    };
    // Scores that grow with the position: not before the trained length.
    if own("llama_4_scaling_beta")?.is_some_and(|it| it != 0.0) {
        limit = Some(trained_length()? as usize);
    }
    Ok(Rope {
        frequencies: frequencies.into_iter().map(|it| it as f32).collect(),
        magnitude: magnitude as f32,
        pairing,
        limit,
    })
}

/// What models with latent attention multiply their scores with, besides the usual, because of their rotary scaling:
/// the square of YaRN's magnitude for `mscale_all_dim`, whichever kind of scaling it is.
pub(crate) fn score_scale(config: &Config<'_>, layer_type: &str) -> Result<f64, ConfigError> {
    let parameters = Parameters::read(config, layer_type)?;
    let mscale = parameters.number("mscale_all_dim")?.filter(|it| *it != 0.0);
    match (parameters.kind()?, mscale) {
        (Scaling::Default, _) | (_, None) => Ok(1.0),
        (_, Some(mscale)) => Ok(magnitude_of(parameters.needed("factor")?, mscale).powi(2)),
    }
}

/// The divisors of long scaling for sequences up to the trained length.
fn short_factors(scaling: Option<&Config<'_>>, pairs: usize) -> Result<Vec<f64>, ConfigError> {
    let key = "rope_scaling.short_factor";
    let divisors = scaling.map_or(Ok(None), |it| it.numbers("short_factor"))?;
    let divisors = divisors.ok_or_else(|| ConfigError::Missing { key: key.to_owned() })?;
    if divisors.len() != pairs {
        return Err(ConfigError::unsupported(
            key,
            format!("{} numbers", divisors.len()),
            format!("one for each of the {pairs} rotated pairs"),
        ));
    }
    Ok(divisors)
}

/// The pairs between which YaRN goes from kept to stretched frequencies.
fn yarn_ramp(low: f64, high: f64, truncate: bool, rotated: usize) -> (f64, f64) {
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(rotated as f64 - 1.0));
    // As the reference stack does, against a division by zero.
    (low, if low.to_bits() == high.to_bits() { high + 0.001 } else { high })
}

fn yarn_magnitude(factor: f64, given: Option<f64>, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let of = |mscale: f64| magnitude_of(factor, mscale);
    match (given, mscale, mscale_all_dim) {
        (Some(given), _, _) => given,
        (None, Some(a), Some(b)) if a != 0.0 && b != 0.0 => of(a) / of(b),
        _ => of(1.0),
    }
}

/// YaRN's magnitude for a factor of the context.
fn magnitude_of(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &serde_json::Value) -> Rope {
        rope(&Config::new(value, &crate::config::NoTensors), "any", 4, 10_000.0, Pairing::Halves, true)
            .unwrap()
    }

    #[test]
    fn both_notations_mean_the_same() {
        let old = json!({"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}});
        let new = json!({"rope_parameters": {"rope_theta": 100.0, "rope_type": "linear", "factor": 4.0}});
        assert_eq!(read(&old), read(&new));
        assert_eq!(read(&old).frequencies, [0.25, 0.025]); // 100^0 / 4, 100^(-1/2) / 4
    }

    #[test]
    fn of_both_notations_in_one_file_the_older_one_counts_alone() {
        let parameters = json!({"rope_theta": 16.0, "rope_type": "yarn", "factor": 9.0});
        let both = |scaling: serde_json::Value| {
            json!({"rope_theta": 100.0, "rope_scaling": scaling, "rope_parameters": parameters,
                "max_position_embeddings": 64})
        };
        let old = json!({"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}});
        assert_eq!(read(&both(json!({"type": "linear", "factor": 4.0}))), read(&old));
        assert_eq!(read(&both(json!({"rope_type": "default"}))).frequencies, [1.0, 0.1]);
        let new = json!({"rope_parameters": parameters, "max_position_embeddings": 64});
        for nothing in [json!({}), json!(null)] {
            assert_eq!(read(&both(nothing)), read(&new));
        }
    }

    #[test]
    fn the_trained_length_at_the_top_counts_more_than_one_within() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
        let at = |top: serde_json::Value, within: &serde_json::Value| {
            read(
                &json!({"rope_theta": 100.0, "rope_scaling": within, "original_max_position_embeddings": top,
                "max_position_embeddings": 64}),
            )
        };
        let bare = json!({"rope_type": "yarn", "factor": 4.0});
        assert_eq!(at(json!(4000), &yarn), at(json!(4000), &bare));
        assert_ne!(at(json!(4000), &yarn), at(json!(null), &yarn));
        let of_types = json!({"original_max_position_embeddings": 4000, "rope_parameters": {"any": yarn}});
        assert_eq!(read(&of_types).limit, None);
        assert_eq!(read(&of_types).frequencies, read(&json!({"rope_parameters": yarn})).frequencies);
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
            rope(&Config::new(&value, &crate::config::NoTensors), "any", 4, 1e4, Pairing::Halves, true)
                .unwrap_err();
        assert!(error.to_string().contains("`spiral`; known are `default`, `linear`"), "{error}");
    }

    #[test]
    fn each_layer_type_has_its_own_and_one_that_is_left_out_is_an_error() {
        let value = json!({"rope_parameters": {"a": {"rope_theta": 100.0}, "b": {"rope_theta": 16.0}}});
        let config = Config::new(&value, &crate::config::NoTensors);
        let of = |kind| rope(&config, kind, 4, 1e4, Pairing::Halves, true);
        assert_eq!((of("a").unwrap().frequencies[1], of("b").unwrap().frequencies[1]), (0.1, 0.25));
        assert!(of("c").unwrap_err().to_string().contains("`rope_parameters.c`"));
    }

    #[test]
    fn long_scaling_ends_where_the_other_factors_would_begin() {
        let mut value = json!({"max_position_embeddings": 256, "original_max_position_embeddings": 16,
            "rope_theta": 100.0, "rope_scaling": {"type": "su", "short_factor": [1.0, 2.0], "long_factor": [9, 9]}});
        // sqrt(1 + ln 16 / ln 16)
        assert_eq!(
            read(&value),
            Rope {
                frequencies: vec![1.0, 0.05],
                magnitude: 2_f32.sqrt(),
                pairing: Pairing::Halves,
                limit: Some(16)
            }
        );
        value["rope_scaling"]["short_factor"] = json!([1.0]);
        let error =
            rope(&Config::new(&value, &crate::config::NoTensors), "any", 4, 1e4, Pairing::Halves, true)
                .unwrap_err();
        assert!(error.to_string().contains("1 numbers"), "{error}");
    }

    #[test]
    fn part_of_a_head_can_be_rotated() {
        let value = json!({"partial_rotary_factor": 0.5});
        assert_eq!(read(&value).frequencies, [1.0]);
        let value = json!({"partial_rotary_factor": 0.75, "rope_theta": 1000.0});
        assert_eq!(read(&value).frequencies, [1.0, 0.01], "1000^(-2/3): three of four numbers, so two pairs");
    }
}
