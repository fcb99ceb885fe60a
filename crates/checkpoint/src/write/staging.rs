//! A place beside the target where the model grows until it is whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::WriteError;

/// How many names are tried for the temporary place; others are taken by runs that were killed.
const NAMES: usize = 1000;

/// What the names of temporary places have in common, after a point and the name of the target.
const MARK: &str = ".partial-";

/// How the name of a lock ends, which stands beside the place that it is for.
const LOCK: &str = ".lock";

/// A file or folder under a temporary name beside its target, which is removed unless it is [kept](Self::keep).
///
/// A file beside it is locked as long as this process lives, so that what a killed one left can be told from what is
/// being written ([`remove_leftovers`]).
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    path: PathBuf,
    lock: Option<File>,
    kept: bool,
}

impl Staging {
    /// A free name beside the target, in a folder that is there. Nothing is created under it yet.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when anything but an empty folder stands at the target.
    pub(super) fn beside(target: &Path) -> Result<Self, WriteError> {
        let Some(name) = target.file_name() else {
            return Err(WriteError::Exists { path: target.to_owned() });
        };
        if fs::symlink_metadata(target).is_ok() && !is_empty_folder(target) {
            return Err(WriteError::Exists { path: target.to_owned() });
        }
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(|problem| WriteError::io(parent, problem))?;
        for attempt in 0..NAMES {
            let number = u64::from(std::process::id()) * NAMES as u64 + attempt as u64;
            let path = parent.join(format!(".{}{MARK}{number}", name.to_string_lossy()));
            if fs::symlink_metadata(&path).is_err()
                && let Some(lock) = lock(&path).map_err(|problem| WriteError::io(&path, problem))?
            {
                return Ok(Self { target: target.to_owned(), path, lock, kept: false });
            }
        }
        let problem = io::Error::new(io::ErrorKind::AlreadyExists, "all temporary names are taken");
        Err(WriteError::io(parent, problem))
    }

    /// The temporary name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error when the disk is known to have less room than needed.
    pub(super) fn expect_space(&self, needed: u64) -> Result<(), WriteError> {
        match free_bytes(parent(&self.target)) {
            Some(free) if free < needed => {
                Err(WriteError::NoSpace { path: self.target.clone(), needed, free: Some(free) })
            }
            _ => Ok(()),
        }
    }

    /// Gives the whole model its name.
    pub(super) fn keep(mut self) -> Result<(), WriteError> {
        if self.path.is_dir() {
            sync_folder(&self.path)?;
        }
        if is_empty_folder(&self.target) {
            fs::remove_dir(&self.target).map_err(|problem| WriteError::io(&self.target, problem))?;
        }
        // A rename would replace a file without a word. Between this look and the rename somebody may still create one:
        // there is no portable rename that refuses.
        if fs::symlink_metadata(&self.target).is_ok() {
            return Err(WriteError::Exists { path: self.target.clone() });
        }
        fs::rename(&self.path, &self.target).map_err(|problem| WriteError::io(&self.target, problem))?;
        self.kept = true;
        sync_folder(parent(&self.target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure here; the error that led here is the one that matters.
            drop(if self.path.is_dir() {
                fs::remove_dir_all(&self.path)
            } else {
                fs::remove_file(&self.path)
            });
        }
        // Last, while the lock is held: nobody is to find the place without its lock.
        if self.lock.is_some() {
            drop(fs::remove_file(lock_of(&self.path)));
        }
    }
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK);
    name.into()
}

/// Locks a place; `Some(None)` where the file system has no locks, `None` when somebody else has this one.
#[expect(
    clippy::option_option,
    reason = "a place that is taken, and one that cannot be locked, are two things"
)]
fn lock(path: &Path) -> io::Result<Option<Option<File>>> {
    let at = lock_of(path);
    let file = File::options().write(true).create(true).truncate(false).open(&at)?;
    match file.try_lock() {
        // Whoever removed what is left of others may have removed this file, too, before it was locked.
        Ok(()) => Ok(at.exists().then_some(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(_)) => {
            drop(fs::remove_file(&at));
            Ok(Some(None))
        }
    }
}

/// What earlier writers of a target left beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Places of processes that are gone, which have been removed.
    pub removed: Vec<PathBuf>,
    /// Places of which nobody knows whether they are being written: without a lock, or with one that cannot be asked.
    pub unknown: Vec<PathBuf>,
}

/// Removes what processes that were killed while they wrote this target left beside it, and never what one is writing.
pub fn remove_leftovers(target: &Path) -> Leftovers {
    let mut found = Leftovers::default();
    let Some(name) = target.file_name() else { return found };
    let start = format!(".{}{MARK}", name.to_string_lossy());
    let mut places: Vec<PathBuf> = fs::read_dir(parent(target))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|it| {
            let name = it.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix(&start)?;
            let number = number.strip_suffix(LOCK).unwrap_or(number);
            let ours = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
            ours.then(|| target.with_file_name(format!("{start}{number}")))
        })
        .collect();
    places.sort();
    places.dedup();
    for path in places {
        let there = fs::symlink_metadata(&path).is_ok();
        // Opened, not created: without a lock file nobody can be asked.
        let Ok(file) = File::options().write(true).open(lock_of(&path)) else {
            found.unknown.extend(there.then_some(path));
            continue;
        };
        match file.try_lock() {
            Ok(()) => {
                // While the lock is held, so that nobody begins to write there meanwhile.
                let removed = if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                drop(fs::remove_file(lock_of(&path)));
                if there && removed.is_ok() {
                    found.removed.push(path);
                } else if there {
                    found.unknown.push(path);
                }
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => found.unknown.extend(there.then_some(path)),
        }
    }
    found
}

fn parent(target: &Path) -> &Path {
    target.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_empty_folder(path: &Path) -> bool {
    !path.is_symlink() && fs::read_dir(path).is_ok_and(|mut it| it.next().is_none())
}

/// Sees to it that the names in a folder are on the disk; where folders cannot be synced, the system does it.
pub(super) fn sync_folder(path: &Path) -> Result<(), WriteError> {
    if cfg!(unix) {
        match File::open(path).and_then(|it| it.sync_all()) {
            // Some network file systems cannot, and do it by themselves.
            Err(it) if matches!(it.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            other => other.map_err(|problem| WriteError::io(path, problem))?,
        }
    }
    Ok(())
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    facts.f_bavail.checked_mul(facts.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_removed_and_what_is_kept_stands_at_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let staging = Staging::beside(&target).unwrap();
        let path = staging.path().to_owned();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), "a").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        fs::create_dir(&target).unwrap(); // an empty folder is as good as none
        let staging = Staging::beside(&target).unwrap();
        fs::create_dir(staging.path()).unwrap();
        fs::write(staging.path().join("a"), "a").unwrap();
        staging.keep().unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "a");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no lock is left");
    }

    #[test]
    fn what_stands_at_the_target_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::write(&target, "precious").unwrap();
        assert!(matches!(Staging::beside(&target), Err(WriteError::Exists { .. })));
        fs::remove_file(&target).unwrap();
        let staging = Staging::beside(&target).unwrap();
        fs::write(staging.path(), "new").unwrap();
        fs::write(&target, "precious").unwrap(); // by somebody else, meanwhile
        assert!(matches!(staging.keep(), Err(WriteError::Exists { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_before_writing() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::beside(&folder.path().join("model")).unwrap();
        staging.expect_space(1).unwrap();
        if cfg!(unix) {
            let error = staging.expect_space(u64::MAX).unwrap_err();
            assert!(matches!(error, WriteError::NoSpace { free: Some(_), .. }), "{error}");
        }
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (target, other) = (folder.path().join("model"), folder.path().join("model2"));
        let names = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .unwrap()
                .map(|it| it.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        // A folder and a file of dead processes, whose locks nobody holds, and a lock without either.
        let dead = [".model.partial-1", ".model.partial-2"].map(|it| folder.path().join(it));
        fs::create_dir_all(dead[0].join("sub")).unwrap();
        fs::write(dead[0].join("sub/a"), "a").unwrap();
        fs::write(&dead[1], "a").unwrap();
        for number in 1..=3 {
            fs::write(folder.path().join(format!(".model.partial-{number}.lock")), "").unwrap();
        }
        // What an earlier version of the program left, and what is somebody's own.
        fs::create_dir(folder.path().join(".model.partial-4")).unwrap();
        fs::write(folder.path().join(".model.partial-notes"), "mine").unwrap();
        fs::write(folder.path().join("model.partial-5"), "mine").unwrap();
        let writing = Staging::beside(&target).unwrap();
        fs::create_dir(writing.path()).unwrap();
        let of_other = Staging::beside(&other).unwrap();
        fs::write(of_other.path(), "x").unwrap();
        let found = remove_leftovers(&target);
        assert_eq!(found.removed, dead);
        assert_eq!(found.unknown, [folder.path().join(".model.partial-4")]);
        assert!(writing.path().exists() && of_other.path().exists());
        drop((writing, of_other));
        assert_eq!(names(), [".model.partial-4", ".model.partial-notes", "model.partial-5"]);
    }

    #[test]
    fn a_left_over_of_a_killed_run_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let first = Staging::beside(&target).unwrap();
        fs::create_dir(first.path()).unwrap();
        let second = Staging::beside(&target).unwrap();
        assert_ne!(first.path(), second.path());
    }
}
