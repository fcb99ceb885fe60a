//! What a scorer says of a candidate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EvidenceKind;
use crate::program::ProgramError;
use crate::statistics::{Summary, wilson_interval};

/// What the search does with a score. (Never called direction: that word is taken.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Less is better.
    Minimize,
    /// More is better.
    Maximize,
    /// The score is shown, the search does not see it.
    None,
}

/// A score of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What is shown and compared with the baseline; finite.
    pub value: f64,
    /// What the search sees, penalties included; the value, unless the scorer says otherwise; finite.
    pub objective: f64,
    /// The value for people: "3/100", "0.0123".
    pub display: String,
    /// What else is known.
    pub details: Details,
}

/// What else is known of a score. What a scorer does not say is absent, also when it is written as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// How many of `total` it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
    /// 95 % Wilson interval of `count / total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Median over the prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// Largest over the prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Standard error of the mean; absent for a single prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// One value per prompt, in the order of the prompts; 0 or 1 for verdicts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per_prompt: Vec<f64>,
    /// What only this scorer has a word for; its documentation says what. Written beside the others.
    #[serde(flatten)]
    pub facts: BTreeMap<String, Value>,
}

impl Score {
    /// A score without details.
    pub fn plain(value: f64, display: impl Into<String>) -> Self {
        Self { value, objective: value, display: display.into(), details: Details::default() }
    }

    /// The share of prompts with a positive verdict, shown as "3/100". The verdicts must not be empty.
    pub fn share(verdicts: &[bool]) -> Self {
        let (count, total) = (verdicts.iter().filter(|&&it| it).count(), verdicts.len());
        let mut score = Self::plain(count as f64 / total as f64, format!("{count}/{total}"));
        score.details = Details {
            count: Some(count),
            total: Some(total),
            interval: Some(wilson_interval(count, total)),
            per_prompt: verdicts.iter().map(|&it| f64::from(u8::from(it))).collect(),
            ..Details::default()
        };
        score
    }

    /// The mean over the prompts, shown with four decimals. The values must not be empty.
    pub fn mean(per_prompt: Vec<f64>) -> Self {
        let summary = Summary::of(&per_prompt);
        let mut score = Self::plain(summary.mean, format!("{:.4}", summary.mean));
        score.details = Details {
            mean: Some(summary.mean),
            median: Some(summary.median),
            max: Some(summary.max),
            standard_error: summary.standard_error,
            per_prompt,
            ..Details::default()
        };
        score
    }
}

impl Details {
    /// Adds a fact that only this scorer has a word for.
    pub(crate) fn add(&mut self, name: &str, fact: impl Into<Value>) {
        self.facts.insert(name.to_owned(), fact.into());
    }
}

/// Why there is no score.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// The evidence was not collected.
    #[error("prompt set `{set}`: no {kind} were collected")]
    Missing {
        /// The prompt set, or the beginning of the text.
        set: String,
        /// What was asked for.
        kind: EvidenceKind,
    },
    /// There is nothing to average over.
    #[error("prompt set `{set}`: the list of {kind} is empty\n\nhint: check the set's slice")]
    Empty {
        /// The prompt set, or the beginning of the text.
        set: String,
        /// What was asked for.
        kind: EvidenceKind,
    },
    /// Two kinds of evidence of one set are about different numbers of prompts.
    #[error("prompt set `{set}`: {left} {left_kind} but {right} {right_kind}")]
    Lengths {
        /// The prompt set.
        set: String,
        /// One kind.
        left_kind: EvidenceKind,
        /// How many there are of it.
        left: usize,
        /// The other kind.
        right_kind: EvidenceKind,
        /// How many there are of it.
        right: usize,
    },
    /// A number of the evidence is infinite or not a number.
    #[error(
        "prompt set `{set}`: the {kind} hold `{value}` at place {index}\n\n\
         hint: the edited model has overflowed; weaker edits or another dtype may help"
    )]
    NotFinite {
        /// The prompt set, or the beginning of the text.
        set: String,
        /// Which evidence.
        kind: EvidenceKind,
        /// The place of the prompt or token, from 0.
        index: usize,
        /// What stands there.
        value: f64,
    },
    /// The score itself is infinite or not a number.
    #[error("scorer `{scorer}`: the {what} is `{value}`")]
    Infinite {
        /// The scorer's instance.
        scorer: String,
        /// Value or objective.
        what: &'static str,
        /// What it is.
        value: f64,
    },
    /// It was no longer waited for.
    #[error("scorer `{scorer}`: stopped before it answered")]
    Stopped {
        /// The scorer's instance.
        scorer: String,
    },
    /// A program that the score comes from failed.
    #[error("scorer `{scorer}`: {source}")]
    Program {
        /// The scorer's instance.
        scorer: String,
        /// How.
        source: Box<ProgramError>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_share_and_not_a_count() {
        let score = Score::share(&[true, false, false, true, false]);
        assert_eq!(score.value.to_bits(), 0.4_f64.to_bits());
        assert_eq!(score.objective.to_bits(), 0.4_f64.to_bits());
        assert_eq!(
            (score.display.as_str(), score.details.count, score.details.total),
            ("2/5", Some(2), Some(5))
        );
        assert_eq!(score.details.per_prompt, [1.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn absent_details_are_not_written_and_facts_stand_beside_the_others() {
        let mut score = Score::share(&[true, false]);
        score.details.interval = None;
        score.details.add("degenerate", 1);
        let json = serde_json::to_value(&score).unwrap();
        let expected = serde_json::json!({
            "value": 0.5, "objective": 0.5, "display": "1/2",
            "details": {"count": 1, "total": 2, "per_prompt": [1.0, 0.0], "degenerate": 1},
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Score>(json).unwrap(), score);
    }
}
