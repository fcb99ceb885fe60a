//! Adapters as a user writes them, on the toy model of `demo/README.md`: what they make of its weights is what the merged
//! model has.

#[path = "../../hub/tests/server/mod.rs"]
mod server;
mod support;

use std::path::Path;
use std::process::Output;

use checkpoint::hugging_face::Header;
use checkpoint::{Checkpoint, TensorDtype};
use serde_json::{Value, json};
use server::{Server, TOKEN};
use support::{SHORT, ablate, toy};
use tempfile::TempDir;

/// Every writer but those of the first layer, with another strength at each.
fn parameters() -> Value {
    let profile = |least: f64| json!({"max_weight": 1.1, "max_weight_position": 4.0, "min_weight": least, "min_weight_distance": 3.0});
    json!({
        "direction_index": 2.6,
        "abliteration_parameters": {"attn.o_proj": profile(0.2), "mlp.down_proj": profile(0.4)},
    })
}

fn evaluate(folder: &TempDir, more: &[&str]) -> Output {
    let file = folder.path().join("parameters.json");
    std::fs::write(&file, parameters().to_string()).unwrap();
    let mut command = ablate(folder);
    command.arg("evaluate").arg(toy()).arg("--parameters").arg(&file).args(SHORT).args(more);
    command.output().unwrap()
}

/// What the program said of what it wrote.
fn save(folder: &TempDir, name: &str, mode: &str, more: &[&str]) -> String {
    let mut arguments = vec!["--row-normalization", mode, "--save", name];
    arguments.extend(more);
    let output = evaluate(folder, &arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

fn save_adapter(folder: &TempDir, name: &str, mode: &str, more: &[&str]) -> String {
    save(folder, name, mode, &[&["--export-strategy", "adapter"], more].concat())
}

fn fails(folder: &TempDir, more: &[&str]) -> String {
    let output = evaluate(folder, more);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// The tensors of a safetensors file in f32.
struct Tensors(Vec<u8>);

impl Tensors {
    fn of(file: &Path) -> Self {
        Self(std::fs::read(file).unwrap())
    }

    fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
        let header = Header::parse(&self.0).unwrap();
        let tensor = header.tensors.iter().find(|it| it.name == name)?;
        let mut numbers = vec![0.0; tensor.shape.iter().product()];
        TensorDtype::F32.decode(&self.0[tensor.range.clone()], &mut numbers);
        Some((tensor.shape.clone(), numbers.into_iter().map(f64::from).collect()))
    }
}

/// The factors of one weight: B `[d_model, rank]`, A `[rank, d_in]`, magnitudes.
struct Factors {
    rank: usize,
    up: Vec<f64>,
    down: Vec<f64>,
    magnitude: Option<Vec<f64>>,
}

impl Factors {
    fn of_folder(file: &Tensors, module: &str) -> Option<Self> {
        let part = |part: &str| file.get(&format!("base_model.model.{module}.{part}"));
        let (shape, down) = part("lora_A.weight")?;
        let (_, up) = part("lora_B.weight")?;
        Some(Self { rank: shape[0], up, down, magnitude: part("lora_magnitude_vector").map(|it| it.1) })
    }

    /// The weight with the adapter: `W + B A`, and its rows at their lengths where there are some.
    fn add_to(&self, weight: &[f64]) -> Vec<f64> {
        let d_in = self.down.len() / self.rank;
        let rows = weight.chunks_exact(d_in).zip(self.up.chunks_exact(self.rank)).enumerate();
        rows.flat_map(|(i, (row, up))| {
            let added =
                |j: usize| up.iter().enumerate().map(|(k, b)| b * self.down[k * d_in + j]).sum::<f64>();
            let mut row: Vec<f64> = row.iter().enumerate().map(|(j, w)| w + added(j)).collect();
            if let Some(magnitude) = &self.magnitude {
                let length = row.iter().map(|it| it * it).sum::<f64>().sqrt();
                for it in &mut row {
                    *it *= magnitude[i] / length;
                }
            }
            row
        })
        .collect()
    }
}

fn weight(model: &Checkpoint, name: &str) -> Vec<f64> {
    model.tensor(name).unwrap().to_f32().into_iter().map(f64::from).collect()
}

/// The modules that the parameters edit.
fn modules() -> Vec<String> {
    let names = ["self_attn.o_proj", "mlp.down_proj"];
    (1..6).flat_map(|layer| names.map(|it| format!("model.layers.{layer}.{it}"))).collect()
}

/// Rounding to the nearest bf16, which has 8 bits, is off by at most half of 2⁻⁷ of a number's power of two; the rest is
/// the f32 of the factors.
fn expect_bf16_of(exact: &[f64], written: &[f64], what: &str) {
    for (exact, written) in exact.iter().zip(written) {
        let bound = exact.abs() * (2.0_f64).powi(-8) + 1e-7;
        assert!((exact - written).abs() <= bound, "{what}: {exact} was written as {written}");
    }
}

#[test]
fn adapters_make_the_weights_that_the_merged_model_has() {
    let folder = tempfile::tempdir().unwrap();
    let original = Checkpoint::open(&toy()).unwrap();
    for (mode, use_dora) in [("none", false), ("pre", false), ("full", true)] {
        let (merged, adapter) = (format!("merged-{mode}"), format!("adapter-{mode}"));
        save(&folder, &merged, mode, &["--no-check"]);
        let said = save_adapter(&folder, &adapter, mode, &[]);
        assert!(said.contains("adapter written to") && said.contains("of rank 1, is exact"), "{said}");
        let merged = Checkpoint::open(&folder.path().join(merged)).unwrap();
        let adapter = folder.path().join(adapter);
        let names: Vec<_> = std::fs::read_dir(&adapter).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "no model: {names:?}");

        let config: Value =
            serde_json::from_slice(&std::fs::read(adapter.join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(1), &json!(1)));
        assert_eq!(config["use_dora"], use_dora);
        assert_eq!(config["target_modules"], json!(modules()));
        assert_eq!(config["base_model_name_or_path"], "model", "no path of this machine");
        let card = std::fs::read_to_string(adapter.join("README.md")).unwrap();
        assert!(card.contains("library_name: peft") && card.contains("exactly"), "{card}");

        let file = Tensors::of(&adapter.join("adapter_model.safetensors"));
        for module in modules() {
            let name = format!("{module}.weight");
            let factors = Factors::of_folder(&file, &module).unwrap();
            assert_eq!(factors.magnitude.is_some(), use_dora);
            let (before, after) = (weight(&original, &name), weight(&merged, &name));
            assert_ne!(before, after);
            expect_bf16_of(&factors.add_to(&before), &after, &format!("{mode}, {name}"));
        }
        assert!(Factors::of_folder(&file, "model.layers.0.mlp.down_proj").is_none());
    }
}

#[test]
fn a_lora_of_an_edit_that_keeps_lengths_says_what_it_leaves_out_and_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let original = Checkpoint::open(&toy()).unwrap();
    save(&folder, "merged", "full", &["--no-check"]);
    let merged = Checkpoint::open(&folder.path().join("merged")).unwrap();
    let mut last = f64::INFINITY;
    for rank in ["2", "5"] {
        let told = ["--adapter-kind", "lora", "--lora-rank", rank];
        let said = save_adapter(&folder, rank, "full", &told);
        assert!(said.contains(&format!("factors of rank {rank} leave")), "{said}");
        assert!(said.contains(&format!("with the adapter of rank {rank}: kl_divergence")), "{said}");
        let card = std::fs::read_to_string(folder.path().join(rank).join("README.md")).unwrap();
        assert!(card.contains("those of the model with this adapter"), "{card}");
        let told: f64 = card.split(": ").find_map(|it| it.split_once(" % of what")?.0.parse().ok()).unwrap();
        // The same from the files: both sides of a difference are weights that were rounded to bf16, by 0.2 % at most.
        let file = Tensors::of(&folder.path().join(rank).join("adapter_model.safetensors"));
        let (mut missed, mut changed) = (0.0, 0.0);
        for module in modules() {
            let name = format!("{module}.weight");
            let (before, after) = (weight(&original, &name), weight(&merged, &name));
            let found = Factors::of_folder(&file, &module).unwrap().add_to(&before);
            let squares = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            missed += squares(&after, &found);
            changed += squares(&after, &before);
            assert!(card.contains(&format!("| {name} | 0.")), "{card}");
        }
        let measured = 100.0 * (missed / changed).sqrt();
        assert!((measured - told).abs() < 0.5, "{measured} % is told as {told} %");
        assert!(told < last && told > 0.5, "{told} % at rank {rank}, {last} % before");
        last = told;
    }
}

#[test]
fn llama_cpps_adapter_has_the_same_factors_under_its_own_names() {
    let folder = tempfile::tempdir().unwrap();
    save_adapter(&folder, "folder", "pre", &[]);
    save_adapter(&folder, "new/gguf", "pre", &["--adapter-kind", "gguf"]);
    save_adapter(&folder, "named.gguf", "pre", &["--adapter-kind", "gguf"]);
    let file = Checkpoint::open(&folder.path().join("new/gguf/adapter.gguf")).unwrap();
    let facts = [
        ("general.type", json!("adapter")),
        ("general.architecture", json!("llama")),
        ("adapter.type", json!("lora")),
        ("adapter.lora.alpha", json!(1.0)),
    ];
    for (key, value) in facts {
        assert_eq!(file.config()[key], value, "{key}");
    }
    let peft = Tensors::of(&folder.path().join("folder/adapter_model.safetensors"));
    for (module, theirs) in [
        ("model.layers.3.self_attn.o_proj", "blk.3.attn_output.weight"),
        ("model.layers.5.mlp.down_proj", "blk.5.ffn_down.weight"),
    ] {
        let factors = Factors::of_folder(&peft, module).unwrap();
        let (down, up) = (format!("{theirs}.lora_a"), format!("{theirs}.lora_b"));
        assert_eq!(file.tensor(&down).unwrap().shape(), [1, factors.down.len()]);
        assert_eq!(file.tensor(&up).unwrap().shape(), [factors.up.len(), 1]);
        assert_eq!((weight(&file, &down), weight(&file, &up)), (factors.down, factors.up));
    }
    assert_eq!(file.names().count(), 2 * modules().len());
    for card in ["new/gguf/adapter.md", "named.md"] {
        let card = std::fs::read_to_string(folder.path().join(card)).unwrap();
        assert!(card.contains("--lora adapter.gguf"), "{card}");
    }
}

#[test]
fn what_cannot_be_an_adapter_is_said_before_the_work_and_what_is_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = ["--export-strategy", "adapter", "--save"];
    let said = fails(
        &folder,
        &[&adapter[..], &["out", "--adapter-kind", "dora", "--row-normalization", "pre"]].concat(),
    );
    assert!(said.contains("hint: the edit is exactly a `lora` adapter"), "{said}");
    assert!(!said.contains("original:"), "said before the original is scored: {said}");
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("file"), "precious").unwrap();
    let said = fails(&folder, &[&adapter[..], &["taken"]].concat());
    assert!(said.contains("exists already"), "{said}");
    let file = folder.path().join("taken.gguf");
    std::fs::write(&file, "precious").unwrap();
    let said = fails(&folder, &[&adapter[..], &["taken.gguf", "--adapter-kind", "gguf"]].concat());
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(taken).unwrap().count(), 1);
}

#[test]
fn a_run_saves_adapters_and_brings_them_to_the_hub_under_its_names() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Server::start(0));
    let run = |more: &[&str]| {
        let mut command = ablate(&folder);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.address).env("HF_TOKEN", TOKEN);
        command.arg("run").arg(toy()).args(SHORT).args(more);
        // The same study again: two trials are searched once.
        command.args([
            "--study",
            "study.jsonl",
            "--trials",
            "2",
            "--startup-trials",
            "2",
            "--pick",
            "min kl",
        ]);
        let output = command.args(["--export-strategy", "adapter"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = run(&["--save", "adapter", "--reproduction", "basic"]);
    assert!(said.contains("nothing is noted beside an adapter"), "{said}");
    assert!(folder.path().join("adapter/adapter_model.safetensors").exists());
    assert!(!folder.path().join("adapter/reproduce").exists());
    run(&["--upload", "tester/folder"]);
    run(&["--upload", "tester/file", "--adapter-kind", "gguf"]);
    hub.change(|it| {
        let files = |name: &str| it.repos[name].files.keys().cloned().collect::<Vec<_>>();
        let folder = ["README.md", "adapter_config.json", "adapter_model.safetensors"];
        let is_ours = |it: &String| it != ".gitattributes";
        let found = |name| files(name).into_iter().filter(is_ours).collect::<Vec<_>>();
        assert_eq!(found("models/tester/folder"), folder);
        assert_eq!(found("models/tester/file"), ["README.md", "adapter.gguf"]);
    });
}

/// The first tokens of answers with their logits, and what was said.
fn first_logits(folder: &TempDir, arguments: &[&str]) -> (Vec<(u64, f64)>, String) {
    let mut command = ablate(folder);
    command.arg("generate").args(arguments).args([
        "--prompt",
        "What is a ship?",
        "--prompt",
        "Tell me of tea.",
    ]);
    let output = command.args(["--max-tokens", "3", "--logprobs", "5", "--json"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let top = lines.lines().flat_map(|it| {
        let answer: Value = serde_json::from_str(it).unwrap();
        let top = answer["first_token"]["top"].as_array().unwrap().clone();
        top.into_iter().map(|it| (it["id"].as_u64().unwrap(), it["logit"].as_f64().unwrap()))
    });
    (top.collect(), said)
}

fn close(a: &[(u64, f64)], b: &[(u64, f64)], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.1 - b.1).abs() <= tolerance)
}

#[test]
fn an_adapter_is_loaded_where_it_lies_or_where_it_is_named_and_makes_the_model_that_was_merged() {
    let folder = tempfile::tempdir().unwrap();
    let toy = toy().display().to_string();
    save(&folder, "merged", "full", &["--no-check"]);
    save_adapter(&folder, "dora", "full", &[]);
    save_adapter(&folder, "lora", "pre", &[]);
    save_adapter(&folder, "lora.gguf", "pre", &["--adapter-kind", "gguf"]);
    let (original, _) = first_logits(&folder, &[&toy, "--dtype", "f32"]);
    let (merged, _) = first_logits(&folder, &["merged"]);
    let (dora, said) = first_logits(&folder, &[&toy, "--adapter", "dora"]);
    assert!(said.contains("adapter `dora`: changes 10 weights") && said.contains(" f32 weights"), "{said}");
    // The merged one was rounded to bf16.
    assert!(
        close(&dora, &merged, 0.1) && !close(&dora, &original, 0.2),
        "{original:?}\n{dora:?}\n{merged:?}"
    );
    // One file for two programs.
    let (lora, _) = first_logits(&folder, &[&toy, "--adapter", "lora"]);
    assert_eq!(lora, first_logits(&folder, &[&toy, "--adapter", "lora.gguf"]).0);
    assert!(!close(&lora, &dora, 1e-3));
    // Alone: its base model is named by a path that is not one here.
    let mut command = ablate(&folder);
    let output = command.args(["generate", "dora", "--prompt", "x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("`ablate chat BASE --adapter dora`"), "{said}");
    let config = folder.path().join("dora/adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"model\"", &json!(toy).to_string())).unwrap();
    let (alone, said) = first_logits(&folder, &["dora"]);
    assert!(said.contains("`dora` is an adapter; its base model is"), "{said}");
    assert_eq!(alone, dora);
    let output = ablate(&folder).args(["generate", "lora.gguf", "--prompt", "x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("`ablate chat BASE --adapter lora.gguf`"), "{said}");
}

#[test]
fn what_is_saved_of_a_model_with_an_adapter_beside_its_weights_is_a_whole_model_without_one() {
    let folder = tempfile::tempdir().unwrap();
    save_adapter(&folder, "both", "full", &[]);
    for file in std::fs::read_dir(toy()).unwrap().map(|it| it.unwrap().path()) {
        std::fs::copy(&file, folder.path().join("both").join(file.file_name().unwrap())).unwrap();
    }
    let (both, said) = first_logits(&folder, &["both"]);
    assert!(said.contains("holds an adapter beside the weights"), "{said}");
    assert_eq!(both, first_logits(&folder, &[&toy().display().to_string(), "--adapter", "both"]).0);
    let file = folder.path().join("parameters.json");
    let mut none = parameters();
    none["abliteration_parameters"] = json!({});
    std::fs::write(&file, none.to_string()).unwrap();
    let evaluate = |more: &[&str]| {
        let mut command = ablate(&folder);
        command.args(["evaluate", "both", "--parameters", "parameters.json"]).args(SHORT).args(more);
        command.output().unwrap()
    };
    let output = evaluate(&["--save", "out", "--no-check", "--reproduction", "basic"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nothing is noted of a model with an adapter"), "{said}");
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path().join("out")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let (written, _) = first_logits(&folder, &["out"]);
    assert!(close(&written, &both, 0.1), "{written:?}\n{both:?}");
    let output = evaluate(&["--save", "again", "--export-strategy", "adapter"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("--export-strategy merge"), "{said}");
    assert!(!folder.path().join("again").exists());
}
