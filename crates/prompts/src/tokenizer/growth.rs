//! How much longer a step of a tokenizer can make a text.
//!
//! A file of a few hundred bytes can describe steps that double a text forty times, or put a long text at every place of
//! it. So the most that each step can add is told from its description, before it runs: an upper bound, often far above
//! what it does. Steps are described as the engine writes them, so that all forms it reads have the same bound.

use serde_json::Value as Json;

/// An upper bound of what is made of a text: so many bytes for each byte, and so many more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) per_byte: f64,
    pub(super) more: f64,
}

impl Growth {
    /// What does not get longer.
    pub(super) const NONE: Self = Self { per_byte: 1.0, more: 0.0 };

    fn by(per_byte: f64) -> Self {
        Self { per_byte: per_byte.max(1.0), more: 0.0 }
    }

    /// First this, then the other.
    fn then(self, next: Self) -> Self {
        Self { per_byte: self.per_byte * next.per_byte, more: self.more * next.per_byte + next.more }
    }

    /// The most bytes that are made of so many.
    pub(super) fn of(self, bytes: f64) -> f64 {
        bytes * self.per_byte + self.more
    }

    /// Of a normalizer, for a text that added tokens may cut into pieces of one byte.
    pub(super) fn of_normalizer(step: &Json) -> Self {
        match kind(step) {
            "Sequence" => sequence(step, "normalizers", Self::of_normalizer),
            // Lengths in UTF-8: Unicode's bounds for its normalization forms.
            "NFC" | "NFD" => Self::by(3.0),
            "NFKC" | "NFKD" => Self::by(11.0),
            // İ becomes i and a dot.
            "Lowercase" => Self::by(1.5),
            // Spaces around each ideograph, decomposition, lower case.
            "BertNormalizer" => Self::by(5.0 / 3.0 * 3.0 * 1.5),
            "ByteLevel" => Self::by(2.0),
            "Prepend" => {
                Self { per_byte: 1.0 + length(step.get("prepend")), more: length(step.get("prepend")) }
            }
            "Replace" => replace(step),
            "Precompiled" => {
                let charsmap = step.get("precompiled_charsmap").and_then(Json::as_str).unwrap_or_default();
                Self::by(super::charsmap::check(charsmap).unwrap_or(0) as f64)
            }
            _ => Self::NONE,
        }
    }

    /// Of a way to cut a text into words; each byte may be a word.
    pub(super) fn of_pre_tokenizer(step: &Json) -> Self {
        match kind(step) {
            "Sequence" => sequence(step, "pretokenizers", Self::of_pre_tokenizer),
            // A byte is written as a character of up to two; so is the space before a word.
            "ByteLevel" => Self { per_byte: 4.0, more: 2.0 },
            "Metaspace" => {
                let space = length(step.get("replacement"));
                Self { per_byte: 2.0 * space.max(1.0), more: space }
            }
            _ => Self::NONE,
        }
    }

    /// Of a decoder, for the texts of tokens together.
    pub(super) fn of_decoder(step: &Json) -> Self {
        match kind(step) {
            "Sequence" => sequence(step, "decoders", Self::of_decoder),
            "Replace" => replace(step),
            // A byte that is no text is shown by a character of three.
            "ByteLevel" | "ByteFallback" => Self::by(3.0),
            // A space for a suffix, which may be empty; a space between words.
            "BPEDecoder" | "CTC" | "WordPiece" | "Metaspace" => Self { per_byte: 2.0, more: 1.0 },
            _ => Self::NONE,
        }
    }
}

fn kind(step: &Json) -> &str {
    step.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// The bytes of a text.
fn length(text: Option<&Json>) -> f64 {
    text.and_then(Json::as_str).map_or(0.0, |it| it.len() as f64)
}

fn sequence(step: &Json, parts: &str, of: fn(&Json) -> Growth) -> Growth {
    let parts = step.get(parts).and_then(Json::as_array).into_iter().flatten();
    parts.fold(Growth::NONE, |before, it| before.then(of(it)))
}

/// A text for each place where a text stands; for each place at all where an expression may match the empty text.
fn replace(step: &Json) -> Growth {
    let by = length(step.get("content"));
    match step.get("pattern").and_then(|it| it.get("String")) {
        Some(text) => Growth::by(by / length(Some(text)).max(1.0)),
        None => Growth { per_byte: 1.0 + by, more: by },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::normalizers::NormalizerWrapper;
    use tokenizers::{NormalizedString, Normalizer};

    use super::*;

    #[test]
    fn steps_multiply() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let all = json!({"type": "Sequence", "normalizers": vec![double; 40]});
        assert_eq!(Growth::of_normalizer(&all), Growth { per_byte: 2_f64.powi(40), more: 0.0 });
        let bytes = json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "ByteLevel"}); 3]});
        assert_eq!(Growth::of_pre_tokenizer(&bytes), Growth { per_byte: 64.0, more: 42.0 }); // 2·16 + 2·4 + 2
    }

    #[test]
    fn no_normalizer_makes_a_text_longer_than_its_bound() {
        let texts = ["", "a", "aaaa", "İİ", "ΐΰ", "\u{fdfa}", "漢字", "\u{1d160}", "é\u{301}", "a b", "ﬃ"];
        for description in [
            json!({"type": "NFC"}),
            json!({"type": "NFD"}),
            json!({"type": "NFKC"}),
            json!({"type": "NFKD"}),
            json!({"type": "Lowercase"}),
            json!({"type": "StripAccents"}),
            json!({"type": "Nmt"}),
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": true, "lowercase": true}),
            json!({"type": "ByteLevel"}),
            json!({"type": "Prepend", "prepend": "▁▁"}),
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "long"}),
            json!({"type": "Replace", "pattern": {"String": "aa"}, "content": "long"}),
            json!({"type": "Replace", "pattern": {"Regex": "a|b"}, "content": "long"}),
        ] {
            let step: NormalizerWrapper = serde_json::from_value(description.clone()).unwrap();
            let growth = Growth::of_normalizer(&serde_json::to_value(&step).unwrap());
            for text in texts {
                let mut normalized = NormalizedString::from(text);
                step.normalize(&mut normalized).unwrap();
                let (found, bound) = (normalized.get().len() as f64, growth.of(text.len() as f64));
                assert!(
                    found <= bound,
                    "{description} makes {found} bytes of {text:?}, expected at most {bound}"
                );
            }
        }
    }
}
