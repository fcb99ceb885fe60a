//! What the lines of a journal can do, and how each is written.

use jiff::civil::DateTime;
use serde_json::{Value, json};

use super::distribution_json::distribution_to_json;
use super::fields::format_time;
use crate::{Goal, Parameter, Trial, TrialState};

/// What a line does. Studies and trials are named by their place in the whole file.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// 0: a new study, unless there is one of that name.
    CreateStudy {
        /// Its name.
        name: String,
        /// One per objective.
        goals: Vec<Goal>,
    },
    /// 1: takes a study away.
    DeleteStudy {
        /// Which one.
        study: usize,
    },
    /// 2 and 3: a note beside a study.
    SetStudyAttribute {
        /// Which one.
        study: usize,
        /// Whose note.
        owner: Owner,
        /// Its name.
        key: String,
        /// What it says.
        value: Value,
    },
    /// 4: a new trial, running or ready-made. Its number is given to it on replay.
    CreateTrial {
        /// Whose.
        study: usize,
        /// The trial.
        trial: Box<Trial>,
    },
    /// 5: a parameter of a trial.
    SetParameter {
        /// Which trial.
        trial: usize,
        /// The parameter.
        parameter: Parameter,
        /// Its internal value.
        value: f64,
    },
    /// 6: a trial's state and values.
    SetState {
        /// Which trial.
        trial: usize,
        /// The new state.
        state: TrialState,
        /// The values, or those that it has.
        values: Option<Vec<f64>>,
        /// When: the beginning if the state is running, the end if it is finished.
        time: Option<DateTime>,
    },
    /// 7: a value reported along the way.
    SetIntermediateValue {
        /// Which trial.
        trial: usize,
        /// How far along.
        step: i64,
        /// The value.
        value: f64,
    },
    /// 8 and 9: a note beside a trial.
    SetTrialAttribute {
        /// Which trial.
        trial: usize,
        /// Whose note.
        owner: Owner,
        /// Its name.
        key: String,
        /// What it says.
        value: Value,
    },
    /// 10: written by Optuna's Rust port to tidy up; means nothing to others.
    Discard,
}

/// Who a note belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever evaluates.
    User,
    /// Samplers and the study itself.
    System,
}

/// The number and the further fields of an operation.
pub(super) fn write_operation(operation: &Operation) -> (u8, Value) {
    match operation {
        Operation::CreateStudy { name, goals } => {
            let code = |it: &Goal| match it {
                Goal::Minimize => 1,
                Goal::Maximize => 2,
            };
            let directions: Vec<i32> = goals.iter().map(code).collect();
            (0, json!({"study_name": name, "directions": directions}))
        }
        Operation::DeleteStudy { study } => (1, json!({"study_id": study})),
        Operation::SetStudyAttribute { study, owner: Owner::User, key, value } => {
            (2, json!({"study_id": study, "user_attr": {key: value}}))
        }
        Operation::SetStudyAttribute { study, owner: Owner::System, key, value } => {
            (3, json!({"study_id": study, "system_attr": {key: value}}))
        }
        // Only running trials are written: a ready-made one is asked and told at once.
        Operation::CreateTrial { study, trial } => {
            (4, json!({"study_id": study, "datetime_start": trial.start.map(format_time)}))
        }
        Operation::SetParameter { trial, parameter, value } => {
            let distribution = distribution_to_json(&parameter.distribution).to_string();
            let fields = json!({
                "trial_id": trial,
                "param_name": parameter.name,
                "param_value_internal": value,
                "distribution": distribution,
            });
            (5, fields)
        }
        Operation::SetState { trial, state, values, time } => {
            let mut fields = json!({"trial_id": trial, "state": state_code(*state), "values": values});
            let time = time.map(format_time);
            if *state == TrialState::Running {
                fields["datetime_start"] = json!(time);
            } else if state.is_finished() {
                fields["datetime_complete"] = json!(time);
            }
            (6, fields)
        }
        Operation::SetIntermediateValue { trial, step, value } => {
            (7, json!({"trial_id": trial, "step": step, "intermediate_value": value}))
        }
        Operation::SetTrialAttribute { trial, owner: Owner::User, key, value } => {
            (8, json!({"trial_id": trial, "user_attr": {key: value}}))
        }
        Operation::SetTrialAttribute { trial, owner: Owner::System, key, value } => {
            (9, json!({"trial_id": trial, "system_attr": {key: value}}))
        }
        Operation::Discard => (10, json!({})),
    }
}

fn state_code(state: TrialState) -> u8 {
    match state {
        TrialState::Running => 0,
        TrialState::Complete => 1,
        TrialState::Pruned => 2,
        TrialState::Failed => 3,
        TrialState::Waiting => 4,
    }
}
