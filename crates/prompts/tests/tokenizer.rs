//! Two small tokenizers, as `tokenizer.json` and as GGUF metadata, against what Python makes with them.
//!
//! `golden/byte_level.json` and `golden/sentencepiece.json` are made by `tools/tokenizer_goldens.py`.

use checkpoint::{TextAssets, TokenizerSource};
use glossary::TokenId;
use prompts::{SpecialTokens, Tokenizer, TokenizerError};
use serde_json::{Value as Json, json};

const BYTE_LEVEL: &str = include_str!("golden/byte_level.json");
const SENTENCEPIECE: &str = include_str!("golden/sentencepiece.json");

fn golden(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn of_folder(golden: &Json) -> (TextAssets, Json) {
    let assets = TextAssets {
        tokenizer: Some(TokenizerSource::Json(golden["tokenizer"].to_string())),
        tokenizer_config: Some(golden["tokenizer_config"].clone()),
        ..TextAssets::default()
    };
    (assets, json!({}))
}

fn of_gguf(golden: &Json) -> (TextAssets, Json) {
    let assets = TextAssets { tokenizer: Some(TokenizerSource::Gguf), ..TextAssets::default() };
    (assets, golden["gguf"].clone())
}

fn tokenizer((assets, config): (TextAssets, Json)) -> Tokenizer {
    Tokenizer::new(&assets, &config).unwrap()
}

fn ids(list: &Json) -> Vec<TokenId> {
    list.as_array().unwrap().iter().map(|it| TokenId(u32::try_from(it.as_u64().unwrap()).unwrap())).collect()
}

/// Both tokenizers of both golden files, with their names.
fn each(mut check: impl FnMut(&str, &Tokenizer, &Json)) {
    for (name, text) in [("byte level", BYTE_LEVEL), ("SentencePiece", SENTENCEPIECE)] {
        let golden = golden(text);
        check(&format!("{name}, tokenizer.json"), &tokenizer(of_folder(&golden)), &golden);
        check(&format!("{name}, GGUF"), &tokenizer(of_gguf(&golden)), &golden);
    }
}

#[test]
fn ids_are_those_of_python_from_either_format() {
    each(|name, tokenizer, golden| {
        for case in golden["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = tokenizer.encode(text, SpecialTokens::None).unwrap();
            assert_eq!(found, ids(&case["ids"]), "{name}: {text:?}");
            let found = tokenizer.encode(text, SpecialTokens::Add).unwrap();
            assert_eq!(found, ids(&case["ids_as_plain_text"]), "{name}: {text:?} as plain text");
        }
    });
}

#[test]
fn decoded_texts_are_those_of_python_at_once_and_token_by_token() {
    each(|name, tokenizer, golden| {
        for case in golden["cases"].as_array().unwrap() {
            let ids = ids(&case["ids"]);
            for (key, skip_special) in [("decoded", false), ("decoded_without_special", true)] {
                let expected = case[key].as_str().unwrap();
                assert_eq!(tokenizer.decode(&ids, skip_special).unwrap(), expected, "{name}");
                let mut decoder = tokenizer.decoder(skip_special);
                let mut streamed: String = ids.iter().map(|&it| decoder.push(it).unwrap()).collect();
                streamed += &decoder.finish().unwrap();
                assert_eq!(streamed, expected, "{name}, token by token");
            }
        }
    });
}

#[test]
fn a_character_of_several_tokens_comes_out_when_it_is_whole() {
    let tokenizer = tokenizer(of_gguf(&golden(SENTENCEPIECE)));
    let bytes: Vec<TokenId> =
        "🫠".bytes().map(|it| tokenizer.token_id(&format!("<0x{it:02X}>")).unwrap()).collect();
    let mut decoder = tokenizer.decoder(true);
    let pieces: Vec<String> = bytes.iter().map(|&it| decoder.push(it).unwrap()).collect();
    assert_eq!(pieces, ["", "", "", "🫠"]);
    assert_eq!(decoder.finish().unwrap(), "");
}

#[test]
fn bytes_that_never_make_a_character_are_let_go() {
    each(|name, tokenizer, _| {
        let Some(stray) = tokenizer.token_id("<0xFF>").or_else(|| tokenizer.token_id("ÿ")) else {
            panic!("{name}")
        };
        let mut decoder = tokenizer.decoder(true);
        let text: String = std::iter::repeat_n(stray, 100).map(|it| decoder.push(it).unwrap()).collect();
        assert!(text.chars().count() > 80 && text.chars().all(|it| it == '\u{fffd}'), "{name}: {text:?}");
        let mut decoder = tokenizer.decoder(true);
        assert_eq!(decoder.push(stray).unwrap(), "");
        assert_eq!(decoder.finish().unwrap(), "\u{fffd}", "{name}");
    });
}

#[test]
fn a_begin_of_sequence_that_is_written_out_is_not_added_again() {
    let tokenizer = tokenizer(of_gguf(&golden(SENTENCEPIECE)));
    let bos = tokenizer.token_id("<s>").unwrap();
    let plain = tokenizer.encode("Hello", SpecialTokens::Add).unwrap();
    let written = tokenizer.encode("<s>Hello", SpecialTokens::Add).unwrap();
    assert_eq!(plain[0], bos);
    assert_eq!(written, plain);
    // What was written twice was meant twice, here and where none is added.
    assert_eq!(tokenizer.encode("<s><s>", SpecialTokens::Add).unwrap(), [bos, bos]);
    let adds_none = self::tokenizer(of_gguf(&golden(BYTE_LEVEL)));
    let start = adds_none.token_id("<|im_start|>").unwrap();
    assert_eq!(adds_none.encode("<|im_start|><|im_start|>", SpecialTokens::Add).unwrap(), [start, start]);
}

#[test]
fn the_tokenizers_settings_decide_what_stands_around_a_text() {
    let golden = golden(SENTENCEPIECE);
    let (mut assets, config) = of_folder(&golden);
    let settings = assets.tokenizer_config.as_mut().unwrap();
    settings["add_bos_token"] = json!(false);
    settings["add_eos_token"] = json!(true);
    let from_folder = tokenizer((assets, config));
    let mut metadata = golden["gguf"].clone();
    metadata["tokenizer.ggml.add_bos_token"] = json!(false);
    metadata["tokenizer.ggml.add_eos_token"] = json!(true);
    let from_gguf = tokenizer((of_gguf(&golden).0, metadata));
    for tokenizer in [from_folder, from_gguf] {
        let mut expected = tokenizer.encode("Hello", SpecialTokens::None).unwrap();
        expected.push(tokenizer.token_id("</s>").unwrap());
        assert_eq!(tokenizer.encode("Hello", SpecialTokens::Add).unwrap(), expected);
    }
}

#[test]
fn without_a_space_prefix_a_text_begins_as_it_stands() {
    let golden = golden(SENTENCEPIECE);
    let mut metadata = golden["gguf"].clone();
    metadata["tokenizer.ggml.add_space_prefix"] = json!(false);
    let plain = tokenizer((of_gguf(&golden).0, metadata));
    let prefixed = tokenizer(of_gguf(&golden));
    let with = prefixed.encode("the", SpecialTokens::None).unwrap();
    assert_eq!(plain.encode(" the", SpecialTokens::None).unwrap(), with);
    assert_ne!(plain.encode("the", SpecialTokens::None).unwrap(), with);
    assert_eq!(plain.decode(&with, true).unwrap(), " the");
    assert_eq!(prefixed.decode(&with, true).unwrap(), "the");
}

#[test]
fn an_answer_ends_where_the_settings_of_a_folder_say() {
    let golden = golden(SENTENCEPIECE);
    let stop = |generation: Option<Json>, config: Json| {
        let (mut assets, _) = of_folder(&golden);
        assets.generation_config = generation;
        tokenizer((assets, config)).stop_tokens().to_vec()
    };
    let eos = TokenId(2);
    assert_eq!(stop(None, json!({})), [eos]);
    assert_eq!(stop(None, json!({"eos_token_id": 7})), [eos, TokenId(7)]);
    assert_eq!(stop(None, json!({"text_config": {"eos_token_id": [8, 7]}})), [eos, TokenId(7), TokenId(8)]);
    let generation = json!({"eos_token_id": [3, 5]});
    assert_eq!(stop(Some(generation), json!({"eos_token_id": 7})), [eos, TokenId(3), TokenId(5)]);
}

#[test]
fn an_answer_ends_at_the_control_tokens_of_a_gguf_file() {
    let mut golden = golden(SENTENCEPIECE);
    let turn_end = tokenizer(of_gguf(&golden)).token_id("<end_of_turn>").unwrap();
    assert_eq!(tokenizer(of_gguf(&golden)).stop_tokens(), [TokenId(2), turn_end]);
    golden["gguf"]["tokenizer.ggml.eot_token_id"] = json!(300);
    golden["gguf"]["tokenizer.ggml.eom_token_id"] = json!(4_000_000_000_u64);
    // The same name on a token that is no control token means nothing.
    golden["gguf"]["tokenizer.ggml.token_type"][turn_end.index()] = json!(1);
    assert_eq!(tokenizer(of_gguf(&golden)).stop_tokens(), [TokenId(2), TokenId(300)]);
}

#[test]
fn named_tokens_come_from_either_format() {
    for made in [of_folder, of_gguf] {
        let tokenizer = tokenizer(made(&golden(BYTE_LEVEL)));
        let named: Vec<_> =
            tokenizer.named_tokens().iter().map(|it| (it.0.as_str(), it.1.as_str())).collect();
        assert_eq!(
            named,
            [
                ("bos_token", "<|im_start|>"),
                ("eos_token", "<|im_end|>"),
                ("pad_token", "<|im_end|>"),
                ("unk_token", "<|endoftext|>")
            ]
        );
    }
}

#[test]
fn a_named_token_is_recognized_though_the_file_does_not_list_it_as_added() {
    let mut golden = golden(BYTE_LEVEL);
    let expected = tokenizer(of_folder(&golden)).encode("a<|im_end|>b", SpecialTokens::None).unwrap();
    let added = golden["tokenizer"]["added_tokens"].as_array_mut().unwrap();
    added.retain(|it| it["content"] != "<|im_end|>");
    let tokenizer = tokenizer(of_folder(&golden));
    assert_eq!(tokenizer.encode("a<|im_end|>b", SpecialTokens::None).unwrap(), expected);
    assert!(tokenizer.is_special(tokenizer.token_id("<|im_end|>").unwrap()));
}

#[test]
fn a_length_limit_in_the_file_does_not_cut_prompts() {
    let mut golden = golden(BYTE_LEVEL);
    golden["tokenizer"]["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    golden["tokenizer"]["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let ids = tokenizer(of_folder(&golden)).encode("one two three four", SpecialTokens::Add).unwrap();
    assert_eq!(ids, tokenizer(of_gguf(&golden)).encode("one two three four", SpecialTokens::Add).unwrap());
}

mod malformed {
    use super::*;

    fn error_of(metadata: &Json) -> TokenizerError {
        let assets = TextAssets { tokenizer: Some(TokenizerSource::Gguf), ..TextAssets::default() };
        Tokenizer::new(&assets, metadata).unwrap_err()
    }

    fn with(text: &str, key: &str, value: Json) -> TokenizerError {
        let mut metadata = golden(text)["gguf"].clone();
        metadata[format!("tokenizer.ggml.{key}")] = value;
        error_of(&metadata)
    }

    #[test]
    fn no_tokenizer_is_said_with_a_hint() {
        let error = Tokenizer::new(&TextAssets::default(), &json!({})).unwrap_err();
        assert!(matches!(error, TokenizerError::Missing));
        assert!(error.to_string().contains("\n\nhint: "), "{error}");
    }

    #[test]
    fn a_tokenizer_json_that_is_none_is_refused() {
        for text in ["", "{}", "[1", "{\"model\": {\"type\": \"BPE\", \"vocab\": 3}}"] {
            let assets = TextAssets {
                tokenizer: Some(TokenizerSource::Json(text.to_owned())),
                ..TextAssets::default()
            };
            assert!(
                matches!(Tokenizer::new(&assets, &json!({})), Err(TokenizerError::Json { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_merge_that_makes_more_than_the_longest_token_is_refused_from_either_format() {
        // The engine writes the union into a buffer of the longest token's length.
        let text = json!({"version": "1.0", "added_tokens": [],
            "model": {"type": "BPE", "vocab": {"ab": 0, "c": 1}, "merges": [["ab", "ab"]]}});
        let assets =
            TextAssets { tokenizer: Some(TokenizerSource::Json(text.to_string())), ..TextAssets::default() };
        let error = Tokenizer::new(&assets, &json!({})).unwrap_err();
        assert!(matches!(error, TokenizerError::Json { .. }), "{error}");
        let error = with(BYTE_LEVEL, "merges", json!(["<|endoftext|> <|endoftext|>"]));
        assert!(
            matches!(&error, TokenizerError::Key { key, .. } if key == "tokenizer.ggml.merges"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_kind_is_named_with_those_that_are_known() {
        let error = with(BYTE_LEVEL, "model", json!("rwkv"));
        assert!(matches!(&error, TokenizerError::UnknownModel { model, .. } if model == "rwkv"), "{error}");
        let error = with(BYTE_LEVEL, "pre", json!("klingon"));
        assert!(matches!(&error, TokenizerError::UnknownSplit { name, .. } if name == "klingon"), "{error}");
        assert!(error.to_string().contains("smollm"), "{error}");
    }

    #[test]
    fn a_key_that_is_missing_or_of_another_type_is_named() {
        for (key, value) in [
            ("tokens", json!(["a", 1])),
            ("tokens", Json::Null),
            ("model", json!(5)),
            ("merges", json!(["ab"])),
            ("merges", json!({})),
            ("add_bos_token", json!("yes")),
        ] {
            let error = with(BYTE_LEVEL, key, value);
            let wanted = format!("tokenizer.ggml.{key}");
            assert!(matches!(&error, TokenizerError::Key { key, .. } if *key == wanted), "{error}");
        }
        let error = error_of(&json!({}));
        assert!(matches!(&error, TokenizerError::Key { found, .. } if found == "nothing"), "{error}");
        let error = with(SENTENCEPIECE, "scores", json!(["a"]));
        assert!(matches!(error, TokenizerError::Length { found: 1, .. }), "{error}");
    }

    #[test]
    fn a_list_that_is_too_short_is_refused_with_both_lengths() {
        let error = with(BYTE_LEVEL, "token_type", json!([1, 1]));
        let TokenizerError::Length { key, expected, found } = error else { panic!("{error}") };
        assert_eq!((key, expected, found), ("tokenizer.ggml.token_type", 501, 2));
    }

    #[test]
    fn named_tokens_beyond_the_vocabulary_are_ignored() {
        let mut metadata = golden(BYTE_LEVEL)["gguf"].clone();
        metadata["tokenizer.ggml.bos_token_id"] = json!(1_000_000);
        metadata["tokenizer.ggml.eos_token_id"] = json!(-1);
        let assets = TextAssets { tokenizer: Some(TokenizerSource::Gguf), ..TextAssets::default() };
        let tokenizer = Tokenizer::new(&assets, &metadata).unwrap();
        assert!(!tokenizer.named_tokens().contains_key("bos_token"));
        assert!(!tokenizer.named_tokens().contains_key("eos_token"));
    }
}
