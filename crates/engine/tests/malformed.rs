//! Checkpoints and requests that are not in order: an error that names the thing, never a panic.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::Checkpoint;
use engine::backend::WeightDtype;
use engine::blueprint::{LimitCause, PositionLimit};
use engine::{
    Continuation, Device, DtypeChoice, Engine, EngineError, Generation, LoadError, LoadOptions, Request,
    StopReason,
};
use glossary::{Edit, TokenId};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::{Golden, goldens};

fn golden(name: &str) -> Golden {
    goldens().into_iter().find(|it| it.name == name).unwrap()
}

/// A checkpoint that can be spoiled before it is written.
struct Spoiled {
    config: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Spoiled {
    fn new(golden: &Golden) -> Self {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let tensor = |name: &str| {
            let tensor = checkpoint.tensor(name).unwrap();
            (name.to_owned(), (tensor.shape().to_vec(), tensor.to_f32()))
        };
        Self { config: checkpoint.config().clone(), tensors: checkpoint.names().map(tensor).collect() }
    }

    fn write(&self, folder: &Path) {
        let tensors: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, it))| (name, shape, it.iter().flat_map(|it| it.to_le_bytes()).collect()))
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
    }

    fn load(&self, device: Device) -> Result<Engine, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        load(folder.path(), device)
    }

    fn error(&self) -> String {
        let message = self.load(Device::Cpu).err().expect("the checkpoint is refused").to_string();
        let on_the_oracle =
            self.load(Device::Reference).err().expect("the checkpoint is refused").to_string();
        // Messages may name the folder, which is another one.
        assert_eq!(message.split('/').next(), on_the_oracle.split('/').next());
        message
    }
}

fn load(folder: &Path, device: Device) -> Result<Engine, LoadError> {
    let dtype = DtypeChoice::Fixed(WeightDtype::F32);
    let options = LoadOptions { device, dtype, threads: 1, ..LoadOptions::default() };
    Engine::load(&Checkpoint::open(folder)?, &options, &mut |_, _| {})
}

#[test]
fn a_weight_that_is_no_number_is_named_with_its_place() {
    for (tensor, at, value) in [
        ("model.layers.1.mlp.down_proj.weight", 3 * 80 + 5, f32::NAN),
        ("model.layers.0.self_attn.k_proj.weight", 2 * 48, f32::INFINITY),
        ("model.layers.2.mlp.up_proj.weight", 79 * 48 + 47, f32::NEG_INFINITY),
        ("model.embed_tokens.weight", 60 * 48 + 1, f32::NAN),
        ("model.layers.0.input_layernorm.weight", 7, f32::NAN),
        ("model.norm.weight", 47, f32::INFINITY),
    ] {
        let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
        let (shape, numbers) = spoiled.tensors.get_mut(tensor).unwrap();
        numbers[at] = value;
        let cols = *shape.last().unwrap();
        let message = spoiled.error();
        let expected =
            format!("tensor `{tensor}`: the weight at row {}, column {} is `{value}`", at / cols, at % cols);
        assert!(message.starts_with(&expected), "{message}");
        assert!(message.contains("\n\nhint: "), "{message}");
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    for (tensor, shape, expected) in [
        ("model.layers.1.self_attn.q_proj.weight", vec![48, 24], "expected shape [48, 48], found [48, 24]"),
        ("model.layers.0.mlp.down_proj.weight", vec![80, 48], "expected shape [48, 80], found [80, 48]"),
        ("model.embed_tokens.weight", vec![96, 48], "expected shape [97, 48], found [96, 48]"),
        ("model.norm.weight", vec![1, 48], "expected shape [48], found [1, 48]"),
        ("model.norm.weight", vec![], "expected shape [48], found []"),
        ("model.layers.2.self_attn.o_proj.weight", vec![0, 48], "expected shape [48, 48], found [0, 48]"),
    ] {
        let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
        let numbers = vec![0.5; shape.iter().product()];
        spoiled.tensors.insert(tensor.to_owned(), (shape, numbers));
        assert_eq!(spoiled.error(), format!("tensor `{tensor}`: {expected}"));
    }
}

#[test]
fn any_missing_tensor_is_named() {
    let names: Vec<String> = Spoiled::new(&golden("llama_untied_bias")).tensors.into_keys().collect();
    for name in names {
        let mut spoiled = Spoiled::new(&golden("llama_untied_bias"));
        spoiled.tensors.remove(&name);
        if name == "lm_head.weight" {
            assert!(spoiled.load(Device::Cpu).is_ok(), "without a head of its own the model is tied");
            continue;
        }
        let message = spoiled.error();
        assert!(message.starts_with(&format!("tensor `{name}` is not in ")), "{message}");
    }
}

#[test]
fn an_unknown_architecture_is_answered_with_the_known_ones() {
    let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
    for (architectures, found) in [
        (json!(["GloboForCausalLM"]), "GloboForCausalLM"),
        (json!("GloboForCausalLM"), "GloboForCausalLM"),
        (json!([]), "(none named)"),
        (json!([7]), "(none named)"),
        (Value::Null, "(none named)"),
    ] {
        spoiled.config["architectures"] = architectures;
        spoiled.config["model_type"] = "globo".into();
        let message = spoiled.error();
        assert!(message.starts_with(&format!("unknown architecture `{found}`\n\nhint: ")), "{message}");
        assert!(message.contains("`LlamaForCausalLM`, `MistralForCausalLM`"), "{message}");
        assert!(message.contains("`--family llama`"), "{message}");
    }
}

#[test]
fn an_unknown_family_is_answered_with_the_known_ones() {
    let options = LoadOptions { family: Some("globo".to_owned()), ..LoadOptions::default() };
    let checkpoint = Checkpoint::open(&golden("llama_gqa_tied").folder).unwrap();
    let message = Engine::load(&checkpoint, &options, &mut |_, _| {}).err().unwrap().to_string();
    assert!(message.starts_with("unknown family `globo`\n\nhint: known are `llama`"), "{message}");
}

#[test]
fn a_key_that_the_family_needs_is_named_when_it_is_missing() {
    let keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"];
    for key in keys {
        let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
        spoiled.config.as_object_mut().unwrap().remove(key);
        assert_eq!(spoiled.error(), format!("the model's configuration has no `{key}`"));
    }
}

/// Values that no configuration should have.
fn nonsense() -> Vec<Value> {
    vec![
        json!(0),
        json!(1),
        json!(7),
        json!(-3),
        json!(1e300),
        json!(-1e300),
        json!(1e-320),
        json!(2.5),
        json!(1_u64 << 20),
        json!(1_u64 << 31),
        json!(u64::MAX),
        json!(i64::MIN),
        json!("wide"),
        json!(""),
        json!(true),
        json!(false),
        json!([]),
        json!([1, "two", null]),
        json!({}),
        json!({"type": "yarn", "factor": 0.0, "rope_theta": -1.0}),
        json!({"rope_type": "llama3", "factor": -1, "low_freq_factor": 4, "high_freq_factor": 4,
               "original_max_position_embeddings": 0}),
        json!({"rope_type": "linear", "factor": 1e-300}),
        json!({"rope_type": "linear", "partial_rotary_factor": 3.0, "factor": 2}),
        json!({"rope_type": ["linear"]}),
        Value::Null,
    ]
}

/// Loads, and computes with what could be loaded: the model may say anything, but must say it.
fn survives(spoiled: &Spoiled) {
    if let Ok(mut engine) = spoiled.load(Device::Cpu) {
        let tokens = (0..20).map(|it| TokenId(it % engine.info().vocab as u32)).collect();
        let how = Generation { max_tokens: 3, top: 2, ..Generation::default() };
        // An error is as good as an answer.
        let _ = engine.generate(&[Request { tokens, edit: 0 }], &how, &mut |_, _| false);
    }
}

const KEYS: [&str; 20] = [
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "attention_bias",
    "mlp_bias",
    "hidden_act",
    "tie_word_embeddings",
    "sliding_window",
    "layer_types",
    "no_rope_layers",
];

#[test]
fn nonsense_in_any_key_never_panics() {
    for name in ["llama_gqa_tied", "llama_yarn", "smollm3_window"] {
        for key in KEYS {
            for value in nonsense() {
                let mut spoiled = Spoiled::new(&golden(name));
                spoiled.config[key] = value;
                survives(&spoiled);
            }
        }
    }
}

#[test]
fn heads_that_cannot_be_grouped_are_refused() {
    let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
    spoiled.config["num_key_value_heads"] = json!(4);
    let message = spoiled.error();
    assert!(message.contains("`num_key_value_heads` is `4`") && message.contains("= 6"), "{message}");
}

#[test]
fn numbers_that_overflow_end_in_an_error_or_an_answer_but_no_panic() {
    let mut spoiled = Spoiled::new(&golden("llama_gqa_tied"));
    for (name, (_, numbers)) in &mut spoiled.tensors {
        if name.contains("proj") {
            numbers.fill(1e30);
        }
    }
    survives(&spoiled);
}

#[test]
fn a_candidate_that_overflows_ends_its_answer_and_leaves_the_others_alone() {
    for device in [Device::Cpu, Device::Reference] {
        let mut engine = golden("llama_gqa_tied").engine(device);
        let (width, writer) = (engine.info().d_model, engine.info().writers[2].writer);
        let edit = Edit::new(width, Vec::new(), Vec::new(), Some(vec![f32::INFINITY; width])).unwrap();
        engine.set_edits(&[[(writer, edit)].into_iter().collect()]).unwrap();
        let request = |edit, first| Request { tokens: prompt(&[first, 2, 3]), edit };
        let how = Generation { max_tokens: 5, ..Generation::default() };
        let alone = engine.generate(&[request(0, 1)], &how, &mut |_, _| false).unwrap();
        let requests = [request(1, 1), request(0, 1), request(1, 4)];
        let together = engine.generate(&requests, &how, &mut |_, _| false).unwrap();
        assert_eq!(together[1], alone[0], "{device:?}");
        for overflown in [&together[0], &together[2]] {
            assert_eq!((overflown.stop, overflown.tokens.len()), (StopReason::Overflow, 0), "{device:?}");
        }
    }
}

/// The places of all values within a configuration, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, it)| places(it, &format!("{at}/{key}"), out)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, it)| places(it, &format!("{at}/{i}"), out));
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => any::<Index>().prop_map(|it| it.get(&nonsense()).clone()),
        1 => (0..200_u64).prop_map(|it| json!(it)),
        1 => any::<u64>().prop_map(|it| json!(it)),
        1 => any::<f64>().prop_map(|it| json!(it)),
        1 => "\\PC{0,8}".prop_map(|it| json!(it)),
    ]
}

#[test]
fn configurations_spoiled_at_random_never_panic() {
    use proptest::test_runner::{Config, RngSeed, TestRunner};

    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let goldens = goldens();
    let mutations = prop::collection::vec((any::<Index>(), any_value()), 1..4);
    let result = TestRunner::new(config).run(&(any::<Index>(), mutations), |(which, mutations)| {
        let mut spoiled = Spoiled::new(which.get(&goldens));
        for (place, value) in mutations {
            let mut all = Vec::new();
            places(&spoiled.config, "", &mut all);
            // The whole configuration stays an object, which is looked at before anything else.
            let place = &all[1 + place.index(all.len() - 1)];
            *spoiled.config.pointer_mut(place).unwrap() = value;
        }
        survives(&spoiled);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn prompt(tokens: &[u32]) -> Vec<TokenId> {
    tokens.iter().copied().map(TokenId).collect()
}

#[test]
fn requests_that_cannot_be_served_are_named_and_leave_the_engine_usable() {
    let mut engine = golden("llama_gqa_tied").engine(Device::Cpu);
    let fine = Request { tokens: prompt(&[1, 2, 3]), edit: 0 };
    let how = Generation { max_tokens: 3, ..Generation::default() };
    let mut generate = |bad: Option<&[u32]>| {
        let bad = bad.map(|it| Request { tokens: prompt(it), edit: 0 });
        let requests: Vec<Request> = std::iter::once(fine.clone()).chain(bad).collect();
        engine.generate(&requests, &how, &mut |_, _| false)
    };
    let before = generate(None).unwrap();
    assert_eq!(generate(Some(&[])), Err(EngineError::EmptyPrompt { request: 1 }));
    let unknown = EngineError::UnknownToken { request: 1, token: 97, vocab: 97 };
    assert_eq!(unknown.to_string(), "request 1: token 97 is outside the vocabulary of 97 tokens");
    assert_eq!(generate(Some(&[5, 97])), Err(unknown));
    assert_eq!(generate(None).unwrap(), before);
}

#[test]
fn a_sequence_for_which_the_model_would_be_another_is_refused_before_anything_is_computed() {
    let rotary = ("llama_dynamic_rope", LimitCause::RotaryScaling, "rotary embedding");
    let sparse = [("deepseek_v32", LimitCause::SparseAttention, "sparse attention")];
    let all = sparse.into_iter().chain([rotary]);
    let devices = [Device::Cpu, Device::Reference];
    for ((name, cause, said), device) in all.flat_map(|it| devices.map(|device| (it, device))) {
        let mut engine = golden(name).engine(device);
        let limit = PositionLimit { positions: 64, cause };
        assert_eq!(engine.info().position_limit, Some(limit));
        let tokens = prompt(&[1; 60]);
        let mut answer = |max_tokens| {
            let how = Generation { max_tokens, ..Generation::default() };
            let answers =
                engine.generate(&[Request { tokens: tokens.clone(), edit: 0 }], &how, &mut |_, _| false)?;
            Ok(answers[0].tokens.len())
        };
        // Positions 0 to 59 are the prompt's, 60 to 63 those of four tokens; the fifth is chosen, not computed.
        assert_eq!(answer(5), Ok(5));
        let error = EngineError::TooLong { request: 0, position: 64, limit };
        assert_eq!(answer(6), Err(error.clone()));
        assert!(error.to_string().starts_with("request 0: position 64 of 64, "), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(answer(usize::MAX).is_err());
        let mut force = |given: usize| {
            let continuation = prompt(&vec![2; given]);
            engine.force(
                &[Continuation { prompt: tokens.clone(), continuation, edit: 0 }],
                false,
                &mut |_| {},
            )
        };
        assert_eq!((force(5), force(6)), (Ok(()), Err(error)));
    }
}

#[test]
fn continuations_that_cannot_be_scored_are_named() {
    let mut engine = golden("llama_gqa_tied").engine(Device::Cpu);
    let mut force = |prompt_tokens: &[u32], continuation: &[u32]| {
        let request =
            Continuation { prompt: prompt(prompt_tokens), continuation: prompt(continuation), edit: 0 };
        engine.force(&[request], true, &mut |_| {})
    };
    assert_eq!(force(&[1], &[]), Err(EngineError::EmptyContinuation { request: 0 }));
    assert_eq!(force(&[], &[1]), Err(EngineError::EmptyPrompt { request: 0 }));
    let unknown = |token| Err(EngineError::UnknownToken { request: 0, token, vocab: 97 });
    assert_eq!(force(&[u32::MAX], &[1]), unknown(u32::MAX));
    assert_eq!(force(&[1], &[2, 98]), unknown(98));
    assert_eq!(force(&[1], &[2]), Ok(()));
}

#[test]
fn more_of_the_largest_logits_than_there_are_is_all_of_them() {
    for device in [Device::Cpu, Device::Reference] {
        let mut engine = golden("llama_gqa_tied").engine(device);
        let request = |last| Request { tokens: prompt(&[1, 2, last]), edit: 0 };
        let how = Generation { top: 1000, max_tokens: 2, ..Generation::default() };
        let answers = engine.generate(&[request(3), request(4)], &how, &mut |_, _| false).unwrap();
        for answer in answers {
            let mut tokens: Vec<u32> = answer.first_token.unwrap().top.iter().map(|it| it.0.0).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, (0..97).collect::<Vec<_>>());
        }
    }
}
