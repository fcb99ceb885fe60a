//! Models as other tools leave them: padded rows, heads of their own, descriptions that no longer hold.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

/// A copy of the toy that can be changed.
struct Copied {
    folder: TempDir,
    /// Type, shape and bytes of each tensor.
    tensors: Vec<(String, String, Vec<usize>, Vec<u8>)>,
}

impl Copied {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(toy()).unwrap().map(|it| it.unwrap().path()) {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let number = |it: &Value| it.as_u64().unwrap() as usize;
        let tensors = header.into_iter().filter(|it| it.0 != "__metadata__").map(|(name, info)| {
            let shape = info["shape"].as_array().unwrap().iter().map(number).collect();
            let range = number(&info["data_offsets"][0])..number(&info["data_offsets"][1]);
            (name, info["dtype"].as_str().unwrap().to_owned(), shape, data[range].to_vec())
        });
        Self { folder, tensors: tensors.collect() }
    }

    fn embedding(&mut self) -> &mut (String, String, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|it| it.0 == "model.embed_tokens.weight").unwrap()
    }

    fn configure(&self, key: &str, value: Value) {
        let path = self.folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
    }

    /// Writes the tensors.
    fn write(&self) -> &Path {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, dtype, shape, bytes) in &self.tensors {
            let range = [data.len(), data.len() + bytes.len()];
            data.extend_from_slice(bytes);
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": range}));
        }
        let header = Value::Object(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length, header.as_bytes(), &data].concat();
        std::fs::write(self.folder.path().join("model.safetensors"), file).unwrap();
        self.folder.path()
    }

    /// More rows of the embedding than there are tokens, large enough to be the most likely ones.
    fn padded(mut self, rows: usize) -> Self {
        let (_, _, shape, bytes) = self.embedding();
        let more = (rows - shape[0]) * shape[1];
        shape[0] = rows;
        bytes.extend([0x00, 0x40].repeat(more)); // 2 in bf16
        self.configure("vocab_size", rows.into());
        self
    }
}

fn ablate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "no/such/cache");
    command.args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn evaluate(model: &Path, against: &Path) -> Output {
    let [model, against] = [model, against].map(|it| it.to_str().unwrap());
    let mut arguments = vec!["evaluate", model, "--against", against, "--json", "--isolated"];
    arguments.extend(["--max-response-length", "8"]);
    arguments.extend(["--kl-prompts", "embedded:demo-answered-eval[:4]"]);
    arguments.extend(["--refusal-prompts", "embedded:demo-refused-eval[:4]"]);
    arguments.extend(["--scorer", "kl_divergence", "--scorer", "sequence_kl", "--batch-size", "8"]);
    ablate(&arguments)
}

/// Padding a vocabulary to a multiple of 64 or 128 is what many tools do; the rows are no tokens.
#[test]
fn models_of_one_tokenizer_are_compared_whatever_their_rows_are_padded_to() {
    let padded = Copied::new().padded(768);
    padded.write();
    for (model, against) in [(padded.folder.path(), &*toy()), (&*toy(), padded.folder.path())] {
        let output = evaluate(model, against);
        assert!(output.status.success(), "{}", said(&output));
        let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
        for score in scores["scores"].as_array().unwrap() {
            let value = score["value"].as_f64().unwrap();
            assert!(score["name"] != "kl_divergence" || value.abs() < 1e-6, "{score}");
        }
    }
}

#[test]
fn models_of_other_tokenizers_and_sizes_are_not_compared() {
    let other = Copied::new().padded(768);
    other.write();
    let path = other.folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let [a, b] = [100, 101].map(|id| vocab.iter().find(|it| *it.1 == id).unwrap().0.clone());
    (vocab[&a], vocab[&b]) = (101.into(), 100.into());
    tokenizer["model"]["merges"] = json!([]);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let output = evaluate(other.folder.path(), &toy());
    assert!(!output.status.success());
    assert!(
        said(&output).contains("only models with the same tokenizer can be compared"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_head_that_is_used_although_the_configuration_ties_it_is_reported() {
    let mut model = Copied::new();
    let (_, dtype, shape, mut bytes) = model.embedding().clone();
    bytes.reverse();
    bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|it| it.reverse());
    model.tensors.push(("lm_head.weight".to_owned(), dtype, shape, bytes));
    let folder = model.write().to_str().unwrap();
    let output = ablate(&["generate", folder, "--prompt", "x", "--max-tokens", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("`tie_word_embeddings` is true, but `lm_head.weight`"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_description_of_a_quantization_that_is_not_there_is_reported_and_no_method_is_named() {
    let model = Copied::new();
    std::fs::write(model.folder.path().join("quantize_config.json"), r#"{"bits": 4}"#).unwrap();
    let folder = model.write().to_str().unwrap();
    let output = ablate(&["generate", folder, "--prompt", "x", "--max-tokens", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("describes weights quantized with gptq, and none is"),
        "{}",
        said(&output)
    );
}

/// Adapters of a high rank are ordinary; the program once stopped at 32, after the whole search.
#[test]
fn an_adapter_may_have_any_rank() {
    let folder = tempfile::tempdir().unwrap();
    let profile =
        json!({"max_weight": 1.1, "max_weight_position": 4.0, "min_weight": 0.2, "min_weight_distance": 3.0});
    let parameters = json!({"direction_index": 2.6, "abliteration_parameters": {"attn.o_proj": profile}});
    let file = folder.path().join("parameters.json");
    std::fs::write(&file, parameters.to_string()).unwrap();
    let (toy, file) = (toy(), file.to_str().unwrap().to_owned());
    for rank in ["33", "1000000", "18446744073709551615"] {
        let out = folder.path().join(rank);
        let mut arguments = vec!["evaluate", toy.to_str().unwrap(), "--parameters", &file];
        arguments.extend(["--good-prompts", "embedded:demo-answered-train[:8]"]);
        arguments.extend(["--bad-prompts", "embedded:demo-refused-train[:8]"]);
        arguments.extend(["--refusal-prompts", "embedded:demo-refused-eval[:4]"]);
        arguments.extend([
            "--kl-prompts",
            "embedded:demo-answered-eval[:4]",
            "--scorer",
            "kl_divergence:minimize",
        ]);
        arguments.extend(["--max-response-length", "8", "--batch-size", "8", "--response-prefix", ""]);
        arguments.extend(["--export-strategy", "adapter", "--adapter-kind", "lora", "--lora-rank", rank]);
        arguments.extend(["--save", out.to_str().unwrap(), "--isolated"]);
        let output = ablate(&arguments);
        assert!(output.status.success(), "{rank}: {}", said(&output));
        let config = std::fs::read(out.join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let expected = rank.parse::<u64>().unwrap().min(64);
        assert_eq!(config["r"], expected, "{rank}: of weights of 64 × 64");
    }
}
