//! One attempt.

use std::collections::BTreeMap;

use jiff::civil::DateTime;

use crate::Assignment;

/// Notes beside a trial or a study: JSON values by name.
pub type Attributes = serde_json::Map<String, serde_json::Value>;

/// Where a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrialState {
    /// Asked, and not told yet.
    Running,
    /// Told.
    Complete,
    /// Given up early by whoever evaluated it. We never write it: a sampler takes it for bad.
    Pruned,
    /// It went wrong, and says nothing about its assignment.
    Failed,
    /// Put into the queue by another program, and not begun.
    Waiting,
}

impl TrialState {
    /// Whether nothing about the trial can change any more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Complete | Self::Pruned | Self::Failed)
    }
}

impl std::fmt::Display for TrialState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Pruned => "pruned",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        })
    }
}

/// One attempt: what was tried and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number within the study, from 0.
    pub number: usize,
    /// Where it stands.
    pub state: TrialState,
    /// What is tried.
    pub assignment: Assignment,
    /// One value per objective, once there are any. Other programs may write infinite ones.
    pub values: Option<Vec<f64>>,
    /// Notes of whoever evaluates.
    pub user_attrs: Attributes,
    /// Notes of samplers.
    pub system_attrs: Attributes,
    /// Values reported along the way, by step; written by other programs only.
    pub intermediate_values: BTreeMap<i64, f64>,
    /// When it began, local time.
    pub start: Option<DateTime>,
    /// When it was finished, local time.
    pub complete: Option<DateTime>,
}

impl Trial {
    /// By how much the trial breaks its constraints: the sum of the positive numbers in the system attribute
    /// `constraints`. 0 where there are none, as in Optuna 5.
    pub fn violation(&self) -> f64 {
        let constraints = self.system_attrs.get("constraints").and_then(|it| it.as_array());
        let numbers = constraints.into_iter().flatten().filter_map(crate::journal::number);
        numbers.filter(|it| *it > 0.0).sum()
    }
}
