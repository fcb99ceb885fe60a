//! The edit of one writer, as a function of what it writes.
//!
//! For a weight `W [d_model, d_in]`, a unit vector `r`, a strength λ, the row norms `n_i = ‖W_i‖` and the weight with
//! rows of length one, `Ŵ = diag(1/n) W`, each kind of row normalization defines an edited weight:
//!
//! | kind | edited weight |
//! |---|---|
//! | none | `W' = W − λ r (rᵀ W)` |
//! | pre  | `W' = W − λ (n∘r)(rᵀ Ŵ)` |
//! | full | rows of `Ŵ − λ r (rᵀ Ŵ)`, scaled to length 1, times `n` |
//!
//! Because `rᵀ W x = r·y` and `rᵀ Ŵ x = (r⊘n)·y` with `y = W x`, each of them is `W' x = s ∘ (y − p (q·y))`:
//!
//! | kind | p | q | s |
//! |---|---|---|---|
//! | none | λ r | r | 1 |
//! | pre  | λ n∘r | r⊘n | 1 |
//! | full | λ n∘r | r⊘n | `s_i = (1 − 2λ r_i u_i + λ² r_i² r·u)^(−1/2)`, `u = Ŵ Ŵᵀ r` |
//!
//! The bracket is `‖Ŵ_i − λ r_i a‖²` with `a = Ŵᵀ r`, written out: `Ŵ_i·a = u_i`, and `‖a‖² = rᵀ Ŵ Ŵᵀ r = r·u`.
//!
//! **What is computed once.** Row norms: one pass over `W` per writer. `u`: two passes per writer, for any number of
//! directions together. `u` is linear in `r`, so that of a direction between two others is a weighted sum
//! ([`Target::blend`]): when those of all layers are prepared, an edit costs `O(d_model)` and no pass at all.
//!
//! **Rows of zeros** stay zeros: their output is 0, so `q_i` counts for nothing and is 0 instead of `r_i / 0`.
//! **Rows that vanish** under *full* (`Ŵ_i = λ r_i a`, so the bracket is 0) have no direction to keep a length along:
//! `s_i = 0`, the row is gone. That is decided where the bracket is within the rounding error of its own terms.
//!
//! **A norm behind the writer** (Gemma 2, Gemma 3) multiplies each component with its gain g before the stream sees it:
//! the stream loses r when the output loses `normalize(g∘r)`, since `r·(g∘y) = (g∘r)·y`. That vector takes the place of
//! `r` everywhere above. The scale that the norm divides by changes with the edit, which a direction is not hurt by.
//!
//! Sources: Arditi et al. 2024, arXiv:2406.11717 (none); norms and directions apart, as in DoRA, Liu et al. 2024,
//! arXiv:2402.09353. All of it runs in f64; [`EditVectors::rounded`] rounds to f32 for the engine.

use std::sync::Arc;

use glossary::{Direction, DirectionError, Edit, EditError};
use serde::{Deserialize, Serialize};

use crate::directions::Blend;
use crate::streaming::{self, dot};
use crate::weight::WriterWeight;

/// What becomes of the lengths of a weight's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowNormalization {
    /// The direction is taken out of the weight as it is.
    None,
    /// It is found in the weight with rows of length one, and taken out in proportion to each row's length.
    Pre,
    /// As `Pre`, and then each row gets back the length that it had.
    #[default]
    Full,
}

/// Why a writer cannot be edited.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriterError {
    /// A row of the weight has no finite length.
    #[error("row {row} of the weight has length `{norm}`\n\nhint: the checkpoint holds NaN or infinity")]
    RowNotFinite {
        /// The first such row.
        row: usize,
        /// Its length.
        norm: f64,
    },
    /// A weight, a direction or a gain does not have the width of the others.
    #[error("{what}: expected d_model {expected}, found {found}")]
    Width {
        /// Which of them.
        what: &'static str,
        /// The d_model of the writer.
        expected: usize,
        /// What was found.
        found: usize,
    },
    /// A gain takes all of the direction away, or is not finite.
    #[error("the direction under the gain of the norm behind the writer: {0}")]
    Gain(DirectionError),
    /// Two directions cancel each other.
    #[error("the direction between two layers: {0}")]
    Blend(DirectionError),
    /// Targets of different writers, or made for different kinds of row normalization, have no blend.
    #[error("targets of different writers cannot be blended")]
    DifferentWriters,
    /// A strength is not a finite number.
    #[error("strength: expected a finite number, found `{found}`")]
    Strength {
        /// The number given.
        found: f64,
    },
    /// A number of the edit is beyond f32.
    #[error("component {component} of edit vector `{vector}` is `{value}`, beyond the range of f32")]
    Overflow {
        /// Which vector: p, q or s.
        vector: &'static str,
        /// Which component.
        component: usize,
        /// Its value.
        value: f64,
    },
    /// The vectors do not form an edit.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// What an edit needs to know of a weight, whatever the direction and the strength.
#[derive(Clone, Debug)]
pub struct WriterFacts {
    mode: RowNormalization,
    d_model: usize,
    d_in: usize,
    /// Row norms; empty for [`RowNormalization::None`], which does not need them.
    norms: Arc<[f64]>,
}

impl WriterFacts {
    /// The facts of a weight. One pass over the rows; none for [`RowNormalization::None`].
    pub fn of(weight: &(impl WriterWeight + ?Sized), mode: RowNormalization) -> Result<Self, WriterError> {
        let (d_model, d_in) = weight.shape();
        let norms = match mode {
            RowNormalization::None => Vec::new(),
            RowNormalization::Pre | RowNormalization::Full => streaming::row_norms(weight),
        };
        if let Some(row) = norms.iter().position(|it| !it.is_finite()) {
            return Err(WriterError::RowNotFinite { row, norm: norms[row] });
        }
        Ok(Self { mode, d_model, d_in, norms: norms.into() })
    }

    /// Prepares directions to be taken out. Two passes over the rows, however many directions there are, for
    /// [`RowNormalization::Full`]; none otherwise.
    ///
    /// # Shapes
    /// - `weight`: the same as given to [`Self::of`]
    /// - `gain`: `[d_model]`, that of a norm between the writer and the stream, as it multiplies (`1 + w` where the
    ///   checkpoint stores `w`); `None` takes the direction out of the writer's output as it is
    pub fn targets(
        &self,
        weight: &(impl WriterWeight + ?Sized),
        directions: &[&Direction],
        gain: Option<&[f32]>,
    ) -> Result<Vec<Target>, WriterError> {
        self.expect_shape(weight)?;
        let target = |direction: &&Direction| Target::new(self, direction, gain);
        let mut targets = directions.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        if self.mode == RowNormalization::Full {
            // Ŵᵀ v = Wᵀ (v⊘n), and Ŵ a = (W a)⊘n.
            let divided: Vec<Vec<f64>> = targets.iter().map(Target::divided_by_norms).collect();
            let divided: Vec<&[f64]> = divided.iter().map(Vec::as_slice).collect();
            let projections = streaming::transposed_products(weight, &divided);
            let products = streaming::products(weight, &projections);
            for (target, product) in targets.iter_mut().zip(products) {
                target.overlap = product.iter().zip(&*self.norms).map(|(it, &n)| over(*it, n)).collect();
            }
        }
        Ok(targets)
    }

    fn expect_shape(&self, weight: &(impl WriterWeight + ?Sized)) -> Result<(), WriterError> {
        let (found, _) = weight.shape();
        if found == self.d_model {
            Ok(())
        } else {
            Err(WriterError::Width { what: "weight", expected: self.d_model, found })
        }
    }
}

/// A direction prepared to be taken out of one writer with any strength.
#[derive(Clone, Debug)]
pub struct Target {
    mode: RowNormalization,
    d_in: usize,
    norms: Arc<[f64]>,
    /// `r`, of length 1.
    vector: Vec<f64>,
    /// The length of `g∘r` before it was made 1; 1 without a gain.
    length: f64,
    /// `u = Ŵ Ŵᵀ r`; empty unless the mode is `Full`.
    overlap: Vec<f64>,
}

impl Target {
    /// Without the overlap.
    fn new(facts: &WriterFacts, direction: &Direction, gain: Option<&[f32]>) -> Result<Self, WriterError> {
        let expected = facts.d_model;
        let width = |what, found| {
            if found == expected { Ok(()) } else { Err(WriterError::Width { what, expected, found }) }
        };
        width("direction", direction.as_slice().len())?;
        let (vector, length) = match gain {
            None => (direction.as_slice().to_vec(), 1.0),
            Some(gain) => {
                width("gain", gain.len())?;
                let product: Vec<f64> =
                    direction.as_slice().iter().zip(gain).map(|(r, &g)| r * f64::from(g)).collect();
                let unit = Direction::normalized(&product).map_err(WriterError::Gain)?;
                (unit.as_slice().to_vec(), dot(&product, &product).sqrt())
            }
        };
        let (mode, d_in, norms) = (facts.mode, facts.d_in, Arc::clone(&facts.norms));
        Ok(Self { mode, d_in, norms, vector, length, overlap: Vec::new() })
    }

    /// The direction between those of two layers, from what was prepared for the two: without a pass over the rows.
    pub fn blend(blend: Blend, lower: &Self, upper: &Self) -> Result<Self, WriterError> {
        if !Arc::ptr_eq(&lower.norms, &upper.norms) && lower.norms != upper.norms
            || (lower.mode, lower.vector.len()) != (upper.mode, upper.vector.len())
        {
            return Err(WriterError::DifferentWriters);
        }
        // Blended before the gain was divided out, as the directions themselves are.
        let (from_lower, from_upper) = ((1.0 - blend.fraction) * lower.length, blend.fraction * upper.length);
        let mix = |a: &[f64], b: &[f64]| -> Vec<f64> {
            a.iter().zip(b).map(|(a, b)| from_lower * a + from_upper * b).collect()
        };
        let vector = mix(&lower.vector, &upper.vector);
        let length = dot(&vector, &vector).sqrt();
        let unit = Direction::normalized(&vector).map_err(WriterError::Blend)?;
        let overlap = mix(&lower.overlap, &upper.overlap).into_iter().map(|it| it / length).collect();
        Ok(Self { vector: unit.as_slice().to_vec(), length, overlap, ..lower.clone() })
    }

    /// The edit that takes out the direction with a strength.
    ///
    /// # Errors
    /// [`WriterError::Strength`]; [`WriterError::Overflow`] when a number is beyond f32.
    pub fn edit(&self, strength: f64) -> Result<Edit, WriterError> {
        self.vectors(strength)?.rounded()
    }

    /// As [`Self::edit`], before rounding.
    pub fn vectors(&self, strength: f64) -> Result<EditVectors, WriterError> {
        if !strength.is_finite() {
            return Err(WriterError::Strength { found: strength });
        }
        let scaled = |by: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
            self.vector.iter().zip(by).map(|(r, by)| strength * by * r).collect()
        };
        Ok(match self.mode {
            RowNormalization::None => EditVectors {
                d_model: self.vector.len(),
                p: scaled(&mut std::iter::repeat(1.0)),
                q: self.vector.clone(),
                s: None,
            },
            RowNormalization::Pre | RowNormalization::Full => EditVectors {
                d_model: self.vector.len(),
                p: scaled(&mut self.norms.iter().copied()),
                q: self.divided_by_norms(),
                s: (self.mode == RowNormalization::Full).then(|| self.scales(strength)),
            },
        })
    }

    /// `r⊘n`, 0 for rows of zeros.
    fn divided_by_norms(&self) -> Vec<f64> {
        self.vector.iter().zip(&*self.norms).map(|(&r, &n)| over(r, n)).collect()
    }

    /// What brings the rows back to the length that they had.
    fn scales(&self, strength: f64) -> Vec<f64> {
        let energy = dot(&self.vector, &self.overlap).max(0.0); // ‖a‖²
        let rows = self.vector.iter().zip(&self.overlap).zip(&*self.norms);
        rows.map(|((r, u), &n)| {
            if n == 0.0 {
                return 1.0;
            }
            let taken = strength * r;
            let left = 1.0 - 2.0 * taken * u + taken * taken * energy;
            if left <= self.rounding(taken.abs() * energy.sqrt()) { 0.0 } else { left.sqrt().recip() }
        })
        .collect()
    }

    /// How far `‖Ŵ_i − λ r_i a‖²` may be from its true value, where `‖λ r_i a‖` is `taken`: its terms sum to at
    /// most `(1 + taken)²`, and each went through sums over rows and columns.
    fn rounding(&self, taken: f64) -> f64 {
        (self.vector.len() + self.d_in) as f64 * f64::EPSILON * (1.0 + taken).powi(2)
    }

    /// The vector that is taken out, `[d_model]`, of length 1: the direction, or `normalize(g∘r)` under a gain.
    pub fn vector(&self) -> &[f64] {
        &self.vector
    }

    /// The lengths of the weight's rows, `[d_model]`; empty for [`RowNormalization::None`].
    pub fn row_norms(&self) -> &[f64] {
        &self.norms
    }

    /// An error when a weight has another number of rows than the one that this was prepared for.
    pub(crate) fn expect_rows(&self, weight: &(impl WriterWeight + ?Sized)) -> Result<(), WriterError> {
        let (found, expected) = (weight.shape().0, self.vector.len());
        if found == expected { Ok(()) } else { Err(WriterError::Width { what: "weight", expected, found }) }
    }

    /// The kind of row normalization that this was prepared for.
    pub fn mode(&self) -> RowNormalization {
        self.mode
    }
}

/// `y' = s ∘ (y − Σ_j p_j (q_j · y))` in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct EditVectors {
    /// The width of the output.
    pub d_model: usize,
    /// What is subtracted, `[rank, d_model]`; the rank is 1 for the edit of a direction.
    pub p: Vec<f64>,
    /// What the output is projected on, `[rank, d_model]`.
    pub q: Vec<f64>,
    /// The scale of each output, `[d_model]`; `None` means all ones.
    pub s: Option<Vec<f64>>,
}

/// Above this, the components of q are made smaller and those of p larger, by the same power of two: a row that is
/// ever so short, 1e-40, would put `r_i / n_i` beyond f32.
const LARGEST_Q: f64 = 1e30;

impl EditVectors {
    /// Rounded to f32, as the engine uses it.
    pub fn rounded(&self) -> Result<Edit, WriterError> {
        let largest = self.q.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        // Only exponents change, so nothing is lost unless a component of q becomes smaller than f32 can hold.
        let shift = if largest > LARGEST_Q { (LARGEST_Q / largest).log2().floor().exp2() } else { 1.0 };
        let p = round("p", &self.p, shift.recip())?;
        let q = round("q", &self.q, shift)?;
        let s = self.s.as_ref().map(|s| round("s", s, 1.0)).transpose()?;
        Ok(Edit::new(self.d_model, p, q, s)?)
    }
}

fn round(vector: &'static str, numbers: &[f64], by: f64) -> Result<Vec<f32>, WriterError> {
    let rounded = numbers.iter().enumerate().map(|(component, it)| {
        let value = it * by;
        let rounded = value as f32;
        if rounded.is_finite() {
            Ok(rounded)
        } else {
            Err(WriterError::Overflow { vector, component, value })
        }
    });
    rounded.collect()
}

/// A quotient that is 0 where the divisor is: for rows of zeros.
pub(crate) fn over(number: f64, norm: f64) -> f64 {
    if norm == 0.0 { 0.0 } else { number / norm }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowMajor;

    fn direction(vector: &[f64]) -> Direction {
        Direction::normalized(vector).unwrap()
    }

    fn target(numbers: &[f32], d_in: usize, r: &[f64], mode: RowNormalization) -> Target {
        let weight = RowMajor::new(numbers, d_in).unwrap();
        let facts = WriterFacts::of(&weight, mode).unwrap();
        facts.targets(&weight, &[&direction(r)], None).unwrap().remove(0)
    }

    fn close(found: &[f64], expected: &[f64]) {
        let same = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(same && found.len() == expected.len(), "expected {expected:?}, found {found:?}");
    }

    #[test]
    fn without_row_normalization_the_direction_itself_is_subtracted() {
        let target = target(&[1.0, 2.0], 1, &[3.0, 4.0], RowNormalization::None);
        let vectors = target.vectors(0.5).unwrap();
        close(&vectors.p, &[0.3, 0.4]);
        close(&vectors.q, &[0.6, 0.8]);
        assert_eq!(vectors.s, None);
    }

    #[test]
    fn pre_normalization_weighs_by_row_norms() {
        // Rows (3, 4) and (0, 2) of lengths 5 and 2.
        let target = target(&[3.0, 4.0, 0.0, 2.0], 2, &[3.0, 4.0], RowNormalization::Pre);
        let vectors = target.vectors(0.5).unwrap();
        close(&vectors.p, &[1.5, 0.8]); // 0.5·5·0.6, 0.5·2·0.8
        close(&vectors.q, &[0.12, 0.4]); // 0.6/5, 0.8/2
        assert_eq!(vectors.s, None);
    }

    #[test]
    fn full_normalization_scales_back_what_is_left_of_each_row() {
        // Rows of length one along the axes: a = r, u = r, and the bracket is 1 − 2λ r_i² + λ² r_i².
        let target = target(&[2.0, 0.0, 0.0, 5.0], 2, &[3.0, 4.0], RowNormalization::Full);
        let vectors = target.vectors(1.0).unwrap();
        close(&vectors.p, &[1.2, 4.0]);
        close(&vectors.q, &[0.3, 0.16]);
        close(&vectors.s.unwrap(), &[1.25, 1.0 / 0.6]); // 1/√(1 − 0.36), 1/√(1 − 0.64)
    }

    #[test]
    fn a_row_of_zeros_stays_zero_and_spoils_nothing() {
        for mode in [RowNormalization::Pre, RowNormalization::Full] {
            let target = target(&[0.0, 0.0, 0.0, 5.0], 2, &[3.0, 4.0], mode);
            let vectors = target.vectors(1.5).unwrap();
            close(&vectors.p, &[0.0, 6.0]);
            close(&vectors.q, &[0.0, 0.16]);
            assert_eq!(vectors.s.map_or(1.0, |it| it[0]), 1.0);
        }
    }

    #[test]
    fn a_row_that_vanishes_is_gone() {
        // One row that is all there is of the direction: 1·1 − 1·1 leaves nothing to scale.
        let target = target(&[3.0, 4.0, 0.0, 0.0], 2, &[1.0, 0.0], RowNormalization::Full);
        assert_eq!(target.vectors(1.0).unwrap().s.unwrap(), [0.0, 1.0]);
        // With another strength something is left, turned around or not.
        close(&target.vectors(0.5).unwrap().s.unwrap(), &[2.0, 1.0]);
        close(&target.vectors(1.5).unwrap().s.unwrap(), &[2.0, 1.0]);
    }

    #[test]
    fn a_row_that_vanishes_is_recognized_through_rounding_errors() {
        // All rows point the same way: a = Σ r_j, and row i vanishes at λ = 1/(r_i a), where the bracket is some 1e-16.
        for last in 1..20 {
            let r = [1.0, 2.0, f64::from(last)];
            let target = target(&[1.0, 0.5, 3.0, 1.5, 1.0, 0.5], 2, &r, RowNormalization::Full);
            let length_squared: f64 = r.iter().map(|it| it * it).sum();
            let strength = length_squared / (r[2] * r.iter().sum::<f64>());
            assert_eq!(target.vectors(strength).unwrap().s.unwrap()[2], 0.0, "{last}");
        }
    }

    #[test]
    fn a_gain_turns_the_direction_before_it_is_taken_out() {
        let numbers = [1.0, 2.0];
        let weight = RowMajor::new(&numbers, 1).unwrap();
        let facts = WriterFacts::of(&weight, RowNormalization::None).unwrap();
        let r = direction(&[1.0, 1.0]);
        let targets = facts.targets(&weight, &[&r], Some(&[3.0, 4.0])).unwrap();
        close(targets[0].vector(), &[0.6, 0.8]);
        let error = facts.targets(&weight, &[&r], Some(&[0.0, 0.0])).unwrap_err();
        assert!(matches!(error, WriterError::Gain(DirectionError::Vanishes { .. })), "{error}");
    }

    #[test]
    fn rows_that_are_ever_so_short_do_not_overflow_the_edit() {
        let tiny = f32::from_bits(1); // 1.4e-45
        let vectors = target(&[tiny, 1.0], 1, &[1.0, 1.0], RowNormalization::Pre).vectors(1.0).unwrap();
        assert!(vectors.q[0] > f64::from(f32::MAX));
        let edit = vectors.rounded().unwrap();
        // The products p_i q_j, which are all that counts, are those of the exact vectors.
        for (i, j) in [(0, 1), (1, 0), (1, 1)] {
            let (found, exact) =
                (f64::from(edit.p()[i]) * f64::from(edit.q()[j]), vectors.p[i] * vectors.q[j]);
            assert!((found / exact - 1.0).abs() < 1e-6, "{i} {j}: {found:e} {exact:e}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_values() {
        let numbers = [1.0, f32::NAN, 3.0];
        let weight = RowMajor::new(&numbers, 1).unwrap();
        let error = WriterFacts::of(&weight, RowNormalization::Full).unwrap_err();
        assert!(matches!(error, WriterError::RowNotFinite { row: 1, .. }), "{error}");
        let facts = WriterFacts::of(&weight, RowNormalization::None).unwrap();
        let short = direction(&[1.0, 0.0]);
        let error = facts.targets(&weight, &[&short], None).unwrap_err();
        assert_eq!(error, WriterError::Width { what: "direction", expected: 3, found: 2 });
        let r = direction(&[1.0, 0.0, 0.0]);
        let error = facts.targets(&weight, &[&r], Some(&[1.0])).unwrap_err();
        assert_eq!(error, WriterError::Width { what: "gain", expected: 3, found: 1 });
        let error = facts.targets(&RowMajor::new(&numbers, 3).unwrap(), &[&r], None).unwrap_err();
        assert_eq!(error, WriterError::Width { what: "weight", expected: 3, found: 1 });
        let target = facts.targets(&weight, &[&r], None).unwrap().remove(0);
        assert_eq!(target.edit(f64::INFINITY), Err(WriterError::Strength { found: f64::INFINITY }));
        assert!(matches!(target.edit(1e39), Err(WriterError::Overflow { vector: "p", component: 0, .. })));
    }

    #[test]
    fn row_normalization_has_lower_case_names_and_is_full_by_default() {
        let names = serde_json::to_string(&[
            RowNormalization::None,
            RowNormalization::Pre,
            RowNormalization::default(),
        ]);
        assert_eq!(names.unwrap(), r#"["none","pre","full"]"#);
    }
}
