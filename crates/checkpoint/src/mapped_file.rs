//! A file mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::CheckpointError;

/// A regular file, mapped for reading.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file. Empty files and folders are refused.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |problem| CheckpointError::Io { path: path.to_owned(), problem };
        // Before opening: to open a named pipe waits for a writer.
        let facts = std::fs::metadata(path).map_err(io)?;
        if !facts.is_file() {
            return Err(CheckpointError::NotAFile { path: path.to_owned() });
        }
        if facts.len() == 0 {
            return Err(CheckpointError::EmptyFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read. Rust assumes that mapped bytes do not change; another process that
        // writes to the file breaks that, and one that truncates it makes a later read raise SIGBUS. No
        // portable lock prevents either, so this is the documented contract of `Checkpoint::open`. Bytes are
        // only ever read as plain numbers for which every bit pattern is valid; lengths and offsets are taken
        // from the header once, while opening, and not again.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that a range of the file is not needed in memory any more. Only a hint: reading the
    /// range again brings it back, and where the system has no such call nothing happens.
    pub(crate) fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if len > 0 {
            // SAFETY: `DontNeed` discards pages. These belong to a read-only map of a file, were never written
            // to, and so come back with the file's bytes at the next access: no reader, on whichever thread,
            // sees anything else.
            let advised =
                unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
            // A refused hint leaves the pages where they are, which is correct, only larger.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }
}
