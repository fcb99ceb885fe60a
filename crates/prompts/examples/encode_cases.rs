//! Encodes and decodes the cases of a file made by `tools/tokenizer_compare.py` and reports where the ids differ.
//!
//! `cargo run --release -p ablate-prompts --example encode_cases -- cases.json [checkpoint]`

#![expect(clippy::print_stdout, reason = "an example's report is what it prints")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use checkpoint::Checkpoint;
use glossary::TokenId;
use prompts::{SpecialTokens, Tokenizer};
use serde_json::Value as Json;

fn ids(list: &Json) -> Vec<TokenId> {
    let list = list.as_array().expect("ids are a list");
    list.iter().map(|it| TokenId(u32::try_from(it.as_u64().expect("a number")).expect("an id"))).collect()
}

fn shown(tokenizer: &Tokenizer, ids: &[TokenId]) -> Vec<String> {
    ids.iter().map(|&it| tokenizer.token(it).unwrap_or_else(|| format!("?{it}"))).collect()
}

/// What a text becomes when it is decoded token by token.
fn streamed(tokenizer: &Tokenizer, ids: &[TokenId], skip_special: bool) -> String {
    let mut decoder = tokenizer.decoder(skip_special);
    let mut text = String::new();
    for &id in ids {
        text += &decoder.push(id).expect("tokens decode");
    }
    text + &decoder.finish().expect("tokens decode")
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        println!("usage: encode_cases cases.json [checkpoint]");
        return ExitCode::FAILURE;
    };
    let text = std::fs::read_to_string(path).expect("the cases can be read");
    let cases: Json = serde_json::from_str(&text).expect("the cases are JSON");
    let checkpoint = arguments.next().or_else(|| cases["checkpoint"].as_str().map(str::to_owned));
    let checkpoint = Checkpoint::open(Path::new(&checkpoint.expect("a checkpoint"))).expect("it opens");
    let start = Instant::now();
    let tokenizer = match Tokenizer::from_checkpoint(&checkpoint) {
        Ok(it) => it,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "{} tokens in {:?}; stops at {:?}; {:?}",
        tokenizer.vocab_size(),
        start.elapsed(),
        shown(&tokenizer, tokenizer.stop_tokens()),
        tokenizer.named_tokens()
    );

    let (mut same, mut differ, mut not_streamed) = (0, 0, 0);
    let list = cases["cases"].as_array().expect("cases is a list");
    for case in list {
        let text = case["text"].as_str().expect("a text");
        let mut fine = true;
        for (name, special) in [("ids", SpecialTokens::None), ("ids_as_plain_text", SpecialTokens::Add)] {
            if case[name].is_null() {
                continue;
            }
            let expected = ids(&case[name]);
            let found = tokenizer.encode(text, special).expect("texts encode");
            if found != expected {
                fine = false;
                let (expected, found) = (shown(&tokenizer, &expected), shown(&tokenizer, &found));
                println!("{name} of {text:?}\n    expected {expected:?}\n    found    {found:?}");
            }
        }
        let expected = ids(&case["ids"]);
        for (name, skip) in [("all", false), ("without_special", true)] {
            let found = tokenizer.decode(&expected, skip).expect("tokens decode");
            if case["decoded"][name].as_str().is_some_and(|it| it != found) {
                fine = false;
                println!(
                    "decoded ({name}) of {text:?}\n    expected {}\n    found {found:?}",
                    case["decoded"][name]
                );
            }
            let streamed = streamed(&tokenizer, &expected, skip);
            if streamed != found {
                not_streamed += 1;
                println!("streamed of {text:?}\n    expected {found:?}\n    found    {streamed:?}");
            }
        }
        if fine { same += 1 } else { differ += 1 }
    }
    println!(
        "{same} of {} texts as {}; {differ} differ, {not_streamed} stream differently",
        list.len(),
        cases["made_by"].as_str().unwrap_or("the reference")
    );
    if differ + not_streamed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
