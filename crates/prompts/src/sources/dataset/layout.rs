//! Which files belong to which configuration and split.
//!
//! The header of README.md may say so (`configs`, each with `data_files`). Where it does not, the names of files and
//! folders do, the first of these rules that finds something:
//! 1. `data/SPLIT-00000-of-00001.…`: the splits are called so;
//! 2. folders called for a split (`train`, `dev`, `my-test`);
//! 3. files called for a split (`train.csv`, `x_eval_1.jsonl`);
//! 4. all files are the split `train`.
//!
//! Of all files, those of the kind that most of them have are read. Hidden files, files in folders `__…` and files
//! that describe a data set are no data. All as Python's `datasets` does it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use files::FileError;
use yaml_rust2::{Yaml, YamlLoader};

use super::table::Format;
use super::{DatasetError, SourceError};

/// Files by split.
type Splits = Vec<(String, Vec<String>)>;

/// The configurations of a data set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    configs: Vec<Config>,
}

#[derive(Debug, PartialEq, Eq)]
struct Config {
    name: String,
    default: bool,
    splits: Splits,
}

/// Words by which files and folders are recognized, by split.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Files that describe.
const DESCRIPTIONS: [&str; 6] = [
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "dataset_dict.json",
];

/// Files and folders that are looked at. Data sets in so many files are read by other means.
const MOST: usize = 100_000;

/// All files below a folder, in order, with `/` between their parts.
///
/// A folder that several links lead to is looked at once, and a link to a folder that holds this one not at all: what it
/// leads to has no end.
pub(super) fn files_in(name: &str, root: &Path) -> Result<Vec<String>, SourceError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |reason| SourceError::File(FileError::Io { path, reason })
    };
    let whole = root.canonicalize().map_err(unread(root))?;
    let mut seen = HashSet::from([whole.clone()]);
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(unread(&folder))? {
            let path = entry.map_err(unread(&folder))?.path();
            if files.len() + seen.len() > MOST {
                return Err(DatasetError::TooMany { name: name.to_owned(), most: MOST }.into());
            }
            if path.is_dir() {
                let Ok(real) = path.canonicalize() else { continue };
                if !whole.starts_with(&real) && seen.insert(real) {
                    folders.push(path);
                }
            } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                files.push(name.replace('\\', "/"));
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Layout {
    /// What the files and the text of README.md say.
    pub(super) fn of(name: &str, files: &[String], card: Option<&str>) -> Result<Self, DatasetError> {
        let data: Vec<&str> = files.iter().map(String::as_str).filter(|it| is_data(it)).collect();
        let mut configs = Vec::new();
        for config in card.map(|it| written(name, it)).transpose()?.unwrap_or_default() {
            let folder = config.folder.as_ref().map(|it| format!("{}/", it.trim_matches('/')));
            let inside = |it: &&&str| folder.as_ref().is_none_or(|folder| it.starts_with(folder.as_str()));
            let own: Vec<&str> = data.iter().filter(inside).copied().collect();
            let splits = match config.patterns {
                None => by_names(&own),
                Some(patterns) => {
                    let of = |patterns: Vec<String>| {
                        let mut found = Vec::new();
                        for pattern in patterns {
                            let pattern = format!("{}{pattern}", folder.as_deref().unwrap_or_default());
                            add(&mut found, data.iter().copied().filter(|it| glob(&pattern, it)));
                        }
                        found
                    };
                    patterns.into_iter().map(|(split, patterns)| (split, of(patterns))).collect()
                }
            };
            configs.push(Config { name: config.name, default: config.default, splits });
        }
        if configs.is_empty() {
            configs.push(Config { name: "default".to_owned(), default: true, splits: by_names(&data) });
        }
        for config in &mut configs {
            of_one_kind(&mut config.splits);
        }
        configs.retain(|it| !it.splits.is_empty());
        if configs.is_empty() {
            return Err(DatasetError::NoFiles { name: name.to_owned(), files: files.to_vec() });
        }
        Ok(Self { configs })
    }

    /// The splits of a configuration; of the only one, or of the default one, if none is named.
    pub(super) fn config(self, name: &str, config: Option<&str>) -> Result<Splits, DatasetError> {
        let known = self.configs.iter().map(|it| it.name.clone()).collect();
        let only = self.configs.len() == 1;
        let found = self.configs.into_iter().find(|it| match config {
            Some(config) => it.name == config,
            None => only || it.default || it.name == "default",
        });
        let unknown =
            || DatasetError::Config { name: name.to_owned(), config: config.map(str::to_owned), known };
        found.map(|it| it.splits).ok_or_else(unknown)
    }
}

fn is_data(path: &str) -> bool {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let hidden = |it: &str| it.starts_with('.') || it.starts_with("__");
    !file.starts_with('.')
        && !folders.split('/').any(hidden)
        && !DESCRIPTIONS.contains(&file)
        && Format::of(file).is_some()
}

/// Adds files that are not there yet.
fn add<'a>(found: &mut Vec<String>, files: impl Iterator<Item = &'a str>) {
    for file in files {
        if !found.iter().any(|it| it == file) {
            found.push(file.to_owned());
        }
    }
}

/// The splits that names tell.
fn by_names(files: &[&str]) -> Splits {
    let mut sharded: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files {
        if let Some(split) = file.strip_prefix("data/").and_then(sharded_split) {
            sharded.entry(split).or_default().push((*file).to_owned());
        }
    }
    if !sharded.is_empty() {
        let usual = KEYWORDS.map(|it| it.0);
        let place = |split: &str| usual.iter().position(|it| *it == split).unwrap_or(usual.len());
        let mut splits: Splits =
            sharded.into_iter().map(|(split, files)| (split.to_owned(), files)).collect();
        splits.sort_by_key(|it| place(&it.0));
        return splits;
    }
    let folder_is = |path: &str, word: &str| {
        path.rsplit_once('/').is_some_and(|(folders, _)| folders.split('/').any(|it| bounded(it, word, true)))
    };
    let file_is = |path: &str, word: &str| bounded(path.rsplit('/').next().unwrap_or(path), word, false);
    for is in [&folder_is as &dyn Fn(&str, &str) -> bool, &file_is] {
        let mut splits = Splits::new();
        for (split, words) in KEYWORDS {
            let mut found = Vec::new();
            for word in words {
                add(&mut found, files.iter().copied().filter(|it| is(it, word)));
            }
            if !found.is_empty() {
                splits.push((split.to_owned(), found));
            }
        }
        if !splits.is_empty() {
            return splits;
        }
    }
    if files.is_empty() {
        return Splits::new();
    }
    vec![("train".to_owned(), files.iter().map(|&it| it.to_owned()).collect())]
}

/// `SPLIT-00000-of-00001.…`
fn sharded_split(file: &str) -> Option<&str> {
    let of = file.rfind("-of-")?;
    let digits = |it: &str| it.len() >= 5 && it.as_bytes()[..5].iter().all(u8::is_ascii_digit);
    let (before, number) = file[..of].rsplit_once('-')?;
    let fits = number.len() == 5 && digits(number) && digits(&file[of + 4..]) && file[of + 4..].contains('.');
    (fits && !before.is_empty() && !before.contains('/')).then_some(before)
}

/// Whether a name holds a word between separators. A name's end bounds the word too where `ends` says so; else only
/// its beginning does.
fn bounded(name: &str, word: &str, ends: bool) -> bool {
    let separator = |it: char| matches!(it, '-' | '.' | '_' | ' ') || it.is_ascii_digit();
    name.match_indices(word).any(|(at, _)| {
        let before = name[..at].chars().next_back().is_none_or(separator);
        let after = name[at + word.len()..].chars().next().map_or(ends, separator);
        before && after
    })
}

/// Keeps the files of the kind that most of them have; Parquet is preferred among equals.
fn of_one_kind(splits: &mut Splits) {
    let mut counts: BTreeMap<Format, usize> = BTreeMap::new();
    for file in splits.iter().flat_map(|it| &it.1) {
        if let Some(format) = Format::of(file) {
            *counts.entry(format).or_default() += 1;
        }
    }
    let most = counts.iter().max_by_key(|(format, count)| (**count, std::cmp::Reverse(**format)));
    let Some((&kind, _)) = most else { return splits.clear() };
    for (_, files) in splits.iter_mut() {
        files.retain(|it| Format::of(it) == Some(kind));
    }
    splits.retain(|it| !it.1.is_empty());
}

/// A configuration as README.md has it.
struct Written {
    name: String,
    default: bool,
    folder: Option<String>,
    patterns: Option<Vec<(String, Vec<String>)>>,
}

/// The configurations in the header of a README.md.
fn written(name: &str, card: &str) -> Result<Vec<Written>, DatasetError> {
    let card = card.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let header = card.strip_prefix("---\n").and_then(|it| it.split("\n---").next());
    let Some(header) = header.filter(|it| it.contains("configs:")) else { return Ok(Vec::new()) };
    let wrong = |reason: String| DatasetError::Card { name: name.to_owned(), reason };
    let documents = YamlLoader::load_from_str(header).map_err(|it| wrong(it.to_string()))?;
    let configs = documents.first().and_then(|it| it["configs"].as_vec()).cloned().unwrap_or_default();
    configs
        .iter()
        .map(|config| {
            let text = |key: &str| config[key].as_str().map(str::to_owned);
            Ok(Written {
                name: text("config_name")
                    .ok_or_else(|| wrong("a configuration has no `config_name`".to_owned()))?,
                default: config["default"].as_bool().unwrap_or(false),
                folder: text("data_dir").filter(|it| !matches!(it.as_str(), "." | "./" | "/")),
                patterns: patterns(&config["data_files"]),
            })
        })
        .collect()
}

/// `data_files`: a pattern, a list of patterns, a list of splits with patterns, or a table of them.
fn patterns(files: &Yaml) -> Option<Vec<(String, Vec<String>)>> {
    let texts = |it: &Yaml| -> Vec<String> {
        match it {
            Yaml::Array(items) => items.iter().filter_map(Yaml::as_str).map(str::to_owned).collect(),
            other => other.as_str().map(str::to_owned).into_iter().collect(),
        }
    };
    match files {
        Yaml::BadValue | Yaml::Null => None,
        Yaml::Hash(table) => Some(
            table.iter().filter_map(|(split, it)| Some((split.as_str()?.to_owned(), texts(it)))).collect(),
        ),
        Yaml::Array(items) if items.iter().any(|it| it["split"].as_str().is_some()) => {
            let split = |it: &Yaml| Some((it["split"].as_str()?.to_owned(), texts(&it["path"])));
            Some(items.iter().filter_map(split).collect())
        }
        plain => Some(vec![("train".to_owned(), texts(plain))]),
    }
}

/// Whether a path fits a pattern: `*` and `?` stay within a name, `[…]` is one of some characters, `**` goes through
/// folders.
fn glob(pattern: &str, path: &str) -> bool {
    fn fits(pattern: &[char], path: &[char]) -> bool {
        match pattern {
            [] => path.is_empty(),
            ['*', '*', '/', rest @ ..] => {
                fits(rest, path) || (0..path.len()).any(|at| path[at] == '/' && fits(rest, &path[at + 1..]))
            }
            ['*', '*', rest @ ..] => (0..=path.len()).any(|at| fits(rest, &path[at..])),
            ['*', rest @ ..] => {
                let end = path.iter().position(|it| *it == '/').unwrap_or(path.len());
                (0..=end).any(|at| fits(rest, &path[at..]))
            }
            ['?', rest @ ..] => path.first().is_some_and(|it| *it != '/') && fits(rest, &path[1..]),
            ['[', rest @ ..] if rest.contains(&']') => {
                let end = rest.iter().position(|it| *it == ']').expect("looked at above");
                let (mut set, negated) = (&rest[..end], matches!(rest.first(), Some('!' | '^')));
                if negated {
                    set = &set[1..];
                }
                let Some(&at) = path.first() else { return false };
                let mut hit = false;
                let mut index = 0;
                while index < set.len() {
                    if index + 2 < set.len() && set[index + 1] == '-' {
                        hit |= (set[index]..=set[index + 2]).contains(&at);
                        index += 3;
                    } else {
                        hit |= set[index] == at;
                        index += 1;
                    }
                }
                hit != negated && at != '/' && fits(&rest[end + 1..], &path[1..])
            }
            [first, rest @ ..] => path.first() == Some(first) && fits(rest, &path[1..]),
        }
    }
    let pattern = pattern.trim_start_matches("./");
    fits(&pattern.chars().collect::<Vec<_>>(), &path.chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(files: &[&str], card: Option<&str>) -> Result<Layout, DatasetError> {
        let mut files: Vec<String> = files.iter().map(|&it| it.to_owned()).collect();
        files.sort();
        Layout::of("test", &files, card)
    }

    fn splits(files: &[&str]) -> Vec<(String, Vec<String>)> {
        layout(files, None).unwrap().config("test", None).unwrap()
    }

    fn shown(splits: &[(String, Vec<String>)]) -> Vec<String> {
        splits.iter().map(|(split, files)| format!("{split}: {}", files.join(" "))).collect()
    }

    #[test]
    fn names_of_files_and_folders_tell_splits_in_the_order_of_the_rules() {
        let sharded = [
            "data/test-00000-of-00001.parquet",
            "data/train-00001-of-00002-ab.parquet",
            "data/train-00000-of-00002-ab.parquet",
            "data/extra-00000-of-00001.parquet",
            "README.md",
            "train.csv",
        ];
        assert_eq!(
            shown(&splits(&sharded)),
            [
                "train: data/train-00000-of-00002-ab.parquet data/train-00001-of-00002-ab.parquet",
                "test: data/test-00000-of-00001.parquet",
                "extra: data/extra-00000-of-00001.parquet"
            ]
        );
        assert_eq!(
            shown(&splits(&["my-dev/a.csv", "x/train/b.csv", "c.csv"])),
            ["train: x/train/b.csv", "validation: my-dev/a.csv"]
        );
        assert_eq!(
            shown(&splits(&["x_eval_1.jsonl", "train.jsonl", "strain.jsonl"])),
            ["train: train.jsonl", "test: x_eval_1.jsonl"]
        );
        assert_eq!(shown(&splits(&["b.txt", "a.txt"])), ["train: a.txt b.txt"]);
    }

    #[test]
    fn the_most_common_kind_is_read_and_hidden_files_are_not() {
        assert_eq!(
            shown(&splits(&["a.csv", "b.csv", "c.parquet", ".d.csv", "__x/e.csv", "LICENSE"])),
            ["train: a.csv b.csv"]
        );
        assert_eq!(shown(&splits(&["a.csv", "c.parquet"])), ["train: c.parquet"]);
        let error = layout(&["LICENSE", "README.md"], None).unwrap_err();
        assert!(error.to_string().contains("`LICENSE`"), "{error}");
    }

    #[test]
    fn readme_tells_configurations() {
        let card = "---\nlicense: mit\nconfigs:\n- config_name: hard\n  data_files:\n  - split: train\n    path: hard/*.csv\n  \
                    - split: test\n    path:\n    - t1.csv\n    - 't2*'\n- config_name: easy\n  default: true\n  data_files: \"e**\"\n---\n# x";
        let files = ["hard/a.csv", "hard/b.csv", "t1.csv", "t22.csv", "easy/deep/c.csv", "e.csv"];
        let config = |name: Option<&str>| layout(&files, Some(card)).unwrap().config("test", name);
        assert_eq!(
            shown(&config(Some("hard")).unwrap()),
            ["train: hard/a.csv hard/b.csv", "test: t1.csv t22.csv"]
        );
        assert_eq!(shown(&config(None).unwrap()), ["train: e.csv easy/deep/c.csv"]);
        let said = config(Some("soft")).unwrap_err().to_string();
        assert!(said.contains("`soft`") && said.contains("hard, easy"), "{said}");
    }

    #[test]
    fn a_readme_that_cannot_be_read_is_an_error_and_one_without_configurations_is_not() {
        let said = layout(&["a.csv"], Some("---\nconfigs: [\n---\n")).unwrap_err().to_string();
        assert!(said.contains("README.md"), "{said}");
        assert!(layout(&["a.csv"], Some("---\nconfigs:\n- x: 1\n---\n")).is_err());
        assert!(layout(&["a.csv"], Some("# no header")).is_ok());
        assert!(layout(&["a.csv"], Some("---\nlicense: mit\n---\n")).is_ok());
    }

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, path, fits) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "b/a.csv", false),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "b/c/a.csv", true),
            ("data/**", "data/b/a.csv", true),
            ("**", "b/a.csv", true),
            ("data/train-*", "data/train-0.parquet", true),
            ("a?c", "abc", true),
            ("a[0-9]", "a5", true),
            ("a[!0-9]", "a5", false),
            ("./a", "a", true),
            ("a[", "a[", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, path), fits, "{pattern} {path}");
        }
    }
}
