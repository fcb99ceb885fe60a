//! What two sets of residuals look like beyond their means, for people to look at: geometric medians and silhouettes.
//!
//! Unlike means, both need every residual at once. A geometric median is found by Weiszfeld's iteration with the step
//! of Vardi and Zhang 2000 (doi:10.1073/pnas.97.4.1423), which does not stop at a point of the set; silhouettes are
//! those of Rousseeuw 1987 (doi:10.1016/0377-0427(87)90125-7) with Euclidean distances.

use glossary::ResidualSite;

use crate::directions::{DirectionsError, norm};
use crate::geometry::cosine;
use crate::moments::Moments;

/// All residuals of a prompt set.
#[derive(Clone, Debug)]
pub struct Cloud {
    sites: usize,
    d_model: usize,
    /// `[prompts, sites, d_model]`
    residuals: Vec<f32>,
}

impl Cloud {
    /// No residuals yet, of a model of so many sites and components.
    pub fn new(sites: usize, d_model: usize) -> Self {
        Self { sites, d_model, residuals: Vec::new() }
    }

    /// Adds one prompt's residuals.
    ///
    /// # Shapes
    /// - `residuals`: `[sites, d_model]`; other lengths are what [`Moments::add`] refuses
    pub fn add(&mut self, residuals: &[f32]) {
        debug_assert_eq!(residuals.len(), self.sites * self.d_model);
        self.residuals.extend_from_slice(residuals);
    }

    fn at(&self, site: ResidualSite) -> Vec<&[f32]> {
        let prompts = self.residuals.chunks_exact(self.sites * self.d_model);
        prompts.map(|it| &it[site.index() * self.d_model..][..self.d_model]).collect()
    }
}

/// What is seen at one site. A cosine is `None` where one of its vectors is zero.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SiteSpread {
    /// Where.
    pub site: ResidualSite,
    /// Length of the good prompts' geometric median.
    pub good_median_norm: f64,
    /// Length of the bad prompts' geometric median.
    pub bad_median_norm: f64,
    /// Length of the difference of the two medians.
    pub difference_norm: f64,
    /// Cosine between the two medians.
    pub cosine_good_bad: Option<f64>,
    /// Cosine between the good median and the difference, bad minus good.
    pub cosine_good_difference: Option<f64>,
    /// Cosine between the bad median and the difference, bad minus good.
    pub cosine_bad_difference: Option<f64>,
    /// Mean silhouette of all residuals, from −1 to 1: how much nearer they lie to their own set than to the other.
    pub silhouette: f64,
}

impl SiteSpread {
    /// What is seen at every site, embedding first. Takes time in the square of the number of prompts.
    pub fn of(bad: &Cloud, good: &Cloud) -> Result<Vec<Self>, DirectionsError> {
        (0..bad.sites).map(|site| at(ResidualSite::at(site), bad, good)).collect()
    }
}

fn at(site: ResidualSite, bad: &Cloud, good: &Cloud) -> Result<SiteSpread, DirectionsError> {
    let (bad_points, good_points) = (bad.at(site), good.at(site));
    let bad = geometric_median(&bad_points, mean(&bad_points)?);
    let good = geometric_median(&good_points, mean(&good_points)?);
    let difference: Vec<f64> = bad.iter().zip(&good).map(|(bad, good)| bad - good).collect();
    Ok(SiteSpread {
        site,
        good_median_norm: norm(&good),
        bad_median_norm: norm(&bad),
        difference_norm: norm(&difference),
        cosine_good_bad: cosine(&good, &bad),
        cosine_good_difference: cosine(&good, &difference),
        cosine_bad_difference: cosine(&bad, &difference),
        silhouette: silhouette([&good_points, &bad_points]),
    })
}

fn mean(points: &[&[f32]]) -> Result<Vec<f64>, DirectionsError> {
    let mut moments = Moments::new(1, points.first().map_or(0, |it| it.len()));
    for point in points {
        moments.add(point)?;
    }
    Ok(moments.mean(ResidualSite::at(0))?)
}

/// Steps of Weiszfeld's iteration at most, and the step, relative to the points' distances, that is the last.
const STEPS: usize = 200;
const SMALL_STEP: f64 = 1e-9;

/// The point whose distances to all points have the least sum, starting at `from`.
fn geometric_median(points: &[&[f32]], from: Vec<f64>) -> Vec<f64> {
    let mut median = from;
    for _ in 0..STEPS {
        let distances: Vec<f64> = points.iter().map(|it| distance_from(&median, it)).collect();
        // A point that the iteration stands on pulls with a force of 1 at most, however many others pull away.
        let on_it = distances.iter().filter(|&&it| it == 0.0).count();
        let weight: f64 = distances.iter().filter(|&&it| it > 0.0).map(|it| 1.0 / it).sum();
        if weight == 0.0 {
            break;
        }
        let mut step = vec![0.0; median.len()];
        for (point, distance) in points.iter().zip(&distances).filter(|(_, distance)| **distance > 0.0) {
            for ((step, &to), from) in step.iter_mut().zip(*point).zip(&median) {
                *step += (f64::from(to) - from) / distance;
            }
        }
        let pull = norm(&step);
        let held = if on_it == 0 { 0.0 } else { (on_it as f64 / pull.max(f64::MIN_POSITIVE)).min(1.0) };
        let scale = (1.0 - held) / weight;
        for (median, step) in median.iter_mut().zip(&step) {
            *median += scale * step;
        }
        let spread = points.len() as f64 / weight;
        if pull * scale <= SMALL_STEP * spread {
            break;
        }
    }
    median
}

fn distance_from(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// The mean silhouette of the points of two sets: 0 for a point that is alone in its set, or on all others.
fn silhouette(sets: [&[&[f32]]; 2]) -> f64 {
    let points: Vec<&[f32]> = sets.iter().flat_map(|it| it.iter().copied()).collect();
    let set_of = |point: usize| usize::from(point >= sets[0].len());
    // Sums of each point's distances to the points of each set.
    let mut sums = vec![[0.0; 2]; points.len()];
    for a in 0..points.len() {
        for b in 0..a {
            let apart = distance(points[a], points[b]);
            sums[a][set_of(b)] += apart;
            sums[b][set_of(a)] += apart;
        }
    }
    let each = sums.iter().enumerate().map(|(point, sums)| {
        let (own, other) = (set_of(point), 1 - set_of(point));
        if sets[own].len() < 2 || sets[other].is_empty() {
            return 0.0;
        }
        let inside = sums[own] / (sets[own].len() - 1) as f64;
        let outside = sums[other] / sets[other].len() as f64;
        let larger = inside.max(outside);
        if larger > 0.0 { (outside - inside) / larger } else { 0.0 }
    });
    each.sum::<f64>() / points.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_median_of_a_line_is_its_middle_point() {
        let points: [&[f32]; 5] = [&[0.0, 0.0], &[1.0, 0.0], &[2.0, 0.0], &[50.0, 0.0], &[90.0, 0.0]];
        let median = geometric_median(&points, mean(&points).unwrap());
        assert!((median[0] - 2.0).abs() < 1e-3 && median[1].abs() < 1e-9, "{median:?}");
    }

    #[test]
    fn the_geometric_median_of_a_square_with_an_outlier_stays_inside() {
        let square: [&[f32]; 4] = [&[1.0, 1.0], &[-1.0, 1.0], &[1.0, -1.0], &[-1.0, -1.0]];
        assert!(norm(&geometric_median(&square, vec![0.3, -0.7])) < 1e-6);
        let with_outlier = [square.as_slice(), &[&[1000.0, 0.0]]].concat();
        let median = geometric_median(&with_outlier, mean(&with_outlier).unwrap());
        assert!(norm(&median) < 1.0, "{median:?}");
    }

    #[test]
    fn an_iteration_that_starts_on_a_point_leaves_it() {
        let points: [&[f32]; 4] = [&[5.0, 0.0], &[-1.0, 0.0], &[0.0, 1.0], &[0.0, -1.0]];
        assert!(norm(&geometric_median(&points, vec![5.0, 0.0])) < 1e-3);
        // Most points lie on one, which is the median.
        let same: [&[f32]; 4] = [&[1.0, 1.0], &[1.0, 1.0], &[1.0, 1.0], &[7.0, 3.0]];
        assert_eq!(geometric_median(&same, vec![1.0, 1.0]), [1.0, 1.0]);
    }

    #[test]
    fn silhouettes_are_those_worked_out_by_hand() {
        // Points 0 and 1 against 4: (4−1)/4, (3−1)/3, and 0 for the one that is alone.
        let value = silhouette([&[&[0.0], &[1.0]], &[&[4.0]]]);
        assert!((value - (0.75 + 2.0 / 3.0) / 3.0).abs() < 1e-12, "{value}");
        assert_eq!(silhouette([&[&[1.0], &[1.0]], &[&[1.0], &[1.0]]]), 0.0);
    }

    #[test]
    fn a_spread_of_two_pairs_has_the_geometry_of_their_middles() {
        let (mut bad, mut good) = (Cloud::new(2, 2), Cloud::new(2, 2));
        bad.add(&[0.0, 0.0, 3.0, 4.0]);
        bad.add(&[0.0, 0.0, 3.0, 4.0]);
        good.add(&[0.0, 0.0, 3.0, 0.0]);
        good.add(&[0.0, 0.0, 3.0, 0.0]);
        let spread = SiteSpread::of(&bad, &good).unwrap();
        assert_eq!((spread[0].silhouette, spread[0].cosine_good_bad), (0.0, None));
        let expected = SiteSpread {
            site: ResidualSite::at(1),
            good_median_norm: 3.0,
            bad_median_norm: 5.0,
            difference_norm: 4.0,
            cosine_good_bad: Some(0.6),
            cosine_good_difference: Some(0.0),
            cosine_bad_difference: Some(0.8),
            silhouette: 1.0,
        };
        assert_eq!(spread[1], expected);
    }
}
