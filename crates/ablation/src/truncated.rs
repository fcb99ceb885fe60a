//! The LoRA of a chosen rank that comes nearest to an edit with row lengths kept, and how far it stays away.
//!
//! An edit `y' = s ∘ (y − p (q·y))` adds `M W` to its weight, with `M = diag(s − 1) − (s∘p) qᵀ`. The best approximation of
//! rank k, in the Frobenius norm, is the head of the singular value decomposition: with the k largest left singular vectors
//! `u_j` of `M W`,
//!
//! ```text
//! B = (u_1 … u_k),   A = Bᵀ M W,   ‖M W − B A‖² = ‖M W‖² − ‖A‖²
//! ```
//!
//! `A = (Mᵀ B)ᵀ W` is itself a function of what the layer writes. So the approximation is an edit, too, with `p_j = −u_j`,
//! `q_j = Mᵀ u_j` and no scales, and can be scored like any other.
//!
//! The vectors are found by subspace iteration (Halko, Martinsson & Tropp 2011, arXiv:0909.4061, algorithm 4.4): each
//! round is two passes over the rows, and the weight is never held. The decomposition of what is left, a few rows,
//! is exact up to rounding (one-sided rotations, Hestenes 1958). The start is fixed: the same weight gives the same factors.

use crate::adapter::Adapter;
use crate::streaming::{self, dot};
use crate::weight::WriterWeight;
use crate::writer::{EditVectors, Target, WriterError};

/// How many more vectors are iterated than are wanted. With the rounds below, the error of random weights is within
/// 1 % of the smallest possible one (`the_error_is_near_the_smallest_possible_one`).
const MORE: usize = 8;

/// Rounds of subspace iteration.
const ROUNDS: usize = 6;

/// Sweeps of rotations; they converge quadratically, and five do for a dozen rows.
const SWEEPS: usize = 12;

/// An edit approximated by a LoRA.
#[derive(Clone, Debug, PartialEq)]
pub struct Truncated {
    /// The approximation as an edit.
    pub vectors: EditVectors,
    /// The same as factors.
    pub adapter: Adapter,
    /// `‖M W‖²`: how much the edit changes the weight.
    pub changed: f64,
    /// `‖M W − B A‖²`: how much of that is not done.
    pub missed: f64,
}

impl Truncated {
    /// Approximates the edit that takes a target's direction out. About fifteen passes over the rows.
    ///
    /// # Shapes
    /// - `weight`: the same as `target` was prepared for
    /// - `rank`: at most that of the weight is used
    pub fn new(
        weight: &(impl WriterWeight + ?Sized),
        target: &Target,
        strength: f64,
        rank: usize,
    ) -> Result<Self, WriterError> {
        target.expect_rows(weight)?;
        let edit = target.vectors(strength)?;
        let (d_model, d_in) = weight.shape();
        let rank = rank.min(d_model).min(d_in);
        let change = Change { weight, edit: &edit };
        let mut left = start((rank + MORE).min(d_model).min(d_in), d_model);
        for _ in 0..ROUNDS {
            orthonormalize(&mut left);
            let mut right = change.transposed(&left);
            orthonormalize(&mut right);
            left = change.products(&right);
        }
        orthonormalize(&mut left);
        let mut right = change.transposed(&left);
        rotate(&mut right, &mut left);
        let mut largest: Vec<usize> = (0..right.len()).collect();
        largest.sort_by(|&a, &b| dot(&right[b], &right[b]).total_cmp(&dot(&right[a], &right[a])));
        largest.truncate(rank);
        // A and B get equal parts of the length, so that neither is at the edge of a narrow type.
        let mut vectors = EditVectors { d_model, p: Vec::new(), q: Vec::new(), s: None };
        let mut reached = 0.0;
        for it in largest {
            let energy = dot(&right[it], &right[it]);
            let share = if energy == 0.0 { 1.0 } else { energy.sqrt().sqrt() };
            reached += energy;
            vectors.p.extend(left[it].iter().map(|it| -it * share));
            vectors.q.extend(change.mixed(&left[it]).iter().map(|it| it / share));
        }
        let changed = change.energy();
        let adapter = Adapter::without_scales(weight, &vectors);
        Ok(Self { vectors, adapter, changed, missed: (changed - reached).max(0.0) })
    }
}

/// `M W`, never formed.
struct Change<'a, W: ?Sized> {
    weight: &'a W,
    edit: &'a EditVectors,
}

impl<W: WriterWeight + ?Sized> Change<'_, W> {
    fn scale(&self, row: usize) -> f64 {
        self.edit.s.as_ref().map_or(1.0, |it| it[row])
    }

    /// `M W x` for each x.
    fn products(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let EditVectors { p, q, .. } = self.edit;
        let mut products = streaming::products(self.weight, vectors);
        for y in &mut products {
            let along = dot(q, y);
            for (row, y) in y.iter_mut().enumerate() {
                let s = self.scale(row);
                *y = (s - 1.0) * *y - s * p[row] * along;
            }
        }
        products
    }

    /// `Wᵀ Mᵀ y` for each y.
    fn transposed(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mixed: Vec<Vec<f64>> = vectors.iter().map(|it| self.mixed(it)).collect();
        let mixed: Vec<&[f64]> = mixed.iter().map(Vec::as_slice).collect();
        streaming::transposed_products(self.weight, &mixed)
    }

    /// `Mᵀ y`.
    fn mixed(&self, y: &[f64]) -> Vec<f64> {
        let EditVectors { p, q, .. } = self.edit;
        let along: f64 = y.iter().zip(p).enumerate().map(|(row, (y, p))| self.scale(row) * p * y).sum();
        y.iter().zip(q).enumerate().map(|(row, (y, q))| (self.scale(row) - 1.0) * y - q * along).collect()
    }

    /// `‖M W‖²`. Two passes.
    fn energy(&self) -> f64 {
        let projection = streaming::transposed_products(self.weight, &[&self.edit.q]).remove(0);
        let mut sum = 0.0;
        streaming::each_block(self.weight, |block| {
            for (row, numbers) in block.rows(self.edit.d_model) {
                let s = self.scale(row);
                let (kept, taken) = (s - 1.0, s * self.edit.p[row]);
                let change = numbers.iter().zip(&projection).map(|(w, b)| kept * w - taken * b);
                sum += change.map(|it| it * it).sum::<f64>();
            }
        });
        sum
    }
}

/// Vectors of numbers between −1 and 1 that look random: no weight is likely to have nothing along them. (Signs alone would
/// not do: short vectors of signs are often equal.)
fn start(count: usize, width: usize) -> Vec<Vec<f64>> {
    let number = |place: usize| {
        // The finalizer of splitmix64 (Steele, Lea & Flood 2014).
        let mut bits = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as i64 as f64 / i64::MIN as f64
    };
    (0..count).map(|it| (0..width).map(|row| number(it * width + row)).collect()).collect()
}

/// Makes vectors orthogonal and of length 1, twice over, as once leaves rounding errors; one that is a sum of those before
/// it becomes zero.
fn orthonormalize(vectors: &mut [Vec<f64>]) {
    /// What is left of a vector that was a sum of others, as a share of it.
    const NOTHING: f64 = 1e-12;
    for at in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(at);
        let vector = &mut rest[0];
        let length = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in &*before {
                let along = dot(other, vector);
                vector.iter_mut().zip(other).for_each(|(it, other)| *it -= along * other);
            }
        }
        let left = dot(vector, vector).sqrt();
        let by = if left <= NOTHING * length { 0.0 } else { left.recip() };
        for it in vector.iter_mut() {
            *it *= by;
        }
    }
}

/// Turns rows, two at a time, until all are orthogonal to each other, and others with them.
fn rotate(rows: &mut [Vec<f64>], others: &mut [Vec<f64>]) {
    for _ in 0..SWEEPS {
        let mut turned = false;
        for a in 0..rows.len() {
            for b in a + 1..rows.len() {
                let along = dot(&rows[a], &rows[b]);
                let (of_a, of_b) = (dot(&rows[a], &rows[a]), dot(&rows[b], &rows[b]));
                if along.abs() <= f64::EPSILON * (of_a * of_b).sqrt() {
                    continue;
                }
                turned = true;
                // The smaller of the two angles at which the rows are orthogonal.
                let half = (of_b - of_a) / (2.0 * along);
                let tangent = half.signum() / (half.abs() + half.hypot(1.0));
                let cosine = tangent.hypot(1.0).recip();
                turn(rows, a, b, cosine, cosine * tangent);
                turn(others, a, b, cosine, cosine * tangent);
            }
        }
        if !turned {
            break;
        }
    }
}

fn turn(rows: &mut [Vec<f64>], a: usize, b: usize, cosine: f64, sine: f64) {
    let (before, rest) = rows.split_at_mut(b);
    for (a, b) in before[a].iter_mut().zip(&mut rest[0]) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

#[cfg(test)]
mod tests {
    use glossary::Direction;

    use super::*;
    use crate::{Merged, RowMajor, RowNormalization, WriterFacts};

    /// Numbers that look like those of a weight, and a direction whose components differ in size as real ones do.
    fn random(d_model: usize, d_in: usize) -> (Vec<f32>, Direction) {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1_u64 << 31) as f64 - 0.5
        };
        let weight = (0..d_model * d_in).map(|_| next() as f32).collect();
        let r: Vec<f64> = (0..d_model).map(|_| next().powi(5)).collect();
        (weight, Direction::normalized(&r).unwrap())
    }

    fn target(weight: &RowMajor<'_>, r: &Direction, mode: RowNormalization) -> Target {
        let facts = WriterFacts::of(weight, mode).unwrap();
        facts.targets(weight, &[r], None).unwrap().remove(0)
    }

    /// The change of the weight from its explicit rows, `[d_model][d_in]`.
    fn change(weight: &RowMajor<'_>, target: &Target, strength: f64) -> Vec<Vec<f64>> {
        let (d_model, d_in) = weight.shape();
        let merged = Merged::new(weight, target, strength).unwrap();
        let row = |row| {
            let (mut edited, mut original) = (vec![0.0; d_in], vec![0.0; d_in]);
            merged.row_f64(row, &mut edited);
            weight.row(row, &mut original);
            edited.iter().zip(&original).map(|(a, &b)| a - f64::from(b)).collect()
        };
        (0..d_model).map(row).collect()
    }

    /// `‖change − B A‖²`, one number at a time.
    fn missed(change: &[Vec<f64>], adapter: &Adapter) -> f64 {
        let d_in = change[0].len();
        let product = |i: usize, j: usize| -> f64 {
            (0..adapter.rank).map(|k| adapter.up[i * adapter.rank + k] * adapter.down[k * d_in + j]).sum()
        };
        let rows = change.iter().enumerate();
        rows.flat_map(|(i, row)| row.iter().enumerate().map(move |(j, it)| (it - product(i, j)).powi(2)))
            .sum()
    }

    #[test]
    fn the_error_told_is_the_error_made() {
        let (numbers, r) = random(40, 60);
        let weight = RowMajor::new(&numbers, 60).unwrap();
        let target = target(&weight, &r, RowNormalization::Full);
        let change = change(&weight, &target, 1.2);
        let energy: f64 = change.iter().flatten().map(|it| it * it).sum();
        let mut last = f64::INFINITY;
        for rank in [1, 2, 3, 8] {
            let found = Truncated::new(&weight, &target, 1.2, rank).unwrap();
            assert_eq!(found.adapter.rank, rank);
            assert!((found.changed / energy - 1.0).abs() < 1e-12, "{} {energy}", found.changed);
            let missed = missed(&change, &found.adapter);
            assert!((found.missed / missed - 1.0).abs() < 1e-9, "{rank}: {} {missed}", found.missed);
            assert!(missed < last, "a larger rank does not miss more");
            last = missed;
        }
    }

    #[test]
    fn the_error_is_near_the_smallest_possible_one() {
        let (numbers, r) = random(120, 150);
        let weight = RowMajor::new(&numbers, 150).unwrap();
        let target = target(&weight, &r, RowNormalization::Full);
        // All singular values, by rotations of the whole change.
        let mut rows = change(&weight, &target, 1.0);
        rotate(&mut rows, &mut start(120, 1));
        let mut energies: Vec<f64> = rows.iter().map(|it| dot(it, it)).collect();
        energies.sort_by(|a, b| b.total_cmp(a));
        for rank in [1, 3, 6] {
            let smallest: f64 = energies[rank..].iter().sum();
            let found = Truncated::new(&weight, &target, 1.0, rank).unwrap().missed;
            assert!(found / smallest < 1.01 && found / smallest > 1.0 - 1e-9, "{rank}: {found} {smallest}");
        }
    }

    #[test]
    fn an_edit_of_rank_one_is_met_exactly() {
        let (numbers, r) = random(12, 7);
        let weight = RowMajor::new(&numbers, 7).unwrap();
        for mode in [RowNormalization::None, RowNormalization::Pre] {
            let target = target(&weight, &r, mode);
            let found = Truncated::new(&weight, &target, 0.7, 1).unwrap();
            assert!(missed(&change(&weight, &target, 0.7), &found.adapter) < 1e-24 * found.changed);
        }
    }

    #[test]
    fn every_rank_of_a_small_weight_is_met_exactly_and_no_more_are_made_up() {
        let (numbers, r) = random(5, 3);
        let weight = RowMajor::new(&numbers, 3).unwrap();
        let target = target(&weight, &r, RowNormalization::Full);
        let found = Truncated::new(&weight, &target, 1.0, 9).unwrap();
        assert_eq!(found.adapter.rank, 3);
        let missed = missed(&change(&weight, &target, 1.0), &found.adapter);
        assert!(missed < 1e-24 * found.changed, "{missed} of {}", found.changed);
    }

    #[test]
    fn the_edit_and_the_factors_are_one_function() {
        let (numbers, r) = random(20, 9);
        let weight = RowMajor::new(&numbers, 9).unwrap();
        let target = target(&weight, &r, RowNormalization::Full);
        let Truncated { vectors, adapter, .. } = Truncated::new(&weight, &target, 1.1, 3).unwrap();
        let x: Vec<f64> = (0..9).map(|it| f64::from(it) - 4.0).collect();
        let y = streaming::products(&weight, std::slice::from_ref(&x)).remove(0);
        let inner: Vec<f64> = adapter.down.chunks_exact(9).map(|row| dot(row, &x)).collect();
        for row in 0..20 {
            let taken: f64 =
                (0..3).map(|j| vectors.p[j * 20 + row] * dot(&vectors.q[j * 20..][..20], &y)).sum();
            let added = dot(&adapter.up[row * 3..][..3], &inner);
            assert!((added + taken).abs() < 1e-12, "row {row}: {added} {taken}");
        }
    }

    #[test]
    fn an_edit_that_does_nothing_stays_nothing() {
        let (numbers, r) = random(6, 4);
        let weight = RowMajor::new(&numbers, 4).unwrap();
        let found = Truncated::new(&weight, &target(&weight, &r, RowNormalization::Full), 0.0, 2).unwrap();
        assert_eq!((found.changed, found.missed), (0.0, 0.0));
        assert!(found.adapter.changes_nothing());
    }
}
