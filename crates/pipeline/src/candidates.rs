//! From parameters to edit sets: the room `ablation` applied to the writers of a loaded model.

use std::collections::BTreeMap;

use ablation::{
    Blend, DirectionScope, Directions, Parameters, SampledProfile, Target, WriterFacts, WriterWeight,
};
use checkpoint::Tensor;
use engine::{ModelInfo, WriterInfo};
use glossary::{Component, Direction, EditSet, LayerIndex};
use rayon::prelude::*;
use search::{Assignment, Distribution, Parameter, Space};

use crate::{PipelineError, Settings};

/// What can be made of a model with the directions found.
pub(crate) struct Candidates {
    directions: Directions,
    writers: Vec<EditableWriter>,
}

/// A writer with what was prepared for it.
struct EditableWriter {
    info: WriterInfo,
    facts: WriterFacts,
    /// Directions of layers, prepared to be taken out here.
    targets: BTreeMap<LayerIndex, Target>,
}

/// A weight as the checkpoint has it.
pub(crate) struct Stored<'a>(pub(crate) &'a Tensor);

impl WriterWeight for Stored<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.0.rows(), self.0.row_len())
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        self.0.read_row(row, out);
    }
}

impl EditableWriter {
    /// Prepares the directions of these layers, unless that was done: two passes over the weight for all of them.
    fn prepare(
        &mut self,
        directions: &Directions,
        layers: &[LayerIndex],
        by_gain: bool,
    ) -> Result<(), PipelineError> {
        let missing: Vec<LayerIndex> =
            layers.iter().copied().filter(|it| !self.targets.contains_key(it)).collect();
        let vectors =
            missing.iter().map(|&it| directions.of_layer(it)).collect::<Result<Vec<&Direction>, _>>()?;
        let gain = self.info.gain.as_deref().filter(|_| by_gain);
        let targets = self.facts.targets(&Stored(&self.info.weight), &vectors, gain);
        self.targets.extend(missing.into_iter().zip(targets.map_err(|source| self.error(source))?));
        Ok(())
    }

    /// What is taken out of this writer.
    fn target(&self, choice: Choice) -> Result<Target, PipelineError> {
        let of = |layer: LayerIndex| &self.targets[&layer];
        match choice {
            Choice::Own => Ok(of(self.info.writer.layer).clone()),
            Choice::Blend(blend) if blend.lower == blend.upper => Ok(of(blend.lower).clone()),
            Choice::Blend(blend) => {
                Target::blend(blend, of(blend.lower), of(blend.upper)).map_err(|source| self.error(source))
            }
        }
    }

    fn error(&self, source: ablation::WriterError) -> PipelineError {
        PipelineError::Writer { tensor: self.info.weight.name().to_owned(), source }
    }
}

/// Which direction a writer loses.
#[derive(Clone, Copy)]
enum Choice {
    /// That of its own layer.
    Own,
    /// One for all layers.
    Blend(Blend),
}

/// The part of an edit set that belongs to one writer.
pub(crate) struct WriterEdit<'a> {
    pub(crate) info: &'a WriterInfo,
    pub(crate) target: Target,
    pub(crate) strength: f64,
}

impl Candidates {
    /// Goes over the weights of all writers once.
    pub(crate) fn new(
        info: &ModelInfo,
        directions: Directions,
        settings: &Settings,
    ) -> Result<Self, PipelineError> {
        let writers = info.writers.par_iter().map(|info| {
            let facts = WriterFacts::of(&Stored(&info.weight), settings.row_normalization)
                .map_err(|source| PipelineError::Writer { tensor: info.weight.name().to_owned(), source })?;
            Ok(EditableWriter { info: info.clone(), facts, targets: BTreeMap::new() })
        });
        Ok(Self { directions, writers: writers.collect::<Result<_, PipelineError>>()? })
    }

    /// The components of the directions of all layers, in order.
    pub(crate) fn direction_components(&self) -> impl Iterator<Item = f64> {
        let layers = (0..self.directions.n_layers()).map(LayerIndex);
        let directions = layers.filter_map(|it| self.directions.of_layer(it).ok());
        directions.flat_map(|it| it.as_slice().iter().copied())
    }

    /// The writers that these parameters edit, with direction and strength.
    pub(crate) fn edits(
        &mut self,
        parameters: &Parameters,
        settings: &Settings,
    ) -> Result<Vec<WriterEdit<'_>>, PipelineError> {
        let choice = match parameters.direction_index {
            None => Choice::Own,
            Some(index) => Choice::Blend(Blend::at(index, self.directions.n_layers())?),
        };
        let strength = |info: &WriterInfo| {
            let profile = parameters.abliteration_parameters.get(&info.writer.component)?;
            profile.strength(info.writer.layer)
        };
        let directions = &self.directions;
        self.writers.par_iter_mut().filter(|it| strength(&it.info).is_some()).try_for_each(|it| {
            let layers = match choice {
                Choice::Own => vec![it.info.writer.layer],
                Choice::Blend(Blend { lower, upper, .. }) => vec![lower, upper],
            };
            it.prepare(directions, &layers, settings.account_for_norm_gain)
        })?;
        self.writers
            .iter()
            .filter_map(|it| strength(&it.info).map(|strength| (it, strength)))
            .map(|(it, strength)| Ok(WriterEdit { info: &it.info, target: it.target(choice)?, strength }))
            .collect()
    }

    /// The edit set that these parameters mean.
    pub(crate) fn edit_set(
        &mut self,
        parameters: &Parameters,
        settings: &Settings,
    ) -> Result<EditSet, PipelineError> {
        self.edits(parameters, settings)?
            .into_iter()
            .map(|it| {
                let edit = it.target.edit(it.strength).map_err(|source| PipelineError::Writer {
                    tensor: it.info.weight.name().to_owned(),
                    source,
                })?;
                Ok((it.info.writer, edit))
            })
            .collect()
    }
}

/// The components of a model that a search edits, in order.
pub(crate) fn components(info: &ModelInfo) -> Vec<Component> {
    Component::SEARCHED
        .into_iter()
        .filter(|&it| info.writers.iter().any(|writer| writer.writer.component == it))
        .collect()
}

/// What a search varies: the ranges that heretic uses, for layers 0 to l.
pub(crate) fn space(info: &ModelInfo) -> Result<Space, PipelineError> {
    let last = info.n_layers.saturating_sub(1) as f64;
    let mut parameters = vec![
        Parameter::new(
            "direction_scope",
            Distribution::Categorical { choices: vec!["global".into(), "per layer".into()] },
        ),
        Parameter::new("direction_index", Distribution::float(0.4 * last, 0.9 * last)),
    ];
    for component in components(info) {
        // Taking the direction out of the MLP often does harm and is often not needed: below 0 means not at all, so
        // that this has a probability of its own.
        let least = if component == Component::MlpOutput { -0.25 } else { 0.8 };
        let mut add = |name: &str, low, high| {
            parameters.push(Parameter::new(format!("{component}.{name}"), Distribution::float(low, high)));
        };
        add("max_weight", least, 1.5);
        add("max_weight_position", 0.6 * last, last);
        add("min_weight", 0.0, 1.0);
        add("min_weight_distance", 1.0, (0.6 * last).max(1.0));
    }
    Ok(Space::new(parameters)?)
}

/// The parameters that an assignment means.
pub(crate) fn parameters(assignment: &Assignment, info: &ModelInfo) -> Result<Parameters, PipelineError> {
    let scope = match assignment.choice("direction_scope")?.as_str() {
        Some("global") => DirectionScope::Global,
        _ => DirectionScope::PerLayer,
    };
    let profiles = components(info).into_iter().map(|component| {
        let value = |name: &str| assignment.float(&format!("{component}.{name}"));
        let sampled = SampledProfile {
            max_weight: value("max_weight")?,
            max_weight_position: value("max_weight_position")?,
            min_weight: value("min_weight")?,
            min_weight_distance: value("min_weight_distance")?,
        };
        Ok((component, sampled))
    });
    let profiles = profiles.collect::<Result<Vec<_>, PipelineError>>()?;
    Ok(Parameters::sampled(scope, assignment.float("direction_index")?, profiles))
}
