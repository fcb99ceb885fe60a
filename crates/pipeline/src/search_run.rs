//! The search: a study proposes parameters, the session scores them, the study is told.

use std::collections::BTreeMap;
use std::time::Instant;

use ablation::Parameters;
use search::samplers::Options;
use search::{Attributes, Sampler, Search, Snapshot, Study, Trial};
use serde_json::json;

use crate::evaluate::{self, Evaluation};
use crate::event::TrialEvent;
use crate::{Cancel, Event, Events, Explanation, PipelineError, ScoreRecord, Session, candidates};

/// Candidates that are in memory together at most: a larger number brings nothing but their edits, and proposing them takes
/// long.
const MOST_PARALLEL: usize = 1024;

/// Scores by trial number.
pub type HeldOut = BTreeMap<usize, Vec<ScoreRecord>>;

/// Names of a study's and its trials' user attributes. Those of heretic have heretic's names and forms.
pub mod attributes {
    /// Study: the resolved settings as a JSON string.
    pub const SETTINGS: &str = "settings";
    /// Study: what calibration found.
    pub const CALIBRATION: &str = "calibration";
    /// Study: what its scores depend on beside the settings; see [`crate::Identity`].
    pub const IDENTITY: &str = "identity";
    /// Study: whether all trials that were wanted are done.
    pub const FINISHED: &str = "finished";
    /// Study: scores on prompts that the search did not see, by trial number: trials that were told take no notes.
    pub const HELD_OUT: &str = "held_out";
    /// Trial: its number from 1.
    pub const INDEX: &str = "index";
    /// Trial: the direction index; null: each layer has its own direction.
    pub const DIRECTION_INDEX: &str = "direction_index";
    /// Trial: the profile of each component.
    pub const PARAMETERS: &str = "parameters";
    /// Trial: a list of scores.
    pub const SCORES: &str = "scores";
    /// Trial: what it took; of trials evaluated together, their share.
    pub const SECONDS: &str = "seconds";
}

/// Runs trials until the study has as many as the settings want, and scores the front on prompts that the search did
/// not see.
///
/// Trials that an interrupted run left behind are evaluated first. A trial whose scores cannot be had is marked as
/// failed, with the reason, and the search goes on.
///
/// # Errors
/// [`PipelineError::Interrupted`] leaves trials under way as they are: the next run evaluates them again.
pub fn search(
    session: &mut Session,
    study: &mut Study,
    n_trials: usize,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<(), PipelineError> {
    session.find_directions(events, cancel)?;
    let space = candidates::space(session.model.engine.info())?;
    let settings = session.settings().clone();
    let sampler = sampler(&settings)?;
    let search =
        Search { sampler: &*sampler, space: &space, seed: settings.seed, batch: parallel_trials(&settings)? };
    let mut batch = study.running(&search)?;
    let complete = study.snapshot().comparable_trials().len();
    if !study.trials().is_empty() {
        events(Event::Resumed {
            complete,
            running: batch.len(),
            incomparable: study.snapshot().incomparable_trials(),
        });
    }
    events(Event::SearchBegun { complete, n_trials });
    loop {
        cancel.check()?;
        // What was left behind is told first: the next batch is proposed from all that came before it.
        if batch.is_empty() {
            batch = study.ask_batch(&search, n_trials)?;
        }
        if batch.is_empty() {
            break;
        }
        evaluate_batch(session, study, &batch, n_trials, events, cancel)?;
        batch.clear();
    }
    study.set_user_attr(attributes::FINISHED, json!(true))?;
    session.score_held_out(study, events, cancel)
}

/// Scores trials together and tells the study.
fn evaluate_batch(
    session: &mut Session,
    study: &mut Study,
    batch: &[Trial],
    n_trials: usize,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<(), PipelineError> {
    let started = Instant::now();
    let info = session.model.engine.info();
    // Other programs may have written a trial that does not have the parameters of this search.
    let mut failed: Vec<(usize, PipelineError)> = Vec::new();
    let (mut tried, mut parameters): (Vec<&Trial>, Vec<Parameters>) = (Vec::new(), Vec::new());
    for trial in batch {
        match candidates::parameters(&trial.assignment, info) {
            Ok(found) => {
                tried.push(trial);
                parameters.push(found);
            }
            Err(error) => failed.push((trial.number, error)),
        }
    }
    let outcomes = session.evaluate(&parameters, events, cancel)?;
    let seconds = started.elapsed().as_secs_f64() / batch.len() as f64;
    for ((trial, parameters), outcome) in tried.into_iter().zip(parameters).zip(outcomes) {
        match outcome {
            Ok(evaluation) => {
                let values: Vec<f64> = evaluation.objectives.iter().map(|it| it.value).collect();
                study.tell(trial.number, &values, notes(trial.number, &parameters, &evaluation, seconds))?;
                let Evaluation { scores, objectives } = evaluation;
                let front = study.front().iter().map(|it| it.number).collect();
                events(Event::Trial(Box::new(TrialEvent {
                    number: trial.number,
                    n_trials,
                    parameters,
                    scores,
                    objectives,
                    seconds,
                    hypervolume: hypervolume(study),
                    front,
                })));
            }
            Err(error) => failed.push((trial.number, error)),
        }
    }
    for (number, error) in failed {
        study.fail(number)?;
        let Explanation { message: reason, hints } = Explanation::of(&error);
        events(Event::TrialFailed { number, reason, hints });
    }
    Ok(())
}

/// What is stored beside a trial's values.
fn notes(number: usize, parameters: &Parameters, evaluation: &Evaluation, seconds: f64) -> Attributes {
    let mut notes = Attributes::new();
    notes.insert(attributes::INDEX.into(), json!(number + 1));
    notes.insert(attributes::DIRECTION_INDEX.into(), json!(parameters.direction_index));
    notes.insert(attributes::PARAMETERS.into(), json!(parameters.abliteration_parameters));
    notes.insert(attributes::SCORES.into(), json!(evaluation.stored_scores()));
    notes.insert(attributes::SECONDS.into(), json!(seconds));
    notes
}

/// The parameters of a trial as they were tried, from what was stored beside it.
pub fn parameters_of(trial: &Trial) -> Option<Parameters> {
    serde_json::from_value(json!({
        "direction_index": trial.user_attrs.get(attributes::DIRECTION_INDEX)?,
        "abliteration_parameters": trial.user_attrs.get(attributes::PARAMETERS)?,
    }))
    .ok()
}

/// The scores of a trial, from what was stored beside it.
pub fn scores_of(trial: &Trial) -> Vec<ScoreRecord> {
    let stored = trial.user_attrs.get(attributes::SCORES).cloned();
    stored.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default()
}

/// Scores on prompts that the search did not see, of the trials that have some, from what was stored beside the study.
pub fn held_out_of(study: &Snapshot) -> HeldOut {
    let stored = study.user_attrs.get(attributes::HELD_OUT).cloned();
    stored.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default()
}

/// Hypervolume of the front: the volume between it and the worst value of each objective so far, in the product of
/// the objectives' units.
///
/// It only ever grows: the reference point moves away from the front, and what was dominated stays so. (As a share of
/// the box between best and worst it would fall with every new best value of one objective.)
fn hypervolume(study: &Study) -> Option<f64> {
    volume_to_the_worst(&study.snapshot().comparable_losses())
}

fn volume_to_the_worst(losses: &[Vec<f64>]) -> Option<f64> {
    let first = losses.first()?;
    let worst: Vec<f64> =
        (0..first.len()).map(|i| losses.iter().map(|it| it[i]).fold(first[i], f64::max)).collect();
    // Other programs may write infinite values, which leave no volume to speak of.
    Some(search::hypervolume::hypervolume(losses, &worst)).filter(|it| it.is_finite())
}

fn sampler(settings: &crate::Settings) -> Result<Box<dyn Sampler>, PipelineError> {
    let member = search::samplers::SAMPLERS.iter().find(|it| it.name == settings.sampler);
    let member = member.ok_or_else(|| PipelineError::UnknownSampler {
        found: settings.sampler.clone(),
        known: search::samplers::SAMPLERS.iter().map(|it| it.name.to_owned()).collect(),
    })?;
    Ok((member.build)(&Options { n_startup_trials: Some(settings.n_startup_trials) }))
}

fn parallel_trials(settings: &crate::Settings) -> Result<usize, PipelineError> {
    match settings.parallel_trials {
        found @ 1..=MOST_PARALLEL => Ok(found),
        found => Err(PipelineError::ParallelTrials { found, most: MOST_PARALLEL }),
    }
}

/// The objectives of a study under these settings.
///
/// # Errors
/// When a scorer, or the search, cannot be what the settings say.
pub fn objectives(settings: &crate::Settings) -> Result<Vec<search::Objective>, PipelineError> {
    parallel_trials(settings)?;
    let objectives = evaluate::objectives(&evaluate::configure(settings)?);
    if objectives.is_empty() { Err(PipelineError::NoObjective) } else { Ok(objectives) }
}

/// The names of the scores of a run with these settings, in their order.
///
/// # Errors
/// When a scorer cannot be what its settings say.
pub fn score_names(settings: &crate::Settings) -> Result<Vec<String>, PipelineError> {
    Ok(evaluate::configure(settings)?.iter().map(|it| it.name().to_owned()).collect())
}

/// The sets of prompts that the scorers of these settings ask for.
///
/// # Errors
/// When a scorer cannot be what its settings say.
pub fn evaluated_sets(settings: &crate::Settings) -> Result<Vec<String>, PipelineError> {
    let needs = evaluate::configure(settings)?.into_iter().flat_map(|it| it.scorer.needs());
    let sets = scorers::Plan::merge(needs).sets;
    Ok(sets.iter().map(|it| it.prompts.as_str().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hypervolume_that_is_told_only_grows() {
        // A new best of one objective, a new worst, a trial between.
        let losses = [[0.5, 0.4], [0.2, 0.6], [0.1, 3.0], [0.9, 0.05], [0.3, 0.3], [0.3, 0.3]].map(Vec::from);
        let volumes: Vec<f64> =
            (1..=losses.len()).map(|it| volume_to_the_worst(&losses[..it]).unwrap()).collect();
        assert!(volumes.is_sorted(), "{volumes:?}");
        // Each of the first two is the worst in one objective, so that neither reaches past the reference point.
        assert_eq!(volumes[1].to_bits(), 0.0_f64.to_bits());
        assert_eq!(volumes[4].to_bits(), volumes[5].to_bits());
        assert!(volumes[4] > volumes[3]);
    }
}
