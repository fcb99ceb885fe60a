//! What decides what to try next.
//!
//! A growth room: this file holds the trait and the list, each other file one member, `conformance.rs` what every
//! member must pass. The rules:
//!
//! - A sampler is a pure function of its [`Request`]: no state, no clock, no global generator.
//! - Trial k's random numbers are [`Stream::new(seed, k)`](crate::Stream::new) and no others.
//! - It answers every valid request: an empty history, one that lacks parameters of the space, constant or infinite
//!   values, parameters with a single value.

#[cfg(test)]
mod conformance;
mod nsga2;
mod random;
mod tpe;

use crate::{Assignment, Objective, Space};

pub use nsga2::Nsga2;
pub use random::Random;
pub use tpe::{Proposals, Tpe};

/// Decides what to try next.
pub trait Sampler: Send + Sync {
    /// Its name in settings and reports.
    fn name(&self) -> &'static str;

    /// What trial `request.number` should try: a value within bounds for every parameter of the space.
    fn propose(&self, request: &Request<'_>) -> Assignment;
}

/// All that a proposal may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What may be tried.
    pub space: &'a Space,
    /// What is optimized.
    pub objectives: &'a [Objective],
    /// What is known, in order of trial numbers.
    pub history: &'a [Observation<'a>],
    /// The number of the trial to propose for.
    pub number: usize,
    /// The seed of the search.
    pub seed: u64,
}

/// A trial as a sampler sees it. Trials that failed are not shown: they say nothing about their assignment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation<'a> {
    /// The trial's number.
    pub number: usize,
    /// What it tried.
    pub assignment: &'a Assignment,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// Values, one per objective, and by how much constraints are broken (0 if they are not).
    Complete {
        /// One per objective.
        values: &'a [f64],
        /// See [`Trial::violation`](crate::Trial::violation).
        violation: f64,
    },
    /// Given up early.
    Pruned,
    /// Not known yet.
    Pending,
}

/// A line of the list of samplers.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name in settings and reports.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// It, as a run wants it.
    pub build: fn(&Options) -> Box<dyn Sampler>,
}

/// What a run may say of any sampler; each takes what concerns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How many trials are random before a sampler that learns begins to; `None`: as it suggests.
    pub n_startup_trials: Option<usize>,
}

/// All samplers, in the order shown to users.
pub const SAMPLERS: &[Member] = &[tpe::MEMBER, nsga2::MEMBER, random::MEMBER];
