//! The edit as adapter factors, exact and of rank one.
//!
//! `none` and `pre` row normalization are LoRA adapters: `W' = W + B A`. `full` is a DoRA adapter, whose rows are
//! scaled to given lengths: `W'_i = m_i (W + B A)_i / ‖(W + B A)_i‖`. A DoRA implementation divides 0 by 0 in rows of
//! zeros and in rows that vanish; callers that meet such rows must write merged weights instead.
//!
//! Hu et al. 2021, arXiv:2106.09685; Liu et al. 2024, arXiv:2402.09353.

use crate::streaming;
use crate::weight::WriterWeight;
use crate::writer::{RowNormalization, Target, WriterError};

/// The factors of a rank-one adapter, with scaling 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// B, `[d_model, 1]`.
    pub up: Vec<f64>,
    /// A, `[1, d_in]`.
    pub down: Vec<f64>,
    /// DoRA's magnitudes, `[d_model]`; `None` for a LoRA adapter.
    pub magnitude: Option<Vec<f64>>,
}

impl Adapter {
    /// The adapter that takes a target's direction out. One pass over the rows.
    ///
    /// # Shapes
    /// - `weight`: the same as `target` was prepared for
    pub fn of(
        weight: &(impl WriterWeight + ?Sized),
        target: &Target,
        strength: f64,
    ) -> Result<Self, WriterError> {
        let (found, expected) = (weight.shape().0, target.vector().len());
        if found != expected {
            return Err(WriterError::Width { what: "weight", expected, found });
        }
        let vectors = target.vectors(strength)?;
        Ok(Self {
            up: vectors.p.iter().map(|it| -it).collect(),
            down: streaming::transposed_products(weight, &[&vectors.q]).remove(0),
            magnitude: (target.mode() == RowNormalization::Full).then(|| target.row_norms().to_vec()),
        })
    }
}
