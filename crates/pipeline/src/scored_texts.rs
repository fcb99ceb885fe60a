//! Texts of scorers that lie in files.
//!
//! Where a scorer's setting is a text, a file may be named in its place. It is read when settings are, so that a study
//! stores the text itself, and what is scored later does not depend on the file.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{PipelineError, Settings};

/// Longer texts name no file.
const LONGEST_NAME: usize = 4096;

/// What files of text end in.
const ENDINGS: [&str; 9] = [".txt", ".md", ".text", ".rst", ".log", ".tex", ".html", ".json", ".csv"];

impl Settings {
    /// Puts the content of a file in place of its name, wherever a scorer's setting is a text.
    ///
    /// # Errors
    /// [`PipelineError::Text`] when the file cannot be read, has no text, or is not there.
    pub fn read_texts(&mut self) -> Result<(), PipelineError> {
        for member in scorers::MEMBERS.iter().filter(|it| !it.texts.is_empty()) {
            let instance = format!("{}_", member.name);
            for (table, settings) in &mut self.scorer {
                if table == member.name || table.starts_with(&instance) {
                    read(table, member.texts, settings)?;
                }
            }
            for scorer in self.scorers.iter_mut().filter(|it| it.scorer == member.name) {
                if let Value::Object(settings) = &mut scorer.settings {
                    read(&scorer.scorer, member.texts, settings)?;
                }
            }
        }
        Ok(())
    }
}

fn read(
    scorer: &str,
    names: &[&'static str],
    settings: &mut Map<String, Value>,
) -> Result<(), PipelineError> {
    for &setting in names {
        let Some(Value::String(value)) = settings.get_mut(setting) else { continue };
        let failed = |reason: String| PipelineError::Text { scorer: scorer.to_owned(), setting, reason };
        if let Some(text) = content(value).map_err(failed)? {
            *value = text;
        }
    }
    Ok(())
}

/// The text of the file that a value names; `None` where it is a text itself.
fn content(value: &str) -> Result<Option<String>, String> {
    let path = Path::new(value);
    let endings = || ENDINGS.iter().any(|it| value.to_ascii_lowercase().ends_with(it));
    let rooted = || ["/", "./", "../", "~/"].iter().any(|it| value.starts_with(it));
    if value.len() > LONGEST_NAME || value.contains(['\n', '\r']) {
        return Ok(None);
    }
    match std::fs::metadata(path) {
        Ok(facts) if !facts.is_dir() || rooted() => {
            let text = files::read_text(path, files::TEXT).map_err(|it| it.to_string())?;
            if text.trim().is_empty() {
                return Err(format!("the file `{value}` has no text"));
            }
            Ok(Some(text))
        }
        Err(reason) if endings() || (rooted() && !value.contains(char::is_whitespace)) => Err(format!(
            "`{value}` looks like the name of a file: {reason}\n\n\
             hint: name a file that is there; a text that is meant itself can end in a space"
        )),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::ScorerSettings;

    fn with(text: &str) -> Settings {
        let table = Map::from_iter([("text".to_owned(), json!(text))]);
        Settings {
            scorers: vec![ScorerSettings {
                settings: json!({"text": text}),
                ..ScorerSettings::of("perplexity")
            }],
            scorer: [("perplexity".to_owned(), table.clone()), ("perplexity_b".to_owned(), table)].into(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_file_that_is_named_for_a_text_is_read_wherever_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a book.txt");
        std::fs::write(&path, "\u{feff}It was a bright day.\nIt was cold.\n").unwrap();
        let mut settings = with(path.to_str().unwrap());
        settings.read_texts().unwrap();
        let expected = json!("It was a bright day.\nIt was cold.\n");
        assert_eq!(settings.scorers[0].settings["text"], expected);
        assert_eq!(settings.scorer["perplexity"]["text"], expected);
        assert_eq!(settings.scorer["perplexity_b"]["text"], expected);
    }

    #[test]
    fn a_text_stays_a_text() {
        for text in [
            "It was a bright day.",
            "one",
            "either/or",
            "see notes.txt for more",
            "a\n./b.txt",
            ".",
            "a.txt ",
        ] {
            let mut settings = with(text);
            settings.read_texts().unwrap();
            assert_eq!(settings, with(text), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_missing_empty_or_no_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.txt");
        std::fs::write(&empty, " \n").unwrap();
        let missing = folder.path().join("missing");
        for (text, expected) in [
            ("missing.txt", "`missing.txt` looks like the name of a file"),
            ("./my book.TXT", "looks like the name of a file"),
            (missing.to_str().unwrap(), "looks like the name of a file"),
            (empty.to_str().unwrap(), "has no text"),
            (folder.path().to_str().unwrap(), "is a folder, expected a regular file"),
        ] {
            let error = with(text).read_texts().unwrap_err().to_string();
            assert!(
                error.contains("scorer `perplexity`, setting `text`: ") && error.contains(expected),
                "{error}"
            );
        }
    }
}
