//! What was collected of one candidate.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{EvidenceKind, PromptSet, ScoreError};

/// What the original model thinks of a candidate's whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedAnswer {
    /// The answer.
    pub text: String,
    /// How many tokens it has, the end-of-sequence token included if there is one.
    pub tokens: usize,
    /// Mean of −ln p(token | prompt, tokens before) under the *original* model, in nats; 0 for no tokens.
    pub nats_per_token: f64,
}

/// What a candidate makes of one token of the original model's own answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForcedToken {
    /// KL(original ‖ candidate) of the distributions at this place, in nats.
    pub kl_original_edited: f64,
    /// Whether the candidate's most likely token is another one than the original's.
    pub flipped: bool,
    /// The candidate's log-probability of the token, in nats.
    pub log_probability: f64,
}

/// All that is known of one candidate, by prompt set and kind.
///
/// Values of one set are in the order of its prompts. What is put in twice replaces what was there.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    sets: BTreeMap<PromptSet, SetEvidence>,
    texts: BTreeMap<Arc<str>, Vec<f64>>,
}

#[derive(Clone, Debug, Default)]
struct SetEvidence {
    prompts: Option<Arc<[String]>>,
    first_token: Option<Vec<f64>>,
    openings: BTreeMap<Vec<String>, Vec<f64>>,
    answers: Option<Vec<String>>,
    judged_answers: Option<Vec<JudgedAnswer>>,
    original_answers: Option<Vec<Vec<ForcedToken>>>,
}

/// Putting in: the side of the pipeline.
impl Evidence {
    /// No evidence yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The texts of a set's prompts, for scorers that show or pass them on. Shared between candidates.
    #[must_use]
    pub fn with_prompts(mut self, set: &PromptSet, prompts: impl Into<Arc<[String]>>) -> Self {
        self.entry(set).prompts = Some(prompts.into());
        self
    }

    /// Serves [`crate::Need::FirstToken`]: nats, per prompt.
    #[must_use]
    pub fn with_first_token(mut self, set: &PromptSet, kl_original_edited: Vec<f64>) -> Self {
        self.entry(set).first_token = Some(kl_original_edited);
        self
    }

    /// Serves [`crate::Need::Openings`]: log-probability in nats, per prompt.
    #[must_use]
    pub fn with_openings(mut self, set: &PromptSet, openings: &[String], log_probability: Vec<f64>) -> Self {
        self.entry(set).openings.insert(openings.to_vec(), log_probability);
        self
    }

    /// Serves [`crate::Need::Answers`].
    #[must_use]
    pub fn with_answers(mut self, set: &PromptSet, answers: Vec<String>) -> Self {
        self.entry(set).answers = Some(answers);
        self
    }

    /// Serves [`crate::Need::JudgedAnswers`], and [`crate::Need::Answers`] of the same set.
    #[must_use]
    pub fn with_judged_answers(mut self, set: &PromptSet, answers: Vec<JudgedAnswer>) -> Self {
        self.entry(set).judged_answers = Some(answers);
        self
    }

    /// Serves [`crate::Need::OriginalAnswers`]: per prompt, per token. An empty answer has no tokens.
    #[must_use]
    pub fn with_original_answers(mut self, set: &PromptSet, answers: Vec<Vec<ForcedToken>>) -> Self {
        self.entry(set).original_answers = Some(answers);
        self
    }

    /// Serves [`crate::Need::Text`]: log-probability in nats, per token.
    #[must_use]
    pub fn with_text(mut self, text: &Arc<str>, log_probability: Vec<f64>) -> Self {
        self.texts.insert(Arc::clone(text), log_probability);
        self
    }

    fn entry(&mut self, set: &PromptSet) -> &mut SetEvidence {
        self.sets.entry(set.clone()).or_default()
    }
}

/// Taking out: the side of the scorers. Missing and empty evidence are errors that name the set.
impl Evidence {
    /// The prompts' texts.
    pub fn prompts(&self, set: &PromptSet) -> Result<&[String], ScoreError> {
        self.get(set, EvidenceKind::Prompts, |it| it.prompts.as_deref())
    }

    /// KL(original ‖ candidate) of the first answer token, nats, per prompt.
    pub fn first_token(&self, set: &PromptSet) -> Result<&[f64], ScoreError> {
        let values = self.get(set, EvidenceKind::FirstToken, |it| it.first_token.as_deref())?;
        each_finite(set.as_str(), EvidenceKind::FirstToken, values.iter().copied())?;
        Ok(values)
    }

    /// Log-probability that an answer starts with the first token of one of `openings`, nats, per prompt.
    /// May be −∞, where no opening has any probability.
    pub fn openings(&self, set: &PromptSet, openings: &[String]) -> Result<&[f64], ScoreError> {
        self.get(set, EvidenceKind::Openings, |it| it.openings.get(openings).map(Vec::as_slice))
    }

    /// The answers' texts; judged ones serve, too.
    pub fn answers(&self, set: &PromptSet) -> Result<Vec<&str>, ScoreError> {
        let known = self.sets.get(set);
        let judged = known.and_then(|it| it.judged_answers.as_deref());
        let plain = known.and_then(|it| it.answers.as_deref());
        let texts: Vec<&str> = match (judged, plain) {
            (Some(answers), _) => answers.iter().map(|it| it.text.as_str()).collect(),
            (None, Some(answers)) => answers.iter().map(String::as_str).collect(),
            (None, None) => return Err(missing(set, EvidenceKind::Answers)),
        };
        if texts.is_empty() { Err(empty(set, EvidenceKind::Answers)) } else { Ok(texts) }
    }

    /// Whole answers with what the original thinks of them.
    pub fn judged_answers(&self, set: &PromptSet) -> Result<&[JudgedAnswer], ScoreError> {
        let answers = self.get(set, EvidenceKind::JudgedAnswers, |it| it.judged_answers.as_deref())?;
        each_finite(set.as_str(), EvidenceKind::JudgedAnswers, answers.iter().map(|it| it.nats_per_token))?;
        Ok(answers)
    }

    /// The original's answers as the candidate sees them, per prompt, per token.
    pub fn original_answers(&self, set: &PromptSet) -> Result<&[Vec<ForcedToken>], ScoreError> {
        let answers = self.get(set, EvidenceKind::OriginalAnswers, |it| it.original_answers.as_deref())?;
        for (prompt, tokens) in answers.iter().enumerate() {
            if let Some(bad) = tokens.iter().find(|it| !it.kl_original_edited.is_finite()) {
                return Err(ScoreError::NotFinite {
                    set: set.to_string(),
                    kind: EvidenceKind::OriginalAnswers,
                    index: prompt,
                    value: bad.kl_original_edited,
                });
            }
        }
        Ok(answers)
    }

    /// Log-probability of each token of a text, nats.
    pub fn text(&self, text: &str) -> Result<&[f64], ScoreError> {
        let name = beginning(text);
        let values = self
            .texts
            .get(text)
            .ok_or_else(|| ScoreError::Missing { set: name.clone(), kind: EvidenceKind::Text })?;
        if values.is_empty() {
            return Err(ScoreError::Empty { set: name, kind: EvidenceKind::Text });
        }
        each_finite(&name, EvidenceKind::Text, values.iter().copied())?;
        Ok(values)
    }

    fn get<'a, T>(
        &'a self,
        set: &PromptSet,
        kind: EvidenceKind,
        select: impl FnOnce(&'a SetEvidence) -> Option<&'a [T]>,
    ) -> Result<&'a [T], ScoreError> {
        let values = self.sets.get(set).and_then(select).ok_or_else(|| missing(set, kind))?;
        if values.is_empty() { Err(empty(set, kind)) } else { Ok(values) }
    }
}

fn missing(set: &PromptSet, kind: EvidenceKind) -> ScoreError {
    ScoreError::Missing { set: set.to_string(), kind }
}

fn empty(set: &PromptSet, kind: EvidenceKind) -> ScoreError {
    ScoreError::Empty { set: set.to_string(), kind }
}

fn each_finite(
    set: &str,
    kind: EvidenceKind,
    mut values: impl Iterator<Item = f64>,
) -> Result<(), ScoreError> {
    let mut found = None;
    let index = values.position(|it| {
        found = Some(it);
        !it.is_finite()
    });
    match index.zip(found) {
        None => Ok(()),
        Some((index, value)) => Err(ScoreError::NotFinite { set: set.to_owned(), kind, index, value }),
    }
}

/// A text's first words, to name it in an error.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> PromptSet {
        "harmless.txt[:2]".into()
    }

    #[test]
    fn what_is_missing_is_named_with_its_set_and_kind() {
        let error = Evidence::new().with_answers(&set(), vec!["yes".into()]).first_token(&set()).unwrap_err();
        assert_eq!(error, ScoreError::Missing { set: set().to_string(), kind: EvidenceKind::FirstToken });
        assert!(
            error.to_string().contains("`harmless.txt[:2]`") && error.to_string().contains("first-token")
        );
    }

    #[test]
    fn an_empty_set_is_an_error_of_its_own() {
        let evidence = Evidence::new().with_first_token(&set(), vec![]).with_answers(&set(), vec![]);
        let expected = |kind| ScoreError::Empty { set: set().to_string(), kind };
        assert_eq!(evidence.first_token(&set()).unwrap_err(), expected(EvidenceKind::FirstToken));
        assert_eq!(evidence.answers(&set()).unwrap_err(), expected(EvidenceKind::Answers));
    }

    #[test]
    fn numbers_that_are_none_are_named_with_their_prompt() {
        let evidence = Evidence::new().with_first_token(&set(), vec![0.1, f64::INFINITY]);
        let error = evidence.first_token(&set()).unwrap_err();
        let kind = EvidenceKind::FirstToken;
        assert_eq!(
            error,
            ScoreError::NotFinite { set: set().to_string(), kind, index: 1, value: f64::INFINITY }
        );
    }

    #[test]
    fn judged_answers_serve_as_answers() {
        let judged = vec![JudgedAnswer { text: "yes".into(), tokens: 1, nats_per_token: 0.5 }];
        let evidence = Evidence::new().with_judged_answers(&set(), judged);
        assert_eq!(evidence.answers(&set()).unwrap(), ["yes"]);
        let plain = Evidence::new().with_answers(&set(), vec!["yes".into()]);
        assert!(plain.judged_answers(&set()).is_err(), "plain answers do not serve as judged ones");
    }

    #[test]
    fn openings_are_found_by_their_texts() {
        let (i, sorry) = (vec!["I".to_owned()], vec!["Sorry".to_owned()]);
        let evidence =
            Evidence::new().with_openings(&set(), &i, vec![-1.0]).with_openings(&set(), &sorry, vec![-2.0]);
        assert_eq!(evidence.openings(&set(), &sorry).unwrap(), [-2.0]);
        assert_eq!(evidence.openings(&set(), &i).unwrap(), [-1.0]);
        assert!(evidence.openings(&set(), &["As".to_owned()]).is_err());
    }
}
