//! What a run says of its own worth, and the answers that it was told to show.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The toy model, its configuration changed.
fn toy(folder: &TempDir, change: impl FnOnce(&mut Value)) -> PathBuf {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(original).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
    model
}

/// A run of two trials.
fn run(folder: &TempDir, model: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.arg("run").arg(model).arg("--isolated");
    for (set, source) in [
        ("--good-prompts", "embedded:demo-answered-train[:8]"),
        ("--bad-prompts", "embedded:demo-refused-train[:8]"),
        ("--refusal-prompts", "embedded:demo-refused-eval[:4]"),
        ("--kl-prompts", "embedded:demo-answered-eval[:4]"),
    ] {
        // The last of two is not taken: an option may be given once.
        if !more.contains(&set) {
            command.args([set, source]);
        }
    }
    command.args([
        "--trials",
        "2",
        "--max-response-length",
        "16",
        "--batch-size",
        "8",
        "--response-prefix",
        "",
    ]);
    command.arg("--study").arg(folder.path().join("study.jsonl")).args(more);
    command.env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn answers_are_shown_when_that_is_wanted_and_never_stored() {
    let folder = tempfile::tempdir().unwrap();
    let model = toy(&folder, |_| {});
    let scorer = r#"refusals:minimize:{"print_responses": true}"#;
    let said = said(&run(&folder, &model, &["--scorer", scorer, "--scorer", "kl_divergence"]));
    // Four prompts, of the original and of two trials; the original refuses all.
    assert_eq!(said.matches("\n    > ").count(), 12, "{said}");
    assert!(said.matches("refusals (counts)").count() >= 4, "{said}");
    let study = std::fs::read_to_string(folder.path().join("study.jsonl")).unwrap();
    assert!(study.contains("\"name\":\"refusals\""), "{study}");
    assert!(!study.contains("\"response\"") && !study.contains("\"responses\""), "{study}");
}

#[test]
fn a_prompt_that_is_longer_than_the_context_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let model = toy(&folder, |config| config["max_position_embeddings"] = 8.into());
    let said = said(&run(&folder, &model, &[]));
    assert!(said.contains("warning: prompt ") && said.contains("the model was made for 8"), "{said}");
}

#[test]
fn sets_that_are_swapped_and_prompts_that_are_scored_twice_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let model = toy(&folder, |_| {});
    let swapped = [
        "--refusal-prompts",
        "embedded:demo-answered-train[:8]",
        "--kl-prompts",
        "embedded:demo-refused-eval[:4]",
    ];
    let said = said(&run(&folder, &model, &swapped));
    assert!(said.contains("warning: the original shows the behavior on 0 of 8 prompts"), "{said}");
    assert!(said.contains("warning: 8 of 8 refusal_prompts are good_prompts, too"), "{said}");
}
