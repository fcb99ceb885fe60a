//! What is scored where a chat template lets a model think, and where all answers are the same: the real program on the
//! toy model of `demo/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The toy's template, with a thought opened at its end unless a variable says that there is none.
const OPENS: &str = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}\
    {% else %}{{ '<think>\n' }}{% endif %}{% endif %}";

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

fn ablate(command: &str, more: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ablate"));
    program.arg(command).arg(toy()).args(more).stdin(Stdio::null()).env("HF_HUB_OFFLINE", "1");
    program.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn folder() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

/// Compares the toy with itself, and answers with its calibration and with what was said.
fn calibrated(good: &str, bad: &str, more: &[&str]) -> (Value, String) {
    let toy = toy();
    let mut arguments = vec!["--against", toy.to_str().unwrap(), "--json", "--batch-size", "8"];
    arguments.extend(["--max-response-length", "24", "--refusal-prompts", bad, "--kl-prompts", good]);
    arguments.extend(more);
    let output = ablate("evaluate", &arguments);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let evaluation: Value = serde_json::from_slice(&output.stdout).unwrap();
    (evaluation["calibration"].clone(), said)
}

const GOOD: &str = "embedded:demo-answered-train[:4]";
const BAD: &str = "embedded:demo-refused-train[:4]";

#[test]
fn a_thought_that_the_template_opens_is_closed_before_anything_is_scored() {
    let folder = folder();
    let template = folder.file("opens.jinja", OPENS);
    let (calibration, said) = calibrated(GOOD, BAD, &["--chat-template", &template]);
    let prefix = calibration["response_prefix"].as_str().unwrap();
    assert!(prefix.starts_with("\n</think>"), "{prefix:?}");
    assert!(said.contains("ends all prompts in an open chain of thought (\"<think>\")"), "{said}");
    assert!(said.contains("what is scored is the answer behind it"), "{said}");
    assert!(said.contains(r#"--chat-template-kwargs '{"enable_thinking": false}'"#), "{said}");
}

#[test]
fn a_variable_of_the_template_is_a_setting() {
    let folder = folder();
    let template = folder.file("opens.jinja", OPENS);
    let closed = ["--chat-template", &template, "--chat-template-kwargs", r#"{"enable_thinking": false}"#];
    let (calibration, said) = calibrated(GOOD, BAD, &closed);
    let (plain, _) = calibrated(GOOD, BAD, &[]);
    assert_eq!(calibration["response_prefix"], plain["response_prefix"], "as the toy's own template");
    assert!(!said.contains("chain of thought"), "{said}");
    // The same in a file, and for commands without settings.
    let config = folder.file("ablate.toml", "[chat_template_kwargs]\nenable_thinking = false\n");
    let (from_file, _) = calibrated(GOOD, BAD, &["--chat-template", &template, "--config", &config]);
    assert_eq!(from_file, calibration);
    for (variables, end) in
        [("{}", "<|assistant|><think>\n"), (r#"{"enable_thinking": false}"#, "<|assistant|>")]
    {
        let more = ["--chat-template", &template, "--chat-template-kwargs", variables];
        let output =
            ablate("generate", &[&more[..], &["--prompt", "Hi", "--max-tokens", "1", "--json"]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(answer["rendered"].as_str().unwrap().ends_with(end), "{answer}");
    }
}

#[test]
fn variables_that_cannot_be_are_refused_by_name() {
    let refused = |variables: &str| {
        let output = ablate("generate", &["--prompt", "Hi", "--chat-template-kwargs", variables]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    let said = refused(r#"{"messages": []}"#);
    assert!(said.contains("`messages`") && said.contains("hint: "), "{said}");
    let said = refused("thinking");
    assert!(said.contains("--chat-template-kwargs") && said.contains("JSON object"), "{said}");
    let folder = folder();
    let config = folder.file("ablate.toml", "chat_template_kwargs = 'thinking'\n");
    let output = ablate("run", &["--config", &config]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`chat_template_kwargs`"), "{said}");
}

#[test]
fn a_response_prefix_that_leaves_a_thought_open_is_told() {
    let folder = folder();
    let template = folder.file("opens.jinja", OPENS);
    let (_, said) = calibrated(GOOD, BAD, &["--chat-template", &template, "--response-prefix="]);
    assert!(
        said.contains("warning: ") && said.contains("the beginning of the thought, not an answer"),
        "{said}"
    );
    let (_, said) = calibrated(GOOD, BAD, &["--chat-template", &template, "--response-prefix", "</think>"]);
    assert!(!said.contains("chain of thought"), "{said}");
}

#[test]
fn answers_that_are_all_the_same_leave_no_response_prefix() {
    let folder = folder();
    let question = {
        let output = ablate(
            "generate",
            &["--prompts", "embedded:demo-answered-train[:1]", "--max-tokens", "1", "--json"],
        );
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["prompt"].as_str().unwrap().to_owned()
    };
    let prompts = folder.file("same.txt", &format!("{question}\n{question}\n"));
    let (calibration, said) = calibrated(&prompts, &prompts, &[]);
    assert_eq!(calibration["response_prefix"], "");
    assert!(said.contains("warning: all answers of the original begin with"), "{said}");
    assert!(!said.contains("<|end|>"), "the token that ends an answer is no part of it: {said}");
    assert!(said.contains("nothing follows in 4 of 4: no response prefix is used"), "{said}");
}
