//! Scores of candidates, with the original's beside them.

use glossary::{EditSet, TokenId};
use scorers::{Configured, DefaultSets, Details, Evidence, Plan, Score};
use search::Objective;
use serde::{Deserialize, Serialize};

use crate::collect::Collector;
use crate::event::ObjectiveValue;
use crate::model::{Model, PromptTexts};
use crate::settings::{KL_PROMPTS, REFUSAL_PROMPTS};
use crate::work::Work;
use crate::{Calibration, Cancel, PipelineError, Settings};

/// A score as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// The scorer's name.
    pub name: String,
    /// The value.
    pub value: f64,
    /// The value for people.
    pub display: String,
    /// What the original model scores.
    pub baseline: Option<f64>,
    /// What else is known: counts, intervals, values per prompt.
    #[serde(default)]
    pub details: Details,
}

impl ScoreRecord {
    /// The score without what is known of every prompt: values and answers.
    #[must_use]
    pub fn without_prompts(mut self) -> Self {
        self.details.per_prompt.clear();
        self.details.facts.remove(RESPONSES);
        self
    }

    /// The answers with their verdicts, where the scorer was told to show them.
    pub fn responses(&self) -> Vec<Response> {
        let shown = self.details.facts.get(RESPONSES).cloned();
        shown.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default()
    }

    /// What the original scores, for people: a count where the score counts.
    pub fn baseline_display(&self) -> String {
        match (self.baseline, self.details.count, self.details.total) {
            (Some(share), Some(_), Some(total)) => format!("{:.0}/{total}", share * total as f64),
            (Some(value), ..) => format!("{value:.4}"),
            (None, ..) => String::new(),
        }
    }

    /// How sure a count is, or how a mean came about.
    pub fn spread(&self) -> String {
        match (self.details.interval, self.details.median, self.details.max) {
            (Some([low, high]), ..) => {
                format!("95 % interval {:.1} % to {:.1} %", low * 100.0, high * 100.0)
            }
            (None, Some(median), Some(max)) => format!("median {median:.4}, largest {max:.4}"),
            _ => String::new(),
        }
    }
}

/// The fact of a score that holds answers (`print_responses`).
const RESPONSES: &str = "responses";

/// An answer, and what a scorer makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Response {
    /// What was asked.
    pub prompt: Option<String>,
    /// What the model answered; where the verdict was known early, its beginning.
    pub response: String,
    /// Whether it counts.
    #[serde(rename = "match")]
    pub matches: bool,
}

/// The scorers of a run, and what they compare with.
pub(crate) struct Evaluator {
    scorers: Vec<Configured>,
    collector: Collector,
    baseline: Vec<Score>,
}

/// All that the scorers say of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// One for each scorer, in order.
    pub scores: Vec<ScoreRecord>,
    /// What the search sees, in the order of the objectives.
    pub objectives: Vec<ObjectiveValue>,
}

impl Evaluation {
    /// The scores as they are stored: values of every prompt would make a study grow by megabytes.
    pub(crate) fn stored_scores(&self) -> Vec<ScoreRecord> {
        self.scores.iter().cloned().map(ScoreRecord::without_prompts).collect()
    }
}

/// The scorers that settings name.
pub(crate) fn configure(settings: &Settings) -> Result<Vec<Configured>, PipelineError> {
    let sets = DefaultSets { behavior: REFUSAL_PROMPTS.into(), baseline: KL_PROMPTS.into() };
    let configured = settings.scorers.iter().map(|it| {
        let instance = it.instance_name.as_ref().map(|instance| format!("{}_{instance}", it.scorer));
        scorers::configure(&it.scorer, instance.as_deref(), it.goal, &settings.of_scorer(it), &sets)
    });
    let configured = configured.collect::<Result<Vec<_>, _>>()?;
    for (index, scorer) in configured.iter().enumerate() {
        if configured[..index].iter().any(|it| it.name() == scorer.name()) {
            return Err(PipelineError::TwoScorers { name: scorer.name().to_owned() });
        }
    }
    Ok(configured)
}

/// The same, with everything done that could fail later, such as starting a program.
pub(crate) fn prepared(settings: &Settings, cancel: &Cancel<'_>) -> Result<Vec<Configured>, PipelineError> {
    let scorers = configure(settings)?;
    for it in &scorers {
        it.scorer.prepare(&|| cancel.requested()).map_err(|error| score_error(it, error))?;
    }
    Ok(scorers)
}

/// The objectives of a study with these scorers, in their order.
pub(crate) fn objectives(scorers: &[Configured]) -> Vec<Objective> {
    scorers
        .iter()
        .filter_map(|it| match it.goal {
            scorers::Goal::Minimize => Some(Objective::minimize(it.name())),
            scorers::Goal::Maximize => Some(Objective::maximize(it.name())),
            scorers::Goal::None => None,
        })
        .collect()
}

impl Evaluator {
    /// Scores the original, which candidates are compared with.
    pub(crate) fn new(
        model: &mut Model,
        settings: &Settings,
        calibration: &Calibration,
        texts: &PromptTexts,
        work: Work<'_, '_>,
    ) -> Result<Self, PipelineError> {
        Self::with(configure(settings)?, model, settings, calibration, texts, work)
    }

    /// The same with scorers that are configured already.
    pub(crate) fn with(
        scorers: Vec<Configured>,
        model: &mut Model,
        settings: &Settings,
        calibration: &Calibration,
        texts: &PromptTexts,
        mut work: Work<'_, '_>,
    ) -> Result<Self, PipelineError> {
        let plan = Plan::merge(scorers.iter().flat_map(|it| it.scorer.needs()));
        let mut collector = Collector::new(model, settings, calibration, &plan, texts)?;
        let evidence = collector.original(model, &mut work)?;
        let baseline =
            scorers.iter().map(|it| score(it, &evidence, work.cancel)).collect::<Result<_, _>>()?;
        Ok(Self { scorers, collector, baseline })
    }

    /// What the original scores.
    pub(crate) fn baseline(&self) -> Evaluation {
        self.records(&self.baseline)
    }

    /// Scores candidates, all in one batch; each may fail by itself. No edit is left in the engine.
    pub(crate) fn evaluate(
        &self,
        model: &mut Model,
        sets: &[EditSet],
        mut work: Work<'_, '_>,
    ) -> Result<Vec<Result<Evaluation, PipelineError>>, PipelineError> {
        model.engine.set_edits(sets)?;
        let evidence = self.collector.candidates(model, sets.len(), &mut work);
        model.engine.set_edits(&[])?;
        let evidence = evidence?;
        let scored = evidence.iter().map(|it| match self.score(it, work.cancel) {
            // What was interrupted says nothing of the candidate.
            Err(PipelineError::Interrupted) => Err(PipelineError::Interrupted),
            scored => Ok(scored),
        });
        scored.collect()
    }

    /// Scores another model, of the same tokenizer; `model` is the original. One of the two may have more rows for tokens that
    /// there are not, as padding to a multiple of 64 leaves them.
    pub(crate) fn evaluate_other(
        &self,
        model: &mut Model,
        other: &mut Model,
        mut work: Work<'_, '_>,
    ) -> Result<Evaluation, PipelineError> {
        let (expected, found) = (model.engine.info().vocab, other.engine.info().vocab);
        if expected != found && !same_tokens(model, other) {
            return Err(PipelineError::Vocabulary { expected, found });
        }
        self.score(&self.collector.other(model, other, &mut work)?, work.cancel)
    }

    fn score(&self, evidence: &Evidence, cancel: &Cancel<'_>) -> Result<Evaluation, PipelineError> {
        let scores =
            self.scorers.iter().map(|it| score(it, evidence, cancel)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.records(&scores))
    }

    fn records(&self, scores: &[Score]) -> Evaluation {
        let named = || self.scorers.iter().zip(scores);
        let objectives = named()
            .filter(|(it, _)| it.goal != scorers::Goal::None)
            .map(|(it, score)| ObjectiveValue {
                name: it.name().to_owned(),
                goal: it.goal,
                value: score.objective,
            })
            .collect();
        let records = named().zip(&self.baseline).map(|((it, score), baseline)| ScoreRecord {
            name: it.name().to_owned(),
            value: score.value,
            display: score.display.clone(),
            baseline: Some(baseline.value),
            details: score.details.clone(),
        });
        Evaluation { scores: records.collect(), objectives }
    }
}

/// Whether two models have the same tokens, and rows for each of them.
fn same_tokens(one: &Model, other: &Model) -> bool {
    let (a, b) = (one.encoder.tokenizer(), other.encoder.tokenizer());
    let rows = one.engine.info().vocab.min(other.engine.info().vocab);
    a.vocab_size() == b.vocab_size()
        && a.vocab_size() <= rows
        && (0..rows as u32).all(|it| a.token(TokenId(it)) == b.token(TokenId(it)))
}

fn score(scorer: &Configured, evidence: &Evidence, cancel: &Cancel<'_>) -> Result<Score, PipelineError> {
    scorer.score_until(evidence, &|| cancel.requested()).map_err(|error| score_error(scorer, error))
}

fn score_error(scorer: &Configured, error: scorers::ScoreError) -> PipelineError {
    match error {
        scorers::ScoreError::Stopped { .. } => PipelineError::Interrupted,
        source => PipelineError::Score { scorer: scorer.name().to_owned(), source },
    }
}
