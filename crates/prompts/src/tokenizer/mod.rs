//! Text to token ids and back, as the Python reference stack does it.
//!
//! The work is done by the crate `tokenizers`, the engine of the reference stack itself. What is ours: finding the
//! tokenizer's parts in a checkpoint, building an equal tokenizer from the metadata of a GGUF file, the tokens at
//! which an answer ends, and decoding an answer token by token.
//!
//! Decoding never tidies up spaces before punctuation: the text is what the model wrote, so that an answer reads
//! the same while it streams and afterwards.

mod added;
mod bounds;
mod charsmap;
mod decoder;
mod frame;
mod gguf;
mod growth;
mod sentencepiece;
mod splits;
mod stop;

use std::collections::BTreeMap;

use checkpoint::{TextAssets, TokenizerSource};
use glossary::TokenId;
use serde_json::Value as Json;

use self::added::Listed;
use self::bounds::Bounds;
use self::frame::Frame;
use crate::contained::contained;

pub use decoder::Decoder;

/// Why a tokenizer could not be made, or could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The checkpoint brings no tokenizer.
    #[error("the checkpoint has no tokenizer\n\nhint: put the model's `tokenizer.json` beside its weights")]
    Missing,
    /// `tokenizer.json` is not what it should be.
    #[error("tokenizer.json: {reason}")]
    Json {
        /// What the engine says.
        reason: String,
    },
    /// A metadata key of a GGUF file is missing or has another type.
    #[error("GGUF metadata `{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, shortened.
        found: String,
    },
    /// Two lists of a GGUF file that go together differ in length.
    #[error("GGUF metadata `{key}`: expected {expected} entries, one per token, found {found}")]
    Length {
        /// The key of the shorter or longer list.
        key: &'static str,
        /// How many tokens there are.
        expected: usize,
        /// How many entries there are.
        found: usize,
    },
    /// A GGUF file names a kind of tokenizer that is not known here.
    #[error(
        "GGUF tokenizer model `{model}` is not known; known: {known}\n\nhint: the same model as a folder with a \
         `tokenizer.json` works"
    )]
    UnknownModel {
        /// The value of `tokenizer.ggml.model`.
        model: String,
        /// The kinds that are known.
        known: &'static str,
    },
    /// A GGUF file names a way to split text into words that is not known here.
    #[error(
        "GGUF pre-tokenizer `{name}` is not known; known: {known}\n\nhint: the same model as a folder with a \
         `tokenizer.json` works"
    )]
    UnknownSplit {
        /// The value of `tokenizer.ggml.pre`.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// The parts do not make a tokenizer.
    #[error("the tokenizer cannot be built: {reason}")]
    Build {
        /// What the engine says.
        reason: String,
    },
    /// A part of `tokenizer.json` makes no sense.
    #[error(
        "tokenizer.json: {part}: {reason}\n\nhint: the file is damaged or meant to do harm; get the one that the \
         model was published with"
    )]
    Part {
        /// The part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A part would make something far longer of a text.
    #[error(
        "the tokenizer's {part} would make more than {bytes:.0} bytes of {text:?} ({length} bytes), expected at most \
         {most:.0}\n\nhint: the tokenizer is damaged or meant to do harm; get the one that the model was published with"
    )]
    Grows {
        /// The part.
        part: &'static str,
        /// The text, shortened.
        text: String,
        /// Its length in bytes.
        length: usize,
        /// What it would become.
        bytes: f64,
        /// What it may become.
        most: f64,
    },
    /// A text could not be encoded.
    #[error("the tokenizer cannot encode {text:?}: {reason}")]
    Encode {
        /// The text, shortened.
        text: String,
        /// What the engine says.
        reason: String,
    },
    /// Ids could not be decoded.
    #[error("the tokenizer cannot decode {count} tokens: {reason}")]
    Decode {
        /// How many.
        count: usize,
        /// What the engine says.
        reason: String,
    },
}

/// The beginning of a text, for errors.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Whether encoding adds what the tokenizer puts around a text (begin of sequence, sometimes end of sequence).
///
/// Special tokens that are written out in the text are recognized either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As for a plain text. A begin of sequence that the text already has is not added again.
    Add,
    /// As for a rendered chat template, which brings its own.
    None,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    engine: tokenizers::Tokenizer,
    bounds: Bounds,
    named: BTreeMap<String, String>,
    stop: Vec<TokenId>,
    /// The token that encoding puts before a text.
    begin: Option<TokenId>,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint.
    pub fn from_checkpoint(checkpoint: &checkpoint::Checkpoint) -> Result<Self, TokenizerError> {
        Self::new(checkpoint.assets(), checkpoint.config())
    }

    /// The tokenizer that `assets` describe.
    ///
    /// `config` is `config.json`, or the metadata of a GGUF file as one flat object.
    pub fn new(assets: &TextAssets, config: &Json) -> Result<Self, TokenizerError> {
        match assets.tokenizer.as_ref().ok_or(TokenizerError::Missing)? {
            TokenizerSource::Json(text) => Self::from_json(text, assets, config),
            TokenizerSource::Gguf => Self::from_gguf(config),
        }
    }

    fn from_json(text: &str, assets: &TextAssets, config: &Json) -> Result<Self, TokenizerError> {
        let bounds = Bounds::of_json(text)?;
        // The engine panics on some malformed files, such as a merge that makes more than the longest token.
        let mut engine = contained(|| tokenizers::Tokenizer::from_bytes(text.as_bytes()))
            .map_err(|it| TokenizerError::Json { reason: format!("its parts contradict each other ({it})") })?
            .map_err(|it| TokenizerError::Json { reason: it.to_string() })?;
        // A length limit or padding is for training; a prompt is never cut in silence.
        engine.with_truncation(None).map_err(|it| TokenizerError::Build { reason: it.to_string() })?;
        engine.with_padding(None);
        let listed = Listed::read(assets, &engine);
        listed.add(&mut engine, &bounds)?;
        if let Some(frame) = Frame::of_settings(assets, &listed.named) {
            frame.add(&mut engine)?;
        }
        let stop = stop::from_assets(assets, config, &listed.named, |token| engine.token_to_id(token));
        Self::finished(engine, bounds, listed.named, stop)
    }

    fn from_gguf(metadata: &Json) -> Result<Self, TokenizerError> {
        let vocabulary = gguf::Vocabulary::read(metadata)?;
        let build = || gguf::build(metadata, &vocabulary);
        let mut engine = contained(build).map_err(|reason| TokenizerError::Build { reason })??;
        let longest = vocabulary.tokens.iter().map(|it| it.len()).max().unwrap_or(0);
        let bounds = Bounds::of_engine(&engine, longest)?;
        vocabulary.frame.add(&mut engine)?;
        let stop = stop::from_gguf(metadata, &vocabulary);
        Self::finished(engine, bounds, vocabulary.named, stop)
    }

    fn finished(
        engine: tokenizers::Tokenizer,
        bounds: Bounds,
        named: BTreeMap<String, String>,
        stop: Vec<TokenId>,
    ) -> Result<Self, TokenizerError> {
        let mut tokenizer = Self { engine, bounds, named, stop, begin: None };
        let bos = tokenizer.named.get("bos_token").and_then(|it| tokenizer.token_id(it));
        let around_nothing = tokenizer.encode("", SpecialTokens::Add)?;
        tokenizer.begin = around_nothing.first().copied().filter(|it| Some(*it) == bos);
        Ok(tokenizer)
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<TokenId>, TokenizerError> {
        let add = special == SpecialTokens::Add;
        self.bounds.check_text(&self.engine, text)?;
        let failed = |reason: String| TokenizerError::Encode { text: shortened(text), reason };
        let encoding = contained(|| self.engine.encode_fast(text, add))
            .map_err(|it| failed(format!("{it}\n\n{DAMAGED}")))?
            .map_err(|it| failed(it.to_string()))?;
        let mut ids: Vec<TokenId> = encoding.get_ids().iter().copied().map(TokenId).collect();
        let twice = self.begin.is_some_and(|begin| ids.starts_with(&[begin, begin]));
        if add && twice {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// The text of ids. `skip_special` leaves out special tokens such as the end of the answer.
    ///
    /// Ids that the vocabulary lacks are left out.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> Result<String, TokenizerError> {
        let ids: Vec<u32> = ids.iter().map(|it| it.0).collect();
        self.decode_ids(&ids, skip_special)
    }

    fn decode_ids(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let failed = |reason: String| TokenizerError::Decode { count: ids.len(), reason };
        self.bounds.check_decoding(ids.len()).map_err(failed)?;
        contained(|| self.engine.decode(ids, skip_special))
            .map_err(|it| failed(format!("{it}\n\n{DAMAGED}")))?
            .map_err(|it| failed(it.to_string()))
    }

    /// Decodes an answer while it is being written.
    pub fn decoder(&self, skip_special: bool) -> Decoder<'_> {
        Decoder::new(self, skip_special)
    }

    /// Texts of tokens that end a turn, whether the model's settings say that answers end there or not.
    pub fn turn_ends(&self) -> impl Iterator<Item = &str> {
        let known = stop::TURN_ENDS.into_iter().filter(|it| self.token_id(it).is_some());
        known.chain(self.named_tokens().get("eos_token").map(String::as_str)).filter(|it| !it.is_empty())
    }

    /// The tokens at which an answer ends, in the order of their ids.
    pub fn stop_tokens(&self) -> &[TokenId] {
        &self.stop
    }

    /// How many ids there are, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.engine.get_vocab_size(true)
    }

    /// The named tokens as templates know them: `bos_token`, `eos_token`, `pad_token`, `unk_token` and the like.
    pub fn named_tokens(&self) -> &BTreeMap<String, String> {
        &self.named
    }

    /// The id of a token that is written exactly so.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.engine.token_to_id(token).map(TokenId)
    }

    /// How a token is written in the vocabulary.
    pub fn token(&self, id: TokenId) -> Option<String> {
        self.engine.id_to_token(id.0)
    }

    /// Whether a token carries structure rather than text.
    pub fn is_special(&self, id: TokenId) -> bool {
        let added = self.engine.get_added_vocabulary();
        added.get_added_tokens_decoder().get(&id.0).is_some_and(|it| it.special)
    }
}

/// What to do about a panic of the engine.
const DAMAGED: &str = "hint: the tokenizer is damaged; get the one that the model was published with";
