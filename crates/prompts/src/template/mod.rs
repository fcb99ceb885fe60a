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
//! clock only through [`Clock`], which can be stopped. What the budget does not bound (stack, memory, time) a process of
//! its own does ([`Isolation`]).

mod clock;
mod compiled;
mod content;
mod environment;
mod generation;
mod isolation;
mod limits;
mod python;
mod tojson;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub use clock::{Clock, ClockError};
pub use content::{ContentForm, Conventions};
pub use environment::FUEL;
pub use isolation::{Isolation, serve_templates};

use crate::{Message, Role};
use compiled::Compiled;
use isolation::Process;

/// Why a process that renders was stopped, or stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StopReason {
    /// It worked for too long.
    #[error("it worked for more than {seconds} s")]
    Time {
        /// How long it may.
        seconds: u32,
    },
    /// It took too much memory.
    #[error("it took more than {} MiB of memory", bytes >> 20)]
    Memory {
        /// How much it may take.
        bytes: u64,
    },
    /// It, or a value that it makes, is nested too deep.
    #[error("it is nested too deep, or without end, for a stack of {} MiB", bytes >> 20)]
    Stack {
        /// How large the stack is.
        bytes: usize,
    },
    /// For a reason that is not known.
    #[error("its process ended with {status}")]
    Died {
        /// What the system says.
        status: String,
    },
    /// The process says something else than was asked for.
    #[error("its process does not answer as it should")]
    Protocol,
}

/// Why a conversation could not be rendered.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
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
    /// The template exceeded the bounds of the process that it runs in.
    #[error(
        "the chat template was stopped: {reason}\n\nhint: no template of a model needs that much; give another one with \
         `--chat-template FILE`"
    )]
    Stopped {
        /// Why.
        reason: StopReason,
    },
    /// The template is too long.
    #[error(
        "the chat template has {bytes} bytes; at most {limit} are read\n\nhint: give another one with `--chat-template FILE`"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest.
        limit: usize,
    },
    /// The template makes too much text of a conversation.
    #[error(
        "the chat template makes {bytes} bytes of text of a conversation that cannot need more than {limit}\n\nhint: give \
         another one with `--chat-template FILE`"
    )]
    TooMuchText {
        /// The length of the text.
        bytes: usize,
        /// The longest.
        limit: usize,
    },
    /// The process that renders cannot be started.
    #[error("`{program}`, which renders chat templates, cannot be started: {reason}")]
    NoProcess {
        /// The program.
        program: String,
        /// What the system says.
        reason: String,
    },
    /// The template refused a user's message as a text and in parts.
    #[error(
        "the chat template refused the conversation: {message}\nand with its content in parts: {in_parts}\n\nhint: if a part \
         lacks a field, `source_lang_code` and `target_lang_code` can be given with `--chat-template-kwargs JSON`"
    )]
    RaisedTwice {
        /// The template's own words about a text.
        message: String,
        /// The template's own words about parts.
        in_parts: String,
    },
    /// The template leaves out what it was to show.
    #[error(
        "{template} leaves out the {role}'s words `{prompt}`: the model would read `{rendered}`\n\nhint: give \
         another template with `--chat-template FILE`, or prompts as they are with `--plain`"
    )]
    Lost {
        /// Which template.
        template: String,
        /// Whose words.
        role: String,
        /// The beginning of what was said.
        prompt: String,
        /// The beginning of what was rendered.
        rendered: String,
    },
    /// A variable has a name that is taken.
    #[error(
        "`{name}` cannot be set as a variable of the chat template: it is what is rendered\n\nhint: leave it out of `chat_template_kwargs`"
    )]
    ReservedVariable {
        /// The name.
        name: String,
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

/// Names that a conversation has in a template, and that no variable may have.
const RESERVED: [&str; 5] = ["messages", "tools", "documents", "add_generation_prompt", "strftime_now"];

impl RenderOptions {
    /// Whether the variables have names that are free.
    ///
    /// # Errors
    /// [`TemplateError::ReservedVariable`].
    pub fn check_variables(&self) -> Result<(), TemplateError> {
        let taken =
            RESERVED.iter().chain(&environment::FUNCTIONS).find(|it| self.variables.contains_key(**it));
        taken.map_or(Ok(()), |it| Err(TemplateError::ReservedVariable { name: (*it).to_owned() }))
    }
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
    place: Place,
    name: String,
}

#[derive(Debug)]
enum Place {
    Here(Box<Compiled>),
    Elsewhere(Process),
}

impl ChatTemplate {
    /// Compiles a template, to run in this process.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] with the line.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        Self::isolated(source, &Isolation::None)
    }

    /// Compiles a template, to run there.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] with the line, [`TemplateError::Stopped`], [`TemplateError::NoProcess`].
    pub fn isolated(source: &str, isolation: &Isolation) -> Result<Self, TemplateError> {
        let place = match isolation {
            Isolation::None => Place::Here(Box::new(Compiled::new(source)?)),
            Isolation::Process { program, arguments } => {
                Place::Elsewhere(Process::start(source, program.clone(), arguments.clone())?)
            }
        };
        Ok(Self { place, name: "the chat template".to_owned() })
    }

    /// The same under a name for errors: `the chat template of …`.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Renders a conversation, contents as texts.
    ///
    /// # Errors
    /// When the template refuses the conversation, fails, or is stopped.
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
        match &self.place {
            Place::Here(compiled) => compiled.render(messages, options),
            Place::Elsewhere(process) => process.render(messages, options),
        }
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
