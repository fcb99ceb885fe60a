//! The story of a run: calibrate, find directions, evaluate, search, save.
//!
//! ```text
//! prompts -> residuals -> directions -> (parameters) -> edit sets -> evidence -> scores -> study
//!                                          ^                                               |
//!                                          +--------------------- search ------------------+
//! ```
//!
//! [`Session`] holds a model and what was found of it; [`search`](search()) lets a study choose parameters; whatever happens
//! is told as [`Event`]s. This room prints nothing and reads no clock but to say how long something took.

pub mod adapter;
mod calibrate;
mod candidates;
mod card;
mod collect;
mod directions;
mod error;
mod evaluate;
mod event;
mod explanation;
pub mod export;
mod held_out;
pub mod identity;
mod model;
pub mod pick;
pub mod presets;
pub mod reproduction;
mod response_prefix;
mod scored_texts;
pub mod search_run;
mod session;
pub mod settings;
mod thoughts;
mod warning;
mod work;
pub mod written;

pub use adapter::{Adapter, AdapterKind};
pub use calibrate::{Calibration, Quantized, free_memory};
pub use card::{Product, model_card};
pub use error::PipelineError;
pub use evaluate::{Evaluation, Response, ScoreRecord};
pub use event::{Cancel, Event, Events, ObjectiveValue, Stage, TrialEvent};
pub use explanation::Explanation;
pub use export::save;
pub use identity::Identity;
pub use model::{Model, PromptTexts};
pub use search_run::{evaluated_sets, objectives, score_names, search};
pub use session::Session;
pub use settings::Settings;
pub use warning::Warning;
