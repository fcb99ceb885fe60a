//! Rules of `generation_config.json` in greedy decoding, against transformers' `generate`.

mod support;

use std::path::Path;

use engine::{Answer, Device, Engine, Generation, LogitRules, Request};
use glossary::TokenId;
use serde_json::Value;
use support::{Golden, tokens};

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn golden() -> (Golden, Value) {
    let facts: Value =
        serde_json::from_slice(&std::fs::read(tests().join("golden_generation.json")).unwrap()).unwrap();
    (Golden::open(&tests().join("golden").join(facts["checkpoint"].as_str().unwrap())), facts)
}

fn ends(config: &Value) -> Vec<TokenId> {
    config.get("eos_token_id").map(tokens).unwrap_or_default()
}

fn answers(engine: &mut Engine, golden: &Golden, config: &Value, batch: usize, logits: bool) -> Vec<Answer> {
    engine.obey(LogitRules::from_generation_config(config).unwrap());
    let how =
        Generation { max_tokens: 16, stop_tokens: ends(config), batch, logits, ..Generation::default() };
    let requests: Vec<Request> =
        golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
    engine.generate(&requests, &how, &mut |_, _| false).unwrap()
}

#[test]
fn answers_obey_rules_as_those_of_transformers_do_in_every_batch() {
    let (golden, facts) = golden();
    let cases = facts["cases"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for device in [Device::Cpu, Device::Reference] {
        let mut engine = golden.engine(device);
        for case in cases {
            let config = &case["generation_config"];
            for batch in [1, 3, 128] {
                let found = answers(&mut engine, &golden, config, batch, false);
                let expected = case["answers"].as_array().unwrap();
                let mut compared = 0;
                for (prompt, (found, expected)) in found.iter().zip(expected).enumerate() {
                    if !expected.is_null() {
                        let place = format!("{config}, {device:?}, batch {batch}, prompt {prompt}");
                        assert_eq!(found.tokens, tokens(expected), "{place}");
                        compared += 1;
                    }
                }
                assert!(compared >= 4, "{config}");
            }
        }
    }
}

#[test]
fn distributions_are_the_models_own_and_rules_can_be_taken_off() {
    let (golden, facts) = golden();
    let mut engine = golden.engine(Device::Cpu);
    let plain = answers(&mut engine, &golden, &Value::Null, 128, true);
    let rules = &facts["cases"].as_array().unwrap().last().unwrap()["generation_config"];
    let ruled = answers(&mut engine, &golden, rules, 128, true);
    assert!(plain.iter().zip(&ruled).any(|(a, b)| a.tokens != b.tokens));
    for (plain, ruled) in plain.iter().zip(&ruled) {
        assert_eq!(plain.first_token, ruled.first_token);
    }
    assert_eq!(answers(&mut engine, &golden, &Value::Null, 128, true), plain);
}

#[test]
fn a_conversation_obeys_rules_as_a_single_prompt_does() {
    let (golden, facts) = golden();
    let rules = &facts["cases"].as_array().unwrap()[6]["generation_config"];
    let mut engine = golden.engine(Device::Cpu);
    let expected = answers(&mut engine, &golden, rules, 128, false);
    let how = Generation { max_tokens: 16, ..Generation::default() };
    for (prompt, expected) in golden.prompts().iter().zip(expected) {
        let mut conversation = engine.converse(0);
        let answer = engine.reply(&mut conversation, prompt, &how, &mut |_| false).unwrap();
        assert_eq!(answer.tokens, expected.tokens);
        engine.end(conversation);
    }
}
