//! A multi-objective optimizer in Optuna's words, with Optuna's journal file as its only state.
//!
//! It proposes what to try next and remembers what came of it. It does not know what it optimizes: nothing here
//! mentions models, and it could tune a coffee machine.
//!
//! The main path, in order:
//!
//! ```
//! # use search::*;
//! # use search::samplers::Random;
//! let space = Space::new(vec![
//!     Parameter::new("temperature", Distribution::float(85.0, 96.0)),
//!     Parameter::new("grind", Distribution::int(1, 12)),
//! ])?;
//! let objectives = vec![Objective::minimize("bitterness"), Objective::maximize("strength")];
//! let mut study = Study::in_memory("coffee", &objectives)?; // or Study::open("coffee.jsonl", "coffee", …)
//! let sampler = Random;
//! let search = Search { sampler: &sampler, space: &space, seed: 7, batch: 4 };
//! let mut batch = study.running(&search)?; // what a killed process left behind
//! loop {
//!     // What was left behind is told before the next batch is asked, so that all of it is known by then.
//!     if batch.is_empty() {
//!         batch = study.ask_batch(&search, 8)?;
//!     }
//!     if batch.is_empty() {
//!         break; // there are eight
//!     }
//!     for trial in batch.drain(..) {
//!         let (heat, grind) = (trial.assignment.float("temperature")?, trial.assignment.int("grind")?);
//!         study.tell(trial.number, &[heat - 80.0, heat / grind as f64], Attributes::new())?;
//!     }
//! }
//! assert!(!study.front().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **What a proposal depends on.** Trial k's random numbers come from (seed, k) alone, and its sampler sees the
//! trials before its *batch* (numbers `batch · ⌊k / batch⌋` and up) as they were told, and its batch mates as
//! pending. So a study that was killed at any instant, or stopped and extended, ends with the same trials as one
//! that ran through; in what order a batch is told does not matter either.
//!
//! **State.** A journal is a file of JSON lines, append only ([`journal`]). `optuna.load_study` and
//! optuna-dashboard open it while we write. [`Study::load`] reads any such file, whoever wrote it.

#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests say where numbers must be equal to the last bit"))]

mod assignment;
mod distribution;
pub mod hypervolume;
pub mod journal;
mod objective;
pub mod pareto;
pub mod samplers;
mod snapshot;
mod space;
mod stream;
mod study;
mod trial;
mod truncated_normal;

pub use assignment::{Assignment, AssignmentError};
pub use distribution::{Distribution, DistributionError};
pub use objective::{Goal, Objective};
pub use samplers::{Observation, Outcome, Request, Sampler};
pub use snapshot::Snapshot;
pub use space::{Parameter, Space, SpaceError};
pub use stream::Stream;
pub use study::{Search, Study, StudyError};
pub use trial::{Attributes, Trial, TrialState};
