//! From what two sets of prompts leave in the residual stream to edits of a model's writers.
//!
//! The way through this room:
//!
//! 1. [`moments`]: the mean residual of each prompt set at each site ([`winsorize()`] first, if asked for);
//! 2. [`directions`]: what tells the two means apart, a unit vector per site; [`geometry`] and [`spread`] report on them;
//! 3. [`parameters`]: which direction, and by [`profile`] with which strength, each writer loses;
//! 4. [`writer`]: the [`glossary::Edit`] of one writer, from facts that are computed once per weight;
//! 5. [`merge`] and [`adapter`]: the same edit as an explicit weight, or as LoRA and DoRA factors; [`truncated`]: as nearly
//!    the same as a LoRA of low rank can be.
//!
//! This room is pure arithmetic. It knows no files, no tensor library, no threads and no prompts: residuals come as
//! slices, weights come row by row through [`WriterWeight`], so that a model need never be in memory as f32.
//! Everything is summed in f64; what leaves for the engine is rounded to f32 once, at the end.

#![cfg_attr(test, allow(clippy::float_cmp, reason = "numbers that are exact by construction"))]

pub mod adapter;
pub mod directions;
pub mod geometry;
pub mod merge;
pub mod moments;
pub mod parameters;
pub mod profile;
pub mod spread;
mod streaming;
pub mod truncated;
pub mod weight;
pub mod winsorize;
pub mod writer;

pub use adapter::Adapter;
pub use directions::{Blend, DirectionOptions, Directions, DirectionsError};
pub use geometry::{SiteGeometry, neighbor_cosines};
pub use merge::Merged;
pub use moments::{Moments, MomentsError};
pub use parameters::{DirectionScope, Parameters, SampledProfile};
pub use profile::Profile;
pub use spread::{Cloud, SiteSpread};
pub use truncated::Truncated;
pub use weight::{RowMajor, WriterWeight};
pub use winsorize::{WinsorizeError, winsorize};
pub use writer::{EditVectors, RowNormalization, Target, WriterError, WriterFacts};
