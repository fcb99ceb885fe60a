//! What a tokenizer may not do, and what is looked at before it does anything.
//!
//! The engine takes a description for what its author meant, and panics, reserves or grows without end where that makes no
//! sense. A description is therefore looked at before anything is built of it, a text before it is encoded, and panics
//! that are left are caught.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, Tokenizer};

use super::growth::Growth;
use super::{TokenizerError, charsmap};
use crate::contained::contained;

/// Bytes to which a text may grow: the engine keeps 16 more for each, so about a gigabyte.
const MAX_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// How many times as long a text may become; spaces of `SentencePiece` are three times as long as they were.
const MAX_TIMES: f64 = 1024.0;

/// What a short text may become at any rate.
const MIN_BYTES: f64 = 64.0 * 1024.0;

/// How many times as long decoding may make tokens. Known decoders reach 9.
const MAX_DECODED_TIMES: f64 = 10_000.0;

/// The longest token, in bytes. Of 262144 tokens of Gemma 3 the longest has 93.
const MAX_TOKEN: usize = 64 * 1024;

/// The longest text that the model part puts where the vocabulary has nothing.
const MAX_MARK: usize = 1024;

/// The most tokens that are put around a text.
const MAX_AROUND: usize = 1024;

/// How deep parts may lie in parts; known ones are 2 deep.
const MAX_DEPTH: usize = 16;

/// The longest word that `WordPiece` looks up piece by piece; usual is 100.
const MAX_WORD: u64 = 10_000;

/// The bounds of one tokenizer.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The steps of the normalizer, one after the other.
    steps: Vec<(NormalizerWrapper, Growth)>,
    normalizer: Growth,
    pre_tokenizer: Growth,
    decoder: Growth,
    /// The longest token, in bytes.
    longest: usize,
}

/// What is looked at of `tokenizer.json`.
#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    decoder: Json,
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    normalized: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    unk_token: Json,
    #[serde(default)]
    continuing_subword_prefix: Json,
    #[serde(default)]
    end_of_word_suffix: Json,
    #[serde(default)]
    max_input_chars_per_word: Json,
    #[serde(default)]
    vocab: Longest,
}

/// The longest token of a vocabulary, of which nothing else is kept.
#[derive(Default)]
struct Longest(usize);

impl Bounds {
    /// Looks at a description before the engine does.
    ///
    /// # Errors
    /// [`TokenizerError::Part`] with the part that makes no sense.
    pub(super) fn of_json(text: &str) -> Result<Self, TokenizerError> {
        let read: Description =
            serde_json::from_str(text).map_err(|it| TokenizerError::Json { reason: it.to_string() })?;
        for (name, part) in [
            ("normalizer", &read.normalizer),
            ("pre_tokenizer", &read.pre_tokenizer),
            ("post_processor", &read.post_processor),
            ("decoder", &read.decoder),
        ] {
            sensible(part, MAX_DEPTH).map_err(|reason| part_error(name, reason))?;
        }
        let longest =
            read.added_tokens.iter().map(|it| it.content.len()).fold(read.model.vocab.0, usize::max);
        read.model.check(longest)?;
        let processor = canonical::<PostProcessorWrapper>("post_processor", &read.post_processor)?;
        let (copies, around) = processor.as_ref().map_or((1.0, 0.0), |it| around(&it.1));
        if copies > 1.0 || around > MAX_AROUND as f64 {
            let reason = format!(
                "it puts {around} tokens around a text that it takes {copies} times, expected at most {MAX_AROUND} and 1"
            );
            return Err(part_error("post_processor", reason));
        }
        let pre_tokenizer = canonical::<PreTokenizerWrapper>("pre_tokenizer", &read.pre_tokenizer)?;
        let decoder = canonical::<DecoderWrapper>("decoder", &read.decoder)?;
        let normalizer = canonical::<NormalizerWrapper>("normalizer", &read.normalizer)?;
        let bounds = Self::of_parts(
            normalizer.map(|it| it.0),
            pre_tokenizer.map_or(Growth::NONE, |it| Growth::of_pre_tokenizer(&it.1)),
            decoder.map_or(Growth::NONE, |it| Growth::of_decoder(&it.1)),
            longest,
        )?;
        // The engine normalizes these while it reads the file.
        for token in read.added_tokens.iter().filter(|it| it.normalized) {
            bounds.normalized(&token.content, 1)?;
        }
        Ok(bounds)
    }

    /// Whether a token can be added to the vocabulary.
    pub(super) fn check_added(&self, token: &AddedToken) -> Result<(), TokenizerError> {
        if token.content.len() > MAX_TOKEN {
            let reason =
                format!("an added token has {} bytes, expected at most {MAX_TOKEN}", token.content.len());
            return Err(TokenizerError::Build { reason });
        }
        if token.normalized {
            self.normalized(&token.content, 1)?;
        }
        Ok(())
    }

    /// Of a tokenizer that is built of other descriptions than `tokenizer.json`.
    pub(super) fn of_engine(engine: &Tokenizer, longest: usize) -> Result<Self, TokenizerError> {
        Self::of_parts(
            engine.get_normalizer().cloned(),
            engine.get_pre_tokenizer().map_or(Growth::NONE, |it| Growth::of_pre_tokenizer(&written(it))),
            engine.get_decoder().map_or(Growth::NONE, |it| Growth::of_decoder(&written(it))),
            longest,
        )
    }

    fn of_parts(
        normalizer: Option<NormalizerWrapper>,
        pre_tokenizer: Growth,
        decoder: Growth,
        longest: usize,
    ) -> Result<Self, TokenizerError> {
        if decoder.per_byte > MAX_DECODED_TIMES || decoder.more > MAX_BYTES {
            let reason = format!(
                "its steps can make a text {:.1e} times as long, expected at most {MAX_DECODED_TIMES} times",
                decoder.per_byte.max(decoder.more)
            );
            return Err(part_error("decoder", reason));
        }
        if longest > MAX_TOKEN {
            let reason = format!("its longest token has {longest} bytes, expected at most {MAX_TOKEN}");
            return Err(part_error("vocabulary", reason));
        }
        let whole = normalizer.as_ref().map_or(Growth::NONE, |it| Growth::of_normalizer(&written(it)));
        let mut steps = Vec::new();
        flatten(normalizer, &mut steps);
        Ok(Self { steps, normalizer: whole, pre_tokenizer, decoder, longest })
    }

    /// Whether a text can be encoded without growing beyond measure.
    pub(super) fn check_text(&self, engine: &Tokenizer, text: &str) -> Result<(), TokenizerError> {
        let most = most(text.len());
        if self.pre_tokenizer.of(self.normalizer.of(text.len() as f64)) <= most {
            return Ok(());
        }
        // The bound is often far above what happens: try it, step by step.
        let pieces = engine
            .get_added_vocabulary()
            .extract_and_normalize::<NormalizerWrapper>(None, text)
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .len();
        let length = self.normalized(text, pieces)?;
        if self.pre_tokenizer.of(length as f64) > most {
            return Err(grows("pre_tokenizer", text, self.pre_tokenizer.of(length as f64), most));
        }
        Ok(())
    }

    /// The length of a text when it is normalized; a text that is put before each piece is put there at once.
    fn normalized(&self, text: &str, pieces: usize) -> Result<usize, TokenizerError> {
        let most = most(text.len());
        let mut now = text.to_owned();
        for (step, growth) in &self.steps {
            let expected = match step {
                NormalizerWrapper::Prepend(it) => (now.len() + it.prepend.len() * pieces) as f64,
                NormalizerWrapper::Replace(it) => match pattern(step) {
                    Some(pattern) => {
                        let found = now.matches(pattern.as_str()).count();
                        (now.len() - found * pattern.len() + found * it.content.len()) as f64
                    }
                    None => growth.of(now.len() as f64),
                },
                _ => growth.of(now.len() as f64),
            };
            if expected > most {
                return Err(grows("normalizer", text, expected, most));
            }
            now = match step {
                NormalizerWrapper::Prepend(it) => it.prepend.repeat(pieces) + &now,
                _ => contained(|| {
                    let mut normalized = NormalizedString::from(now.as_str());
                    step.normalize(&mut normalized).map(|()| normalized.get().to_owned())
                })
                .map_err(|it| part_error("normalizer", it))?
                .map_err(|it| part_error("normalizer", it.to_string()))?,
            };
        }
        Ok(now.len())
    }

    /// Whether so many tokens can be decoded; they are shorter than the longest.
    pub(super) fn check_decoding(&self, tokens: usize) -> Result<(), String> {
        let bytes = self.decoder.of((tokens * self.longest) as f64);
        if bytes <= MAX_BYTES.max(self.decoder.of((tokens * 1024) as f64)) {
            return Ok(());
        }
        Err(format!("they could become {bytes:.0} bytes, expected at most {MAX_BYTES}"))
    }
}

/// The bytes that a text of so many may become.
fn most(bytes: usize) -> f64 {
    (bytes as f64 * MAX_TIMES + MIN_BYTES).min(MAX_BYTES).max(4.0 * bytes as f64)
}

fn grows(part: &'static str, text: &str, bytes: f64, most: f64) -> TokenizerError {
    TokenizerError::Grows { part, text: super::shortened(text), length: text.len(), bytes, most }
}

fn part_error(part: &'static str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Part { part, reason: reason.into() }
}

fn written(part: &impl serde::Serialize) -> Json {
    serde_json::to_value(part).unwrap_or_default()
}

/// A part as the engine reads it, and as it writes it. `None` where it reads none: the engine then says so.
fn canonical<T: DeserializeOwned + serde::Serialize>(
    name: &'static str,
    part: &Json,
) -> Result<Option<(T, Json)>, TokenizerError> {
    if part.is_null() {
        return Ok(None);
    }
    let read = contained(|| serde_json::from_value::<T>(part.clone())).map_err(|it| part_error(name, it))?;
    Ok(read.ok().map(|it| {
        let written = written(&it);
        (it, written)
    }))
}

/// The steps of sequences in sequences, in order.
fn flatten(step: Option<NormalizerWrapper>, steps: &mut Vec<(NormalizerWrapper, Growth)>) {
    match step {
        Some(NormalizerWrapper::Sequence(inner)) => {
            for step in inner.as_ref() {
                flatten(Some(step.clone()), steps);
            }
        }
        Some(step) => {
            let growth = Growth::of_normalizer(&written(&step));
            steps.push((step, growth));
        }
        None => {}
    }
}

/// The text that a step replaces, where it is a text.
fn pattern(step: &NormalizerWrapper) -> Option<String> {
    Some(written(step).get("pattern")?.get("String")?.as_str()?.to_owned())
}

/// Whether a part and what lies in it make sense by themselves.
fn sensible(part: &Json, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("its parts lie more than {MAX_DEPTH} deep in each other"));
    };
    match part {
        Json::Array(parts) => parts.iter().try_for_each(|it| sensible(it, depth)),
        Json::Object(fields) => {
            if let Some(pattern) = fields.get("pattern")
                && fields.contains_key("content")
                && ["String", "Regex"].iter().any(|it| pattern.get(it).and_then(Json::as_str) == Some(""))
            {
                return Err("it replaces the empty text, which is everywhere".to_owned());
            }
            if fields.get("type").and_then(Json::as_str) == Some("FixedLength")
                && fields.get("length").and_then(Json::as_u64) == Some(0)
            {
                return Err("`FixedLength` has length 0, expected at least 1".to_owned());
            }
            if let Some(charsmap) = fields.get("precompiled_charsmap").and_then(Json::as_str) {
                charsmap::check(charsmap).map_err(|it| format!("`precompiled_charsmap`: {it}"))?;
            }
            fields.values().try_for_each(|it| sensible(it, depth))
        }
        _ => Ok(()),
    }
}

/// How many times a post-processor takes a text, and how many tokens it puts around it.
fn around(processor: &Json) -> (f64, f64) {
    let list = |it: &Json, name: &str| it.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    match processor.get("type").and_then(Json::as_str).unwrap_or_default() {
        "Sequence" => list(processor, "processors").iter().fold((1.0, 0.0), |(copies, tokens), it| {
            let (next_copies, next_tokens) = around(it);
            (copies * next_copies, tokens * next_copies.max(1.0) + next_tokens)
        }),
        "TemplateProcessing" => {
            let mut sum = (0.0, 0.0);
            for piece in list(processor, "single") {
                if let Some(token) = piece.get("SpecialToken").and_then(|it| it.get("id")?.as_str()) {
                    let ids = processor.get("special_tokens").and_then(|it| it.get(token));
                    sum.1 += ids.map_or(0, |it| list(it, "ids").len()) as f64;
                } else {
                    sum.0 += 1.0;
                }
            }
            sum
        }
        "BertProcessing" | "RobertaProcessing" => (1.0, 2.0),
        _ => (1.0, 0.0),
    }
}

impl Model {
    fn check(&self, longest: usize) -> Result<(), TokenizerError> {
        if longest > MAX_TOKEN {
            let reason = format!("its longest token has {longest} bytes, expected at most {MAX_TOKEN}");
            return Err(part_error("vocabulary", reason));
        }
        for (name, mark) in [
            ("unk_token", &self.unk_token),
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            let length = mark.as_str().map_or(0, str::len);
            if length > MAX_MARK {
                let reason = format!("`{name}` has {length} bytes, expected at most {MAX_MARK}");
                return Err(part_error("model", reason));
            }
        }
        match self.max_input_chars_per_word.as_u64() {
            Some(found) if found > MAX_WORD => Err(part_error(
                "model",
                format!("`max_input_chars_per_word` is {found}, expected at most {MAX_WORD}"),
            )),
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LongestVisitor)
    }
}

struct LongestVisitor;

impl<'de> Visitor<'de> for LongestVisitor {
    type Value = Longest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    /// Ids by token.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Longest, A::Error> {
        let mut longest = 0;
        while let Some(Length(length)) = map.next_key()? {
            map.next_value::<IgnoredAny>()?;
            longest = longest.max(length);
        }
        Ok(Longest(longest))
    }

    /// Tokens with their scores.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Longest, A::Error> {
        let mut longest = 0;
        while let Some((Length(length), _)) = list.next_element::<(Length, IgnoredAny)>()? {
            longest = longest.max(length);
        }
        Ok(Longest(longest))
    }

    /// The name of another file, which the engine refuses.
    fn visit_str<E>(self, _: &str) -> Result<Longest, E> {
        Ok(Longest(0))
    }

    fn visit_unit<E>(self) -> Result<Longest, E> {
        Ok(Longest(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Longest, E> {
        Ok(Longest(0))
    }
}

/// The length of a text.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LengthVisitor;
        impl Visitor<'_> for LengthVisitor {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E>(self, text: &str) -> Result<Length, E> {
                Ok(Length(text.len()))
            }
        }
        deserializer.deserialize_str(LengthVisitor)
    }
}
