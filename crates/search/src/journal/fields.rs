//! The fields of a record, and what can be wrong with them.

use jiff::civil::DateTime;
use serde_json::{Map, Value};

use super::python_json::number;
use crate::{Attributes, DistributionError, Goal, TrialState};

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not UTF-8.
    #[error("not UTF-8 text: {0}")]
    NotText(#[from] std::str::Utf8Error),
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It is JSON, but not an object.
    #[error("expected an object, found `{found}`")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// A field is not there.
    #[error("field `{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field is there, but is something else.
    #[error("field `{field}`: expected {expected}, found `{found}`")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is, shortened.
        found: String,
    },
    /// An operation of a newer Optuna.
    #[error(
        "unknown operation {code}; this version knows 0 to 10\n\n\
         hint: the file was written by a newer Optuna; its release notes say what the operation means"
    )]
    UnknownOperation {
        /// Its number.
        code: i64,
    },
    /// A distribution makes no sense.
    #[error("parameter `{name}`: {source}")]
    Distribution {
        /// The parameter.
        name: String,
        /// What is wrong.
        source: DistributionError,
    },
    /// A choice that does not exist.
    #[error("parameter `{name}`: choice {index} of {choices}")]
    Choice {
        /// The parameter.
        name: String,
        /// The index that was written.
        index: f64,
        /// How many choices there are.
        choices: usize,
    },
}

/// Fields of a record, each with an error that names it.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl Fields<'_> {
    pub(super) fn get(&self, field: &'static str) -> Result<&Value, RecordError> {
        self.0.get(field).ok_or(RecordError::Missing { field })
    }

    /// A field that Python may leave out or write as null.
    pub(super) fn optional(&self, field: &'static str) -> Option<&Value> {
        self.0.get(field).filter(|it| !it.is_null())
    }

    pub(super) fn index(&self, field: &'static str) -> Result<usize, RecordError> {
        let value = self.get(field)?;
        let index = value.as_u64().and_then(|it| usize::try_from(it).ok());
        index.ok_or_else(|| wrong(field, "a number from 0", value))
    }

    pub(super) fn integer(&self, field: &'static str) -> Result<i64, RecordError> {
        let value = self.get(field)?;
        value.as_i64().ok_or_else(|| wrong(field, "a whole number", value))
    }

    pub(super) fn number(&self, field: &'static str) -> Result<f64, RecordError> {
        let value = self.get(field)?;
        number(value).ok_or_else(|| wrong(field, "a number", value))
    }

    pub(super) fn text(&self, field: &'static str) -> Result<&str, RecordError> {
        let value = self.get(field)?;
        value.as_str().ok_or_else(|| wrong(field, "a string", value))
    }

    /// An object with exactly one entry.
    pub(super) fn entry(&self, field: &'static str) -> Result<(String, Value), RecordError> {
        let value = self.get(field)?;
        let mut entries = value.as_object().into_iter().flatten();
        match (entries.next(), entries.next()) {
            (Some((key, value)), None) => Ok((key.clone(), value.clone())),
            _ => Err(wrong(field, "an object with one key", value)),
        }
    }

    pub(super) fn attributes(&self, field: &'static str) -> Result<Attributes, RecordError> {
        let Some(value) = self.optional(field) else { return Ok(Attributes::new()) };
        value.as_object().cloned().ok_or_else(|| wrong(field, "an object", value))
    }

    pub(super) fn numbers(&self, field: &'static str) -> Result<Option<Vec<f64>>, RecordError> {
        let Some(value) = self.optional(field) else { return Ok(None) };
        let numbers = value.as_array().and_then(|it| it.iter().map(number).collect());
        numbers.map(Some).ok_or_else(|| wrong(field, "a list of numbers", value))
    }

    pub(super) fn time(&self, field: &'static str) -> Result<Option<DateTime>, RecordError> {
        let Some(value) = self.optional(field) else { return Ok(None) };
        let time = value.as_str().and_then(parse_time);
        time.map(Some).ok_or_else(|| wrong(field, "an ISO 8601 time", value))
    }

    pub(super) fn state(&self, field: &'static str) -> Result<TrialState, RecordError> {
        let value = self.get(field)?;
        match value.as_u64() {
            Some(0) => Ok(TrialState::Running),
            Some(1) => Ok(TrialState::Complete),
            Some(2) => Ok(TrialState::Pruned),
            Some(3) => Ok(TrialState::Failed),
            Some(4) => Ok(TrialState::Waiting),
            _ => Err(wrong(field, "a state from 0 to 4", value)),
        }
    }

    pub(super) fn goals(&self, field: &'static str) -> Result<Vec<Goal>, RecordError> {
        let value = self.get(field)?;
        let goal = |it: &Value| match it.as_u64() {
            Some(1) => Some(Goal::Minimize),
            Some(2) => Some(Goal::Maximize),
            _ => None,
        };
        let goals = value.as_array().filter(|it| !it.is_empty()).and_then(|it| it.iter().map(goal).collect());
        goals.ok_or_else(|| wrong(field, "a list of 1 (minimize) and 2 (maximize)", value))
    }
}

/// The error of a field that is something else than expected.
pub(super) fn wrong(field: &'static str, expected: &'static str, found: &Value) -> RecordError {
    RecordError::Field { field, expected, found: shortened(found) }
}

/// A value as JSON, cut to a length that fits a message.
pub(super) fn shortened(value: &Value) -> String {
    const LENGTH: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Local time without an offset and with microseconds: what Optuna 4 writes, and 5 reads too.
pub(super) fn format_time(time: DateTime) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// Local time; one with an offset, as Optuna 5 writes it, is converted.
pub(super) fn parse_time(text: &str) -> Option<DateTime> {
    // A time with an offset would also parse as one without, the offset ignored.
    let moment = text.parse::<jiff::Timestamp>().ok();
    moment
        .map(|it| it.to_zoned_datetime(jiff::tz::TimeZone::system()).datetime())
        .or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_an_offset_are_read() {
        let naive = "2026-01-02T03:04:05.000678";
        assert_eq!(format_time(parse_time(naive).unwrap()), naive);
        assert_eq!(parse_time("2026-01-02T03:04:05"), "2026-01-02T03:04:05".parse().ok());
        let moment: jiff::Timestamp = "2026-01-02T03:04:05+02:00".parse().unwrap();
        let local = moment.to_zoned_datetime(jiff::tz::TimeZone::system()).datetime();
        assert_eq!(parse_time("2026-01-02T03:04:05+02:00"), Some(local));
        assert_eq!(parse_time("yesterday"), None);
    }
}
