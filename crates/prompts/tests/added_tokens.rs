//! Tokens that other files than tokenizer.json list, against what transformers makes with them.
//!
//! `golden/added_tokens.json` is made by `tools/added_tokens_goldens.py`.

use checkpoint::{TextAssets, TokenizerSource};
use glossary::TokenId;
use prompts::{SpecialTokens, Tokenizer};
use serde_json::{Value as Json, json};

fn golden() -> Json {
    serde_json::from_str(include_str!("golden/added_tokens.json")).unwrap()
}

/// A folder of a case: the tokenizer with the added tokens of the case, and what stands beside it.
fn tokenizer(golden: &Json, added: &Json, beside: &Json) -> Tokenizer {
    let mut description = golden["tokenizer"].clone();
    description["added_tokens"] = added.clone();
    let file = |name: &str| beside.get(name).cloned();
    let assets = TextAssets {
        tokenizer: Some(TokenizerSource::Json(description.to_string())),
        tokenizer_config: file("tokenizer_config"),
        special_tokens_map: file("special_tokens_map"),
        added_tokens: file("added_tokens"),
        ..TextAssets::default()
    };
    Tokenizer::new(&assets, &json!({})).unwrap()
}

fn ids(list: &Json) -> Vec<TokenId> {
    list.as_array().unwrap().iter().map(|it| TokenId(u32::try_from(it.as_u64().unwrap()).unwrap())).collect()
}

#[test]
fn tokens_of_every_file_are_kept_whole_as_transformers_keeps_them() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        let tokenizer = tokenizer(&golden, &case["added_tokens"], &case["beside"]);
        let texts = case["texts"].as_array().unwrap();
        assert_eq!(texts.len(), 5);
        for text in texts {
            let shown = format!("{}: {}", case["name"], text["text"]);
            let found = tokenizer.encode(text["text"].as_str().unwrap(), SpecialTokens::None).unwrap();
            assert_eq!(found, ids(&text["ids"]), "{shown}");
            assert_eq!(tokenizer.decode(&found, false).unwrap(), text["decoded"], "{shown}");
            assert_eq!(tokenizer.decode(&found, true).unwrap(), text["decoded_without_special"], "{shown}");
        }
    }
}

#[test]
fn templates_see_the_named_tokens_that_transformers_shows_them() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let tokenizer = tokenizer(&golden, &case["added_tokens"], &case["beside"]);
        let named = json!(tokenizer.named_tokens());
        assert_eq!(named, case["named"], "{}", case["name"]);
    }
}

#[test]
fn a_map_that_lists_tokens_as_objects_is_read_though_transformers_refuses_it() {
    let golden = golden();
    let token = json!({"content": "<|x|>", "lstrip": true, "rstrip": false, "single_word": false, "normalized": false});
    let beside = json!({"special_tokens_map": {"additional_special_tokens": [token]}});
    let tokenizer = tokenizer(&golden, &json!([]), &beside);
    // The space on the left belongs to the token.
    assert_eq!(tokenizer.encode("the <|x|>", SpecialTokens::None).unwrap(), [TokenId(34), TokenId(37)]);
}
