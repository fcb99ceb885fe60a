//! Which stage failed, and why.

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The user wanted it.
    #[error("interrupted")]
    Interrupted,
    /// Prompts cannot be had.
    #[error("prompt set `{set}`")]
    Prompts {
        /// The set.
        set: String,
        /// Why.
        source: prompts::sources::SourceError,
    },
    /// The file that a scorer's text is said to be in cannot be read.
    #[error("scorer `{scorer}`, setting `{setting}`: {reason}")]
    Text {
        /// The scorer.
        scorer: String,
        /// The setting.
        setting: &'static str,
        /// Why.
        reason: String,
    },
    /// A set is referred to and not given.
    #[error("prompt set `{set}` is not given; given are: {}\n\nhint: name its source with --{}", known.join(", "), set.replace('_', "-"))]
    UnknownSet {
        /// The set.
        set: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Prompts cannot be put to the model.
    #[error(transparent)]
    Encode(#[from] prompts::EncodeError),
    /// An answer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] prompts::TokenizerError),
    /// The model cannot compute.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The model cannot be loaded once more.
    #[error(transparent)]
    Load(#[from] engine::LoadError),
    /// Two models cannot be compared token by token.
    #[error(
        "the original has a vocabulary of {expected}, the other model one of {found}\n\nhint: only models with the same tokenizer can be compared"
    )]
    Vocabulary {
        /// The original's.
        expected: usize,
        /// The other's.
        found: usize,
    },
    /// Residuals cannot be averaged.
    #[error(transparent)]
    Moments(#[from] ablation::MomentsError),
    /// Residuals cannot be winsorized.
    #[error(transparent)]
    Winsorize(#[from] ablation::WinsorizeError),
    /// The sets have no direction between them.
    #[error(transparent)]
    Directions(#[from] ablation::DirectionsError),
    /// A writer cannot be edited.
    #[error("tensor `{tensor}`")]
    Writer {
        /// Its weight.
        tensor: String,
        /// Why.
        source: ablation::WriterError,
    },
    /// Scorers cannot be configured.
    #[error(transparent)]
    Configure(#[from] scorers::ConfigureError),
    /// Two scorers have one name.
    #[error("two scorers are called `{name}`\n\nhint: give one of them an `instance_name`")]
    TwoScorers {
        /// The name.
        name: String,
    },
    /// The search space.
    #[error(transparent)]
    Space(#[from] search::SpaceError),
    /// A trial lacks a parameter.
    #[error(transparent)]
    Assignment(#[from] search::AssignmentError),
    /// No sampler of that name.
    #[error("unknown sampler `{found}`\n\nhint: known are {}", known.join(", "))]
    UnknownSampler {
        /// The name given.
        found: String,
        /// All names.
        known: Vec<String>,
    },
    /// The original's numbers grow beyond what they are held in.
    #[error(
        "prompt set `{set}`: {answers} of {of} answers of the original end in numbers that have overflowed (weights in {dtype})\n\nhint: choose another --dtype: bf16 and f32 have a wider range than f16"
    )]
    Overflow {
        /// The set.
        set: String,
        /// Answers that end so.
        answers: usize,
        /// Answers in all.
        of: usize,
        /// What weights are held in.
        dtype: &'static str,
    },
    /// More candidates together than there is use of.
    #[error(
        "`parallel_trials` is {found}, expected 1 to {most}\n\nhint: more than the batch size brings nothing"
    )]
    ParallelTrials {
        /// As set.
        found: usize,
        /// The largest number.
        most: usize,
    },
    /// Settings of a scorer, or its evidence.
    #[error("scorer `{scorer}`")]
    Score {
        /// The scorer.
        scorer: String,
        /// Why.
        source: scorers::ScoreError,
    },
    /// The study.
    #[error(transparent)]
    Study(#[from] search::StudyError),
    /// A folder cannot be made.
    #[error("creating folder `{}`\n\nhint: name a place that you may write to", path.display())]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model cannot be written.
    #[error(transparent)]
    Write(#[from] checkpoint::write::WriteError),
    /// The edit cannot be an adapter.
    #[error(transparent)]
    Adapter(#[from] crate::adapter::AdapterError),
    /// Files of the model.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The model's settings of generation cannot be obeyed.
    #[error(transparent)]
    GenerationConfig(#[from] engine::GenerationConfigError),
    /// Directions were not found yet.
    #[error("directions are not known yet")]
    NoDirections,
    /// A date that is none.
    #[error("`template_date`: {0}")]
    TemplateDate(#[from] prompts::ClockError),
    /// Nothing to optimize.
    #[error("no scorer has a goal\n\nhint: give at least one scorer `minimize` or `maximize`")]
    NoObjective,
    /// A file cannot be read for its digest.
    #[error(transparent)]
    Digest(hub::HubError),
}

impl PipelineError {
    /// Whether settings ask for something that makes no sense; else something did not work.
    pub fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::UnknownSet { .. }
                | Self::Configure(_)
                | Self::TwoScorers { .. }
                | Self::ParallelTrials { .. }
                | Self::UnknownSampler { .. }
                | Self::TemplateDate(_)
                | Self::NoObjective
        )
    }
}
