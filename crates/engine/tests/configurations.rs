//! Configurations that contradict themselves or the tensors: read as transformers reads them, or refused.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::write::{Replacements, Settings, write_model};
use checkpoint::{Checkpoint, TensorDtype};
use engine::{Answer, Device, Engine, Generation, LoadOptions, Request};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::{Golden, goldens};
use tempfile::TempDir;

/// A checkpoint that can be changed before it is written.
struct Changed {
    config: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Changed {
    fn golden(name: &str) -> Self {
        Self::of(&goldens().into_iter().find(|it| it.name == name).unwrap())
    }

    fn of(golden: &Golden) -> Self {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let tensor = |name: &str| {
            let tensor = checkpoint.tensor(name).unwrap();
            (name.to_owned(), (tensor.shape().to_vec(), tensor.to_f32()))
        };
        Self { config: checkpoint.config().clone(), tensors: checkpoint.names().map(tensor).collect() }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |numbers: &[f32]| numbers.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<_> =
            self.tensors.iter().map(|(name, (shape, it))| (name, shape, bytes(it))).collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
        std::fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        folder
    }

    fn answers(&self) -> Vec<Answer> {
        answers(self.write().path())
    }

    fn error(&self) -> String {
        let folder = self.write();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let options = LoadOptions { threads: 1, ..LoadOptions::default() };
        let error = Engine::load(&checkpoint, &options, &mut |_, _| {}).err();
        error.expect("the configuration is refused").to_string()
    }

    fn notices(&self) -> Vec<String> {
        support::engine(self.write().path(), Device::Cpu).info().notices.clone()
    }
}

fn answers(folder: &Path) -> Vec<Answer> {
    let prompts: [&[u32]; 2] = [&[1, 5, 3], &[2, 9, 4, 4, 7, 1, 8, 2, 6, 11, 3, 5, 9]];
    let requests: Vec<Request> = prompts
        .iter()
        .map(|it| Request { tokens: it.iter().copied().map(glossary::TokenId).collect(), edit: 0 })
        .collect();
    let how = Generation { max_tokens: 4, logits: true, ..Generation::default() };
    support::engine(folder, Device::Cpu).generate(&requests, &how, &mut |_, _| false).unwrap()
}

/// The name of the embedding, and what a head would be called beside it.
fn embedding(changed: &Changed) -> Option<(String, &'static str)> {
    let name = changed.tensors.keys().find(|it| it.ends_with("embed_tokens.weight"))?;
    let head =
        if name.starts_with("language_model.") { "language_model.lm_head.weight" } else { "lm_head.weight" };
    Some((name.clone(), head))
}

fn say_of_ties(config: &mut Value, tied: bool) {
    config["tie_word_embeddings"] = tied.into();
    if config["text_config"].is_object() {
        config["text_config"]["tie_word_embeddings"] = tied.into();
    }
}

/// Merges of tied models with others are such. transformers 5 warns and uses both.
#[test]
fn a_head_with_other_values_than_the_embedding_is_used_although_the_configuration_ties_them() {
    let mut seen = 0;
    for golden in goldens() {
        let mut changed = Changed::of(&golden);
        let quantized = changed.config["quantization_config"].is_object();
        let Some((embedding, head)) =
            embedding(&changed).filter(|it| !quantized && !changed.tensors.contains_key(it.1))
        else {
            continue;
        };
        seen += 1;
        let (shape, mut numbers) = changed.tensors[&embedding].clone();
        say_of_ties(&mut changed.config, true);
        let tied = changed.answers();
        changed.tensors.insert(head.to_owned(), (shape.clone(), numbers.clone()));
        assert_eq!(changed.answers(), tied, "{}: the same values twice", golden.name);
        assert_eq!(changed.notices(), Vec::<String>::new(), "{}", golden.name);
        numbers.reverse();
        changed.tensors.insert(head.to_owned(), (shape, numbers));
        let notices = changed.notices();
        assert!(notices.len() == 1 && notices[0].contains("`tie_word_embeddings` is true"), "{notices:?}");
        let found = changed.answers();
        say_of_ties(&mut changed.config, false);
        assert_eq!(found, changed.answers(), "{}: as if it were not tied", golden.name);
        assert_ne!(found, tied, "{}", golden.name);
        assert_eq!(changed.notices(), Vec::<String>::new(), "{}", golden.name);
    }
    // Checkpoints of tied models: those without a head.
    let goldens = goldens();
    let tied = goldens.iter().filter(|golden| {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        !checkpoint.names().any(|it| it.ends_with("lm_head.weight")) && checkpoint.quantization().is_none()
    });
    assert_eq!(seen, tied.count());
}

#[test]
fn one_number_of_a_head_that_differs_is_enough_and_both_are_written() {
    let mut changed = Changed::golden("llama_gqa_tied").with("tie_word_embeddings", json!(true));
    let (shape, mut numbers) = changed.tensors["model.embed_tokens.weight"].clone();
    *numbers.last_mut().unwrap() += 0.5;
    changed.tensors.insert("lm_head.weight".to_owned(), (shape, numbers));
    assert_eq!(changed.notices().len(), 1);
    let folder = changed.write();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let out = folder.path().join("out");
    let each = &mut |_| std::ops::ControlFlow::Continue(());
    write_model(&checkpoint, &Replacements::new(), &out, &Settings::default(), each).unwrap();
    let again = Checkpoint::open(&out).unwrap();
    for name in ["lm_head.weight", "model.embed_tokens.weight"] {
        assert_eq!(again.tensor(name).unwrap().bytes(), checkpoint.tensor(name).unwrap().bytes());
    }
    assert_eq!(answers(&out), changed.answers());
}

#[test]
fn a_head_that_is_not_there_is_the_embedding_and_a_configuration_that_says_otherwise_is_reported() {
    let changed = Changed::golden("llama_gqa_tied");
    let tied = changed.answers();
    let untied = changed.with("tie_word_embeddings", json!(false));
    assert_eq!(untied.answers(), tied);
    let notices = untied.notices();
    assert!(notices.len() == 1 && notices[0].contains("`tie_word_embeddings` is false"), "{notices:?}");
}

#[test]
fn a_tied_head_of_another_shape_is_refused() {
    let mut changed = Changed::golden("llama_gqa_tied");
    changed.tensors.insert("lm_head.weight".to_owned(), (vec![98, 48], vec![0.5; 98 * 48]));
    assert_eq!(changed.error(), "tensor `lm_head.weight`: expected shape [97, 48], found [98, 48]");
}

#[test]
fn fewer_blocks_than_the_files_have_are_refused_with_both_numbers() {
    for (name, key) in [("llama_gqa_tied", "num_hidden_layers"), ("mixtral", "num_hidden_layers")] {
        let changed = Changed::golden(name);
        let blocks = changed.config[key].as_u64().unwrap();
        let message = changed.with(key, json!(blocks - 1)).error();
        let expected = format!("`{key}` is {}, the files have tensors of {blocks} blocks", blocks - 1);
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains(&format!("\n\nhint: set `{key}` to {blocks}")), "{message}");
    }
}

#[test]
fn heads_that_predict_more_tokens_are_no_blocks() {
    let plain = Changed::golden("llama_gqa_tied");
    let expected = plain.answers();
    let add = |names: &[&str]| {
        let mut changed = Changed::golden("llama_gqa_tied");
        for name in names {
            changed.tensors.insert((*name).to_owned(), (vec![2], vec![1.0, 2.0]));
        }
        changed
    };
    // As DeepSeek V3, GLM 4.5, Qwen 3 Next and MiMo have them.
    for names in [
        &["model.layers.3.eh_proj.weight", "model.layers.3.mlp.up_proj.weight"][..],
        &["model.layers.3.enorm.weight", "model.layers.3.self_attn.q_proj.weight"],
        &["mtp.layers.0.mlp.up_proj.weight", "mtp.fc.weight"],
        &["model.mtp_layers.0.hidden_layernorm.weight", "model.mtp_layers.5.mlp.up_proj.weight"],
    ] {
        assert_eq!(add(names).answers(), expected, "{names:?}");
    }
    let unmarked = add(&["model.layers.3.mlp.up_proj.weight"]);
    assert!(unmarked.error().contains("`model.layers.3.mlp.up_proj.weight`"));
    let said = unmarked.with("num_nextn_predict_layers", json!(1));
    assert_eq!(said.answers(), expected);
}

#[test]
fn only_the_architectures_that_have_windows_look_for_them() {
    let plain = Changed::golden("llama_gqa_tied");
    let expected = plain.answers();
    for (key, value) in [
        ("sliding_window", json!(2)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["sliding_attention", "full_attention", "sliding_attention"])),
        ("max_window_layers", json!(0)),
    ] {
        let changed = Changed::golden("llama_gqa_tied").with("sliding_window", json!(2)).with(key, value);
        assert_eq!(changed.answers(), expected, "Llama has no windows, whatever {key} says");
    }
    let windows = Changed::golden("mistral_window").with("sliding_window", json!(2));
    let expected = windows.answers();
    assert_ne!(expected, Changed::golden("mistral_window").with("sliding_window", json!(null)).answers());
    let listed = vec!["full_attention"; windows.config["num_hidden_layers"].as_u64().unwrap() as usize];
    assert_eq!(
        windows.with("layer_types", json!(listed)).answers(),
        expected,
        "Mistral has one in every layer"
    );
}

/// The limits of the steps of Mamba-2 are most often infinite above, and Python writes that bare.
#[test]
fn a_bare_infinity_in_a_configuration_is_a_number() {
    for name in ["falcon_h1", "granite_hybrid", "nemotron_h"] {
        let golden = goldens().into_iter().find(|it| it.name == name).unwrap();
        let expected = answers(&golden.folder);
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&golden.folder).unwrap().map(|it| it.unwrap().path()) {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["time_step_limit"] = json!([0.0, "LIMIT"]);
        for (limit, differs) in [("Infinity", false), ("1e30", false), ("null", false), ("1e-3", true)] {
            std::fs::write(&path, config.to_string().replace("\"LIMIT\"", limit)).unwrap();
            assert_eq!(answers(folder.path()) != expected, differs, "{name}: {limit}");
        }
        std::fs::write(&path, config.to_string().replace("\"LIMIT\"", "NaN")).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let error = Engine::load(&checkpoint, &LoadOptions::default(), &mut |_, _| {}).err().unwrap();
        assert!(error.to_string().contains("`time_step_limit`"), "{error}");
    }
}

#[test]
fn a_number_that_must_be_finite_is_named_when_it_is_not() {
    for (name, shown) in [("Infinity", "inf"), ("NaN", "NaN")] {
        let message =
            Changed::golden("llama_gqa_tied").with("rms_norm_eps", json!({"__float__": name})).error();
        assert!(
            message.contains("`rms_norm_eps` to be a number, found `") && message.contains(shown),
            "{message}"
        );
    }
}

/// Gemma 3n's embeddings of all layers lie side by side in one tensor; quantized, its rows can only be decoded whole.
#[test]
fn quantized_embeddings_of_all_layers_are_read() {
    let mut seen = 0;
    for golden in goldens() {
        let name = &golden.name;
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let suffix = "embed_tokens_per_layer.weight";
        let Some(table) = checkpoint.names().find(|it| it.ends_with(suffix)) else { continue };
        let table = table.to_owned();
        seen += 1;
        let stored = checkpoint.tensor(&table).unwrap();
        // Powers of two, which eight bits hold exactly, with a scale for the whole tensor.
        let numbers: Vec<f32> = stored.to_f32().iter().map(|it| it.signum() * 0.5).collect();
        let plain = {
            let mut changed = Changed::of(&golden);
            changed.tensors.insert(table.clone(), (stored.shape().to_vec(), numbers.clone()));
            changed.answers()
        };
        let mut changed = Changed::of(&golden)
            .with("quantization_config", json!({"quant_method": "fp8", "activation_scheme": "dynamic"}));
        changed.tensors.remove(&table);
        let folder = changed.write();
        let bytes: Vec<u8> = numbers.iter().map(|it| if *it < 0.0 { 0xb8 } else { 0x38 }).collect(); // ∓1 in E4M3
        let scale = 0.5_f32.to_le_bytes();
        let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
        let others = safetensors::SafeTensors::deserialize(&file).unwrap();
        let mut views: Vec<(String, TensorView<'_>)> = others.tensors();
        let packed = TensorView::new(Dtype::F8_E4M3, stored.shape().to_vec(), &bytes).unwrap();
        views.push((table.clone(), packed));
        let scales = TensorView::new(Dtype::F32, vec![1], &scale).unwrap();
        views.push((format!("{table}_scale_inv"), scales));
        let whole = safetensors::serialize(views, None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), whole).unwrap();
        let opened = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(opened.tensor(&table).unwrap().to_f32(), numbers, "{name}");
        assert_ne!(
            opened.tensor(&table).unwrap().dtype(),
            TensorDtype::F8E4M3,
            "{name}: put together with its scale"
        );
        assert_eq!(answers(folder.path()), plain, "{name}");
    }
    assert!(seen > 0, "golden checkpoints have such tables");
}
