//! What makes a candidate model: which direction, and how much of it is taken out where.

use std::collections::BTreeMap;

use glossary::Component;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::profile::{Profile, finite};

/// The parameters of one candidate, in the JSON form of study and `reproduce.json` files:
///
/// ```
/// # use ablation::Parameters;
/// let text = r#"{
///     "direction_index": 17.25,
///     "abliteration_parameters": {
///         "attn.o_proj": {
///             "max_weight": 1.2, "max_weight_position": 20.5, "min_weight": 0.4, "min_weight_distance": 9.0
///         }
///     }
/// }"#;
/// let parameters: Parameters = serde_json::from_str(text)?;
/// assert_eq!(parameters.direction_index, Some(17.25));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Unknown keys, numbers that are not finite and a missing key are refused. A component without a profile is left
/// alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The direction index of the one direction that all layers lose; `None` (null): each layer loses its own.
    // `with` also makes the key mandatory: a forgotten index must not turn a global direction into one per layer.
    #[serde(with = "finite_or_null")]
    pub direction_index: Option<f64>,
    /// The profile of each component.
    pub abliteration_parameters: BTreeMap<Component, Profile>,
}

/// Whether all layers lose the same direction, as the optimizer's choice is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectionScope {
    /// One direction for all layers, that at the direction index.
    #[serde(rename = "global")]
    Global,
    /// Each layer's own.
    #[serde(rename = "per layer")]
    PerLayer,
}

/// A profile as the optimizer samples it, in ranges that do not depend on each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledProfile {
    /// Strength at the maximum; below 0 it means 0, so that "not at all" has a probability of its own.
    pub max_weight: f64,
    /// As [`Profile::max_weight_position`].
    pub max_weight_position: f64,
    /// [`Profile::min_weight`] as a fraction of `max_weight`.
    pub min_weight: f64,
    /// As [`Profile::min_weight_distance`].
    pub min_weight_distance: f64,
}

impl SampledProfile {
    /// The profile that is meant.
    pub fn profile(self) -> Profile {
        let max_weight = self.max_weight.max(0.0);
        Profile {
            max_weight,
            max_weight_position: self.max_weight_position,
            min_weight: self.min_weight * max_weight,
            min_weight_distance: self.min_weight_distance,
        }
    }
}

impl Parameters {
    /// The parameters that the optimizer's values mean. It samples a direction index in either scope, because its
    /// kernel needs the same variables in every trial; per layer the index has no meaning.
    pub fn sampled(
        scope: DirectionScope,
        direction_index: f64,
        profiles: impl IntoIterator<Item = (Component, SampledProfile)>,
    ) -> Self {
        Self {
            direction_index: (scope == DirectionScope::Global).then_some(direction_index),
            abliteration_parameters: profiles
                .into_iter()
                .map(|(it, sampled)| (it, sampled.profile()))
                .collect(),
        }
    }
}

mod finite_or_null {
    use super::{Deserialize, Deserializer, Serialize, Serializer, finite};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Finite(#[serde(with = "finite")] f64);

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        number.map(Finite).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Finite>::deserialize(deserializer)?.map(|Finite(number)| number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: SampledProfile = SampledProfile {
        max_weight: 1.25,
        max_weight_position: 20.0,
        min_weight: 0.5,
        min_weight_distance: 7.0,
    };

    fn parse(text: &str) -> Result<Parameters, String> {
        serde_json::from_str(text).map_err(|it| it.to_string())
    }

    #[test]
    fn parameters_are_written_and_read_in_one_form() {
        let parameters = Parameters::sampled(
            DirectionScope::Global,
            3.5,
            [(Component::MlpOutput, SAMPLED), (Component::AttentionOutput, SAMPLED)],
        );
        let profile =
            r#"{"max_weight":1.25,"max_weight_position":20.0,"min_weight":0.625,"min_weight_distance":7.0}"#;
        let text = format!(
            r#"{{"direction_index":3.5,"abliteration_parameters":{{"attn.o_proj":{profile},"mlp.down_proj":{profile}}}}}"#
        );
        assert_eq!(serde_json::to_string(&parameters).unwrap(), text);
        assert_eq!(parse(&text), Ok(parameters));
    }

    #[test]
    fn null_means_per_layer_and_must_be_written() {
        let parameters = Parameters::sampled(DirectionScope::PerLayer, 3.5, []);
        let text = r#"{"direction_index":null,"abliteration_parameters":{}}"#;
        assert_eq!(serde_json::to_string(&parameters).unwrap(), text);
        assert_eq!(parse(text), Ok(parameters));
        let error = parse(r#"{"abliteration_parameters":{}}"#).unwrap_err();
        assert!(error.starts_with("missing field `direction_index`"), "{error}");
    }

    #[test]
    fn a_fraction_of_the_maximum_becomes_a_strength_and_negative_means_off() {
        assert_eq!(SAMPLED.profile().min_weight, 0.625); // half of 1.25
        let off = SampledProfile { max_weight: -0.25, ..SAMPLED }.profile();
        assert_eq!((off.max_weight, off.min_weight), (0.0, 0.0));
    }

    #[test]
    fn unknown_keys_are_refused_and_the_known_ones_named() {
        let error = parse(r#"{"direction_index":1,"abliteration_parameters":{"mlp":{}}}"#).unwrap_err();
        assert!(
            error.contains(
                "unknown variant `mlp`, expected one of `attn.o_proj`, `mlp.down_proj`, `per_layer_projection`"
            ),
            "{error}"
        );
        let error = parse(r#"{"direction":1}"#).unwrap_err();
        assert!(
            error.contains(
                "unknown field `direction`, expected `direction_index` or `abliteration_parameters`"
            ),
            "{error}"
        );
        let text = r#"{"direction_index":1,"abliteration_parameters":{"mlp.down_proj":{"weight":1}}}"#;
        let error = parse(text).unwrap_err();
        assert!(error.contains("unknown field `weight`, expected one of `max_weight`"), "{error}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_neither_written_nor_read() {
        let mut parameters = Parameters::sampled(DirectionScope::Global, f64::NAN, []);
        let error = serde_json::to_string(&parameters).unwrap_err().to_string();
        assert_eq!(error, "expected a finite number, found `NaN`");
        parameters.direction_index = None;
        let profile = Profile { min_weight: f64::INFINITY, ..SAMPLED.profile() };
        parameters.abliteration_parameters.insert(Component::MlpOutput, profile);
        assert!(serde_json::to_string(&parameters).is_err());
        // Text formats such as TOML do have words for them.
        let value = serde::de::value::F64Deserializer::<serde::de::value::Error>::new(f64::INFINITY);
        let error = finite::deserialize(value).unwrap_err().to_string();
        assert_eq!(error, "expected a finite number, found `inf`");
    }
}
