//! A tokenizer from the metadata of a GGUF file.
//!
//! The file lists the tokens with their types, and either the merges of a byte-level BPE (`tokenizer.ggml.model` =
//! `gpt2`) together with the name of the way text is split into words (`tokenizer.ggml.pre`), or the scores of a
//! `SentencePiece` BPE (`llama`). Which tokens stand around a text is in `add_bos_token` and `add_eos_token`.
//!
//! Where the reference stack and llama.cpp read a file differently, this follows llama.cpp, for which the file was
//! written and whose reading gives the ids of the model's own tokenizer: control tokens count whatever they are
//! written with, and the words are split as `pre` says for every name in the table of `splits`.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer};

use super::frame::Frame;
use super::splits::SplitRule;
use super::{TokenizerError, sentencepiece};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// Structure; skipped when an answer is shown.
    Control,
    /// Text that is matched whole before anything else.
    UserDefined,
    /// Unknown, unused, a single byte.
    Other,
}

/// The token list and what the file says about it.
pub(super) struct Vocabulary<'a> {
    /// By id.
    pub(super) tokens: Vec<&'a str>,
    /// By id.
    pub(super) kinds: Vec<Kind>,
    /// The named tokens.
    pub(super) named: BTreeMap<String, String>,
    /// What is put around a text.
    pub(super) frame: Frame,
}

/// The ways to make ids of words, by the value of `tokenizer.ggml.model`.
const MODELS: &str = "gpt2, llama, gemma4";

/// Names of templates and of metadata for the named tokens.
const NAMED: [(&str, &str); 6] = [
    ("bos_token", "bos_token_id"),
    ("eos_token", "eos_token_id"),
    ("unk_token", "unknown_token_id"),
    ("sep_token", "seperator_token_id"), // spelled so in the format
    ("pad_token", "padding_token_id"),
    ("mask_token", "mask_token_id"),
];

impl<'a> Vocabulary<'a> {
    pub(super) fn read(metadata: &'a Json) -> Result<Self, TokenizerError> {
        let tokens = strings(metadata, "tokenizer.ggml.tokens")?;
        let kinds = match list(metadata, "tokenizer.ggml.token_type")? {
            None => vec![Kind::Normal; tokens.len()],
            Some(types) => types.iter().map(kind).collect(),
        };
        expect_length("tokenizer.ggml.token_type", tokens.len(), kinds.len())?;
        let named: BTreeMap<String, String> = NAMED
            .iter()
            .filter_map(|(name, key)| {
                let id = usize::try_from(metadata.get(format!("tokenizer.ggml.{key}"))?.as_u64()?).ok()?;
                Some(((*name).to_owned(), (*tokens.get(id)?).to_owned()))
            })
            .collect();
        let begins = flag(metadata, "add_bos_token")?.map_or_else(|| begins_by_default(metadata), Ok)?;
        let ends = flag(metadata, "add_eos_token")?.unwrap_or(false);
        let token = |wanted: bool, name: &str| wanted.then(|| named.get(name).cloned()).flatten();
        let frame = Frame { begin: token(begins, "bos_token"), end: token(ends, "eos_token") };
        Ok(Self { tokens, kinds, named, frame })
    }

    /// Ids by token.
    pub(super) fn ids(&self) -> Vocab {
        (0..).zip(&self.tokens).map(|(id, token)| ((*token).to_owned(), id)).collect()
    }
}

/// Older files do not say whether a text begins with a token of its own.
fn begins_by_default(metadata: &Json) -> Result<bool, TokenizerError> {
    match text(metadata, "tokenizer.ggml.model")? {
        "gpt2" => Ok(SplitRule::named(pre(metadata))?.begins),
        _ => Ok(true),
    }
}

/// The tokenizer without what stands around a text.
pub(super) fn build(metadata: &Json, vocabulary: &Vocabulary) -> Result<Tokenizer, TokenizerError> {
    let model = text(metadata, "tokenizer.ggml.model")?;
    let mut tokenizer = match model {
        "gpt2" if pre(metadata) == "gemma4" => {
            sentencepiece::with_merges(vocabulary, merges(metadata, &vocabulary.ids())?)?
        }
        "gpt2" => byte_level(metadata, vocabulary)?,
        "gemma4" => sentencepiece::with_merges(vocabulary, merges(metadata, &vocabulary.ids())?)?,
        "llama" => {
            let scores = scores(metadata, vocabulary.tokens.len())?;
            let prefix = flag(metadata, "add_space_prefix")?.unwrap_or(true);
            sentencepiece::with_scores(vocabulary, &scores, prefix)?
        }
        model => return Err(TokenizerError::UnknownModel { model: model.to_owned(), known: MODELS }),
    };
    let added = vocabulary.tokens.iter().zip(&vocabulary.kinds).filter_map(|(token, kind)| match kind {
        Kind::Control => Some(AddedToken::from(*token, true).normalized(false)),
        Kind::UserDefined if model == "llama" && sentencepiece::is_run_of_spaces(token) => None,
        Kind::UserDefined => Some(AddedToken::from(*token, false).normalized(false)),
        Kind::Normal | Kind::Other => None,
    });
    tokenizer.add_tokens(added).map_err(failed)?;
    Ok(tokenizer)
}

fn byte_level(metadata: &Json, vocabulary: &Vocabulary) -> Result<Tokenizer, TokenizerError> {
    let rule = SplitRule::named(pre(metadata))?;
    let ids = vocabulary.ids();
    let merges = merges(metadata, &ids)?;
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(rule.whole_words)
        .build()
        .map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(rule.pre_tokenizer()?)).with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The merges, in the order of their rank. Each makes a token of the vocabulary out of two.
fn merges(metadata: &Json, ids: &Vocab) -> Result<Merges, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let mut joined = String::new();
    strings(metadata, KEY)?
        .into_iter()
        .map(|merge| {
            if let Some((left, right)) = merge.split_once(' ') {
                joined.clear();
                joined.extend([left, right]);
                if [left, right, &joined].iter().all(|it| ids.contains_key(*it)) {
                    return Ok((left.to_owned(), right.to_owned()));
                }
            }
            Err(TokenizerError::Key {
                key: KEY.to_owned(),
                expected: "pairs of tokens with a space between, whose union is a token",
                found: format!("{merge:?}"),
            })
        })
        .collect()
}

fn scores(metadata: &Json, count: usize) -> Result<Vec<f64>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = list(metadata, KEY)?.ok_or_else(|| absent(KEY, "a list of numbers"))?;
    expect_length(KEY, count, scores.len())?;
    scores.iter().map(|it| it.as_f64().ok_or_else(|| wrong(KEY, "a list of numbers", it))).collect()
}

pub(super) fn failed(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Build { reason: error.to_string() }
}

/// The name of the way words are split; files from before it was recorded have none.
fn pre(metadata: &Json) -> &str {
    metadata.get("tokenizer.ggml.pre").and_then(Json::as_str).unwrap_or("default")
}

fn kind(value: &Json) -> Kind {
    match value.as_i64() {
        Some(1) => Kind::Normal,
        Some(3) => Kind::Control,
        Some(4) => Kind::UserDefined,
        _ => Kind::Other,
    }
}

fn flag(metadata: &Json, name: &str) -> Result<Option<bool>, TokenizerError> {
    let key = format!("tokenizer.ggml.{name}");
    match metadata.get(&key) {
        None => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong(&key, "true or false", value)),
    }
}

fn text<'a>(metadata: &'a Json, key: &str) -> Result<&'a str, TokenizerError> {
    let value = metadata.get(key).ok_or_else(|| absent(key, "a text"))?;
    value.as_str().ok_or_else(|| wrong(key, "a text", value))
}

fn list<'a>(metadata: &'a Json, key: &str) -> Result<Option<&'a Vec<Json>>, TokenizerError> {
    metadata.get(key).map(|it| it.as_array().ok_or_else(|| wrong(key, "a list", it))).transpose()
}

fn strings<'a>(metadata: &'a Json, key: &str) -> Result<Vec<&'a str>, TokenizerError> {
    let items = list(metadata, key)?.ok_or_else(|| absent(key, "a list of texts"))?;
    items.iter().map(|it| it.as_str().ok_or_else(|| wrong(key, "a list of texts", it))).collect()
}

fn expect_length(key: &'static str, expected: usize, found: usize) -> Result<(), TokenizerError> {
    if expected == found { Ok(()) } else { Err(TokenizerError::Length { key, expected, found }) }
}

fn absent(key: &str, expected: &'static str) -> TokenizerError {
    TokenizerError::Key { key: key.to_owned(), expected, found: "nothing".to_owned() }
}

fn wrong(key: &str, expected: &'static str, found: &Json) -> TokenizerError {
    let found = found.to_string().chars().take(60).collect();
    TokenizerError::Key { key: key.to_owned(), expected, found }
}
