//! Presets whose prompts are on the hub, on the toy model of `demo/README.md`: a hub on this machine has data sets of
//! their names, configurations, splits and columns, with prompts of the toy in them.

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use server::{Server, TOKEN};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo")
}

/// So many prompts of a set, from its first on and over again.
fn prompts(set: &str, count: usize) -> Vec<String> {
    let text = std::fs::read_to_string(demo().join(format!("prompts/{set}.txt"))).unwrap();
    text.lines().map(str::to_owned).cycle().take(count).collect()
}

fn json_lines(column: &str, prompts: &[String]) -> Vec<u8> {
    prompts.iter().flat_map(|it| format!("{}\n", json!({ column: it })).into_bytes()).collect()
}

/// The data sets that presets name, as long as their slices need.
fn hub() -> Server {
    let hub = Server::start(0);
    let (answered, refused) = ("answered_train", "refused_train");
    let add = |name: &str, column: &str, set: &str, train: usize, test: usize| {
        let (train, test) = (prompts(set, train), prompts(set, test));
        let mut files = vec![("train.jsonl", json_lines(column, &train))];
        if !test.is_empty() {
            files.push(("test.jsonl", json_lines(column, &test)));
        }
        let files: Vec<(&str, &[u8])> = files.iter().map(|it| (it.0, it.1.as_slice())).collect();
        hub.add(&format!("datasets/{name}"), &files);
    };
    add("mlabonne/harmless_alpaca", "text", answered, 410, 130);
    add("mlabonne/harmful_behaviors", "text", refused, 410, 104);
    add("UnstableLlama/jokes", "text", refused, 250, 0);
    add("llm-aes/writing-prompts", "prompt", refused, 1100, 0);
    // What only sounds as if it should be refused: neither the one nor the other set.
    let mixed = prompts(refused, 260).into_iter().zip(prompts(answered, 260));
    let rows = mixed.flat_map(|(a, b)| [a, b]).map(|it| format!("\"{it}\",made-up"));
    let table: Vec<String> = std::iter::once("prompt,category".to_owned()).chain(rows).collect();
    let table = table.join("\n");
    let configurations = "---\nconfigs:\n- config_name: or-bench-80k\n  data_files: all.csv\n\
        - config_name: or-bench-hard-1k\n  data_files: or-bench-hard-1k.csv\n---\n";
    hub.add(
        "datasets/bench-llm/or-bench",
        &[
            ("README.md", configurations.as_bytes()),
            ("all.csv", b"prompt,category\nnot asked for,made-up\n"),
            ("or-bench-hard-1k.csv", table.as_bytes()),
        ],
    );
    hub
}

/// Two trials of a preset; what is told of them.
fn run(hub: &Server, folder: &Path, preset: &str) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(["run", demo().join("model").to_str().unwrap(), "--preset", preset, "--json"]);
    command.args(["--trials", "2", "--startup-trials", "2", "--pick", "min kl_divergence", "--no-check"]);
    command.args(["--max-response-length", "24", "--batch-size", "128", "--response-prefix="]);
    command.args(["--study", &format!("{preset}.jsonl")]);
    command.env("HF_ENDPOINT", &hub.address).env("HF_TOKEN", TOKEN).env("HF_HOME", folder.join("cache"));
    let output =
        command.env_remove("HF_HUB_OFFLINE").current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{preset}: {said}");
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

#[test]
fn every_preset_of_the_hub_runs_on_data_sets_of_its_names() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    for (preset, goals) in [
        ("refusals", &["refusals", "kl_divergence"][..]),
        ("over-refusal", &["refusals", "refusals_kept", "kl_divergence"]),
        ("slop", &["refusals", "kl_divergence"]),
        ("humor", &["refusals", "kl_divergence"]),
    ] {
        let told = run(&hub, folder.path(), preset);
        let trials: Vec<&Value> = told.iter().filter(|it| it["event"] == "trial").collect();
        assert_eq!(trials.len(), 2, "{preset}: {told:?}");
        for trial in trials {
            let names: Vec<&str> = trial["objectives"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, goals, "{preset}: {trial}");
        }
    }
}
