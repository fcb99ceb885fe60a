//! `sequence_kl`: how far the candidate is from the original over whole answers.
//!
//! The original's own answers are given to the candidate, token by token (teacher-forced: one pass, no decoding), and
//!
//! ```text
//! value = Σ_answers Σ_tokens KL(original ‖ candidate) / number of tokens        in nats per token
//! ```
//!
//! The first token alone, as in `kl_divergence`, misses damage that begins later. Tokens of one answer are not
//! independent: the standard error is that of a ratio over answers. Median and maximum are over the answers' own means,
//! which are `per_prompt` (0 for an answer without tokens, which adds nothing to the value). Fact: `tokens`.

use super::{DefaultSets, Member, Scorer};
use crate::settings::settings;
use crate::statistics::{Summary, ratio};
use crate::{ConfigureError, Evidence, EvidenceKind, ForcedToken, Goal, Need, PromptSet, Score, ScoreError};

settings! {
    /// Settings of `sequence_kl`.
    pub struct SequenceKlSettings {
        /// Prompts whose original answers are compared. Default: the evaluation prompts that do not show the
        /// behavior.
        pub prompts: Option<PromptSet> = None,
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct SequenceKl {
    name: String,
    prompts: PromptSet,
}

impl Member for SequenceKl {
    const NAME: &'static str = "sequence_kl";
    const SUMMARY: &'static str = "divergence from the original along its own answers, in nats per token";
    const GOAL: Goal = Goal::Minimize;
    const NEUTRAL: Option<f64> = Some(0.0);
    type Settings = SequenceKlSettings;

    fn configure(
        name: &str,
        settings: SequenceKlSettings,
        sets: &DefaultSets,
    ) -> Result<Self, ConfigureError> {
        let prompts = settings.prompts.unwrap_or_else(|| sets.baseline.clone());
        Ok(Self { name: name.to_owned(), prompts })
    }
}

impl Scorer for SequenceKl {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::OriginalAnswers { prompts: self.prompts.clone() }]
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        let answers = evidence.original_answers(&self.prompts)?;
        per_token(&self.prompts, answers, |token| token.kl_original_edited)
    }
}

/// The mean of a property of tokens over all tokens of all answers.
pub(super) fn per_token(
    set: &PromptSet,
    answers: &[Vec<ForcedToken>],
    property: impl Fn(&ForcedToken) -> f64,
) -> Result<Score, ScoreError> {
    let sums = answers.iter().map(|it| (it.iter().map(&property).sum::<f64>(), it.len() as f64));
    let sums: Vec<(f64, f64)> = sums.collect();
    let (value, standard_error) = ratio(&sums)
        .ok_or_else(|| ScoreError::Empty { set: set.to_string(), kind: EvidenceKind::OriginalAnswers })?;
    let spoken: Vec<f64> = sums.iter().filter(|it| it.1 > 0.0).map(|it| it.0 / it.1).collect();
    let over_answers = Summary::of(&spoken);
    let mut score = Score::plain(value, format!("{value:.4}"));
    score.details.mean = Some(value);
    score.details.median = Some(over_answers.median);
    score.details.max = Some(over_answers.max);
    score.details.standard_error = standard_error;
    score.details.per_prompt = sums.iter().map(|it| if it.1 > 0.0 { it.0 / it.1 } else { 0.0 }).collect();
    score.details.add("tokens", answers.iter().map(Vec::len).sum::<usize>());
    Ok(score)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::configure;

    fn answer(divergences: &[f64]) -> Vec<ForcedToken> {
        let token =
            |&kl_original_edited| ForcedToken { kl_original_edited, flipped: false, log_probability: -1.0 };
        divergences.iter().map(token).collect()
    }

    fn score(answers: Vec<Vec<ForcedToken>>) -> Result<Score, ScoreError> {
        let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
        let evidence = Evidence::new().with_original_answers(&"good".into(), answers);
        configure("sequence_kl", None, None, &Value::Null, &sets).unwrap().score(&evidence)
    }

    #[test]
    fn every_token_counts_the_same_whatever_the_length_of_its_answer() {
        // (1 + 0 + 0 + 1) / 4; the mean of the answers' means would be 2/3.
        let score = score(vec![answer(&[1.0]), answer(&[0.0, 0.0, 1.0]), answer(&[])]).unwrap();
        assert_eq!((score.value, score.display.as_str()), (0.5, "0.5000"));
        assert_eq!((score.details.max, &score.details.facts["tokens"]), (Some(1.0), &json!(4)));
        assert_eq!(score.details.per_prompt, [1.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn an_original_that_says_nothing_is_an_error() {
        assert!(matches!(score(vec![answer(&[])]), Err(ScoreError::Empty { .. })));
    }

    #[test]
    fn a_divergence_that_is_no_number_names_its_prompt() {
        let error = score(vec![answer(&[0.0]), answer(&[0.0, f64::NAN])]).unwrap_err();
        assert!(matches!(error, ScoreError::NotFinite { index: 1, .. }), "{error}");
    }
}
