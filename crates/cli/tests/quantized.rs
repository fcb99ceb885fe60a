//! Weights in quantized blocks, as a user asks for them, on the toy model of `demo/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

struct Place(TempDir);

const SETS: [&str; 8] = [
    "--good-prompts",
    "embedded:demo-answered-train[:24]",
    "--bad-prompts",
    "embedded:demo-refused-train[:24]",
    "--refusal-prompts",
    "embedded:demo-refused-eval[:12]",
    "--kl-prompts",
    "embedded:demo-answered-eval[:12]",
];

const SHORT: [&str; 5] = ["--max-response-length", "16", "--batch-size", "64", "--response-prefix="];

fn toy() -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    model.to_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.at(name)).unwrap()).unwrap()
    }

    /// The program in this folder, without a network: what it wrote to standard output, and what it remarked.
    fn ablate(&self, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.at("cache"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{}\n{}", text(&stdout), text(&stderr));
        (text(&stdout), text(&stderr))
    }

    /// A run of some trials on the toy.
    fn run(&self, more: &[&str]) -> (String, String) {
        let toy = toy();
        let mut arguments = vec!["run", &toy, "--study", "study.jsonl", "--threads", "1", "--json"];
        arguments.extend(SETS);
        arguments.extend(SHORT);
        arguments.extend(more);
        self.ablate(&arguments)
    }
}

/// The events of a name.
fn events(output: &str, name: &str) -> Vec<Value> {
    let all = output.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
    all.filter(|it| it["event"] == name).collect()
}

#[test]
fn a_study_keeps_the_blocks_that_it_began_with_and_what_they_do_to_the_original() {
    let place = Place::new();
    let (output, _) = place.run(&["--quantize", "q8_0", "--trials", "2", "--startup-trials", "2"]);
    let told = events(&output, "quantized");
    assert_eq!((told.len(), &told[0]["blocks"]), (1, &json!("q8_0")));
    let kl = told[0]["kl_divergence"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 0.01, "{kl}");

    // It is resumed in the same blocks when nothing is said, and does not measure again.
    let (output, remarks) = place.run(&["--trials", "4", "--checkpoint-action", "continue"]);
    assert!(remarks.contains("q8_0 weights"), "{remarks}");
    assert_eq!(events(&output, "quantized").len(), 0);
    assert_eq!(events(&output, "trial").len(), 2);
    let study = std::fs::read_to_string(place.at("study.jsonl")).unwrap();
    assert!(
        study.contains(r#""quantized": {"blocks": "q8_0""#)
            || study.contains(r#""quantized":{"blocks":"q8_0""#)
    );

    // The scores of a trial do not depend on who goes on with the study.
    let whole = Place::new();
    let (all, _) = whole.run(&["--quantize", "q8_0", "--trials", "4", "--startup-trials", "2"]);
    let scores = |output: &str, number: u64| {
        let trials = events(output, "trial");
        trials.iter().find(|it| it["number"] == number).unwrap()["scores"].clone()
    };
    assert_eq!(scores(&output, 3), scores(&all, 3));
}

#[test]
fn a_model_that_was_found_in_blocks_is_written_from_its_file_and_can_be_made_again() {
    let place = Place::new();
    let profile =
        json!({"max_weight": 1.0, "max_weight_position": 3.0, "min_weight": 0.5, "min_weight_distance": 8.0});
    let parameters = json!({
        "direction_index": 2.25,
        "abliteration_parameters": {"attn.o_proj": profile, "mlp.down_proj": profile},
    });
    std::fs::write(place.at("parameters.json"), parameters.to_string()).unwrap();
    let toy = toy();
    let evaluate = |out: &str, more: &[&str]| {
        let mut arguments =
            vec!["evaluate", &toy, "--parameters", "parameters.json", "--save", out, "--json"];
        arguments.extend(["--scorer", "refusals", "--scorer", "kl_divergence", "--threads", "1"]);
        arguments.extend(SETS);
        arguments.extend(SHORT);
        arguments.extend(more);
        let (output, remarks) = place.ablate(&arguments);
        (serde_json::from_str::<Value>(&output).unwrap(), remarks)
    };
    let (full, _) = evaluate("full", &[]);
    let (held, remarks) = evaluate("held", &["--quantize", "q8_0", "--reproduction", "basic"]);
    assert!(remarks.contains("as written, held in q8_0 as the original"), "{remarks}");
    assert_eq!(held["calibration"]["quantized"]["blocks"], "q8_0");
    assert_eq!(full["calibration"]["quantized"], Value::Null);
    assert_ne!(full["scores"], held["scores"], "rounding weights does something");

    // Only directions were found in blocks: of what is written they move the last bits.
    let weights = |name: &str| std::fs::read(place.at(name).join("model.safetensors")).unwrap();
    let (full, held) = (weights("full"), weights("held"));
    let high = |it: &[u8]| it.iter().skip(1).step_by(2).copied().collect::<Vec<u8>>();
    let differing = high(&full).iter().zip(high(&held)).filter(|(a, b)| **a != *b).count();
    assert!(full.len() == held.len() && full != held && differing < full.len() / 100, "{differing}");
    let card = std::fs::read_to_string(place.at("held/README.md")).unwrap();
    assert!(card.contains("held in q8_0 blocks"), "{card}");

    let record = place.json("held/reproduce/reproduce.json");
    assert_eq!(record["machine"]["quantized"], "q8_0");
    let (again, _) = place.ablate(&[
        "reproduce",
        "held/reproduce/reproduce.json",
        "--model",
        &toy,
        "--output",
        "again",
        "--threads",
        "2",
        "--json",
    ]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["same"], &again["differences"]), (&json!(true), &json!([])), "{again}");
    // Without blocks it is another machine, and says so.
    let (other, _) = place.ablate(&[
        "reproduce",
        "held/reproduce/reproduce.json",
        "--model",
        &toy,
        "--output",
        "other",
        "--quantize",
        "none",
        "--json",
    ]);
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_eq!(other["differences"][0]["name"], "quantized weights");
}

#[test]
fn heretics_word_for_it_is_understood_and_ours_counts_more() {
    let place = Place::new();
    std::fs::write(place.at("heretic.toml"), "quantization = \"bnb_4bit\"\n").unwrap();
    let (output, remarks) =
        place.run(&["--config", "heretic.toml", "--trials", "1", "--startup-trials", "1"]);
    assert!(remarks.contains("taken for `quantize = \"q4_k\"`"), "{remarks}");
    assert!(!remarks.contains("has no effect"), "{remarks}");
    assert_eq!(events(&output, "quantized")[0]["blocks"], "q4_k");
    let other = Place::new();
    std::fs::write(other.at("heretic.toml"), "quantization = \"bnb_4bit\"\nquantize = \"none\"\n").unwrap();
    let (output, _) = other.run(&["--config", "heretic.toml", "--trials", "1", "--startup-trials", "1"]);
    assert_eq!(events(&output, "quantized").len(), 0);
}

#[test]
fn generate_and_bench_hold_weights_in_blocks_too() {
    let place = Place::new();
    let toy = toy();
    let (plain, _) = place.ablate(&["generate", &toy, "--prompt", "Why?", "--logprobs", "2", "--json"]);
    let (held, remarks) = place.ablate(&[
        "generate",
        &toy,
        "--prompt",
        "Why?",
        "--logprobs",
        "2",
        "--json",
        "--quantize",
        "q8_0",
    ]);
    assert!(remarks.contains("q8_0 weights"), "{remarks}");
    assert_ne!(plain, held, "rounding weights does something");
    let (bench, _) = place.ablate(&[
        "bench",
        &toy,
        "--quantize",
        "q8_0",
        "--batch-sizes",
        "1",
        "--runs",
        "1",
        "--new-tokens",
        "2",
        "--prompt-tokens",
        "2",
        "--json",
    ]);
    let bench: Value = serde_json::from_str(&bench).unwrap();
    assert_eq!(bench["quantization"], "q8_0");
    let bits = 8.0 * bench["weight_bytes"].as_f64().unwrap() / bench["weights"].as_f64().unwrap();
    assert!((8.5..9.0).contains(&bits), "{bits} bits a weight");
}
