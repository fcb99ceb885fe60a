//! Densities made of kernels: one around every observation, and one over the whole space.
//!
//! A kernel is a product over the parameters of
//! - a normal distribution cut off at the ends of the parameter's axis; on a grid, its mass over the cell of a
//!   grid value takes the density's place;
//! - for a choice, the observed one with an extra weight of 1 beside 1/K for each, K the number of kernels.
//!
//! The last kernel is the *prior*: as wide as the axis, all choices alike, weight 1, as much as the best good
//! trial's. It is what explores.
//!
//! Densities of two mixtures are only ever divided, so constants that both share (√2π, the Jacobian of a
//! logarithmic axis) are left out.

use std::collections::HashMap;

use crate::distribution::Axis;
use crate::truncated_normal::{log_mass, quantile};
use crate::{Distribution, Parameter, Stream};

/// How wide kernels are, before clipping to between 1/min(100, N + 2) of the axis and all of it, for N observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bandwidth {
    /// The same for all: this times N^(−1/(d+4)) of the axis, with d parameters (Scott's rule). Optuna 4.8,
    /// multivariate, has 0.2.
    Count(f64),
    /// The larger distance to the two neighbouring observations, among which the middle of the axis counts.
    /// Optuna 4.8, univariate.
    Neighbours,
}

/// A weighted sum of kernels.
pub(super) struct Mixture {
    /// Sums of the weights up to each kernel; the last is 1.
    cumulative: Vec<f64>,
    /// Logarithms of the weights, less whatever makes each kernel's density integrate to one.
    log_weights: Vec<f64>,
    factors: Vec<Factor>,
}

/// One parameter's part in all kernels.
enum Factor {
    Normal { axis: Axis, means: Vec<f64>, widths: Vec<f64> },
    Choice { choices: usize, probabilities: Vec<f64> },
}

impl Mixture {
    /// Kernels around observations.
    ///
    /// # Shapes
    /// - `observations`: one vector per trial, one internal value per parameter
    /// - `weights`: one per observation
    pub(super) fn new(
        parameters: &[&Parameter],
        observations: &[Vec<f64>],
        weights: &[f64],
        bandwidth: Bandwidth,
    ) -> Self {
        let weights: Vec<f64> = weights.iter().copied().chain([1.0]).collect();
        let total: f64 = weights.iter().sum();
        let mut so_far = 0.0;
        let mut cumulative: Vec<f64> = weights
            .iter()
            .map(|it| {
                so_far += it / total;
                so_far
            })
            .collect();
        if let Some(last) = cumulative.last_mut() {
            *last = 1.0;
        }
        let mut log_weights: Vec<f64> = weights.iter().map(|it| libm::log(it / total)).collect();
        let mut factors = Vec::with_capacity(parameters.len());
        for (place, parameter) in parameters.iter().enumerate() {
            let values: Vec<f64> = observations.iter().map(|it| it[place]).collect();
            let factor = match (&parameter.distribution, parameter.distribution.axis()) {
                (Distribution::Categorical { choices }, _) => choice(choices.len(), &values),
                (_, Some(axis)) => normal(axis, &values, bandwidth, parameters.len()),
                (_, None) => unreachable!("every numeric parameter has an axis"),
            };
            if let Factor::Normal { axis, means, widths } = &factor {
                for ((log_weight, mean), width) in log_weights.iter_mut().zip(means).zip(widths) {
                    *log_weight -= log_mass((axis.low - mean) / width, (axis.high - mean) / width);
                    // A grid's masses have no unit; a density is one per width.
                    if axis.step.is_none() {
                        *log_weight -= libm::log(*width);
                    }
                }
            }
            factors.push(factor);
        }
        Self { cumulative, log_weights, factors }
    }

    /// One internal value per parameter, drawn from the mixture.
    pub(super) fn draw(&self, stream: &mut Stream) -> Vec<f64> {
        let kernel = first_above(&self.cumulative, stream.uniform());
        let draw = |factor: &Factor, q: f64| match factor {
            Factor::Normal { axis, means, widths } => {
                let (mean, width) = (means[kernel], widths[kernel]);
                let x = quantile(q, (axis.low - mean) / width, (axis.high - mean) / width);
                axis.value(mean + width * x)
            }
            Factor::Choice { choices, probabilities } => {
                let mut so_far = 0.0;
                let cumulative: Vec<f64> = probabilities[kernel * choices..(kernel + 1) * choices]
                    .iter()
                    .map(|it| {
                        so_far += it;
                        so_far
                    })
                    .collect();
                first_above(&cumulative, q) as f64
            }
        };
        self.factors.iter().map(|it| draw(it, stream.uniform())).collect()
    }

    /// The logarithm of the density at each candidate, up to a constant.
    pub(super) fn log_densities(&self, candidates: &[Vec<f64>]) -> Vec<f64> {
        // On a grid candidates coincide, and a cell's mass costs much more than a density.
        let mut cells: HashMap<(usize, u64), Vec<f64>> = HashMap::new();
        let mut kernels = Vec::new();
        let mut density = |candidate: &Vec<f64>| {
            kernels.clone_from(&self.log_weights);
            for (place, (factor, &value)) in self.factors.iter().zip(candidate).enumerate() {
                match factor {
                    Factor::Normal { axis, means, widths } => match axis.step {
                        None => {
                            let x = axis.coordinate(value);
                            for ((kernel, mean), width) in kernels.iter_mut().zip(means).zip(widths) {
                                let distance = (x - mean) / width;
                                *kernel -= 0.5 * distance * distance;
                            }
                        }
                        Some(step) => {
                            let masses = cells.entry((place, value.to_bits())).or_insert_with(|| {
                                let (from, to) = axis.cell(value, step);
                                let mass = |(m, w): (&f64, &f64)| log_mass((from - m) / w, (to - m) / w);
                                means.iter().zip(widths).map(mass).collect()
                            });
                            kernels.iter_mut().zip(masses.iter()).for_each(|(kernel, it)| *kernel += it);
                        }
                    },
                    Factor::Choice { choices, probabilities } => {
                        let column = probabilities.iter().skip(value as usize).step_by(*choices);
                        kernels.iter_mut().zip(column).for_each(|(kernel, it)| *kernel += libm::log(*it));
                    }
                }
            }
            log_sum_exp(&kernels)
        };
        candidates.iter().map(&mut density).collect()
    }
}

/// The first place whose number exceeds `q`; the last one if rounding left none.
fn first_above(cumulative: &[f64], q: f64) -> usize {
    cumulative.partition_point(|it| *it <= q).min(cumulative.len().saturating_sub(1))
}

/// Kernels of a choice, row by row: the observations', then the prior's.
fn choice(choices: usize, observed: &[f64]) -> Factor {
    let kernels = observed.len() + 1;
    let base = 1.0 / kernels as f64;
    let mut probabilities = vec![1.0 / choices as f64; kernels * choices];
    for (row, &value) in probabilities.chunks_exact_mut(choices).zip(observed) {
        let total = base * choices as f64 + 1.0;
        row.fill(base / total);
        if let Some(seen) = row.get_mut(value as usize) {
            *seen = (base + 1.0) / total;
        }
    }
    Factor::Choice { choices, probabilities }
}

/// Kernels of a numeric parameter: the observations', then the prior's.
fn normal(axis: Axis, observed: &[f64], bandwidth: Bandwidth, d: usize) -> Factor {
    let range = axis.high - axis.low;
    let mut means: Vec<f64> = observed.iter().map(|&it| axis.coordinate(it)).collect();
    let middle = f64::midpoint(axis.low, axis.high);
    let mut widths = match bandwidth {
        Bandwidth::Count(factor) => {
            let count = observed.len().max(1) as f64;
            vec![factor * libm::pow(count, -1.0 / (d as f64 + 4.0)) * range; observed.len()]
        }
        Bandwidth::Neighbours => neighbour_distances(&means, middle, axis.low, axis.high),
    };
    let narrowest = range / (observed.len() as f64 + 2.0).min(100.0);
    for width in &mut widths {
        *width = width.clamp(narrowest, range);
    }
    means.push(middle);
    widths.push(range);
    Factor::Normal { axis, means, widths }
}

/// The larger distance from each coordinate to its neighbours. The ends of the axis are neighbours too, but not of
/// the outermost, if there are others.
fn neighbour_distances(coordinates: &[f64], middle: f64, low: f64, high: f64) -> Vec<f64> {
    let mut sorted: Vec<f64> = coordinates.iter().copied().chain([middle]).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let distance = |place: usize| {
        let left = if place > 0 { sorted[place] - sorted[place - 1] } else { sorted[place] - low };
        let right = if place < last { sorted[place + 1] - sorted[place] } else { high - sorted[place] };
        match place {
            0 if last > 0 => right,
            it if it == last && last > 0 => left,
            _ => left.max(right),
        }
    };
    // Among equal coordinates the stable order of the observations decides who is whose neighbour; the middle of
    // the axis comes after those that equal it.
    let mut order: Vec<usize> = (0..=coordinates.len()).collect();
    order.sort_by(|&a, &b| {
        let coordinate = |it: usize| coordinates.get(it).copied().unwrap_or(middle);
        coordinate(a).total_cmp(&coordinate(b))
    });
    let mut distances = vec![0.0; coordinates.len()];
    for (place, observation) in order.into_iter().enumerate() {
        if let Some(slot) = distances.get_mut(observation) {
            *slot = distance(place);
        }
    }
    distances
}

/// ln Σ eˣ.
fn log_sum_exp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    // What is e⁻⁴⁰ of the largest does not reach the last digit of the sum, and most terms are that small.
    let terms = terms.iter().map(|it| it - largest).filter(|it| *it > -40.0);
    largest + libm::log(terms.map(libm::exp).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(distribution: &Distribution, observed: &[f64], bandwidth: Bandwidth) -> Mixture {
        let parameter = Parameter::new("x", distribution.clone());
        let observations: Vec<Vec<f64>> = observed.iter().map(|&it| vec![it]).collect();
        Mixture::new(&[&parameter], &observations, &vec![1.0; observed.len()], bandwidth)
    }

    const BANDWIDTHS: [Bandwidth; 2] = [Bandwidth::Count(0.2), Bandwidth::Neighbours];

    #[test]
    fn densities_integrate_to_one() {
        for bandwidth in BANDWIDTHS {
            let mixture = mixture(&Distribution::float(-2.0, 3.0), &[-2.0, 0.1, 0.2, 2.9], bandwidth);
            // The midpoint rule on 5,000 cells of width 0.001; √2π was left out of the densities.
            let points: Vec<Vec<f64>> =
                (0..5000).map(|it| vec![-2.0 + 0.001 * (f64::from(it) + 0.5)]).collect();
            let sum: f64 = mixture.log_densities(&points).iter().map(|it| it.exp()).sum();
            let integral = sum * 0.001 / (2.0 * std::f64::consts::PI).sqrt();
            assert!((integral - 1.0).abs() < 1e-6, "{integral} with {bandwidth:?}");
        }
    }

    #[test]
    fn masses_on_a_grid_and_of_choices_add_up_to_one() {
        let distributions = [
            Distribution::Int { low: 1, high: 9, step: 2, log: false },
            Distribution::Int { low: 1, high: 9, step: 1, log: true },
            Distribution::Float { low: 1.0, high: 2.0, step: Some(0.25), log: false },
        ];
        for (distribution, bandwidth) in distributions.iter().flat_map(|it| BANDWIDTHS.map(|b| (it, b))) {
            let grid: Vec<Vec<f64>> = (4..=36)
                .map(|it| f64::from(it) / 4.0)
                .filter(|&it| distribution.contains(it))
                .map(|it| vec![it])
                .collect();
            let mixture = mixture(distribution, &[grid[0][0], grid[1][0], grid[1][0]], bandwidth);
            let sum: f64 = mixture.log_densities(&grid).iter().map(|it| it.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum} over {distribution:?}");
        }
        let mixture =
            mixture(&Distribution::categorical(["a", "b", "c"]), &[0.0, 2.0], Bandwidth::Count(0.2));
        let masses = mixture.log_densities(&[vec![0.0], vec![1.0], vec![2.0]]);
        assert!((masses.iter().map(|it| it.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        // Kernels (4/3, 1/3, 1/3)/2, its mirror image, and the prior 1/3 each, all of weight 1/3.
        assert!((masses[1].exp() - (1.0 / 6.0 + 1.0 / 6.0 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn draws_follow_the_density() {
        let distributions = [
            (Distribution::float(0.0, 1.0), vec![0.05, 0.5, 0.55]),
            (Distribution::int(0, 9), vec![0.0, 5.0, 5.0]),
        ];
        for (distribution, observed) in distributions {
            let mixture = mixture(&distribution, &observed, Bandwidth::Count(0.2));
            let mut stream = Stream::new(9, 9);
            let draws: Vec<f64> = (0..4000).map(|_| mixture.draw(&mut stream)[0]).collect();
            // The share at or below a tenth of the range, and at or below half of it, from draws and from densities.
            for bound in [0.1, 0.5] {
                let bound =
                    if distribution.is_compatible(&Distribution::int(0, 1)) { 9.0 * bound } else { bound };
                let drawn = draws.iter().filter(|it| **it <= bound).count() as f64 / 4000.0;
                let points: Vec<Vec<f64>> = match distribution {
                    Distribution::Int { .. } => (0..10).map(|it| vec![f64::from(it)]).collect(),
                    _ => (0..2000).map(|it| vec![(f64::from(it) + 0.5) / 2000.0]).collect(),
                };
                let densities: Vec<f64> = mixture.log_densities(&points).iter().map(|it| it.exp()).collect();
                let below = points.iter().zip(&densities).filter(|(it, _)| it[0] <= bound).map(|it| it.1);
                let expected = below.sum::<f64>() / densities.iter().sum::<f64>();
                // Four standard errors of 4,000 draws.
                assert!((drawn - expected).abs() < 0.032, "{drawn} and {expected} for {distribution:?}");
            }
        }
    }

    #[test]
    fn neighbours_are_those_of_optuna() {
        // Sorted with the middle: 1, 2, [5], 7. The outermost, 1 and 7, look inwards only: 1 and 2.
        // 2 lies between 1 and 5: the larger distance is 3.
        assert_eq!(neighbour_distances(&[7.0, 1.0, 2.0], 5.0, 0.0, 10.0), [2.0, 1.0, 3.0]);
        assert!(neighbour_distances(&[], 5.0, 0.0, 10.0).is_empty());
        // Equal ones: the first has 0 to its twin and is outermost, the second 3 to the middle.
        assert_eq!(neighbour_distances(&[2.0, 2.0], 5.0, 0.0, 10.0), [0.0, 3.0]);
    }

    #[test]
    fn without_observations_the_prior_is_left() {
        let mixture = mixture(&Distribution::float(0.0, 1.0), &[], Bandwidth::Count(0.2));
        let at = mixture.log_densities(&[vec![0.5], vec![0.0]]);
        // As wide as the range: from the middle to an end half a width, e^(−1/8).
        assert!((at[1] - at[0] + 0.125).abs() < 1e-12);
    }
}
