//! What may be set, what it was set to, and by whom.
//!
//! A setting is defined once, with [`settings!`]: its name, its type, its default and its documentation. Everything
//! else follows from that: the keys of configuration files, the names of environment variables, the options of the
//! command line and their help, the file of defaults.
//!
//! ```text
//! definition (Field) + layers (defaults < preset < file < environment < command line) -> Resolved, with origins
//! ```
//!
//! This room knows no model and prints nothing. Numbers and texts come in as JSON values, wherever they were written.

mod definition;
mod document;
mod error;
mod layers;
mod nearest;
mod read;

pub use definition::{Field, Fields, Kind, Kinded, find};
pub use document::{comment, default_file, toml};
pub use error::SettingsError;
pub use layers::{Layers, Origin};
pub use nearest::nearest;
pub use read::{from_environment, from_file, from_text, from_toml};
