//! Any value, all equally likely.

use super::{Member, Request, Sampler};
use crate::{Assignment, Distribution, Parameter, Stream};

/// Draws every parameter uniformly, on a logarithmic scale if its distribution says so.
///
/// The baseline that every other sampler must beat, and what they begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Random;

pub(super) const MEMBER: Member = Member {
    name: "random",
    summary: "any value, all equally likely: the baseline",
    build: |_| Box::new(Random),
};

impl Sampler for Random {
    fn name(&self) -> &'static str {
        MEMBER.name
    }

    fn propose(&self, request: &Request<'_>) -> Assignment {
        let mut stream = Stream::new(request.seed, request.number);
        let mut assignment = Assignment::default();
        for parameter in request.space.parameters() {
            assignment.set(parameter.clone(), draw(parameter, &mut stream));
        }
        assignment
    }
}

/// Any internal value of a parameter.
pub(super) fn draw(parameter: &Parameter, stream: &mut Stream) -> f64 {
    match (&parameter.distribution, parameter.distribution.axis()) {
        (Distribution::Categorical { choices }, _) => stream.index(choices.len()) as f64,
        (_, Some(axis)) => axis.value(axis.low + stream.uniform() * (axis.high - axis.low)),
        (_, None) => unreachable!("every numeric parameter has an axis"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Space;

    /// χ² of draws over cells of equal expectation, from 3,000 trials.
    fn chi_squared(distribution: &Distribution, cells: usize, cell: impl Fn(f64) -> usize) -> f64 {
        let space = Space::new(vec![Parameter::new("x", distribution.clone())]).unwrap();
        let mut counts = vec![0.0; cells];
        for number in 0..3000 {
            let request = Request { space: &space, objectives: &[], history: &[], number, seed: 5 };
            counts[cell(Random.propose(&request).internal("x").unwrap())] += 1.0;
        }
        let expected = 3000.0 / cells as f64;
        counts.iter().map(|it| (it - expected).powi(2) / expected).sum()
    }

    #[test]
    fn every_value_is_equally_likely() {
        // With 4 degrees of freedom χ² exceeds 23.5 once in 10,000.
        let grid = Distribution::Int { low: 10, high: 30, step: 5, log: false };
        assert!(chi_squared(&grid, 5, |it| ((it - 10.0) / 5.0) as usize) < 23.5);
        let grid = Distribution::Float { low: 0.0, high: 1.0, step: Some(0.25), log: false };
        assert!(chi_squared(&grid, 5, |it| (it * 4.0) as usize) < 23.5);
        let choices = Distribution::categorical(["a", "b", "c", "d", "e"]);
        assert!(chi_squared(&choices, 5, |it| it as usize) < 23.5);
    }

    #[test]
    fn on_a_logarithmic_scale_every_decade_is_equally_likely() {
        let decades = Distribution::Float { low: 1e-5, high: 1.0, step: None, log: true };
        assert!(chi_squared(&decades, 5, |it| ((it.log10() + 5.0) as usize).min(4)) < 23.5);
    }
}
