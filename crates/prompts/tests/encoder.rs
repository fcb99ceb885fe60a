//! Prompts on their way to a model, with a small tokenizer of our own.

use checkpoint::{TextAssets, TokenizerSource};
use prompts::{
    EncodeError, Message, PromptEncoder, PromptFormat, PromptSettings, SpecialTokens, SystemRole,
    TemplateError,
};
use serde_json::{Value as Json, json};

const CHATML: &str = include_str!("templates/chatml.jinja");
const REFUSES_SYSTEM: &str = include_str!("templates/refuses_system.jinja");

fn golden(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

/// A model of the `SentencePiece` kind, whose tokenizer puts `<s>` before a plain text.
fn assets(template: Option<&str>) -> TextAssets {
    let golden = golden(include_str!("golden/sentencepiece.json"));
    TextAssets {
        tokenizer: Some(TokenizerSource::Json(golden["tokenizer"].to_string())),
        tokenizer_config: Some(golden["tokenizer_config"].clone()),
        chat_template: template.map(str::to_owned),
        ..TextAssets::default()
    }
}

fn encoder(template: Option<&str>, settings: PromptSettings) -> PromptEncoder {
    PromptEncoder::new(&assets(template), &json!({}), settings).unwrap()
}

#[test]
fn a_chat_prompt_is_rendered_and_encoded_as_it_stands() {
    let encoder = encoder(Some(CHATML), PromptSettings::default());
    let encoded = encoder.encode_prompt("Hi", Some("Be nice.")).unwrap();
    assert_eq!(encoded.prompt, "Hi");
    assert_eq!(
        encoded.rendered,
        "<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(encoded.ids, encoder.tokenizer().encode(&encoded.rendered, SpecialTokens::None).unwrap());
}

#[test]
fn a_template_that_writes_the_begin_of_sequence_gets_no_second_one() {
    let encoder = encoder(Some(REFUSES_SYSTEM), PromptSettings::default());
    let encoded = encoder.encode_prompt("Hi", None).unwrap();
    let bos = encoder.tokenizer().token_id("<s>").unwrap();
    assert!(encoded.rendered.starts_with("<s><turn>user"), "{}", encoded.rendered);
    assert_eq!(encoded.ids.iter().filter(|&&it| it == bos).count(), 1);
    assert_eq!(encoded.ids[0], bos);
}

#[test]
fn a_system_prompt_that_the_template_refuses_stands_before_the_users_words() {
    let encoder = encoder(Some(REFUSES_SYSTEM), PromptSettings::default());
    assert_eq!(encoder.system_role(), Some(SystemRole::Folded));
    let encoded = encoder.encode_prompt("Hi", Some("Be nice.")).unwrap();
    assert_eq!(encoded.prompt, "Hi");
    assert_eq!(encoded.rendered, "<s><turn>user\nBe nice.\n\nHi</turn>\n<turn>model\n");
}

#[test]
fn a_plain_prompt_is_encoded_with_the_begin_of_sequence_once() {
    let settings = PromptSettings { format: PromptFormat::Plain, ..PromptSettings::default() };
    let encoder = encoder(None, settings);
    let bos = encoder.tokenizer().token_id("<s>").unwrap();
    for prompt in ["Once upon", "<s>Once upon"] {
        let encoded = encoder.encode_prompt(prompt, None).unwrap();
        assert_eq!(encoded.rendered, prompt);
        assert_eq!(encoded.ids.iter().filter(|&&it| it == bos).count(), 1, "{prompt}");
    }
    assert_eq!(encoder.encode_prompt("Hi", Some("Be nice.")).unwrap().rendered, "Be nice.\n\nHi");
    assert_eq!(encoder.system_role(), None);
}

#[test]
fn the_response_prefix_stands_after_the_prompt() {
    let settings = PromptSettings { response_prefix: "Sure".to_owned(), ..PromptSettings::default() };
    let encoder = encoder(Some(CHATML), settings);
    let encoded = encoder.encode_prompt("Hi", None).unwrap();
    assert!(encoded.rendered.ends_with("<|im_start|>assistant\nSure"), "{}", encoded.rendered);
    assert_eq!(encoder.tokenizer().decode(&encoded.ids, false).unwrap(), encoded.rendered);
}

#[test]
fn a_conversation_is_encoded_up_to_the_models_turn() {
    let encoder = encoder(Some(CHATML), PromptSettings::default());
    let conversation = [Message::user("Hi"), Message::assistant("Hello"), Message::user("Bye")];
    let encoded = encoder.encode_conversation(&conversation).unwrap();
    assert_eq!(encoded.prompt, "Bye");
    assert!(encoded.rendered.contains("<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye"));
}

#[test]
fn variables_reach_the_template() {
    let mut settings = PromptSettings::default();
    settings.render.variables.insert("enable_thinking".to_owned(), json!(false));
    let encoded = encoder(Some(CHATML), settings).encode_prompt("Hi", None).unwrap();
    assert!(encoded.rendered.ends_with("assistant\n<think>\n\n</think>\n\n"), "{}", encoded.rendered);
}

#[test]
fn a_model_without_a_template_says_how_to_give_one() {
    let error = PromptEncoder::new(&assets(None), &json!({}), PromptSettings::default()).unwrap_err();
    assert!(matches!(error, EncodeError::Template(TemplateError::NoTemplate)), "{error}");
    assert!(error.to_string().contains("hint: give one with `--chat-template FILE`"), "{error}");
    let settings =
        PromptSettings { chat_template: Some("{{ messages[0].content }}!".to_owned()), ..Default::default() };
    assert_eq!(encoder(None, settings).encode_prompt("Hi", None).unwrap().rendered, "Hi!");
}

#[test]
fn one_of_several_templates_is_chosen_by_name_or_by_the_tools() {
    let source = |name: &str| format!("{name}: {{{{ messages[0].content }}}}");
    let mut assets = assets(Some(&source("default")));
    assets.named_chat_templates =
        vec![("tool_use".to_owned(), source("tools")), ("rag".to_owned(), source("documents"))];
    let rendered = |settings: PromptSettings| {
        PromptEncoder::new(&assets, &json!({}), settings)
            .map(|it| it.encode_prompt("Hi", None).unwrap().rendered)
            .map_err(|it| it.to_string())
    };
    assert_eq!(rendered(PromptSettings::default()).unwrap(), "default: Hi");
    let named =
        |name: &str| PromptSettings { template_name: Some(name.to_owned()), ..PromptSettings::default() };
    assert_eq!(rendered(named("rag")).unwrap(), "documents: Hi");
    let error = rendered(named("poetry")).unwrap_err();
    assert!(error.contains("`poetry`") && error.contains("tool_use"), "{error}");
    let mut settings = PromptSettings::default();
    settings.render.tools = Some(vec![json!({})]);
    assert_eq!(rendered(settings).unwrap(), "tools: Hi");
}

#[test]
fn a_prompt_that_the_template_leaves_out_is_an_error_that_names_template_and_prompt() {
    const SILENT: &str = "{% for m in messages %}<{{ m.role }}>{% endfor %}";
    let lost = |assets: &TextAssets, settings: PromptSettings| {
        let encoder = PromptEncoder::new(assets, &json!({}), settings).unwrap();
        encoder.encode_prompt("Tell me more.", Some("Be nice.")).unwrap_err().to_string()
    };
    let said = lost(&assets(Some(SILENT)), PromptSettings::default());
    assert!(said.starts_with("the model's chat template leaves out the user's words"), "{said}");
    assert!(said.contains("`Tell me more.`") && said.contains("`<system><user>`"), "{said}");
    let given = PromptSettings { chat_template: Some(SILENT.to_owned()), ..PromptSettings::default() };
    let said = lost(&assets(None), given);
    assert!(said.starts_with("the chat template that was given leaves out the user's words"), "{said}");
    let mut several = assets(Some(CHATML));
    several.named_chat_templates = vec![("rag".to_owned(), SILENT.to_owned())];
    let named = PromptSettings { template_name: Some("rag".to_owned()), ..PromptSettings::default() };
    assert!(lost(&several, named).starts_with("the model's chat template `rag` leaves out"));
}

#[test]
fn the_variable_for_thinking_is_known_by_what_it_changes() {
    let variable =
        |source: &str, settings: PromptSettings| encoder(Some(source), settings).thinking_variable("Hi");
    assert_eq!(variable(CHATML, PromptSettings::default()).as_deref(), Some("enable_thinking"));
    let mut set = PromptSettings::default();
    set.render.variables.insert("enable_thinking".to_owned(), json!(false));
    assert_eq!(variable(CHATML, set), None);
    assert_eq!(variable("{{ messages[0].content }}", PromptSettings::default()), None);
    let other = "{{ messages[0].content }}{% if thinking is not defined or thinking %}<think>{% endif %}";
    assert_eq!(variable(other, PromptSettings::default()).as_deref(), Some("thinking"));
}
