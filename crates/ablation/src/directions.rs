//! What tells the residuals of two prompt sets apart: a unit vector at each site.
//!
//! ```text
//! r = normalize(mean_bad − mean_good)                      difference of means
//! r = normalize(r − (r·g) g),   g = normalize(mean_good)   orthogonalized, the default
//! ```
//!
//! Arditi et al. 2024, arXiv:2406.11717. Orthogonalization is not in that paper: the good mean is what every prompt
//! leaves in the stream, and taking some of it out with the behaviour damages the model.
//!
//! The direction of layer k is the one at the site after block k. That of the last layer is read wherever the residuals
//! given as the last site were read: before or after the final norm is the caller's choice.
//!
//! A direction index is a real number over the layers: 3.25 is a quarter of the way from the direction of layer 3 to
//! that of layer 4, in a straight line, normalized.

use glossary::{Direction, DirectionError, LayerIndex, ResidualSite};

use crate::moments::{Moments, MomentsError, site_name};

/// How directions are made from means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectionOptions {
    /// Whether the component along the mean of the good prompts is taken out of each direction.
    pub orthogonalize: bool,
}

impl Default for DirectionOptions {
    fn default() -> Self {
        Self { orthogonalize: true }
    }
}

/// The direction at every site.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// `None` where the two means agree at the embedding.
    embedding: Option<Direction>,
    layers: Vec<Direction>,
}

/// Why there is no direction.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DirectionsError {
    /// The means cannot be had or do not go together.
    #[error(transparent)]
    Moments(#[from] MomentsError),
    /// What is to be removed is what is to stay.
    #[error(
        "{}, the direction to remove is the one to keep: {norm:e} of it is left, within rounding error {rounding:e}\
         \n\nhint: are the two sets the same prompts?", site_name(*site)
    )]
    AlongKept {
        /// Where.
        site: ResidualSite,
        /// What is left of it.
        norm: f64,
        /// What rounding alone may leave.
        rounding: f64,
    },
    /// There is only the embedding, no block.
    #[error("directions of layers need at least 2 residual sites, found {sites}")]
    NoLayers {
        /// How many sites there are.
        sites: usize,
    },
    /// The two sets leave the same mean at a site.
    #[error(
        "the means of the two prompt sets agree {}: they differ by {norm:e}, within rounding error {rounding:e}\
         \n\nhint: are the two sets the same prompts?", site_name(*site)
    )]
    MeansAgree {
        /// Where.
        site: ResidualSite,
        /// The length of their difference.
        norm: f64,
        /// Up to which length a difference may be rounding error alone.
        rounding: f64,
    },
    /// The difference of the means points along the good mean, and nothing is left beside that.
    #[error(
        "the direction {} is that of the good prompts' mean: {norm:e} of it is left when that is taken out, \
         within rounding error {rounding:e}\n\nhint: `orthogonalize_direction = false` keeps it", site_name(*site)
    )]
    AlongGoodMean {
        /// Where.
        site: ResidualSite,
        /// The length of what is left of the unit vector.
        norm: f64,
        /// Up to which length that may be rounding error alone.
        rounding: f64,
    },
    /// A layer is not one of the model's.
    #[error("the direction of layer {layer} was asked for, the model has {n_layers} layers")]
    UnknownLayer {
        /// The layer.
        layer: LayerIndex,
        /// How many there are.
        n_layers: usize,
    },
    /// A direction index is not within the layers.
    #[error("direction index: expected a number from 0 to {last}, found `{found}`")]
    Index {
        /// The number given.
        found: f64,
        /// The last layer.
        last: usize,
    },
    /// The directions of two neighboring layers are opposite, and half way between them nothing is left.
    #[error("direction index {index}: {problem}")]
    Interpolation {
        /// The direction index.
        index: f64,
        /// What is wrong with the vector there.
        problem: DirectionError,
    },
}

/// A place between the directions of two neighboring layers: `(1 − fraction) lower + fraction upper`, normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// The layer at or below the direction index.
    pub lower: LayerIndex,
    /// The layer above it; the same layer when the index is a whole number.
    pub upper: LayerIndex,
    /// How far from the lower to the upper, from 0 to below 1.
    pub fraction: f64,
}

impl Blend {
    /// Where a direction index lies among layers.
    pub fn at(direction_index: f64, n_layers: usize) -> Result<Self, DirectionsError> {
        let last = n_layers.saturating_sub(1);
        if n_layers == 0 || !(0.0..=last as f64).contains(&direction_index) {
            return Err(DirectionsError::Index { found: direction_index, last });
        }
        let (lower, fraction) = (direction_index as usize, direction_index.fract());
        let upper = if fraction > 0.0 { lower + 1 } else { lower };
        Ok(Self { lower: LayerIndex(lower), upper: LayerIndex(upper), fraction })
    }

    /// The vector there, not normalized.
    pub(crate) fn mix(&self, lower: &[f64], upper: &[f64]) -> Vec<f64> {
        lower.iter().zip(upper).map(|(a, b)| (1.0 - self.fraction) * a + self.fraction * b).collect()
    }
}

impl Directions {
    /// The directions from the good prompts' means to the bad ones'.
    ///
    /// At the embedding the means may agree: chat templates end every prompt with the same token. No edit uses that
    /// direction, so it is only left out.
    ///
    /// # Errors
    /// [`DirectionsError::MeansAgree`] and [`DirectionsError::AlongGoodMean`] for a site after a block.
    pub fn between(
        bad: &Moments,
        good: &Moments,
        options: DirectionOptions,
    ) -> Result<Self, DirectionsError> {
        bad.expect_same_model(good)?;
        if bad.sites() < 2 {
            return Err(DirectionsError::NoLayers { sites: bad.sites() });
        }
        let embedding = match direction_at(ResidualSite::Embedding, bad, good, options) {
            Err(DirectionsError::MeansAgree { .. } | DirectionsError::AlongGoodMean { .. }) => None,
            other => Some(other?),
        };
        let layers = (1..bad.sites()).map(|site| direction_at(ResidualSite::at(site), bad, good, options));
        Ok(Self { embedding, layers: layers.collect::<Result<_, _>>()? })
    }

    /// These directions with others taken out of them, site by site: `normalize(r − (r·k) k)`.
    ///
    /// With r between prompts that only sound harmful and harmless ones, and k between harmful and harmless ones, what
    /// is left is refusal of the former alone (Wang et al. 2025, arXiv:2410.03415).
    ///
    /// # Errors
    /// [`DirectionsError::AlongKept`] where nothing is left.
    pub fn without(&self, kept: &Self) -> Result<Self, DirectionsError> {
        let left = |site, (r, k): (&Direction, &Direction)| {
            take_out(site, r, k).map_err(|error| match error {
                DirectionsError::AlongGoodMean { site, norm, rounding } => {
                    DirectionsError::AlongKept { site, norm, rounding }
                }
                other => other,
            })
        };
        let both = self.embedding.as_ref().zip(kept.embedding.as_ref());
        let embedding = match both {
            Some(both) => left(ResidualSite::Embedding, both).ok(),
            None => self.embedding.clone(),
        };
        let layers = self.layers.iter().zip(&kept.layers).enumerate();
        let layers = layers.map(|(layer, both)| left(ResidualSite::After(LayerIndex(layer)), both));
        Ok(Self { embedding, layers: layers.collect::<Result<_, _>>()? })
    }

    /// The direction at a site; `None` beyond the last, and at the embedding if the means agree there.
    pub fn at(&self, site: ResidualSite) -> Option<&Direction> {
        match site {
            ResidualSite::Embedding => self.embedding.as_ref(),
            ResidualSite::After(LayerIndex(layer)) => self.layers.get(layer),
        }
    }

    /// The direction of a layer: that at the site after it.
    pub fn of_layer(&self, layer: LayerIndex) -> Result<&Direction, DirectionsError> {
        let unknown = DirectionsError::UnknownLayer { layer, n_layers: self.n_layers() };
        self.at(ResidualSite::After(layer)).ok_or(unknown)
    }

    /// The direction at a direction index, from 0 to the last layer.
    pub fn global(&self, direction_index: f64) -> Result<Direction, DirectionsError> {
        let blend = Blend::at(direction_index, self.n_layers())?;
        let (lower, upper) = (&self.layers[blend.lower.0], &self.layers[blend.upper.0]);
        if blend.lower == blend.upper {
            return Ok(lower.clone());
        }
        Direction::normalized(&blend.mix(lower.as_slice(), upper.as_slice()))
            .map_err(|problem| DirectionsError::Interpolation { index: direction_index, problem })
    }

    /// How many layers there are.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }
}

fn direction_at(
    site: ResidualSite,
    bad: &Moments,
    good: &Moments,
    options: DirectionOptions,
) -> Result<Direction, DirectionsError> {
    let (bad_mean, good_mean) = (bad.mean(site)?, good.mean(site)?);
    let difference: Vec<f64> = bad_mean.iter().zip(&good_mean).map(|(bad, good)| bad - good).collect();
    // Two orders of the same prompts sum to means that differ by this much.
    let prompts = (bad.prompts() + good.prompts()) as f64;
    let rounding = prompts * f64::EPSILON * norm(&bad_mean).max(norm(&good_mean));
    let agree = DirectionsError::MeansAgree { site, norm: norm(&difference), rounding };
    if norm(&difference) <= rounding {
        return Err(agree);
    }
    let direction = Direction::normalized(&difference).map_err(|_| agree)?;
    // A mean of zero has no component to take out.
    match Direction::normalized(&good_mean) {
        Ok(good_mean) if options.orthogonalize => take_out(site, &direction, &good_mean),
        _ => Ok(direction),
    }
}

/// `normalize(r − (r·g) g)`
fn take_out(site: ResidualSite, r: &Direction, g: &Direction) -> Result<Direction, DirectionsError> {
    let (r, g) = (r.as_slice(), g.as_slice());
    let along = dot(r, g);
    let left: Vec<f64> = r.iter().zip(g).map(|(r, g)| r - along * g).collect();
    // The product of two unit vectors is off by up to d_model roundings, and so is what it takes out.
    let rounding = r.len() as f64 * f64::EPSILON;
    let vanishes = DirectionsError::AlongGoodMean { site, norm: norm(&left), rounding };
    if norm(&left) <= rounding {
        return Err(vanishes);
    }
    Direction::normalized(&left).map_err(|_| vanishes)
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of one prompt.
    fn moments(residuals: &[[f32; 2]]) -> Moments {
        let mut moments = Moments::new(residuals.len(), 2);
        moments.add(residuals.as_flattened()).unwrap();
        moments
    }

    const PLAIN: DirectionOptions = DirectionOptions { orthogonalize: false };

    #[test]
    fn a_direction_points_from_good_to_bad() {
        let (bad, good) = (moments(&[[0.0; 2], [4.0, 6.0]]), moments(&[[0.0; 2], [1.0, 2.0]]));
        let directions = Directions::between(&bad, &good, PLAIN).unwrap();
        // (3, 4) / 5
        assert_eq!(directions.of_layer(LayerIndex(0)).unwrap().as_slice(), [0.6, 0.8]);
    }

    #[test]
    fn what_is_to_stay_is_taken_out_of_what_is_removed() {
        let good = moments(&[[0.0; 2], [0.0, 0.0]]);
        let between = |bad: [f32; 2]| Directions::between(&moments(&[[0.0; 2], bad]), &good, PLAIN).unwrap();
        // (3, 4) / 5 without its part along (1, 0) points along (0, 1).
        let left = between([3.0, 4.0]).without(&between([2.0, 0.0])).unwrap();
        assert_eq!(left.of_layer(LayerIndex(0)).unwrap().as_slice(), [0.0, 1.0]);
        let error = between([3.0, 4.0]).without(&between([-6.0, -8.0])).unwrap_err();
        assert!(matches!(error, DirectionsError::AlongKept { .. }), "{error}");
    }

    #[test]
    fn the_direction_of_a_layer_is_read_after_it() {
        let (bad, good) = (
            moments(&[[9.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]]),
            moments(&[[8.0, 0.0], [0.0; 2], [0.0; 2], [0.0; 2]]),
        );
        let directions = Directions::between(&bad, &good, PLAIN).unwrap();
        assert_eq!(directions.n_layers(), 3);
        let expected = [[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]];
        for (layer, expected) in expected.iter().enumerate() {
            assert_eq!(directions.of_layer(LayerIndex(layer)).unwrap().as_slice(), expected);
        }
        assert_eq!(directions.at(ResidualSite::Embedding).unwrap().as_slice(), [1.0, 0.0]);
        let error = directions.of_layer(LayerIndex(3)).unwrap_err();
        assert_eq!(error, DirectionsError::UnknownLayer { layer: LayerIndex(3), n_layers: 3 });
    }

    #[test]
    fn orthogonalization_leaves_nothing_along_the_good_mean() {
        // The difference is (3, 4) and the good mean points along the first axis: (0, 4) is left.
        let (bad, good) = (moments(&[[0.0; 2], [5.0, 4.0]]), moments(&[[0.0; 2], [2.0, 0.0]]));
        let directions = Directions::between(&bad, &good, DirectionOptions::default()).unwrap();
        assert_eq!(directions.of_layer(LayerIndex(0)).unwrap().as_slice(), [0.0, 1.0]);
    }

    #[test]
    fn a_global_direction_lies_between_those_of_its_neighbors() {
        let bad = moments(&[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
        let directions = Directions::between(&bad, &moments(&[[0.0; 2]; 4]), PLAIN).unwrap();
        let at = |index: f64| directions.global(index).unwrap().as_slice().to_vec();
        // 3/4 (1, 0) + 1/4 (0, 1) = (3, 1)/4, of length √10/4
        let expected = [3.0 / 10.0_f64.sqrt(), 1.0 / 10.0_f64.sqrt()];
        assert!(at(0.25).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{:?}", at(0.25));
        assert_eq!([at(0.0), at(1.0), at(2.0)], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
        for found in [-0.1, 2.000_001, f64::INFINITY] {
            assert_eq!(directions.global(found), Err(DirectionsError::Index { found, last: 2 }));
        }
        assert!(directions.global(f64::NAN).is_err());
    }

    #[test]
    fn half_way_between_opposite_directions_is_an_error() {
        let bad = moments(&[[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0]]);
        let directions = Directions::between(&bad, &moments(&[[0.0; 2]; 3]), PLAIN).unwrap();
        let error = directions.global(0.5).unwrap_err().to_string();
        assert!(error.starts_with("direction index 0.5: "), "{error}");
    }

    #[test]
    fn means_that_agree_are_an_error_after_a_block_and_none_at_the_embedding() {
        let (bad, good) = (moments(&[[1.0, 2.0], [3.0, 4.0]]), moments(&[[1.0, 2.0], [5.0, 4.0]]));
        let directions = Directions::between(&bad, &good, PLAIN).unwrap();
        assert_eq!(directions.at(ResidualSite::Embedding), None);
        let error = Directions::between(&bad, &bad, PLAIN).unwrap_err();
        assert!(
            matches!(error, DirectionsError::MeansAgree { site, norm: 0.0, .. } if site == ResidualSite::at(1)),
            "{error}"
        );
        assert!(
            error.to_string().starts_with("the means of the two prompt sets agree after layer 0"),
            "{error}"
        );
    }

    #[test]
    fn the_same_prompts_in_another_order_agree_although_their_sums_differ_in_the_last_bit() {
        // 2^53 + 1 is 2^53 in f64, twice; 1 + 1 + 2^53 is larger.
        let prompts: [f32; 3] = [9_007_199_254_740_992.0, 1.0, 1.0];
        let (mut bad, mut good) = (Moments::new(2, 1), Moments::new(2, 1));
        for it in prompts {
            bad.add(&[0.0, it]).unwrap();
        }
        for it in [prompts[1], prompts[2], prompts[0]] {
            good.add(&[0.0, it]).unwrap();
        }
        let site = ResidualSite::at(1);
        assert_ne!(bad.mean(site), good.mean(site), "the test needs sums that differ");
        assert!(matches!(Directions::between(&bad, &good, PLAIN), Err(DirectionsError::MeansAgree { .. })));
    }

    #[test]
    fn a_difference_along_the_good_mean_is_an_error_only_when_orthogonalized() {
        let (bad, good) = (moments(&[[0.0; 2], [0.3, 0.9]]), moments(&[[0.0; 2], [0.1, 0.3]]));
        assert!(Directions::between(&bad, &good, PLAIN).is_ok());
        // 0.3f32 is not three times 0.1f32, so exactly parallel vectors are needed for the error.
        let bad = moments(&[[0.0; 2], [0.2, 0.6]]);
        let error = Directions::between(&bad, &good, DirectionOptions::default()).unwrap_err();
        assert!(
            matches!(error, DirectionsError::AlongGoodMean { site, norm, .. }
                if site == ResidualSite::at(1) && norm < 1e-15),
            "{error}"
        );
    }

    #[test]
    fn a_good_mean_of_zero_takes_nothing_out() {
        let (bad, good) = (moments(&[[0.0; 2], [3.0, 4.0]]), moments(&[[0.0; 2], [0.0; 2]]));
        let directions = Directions::between(&bad, &good, DirectionOptions::default()).unwrap();
        assert_eq!(directions.of_layer(LayerIndex(0)).unwrap().as_slice(), [0.6, 0.8]);
    }
}
