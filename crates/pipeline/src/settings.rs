//! What a run is told: resolved settings, never changed after.
//!
//! Names and defaults are those that users of heretic know. Facts found at run time are a
//! [`Calibration`](crate::Calibration).

use std::collections::BTreeMap;

use ablation::RowNormalization;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PipelineError;

/// The set whose prompts do not show the behaviour: directions.
pub const GOOD_PROMPTS: &str = "good_prompts";
/// The set whose prompts show the behaviour: directions.
pub const BAD_PROMPTS: &str = "bad_prompts";
/// Prompts that show the behaviour: scores.
pub const REFUSAL_PROMPTS: &str = "refusal_prompts";
/// Prompts that do not show the behaviour: scores.
pub const KL_PROMPTS: &str = "kl_prompts";

/// Where the prompts of a set come from and how they are put.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSetSettings {
    /// A source of prompts, as [`prompts::sources::open`] reads it: `prompts.txt[:400]`, `embedded:ordinary-train`.
    pub dataset: String,
    /// Put before every prompt.
    #[serde(default)]
    pub prefix: String,
    /// Put after every prompt.
    #[serde(default)]
    pub suffix: String,
    /// In place of the run's system prompt.
    #[serde(default)]
    pub system_prompt: Option<String>,
}

impl PromptSetSettings {
    /// A set without prefix and suffix.
    pub fn of(dataset: impl Into<String>) -> Self {
        Self { dataset: dataset.into(), ..Self::default() }
    }
}

/// A scorer of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSettings {
    /// Its name in [`scorers::MEMBERS`].
    pub scorer: String,
    /// What the search is to do with it; `None`: what the scorer suggests.
    #[serde(default)]
    pub goal: Option<scorers::Goal>,
    /// Tells several scorers of one name apart.
    #[serde(default)]
    pub instance_name: Option<String>,
    /// The scorer's own settings, an object.
    #[serde(default)]
    pub settings: Value,
}

/// Which sampler proposes parameters, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    /// Its name in the list of samplers.
    pub sampler: String,
    /// Trials in all.
    pub n_trials: usize,
    /// How many of them are random, to begin with.
    pub n_startup_trials: usize,
    /// Trials that are asked for and evaluated together.
    pub parallel_trials: usize,
    /// Where random numbers begin.
    pub seed: u64,
}

/// Everything a run is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Sets of prompts by name; scorers refer to them.
    pub prompt_sets: BTreeMap<String, PromptSetSettings>,
    /// The system prompt; empty: none.
    pub system_prompt: String,
    /// Text with which every answer begins; `None`: found by calibration.
    pub response_prefix: Option<String>,
    /// Pairs of what opens a chain of thought and what to put in its place, so that answers are looked at, not
    /// thoughts.
    pub chain_of_thought_skips: Vec<(String, String)>,
    /// Tokens that an answer has at most.
    pub max_response_length: usize,
    /// Sequences that are computed together; 0: found by calibration.
    pub batch_size: usize,
    /// The largest batch that calibration tries.
    pub max_batch_size: usize,
    /// Whether the component along the baseline prompts' mean is taken out of the directions.
    pub orthogonalize_direction: bool,
    /// How edits treat the lengths of a weight's rows.
    pub row_normalization: RowNormalization,
    /// Quantile to which the components of each residual are clamped; 1: not at all.
    pub winsorization_quantile: f64,
    /// Whether the direction at a writer that a norm follows is multiplied with that norm's gain.
    pub account_for_norm_gain: bool,
    /// The scorers, in the order of the study's objectives.
    pub scorers: Vec<ScorerSettings>,
    /// How to search.
    pub search: SearchSettings,
}

impl Settings {
    /// A set of prompts by name.
    pub fn set(&self, name: &str) -> Result<&PromptSetSettings, PipelineError> {
        self.prompt_sets.get(name).ok_or_else(|| PipelineError::UnknownSet {
            set: name.to_owned(),
            known: self.prompt_sets.keys().cloned().collect(),
        })
    }
}

impl Default for Settings {
    /// Refusals and divergence, as heretic has them; without sets of prompts, which have no neutral choice.
    fn default() -> Self {
        let scorer = |name: &str| ScorerSettings {
            scorer: name.to_owned(),
            goal: None,
            instance_name: None,
            settings: Value::Null,
        };
        let skip = |opened: &str, closed: &str| (opened.to_owned(), closed.to_owned());
        Self {
            prompt_sets: BTreeMap::new(),
            system_prompt: "You are a helpful assistant.".to_owned(),
            response_prefix: None,
            chain_of_thought_skips: vec![
                skip("<think>", "<think></think>"),
                skip(
                    "<|channel|>analysis<|message|>",
                    "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
                ),
                skip("<thought>", "<thought></thought>"),
                skip("[THINK]", "[THINK][/THINK]"),
            ],
            max_response_length: 100,
            batch_size: 0,
            max_batch_size: 128,
            orthogonalize_direction: true,
            row_normalization: RowNormalization::Full,
            winsorization_quantile: 1.0,
            account_for_norm_gain: false,
            scorers: vec![scorer("refusals"), scorer("kl_divergence")],
            search: SearchSettings {
                sampler: "tpe".to_owned(),
                n_trials: 200,
                n_startup_trials: 60,
                parallel_trials: 1,
                seed: 0,
            },
        }
    }
}
