//! Where prompts come from.
//!
//! A growth room: this file holds the trait, the list of kinds and their rules; each kind is a file of its own.
//! Rules: a source is named by a [`Specification`], the same one means the same source on every machine, and opening
//! one reads nothing until [`PromptSource::load`]. A source that yields no prompt is an error, never an empty list.

mod dataset;
mod embedded;
mod literal;
mod slice;
mod split;
mod text_file;

pub use dataset::{Dataset, DatasetError};
pub use embedded::{EMBEDDED_SETS, Embedded, EmbeddedSet, UnknownSet};
pub use literal::Literal;
pub use slice::{Bound, Slice, SliceError};
pub use split::{Split, SplitPart};
pub use text_file::TextFile;

use files::FileError;
use hub::Client;

/// Where prompts come from.
pub trait PromptSource: std::fmt::Debug {
    /// The source in one line, as it was asked for.
    fn name(&self) -> String;

    /// All prompts, in order; at least one.
    fn load(&self) -> Result<Vec<String>, SourceError>;

    /// All prompts of which [`Self::load`] gives a part; the same where it gives all.
    fn load_all(&self) -> Result<Vec<String>, SourceError> {
        self.load()
    }
}

/// What names a source. Made of a text, it is that text and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specification {
    /// A file, a folder, a data set of the hub, an embedded set.
    pub dataset: String,
    /// The commit of a data set of the hub.
    pub commit: Option<String>,
    /// A configuration of a data set.
    pub config: Option<String>,
    /// A part, as [`Split`] reads it.
    pub split: Option<String>,
    /// The column that holds the prompts.
    pub column: Option<String>,
}

impl From<&str> for Specification {
    fn from(line: &str) -> Self {
        Self { dataset: line.to_owned(), ..Self::default() }
    }
}

impl From<&String> for Specification {
    fn from(line: &String) -> Self {
        line.as_str().into()
    }
}

/// Where a source lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the program, or in the name itself.
    Program,
    /// On this machine alone.
    Machine,
    /// On the hub.
    Hub,
}

impl Specification {
    /// Where the source lies.
    pub fn place(&self) -> Place {
        if embedded::is_named(&self.dataset) || literal::is_named(&self.dataset) {
            Place::Program
        } else if dataset::on_the_hub(self).is_some() {
            Place::Hub
        } else {
            Place::Machine
        }
    }

    /// The slice of a source that has one list of prompts: what its name may end in, or else the split.
    fn slice(&self, at_the_end: Option<Slice>) -> Result<Option<Slice>, SourceError> {
        let Some(split) = &self.split else { return Ok(at_the_end) };
        let split: Split = split.parse()?;
        match (split.parts.as_slice(), at_the_end) {
            ([part], None) => Ok(part.slice),
            _ => Err(SourceError::SliceTwice { name: self.dataset.clone(), split: split.to_string() }),
        }
    }
}

/// Recognizes a source by what names it.
type Recognize = fn(&Specification, &Client) -> Option<Result<Box<dyn PromptSource>, SourceError>>;

/// The kinds of sources; the first that recognizes a specification has it.
const KINDS: &[Recognize] =
    &[literal::recognize, embedded::recognize, dataset::recognize, text_file::recognize];

/// The source that a specification, or a line of text, names.
///
/// - `text:Say hello.`: that one prompt
/// - `embedded:ordinary-train`, `embedded:ordinary-train[:40]`: a set that comes with the program, or a part of it
/// - `prompts.txt`, `-`: a text file or standard input, one prompt a line
/// - `prompts.txt[:400]`, `prompts.txt[10%:20%]`: a part of it, as [`Slice`] explains
/// - a folder, a file `.parquet`, `.jsonl`, `.json`, `.csv`, `.tsv` or `.arrow`, `owner/name`: a [`Dataset`]
///
/// # Errors
/// [`SourceError::Slice`] when the part is malformed, [`SourceError::UnknownSet`] when no embedded set has the name.
pub fn open(specification: impl Into<Specification>) -> Result<Box<dyn PromptSource>, SourceError> {
    open_with(specification, &Client::from_environment())
}

/// The same with a client for what lies on the hub.
pub fn open_with(
    specification: impl Into<Specification>,
    client: &Client,
) -> Result<Box<dyn PromptSource>, SourceError> {
    let specification = specification.into();
    KINDS
        .iter()
        .find_map(|it| it(&specification, client))
        .unwrap_or_else(|| Err(SourceError::Unknown { line: specification.dataset.clone() }))
}

/// Why there are no prompts.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No kind of source has such a name.
    #[error("`{line}` names no source of prompts")]
    Unknown {
        /// What was given.
        line: String,
    },
    /// A part of a part.
    #[error("`{name}` is one list, and cannot be cut by `{split}`\n\nhint: give one slice: `[:400]`")]
    SliceTwice {
        /// The source.
        name: String,
        /// The split.
        split: String,
    },
    /// The file cannot be read.
    #[error("prompts: {0}")]
    File(#[from] FileError),
    /// The part asked for is malformed.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// A data set has not what was asked for.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// No embedded set has such a name.
    #[error(transparent)]
    UnknownSet(#[from] UnknownSet),
    /// There is nothing, or the part asked for is empty.
    #[error("`{name}` holds no prompts: {total} rows or lines that are not blank, none of them selected")]
    Empty {
        /// The source.
        name: String,
        /// How many prompts the whole has.
        total: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_this_machine_alone_is_told_from_what_others_have() {
        let place = |name: &str| Specification::from(name).place();
        assert_eq!(place("embedded:demo-refused-eval[:3]"), Place::Program);
        assert_eq!(place("text:a/b"), Place::Program);
        assert_eq!(place("owner/name"), Place::Hub);
        for name in ["prompts.txt[:4]", "/a/folder/prompts.txt", "-", "a.jsonl", "src", "a/b/c"] {
            assert_eq!(place(name), Place::Machine, "{name}");
        }
        let mut told = Specification::from("name");
        told.split = Some("train".to_owned());
        assert_eq!(told.place(), Place::Hub);
    }
}
