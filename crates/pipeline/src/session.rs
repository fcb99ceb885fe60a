//! A model with everything found of it: what evaluation, search and saving start from.

use ablation::Parameters;
use glossary::EditSet;
use search::Study;
use serde_json::json;

use crate::calibrate::{self, Calibration};
use crate::candidates::{Candidates, WriterEdit};
use crate::evaluate::{self, Evaluation, Evaluator};
use crate::held_out::HeldOutPlan;
use crate::model::{Model, PromptTexts};
use crate::search_run::{attributes, held_out_of, parameters_of};
use crate::settings::PromptSetSettings;
use crate::work::Work;
use crate::{Cancel, Event, Events, PipelineError, Settings, Stage, directions, warning};

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
        for warning in
            warning::overlaps(&texts).into_iter().chain(warning::long_prompts(&model, &settings, &texts)?)
        {
            events(Event::Warning(warning));
        }
        let started = std::time::Instant::now();
        let evaluator = Evaluator::with(
            scorers,
            &mut model,
            &settings,
            &calibration,
            &texts,
            Work::new(Stage::Baseline, events, cancel),
        )?;
        events(Event::Baseline {
            scores: evaluator.baseline().scores,
            seconds: started.elapsed().as_secs_f64(),
        });
        if let Some(warning) = warning::nothing_to_remove(&evaluator.baseline()) {
            events(Event::Warning(warning));
        }
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
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Vec<Result<Evaluation, PipelineError>>, PipelineError> {
        let mut valid = Vec::with_capacity(candidates.len());
        let mut failures = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            match self.edit_set(candidate) {
                Ok(set) => {
                    valid.push(set);
                    failures.push(None);
                }
                Err(error) => failures.push(Some(error)),
            }
        }
        let evaluations = if valid.is_empty() {
            Vec::new()
        } else {
            let work = Work::new(Stage::Candidates, events, cancel);
            self.evaluator.evaluate(&mut self.model, &valid, work)?
        };
        let mut evaluations = evaluations.into_iter();
        // As many evaluations as valid sets, in their order.
        Ok(failures
            .into_iter()
            .filter_map(|it| it.map_or_else(|| evaluations.next(), |error| Some(Err(error))))
            .collect())
    }

    /// Scores a candidate given by its edits.
    pub fn evaluate_edits(
        &mut self,
        edits: EditSet,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        let mut evaluations = self.evaluator.evaluate(
            &mut self.model,
            &[edits],
            Work::new(Stage::Candidates, events, cancel),
        )?;
        evaluations.pop().expect("one candidate has one evaluation")
    }

    /// Scores another model against this one.
    pub fn evaluate_other(
        &mut self,
        other: &mut Model,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        other.encoder.set_response_prefix(self.calibration.response_prefix.clone());
        other.obey_generation_config(self.settings.obey_generation_config)?;
        let work = Work::new(Stage::Candidates, events, cancel);
        self.evaluator.evaluate_other(&mut self.model, other, work)
    }

    /// Scores a candidate on other prompts: those of `sets` replace the session's.
    pub fn evaluate_on(
        &mut self,
        sets: &[(&str, PromptSetSettings)],
        parameters: &Parameters,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Evaluation, PipelineError> {
        let mut settings = self.settings.clone();
        for (name, set) in sets {
            *settings.set_mut(name) = set.clone();
        }
        let texts = PromptTexts::load(&mut settings, &hub::Client::from_environment())?;
        let original = Work::new(Stage::HeldOut, events, cancel);
        let evaluator = Evaluator::new(&mut self.model, &settings, &self.calibration, &texts, original)?;
        let set = self.edit_set(parameters)?;
        let work = Work::new(Stage::HeldOut, events, cancel);
        let mut evaluations = evaluator.evaluate(&mut self.model, &[set], work)?;
        evaluations.pop().expect("one candidate has one evaluation")
    }

    /// Scores the front once more, on prompts of the same sources that the search did not see: what was best of many on
    /// the prompts of the search is a little worse elsewhere. A score is among these only if all that it is measured on
    /// is replaced. They are stored beside the study; trials that have some are left alone.
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
        let HeldOutPlan { settings, texts, left_out } = HeldOutPlan::of(&self.settings, &self.texts)?;
        if !left_out.is_empty() {
            events(Event::NoHeldOut { scores: left_out });
        }
        if settings.scorers.is_empty() {
            return Ok(());
        }
        let original = Work::new(Stage::HeldOut, events, cancel);
        let evaluator = Evaluator::new(&mut self.model, &settings, &self.calibration, &texts, original)?;
        for (number, parameters) in &new {
            let set = self.edit_set(parameters)?;
            let work = Work::new(Stage::HeldOut, events, cancel);
            for evaluation in evaluator.evaluate(&mut self.model, &[set], work)?.into_iter().flatten() {
                known.insert(*number, evaluation.stored_scores());
                study.set_user_attr(attributes::HELD_OUT, json!(known))?;
                events(Event::HeldOut { number: *number, scores: evaluation.scores });
            }
        }
        Ok(())
    }
}
