//! Making a model again from what was noted when it was made.
//!
//! ```text
//! a model is written -> Record::of(session, …) -> reproduce/reproduce.json
//! reproduce.json     -> read(text)             -> Recipe: settings and parameters -> the model, without a search
//! ```
//!
//! [`Record`] is this program's own format: it can be checked bit for bit. heretic's files (formats 1 to 3) are read by
//! `heretic`; its program computes in another order, so that its scores can be compared and its bits cannot.

mod folder;
mod heretic;
mod record;

use std::collections::BTreeMap;

use ablation::Parameters;
use serde_json::{Map, Value};
use settings::SettingsError;

pub use folder::{FILE, README, REPRODUCE, SUMS, folder_files};
pub use record::{
    Difference, Machine, Making, ModelFiles, PromptsDigest, Record, Subject, System, Template, Writing,
    digests_of_prompts, files_of, obstacles,
};

use crate::{Calibration, ScoreRecord, Settings};

/// What a file asks for, whoever wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Who wrote the file: "heretic 1.4.0".
    pub writer: String,
    /// The model: a repository of the hub, or the name of something that was not on the hub.
    pub model: String,
    /// The model's commit on the hub.
    pub commit: Option<String>,
    /// What the run was told.
    pub settings: Settings,
    /// What it found out, if the file says.
    pub calibration: Option<Calibration>,
    /// The precision of the weights, if the file says: `f32`, `bf16` or `f16`.
    pub weights: Option<String>,
    /// What makes the model.
    pub parameters: Parameters,
    /// What it scored.
    pub scores: Vec<ScoreRecord>,
    /// SHA-256 of each written file of weights.
    pub hashes: BTreeMap<String, String>,
    /// What is different here, or cannot be done.
    pub remarks: Vec<String>,
    /// All that this program noted, if it was this program.
    pub record: Option<Box<Record>>,
}

/// Why a file is no recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReproductionError {
    /// Not JSON.
    #[error("this is not JSON: {0}\n\nhint: a file of the hub is had from its `raw` or `resolve` address")]
    Json(serde_json::Error),
    /// JSON of something else.
    #[error(
        "this is no reproduction file: it has {found}\n\nhint: models that can be made again have `reproduce/reproduce.json`"
    )]
    Unknown {
        /// What it has.
        found: String,
    },
    /// Of a format of later days.
    #[error(
        "this file has format {found} of {program}; this program reads {known}\n\nhint: is there a newer version of this program?"
    )]
    TooNew {
        /// Whose format.
        program: &'static str,
        /// The format found.
        found: String,
        /// Those that are known.
        known: &'static str,
    },
    /// Something is missing or is of the wrong kind.
    #[error("`{part}` of the file: {reason}")]
    Part {
        /// Where.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Settings that do not fit.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Reads a reproduction file of this program or of heretic.
///
/// `name` is what errors call the file.
pub fn read(text: &str, name: &str) -> Result<Recipe, ReproductionError> {
    let value: Value = serde_json::from_str(text).map_err(ReproductionError::Json)?;
    let Value::Object(file) = value else {
        return Err(ReproductionError::Unknown { found: "no object at its top".to_owned() });
    };
    if file.get("format").is_some_and(|it| it == record::FORMAT) {
        return record::read(file);
    }
    match file.get("version") {
        Some(version) if file.contains_key("settings") && file.contains_key("parameters") => {
            let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            heretic::read(&file, &version, name)
        }
        Some(_) => Err(ReproductionError::Unknown { found: "no `settings` and `parameters`".to_owned() }),
        None => Err(ReproductionError::Unknown { found: "neither `format` nor `version`".to_owned() }),
    }
}

/// A part of a file.
fn part<T: serde::de::DeserializeOwned>(
    file: &Map<String, Value>,
    part: &'static str,
) -> Result<T, ReproductionError> {
    let value = file.get(part).cloned();
    let value = value.ok_or_else(|| ReproductionError::Part { part, reason: "it is missing".to_owned() })?;
    serde_json::from_value(value).map_err(|error| ReproductionError::Part { part, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read(text, "file").unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_reproduction_file_is_refused_by_name() {
        assert!(refused("<html>").contains("not JSON"));
        assert!(refused("[1]").contains("no object"));
        assert!(refused("{}").contains("neither `format` nor `version`"));
        // What heretic wrote before its formats had numbers.
        assert!(refused(r#"{"base_model": {}, "trial": {}, "settings": {}}"#).contains("neither"));
        assert!(refused(r#"{"version": 4}"#).contains("no `settings`"));
        let newer = r#"{"version": "4", "settings": {}, "parameters": {}}"#;
        assert!(refused(newer).contains("format 4 of heretic; this program reads 1, 2 and 3"));
        let newer = r#"{"format": "ablate", "version": 3}"#;
        assert!(refused(newer).contains("format 3 of ablate; this program reads 1 and 2"));
        assert!(refused(r#"{"format": "ablate"}"#).contains("`version`"));
        assert!(refused(r#"{"format": "ablate", "version": 1}"#).contains("missing"));
    }
}
