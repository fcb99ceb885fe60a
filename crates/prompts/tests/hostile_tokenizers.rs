//! Tokenizers that panic, grow or reserve without end: each is an error that names the part.

use checkpoint::{TextAssets, TokenizerSource};
use glossary::TokenId;
use prompts::{SpecialTokens, Tokenizer, TokenizerError};
use serde_json::{Value as Json, json};

/// A tokenizer of four letters with one part replaced.
fn with(part: &str, value: Json) -> Result<Tokenizer, TokenizerError> {
    let mut description = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "merges": []},
    });
    description[part] = value;
    read(description.to_string())
}

fn read(text: String) -> Result<Tokenizer, TokenizerError> {
    let assets = TextAssets { tokenizer: Some(TokenizerSource::Json(text)), ..TextAssets::default() };
    Tokenizer::new(&assets, &json!({}))
}

/// Refused before anything is encoded: the message.
#[track_caller]
fn refused(part: &str, value: Json) -> String {
    let error = with(part, value).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("tokenizer.json: ") && text.contains("\n\nhint: "), "{text}");
    text
}

#[expect(clippy::needless_pass_by_value, reason = "shorter where it is called")]
fn replace(pattern: Json, content: &str) -> Json {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn sequence(parts: &str, part: &Json, count: usize) -> Json {
    json!({"type": "Sequence", parts: vec![part; count]})
}

#[test]
fn replacing_the_empty_text_is_refused_in_every_part_and_at_every_depth() {
    for pattern in [json!({"String": ""}), json!({"Regex": ""})] {
        let step = replace(pattern, "x");
        assert!(refused("normalizer", step.clone()).contains("normalizer: it replaces the empty text"));
        assert!(refused("decoder", step.clone()).contains("decoder: it replaces the empty text"));
        let inner = sequence("normalizers", &step, 2);
        assert!(refused("normalizer", sequence("normalizers", &inner, 1)).contains("the empty text"));
    }
}

#[test]
fn words_of_length_nothing_are_refused() {
    let step = json!({"type": "FixedLength", "length": 0});
    let text = refused("pre_tokenizer", sequence("pretokenizers", &step, 1));
    assert!(text.contains("`FixedLength` has length 0, expected at least 1"), "{text}");
    let fine = with("pre_tokenizer", json!({"type": "FixedLength", "length": 2})).unwrap();
    assert_eq!(fine.encode("abc", SpecialTokens::None).unwrap(), [TokenId(0), TokenId(1), TokenId(2)]);
}

#[test]
fn a_charsmap_that_says_more_than_it_has_is_refused_before_memory_is_reserved() {
    // 4294967295 bytes of a trie, of which 17 are there.
    let text = refused(
        "normalizer",
        json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAAAAAAAAAAAAAAAAAA"}),
    );
    assert!(text.contains("its trie is said to have 4294967292 bytes, found 17"), "{text}");
    // Without its kind the engine reads it all the same.
    let text = refused("normalizer", json!({"precompiled_charsmap": "/////wAAAAAAAAAAAAAAAAAAAAAA"}));
    assert!(text.contains("its trie is said to have"), "{text}");
    // One unit that leads far outside.
    let text = refused("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAEAA="}));
    assert!(text.contains("its trie leads to place"), "{text}");
}

#[test]
fn a_text_that_normalizing_would_double_forty_times_is_refused_and_others_are_encoded() {
    let double = replace(json!({"String": "a"}), "aa");
    let tokenizer = with("normalizer", sequence("normalizers", &double, 40)).unwrap();
    let error = tokenizer.encode("aaaa", SpecialTokens::None).unwrap_err();
    assert!(matches!(&error, TokenizerError::Grows { part: "normalizer", length: 4, .. }), "{error}");
    assert!(error.to_string().contains("\"aaaa\""), "{error}");
    assert_eq!(tokenizer.encode("bcd", SpecialTokens::None).unwrap().len(), 3);
    for growing in [
        replace(json!({"Regex": "a"}), &"a".repeat(1000)),
        json!({"type": "Prepend", "prepend": "a".repeat(100_000)}),
        json!({"type": "ByteLevel"}),
        json!({"type": "NFKD"}),
    ] {
        let many = sequence("normalizers", &growing, 30);
        let made = with("normalizer", many).unwrap();
        for text in ["aaaa", "\u{fdfa}", "é"] {
            match made.encode(text, SpecialTokens::None) {
                Ok(ids) => assert!(ids.len() < 100_000, "{growing} makes {} tokens", ids.len()),
                Err(error) => assert!(matches!(error, TokenizerError::Grows { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn an_added_token_that_grows_while_the_file_is_read_is_refused() {
    let double = replace(json!({"String": "a"}), "aa");
    let text = json!({
        "version": "1.0", "normalizer": sequence("normalizers", &double, 40),
        "added_tokens": [{"id": 4, "content": "a", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false}],
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
    });
    let error = read(text.to_string()).unwrap_err();
    assert!(matches!(error, TokenizerError::Grows { part: "normalizer", .. }), "{error}");
    // The same of a token that another file adds.
    let text = json!({
        "version": "1.0", "normalizer": sequence("normalizers", &double, 40), "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"b": 0}, "merges": []},
    });
    let token = json!({"content": "a", "normalized": true, "special": true});
    let assets = TextAssets {
        tokenizer: Some(TokenizerSource::Json(text.to_string())),
        tokenizer_config: Some(json!({"added_tokens_decoder": {"1": token}})),
        ..TextAssets::default()
    };
    let error = Tokenizer::new(&assets, &json!({})).unwrap_err();
    assert!(matches!(error, TokenizerError::Grows { part: "normalizer", .. }), "{error}");
}

#[test]
fn a_pre_tokenizer_that_doubles_forty_times_is_refused_where_it_is_used() {
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let tokenizer = with("pre_tokenizer", sequence("pretokenizers", &bytes, 40))
        .map(|it| it.encode("é", SpecialTokens::None));
    let error = tokenizer.and_then(|it| it).unwrap_err();
    assert!(matches!(error, TokenizerError::Grows { part: "pre_tokenizer", .. }), "{error}");
}

#[test]
fn a_decoder_that_makes_a_token_a_million_times_as_long_is_refused() {
    for (content, count) in [("a".repeat(1000), 3), ("aa".to_owned(), 40)] {
        let step = replace(json!({"String": "a"}), &content);
        let text = refused("decoder", sequence("decoders", &step, count));
        assert!(text.contains("decoder: its steps can make a text"), "{text}");
        let step = replace(json!({"Regex": "[^x]"}), &content);
        refused("decoder", sequence("decoders", &step, count));
    }
    let suffix = json!({"type": "BPEDecoder", "suffix": ""});
    refused("decoder", sequence("decoders", &suffix, 40));
}

#[test]
fn a_template_that_takes_a_text_twice_or_puts_thousands_of_tokens_around_it_is_refused() {
    let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
    let token = json!({"SpecialToken": {"id": "t", "type_id": 0}});
    let template = |single: Vec<&Json>, ids: usize| {
        json!({"type": "TemplateProcessing", "single": single, "pair": [piece, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"t": {"id": "t", "ids": vec![0; ids], "tokens": vec!["a"; ids]}}})
    };
    let twice = template(vec![&piece, &piece], 1);
    assert!(refused("post_processor", twice.clone()).contains("takes 2 times"));
    refused("post_processor", sequence("processors", &twice, 40));
    assert!(
        refused("post_processor", template(vec![&token, &piece, &token], 1000)).contains("puts 2000 tokens")
    );
    let fine = with("post_processor", template(vec![&token, &piece], 2)).unwrap();
    assert_eq!(fine.encode("b", SpecialTokens::Add).unwrap(), [TokenId(0), TokenId(0), TokenId(1)]);
}

#[test]
fn tokens_and_marks_that_are_books_are_refused() {
    let long = "a".repeat(100_000);
    let model =
        |unk: &str, vocab: Json| json!({"type": "BPE", "unk_token": unk, "vocab": vocab, "merges": []});
    assert!(
        refused("model", model("b", json!({"b": 0, long.clone(): 1})))
            .contains("longest token has 100000 bytes")
    );
    let list = json!({"type": "Unigram", "unk_id": 0, "vocab": [["b", 0.0], [long, -1.0]]});
    assert!(refused("model", list).contains("longest token has 100000 bytes"));
    let mark = "u".repeat(2000);
    assert!(refused("model", model(&mark, json!({mark.clone(): 0}))).contains("`unk_token` has 2000 bytes"));
}

#[test]
fn parts_in_parts_in_parts_are_refused() {
    let mut part = json!({"type": "NFC"});
    for _ in 0..50 {
        part = json!({"type": "Sequence", "normalizers": [part]});
    }
    assert!(refused("normalizer", part).contains("deep"));
}

#[test]
fn a_panic_while_encoding_or_decoding_is_an_error_that_names_the_text() {
    // An expression that matches nothing, between all letters; a decoder that strips more than there is.
    let tokenizer = with("normalizer", replace(json!({"Regex": "x*"}), "b"));
    if let Err(error) = tokenizer.and_then(|it| it.encode("aé", SpecialTokens::None)) {
        assert!(error.to_string().contains("cannot encode \"aé\""), "{error}");
    }
    let strip = json!({"type": "Strip", "content": "a", "start": 0, "stop": 9});
    let tokenizer = with("decoder", strip).unwrap();
    let decoded = tokenizer.decode(&[TokenId(0)], false);
    assert!(decoded.is_err_and(|it| it.to_string().contains("cannot decode 1 tokens")));
    // The same tokenizer still works on what does no harm.
    assert_eq!(tokenizer.decode(&[TokenId(1)], false).unwrap(), "b");
}

/// Every part of a few real tokenizers with one thing changed: whatever it becomes, it answers, and soon.
#[test]
fn a_tokenizer_with_one_value_changed_is_read_or_refused_and_encodes_or_says_why_not() {
    let golden = |text: &str| serde_json::from_str::<Json>(text).unwrap()["tokenizer"].clone();
    let tokenizers = [
        golden(include_str!("golden/byte_level.json")),
        golden(include_str!("golden/sentencepiece.json")),
        golden(include_str!("golden/added_tokens.json")),
    ];
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let values = [
        json!(""),
        json!("a"),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!("é"),
        json!({"Regex": "(a*)*b"}),
        json!({"Regex": "("}),
        json!({"String": ""}),
    ];
    let mut read_ones = 0;
    for round in 0..1600 {
        let mut description = tokenizers[round % tokenizers.len()].clone();
        let part =
            ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens"][next(6)];
        change(&mut description[part], &mut next, &values);
        let Ok(tokenizer) = read(description.to_string()) else { continue };
        read_ones += 1;
        for text in ["", "the quick  brown\nfox é 漢字", "<|im_end|>aaaa"] {
            let ids = tokenizer.encode(text, SpecialTokens::Add).unwrap_or_default();
            let decoded = tokenizer.decode(&ids, true).map_or(0, |it| it.len());
            assert!(decoded < 1 << 20);
        }
    }
    assert!(read_ones > 100, "{read_ones} of 1600 were read");
}

/// Puts another value somewhere into a tree; of long lists and tables only the first entries.
fn change(tree: &mut Json, next: &mut impl FnMut(usize) -> usize, values: &[Json]) {
    let deeper = next(4) > 0;
    match tree {
        Json::Array(items) if deeper && !items.is_empty() => {
            let place = next(items.len().min(8));
            change(&mut items[place], next, values);
        }
        Json::Object(fields) if deeper && !fields.is_empty() => {
            let place = next(fields.len().min(16));
            let value = fields.values_mut().nth(place).unwrap();
            change(value, next, values);
        }
        other => *other = values[next(values.len())].clone(),
    }
}
