//! A file that is being written, and how far all of them have come.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use super::replacement::{Replacement, encode};
use super::{Progress, WriteError};
use crate::TensorDtype;
use crate::mapped_file::MappedFile;

/// How much is written, or computed, between two reports: seldom enough to cost nothing, often enough to stop soon.
const PIECE: usize = 4 << 20;

/// What a tensor is written from.
pub(super) enum Content<'a> {
    /// The bytes of the input.
    Copied { file: &'a MappedFile, range: Range<usize> },
    /// New numbers.
    Replaced { replacement: &'a Replacement<'a>, dtype: TensorDtype },
}

impl Content<'_> {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Copied { range, .. } => range.len() as u64,
            // A replaceable type takes at most 8 bytes, and the numbers were counted in the input.
            Self::Replaced { replacement, dtype } => replacement.len() as u64 * dtype.block().1 as u64,
        }
    }
}

/// How far writing has come, for the caller.
pub(super) struct Meter<'a> {
    pub(super) progress: Progress,
    pub(super) report: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Meter<'_> {
    fn advance(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.progress.done += bytes as u64;
        match (self.report)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WriteError::Cancelled),
        }
    }
}

/// A file that is being written.
pub(super) struct Output<'a, 'm> {
    path: PathBuf,
    file: BufWriter<File>,
    meter: &'a mut Meter<'m>,
}

impl<'a, 'm> Output<'a, 'm> {
    /// A new file; that there is one already is an error.
    pub(super) fn create(path: PathBuf, meter: &'a mut Meter<'m>) -> Result<Self, WriteError> {
        let file = File::create_new(&path).map_err(|problem| WriteError::io(&path, problem))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file), meter })
    }

    /// Bytes that are not part of a tensor.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|problem| failed(&self.path, problem, self.meter.progress.total))
    }

    /// A tensor.
    pub(super) fn tensor(&mut self, name: &str, content: &Content) -> Result<(), WriteError> {
        match content {
            Content::Copied { file, range } => self.copy(file, range.clone()),
            Content::Replaced { replacement, dtype } => self.compute(name, replacement, *dtype),
        }
    }

    fn copy(&mut self, file: &MappedFile, range: Range<usize>) -> Result<(), WriteError> {
        for start in range.clone().step_by(PIECE) {
            let piece = start..range.end.min(start + PIECE);
            self.write(&file.bytes()[piece.clone()])?;
            self.meter.advance(piece.len())?;
        }
        // A whole model should not pile up in memory on its way from disk to disk.
        file.release(range.start, range.len());
        Ok(())
    }

    fn compute(
        &mut self,
        name: &str,
        replacement: &Replacement,
        dtype: TensorDtype,
    ) -> Result<(), WriteError> {
        let row_len = replacement.row_len();
        if row_len == 0 {
            return Ok(());
        }
        let rows = replacement.len() / row_len;
        let rows_at_once = (PIECE / (8 * row_len)).max(1);
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for first in (0..rows).step_by(rows_at_once) {
            numbers.clear();
            numbers.resize(rows_at_once.min(rows - first) * row_len, 0.0);
            replacement.fill(first, &mut numbers);
            bytes.clear();
            encode(dtype, &numbers, &mut bytes).map_err(|(place, value)| WriteError::Unrepresentable {
                name: name.to_owned(),
                row: first + place / row_len,
                column: place % row_len,
                value,
                dtype,
            })?;
            self.write(&bytes)?;
            self.meter.advance(bytes.len())?;
        }
        Ok(())
    }

    /// Sees to it that everything is on the disk.
    pub(super) fn finish(mut self) -> Result<PathBuf, WriteError> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        done.map_err(|problem| failed(&self.path, problem, self.meter.progress.total))?;
        Ok(self.path)
    }
}

/// The error of a write, with a full disk told apart.
pub(super) fn failed(path: &Path, problem: io::Error, needed: u64) -> WriteError {
    match problem.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            WriteError::NoSpace { path: path.to_owned(), needed, free: None }
        }
        _ => WriteError::io(path, problem),
    }
}
