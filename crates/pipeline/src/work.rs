//! Work that takes a while: how far it has come, and whether it is still wanted.

use std::time::{Duration, Instant};

use crate::event::Stage;
use crate::{Cancel, Event, Events, PipelineError};

/// How often progress is reported.
const INTERVAL: Duration = Duration::from_millis(100);

/// A stage of work under way.
pub(crate) struct Work<'w, 'e> {
    stage: Stage,
    done: usize,
    all: usize,
    tokens: usize,
    reported: Option<Instant>,
    events: &'w mut Events<'e>,
    /// Whether it is still wanted.
    pub(crate) cancel: &'w Cancel<'w>,
}

impl<'w, 'e> Work<'w, 'e> {
    /// A stage that begins; how much it is, [`Self::of`] says.
    pub(crate) fn new(stage: Stage, events: &'w mut Events<'e>, cancel: &'w Cancel<'w>) -> Self {
        Self { stage, done: 0, all: 0, tokens: 0, reported: None, events, cancel }
    }

    /// There are `all` parts to be done.
    pub(crate) fn of(&mut self, all: usize) {
        self.all = all;
        self.report();
    }

    /// So many more parts are done, and so many tokens were computed for them.
    pub(crate) fn advance(&mut self, done: usize, tokens: usize) {
        // An estimate may have been too low; a part is never done twice.
        self.done = (self.done + done).min(self.all);
        self.tokens += tokens;
        if self.reported.is_none_or(|it| it.elapsed() >= INTERVAL) {
            self.report();
        }
    }

    fn report(&mut self) {
        self.reported = Some(Instant::now());
        let Self { stage, done, all, tokens, .. } = *self;
        (self.events)(Event::Progress { stage, done, all, tokens });
    }

    /// An error if it is no longer wanted.
    pub(crate) fn check(&self) -> Result<(), PipelineError> {
        self.cancel.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_begins_at_nothing_and_never_passes_the_whole() {
        let mut seen = Vec::new();
        let mut events = |it| {
            if let Event::Progress { done, all, tokens, .. } = it {
                seen.push((done, all, tokens));
            }
        };
        let cancel = Cancel(&|| false);
        let mut work = Work::new(Stage::Candidates, &mut events, &cancel);
        work.of(10);
        std::thread::sleep(INTERVAL);
        work.advance(4, 3);
        work.advance(1, 1);
        std::thread::sleep(INTERVAL);
        work.advance(9, 1);
        assert_eq!(seen, [(0, 10, 0), (4, 10, 3), (10, 10, 5)]);
    }
}
