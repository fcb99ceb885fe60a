//! How byte-level vocabularies split text into words before merging.
//!
//! Merges never cross the border of two words, so a wrong split gives wrong ids without any error. A GGUF file
//! names its split (`tokenizer.ggml.pre`); what the name means is written down here, with the expressions of the
//! `tokenizer.json` of the models that the names come from. A name that is not here is an error.
//!
//! Each expression in turn cuts the pieces that the ones before it left: what it matches and what lies between its
//! matches become pieces.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::TokenizerError;
use super::gguf::failed;

/// What a name of `tokenizer.ggml.pre` stands for.
pub(super) struct SplitRule {
    names: &'static [&'static str],
    expressions: &'static [&'static str],
    /// A word that the vocabulary has is one token, whatever the merges give (`ignore_merges`).
    pub(super) whole_words: bool,
    /// A text begins with a token of its own when the file does not say.
    pub(super) begins: bool,
}

/// English contractions, a space and letters, a space and digits, a space and the rest, white space.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const UP_TO_THREE_DIGITS: &str = r"\p{N}{1,3}";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Letters that have case, in the Unicode of the time: the ranges taken out were added or changed since.
const DEEPSEEK_CASED: &str = r"\s?[\p{Lu}\p{Ll}\p{Lt}\u{295}--\u{560}-\u{588}\u{10c7}\u{10cd}\u{10d0}-\u{10ff}\u{1c80}-\u{1c8a}\u{2d00}-\u{2d2d}\u{a790}-\u{a7ff}\u{ab30}-\u{ab6d}\u{10570}-\u{105ff}\u{10d50}-\u{10d85}\u{16e40}-\u{16ed3}\u{1d400}-\u{1d7ff}\u{1df00}-\u{1dfff}]+";
const DEEPSEEK_MARKS: &str =
    r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
const DEEPSEEK_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK_3_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const DEEPSEEK_3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";

const fn rule(names: &'static [&'static str], expressions: &'static [&'static str]) -> SplitRule {
    SplitRule { names, expressions, whole_words: false, begins: false }
}

/// All that are known, the most common first.
const RULES: &[SplitRule] = &[
    SplitRule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        expressions: &[LLAMA_3],
        whole_words: true,
        begins: true,
    },
    rule(
        &["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        &[QWEN_2],
    ),
    rule(&["qwen35"], &[QWEN_35]),
    rule(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT_2],
    ),
    rule(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "gigachat",
            "mellum",
            "exaone4",
            "trillion",
            "a.x-4.0",
            "granite-docling",
            "roberta-bpe",
        ],
        &[GPT_2],
    ),
    SplitRule { names: &["tekken"], expressions: &[TEKKEN], whole_words: true, begins: true },
    rule(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT_4O]),
    rule(&["deepseek-llm"], &[r"[\r\n]", DEEPSEEK_CASED, DEEPSEEK_MARKS, r"\s+$", DEEPSEEK_CJK, r"\p{N}+"]),
    rule(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT]),
    rule(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[UP_TO_THREE_DIGITS, DEEPSEEK_3_CJK, DEEPSEEK_3],
    ),
    rule(&["chatglm-bpe", "dbrx", "smaug-bpe"], &[LLAMA_3]),
    SplitRule { names: &["glm4", "glm5"], expressions: &[LLAMA_3], whole_words: true, begins: false },
    rule(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, THREE_DIGITS]),
    rule(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    rule(&["seed-coder"], &[SEED_CODER]),
    rule(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    rule(&["viking"], &[BLOOM, DIGIT]),
    // Files from before the name was recorded; llama.cpp reads them so.
    rule(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", THREE_DIGITS]),
];

impl SplitRule {
    /// The rule of this name.
    pub(super) fn named(name: &str) -> Result<&'static Self, TokenizerError> {
        RULES.iter().find(|it| it.names.contains(&name)).ok_or_else(|| TokenizerError::UnknownSplit {
            name: name.to_owned(),
            known: RULES.iter().flat_map(|it| it.names).copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// The splits, and the spelling of words in bytes after them.
    pub(super) fn pre_tokenizer(&self) -> Result<Sequence, TokenizerError> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for expression in self.expressions {
            let pattern = SplitPattern::Regex((*expression).to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        for expression in SplitRule::named(name).unwrap().expressions {
            let pattern = SplitPattern::Regex((*expression).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .unwrap()
                .pre_tokenize(&mut pieces)
                .unwrap();
        }
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|it| it.0.to_owned()).collect()
    }

    #[test]
    fn every_rule_is_a_valid_program_and_every_name_is_there_once() {
        let mut seen = HashSet::new();
        for rule in RULES {
            rule.pre_tokenizer().unwrap();
            assert!(rule.names.iter().all(|it| seen.insert(*it)), "{:?}", rule.names);
        }
    }

    #[test]
    fn digits_are_grouped_as_the_name_says() {
        assert_eq!(words("smollm", "a 1234"), ["a", " ", "1", "2", "3", "4"]);
        assert_eq!(words("gpt-2", "a 1234"), ["a", " 1234"]);
        assert_eq!(words("llama-bpe", "a 1234"), ["a", " ", "123", "4"]);
        assert_eq!(words("qwen2", "a 1234"), ["a", " ", "1", "2", "3", "4"]);
    }

    #[test]
    fn the_last_of_many_spaces_goes_with_the_word() {
        for name in ["smollm", "gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o", "deepseek-v3"] {
            assert_eq!(words(name, "a   b"), ["a", "  ", " b"], "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_are_known() {
        let Err(error) = SplitRule::named("klingon") else { panic!("accepted") };
        let text = error.to_string();
        assert!(text.contains("`klingon`") && text.contains("smollm") && text.contains("hint: "), "{text}");
    }
}
