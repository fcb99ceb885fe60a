//! Rules of `generation_config.json` that change which token is chosen, in greedy decoding too.
//!
//! What transformers' `generate` does to logits before it takes the largest, in its order: sequence bias, repetition penalty,
//! repeated n-grams, bad words, minimum lengths, the penalty of long answers, suppressed tokens. Each sees the whole sequence,
//! prompt and answer. Settings of sampling (temperature, top k, top p) have no effect on the largest logit.
//!
//! **Only answers obey them.** Distributions, of first tokens and along given continuations, are the model's own: a rule says
//! nothing of what an edit did to the model, and where it suppresses a token a divergence would be no number. (heretic 1.4
//! takes first-token distributions from `generate` and so after the rules.)
//!
//! Everything that a rule needs is kept from step to step, so that decoding with rules allocates nothing either; what costs
//! time is that all logits of a step are looked at once more.

use glossary::TokenId;
use serde_json::Value;

/// Rules for the next token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogitRules {
    /// Added to the logit of the last token where a sequence ends with the others.
    sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Divides positive logits of tokens that the sequence has, and multiplies negative ones.
    repetition_penalty: Option<f32>,
    /// Sequences of so many tokens come once.
    no_repeat_ngram_size: Option<usize>,
    /// Sequences that do not come, and what they say of single tokens.
    bad_words: Vec<Vec<u32>>,
    /// Tokens of prompt and answer before one of `end` comes.
    min_length: usize,
    /// Tokens of the answer before one of `end` comes.
    min_new_tokens: usize,
    end: Vec<u32>,
    /// From which answer token on the logits of `end` grow, and the base of the growth.
    length_penalty: Option<(f64, f64)>,
    suppressed: Vec<u32>,
    /// For the first token of an answer.
    suppressed_first: Vec<u32>,
}

/// Why the settings of a model cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`generation_config.json`: `{key}` is {found}, {known}\
     \n\nhint: `obey_generation_config = false` (`--obey-generation-config=false`) leaves all of its rules out"
)]
pub struct GenerationConfigError {
    key: String,
    found: String,
    known: String,
}

/// Keys that change greedy decoding and are not known here, with the values that change nothing.
const UNKNOWN: &[(&str, &[&str])] = &[
    ("constraints", &[]),
    ("dola_layers", &[]),
    ("force_words_ids", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("guidance_scale", &["1", "1.0"]),
    ("num_beams", &["1"]),
    ("penalty_alpha", &["0", "0.0"]),
    ("stop_strings", &[]),
    ("watermarking_config", &[]),
];

impl LogitRules {
    /// What the settings of a model say.
    pub fn from_generation_config(config: &Value) -> Result<Self, GenerationConfigError> {
        let get = |key: &str| config.get(key).filter(|it| !it.is_null());
        let error = |key: &str, found: &Value, known: &str| GenerationConfigError {
            key: key.to_owned(),
            found: found.to_string(),
            known: known.to_owned(),
        };
        for (key, harmless) in UNKNOWN {
            if let Some(value) = get(key).filter(|it| !harmless.contains(&it.to_string().as_str())) {
                return Err(error(key, value, "which is not known here"));
            }
        }
        let number = |key: &str| match get(key) {
            None => Ok(None),
            Some(it) => it.as_f64().map(Some).ok_or_else(|| error(key, it, "expected a number")),
        };
        let count = |key: &str| match get(key) {
            None => Ok(0),
            Some(it) => it
                .as_u64()
                .and_then(|it| usize::try_from(it).ok())
                .ok_or_else(|| error(key, it, "expected a whole number")),
        };
        let list = |key: &str, value: &Value| -> Result<Vec<u32>, GenerationConfigError> {
            let wrong = || error(key, value, "expected tokens");
            // Tokens beyond the vocabulary, and -1 for none, name nothing.
            let token = |it: &Value| it.as_i64().map(|it| u32::try_from(it).unwrap_or(u32::MAX));
            value.as_array().ok_or_else(wrong)?.iter().map(token).collect::<Option<_>>().ok_or_else(wrong)
        };
        let tokens = |key: &str| get(key).map_or(Ok(Vec::new()), |it| list(key, it));
        let end = match get("eos_token_id") {
            Some(it @ Value::Array(_)) => list("eos_token_id", it)?,
            Some(it) => it.as_u64().and_then(|it| u32::try_from(it).ok()).into_iter().collect(),
            None => Vec::new(),
        };
        // 1 changes nothing.
        let penalty = number("repetition_penalty")?.filter(|it| it.to_bits() != 1.0_f64.to_bits());
        if let (Some(penalty), Some(found)) = (penalty, get("repetition_penalty"))
            && penalty <= 0.0
        {
            return Err(error("repetition_penalty", found, "expected a number above 0"));
        }
        let mut bad_words = Vec::new();
        if let Some(all) = get("bad_words_ids") {
            let wrong = || error("bad_words_ids", all, "expected lists of tokens");
            for it in all.as_array().ok_or_else(wrong)? {
                let word = list("bad_words_ids", it)?;
                // An end alone is no bad word.
                let ends = word.len() == 1 && end.contains(&word[0]);
                if !word.is_empty() && !ends {
                    bad_words.push(word);
                }
            }
        }
        let mut sequence_bias = Vec::new();
        if let Some(all) = get("sequence_bias") {
            let wrong = || error("sequence_bias", all, "expected pairs of tokens and a number");
            for it in all.as_array().ok_or_else(wrong)? {
                let [tokens, bias] = it.as_array().map_or(&[][..], Vec::as_slice) else {
                    return Err(wrong());
                };
                let tokens = list("sequence_bias", tokens)?;
                let bias = bias.as_f64().ok_or_else(wrong)?;
                if !tokens.is_empty() {
                    sequence_bias.push((tokens, bias as f32));
                }
            }
        }
        let length_penalty = match get("exponential_decay_length_penalty") {
            None => None,
            Some(it) => {
                let pair = it.as_array().map_or(&[][..], Vec::as_slice);
                let pair =
                    if let [start, factor] = pair { start.as_f64().zip(factor.as_f64()) } else { None };
                let wrong = || error("exponential_decay_length_penalty", it, "expected two numbers");
                Some(pair.ok_or_else(wrong)?)
            }
        };
        Ok(Self {
            sequence_bias,
            repetition_penalty: penalty.map(|it| it as f32),
            no_repeat_ngram_size: Some(count("no_repeat_ngram_size")?).filter(|&it| it > 0),
            bad_words,
            min_length: if end.is_empty() { 0 } else { count("min_length")? },
            min_new_tokens: if end.is_empty() { 0 } else { count("min_new_tokens")? },
            length_penalty: length_penalty.filter(|_| !end.is_empty()),
            end,
            suppressed: tokens("suppress_tokens")?,
            suppressed_first: tokens("begin_suppress_tokens")?,
        })
    }

    /// Whether they change anything.
    pub fn is_empty(&self) -> bool {
        // The ends of answers are no rule by themselves.
        let Self { end: _, min_length: 0, min_new_tokens: 0, .. } = self else { return false };
        self.repetition_penalty.is_none()
            && self.no_repeat_ngram_size.is_none()
            && self.length_penalty.is_none()
            && self.sequence_bias.is_empty()
            && [&self.suppressed, &self.suppressed_first].iter().all(|it| it.is_empty())
            && self.bad_words.is_empty()
    }

    /// The names of the rules that there are, with their values where these are numbers.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut listed = |there: bool, name: &str| names.extend(there.then(|| name.to_owned()));
        listed(!self.sequence_bias.is_empty(), "sequence_bias");
        listed(!self.bad_words.is_empty(), "bad_words_ids");
        listed(!self.suppressed.is_empty(), "suppress_tokens");
        listed(!self.suppressed_first.is_empty(), "begin_suppress_tokens");
        listed(self.length_penalty.is_some(), "exponential_decay_length_penalty");
        names.extend(self.repetition_penalty.map(|it| format!("repetition_penalty {it}")));
        names.extend(self.no_repeat_ngram_size.map(|it| format!("no_repeat_ngram_size {it}")));
        names.extend(Some(self.min_length).filter(|&it| it > 0).map(|it| format!("min_length {it}")));
        names.extend(Some(self.min_new_tokens).filter(|&it| it > 0).map(|it| format!("min_new_tokens {it}")));
        names
    }

    /// Applies them to the logits of the token that follows on a prompt and the answer so far.
    pub(crate) fn apply(
        &self,
        prompt: &[TokenId],
        answer: &[TokenId],
        logits: &mut [f32],
        seen: &mut SeenTokens,
    ) {
        let len = prompt.len() + answer.len();
        let at =
            |place: usize| if place < prompt.len() { prompt[place] } else { answer[place - prompt.len()] };
        let ends_with = |tokens: &[u32]| {
            tokens.len() <= len
                && tokens.iter().rev().zip((0..len).rev()).all(|(&it, place)| at(place).0 == it)
        };
        let mut change = |token: u32, with: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = with(*logit);
            }
        };
        for (tokens, bias) in &self.sequence_bias {
            let (last, before) = tokens.split_last().expect("empty ones are left out");
            if ends_with(before) {
                change(*last, &|it| it + bias);
            }
        }
        if let Some(penalty) = self.repetition_penalty {
            seen.begin();
            for token in prompt.iter().chain(answer) {
                if seen.is_new(*token) {
                    change(token.0, &|it| if it < 0.0 { it * penalty } else { it / penalty });
                }
            }
        }
        if let Some(size) = self.no_repeat_ngram_size.filter(|&it| it <= len) {
            // The last tokens of the sequence, and what followed on them wherever they were before.
            for start in 0..=len - size {
                if (0..size - 1).all(|it| at(start + it) == at(len + 1 - size + it)) {
                    change(at(start + size - 1).0, &|_| f32::NEG_INFINITY);
                }
            }
        }
        for word in &self.bad_words {
            let (last, before) = word.split_last().expect("empty ones are left out");
            if ends_with(before) {
                change(*last, &|_| f32::NEG_INFINITY);
            }
        }
        if len < self.min_length || answer.len() < self.min_new_tokens {
            self.end.iter().for_each(|&it| change(it, &|_| f32::NEG_INFINITY));
        }
        if let Some((start, factor)) = self.length_penalty.filter(|it| answer.len() as f64 > it.0) {
            let growth = (factor.powf(answer.len() as f64 - start) - 1.0) as f32;
            let grown = |it: f32| if it.is_finite() { it + it.abs() * growth } else { it };
            self.end.iter().for_each(|&it| change(it, &grown));
        }
        self.suppressed.iter().for_each(|&it| change(it, &|_| f32::NEG_INFINITY));
        if answer.is_empty() {
            self.suppressed_first.iter().for_each(|&it| change(it, &|_| f32::NEG_INFINITY));
        }
    }
}

/// Tokens that were met, forgotten without touching them all.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenTokens {
    /// When each was last met.
    met: Vec<u32>,
    now: u32,
}

impl SeenTokens {
    /// Room for so many tokens.
    pub(crate) fn reserve(&mut self, vocab: usize) {
        self.met.resize(vocab, 0);
    }

    fn begin(&mut self) {
        self.now = self.now.checked_add(1).unwrap_or_else(|| {
            self.met.fill(0);
            1
        });
    }

    fn is_new(&mut self, token: TokenId) -> bool {
        let now = self.now;
        self.met.get_mut(token.index()).is_some_and(|it| std::mem::replace(it, now) != now)
    }
}

/// The largest logit, of equal ones the first.
pub(crate) fn largest(logits: &[f32]) -> (TokenId, f32) {
    let mut best = (TokenId(0), f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (TokenId(token), logit);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(config: &Value) -> LogitRules {
        LogitRules::from_generation_config(config).unwrap()
    }

    fn applied(config: &Value, prompt: &[u32], answer: &[u32]) -> Vec<f32> {
        let ids = |it: &[u32]| it.iter().map(|&it| TokenId(it)).collect::<Vec<_>>();
        let (mut logits, mut seen) = (vec![2.0, -2.0, 1.0, 3.0, 0.5], SeenTokens::default());
        seen.reserve(5);
        rules(config).apply(&ids(prompt), &ids(answer), &mut logits, &mut seen);
        logits
    }

    const NO: f32 = f32::NEG_INFINITY;

    #[test]
    fn each_rule_does_what_its_name_says() {
        for (config, prompt, answer, expected) in [
            (json!({}), &[1][..], &[2][..], [2.0, -2.0, 1.0, 3.0, 0.5]),
            // Each token once, however often it was there.
            (json!({"repetition_penalty": 2.0}), &[1, 1], &[3, 1], [2.0, -4.0, 1.0, 1.5, 0.5]),
            // 1 2 was there, and 1 is the last.
            (json!({"no_repeat_ngram_size": 2}), &[1, 2], &[0, 1], [2.0, -2.0, NO, 3.0, 0.5]),
            (json!({"no_repeat_ngram_size": 1}), &[4], &[0], [NO, -2.0, 1.0, 3.0, NO]),
            (json!({"no_repeat_ngram_size": 4}), &[4], &[0], [2.0, -2.0, 1.0, 3.0, 0.5]),
            (json!({"bad_words_ids": [[3], [1, 2], [0, 2, 4]]}), &[0], &[2], [2.0, -2.0, 1.0, NO, NO]),
            (json!({"bad_words_ids": [[3]], "eos_token_id": 3}), &[0], &[2], [2.0, -2.0, 1.0, 3.0, 0.5]),
            (json!({"min_new_tokens": 2, "eos_token_id": [3, 4]}), &[0, 0], &[2], [2.0, -2.0, 1.0, NO, NO]),
            (json!({"min_new_tokens": 1, "eos_token_id": 3}), &[0, 0], &[2], [2.0, -2.0, 1.0, 3.0, 0.5]),
            (json!({"min_length": 4, "eos_token_id": 3}), &[0, 0], &[2], [2.0, -2.0, 1.0, NO, 0.5]),
            (json!({"suppress_tokens": [0, 99]}), &[1], &[2], [NO, -2.0, 1.0, 3.0, 0.5]),
            (json!({"begin_suppress_tokens": [0]}), &[1], &[2], [2.0, -2.0, 1.0, 3.0, 0.5]),
            (json!({"begin_suppress_tokens": [0]}), &[1], &[], [NO, -2.0, 1.0, 3.0, 0.5]),
            (
                json!({"sequence_bias": [[[2], 5.0], [[1, 4], -1.5], [[2, 4], 9.0]]}),
                &[2],
                &[1],
                [2.0, -2.0, 6.0, 3.0, -1.0],
            ),
            // Two tokens beyond one: 1.5² − 1 of its size more.
            (
                json!({"exponential_decay_length_penalty": [1, 1.5], "eos_token_id": 1}),
                &[2],
                &[2, 2, 2],
                [2.0, 0.5, 1.0, 3.0, 0.5],
            ),
        ] {
            assert_eq!(applied(&config, prompt, answer), expected, "{config}");
        }
    }

    #[test]
    fn what_changes_nothing_is_no_rule_and_what_is_not_known_is_refused_by_name() {
        for config in [
            json!({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": true, "max_length": 20}),
            json!({"repetition_penalty": 1.0, "num_beams": 1, "guidance_scale": 1.0, "min_length": 0, "eos_token_id": 2}),
            json!({"min_new_tokens": 4}),
            json!({"suppress_tokens": null, "no_repeat_ngram_size": 0}),
        ] {
            assert!(rules(&config).is_empty() && rules(&config).names().is_empty(), "{config}");
        }
        for config in [
            json!({"sequence_bias": [[[1], 2.0]]}),
            json!({"repetition_penalty": 1.05}),
            json!({"no_repeat_ngram_size": 2}),
            json!({"bad_words_ids": [[1]]}),
            json!({"min_length": 3, "eos_token_id": 1}),
            json!({"min_new_tokens": 3, "eos_token_id": 1}),
            json!({"exponential_decay_length_penalty": [1, 2.0], "eos_token_id": 1}),
            json!({"suppress_tokens": [1]}),
            json!({"begin_suppress_tokens": [1]}),
        ] {
            let key = config.as_object().unwrap().keys().next().unwrap();
            assert!(!rules(&config).is_empty(), "{config}");
            assert!(rules(&config).names()[0].starts_with(key.as_str()), "{config}");
        }
        assert_eq!(rules(&json!({"repetition_penalty": 1.05})).names(), ["repetition_penalty 1.05"]);
        for (key, value) in [
            ("num_beams", json!(4)),
            ("guidance_scale", json!(1.5)),
            ("forced_eos_token_id", json!(2)),
            ("repetition_penalty", json!(-1.0)),
            ("repetition_penalty", json!("x")),
            ("suppress_tokens", json!(["a"])),
            ("bad_words_ids", json!([1])),
            ("stop_strings", json!(["x"])),
        ] {
            let mut config = json!({});
            config[key] = value;
            let said = LogitRules::from_generation_config(&config).unwrap_err().to_string();
            assert!(said.contains(&format!("`{key}`")) && said.contains("hint: "), "{said}");
        }
    }

    #[test]
    fn seen_tokens_are_forgotten_even_when_the_count_ends() {
        let mut seen = SeenTokens { met: vec![0; 2], now: u32::MAX - 1 };
        seen.begin();
        assert!(seen.is_new(TokenId(1)) && !seen.is_new(TokenId(1)));
        seen.begin();
        assert!(seen.is_new(TokenId(1)) && !seen.is_new(TokenId(9)));
    }
}
