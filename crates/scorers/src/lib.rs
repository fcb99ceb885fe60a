//! What is measured of a candidate model.
//!
//! A scorer says what it [`Need`]s of which prompts; somebody else collects that, for all scorers at once and
//! for many candidates in one batch ([`Plan`]); each scorer turns the [`Evidence`] into a [`Score`]:
//!
//! ```text
//! scorers -> needs -> Plan -> (engine, elsewhere) -> Evidence -> scorers -> scores
//! ```
//!
//! The original model is scored by the same code on its own evidence; that is the baseline.
//!
//! This room sees no weights, no tokens and no engine, it does not know what the search does with a score, and it
//! prints nothing. [`scorers`] is its growth room: a new scorer is one file and one line there.

pub mod degeneracy;
pub mod divergence;
mod evidence;
mod markers;
mod need;
mod program;
mod score;
pub mod scorers;
mod settings;
pub mod statistics;
mod supervise;

pub use evidence::{Evidence, ForcedToken, JudgedAnswer};
pub use markers::{DEFAULT_MARKERS, MarkerError, Markers, StopRule};
pub use need::{AnswerPlan, EvidenceKind, Need, Plan, PromptSet, SetPlan};
pub use program::{LastLines, ProgramError, ProgramFailure, Stop};
pub use score::{Details, Goal, Score, ScoreError};
pub use scorers::{Configured, DefaultSets, MEMBERS, Scorer, configure};
pub use settings::{ConfigureError, SettingHelp, Settings};
pub use supervise::{supervise, use_supervisor};
