//! One line of a journal.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use serde_json::{Map, Value};

use super::distribution_json::distribution_from_json;
use super::fields::{Fields, RecordError, shortened, wrong};
use super::operation::{Operation, Owner, write_operation};
use super::python_json::{number, to_json};
use crate::{Assignment, Distribution, Parameter, Trial, TrialState};

/// A line: what was done, and by whom.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Who wrote it; unique to the writer.
    pub(super) worker: String,
    /// What was done.
    pub(super) operation: Operation,
}

impl Record {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let text = std::str::from_utf8(line)?;
        let value: Value = serde_json::from_str(&to_json(text))?;
        let Value::Object(map) = &value else {
            return Err(RecordError::NotAnObject { found: shortened(&value) });
        };
        let fields = Fields(map);
        let code = fields.integer("op_code")?;
        let worker = fields.text("worker_id")?.to_owned();
        Ok(Self { worker, operation: parse_operation(code, &fields)? })
    }

    /// The line, with its end.
    pub(super) fn line(&self) -> String {
        let (code, fields) = write_operation(&self.operation);
        let mut record = Map::new();
        record.insert("op_code".into(), code.into());
        record.insert("worker_id".into(), self.worker.clone().into());
        if let Value::Object(fields) = fields {
            record.extend(fields);
        }
        format!("{}\n", Value::Object(record))
    }
}

fn parse_operation(code: i64, fields: &Fields<'_>) -> Result<Operation, RecordError> {
    let attribute = |field| -> Result<_, RecordError> {
        let owner = if field == "user_attr" { Owner::User } else { Owner::System };
        let (key, value) = fields.entry(field)?;
        Ok((owner, key, value))
    };
    Ok(match code {
        0 => Operation::CreateStudy {
            name: fields.text("study_name")?.into(),
            goals: fields.goals("directions")?,
        },
        1 => Operation::DeleteStudy { study: fields.index("study_id")? },
        2 | 3 => {
            let (owner, key, value) = attribute(if code == 2 { "user_attr" } else { "system_attr" })?;
            Operation::SetStudyAttribute { study: fields.index("study_id")?, owner, key, value }
        }
        4 => {
            Operation::CreateTrial { study: fields.index("study_id")?, trial: Box::new(parse_trial(fields)?) }
        }
        5 => {
            let name = fields.text("param_name")?;
            let distribution = distribution_from_json(name, fields.text("distribution")?)?;
            let value = fields.number("param_value_internal")?;
            check_choice(name, &distribution, value)?;
            let parameter = Parameter::new(name, distribution);
            Operation::SetParameter { trial: fields.index("trial_id")?, parameter, value }
        }
        6 => {
            let state = fields.state("state")?;
            let time = match state {
                TrialState::Running => required(fields.time("datetime_start")?, "datetime_start")?,
                it if it.is_finished() => required(fields.time("datetime_complete")?, "datetime_complete")?,
                _ => None,
            };
            fields.get("values")?;
            let values = fields.numbers("values")?;
            Operation::SetState { trial: fields.index("trial_id")?, state, values, time }
        }
        7 => Operation::SetIntermediateValue {
            trial: fields.index("trial_id")?,
            step: fields.integer("step")?,
            value: fields.number("intermediate_value")?,
        },
        8 | 9 => {
            let (owner, key, value) = attribute(if code == 8 { "user_attr" } else { "system_attr" })?;
            Operation::SetTrialAttribute { trial: fields.index("trial_id")?, owner, key, value }
        }
        10 => Operation::Discard,
        code => return Err(RecordError::UnknownOperation { code }),
    })
}

fn required(time: Option<DateTime>, field: &'static str) -> Result<Option<DateTime>, RecordError> {
    time.map(Some).ok_or(RecordError::Missing { field })
}

/// The trial of a record 4: empty and running unless more is said.
fn parse_trial(fields: &Fields<'_>) -> Result<Trial, RecordError> {
    fields.get("datetime_start")?;
    let state = if fields.0.contains_key("state") { fields.state("state")? } else { TrialState::Running };
    let distributions = fields.attributes("distributions")?;
    let mut assignment = Assignment::default();
    for (name, value) in &fields.attributes("params")? {
        let text = distributions.get(name).and_then(Value::as_str);
        let text = text.ok_or(RecordError::Missing { field: "distributions" })?;
        let distribution = distribution_from_json(name, text)?;
        let internal = number(value).ok_or_else(|| wrong("params", "numbers", value))?;
        check_choice(name, &distribution, internal)?;
        assignment.set(Parameter::new(name, distribution), internal);
    }
    let mut intermediate_values = BTreeMap::new();
    for (step, value) in &fields.attributes("intermediate_values")? {
        let step_number =
            step.parse().map_err(|_| wrong("intermediate_values", "whole steps", &step[..].into()))?;
        let value = number(value).ok_or_else(|| wrong("intermediate_values", "numbers", value))?;
        intermediate_values.insert(step_number, value);
    }
    let single = match fields.optional("value") {
        Some(_) => Some(vec![fields.number("value")?]),
        None => None,
    };
    Ok(Trial {
        number: 0,
        state,
        assignment,
        values: fields.numbers("values")?.or(single),
        user_attrs: fields.attributes("user_attrs")?,
        system_attrs: fields.attributes("system_attrs")?,
        intermediate_values,
        start: fields.time("datetime_start")?,
        complete: fields.time("datetime_complete")?,
    })
}

/// Python turns the index into the choice as it reads.
fn check_choice(name: &str, distribution: &Distribution, value: f64) -> Result<(), RecordError> {
    match distribution {
        Distribution::Categorical { choices } if !distribution.contains(value) => {
            Err(RecordError::Choice { name: name.into(), index: value, choices: choices.len() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Goal;

    fn error(line: &str) -> String {
        Record::parse(line.as_bytes()).unwrap_err().to_string()
    }

    /// A record of operation `code` with further fields.
    fn record(code: i64, fields: &str) -> String {
        format!(r#"{{"op_code":{code},"worker_id":"w"{}{fields}}}"#, if fields.is_empty() { "" } else { "," })
    }

    #[test]
    fn what_is_written_is_read_back() {
        let time = Some("2026-01-02T03:04:05.000678".parse().unwrap());
        let parameter = |it: Distribution| Parameter::new("x", it);
        let operations = [
            Operation::CreateStudy { name: "a \"b\" é".into(), goals: vec![Goal::Minimize, Goal::Maximize] },
            Operation::DeleteStudy { study: 3 },
            Operation::SetStudyAttribute {
                study: 0,
                owner: Owner::User,
                key: "k".into(),
                value: json!({"a": [1]}),
            },
            Operation::SetStudyAttribute {
                study: 0,
                owner: Owner::System,
                key: "k".into(),
                value: json!(null),
            },
            Operation::SetParameter {
                trial: 7,
                parameter: parameter(Distribution::float(0.1, 0.3)),
                value: 0.1 + 0.2 - 1e-17,
            },
            Operation::SetParameter {
                trial: 7,
                parameter: parameter(Distribution::Int { low: 1, high: 64, step: 1, log: true }),
                value: 8.0,
            },
            Operation::SetParameter {
                trial: 7,
                parameter: parameter(Distribution::Categorical {
                    choices: vec![json!(null), json!(1.5), json!("s")],
                }),
                value: 2.0,
            },
            Operation::SetState {
                trial: 7,
                state: TrialState::Complete,
                values: Some(vec![5e-324, -1.0 / 3.0]),
                time,
            },
            Operation::SetState { trial: 7, state: TrialState::Running, values: None, time },
            Operation::SetState { trial: 7, state: TrialState::Waiting, values: None, time: None },
            Operation::SetIntermediateValue { trial: 1, step: -2, value: 0.5 },
            Operation::SetTrialAttribute { trial: 1, owner: Owner::User, key: "k".into(), value: json!(1) },
            Operation::SetTrialAttribute {
                trial: 1,
                owner: Owner::System,
                key: "k".into(),
                value: json!("x\ny"),
            },
            Operation::Discard,
        ];
        for operation in operations {
            let record = Record { worker: "me".into(), operation };
            let line = record.line();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(Record::parse(line.as_bytes()).unwrap(), record, "{line}");
        }
    }

    #[test]
    fn text_that_is_not_json_says_so() {
        assert!(error("{\"op_code\":0,").starts_with("not JSON: "));
        assert!(error("").starts_with("not JSON: "));
        assert!(Record::parse(b"{\"op_code\":\xff}").unwrap_err().to_string().starts_with("not UTF-8 text"));
    }

    #[test]
    fn json_that_is_not_an_object_says_what_it_is() {
        assert_eq!(error("[1,2]"), "expected an object, found `[1,2]`");
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(error(r#"{"worker_id":"w"}"#), "field `op_code` is missing");
        assert_eq!(error(r#"{"op_code":1}"#), "field `worker_id` is missing");
        assert_eq!(error(&record(1, "")), "field `study_id` is missing");
        assert_eq!(error(&record(4, r#""study_id":0"#)), "field `datetime_start` is missing");
        assert_eq!(error(&record(6, r#""trial_id":0,"state":4"#)), "field `values` is missing");
        let told = r#""trial_id":0,"state":1,"values":[1.0]"#;
        assert_eq!(error(&record(6, told)), "field `datetime_complete` is missing");
    }

    #[test]
    fn a_field_of_another_kind_is_named_with_what_it_holds() {
        assert_eq!(
            error(&record(1, r#""study_id":-1"#)),
            "field `study_id`: expected a number from 0, found `-1`"
        );
        assert_eq!(
            error(&record(6, r#""trial_id":0,"state":5,"values":null"#)),
            "field `state`: expected a state from 0 to 4, found `5`"
        );
        assert_eq!(
            error(&record(0, r#""study_name":"s","directions":[0]"#)),
            "field `directions`: expected a list of 1 (minimize) and 2 (maximize), found `[0]`"
        );
        assert_eq!(
            error(&record(4, r#""study_id":0,"datetime_start":"noon""#)),
            "field `datetime_start`: expected an ISO 8601 time, found `\"noon\"`"
        );
        let told = r#""trial_id":0,"state":1,"values":["a"],"datetime_complete":"2026-01-01T00:00:00""#;
        assert_eq!(error(&record(6, told)), "field `values`: expected a list of numbers, found `[\"a\"]`");
    }

    #[test]
    fn an_attribute_record_has_exactly_one_key() {
        for attribute in ["{}", r#"{"a":1,"b":2}"#, "[]"] {
            let message = error(&record(8, &format!(r#""trial_id":0,"user_attr":{attribute}"#)));
            assert!(message.starts_with("field `user_attr`: expected an object with one key"), "{message}");
        }
    }

    #[test]
    fn an_operation_of_the_future_is_named() {
        assert!(error(&record(11, "")).starts_with("unknown operation 11; this version knows 0 to 10"));
        assert!(error(&record(-1, "")).starts_with("unknown operation -1"));
    }

    #[test]
    fn a_distribution_that_makes_no_sense_names_its_parameter() {
        let set = |distribution: &str, value: &str| {
            let text = Value::from(distribution).to_string();
            error(&record(
                5,
                &format!(
                    r#""trial_id":0,"param_name":"x","param_value_internal":{value},"distribution":{text}"#
                ),
            ))
        };
        let float = r#"{"name":"FloatDistribution","attributes":{"low":2.0,"high":1.0}}"#;
        assert!(set(float, "1.0").starts_with("parameter `x`: bounds `2` and `1`"));
        assert!(set("[]", "1.0").starts_with("field `distribution`: expected a float, int or categorical"));
        assert!(set(r#"{"name":"Beta","attributes":{}}"#, "1.0").starts_with("field `distribution`"));
        let choice = r#"{"name":"CategoricalDistribution","attributes":{"choices":["a","b"]}}"#;
        assert_eq!(set(choice, "2"), "parameter `x`: choice 2 of 2");
    }

    #[test]
    fn a_ready_made_trial_is_read_whole() {
        let line = record(
            4,
            r#""study_id":0,"datetime_start":null,"state":1,"value":null,"values":[1.0,Infinity],
            "datetime_complete":"2026-01-01T00:00:00.000001","params":{"x":1},"user_attrs":{"u":NaN},
            "distributions":{"x":"{\"name\":\"CategoricalDistribution\",\"attributes\":{\"choices\":[true,false]}}"},
            "system_attrs":{"constraints":[-1.0,0.25,0.5]},"intermediate_values":{"-3":0.5}"#,
        );
        let record = Record::parse(line.replace('\n', "").as_bytes()).unwrap();
        let Operation::CreateTrial { trial, .. } = record.operation else { panic!("{record:?}") };
        assert_eq!(trial.values, Some(vec![1.0, f64::INFINITY]));
        assert_eq!(trial.assignment.choice("x").unwrap(), false);
        assert_eq!(trial.intermediate_values, [(-3, 0.5)].into());
        assert_eq!(trial.violation(), 0.75);
        assert_eq!(trial.start, None);
    }

    #[test]
    fn a_ready_made_trial_lacking_a_distribution_is_refused() {
        let line = record(4, r#""study_id":0,"datetime_start":null,"params":{"x":1},"distributions":{}"#);
        assert_eq!(error(&line), "field `distributions` is missing");
    }
}
