//! What time a template believes it is.

use jiff::civil::DateTime;

/// The source of `strftime_now`.
///
/// Templates that print today's date make the prompts of tomorrow differ from those of today. A run that is to be
/// repeatable asks [`Clock::stopped_now`] once, keeps what it shows, and uses that to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Local time, read whenever a template asks.
    #[default]
    Running,
    /// Always the same local time.
    Stopped(DateTime),
}

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a date and time: {reason}\n\nhint: write it as 2026-11-23 or 2026-11-23T20:15:00")]
pub struct ClockError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Clock {
    /// The local time of this moment in whole seconds, stopped.
    pub fn stopped_now() -> Self {
        let now = jiff::ZonedDateTime::now().datetime();
        Self::Stopped(now.with().subsec_nanosecond(0).build().expect("every time has a whole second"))
    }

    /// A stopped clock from what a clock prints (its `Display`), such as `2026-11-23T20:15:00`, or a date alone.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn stopped_at(text: &str) -> Result<Self, ClockError> {
        let time = text
            .parse()
            .map_err(|it: jiff::Error| ClockError { text: text.to_owned(), reason: it.to_string() })?;
        Ok(Self::Stopped(time))
    }

    /// The local time that this clock shows.
    pub(crate) fn now(&self) -> DateTime {
        match self {
            Self::Running => jiff::ZonedDateTime::now().datetime(),
            Self::Stopped(time) => *time,
        }
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.now().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_is_read_back_from_what_it_prints() {
        let clock = Clock::stopped_at("2026-11-23T20:15:00").unwrap();
        assert_eq!(clock.to_string(), "2026-11-23T20:15:00");
        assert_eq!(Clock::stopped_at(&clock.to_string()).unwrap(), clock);
        assert_eq!(Clock::stopped_at("2026-11-23").unwrap().to_string(), "2026-11-23T00:00:00");
        let now = Clock::stopped_now();
        assert_eq!(Clock::stopped_at(&now.to_string()).unwrap(), now);
        assert!(!now.to_string().contains('.'), "{now}");
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_text() {
        let error = Clock::stopped_at("yesterday").unwrap_err();
        assert_eq!(error.text, "yesterday");
        assert!(error.to_string().contains("hint: write it as"), "{error}");
    }
}
