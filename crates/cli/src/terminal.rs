//! Everything that is printed.
//!
//! Results go to standard output, and nothing else does; progress, remarks and errors go to standard error. What others
//! have written cannot command the terminal ([`printable`]): results keep their bytes only on their way to a file or another
//! program; remarks and errors are for people to read, wherever they go, since logs are shown in terminals later.

mod printable;
mod progress;

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use pipeline::pick::PickError;
use pipeline::{Explanation, PipelineError};

pub(crate) use printable::printable;
pub(crate) use progress::{Progress, SearchLine};

/// One line of a result.
///
/// # Errors
/// When standard output is closed: the reader, a pager perhaps, has seen enough.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(result(text, out.is_terminal()).as_bytes())?;
    out.write_all(b"\n")
}

/// A piece of a result that is still being written.
pub(crate) fn piece(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(result(text, out.is_terminal()).as_bytes())?;
    out.flush()
}

/// A result as it is written.
fn result(text: &str, to_terminal: bool) -> Cow<'_, str> {
    if to_terminal { printable(text) } else { Cow::Borrowed(text) }
}

/// Something worth knowing that is no result.
pub(crate) fn remark(text: &str) {
    // Nobody reads on (`2>&1 | head`), and nobody can be told so: the work goes on without a word.
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

/// What was asked for makes no sense as it stands.
#[derive(Debug)]
pub(crate) struct Misuse(String);

impl Misuse {
    /// In these words, a hint included.
    pub(crate) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// The exit code for what cannot be understood, be it a command or a setting; as that of the parser of arguments.
const NOT_UNDERSTOOD: u8 = 2;

/// Whether an error says that something cannot be understood; else it says that something did not work.
fn is_misuse(error: &anyhow::Error) -> bool {
    error.chain().any(|it| {
        it.is::<Misuse>()
            || it.is::<settings::SettingsError>()
            || it.downcast_ref::<PipelineError>().is_some_and(PipelineError::is_misuse)
            || it.downcast_ref::<PickError>().is_some_and(|it| !matches!(it, PickError::NoneFits { .. }))
    })
}

/// Lets panics be printed like everything else: their messages quote texts of others.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        remark(&panic.to_string());
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            remark(&backtrace.to_string());
        }
    }));
}

/// Prints what the parser of arguments has to say (help, a version, an error), and answers with the exit code.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    let commands = |it: std::ffi::OsString| printable(&it.to_string_lossy()) != it.to_string_lossy();
    if error.use_stderr() && std::env::args_os().any(commands) {
        // Arguments are quoted in it, names of files perhaps: printed without colors rather than with their commands.
        remark(error.render().to_string().trim_end());
    } else {
        // As the parser prints it, in colors; a closed pipe is no failure.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(NOT_UNDERSTOOD))
}

/// Tells an error and the chain of its causes, and answers with the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |it: &(dyn std::error::Error + 'static)| {
        it.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let Explanation { message, hints } = Explanation::of_chain(error.chain().map(ToString::to_string));
    remark(&format!("error: {message}"));
    for hint in hints {
        remark(&format!("\nhint: {hint}"));
    }
    if is_misuse(error) { ExitCode::from(NOT_UNDERSTOOD) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_told_apart_from_what_did_not_work() {
        let pick = |sentence: &str| sentence.parse::<pipeline::pick::Pick>();
        assert!(is_misuse(&pick("best").unwrap_err().into()));
        assert!(!is_misuse(&pick("min kl").unwrap().choose(&[]).unwrap_err().into()));
        assert!(is_misuse(&Misuse::error("no model is given").context("somewhere")));
        assert!(!is_misuse(&anyhow::anyhow!("the disk is full")));
    }
}
