//! Files that are none, or that mean harm: the real program says which, and ends.

#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

/// What the program says on standard error, which has to be an error and no panic; it may take a minute.
fn failed(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command
        .args(["60", env!("CARGO_BIN_EXE_ablate")])
        .args(arguments)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?} {arguments:?}: {said}", output.status);
    assert!(said.contains("error: ") && !said.contains("panicked") && !said.contains("backtrace"), "{said}");
    said
}

#[test]
fn a_named_pipe_is_refused_wherever_a_file_is_named_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.txt");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (toy, pipe) = (toy(), pipe.to_str().unwrap());
    let toy = toy.to_str().unwrap();
    let scorer = format!("perplexity:none:{{\"text\": \"{pipe}\"}}");
    for arguments in [
        &["generate", toy, "--prompts", pipe][..],
        &["generate", toy, "--prompt", "x", "--chat-template", pipe],
        &["settings", "--isolated", "--config", pipe],
        &["settings", "--isolated", "--refusal-markers", pipe],
        &["settings", "--isolated", "--scorer", &scorer],
        &["evaluate", toy, "--isolated", "--parameters", pipe],
        &["reproduce", pipe],
    ] {
        let said = failed(arguments);
        assert!(said.contains(&format!("`{pipe}` is a named pipe, expected a regular file")), "{said}");
    }
    let said = failed(&["generate", toy, "--prompts", "/dev/zero"]);
    assert!(said.contains("`/dev/zero` is a device, expected a regular file"), "{said}");
}

#[test]
fn a_pipe_that_a_shell_hands_over_is_read() {
    let script = format!(
        "exec {} generate {} --prompts <(printf 'one\\rtwo\\r') --max-tokens 0 --json",
        env!("CARGO_BIN_EXE_ablate"),
        toy().display()
    );
    let Ok(output) = Command::new("bash").args(["-c", &script]).output() else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_file_without_markers_is_refused_rather_than_counting_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("markers.txt");
    std::fs::write(&file, "\u{feff}\r\n \r\n").unwrap();
    let said = failed(&["settings", "--isolated", "--refusal-markers", file.to_str().unwrap()]);
    assert!(said.contains("the file has none"), "{said}");
}

#[test]
fn a_tokenizer_that_grows_without_end_is_an_error_that_names_the_text() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(toy()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let file = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 40]});
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let said = failed(&["generate", folder.path().to_str().unwrap(), "--plain", "--prompt", "aaaa"]);
    assert!(said.contains("the tokenizer's normalizer") && said.contains("\"aaaa\""), "{said}");
}
