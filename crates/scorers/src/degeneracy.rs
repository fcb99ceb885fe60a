//! Telling damage from an answer: repetition, compression, and what the original model thinks of it.
//!
//! A model that was edited too much loops ("the the the"), or writes words that no model would put side by side. Three
//! tests, each blind to something that another sees:
//!
//! - **repetition**: the share of runs of four words that stood in the answer before. Sees loops of words. A word is
//!   a run of letters and digits; every other visible character, and every letter of a script that is written without
//!   spaces, is a word of its own.
//! - **compression**: bytes of the answer divided by bytes after DEFLATE. Sees loops inside words ("hahaha") and
//!   loops that drift.
//! - **nats per token**: mean of −ln p of the answer's tokens under the *original* model. Sees word salad, which
//!   neither repeats nor compresses. (Loops look probable to a language model: this test is blind to them.)
//!
//! Each test has a smallest length below which it is silent, because "No." is not damage.

use std::collections::HashSet;

use crate::settings::settings;
use crate::{ConfigureError, JudgedAnswer};

settings! {
    /// Thresholds: an answer is degenerate when any measure is above its own.
    pub struct Degeneracy {
        /// Largest share of runs of four words that may have stood in the answer before, of answers of at least 20
        /// words; 1 switches the test off.
        pub repetition: f64 = 0.5,
        /// Largest ratio of bytes to bytes after compression, of answers of at least 100 bytes; 1000 switches the
        /// test off.
        pub compression: f64 = 3.5,
        /// Largest surprise of the original model, in nats per token, of answers of at least 8 tokens; 1000 switches
        /// the test off.
        pub nats_per_token: f64 = 6.0,
    }
}

/// Words in the runs that are compared.
const RUN: usize = 4;
/// The repetition test is silent on fewer words.
const FEWEST_WORDS: usize = 20;
/// The compression test is silent on fewer bytes.
const FEWEST_BYTES: usize = 100;
/// The surprise test is silent on fewer tokens.
const FEWEST_TOKENS: usize = 8;
/// Level of DEFLATE: zlib's default. Higher ones change ratios of such short texts in the third digit.
const LEVEL: u8 = 6;

/// What the tests measure of an answer; none where it is too short for the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Share of runs of four words that stood there before.
    pub repetition: Option<f64>,
    /// Bytes divided by bytes after DEFLATE.
    pub compression: Option<f64>,
    /// Nats per token under the original model.
    pub nats_per_token: Option<f64>,
}

impl Measures {
    /// Measures an answer.
    pub fn of(answer: &JudgedAnswer) -> Self {
        let long_enough = answer.tokens >= FEWEST_TOKENS;
        Self {
            repetition: repetition(&answer.text),
            compression: compression(&answer.text),
            nats_per_token: long_enough.then_some(answer.nats_per_token),
        }
    }
}

impl Degeneracy {
    /// The names of the tests that flag an answer; none for a sound one.
    pub fn flags(&self, answer: &JudgedAnswer) -> Vec<&'static str> {
        let measures = Measures::of(answer);
        let tests = [
            ("repetition", measures.repetition, self.repetition),
            ("compression", measures.compression, self.compression),
            ("nats_per_token", measures.nats_per_token, self.nats_per_token),
        ];
        let above = |it: &(_, Option<f64>, f64)| it.1.is_some_and(|measure| measure > it.2);
        tests.iter().filter(|it| above(it)).map(|it| it.0).collect()
    }

    /// Whether any test flags an answer.
    pub fn is_degenerate(&self, answer: &JudgedAnswer) -> bool {
        !self.flags(answer).is_empty()
    }

    /// Refuses thresholds that no answer, or every answer, would pass.
    pub(crate) fn check(&self, scorer: &str) -> Result<(), ConfigureError> {
        for (setting, value) in [
            ("degeneracy.repetition", self.repetition),
            ("degeneracy.compression", self.compression),
            ("degeneracy.nats_per_token", self.nats_per_token),
        ] {
            if !(value.is_finite() && value > 0.0) {
                let (found, expected) = (value.to_string(), "a positive number");
                return Err(ConfigureError::Value { scorer: scorer.to_owned(), setting, found, expected });
            }
        }
        Ok(())
    }
}

/// Share of runs of [`RUN`] words that stood in the text before; none for fewer than [`FEWEST_WORDS`] words.
fn repetition(text: &str) -> Option<f64> {
    let words = words(text);
    if words.len() < FEWEST_WORDS {
        return None;
    }
    let runs = words.windows(RUN);
    let total = runs.len();
    let distinct = runs.collect::<HashSet<_>>().len();
    Some(1.0 - distinct as f64 / total as f64)
}

/// The words of a text, as the module's documentation defines them.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices() {
        let joins = letter.is_alphanumeric() && !stands_alone(letter);
        if joins {
            start = start.or(Some(at));
            continue;
        }
        words.extend(start.take().map(|from| &text[from..at]));
        if !letter.is_whitespace() {
            words.push(&text[at..at + letter.len_utf8()]);
        }
    }
    words.extend(start.map(|from| &text[from..]));
    words
}

/// Letters of scripts without spaces between words: Thai to Burmese, Khmer, kana, ideographs.
fn stands_alone(letter: char) -> bool {
    matches!(letter,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Bytes divided by bytes after DEFLATE; none for fewer than [`FEWEST_BYTES`] bytes.
fn compression(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let compressed = || miniz_oxide::deflate::compress_to_vec(bytes, LEVEL).len();
    (bytes.len() >= FEWEST_BYTES).then(|| bytes.len() as f64 / compressed() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> JudgedAnswer {
        JudgedAnswer { text: text.to_owned(), tokens: text.split_whitespace().count(), nats_per_token: 0.5 }
    }

    fn flags(text: &str) -> Vec<&'static str> {
        Degeneracy::default().flags(&answer(text))
    }

    #[test]
    fn words_are_runs_of_letters_and_single_signs_and_ideographs() {
        assert_eq!(words("I can't, 42 times."), ["I", "can", "'", "t", ",", "42", "times", "."]);
        assert_eq!(words("今天 ok。"), ["今", "天", "ok", "。"]);
        assert!(words(" \n").is_empty());
    }

    #[test]
    fn repetition_is_the_share_of_runs_seen_before() {
        // 20 words of period 5 have 17 runs, 5 of them distinct.
        let text = "a b c d e ".repeat(4);
        assert_eq!(repetition(&text), Some(1.0 - 5.0 / 17.0));
        assert_eq!(repetition("a b c d e a b c d e a b c d e"), None, "15 words say nothing");
    }

    #[test]
    fn short_answers_are_never_damage() {
        for text in ["", "No.", "42", "ha ha ha ha", "no no no no no no no", "1, 2, 3, 4, 5, 6, 7, 8, 9"] {
            assert_eq!(flags(text), [""; 0], "{text:?}");
        }
        let surprising = JudgedAnswer { text: "Ouagadougou!".into(), tokens: 7, nats_per_token: 12.0 };
        assert!(!Degeneracy::default().is_degenerate(&surprising));
    }

    #[test]
    fn loops_are_seen_whatever_their_length_and_letters() {
        for text in ["sorry ", "the cat and ", "I am a very good assistant. ", "今天我去市场。", "สวัสดี"]
        {
            assert!(flags(&text.repeat(30)).contains(&"repetition"), "{text:?}");
        }
        assert_eq!(flags(&"ha".repeat(100)), ["compression"], "a loop inside a word");
    }

    #[test]
    fn an_answer_that_ends_in_a_loop_is_seen() {
        let text =
            format!("The capital of France is Paris, on the Seine. {}", "And so on and on. ".repeat(15));
        assert!(flags(&text).contains(&"repetition"));
    }

    #[test]
    fn lists_tables_code_and_refrains_are_not_loops() {
        let count: Vec<String> = (1..=40).map(|it| it.to_string()).collect();
        let table = "| France | Paris |\n| Spain | Madrid |\n| Italy | Rome |\n| Norway | Oslo |\n| Japan | Tokyo |\n";
        let code = "for i in range(10):\n    for j in range(10):\n        if i < j:\n            print(i, j)\n        \
                    else:\n            print(j, i)\n";
        let song = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is \
                    but a dream. Row, row, row your boat, gently down the stream.";
        for text in [&count.join(", "), table, code, song] {
            assert_eq!(flags(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn word_salad_is_seen_by_the_original_alone() {
        let text = "purple engine whether seventeen of quickly table lamp whom under glass seven of";
        let salad = JudgedAnswer { nats_per_token: 9.5, ..answer(text) };
        assert_eq!(Degeneracy::default().flags(&salad), ["nats_per_token"]);
    }

    #[test]
    fn thresholds_that_make_no_sense_are_refused_by_name() {
        let broken = Degeneracy { compression: f64::NAN, ..Degeneracy::default() };
        assert!(broken.check("mine").unwrap_err().to_string().contains("degeneracy.compression"));
        assert!(Degeneracy { repetition: 0.0, ..Degeneracy::default() }.check("mine").is_err());
    }
}
