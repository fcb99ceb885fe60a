//! What is written of a folder whose weights are quantized: the model before that, an ordinary one.
//!
//! All weights are written as the numbers that they mean, in the type that the model computes in (`dtype` of `config.json`),
//! rounded once, a few rows at a time; what the configuration says of quantization is taken out, and the rest of its text
//! stays. To quantize the edited weights anew would round a second time, with scales that only the tool that made the first
//! ones could choose as well; that tool can be run on what is written. To leave the others quantized would need lists of
//! modules in the configuration that every reader spells in its own way.

use serde_json::Value;

use super::{Replacement, Replacements, WriteError};
use crate::checkpoint::{Entry, TEXT, TIED};
use crate::json::{read_text, with_member, without_members};
use crate::quantized::{KEYS, SIDE_FILES};
use crate::{Checkpoint, TensorDtype};

/// The file whose text changes.
pub(super) const CONFIG: &str = "config.json";

/// Whether files of the folder describe a quantization, be it one that the weights do not have: what is written has none.
fn describes_quantization(checkpoint: &Checkpoint) -> bool {
    checkpoint.quantization().is_some() || checkpoint.has_stale_quantization()
}

/// Files that only describe quantized weights.
pub(super) fn side_files(checkpoint: &Checkpoint) -> &'static [&'static str] {
    if describes_quantization(checkpoint) { &SIDE_FILES } else { &[] }
}

/// The weights that nothing replaces and that are not what their bytes say: quantized ones, and those that an adapter has
/// changed.
pub(super) fn others<'a>(checkpoint: &Checkpoint, replaced: &Replacements<'_>) -> Replacements<'a> {
    let others =
        checkpoint.entries().iter().filter(|it| it.numbers.is_some() && !replaced.contains_key(&*it.name));
    // Their types can always be decoded.
    let tensors = others.filter_map(|it| it.tensor("").ok());
    tensors.map(|it| (it.name().to_owned(), Replacement::of(it))).collect()
}

/// The type in which a quantized weight is written: the one that the model computes in, else the one that holds its
/// numbers, unless they are products in f32, of which no model is made.
pub(super) fn dtype(checkpoint: &Checkpoint, entry: &Entry) -> TensorDtype {
    let config = checkpoint.config();
    let parts = [Some(config), config.get("text_config")].into_iter().flatten();
    let named = parts.flat_map(|it| [it.get("dtype"), it.get("torch_dtype")]).flatten();
    let known = named.filter_map(Value::as_str).find_map(|it| match it.trim_start_matches("torch.") {
        "bfloat16" => Some(TensorDtype::BF16),
        "float16" => Some(TensorDtype::F16),
        "float32" => Some(TensorDtype::F32),
        _ => None,
    });
    known.unwrap_or(match entry.adapted.or(entry.dtype.clone().ok()) {
        Some(TensorDtype::F16) => TensorDtype::F16,
        _ => TensorDtype::BF16,
    })
}

/// The text of the configuration without what it says of quantization, and of a head that is the embedding where an adapter
/// has made two of them; `None` where it stays as it is.
pub(super) fn config(checkpoint: &Checkpoint) -> Result<Option<String>, WriteError> {
    if !describes_quantization(checkpoint) && !checkpoint.is_untied() {
        return Ok(None);
    }
    let Some(mut text) = read_text(&checkpoint.path().join(CONFIG))? else { return Ok(None) };
    if describes_quantization(checkpoint) {
        text = without_members(&text, &KEYS, TEXT);
    }
    if checkpoint.is_untied() {
        text = with_member(&text, TIED, "false", TEXT);
    }
    Ok(Some(text))
}
