//! Where prompts come from.
//!
//! A growth room: this file holds the trait, the list of kinds and their rules; each kind is a file of its own.
//! Rules: a source is named by one line of text, the same line means the same source on every machine, and opening
//! one reads nothing until [`PromptSource::load`]. A source that yields no prompt is an error, never an empty list.

mod embedded;
mod literal;
mod slice;
mod text_file;

pub use embedded::{EMBEDDED_SETS, Embedded, EmbeddedSet, UnknownSet, disclaimer_markers};
pub use literal::Literal;
pub use slice::{Bound, Slice, SliceError};
pub use text_file::TextFile;

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

/// Recognizes a source by the line that names it.
type Recognize = fn(&str) -> Option<Result<Box<dyn PromptSource>, SourceError>>;

/// The kinds of sources; the first that recognizes a line has it.
const KINDS: &[Recognize] = &[literal::recognize, embedded::recognize, text_file::recognize];

/// The source that a line names.
///
/// - `text:Say hello.`: that one prompt
/// - `embedded:ordinary-train`, `embedded:ordinary-train[:40]`: a set that comes with the program, or a part of it
/// - `prompts.txt`, `-`: a text file or standard input, one prompt a line
/// - `prompts.txt[:400]`, `prompts.txt[10%:20%]`: a part of it, as [`Slice`] explains
///
/// # Errors
/// [`SourceError::Slice`] when the part is malformed, [`SourceError::UnknownSet`] when no embedded set has the name.
pub fn open(line: &str) -> Result<Box<dyn PromptSource>, SourceError> {
    KINDS
        .iter()
        .find_map(|it| it(line))
        .unwrap_or_else(|| Err(SourceError::Unknown { line: line.to_owned() }))
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
    /// The file cannot be read.
    #[error("cannot read prompts from `{path}`: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file is not text.
    #[error(
        "`{path}`, line {line}: not valid UTF-8\n\nhint: convert the file, for example with `iconv -t UTF-8`"
    )]
    NotUtf8 {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// The part asked for is malformed.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// No embedded set has such a name.
    #[error(transparent)]
    UnknownSet(#[from] UnknownSet),
    /// There is nothing, or the part asked for is empty.
    #[error("`{name}` holds no prompts: {total} lines that are not blank, none of them selected")]
    Empty {
        /// The source.
        name: String,
        /// How many prompts the whole has.
        total: usize,
    },
}
