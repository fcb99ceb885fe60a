//! The whole job, as a user runs it, on the toy model whose truth is known: it refuses every question about some
//! made-up topics although it knows the answers, and no question about others (`demo/README.md`).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const SETS: [&str; 8] = [
    "--good-prompts",
    "embedded:demo-answered-train",
    "--bad-prompts",
    "embedded:demo-refused-train",
    "--refusal-prompts",
    "embedded:demo-refused-eval[:32]",
    "--kl-prompts",
    "embedded:demo-answered-eval[:32]",
];

/// What makes runs short: answers of the toy are a sentence or two, and nothing has to be measured.
const SHORT: [&str; 6] = ["--max-response-length", "32", "--batch-size", "64", "--response-prefix", ""];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
    // No test asks the network.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "no/such/cache");
    command
}

fn ablate(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails with everything that the program said.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn failed(output: &Output) -> String {
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn toy() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    folder.to_str().unwrap().to_owned()
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn events(output: &str) -> Vec<Value> {
    output.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

fn score<'a>(of: &'a Value, name: &str) -> &'a Value {
    of["scores"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()
}

/// Scores of the model that parameters make of the toy.
fn evaluate(parameters: &Value, more: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "parameters.json");
    std::fs::write(&file, parameters.to_string()).unwrap();
    let toy = toy();
    let mut arguments = vec!["evaluate", &toy, "--parameters", &file, "--json"];
    arguments.extend(SETS);
    arguments.extend(SHORT);
    arguments.extend(more);
    serde_json::from_str(&succeeded(&ablate(&arguments))).unwrap()
}

/// The same strength at every writer.
fn everywhere(strength: f64) -> Value {
    let profile = json!({
        "max_weight": strength, "max_weight_position": 3.0, "min_weight": strength, "min_weight_distance": 100.0,
    });
    json!({
        "direction_index": null,
        "abliteration_parameters": {"attn.o_proj": profile, "mlp.down_proj": profile},
    })
}

#[test]
fn the_demo_ends_refusals_and_writes_a_model_that_scores_as_its_trial_did() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(&folder, "demo");
    let output = succeeded(&ablate(&["demo", "--out", &out, "--trials", "30", "--json"]));
    let events = events(&output);
    let baseline = events.iter().find(|it| it["event"] == "baseline").unwrap();
    assert_eq!(score(baseline, "refusals")["value"], 1.0, "the toy refuses all");
    assert_eq!(events.iter().filter(|it| it["event"] == "trial").count(), 30);
    let chosen = events.iter().find(|it| it["event"] == "chosen").unwrap();
    let (refusals, divergence) = (score(chosen, "refusals"), score(chosen, "kl_divergence"));
    assert_eq!(refusals["value"], 0.0, "{refusals}");
    assert!(divergence["value"].as_f64().unwrap() < 0.05, "{divergence}");

    let edited = format!("{out}/edited");
    assert!(std::fs::read_to_string(format!("{edited}/README.md")).unwrap().contains("direction_index"));
    let model = format!("{out}/model");
    let mut arguments =
        vec!["evaluate", &edited, "--against", &model, "--json", "--max-response-length", "32"];
    arguments.extend(["--refusal-prompts", "embedded:demo-refused-eval"]);
    arguments.extend(["--kl-prompts", "embedded:demo-answered-eval"]);
    let written: Value = serde_json::from_str(&succeeded(&ablate(&arguments))).unwrap();
    assert_eq!(score(&written, "refusals")["details"]["count"], refusals["details"]["count"]);
    let again = score(&written, "kl_divergence")["value"].as_f64().unwrap();
    // The edit is exact; what differs is the rounding of the written weights to 16 bits.
    assert!((again - divergence["value"].as_f64().unwrap()).abs() < 1e-3, "{again} {divergence}");

    let question = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/prompts/refused_eval.txt"),
    );
    let question = question.unwrap().lines().next().unwrap().to_owned();
    let answer =
        |model: &str| succeeded(&ablate(&["generate", model, "--prompt", &question, "--max-tokens", "32"]));
    assert_ne!(answer(&model), answer(&edited));
}

#[test]
fn fixed_parameters_score_as_explicit_weights_do_in_the_reference_stack() {
    // `tools/reference_evaluate.py` on the first 32 evaluation prompts. A wrong sign, layer, writer or order of the
    // divergence is off by far more than this.
    let golden: Vec<Value> = serde_json::from_str(include_str!("golden/evaluate.json")).unwrap();
    assert_eq!(golden.len(), 6);
    for case in golden {
        let mode = case["row_normalization"].as_str().unwrap();
        let scores = evaluate(&case["parameters"], &["--row-normalization", mode]);
        let (refusals, divergence) = (score(&scores, "refusals"), score(&scores, "kl_divergence"));
        let (found, expected) =
            (divergence["value"].as_f64().unwrap(), case["kl_divergence"].as_f64().unwrap());
        assert!((found / expected - 1.0).abs() < 1e-3, "{mode}: {found} instead of {expected}");
        let largest = divergence["details"]["max"].as_f64().unwrap();
        assert!((largest / case["largest"].as_f64().unwrap() - 1.0).abs() < 1e-3, "{mode}: {largest}");
        assert_eq!(refusals["details"]["count"], case["refusals"], "{mode}");
        assert_eq!(refusals["details"]["total"], 32);
        assert_eq!(refusals["baseline"], case["original_refusals"].as_f64().unwrap() / 32.0, "{mode}");
    }
}

#[test]
fn prompts_that_no_scorer_asks_for_need_not_be_given() {
    let (toy, folder) = (toy(), tempfile::tempdir().unwrap());
    let file = path(&folder, "bad.txt");
    std::fs::write(&file, "What does the dunbem elixir do?\nWhere is the wexbem elixir brewed?\n").unwrap();
    let mut arguments = vec!["evaluate", &toy, "--against", &toy, "--refusal-prompts", &file, "--scorer"];
    arguments.extend(["refusals", "--json", "--max-response-length", "16", "--max-batch-size", "4"]);
    let output = ablate(&arguments);
    let evaluation: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(score(&evaluation, "refusals")["details"]["total"], 2);
    // The prompts for scores stand in where there are none for directions, but what refusals begin with is no prefix.
    assert!(text(&output.stderr).contains("batch of 1: "), "{}", text(&output.stderr));
    assert_eq!(evaluation["calibration"]["response_prefix"], "");
    assert_eq!(score(&evaluation, "refusals")["details"]["count"], 2);
}

#[test]
fn nothing_taken_out_is_the_original() {
    let scores = evaluate(&everywhere(0.0), &[]);
    for name in ["kl_divergence", "sequence_kl", "flip_rate", "false_refusals", "degenerate_answers"] {
        assert_eq!(score(&scores, name)["value"], 0.0, "{name}");
    }
    assert_eq!(score(&scores, "refusals")["value"], score(&scores, "refusals")["baseline"]);
}

#[test]
fn too_much_taken_out_is_seen_as_damage() {
    let (some, much) = (evaluate(&everywhere(1.0), &[]), evaluate(&everywhere(5.0), &[]));
    assert_eq!(score(&some, "degenerate_answers")["value"], 0.0);
    let value = |of: &Value, name: &str| score(of, name)["value"].as_f64().unwrap();
    assert!(value(&much, "degenerate_answers") > 0.1, "{}", score(&much, "degenerate_answers"));
    for name in ["kl_divergence", "sequence_kl", "flip_rate"] {
        assert!(value(&much, name) > 3.0 * value(&some, name), "{name}");
    }
}

#[test]
fn false_refusals_are_counted_and_their_penalty_is_in_the_objective() {
    // The direction put in rather than taken out: questions that the toy answered are refused.
    let weight = "2.5";
    let more = ["--detect-false-refusals", "--false-refusal-weight", weight];
    let scores = evaluate(&everywhere(-2.0), &more);
    let refused = &score(&scores, "false_refusals")["details"]["count"];
    let divergence = score(&scores, "kl_divergence");
    assert_eq!(&divergence["details"]["false_refusals"], refused);
    let refused = refused.as_f64().unwrap();
    assert!(refused > 3.0, "{scores}");
    let objective = scores["objectives"].as_array().unwrap().iter().find(|it| it["name"] == "kl_divergence");
    let expected = divergence["value"].as_f64().unwrap() + 2.5 * refused / 32.0;
    assert!((objective.unwrap()["value"].as_f64().unwrap() - expected).abs() < 1e-12, "{scores}");
}

/// A run whose trials are told in events.
fn run_arguments<'a>(toy: &'a str, study: &'a str, trials: &'a str, parallel: &'a str) -> Vec<&'a str> {
    let mut arguments =
        vec!["run", toy, "--study", study, "--trials", trials, "--startup-trials", "6", "--seed"];
    arguments.extend(["3", "--parallel-trials", parallel, "--json"]);
    arguments.extend(SETS);
    arguments.extend(SHORT);
    arguments
}

/// Number, state, values and parameters of all trials.
fn trials(study: &str) -> Vec<Value> {
    let shown: Value =
        serde_json::from_str(&succeeded(&ablate(&["study", "show", study, "--json"]))).unwrap();
    let trials = shown["trials"].as_array().unwrap().iter();
    trials.map(|it| json!([it["number"], it["state"], it["values"], it["parameters"]])).collect()
}

/// Kills a run as soon as it has told so many trials.
fn kill_after(mut child: Child, told: usize) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter(|it| it.contains(r#""event":"trial""#)).take(told).for_each(drop);
    child.kill().unwrap(); // SIGKILL where there are signals
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_like_one_that_was_not() {
    let toy = toy();
    for parallel in ["1", "4"] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, killed) = (path(&folder, "whole.jsonl"), path(&folder, "killed.jsonl"));
        succeeded(&ablate(&run_arguments(&toy, &whole, "14", parallel)));
        for told in [1, 0, 3, 2] {
            let mut child = command(&run_arguments(&toy, &killed, "14", parallel));
            kill_after(child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap(), told);
        }
        succeeded(&ablate(&run_arguments(&toy, &killed, "14", parallel)));
        let (whole, killed) = (trials(&whole), trials(&killed));
        assert_eq!(whole.len(), 14);
        for (whole, killed) in whole.iter().zip(&killed) {
            assert_eq!(whole, killed, "{parallel} together");
        }
        assert_eq!(killed.len(), 14);
    }
}

#[test]
fn goals_are_in_the_study_in_the_order_of_the_scorers() {
    let (toy, folder) = (toy(), tempfile::tempdir().unwrap());
    for scorers in
        [["kl_divergence:minimize", "refusals:maximize"], ["refusals:minimize", "kl_divergence:maximize"]]
    {
        let study = path(&folder, scorers[0].split(':').next().unwrap());
        let mut arguments = run_arguments(&toy, &study, "2", "1");
        arguments.extend(["--scorer", scorers[0], "--scorer", "flip_rate:none", "--scorer", scorers[1]]);
        let output = succeeded(&ablate(&arguments));
        let shown: Value =
            serde_json::from_str(&succeeded(&ablate(&["study", "show", &study, "--json"]))).unwrap();
        let named: Vec<String> = shown["objectives"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| format!("{}:{}", it["name"].as_str().unwrap(), it["goal"].as_str().unwrap()))
            .collect();
        assert_eq!(named, scorers);
        for trial in events(&output).iter().filter(|it| it["event"] == "trial") {
            let number = trial["number"].as_u64().unwrap() as usize;
            for (place, scorer) in scorers.iter().enumerate() {
                let value = &score(trial, scorer.split(':').next().unwrap())["value"];
                assert_eq!(&shown["trials"][number]["values"][place], value, "{scorer}");
            }
        }
    }
}

#[test]
fn a_study_goes_on_with_more_trials_and_its_own_settings() {
    let (toy, folder) = (toy(), tempfile::tempdir().unwrap());
    let (study, once) = (path(&folder, "study.jsonl"), path(&folder, "once.jsonl"));
    succeeded(&ablate(&run_arguments(&toy, &study, "4", "1")));
    // The seed of the environment counts less than that of the command.
    let arguments = run_arguments(&toy, &study, "9", "1");
    succeeded(&command(&arguments).env("ABLATE_SEED", "8").output().unwrap());
    succeeded(&ablate(&run_arguments(&toy, &once, "9", "1")));
    assert_eq!(trials(&study), trials(&once));

    let mut arguments = run_arguments(&toy, &study, "2", "1");
    arguments.extend(["--checkpoint-action", "restart"]);
    succeeded(&ablate(&arguments));
    assert_eq!(trials(&study).len(), 2);
    assert_eq!(trials(&format!("{study}.old")).len(), 9);
}

#[test]
fn what_cannot_work_is_said_before_the_work_begins() {
    let (toy, folder) = (toy(), tempfile::tempdir().unwrap());
    let study = path(&folder, "study.jsonl");
    let ends = |code: i32, more: &[&str], expected: &str| {
        let mut arguments = run_arguments(&toy, &study, "2", "1");
        arguments.extend(more);
        let output = ablate(&arguments);
        let said = failed(&output);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("panicked") && !said.contains("loaded in"), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    };
    // What cannot be understood ends as the parser of arguments ends.
    let fails = |more: &[&str], expected: &str| ends(2, more, expected);
    fails(&["--save", &path(&folder, "new")], "--pick");
    fails(&["--scorer", "charm"], "unknown scorer `charm`");
    fails(&["--scorer", "perplexity:none"], "the setting `text` is required");
    fails(&["--scorer", "refusals:none"], "no scorer has a goal");
    fails(&["--sampler", "oracle"], "`sampler` is `oracle`, expected one of tpe");
    fails(&["--trials", "0"], "expected a whole number, at least 1");
    fails(&["--trials", "many"], "expected a whole number");
    fails(&["--pick", "best"], "expected `min` or `max` first");
    fails(&["--pick", "min charm"], "no score is called `charm`");
    let fails = |more: &[&str], expected: &str| ends(1, more, expected);
    let taken = path(&folder, "taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(PathBuf::from(&taken).join("file"), "").unwrap();
    fails(&["--save", &taken, "--pick", "min kl"], "exists already");
    let output = ablate(&["run", &toy, "--good-prompts", "embedded:demo-answered-train"]);
    assert!(failed(&output).contains("bad_prompts"), "{}", failed(&output));
    let said = failed(&ablate(&["run", &toy, "--good-prompts", "no/such/file.txt"]));
    assert!(said.contains("no/such/file.txt"), "{said}");
}
