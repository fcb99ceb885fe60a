//! Journals written by Python Optuna (`tools/optuna_golden.py`) are read as Python reads them.

use std::path::PathBuf;

use search::{Goal, Trial, TrialState, journal};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

/// A float as the script writes it: a string if it is not finite.
fn number(value: f64) -> Value {
    match value {
        it if it.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        it => it.into(),
    }
}

fn state(state: TrialState) -> &'static str {
    match state {
        TrialState::Running => "RUNNING",
        TrialState::Complete => "COMPLETE",
        TrialState::Pruned => "PRUNED",
        TrialState::Failed => "FAIL",
        TrialState::Waiting => "WAITING",
    }
}

/// A trial in the script's form.
fn described(trial: &Trial) -> Value {
    let params: serde_json::Map<String, Value> = trial
        .assignment
        .iter()
        .map(|(it, _)| (it.name.clone(), trial.assignment.external(&it.name).unwrap()))
        .collect();
    let intermediate: serde_json::Map<String, Value> =
        trial.intermediate_values.iter().map(|(step, it)| (step.to_string(), number(*it))).collect();
    let time =
        |it: Option<jiff::civil::DateTime>| it.map(|it| it.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string());
    json!({
        "number": trial.number,
        "state": state(trial.state),
        "params": params,
        "values": trial.values.as_ref().map(|it| it.iter().copied().map(number).collect::<Vec<_>>()),
        "user_attrs": trial.user_attrs,
        "intermediate": intermediate,
        "start": time(trial.start),
        "complete": time(trial.complete),
    })
}

fn reads_as_python_does(name: &str) {
    let replay = journal::load(golden(&format!("{name}.jsonl"))).unwrap();
    let text = std::fs::read_to_string(golden(&format!("{name}.expected.json"))).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(replay.studies().count(), expected.len());
    for expected in &expected {
        let study = replay.studies().find(|it| expected["name"] == *it.name).unwrap();
        let goal = |it: &Goal| if *it == Goal::Minimize { "MINIMIZE" } else { "MAXIMIZE" };
        let directions: Vec<&str> = study.goals.iter().map(goal).collect();
        assert_eq!(expected["directions"], json!(directions), "{}", study.name);
        assert_eq!(expected["metric_names"], json!(study.metric_names()), "{}", study.name);
        assert_eq!(expected["user_attrs"], Value::Object(study.user_attrs.clone()), "{}", study.name);
        if !expected["front"].is_null() {
            let front: Vec<usize> = study.front().iter().map(|it| it.number).collect();
            assert_eq!(expected["front"], json!(front), "{}", study.name);
        }
        let trials = expected["trials"].as_array().unwrap();
        assert_eq!(study.trials.len(), trials.len(), "{}", study.name);
        for (trial, expected) in study.trials.iter().zip(trials) {
            assert_eq!(&described(trial), expected, "study {} trial {}", study.name, trial.number);
        }
    }
}

#[test]
fn every_kind_of_record_is_read_as_python_reads_it() {
    reads_as_python_does("optuna");
}

#[test]
fn a_study_of_heretics_is_read_as_python_reads_it() {
    reads_as_python_does("single_file");
}

#[test]
fn the_only_study_of_a_file_needs_no_name() {
    let study = search::Study::load(golden("single_file.jsonl"), None).unwrap();
    assert_eq!(study.name, "heretic");
    let error = search::Study::load(golden("optuna.jsonl"), None).unwrap_err().to_string();
    assert!(error.contains("holds 3 studies"), "{error}");
    let error = search::Study::load(golden("optuna.jsonl"), Some("cocoa")).unwrap_err().to_string();
    assert!(error.contains("no study `cocoa`") && error.contains("water"), "{error}");
}

#[test]
fn a_study_of_heretics_can_be_continued() {
    use search::samplers::Tpe;
    use search::{Attributes, Objective, Parameter, Search, Space, Study};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.jsonl");
    std::fs::copy(golden("single_file.jsonl"), &path).unwrap();
    let objectives = [Objective::minimize("KL divergence"), Objective::minimize("refusals")];
    let mut study = Study::open(&path, "heretic", &objectives).unwrap();
    let parameters: Vec<Parameter> = study.trials()[0].assignment.iter().map(|(it, _)| it.clone()).collect();
    let space = Space::new(parameters).unwrap();
    let sampler = Tpe { n_startup_trials: 3, n_ei_candidates: 8, ..Tpe::default() };
    let search = Search { sampler: &sampler, space: &space, seed: 1, batch: 1 };
    let trial = study.ask(&search).unwrap();
    assert_eq!(trial.number, 6);
    study.tell(6, &[0.1, 0.2], Attributes::new()).unwrap();
    assert_eq!(Study::load(&path, None).unwrap().trials.len(), 7);
}
