//! A model with everything found of it: what evaluation, search and saving start from.

use std::collections::HashSet;

use ablation::Parameters;
use glossary::EditSet;
use prompts::sources;
use search::Study;
use serde_json::json;

use crate::calibrate::{self, Calibration};
use crate::candidates::{Candidates, WriterEdit};
use crate::evaluate::{self, Evaluation, Evaluator};
use crate::model::{Model, PromptTexts};
use crate::search_run::{attributes, held_out_of, parameters_of};
use crate::settings::{KL_PROMPTS, PromptSetSettings, REFUSAL_PROMPTS};
use crate::{Cancel, Event, Events, PipelineError, Settings, Stage, directions};

/// A calibrated model whose original behaviour is known.
pub struct Session {
    /// The model. No edit is set in its engine between calls.
    pub model: Model,
    settings: Settings,
    texts: PromptTexts,
    calibration: Calibration,
    evaluator: Evaluator,
    candidates: Option<Candidates>,
}

impl Session {
    /// Calibrates, unless that was done before, and scores the original model.
    pub fn start(
        mut model: Model,
        settings: Settings,
        texts: PromptTexts,
        calibration: Option<Calibration>,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Self, PipelineError> {
        let scorers = evaluate::prepared(&settings, cancel)?;
        let rules = model.obey_generation_config(settings.obey_generation_config)?;
        if !rules.is_empty() {
            events(Event::GenerationRules { rules });
        }
        let calibration = match calibration {
            Some(known) => {
                model.encoder.set_response_prefix(known.response_prefix.clone());
                known
            }
            None => calibrate::calibrate(&mut model, &settings, &texts, events, cancel)?,
        };
        let started = std::time::Instant::now();
        events(Event::Progress { stage: Stage::Baseline, done: 0, all: 1 });
        let evaluator = Evaluator::with(scorers, &mut model, &settings, &calibration, &texts, cancel)?;
        events(Event::Baseline {
            scores: evaluator.baseline().scores,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(Self { model, settings, texts, calibration, evaluator, candidates: None })
    }

    /// What the session was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was found at its start.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The prompts of all sets.
    pub fn texts(&self) -> &PromptTexts {
        &self.texts
    }

    /// The SHA-256 of the directions of all layers, once they are known: components as 64-bit floats, lowest byte first.
    pub fn digest_of_directions(&self) -> Result<String, PipelineError> {
        let candidates = self.candidates.as_ref().ok_or(PipelineError::NoDirections)?;
        Ok(hub::sha256(candidates.direction_components().map(f64::to_le_bytes)))
    }

    /// What the original model scores.
    pub fn baseline(&self) -> Evaluation {
        self.evaluator.baseline()
    }

    /// Finds the directions between the two sets of prompts, unless that was done.
    pub fn find_directions(
        &mut self,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<(), PipelineError> {
        if self.candidates.is_none() {
            let directions = directions::find(&mut self.model, &self.settings, &self.texts, events, cancel)?;
            let info = self.model.engine.info();
            self.candidates = Some(Candidates::new(info, directions, &self.settings)?);
        }
        Ok(())
    }

    /// The edit set that parameters mean, once directions are known.
    pub fn edit_set(&mut self, parameters: &Parameters) -> Result<EditSet, PipelineError> {
        let candidates = self.candidates.as_mut().ok_or(PipelineError::NoDirections)?;
        candidates.edit_set(parameters, &self.settings)
    }

    /// The same, with what is needed to write the weights, and the model.
    pub(crate) fn writer_edits(
        &mut self,
        parameters: &Parameters,
    ) -> Result<(&Model, Vec<WriterEdit<'_>>), PipelineError> {
        let candidates = self.candidates.as_mut().ok_or(PipelineError::NoDirections)?;
        Ok((&self.model, candidates.edits(parameters, &self.settings)?))
    }

    /// Scores candidates, all in one batch; each may fail by itself.
    pub fn evaluate(
        &mut self,
        candidates: &[Parameters],
        cancel: &Cancel<'_>,
    ) -> Result<Vec<Result<Evaluation, PipelineError>>, PipelineError> {
        let sets: Vec<Result<EditSet, PipelineError>> =
            candidates.iter().map(|it| self.edit_set(it)).collect();
        let valid: Vec<EditSet> = sets.iter().flatten().cloned().collect();
        let mut evaluations = match valid.is_empty() {
            true => Vec::new(),
            false => self.evaluator.evaluate(&mut self.model, &valid, cancel)?,
        }
        .into_iter();
        // As many evaluations as valid sets, in their order.
        Ok(sets
            .into_iter()
            .filter_map(|it| it.map_or_else(|error| Some(Err(error)), |_| evaluations.next()))
            .collect())
    }

    /// Scores a candidate given by its edits.
    pub fn evaluate_edits(
        &mut self,
        edits: EditSet,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        let mut evaluations = self.evaluator.evaluate(&mut self.model, &[edits], cancel)?;
        evaluations.pop().expect("one candidate has one evaluation")
    }

    /// Scores another model against this one.
    pub fn evaluate_other(
        &mut self,
        other: &mut Model,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        other.encoder.set_response_prefix(self.calibration.response_prefix.clone());
        other.obey_generation_config(self.settings.obey_generation_config)?;
        self.evaluator.evaluate_other(&mut self.model, other, cancel)
    }

    /// Scores a candidate on other prompts: those of `sets` replace the session's.
    pub fn evaluate_on(
        &mut self,
        sets: &[(&str, PromptSetSettings)],
        parameters: &Parameters,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        let mut settings = self.settings.clone();
        for (name, set) in sets {
            *settings.set_mut(name) = set.clone();
        }
        let texts = PromptTexts::load(&mut settings, &hub::Client::from_environment())?;
        let evaluator = Evaluator::new(&mut self.model, &settings, &self.calibration, &texts, cancel)?;
        let set = self.edit_set(parameters)?;
        let mut evaluations = evaluator.evaluate(&mut self.model, &[set], cancel)?;
        evaluations.pop().expect("one candidate has one evaluation")
    }

    /// Scores the front once more, on prompts of the same sources that the search did not see, where there are
    /// enough: what was best of many on the prompts of the search is a little worse elsewhere. The scores are stored
    /// beside the study; trials that have some are left alone.
    pub(crate) fn score_held_out(
        &mut self,
        study: &mut Study,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<(), PipelineError> {
        let mut known = held_out_of(study.snapshot());
        let new = study.front().into_iter().filter(|it| !known.contains_key(&it.number));
        let new: Vec<(usize, Parameters)> =
            new.filter_map(|it| Some((it.number, parameters_of(it)?))).collect();
        if new.is_empty() {
            return Ok(());
        }
        let Some(texts) = held_out(&self.settings, &self.texts)? else {
            events(Event::NoHeldOut);
            return Ok(());
        };
        let evaluator = Evaluator::new(&mut self.model, &self.settings, &self.calibration, &texts, cancel)?;
        for (done, (number, parameters)) in new.iter().enumerate() {
            events(Event::Progress { stage: Stage::HeldOut, done, all: new.len() });
            let set = self.edit_set(parameters)?;
            for evaluation in evaluator.evaluate(&mut self.model, &[set], cancel)?.into_iter().flatten() {
                known.insert(*number, evaluation.stored_scores());
                study.set_user_attr(attributes::HELD_OUT, json!(known))?;
                events(Event::HeldOut { number: *number, scores: evaluation.scores });
            }
        }
        Ok(())
    }
}

/// Prompts that are worth scoring on.
const ENOUGH: usize = 20;

/// For the sets that are scored, prompts of the same sources that no set of the run has, as many as it has at most;
/// `None` where one of them has too few.
fn held_out(settings: &Settings, texts: &PromptTexts) -> Result<Option<PromptTexts>, PipelineError> {
    let seen: HashSet<&String> = texts.all().collect();
    let mut found = Vec::new();
    for name in [REFUSAL_PROMPTS, KL_PROMPTS] {
        let source = sources::open(settings.set(name)?.source());
        let Ok(all) = source.and_then(|it| it.load_all()) else { return Ok(None) };
        let used = texts.of(name)?.len();
        let unseen: Vec<String> = all.into_iter().filter(|it| !seen.contains(it)).take(used).collect();
        if unseen.len() < ENOUGH {
            return Ok(None);
        }
        found.push((name.to_owned(), unseen));
    }
    Ok(Some(texts.with(found)))
}
