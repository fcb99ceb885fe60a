//! Our own templates, one for each thing that chat templates do, against what Python makes of them.
//!
//! `golden/templates.json` is made from `templates/` by `tools/templates_compare.py`.

use prompts::{ChatTemplate, Clock, Message, RenderOptions, SystemRole, TemplateError, fold_system};
use serde_json::{Value as Json, json};

fn golden() -> Json {
    serde_json::from_str(include_str!("golden/templates.json")).unwrap()
}

fn options(golden: &Json, conversation: &Json) -> RenderOptions {
    let list = |name: &str| conversation.get(name).and_then(Json::as_array).cloned();
    let special_tokens = golden["special_tokens"].as_object().unwrap();
    RenderOptions {
        add_generation_prompt: conversation["add_generation_prompt"].as_bool().unwrap_or(true),
        special_tokens: special_tokens
            .iter()
            .map(|it| (it.0.clone(), it.1.as_str().unwrap().to_owned()))
            .collect(),
        tools: list("tools"),
        documents: list("documents"),
        variables: conversation["variables"].as_object().cloned().unwrap_or_default(),
        clock: Clock::stopped_at(golden["clock"].as_str().unwrap()).unwrap(),
    }
}

fn rendered(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
    ChatTemplate::new(source)?.render(messages, &RenderOptions::default())
}

#[test]
fn every_template_renders_every_conversation_as_python_does_or_fails_with_it() {
    let golden = golden();
    let conversations = golden["conversations"].as_array().unwrap();
    let (mut texts, mut failures) = (0, 0);
    for template in golden["templates"].as_array().unwrap() {
        let compiled = ChatTemplate::new(template["source"].as_str().unwrap()).unwrap();
        for (conversation, expected) in conversations.iter().zip(template["expected"].as_array().unwrap()) {
            let found = compiled
                .render_json(conversation["messages"].as_array().unwrap(), &options(&golden, conversation));
            let case = format!("{} / {}", template["name"], conversation["name"]);
            if let Some(expected) = expected["text"].as_str() {
                assert_eq!(found.unwrap_or_else(|it| panic!("{case}: {it}")), expected, "{case}");
                texts += 1;
            } else {
                assert!(found.is_err(), "{case}: Python fails with {}", expected["error"]);
                failures += 1;
            }
        }
    }
    assert_eq!((texts, failures), (223, 37), "the golden file has as many cases as it had");
}

#[test]
fn the_golden_file_is_of_the_templates_that_stand_beside_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/templates/");
    let golden = golden();
    let templates = golden["templates"].as_array().unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), templates.len());
    for template in templates {
        let name = template["name"].as_str().unwrap().rsplit('/').next().unwrap();
        let source = std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        assert_eq!(
            source,
            template["source"].as_str().unwrap(),
            "{name}: run tools/templates_compare.py again"
        );
    }
}

#[test]
fn what_the_template_says_when_it_refuses_is_passed_on() {
    let source = include_str!("templates/refuses_system.jinja");
    let error = rendered(source, &[Message::system("Be nice."), Message::user("Hi")]).unwrap_err();
    let TemplateError::Raised { message } = &error else { panic!("{error}") };
    assert_eq!(message, "The system role is not known: Be nice.");
    // From inside a macro too.
    let source = "{% macro f(x) %}{{ raise_exception('deep ' ~ x) }}{% endmacro %}{{ f('down') }}";
    let error = rendered(source, &[Message::user("Hi")]).unwrap_err();
    assert!(matches!(&error, TemplateError::Raised { message } if message == "deep down"), "{error}");
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let turns = [Message::user("Hi")];
    for source in [
        // Nested loops, text that doubles, and text that is large at once.
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='12') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 10 ** 12 }}",
    ] {
        let error = rendered(source, &turns).unwrap_err();
        assert!(matches!(error, TemplateError::Endless { .. }), "{source}: {error}");
    }
    let endless = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(matches!(rendered(endless, &turns), Err(TemplateError::Failed { .. })));
}

#[test]
fn errors_name_the_line() {
    let Err(TemplateError::Syntax { line, .. }) = ChatTemplate::new("one\ntwo\n{% for %}\n") else {
        panic!()
    };
    assert_eq!(line, 3);
    let error = rendered(include_str!("templates/fails.jinja"), &[Message::user("Hi")]).unwrap_err();
    assert!(matches!(error, TemplateError::Failed { line: 3, .. }), "{error}");
}

#[test]
fn how_a_template_takes_the_system_prompt_is_found_out() {
    let role = |source: &str| {
        let template = ChatTemplate::new(source).unwrap();
        template.conventions(&RenderOptions::default()).unwrap().system_role()
    };
    assert_eq!(role(include_str!("templates/chatml.jinja")), SystemRole::Own);
    assert_eq!(role(include_str!("templates/refuses_system.jinja")), SystemRole::Folded);
    assert_eq!(role(include_str!("templates/drops_system.jinja")), SystemRole::Folded);
    assert_eq!(role("{{ messages[0].content | upper }}{{ messages[1].content }}"), SystemRole::Own);
}

#[test]
fn a_folded_system_prompt_stands_before_the_first_user_message() {
    let conversation =
        [Message::system("Be nice."), Message::user("Hi"), Message::assistant("Hello"), Message::user("Bye")];
    let folded = [Message::user("Be nice.\n\nHi"), Message::assistant("Hello"), Message::user("Bye")];
    assert_eq!(fold_system(&conversation), folded);
    assert_eq!(fold_system(&folded), folded);
    assert_eq!(fold_system(&[Message::system("Be nice.")]), [Message::user("Be nice.")]);
}

#[test]
fn variables_win_over_special_tokens_and_never_over_the_messages() {
    let mut options = RenderOptions::default();
    options.special_tokens.insert("bos_token".to_owned(), "<s>".to_owned());
    options.variables.insert("bos_token".to_owned(), json!("<mine>"));
    options.variables.insert("messages".to_owned(), json!("stolen"));
    let template = ChatTemplate::new("{{ bos_token }}{{ messages[0].content }}").unwrap();
    assert_eq!(template.render(&[Message::user("Hi")], &options).unwrap(), "<mine>Hi");
}

#[test]
fn what_is_no_conversation_is_refused() {
    let template = ChatTemplate::new("{{ messages }}").unwrap();
    let options = RenderOptions::default();
    assert!(matches!(template.render(&[], &options), Err(TemplateError::NoMessages)));
    let error = template.render_json(&[json!({"role": "user"}), json!("text")], &options).unwrap_err();
    assert!(matches!(error, TemplateError::NotAMessage { index: 1, .. }), "{error}");
}
