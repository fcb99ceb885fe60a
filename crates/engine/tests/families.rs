//! What every model family passes: the reference stack's numbers for tiny random checkpoints, and the laws.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use checkpoint::write::{Replacement, Replacements, Settings, write_model};
use checkpoint::{Checkpoint, Tensor};
use engine::backend::cpu::Isa;
use engine::families::FAMILIES;
use engine::{Answer, Continuation, Device, Engine, Generation, LoadOptions, Request};
use glossary::{Edit, EditSet, TokenId};
use serde_json::Value;
use support::streams::Silent;
use support::{Golden, goldens, largest, largest_difference, numbers, tokens};

/// Logits and residuals of these checkpoints differ by up to 5e-5 of their largest value between f32 and f64 in
/// the reference stack itself (`f64_difference` in each golden.json).
const RELATIVE: f32 = 1e-4;

/// Every way to compute on this machine.
fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(Device::CpuWith).chain([Device::Reference]).collect()
}

/// The names of the golden checkpoints with something.
fn names(with: impl Fn(&Checkpoint) -> bool) -> BTreeSet<String> {
    let all = goldens().into_iter().filter(|it| with(&Checkpoint::open(&it.folder).unwrap()));
    all.map(|it| it.name).collect()
}

fn has_tensor(part: &str) -> impl Fn(&Checkpoint) -> bool {
    move |checkpoint| checkpoint.names().any(|it| it.contains(part))
}

fn requests(golden: &Golden) -> Vec<Request> {
    golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect()
}

const EVERYTHING: Generation =
    Generation { max_tokens: 16, stop_tokens: Vec::new(), batch: 128, top: 3, logits: true, residuals: true };

fn answers(golden: &Golden, device: Device) -> Vec<Answer> {
    golden.engine(device).generate(&requests(golden), &EVERYTHING, &mut |_, _| false).unwrap()
}

#[test]
fn logits_residuals_and_greedy_answers_are_those_of_the_reference_stack() {
    for golden in goldens() {
        let (shape, residuals) = golden.tensor("residuals");
        let (sites, d_model) = (shape[1], shape[2]);
        let (_, logits) = golden.tensor("logits");
        for device in devices() {
            let answers = answers(&golden, device);
            for (prompt, answer) in answers.iter().enumerate() {
                let place = format!("{}, {device:?}, prompt {prompt}", golden.name);
                let expected = &residuals[prompt * sites * d_model..][..sites * d_model];
                for site in 0..sites {
                    let range = site * d_model..(site + 1) * d_model;
                    let (worst, at) =
                        largest_difference(&answer.residuals[range.clone()], &expected[range.clone()]);
                    let scale = largest(&expected[range]);
                    assert!(
                        worst <= RELATIVE * scale,
                        "{place}: site {site} is the first to differ, by {worst} of {scale} at component {at}"
                    );
                }
                let first = answer.first_token.as_ref().unwrap();
                let expected = &logits[prompt * first.logits.len()..][..first.logits.len()];
                let (worst, at) = largest_difference(&first.logits, expected);
                assert!(worst <= RELATIVE * largest(expected), "{place}: logit {at} differs by {worst}");
                let exact = expected.iter().map(|&it| f64::from(it).exp()).sum::<f64>().ln() as f32;
                assert!((first.logsumexp - exact).abs() <= 1e-3, "{place}: logsumexp {}", first.logsumexp);
                let expected = tokens(&golden.facts["answers"][prompt]["ids"]);
                assert_eq!(answer.tokens, expected, "{place}: greedy answer");
            }
        }
    }
}

#[test]
fn log_probabilities_of_given_continuations_are_those_of_the_reference_stack() {
    for golden in goldens() {
        let prompts = golden.prompts();
        let given = golden.facts["continuations"].as_array().unwrap();
        let requests: Vec<Continuation> = given
            .iter()
            .map(|it| Continuation {
                prompt: prompts[it["prompt"].as_u64().unwrap() as usize].clone(),
                continuation: tokens(&it["ids"]),
                edit: 0,
            })
            .collect();
        for device in devices() {
            for logits in [false, true] {
                let mut told = vec![Vec::new(); given.len()];
                let mut choices = told.clone();
                let mut engine = golden.engine(device);
                engine
                    .force(&requests, logits, &mut |it| {
                        assert_eq!(it.position, told[it.request].len());
                        assert_eq!(it.token, requests[it.request].continuation[it.position]);
                        if logits {
                            assert_eq!(it.logits[it.token.index()].to_bits(), it.logit.to_bits());
                        }
                        told[it.request].push(it.logit - it.logsumexp);
                        choices[it.request].push(it.choice.0 as f32);
                    })
                    .unwrap();
                for (index, expected) in given.iter().enumerate() {
                    let (worst, at) = largest_difference(&told[index], &numbers(&expected["logprobs"]));
                    assert!(worst < 2e-3, "{}, {device:?}: token {at} of {index} by {worst}", golden.name);
                    assert_eq!(choices[index], numbers(&expected["top_ids"]), "{}", golden.name);
                }
            }
        }
    }
}

#[test]
fn a_configuration_in_the_other_notation_is_the_same_model() {
    let mut seen = BTreeSet::new();
    for golden in goldens() {
        for version in [4, 5] {
            let other = golden.folder.join(format!("config.transformers-{version}.json"));
            if !other.exists() {
                continue;
            }
            seen.insert(golden.name.clone());
            let folder = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(&golden.folder).unwrap().map(|it| it.unwrap().path()) {
                std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
            }
            std::fs::copy(&other, folder.path().join("config.json")).unwrap();
            let mut engine = support::engine(folder.path(), Device::Cpu);
            let again = engine.generate(&requests(&golden), &EVERYTHING, &mut |_, _| false).unwrap();
            assert_eq!(again, answers(&golden, Device::Cpu), "{} for transformers {version}", golden.name);
        }
    }
    assert_eq!(seen, names(|_| true), "every golden checkpoint has its configuration in the other notation");
}

#[test]
fn an_unknown_architecture_is_read_as_the_family_that_is_named() {
    let golden = goldens().into_iter().find(|it| it.name == "llama_gqa_tied").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&golden.folder).unwrap().map(|it| it.unwrap().path()) {
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["architectures"] = serde_json::json!(["GloboForCausalLM"]);
    config["model_type"] = "globo".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let load = |family: Option<&str>| {
        let family = family.map(str::to_owned);
        let options = LoadOptions { threads: 1, family, ..LoadOptions::default() };
        Engine::load(&checkpoint, &options, &mut |_, _| {})
    };
    assert!(load(None).is_err());
    let mut engine = load(Some("llama")).unwrap();
    let found = engine.generate(&requests(&golden), &EVERYTHING, &mut |_, _| false).unwrap();
    assert_eq!(found, answers(&golden, Device::Cpu));
    assert!(load(Some("phi3")).is_err(), "tensors of another family are not there");
}

#[test]
fn a_known_architecture_that_no_family_reads_is_refused_with_the_reason() {
    let golden = goldens().into_iter().find(|it| it.name == "llama_gqa_tied").unwrap();
    for (architecture, why) in [
        ("BartForCausalLM", "attend to what an encoder makes"),
        ("Gemma4AssistantForCausalLM", "edit the model that it assists"),
        ("MambaForCausalLM", "its recurrence is another"),
        ("ChatGLMModel", "its code comes with the checkpoint"),
        ("BambaForCausalLM", "no model family of this program reads it yet"),
        ("GloboForCausalLM", "unknown architecture"),
    ] {
        let folder = golden.copied();
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["architectures"] = serde_json::json!([architecture]);
        std::fs::write(&path, config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let load = |family: Option<&str>| {
            let family = family.map(str::to_owned);
            let options = LoadOptions { threads: 1, family, ..LoadOptions::default() };
            Engine::load(&checkpoint, &options, &mut |_, _| {}).map(|_| ())
        };
        let error = load(None).unwrap_err().to_string();
        assert!(error.contains(architecture) && error.contains(why), "{architecture}: {error}");
        assert!(error.contains("\n\nhint: "), "{architecture}: {error}");
        load(Some("llama")).unwrap();
    }
}

#[test]
fn a_batch_has_the_bits_of_single_runs() {
    for golden in goldens() {
        for isa in Isa::available() {
            let together = answers(&golden, Device::CpuWith(isa));
            let mut engine = golden.engine(Device::CpuWith(isa));
            for (index, request) in requests(&golden).into_iter().enumerate() {
                let alone = engine.generate(&[request], &EVERYTHING, &mut |_, _| false).unwrap();
                assert_eq!(alone[0], together[index], "{}, {}, prompt {index}", golden.name, isa.name());
            }
            // In threes, so that sequences wait and join while others are under way.
            let few = Generation { batch: 3, ..EVERYTHING };
            let in_turns = engine.generate(&requests(&golden), &few, &mut |_, _| false).unwrap();
            assert_eq!(in_turns, together, "{}, {}", golden.name, isa.name());
        }
    }
}

/// Found by a search that was killed in the middle of a batch: a sequence that went on while others joined got its last
/// token twice.
#[test]
fn sequences_that_join_while_others_go_on_leave_their_answers_alone() {
    let golden = goldens().into_iter().next().unwrap();
    let requests: Vec<Request> = requests(&golden).into_iter().cycle().take(13).collect();
    // Answers of different lengths, so that places become free one by one.
    let mut ends = |request: usize, answer: &[TokenId]| answer.len() > request * 7 % 12;
    let mut engine = golden.engine(Device::Cpu);
    let mut answers = |batch| {
        let how = Generation { batch, ..EVERYTHING };
        engine.generate(&requests, &how, &mut ends).unwrap()
    };
    let together = answers(13);
    for batch in [1, 2, 4, 5, 8] {
        assert!(answers(batch) == together, "batch of {batch}");
    }
}

#[test]
fn prompts_with_a_common_head_have_the_bits_of_single_runs() {
    for golden in goldens() {
        let head = golden.prompts().into_iter().max_by_key(Vec::len).unwrap();
        let requests: Vec<Request> =
            (3..9).map(|last| Request { tokens: [&head[..], &[TokenId(last)]].concat(), edit: 0 }).collect();
        let mut engine = golden.engine(Device::Cpu);
        let together = engine.generate(&requests, &EVERYTHING, &mut |_, _| false).unwrap();
        for (request, together) in requests.into_iter().zip(together) {
            let alone = engine.generate(&[request], &EVERYTHING, &mut |_, _| false).unwrap();
            assert_eq!(alone[0], together, "{}", golden.name);
        }
    }
}

#[test]
fn of_latent_attention_the_cache_holds_latents_and_shared_keys_alone() {
    let mut seen = BTreeSet::new();
    for golden in goldens() {
        let config = std::fs::read(golden.folder.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let text = if config["text_config"].is_object() { &config["text_config"] } else { &config };
        let (Some(latent), Some(key)) = (text["kv_lora_rank"].as_u64(), text["qk_rope_head_dim"].as_u64())
        else {
            continue;
        };
        seen.insert(golden.name.clone());
        let engine = golden.engine(Device::Cpu);
        // Delta nets keep nothing of single tokens.
        let listed = text["linear_attn_config"]["full_attn_layers"].as_array().map(Vec::len);
        let attends = |it: &&Value| *it != "linear_attention";
        let of_types = text["layer_types"].as_array().map(|it| it.iter().filter(attends).count());
        let layers = listed.or(of_types).unwrap_or(engine.info().n_layers);
        let numbers = layers * (latent + key) as usize;
        assert_eq!(engine.info().cache_bytes_per_token, numbers * size_of::<f32>(), "{}", golden.name);
    }
    assert_eq!(seen, names(has_tensor("kv_a_proj_with_mqa")));
}

/// A copy of a golden checkpoint without the biases of its writers; `None` where they have none.
fn without_biases_of_writers(golden: &Golden) -> Option<tempfile::TempDir> {
    let checkpoint = Checkpoint::open(&golden.folder).unwrap();
    let engine = golden.engine(Device::Cpu);
    let zeros = |name: &String| {
        let shape = checkpoint.tensor(name).unwrap().shape().to_vec();
        (name.clone(), Replacement::new(shape, |_, out| out.fill(0.0)))
    };
    let biases: Replacements<'_> =
        engine.info().writers.iter().filter_map(|it| it.bias.as_ref()).map(zeros).collect();
    if biases.is_empty() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let each = &mut |_| std::ops::ControlFlow::Continue(());
    write_model(&checkpoint, &biases, &folder.path().join("out"), &Settings::default(), each).unwrap();
    Some(folder)
}

/// An edit that silences a writer: s = 0.
fn silence(width: usize) -> Edit {
    Edit::new(width, Vec::new(), Vec::new(), Some(vec![0.0; width])).unwrap()
}

/// But for the number that some models multiply the stream with at the end of each block, which is told of them, and for
/// what models with several streams make of these themselves, which is computed apart. An edit comes before a writer's bias,
/// which it does not silence: biases are zeroed in the files.
#[test]
fn silencing_all_declared_writers_makes_each_block_the_identity() {
    let (mut scaled, mut several, mut biased) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut covered, mut families) = (BTreeSet::new(), BTreeSet::new());
    for golden in goldens() {
        let unbiased = without_biases_of_writers(&golden);
        let folder = unbiased.as_ref().map_or(golden.folder.clone(), |it| it.path().join("out"));
        if unbiased.is_some() {
            biased.insert(golden.name.clone());
        }
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for device in devices() {
            let mut engine = support::engine(&folder, device);
            families.insert(engine.info().family);
            let width = engine.info().d_model;
            let scales = engine.info().stream_scales.clone();
            if scales.iter().any(|it| it.to_bits() != 1.0_f32.to_bits()) {
                scaled.insert(golden.name.clone());
            }
            let sites = engine.info().n_layers + 1;
            let all: EditSet = engine.info().writers.iter().map(|it| (it.writer, silence(width))).collect();
            engine.set_edits(&[all]).unwrap();
            let requests: Vec<Request> =
                requests(&golden).into_iter().map(|it| Request { edit: 1, ..it }).collect();
            let answers = engine.generate(&requests, &EVERYTHING, &mut |_, _| false).unwrap();
            if let Some(model) = Silent::of(&checkpoint) {
                several.insert(golden.name.clone());
                covered.insert((golden.name.clone(), format!("{device:?}")));
                for (request, answer) in requests.iter().zip(answers) {
                    let expected = model.sites(*request.tokens.last().unwrap());
                    assert_eq!(expected.len(), sites);
                    for (site, (found, expected)) in answer.residuals.chunks(width).zip(&expected).enumerate()
                    {
                        let (by, _) = largest_difference(found, expected);
                        let place = format!("{}, {device:?}: site {site}", golden.name);
                        assert!(by <= RELATIVE * largest(expected), "{place} is off by {by}");
                    }
                }
                continue;
            }
            for answer in answers {
                let mut expected = answer.residuals[..width].to_vec();
                // The last site is read after the final norm.
                for site in 1..sites - 1 {
                    for number in &mut expected {
                        *number *= scales[site - 1];
                    }
                    let found = &answer.residuals[site * width..][..width];
                    assert_eq!(expected, found, "{}, {device:?}: block {} writes", golden.name, site - 1);
                    covered.insert((golden.name.clone(), format!("{device:?}")));
                }
            }
        }
    }
    // Of a single block nothing can be seen but what is read after the final norm.
    let of_several_blocks = |it: &Golden| it.engine(Device::Cpu).info().n_layers > 1;
    let expected = goldens().into_iter().filter(of_several_blocks).flat_map(|golden| {
        devices().into_iter().map(move |device| (golden.name.clone(), format!("{device:?}")))
    });
    assert_eq!(covered, expected.collect(), "every golden checkpoint on every device");
    assert_eq!(families, FAMILIES.iter().map(|it| it.name).collect(), "every family");
    assert_eq!(scaled, names(has_tensor(".layer_scalar")));
    assert_eq!(several, names(has_tensor(".altup.")));
    // Biases of writers, by what files call writers.
    let writers = ["o_proj", "down_proj", "out_proj", "dense", "fc2", "c_proj", "output_linear", "w2"];
    let named = |it: &str| writers.iter().any(|writer| it.ends_with(&format!(".{writer}.bias")));
    let of_experts = |it: &str| it.ends_with(".down_proj_bias");
    let vision = |it: &str| it.contains("visual") || it.contains("vision") || it.contains("audio");
    assert_eq!(biased, names(|it| it.names().any(|it| (named(it) || of_experts(it)) && !vision(it))));
}

#[test]
fn taking_edits_off_restores_the_bits_of_the_original() {
    let golden = &goldens()[0];
    let mut engine = golden.engine(Device::Cpu);
    let before = engine.generate(&requests(golden), &EVERYTHING, &mut |_, _| false).unwrap();
    let width = engine.info().d_model;
    let writer = engine.info().writers[0].writer;
    engine.set_edits(&[[(writer, silence(width))].into_iter().collect()]).unwrap();
    let edited: Vec<Request> = requests(golden).into_iter().map(|it| Request { edit: 1, ..it }).collect();
    let during = engine.generate(&edited, &EVERYTHING, &mut |_, _| false).unwrap();
    assert_ne!(before, during, "the edit does something");
    engine.set_edits(&[]).unwrap();
    assert_eq!(engine.generate(&requests(golden), &EVERYTHING, &mut |_, _| false).unwrap(), before);
}

/// transformers does not look at `architectures` at all.
#[test]
fn a_configuration_without_architectures_is_what_its_model_type_says() {
    for golden in goldens() {
        let folder = tempfile::tempdir().unwrap();
        copy(&golden.folder, folder.path());
        for nothing in [None, Some(Value::Null), Some(serde_json::json!([]))] {
            edit_config(folder.path(), |it| match &nothing {
                None => drop(it.as_object_mut().unwrap().remove("architectures")),
                Some(value) => it["architectures"] = value.clone(),
            });
            let engine = support::engine(folder.path(), Device::Cpu);
            assert_eq!(engine.info().family, golden.engine(Device::Cpu).info().family, "{}", golden.name);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(|it| it.unwrap().path()) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn edit_config(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

/// Opens a golden checkpoint with its configuration changed.
fn changed(golden: &Golden, change: impl Fn(&mut Value)) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden.folder, folder.path());
    edit_config(folder.path(), |config| {
        change(if config["text_config"].is_object() { &mut config["text_config"] } else { config });
    });
    let checkpoint = Checkpoint::open(folder.path()).map_err(|error| error.to_string())?;
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    Engine::load(&checkpoint, &options, &mut |_, _| {}).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_configuration_that_asks_for_something_unknown_is_refused_by_name() {
    let spiral = serde_json::json!({"rope_type": "spiral", "rope_theta": 100.0});
    for golden in goldens() {
        let refused = |change: &dyn Fn(&mut Value), key: &str, value: &str| {
            let error = changed(&golden, change).expect_err(&format!("{}, {key}", golden.name));
            assert!(error.contains(key) && error.contains(value), "{}, {key}: {error}", golden.name);
        };
        let activation: &dyn Fn(&mut Value) = &|it| {
            for key in ["hidden_act", "hidden_activation", "mlp_hidden_act"] {
                it[key] = "relu9".into();
            }
        };
        refused(activation, "hidden_act", "relu9");
        let rotation: &dyn Fn(&mut Value) = &|it| {
            it["rope_parameters"] = spiral.clone();
            it["rope_scaling"] = spiral.clone();
        };
        refused(rotation, "rope_type", "spiral");
        let quantized: &dyn Fn(&mut Value) =
            &|it| it["quantization_config"] = serde_json::json!({"quant_method": "aqlm"});
        refused(quantized, "quant_method", "aqlm");
    }
}

#[test]
fn what_a_family_does_not_do_is_refused_by_name() {
    let one_list = serde_json::json!({"full_attn_layers": [2], "kda_layers": [1, 2, 3]});
    let no_list = serde_json::json!({"full_attn_layers": [2], "kda_layers": [1]});
    for (name, key, value, found) in [
        ("laguna", "gating", false.into(), "`false`"),
        ("laguna", "gating", "per-layer".into(), "`per-layer`"),
        ("laguna", "moe_apply_router_weight_on_input", true.into(), "`true`"),
        ("laguna", "num_attention_heads_per_layer", vec![4, 3, 6].into(), "[1]` is `3`"),
        ("mimo_v2_flash", "swa_head_dim", 10.into(), "known are head_dim = 12"),
        ("mimo_v2_flash", "swa_num_key_value_heads", 3.into(), "`3`"),
        ("mimo_v2_flash", "scoring_func", "softmax".into(), "`softmax`"),
        ("step3p7_container", "moe_layers_enum", "1,x".into(), "moe_layers_enum"),
        ("step3p7_container", "swiglu_limits", vec![0.0, -1.0, 0.0].into(), "[1]` is `-1.0`"),
        ("step3p7_container", "use_bidirectional_attention", true.into(), "`true`"),
        ("kimi_linear", "mla_use_nope", false.into(), "`false`"),
        ("kimi_linear", "linear_attn_config", one_list, "layer 2 in both lists"),
        ("kimi_linear", "linear_attn_config", no_list, "layer 3 in none"),
        ("deepseek_v32", "index_topk", Value::from(0), "index_topk"),
    ] {
        let golden = goldens().into_iter().find(|it| it.name == name).unwrap();
        let error = changed(&golden, |it| it[key] = value.clone()).expect_err(&format!("{name}, {key}"));
        assert!(error.contains(key) && error.contains(found), "{name}, {key}: {error}");
    }
}

#[test]
fn an_unknown_layer_type_is_refused_by_name() {
    let mut seen = BTreeSet::new();
    for golden in goldens() {
        let change = |it: &mut Value| {
            if let Some(first) = it.get_mut("layer_types").and_then(|it| it.get_mut(0)) {
                *first = "chunked_attention".into();
            }
        };
        let Err(error) = changed(&golden, change) else { continue };
        seen.insert(golden.name.clone());
        assert!(error.contains("layer_types[0]") && error.contains("chunked_attention"), "{error}");
    }
    let text = |it: &Checkpoint| {
        let config = it.config();
        if config["text_config"].is_object() { config["text_config"].clone() } else { config.clone() }
    };
    let listed = names(|it| text(it)["layer_types"].is_array());
    // Where windows are switched off, nothing is asked of the list.
    let off = names(|it| {
        text(it)["sliding_window"].is_null() || text(it)["use_sliding_window"].as_bool() == Some(false)
    });
    let left: BTreeSet<String> = listed.difference(&seen).cloned().collect();
    assert!(left.is_subset(&off), "{left:?}");
    assert_eq!(seen.difference(&listed).count(), 0);
}

/// The image tower of a container is none of the engine's business, and is not lost.
#[test]
fn what_a_container_has_beside_its_language_model_is_written_unchanged() {
    let mut seen = BTreeSet::new();
    for golden in goldens().into_iter().filter(|it| it.name.contains("container")) {
        seen.insert(golden.name.clone());
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let engine = golden.engine(Device::Cpu);
        let written: Vec<&Tensor> = engine.info().writers.iter().map(|it| &it.weight).collect();
        let zeros = |name: &str| {
            let shape = checkpoint.tensor(name).unwrap().shape().to_vec();
            Replacement::new(shape, |_, out| out.fill(0.0))
        };
        let replacements: Replacements<'_> =
            written.iter().map(|it| (it.name().to_owned(), zeros(it.name()))).collect();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let each = &mut |_| std::ops::ControlFlow::Continue(());
        write_model(&checkpoint, &replacements, &out, &Settings::default(), each).unwrap();
        let again = Checkpoint::open(&out).unwrap();
        let names: Vec<&str> = checkpoint.names().collect();
        assert_eq!(names, again.names().collect::<Vec<_>>(), "{}", golden.name);
        for name in names {
            let (before, after) = (checkpoint.tensor(name).unwrap(), again.tensor(name).unwrap());
            let replaced = replacements.contains_key(name);
            assert_eq!(before.bytes() == after.bytes(), !replaced, "{}: {name}", golden.name);
        }
        assert!(checkpoint.names().any(|it| it.contains("vis")), "{}", golden.name);
        let silent = support::engine(&out, Device::Cpu);
        assert_eq!(silent.info().writers.len(), written.len());
    }
    let holds =
        |it: &Checkpoint| it.config()["architectures"].to_string().contains("ForConditionalGeneration");
    assert_eq!(seen, names(holds));
}
