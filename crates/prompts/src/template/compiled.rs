//! A template compiled and run in this process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

use super::environment::{self, FUEL, Raised};
use super::{RenderOptions, TemplateError, generation, limits};

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct Compiled {
    environment: Environment<'static>,
}

/// The name under which the one template of an environment is stored.
const NAME: &str = "chat";

impl Compiled {
    /// Compiles a template.
    pub(super) fn new(source: &str) -> Result<Self, TemplateError> {
        limits::check_source(source)?;
        guarded(|| {
            let mut environment = environment::new();
            environment.add_template_owned(NAME, generation::prepared(source)).map_err(|error| {
                TemplateError::Syntax { line: error.line().unwrap_or(0), reason: environment::reason(&error) }
            })?;
            Ok(Self { environment })
        })
    }

    /// Renders a conversation of general messages.
    pub(super) fn render(&self, messages: &[Json], options: &RenderOptions) -> Result<String, TemplateError> {
        if messages.is_empty() {
            return Err(TemplateError::NoMessages);
        }
        let messages = messages
            .iter()
            .enumerate()
            .map(|(index, it)| as_seen(index, it))
            .collect::<Result<Vec<_>, _>>()?;
        let template = self.environment.get_template(NAME).expect("the constructor has put it there");
        guarded(|| template.render(context(messages, options)).map_err(|error| self.failure(&error)))
    }

    fn failure(&self, error: &minijinja::Error) -> TemplateError {
        if let Some(message) = Raised::message_of(error) {
            return TemplateError::Raised { message: limits::shortened(message) };
        }
        if environment::is_out_of_fuel(error) {
            return TemplateError::Endless { fuel: self.environment.fuel().unwrap_or(FUEL) };
        }
        TemplateError::Failed { line: error.line().unwrap_or(0), reason: environment::reason(error) }
    }
}

/// Runs the engine, whose panics are errors of the template.
fn guarded<T>(run: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    // What is used afterwards is the environment, which rendering does not change.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&it| it.to_owned()));
        let reason = limits::shortened(message.unwrap_or_else(|| "the template engine panicked".to_owned()));
        Err(TemplateError::Failed { line: 0, reason })
    })
}

/// The names under which a message's reasoning is passed; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as the template sees it: without `null` fields, its reasoning under the names that templates read.
fn as_seen(index: usize, message: &Json) -> Result<Value, TemplateError> {
    let Json::Object(fields) = message else {
        return Err(TemplateError::NotAMessage { index, found: message.to_string() });
    };
    let mut seen: Map<String, Json> =
        fields.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(reasoning) = REASONING.iter().find_map(|name| seen.get(*name)).cloned() {
        if !seen.contains_key("thinking") {
            seen.shift_insert(0, "thinking".to_owned(), reasoning.clone());
        }
        seen.insert("reasoning_content".to_owned(), reasoning);
    }
    Ok(value(&Json::Object(seen)))
}

fn context(messages: Vec<Value>, options: &RenderOptions) -> Value {
    let list = |items: &Option<Vec<Json>>| {
        items.as_ref().map_or(Value::from(()), |it| it.iter().map(value).collect::<Value>())
    };
    let clock = options.clock.clone();
    let strftime_now = Value::from_function(move |format: &str| environment::strftime(&clock, format));
    // Of two entries of one name the later one counts.
    let mut entries: Vec<(&str, Value)> = Vec::new();
    entries.extend(options.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token))));
    entries.extend(options.variables.iter().map(|(name, it)| (name.as_str(), value(it))));
    entries.extend([
        ("messages", Value::from(messages)),
        ("tools", list(&options.tools)),
        ("documents", list(&options.documents)),
        ("add_generation_prompt", Value::from(options.add_generation_prompt)),
        ("strftime_now", strftime_now),
    ]);
    Value::from_pairs(entries)
}

/// A JSON value as templates see it.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(it) => Value::from(*it),
        Json::Number(it) => match (it.as_i64(), it.as_u64()) {
            (Some(it), _) => Value::from(it),
            (None, Some(it)) => Value::from(it),
            (None, None) => Value::from(it.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(it) => Value::from(it.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(name, it)| (name.as_str(), value(it)))),
    }
}
