//! Where a parameter's values may lie.
//!
//! As in Optuna, every value has an *internal* form, one `f64`: a float is itself, an integer is converted, a
//! choice is its index. Numeric parameters are drawn and modelled on an [`Axis`]: logarithmic if asked for, and
//! with a step widened by half a step at both ends, so that every grid value owns a cell of the same width.

use serde_json::Value;

/// The values that a parameter may take.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// A real number.
    Float {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
        /// Distance of the grid that starts at `low`, or any value in between.
        step: Option<f64>,
        /// Whether ratios matter rather than differences.
        log: bool,
    },
    /// A whole number.
    Int {
        /// Smallest value.
        low: i64,
        /// Largest value.
        high: i64,
        /// Distance of the grid that starts at `low`; at least 1.
        step: i64,
        /// Whether ratios matter rather than differences.
        log: bool,
    },
    /// One of several, without an order.
    Categorical {
        /// What can be chosen. Python reads back null, booleans, numbers and strings without loss.
        choices: Vec<Value>,
    },
}

/// Why numbers do not make a distribution.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// The bounds are out of order, not finite, or too far apart for exact arithmetic.
    #[error("bounds `{low}` and `{high}` are not a range of finite numbers in order")]
    Bounds {
        /// Given as the smallest value.
        low: f64,
        /// Given as the largest value.
        high: f64,
    },
    /// A logarithm needs positive bounds; an integer's must be at least 1.
    #[error("lower bound `{low}` has no place on a logarithmic scale")]
    LogBound {
        /// The smallest value.
        low: f64,
    },
    /// Optuna has no logarithmic grids.
    #[error("step `{step}` cannot be combined with a logarithmic scale")]
    LogStep {
        /// The step.
        step: f64,
    },
    /// The step is not a positive number.
    #[error("step `{step}` is not a positive number")]
    Step {
        /// The step.
        step: f64,
    },
    /// The upper bound is not on the grid.
    #[error(
        "step `{step}` does not lead from `{low}` to `{high}`\n\nhint: move the upper bound onto the grid"
    )]
    Grid {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
        /// The step.
        step: f64,
    },
    /// There is nothing to choose from.
    #[error("a categorical parameter without choices")]
    NoChoices,
}

/// Integers up to here are exact as `f64`.
const EXACT: i64 = 1 << 53;

/// How far off the grid a float may lie, in steps: decimal steps such as 0.1 are not exact in binary.
const GRID_TOLERANCE: f64 = 1e-9;

impl Distribution {
    /// A real number between two bounds.
    pub fn float(low: f64, high: f64) -> Self {
        Self::Float { low, high, step: None, log: false }
    }

    /// A whole number between two bounds.
    pub fn int(low: i64, high: i64) -> Self {
        Self::Int { low, high, step: 1, log: false }
    }

    /// One of several.
    pub fn categorical<T: Into<Value>>(choices: impl IntoIterator<Item = T>) -> Self {
        Self::Categorical { choices: choices.into_iter().map(Into::into).collect() }
    }

    /// Whether the numbers make sense.
    pub fn check(&self) -> Result<(), DistributionError> {
        let (low, high, step, log) = match self {
            Self::Categorical { choices } if choices.is_empty() => return Err(DistributionError::NoChoices),
            Self::Categorical { .. } => return Ok(()),
            &Self::Float { low, high, step, log } => (low, high, step, log),
            &Self::Int { low, high, step, log } => {
                if [low, high, step].iter().any(|it| it.unsigned_abs() > EXACT.unsigned_abs()) {
                    return Err(DistributionError::Bounds { low: low as f64, high: high as f64 });
                }
                if log && step != 1 {
                    return Err(DistributionError::LogStep { step: step as f64 });
                }
                // A logarithmic integer has the implied step 1, which a float must not have.
                (low as f64, high as f64, if log { None } else { Some(step as f64) }, log)
            }
        };
        // `high - low` overflows for bounds that are finite but absurd.
        if low > high || !(high - low).is_finite() {
            return Err(DistributionError::Bounds { low, high });
        }
        let smallest = if matches!(self, Self::Int { .. }) { 1.0 } else { f64::MIN_POSITIVE };
        if log && low < smallest {
            return Err(DistributionError::LogBound { low });
        }
        let Some(step) = step else { return Ok(()) };
        if !(step.is_finite() && step > 0.0) {
            return Err(DistributionError::Step { step });
        }
        if log {
            return Err(DistributionError::LogStep { step });
        }
        let steps = (high - low) / step;
        if !steps.is_finite() || (steps - steps.round()).abs() > GRID_TOLERANCE * steps.max(1.0) {
            return Err(DistributionError::Grid { low, high, step });
        }
        Ok(())
    }

    /// Whether there is only one value.
    pub fn is_single(&self) -> bool {
        match self {
            Self::Float { low, high, .. } => low >= high,
            Self::Int { low, high, .. } => low >= high,
            Self::Categorical { choices } => choices.len() == 1,
        }
    }

    /// Whether an internal value is one of this distribution's.
    pub fn contains(&self, internal: f64) -> bool {
        let on_grid = |low: f64, step: f64| {
            let steps = (internal - low) / step;
            (steps - steps.round()).abs() <= GRID_TOLERANCE * steps.abs().max(1.0)
        };
        match self {
            &Self::Float { low, high, step, .. } => {
                (low..=high).contains(&internal) && step.is_none_or(|step| on_grid(low, step))
            }
            &Self::Int { low, high, step, .. } => {
                let whole = internal as i64;
                internal.fract() == 0.0
                    && (low..=high).contains(&whole)
                    && whole.checked_sub(low).is_some_and(|it| step > 0 && it % step == 0)
            }
            Self::Categorical { choices } => {
                internal >= 0.0 && internal.fract() == 0.0 && internal < choices.len() as f64
            }
        }
    }

    /// Whether a study may use both for one parameter: same kind, same scale, same choices. Bounds may differ.
    pub fn is_compatible(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float { log: a, .. }, Self::Float { log: b, .. })
            | (Self::Int { log: a, .. }, Self::Int { log: b, .. }) => a == b,
            (Self::Categorical { choices: a }, Self::Categorical { choices: b }) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_in_python(a, b))
            }
            _ => false,
        }
    }

    /// The axis of a numeric parameter.
    pub(crate) fn axis(&self) -> Option<Axis> {
        let (bottom, top, step, log) = match *self {
            Self::Float { low, high, step, log } => (low, high, step, log),
            Self::Int { low, high, step, log } => (low as f64, high as f64, Some(step as f64), log),
            Self::Categorical { .. } => return None,
        };
        let half = step.unwrap_or(0.0) / 2.0;
        let scale = |value: f64| if log { libm::log(value) } else { value };
        Some(Axis { bottom, top, step, log, low: scale(bottom - half), high: scale(top + half) })
    }
}

/// Python's `==` of two JSON values: `True == 1 == 1.0`.
fn equal_in_python(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(it) => Some(f64::from(*it)),
        Value::Number(it) => it.as_f64(),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => a == b,
    }
}

/// The line on which a numeric parameter is drawn and modelled.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Smallest and largest value.
    bottom: f64,
    top: f64,
    /// Distance of the grid.
    pub(crate) step: Option<f64>,
    log: bool,
    /// Ends of the axis, as coordinates.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Axis {
    /// Where a value lies.
    pub(crate) fn coordinate(&self, value: f64) -> f64 {
        if self.log { libm::log(value) } else { value }
    }

    /// The value at a coordinate, or the nearest grid value.
    pub(crate) fn value(&self, coordinate: f64) -> f64 {
        let value = if self.log { libm::exp(coordinate) } else { coordinate };
        let value = match self.step {
            Some(step) => self.bottom + ((value - self.bottom) / step).round() * step,
            None => value,
        };
        value.clamp(self.bottom, self.top)
    }

    /// The ends of the cell that a grid value owns, as coordinates.
    pub(crate) fn cell(&self, value: f64, step: f64) -> (f64, f64) {
        (self.coordinate(value - step / 2.0), self.coordinate(value + step / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_distribution_is_refused_with_its_numbers() {
        let refused = |it: Distribution| it.check().unwrap_err();
        assert_eq!(refused(Distribution::float(2.0, 1.0)), DistributionError::Bounds { low: 2.0, high: 1.0 });
        assert!(matches!(refused(Distribution::float(f64::NAN, 1.0)), DistributionError::Bounds { .. }));
        assert!(matches!(refused(Distribution::float(-1e308, 1e308)), DistributionError::Bounds { .. }));
        assert!(matches!(refused(Distribution::int(0, i64::MAX)), DistributionError::Bounds { .. }));
        let log = Distribution::Float { low: 0.0, high: 1.0, step: None, log: true };
        assert_eq!(refused(log), DistributionError::LogBound { low: 0.0 });
        let log = Distribution::Int { low: 0, high: 8, step: 1, log: true };
        assert_eq!(refused(log), DistributionError::LogBound { low: 0.0 });
        let log = Distribution::Int { low: 1, high: 9, step: 2, log: true };
        assert_eq!(refused(log), DistributionError::LogStep { step: 2.0 });
        let log = Distribution::Float { low: 1.0, high: 9.0, step: Some(2.0), log: true };
        assert_eq!(refused(log), DistributionError::LogStep { step: 2.0 });
        let still = Distribution::Float { low: 0.0, high: 1.0, step: Some(0.0), log: false };
        assert_eq!(refused(still), DistributionError::Step { step: 0.0 });
        let off = Distribution::Int { low: 0, high: 10, step: 4, log: false };
        assert_eq!(refused(off), DistributionError::Grid { low: 0.0, high: 10.0, step: 4.0 });
        assert_eq!(refused(Distribution::categorical::<i64>([])), DistributionError::NoChoices);
    }

    #[test]
    fn a_decimal_step_is_a_grid_although_binary_cannot_hold_it() {
        let tenths = Distribution::Float { low: 0.0, high: 0.3, step: Some(0.1), log: false };
        tenths.check().unwrap();
        assert!(tenths.contains(0.1 + 0.1) && tenths.contains(0.3));
        assert!(!tenths.contains(0.25) && !tenths.contains(0.4));
        let axis = tenths.axis().unwrap();
        assert!(tenths.contains(axis.value(0.29)));
    }

    #[test]
    fn every_grid_value_owns_a_cell_of_the_same_width() {
        let axis = Distribution::Int { low: 2, high: 8, step: 3, log: false }.axis().unwrap();
        assert_eq!((axis.low, axis.high), (0.5, 9.5));
        assert_eq!([0.6, 3.4, 3.6, 6.4, 6.6, 9.4].map(|it| axis.value(it)), [2.0, 2.0, 5.0, 5.0, 8.0, 8.0]);
        assert_eq!(axis.cell(5.0, 3.0), (3.5, 6.5));
    }

    #[test]
    fn python_takes_true_and_one_for_the_same_choice() {
        let a = Distribution::Categorical { choices: vec![true.into(), "x".into()] };
        let b = Distribution::Categorical { choices: vec![1.0.into(), "x".into()] };
        let c = Distribution::Categorical { choices: vec![1.0.into(), "y".into()] };
        assert!(a.is_compatible(&b) && !b.is_compatible(&c) && !a.is_compatible(&Distribution::int(0, 1)));
    }

    #[test]
    fn infinite_and_fractional_internal_values_are_nobodys() {
        for distribution in [Distribution::int(0, 3), Distribution::categorical(["a", "b"])] {
            for value in [f64::INFINITY, f64::NAN, -1.0, 0.5, 4.0] {
                assert!(!distribution.contains(value), "{value} in {distribution:?}");
            }
            assert!(distribution.contains(1.0));
        }
    }
}
