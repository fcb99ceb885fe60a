//! The edit as adapter factors: what is added to a weight as the product of two narrow ones.
//!
//! `none` and `pre` row normalization are LoRA adapters of rank one: `W' = W + B A` with `B = −p`, `A = qᵀ W`. `full` is
//! a DoRA adapter of rank one, whose rows are scaled to given lengths:
//!
//! ```text
//! W'_i = m_i V_i / ‖V_i‖,   V = W + B A,   m = n
//! ```
//!
//! with the same B and A as `pre`, since `V_i = n_i (Ŵ_i − λ r_i a)` and *full* gives each row its length n back. (The
//! norms are over the inputs, one for each output, in the method's implementations as here; its paper speaks of columns
//! of the transposed weight.)
//!
//! Where `V_i` is 0, a quotient of DoRA's has no value. Two kinds of rows get another B that leads to the same weight:
//! a row that vanishes under the edit keeps its `V_i = W_i`, and a row of zeros gets a `V_i` along A; both have
//! magnitude 0.
//!
//! Hu et al. 2021, arXiv:2106.09685; Liu et al. 2024, arXiv:2402.09353. An edit that has a DoRA adapter has no LoRA
//! adapter of low rank; the nearest one is [`Truncated`](crate::Truncated).

use crate::streaming;
use crate::weight::WriterWeight;
use crate::writer::{EditVectors, RowNormalization, Target, WriterError};

/// The factors of an adapter, with scaling 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// How many rows A has.
    pub rank: usize,
    /// B, `[d_model, rank]`.
    pub up: Vec<f64>,
    /// A, `[rank, d_in]`.
    pub down: Vec<f64>,
    /// DoRA's magnitudes, `[d_model]`; `None` for a LoRA adapter.
    pub magnitude: Option<Vec<f64>>,
}

impl Adapter {
    /// The adapter of rank one that takes a target's direction out, exactly: DoRA for rows of kept length, else LoRA.
    /// One pass over the rows.
    ///
    /// # Shapes
    /// - `weight`: the same as `target` was prepared for
    pub fn of(
        weight: &(impl WriterWeight + ?Sized),
        target: &Target,
        strength: f64,
    ) -> Result<Self, WriterError> {
        target.expect_rows(weight)?;
        let vectors = target.vectors(strength)?;
        let mut adapter = Self::without_scales(weight, &vectors);
        if let (RowNormalization::Full, Some(s)) = (target.mode(), &vectors.s) {
            let mut magnitude = target.row_norms().to_vec();
            let longest = adapter.up.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            for ((up, m), &s) in adapter.up.iter_mut().zip(&mut magnitude).zip(s) {
                if *m == 0.0 {
                    *up = longest;
                } else if s == 0.0 {
                    (*up, *m) = (0.0, 0.0);
                }
            }
            adapter.magnitude = Some(magnitude);
        }
        Ok(adapter)
    }

    /// The LoRA adapter of an edit but for its scales. One pass over the rows.
    pub(crate) fn without_scales(weight: &(impl WriterWeight + ?Sized), edit: &EditVectors) -> Self {
        let d_model = edit.d_model;
        let projections: Vec<&[f64]> = edit.q.chunks_exact(d_model).collect();
        let rank = projections.len();
        let mut up = vec![0.0; d_model * rank];
        for (j, p) in edit.p.chunks_exact(d_model).enumerate() {
            up.chunks_exact_mut(rank).zip(p).for_each(|(row, p)| row[j] = -p);
        }
        let down = streaming::transposed_products(weight, &projections).concat();
        Self { rank, up, down, magnitude: None }
    }

    /// Whether one of the factors is 0, so that the weight stays as it is.
    pub fn changes_nothing(&self) -> bool {
        let zero = |numbers: &[f64]| numbers.iter().all(|&it| it == 0.0);
        zero(&self.up) || zero(&self.down)
    }
}

#[cfg(test)]
mod tests {
    use glossary::Direction;

    use super::*;
    use crate::{RowMajor, WriterFacts};

    fn adapter(numbers: &[f32], d_in: usize, r: &[f64], strength: f64, mode: RowNormalization) -> Adapter {
        let weight = RowMajor::new(numbers, d_in).unwrap();
        let facts = WriterFacts::of(&weight, mode).unwrap();
        let r = Direction::normalized(r).unwrap();
        let target = facts.targets(&weight, &[&r], None).unwrap().remove(0);
        Adapter::of(&weight, &target, strength).unwrap()
    }

    /// The weight as a DoRA implementation makes it.
    fn applied(numbers: &[f32], adapter: &Adapter) -> Vec<Vec<f64>> {
        let magnitude = adapter.magnitude.as_ref().unwrap();
        let rows = numbers.chunks_exact(adapter.down.len()).zip(&adapter.up).zip(magnitude);
        rows.map(|((row, up), m)| {
            let v: Vec<f64> = row.iter().zip(&adapter.down).map(|(&w, a)| f64::from(w) + up * a).collect();
            let length = v.iter().map(|it| it * it).sum::<f64>().sqrt();
            v.iter().map(|it| it * (m / length)).collect()
        })
        .collect()
    }

    #[test]
    fn factors_by_hand() {
        // Rows (3, 4) and (0, 2): along (0.6, 0.8) lies (1.8, 2.4) + (0, 1.6); with rows of length 1 (0.36, 0.48) + (0, 0.8).
        let weight = [3.0, 4.0, 0.0, 2.0];
        let close = |found: &[f64], expected: &[f64]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?} {expected:?}");
        };
        let none = adapter(&weight, 2, &[3.0, 4.0], 0.5, RowNormalization::None);
        close(&none.up, &[-0.3, -0.4]);
        close(&none.down, &[1.8, 4.0]);
        let full = adapter(&weight, 2, &[3.0, 4.0], 0.5, RowNormalization::Full);
        close(&full.up, &[-1.5, -0.8]); // 0.5·5·0.6, 0.5·2·0.8
        close(&full.down, &[0.36, 1.28]);
        close(full.magnitude.as_ref().unwrap(), &[5.0, 2.0]);
    }

    #[test]
    fn rows_of_zeros_and_rows_that_vanish_have_a_length_to_be_divided_by() {
        // The first row is all there is of the direction, and vanishes; the third is zero.
        let weight = [3.0, 4.0, 5.0, 12.0, 0.0, 0.0];
        let vanishing = adapter(&weight, 2, &[1.0, 0.0, 0.0], 1.0, RowNormalization::Full);
        assert_eq!(applied(&weight, &vanishing)[0], [0.0, 0.0]);
        let turning = adapter(&weight, 2, &[1.0, 1.0, 1.0], 1.0, RowNormalization::Full);
        let rows = applied(&weight, &turning);
        assert_eq!(rows[2], [0.0, 0.0]);
        assert!(rows.iter().flatten().all(|it| it.is_finite()), "{rows:?}");
        assert!((rows[1][0].hypot(rows[1][1]) - 13.0).abs() < 1e-14, "{rows:?}");
    }
}
