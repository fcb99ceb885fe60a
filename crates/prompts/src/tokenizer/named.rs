//! The tokens that have a name, such as `bos_token`, and what the tokenizer's settings say of them.

use std::collections::BTreeMap;

use checkpoint::TextAssets;
use serde_json::Value as Json;

use tokenizers::{AddedToken, Tokenizer};

use super::{Frame, TokenizerError};

/// The names that templates of the reference stack see.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The named tokens of a folder: `tokenizer_config.json` first, `special_tokens_map.json` for what it leaves out.
pub(super) fn from_assets(assets: &TextAssets) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for file in [&assets.special_tokens_map, &assets.tokenizer_config].into_iter().flatten() {
        for name in NAMES {
            if let Some(token) = file.get(name).and_then(written) {
                named.insert(name.to_owned(), token.to_owned());
            }
        }
    }
    named
}

/// A token in a settings file: a text, or an object that has it as its content.
fn written(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Makes named tokens of the vocabulary special, where `tokenizer.json` does not list them as added tokens.
///
/// Named tokens that the vocabulary lacks stay unknown: the reference stack would give them new ids, for which the
/// model has no embedding.
pub(super) fn recognize(
    engine: &mut Tokenizer,
    named: &BTreeMap<String, String>,
) -> Result<(), TokenizerError> {
    let missing: Vec<AddedToken> = named
        .values()
        .filter(|token| engine.token_to_id(token).is_some())
        .filter(|token| !engine.get_added_vocabulary().get_vocab().contains_key(token.as_str()))
        .map(|token| AddedToken::from(token.as_str(), true).normalized(false))
        .collect();
    if !missing.is_empty() {
        engine.add_tokens(missing).map_err(|it| TokenizerError::Build { reason: it.to_string() })?;
    }
    Ok(())
}

/// What the settings put around a text, if they say so; else `tokenizer.json` knows.
///
/// As in the reference stack, saying it of one end says it of both.
pub(super) fn frame(assets: &TextAssets, named: &BTreeMap<String, String>) -> Option<Frame> {
    let settings = assets.tokenizer_config.as_ref()?;
    let (begin, end) = (settings.get("add_bos_token"), settings.get("add_eos_token"));
    if begin.is_none() && end.is_none() {
        return None;
    }
    let token = |wanted: Option<&Json>, name: &str| {
        wanted.and_then(Json::as_bool).unwrap_or(false).then(|| named.get(name).cloned()).flatten()
    };
    Some(Frame { begin: token(begin, "bos_token"), end: token(end, "eos_token") })
}
