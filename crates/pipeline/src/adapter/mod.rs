//! What parameters change, as an adapter: small files that other programs add to the original model.
//!
//! | kind | files | row normalization `none`, `pre` | `full` |
//! |---|---|---|---|
//! | `lora` | a folder as Python's peft reads it | exact, rank 1 | truncated to a rank, with its error |
//! | `dora` | the same, with magnitudes | – | exact, rank 1 |
//! | `gguf` | a GGUF file as llama.cpp reads it, a LoRA | exact, rank 1 | truncated to a rank, with its error |
//!
//! Exact but for the rounding of the factors to f32: at most 2⁻²³ of what they add to a number. A DoRA divides by the length
//! that is left of a row, so that where an edit takes all but a share x of a row away, its rounding is 1/x times as large.
//! [`Adapter::of`] computes the factors, [`Adapter::write`] brings them to the disk.

mod files;
mod kind;

use ablation::{Parameters, Truncated};
use engine::families::Names;
use glossary::{Edit, EditSet, Writer};
use rayon::prelude::*;
use serde::Serialize;

pub use self::files::target;
pub use self::kind::{AdapterError, AdapterKind};
use crate::candidates::{Stored, WriterEdit};
use crate::{Cancel, Event, Events, PipelineError, Session, Stage};

/// An edit of a model as factors that are added to its weights.
#[derive(Debug)]
pub struct Adapter {
    kind: AdapterKind,
    rank: usize,
    /// The model that it belongs to, by the name that others know it by, and its commit there.
    base: (String, Option<String>),
    /// As `general.architecture` names it; for [`AdapterKind::Gguf`].
    architecture: String,
    writers: Vec<AdaptedWriter>,
}

/// The part of an adapter that belongs to one weight.
#[derive(Debug)]
struct AdaptedWriter {
    writer: Writer,
    tensor: String,
    /// What the reader of the adapter calls the weight.
    place: String,
    factors: ablation::Adapter,
    /// What the factors do, as a function of what the writer writes.
    edit: Edit,
    /// How much of the edit they leave out; `None`: nothing.
    missed: Option<Missed>,
}

/// Squares of Frobenius norms.
#[derive(Clone, Copy, Debug)]
struct Missed {
    /// Of what the edit adds to the weight.
    changed: f64,
    /// Of the part of it that the factors do not add.
    missed: f64,
}

/// How far a truncated edit is from the exact one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Approximation {
    /// The tensor, as the model's file calls it.
    pub tensor: String,
    /// The length of what is missing over that of what the edit adds to the weight (Frobenius norms).
    pub relative_error: f64,
}

impl Adapter {
    /// The adapter that does what these parameters mean. `rank`: that of a truncated edit, at most that of the weights.
    pub fn of(
        session: &mut Session,
        parameters: &Parameters,
        kind: AdapterKind,
        rank: usize,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Self, PipelineError> {
        session.find_directions(events, cancel)?;
        let truncates = kind.truncates(session.settings().row_normalization);
        let (model, edits) = session.writer_edits(parameters)?;
        let names = Names::of(&model.checkpoint, model.engine.info().family).map_err(AdapterError::Names)?;
        let smallest = edits.iter().map(|it| it.info.weight.rows().min(it.info.weight.row_len())).min();
        let rank = if truncates { rank.min(smallest.unwrap_or(rank)).max(1) } else { 1 };
        let mut writers = Vec::with_capacity(edits.len());
        for some in edits.chunks(rayon::current_num_threads()) {
            cancel.check()?;
            let adapted = some.par_iter().map(|it| adapt(it, &names, kind, truncates.then_some(rank)));
            writers.extend(adapted.collect::<Result<Vec<_>, _>>()?);
            events(Event::Progress {
                stage: Stage::Factors,
                done: writers.len(),
                all: edits.len(),
                tokens: 0,
            });
        }
        writers.retain(|it| !it.factors.changes_nothing());
        if writers.is_empty() {
            return Err(AdapterError::Nothing.into());
        }
        let base = model.name_and_commit();
        let architecture = names.gguf_architecture().unwrap_or_default();
        let adapter = Self { kind, rank, base, architecture, writers };
        if let Some(relative_error) = adapter.relative_error() {
            events(Event::Approximated { rank, relative_error, tensors: adapter.approximations() });
        }
        Ok(adapter)
    }

    /// What files it is made of.
    pub fn kind(&self) -> AdapterKind {
        self.kind
    }

    /// The rank of its factors.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How far it is from the exact edit, over all weights; `None`: it is exact.
    pub fn relative_error(&self) -> Option<f64> {
        let missed: Option<Vec<Missed>> = self.writers.iter().map(|it| it.missed).collect();
        missed.map(|all| {
            let (changed, missed) =
                all.iter().fold((0.0, 0.0), |sum, it| (sum.0 + it.changed, sum.1 + it.missed));
            Missed { changed, missed }.relative_error()
        })
    }

    /// The same for each weight, in the order of the layers; empty: it is exact.
    pub fn approximations(&self) -> Vec<Approximation> {
        let some = self.writers.iter().filter_map(|it| Some((it, it.missed?)));
        some.map(|(it, missed)| Approximation {
            tensor: it.tensor.clone(),
            relative_error: missed.relative_error(),
        })
        .collect()
    }

    /// What it does to the model, truncation included.
    pub fn edit_set(&self) -> EditSet {
        self.writers.iter().map(|it| (it.writer, it.edit.clone())).collect()
    }
}

impl Missed {
    fn relative_error(self) -> f64 {
        if self.changed == 0.0 { 0.0 } else { (self.missed / self.changed).sqrt() }
    }
}

/// The factors of one writer; `rank`: that of an edit which is to be truncated.
fn adapt(
    edit: &WriterEdit<'_>,
    names: &Names<'_>,
    kind: AdapterKind,
    rank: Option<usize>,
) -> Result<AdaptedWriter, PipelineError> {
    let WriterEdit { info, target, strength } = edit;
    let tensor = info.weight.name().to_owned();
    let place = kind.place(names, info)?;
    let error = |source| PipelineError::Writer { tensor: tensor.clone(), source };
    let stored = Stored(&info.weight);
    let (factors, edit, missed) = if let Some(rank) = rank {
        let Truncated { vectors, adapter, changed, missed } =
            Truncated::new(&stored, target, *strength, rank).map_err(error)?;
        (adapter, vectors.rounded().map_err(error)?, Some(Missed { changed, missed }))
    } else {
        let factors = ablation::Adapter::of(&stored, target, *strength).map_err(error)?;
        (factors, target.edit(*strength).map_err(error)?, None)
    };
    Ok(AdaptedWriter { writer: info.writer, tensor, place, factors, edit, missed })
}
