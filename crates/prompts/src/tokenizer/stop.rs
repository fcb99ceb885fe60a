//! The tokens at which an answer ends.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::TextAssets;
use glossary::TokenId;
use serde_json::Value as Json;

use super::gguf::{Kind, Vocabulary};

/// How chat models write the end of a turn. In a GGUF file, which has no generation settings, a control token of
/// this name ends an answer.
pub(super) const TURN_ENDS: [&str; 13] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<EOT>",
];

/// The stop tokens of a folder.
///
/// `eos_token_id` of the generation settings, else of the configuration; with it the tokenizer's `eos_token`.
pub(super) fn from_assets(
    assets: &TextAssets,
    config: &Json,
    named: &BTreeMap<String, String>,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Vec<TokenId> {
    let generation = assets.generation_config.as_ref().map(ids_in).unwrap_or_default();
    let mut stop = if generation.is_empty() { ids_in(config) } else { generation };
    if stop.is_empty() {
        // Models that see keep the settings of their text half apart.
        stop = config.get("text_config").map(ids_in).unwrap_or_default();
    }
    stop.extend(named.get("eos_token").and_then(|it| id_of(it)));
    stop.into_iter().map(TokenId).collect()
}

/// `eos_token_id`: a number or a list of numbers.
fn ids_in(settings: &Json) -> BTreeSet<u32> {
    let ids = settings.get("eos_token_id");
    let list = ids.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().chain(ids).filter_map(Json::as_u64).filter_map(|it| u32::try_from(it).ok()).collect()
}

/// The stop tokens of a GGUF file: end of sequence, of turn, of message, and control tokens known by their names.
pub(super) fn from_gguf(metadata: &Json, vocabulary: &Vocabulary) -> Vec<TokenId> {
    let mut stop: BTreeSet<TokenId> = ["eos", "eot", "eom"]
        .iter()
        .filter_map(|it| metadata.get(format!("tokenizer.ggml.{it}_token_id"))?.as_u64())
        .filter_map(|it| u32::try_from(it).ok())
        .filter(|&it| (it as usize) < vocabulary.tokens.len())
        .map(TokenId)
        .collect();
    for (id, (token, kind)) in (0..).zip(vocabulary.tokens.iter().zip(&vocabulary.kinds)) {
        if *kind == Kind::Control && TURN_ENDS.contains(token) {
            stop.insert(TokenId(id));
        }
    }
    stop.into_iter().collect()
}
