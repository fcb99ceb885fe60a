//! `flip_rate`: how often the candidate would have gone on differently along the original's own answers.
//!
//! value = tokens of the original's answers at which the candidate's most likely token is another one than the
//! original's, divided by all tokens. What greedy decoding makes of a divergence: 0.01 of it may flip nothing, or
//! every close decision. The standard error is that of a ratio over answers; there is no interval of the count, because
//! tokens of one answer are not independent.

use super::sequence_kl::per_token;
use super::{DefaultSets, Member, Scorer};
use crate::settings::settings;
use crate::{ConfigureError, Evidence, Goal, Need, PromptSet, Score, ScoreError};

settings! {
    /// Settings of `flip_rate`.
    pub struct FlipRateSettings {
        /// Prompts whose original answers are compared. Default: the evaluation prompts that do not show the
        /// behavior.
        pub prompts: Option<PromptSet> = None,
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FlipRate {
    name: String,
    prompts: PromptSet,
}

impl Member for FlipRate {
    const NAME: &'static str = "flip_rate";
    const SUMMARY: &'static str = "share of the original's answer tokens that the candidate would not choose";
    const GOAL: Goal = Goal::Minimize;
    const NEUTRAL: Option<f64> = Some(0.0);
    type Settings = FlipRateSettings;

    fn configure(name: &str, settings: FlipRateSettings, sets: &DefaultSets) -> Result<Self, ConfigureError> {
        let prompts = settings.prompts.unwrap_or_else(|| sets.baseline.clone());
        Ok(Self { name: name.to_owned(), prompts })
    }
}

impl Scorer for FlipRate {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::OriginalAnswers { prompts: self.prompts.clone() }]
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        let answers = evidence.original_answers(&self.prompts)?;
        let mut score = per_token(&self.prompts, answers, |token| f64::from(u8::from(token.flipped)))?;
        let flipped = answers.iter().flatten().filter(|it| it.flipped).count();
        let total = answers.iter().map(Vec::len).sum();
        score.display = format!("{flipped}/{total} tokens");
        score.details.count = Some(flipped);
        score.details.total = Some(total);
        Ok(score)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{ForcedToken, configure};

    #[test]
    fn flips_are_counted_over_all_tokens() {
        let token = |flipped| ForcedToken { kl_original_edited: 0.1, flipped, log_probability: -1.0 };
        let answers = vec![vec![token(true)], vec![token(false), token(true), token(false)]];
        let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
        let evidence = Evidence::new().with_original_answers(&"good".into(), answers);
        let score =
            configure("flip_rate", None, None, &Value::Null, &sets).unwrap().score(&evidence).unwrap();
        assert_eq!((score.value, score.display.as_str()), (0.5, "2/4 tokens"));
        assert_eq!((score.details.count, score.details.total), (Some(2), Some(4)));
    }
}
