//! Strength as a function of the layer.
//!
//! ```text
//!  max_weight  -        /\
//!                      /  \
//!  min_weight  -     /      \
//!                    |   |<->| min_weight_distance
//!  no edit     ------+   |   +------   layer
//!                max_weight_position
//! ```

use glossary::LayerIndex;
use serde::{Deserialize, Serialize};

/// The strength profile of one component over the layers.
///
/// Strength 1 removes all of a direction, 0 nothing; beyond 1 the direction is turned around.
///
/// ```
/// # use ablation::Profile;
/// # use glossary::LayerIndex;
/// let profile =
///     Profile { max_weight: 1.0, max_weight_position: 10.0, min_weight: 0.5, min_weight_distance: 4.0 };
/// assert_eq!(profile.strength(LayerIndex(10)), Some(1.0));
/// assert_eq!(profile.strength(LayerIndex(12)), Some(0.75)); // half way from 1 to 1/2
/// assert_eq!(profile.strength(LayerIndex(15)), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Strength at the position of the maximum.
    #[serde(with = "finite")]
    pub max_weight: f64,
    /// Where the maximum is, in layers; may lie between two.
    #[serde(with = "finite")]
    pub max_weight_position: f64,
    /// Strength at the edge of the profile, as it is: not a share of `max_weight`.
    #[serde(with = "finite")]
    pub min_weight: f64,
    /// How far the edge is from the maximum, in layers.
    #[serde(with = "finite")]
    pub min_weight_distance: f64,
}

impl Profile {
    /// The strength at a layer; `None` beyond the edge and where it is 0: such layers are not edited.
    ///
    /// With a `min_weight_distance` of 0 only a layer exactly at the maximum is edited, with `max_weight`; with a
    /// negative one none is.
    pub fn strength(&self, layer: LayerIndex) -> Option<f64> {
        let distance = (layer.0 as f64 - self.max_weight_position).abs();
        if distance > self.min_weight_distance {
            return None;
        }
        // Also right for an edge at distance 0, where 0/0 would be.
        let share = if distance > 0.0 { distance / self.min_weight_distance } else { 0.0 };
        let strength = self.max_weight + share * (self.min_weight - self.max_weight);
        (strength != 0.0).then_some(strength)
    }
}

/// Numbers that may be neither infinite nor NaN: JSON has no word for them and would write null.
pub(crate) mod finite {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_finite() {
            serializer.serialize_f64(*number)
        } else {
            Err(ser::Error::custom(format!("expected a finite number, found `{number}`")))
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number.is_finite() {
            Ok(number)
        } else {
            Err(de::Error::custom(format!("expected a finite number, found `{number}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strengths(profile: Profile, layers: usize) -> Vec<Option<f64>> {
        (0..layers).map(|it| profile.strength(LayerIndex(it))).collect()
    }

    #[test]
    fn strength_falls_linearly_from_the_maximum_to_the_edge_and_ends_there() {
        let profile =
            Profile { max_weight: 1.5, max_weight_position: 3.0, min_weight: 0.5, min_weight_distance: 2.0 };
        let expected = [None, Some(0.5), Some(1.0), Some(1.5), Some(1.0), Some(0.5), None];
        assert_eq!(strengths(profile, 7), expected);
    }

    #[test]
    fn the_maximum_may_lie_between_two_layers() {
        let profile =
            Profile { max_weight: 1.0, max_weight_position: 1.5, min_weight: 0.0, min_weight_distance: 1.0 };
        // Half a layer away on both sides, half the strength.
        assert_eq!(strengths(profile, 4), [None, Some(0.5), Some(0.5), None]);
    }

    #[test]
    fn an_edge_at_distance_zero_edits_only_a_layer_at_the_maximum() {
        let at = |max_weight_position, min_weight_distance| Profile {
            max_weight: 1.2,
            max_weight_position,
            min_weight: 0.3,
            min_weight_distance,
        };
        assert_eq!(strengths(at(1.0, 0.0), 3), [None, Some(1.2), None]);
        assert_eq!(strengths(at(1.5, 0.0), 3), [None; 3]);
        assert_eq!(strengths(at(1.0, -1.0), 3), [None; 3]);
    }

    #[test]
    fn a_strength_of_zero_is_no_edit() {
        let profile =
            Profile { max_weight: 1.0, max_weight_position: 0.0, min_weight: 0.0, min_weight_distance: 2.0 };
        assert_eq!(strengths(profile, 3), [Some(1.0), Some(0.5), None]);
        let off =
            Profile { max_weight: 0.0, max_weight_position: 0.0, min_weight: 0.0, min_weight_distance: 9.0 };
        assert_eq!(strengths(off, 3), [None; 3]);
    }
}
