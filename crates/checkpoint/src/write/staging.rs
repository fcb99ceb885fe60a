//! A place beside the target where the model grows until it is whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::WriteError;

/// How many names are tried for the temporary place; others are taken by runs that were killed.
const NAMES: usize = 1000;

/// A file or folder under a temporary name beside its target, which is removed unless it is [kept](Self::keep).
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    path: PathBuf,
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
            let path = parent.join(format!(".{}.partial-{number}", name.to_string_lossy()));
            if fs::symlink_metadata(&path).is_err() {
                return Ok(Self { target: target.to_owned(), path, kept: false });
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
    }
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
        File::open(path).and_then(|it| it.sync_all()).map_err(|problem| WriteError::io(path, problem))?;
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
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
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
    fn a_left_over_of_a_killed_run_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let first = Staging::beside(&target).unwrap();
        fs::create_dir(first.path()).unwrap();
        let second = Staging::beside(&target).unwrap();
        assert_ne!(first.path(), second.path());
    }
}
