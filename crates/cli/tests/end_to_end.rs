//! The binary, as a user runs it: on a tiny model, and on a real one where `ABLATE_SMOLLM2_GGUF` says where it is.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn ablate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ablate")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails with everything that the program said.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn engine_golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden").join(name)
}

/// A folder with a tiny random model and a tokenizer of 97 words, `w0` to `w96`.
fn tiny_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(engine_golden("llama_gqa_tied").join(file), folder.path().join(file)).unwrap();
    }
    let vocab: serde_json::Map<String, Value> = (0..97).map(|it| (format!("w{it}"), json!(it))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn words(ids: &Value) -> String {
    let words: Vec<String> = ids.as_array().unwrap().iter().map(|it| format!("w{it}")).collect();
    words.join(" ")
}

#[test]
fn generate_answers_as_the_reference_stack_does() {
    let model = tiny_model();
    let path = model.path().to_str().unwrap();
    let golden: Value =
        serde_json::from_slice(&std::fs::read(engine_golden("llama_gqa_tied/golden.json")).unwrap()).unwrap();
    let prompts: Vec<String> = golden["prompts"].as_array().unwrap().iter().map(words).collect();
    let file = model.path().join("prompts.txt");
    std::fs::write(&file, prompts.join("\n")).unwrap();
    let residuals = model.path().join("residuals.safetensors");
    let output = succeeded(&ablate(&[
        "generate",
        path,
        "--plain",
        "--prompts",
        file.to_str().unwrap(),
        "--max-tokens",
        "16",
        "--logprobs",
        "3",
        "--residuals",
        residuals.to_str().unwrap(),
        "--json",
        "--threads",
        "2",
    ]));
    let answers: Vec<Value> = output.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(answers.len(), prompts.len());
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer["prompt"], prompts[index]);
        assert_eq!(answer["rendered"], prompts[index]);
        assert_eq!(answer["input_ids"], golden["prompts"][index]);
        // The golden answers do not obey the end of a sequence, token 2; the program does.
        let expected = golden["answers"][index]["ids"].as_array().unwrap();
        let end = expected.iter().position(|it| it == 2);
        assert_eq!(answer["answer_ids"].as_array().unwrap(), &expected[..end.unwrap_or(16)]);
        assert_eq!(answer["stop"], if end.is_some() { "eos" } else { "length" });
        let top = answer["first_token"]["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(top[0]["id"], expected[0]);
        assert!(answer["first_token"]["logsumexp"].as_f64().unwrap() >= top[0]["logit"].as_f64().unwrap());
    }
    let file = std::fs::read(&residuals).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let found = tensors.tensor("residuals").unwrap();
    let golden = std::fs::read(engine_golden("llama_gqa_tied/golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let expected = golden.tensor("residuals").unwrap();
    assert_eq!(found.shape(), expected.shape());
    let numbers = |it: &[u8]| -> Vec<f32> {
        it.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect()
    };
    for (found, expected) in numbers(found.data()).iter().zip(numbers(expected.data())) {
        // Residuals of this model reach 30; f32 leaves some 1e-5 of that.
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
}

#[test]
fn the_portable_instruction_set_and_the_reference_give_the_same_answers() {
    let model = tiny_model();
    let path = model.path().to_str().unwrap();
    let common = ["generate", path, "--plain", "--prompt", "w3 w50 w7", "--max-tokens", "12"];
    let best = succeeded(&ablate(&common));
    for other in [["--instruction-set", "portable"], ["--device", "reference"]] {
        assert_eq!(succeeded(&ablate(&[&common[..], &other[..]].concat())), best, "{other:?}");
    }
}

#[test]
fn errors_say_what_to_do_and_fail() {
    let model = tiny_model();
    let path = model.path().to_str().unwrap();
    let failed = |arguments: &[&str]| {
        let output = ablate(arguments);
        assert!(!output.status.success());
        assert!(output.stdout.is_empty(), "results alone go to standard output");
        let said = text(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        said
    };
    assert!(failed(&["generate", path, "--plain"]).contains("hint: give --prompt"));
    assert!(failed(&["generate", "/no/such/model", "--prompt", "w1"]).contains("/no/such/model"));
    let said = failed(&["generate", path, "--prompt", "w1"]);
    assert!(said.contains("chat template") && said.contains("--chat-template"), "{said}");
    assert!(
        failed(&["generate", path, "--plain", "--prompts", "/no/prompts.txt"]).contains("/no/prompts.txt")
    );
    let said = failed(&["generate", path, "--plain", "--prompt", "w1", "--instruction-set", "abacus"]);
    assert!(said.contains("`abacus`") && said.contains("portable"), "{said}");
    let said = failed(&["generate", path, "--plain", "--prompt", "w1", "--family", "unheard"]);
    assert!(said.contains("`unheard`") && said.contains("`llama`"), "{said}");
    let nowhere = model.path().join("no/such/folder/r.safetensors");
    let said = failed(&[
        "generate",
        path,
        "--plain",
        "--prompt",
        "w1",
        "--max-tokens",
        "0",
        "--json",
        "--residuals",
        nowhere.to_str().unwrap(),
    ]);
    assert!(said.contains("r.safetensors"), "{said}");
}

#[test]
fn chat_reads_what_is_said_and_answers_until_the_end() {
    use std::io::Write;
    let model = tiny_model();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ablate"))
        .args(["chat", model.path().to_str().unwrap(), "--plain", "--max-tokens", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"w3 w50 w7\n/reset\nw9\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = succeeded(&output);
    assert!(said.split_whitespace().filter(|it| it.starts_with('w')).count() >= 8, "{said}");
    assert!(text(&output.stderr).contains("a new conversation"));
}

#[test]
fn bench_tells_its_shares_of_the_machine() {
    let model = tiny_model();
    let path = model.path().to_str().unwrap();
    let sizes = ["--batch-sizes", "1,3", "--prompt-tokens", "5", "--new-tokens", "4", "--runs", "1"];
    let output = succeeded(&ablate(&[&["bench", path, "--json"], &sizes[..]].concat()));
    let found: Value = serde_json::from_str(&output).unwrap();
    assert!(found["machine"]["product_gflops"].as_f64().unwrap() > 0.0);
    let phases = found["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 4);
    for phase in phases {
        assert!(phase["tokens_per_second"].as_f64().unwrap() > 0.0);
        let shares: f64 = phase["shares"].as_object().unwrap().values().map(|it| it.as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-6);
    }
    assert!(succeeded(&ablate(&[&["bench", path], &sizes[..]].concat())).contains("of product peak"));
}

#[test]
fn help_explains_every_option() {
    for command in ["generate", "chat", "bench"] {
        let help = succeeded(&ablate(&[command, "--help"]));
        assert!(help.contains("MODEL") || help.contains("<MODEL>"), "{help}");
        // An option without a word of explanation is a line that ends where the next option begins.
        for (line, next) in help.lines().zip(help.lines().skip(1)) {
            let bare = line.trim_start().starts_with("--") && !line.trim().contains("  ");
            assert!(!bare || next.starts_with("          "), "{command}: {line}");
        }
    }
}

#[test]
fn the_real_model_answers_a_chat_prompt() {
    let Ok(model) = std::env::var("ABLATE_SMOLLM2_GGUF") else {
        eprintln!("SKIPPED: set ABLATE_SMOLLM2_GGUF to the file that tools/fetch_smollm2.sh prints");
        return;
    };
    let golden: Value =
        serde_json::from_slice(&std::fs::read(engine_golden("smollm2.json")).unwrap()).unwrap();
    let expected = &golden["prompts"][0];
    let prompt = expected["messages"][0][1].as_str().unwrap();
    let output =
        succeeded(&ablate(&["generate", &model, "--prompt", prompt, "--max-tokens", "32", "--json"]));
    let answer: Value = serde_json::from_str(output.trim()).unwrap();
    assert_eq!(answer["rendered"], expected["text"]);
    assert_eq!(answer["input_ids"], expected["ids"]);
    assert_eq!(answer["answer"], expected["answer"]["text"]);
    assert_eq!(answer["stop"], "eos");
}
