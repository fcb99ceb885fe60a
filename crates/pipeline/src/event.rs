//! What a run tells while it goes on. The pipeline prints nothing.

use ablation::{Parameters, SiteGeometry, SiteSpread};
use serde::Serialize;

use crate::PipelineError;
use crate::adapter::Approximation;
use crate::calibrate::Quantized;
use crate::evaluate::ScoreRecord;
use crate::warning::Warning;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A batch size was measured.
    BatchSizeTried {
        /// Sequences.
        size: usize,
        /// Answer tokens a second, all sequences together.
        tokens_per_second: f64,
    },
    /// A batch size was chosen.
    BatchSize {
        /// Sequences.
        size: usize,
    },
    /// Weights are held in quantized blocks.
    Quantized(Quantized),
    /// Answers obey rules of the model's `generation_config.json`.
    GenerationRules {
        /// Their names, with their values where these are numbers.
        rules: Vec<String>,
    },
    /// Answers begin within a chain of thought, or with one.
    ChainOfThought {
        /// What opens it.
        opened: String,
        /// Whether the chat template opens it, at the end of the prompt; else the model does.
        by_template: bool,
        /// Answers that it concerns.
        answers: usize,
        /// Answers that were looked at.
        of: usize,
        /// What is put before every answer so that it is closed; where there is nothing, the thought is what is scored.
        closed: Option<String>,
        /// A variable of the chat template that says whether there is one.
        variable: Option<String>,
    },
    /// What all answers begin with is the whole of some of them, so that it is no response prefix.
    WholeAnswers {
        /// The text.
        text: String,
        /// Answers of which nothing would be left.
        answers: usize,
        /// Answers that were looked at.
        of: usize,
    },
    /// What all answers begin with.
    ResponsePrefix {
        /// The text; empty where they have nothing in common.
        prefix: String,
    },
    /// A stage of work has come so far.
    Progress {
        /// What is being done.
        stage: Stage,
        /// Parts done.
        done: usize,
        /// Parts in all.
        all: usize,
        /// Tokens that were computed for them; 0 where that is not counted.
        tokens: usize,
    },
    /// Directions were found.
    Directions {
        /// One for each site.
        geometry: Vec<SiteGeometry>,
        /// One for each site, when `print_residual_geometry` asks for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        spread: Option<Vec<SiteSpread>>,
    },
    /// The original model was scored.
    Baseline {
        /// One for each scorer.
        scores: Vec<ScoreRecord>,
        /// What it took.
        seconds: f64,
    },
    /// An interrupted study goes on.
    Resumed {
        /// Trials that are complete.
        complete: usize,
        /// Trials that were under way and are evaluated again.
        running: usize,
        /// Numbers of complete trials that do not have one value per objective, and are compared with nothing.
        incomparable: Vec<usize>,
    },
    /// A search begins.
    SearchBegun {
        /// Trials that are complete already.
        complete: usize,
        /// Trials wanted in all.
        n_trials: usize,
    },
    /// A trial is complete.
    Trial(Box<TrialEvent>),
    /// A trial came to nothing.
    TrialFailed {
        /// Its number, from 0.
        number: usize,
        /// Why.
        reason: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// Trials of the front were scored on prompts that the search did not see.
    HeldOut {
        /// The trial.
        number: usize,
        /// Its scores there.
        scores: Vec<ScoreRecord>,
    },
    /// Scores of the front that have no value on prompts that the search did not see.
    NoHeldOut {
        /// Their names.
        scores: Vec<String>,
    },
    /// Something that makes results worth less than they look.
    Warning(Warning),
    /// The edit was approximated by factors of low rank.
    Approximated {
        /// Their rank.
        rank: usize,
        /// How far it is from the exact edit, over all weights.
        relative_error: f64,
        /// The same for each weight.
        tensors: Vec<Approximation>,
    },
    /// A model or an adapter was written.
    Saved {
        /// `model` or `adapter`.
        what: &'static str,
        /// Where.
        path: String,
    },
}

/// A complete trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialEvent {
    /// Its number, from 0.
    pub number: usize,
    /// Trials wanted in all.
    pub n_trials: usize,
    /// What was tried.
    pub parameters: Parameters,
    /// One for each scorer.
    pub scores: Vec<ScoreRecord>,
    /// What the search sees, in the order of the objectives.
    pub objectives: Vec<ObjectiveValue>,
    /// What it took; of trials evaluated together, their share.
    pub seconds: f64,
    /// Of the front so far, up to the worst value of each objective so far: it only grows.
    pub hypervolume: Option<f64>,
    /// Trials on the front so far.
    pub front: Vec<usize>,
}

/// What the search sees of a score.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct ObjectiveValue {
    /// The scorer's name.
    pub name: String,
    /// What is wanted.
    pub goal: scorers::Goal,
    /// The value, penalties included.
    pub value: f64,
}

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading residuals of prompts.
    Residuals,
    /// Scoring the original model.
    Baseline,
    /// Scoring candidates.
    Candidates,
    /// Scoring the front on other prompts.
    HeldOut,
    /// Computing the factors of an adapter.
    Factors,
    /// Writing a model.
    Saving,
}

/// Who is told.
pub type Events<'a> = dyn FnMut(Event) + 'a;

/// Whether the user wants to stop.
pub struct Cancel<'a>(pub &'a (dyn Fn() -> bool + Sync));

impl Cancel<'_> {
    /// Whether to stop.
    pub fn requested(&self) -> bool {
        (self.0)()
    }

    /// An error if so.
    pub fn check(&self) -> Result<(), PipelineError> {
        if self.requested() { Err(PipelineError::Interrupted) } else { Ok(()) }
    }
}
