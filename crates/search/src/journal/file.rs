//! Reading a journal, appending to it, and undoing what failed half-way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock::{FileLock, GRACE, beside, sync_folder, unique_name};
use super::record::Record;
use super::{JournalError, Operation, RecordError, Replay};

/// How every record of Optuna's and of ours begins.
const BEGINNING: &[u8] = b"{\"op_code\":";

/// Whose records are ours, whichever process wrote them.
const WORKER: &str = "ablate-search-";

/// A journal opened for writing, or one in memory.
///
/// Everything that is appended is on the disk when [`Journal::append`] returns.
#[derive(Debug)]
pub struct Journal {
    replay: Replay,
    worker: String,
    lines: usize,
    file: Option<OpenFile>,
}

/// The file, and how far it was read.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
    /// Bytes of complete lines that were read.
    offset: u64,
    /// Keeps others of our processes out until it is unlocked, by us or, however we die, by the system.
    owner: File,
    /// Why it does not, where the file system has no such locks.
    unlocked: Option<String>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started by another thread holds a copy of the handle for a
        // moment, and the lock with it. If this fails, closing is all that is left.
        drop(self.owner.unlock());
    }
}

/// Reads a journal without locking or changing anything, while others may be writing. An incomplete last line is
/// what someone is about to write, and is ignored.
pub fn load(path: impl AsRef<Path>) -> Result<Replay, JournalError> {
    let path = path.as_ref();
    let io = |action| move |source| JournalError::Io { path: path.into(), action, source };
    let mut file = File::open(path).map_err(io("open it for reading"))?;
    let mut journal = Journal::in_memory();
    let (offset, tail) = journal.read_from(path, &mut file, 0)?;
    if offset == 0 && !tail.is_empty() {
        check_beginning(path, &tail)?;
    }
    Ok(journal.replay)
}

impl Journal {
    /// A journal that is gone when it is dropped.
    pub fn in_memory() -> Self {
        let worker = format!("{WORKER}{}", unique_name());
        Self { replay: Replay::default(), worker, lines: 0, file: None }
    }

    /// Opens a journal for writing, or creates an empty one. An incomplete last line, left by someone who was
    /// killed, is completed if it lacks only its end, and cut off otherwise: nobody was told that it was written.
    ///
    /// Where the file system has no locks (NFS without a lock daemon, some of FUSE), the journal is open all the same:
    /// [`Journal::unlocked`] says why, and a lock file that one of ours left behind is waited for as those of others are.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        Self::open_with(path.into(), &File::try_lock)
    }

    fn open_with(
        path: PathBuf,
        try_lock: &dyn Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, JournalError> {
        let io = |action| {
            let path = path.clone();
            move |source| JournalError::Io { path, action, source }
        };
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(io("open it for writing"))?;
        if is_new {
            sync_folder(&path).map_err(io("write its folder to the disk"))?;
        }
        // On Windows a locked file cannot be read by others, so the lock lies beside it.
        let owner = if cfg!(windows) {
            let options =
                OpenOptions::new().write(true).create(true).truncate(false).open(beside(&path, ".owner"));
            options.map_err(io("open the file beside it that says who writes"))?
        } else {
            file.try_clone().map_err(io("open it a second time"))?
        };
        let unlocked = match try_lock(&owner) {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path }),
            Err(TryLockError::Error(source)) => Some(source.to_string()),
        };
        let mut journal = Self::in_memory();
        journal.file = Some(OpenFile { path, file, offset: 0, owner, unlocked });
        journal.append(|_| Ok::<_, JournalError>((Vec::new(), ())))?;
        Ok(journal)
    }

    /// Why nothing keeps another process of ours from opening this journal too, if nothing does: what the system said.
    pub fn unlocked(&self) -> Option<&str> {
        self.file.as_ref()?.unlocked.as_deref()
    }

    /// All studies as they stand, after the last append.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Appends operations that are decided while nobody else can write, all of them or none.
    ///
    /// `decide` sees everything that others wrote before, so the ids of what it creates are known to it.
    pub fn append<T, E: From<JournalError>>(
        &mut self,
        decide: impl FnOnce(&Replay) -> Result<(Vec<Operation>, T), E>,
    ) -> Result<T, E> {
        let Some((path, alone)) = self.file.as_ref().map(|it| (it.path.clone(), it.unlocked.is_none()))
        else {
            let (operations, result) = decide(&self.replay)?;
            let text = self.text(&operations, Path::new("in memory"))?;
            for line in text.split_inclusive('\n') {
                self.apply(line.as_bytes(), Path::new("in memory"))?;
            }
            return Ok(result);
        };
        let _turn = FileLock::acquire(&path, GRACE, alone)?;
        self.catch_up()?;
        let (operations, result) = decide(&self.replay)?;
        let text = self.text(&operations, &path)?;
        if !text.is_empty() {
            self.write(&text)?;
        }
        Ok(result)
    }

    /// Operations as lines. What could not be read back is not written.
    fn text(&self, operations: &[Operation], path: &Path) -> Result<String, JournalError> {
        let mut text = String::new();
        for (place, operation) in operations.iter().enumerate() {
            let line = Record { worker: self.worker.clone(), operation: operation.clone() }.line();
            let line_number = self.lines + place + 1;
            Record::parse(line.as_bytes()).map_err(|source| JournalError::Record {
                path: path.into(),
                line: line_number,
                source,
            })?;
            text.push_str(&line);
        }
        Ok(text)
    }

    /// Reads what others wrote, and repairs an incomplete last line. The caller holds the lock, so whoever left the
    /// line incomplete is not about to complete it.
    fn catch_up(&mut self) -> Result<(), JournalError> {
        let tail = self.sync()?;
        if tail.is_empty() {
            return Ok(());
        }
        let Some(open) = &self.file else { return Ok(()) };
        let (path, offset) = (open.path.clone(), open.offset);
        if offset == 0 {
            check_beginning(&path, &tail)?;
        }
        if Record::parse(&tail).is_ok() {
            return self.write("\n");
        }
        truncate(&path, offset).map_err(|source| JournalError::Io {
            path,
            action: "cut off its incomplete last line",
            source,
        })
    }

    /// Appends text that ends a line and reads it back, or leaves the file as it was.
    fn write(&mut self, text: &str) -> Result<(), JournalError> {
        let Some(open) = &mut self.file else { return Ok(()) };
        let io = |path: &Path, action| {
            let path = path.to_path_buf();
            move |source| JournalError::Io { path, action, source }
        };
        let length = open.file.metadata().map_err(io(&open.path, "ask for its length"))?.len();
        let written = open.file.write_all(text.as_bytes()).and_then(|()| open.file.sync_data());
        if let Err(source) = written {
            // If this fails too, the next one to open the file repairs it.
            drop(truncate(&open.path, length));
            return Err(io(&open.path, "append to it")(source));
        }
        let (path, expected) = (open.path.clone(), length + text.len() as u64);
        self.sync()?;
        let found = self.file.as_ref().map_or(expected, |it| it.offset);
        if found == expected { Ok(()) } else { Err(JournalError::Interfered { path, expected, found }) }
    }

    /// Applies all complete lines after those that were read, and returns what follows them.
    fn sync(&mut self) -> Result<Vec<u8>, JournalError> {
        let Some(mut open) = self.file.take() else { return Ok(Vec::new()) };
        let result = self.read_from(&open.path, &mut open.file, open.offset);
        let result = result.map(|(offset, tail)| {
            open.offset = offset;
            tail
        });
        self.file = Some(open);
        result
    }

    /// Applies all complete lines from an offset on; returns where they end, and what follows.
    fn read_from(&mut self, path: &Path, file: &mut File, from: u64) -> Result<(u64, Vec<u8>), JournalError> {
        let io = |action| move |source| JournalError::Io { path: path.into(), action, source };
        let length = file.metadata().map_err(io("ask for its length"))?.len();
        if length < from {
            return Err(JournalError::Shrunk { path: path.into(), expected: from, found: length });
        }
        file.seek(SeekFrom::Start(from)).map_err(io("read it"))?;
        // What is appended from now on is left for the next time.
        let mut reader = BufReader::new(file.take(length - from));
        let mut offset = from;
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).map_err(io("read it"))?;
            if !line.ends_with(b"\n") {
                return Ok((offset, line));
            }
            self.apply(&line, path)?;
            offset += read as u64;
        }
    }

    /// Applies one line.
    fn apply(&mut self, line: &[u8], path: &Path) -> Result<(), JournalError> {
        let record = Record::parse(line).map_err(|source| {
            let is_foreign = !matches!(&source, RecordError::UnknownOperation { .. }) && self.lines == 0;
            match check_beginning(path, line) {
                Err(error) if is_foreign => error,
                _ => JournalError::Record { path: path.into(), line: self.lines + 1, source },
            }
        })?;
        self.lines += 1;
        let is_ours = record.worker.starts_with(WORKER);
        self.replay.apply(record, is_ours);
        Ok(())
    }
}

/// Whether the first bytes of a file may be a record, or the part of one that a killed process wrote.
fn check_beginning(path: &Path, start: &[u8]) -> Result<(), JournalError> {
    let spaceless: Vec<u8> = start.iter().copied().filter(|it| *it != b' ').take(BEGINNING.len()).collect();
    if BEGINNING.starts_with(&spaceless) {
        return Ok(());
    }
    let start = String::from_utf8_lossy(start).chars().take(40).collect();
    Err(JournalError::NotAJournal { path: path.into(), start })
}

/// Cuts a file. A handle that only appends may not do that everywhere.
fn truncate(path: &Path, length: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Goal;

    fn study(name: &str) -> Operation {
        Operation::CreateStudy { name: name.into(), goals: vec![Goal::Minimize] }
    }

    fn append(journal: &mut Journal, operation: Operation) -> Result<(), JournalError> {
        journal.append(|_| Ok((vec![operation], ())))
    }

    /// A folder with a journal of two studies, and what it holds.
    fn two_studies() -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        append(&mut journal, study("a")).unwrap();
        append(&mut journal, study("b")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        (folder, path, text)
    }

    fn names(replay: &Replay) -> Vec<&str> {
        replay.studies().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn an_incomplete_last_line_is_cut_off_before_the_first_append() {
        let (_folder, path, text) = two_studies();
        let first_line = text.find('\n').unwrap() + 1;
        for length in first_line + 1..text.len() - 1 {
            fs::write(&path, &text[..length]).unwrap();
            assert_eq!(names(&load(&path).unwrap()), ["a"], "{length} bytes");
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text[..first_line]);
            append(&mut journal, study("c")).unwrap();
            assert_eq!(names(&load(&path).unwrap()), ["a", "c"]);
        }
    }

    #[test]
    fn a_last_line_that_lacks_only_its_end_is_completed() {
        let (_folder, path, text) = two_studies();
        fs::write(&path, text.trim_end()).unwrap();
        assert_eq!(names(&load(&path).unwrap()), ["a"], "as in Python, a reader does not see it yet");
        assert_eq!(names(Journal::open(&path).unwrap().replay()), ["a", "b"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn zeros_that_a_power_failure_left_at_the_end_are_cut_off() {
        let (_folder, path, text) = two_studies();
        fs::write(&path, format!("{text}\0\0\0\0")).unwrap();
        drop(Journal::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named_and_nothing_is_changed() {
        let (_folder, path, text) = two_studies();
        let broken = text.replacen('\n', "\n{\"op_code\":\n", 1);
        fs::write(&path, &broken).unwrap();
        for error in [load(&path).unwrap_err(), Journal::open(&path).unwrap_err()] {
            assert!(matches!(error, JournalError::Record { line: 2, .. }), "{error}");
            assert!(error.to_string().contains("line 2: not JSON"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    }

    #[test]
    fn an_empty_line_is_an_error_as_it_is_in_python() {
        let (_folder, path, text) = two_studies();
        fs::write(&path, text.replacen('\n', "\n\n", 1)).unwrap();
        assert!(matches!(load(&path).unwrap_err(), JournalError::Record { line: 2, .. }));
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        let (_folder, path, text) = two_studies();
        fs::write(&path, text.replace('\n', "\r\n")).unwrap();
        assert_eq!(names(&load(&path).unwrap()), ["a", "b"]);
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_and_left_alone() {
        let (_folder, path, _) = two_studies();
        for text in ["{}", "model = \"x\"\n", "{\"a\": 1}\n", "\u{feff}{\"op_code\":0}", "PK\x03\x04", "\n"] {
            fs::write(&path, text).unwrap();
            for error in [load(&path).unwrap_err(), Journal::open(&path).unwrap_err()] {
                assert!(matches!(error, JournalError::NotAJournal { .. }), "{text:?}: {error}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_first_line_that_was_cut_anywhere_is_begun_again() {
        let (_folder, path, text) = two_studies();
        for length in 0..text.find('\n').unwrap() {
            fs::write(&path, &text[..length]).unwrap();
            assert_eq!(names(&load(&path).unwrap()), Vec::<&str>::new());
            drop(Journal::open(&path).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), "", "{length} bytes");
        }
    }

    #[test]
    fn a_second_writer_of_ours_is_kept_out_until_the_first_is_gone() {
        let (_folder, path, _) = two_studies();
        let first = Journal::open(&path).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Busy { .. }), "{error}");
        assert_eq!(names(&load(&path).unwrap()), ["a", "b"], "reading is possible at any time");
        drop(first);
        Journal::open(&path).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_has_journals_all_the_same_and_says_so() {
        let (_folder, path, _) = two_studies();
        for kind in [std::io::ErrorKind::Unsupported, std::io::ErrorKind::Other] {
            let refuse = |_: &File| Err(TryLockError::Error(std::io::Error::new(kind, "no locks available")));
            let mut journal = Journal::open_with(path.clone(), &refuse).unwrap();
            assert_eq!(journal.unlocked(), Some("no locks available"));
            append(&mut journal, study(&format!("{kind:?}"))).unwrap();
        }
        assert_eq!(names(&load(&path).unwrap()), ["a", "b", "Unsupported", "Other"]);
        assert_eq!(Journal::open(&path).unwrap().unlocked(), None);
    }

    #[test]
    fn what_others_append_is_seen_before_the_next_decision() {
        let (_folder, path, _) = two_studies();
        let mut journal = Journal::open(&path).unwrap();
        let line = Record { worker: "someone".into(), operation: study("theirs") }.line();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
        let seen = journal.append(|replay| Ok::<_, JournalError>((vec![study("c")], replay.next_study())));
        assert_eq!(seen.unwrap(), 3);
        assert_eq!(names(journal.replay()), ["a", "b", "theirs", "c"]);
    }

    #[test]
    fn what_a_killed_python_left_incomplete_is_cut_off_while_we_run() {
        let (_folder, path, text) = two_studies();
        let mut journal = Journal::open(&path).unwrap();
        fs::write(&path, format!("{text}{{\"op_code\":4,\"wor")).unwrap();
        append(&mut journal, study("c")).unwrap();
        assert_eq!(names(&load(&path).unwrap()), ["a", "b", "c"]);
    }

    #[test]
    fn a_file_that_shrinks_while_in_use_is_an_error() {
        let (_folder, path, text) = two_studies();
        let mut journal = Journal::open(&path).unwrap();
        truncate(&path, 5).unwrap();
        let error = append(&mut journal, study("c")).unwrap_err();
        let expected = text.len() as u64;
        assert!(
            matches!(error, JournalError::Shrunk { expected: e, found: 5, .. } if e == expected),
            "{error}"
        );
    }

    #[test]
    fn a_decision_that_fails_writes_nothing_and_gives_the_turn_back() {
        let (folder, path, text) = two_studies();
        let mut journal = Journal::open(&path).unwrap();
        let failed: Result<(), JournalError> =
            journal.append(|_| Err(JournalError::Busy { path: "reason".into() }));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_a_file_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Journal::open(folder.path().join("missing/study.jsonl")).unwrap_err().to_string();
        assert!(error.contains("missing/study.jsonl") && error.contains("hint: check the path"), "{error}");
        let error = Journal::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("hint: give the path of a file"), "{error}");
        let error = load(folder.path().join("nothing")).unwrap_err().to_string();
        assert!(error.contains("hint: check the path"), "{error}");
    }
}
