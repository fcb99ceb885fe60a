//! Chat templates: a conversation in, the text that the model was trained on out.
//!
//! A chat template is a Jinja program that comes with the model. It is run here the way the Python reference
//! stack (`transformers`, `apply_chat_template`) runs it, so that the model sees the same characters:
//! blocks are trimmed on the left and the right, nothing is escaped, messages lose their `null` fields, and the
//! reasoning of a message is known under each of its three usual names.
//!
//! Known differences: where Python fails on looping over `none` or on writing a generator as JSON, this goes on;
//! `'a'|safe + 'b'` escapes `b` for HTML in Python and does not here (one of 194 real templates does that); a list
//! printed as a whole shows unprintable characters, such as a no-break space, as they are.
//!
//! A template is somebody else's program. It gets a budget of work ([`FUEL`]), cannot reach files, and reads the
//! clock only through [`Clock`], which can be stopped.

mod clock;
mod environment;
mod generation;
mod python;
mod tojson;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

pub use clock::{Clock, ClockError};
pub use environment::FUEL;

use crate::{Message, Role};
use environment::Raised;

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model brings no template.
    #[error(
        "the model has no chat template\n\nhint: give one with `--chat-template FILE`, or ask for plain prompts if \
         this is a base model"
    )]
    NoTemplate,
    /// The model brings templates, none of this name.
    #[error("no chat template named `{name}`; the model has {known:?}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The template is not a program.
    #[error("chat template, line {line}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// The template refused the conversation by calling `raise_exception`.
    #[error("the chat template refused the conversation: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },
    /// The template did not come to an end within its budget.
    #[error(
        "the chat template did more than {fuel} units of work and was stopped\n\nhint: it probably loops forever; \
         give another one with `--chat-template FILE`"
    )]
    Endless {
        /// The budget.
        fuel: u64,
    },
    /// The template failed while it ran.
    #[error("chat template, line {line}: {reason}")]
    Failed {
        /// Counted from 1; 0 where the engine does not know.
        line: usize,
        /// What the engine says.
        reason: String,
    },
    /// A message is not a JSON object.
    #[error("message {index} of the conversation is {found}, expected an object")]
    NotAMessage {
        /// Counted from 0.
        index: usize,
        /// What stands there.
        found: String,
    },
    /// There is nothing to render.
    #[error("the conversation has no messages")]
    NoMessages,
}

/// What a template sees beside the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Whether the text ends where the model is to answer. Default: true.
    pub add_generation_prompt: bool,
    /// The tokenizer's named tokens: `bos_token`, `eos_token` and so on.
    pub special_tokens: BTreeMap<String, String>,
    /// JSON schemas of tools that the model may call.
    pub tools: Option<Vec<Json>>,
    /// Documents for templates that know retrieval.
    pub documents: Option<Vec<Json>>,
    /// Further variables, such as `enable_thinking`. They win over special tokens of the same name.
    pub variables: Map<String, Json>,
    /// What `strftime_now` reads.
    pub clock: Clock,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            add_generation_prompt: true,
            special_tokens: BTreeMap::new(),
            tools: None,
            documents: None,
            variables: Map::new(),
            clock: Clock::default(),
        }
    }
}

/// How a template takes a system prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRole {
    /// As a message of its own.
    Own,
    /// Not at all: it is put before the first user message, with an empty line between.
    Folded,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// The name under which the one template of an environment is stored.
const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] with the line.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = environment::new();
        environment.add_template_owned(NAME, generation::prepared(source)).map_err(|error| {
            TemplateError::Syntax { line: error.line().unwrap_or(0), reason: environment::reason(&error) }
        })?;
        Ok(Self { environment })
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// All but [`TemplateError::NoTemplate`], [`TemplateError::UnknownName`] and [`TemplateError::Syntax`].
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let messages: Vec<Json> = messages
            .iter()
            .map(|it| serde_json::json!({ "role": it.role.name(), "content": it.content }))
            .collect();
        self.render_json(&messages, options)
    }

    /// Renders a conversation of general messages: with tool calls, content in parts, reasoning.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_json(&self, messages: &[Json], options: &RenderOptions) -> Result<String, TemplateError> {
        if messages.is_empty() {
            return Err(TemplateError::NoMessages);
        }
        let messages = messages
            .iter()
            .enumerate()
            .map(|(index, it)| as_seen(index, it))
            .collect::<Result<Vec<_>, _>>()?;
        let template = self.environment.get_template(NAME).expect("the constructor has put it there");
        template.render(context(messages, options)).map_err(|error| self.failure(&error))
    }

    /// Finds out how the template takes a system prompt, by rendering one.
    ///
    /// [`SystemRole::Folded`] when the template refuses it with `raise_exception`, or leaves it out.
    pub fn system_role(&self, options: &RenderOptions) -> SystemRole {
        // A word that no template contains, and that survives upper-casing and quoting.
        const PROBE: &str = "systemprobexyzzy";
        match self.render(&[Message::system(PROBE), Message::user("user")], options) {
            Ok(text) if text.to_lowercase().contains(PROBE) => SystemRole::Own,
            Ok(_) | Err(TemplateError::Raised { .. }) => SystemRole::Folded,
            // The template fails on everything, perhaps; what it says then is better said of the real conversation.
            Err(_) => SystemRole::Own,
        }
    }

    fn failure(&self, error: &minijinja::Error) -> TemplateError {
        if let Some(message) = Raised::message_of(error) {
            return TemplateError::Raised { message };
        }
        if environment::is_out_of_fuel(error) {
            return TemplateError::Endless { fuel: self.environment.fuel().unwrap_or(FUEL) };
        }
        TemplateError::Failed { line: error.line().unwrap_or(0), reason: environment::reason(error) }
    }
}

/// Puts leading system prompts before the first user message: "system", an empty line, "user".
///
/// A conversation without a user message gets the system prompt as one.
pub fn fold_system(messages: &[Message]) -> Vec<Message> {
    let count = messages.iter().take_while(|it| it.role == Role::System).count();
    let (system, rest) = messages.split_at(count);
    let mut rest = rest.to_vec();
    if system.is_empty() {
        return rest;
    }
    let mut text = system.iter().map(|it| it.content.as_str()).collect::<Vec<_>>().join("\n\n");
    if let Some(user) = rest.iter_mut().find(|it| it.role == Role::User) {
        let _ = write!(text, "\n\n{}", user.content);
        user.content = text;
    } else {
        rest.insert(0, Message::user(text));
    }
    rest
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
