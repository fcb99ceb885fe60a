//! The tokens that a folder's files add to the vocabulary of `tokenizer.json`, and those that have a name.
//!
//! Five files say which tokens are matched whole, before anything else is looked at: `tokenizer.json` itself,
//! `added_tokens_decoder`, `extra_special_tokens` (or its older name `additional_special_tokens`) and the named tokens of
//! `tokenizer_config.json`, `special_tokens_map.json`, and `added_tokens.json`. They are put together as transformers 5
//! does it:
//!
//! - Where there is an `added_tokens_decoder`, `special_tokens_map.json` and `added_tokens.json` are not looked at. Its
//!   flags count more than those of `tokenizer.json`.
//! - Where there is none, `special_tokens_map.json` counts more than `tokenizer_config.json`, and the flags of
//!   `tokenizer.json` count more than those of other files.
//! - A token that the vocabulary lacks gets the next free id, whatever id a file says: first the tokens that have an id in a
//!   file, in order of these ids, then the named ones, then the others.
//! - Named tokens are special, whatever a file says.

use std::collections::BTreeMap;

use checkpoint::TextAssets;
use serde_json::{Map, Value as Json};
use tokenizers::{AddedToken, Tokenizer};

use super::TokenizerError;
use super::bounds::Bounds;
use crate::contained::contained;

/// The names that every tokenizer of the reference stack may have, in its order.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files of a folder say of tokens.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// To be added, in order.
    tokens: Vec<AddedToken>,
    /// The named tokens, also those of one model alone (`image_token`).
    pub(super) named: BTreeMap<String, String>,
    /// Special tokens in a text are text.
    split_special: bool,
}

/// A token with a name.
type Named = (String, AddedToken);

impl Listed {
    /// Reads the files beside `tokenizer.json`, with whose added tokens `engine` was made.
    pub(super) fn read(assets: &TextAssets, engine: &Tokenizer) -> Self {
        let object =
            |file: &Option<Json>| file.as_ref().and_then(Json::as_object).cloned().unwrap_or_default();
        let config = object(&assets.tokenizer_config);
        let mut by_id: BTreeMap<u64, AddedToken> = BTreeMap::new();
        let mut special = SpecialTokens::of_config(&config);
        if let Some(decoder) = config.get("added_tokens_decoder").and_then(Json::as_object) {
            let token = |(id, token): (&String, &Json)| Some((id.parse().ok()?, token_of(token, false)?));
            by_id.extend(decoder.iter().filter_map(token));
        } else {
            special.replace_by_map(&object(&assets.special_tokens_map));
            for (content, id) in &object(&assets.added_tokens) {
                let Some(id) = id.as_u64() else { continue };
                by_id.insert(id, AddedToken::from(content.as_str(), special.contains(content)));
            }
            let of_engine = engine.get_added_vocabulary().get_added_tokens_decoder();
            by_id.retain(|_, it| !of_engine.values().any(|other| other.content == it.content));
            by_id.extend(of_engine.iter().map(|(&id, it)| (u64::from(id), it.clone())));
        }
        let split_special = config.get("split_special_tokens").and_then(Json::as_bool).unwrap_or(false);
        let named: BTreeMap<String, String> =
            special.named.iter().map(|(name, it)| (name.clone(), it.content.clone())).collect();
        let mut tokens: Vec<AddedToken> = by_id.into_values().collect();
        for token in special.named.into_iter().map(|it| it.1).chain(special.others) {
            let known = engine.get_added_vocabulary().get_vocab().contains_key(&token.content);
            if !known && !tokens.iter().any(|it| it.content == token.content) {
                tokens.push(token);
            }
        }
        for token in &mut tokens {
            token.special |= named.values().any(|it| *it == token.content);
        }
        Self { tokens, named, split_special }
    }

    /// Adds them to the vocabulary.
    pub(super) fn add(&self, engine: &mut Tokenizer, bounds: &Bounds) -> Result<(), TokenizerError> {
        engine.set_encode_special_tokens(self.split_special);
        let known = engine.get_added_vocabulary().get_added_tokens_decoder();
        let unchanged =
            |it: &AddedToken| engine.token_to_id(&it.content).and_then(|id| known.get(&id)) == Some(it);
        let tokens: Vec<AddedToken> = self.tokens.iter().filter(|it| !unchanged(it)).cloned().collect();
        if tokens.is_empty() {
            return Ok(());
        }
        for token in &tokens {
            bounds.check_added(token)?;
        }
        let failed = |reason: String| TokenizerError::Build { reason };
        contained(|| engine.add_tokens(tokens)).map_err(failed)?.map_err(|it| failed(it.to_string()))?;
        Ok(())
    }
}

/// The special tokens that have no ids.
struct SpecialTokens {
    /// The common names first.
    named: Vec<Named>,
    others: Vec<AddedToken>,
    /// Whether a file has a list of the others, be it empty.
    has_others: bool,
}

impl SpecialTokens {
    fn of_config(config: &Map<String, Json>) -> Self {
        let mut read = Self { named: Vec::new(), others: Vec::new(), has_others: false };
        for name in NAMES {
            read.set(name, config.get(name));
        }
        for (name, token) in config.iter().filter(|it| is_name(it.0)) {
            read.set(name, Some(token));
        }
        let filled = |name: &str| config.get(name).filter(|it| !is_empty(it));
        match filled("extra_special_tokens").or_else(|| filled("additional_special_tokens")) {
            Some(Json::Object(by_name)) => read.set_all(by_name),
            Some(list) => (read.others, read.has_others) = (tokens_of(list), true),
            None => read.has_others = config.get("extra_special_tokens").is_some_and(Json::is_array),
        }
        read
    }

    /// What `special_tokens_map.json` says in place of the configuration.
    fn replace_by_map(&mut self, map: &Map<String, Json>) {
        let common = |name: &str| NAMES.contains(&name);
        for (name, token) in map.iter().filter(|it| common(it.0) || is_name(it.0)) {
            self.set(name, Some(token));
        }
        self.named.sort_by_key(|it| NAMES.iter().position(|name| *name == it.0).unwrap_or(NAMES.len()));
        match map.get("extra_special_tokens") {
            Some(Json::Object(by_name)) => self.set_all(by_name),
            Some(list) => {
                for token in tokens_of(list) {
                    if !self.others.iter().any(|it| it.content == token.content) {
                        self.others.push(token);
                    }
                }
            }
            None if !self.has_others => {
                self.others = map.get("additional_special_tokens").map(tokens_of).unwrap_or_default();
            }
            None => {}
        }
    }

    fn set_all(&mut self, by_name: &Map<String, Json>) {
        for (name, token) in by_name {
            self.set(name, Some(token));
        }
    }

    fn set(&mut self, name: &str, token: Option<&Json>) {
        let Some(token) = token else { return };
        let place = self.named.iter().position(|it| it.0 == name);
        match (token_of(token, true), place) {
            (Some(token), Some(place)) => self.named[place].1 = token,
            (Some(token), None) => self.named.push((name.to_owned(), token)),
            (None, Some(place)) => drop(self.named.remove(place)),
            (None, None) => {}
        }
    }

    fn contains(&self, content: &str) -> bool {
        self.named.iter().map(|it| &it.1).chain(&self.others).any(|it| it.content == content)
    }
}

/// Whether a key of a settings file names a token of one model, such as `image_token`.
fn is_name(key: &str) -> bool {
    key.ends_with("_token") && !NAMES.contains(&key)
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(items) => items.is_empty(),
        Json::Object(items) => items.is_empty(),
        _ => false,
    }
}

fn tokens_of(list: &Json) -> Vec<AddedToken> {
    list.as_array().into_iter().flatten().filter_map(|it| token_of(it, true)).collect()
}

/// A token in a settings file: a text, or an object with flags. `special` is what it is where it does not say so itself,
/// and a special one is not normalized unless it says that.
fn token_of(token: &Json, special: bool) -> Option<AddedToken> {
    if let Some(content) = token.as_str() {
        return Some(AddedToken::from(content, special)).filter(|it| !it.content.is_empty());
    }
    let flag = |name: &str| token.get(name).and_then(Json::as_bool);
    let mut read = AddedToken::from(token.get("content")?.as_str()?, flag("special").unwrap_or(special));
    read.normalized = flag("normalized").unwrap_or(read.normalized);
    read.lstrip = flag("lstrip").unwrap_or(false);
    read.rstrip = flag("rstrip").unwrap_or(false);
    read.single_word = flag("single_word").unwrap_or(false);
    Some(read).filter(|it| !it.content.is_empty())
}
