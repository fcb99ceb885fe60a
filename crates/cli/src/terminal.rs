//! Everything that is printed.
//!
//! Results go to standard output, and nothing else does; progress, remarks and errors go to standard error.

#![expect(clippy::print_stderr, reason = "this is the place that prints")]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One line of a result.
///
/// # Errors
/// When standard output is closed: the reader, a pager perhaps, has seen enough.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// A piece of a result that is still being written.
pub(crate) fn piece(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Something worth knowing that is no result.
pub(crate) fn remark(text: &str) {
    eprintln!("{text}");
}

/// Tells an error and the chain of its causes, and answers with the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |it: &(dyn std::error::Error + 'static)| {
        it.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    // Hints stand last, whatever the depth of the error that has them.
    let mut hints = Vec::new();
    let mut message = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let text = cause.to_string();
        let (what, hint) = text.split_once("\n\nhint: ").unwrap_or((&text, ""));
        if depth > 0 {
            message.push_str(": ");
        }
        message.push_str(what);
        if !hint.is_empty() {
            hints.push(hint.to_owned());
        }
    }
    eprintln!("error: {message}");
    for hint in hints {
        eprintln!("\nhint: {hint}");
    }
    ExitCode::FAILURE
}

/// How far some work has come, told once it has taken two seconds.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    all: usize,
    started: Instant,
    told: Instant,
}

/// How long work may take without a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a log that is no terminal is told.
const LOG_INTERVAL: Duration = Duration::from_secs(15);

impl Progress {
    /// Work of `all` parts.
    pub(crate) fn new(what: &'static str, all: usize) -> Self {
        let now = Instant::now();
        Self { bar: None, what, all, started: now, told: now }
    }

    /// `done` parts are done; `detail` says more.
    pub(crate) fn at(&mut self, done: usize, detail: &str) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")
                    .expect("the template is written correctly");
                let bar = ProgressBar::with_draw_target(Some(self.all as u64), ProgressDrawTarget::stderr());
                bar.with_style(style).with_prefix(self.what)
            });
            bar.set_position(done as u64);
            bar.set_message(detail.to_owned());
        } else if self.told.elapsed() >= LOG_INTERVAL {
            self.told = Instant::now();
            eprintln!("{}: {done}/{} {detail}", self.what, self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
