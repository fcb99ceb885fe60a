//! Tokens in; residuals, distributions and answers out, for many edited copies of a model in one batch.
//!
//! The way through this room: a family of [`families`] reads a checkpoint's hyper-parameters and answers with a
//! [`blueprint`]; the model loader brings the blueprint's tensors onto a [`backend`]; the executor strings the
//! back end's operations together for the rows of a [`plan`]; [`Engine`] packs sequences into plans.
//!
//! This room knows no text: prompts come as tokens, and when to stop is a token or a caller's rule. It knows no
//! behaviour either: an edit is three vectors per writer, wherever they come from.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests"))]

mod adapters;
pub mod backend;
pub mod blueprint;
mod config;
mod conversation;
mod engine;
mod error;
mod executor;
pub mod families;
mod force;
mod generate;
mod model;
mod normal;
pub mod plan;
mod quantization;
mod rope;
mod rules;
mod stage;
mod states;

pub use adapters::with_adapter;
pub use config::{Config, ConfigError, NoTensors, Tensors};
pub use conversation::Conversation;
pub use engine::{Device, DtypeChoice, Engine, LoadOptions, ModelInfo, WriterInfo, check_threads};
pub use error::{EngineError, LoadError};
pub use executor::PartTimes;
pub use force::{Continuation, Forced};
pub use generate::{Answer, FirstToken, Generation, Request, StopReason, Watch};
pub use rules::{GenerationConfigError, LogitRules};
