//! Text out of tokens that come one by one.
//!
//! Tokens are not text: a character may be spread over several, and in a `SentencePiece` vocabulary the first token
//! of a text loses its leading space. So a token is decoded together with the few before it, and what they alone
//! give is taken off the front. What does not yet end with a whole character waits for the next token.

use glossary::TokenId;

use super::{Tokenizer, TokenizerError};

/// How many tokens may wait for the rest of a character. One has at most four bytes, a token at least one; when
/// more wait than this, their bytes are no text and are let go as replacement characters.
const MAX_WAITING: usize = 8;

/// Decodes an answer while it is being written; each token costs the decoding of a handful.
///
/// What [`Self::push`] and [`Self::finish`] return, put together, is what [`Tokenizer::decode`] returns for all
/// tokens at once, as long as their bytes are valid UTF-8. Where they are not, the number of replacement
/// characters may differ.
#[derive(Debug)]
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last tokens: first those whose text is out already, then those that wait.
    window: Vec<u32>,
    /// How many of the window are out.
    out: usize,
    /// The text of those alone.
    out_text: String,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, window: Vec::new(), out: 0, out_text: String::new() }
    }

    /// Takes the next token and returns the text that is complete with it, often empty.
    pub fn push(&mut self, id: TokenId) -> Result<String, TokenizerError> {
        if self.has_no_text(id) {
            // Not put into the window, which would grow with every such token.
            return Ok(String::new());
        }
        self.window.push(id.0);
        let text = self.tokenizer.decode_ids(&self.window, self.skip_special)?;
        let waiting = self.window.len() - self.out;
        if text.len() <= self.out_text.len() || (text.ends_with('\u{fffd}') && waiting < MAX_WAITING) {
            return Ok(String::new());
        }
        self.let_go(&text)
    }

    /// Ends the answer and returns what still waited.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode_ids(&self.window, self.skip_special)?;
        self.let_go(&text)
    }

    fn has_no_text(&self, id: TokenId) -> bool {
        (self.skip_special && self.tokenizer.is_special(id)) || self.tokenizer.token(id).is_none()
    }

    fn let_go(&mut self, text: &str) -> Result<String, TokenizerError> {
        let fresh = text[common_prefix(&self.out_text, text)..].to_owned();
        self.window.drain(..self.out);
        self.out = self.window.len();
        self.out_text = self.tokenizer.decode_ids(&self.window, self.skip_special)?;
        Ok(fresh)
    }
}

/// How many bytes of whole characters two texts begin with in common.
fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

#[cfg(test)]
mod tests {
    use checkpoint::{TextAssets, TokenizerSource};

    use super::*;

    #[test]
    fn the_window_stays_small_whatever_comes() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/sentencepiece.json")).unwrap();
        let assets = TextAssets { tokenizer: Some(TokenizerSource::Gguf), ..TextAssets::default() };
        let tokenizer = Tokenizer::new(&assets, &golden["gguf"]).unwrap();
        let [word, special, stray] = ["e", "</s>", "<0xFF>"].map(|it| tokenizer.token_id(it).unwrap());
        for id in [word, special, stray, TokenId(1_000_000)] {
            let mut decoder = tokenizer.decoder(true);
            for _ in 0..1000 {
                decoder.push(id).unwrap();
                assert!(decoder.window.len() <= 2 * MAX_WAITING, "{} after {id}", decoder.window.len());
            }
        }
    }

    #[test]
    fn the_common_prefix_ends_at_a_whole_character() {
        assert_eq!(common_prefix("aé", "aè"), 1);
        assert_eq!(common_prefix("aé", "aéb"), 3);
        assert_eq!(common_prefix("aéb", "aé"), 3);
        assert_eq!(common_prefix("", "a"), 0);
    }
}
