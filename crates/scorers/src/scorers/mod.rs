//! The scorers: the trait and the list.
//!
//! A member is one file with its settings, code and tests, and one line in [`MEMBERS`]. It reads nothing but its
//! settings and the evidence that it asked for, and the same evidence gives the same score. What every member has
//! to pass stands in `conformance.rs`.

pub mod command;
#[cfg(test)]
mod conformance;
pub mod degenerate_answers;
pub mod false_refusals;
pub mod flip_rate;
pub mod kl_divergence;
pub mod perplexity;
pub mod refusal_score;
pub mod refusals;
pub mod sequence_kl;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::program::Stop;
use crate::settings::{ConfigureError, SettingHelp, Settings, help};
use crate::{Evidence, Goal, Need, PromptSet, Score, ScoreError};

/// The kinds of scorers, in the order in which users see them.
pub const MEMBERS: &[MemberEntry] = &[
    MemberEntry::of::<refusals::Refusals>(),
    MemberEntry::of::<kl_divergence::KlDivergence>(),
    MemberEntry::of::<false_refusals::FalseRefusals>(),
    MemberEntry::of::<sequence_kl::SequenceKl>(),
    MemberEntry::of::<flip_rate::FlipRate>(),
    MemberEntry::of::<refusal_score::RefusalScore>(),
    MemberEntry::of::<degenerate_answers::DegenerateAnswers>(),
    MemberEntry::of::<perplexity::Perplexity>(),
    MemberEntry::of::<command::Command>(),
];

/// Turns evidence into a score.
pub trait Scorer: Send + Sync + fmt::Debug {
    /// The name of this instance.
    fn name(&self) -> &str;

    /// What has to be collected.
    fn needs(&self) -> Vec<Need>;

    /// The score of the candidate that the evidence is about.
    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError>;

    /// The same for a scorer that waits for something else than the processor, which it does no longer than until
    /// `stop` says so: then the error is [`ScoreError::Stopped`].
    fn score_until(&self, evidence: &Evidence, stop: Stop<'_>) -> Result<Score, ScoreError> {
        let _ = stop;
        self.score(evidence)
    }

    /// Does early what could fail late, such as starting a program; asked once, before a long run.
    fn prepare(&self, stop: Stop<'_>) -> Result<(), ScoreError> {
        let _ = stop;
        Ok(())
    }
}

/// A kind of scorer.
pub trait Member: Scorer + Sized + 'static {
    /// The name in settings.
    const NAME: &'static str;
    /// One line for a list.
    const SUMMARY: &'static str;
    /// What else a user has to know; empty if nothing.
    const MORE: &'static str = "";
    /// What the search does with the score unless told otherwise.
    const GOAL: Goal;
    /// The value of a candidate that behaves exactly as the original, where that is known beforehand.
    const NEUTRAL: Option<f64> = None;
    /// The settings that are texts, for which a file may be named.
    const TEXTS: &'static [&'static str] = &[];
    /// What can be set.
    type Settings: Settings;

    /// An instance with these settings; `sets` stand in where the settings name no prompts.
    fn configure(name: &str, settings: Self::Settings, sets: &DefaultSets) -> Result<Self, ConfigureError>;

    /// Settings that are complete, for what has no complete defaults.
    #[cfg(test)]
    fn example() -> Value {
        Value::Object(serde_json::Map::new())
    }
}

/// The prompt sets that are evaluated when a scorer's settings name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultSets {
    /// Prompts that show the behavior.
    pub behavior: PromptSet,
    /// Prompts that do not.
    pub baseline: PromptSet,
}

/// Makes an instance from its name and settings.
type Build = fn(&str, &Value, &DefaultSets) -> Result<Arc<dyn Scorer>, ConfigureError>;

/// A line of [`MEMBERS`].
#[derive(Clone, Copy)]
pub struct MemberEntry {
    /// The name in settings.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    /// What else a user has to know; empty if nothing.
    pub more: &'static str,
    /// What the search does with the score unless told otherwise.
    pub goal: Goal,
    /// The value of a candidate that behaves exactly as the original, where that is known beforehand.
    pub neutral: Option<f64>,
    /// The settings that are texts, for which a file may be named. Who reads settings reads these files, too.
    pub texts: &'static [&'static str],
    help: fn() -> Vec<SettingHelp>,
    build: Build,
    #[cfg(test)]
    example: fn() -> Value,
}

impl MemberEntry {
    const fn of<M: Member>() -> Self {
        Self {
            name: M::NAME,
            summary: M::SUMMARY,
            more: M::MORE,
            goal: M::GOAL,
            neutral: M::NEUTRAL,
            texts: M::TEXTS,
            help: help::<M::Settings>,
            build: build::<M>,
            #[cfg(test)]
            example: M::example,
        }
    }

    /// The help of its settings, defaults included.
    pub fn settings(&self) -> Vec<SettingHelp> {
        (self.help)()
    }
}

impl fmt::Debug for MemberEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberEntry({})", self.name)
    }
}

fn build<M: Member>(
    name: &str,
    settings: &Value,
    sets: &DefaultSets,
) -> Result<Arc<dyn Scorer>, ConfigureError> {
    let given = if settings.is_null() { &Value::Object(serde_json::Map::new()) } else { settings };
    let settings: M::Settings =
        serde::Deserialize::deserialize(given).map_err(|error: serde_json::Error| {
            let keys: Vec<String> = M::Settings::FIELDS.iter().map(|it| format!("`{}`", it.0)).collect();
            ConfigureError::Form {
                scorer: name.to_owned(),
                reason: error.to_string(),
                known: keys.join(", "),
            }
        })?;
    Ok(Arc::new(M::configure(name, settings, sets)?))
}

/// A scorer with the goal that the user gave it.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The scorer.
    pub scorer: Arc<dyn Scorer>,
    /// What the search does with its score.
    pub goal: Goal,
    /// Its kind.
    pub member: MemberEntry,
}

impl Configured {
    /// The name of the instance.
    pub fn name(&self) -> &str {
        self.scorer.name()
    }

    /// The score of the candidate that the evidence is about; value and objective are finite.
    pub fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        self.score_until(evidence, &|| false)
    }

    /// The same, waiting for a scorer's program no longer than until `stop` says so.
    pub fn score_until(&self, evidence: &Evidence, stop: Stop<'_>) -> Result<Score, ScoreError> {
        let score = self.scorer.score_until(evidence, stop)?;
        for (what, value) in [("value", score.value), ("objective", score.objective)] {
            if !value.is_finite() {
                return Err(ScoreError::Infinite { scorer: self.name().to_owned(), what, value });
            }
        }
        Ok(score)
    }
}

/// A scorer by the name of its kind.
///
/// - `instance`: its name in results; the kind's name if none is given
/// - `goal`: the kind's default if none is given
/// - `settings`: an object with the kind's settings; null for all defaults
pub fn configure(
    kind: &str,
    instance: Option<&str>,
    goal: Option<Goal>,
    settings: &Value,
    sets: &DefaultSets,
) -> Result<Configured, ConfigureError> {
    let member = *MEMBERS.iter().find(|it| it.name == kind).ok_or_else(|| {
        let known: Vec<String> = MEMBERS.iter().map(|it| format!("`{}`", it.name)).collect();
        ConfigureError::UnknownScorer { found: kind.to_owned(), known: known.join(", ") }
    })?;
    let scorer = (member.build)(instance.unwrap_or(kind), settings, sets)?;
    Ok(Configured { scorer, goal: goal.unwrap_or(member.goal), member })
}
