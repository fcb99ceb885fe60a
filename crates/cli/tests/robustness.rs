//! What happens to a study, and to a model that is being saved, when the system gives out: the real program on the toy
//! model of `demo/README.md`.

#![cfg(unix)]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A run of the toy with a study in this folder.
fn arguments(study: &Path, trials: &str) -> Vec<String> {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let mut arguments =
        ["run", toy.to_str().unwrap(), "--study", study.to_str().unwrap(), "--trials", trials, "--json"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend(
        "--good-prompts embedded:demo-answered-train --bad-prompts embedded:demo-refused-train \
         --refusal-prompts embedded:demo-refused-eval[:32] --kl-prompts embedded:demo-answered-eval[:32] \
         --max-response-length 32 --batch-size 64 --response-prefix= --startup-trials 6 --seed 3"
            .split_whitespace()
            .map(str::to_owned),
    );
    arguments
}

fn run(study: &Path, trials: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(arguments(study, trials)).args(more).stdin(Stdio::null()).output().unwrap()
}

/// The same where no file may become longer than so many blocks of 512 bytes: a disk that is full, for whom it concerns.
fn run_with_room_for(blocks: usize, study: &Path, trials: &str, more: &[&str]) -> Output {
    // A signal that is ignored stays so in the program, which then gets an error in its place.
    let shell = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &shell, env!("CARGO_BIN_EXE_ablate")]).args(arguments(study, trials)).args(more);
    command.stdin(Stdio::null()).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let text = |it: &[u8]| String::from_utf8(it.to_vec()).unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a run that fails says; it must be an error with exit code 1.
fn failed(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// State, values and parameters of all trials, by number.
fn trials(study: &Path) -> Vec<[Value; 3]> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    let output = command.args(["study", "show", study.to_str().unwrap(), "--json"]).output().unwrap();
    let mut shown: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let trials = shown["trials"].as_array_mut().unwrap();
    trials.iter_mut().map(|it| ["state", "values", "parameters"].map(|key| it[key].take())).collect()
}

fn complete(study: &Path) -> usize {
    trials(study).iter().filter(|it| it[0] == "complete").count()
}

#[test]
fn a_disk_that_is_full_loses_no_trial_that_was_told_and_the_run_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, full) = (folder.path().join("whole.jsonl"), folder.path().join("full.jsonl"));
    succeeded(&run(&whole, "12", &[]));
    let mut before = 0;
    // The first does not even hold the settings.
    for blocks in [1, 20, 28, 36, 44] {
        let output = run_with_room_for(blocks, &full, "12", &[]);
        let said = failed(&output);
        assert!(said.contains("full.jsonl") && said.contains("hint: make room, then start again"), "{said}");
        let told = String::from_utf8(output.stdout).unwrap().matches(r#""event":"trial""#).count();
        assert_eq!(complete(&full), before + told, "{blocks} blocks");
        before += told;
    }
    assert!((2..12).contains(&before), "{before}: the limits are to fall between trials");
    succeeded(&run(&full, "12", &[]));
    assert_eq!(trials(&full), trials(&whole));
}

#[test]
fn a_model_that_finds_no_room_leaves_nothing_behind_and_can_be_saved_later() {
    let folder = tempfile::tempdir().unwrap();
    let (study, model) = (folder.path().join("study.jsonl"), folder.path().join("edited"));
    let save = ["--pick", "min kl", "--save", model.to_str().unwrap()];
    let said = failed(&run_with_room_for(1000, &study, "3", &save));
    assert!(said.contains("no space left") && said.contains("\nhint: "), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["study.jsonl"]);
    assert_eq!(complete(&study), 3);
    succeeded(&run(&study, "3", &save));
    assert!(model.join("model.safetensors").exists());
}

#[test]
fn what_may_not_be_written_is_said_before_the_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let study = closed.join("study.jsonl");
    succeeded(&run(&study, "2", &[]));
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("SKIPPED: the administrator may write everywhere; run this as somebody else");
        return;
    }
    for study in [study.clone(), closed.join("new.jsonl"), closed.join("folder/study.jsonl")] {
        let said = failed(&run(&study, "4", &[]));
        assert!(said.contains("closed") && said.contains("ermission denied"), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
        assert!(!said.contains("loaded"), "{said}");
    }
    assert_eq!(complete(&study), 2);
    let target = closed.join("edited");
    let open = folder.path().join("open.jsonl");
    let said = failed(&run(&open, "2", &["--pick", "min kl", "--save", target.to_str().unwrap()]));
    assert!(said.contains("edited") && said.contains("hint: name a place that you may write to"), "{said}");
    assert_eq!(complete(&open), 2, "the trials are kept");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_run_whose_remarks_nobody_reads_goes_on_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("study.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(arguments(&study, "3")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(complete(&study), 3);
}

#[test]
fn a_second_process_is_kept_out_of_a_study_and_may_look_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("study.jsonl");
    let mut first = Command::new(env!("CARGO_BIN_EXE_ablate"))
        .args(arguments(&study, "1000000"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = || lines.by_ref().find(|it| it.contains(r#""event":"trial""#)).is_some();
    assert!(told());
    for action in ["continue", "restart"] {
        let said = failed(&run(&study, "4", &["--checkpoint-action", action]));
        assert!(said.contains("in use by another process") && said.contains("\nhint: "), "{action}: {said}");
        assert!(!said.contains("loaded"), "{action}: {said}");
    }
    assert!(complete(&study) > 0);
    assert!(told(), "the first goes on");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!folder.path().join("study.jsonl.old").exists());
    let known = complete(&study);
    succeeded(&run(&study, &(known + 2).to_string(), &[]));
    assert_eq!(complete(&study), known + 2);
}

#[test]
fn a_last_line_that_was_cut_is_no_loss_and_a_broken_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole.jsonl"), folder.path().join("cut.jsonl"));
    succeeded(&run(&whole, "4", &[]));
    let text = std::fs::read_to_string(&whole).unwrap();
    succeeded(&run(&whole, "7", &[]));
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    // Before, in, and at the end of the last line; and in the middle of the study.
    for length in [last, last + 1, last + (text.len() - last) / 2, text.len() - 1, text.len() / 2] {
        std::fs::write(&cut, &text[..length]).unwrap();
        trials(&cut);
        succeeded(&run(&cut, "7", &[]));
        assert_eq!(trials(&cut), trials(&whole), "{length} of {} bytes", text.len());
    }
    let broken: String =
        text.split_inclusive('\n').enumerate().map(|(it, line)| if it == 2 { "}\n" } else { line }).collect();
    std::fs::write(&cut, &broken).unwrap();
    let said = failed(&run(&cut, "7", &[]));
    assert!(said.contains("cut.jsonl`, line 3"), "{said}");
    assert_eq!(std::fs::read_to_string(&cut).unwrap(), broken, "left alone");
}
