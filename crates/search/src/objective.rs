//! What is optimized, and which way.

/// Whether a score should become small or large.
///
/// Optuna says *direction*; here that word would clash with directions of residual space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "direction")]
pub enum Goal {
    /// Smaller is better.
    Minimize,
    /// Larger is better.
    Maximize,
}

impl Goal {
    /// The value as something to minimize: itself, or negated. What is not a number counts as infinitely bad.
    pub fn loss(self, value: f64) -> f64 {
        let loss = match self {
            Self::Minimize => value,
            Self::Maximize => -value,
        };
        // Adding zero makes −0 into 0, so that equal losses have equal bits.
        if loss.is_nan() { f64::INFINITY } else { loss + 0.0 }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Minimize => "minimize",
            Self::Maximize => "maximize",
        })
    }
}

/// A named score with its goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objective {
    /// Its name, as shown to users and written as a metric name.
    pub name: String,
    /// Which way it should go.
    pub goal: Goal,
}

impl Objective {
    /// A score that should become small.
    pub fn minimize(name: impl Into<String>) -> Self {
        Self { name: name.into(), goal: Goal::Minimize }
    }

    /// A score that should become large.
    pub fn maximize(name: impl Into<String>) -> Self {
        Self { name: name.into(), goal: Goal::Maximize }
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.goal, self.name)
    }
}

/// Values as losses, one per goal.
pub(crate) fn losses(values: &[f64], objectives: &[Objective]) -> Vec<f64> {
    values.iter().zip(objectives).map(|(&value, objective)| objective.goal.loss(value)).collect()
}
