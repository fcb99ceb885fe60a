//! How the means of two prompt sets and the directions between them lie to each other, for people to look at.
//!
//! A direction that separates well grows over the layers while the two means still point much the same way. Where the
//! cosine between neighboring layers' directions is small, a global direction between the two means little.

use glossary::ResidualSite;

use crate::directions::{Directions, DirectionsError, dot, norm};
use crate::moments::Moments;

/// What is seen at one site. A cosine is `None` where one of its vectors is zero.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SiteGeometry {
    /// Where.
    pub site: ResidualSite,
    /// Length of the good prompts' mean.
    pub good_norm: f64,
    /// Length of the bad prompts' mean.
    pub bad_norm: f64,
    /// Length of the difference of the two means.
    pub difference_norm: f64,
    /// Cosine between the two means.
    pub cosine_good_bad: Option<f64>,
    /// Cosine between the good mean and the difference, bad minus good.
    pub cosine_good_difference: Option<f64>,
    /// Cosine between the bad mean and the difference, bad minus good.
    pub cosine_bad_difference: Option<f64>,
    /// Cosine between the good mean and the direction that is taken out: 0 when it is orthogonalized.
    pub cosine_good_direction: Option<f64>,
}

impl SiteGeometry {
    /// What is seen at every site, embedding first.
    pub fn of(bad: &Moments, good: &Moments, directions: &Directions) -> Result<Vec<Self>, DirectionsError> {
        bad.expect_same_model(good)?;
        (0..bad.sites()).map(|site| at(ResidualSite::at(site), bad, good, directions)).collect()
    }
}

fn at(
    site: ResidualSite,
    bad: &Moments,
    good: &Moments,
    directions: &Directions,
) -> Result<SiteGeometry, DirectionsError> {
    let (bad, good) = (bad.mean(site)?, good.mean(site)?);
    let difference: Vec<f64> = bad.iter().zip(&good).map(|(bad, good)| bad - good).collect();
    Ok(SiteGeometry {
        site,
        good_norm: norm(&good),
        bad_norm: norm(&bad),
        difference_norm: norm(&difference),
        cosine_good_bad: cosine(&good, &bad),
        cosine_good_difference: cosine(&good, &difference),
        cosine_bad_difference: cosine(&bad, &difference),
        cosine_good_direction: directions.at(site).and_then(|it| cosine(&good, it.as_slice())),
    })
}

/// Cosines between the directions of layers k and k + 1, for k from 0: one fewer than layers.
pub fn neighbor_cosines(directions: &Directions) -> Vec<f64> {
    let after = |site| directions.at(ResidualSite::at(site));
    let pairs = (1..directions.n_layers()).filter_map(|site| after(site).zip(after(site + 1)));
    pairs.map(|(a, b)| dot(a.as_slice(), b.as_slice())).collect()
}

pub(crate) fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let lengths = norm(a) * norm(b);
    (lengths > 0.0).then(|| dot(a, b) / lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectionOptions;

    #[test]
    fn norms_and_cosines_are_those_of_a_3_4_5_triangle() {
        let (mut bad, mut good) = (Moments::new(3, 2), Moments::new(3, 2));
        bad.add(&[0.0, 0.0, 3.0, 4.0, 0.0, 2.0]).unwrap();
        good.add(&[0.0, 0.0, 3.0, 0.0, 4.0, 2.0]).unwrap();
        let plain = DirectionOptions { orthogonalize: false };
        let directions = Directions::between(&bad, &good, plain).unwrap();
        let geometry = SiteGeometry::of(&bad, &good, &directions).unwrap();
        let expected = SiteGeometry {
            site: ResidualSite::at(1),
            good_norm: 3.0,
            bad_norm: 5.0,
            difference_norm: 4.0,
            cosine_good_bad: Some(0.6),
            cosine_good_difference: Some(0.0),
            cosine_bad_difference: Some(0.8),
            cosine_good_direction: Some(0.0),
        };
        assert_eq!(geometry[1], expected);
        assert_eq!(geometry[0].cosine_good_bad, None);
        assert_eq!(geometry[0].cosine_good_direction, None);
        // The directions after the two layers are (0, 1) and (−1, 0).
        assert_eq!(neighbor_cosines(&directions), [0.0]);
    }

    #[test]
    fn the_difference_points_from_good_to_bad() {
        let (mut bad, mut good) = (Moments::new(2, 1), Moments::new(2, 1));
        bad.add(&[0.0, 3.0]).unwrap();
        good.add(&[0.0, -2.0]).unwrap();
        let plain = DirectionOptions { orthogonalize: false };
        let directions = Directions::between(&bad, &good, plain).unwrap();
        let geometry = &SiteGeometry::of(&bad, &good, &directions).unwrap()[1];
        assert_eq!(geometry.cosine_bad_difference, Some(1.0));
        assert_eq!(geometry.cosine_good_difference, Some(-1.0));
        assert_eq!(geometry.cosine_good_direction, Some(-1.0));
    }
}
