//! Which file of a folder a text asset comes from.

use checkpoint::{Checkpoint, TextAssets, TokenizerSource};
use serde_json::json;

use crate::folders::{folder, write_shard};

/// The assets of a folder with these files.
fn assets(files: &[(&str, &str)]) -> TextAssets {
    let folder = folder();
    write_shard(&folder.path().join("model.safetensors"), &[("w", &[1.0])]);
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Checkpoint::open(folder.path()).unwrap().assets().clone()
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const IN_CONFIG: (&str, &str) = ("tokenizer_config.json", r#"{"chat_template": "config"}"#);
const IN_JSON: (&str, &str) = ("chat_template.json", r#"{"chat_template": "json"}"#);
const IN_JINJA: (&str, &str) = ("chat_template.jinja", "jinja");

#[test]
fn a_folder_without_text_has_no_assets() {
    assert_eq!(assets(&[]), TextAssets::default());
}

#[test]
fn the_files_are_passed_on_as_they_are() {
    let found = assets(&[
        ("tokenizer.json", "{\"version\": \"1.0\"}\n"),
        ("tokenizer_config.json", r#"{"model_max_length": 1e30}"#),
        ("special_tokens_map.json", r#"{"eos_token": "</s>"}"#),
        ("generation_config.json", r#"{"eos_token_id": [1, 2]}"#),
    ]);
    let expected = TextAssets {
        tokenizer: Some(TokenizerSource::Json("{\"version\": \"1.0\"}\n".to_owned())),
        tokenizer_config: Some(json!({"model_max_length": 1e30})),
        special_tokens_map: Some(json!({"eos_token": "</s>"})),
        generation_config: Some(json!({"eos_token_id": [1, 2]})),
        ..TextAssets::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_template_file_comes_before_the_configuration_and_that_before_the_older_file() {
    let of = |files: &[_]| assets(files).chat_template.unwrap();
    assert_eq!(of(&[IN_JSON, IN_CONFIG, IN_JINJA]), "jinja");
    assert_eq!(of(&[IN_JSON, IN_CONFIG]), "config");
    assert_eq!(of(&[IN_JSON]), "json");
}

#[test]
fn of_a_list_the_default_is_taken_and_the_others_keep_their_names() {
    let list = json!({"chat_template": [
        {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}, {"name": "rag", "template": "r"},
    ]});
    let found = assets(&[("tokenizer_config.json", &list.to_string())]);
    assert_eq!(found.chat_template.as_deref(), Some("d"));
    assert_eq!(found.named_chat_templates, named(&[("tool_use", "t"), ("rag", "r")]));
}

#[test]
fn additional_templates_are_named_for_their_files() {
    let found = assets(&[
        IN_JINJA,
        ("additional_chat_templates/tool_use.jinja", "t"),
        ("additional_chat_templates/rag.jinja", "r"),
        ("additional_chat_templates/notes.txt", "n"),
    ]);
    assert_eq!(found.chat_template.as_deref(), Some("jinja"));
    assert_eq!(found.named_chat_templates, named(&[("rag", "r"), ("tool_use", "t")]));
}

#[test]
fn a_template_of_null_is_none() {
    assert_eq!(assets(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]).chat_template, None);
}

#[test]
fn a_template_of_another_kind_is_refused() {
    let folder = folder();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"chat_template": [7]}"#).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    let expected = "an entry of `chat_template` should be an object of `name` and `template`, found a number";
    assert!(error.ends_with(expected), "{error}");
}
