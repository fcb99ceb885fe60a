//! Whatever a tokenizer.json says, it is read or refused, and encodes and decodes or says why not, without a panic that
//! gets out and without growing beyond its bounds.
//!
//! The input is a tokenizer.json and, after a zero byte, a text.

#![no_main]

use checkpoint::{TextAssets, TokenizerSource};
use libfuzzer_sys::fuzz_target;
use prompts::{SpecialTokens, Tokenizer};

fuzz_target!(|input: &str| {
    let (description, text) = input.split_once('\0').unwrap_or((input, "the quick  brown\nfox é 漢字"));
    let assets = TextAssets {
        tokenizer: Some(TokenizerSource::Json(description.to_owned())),
        ..TextAssets::default()
    };
    let Ok(tokenizer) = Tokenizer::new(&assets, &serde_json::json!({})) else { return };
    let Ok(ids) = tokenizer.encode(text, SpecialTokens::Add) else { return };
    assert!(ids.len() <= 4096 + 1024 * text.len() + 65536, "{} tokens of {} bytes", ids.len(), text.len());
    if let Ok(decoded) = tokenizer.decode(&ids, true) {
        assert!(decoded.len() <= 1 << 30);
    }
});
