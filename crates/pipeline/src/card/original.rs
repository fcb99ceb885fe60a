//! The card of the model that was edited: its licence, its languages and its text stay with what is made of it.
//!
//! A card opens with YAML between two lines of `---` (the hub's "model card metadata"). It is changed line by line, so
//! that what is not ours stays as it was written, comments and order included.

use std::path::Path;

use checkpoint::links::way_out;

/// Entries that are not true of what is made of a model.
const BASE: [&str; 2] = ["base_model", "base_model_relation"];

/// What the original's card says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Original {
    /// The lines between the `---`, without what becomes untrue: `base_model`.
    metadata: Vec<String>,
    /// What follows.
    pub(super) text: String,
}

impl Original {
    /// The card in a model's folder. A model without one, or in a GGUF file, has nothing to say, nor has a link that
    /// leaves the folder: what it leads to may be private, and this text is published.
    pub(super) fn beside(model: &Path) -> Self {
        let path = model.join("README.md");
        if !matches!(way_out(model, &path), Ok(None)) {
            return Self::default();
        }
        files::read(&path, files::SMALL)
            .map(|bytes| Self::of(&String::from_utf8_lossy(&bytes)))
            .unwrap_or_default()
    }

    fn of(card: &str) -> Self {
        let card = card.trim_start_matches('\u{feff}');
        let mut lines = card.lines();
        let mut metadata = Vec::new();
        if lines.next().map(str::trim_end) == Some("---") {
            for line in lines.by_ref() {
                if line.trim_end() == "---" {
                    let text = lines.collect::<Vec<_>>().join("\n");
                    return Self { metadata: without(&BASE, metadata), text: text.trim().to_owned() };
                }
                metadata.push(line.to_owned());
            }
        }
        Self { metadata: Vec::new(), text: card.trim().to_owned() }
    }

    /// The metadata of a card for a model made of this one: of this base, with these tags beside its own, and with
    /// these entries in place of its own.
    pub(super) fn metadata(&self, base: &str, tags: &[&str], more: &[(&str, &str)]) -> String {
        let keys: Vec<&str> = more.iter().map(|it| it.0).collect();
        let mut lines = without(&keys, self.metadata.clone());
        let place = entries(&lines).into_iter().find(|it| key(&lines[it.start]) == Some("tags"));
        let had = place.clone().map_or(Vec::new(), |it| items(&lines[it]));
        let new: Vec<String> =
            tags.iter().filter(|it| !had.iter().any(|had| had == *it)).map(|it| (*it).to_owned()).collect();
        let list = had.into_iter().chain(new).map(|it| format!("- {it}"));
        let entry = std::iter::once("tags:".to_owned()).chain(list);
        let place = place.unwrap_or(lines.len()..lines.len());
        lines.splice(place, entry);
        // JSON's strings are YAML's.
        lines.push(format!("base_model: {}", serde_json::Value::from(base)));
        lines.extend(more.iter().map(|(key, value)| format!("{key}: {value}")));
        lines.join("\n")
    }
}

/// The key of a line that begins an entry of the outermost mapping.
fn key(line: &str) -> Option<&str> {
    let begins = !line.starts_with([' ', '\t', '-', '#']);
    line.split_once(':').map(|(key, _)| key.trim()).filter(|_| begins)
}

/// The lines of each entry: from its key to the next one's.
fn entries(lines: &[String]) -> Vec<std::ops::Range<usize>> {
    let starts: Vec<usize> = (0..lines.len()).filter(|&it| key(&lines[it]).is_some()).collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// The lines without the entries of these keys.
fn without(keys: &[&str], lines: Vec<String>) -> Vec<String> {
    let drop: Vec<_> = entries(&lines)
        .into_iter()
        .filter(|it| key(&lines[it.start]).is_some_and(|it| keys.contains(&it)))
        .collect();
    let kept = lines.into_iter().enumerate().filter(|(at, _)| !drop.iter().any(|it| it.contains(at)));
    kept.map(|(_, line)| line).collect()
}

/// The items of an entry's list, as they are written: one a line, in brackets, or a single one.
fn items(entry: &[String]) -> Vec<String> {
    let (_, first) = entry[0].split_once(':').unwrap_or_default();
    let rest = entry[1..].iter().map(String::as_str);
    let value: Vec<&str> = std::iter::once(first)
        .chain(rest)
        .map(str::trim)
        .filter(|it| !it.is_empty() && !it.starts_with('#'))
        .collect();
    let whole = value.join(" ");
    let items: Vec<&str> = match whole.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inner) => inner.split(',').collect(),
        None => value.iter().map(|it| it.strip_prefix('-').unwrap_or(it)).collect(),
    };
    let items = items.into_iter().map(str::trim).filter(|it| !matches!(*it, "" | "null" | "~"));
    items.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "---\nlicense: apache-2.0 # ours\nlanguage:\n- en\ntags:\n  - chat\n  - ablate\nbase_model:\n- \
                        a/b\nbase_model_relation: finetune\nwidget:\n- text: 'x: y'\n---\n# Name\n\nText: all of it.\n";

    fn parsed(tags: &str) -> String {
        Original::of(&format!("---\n{tags}license: mit\n---\n")).metadata("a/b", &["ablate"], &[])
    }

    #[test]
    fn a_card_keeps_its_lines_and_gets_tags_and_another_base() {
        let original = Original::of(CARD);
        assert_eq!(original.text, "# Name\n\nText: all of it.");
        assert_eq!(
            original.metadata("c/d", &["ablate", "abliterated"], &[]),
            "license: apache-2.0 # ours\nlanguage:\n- en\ntags:\n- chat\n- ablate\n- abliterated\nwidget:\n- text: \
             'x: y'\nbase_model: \"c/d\""
        );
    }

    #[test]
    fn an_entry_of_ours_takes_the_place_of_the_originals() {
        let original = Original::of("---\nlibrary_name:\n  transformers\nlicense: mit\n---\n");
        let metadata = original.metadata("a/b", &[], &[("library_name", "peft")]);
        assert_eq!(metadata, "license: mit\ntags:\nbase_model: \"a/b\"\nlibrary_name: peft");
    }

    #[test]
    fn tags_are_read_in_every_notation() {
        let expected = |list: &str| format!("tags:\n{list}- ablate\nlicense: mit\nbase_model: \"a/b\"");
        assert_eq!(parsed("tags: [one, \"t: wo\"]\n"), expected("- one\n- \"t: wo\"\n"));
        assert_eq!(parsed("tags: [one,\n  two,\n]\n"), expected("- one\n- two\n"));
        assert_eq!(parsed("tags:\n- one\n# remark\n- ablate\n- two\n").matches("ablate").count(), 1);
        for nothing in ["tags:\n", "tags: []\n", "tags: null\n"] {
            assert_eq!(parsed(nothing), expected(""));
        }
        assert_eq!(parsed(""), "license: mit\ntags:\n- ablate\nbase_model: \"a/b\"");
    }

    #[cfg(unix)]
    #[test]
    fn a_card_that_is_a_link_out_of_the_folder_is_none() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(root.path().join("private"), "secret").unwrap();
        std::os::unix::fs::symlink("../private", model.join("README.md")).unwrap();
        assert_eq!(Original::beside(&model), Original::default());
        std::fs::remove_file(model.join("README.md")).unwrap();
        std::fs::write(model.join("README.md"), "theirs").unwrap();
        assert_eq!(Original::beside(&model).text, "theirs");
    }

    #[test]
    fn a_card_without_metadata_is_text() {
        for text in ["", "# Name", "---\nnever: closed"] {
            let original = Original::of(text);
            assert_eq!(original.text, text);
            assert_eq!(original.metadata("m", &["ablate"], &[]), "tags:\n- ablate\nbase_model: \"m\"");
        }
        assert_eq!(Original::of("\u{feff}---\r\nlicense: mit\r\n---\r\ntext\r\n").metadata, ["license: mit"]);
        assert_eq!(Original::beside(Path::new("no such folder")), Original::default());
    }
}
