//! The arguments that say what a job is about: prompts, how they are put, how edits are made, what is scored.

use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, ValueEnum};
use pipeline::Settings;
use pipeline::settings::{
    BAD_PROMPTS, GOOD_PROMPTS, KL_PROMPTS, PromptSetSettings, REFUSAL_PROMPTS, ScorerSettings,
};
use serde_json::{Map, Value, json};

/// Which prompts, and how they are put to the model.
#[derive(clap::Args)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct PromptArguments {
    /// Prompts and markers that come with the program
    ///
    /// The other options of this section replace parts of it.
    #[arg(long, value_enum)]
    preset: Option<Preset>,

    /// Prompts that do not show the behaviour, for directions
    ///
    /// A text file with one prompt a line, with a slice if wanted: prompts.txt[:400]; or an embedded set:
    /// embedded:ordinary-train.
    #[arg(long, value_name = "PROMPTS")]
    good_prompts: Option<String>,

    /// Prompts that show the behaviour, for directions
    #[arg(long, value_name = "PROMPTS")]
    bad_prompts: Option<String>,

    /// Prompts that show the behaviour, for scores
    #[arg(long, value_name = "PROMPTS")]
    refusal_prompts: Option<String>,

    /// Prompts that do not show the behaviour, for scores
    #[arg(long, value_name = "PROMPTS")]
    kl_prompts: Option<String>,

    /// Text before every prompt of a set: SET=TEXT, with SET good, bad, refusal or kl
    #[arg(long, value_name = "SET=TEXT", value_parser = of_set)]
    prompt_prefix: Vec<(String, String)>,

    /// Text after every prompt of a set: SET=TEXT
    #[arg(long, value_name = "SET=TEXT", value_parser = of_set)]
    prompt_suffix: Vec<(String, String)>,

    /// System prompt of one set: SET=TEXT
    #[arg(long, value_name = "SET=TEXT", value_parser = of_set)]
    set_system_prompt: Vec<(String, String)>,

    /// System prompt; an empty text means none
    #[arg(long, value_name = "TEXT")]
    system_prompt: Option<String>,

    /// Text with which every answer begins; found from the model's answers if not given
    #[arg(long, value_name = "TEXT")]
    response_prefix: Option<String>,

    /// A pair OPENED=>CLOSED: where all answers begin with a chain of thought, what to put in its place; may be
    /// given several times, and then replaces the usual ones
    #[arg(long, value_name = "OPENED=>CLOSED", value_parser = skip)]
    chain_of_thought_skip: Vec<(String, String)>,

    /// Longest answer, in tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_response_length: Option<u32>,

    /// Sequences that are computed together; 0 finds the fastest number
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,

    /// Largest batch size to try
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_batch_size: Option<u32>,
}

/// How edits are made.
#[derive(clap::Args)]
#[command(next_help_heading = "Edits")]
pub(crate) struct EditArguments {
    /// Take the part along the good prompts' mean out of the directions
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    orthogonalize_direction: Option<bool>,

    /// What happens to the lengths of a weight's rows
    ///
    /// none: the direction is taken out of the weight as it is. pre: found in rows of length 1. full: as pre, and
    /// every row gets back its length (exactly, where others approximate).
    #[arg(long, value_enum)]
    row_normalization: Option<RowNormalization>,

    /// Clamp each residual's components to this quantile of their magnitudes; 1 means not at all
    #[arg(long, value_name = "Q", value_parser = quantile)]
    winsorization_quantile: Option<f64>,

    /// Multiply directions with the gain of a norm that follows a writer
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    account_for_norm_gain: Option<bool>,
}

/// What is scored.
#[derive(clap::Args)]
#[command(next_help_heading = "Scores")]
pub(crate) struct ScoreArguments {
    /// A scorer: NAME, NAME:GOAL or NAME:GOAL:SETTINGS, with GOAL minimize, maximize or none and SETTINGS as JSON
    ///
    /// May be given several times; the order is that of the study's objectives. `NAME@INSTANCE` tells several of one
    /// kind apart. Example: --scorer refusals:minimize --scorer 'perplexity:none:{"text": "It was a bright day."}'
    #[arg(long, value_name = "SCORER", value_parser = scorer)]
    scorer: Vec<ScorerSettings>,

    /// Text file with one marker a line: an answer that contains one shows the behaviour
    #[arg(long, value_name = "FILE")]
    refusal_markers: Option<PathBuf>,

    /// Watch that harmless prompts are not refused: the divergence's objective gets a penalty
    #[arg(long)]
    detect_false_refusals: bool,

    /// The penalty: this weight times the share of harmless prompts that are refused
    #[arg(long, value_name = "W")]
    false_refusal_weight: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Preset {
    /// "As an AI …": questions about the assistant itself against ordinary ones, in the program
    Disclaimers,
}

#[derive(Clone, Copy, ValueEnum)]
enum RowNormalization {
    None,
    Pre,
    Full,
}

/// Everything but how to search.
#[derive(clap::Args)]
pub(crate) struct JobArguments {
    #[command(flatten)]
    pub(crate) prompts: PromptArguments,
    #[command(flatten)]
    edits: EditArguments,
    #[command(flatten)]
    scores: ScoreArguments,
}

impl JobArguments {
    /// Puts what was given into settings that hold the defaults.
    pub(crate) fn apply(&self, settings: &mut Settings) -> anyhow::Result<()> {
        self.prompts.apply(settings);
        self.edits.apply(settings);
        self.scores.apply(settings, self.prompts.preset.map(Preset::markers))
    }

    /// Whether scorers were named.
    pub(crate) fn names_scorers(&self) -> bool {
        !self.scores.scorer.is_empty()
    }
}

impl Preset {
    fn markers(self) -> Vec<String> {
        match self {
            Self::Disclaimers => prompts::sources::disclaimer_markers().map(str::to_owned).collect(),
        }
    }

    fn sets(self) -> [(&'static str, &'static str); 4] {
        match self {
            Self::Disclaimers => [
                (GOOD_PROMPTS, "embedded:ordinary-train"),
                (BAD_PROMPTS, "embedded:disclaimers-train"),
                (REFUSAL_PROMPTS, "embedded:disclaimers-eval"),
                (KL_PROMPTS, "embedded:ordinary-eval"),
            ],
        }
    }
}

impl PromptArguments {
    fn apply(&self, settings: &mut Settings) {
        for (set, dataset) in self.preset.map(Preset::sets).into_iter().flatten() {
            settings.prompt_sets.insert(set.to_owned(), PromptSetSettings::of(dataset));
        }
        let given = [
            (GOOD_PROMPTS, &self.good_prompts),
            (BAD_PROMPTS, &self.bad_prompts),
            (REFUSAL_PROMPTS, &self.refusal_prompts),
            (KL_PROMPTS, &self.kl_prompts),
        ];
        for (set, dataset) in given {
            if let Some(dataset) = dataset {
                settings.prompt_sets.insert(set.to_owned(), PromptSetSettings::of(dataset));
            }
        }
        for (set, prefix) in &self.prompt_prefix {
            settings.prompt_sets.entry(set.clone()).or_default().prefix.clone_from(prefix);
        }
        for (set, suffix) in &self.prompt_suffix {
            settings.prompt_sets.entry(set.clone()).or_default().suffix.clone_from(suffix);
        }
        for (set, system) in &self.set_system_prompt {
            settings.prompt_sets.entry(set.clone()).or_default().system_prompt = Some(system.clone());
        }
        if let Some(system) = &self.system_prompt {
            settings.system_prompt.clone_from(system);
        }
        if self.response_prefix.is_some() {
            settings.response_prefix.clone_from(&self.response_prefix);
        }
        if !self.chain_of_thought_skip.is_empty() {
            settings.chain_of_thought_skips.clone_from(&self.chain_of_thought_skip);
        }
        replace(&mut settings.max_response_length, self.max_response_length.map(|it| it as usize));
        replace(&mut settings.batch_size, self.batch_size);
        replace(&mut settings.max_batch_size, self.max_batch_size.map(|it| it as usize));
    }
}

impl EditArguments {
    fn apply(&self, settings: &mut Settings) {
        replace(&mut settings.orthogonalize_direction, self.orthogonalize_direction);
        replace(&mut settings.winsorization_quantile, self.winsorization_quantile);
        replace(&mut settings.account_for_norm_gain, self.account_for_norm_gain);
        replace(
            &mut settings.row_normalization,
            self.row_normalization.map(|it| match it {
                RowNormalization::None => ablation::RowNormalization::None,
                RowNormalization::Pre => ablation::RowNormalization::Pre,
                RowNormalization::Full => ablation::RowNormalization::Full,
            }),
        );
    }
}

impl ScoreArguments {
    fn apply(&self, settings: &mut Settings, preset: Option<Vec<String>>) -> anyhow::Result<()> {
        if !self.scorer.is_empty() {
            settings.scorers.clone_from(&self.scorer);
        }
        let markers = match &self.refusal_markers {
            None => preset,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("reading markers from `{}`", path.display()))?;
                Some(text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
            }
        };
        // Each scorer has only the settings that it lists; what a scorer was given by name stays.
        let mut offered = Map::new();
        if let Some(markers) = markers {
            offered.insert("markers".to_owned(), json!(markers));
            offered.insert("false_refusal_markers".to_owned(), json!(markers));
        }
        if self.detect_false_refusals {
            offered.insert("detect_false_refusals".to_owned(), json!(true));
        }
        if let Some(weight) = self.false_refusal_weight {
            offered.insert("false_refusal_weight".to_owned(), json!(weight));
        }
        for scorer in &mut settings.scorers {
            let Some(member) = scorers::MEMBERS.iter().find(|it| it.name == scorer.scorer) else { continue };
            let known: Vec<&str> = member.settings().iter().map(|it| it.name).collect();
            let mut own = scorer.settings.as_object().cloned().unwrap_or_default();
            for (key, value) in offered.iter().filter(|(key, _)| known.contains(&key.as_str())) {
                own.entry(key).or_insert_with(|| value.clone());
            }
            scorer.settings = Value::Object(own);
        }
        Ok(())
    }
}

fn replace<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

/// `SET=TEXT`, with the set's full name.
fn of_set(text: &str) -> Result<(String, String), String> {
    let (set, text) = text.split_once('=').ok_or("expected SET=TEXT")?;
    let names = [GOOD_PROMPTS, BAD_PROMPTS, REFUSAL_PROMPTS, KL_PROMPTS];
    let name = names.into_iter().find(|it| *it == set || it.strip_suffix("_prompts") == Some(set));
    Ok((name.ok_or("SET is good, bad, refusal or kl")?.to_owned(), text.to_owned()))
}

fn skip(text: &str) -> Result<(String, String), String> {
    let (opened, closed) = text.split_once("=>").ok_or("expected OPENED=>CLOSED")?;
    Ok((opened.to_owned(), closed.to_owned()))
}

fn quantile(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number")?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("expected a number from 0 to 1".to_owned()) }
}

/// `NAME[@INSTANCE][:GOAL[:SETTINGS]]`.
fn scorer(text: &str) -> Result<ScorerSettings, String> {
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let (name, instance) =
        name.split_once('@').map_or((name, None), |(name, it)| (name, Some(it.to_owned())));
    if !scorers::MEMBERS.iter().any(|it| it.name == name) {
        let known: Vec<&str> = scorers::MEMBERS.iter().map(|it| it.name).collect();
        return Err(format!("unknown scorer `{name}`; known are {}", known.join(", ")));
    }
    let goal = match parts.next() {
        None | Some("") => None,
        Some("minimize" | "min") => Some(scorers::Goal::Minimize),
        Some("maximize" | "max") => Some(scorers::Goal::Maximize),
        Some("none") => Some(scorers::Goal::None),
        Some(other) => return Err(format!("goal `{other}`: expected minimize, maximize or none")),
    };
    let settings = match parts.next() {
        None => Value::Null,
        Some(json) => serde_json::from_str(json).map_err(|error| format!("settings `{json}`: {error}"))?,
    };
    Ok(ScorerSettings { scorer: name.to_owned(), goal, instance_name: instance, settings })
}
