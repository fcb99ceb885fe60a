//! The cache that clients of the hub share.
//!
//! ```text
//! models--OWNER--NAME/
//!   refs/main                  the commit of a branch
//!   blobs/ETAG                 contents by what the hub calls them; ETAG.incomplete while they come
//!   snapshots/COMMIT/PATH      links to blobs: the files of a commit
//! .locks/models--OWNER--NAME/ETAG.lock
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::answers::is_commit;
use crate::{HubError, Repository};

/// A repository's part of the cache.
pub(crate) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(crate) fn of(root: &Path, repository: &Repository) -> Self {
        let name = repository.folder();
        Self { folder: root.join(&name), locks: root.join(".locks").join(name) }
    }

    /// The commit of a revision, as far as it is known here.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|it| is_commit(it))
    }

    /// Remembers the commit of a branch.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(HubError::disk(path))
    }

    /// Where a file of a commit lies, whether it is there or not.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The files of a commit that are here, in order.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot(commit);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = path.strip_prefix(&root).ok().and_then(Path::to_str) {
                    files.push(name.replace('\\', "/"));
                }
            }
        }
        files.sort();
        files
    }

    /// Waits until no other process downloads this. `None` where the file system has no locks, as some network file
    /// systems have none.
    pub(crate) fn lock(&self, etag: &str) -> Result<Option<fs::File>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = fs::File::create(&path).map_err(HubError::disk(&path))?;
        Ok(file.lock().is_ok().then_some(file))
    }

    /// Makes a blob a file of a commit: a link where the system has links, else a copy.
    pub(crate) fn link(&self, etag: &str, commit: &str, path: &str) -> Result<PathBuf, HubError> {
        let (target, blob) = (self.snapshot(commit).join(path), self.blob(etag));
        if target.exists() {
            return Ok(target);
        }
        make_parent(&target)?;
        let up = "../".repeat(path.matches('/').count() + 2);
        let relative = PathBuf::from(format!("{up}blobs/{etag}"));
        // A link that leads nowhere is in the way.
        let _ = fs::remove_file(&target);
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(&relative, &target);
        #[cfg(windows)]
        let linked = std::os::windows::fs::symlink_file(&relative, &target);
        if linked.is_err() && !target.exists() {
            fs::copy(&blob, &target).map_err(HubError::disk(&target))?;
        }
        Ok(target)
    }
}

pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(HubError::disk(parent))
}

/// Bytes that the disk of a folder has left, where the system tells.
#[cfg(unix)]
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    facts.f_bavail.checked_mul(facts.f_frsize)
}

#[cfg(not(unix))]
pub(crate) fn free_bytes(_: &Path) -> Option<u64> {
    None
}
