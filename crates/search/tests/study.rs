//! A study seen from outside.

use search::samplers::{Random, Tpe};
use search::{
    Attributes, Distribution, Objective, Outcome, Parameter, Request, Sampler, Search, Space, Study,
    StudyError, TrialState,
};
use serde_json::json;

fn space() -> Space {
    Space::new(vec![Parameter::new("x", Distribution::float(0.0, 1.0))]).unwrap()
}

fn objectives() -> [Objective; 2] {
    [Objective::minimize("cost"), Objective::maximize("taste")]
}

fn told(study: &mut Study, search: &Search<'_>, values: [f64; 2]) -> usize {
    let number = study.ask(search).unwrap().number;
    study.tell(number, &values, Attributes::new()).unwrap();
    number
}

#[test]
fn a_study_remembers_what_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    let space = space();
    let search = Search { sampler: &Random, space: &space, seed: 3, batch: 1 };
    let mut study = Study::open(&path, "s", &objectives()).unwrap();
    study.set_user_attr("settings", json!({"beans": 7})).unwrap();
    let number = study.ask(&search).unwrap().number;
    study.set_trial_user_attr(number, "early", true).unwrap();
    let notes = Attributes::from_iter([("late".to_owned(), json!([1, null]))]);
    study.tell(number, &[0.1 + 0.2, -1.0 / 3.0], notes).unwrap();
    let failed = study.ask(&search).unwrap().number;
    study.fail(failed).unwrap();
    study.ask(&search).unwrap();

    let loaded = Study::load(&path, Some("s")).unwrap();
    assert_eq!(&loaded, study.snapshot());
    assert_eq!(loaded.objectives(), objectives());
    assert_eq!(loaded.user_attrs["settings"], json!({"beans": 7}));
    assert_eq!(loaded.trials[0].values, Some(vec![0.1 + 0.2, -1.0 / 3.0]));
    assert_eq!(
        loaded.trials[0].user_attrs,
        Attributes::from_iter([("early".into(), json!(true)), ("late".into(), json!([1, null]))])
    );
    let states: Vec<TrialState> = loaded.trials.iter().map(|it| it.state).collect();
    assert_eq!(states, [TrialState::Complete, TrialState::Failed, TrialState::Running]);
    assert!(loaded.trials[0].start <= loaded.trials[0].complete);
}

#[test]
fn in_memory_and_in_a_file_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let space = space();
    let sampler = Tpe { n_startup_trials: 4, ..Tpe::default() };
    let search = Search { sampler: &sampler, space: &space, seed: 3, batch: 2 };
    let mut studies = [
        Study::open(folder.path().join("study.jsonl"), "s", &objectives()).unwrap(),
        Study::in_memory("s", &objectives()).unwrap(),
    ];
    for study in &mut studies {
        while study.trials().len() < 12 {
            for trial in study.ask_batch(&search, 12).unwrap() {
                let x = trial.assignment.float("x").unwrap();
                study.tell(trial.number, &[x * x, x], Attributes::new()).unwrap();
            }
        }
    }
    let essence = |it: &Study| {
        it.trials().iter().map(|it| (it.assignment.clone(), it.values.clone())).collect::<Vec<_>>()
    };
    assert_eq!(essence(&studies[0]), essence(&studies[1]));
}

#[test]
fn other_objectives_are_refused_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    drop(Study::open(&path, "s", &objectives()).unwrap());
    let others = [Objective::minimize("cost"), Objective::minimize("taste")];
    let error = Study::open(&path, "s", &others).unwrap_err().to_string();
    assert!(error.starts_with("study `s` has the objectives `minimize cost`, `maximize taste`, not `minimize cost`, `minimize taste`"), "{error}");
    let renamed = [Objective::minimize("price"), Objective::maximize("taste")];
    assert!(matches!(Study::open(&path, "s", &renamed), Err(StudyError::Objectives { .. })));
    assert!(matches!(Study::open(&path, "t", &[]), Err(StudyError::NoObjectives { .. })));
    // Another study in the same file may have others.
    Study::open(&path, "t", &others).unwrap();
}

#[test]
fn values_that_are_not_finite_are_refused_with_the_objectives_name() {
    let mut study = Study::in_memory("s", &objectives()).unwrap();
    let space = space();
    let search = Search { sampler: &Random, space: &space, seed: 3, batch: 1 };
    study.ask(&search).unwrap();
    let error = study.tell(0, &[1.0, f64::NAN], Attributes::new()).unwrap_err().to_string();
    assert!(error.starts_with("trial 0: objective `taste` is `NaN`, not a finite number"), "{error}");
    let error = study.tell(0, &[1.0], Attributes::new()).unwrap_err();
    assert!(matches!(error, StudyError::ValueCount { number: 0, expected: 2, found: 1 }));
    assert_eq!(study.trials()[0].state, TrialState::Running);
}

#[test]
fn only_running_trials_can_be_told() {
    let mut study = Study::in_memory("s", &objectives()).unwrap();
    let space = space();
    let search = Search { sampler: &Random, space: &space, seed: 3, batch: 1 };
    told(&mut study, &search, [1.0, 1.0]);
    let error = study.tell(0, &[1.0, 1.0], Attributes::new()).unwrap_err().to_string();
    assert_eq!(error, "trial 0 is complete, not running");
    let error = study.fail(1).unwrap_err().to_string();
    assert_eq!(error, "trial 1 does not exist; the study has 1 trials");
}

#[test]
fn batches_end_at_multiples_of_their_size() {
    let mut study = Study::in_memory("s", &objectives()).unwrap();
    let space = space();
    let search = Search { sampler: &Random, space: &space, seed: 3, batch: 4 };
    study.ask(&search).unwrap();
    let numbers = |it: Vec<search::Trial>| it.iter().map(|it| it.number).collect::<Vec<_>>();
    assert_eq!(numbers(study.ask_batch(&search, 100).unwrap()), [1, 2, 3]);
    assert_eq!(numbers(study.ask_batch(&search, 6).unwrap()), [4, 5]);
    assert_eq!(numbers(study.ask_batch(&search, 6).unwrap()), Vec::<usize>::new());
    assert_eq!(numbers(study.ask_batch(&search, 100).unwrap()), [6, 7]);
    assert_eq!(numbers(study.running(&search).unwrap()), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Writes down what it is shown instead of deciding.
struct Witness(std::sync::Mutex<Vec<Vec<(usize, &'static str)>>>);

impl Sampler for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn propose(&self, request: &Request<'_>) -> search::Assignment {
        let outcome = |it: &Outcome<'_>| match it {
            Outcome::Complete { .. } => "complete",
            Outcome::Pruned => "pruned",
            Outcome::Pending => "pending",
        };
        self.0
            .lock()
            .unwrap()
            .push(request.history.iter().map(|it| (it.number, outcome(&it.outcome))).collect());
        Random.propose(request)
    }
}

#[test]
fn a_sampler_sees_batch_mates_as_pending_and_failed_trials_not_at_all() {
    let witness = Witness(std::sync::Mutex::default());
    let space = space();
    let search = Search { sampler: &witness, space: &space, seed: 3, batch: 2 };
    let mut study = Study::in_memory("s", &objectives()).unwrap();
    told(&mut study, &search, [1.0, 1.0]);
    // The second of the batch does not see that the first was told.
    let second = study.ask(&search).unwrap().number;
    study.fail(second).unwrap();
    study.ask(&search).unwrap();
    let seen = witness.0.into_inner().unwrap();
    assert_eq!(seen, [vec![], vec![(0, "pending")], vec![(0, "complete")]]);
}

#[test]
fn the_front_and_its_hypervolume_grow() {
    let mut study = Study::in_memory("s", &objectives()).unwrap();
    let space = space();
    let search = Search { sampler: &Random, space: &space, seed: 3, batch: 1 };
    for values in [[2.0, 1.0], [1.0, 0.5], [3.0, 0.5], [2.0, 2.0]] {
        told(&mut study, &search, values);
    }
    let front: Vec<usize> = study.front().iter().map(|it| it.number).collect();
    assert_eq!(front, [1, 3]);
    let sorted: Vec<usize> = study.snapshot().sorted_front().iter().map(|it| it.number).collect();
    assert_eq!(sorted, [1, 3], "the cheaper one first");
    // Reference: cost 4, taste 0. (2, 1) reaches 2 × 1; (1, 0.5) adds 1 × 0.5; (2, 2) adds 2 × 1.
    let growth = study.snapshot().growth(&[4.0, 0.0]).unwrap();
    assert_eq!(growth, [(0, 2.0), (1, 2.5), (3, 4.5)]);
    assert_eq!(study.snapshot().hypervolume(&[4.0, 0.0]), Some(4.5));
    assert_eq!(study.snapshot().hypervolume(&[4.0]), None);
}

#[test]
fn a_study_deleted_by_another_program_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    let mut study = Study::open(&path, "s", &objectives()).unwrap();
    let delete = "{\"op_code\":1,\"worker_id\":\"someone\",\"study_id\":0}\n";
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, delete.as_bytes()).unwrap();
    let error = study.set_user_attr("a", 1).unwrap_err().to_string();
    assert_eq!(error, "study `s` was deleted while it was in use");
}

#[test]
fn running_trials_of_other_programs_are_left_to_them_but_not_proposed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    let witness = Witness(std::sync::Mutex::default());
    let space = space();
    let search = Search { sampler: &witness, space: &space, seed: 3, batch: 1 };
    let mut study = Study::open(&path, "s", &objectives()).unwrap();
    let theirs = "{\"op_code\":4,\"worker_id\":\"someone\",\"study_id\":0,\"datetime_start\":null}\n";
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, theirs.as_bytes()).unwrap();
    assert_eq!(study.running(&search).unwrap(), []);
    assert_eq!(study.ask(&search).unwrap().number, 1);
    assert_eq!(study.running(&search).unwrap().len(), 1);
    assert_eq!(witness.0.into_inner().unwrap(), [vec![(0, "pending")]]);
}
