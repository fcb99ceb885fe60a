//! The template engine, set up as the reference stack sets up its own.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, escape_formatter};

use super::clock::Clock;
use super::{limits, python, tojson};

/// How much one rendering may do: one unit is an instruction or 64 bytes of text made.
///
/// None of 194 real templates spends 5 000 on a conversation of six turns with tools, and a megabyte of text costs
/// 16 000 each time it is passed on. Five million is less than a second of work and 320 MB at most. Not tuned.
pub const FUEL: u64 = 5_000_000;

/// Functions of ours and of the engine that templates call by name.
pub(super) const FUNCTIONS: [&str; 4] = ["raise_exception", "range", "dict", "namespace"];

/// The error behind `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(String);

impl Raised {
    /// The template's message, if that is what the engine's error is about.
    pub(super) fn message_of(error: &Error) -> Option<String> {
        causes(error).find_map(|it| it.downcast_ref::<Self>().map(|it| it.0.clone()))
    }
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |it| it.source())
}

/// Whether the budget of work was spent.
pub(super) fn is_out_of_fuel(error: &Error) -> bool {
    causes(error).any(|it| it.downcast_ref::<Error>().is_some_and(|it| it.kind() == ErrorKind::OutOfFuel))
}

/// What the engine says, down to the first cause, without its line numbers.
pub(super) fn reason(error: &Error) -> String {
    let mut reason = error.kind().to_string();
    if let Some(detail) = error.detail() {
        reason = format!("{reason}: {detail}");
    }
    for cause in causes(error).skip(1) {
        reason = format!("{reason}: {cause}");
    }
    limits::shortened(reason)
}

pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the delimiters are the default ones"),
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", tojson::filter);
    environment
        .set_formatter(|out, state, value| escape_formatter(out, state, &python::with_python_float(value)));
    environment
        .add_filter("string", |value: &Value| Value::from(python::with_python_float(value).to_string()));
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_function("raise_exception", raise_exception);
    environment
}

/// `{{ raise_exception("…") }}`: the template refuses.
fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Python's `iterable`: an undefined value is (it yields nothing), none is not.
fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined => true,
        ValueKind::None => false,
        _ => value.try_iter().is_ok(),
    }
}

/// Python's `sequence`: whatever has a length and items, so texts and dictionaries too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// `strftime_now(format)`: local time, in the directives of C.
pub(super) fn strftime(clock: &Clock, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, clock.now())
        .map_err(|it| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {it}")))
}
