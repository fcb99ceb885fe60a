//! How much of the space of values a set of vectors dominates.
//!
//! The hypervolume of a set, given a reference point that is worse than anything of interest, is the volume of
//! what lies between the reference point and at least one member: the one number that grows whenever the front
//! improves anywhere. Members that are not better than the reference point in every objective add nothing.
//!
//! All functions here minimize; [`Goal::loss`](crate::Goal::loss) turns values into losses.
//! Exact for any number of objectives: a sweep for two (O(n log n)), a sweep over a growing staircase for three
//! (O(n²), with a very small constant), and for more the WFG recursion.
//!
//! # Source
//! While, Bradstreet, Barone: *A fast way of calculating exact hypervolumes*, IEEE TEVC 2012 (WFG).

mod subset;

use crate::pareto;

pub(crate) use subset::select;

/// The volume between the reference point and what at least one of the vectors reaches. Infinite where a vector
/// is infinitely good or the reference point infinitely bad.
///
/// ```
/// use search::hypervolume::hypervolume;
/// // Two rectangles of 1 × 2 and 2 × 1 that share a unit square.
/// assert_eq!(hypervolume(&[[2.0, 1.0], [1.0, 2.0]], &[3.0, 3.0]), 3.0);
/// ```
///
/// # Shapes
/// - `losses`: one vector per candidate, one loss per objective; vectors of another length count as nothing
/// - `reference`: one number per objective
pub fn hypervolume(losses: &[impl AsRef<[f64]>], reference: &[f64]) -> f64 {
    let better = |it: &[f64]| it.len() == reference.len() && it.iter().zip(reference).all(|(a, r)| a < r);
    let inside: Vec<Vec<f64>> =
        losses.iter().map(AsRef::as_ref).filter(|it| better(it)).map(<[f64]>::to_vec).collect();
    if inside.iter().flatten().chain(reference).any(|it| it.is_infinite()) {
        return if inside.is_empty() { 0.0 } else { f64::INFINITY };
    }
    volume(inside, reference)
}

/// How much each vector adds to all the others: 0 for what is dominated or there twice.
///
/// # Shapes
/// - `losses`: one vector per candidate, none worse than `reference`
pub(crate) fn contributions(losses: &[Vec<f64>], reference: &[f64]) -> Vec<f64> {
    (0..losses.len())
        .map(|place| {
            let others = losses.iter().enumerate().filter(|(it, _)| *it != place).map(|(_, other)| other);
            exclusive(&losses[place], others, reference)
        })
        .collect()
}

/// The volume that a vector has for itself beside others: its own less what the others reach of it.
fn exclusive<'a>(vector: &[f64], others: impl Iterator<Item = &'a Vec<f64>>, reference: &[f64]) -> f64 {
    let limited = others.map(|it| it.iter().zip(vector).map(|(a, b)| a.max(*b)).collect()).collect();
    (inclusive(vector, reference) - volume(limited, reference)).max(0.0)
}

/// The volume of one vector alone.
fn inclusive(vector: &[f64], reference: &[f64]) -> f64 {
    vector.iter().zip(reference).map(|(a, r)| r - a).product()
}

/// The volume of finite vectors, none of them worse than the reference point.
fn volume(mut losses: Vec<Vec<f64>>, reference: &[f64]) -> f64 {
    match losses.len() {
        0 => return 0.0,
        1 => return inclusive(&losses[0], reference),
        _ => losses.sort_by(|a, b| pareto::lexicographic(a, b)),
    }
    match *reference {
        [] => 0.0,
        [end] => end - losses[0][0],
        [x, y] => area(&losses, x, y),
        [x, y, z] => staircase(losses, [x, y, z]),
        _ => wfg(losses, reference),
    }
}

/// Two objectives, sorted by the first: each vector adds the rectangle below the lowest one before it.
fn area(losses: &[Vec<f64>], end: f64, top: f64) -> f64 {
    let mut lowest = top;
    let mut area = 0.0;
    for it in losses {
        if it[1] < lowest {
            area += (end - it[0]) * (lowest - it[1]);
            lowest = it[1];
        }
    }
    area
}

/// Three objectives: going up the third one, the area that is reached in the plane of the other two only grows.
fn staircase(mut losses: Vec<Vec<f64>>, [x, y, z]: [f64; 3]) -> f64 {
    losses.sort_by(|a, b| a[2].total_cmp(&b[2]));
    // The plane's front: first objective increasing, second decreasing.
    let mut stairs: Vec<Vec<f64>> = Vec::new();
    let (mut reached, mut height, mut volume) = (0.0, z, 0.0);
    for vector in losses {
        let at = stairs.partition_point(|it| it[0] < vector[0]);
        let beaten_before = at > 0 && stairs[at - 1][1] <= vector[1];
        if beaten_before || stairs.get(at).is_some_and(|it| it[0] <= vector[0] && it[1] <= vector[1]) {
            continue;
        }
        volume += reached * (vector[2] - height).max(0.0);
        height = vector[2];
        let beaten = stairs[at..].iter().take_while(|it| it[1] >= vector[1]).count();
        stairs.splice(at..at + beaten, [vector]);
        reached = area(&stairs, x, y);
    }
    volume + reached * (z - height)
}

/// More objectives: each vector adds what it has for itself beside those after it.
fn wfg(losses: Vec<Vec<f64>>, reference: &[f64]) -> f64 {
    let ranks = pareto::ranks_of_losses(&losses);
    let mut front: Vec<Vec<f64>> =
        losses.into_iter().zip(ranks).filter(|(_, rank)| *rank == 0).map(|(it, _)| it).collect();
    // Equal vectors are neighbours after sorting; without this the recursion would double with each pair.
    front.dedup();
    (0..front.len()).map(|it| exclusive(&front[it], front[it + 1..].iter(), reference)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts unit cells: losses are whole numbers below 5, the reference point is 5 everywhere.
    pub(super) fn cells(losses: &[Vec<f64>], objectives: usize) -> f64 {
        let count = 5_usize.pow(objectives as u32);
        let reached = |cell: usize| {
            let corner = |place: usize| (cell / 5_usize.pow(place as u32) % 5) as f64;
            losses.iter().any(|it| (0..objectives).all(|place| it[place] <= corner(place)))
        };
        (0..count).filter(|&it| reached(it)).count() as f64
    }

    pub(super) fn whole_losses() -> impl Strategy<Value = (usize, Vec<Vec<f64>>)> {
        (1..6_usize).prop_flat_map(|d| {
            let vector = prop::collection::vec((0..6_i32).prop_map(f64::from), d);
            (Just(d), prop::collection::vec(vector, 0..14))
        })
    }

    proptest! {
        #[test]
        fn the_volume_is_the_number_of_cells_reached((d, losses) in whole_losses()) {
            prop_assert_eq!(hypervolume(&losses, &vec![5.0; d]), cells(&losses, d));
        }

        #[test]
        fn a_contribution_is_what_goes_when_the_vector_goes((d, losses) in whole_losses()) {
            let losses: Vec<Vec<f64>> =
                losses.into_iter().map(|it| it.into_iter().map(|x| x.min(5.0)).collect()).collect();
            let found = contributions(&losses, &vec![5.0; d]);
            for (place, found) in found.into_iter().enumerate() {
                let mut others = losses.clone();
                others.remove(place);
                prop_assert_eq!(found, cells(&losses, d) - cells(&others, d));
            }
        }

        #[test]
        fn three_objectives_by_staircase_and_by_recursion_agree(
            losses in prop::collection::vec(prop::collection::vec(0.0..1.0_f64, 3), 2..30)
        ) {
            let mut sorted = losses.clone();
            sorted.sort_by(|a, b| pareto::lexicographic(a, b));
            let (fast, slow) = (hypervolume(&losses, &[1.0; 3]), wfg(sorted, &[1.0; 3]));
            prop_assert!((fast - slow).abs() < 1e-13, "{} and {}", fast, slow);
        }
    }

    #[test]
    fn what_is_not_better_than_the_reference_adds_nothing() {
        assert_eq!(hypervolume(&[[0.0, 3.0], [3.0, 0.0], [4.0, -9.0]], &[3.0, 3.0]), 0.0);
        assert_eq!(hypervolume(&[[1.0, 1.0], [4.0, -9.0]], &[3.0, 3.0]), 4.0);
        assert_eq!(hypervolume(&[[f64::NAN, 0.0]], &[1.0, 1.0]), 0.0);
        assert_eq!(hypervolume(&[] as &[[f64; 2]], &[1.0, 1.0]), 0.0);
        assert_eq!(hypervolume(&[vec![0.0], vec![0.5, 0.5]], &[1.0, 1.0]), 0.25);
    }

    #[test]
    fn infinitely_good_values_have_infinite_volume() {
        assert_eq!(hypervolume(&[[f64::NEG_INFINITY, 0.0]], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(hypervolume(&[[0.0, 0.0]], &[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(hypervolume(&[[f64::INFINITY, 0.0]], &[f64::INFINITY, 1.0]), 0.0);
    }
}
