//! What is wrong with what was set.

use crate::Origin;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no such setting.
    #[error("{origin}: unknown setting `{key}`\n\nhint: {hint}")]
    Unknown {
        /// What was given, with dots.
        key: String,
        /// Where.
        origin: Origin,
        /// The nearest name, or what to write instead.
        hint: String,
    },
    /// The value cannot be what the setting needs.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Value {
        /// The setting.
        key: String,
        /// Where.
        origin: Origin,
        /// The value given.
        found: String,
        /// What would do.
        expected: String,
    },
    /// What is set cannot be used, and something else has to be written.
    #[error("{origin}: `{key}`: {reason}\n\nhint: {hint}")]
    Instead {
        /// The setting.
        key: String,
        /// Where.
        origin: Origin,
        /// Why.
        reason: String,
        /// What to write.
        hint: String,
    },
    /// The file cannot be read.
    #[error("settings: {0}")]
    File(#[from] files::FileError),
    /// The file is not TOML.
    #[error("`{path}` is not valid TOML: {reason}")]
    Toml {
        /// The file.
        path: String,
        /// Where and why.
        reason: String,
    },
}
