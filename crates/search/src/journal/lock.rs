//! Taking turns with other programs that append to the same journal.
//!
//! Optuna's protocol: whoever creates `FILE.lock` may write; creation fails if the name exists, whether it was made
//! as a file (as here) or as a symbolic link (Optuna's default). It is given back by renaming it to a name of one's
//! own and removing that, so that nobody removes a lock that someone else has just taken. A lock that stays
//! unchanged for 30 seconds belongs to the dead and is broken by whoever waits.
//!
//! Ours says inside that it is ours. A process of ours that waits holds the journal's system lock as well, so the
//! owner of such a lock file is known to be dead, and nobody waits 30 seconds after a `kill -9`. For that it must
//! never exist without its content: it is written under another name and linked, which fails like creation if the
//! name exists. (Written in place, a kill between the two left an empty file that nobody dared to break; a process
//! killed in a loop then never got on.)

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::JournalError;

/// After this long without a change a lock is broken: Optuna's number.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Waiting times between attempts double from the first to the second: Optuna's numbers.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What our lock files begin with.
const MARK: &str = "ablate-search ";

/// The right to append; given back when dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    path: PathBuf,
    /// What the lock file says, unlike any other.
    content: String,
}

/// The path with something appended to its last name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A name that no other process, and no other call of this one, uses.
pub(super) fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The time tells processes apart that got the same number on different machines or one after the other.
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |it| it.as_nanos());
    format!("{}-{nanos:x}-{count}", std::process::id())
}

impl FileLock {
    /// Waits until the journal is free, and takes it. `alone`: the caller holds the journal's system lock, so that no
    /// other process of ours is alive that could have made a lock file.
    pub(super) fn acquire(journal: &Path, grace: Duration, alone: bool) -> Result<Self, JournalError> {
        let lock = Self { path: beside(journal, ".lock"), content: format!("{MARK}{}\n", unique_name()) };
        let mut wait = FIRST_WAIT;
        let mut unchanged: Option<(SystemTime, Instant)> = None;
        loop {
            match lock.create(alone) {
                Ok(()) => return Ok(lock),
                Err(source) if source.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(lock.error("create the lock file", source)),
            }
            // The lock's own time, not that of the journal that a symbolic link leads to.
            let Ok(changed) = fs::symlink_metadata(&lock.path).and_then(|it| it.modified()) else {
                continue;
            };
            let since = match unchanged {
                Some((time, since)) if time == changed => since,
                _ => Instant::now(),
            };
            unchanged = Some((changed, since));
            if alone && lock.is_of_a_dead_process_of_ours() || since.elapsed() > grace {
                lock.remove().map_err(|source| lock.error("break the lock file", source))?;
                unchanged = None;
                wait = FIRST_WAIT;
                continue;
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Creates the lock file with its content; an error of the kind `AlreadyExists` if there is one.
    fn create(&self, alone: bool) -> std::io::Result<()> {
        // The holder of the journal's system lock needs no name of its own, and overwrites what a killed process left.
        let ending = if alone { ".new".to_owned() } else { format!(".{}.new", unique_name()) };
        let draft = beside(&self.path, &ending);
        fs::write(&draft, &self.content)?;
        let linked = fs::hard_link(&draft, &self.path);
        // Whatever stays under that name hurts nobody.
        drop(fs::remove_file(&draft));
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => self.create_in_place(),
            linked => linked,
        }
    }

    /// Where links are not to be had, as on FAT: whoever is killed in between leaves a lock to wait for.
    fn create_in_place(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.path)?;
        // Nobody else can have taken a file that exists, so a half-written one can be removed.
        file.write_all(self.content.as_bytes()).inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    fn error(&self, action: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), action, source }
    }

    /// Whether the lock file that exists was made by a process of ours. See the module's documentation for why that
    /// one is dead. A symbolic link is never ours, and following it would read the journal.
    fn is_of_a_dead_process_of_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|it| it.is_file() && it.len() < 256)
            && fs::read_to_string(&self.path).is_ok_and(|it| it.starts_with(MARK))
    }

    /// Removes the lock file, whoever made it. That it is gone already is fine.
    fn remove(&self) -> std::io::Result<()> {
        let renamed = beside(&self.path, &format!("{}.rename", unique_name()));
        match fs::rename(&self.path, &renamed).and_then(|()| fs::remove_file(&renamed)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // If it was broken while we were suspended, the one that exists now is someone else's.
        if fs::read_to_string(&self.path).is_ok_and(|it| it == self.content) {
            // A lock that cannot be removed is broken by others after a while.
            drop(self.remove());
        }
    }
}

/// Writes a folder's list of files to the disk, so that a new file survives a power failure.
pub(super) fn sync_folder(of: &Path) -> std::io::Result<()> {
    // Windows can neither open a folder like a file nor needs to.
    if cfg!(windows) {
        return Ok(());
    }
    let parent = of.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent)?.sync_all() {
        // Some network file systems cannot, and do it by themselves.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with_journal() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("study.jsonl");
        fs::write(&journal, "").unwrap();
        (folder, journal)
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_lock_leaves_nothing_behind() {
        let (folder, journal) = folder_with_journal();
        let lock = FileLock::acquire(&journal, GRACE, true).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(lock);
        assert_eq!(names(folder.path()), ["study.jsonl"]);
    }

    #[test]
    fn a_lock_of_someone_else_is_waited_for_and_broken_when_it_never_changes() {
        let (folder, journal) = folder_with_journal();
        fs::write(beside(&journal, ".lock"), "").unwrap();
        let (start, grace) = (Instant::now(), Duration::from_millis(30));
        drop(FileLock::acquire(&journal, grace, true).unwrap());
        assert!(start.elapsed() > grace);
        assert_eq!(names(folder.path()), ["study.jsonl"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_made_as_a_symbolic_link_counts_even_if_it_leads_nowhere() {
        let (folder, journal) = folder_with_journal();
        std::os::unix::fs::symlink("nowhere", beside(&journal, ".lock")).unwrap();
        let (start, grace) = (Instant::now(), Duration::from_millis(30));
        drop(FileLock::acquire(&journal, grace, true).unwrap());
        assert!(start.elapsed() > grace);
        assert_eq!(names(folder.path()), ["study.jsonl"]);
    }

    #[test]
    fn a_lock_of_a_killed_process_of_ours_is_broken_at_once() {
        let (_folder, journal) = folder_with_journal();
        std::mem::forget(FileLock::acquire(&journal, GRACE, true).unwrap());
        let start = Instant::now();
        drop(FileLock::acquire(&journal, GRACE, true).unwrap());
        assert!(start.elapsed() < GRACE / 2);
    }

    #[test]
    fn without_the_systems_lock_a_lock_file_of_ours_may_be_of_the_living() {
        let (folder, journal) = folder_with_journal();
        std::mem::forget(FileLock::acquire(&journal, GRACE, false).unwrap());
        let (start, grace) = (Instant::now(), Duration::from_millis(30));
        drop(FileLock::acquire(&journal, grace, false).unwrap());
        assert!(start.elapsed() > grace);
        assert_eq!(names(folder.path()), ["study.jsonl"]);
    }

    #[test]
    fn a_lock_is_as_good_where_there_are_no_links() {
        let (folder, journal) = folder_with_journal();
        let lock = FileLock { path: beside(&journal, ".lock"), content: format!("{MARK}x\n") };
        lock.create_in_place().unwrap();
        assert_eq!(lock.create_in_place().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(lock.create(true).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(lock.is_of_a_dead_process_of_ours());
        drop(lock);
        assert_eq!(names(folder.path()), ["study.jsonl"]);
    }

    #[test]
    fn a_lock_that_was_broken_and_taken_by_someone_else_is_left_alone() {
        let (_folder, journal) = folder_with_journal();
        let lock = FileLock::acquire(&journal, GRACE, true).unwrap();
        fs::write(&lock.path, "someone else").unwrap();
        let path = lock.path.clone();
        drop(lock);
        assert_eq!(fs::read_to_string(path).unwrap(), "someone else");
    }
}
