//! Distributions as Optuna writes them. A journal holds them as a string of JSON within its JSON.

use serde_json::{Value, json};

use super::fields::{Fields, RecordError, wrong};
use super::python_json::to_json;
use crate::Distribution;

/// A distribution as Optuna writes it.
pub(super) fn distribution_to_json(distribution: &Distribution) -> Value {
    match distribution {
        Distribution::Float { low, high, step, log } => json!({
            "name": "FloatDistribution",
            "attributes": {"step": step, "low": low, "high": high, "log": log},
        }),
        Distribution::Int { low, high, step, log } => json!({
            "name": "IntDistribution",
            "attributes": {"log": log, "step": step, "low": low, "high": high},
        }),
        Distribution::Categorical { choices } => json!({
            "name": "CategoricalDistribution",
            "attributes": {"choices": choices},
        }),
    }
}

/// A distribution as Optuna writes it, checked.
pub(super) fn distribution_from_json(parameter: &str, text: &str) -> Result<Distribution, RecordError> {
    let value: Value = serde_json::from_str(&to_json(text))?;
    let object = |value: &Value| value.as_object().cloned();
    let unknown = || wrong("distribution", "a float, int or categorical distribution", &value);
    let outer = object(&value).ok_or_else(unknown)?;
    let inner = outer.get("attributes").and_then(object).ok_or_else(unknown)?;
    let fields = Fields(&inner);
    let log = fields.optional("log").and_then(Value::as_bool).unwrap_or(false);
    let distribution = match outer.get("name").and_then(Value::as_str) {
        Some("FloatDistribution") => {
            let step = if fields.optional("step").is_some() { Some(fields.number("step")?) } else { None };
            Distribution::Float { low: fields.number("low")?, high: fields.number("high")?, step, log }
        }
        Some("IntDistribution") => {
            let step = if fields.optional("step").is_some() { fields.integer("step")? } else { 1 };
            Distribution::Int { low: fields.integer("low")?, high: fields.integer("high")?, step, log }
        }
        Some("CategoricalDistribution") => {
            let choices = fields.get("choices")?;
            let list = choices.as_array().cloned();
            Distribution::Categorical { choices: list.ok_or_else(|| wrong("choices", "a list", choices))? }
        }
        _ => return Err(unknown()),
    };
    distribution.check().map_err(|source| RecordError::Distribution { name: parameter.into(), source })?;
    Ok(distribution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_written_as_optuna_writes_it() {
        let text = distribution_to_json(&Distribution::float(0.0, 1.0)).to_string();
        let expected =
            r#"{"name":"FloatDistribution","attributes":{"step":null,"low":0.0,"high":1.0,"log":false}}"#;
        assert_eq!(text, expected);
    }
}
