//! What the lines of a journal add up to.
//!
//! Ids are not written anywhere: a study's is its place among the studies of the file, a trial's its place among
//! the trials of all studies. Lines that Python's replay passes over silently are passed over here:
//!
//! - a new study whose name is taken;
//! - anything about a study or trial that does not exist, and anything about a finished trial;
//! - a parameter whose distribution does not go with an earlier one of that name in the study;
//! - beginning a trial that runs already: of several workers that claim one, the first in the file has it.

use super::operation::{Operation, Owner};
use super::record::Record;
use crate::{Attributes, Snapshot, Trial, TrialState};

/// All studies of a journal as its lines leave them.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// By study id; deleted ones keep their place.
    studies: Vec<Snapshot>,
    is_deleted: Vec<bool>,
    /// By trial id.
    trials: Vec<Place>,
}

/// Where a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    study: usize,
    number: usize,
    /// Whether a process of ours asked it.
    is_ours: bool,
}

impl Replay {
    /// The studies that exist, in order of creation.
    pub fn studies(&self) -> impl Iterator<Item = &Snapshot> {
        self.studies.iter().zip(&self.is_deleted).filter(|(_, deleted)| !**deleted).map(|(it, _)| it)
    }

    /// The study of an id, unless it was deleted.
    pub(crate) fn study(&self, id: usize) -> Option<&Snapshot> {
        self.studies.get(id).filter(|_| !self.is_deleted[id])
    }

    /// The study of an id that was given out, even if it was deleted since.
    pub(crate) fn study_or_deleted(&self, id: usize) -> &Snapshot {
        &self.studies[id]
    }

    /// The id of the study of a name.
    pub(crate) fn study_id(&self, name: &str) -> Option<usize> {
        (0..self.studies.len()).find(|&it| self.study(it).is_some_and(|study| study.name == name))
    }

    /// The id that the next study gets.
    pub(crate) fn next_study(&self) -> usize {
        self.studies.len()
    }

    /// The id that the next trial gets.
    pub(crate) fn next_trial(&self) -> usize {
        self.trials.len()
    }

    /// The id of a study's trial.
    pub(crate) fn trial_id(&self, study: usize, number: usize) -> Option<usize> {
        self.study(study)?;
        self.trials.iter().position(|it| it.study == study && it.number == number)
    }

    /// The numbers of a study's trials that processes of ours asked.
    pub(crate) fn ours(&self, study: usize) -> impl Iterator<Item = usize> {
        self.trials.iter().filter(move |it| it.study == study && it.is_ours).map(|it| it.number)
    }

    /// Applies one operation, or passes over it.
    pub(super) fn apply(&mut self, record: Record, is_ours: bool) {
        match record.operation {
            Operation::CreateStudy { name, goals } => {
                if self.study_id(&name).is_none() {
                    self.studies.push(Snapshot::new(name, goals));
                    self.is_deleted.push(false);
                }
            }
            Operation::DeleteStudy { study } => {
                if let Some(deleted) = self.is_deleted.get_mut(study) {
                    *deleted = true;
                }
            }
            Operation::SetStudyAttribute { study, owner, key, value } => {
                if let Some(study) = self.living_study(study) {
                    attributes(owner, &mut study.user_attrs, &mut study.system_attrs).insert(key, value);
                }
            }
            Operation::CreateTrial { study: id, mut trial } => {
                let Some(study) = self.living_study(id) else { return };
                trial.number = study.trials.len();
                let number = trial.number;
                study.trials.push(*trial);
                self.trials.push(Place { study: id, number, is_ours });
            }
            Operation::SetParameter { trial, parameter, value } => {
                let Some(&Place { study, .. }) = self.trials.get(trial) else { return };
                let earlier = self.studies[study]
                    .trials
                    .iter()
                    .find_map(|it| it.assignment.distribution(&parameter.name));
                if earlier.is_some_and(|it| !it.is_compatible(&parameter.distribution)) {
                    return;
                }
                if let Some(trial) = self.unfinished_trial(trial) {
                    trial.assignment.set(parameter, value);
                }
            }
            Operation::SetState { trial, state, values, time } => {
                let Some(trial) = self.unfinished_trial(trial) else { return };
                if state == TrialState::Running && trial.state == TrialState::Running {
                    return;
                }
                trial.state = state;
                match state {
                    TrialState::Running => trial.start = time,
                    it if it.is_finished() => trial.complete = time,
                    _ => {}
                }
                if values.is_some() {
                    trial.values = values;
                }
            }
            Operation::SetIntermediateValue { trial, step, value } => {
                if let Some(trial) = self.unfinished_trial(trial) {
                    trial.intermediate_values.insert(step, value);
                }
            }
            Operation::SetTrialAttribute { trial, owner, key, value } => {
                if let Some(trial) = self.unfinished_trial(trial) {
                    attributes(owner, &mut trial.user_attrs, &mut trial.system_attrs).insert(key, value);
                }
            }
            Operation::Discard => {}
        }
    }

    fn living_study(&mut self, id: usize) -> Option<&mut Snapshot> {
        self.studies.get_mut(id).filter(|_| !self.is_deleted[id])
    }

    /// A trial that can still change. Its study may be deleted: ids go on being counted.
    fn unfinished_trial(&mut self, id: usize) -> Option<&mut Trial> {
        let &Place { study, number, .. } = self.trials.get(id)?;
        Some(&mut self.studies[study].trials[number]).filter(|it| !it.state.is_finished())
    }
}

fn attributes<'a>(owner: Owner, user: &'a mut Attributes, system: &'a mut Attributes) -> &'a mut Attributes {
    match owner {
        Owner::User => user,
        Owner::System => system,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these lines add up to; each is given without its braces and worker.
    fn replay(lines: &[&str]) -> Replay {
        let mut replay = Replay::default();
        for line in lines {
            let line = format!("{{\"worker_id\":\"w\",{line}}}");
            replay.apply(Record::parse(line.as_bytes()).unwrap(), true);
        }
        replay
    }

    const STUDY: &str = r#""op_code":0,"study_name":"a","directions":[1]"#;
    const TRIAL: &str = r#""op_code":4,"study_id":0,"datetime_start":null"#;

    fn parameter(trial: usize, distribution: &str) -> String {
        let text = serde_json::Value::from(distribution);
        format!(
            r#""op_code":5,"trial_id":{trial},"param_name":"x","param_value_internal":1.0,"distribution":{text}"#
        )
    }

    fn told(trial: usize, value: f64) -> String {
        let time = "2026-01-01T00:00:00.000000";
        format!(
            r#""op_code":6,"trial_id":{trial},"state":1,"values":[{value:?}],"datetime_complete":"{time}""#
        )
    }

    #[test]
    fn a_taken_study_name_is_passed_over_and_counts_for_nothing() {
        let second = r#""op_code":0,"study_name":"b","directions":[2]"#;
        let replay = replay(&[STUDY, STUDY, second]);
        assert_eq!(replay.study_id("b"), Some(1));
        assert_eq!(replay.studies().count(), 2);
    }

    #[test]
    fn trial_ids_count_over_all_studies_and_numbers_within_one() {
        let second = r#""op_code":0,"study_name":"b","directions":[2]"#;
        let other = r#""op_code":4,"study_id":1,"datetime_start":null"#;
        let replay = replay(&[STUDY, second, TRIAL, other, TRIAL]);
        assert_eq!(replay.trial_id(0, 1), Some(2));
        assert_eq!(replay.trial_id(1, 0), Some(1));
        assert_eq!(replay.trial_id(1, 1), None);
    }

    #[test]
    fn a_trial_of_a_study_that_does_not_exist_is_not_counted() {
        let replay = replay(&[STUDY, r#""op_code":4,"study_id":9,"datetime_start":null"#, TRIAL]);
        assert_eq!(replay.trial_id(0, 0), Some(0));
        assert_eq!(replay.next_trial(), 1);
    }

    #[test]
    fn records_about_what_does_not_exist_are_passed_over() {
        let attribute = r#""op_code":2,"study_id":5,"user_attr":{"a":1}"#;
        let note = r#""op_code":8,"trial_id":5,"user_attr":{"a":1}"#;
        let replay = replay(&[STUDY, TRIAL, attribute, note, &told(7, 1.0), r#""op_code":1,"study_id":4"#]);
        assert_eq!(replay.study(0).unwrap().trials[0].state, TrialState::Running);
    }

    #[test]
    fn a_finished_trial_does_not_change_any_more() {
        let float = r#"{"name":"FloatDistribution","attributes":{"low":0.0,"high":1.0}}"#;
        let note = r#""op_code":8,"trial_id":0,"user_attr":{"a":1}"#;
        let step = r#""op_code":7,"trial_id":0,"step":1,"intermediate_value":1.0"#;
        let replay = replay(&[STUDY, TRIAL, &told(0, 1.0), &told(0, 2.0), note, step, &parameter(0, float)]);
        let trial = &replay.study(0).unwrap().trials[0];
        assert_eq!(trial.values, Some(vec![1.0]));
        assert!(
            trial.user_attrs.is_empty()
                && trial.assignment.is_empty()
                && trial.intermediate_values.is_empty()
        );
    }

    #[test]
    fn a_parameter_that_does_not_go_with_an_earlier_one_is_passed_over() {
        let float = r#"{"name":"FloatDistribution","attributes":{"low":0.0,"high":1.0}}"#;
        let wider = r#"{"name":"FloatDistribution","attributes":{"low":0.0,"high":9.0}}"#;
        let log = r#"{"name":"FloatDistribution","attributes":{"low":0.5,"high":9.0,"log":true}}"#;
        let int = r#"{"name":"IntDistribution","attributes":{"low":0,"high":9}}"#;
        let lines = [
            STUDY,
            TRIAL,
            TRIAL,
            TRIAL,
            TRIAL,
            &parameter(0, float),
            &parameter(1, wider),
            &parameter(2, log),
            &parameter(3, int),
        ];
        let trials = &replay(&lines).studies[0].trials;
        assert_eq!([0, 1, 2, 3].map(|it: usize| trials[it].assignment.len()), [1, 1, 0, 0]);
    }

    #[test]
    fn the_first_claim_of_a_waiting_trial_holds() {
        let waiting = r#""op_code":4,"study_id":0,"datetime_start":null,"state":4"#;
        let claim = |minute: u8| {
            let time = format!("2026-01-01T00:0{minute}:00");
            format!(r#""op_code":6,"trial_id":0,"state":0,"values":null,"datetime_start":"{time}""#)
        };
        let replay = replay(&[STUDY, waiting, &claim(1), &claim(2)]);
        let trial = &replay.study(0).unwrap().trials[0];
        assert_eq!(trial.state, TrialState::Running);
        assert_eq!(trial.start, "2026-01-01T00:01:00".parse().ok());
    }

    #[test]
    fn a_deleted_study_is_gone_but_its_ids_stay_taken() {
        let delete = r#""op_code":1,"study_id":0"#;
        let again = r#""op_code":4,"study_id":1,"datetime_start":null"#;
        let replay = replay(&[STUDY, TRIAL, delete, TRIAL, STUDY, again, &told(1, 5.0)]);
        assert_eq!(replay.study_id("a"), Some(1));
        assert_eq!(replay.trial_id(0, 0), None);
        assert_eq!(replay.study(1).unwrap().trials[0].values, Some(vec![5.0]));
        assert_eq!(replay.studies().count(), 1);
    }

    #[test]
    fn what_only_optunas_rust_port_writes_is_passed_over() {
        assert_eq!(replay(&[STUDY, r#""op_code":10"#, TRIAL]).study(0).unwrap().trials.len(), 1);
    }
}
