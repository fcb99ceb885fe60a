//! Optuna's journal: a study as a file of JSON lines, append only.
//!
//! Every line is one operation; the state of all studies in a file is what replaying its lines gives ([`Replay`]).
//! Nothing is ever changed or removed, so whoever is killed at any instant leaves at worst an incomplete last line.
//!
//! Several programs may write at once, Python among them: each appends under a lock file (`lock`), and reads
//! back what others wrote before it. On top of that, a [`Journal`] opened for writing keeps an operating-system
//! lock, so that two of *our* processes cannot work on one file; the system releases it however we die.
//!
//! - `record` – one line, parsed and written; `fields`, `operation`, `distribution_json` – its parts
//! - `replay` – what the lines mean
//! - `python_json` – what Python writes that JSON does not know
//! - `lock` – taking turns with other writers
//! - `file` – reading, appending, and undoing what failed half-way
//!
//! # Source
//! Optuna 4.8 and 5.0, `optuna/storages/journal`: the format has no other description. What both agree on is
//! written; what either writes is read.

mod distribution_json;
mod fields;
mod file;
mod lock;
mod operation;
mod python_json;
mod record;
mod replay;

use std::path::PathBuf;

pub use fields::RecordError;
pub use file::{Journal, load};
pub use operation::{Operation, Owner};
pub use replay::Replay;

pub(crate) use python_json::number;

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("journal `{}`: failed to {action}\n\nhint: {}", path.display(), hint(source))]
    Io {
        /// The file, or the lock beside it.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a record.
    #[error("journal `{}`, line {line}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The file is something else.
    #[error(
        "`{}` is not a journal: it has no complete record and begins with `{start}`\n\n\
         hint: give the path of a study file, or of one that does not exist yet",
        path.display()
    )]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// Its first characters.
        start: String,
    },
    /// Another of our processes has the file open for writing.
    #[error(
        "journal `{}` is in use by another process\n\n\
         hint: wait until it ends, or give this run another study file; reading is possible at any time",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file has fewer bytes than have been read from it.
    #[error(
        "journal `{}` shrank from {expected} to {found} bytes while it was in use\n\n\
         hint: another program replaced or cut the file; start again to continue with what it holds now",
        path.display()
    )]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// How many bytes had been read.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// Another program appended while we held the lock.
    #[error(
        "journal `{}`: expected {expected} bytes after appending, found {found}\n\n\
         hint: another program writes without taking the lock, or broke ours because this process was \
         suspended for long; start again to continue with what the file holds now",
        path.display()
    )]
    Interfered {
        /// The file.
        path: PathBuf,
        /// How long it should have been.
        expected: u64,
        /// How long it is.
        found: u64,
    },
}

/// What a user can do about an error of the operating system.
fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "check the path; its folder must exist",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "the file and its folder must be writable, for a lock file is made beside it"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room, then start again: nothing that was told before is lost"
        }
        ErrorKind::IsADirectory => "give the path of a file",
        ErrorKind::InvalidData => "the file must be UTF-8 text",
        _ => "nothing that was told before is lost; start again once the cause is gone",
    }
}
