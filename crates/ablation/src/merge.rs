//! The edited weight itself, row by row, for a model that any tool can load.
//!
//! ```text
//! W'_i = s_i (W_i − p_i b),   b = qᵀ W
//! ```
//!
//! with p, q and s of the room's [`writer`](crate::writer) module. `b` is summed in f64, and so is each row; for *full*
//! row normalization the scale is taken from the length of the very row that is written, which costs nothing here and
//! keeps its length to the last bits even where the closed form cancels.

use crate::streaming::{self, dot};
use crate::weight::WriterWeight;
use crate::writer::{EditVectors, RowNormalization, Target, WriterError};

/// An edited weight whose rows are computed when they are asked for, in any order and from several threads.
#[derive(Clone, Debug)]
pub struct Merged<'a, W: ?Sized> {
    weight: &'a W,
    vectors: EditVectors,
    /// `qᵀ W`, `[d_in]`
    projection: Vec<f64>,
    /// Row norms to be kept; `None` where they are not.
    norms: Option<&'a [f64]>,
}

impl<'a, W: WriterWeight + ?Sized> Merged<'a, W> {
    /// The weight without the target's direction. One pass over the rows.
    ///
    /// # Shapes
    /// - `weight`: the same as `target` was prepared for
    pub fn new(weight: &'a W, target: &'a Target, strength: f64) -> Result<Self, WriterError> {
        target.expect_rows(weight)?;
        let vectors = target.vectors(strength)?;
        let projection = streaming::transposed_products(weight, &[&vectors.q]).remove(0);
        let norms = (target.mode() == RowNormalization::Full).then(|| target.row_norms());
        Ok(Self { weight, vectors, projection, norms })
    }

    /// One row before rounding.
    ///
    /// # Shapes
    /// - `out`: `[d_in]`
    pub fn row_f64(&self, row: usize, out: &mut [f64]) {
        let mut original = vec![0.0; out.len()];
        self.weight.row(row, &mut original);
        let taken = self.vectors.p[row];
        for ((out, &original), b) in out.iter_mut().zip(&original).zip(&self.projection) {
            *out = f64::from(original) - taken * b;
        }
        let Some(norms) = self.norms else { return };
        // The closed form decides which rows vanish: what is left of those is rounding error.
        let vanishes = self.vectors.s.as_ref().is_some_and(|s| s[row] == 0.0);
        let length = dot(out, out).sqrt();
        let scale = if vanishes || length == 0.0 { 0.0 } else { norms[row] / length };
        for it in out {
            *it *= scale;
        }
    }
}

impl<W: WriterWeight + ?Sized> WriterWeight for Merged<'_, W> {
    fn shape(&self) -> (usize, usize) {
        self.weight.shape()
    }

    /// A row rounded to f32. For a narrower type take [`Merged::row_f64`], so that it is rounded only once.
    fn row(&self, row: usize, out: &mut [f32]) {
        let mut exact = vec![0.0; out.len()];
        self.row_f64(row, &mut exact);
        out.iter_mut().zip(&exact).for_each(|(out, &it)| *out = it as f32);
    }
}

#[cfg(test)]
mod tests {
    use glossary::Direction;

    use super::*;
    use crate::{RowMajor, WriterFacts};

    fn merged(numbers: &[f32], d_in: usize, r: &[f64], strength: f64, mode: RowNormalization) -> Vec<f32> {
        let weight = RowMajor::new(numbers, d_in).unwrap();
        let r = Direction::normalized(r).unwrap();
        let facts = WriterFacts::of(&weight, mode).unwrap();
        let target = facts.targets(&weight, &[&r], None).unwrap().remove(0);
        let merged = Merged::new(&weight, &target, strength).unwrap();
        let mut rows = vec![0.0; numbers.len()];
        rows.chunks_exact_mut(d_in).enumerate().for_each(|(row, out)| merged.row(row, out));
        rows
    }

    #[test]
    fn a_direction_along_an_axis_takes_its_share_of_that_row_away() {
        let weight = [3.0, 4.0, 5.0, 12.0];
        assert_eq!(merged(&weight, 2, &[1.0, 0.0], 0.5, RowNormalization::None), [1.5, 2.0, 5.0, 12.0]);
        assert_eq!(merged(&weight, 2, &[1.0, 0.0], 1.5, RowNormalization::None), [-1.5, -2.0, 5.0, 12.0]);
        // Half of it is gone and comes back.
        assert_eq!(merged(&weight, 2, &[1.0, 0.0], 0.5, RowNormalization::Full), weight);
    }

    #[test]
    fn a_row_that_vanishes_is_zero_and_no_number_is_made_up() {
        let rows = merged(&[3.0, 4.0, 5.0, 12.0], 2, &[1.0, 0.0], 1.0, RowNormalization::Full);
        assert_eq!(rows, [0.0, 0.0, 5.0, 12.0]);
    }

    #[test]
    fn full_normalization_by_hand() {
        // Ŵ = identity, r = (3, 4)/5, λ = 1: Ŵ − r rᵀ has rows (0.64, −0.48) and (−0.48, 0.36), of lengths 0.8 and 0.6.
        let rows = merged(&[2.0, 0.0, 0.0, 5.0], 2, &[3.0, 4.0], 1.0, RowNormalization::Full);
        let expected = [1.6, -1.2, -4.0, 3.0];
        assert!(rows.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
    }
}
