//! What every sampler must pass.

use super::{Observation, Options, Outcome, Proposals, Request, SAMPLERS, Sampler, Tpe};
use crate::{Assignment, Distribution, Objective, Parameter, Space, Stream};

/// All members with default settings, and the modes of those that have some, with a short start-up.
fn all() -> Vec<Box<dyn Sampler>> {
    let modes = [Proposals::Multivariate, Proposals::Univariate, Proposals::Alternating];
    let mut all: Vec<Box<dyn Sampler>> = SAMPLERS.iter().map(|it| (it.build)(&Options::default())).collect();
    for proposals in modes {
        all.push(Box::new(Tpe { n_startup_trials: 10, n_ei_candidates: 24, proposals, ..Tpe::default() }));
    }
    all
}

/// Every kind of parameter, those with a single value included.
fn every_kind() -> Space {
    let named = |(place, it)| Parameter::new(format!("p{place}"), it);
    let kinds = [
        Distribution::float(-1.0, 2.0),
        Distribution::Float { low: 1e-6, high: 1e3, step: None, log: true },
        Distribution::Float { low: 0.0, high: 0.7, step: Some(0.1), log: false },
        Distribution::int(-5, 5),
        Distribution::Int { low: 1, high: 1000, step: 1, log: true },
        Distribution::Int { low: 0, high: 12, step: 4, log: false },
        Distribution::categorical(["global", "per layer"]),
        Distribution::float(0.25, 0.25),
        Distribution::int(3, 3),
        Distribution::categorical(["only"]),
    ];
    Space::new(kinds.into_iter().enumerate().map(named).collect()).unwrap()
}

fn objectives() -> [Objective; 2] {
    [Objective::minimize("a"), Objective::maximize("b")]
}

/// Runs a search over trials that are told at once, with values from a function of number and assignment.
fn run(
    sampler: &dyn Sampler,
    space: &Space,
    trials: usize,
    seed: u64,
    value: impl Fn(usize, &Assignment) -> Option<[f64; 2]>,
) -> Vec<Assignment> {
    let mut told: Vec<(Assignment, Option<[f64; 2]>)> = Vec::new();
    for number in 0..trials {
        let proposal = propose(sampler, space, &told, number, seed);
        let value = value(number, &proposal);
        told.push((proposal, value));
    }
    told.into_iter().map(|it| it.0).collect()
}

fn propose(
    sampler: &dyn Sampler,
    space: &Space,
    told: &[(Assignment, Option<[f64; 2]>)],
    number: usize,
    seed: u64,
) -> Assignment {
    let history: Vec<Observation<'_>> = told
        .iter()
        .enumerate()
        .map(|(number, (assignment, values))| {
            let outcome = match values {
                Some(values) => Outcome::Complete { values, violation: 0.0 },
                None => Outcome::Pending,
            };
            Observation { number, assignment, outcome }
        })
        .collect();
    sampler.propose(&Request { space, objectives: &objectives(), history: &history, number, seed })
}

fn assert_within(space: &Space, assignment: &Assignment, who: &str) {
    assert_eq!(assignment.len(), space.parameters().len(), "{who}");
    for (parameter, (assigned, value)) in space.parameters().iter().zip(assignment.iter()) {
        assert_eq!(parameter, assigned, "{who}");
        assert!(parameter.distribution.contains(value), "{who}: {value} for {parameter:?}");
    }
}

#[test]
fn every_value_lies_within_its_bounds() {
    let space = every_kind();
    for sampler in all() {
        let value = |number: usize, it: &Assignment| {
            let x = it.float("p0").unwrap();
            Some([x * x, (number % 7) as f64])
        };
        for assignment in run(&*sampler, &space, 90, 11, value) {
            assert_within(&space, &assignment, sampler.name());
        }
    }
}

#[test]
fn the_same_history_and_seed_give_the_same_bits_and_another_seed_others() {
    let space = every_kind();
    for sampler in all() {
        let value = |_, it: &Assignment| Some([it.float("p0").unwrap(), it.float("p2").unwrap()]);
        let first = run(&*sampler, &space, 75, 1, value);
        assert_eq!(first, run(&*sampler, &space, 75, 1, value), "{}", sampler.name());
        assert_ne!(first, run(&*sampler, &space, 75, 2, value), "{}", sampler.name());
    }
}

#[test]
fn a_proposal_needs_nothing_but_the_history() {
    // A sampler made anew for every trial proposes what one that lives on proposes.
    let space = every_kind();
    for member in SAMPLERS {
        let value = |_, it: &Assignment| Some([it.float("p0").unwrap(), it.float("p2").unwrap()]);
        let whole = run(&*(member.build)(&Options::default()), &space, 70, 3, value);
        let told: Vec<_> = whole.iter().enumerate().map(|(n, it)| (it.clone(), value(n, it))).collect();
        for number in [0, 1, 59, 60, 69] {
            let again = propose(&*(member.build)(&Options::default()), &space, &told[..number], number, 3);
            assert_eq!(again, whole[number], "{} trial {number}", member.name);
        }
    }
}

#[test]
fn constant_infinite_and_missing_values_are_no_reason_to_stop() {
    let space = every_kind();
    for sampler in all() {
        for value in [Some([1.0, 1.0]), Some([f64::INFINITY, 0.0]), Some([f64::NEG_INFINITY; 2]), None] {
            for assignment in run(&*sampler, &space, 75, 4, |_, _| value) {
                assert_within(&space, &assignment, sampler.name());
            }
        }
        let mixed = |number: usize, _: &Assignment| match number % 3 {
            0 => None,
            1 => Some([f64::NAN, 1.0]),
            _ => Some([number as f64, 0.0]),
        };
        run(&*sampler, &space, 75, 4, mixed);
    }
}

#[test]
fn a_history_of_another_space_is_used_as_far_as_it_fits() {
    let old = Space::new(vec![
        Parameter::new("p0", Distribution::float(-10.0, 20.0)),
        Parameter::new("p6", Distribution::categorical(["other", "choices", "here"])),
        Parameter::new("gone", Distribution::int(0, 9)),
    ]);
    for sampler in all() {
        let told: Vec<_> =
            run(&*sampler, old.as_ref().unwrap(), 70, 5, |number, _| Some([number as f64, 0.0]))
                .into_iter()
                .map(|it| (it, Some([1.0, 2.0])))
                .collect();
        let space = every_kind();
        assert_within(&space, &propose(&*sampler, &space, &told, 70, 5), sampler.name());
    }
}

#[test]
fn values_that_do_not_fit_the_objectives_are_no_reason_to_stop() {
    let space = every_kind();
    for sampler in all() {
        let assignment = run(&*sampler, &space, 1, 6, |_, _| None).remove(0);
        let outcome = Outcome::Complete { values: &[1.0], violation: 0.0 };
        let history: Vec<_> =
            (0..80).map(|number| Observation { number, assignment: &assignment, outcome }).collect();
        let request =
            Request { space: &space, objectives: &objectives(), history: &history, number: 80, seed: 6 };
        assert_within(&space, &sampler.propose(&request), sampler.name());
    }
}

#[test]
fn one_objective_is_enough_to_improve() {
    // A sphere in three dimensions. The best of 60 further random points is beaten by all but the random sampler.
    let named = |it: &str| Parameter::new(it, Distribution::float(-1.0, 1.0));
    let space = Space::new(["x", "y", "z"].map(named).into()).unwrap();
    let sphere = |it: &Assignment| it.iter().map(|(_, x)| x * x).sum::<f64>();
    let objectives = [Objective::minimize("sphere")];
    for sampler in all().iter().filter(|it| it.name() == "tpe") {
        let mut wins = 0;
        for seed in 0..10 {
            let mut told: Vec<(Assignment, [f64; 1])> = Vec::new();
            for number in 0..120 {
                let complete = |values| Outcome::Complete { values, violation: 0.0 };
                let history: Vec<Observation<'_>> = told
                    .iter()
                    .enumerate()
                    .map(|(number, (assignment, values))| Observation {
                        number,
                        assignment,
                        outcome: complete(values),
                    })
                    .collect();
                let request =
                    Request { space: &space, objectives: &objectives, history: &history, number, seed };
                let proposal = sampler.propose(&request);
                let value = [sphere(&proposal)];
                told.push((proposal, value));
            }
            let best = told.iter().map(|it| it.1[0]).fold(f64::INFINITY, f64::min);
            let mut stream = Stream::new(seed, 1_000_000);
            let random = (0..120)
                .map(|_| (0..3).map(|_| (2.0 * stream.uniform() - 1.0).powi(2)).sum::<f64>())
                .fold(f64::INFINITY, f64::min);
            wins += usize::from(best < random);
        }
        assert!(wins >= 8, "{wins} of 10");
    }
}
