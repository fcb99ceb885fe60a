//! Symbolic links of a model's folder that lead out of it.
//!
//! A folder that was downloaded may hold `LICENSE -> ../../../.cache/huggingface/token`. Whoever copies that file, with
//! the link followed, gives away the token with the model. So text files of a folder are its own files, or links to
//! files within the folder; another link is never followed. The cache of the hub's clients is an exception: there
//! `snapshots/COMMIT/FILE` is a link to `../../blobs/NAME`, both in the folder of one repository.
//!
//! Files of weights may be links to anywhere, since many people keep large shards on another disk: their bytes are
//! tensors of a file with a valid header, or an error. Hard links cannot be told from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where a path in a model's folder leads if it is, or passes through, a link that leaves the folder.
///
/// # Errors
/// When the system cannot say where it leads, as of a link that leads nowhere.
pub fn way_out(folder: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let folder = fs::canonicalize(folder)?;
    let target = fs::canonicalize(path)?;
    let inside = target.starts_with(&folder) || blobs(&folder).is_some_and(|it| target.starts_with(it));
    Ok((!inside).then_some(target))
}

/// The same for files that may be missing: `None` also where there is nothing to follow.
pub(crate) fn way_out_of_link(folder: &Path, path: &Path) -> Option<PathBuf> {
    path.is_symlink().then(|| way_out(folder, path).ok().flatten()).flatten()
}

/// `blobs` of the repository in whose `snapshots` a folder lies. It is a real folder, so that it cannot itself be a link
/// to some place that the repository has no part in.
fn blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().find(|it| it.file_name().is_some_and(|it| it == "snapshots"))?;
    let blobs = snapshots.with_file_name("blobs");
    fs::symlink_metadata(&blobs).is_ok_and(|it| it.is_dir()).then_some(blobs)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_links_that_leave_the_folder_have_a_way_out() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("model"), root.path().join("secret"));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(folder.join("file"), "x").unwrap();
        symlink("../file", folder.join("sub/inside")).unwrap();
        symlink("../secret", folder.join("relative")).unwrap();
        symlink(&secret, folder.join("sub/absolute")).unwrap();
        symlink("relative", folder.join("second")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        let secret = fs::canonicalize(secret).unwrap();
        for name in ["file", "sub/inside"] {
            assert_eq!(way_out(&folder, &folder.join(name)).unwrap(), None, "{name}");
        }
        for name in ["relative", "sub/absolute", "second", "up/secret"] {
            assert_eq!(way_out(&folder, &folder.join(name)).unwrap().as_ref(), Some(&secret), "{name}");
        }
        // The folder may itself be reached through a link.
        symlink("model", root.path().join("alias")).unwrap();
        let alias = root.path().join("alias");
        assert_eq!(way_out(&alias, &alias.join("sub/inside")).unwrap(), None);
        assert!(way_out(&alias, &alias.join("relative")).unwrap().is_some());
    }

    #[test]
    fn blobs_of_the_same_repository_are_not_outside_and_what_they_lead_to_is() {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--a--b");
        let (snapshot, blobs) = (repository.join("snapshots/c"), repository.join("blobs"));
        fs::create_dir_all(snapshot.join("sub")).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("1234"), "x").unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        symlink("../../secret", blobs.join("5678")).unwrap();
        symlink("../../blobs/1234", snapshot.join("file")).unwrap();
        symlink("../../../blobs/1234", snapshot.join("sub/file")).unwrap();
        symlink("../../blobs/5678", snapshot.join("bad")).unwrap();
        symlink("../../../secret", snapshot.join("worse")).unwrap();
        for (folder, name) in [(&snapshot, "file"), (&snapshot, "sub/file"), (&snapshot.join("sub"), "file")]
        {
            assert_eq!(way_out(folder, &folder.join(name)).unwrap(), None, "{name}");
        }
        for name in ["bad", "worse"] {
            assert!(way_out(&snapshot, &snapshot.join(name)).unwrap().is_some(), "{name}");
        }
        // A repository that was downloaded as an archive, whose `blobs` are somebody's private folder.
        fs::remove_dir_all(&blobs).unwrap();
        fs::create_dir(root.path().join("private")).unwrap();
        fs::write(root.path().join("private/1234"), "secret").unwrap();
        symlink("../private", &blobs).unwrap();
        assert!(way_out(&snapshot, &snapshot.join("file")).unwrap().is_some());
    }
}
