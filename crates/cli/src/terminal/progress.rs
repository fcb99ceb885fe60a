//! How far work has come: a bar for a stage, a line for a search. On a terminal only; a log gets a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::remark;

/// How long work may take without a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a log that is no terminal gets a line.
const LOG_INTERVAL: Duration = Duration::from_secs(15);

/// How often a line is drawn anew although nothing has happened: the time that is left goes on.
const TICK: Duration = Duration::from_millis(500);

/// The progress of a stage, shown once it has taken two seconds.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    all: usize,
    started: Instant,
    logged: Instant,
}

impl Progress {
    /// Work of `all` parts.
    pub(crate) fn new(what: &'static str, all: usize) -> Self {
        let now = Instant::now();
        Self { bar: None, what, all, started: now, logged: now }
    }

    /// `done` parts are done; `detail` says more.
    pub(crate) fn at(&mut self, done: usize, detail: &str) {
        self.show(done, |it| format!("{done}/{} {detail}", it.all));
    }

    /// `done` parts are done, with so many tokens: their rate and the time left are shown.
    pub(crate) fn at_tokens(&mut self, done: usize, tokens: usize) {
        self.show(done, |it| pace(it.started.elapsed(), done, it.all, tokens));
    }

    fn show(&mut self, done: usize, message: impl Fn(&Self) -> String) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        if std::io::stderr().is_terminal() {
            let message = message(self);
            let bar = self.bar.get_or_insert_with(|| {
                bar("{prefix} {wide_bar} {percent}% {msg}", self.all).with_prefix(self.what)
            });
            bar.set_position(done as u64);
            bar.set_message(message);
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            remark(&format!("{}: {} % {}", self.what, percent(done, self.all), message(self)));
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

/// The one live line of a search: trials done, time left, the best so far, the trial under way. What else is said
/// scrolls above it.
pub(crate) struct SearchLine {
    bar: ProgressBar,
    started: Instant,
    before: usize,
    complete: usize,
    n_trials: usize,
    best: String,
    under_way: String,
    trial_started: Instant,
}

impl SearchLine {
    /// For a search of which `complete` trials are done; `None` where nobody looks on.
    pub(crate) fn new(complete: usize, n_trials: usize) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = bar("trials {pos}/{len} {bar:16} {wide_msg}", n_trials);
        bar.enable_steady_tick(TICK);
        let now = Instant::now();
        let line = Self {
            bar,
            started: now,
            before: complete,
            complete,
            n_trials,
            best: String::new(),
            under_way: String::new(),
            trial_started: now,
        };
        line.draw();
        Some(line)
    }

    /// A trial is complete; `best`: the best so far.
    pub(crate) fn complete(&mut self, best: String) {
        self.best = best;
        self.next();
    }

    /// A trial came to nothing.
    pub(crate) fn failed(&mut self) {
        self.next();
    }

    fn next(&mut self) {
        self.complete += 1;
        self.under_way.clear();
        self.trial_started = Instant::now();
        self.draw();
    }

    /// The trial under way has come so far.
    pub(crate) fn under_way(&mut self, done: usize, all: usize, tokens: usize) {
        let elapsed = self.trial_started.elapsed();
        let rate = if elapsed < PATIENCE { String::new() } else { rate(elapsed, tokens) };
        self.under_way = format!("now {} %{rate}", percent(done, all));
        self.draw();
    }

    /// Says something above the line.
    pub(crate) fn above(&self, text: &str) {
        self.bar.suspend(|| remark(text));
    }

    fn draw(&self) {
        self.bar.set_position(self.complete as u64);
        let done = self.complete - self.before;
        let left = left(self.started.elapsed(), done, self.n_trials.saturating_sub(self.before));
        let parts = [left, self.best.clone(), self.under_way.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|it| !it.is_empty()).collect();
        self.bar.set_message(parts.join(" · "));
    }
}

impl Drop for SearchLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(template: &str, all: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is written correctly");
    ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr()).with_style(style)
}

fn percent(done: usize, all: usize) -> usize {
    done * 100 / all.max(1)
}

/// Tokens a second and the time left.
fn pace(elapsed: Duration, done: usize, all: usize, tokens: usize) -> String {
    let left = left(elapsed, done, all);
    let rate = rate(elapsed, tokens);
    format!("{left}{rate}")
}

fn rate(elapsed: Duration, tokens: usize) -> String {
    match tokens {
        0 => String::new(),
        tokens => format!(", {:.0} tokens/s", tokens as f64 / elapsed.as_secs_f64().max(1e-3)),
    }
}

/// How long the rest takes at the speed so far; nothing where that is not known.
fn left(elapsed: Duration, done: usize, all: usize) -> String {
    if done == 0 || done >= all {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() * (all - done) as f64 / done as f64;
    format!("{} left", clock(seconds.round() as u64))
}

/// Seconds as a clock shows them: 0:07, 12:30, 1:02:03.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_left_reads_as_on_a_clock() {
        assert_eq!([7, 750, 3723].map(clock), ["0:07", "12:30", "1:02:03"]);
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(10), 1, 4), "0:30 left");
        assert_eq!(left(seconds(10), 0, 4), "");
        assert_eq!(left(seconds(10), 4, 4), "");
    }

    #[test]
    fn tokens_are_told_by_the_second_where_they_are_counted() {
        let seconds = Duration::from_secs(4);
        assert_eq!(pace(seconds, 1, 2, 100), "0:04 left, 25 tokens/s");
        assert_eq!(pace(seconds, 1, 2, 0), "0:04 left");
        assert_eq!((percent(1, 3), percent(0, 0)), (33, 0));
    }
}
