//! Directions of residual space.

/// A unit vector of residual space.
///
/// ```
/// # use glossary::Direction;
/// let direction = Direction::normalized(&[3.0, 4.0]).unwrap();
/// assert_eq!(direction.as_slice(), [0.6, 0.8]); // 3/5, 4/5
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Direction(Vec<f64>);

/// Why a vector has no direction.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DirectionError {
    /// The vector is zero, or so small that its length underflows.
    #[error("a vector of {width} components and length {length:e} has no direction")]
    Vanishes {
        /// How many components the vector has.
        width: usize,
        /// Its Euclidean length.
        length: f64,
    },
    /// A component is infinite or not a number.
    #[error("component {index} of the vector is `{value}`")]
    NotFinite {
        /// The first such component.
        index: usize,
        /// Its value.
        value: f64,
    },
}

impl Direction {
    /// Scales a vector to length 1.
    pub fn normalized(vector: &[f64]) -> Result<Self, DirectionError> {
        if let Some(index) = vector.iter().position(|it| !it.is_finite()) {
            return Err(DirectionError::NotFinite { index, value: vector[index] });
        }
        // Scaled by the largest component first, so that squares neither overflow nor underflow.
        let largest = vector.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        if largest < f64::MIN_POSITIVE {
            return Err(DirectionError::Vanishes { width: vector.len(), length: largest });
        }
        let length = vector.iter().map(|it| (it / largest).powi(2)).sum::<f64>().sqrt();
        Ok(Self(vector.iter().map(|it| it / largest / length).collect()))
    }

    /// The components, `[d_model]`.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_has_length_one_at_every_scale() {
        for scale in [1e-300, 1e-160, 1.0, 1e160, 1e300] {
            let direction = Direction::normalized(&[3.0 * scale, -4.0 * scale, 12.0 * scale]).unwrap();
            let length = direction.as_slice().iter().map(|it| it * it).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-15, "{length} at {scale:e}");
        }
    }

    #[test]
    fn what_has_no_direction_is_refused_with_the_reason() {
        assert_eq!(
            Direction::normalized(&[0.0, 0.0]),
            Err(DirectionError::Vanishes { width: 2, length: 0.0 })
        );
        let error = Direction::normalized(&[1.0, f64::INFINITY]).unwrap_err();
        assert_eq!(error, DirectionError::NotFinite { index: 1, value: f64::INFINITY });
    }
}
