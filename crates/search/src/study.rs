//! Asking what to try, and telling what came of it.

use std::path::Path;

use jiff::civil::DateTime;

use crate::journal::{self, Journal, JournalError, Operation, Owner, Replay};
use crate::snapshot::METRIC_NAMES;
use crate::{
    Assignment, Attributes, Goal, Objective, Observation, Outcome, Request, Sampler, Snapshot, Space, Trial,
    TrialState,
};

/// How a study goes on: everything that a proposal depends on beside the history.
///
/// A study continues as if it had never stopped when it is given the same four again.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// What decides.
    pub sampler: &'a dyn Sampler,
    /// What may be tried.
    pub space: &'a Space,
    /// Where the random numbers come from.
    pub seed: u64,
    /// How many trials are evaluated together; batches begin at its multiples. 0 counts as 1.
    pub batch: usize,
}

/// A study that is being worked on.
#[derive(Debug)]
pub struct Study {
    journal: Journal,
    id: usize,
    objectives: Vec<Objective>,
}

/// Why a study cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// Its journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A study needs something to optimize.
    #[error("study `{study}` has no objectives")]
    NoObjectives {
        /// Its name.
        study: String,
    },
    /// The study exists and optimizes something else.
    #[error(
        "study `{study}` has the objectives {found}, not {expected}\n\n\
         hint: continue it with its own objectives, or give this run another study file"
    )]
    Objectives {
        /// Its name.
        study: String,
        /// What was asked for.
        expected: String,
        /// What the study has.
        found: String,
    },
    /// The file has no such study.
    #[error("no study `{study}` in `{path}`; there are {present:?}")]
    NoSuchStudy {
        /// Its name.
        study: String,
        /// The file.
        path: String,
        /// The names that there are.
        present: Vec<String>,
    },
    /// The file has several studies, or none.
    #[error("`{path}` holds {} studies: {present:?}\n\nhint: name the one to show", present.len())]
    NotOneStudy {
        /// The file.
        path: String,
        /// The names that there are.
        present: Vec<String>,
    },
    /// Another program deleted the study.
    #[error("study `{study}` was deleted while it was in use")]
    Deleted {
        /// Its name.
        study: String,
    },
    /// There is no such trial.
    #[error("trial {number} does not exist; the study has {count} trials")]
    NoSuchTrial {
        /// Its number.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A trial is told only while it runs.
    #[error("trial {number} is {state}, not running")]
    NotRunning {
        /// Its number.
        number: usize,
        /// Where it stands.
        state: TrialState,
    },
    /// There must be one value per objective.
    #[error("trial {number}: {found} values for {expected} objectives")]
    ValueCount {
        /// Its number.
        number: usize,
        /// How many objectives there are.
        expected: usize,
        /// How many values were told.
        found: usize,
    },
    /// A value must be a finite number.
    #[error(
        "trial {number}: objective `{objective}` is `{value}`, not a finite number\n\n\
         hint: a trial whose score cannot be computed is failed, not told"
    )]
    NotFinite {
        /// Its number.
        number: usize,
        /// The objective.
        objective: String,
        /// Its value.
        value: f64,
    },
}

impl Study {
    /// Continues the study of a name in a journal, or begins it.
    pub fn open(path: impl AsRef<Path>, name: &str, objectives: &[Objective]) -> Result<Self, StudyError> {
        Self::begin(Journal::open(path.as_ref())?, name, objectives)
    }

    /// Why nothing keeps another process from working on this study too, if nothing does: what the system said when the
    /// file was to be locked.
    pub fn unlocked(&self) -> Option<&str> {
        self.journal.unlocked()
    }

    /// Begins a study that is gone when it is dropped.
    pub fn in_memory(name: &str, objectives: &[Objective]) -> Result<Self, StudyError> {
        Self::begin(Journal::in_memory(), name, objectives)
    }

    /// Reads a study without touching its file, while others may be writing: the one of a name, or the only one.
    pub fn load(path: impl AsRef<Path>, name: Option<&str>) -> Result<Snapshot, StudyError> {
        let replay = journal::load(path.as_ref())?;
        let path = path.as_ref().display().to_string();
        let present: Vec<String> = replay.studies().map(|it| it.name.clone()).collect();
        match name {
            Some(name) => replay
                .studies()
                .find(|it| it.name == name)
                .cloned()
                .ok_or_else(|| StudyError::NoSuchStudy { study: name.into(), path, present }),
            None => match replay.studies().collect::<Vec<_>>()[..] {
                [only] => Ok(only.clone()),
                _ => Err(StudyError::NotOneStudy { path, present }),
            },
        }
    }

    fn begin(mut journal: Journal, name: &str, objectives: &[Objective]) -> Result<Self, StudyError> {
        if objectives.is_empty() {
            return Err(StudyError::NoObjectives { study: name.into() });
        }
        let goals: Vec<Goal> = objectives.iter().map(|it| it.goal).collect();
        let names: Vec<String> = objectives.iter().map(|it| it.name.clone()).collect();
        let id = journal.append(|replay| {
            let existing = replay.study_id(name);
            let id = existing.unwrap_or_else(|| replay.next_study());
            let mut operations = Vec::new();
            if let Some(study) = existing.and_then(|it| replay.study(it)) {
                let found = study.objectives();
                // A study whose objectives were never named is named now.
                if study.goals != goals || study.metric_names().is_some_and(|it| it != names) {
                    let (expected, found) = (listed(objectives), listed(&found));
                    return Err(StudyError::Objectives { study: name.into(), expected, found });
                }
            } else {
                operations.push(Operation::CreateStudy { name: name.into(), goals });
            }
            if existing.and_then(|it| replay.study(it)?.metric_names()).is_none() {
                let (key, value) = (METRIC_NAMES.into(), names.into());
                operations.push(Operation::SetStudyAttribute { study: id, owner: Owner::System, key, value });
            }
            Ok((operations, id))
        })?;
        Ok(Self { journal, id, objectives: objectives.to_vec() })
    }

    /// All that is known, as of the last operation.
    pub fn snapshot(&self) -> &Snapshot {
        // Only another program can delete a study, which the next operation reports.
        self.journal.replay().study_or_deleted(self.id)
    }

    /// What is optimized.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// By number.
    pub fn trials(&self) -> &[Trial] {
        &self.snapshot().trials
    }

    /// See [`Snapshot::front`].
    pub fn front(&self) -> Vec<&Trial> {
        self.snapshot().front()
    }

    /// What a killed process of ours left unfinished, with the assignments that it had; a trial whose assignment was
    /// not completely written gets the same proposal again.
    ///
    /// Running trials of other programs are not returned: they may be alive.
    pub fn running(&mut self, search: &Search<'_>) -> Result<Vec<Trial>, StudyError> {
        let id = self.id;
        let objectives = &self.objectives;
        let numbers = self.journal.append(|replay| {
            let study = living(replay, id)?;
            let numbers: Vec<usize> =
                replay.ours(id).filter(|&it| study.trials[it].state == TrialState::Running).collect();
            let mut trials = study.trials.clone();
            let operations = complete(replay, id, &mut trials, search, objectives);
            Ok::<_, StudyError>((operations, numbers))
        })?;
        Ok(numbers.into_iter().filter_map(|it| self.trials().get(it).cloned()).collect())
    }

    /// Asks one trial. It is written down as running before it is returned.
    pub fn ask(&mut self, search: &Search<'_>) -> Result<Trial, StudyError> {
        let mut asked = self.ask_until(search, |next| next + 1)?;
        Ok(asked.pop().expect("one trial was asked for"))
    }

    /// Asks the trials up to the end of the batch, but none from number `limit` on. All are written down as running,
    /// in one piece, before any is returned; none of them sees what comes of another.
    ///
    /// The end of a batch is the next multiple of [`Search::batch`], wherever the last one stopped: a study that was
    /// killed while asking, or stopped in the middle of a batch and extended, goes on as if it had not been.
    pub fn ask_batch(&mut self, search: &Search<'_>, limit: usize) -> Result<Vec<Trial>, StudyError> {
        let size = search.batch.max(1);
        self.ask_until(search, |next| ((next / size + 1) * size).min(limit))
    }

    /// Asks the trials from the next one up to `end(next)`.
    fn ask_until(
        &mut self,
        search: &Search<'_>,
        end: impl FnOnce(usize) -> usize,
    ) -> Result<Vec<Trial>, StudyError> {
        let (id, objectives) = (self.id, &self.objectives);
        let numbers = self.journal.append(|replay| {
            let mut trials = living(replay, id)?.trials.clone();
            let mut operations = complete(replay, id, &mut trials, search, objectives);
            let (first, next_id) = (trials.len(), replay.next_trial());
            let numbers = first..end(first).max(first);
            for number in numbers.clone() {
                let assignment = propose(&trials, number, search, objectives);
                let trial = new_trial(number, assignment);
                let trial_id = next_id + (number - first);
                operations.push(Operation::CreateTrial { study: id, trial: Box::new(trial.clone()) });
                operations.extend(parameters(trial_id, &trial.assignment));
                trials.push(trial);
            }
            Ok::<_, StudyError>((operations, numbers))
        })?;
        Ok(self.trials().get(numbers).unwrap_or_default().to_vec())
    }

    /// Tells what came of a trial: notes first, then one value per objective, in one piece.
    pub fn tell(&mut self, number: usize, values: &[f64], user_attrs: Attributes) -> Result<(), StudyError> {
        if values.len() != self.objectives.len() {
            let (expected, found) = (self.objectives.len(), values.len());
            return Err(StudyError::ValueCount { number, expected, found });
        }
        if let Some((objective, &value)) = self.objectives.iter().zip(values).find(|it| !it.1.is_finite()) {
            return Err(StudyError::NotFinite { number, objective: objective.name.clone(), value });
        }
        self.finish(number, TrialState::Complete, Some(values.to_vec()), user_attrs)
    }

    /// Tells that a trial went wrong. It says nothing about its assignment then.
    pub fn fail(&mut self, number: usize) -> Result<(), StudyError> {
        self.finish(number, TrialState::Failed, None, Attributes::new())
    }

    /// Writes a note beside the study.
    pub fn set_user_attr(
        &mut self,
        key: &str,
        value: impl Into<serde_json::Value>,
    ) -> Result<(), StudyError> {
        let (study, key, value) = (self.id, key.into(), value.into());
        self.journal.append(|replay| {
            living(replay, study)?;
            Ok((vec![Operation::SetStudyAttribute { study, owner: Owner::User, key, value }], ()))
        })
    }

    /// Writes a note beside a trial that is running.
    pub fn set_trial_user_attr(
        &mut self,
        number: usize,
        key: &str,
        value: impl Into<serde_json::Value>,
    ) -> Result<(), StudyError> {
        let (study, key, value) = (self.id, key.into(), value.into());
        self.journal.append(|replay| {
            let trial = running_trial(replay, study, number)?;
            Ok((vec![Operation::SetTrialAttribute { trial, owner: Owner::User, key, value }], ()))
        })
    }

    fn finish(
        &mut self,
        number: usize,
        state: TrialState,
        values: Option<Vec<f64>>,
        user_attrs: Attributes,
    ) -> Result<(), StudyError> {
        let study = self.id;
        self.journal.append(|replay| {
            let trial = running_trial(replay, study, number)?;
            let note = |(key, value)| Operation::SetTrialAttribute { trial, owner: Owner::User, key, value };
            let mut operations: Vec<Operation> = user_attrs.into_iter().map(note).collect();
            operations.push(Operation::SetState { trial, state, values, time: Some(now()) });
            Ok((operations, ()))
        })
    }
}

/// Objectives in one line.
fn listed(objectives: &[Objective]) -> String {
    let names: Vec<String> = objectives.iter().map(|it| format!("`{it}`")).collect();
    names.join(", ")
}

/// Local time; it is written down and nothing is computed from it.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

fn living(replay: &Replay, study: usize) -> Result<&Snapshot, StudyError> {
    let name = || replay.study_or_deleted(study).name.clone();
    replay.study(study).ok_or_else(|| StudyError::Deleted { study: name() })
}

/// The id of a trial that can be told.
fn running_trial(replay: &Replay, study: usize, number: usize) -> Result<usize, StudyError> {
    let trials = &living(replay, study)?.trials;
    match (trials.get(number), replay.trial_id(study, number)) {
        (Some(trial), _) if trial.state != TrialState::Running => {
            Err(StudyError::NotRunning { number, state: trial.state })
        }
        (Some(_), Some(id)) => Ok(id),
        _ => Err(StudyError::NoSuchTrial { number, count: trials.len() }),
    }
}

fn new_trial(number: usize, assignment: Assignment) -> Trial {
    Trial {
        number,
        state: TrialState::Running,
        assignment,
        values: None,
        user_attrs: Attributes::new(),
        system_attrs: Attributes::new(),
        intermediate_values: std::collections::BTreeMap::new(),
        start: Some(now()),
        complete: None,
    }
}

fn parameters(trial: usize, assignment: &Assignment) -> impl Iterator<Item = Operation> {
    assignment.iter().map(move |(parameter, value)| Operation::SetParameter {
        trial,
        parameter: parameter.clone(),
        value,
    })
}

/// Completes the assignments of running trials of ours of which a killed process wrote only a part.
fn complete(
    replay: &Replay,
    study: usize,
    trials: &mut [Trial],
    search: &Search<'_>,
    objectives: &[Objective],
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for number in replay.ours(study) {
        let has = |name: &str| trials[number].assignment.internal(name).is_some();
        let is_whole = search.space.parameters().iter().all(|it| has(&it.name));
        let Some(trial) = replay.trial_id(study, number) else { continue };
        if is_whole || trials[number].state != TrialState::Running {
            continue;
        }
        let proposal = propose(trials, number, search, objectives);
        for (parameter, value) in proposal.iter() {
            if trials[number].assignment.internal(&parameter.name).is_none() {
                trials[number].assignment.set(parameter.clone(), value);
                operations.push(Operation::SetParameter { trial, parameter: parameter.clone(), value });
            }
        }
    }
    operations
}

/// What trial `number` should try, given the trials before it: those before its batch as they were told, its batch
/// mates as pending, whatever has come of them since.
fn propose(trials: &[Trial], number: usize, search: &Search<'_>, objectives: &[Objective]) -> Assignment {
    let batch_start = number - number % search.batch.max(1);
    let history: Vec<Observation<'_>> =
        trials.iter().take(number).filter_map(|it| observe(it, batch_start)).collect();
    search.sampler.propose(&Request {
        space: search.space,
        objectives,
        history: &history,
        number,
        seed: search.seed,
    })
}

/// A trial as a sampler sees it, if it says anything.
fn observe(trial: &Trial, batch_start: usize) -> Option<Observation<'_>> {
    let outcome = match (trial.state, &trial.values) {
        (TrialState::Waiting, _) => return None,
        _ if trial.number >= batch_start => Outcome::Pending,
        (TrialState::Running, _) => Outcome::Pending,
        (TrialState::Failed, _) => return None,
        (TrialState::Complete, Some(values)) => Outcome::Complete { values, violation: trial.violation() },
        (TrialState::Complete | TrialState::Pruned, _) => Outcome::Pruned,
    };
    Some(Observation { number: trial.number, assignment: &trial.assignment, outcome })
}
