//! Renders the cases of a file made by `tools/templates_compare.py` and reports where the text differs.
//!
//! `cargo run --release -p ablate-prompts --example render_cases -- cases.json [--show]`

#![expect(clippy::print_stdout, reason = "an example's report is what it prints")]

use std::process::ExitCode;

use prompts::{ChatTemplate, Clock, RenderOptions};
use serde_json::Value as Json;

fn options(cases: &Json, conversation: &Json) -> RenderOptions {
    let list = |name: &str| conversation.get(name).and_then(Json::as_array).cloned();
    let special_tokens = cases["special_tokens"].as_object().expect("special_tokens is an object");
    RenderOptions {
        add_generation_prompt: conversation["add_generation_prompt"].as_bool().unwrap_or(true),
        special_tokens: special_tokens
            .iter()
            .map(|(name, token)| (name.clone(), token.as_str().expect("a token is a text").to_owned()))
            .collect(),
        tools: list("tools"),
        documents: list("documents"),
        variables: conversation["variables"].as_object().cloned().unwrap_or_default(),
        clock: Clock::stopped_at(cases["clock"].as_str().expect("clock is a text")).expect("clock is a time"),
    }
}

/// The two texts from a little before where they part.
fn parting(expected: &str, found: &str) -> String {
    let same = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| text.chars().skip(same.saturating_sub(30)).take(90).collect::<String>();
    format!("    expected …{:?}\n    found    …{:?}", cut(expected), cut(found))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let show = arguments.iter().any(|it| it == "--show");
    let Some(path) = arguments.iter().find(|it| !it.starts_with("--")) else {
        println!("usage: render_cases cases.json [--show]");
        return ExitCode::FAILURE;
    };
    let text = std::fs::read_to_string(path).expect("the cases can be read");
    let cases: Json = serde_json::from_str(&text).expect("the cases are JSON");
    let conversations = cases["conversations"].as_array().expect("conversations is a list");
    let templates = cases["templates"].as_array().expect("templates is a list");

    let (mut same, mut both_fail, mut only_here, mut only_there, mut differ) = (0, 0, 0, 0, 0);
    let mut clean_templates = 0;
    for template in templates {
        let name = template["name"].as_str().unwrap_or("?");
        let compiled = ChatTemplate::new(template["source"].as_str().expect("source is a text"));
        let mut clean = true;
        for (conversation, expected) in
            conversations.iter().zip(template["expected"].as_array().expect("a list"))
        {
            let messages = conversation["messages"].as_array().expect("messages is a list");
            let found = match &compiled {
                Ok(it) => {
                    it.render_json(messages, &options(&cases, conversation)).map_err(|it| it.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let told = match (expected["text"].as_str(), &found) {
                (Some(expected), Ok(found)) if expected == found => {
                    same += 1;
                    continue;
                }
                (Some(expected), Ok(found)) => {
                    differ += 1;
                    clean = false;
                    format!("DIFFERS\n{}", parting(expected, found))
                }
                (Some(_), Err(error)) => {
                    only_there += 1;
                    clean = false;
                    format!("FAILS HERE: {error}")
                }
                (None, Ok(_)) => {
                    only_here += 1;
                    if !show {
                        continue;
                    }
                    format!("fails only there: {}", expected["error"])
                }
                (None, Err(_)) => {
                    both_fail += 1;
                    continue;
                }
            };
            println!("{name} / {}: {told}", conversation["name"].as_str().unwrap_or("?"));
        }
        clean_templates += usize::from(clean);
    }
    println!(
        "{clean_templates} of {} templates identical wherever {} renders; {} cases: {same} same text, {both_fail} \
         refused by both, {only_here} refused only there, {only_there} refused only here, {differ} differ",
        templates.len(),
        cases["made_by"].as_str().unwrap_or("the reference"),
        templates.len() * conversations.len(),
    );
    if differ + only_there == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
