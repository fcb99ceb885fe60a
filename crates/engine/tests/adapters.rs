//! Adapters of Python's peft on golden checkpoints, against what peft computes with them, and what is written of both.

mod support;

use std::path::{Path, PathBuf};

use checkpoint::adapter::Adapter;
use checkpoint::write::{Replacements, Settings, write_model};
use checkpoint::{Checkpoint, Format};
use engine::{Answer, Device, Engine, Generation, LoadOptions, Request, with_adapter};
use serde_json::{Value, json};
use support::{Golden, largest, largest_difference, tokens};

/// As for the golden checkpoints themselves: peft computes in f32.
const RELATIVE: f32 = 1e-4;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn cases() -> Vec<Golden> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(tests().join("golden_adapters")).unwrap().map(|it| it.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 20, "golden adapters are part of the repository");
    folders.iter().map(|it| Golden::open(it)).collect()
}

fn base(case: &Golden) -> PathBuf {
    tests().join("golden").join(case.facts["base"].as_str().unwrap())
}

fn adapted(base: &Path, adapter: &Path) -> Result<Checkpoint, String> {
    let adapter = Adapter::open(adapter).map_err(|it| it.to_string())?;
    with_adapter(Checkpoint::open(base).unwrap(), &adapter, None).map_err(|it| it.to_string())
}

fn answers(checkpoint: &Checkpoint, golden: &Golden, device: Device) -> Vec<Answer> {
    let requests: Vec<Request> =
        golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
    let how = Generation { max_tokens: 12, logits: true, ..Generation::default() };
    let options = LoadOptions { device, threads: 2, ..LoadOptions::default() };
    let mut engine = Engine::load(checkpoint, &options, &mut |_, _| {}).unwrap();
    engine.generate(&requests, &how, &mut |_, _| false).unwrap()
}

fn expect_golden(case: &Golden, answers: &[Answer], relative: f32, what: &str) {
    let (_, logits) = case.tensor("logits");
    for (prompt, answer) in answers.iter().enumerate() {
        let place = format!("{}, {what}, prompt {prompt}", case.name);
        let found = &answer.first_token.as_ref().unwrap().logits;
        let expected = &logits[prompt * found.len()..][..found.len()];
        let (worst, at) = largest_difference(found, expected);
        assert!(worst <= relative * largest(expected), "{place}: logit {at} differs by {worst}");
        assert_eq!(answer.tokens, tokens(&case.facts["answers"][prompt]), "{place}");
    }
}

#[test]
fn a_model_with_an_adapter_computes_what_peft_computes() {
    for case in cases() {
        let golden = Golden::open(&base(&case));
        let checkpoint =
            adapted(&golden.folder, &case.folder).unwrap_or_else(|it| panic!("{}: {it}", case.name));
        assert_eq!(checkpoint.adapters().len(), 1);
        assert_eq!(checkpoint.adapters()[0].path, case.folder);
        for device in [Device::Cpu, Device::Reference] {
            expect_golden(&case, &answers(&checkpoint, &golden, device), RELATIVE, &format!("{device:?}"));
        }
    }
}

#[test]
fn what_is_written_of_a_model_with_an_adapter_is_a_model_without_one_that_computes_the_same() {
    for case in cases() {
        let golden = Golden::open(&base(&case));
        // The adapter lies beside the weights, as some training programs leave it.
        let folder = tempfile::tempdir().unwrap();
        let together = folder.path().join("together");
        std::fs::create_dir(&together).unwrap();
        for from in [&golden.folder, &case.folder] {
            for file in std::fs::read_dir(from).unwrap().map(|it| it.unwrap().path()) {
                if !file.file_name().unwrap().to_string_lossy().starts_with("golden") {
                    std::fs::copy(&file, together.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        let checkpoint = adapted(&together, &together).unwrap();
        let written = folder.path().join("written");
        let each = &mut |_| std::ops::ControlFlow::Continue(());
        write_model(&checkpoint, &Replacements::new(), &written, &Settings::default(), each).unwrap();
        assert!(
            !Adapter::is_at(&written) && !written.join("adapter_model.safetensors").exists(),
            "{}",
            case.name
        );
        let read = Checkpoint::open(&written).unwrap();
        let original = Checkpoint::open(&golden.folder).unwrap();
        let mut rounded = false;
        for name in original.names() {
            let dtype = |it: &Checkpoint| it.tensor(name).unwrap().dtype();
            assert_eq!(dtype(&read), dtype(&original), "{}: {name}", case.name);
            rounded |= dtype(&read).name() == "BF16";
        }
        let found = answers(&read, &golden, Device::Cpu);
        if rounded {
            // Weights of bf16 have 8 bits.
            let (_, logits) = case.tensor("logits");
            let own = found[0].first_token.as_ref().unwrap().logits.clone();
            let (worst, _) = largest_difference(&own, &logits[..own.len()]);
            assert!(worst <= 0.2 * largest(&logits[..own.len()]), "{}: {worst}", case.name);
        } else {
            expect_golden(&case, &found, RELATIVE, "written");
        }
    }
}

/// A case with another configuration or other tensors.
fn changed(name: &str, change: impl FnOnce(&Path, &mut Value)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let from = tests().join("golden_adapters").join(name);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("adapter_config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(folder.path(), &mut config);
    std::fs::write(path, config.to_string()).unwrap();
    let golden = Golden::open(&from);
    (folder, base(&golden))
}

type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// Rewrites the weights of an adapter.
fn rewrite(folder: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let own = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, view.shape().to_vec(), view.data().to_vec())
    };
    let mut tensors: Tensors = file.tensors().into_iter().map(own).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, shape, data)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap();
        (name.clone(), view)
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn refusal(name: &str, change: impl FnOnce(&Path, &mut Value)) -> String {
    let (folder, base) = changed(name, change);
    adapted(&base, folder.path()).expect_err(name)
}

#[test]
fn half_of_an_adapter_and_what_belongs_to_another_model_are_refused_by_name() {
    let without = |end: &'static str| {
        refusal("lora", move |folder, _| {
            rewrite(folder, |it| {
                let place = it.iter().position(|it| it.0.ends_with(end)).unwrap();
                it.remove(place);
            });
        })
    };
    for end in ["lora_A.weight", "lora_B.weight"] {
        let said = without(end);
        assert!(said.contains("the other factor") && said.contains("hint: "), "{said}");
    }
    let said = refusal("lora", |folder, _| {
        rewrite(folder, |it| it.retain(|it| !it.0.contains("v_proj")));
    });
    assert!(said.contains("`target_modules` names `v_proj`"), "{said}");
    let said = refusal("lora", |_, config| config["target_modules"] = json!(["q_proj"]));
    assert!(said.contains("`target_modules` does not name its module"), "{said}");
    for other in ["extra.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight", "alone"] {
        let said = refusal("lora", |folder, _| {
            rewrite(folder, |it| it.push((other.to_owned(), vec![1], vec![0; 4])));
        });
        assert!(said.contains(&format!("`{other}`")), "{said}");
    }
    let said = refusal("lora", |folder, _| {
        rewrite(folder, |it| {
            for it in it.iter_mut() {
                it.0 = it.0.replace("layers.2", "layers.7");
            }
        });
    });
    assert!(said.contains("layers.7") && said.contains("has no such module"), "{said}");
    let said = refusal("lora", |_, config| config["r"] = json!(4));
    assert!(said.contains("should be 3") && said.contains("found 4"), "{said}");
    let said = refusal("dora", |_, config| config["use_dora"] = json!(false));
    assert!(said.contains("lora_magnitude_vector") && said.contains("`use_dora` is not true"), "{said}");
    let said = refusal("lora", |_, config| config["use_dora"] = json!(true));
    assert!(said.contains("`use_dora` is true"), "{said}");
    let said = refusal("tokens", |_, config| config["trainable_token_indices"] = json!([1, 2, 9999]));
    assert!(said.contains("row 9999") && said.contains("which has 97"), "{said}");
    let said = refusal("tokens", |_, config| config["trainable_token_indices"] = json!([1, 2]));
    assert!(said.contains("[3, 48]") && said.contains("[2, 48]"), "{said}");
    let said = refusal("experts", |_, config| config["target_parameters"] = json!(["down_proj"]));
    assert!(said.contains("experts") && said.contains("has no such module"), "{said}");
    let (folder, _) = changed("lora", |_, _| {});
    let said = adapted(&tests().join("golden/llama_untied_bias"), folder.path()).unwrap_err();
    assert!(said.contains("and the base model asks for"), "{said}");
    // A bias where the model has none.
    let (folder, _) = changed("biases", |_, _| {});
    let said = adapted(&tests().join("golden/llama_gqa_tied"), folder.path()).unwrap_err();
    assert!(said.contains("bias") && said.contains("has no such module"), "{said}");
}

#[test]
fn names_of_earlier_versions_and_of_state_dictionaries_mean_the_same() {
    let (folder, base) = changed("dora", |folder, _| {
        rewrite(folder, |it| {
            for it in it.iter_mut() {
                it.0 = it.0.replace("lora_A.weight", "lora_A.default.weight");
                if it.0.ends_with("lora_magnitude_vector") {
                    it.0.push_str(".weight");
                }
            }
        });
    });
    let case = Golden::open(&tests().join("golden_adapters/dora"));
    let golden = Golden::open(&base);
    let checkpoint = adapted(&base, folder.path()).unwrap();
    expect_golden(&case, &answers(&checkpoint, &golden, Device::Cpu), RELATIVE, "other names");

    // A module of each expert, as transformers 4 had them: on tensors of their own, and on one of all.
    let golden = Golden::open(&tests().join("golden/mixtral"));
    let case = Golden::open(&tests().join("golden_adapters/experts_one"));
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(case.folder.join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| support::read_tensor(&bytes, name);
    let mut tensors: Tensors = Vec::new();
    let (count, rank) = (8, 2);
    for name in file.names() {
        let Some(module) = name.strip_suffix(".lora_A.weight") else { continue };
        let (down, up) = (numbers(name), numbers(&format!("{module}.lora_B.weight")));
        let (inputs, outputs) = (down.0[1], up.0[0]);
        let raw = |it: Vec<f32>| it.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        for expert in 0..count {
            let own = down.1[expert * rank * inputs..][..rank * inputs].to_vec();
            let column = |row: usize, j: usize| up.1[row * rank * count + j * count + expert];
            let own_up = (0..outputs).flat_map(|row| (0..rank).map(move |j| (row, j)));
            let own_up: Vec<f32> = own_up.map(|(row, j)| column(row, j)).collect();
            let module = format!("{module}.{expert}.down_proj");
            tensors.push((format!("{module}.lora_A.weight"), vec![rank, inputs], raw(own)));
            tensors.push((format!("{module}.lora_B.weight"), vec![outputs, rank], raw(own_up)));
        }
    }
    assert!(!tensors.is_empty() && golden.name == "mixtral");
    std::fs::copy(
        case.folder.join("adapter_model.safetensors"),
        folder.path().join("adapter_model.safetensors"),
    )
    .unwrap();
    rewrite(folder.path(), |it| *it = tensors);
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["down_proj"]});
    std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    let golden = Golden::open(&base_of(&case));
    let checkpoint = adapted(&golden.folder, folder.path()).unwrap();
    expect_golden(&case, &answers(&checkpoint, &golden, Device::Cpu), RELATIVE, "modules of experts");
}

fn base_of(case: &Golden) -> PathBuf {
    base(case)
}

#[test]
fn an_adapter_on_quantized_weights_is_one_on_what_they_mean() {
    let mut seen = 0;
    for golden in support::goldens().into_iter().filter(|it| it.name.starts_with("quantized_")) {
        let original = Checkpoint::open(&golden.folder).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        let text = std::fs::read_to_string(golden.folder.join("config.json")).unwrap();
        let quantized = folder.path().join("quantized");
        std::fs::create_dir(&quantized).unwrap();
        for file in std::fs::read_dir(&golden.folder).unwrap().map(|it| it.unwrap().path()) {
            std::fs::copy(&file, quantized.join(file.file_name().unwrap())).unwrap();
        }
        // In f32, so that nothing is rounded on the way.
        let text = text.replace("bfloat16", "float32").replace("float16", "float32");
        std::fs::write(quantized.join("config.json"), text).unwrap();
        let each = &mut |_| std::ops::ControlFlow::Continue(());
        let checkpoint = Checkpoint::open(&quantized).unwrap();
        write_model(&checkpoint, &Replacements::new(), &plain, &Settings::default(), each).unwrap();
        let weight = original.tensor("model.layers.0.self_attn.o_proj.weight").unwrap();
        let (outputs, inputs) = (weight.rows(), weight.row_len());
        let adapter = folder.path().join("adapter");
        std::fs::create_dir(&adapter).unwrap();
        let lora = |rows: usize, columns: usize| -> Vec<u8> {
            (0..rows * columns).flat_map(|it| ((it % 7) as f32 * 0.1 - 0.3).to_le_bytes()).collect()
        };
        let module = "base_model.model.model.layers.0.self_attn.o_proj";
        std::fs::copy(
            tests().join("golden_adapters/lora/adapter_model.safetensors"),
            adapter.join("adapter_model.safetensors"),
        )
        .unwrap();
        rewrite(&adapter, |it| {
            *it = vec![
                (format!("{module}.lora_A.weight"), vec![2, inputs], lora(2, inputs)),
                (format!("{module}.lora_B.weight"), vec![outputs, 2], lora(outputs, 2)),
            ];
        });
        let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["o_proj"]});
        std::fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
        let found = answers(&adapted(&quantized, &adapter).unwrap(), &golden, Device::Cpu);
        let expected = answers(&adapted(&plain, &adapter).unwrap(), &golden, Device::Cpu);
        let untouched = answers(&original, &golden, Device::Cpu);
        assert_ne!(found, untouched, "{}", golden.name);
        for (found, expected) in found.iter().zip(&expected) {
            let logits = |it: &Answer| it.first_token.as_ref().unwrap().logits.clone();
            let (worst, _) = largest_difference(&logits(found), &logits(expected));
            assert!(worst <= RELATIVE * largest(&logits(expected)), "{}: {worst}", golden.name);
        }
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
}

#[test]
fn an_adapter_of_a_folder_is_one_of_its_gguf_file_too() {
    let mut seen = 0;
    for case in cases().iter().filter(|it| ["lora", "dora", "fused"].contains(&it.name.as_str())) {
        let golden = Golden::open(&base(case));
        let file = tests().join("golden_gguf").join(format!("{}.gguf", golden.name));
        if !file.exists() {
            continue;
        }
        let checkpoint = adapted(&file, &case.folder).unwrap();
        assert_eq!(checkpoint.format(), Format::Gguf);
        expect_golden(case, &answers(&checkpoint, &golden, Device::Cpu), RELATIVE, "GGUF");
        let folder = tempfile::tempdir().unwrap();
        let written = folder.path().join("written.gguf");
        let each = &mut |_| std::ops::ControlFlow::Continue(());
        write_model(&checkpoint, &Replacements::new(), &written, &Settings::default(), each).unwrap();
        let read = Checkpoint::open(&written).unwrap();
        if checkpoint.tensor("blk.0.attn_q.weight").is_ok_and(|_| golden.name.starts_with("llama")) {
            expect_golden(case, &answers(&read, &golden, Device::Cpu), RELATIVE, "written GGUF");
        }
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
    let said =
        adapted(&tests().join("golden_gguf/llama_gqa_tied.gguf"), &tests().join("golden_adapters/tied_head"));
    let said = said.unwrap_err();
    assert!(said.contains("lm_head") && said.contains("only weights of linear modules"), "{said}");
}

#[test]
fn adapters_are_added_one_after_the_other() {
    let golden = Golden::open(&tests().join("golden/llama_gqa_tied"));
    let open = |name: &str| Adapter::open(&tests().join("golden_adapters").join(name)).unwrap();
    let mut checkpoint = Checkpoint::open(&golden.folder).unwrap();
    for name in ["lora", "tied_head", "dora", "tokens"] {
        checkpoint = with_adapter(checkpoint, &open(name), None).unwrap();
    }
    assert_eq!(checkpoint.adapters().len(), 4);
    // Written after each, and read again.
    let folder = tempfile::tempdir().unwrap();
    let mut step = golden.folder.clone();
    for name in ["lora", "tied_head", "dora", "tokens"] {
        let changed = with_adapter(Checkpoint::open(&step).unwrap(), &open(name), None).unwrap();
        step = folder.path().join(name);
        let each = &mut |_| std::ops::ControlFlow::Continue(());
        write_model(&changed, &Replacements::new(), &step, &Settings::default(), each).unwrap();
    }
    let found = answers(&checkpoint, &golden, Device::Cpu);
    let expected = answers(&Checkpoint::open(&step).unwrap(), &golden, Device::Cpu);
    assert_eq!(found, expected);
}
