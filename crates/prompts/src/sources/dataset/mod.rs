//! Data sets: folders on this machine, what `datasets.save_to_disk` wrote, single files, repositories of the hub.
//!
//! A data set has configurations, a configuration has splits, a split has files, and the rows of a split are those of
//! its files in order. Which file belongs where is decided as Python's `datasets` decides ([`layout`]); what is cut
//! from a split as it cuts ([`Split`]).

mod layout;
mod table;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hub::{Client, HubError, Kind, Repository};

use self::layout::Layout;
use self::table::Format;
use super::{PromptSource, SourceError, Specification, Split};

/// Why a data set has no prompts for us.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// No file of a kind that can be read.
    #[error(
        "`{name}` has no file that can be read{}\n\nhint: Parquet, JSON lines, CSV, Arrow and text files can be",
        found(files)
    )]
    NoFiles {
        /// The data set.
        name: String,
        /// What it has.
        files: Vec<String>,
    },
    /// Several configurations, or none of that name.
    #[error("`{name}` has {}\n\nhint: set `config` to one of {}", asked(config.as_deref(), "configuration"), known.join(", "))]
    Config {
        /// The data set.
        name: String,
        /// What was asked for.
        config: Option<String>,
        /// What it has.
        known: Vec<String>,
    },
    /// Several splits, or none of that name.
    #[error("`{name}` has {}\n\nhint: set `split` to one of {}, with a slice if wanted: `{}[:400]`", asked(split.as_deref(), "split"), known.join(", "), known[0])]
    Split {
        /// The data set.
        name: String,
        /// What was asked for.
        split: Option<String>,
        /// What it has.
        known: Vec<String>,
    },
    /// No column of that name.
    #[error("`{file}` has no column `{column}`\n\nhint: set `column` to one of {}", known.join(", "))]
    Column {
        /// The file.
        file: String,
        /// What was asked for.
        column: String,
        /// What it has.
        known: Vec<String>,
    },
    /// Several columns of texts, and none was asked for.
    #[error(
        "`{file}` has {} columns of texts\n\nhint: set `column` to one of {}",
        known.len(),
        known.join(", ")
    )]
    Columns {
        /// The file.
        file: String,
        /// Those of texts.
        known: Vec<String>,
    },
    /// No column of texts.
    #[error(
        "`{file}` has no column of texts; it has {}\n\nhint: prompts are texts: make a file with a column that holds \
         one in each row",
        columns(known)
    )]
    NoTexts {
        /// The file.
        file: String,
        /// The columns that it has.
        known: Vec<String>,
    },
    /// A file whose texts unfold into more than fits.
    #[error(
        "`{file}` holds texts of more than {most} bytes\n\nhint: it is compressed beyond what prompts are; a part of it \
         can be stored as a file of its own"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// The most that is read.
        most: u64,
    },
    /// A folder with folders without end.
    #[error(
        "`{name}` holds more than {most} files and folders\n\nhint: does a link in it lead out of it? name the folder or \
         the file of the data set itself"
    )]
    TooMany {
        /// The data set.
        name: String,
        /// The most that are looked at.
        most: usize,
    },
    /// A cell that is no text.
    #[error("`{file}`, row {row}: column `{column}` is {found}, expected a text")]
    Cell {
        /// The file.
        file: String,
        /// Counted from 0, as `datasets` does.
        row: usize,
        /// The column.
        column: String,
        /// What it is.
        found: String,
    },
    /// The file is not what its name says.
    #[error("`{file}` cannot be read as {format}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What it should be.
        format: &'static str,
        /// Why.
        reason: String,
    },
    /// The description of the configurations cannot be understood.
    #[error("`{name}`: the header of README.md cannot be read: {reason}")]
    Card {
        /// The data set.
        name: String,
        /// Why.
        reason: String,
    },
    /// Rows in another order than the files have them.
    #[error(
        "`{name}` was saved with an index beside its rows\n\nhint: save it again after `flatten_indices()`"
    )]
    Indices {
        /// The data set.
        name: String,
    },
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

fn asked(name: Option<&str>, what: &str) -> String {
    name.map_or_else(|| format!("more than one {what}"), |it| format!("no {what} `{it}`"))
}

fn columns(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|it| format!("`{it}`")).collect();
    if quoted.is_empty() { "none at all".to_owned() } else { quoted.join(", ") }
}

fn found(files: &[String]) -> String {
    let few = files.iter().take(5).map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
    if few.is_empty() { few } else { format!("; it has {few}") }
}

/// A data set, or a part of one.
#[derive(Clone, Debug)]
pub struct Dataset {
    specification: Specification,
    split: Option<Split>,
    place: Place,
}

/// Where files are.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each set of prompts")]
enum Place {
    /// One file.
    File(PathBuf),
    /// A folder.
    Folder(PathBuf),
    /// A folder that `save_to_disk` wrote.
    Saved(PathBuf),
    /// A repository.
    Hub(Client, Repository),
}

/// The file that `save_to_disk` writes beside the rows of a split.
const STATE: &str = "state.json";

/// The file that it writes beside several splits.
const SPLITS: &str = "dataset_dict.json";

/// Existing folders and files of a table's kind, else what can be a repository's name.
pub(super) fn recognize(
    specification: &Specification,
    client: &Client,
) -> Option<Result<Box<dyn PromptSource>, SourceError>> {
    if let Some((whole, slice)) = sliced(&specification.dataset) {
        if let Some(split) = &specification.split {
            let (name, split) = (specification.dataset.clone(), split.clone());
            return Some(Err(SourceError::SliceTwice { name, split }));
        }
        let (dataset, split) = (whole.to_owned(), Some(slice.to_owned()));
        return recognize(&Specification { dataset, split, ..specification.clone() }, client);
    }
    let path = Path::new(&specification.dataset);
    let format = Format::of(&specification.dataset);
    let place = if path.is_dir() {
        let saved = path.join(STATE).exists() || path.join(SPLITS).exists();
        if saved { Place::Saved(path.to_owned()) } else { Place::Folder(path.to_owned()) }
    } else if format.is_some_and(|it| it != Format::Text) {
        Place::File(path.to_owned())
    } else if path.exists() || format.is_some() {
        return None;
    } else {
        Place::Hub(client.clone(), repository(specification)?)
    };
    let split = specification.split.as_ref().map(|it| it.parse()).transpose();
    Some(split.map_err(SourceError::from).map(|split| {
        Box::new(Dataset { specification: specification.clone(), split, place }) as Box<dyn PromptSource>
    }))
}

/// A folder or a file of a table's kind with a slice at its end, as text files may have one: `rows.jsonl[:400]`.
fn sliced(name: &str) -> Option<(&str, &str)> {
    let start = name.rfind('[').filter(|_| name.ends_with(']') && !Path::new(name).exists())?;
    let (whole, slice) = name.split_at(start);
    let table = Format::of(whole).is_some_and(|it| it != Format::Text);
    (table || Path::new(whole).is_dir()).then_some((whole, slice))
}

/// The repository that a specification names. A name without an owner is one only if there is more that speaks for a
/// data set: else it is a file that is missing.
fn repository(specification: &Specification) -> Option<Repository> {
    let told =
        specification.split.is_some() || specification.column.is_some() || specification.commit.is_some();
    let name = &specification.dataset;
    Repository::new(Kind::Dataset, name).filter(|_| name.contains('/') || told)
}

impl Specification {
    /// Notes the commit that a data set of the hub has now, so that the same prompts can be had again.
    ///
    /// Answers whether there was something to note.
    ///
    /// # Errors
    /// [`DatasetError::Hub`]
    pub fn pin(&mut self, client: &Client) -> Result<bool, SourceError> {
        match on_the_hub(self).filter(|_| self.commit.is_none()) {
            None => Ok(false),
            Some(repository) => {
                let info = client.info(&repository, MAIN).map_err(DatasetError::from)?;
                self.commit = Some(info.commit);
                Ok(true)
            }
        }
    }
}

/// The repository of a data set of the hub.
pub(super) fn on_the_hub(specification: &Specification) -> Option<Repository> {
    let name = &specification.dataset;
    let exists = Path::new(name).exists() || Format::of(name).is_some();
    let embedded = name.contains(':') || name.ends_with(']');
    repository(specification).filter(|_| !exists && !embedded)
}

/// The revision that is meant where none is named.
const MAIN: &str = "main";

impl PromptSource for Dataset {
    fn name(&self) -> String {
        let given = &self.specification;
        let part = |it: &Option<String>| it.as_ref().map(|it| format!(", {it}")).unwrap_or_default();
        let column = given.column.as_ref().map(|it| format!(", column {it}")).unwrap_or_default();
        format!("{}{}{}{column}", given.dataset, part(&given.config), part(&given.split))
    }

    fn load(&self) -> Result<Vec<String>, SourceError> {
        self.read(true)
    }

    fn load_all(&self) -> Result<Vec<String>, SourceError> {
        self.read(false)
    }
}

impl Dataset {
    /// The prompts of the parts asked for, or with `cut` off, of all rows of their splits.
    fn read(&self, cut: bool) -> Result<Vec<String>, SourceError> {
        let splits = self.splits()?;
        let known: Vec<&str> = splits.iter().map(|it| it.0.as_str()).collect();
        let unknown = |split: Option<&str>| DatasetError::Split {
            name: self.specification.dataset.clone(),
            split: split.map(str::to_owned),
            known: known.iter().map(|&it| it.to_owned()).collect(),
        };
        let split = match &self.split {
            Some(split) => split.clone(),
            None if splits.len() == 1 => Split::whole(known[0]),
            None => return Err(unknown(None).into()),
        };
        let (mut prompts, mut total, mut seen) = (Vec::new(), 0, HashSet::new());
        for part in &split.parts {
            let nameless = splits.len() == 1 && (splits[0].0.is_empty() || part.name.is_empty());
            let alone = matches!(self.place, Place::File(_)) || nameless;
            let named: Vec<_> = splits.iter().filter(|it| alone || it.0 == part.name).collect();
            // `all` means all splits, unless one is called so.
            let named = if named.is_empty() && part.name == "all" { splits.iter().collect() } else { named };
            if named.is_empty() {
                return Err(unknown(Some(&part.name)).into());
            }
            for (name, files) in named {
                if !cut && !seen.insert(name) {
                    continue;
                }
                let mut rows = Vec::new();
                for (shown, path) in files {
                    rows.extend(table::column(shown, path, self.specification.column.as_deref())?);
                }
                total += rows.len();
                let range = if cut { part.range(rows.len())? } else { 0..rows.len() };
                prompts.extend(rows.drain(range));
            }
        }
        if prompts.is_empty() {
            return Err(SourceError::Empty { name: self.name(), total });
        }
        Ok(prompts)
    }

    /// The splits with their files: what a file is called, and where it is.
    fn splits(&self) -> Result<Splits, SourceError> {
        let name = &self.specification.dataset;
        match &self.place {
            Place::File(path) => Ok(vec![("train".to_owned(), vec![(name.clone(), path.clone())])]),
            Place::Saved(folder) => saved(name, folder),
            Place::Folder(folder) => {
                let files = layout::files_in(name, folder)?;
                let card = files::read_text(&folder.join(CARD), files::SMALL).ok();
                let splits = self.layout(&files, card.as_deref())?;
                let at = |file: String| (format!("{name}/{file}"), folder.join(file));
                Ok(splits
                    .into_iter()
                    .map(|(split, files)| (split, files.into_iter().map(at).collect()))
                    .collect())
            }
            Place::Hub(client, repository) => {
                let revision = self.specification.commit.as_deref().unwrap_or(MAIN);
                let info = client.info(repository, revision).map_err(DatasetError::from)?;
                let files: Vec<String> = info.files.into_iter().map(|it| it.path).collect();
                let get =
                    |file: &str| client.file(repository, &info.commit, file).map_err(DatasetError::from);
                let card = files.iter().any(|it| it == CARD).then(|| get(CARD)).transpose()?;
                let card = card.and_then(|it| files::read_text(&it, files::SMALL).ok());
                let wanted = |split: &str| match &self.split {
                    None => true,
                    Some(told) => told.parts.iter().any(|it| it.name == split || it.name == "all"),
                };
                let mut found = Vec::new();
                for (split, files) in self.layout(&files, card.as_deref())? {
                    // Only what is needed is downloaded.
                    let files = if wanted(&split) { files } else { Vec::new() };
                    let at = |file: String| Ok((format!("{name}/{file}"), get(&file)?));
                    found.push((split, files.into_iter().map(at).collect::<Result<_, DatasetError>>()?));
                }
                Ok(found)
            }
        }
    }

    /// The splits of the configuration asked for.
    fn layout(
        &self,
        files: &[String],
        card: Option<&str>,
    ) -> Result<Vec<(String, Vec<String>)>, DatasetError> {
        let name = &self.specification.dataset;
        let layout = Layout::of(name, files, card)?;
        layout.config(name, self.specification.config.as_deref())
    }
}

/// Splits with their files: what a file is called, and where it is.
type Splits = Vec<(String, Vec<(String, PathBuf)>)>;

/// What describes a data set.
const CARD: &str = "README.md";

/// The splits that `save_to_disk` wrote: one without a name, or one folder for each.
fn saved(name: &str, folder: &Path) -> Result<Splits, SourceError> {
    let read = |path: &Path| -> Result<serde_json::Value, SourceError> {
        let shown = path.display().to_string();
        let text = files::read_text(path, files::SMALL)?;
        let malformed = |error: serde_json::Error| DatasetError::Malformed {
            file: shown,
            format: "JSON",
            reason: error.to_string(),
        };
        Ok(serde_json::from_str(&text).map_err(malformed)?)
    };
    let rows = |folder: &Path| -> Result<Vec<(String, PathBuf)>, SourceError> {
        let state = read(&folder.join(STATE))?;
        let indices = ["_indices_data_files", "_indices_files"]
            .iter()
            .any(|it| state.get(it).is_some_and(|it| it.as_array().is_some_and(|it| !it.is_empty())));
        if indices {
            return Err(DatasetError::Indices { name: name.to_owned() }.into());
        }
        let files = state.get("_data_files").and_then(serde_json::Value::as_array);
        let names = files.into_iter().flatten().filter_map(|it| it.get("filename")?.as_str());
        // A file lies beside its list, wherever the list says.
        let names = names.filter_map(|it| Path::new(it).file_name());
        Ok(names.map(|it| folder.join(it)).map(|it| (it.display().to_string(), it)).collect())
    };
    if folder.join(STATE).exists() {
        return Ok(vec![(String::new(), rows(folder)?)]);
    }
    let list = read(&folder.join(SPLITS))?;
    let splits = list.get("splits").and_then(serde_json::Value::as_array).into_iter().flatten();
    let splits = splits.filter_map(serde_json::Value::as_str).filter(|it| !it.contains(['/', '\\', '.']));
    splits.map(|it| Ok((it.to_owned(), rows(&folder.join(it))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(specification: impl Into<Specification>) -> Result<Vec<String>, SourceError> {
        super::super::open(specification)?.load()
    }

    #[test]
    fn a_table_with_a_slice_at_its_end_is_no_text_file() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<String> = (0..8).map(|it| format!("{{\"text\": \"row {it}\"}}")).collect();
        let file = folder.path().join("rows.jsonl");
        std::fs::write(&file, rows.join("\n")).unwrap();
        let (file, folder) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
        assert_eq!(read(&format!("{file}[:2]")).unwrap(), ["row 0", "row 1"]);
        assert_eq!(read(&format!("{file}[75%:]")).unwrap(), ["row 6", "row 7"]);
        assert_eq!(read(&format!("{folder}[2:3]")).unwrap(), ["row 2"]);
        let twice = Specification {
            dataset: format!("{file}[:2]"),
            split: Some("train[:1]".to_owned()),
            ..Specification::default()
        };
        assert!(matches!(read(twice), Err(SourceError::SliceTwice { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn folders_that_hold_themselves_are_read_once() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("inner")).unwrap();
        std::fs::write(data.join("inner/train.jsonl"), "{\"text\": \"x\"}").unwrap();
        symlink(".", data.join("a")).unwrap();
        symlink(".", data.join("b")).unwrap();
        symlink("..", data.join("inner/up")).unwrap();
        symlink("/", data.join("inner/root")).unwrap();
        symlink("inner", data.join("again")).unwrap();
        symlink("nowhere", data.join("broken")).unwrap();
        assert_eq!(read(data.to_str().unwrap()).unwrap(), ["x"]);
        // A link to data elsewhere is followed.
        let elsewhere = folder.path().join("linked");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(data.join("inner"), elsewhere.join("there")).unwrap();
        assert_eq!(read(elsewhere.to_str().unwrap()).unwrap(), ["x"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_in_a_folder_is_named_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("train.jsonl")).unwrap();
        let error = read(folder.path().to_str().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("train.jsonl` is a device, expected a regular file"), "{text}");
    }
}
