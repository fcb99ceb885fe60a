//! Which trials are good, which are bad, and how much each counts.

use crate::Objective;
use crate::hypervolume;
use crate::objective::losses;
use crate::pareto;
use crate::samplers::{Observation, Outcome};

/// The share of trials that count as good. Optuna's; on our problems 0.2 is slightly better, untuned otherwise.
const GOOD_SHARE: f64 = 0.1;

/// No more than these are good, in Optuna 4.8.
const GOOD_LIMIT: usize = 25;

/// How many of the newest bad trials count fully.
const RECENT: usize = 25;

/// The weight of a good trial that adds no volume, beside 1 for the one that adds most.
const NEGLIGIBLE: f64 = 1e-12;

/// A history in two parts; places in it, in order.
#[derive(Debug, PartialEq)]
pub(super) struct Split {
    /// What to imitate, with weights.
    pub(super) good: Vec<(usize, f64)>,
    /// What to avoid: the rest, and what is pending.
    pub(super) bad: Vec<usize>,
}

/// Splits a history. Good are the best tenth of the finished trials, 25 at most: those that complete, by front;
/// then those given up; then those that break constraints, the mildest first.
pub(super) fn split(history: &[Observation<'_>], objectives: &[Objective]) -> Split {
    let (mut complete, mut pruned, mut infeasible) = (Vec::new(), Vec::new(), Vec::new());
    for (place, observation) in history.iter().enumerate() {
        match observation.outcome {
            Outcome::Pending => {}
            Outcome::Complete { violation, .. } if violation > 0.0 => infeasible.push((place, violation)),
            Outcome::Complete { values, .. } if values.len() == objectives.len() => {
                complete.push((place, losses(values, objectives)));
            }
            // Values that do not fit the objectives say as little as none.
            Outcome::Complete { .. } | Outcome::Pruned => pruned.push(place),
        }
    }
    infeasible.sort_by(|a, b| a.1.total_cmp(&b.1));
    let finished = complete.len() + pruned.len() + infeasible.len();
    let wanted = ((GOOD_SHARE * finished as f64).ceil() as usize).min(GOOD_LIMIT);

    let mut good = best(&complete, wanted);
    let others = pruned.into_iter().chain(infeasible.into_iter().map(|it| it.0));
    let missing = wanted.saturating_sub(good.len());
    good.extend(others.take(missing).map(|it| (it, NEGLIGIBLE)));
    good.sort_by_key(|it| it.0);
    let bad = (0..history.len()).filter(|it| good.binary_search_by_key(it, |it| it.0).is_err()).collect();
    Split { good, bad }
}

/// The `wanted` best complete trials: whole fronts while they fit, then of the next one those that together reach
/// the largest volume.
fn best(complete: &[(usize, Vec<f64>)], wanted: usize) -> Vec<(usize, f64)> {
    let all: Vec<Vec<f64>> = complete.iter().map(|it| it.1.clone()).collect();
    let ranks = pareto::ranks_of_losses(&all);
    let mut kept: Vec<usize> = Vec::new();
    for rank in 0..all.len() {
        let front: Vec<usize> = (0..all.len()).filter(|&it| ranks[it] == rank).collect();
        let room = wanted.saturating_sub(kept.len());
        if room == 0 {
            break;
        }
        if front.len() <= room {
            kept.extend(front);
            continue;
        }
        let losses: Vec<Vec<f64>> = front.iter().map(|&it| all[it].clone()).collect();
        let reference = reference_point(&losses);
        kept.extend(hypervolume::select(&losses, room, &reference).into_iter().map(|it| front[it]));
    }
    let losses: Vec<Vec<f64>> = kept.iter().map(|&it| all[it].clone()).collect();
    kept.iter().map(|&it| complete[it].0).zip(good_weights(&losses)).collect()
}

/// How much each good trial counts: by the volume that it adds to the rest of the front, relative to the largest. What
/// the front dominates counts for next to nothing, and takes nothing away from the front.
fn good_weights(losses: &[Vec<f64>]) -> Vec<f64> {
    let reference = reference_point(losses);
    // With one objective only the best would add anything; Optuna then counts all the same.
    if losses.len() <= 1 || reference.len() <= 1 {
        return vec![1.0; losses.len()];
    }
    let front = pareto::front_of_losses(losses);
    let members: Vec<Vec<f64>> = front.iter().map(|&it| losses[it].clone()).collect();
    let mut contributions = vec![0.0; losses.len()];
    for (&member, contribution) in front.iter().zip(hypervolume::contributions(&members, &reference)) {
        contributions[member] = contribution;
    }
    let largest = contributions.iter().copied().fold(NEGLIGIBLE, f64::max);
    if losses.iter().flatten().chain(&reference).any(|it| !it.is_finite()) || !largest.is_finite() {
        return vec![1.0; losses.len()];
    }
    contributions.iter().map(|it| (it / largest).max(NEGLIGIBLE)).collect()
}

/// A point somewhat worse than the worst of these losses in every objective.
fn reference_point(losses: &[Vec<f64>]) -> Vec<f64> {
    let worst = |objective: usize| losses.iter().map(|it| it[objective]).fold(f64::NEG_INFINITY, f64::max);
    let worse = |worst: f64| if worst == 0.0 { 1e-12 } else { (1.1 * worst).max(0.9 * worst) };
    (0..losses.first().map_or(0, Vec::len)).map(|it| worse(worst(it))).collect()
}

/// How much each bad trial counts, oldest first: the newest 25 fully, older ones less and less.
pub(super) fn recent_weights(count: usize) -> Vec<f64> {
    let old = count.saturating_sub(RECENT);
    let least = 1.0 / count.max(1) as f64;
    let ramp = |place: usize| least + (1.0 - least) * place as f64 / (old.max(2) - 1) as f64;
    (0..count).map(|place| if place < old { ramp(place) } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Assignment;

    fn objectives() -> [Objective; 2] {
        [Objective::minimize("cost"), Objective::maximize("taste")]
    }

    /// Splits trials with these outcomes.
    fn split_of(outcomes: &[Outcome<'_>]) -> Split {
        let assignment = Assignment::default();
        let observation = |(number, &outcome)| Observation { number, assignment: &assignment, outcome };
        let history: Vec<_> = outcomes.iter().enumerate().map(observation).collect();
        split(&history, &objectives())
    }

    fn complete(values: &[f64; 2]) -> Outcome<'_> {
        Outcome::Complete { values, violation: 0.0 }
    }

    #[test]
    fn a_tenth_is_good_and_pending_trials_are_bad() {
        // Cost 10…1 and taste 0: every later one is better, one of ten is good.
        let values: Vec<[f64; 2]> = (1..=10).rev().map(|it| [f64::from(it), 0.0]).collect();
        let mut outcomes: Vec<_> = values.iter().map(complete).collect();
        outcomes.insert(3, Outcome::Pending);
        let split = split_of(&outcomes);
        assert_eq!(split.good, [(10, 1.0)]);
        assert_eq!(split.bad, (0..10).collect::<Vec<_>>());
        // An eleventh finished trial makes room for a second good one.
        outcomes.push(Outcome::Pruned);
        assert_eq!(split_of(&outcomes).good.iter().map(|it| it.0).collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn good_trials_weigh_by_the_volume_that_they_add() {
        // As losses (1, −3), (2, −4), (3, −4.5): the reference point is (3.3, −2.7) and the exclusive rectangles
        // are 1 × 0.3, 1 × 1 and 0.3 × 0.5.
        let weights = good_weights(&[[1.0, -3.0], [2.0, -4.0], [3.0, -4.5]].map(Vec::from));
        for (found, expected) in weights.iter().zip([0.3, 1.0, 0.15]) {
            assert!((found - expected).abs() < 1e-12, "{weights:?}");
        }
        // A dominated one and one that is there twice add nothing.
        let weights = good_weights(&[[1.0, 1.0], [1.0, 1.0], [0.5, 2.0], [2.0, 2.0]].map(Vec::from));
        assert_eq!(weights, [NEGLIGIBLE, NEGLIGIBLE, 1.0, NEGLIGIBLE]);
        // The reference point is (2.2, 2.2). What (1, 1) has beside (2, 0.5) is 1.2 × 1.2, less 0.2 × 1.2 that the
        // other reaches too; that (1, 2), which it dominates, reaches some of it as well takes nothing away.
        let weights = good_weights(&[[1.0, 1.0], [1.0, 2.0], [2.0, 0.5]].map(Vec::from));
        assert_eq!(weights[..2], [1.0, NEGLIGIBLE]);
        assert!((weights[2] - 0.2 * 0.5 / 1.2).abs() < 1e-12, "{weights:?}");
    }

    #[test]
    fn given_up_and_infeasible_trials_are_good_only_when_nothing_else_is_left() {
        let values = [1.0, 1.0];
        let infeasible = |violation| Outcome::Complete { values: &values, violation };
        let mut outcomes = vec![infeasible(2.0), infeasible(1.0), Outcome::Pruned, complete(&values)];
        assert_eq!(split_of(&outcomes).good, [(3, 1.0)]);
        // Of 31 finished trials 4 are good: the complete one, the one given up, and the mildest two.
        outcomes.extend(vec![infeasible(3.0); 27]);
        let good: Vec<usize> = split_of(&outcomes).good.iter().map(|it| it.0).collect();
        assert_eq!(good, [0, 1, 2, 3]);
    }

    #[test]
    fn infinite_values_weigh_like_others() {
        let values = [[f64::NEG_INFINITY, 0.0], [1.0, f64::INFINITY], [f64::INFINITY, 1.0]];
        let mut outcomes: Vec<_> = values.iter().map(complete).collect();
        outcomes.extend(vec![complete(&[9.0, -9.0]); 15]);
        assert!(split_of(&outcomes).good.iter().all(|it| it.1 == 1.0));
    }

    #[test]
    fn the_reference_point_is_a_tenth_worse_than_the_worst() {
        let reference = reference_point(&[[10.0, -20.0, 0.0], [1.0, -10.0, -1.0]].map(Vec::from));
        assert_eq!(reference, [11.0, -9.0, 1e-12]);
    }

    #[test]
    fn old_bad_trials_count_less() {
        assert!(recent_weights(0).is_empty());
        assert_eq!(recent_weights(25), [1.0; 25]);
        assert_eq!(recent_weights(26)[..2], [1.0 / 26.0, 1.0]);
        // Three old ones: from 1/28 in equal steps to 1.
        assert_eq!(recent_weights(28)[..4], [1.0 / 28.0, 29.0 / 56.0, 1.0, 1.0]);
    }
}
