//! What a run is told: resolved settings, never changed after.
//!
//! Names, meanings and defaults are those that users of heretic know. Every setting is defined here once; files,
//! environment variables, options and help follow from it (`settings::settings!`). Facts found at run time are a
//! [`Calibration`](crate::Calibration).

use std::collections::BTreeMap;

use ablation::RowNormalization;
use prompts::Clock;
use prompts::sources::Specification;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use settings::{Fields, Kind, settings};

use crate::PipelineError;

/// The set whose prompts do not show the behaviour: directions.
pub const GOOD_PROMPTS: &str = "good_prompts";
/// The set whose prompts show the behaviour: directions.
pub const BAD_PROMPTS: &str = "bad_prompts";
/// Prompts that show the behaviour: scores.
pub const REFUSAL_PROMPTS: &str = "refusal_prompts";
/// Prompts that do not show the behaviour: scores.
pub const KL_PROMPTS: &str = "kl_prompts";
/// Prompts whose direction is left in the model.
pub const KEEP_PROMPTS: &str = "keep_prompts";

settings! {
    /// Where the prompts of a set come from and how they are put.
    pub struct PromptSetSettings {
        section "Prompts";

        /// A data set of the hub (`mlabonne/harmless_alpaca`), a folder, a file (Parquet, JSON lines, CSV, Arrow, or
        /// a text file with one prompt a line), or a set in the program (`embedded:ordinary-train`). Files and
        /// embedded sets may have a slice at their end: `prompts.txt[:400]`.
        pub dataset: String = String::new();
        /// The data set's commit on the hub; the newest if not given, and then noted in the study.
        pub commit: Option<String> = None;
        /// The data set's configuration, where it has several.
        pub config: Option<String> = None;
        /// Which part: `train[:400]`, `test[10%:20%]`, `train[:50]+test[:50]`. Required for data sets, `[:400]` or
        /// nothing for text files.
        pub split: Option<String> = None;
        /// The column that holds the prompts. Required for data sets with more than one.
        pub column: Option<String> = None;
        /// Put before every prompt, with a space between.
        pub prefix: String = String::new();
        /// Put after every prompt, with a space between.
        pub suffix: String = String::new();
        /// In place of the run's system prompt.
        pub system_prompt: Option<String> = None;
        /// What plots call the set.
        pub residual_plot_label: Option<String> = None;
        /// Its color in plots.
        pub residual_plot_color: Option<String> = None;
    }
}

impl PromptSetSettings {
    /// A set without prefix and suffix.
    pub fn of(dataset: impl Into<String>) -> Self {
        Self { dataset: dataset.into(), ..Self::default() }
    }

    /// The source of its prompts.
    pub fn source(&self) -> Specification {
        Specification {
            dataset: self.dataset.clone(),
            commit: self.commit.clone(),
            config: self.config.clone(),
            split: self.split.clone(),
            column: self.column.clone(),
        }
    }

    /// The same way of putting prompts, for prompts of another source.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { dataset: String::new(), commit: None, config: None, split: None, column: None, ..self.clone() }
    }

    /// A prompt as it is put.
    pub fn put(&self, prompt: &str) -> String {
        let before = if self.prefix.is_empty() { "" } else { " " };
        let after = if self.suffix.is_empty() { "" } else { " " };
        format!("{}{before}{prompt}{after}{}", self.prefix, self.suffix)
    }
}

/// A scorer of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSettings {
    /// Its name in [`scorers::MEMBERS`].
    #[serde(rename = "plugin", alias = "scorer")]
    pub scorer: String,
    /// What the search is to do with it; `None`: what the scorer suggests.
    #[serde(rename = "optimization", alias = "goal", default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<scorers::Goal>,
    /// Tells several scorers of one name apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,
    /// The scorer's own settings, an object; they count more than those of its table.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
}

impl ScorerSettings {
    /// A scorer that is told nothing.
    pub fn of(scorer: impl Into<String>) -> Self {
        Self { scorer: scorer.into(), goal: None, instance_name: None, settings: Value::Null }
    }
}

fn row_normalizations() -> Vec<&'static str> {
    vec!["none", "pre", "full"]
}

fn samplers() -> Vec<&'static str> {
    search::samplers::SAMPLERS.iter().map(|it| it.name).collect()
}

settings! {
    /// Everything a run is told.
    pub struct Settings {
        section "Prompts";

        /// Prompts that do not show the behaviour, for directions.
        pub good_prompts: Option<PromptSetSettings> = None;
        /// Prompts that show the behaviour, for directions.
        pub bad_prompts: Option<PromptSetSettings> = None;
        /// Prompts that show the behaviour, for scores.
        pub refusal_prompts: Option<PromptSetSettings> = None;
        /// Prompts that do not show the behaviour, for scores.
        pub kl_prompts: Option<PromptSetSettings> = None;
        /// Prompts of a behaviour that is to stay: the direction between them and the good prompts is taken out of
        /// the direction that is removed (Wang et al. 2025, arXiv:2410.03415).
        pub keep_prompts: Option<PromptSetSettings> = None;
        /// More sets of prompts by name, for scorers to refer to.
        pub prompt_sets: BTreeMap<String, PromptSetSettings> [Kind::Open] = BTreeMap::new();
        /// The system prompt; an empty text means none.
        pub system_prompt: String = "You are a helpful assistant.".to_owned();
        /// Variables of the chat template: `{ enable_thinking = false }`, `{ reasoning_effort = "low" }`. On the command
        /// line as JSON: --chat-template-kwargs '{"enable_thinking": false}'
        pub chat_template_kwargs: Map<String, Value> [Kind::Any] = Map::new();
        /// The date, or date and time, that a chat template prints where it prints today's (`strftime_now`: Llama 3,
        /// Granite, gpt-oss): `2026-11-30`, `2026-11-30T12:00:00`. The time at which the study begins if not given.
        ///
        /// It is noted in the study and in `reproduce.json`, so that the prompts of another day are the same.
        pub template_date: Option<String> = None;
        /// Text with which every answer begins; found from the model's answers if not given.
        pub response_prefix: Option<String> = None;
        /// Pairs of what opens a chain of thought and what to put in its place where all answers begin with it, so
        /// that answers are looked at, not thoughts.
        pub chain_of_thought_skips: Vec<(String, String)> [Kind::List] = chain_of_thought_skips();
        /// Longest answer, in tokens.
        pub max_response_length: usize [Kind::Integer { least: 1 }] = 100;
        /// Whether answers obey the rules of the model's generation_config.json that count in greedy decoding, as Python's
        /// `generate` does.
        ///
        /// repetition_penalty, no_repeat_ngram_size, bad_words_ids, suppress_tokens, begin_suppress_tokens, min_length,
        /// min_new_tokens, sequence_bias, exponential_decay_length_penalty. Divergences are of the model's own
        /// distributions, which no rule changes.
        pub obey_generation_config: bool = true;
        /// Sequences that are computed together; 0 finds the fastest number.
        pub batch_size: usize = 0;
        /// Largest batch size to try.
        pub max_batch_size: usize [Kind::Integer { least: 1 }] = 128;

        section "Edits";

        /// Take the part along the good prompts' mean out of the directions.
        pub orthogonalize_direction: bool = true;
        /// What happens to the lengths of a weight's rows.
        ///
        /// none: the direction is taken out of the weight as it is. pre: found in rows of length 1. full: as pre, and
        /// every row gets back its length (exactly, where others approximate).
        pub row_normalization: RowNormalization [Kind::Choice(row_normalizations)] = RowNormalization::Full;
        /// Clamp each residual's components to this quantile of their magnitudes; 1 means not at all.
        pub winsorization_quantile: f64 [Kind::Number { least: 0.0, most: 1.0 }] = 1.0;
        /// Print how the prompts' residuals lie to each other at each layer, with geometric medians and silhouettes.
        pub print_residual_geometry: bool = false;
        /// Multiply directions with the gain of a norm that follows a writer.
        pub account_for_norm_gain: bool = false;

        section "Scores";

        /// The scorers, in the order of the study's objectives: `{ plugin = NAME, optimization = GOAL, instance_name =
        /// INSTANCE }` with GOAL minimize, maximize or none; or in short `NAME@INSTANCE:GOAL`.
        ///
        /// On the command line once for each: --scorer refusals:minimize --scorer 'perplexity:none:{"text": "It was a
        /// bright day."}'
        pub scorers: Vec<ScorerSettings> [Kind::List], also "scorer"
            = vec![ScorerSettings::of("refusals"), ScorerSettings::of("kl_divergence")];
        /// Settings of scorers: a table for each, `[scorer.refusals]`, and for an instance `[scorer.refusals_INSTANCE]`.
        pub scorer: BTreeMap<String, Map<String, Value>> [Kind::Open] = BTreeMap::new();
        /// Phrases whose presence makes an answer a refusal, for all scorers that look for them; a list, or a text
        /// file with one a line.
        pub refusal_markers: Option<Vec<String>> = None;
        /// Watch that harmless prompts are not refused: the divergence's objective gets a penalty.
        pub detect_false_refusals: bool = false;
        /// The penalty: this weight times the share of harmless prompts that are refused.
        pub false_refusal_weight: f64 [Kind::Number { least: 0.0, most: f64::INFINITY }] = 0.5;
        /// How many characters at the beginning of answers to harmless prompts are searched for refusals, where answers
        /// are then cut: a trial takes less time. The whole answers if not given.
        pub false_refusal_opening: Option<usize> = None;

        section "Search";

        /// Trials in all.
        pub n_trials: usize [Kind::Integer { least: 1 }], also "trials" = 200;
        /// Random trials to begin with.
        pub n_startup_trials: usize, also "startup-trials" = 60;
        /// Where random numbers begin.
        pub seed: u64 = 0;
        /// How trials are proposed.
        pub sampler: String [Kind::Choice(samplers)] = "tpe".to_owned();
        /// Trials that are proposed and computed together.
        pub parallel_trials: usize [Kind::Integer { least: 1 }] = 1;
    }
}

fn chain_of_thought_skips() -> Vec<(String, String)> {
    let skip = |opened: &str, closed: &str| (opened.to_owned(), closed.to_owned());
    vec![
        skip("<think>", "<think></think>"),
        skip(
            "<|channel|>analysis<|message|>",
            "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        skip("<thought>", "<thought></thought>"),
        skip("[THINK]", "[THINK][/THINK]"),
    ]
}

impl Settings {
    /// The sets of prompts by name.
    pub fn sets(&self) -> impl Iterator<Item = (&str, &PromptSetSettings)> {
        let own = [
            (GOOD_PROMPTS, &self.good_prompts),
            (BAD_PROMPTS, &self.bad_prompts),
            (REFUSAL_PROMPTS, &self.refusal_prompts),
            (KL_PROMPTS, &self.kl_prompts),
            (KEEP_PROMPTS, &self.keep_prompts),
        ];
        let named = self.prompt_sets.iter().map(|(name, set)| (name.as_str(), set));
        own.into_iter().filter_map(|(name, set)| Some((name, set.as_ref()?))).chain(named)
    }

    /// A set of prompts by name.
    pub fn set(&self, name: &str) -> Result<&PromptSetSettings, PipelineError> {
        self.sets().find(|it| it.0 == name).map(|it| it.1).ok_or_else(|| PipelineError::UnknownSet {
            set: name.to_owned(),
            known: self.sets().map(|it| it.0.to_owned()).collect(),
        })
    }

    /// The place of a set of prompts, for one that stands in for it.
    pub fn set_mut(&mut self, name: &str) -> &mut PromptSetSettings {
        match name {
            GOOD_PROMPTS => self.good_prompts.get_or_insert_default(),
            BAD_PROMPTS => self.bad_prompts.get_or_insert_default(),
            REFUSAL_PROMPTS => self.refusal_prompts.get_or_insert_default(),
            KL_PROMPTS => self.kl_prompts.get_or_insert_default(),
            KEEP_PROMPTS => self.keep_prompts.get_or_insert_default(),
            other => self.prompt_sets.entry(other.to_owned()).or_default(),
        }
    }

    /// Stops the clock that chat templates read: at `template_date` if that is set, else at `or_at`, which is noted.
    ///
    /// # Errors
    /// [`PipelineError::TemplateDate`] when `template_date` is neither a date nor a time.
    pub fn stop_clock(&mut self, or_at: Clock) -> Result<Clock, PipelineError> {
        let clock = match &self.template_date {
            Some(date) => Clock::stopped_at(date)?,
            None => or_at,
        };
        self.template_date = Some(clock.to_string());
        Ok(clock)
    }

    /// The names of the settings in which the two differ. Commits of data sets that only this one has are no
    /// difference: they were looked up.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let mut other = other.clone();
        for (name, set) in self.sets() {
            if other.set(name).is_ok_and(|it| it.commit.is_none()) {
                other.set_mut(name).commit.clone_from(&set.commit);
            }
        }
        let values = |it: &Self| serde_json::to_value(it).unwrap_or_default();
        let (own, others) = (values(self), values(&other));
        Self::FIELDS.iter().map(|it| it.name).filter(|it| own[it] != others[it]).collect()
    }

    /// The settings of a scorer: its own over its instance's table, over its kind's table, over those that all share.
    pub fn of_scorer(&self, scorer: &ScorerSettings) -> Value {
        let mut merged = Map::new();
        let known: Vec<&str> = scorers::MEMBERS
            .iter()
            .filter(|it| it.name == scorer.scorer)
            .flat_map(scorers::scorers::MemberEntry::settings)
            .map(|it| it.name)
            .collect();
        let mut offer = |name: &str, value: Value| {
            if known.contains(&name) {
                merged.insert(name.to_owned(), value);
            }
        };
        if let Some(markers) = &self.refusal_markers {
            offer("markers", Value::from(markers.as_slice()));
            offer("false_refusal_markers", Value::from(markers.as_slice()));
        }
        if self.detect_false_refusals {
            offer("detect_false_refusals", Value::Bool(true));
            offer("false_refusal_weight", Value::from(self.false_refusal_weight));
        }
        if let Some(opening) = self.false_refusal_opening {
            offer("opening", Value::from(opening));
            offer("false_refusal_opening", Value::from(opening));
        }
        let instance = scorer.instance_name.as_ref().map(|it| format!("{}_{it}", scorer.scorer));
        for table in [Some(&scorer.scorer), instance.as_ref()].into_iter().flatten() {
            merged.extend(self.scorer.get(table).cloned().unwrap_or_default());
        }
        match &scorer.settings {
            Value::Object(own) => merged.extend(own.clone()),
            Value::Null => {}
            // Whatever it is, the scorer says that it is no table.
            other => return other.clone(),
        }
        Value::Object(merged)
    }
}
