//! Which few members of a front to keep.
//!
//! The greedy rule: keep the vector that adds the largest volume to those kept so far, again and again. It reaches
//! at least 1 − 1/e of the best possible volume. Equal vectors count once, unless there are too few others.
//!
//! # Source
//! Guerreiro, Fonseca, Paquete: *Greedy hypervolume subset selection in low dimensions*, Evolutionary Computation
//! 2016. That a vector's gain can only shrink as others are kept (submodularity) is why gains computed in an
//! earlier round bound those of later ones: Minoux, *Accelerated greedy algorithms*, 1978.

use super::{exclusive, inclusive};
use crate::pareto;

/// The places of `count` vectors, in order of place; all of them if there are no more.
///
/// # Shapes
/// - `losses`: one vector per candidate, none worse than `reference`
pub(crate) fn select(losses: &[Vec<f64>], count: usize, reference: &[f64]) -> Vec<usize> {
    if count >= losses.len() {
        return (0..losses.len()).collect();
    }
    let mut distinct = pareto::sorted(losses);
    distinct.dedup_by(|later, earlier| losses[*later] == losses[*earlier]);
    let finite = distinct.iter().flat_map(|&it| &losses[it]).chain(reference).all(|it| it.is_finite());
    let mut kept = if distinct.len() <= count {
        distinct
    } else if !finite {
        // Infinite volumes cannot be compared.
        distinct.into_iter().take(count).collect()
    } else if reference.len() == 2 {
        by_rectangles(losses, distinct, count, [reference[0], reference[1]])
    } else {
        by_gains(losses, distinct, count, reference)
    };
    // Too few distinct vectors: fill up with repetitions, earliest first.
    let mut is_kept = vec![false; losses.len()];
    for &place in &kept {
        is_kept[place] = true;
    }
    let missing = count - kept.len();
    kept.extend((0..losses.len()).filter(|&it| !is_kept[it]).take(missing));
    kept.sort_unstable();
    kept
}

/// Two objectives. Sorted by the first loss, what a vector would add to those kept is a rectangle; its far corner
/// is bounded by the nearest kept vector on either side, and moves closer when one is kept.
fn by_rectangles(losses: &[Vec<f64>], distinct: Vec<usize>, count: usize, reference: [f64; 2]) -> Vec<usize> {
    let mut left: Vec<(usize, [f64; 2])> = distinct.into_iter().map(|it| (it, reference)).collect();
    let mut kept = Vec::with_capacity(count);
    while kept.len() < count {
        let gains = left.iter().map(|&(it, corner)| inclusive(&losses[it], &corner));
        let best = first_largest(gains);
        let (place, _) = left.remove(best);
        kept.push(place);
        for (index, (_, corner)) in left.iter_mut().enumerate() {
            let objective = usize::from(index >= best);
            corner[objective] = corner[objective].min(losses[place][objective]);
        }
    }
    kept
}

/// Any number of objectives. A gain from an earlier round is an upper bound: only those are computed again that
/// could still be the largest.
fn by_gains(losses: &[Vec<f64>], distinct: Vec<usize>, count: usize, reference: &[f64]) -> Vec<usize> {
    let mut left: Vec<(usize, f64)> =
        distinct.into_iter().map(|it| (it, inclusive(&losses[it], reference))).collect();
    let mut kept: Vec<usize> = Vec::with_capacity(count);
    while kept.len() < count {
        let mut fresh = vec![kept.is_empty(); left.len()];
        let best = loop {
            let best = first_largest(left.iter().map(|it| it.1));
            if fresh[best] {
                break best;
            }
            let (place, gain) = &mut left[best];
            *gain = exclusive(&losses[*place], kept.iter().map(|&it| &losses[it]), reference);
            fresh[best] = true;
        };
        kept.push(left.remove(best).0);
    }
    kept
}

/// The place of the largest number, the first one if there are several.
fn first_largest(numbers: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (place, number) in numbers.enumerate() {
        if number > best.1 {
            best = (place, number);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hypervolume;
    use super::super::tests::whole_losses;
    use super::*;

    fn volume_of(losses: &[Vec<f64>], places: &[usize], d: usize) -> f64 {
        let kept: Vec<&Vec<f64>> = places.iter().map(|&it| &losses[it]).collect();
        hypervolume(&kept, &vec![5.0; d])
    }

    /// The greedy rule taken literally: the volume with each candidate in turn.
    fn naive(losses: &[Vec<f64>], count: usize, d: usize) -> Vec<usize> {
        let mut kept: Vec<usize> = Vec::new();
        let order = pareto::sorted(losses);
        while kept.len() < count {
            let mut best = (usize::MAX, -1.0);
            for &place in order.iter().filter(|it| !kept.contains(it)) {
                let mut with = kept.clone();
                with.push(place);
                let gain = volume_of(losses, &with, d);
                if gain > best.1 {
                    best = (place, gain);
                }
            }
            kept.push(best.0);
        }
        kept
    }

    /// The largest volume of any choice.
    fn best_of_all(losses: &[Vec<f64>], count: usize, d: usize) -> f64 {
        (0_u32..1 << losses.len())
            .filter(|it| it.count_ones() as usize == count)
            .map(|it| (0..losses.len()).filter(|place| it >> place & 1 == 1).collect::<Vec<_>>())
            .map(|it| volume_of(losses, &it, d))
            .fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn both_ways_reach_the_volume_of_the_literal_rule((d, losses) in whole_losses(), share in 0.0..1.0_f64) {
            prop_assume!(d >= 2);
            let all: Vec<Vec<f64>> =
                losses.iter().map(|it| it.iter().map(|x| x.min(5.0)).collect()).collect();
            let losses: Vec<Vec<f64>> = pareto::front_of_losses(&all).iter().map(|&it| all[it].clone()).collect();
            let count = (share * losses.len() as f64) as usize;
            let found = select(&losses, count, &vec![5.0; d]);
            prop_assert_eq!(found.len(), count);
            prop_assert!(found.is_sorted_by(|a, b| a < b));
            let volume = volume_of(&losses, &found, d);
            prop_assert_eq!(volume, volume_of(&losses, &naive(&losses, count, d), d));
            prop_assert!(volume >= (1.0 - (-1.0_f64).exp()) * best_of_all(&losses, count, d));
        }
    }

    #[test]
    fn repetitions_are_kept_only_when_nothing_else_is_left() {
        let losses = [[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]].map(Vec::from);
        assert_eq!(select(&losses, 2, &[3.0, 3.0]), [0, 2]);
        assert_eq!(select(&losses, 3, &[3.0, 3.0]), [0, 1, 2]);
        assert_eq!(select(&losses, 9, &[3.0, 3.0]), [0, 1, 2, 3]);
    }

    #[test]
    fn infinite_losses_do_not_stop_the_selection() {
        let losses = [[f64::NEG_INFINITY, 2.0], [1.0, 1.0], [2.0, 0.0]].map(Vec::from);
        assert_eq!(select(&losses, 2, &[3.0, 3.0]).len(), 2);
    }
}
