//! Choosing a trial when nobody is asked.

use anyhow::Context;
use pipeline::pick::Pick;
use pipeline::search_run::scores_of;
use search::{Study, Trial, TrialState};

use crate::program::Program;
use crate::terminal::Misuse;

/// How a trial is chosen.
pub(super) enum Choice {
    /// By a sentence.
    Pick(Pick),
    /// By its number.
    Number(usize),
    /// By its place in the front.
    Place(usize),
}

impl Choice {
    /// What settings say, if they do.
    pub(super) fn of(program: &Program) -> anyhow::Result<Option<Self>> {
        let pick = program.pick.as_ref().map(|it| it.parse().map(Self::Pick)).transpose()?;
        let ways = [
            ("pick", pick),
            ("trial", program.trial.map(Self::Number)),
            ("trial_index", program.trial_index.map(Self::Place)),
        ];
        let mut given = ways.into_iter().filter_map(|(name, way)| Some((name, way?)));
        match (given.next(), given.next()) {
            (Some((first, _)), Some((second, _))) => Err(Misuse::error(format!(
                "`{first}` and `{second}` are both set\n\nhint: choose one way of choosing"
            ))),
            (way, _) => Ok(way.map(|it| it.1)),
        }
    }

    /// The chosen one of the complete trials.
    pub(super) fn choose(&self, study: &Study) -> anyhow::Result<Trial> {
        match self {
            Self::Pick(pick) => {
                // Other programs may have written trials without what this program stores beside them.
                let comparable = study.snapshot().comparable_trials().into_iter();
                let (trials, scores): (Vec<&Trial>, Vec<_>) =
                    comparable.map(|it| (it, scores_of(it))).filter(|it| !it.1.is_empty()).unzip();
                Ok(trials[pick.choose(&scores)?].clone())
            }
            Self::Number(number) => {
                let trials = study.trials();
                let trial = trials.get(*number).with_context(|| {
                    let last = trials.len().saturating_sub(1);
                    format!("`trial` is {number}, and the study has trials 0 to {last}")
                })?;
                if trial.state != TrialState::Complete {
                    anyhow::bail!("`trial` is {number}, and that trial is {}, not complete", trial.state);
                }
                Ok(trial.clone())
            }
            Self::Place(place) => {
                let front = study.snapshot().sorted_front();
                let chosen = front.get(*place).with_context(|| {
                    format!(
                        "`trial_index` is {place}, and the front has places 0 to {}\n\n\
                         hint: `trial` chooses by a trial's number",
                        front.len().saturating_sub(1)
                    )
                })?;
                Ok((*chosen).clone())
            }
        }
    }
}
