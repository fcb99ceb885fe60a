//! How long the hub is waited for, and when a download is given up.

use std::time::{Duration, Instant};

/// How long the hub is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For each piece of a file: `HF_HUB_DOWNLOAD_TIMEOUT`, as in Python's client.
    pub read: Duration,
    /// For a connection, the head of an answer, and each piece of one that is no file.
    pub response: Duration,
    /// For the answer to what changes something: a commit of many files takes the hub a while.
    pub change: Duration,
    /// Over which time a download must have come on by [`PACE`] bytes a second.
    pub window: Duration,
    /// Before the second attempt; each further pause is twice as long.
    pub pause: Duration,
    /// At most, where the hub says how long to wait (`Retry-After`).
    pub longest_pause: Duration,
}

/// Bytes a second that a download must bring. One slower by a factor of ten than the slowest modem is none.
pub const PACE: u64 = 1024;

/// How often a request is made that fails for reasons that pass.
pub(crate) const ATTEMPTS: u32 = 5;

/// Bytes of a file whose size the hub does not say.
pub(crate) const UNKNOWN_SIZE: u64 = 1 << 30;

impl Default for Patience {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(10),
            response: Duration::from_secs(30),
            change: Duration::from_mins(5),
            window: Duration::from_secs(30),
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|it| it.trim().parse().ok());
        let read = seconds.filter(|&it: &u64| it > 0).map(Duration::from_secs);
        let default = Self::default();
        let read = read.unwrap_or(default.read);
        Self { read, window: default.window.max(3 * read), ..default }
    }
}

/// How a download comes on, attempts and all.
pub(crate) struct Pace {
    window: Duration,
    since: Instant,
    from: u64,
    most: u64,
}

impl Pace {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { window: patience.window, since: Instant::now(), from: 0, most: 0 }
    }

    /// So many bytes are there. Those that were there before, and were thrown away since, do not count anew.
    ///
    /// # Errors
    /// What is wrong, when the last while has brought too little.
    pub(crate) fn at(&mut self, done: u64) -> Result<(), String> {
        self.most = self.most.max(done);
        let passed = self.since.elapsed();
        if passed < self.window {
            return Ok(());
        }
        let (brought, expected) = (self.most - self.from, PACE * passed.as_secs().max(1));
        if brought < expected {
            return Err(format!("{brought} bytes in the last {} seconds", passed.as_secs()));
        }
        (self.since, self.from) = (Instant::now(), self.most);
        Ok(())
    }

    /// A pause that the hub asked for does not count.
    pub(crate) fn paused(&mut self, pause: Duration) {
        self.since += pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_drips_is_given_up_and_one_that_comes_on_is_not() {
        let patience = Patience { window: Duration::ZERO, ..Patience::default() };
        let mut pace = Pace::new(patience);
        pace.at(PACE).unwrap();
        pace.at(3 * PACE).unwrap();
        // Begun again from the start: nothing new.
        assert!(pace.at(2 * PACE).unwrap_err().starts_with("0 bytes"));
        assert!(Pace::new(patience).at(PACE - 1).is_err());
        // Within the window nothing is said.
        Pace::new(Patience::default()).at(0).unwrap();
    }
}
