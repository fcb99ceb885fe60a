//! Which vectors of values no other one beats.
//!
//! A vector *dominates* another if it is nowhere worse and somewhere better. The first *front* is what nothing
//! dominates, the second what only the first dominates, and so on; a vector's *rank* is its front's number from 0.
//! Equal vectors do not dominate each other and share a rank.
//!
//! Any number of objectives of any sense: what is maximized is negated first. What is not a number counts as
//! infinitely bad.
//!
//! # Source
//! Zhang, Tian, Cheng, Jin: *An efficient approach to nondominated sorting*, IEEE TEVC 2015 (ENS-SS): in
//! lexicographic order a vector can only be dominated by earlier ones, and it belongs to the first front of which
//! no member dominates it.

use std::cmp::Ordering;

use crate::Goal;

/// The ranks of vectors of values, 0 for the best.
///
/// ```
/// use search::{Goal::{Maximize, Minimize}, pareto};
/// let points = [[1.0, 1.0], [2.0, 2.0], [2.0, 1.0], [1.0, 1.0]];
/// // (2, 1) costs more than (1, 1) and gives no more; neither of (1, 1) and (2, 2) beats the other.
/// assert_eq!(pareto::ranks(&points, &[Minimize, Maximize]), [0, 0, 1, 0]);
/// ```
///
/// # Shapes
/// - `points`: one vector per candidate, one value per goal (more are ignored, missing ones are infinitely bad)
pub fn ranks(points: &[impl AsRef<[f64]>], goals: &[Goal]) -> Vec<usize> {
    ranks_of_losses(&to_losses(points, goals))
}

/// The places of the vectors that no other one dominates, in order.
pub fn front(points: &[impl AsRef<[f64]>], goals: &[Goal]) -> Vec<usize> {
    front_of_losses(&to_losses(points, goals))
}

fn to_losses(points: &[impl AsRef<[f64]>], goals: &[Goal]) -> Vec<Vec<f64>> {
    let value = |point: &[f64], place: usize| point.get(place).copied().unwrap_or(f64::NAN);
    let losses = |point: &[f64]| goals.iter().enumerate().map(|(i, it)| it.loss(value(point, i))).collect();
    points.iter().map(|it| losses(it.as_ref())).collect()
}

/// Whether `a` is nowhere larger than `b` and somewhere smaller.
pub(crate) fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
}

/// Lexicographic order; no loss is NaN.
pub(crate) fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|it| it.is_ne()).unwrap_or(Ordering::Equal)
}

/// The places of vectors, sorted lexicographically; equal ones in order.
pub(crate) fn sorted(losses: &[Vec<f64>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|&a, &b| lexicographic(&losses[a], &losses[b]));
    order
}

/// Ranks of vectors to be minimized.
pub(crate) fn ranks_of_losses(losses: &[Vec<f64>]) -> Vec<usize> {
    let mut ranks = vec![0; losses.len()];
    let mut fronts: Vec<Vec<usize>> = Vec::new();
    let mut previous: Option<usize> = None;
    for place in sorted(losses) {
        if let Some(twin) = previous.filter(|&it| losses[it] == losses[place]) {
            ranks[place] = ranks[twin];
            continue;
        }
        previous = Some(place);
        // The members nearest in lexicographic order are the likeliest to dominate. With two objectives the last
        // one alone decides, for it has the smallest second loss.
        let enough = if losses[place].len() <= 2 { 1 } else { usize::MAX };
        let beaten = |front: &Vec<usize>| {
            front.iter().rev().take(enough).any(|&it| dominates(&losses[it], &losses[place]))
        };
        // Being beaten by a front means being beaten by all better ones, so the first that does not can be bisected.
        let rank = fronts.partition_point(beaten);
        if rank == fronts.len() {
            fronts.push(Vec::new());
        }
        fronts[rank].push(place);
        ranks[place] = rank;
    }
    ranks
}

/// The places of what nothing dominates, of vectors to be minimized.
pub(crate) fn front_of_losses(losses: &[Vec<f64>]) -> Vec<usize> {
    let ranks = ranks_of_losses(losses);
    (0..losses.len()).filter(|&it| ranks[it] == 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Peels front after front by comparing everything with everything.
    fn naive(losses: &[Vec<f64>]) -> Vec<usize> {
        let mut ranks = vec![None; losses.len()];
        let mut rank = 0;
        while ranks.contains(&None) {
            let left: Vec<usize> = (0..losses.len()).filter(|&it| ranks[it].is_none()).collect();
            for &a in &left {
                if !left.iter().any(|&b| dominates(&losses[b], &losses[a])) {
                    ranks[a] = Some(rank);
                }
            }
            rank += 1;
        }
        ranks.into_iter().flatten().collect()
    }

    /// Few distinct values, so that ties and equal vectors are common.
    fn losses() -> impl Strategy<Value = Vec<Vec<f64>>> {
        let value = prop_oneof![(0..6_i32).prop_map(f64::from), Just(f64::INFINITY), Just(f64::NEG_INFINITY)];
        (1..5_usize)
            .prop_flat_map(move |d| prop::collection::vec(prop::collection::vec(value.clone(), d), 0..40))
    }

    proptest! {
        #[test]
        fn ranks_are_those_of_peeling_front_after_front(losses in losses()) {
            prop_assert_eq!(ranks_of_losses(&losses), naive(&losses));
        }

        #[test]
        fn no_member_of_the_front_is_dominated_and_all_others_are(losses in losses()) {
            let front = front_of_losses(&losses);
            for place in 0..losses.len() {
                let dominated = losses.iter().any(|it| dominates(it, &losses[place]));
                prop_assert_eq!(front.contains(&place), !dominated);
            }
        }

        #[test]
        fn maximizing_is_minimizing_the_negative(losses in losses()) {
            let width = losses.first().map_or(0, Vec::len);
            let negated: Vec<Vec<f64>> = losses.iter().map(|it| it.iter().map(|x| -x).collect()).collect();
            prop_assert_eq!(ranks(&negated, &vec![Goal::Maximize; width]), ranks_of_losses(&losses));
        }
    }

    #[test]
    fn what_is_not_a_number_is_worst() {
        let points = [[f64::NAN, 0.0], [5.0, 0.0]];
        assert_eq!(front(&points, &[Goal::Minimize, Goal::Minimize]), [1]);
        assert_eq!(front(&points, &[Goal::Maximize, Goal::Minimize]), [1]);
    }

    #[test]
    fn vectors_of_the_wrong_length_are_no_reason_to_stop() {
        let points = [vec![1.0], vec![1.0, 2.0, 3.0]];
        assert_eq!(front(&points, &[Goal::Minimize, Goal::Minimize]), [1]);
        assert_eq!(front(&points, &[]), [0, 1]);
    }
}
