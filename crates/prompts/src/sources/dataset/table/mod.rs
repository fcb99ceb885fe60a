//! Columns of texts from files of tables.
//!
//! A file is read by a crate that knows its format, and what it makes of a damaged file is this room's to bear: what it
//! says of sizes is checked against the file before anything is reserved, texts are counted while they come, and a panic
//! is an error.

mod arrow;
mod json;
mod pages;
mod parquet;
mod separated;

use std::fs::File;
use std::path::Path;

use files::FileError;

use super::DatasetError;
use crate::contained::contained;
use crate::sources::SourceError;

/// A kind of file. In the order in which one is preferred among equally many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Parquet,
    Json,
    Csv,
    Tsv,
    Arrow,
    Text,
}

impl Format {
    /// The kind that a file's name tells, with `.gz` at its end or without.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        Some(match plain.rsplit_once('.')?.1 {
            "parquet" => Self::Parquet,
            "jsonl" | "json" | "ndjson" => Self::Json,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "arrow" => Self::Arrow,
            "txt" => Self::Text,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Json => "JSON lines",
            Self::Csv => "CSV",
            Self::Tsv => "tab-separated values",
            Self::Arrow => "Arrow",
            Self::Text => "text",
        }
    }
}

/// The most bytes of texts that a file of so many may unfold into. Prompts compress by 3 to 30; a text that is repeated in
/// all rows takes next to nothing, and is why small files have a bound of their own.
fn most_unfolded(file: u64) -> u64 {
    const LEAST: u64 = 256 << 20;
    const MOST: u64 = 4 << 30;
    file.saturating_mul(256).clamp(LEAST, MOST)
}

/// What a text takes in memory beside its bytes.
const PER_TEXT: u64 = size_of::<String>() as u64;

/// A file that is being read, for errors.
struct Reading<'a> {
    file: &'a str,
    format: Format,
    column: Option<&'a str>,
    /// The most bytes of texts.
    most: u64,
}

/// Texts that are counted while they come.
struct Texts<'a> {
    reading: &'a Reading<'a>,
    all: Vec<String>,
    bytes: u64,
}

impl Texts<'_> {
    fn push(&mut self, text: &str) -> Result<(), DatasetError> {
        self.bytes += text.len() as u64 + PER_TEXT;
        if self.bytes > self.reading.most {
            return Err(self.reading.too_large());
        }
        self.all.push(text.to_owned());
        Ok(())
    }

    fn rows(&self) -> usize {
        self.all.len()
    }
}

/// A column of a file; its only column of texts if none is named. `shown` is what errors call it.
pub(super) fn column(shown: &str, path: &Path, column: Option<&str>) -> Result<Vec<String>, SourceError> {
    let format = Format::of(&path.to_string_lossy()).or(Format::of(shown)).unwrap_or(Format::Text);
    let file = files::open(path)?;
    let length = file.metadata().map_or(0, |it| it.len());
    let reading = Reading { file: shown, format, column, most: most_unfolded(length) };
    let read = || match format {
        Format::Parquet => Ok(reading.parquet(file)?),
        Format::Arrow => Ok(reading.arrow(file)?),
        _ => reading.of_text(file, path),
    };
    contained(read).unwrap_or_else(|panic| Err(reading.malformed(&panic).into()))
}

impl<'a> Reading<'a> {
    fn of_text(&self, file: File, path: &Path) -> Result<Vec<String>, SourceError> {
        let shown = Path::new(self.file);
        let packed = self.file.to_ascii_lowercase().ends_with(".gz")
            || path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gz"));
        let bytes = if packed {
            let unpacked = flate2::read::MultiGzDecoder::new(file);
            files::read_from(shown, unpacked, self.most).map_err(|it| match it {
                FileError::TooLarge { .. } => SourceError::from(self.too_large()),
                other => other.into(),
            })?
        } else {
            files::read_from(shown, file, self.most)?
        };
        let text = files::text(shown, bytes)?;
        Ok(match self.format {
            Format::Json => self.json(&text)?,
            Format::Csv => self.separated(&text, b',')?,
            Format::Tsv => self.separated(&text, b'\t')?,
            _ => self.lines(&text)?,
        })
    }

    fn texts(&'a self) -> Texts<'a> {
        Texts { reading: self, all: Vec::new(), bytes: 0 }
    }

    fn too_large(&self) -> DatasetError {
        DatasetError::TooLarge { file: self.file.to_owned(), most: self.most }
    }

    fn malformed(&self, reason: &dyn std::fmt::Display) -> DatasetError {
        DatasetError::Malformed {
            file: self.file.to_owned(),
            format: self.format.name(),
            reason: reason.to_string(),
        }
    }

    fn cell(&self, row: usize, column: &str, found: impl Into<String>) -> DatasetError {
        DatasetError::Cell { file: self.file.to_owned(), row, column: column.to_owned(), found: found.into() }
    }

    /// The place of the column asked for, or of the only one that may be meant.
    fn choose(&self, names: &[String], texts: &[bool]) -> Result<usize, DatasetError> {
        let file = self.file.to_owned();
        if let Some(column) = self.column {
            let unknown = || DatasetError::Column { file, column: column.to_owned(), known: names.to_vec() };
            return names.iter().position(|it| it == column).ok_or_else(unknown);
        }
        let meant: Vec<usize> = (0..names.len()).filter(|&it| texts[it]).collect();
        match meant.as_slice() {
            [only] => Ok(*only),
            [] => Err(DatasetError::NoTexts { file, known: names.to_vec() }),
            several => {
                let known = several.iter().map(|&it| names[it].clone()).collect();
                Err(DatasetError::Columns { file, known })
            }
        }
    }

    /// Lines as they are: a data set's text file has a row for each, blank ones included.
    fn lines(&self, text: &str) -> Result<Vec<String>, DatasetError> {
        self.choose(&["text".to_owned()], &[true])?;
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        Ok(text.strip_suffix('\n').unwrap_or(&text).split('\n').map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests;
