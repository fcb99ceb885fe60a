//! An error and its causes in words.

use std::error::Error;

/// What an error and its causes say: one sentence, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What went wrong, from the outermost error to its first cause, joined by colons.
    pub message: String,
    /// What can be done, without the word `hint`; in the order of the errors that have them.
    pub hints: Vec<String>,
}

impl Explanation {
    /// Of an error and its causes.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut messages = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            messages.push(error.to_string());
            cause = error.source();
        }
        Self::of_chain(messages.into_iter())
    }

    /// Of the messages of an error and its causes, outermost first.
    ///
    /// Hints stand last, whatever the depth of the error that has them. What a cause repeats of the errors above it
    /// is said once.
    pub fn of_chain(messages: impl Iterator<Item = String>) -> Self {
        let mut parts: Vec<String> = Vec::new();
        let mut hints: Vec<String> = Vec::new();
        for text in messages {
            let (what, hint) = text.split_once("\n\nhint: ").unwrap_or((&text, ""));
            if !(hint.is_empty() || hints.iter().any(|it| it == hint)) {
                hints.push(hint.to_owned());
            }
            let begins_with =
                |above: &String| what.strip_prefix(above.as_str()).is_some_and(|it| it.starts_with(':'));
            if parts.last().is_some_and(|above| above.ends_with(what)) {
                continue;
            }
            if parts.last().is_some_and(begins_with) {
                parts.pop();
            }
            parts.push(what.to_owned());
        }
        Self { message: parts.join(": "), hints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cause_repeats_is_said_once_and_so_is_its_hint() {
        let chain = [
            "scoring",
            "scorer `command`",
            "scorer `command`: `false` ended\n\nhint: give the program as a list",
            "`false` ended\n\nhint: give the program as a list",
        ];
        let Explanation { message, hints } = Explanation::of_chain(chain.into_iter().map(str::to_owned));
        assert_eq!(message, "scoring: scorer `command`: `false` ended");
        assert_eq!(hints, ["give the program as a list"]);
    }
}
