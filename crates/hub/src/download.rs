//! Downloading: what a repository has, and its files.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ureq::http::Response;
use ureq::{Body, http};

use crate::answers::{self, is_commit, is_inside};
use crate::cache::{Cache, free_bytes, make_parent};
use crate::digest::sha256_of_file;
use crate::limits::{Pace, UNKNOWN_SIZE};
use crate::repository::encoded;
use crate::requests::Follow;
use crate::{Client, HubError, Repository};

/// What a repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The commit.
    pub commit: String,
    /// Its files, in order; offline: those that are in the cache.
    pub files: Vec<File>,
    /// Whether the cache says so, which knows only the files that were downloaded.
    pub cached: bool,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its size in bytes, if the hub tells.
    pub size: Option<u64>,
}

/// What the hub says of a file.
struct Facts {
    etag: String,
    commit: String,
    size: Option<u64>,
}

impl Client {
    /// What a repository has at a revision: a branch, a tag or a commit.
    ///
    /// Where the network does not answer, what the cache knows.
    pub fn info(&self, repository: &Repository, revision: &str) -> Result<Info, HubError> {
        let (repository, revision) = (repository.clone(), revision.to_owned());
        self.stoppable(move |client| client.find_info(&repository, &revision))
    }

    fn find_info(&self, repository: &Repository, revision: &str) -> Result<Info, HubError> {
        expect_revision(repository, revision)?;
        let cache = Cache::of(&self.access.cache, repository);
        let cached = || {
            let commit = cache.commit(revision)?;
            let files = cache.files(&commit).into_iter().map(|path| File { path, size: None }).collect();
            Some(Info { commit, files, cached: true }).filter(|it: &Info| !it.files.is_empty())
        };
        if self.access.offline {
            return cached().ok_or_else(|| self.offline(repository, revision));
        }
        match self.ask(repository, revision) {
            Err(error) if error.is_network() => cached().ok_or(error),
            Ok(info) => {
                cache.remember(revision, &info.commit)?;
                Ok(info)
            }
            Err(error) => Err(error),
        }
    }

    fn ask(&self, repository: &Repository, revision: &str) -> Result<Info, HubError> {
        let action = format!("asking for {repository}");
        let url = format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.access.endpoint,
            repository.kinds(),
            repository.id,
            encoded(revision, false)
        );
        let mut response = self.persevere(false, || {
            let response = self.get(&url, &action)?;
            self.unless_busy(response, &action)
        })?;
        if !response.status().is_success() {
            return Err(self.refused(response, repository, revision, None, &action));
        }
        let text = self.text(&mut response, answers::JSON_BYTES, &action)?;
        let info = answers::info(&text).map_err(|it| self.answer(&action, 200, &it))?;
        if is_commit(revision) && !info.commit.eq_ignore_ascii_case(revision) {
            return Err(self.answer(&action, 200, &format!("its commit is `{}`", info.commit)));
        }
        Ok(info)
    }

    /// Where a file lies on this machine; it is downloaded if it is not there yet.
    ///
    /// A download that was cut off goes on where it stopped.
    pub fn file(&self, repository: &Repository, revision: &str, path: &str) -> Result<PathBuf, HubError> {
        let (repository, revision, path) = (repository.clone(), revision.to_owned(), path.to_owned());
        self.stoppable(move |client| client.find_file(&repository, &revision, &path))
    }

    fn find_file(&self, repository: &Repository, revision: &str, path: &str) -> Result<PathBuf, HubError> {
        expect_revision(repository, revision)?;
        if !is_inside(path) {
            let path = self.hide(path);
            return Err(HubError::Path { repository: repository.clone(), path });
        }
        let cache = Cache::of(&self.access.cache, repository);
        let cached = || {
            let found = cache.snapshot(&cache.commit(revision)?).join(path);
            found.exists().then_some(found)
        };
        if (is_commit(revision) || self.access.offline)
            && let Some(found) = cached()
        {
            return Ok(found);
        }
        if self.access.offline {
            return Err(self.offline(repository, path));
        }
        match self.fetch(&cache, repository, revision, path) {
            Err(error) if error.is_network() => cached().ok_or(error),
            other => other,
        }
    }

    /// The folder of a commit's files.
    pub fn folder(&self, repository: &Repository, commit: &str) -> PathBuf {
        Cache::of(&self.access.cache, repository).snapshot(commit)
    }

    fn offline(&self, repository: &Repository, what: &str) -> HubError {
        HubError::Offline {
            repository: repository.clone(),
            what: what.to_owned(),
            cache: self.access.cache.clone(),
        }
    }

    fn fetch(
        &self,
        cache: &Cache,
        repository: &Repository,
        revision: &str,
        path: &str,
    ) -> Result<PathBuf, HubError> {
        let url = format!(
            "{}/{}{}/resolve/{}/{}",
            self.access.endpoint,
            repository.prefix(),
            repository.id,
            encoded(revision, false),
            encoded(path, true)
        );
        let wanted = Wanted {
            url,
            repository,
            revision,
            path,
            action: format!("downloading `{path}` of {repository}"),
        };
        let facts = self.facts(&wanted)?;
        cache.remember(revision, &facts.commit)?;
        let lock = cache.lock(&facts.etag)?;
        let blob = cache.blob(&facts.etag);
        if !blob.exists() {
            // Where the file system has no locks, two downloads must not write into one file.
            let ending = if lock.is_some() { String::new() } else { format!(".{}", std::process::id()) };
            let incomplete = blob.with_file_name(format!("{}{ending}.incomplete", facts.etag));
            make_parent(&incomplete)?;
            expect_room(&incomplete, &facts, path)?;
            self.download(&wanted, &facts, &incomplete)?;
            check(&incomplete, &facts, path)?;
            fs::rename(&incomplete, &blob).map_err(HubError::disk(&blob))?;
        }
        cache.link(&facts.etag, &facts.commit, path)
    }

    /// Asks about a file without downloading it.
    fn facts(&self, wanted: &Wanted<'_>) -> Result<Facts, HubError> {
        let Wanted { url, repository, revision, path, .. } = wanted;
        let action = format!("asking for `{path}` of {repository}");
        let identity = [("accept-encoding", "identity".to_owned())];
        let response = self.persevere(false, || {
            let patience = self.patience.response;
            let (response, _) =
                self.ask_at("HEAD", url, &identity, &Follow::WithinTheHub, patience, &action)?;
            self.unless_busy(response, &action)
        })?;
        let header = |name: &str| header(&response, name);
        let etag = header("x-linked-etag").or(header("etag")).and_then(|it| answers::etag(&it));
        let commit = header("x-repo-commit").filter(|it| is_commit(it));
        // Of a commit that was asked for, nothing else may be said.
        let commit = commit.filter(|it| !is_commit(revision) || it.eq_ignore_ascii_case(revision));
        let failed = response.status().is_client_error() || response.status().is_server_error();
        let Some((etag, commit)) = etag.zip(commit).filter(|_| !failed) else {
            return Err(if failed {
                self.refused(response, repository, revision, Some(path), &action)
            } else {
                let status = response.status().as_u16();
                self.answer(&action, status, "no commit and no name of the contents that can be one")
            });
        };
        let size = header("x-linked-size").or(header("content-length")).and_then(|it| it.parse().ok());
        // The length of a redirection is not the file's.
        let size = size.filter(|_| header("x-linked-size").is_some() || response.status().is_success());
        Ok(Facts { etag, commit, size })
    }

    /// Downloads what is missing of a file, with as many attempts as bring it on.
    fn download(&self, wanted: &Wanted<'_>, facts: &Facts, target: &Path) -> Result<(), HubError> {
        let mut pace = Pace::new(self.patience);
        let (mut attempt, mut most) = (0, 0);
        loop {
            let error = match self.append(wanted, facts, target, &mut pace) {
                Err(error) => error,
                done => return done,
            };
            let there = fs::metadata(target).map_or(0, |it| it.len());
            if there > most {
                (attempt, most) = (0, there);
            }
            attempt += 1;
            let Some(pause) = self.pause_after(&error, attempt) else { return Err(error) };
            let why = match &error {
                HubError::Network { reason, .. } | HubError::Busy { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
            let slow = |it| {
                let action = wanted.action.clone();
                HubError::TooSlow { action, reason: format!("{it}: {why}") }
            };
            pace.at(there).map_err(slow)?;
            self.pause(pause)?;
            if matches!(error, HubError::Busy { .. }) {
                pace.paused(pause);
            }
        }
    }

    /// Downloads what is missing of a file, until the connection ends.
    fn append(
        &self,
        wanted: &Wanted<'_>,
        facts: &Facts,
        target: &Path,
        pace: &mut Pace,
    ) -> Result<(), HubError> {
        let Wanted { url, repository, revision, path, action } = wanted;
        let disk = || HubError::disk(target);
        let mut file = fs::File::options().create(true).append(true).open(target).map_err(disk())?;
        let mut done = file.seek(SeekFrom::End(0)).map_err(disk())?;
        if facts.size.is_some_and(|it| done > it) {
            file.set_len(0).map_err(disk())?;
            done = 0;
        }
        if facts.size == Some(done) {
            return Ok(());
        }
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if done > 0 {
            headers.push(("range", format!("bytes={done}-")));
        }
        let (response, _) = self.ask_at("GET", url, &headers, &Follow::All, self.patience.read, action)?;
        let response = self.unless_busy(response, action)?;
        match response.status().as_u16() {
            206 => {}
            200 => {
                file.set_len(0).map_err(disk())?;
                done = 0;
            }
            _ => return Err(self.refused(response, repository, revision, Some(path), action)),
        }
        let left = header(&response, "content-length").and_then(|it| it.parse::<u64>().ok());
        let size = facts.size.or(left.map(|it| it.saturating_add(done)));
        let limit = size.unwrap_or(UNKNOWN_SIZE);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.go_on()?;
            let read = body.read(&mut buffer).map_err(|it| self.network(action, &stalled(&it)))?;
            if read == 0 {
                break;
            }
            if done + read as u64 > limit {
                drop(file);
                // The next attempt must not go on from here.
                let _ = fs::remove_file(target);
                let (expected, found) = (format!("at most {limit} bytes"), "more of them".to_owned());
                return Err(HubError::Damaged { path: (*path).to_owned(), expected, found });
            }
            file.write_all(&buffer[..read]).map_err(disk())?;
            done += read as u64;
            pace.at(done).map_err(|it| HubError::TooSlow { action: action.clone(), reason: it })?;
            self.tell(path, done, size.unwrap_or(0).max(done));
        }
        file.sync_all().map_err(disk())?;
        match size {
            Some(size) if done < size => {
                Err(self.network(action, &format!("the connection ended after {done} of {size} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// A file that is to be downloaded.
struct Wanted<'a> {
    url: String,
    repository: &'a Repository,
    revision: &'a str,
    path: &'a str,
    action: String,
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    let value: Option<&http::HeaderValue> = response.headers().get(name);
    value.and_then(|it| it.to_str().ok()).map(str::to_owned)
}

/// An error of a body, where nothing came for too long in plain words.
fn stalled(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::TimedOut => "nothing came for a while".to_owned(),
        _ => error.to_string(),
    }
}

/// An error where a revision cannot be one: it becomes part of a path.
fn expect_revision(repository: &Repository, revision: &str) -> Result<(), HubError> {
    if is_inside(revision) {
        return Ok(());
    }
    let (repository, revision) = (repository.clone(), answers::shown(revision));
    Err(HubError::NoRevision { repository, revision })
}

/// An error where the disk is known to have less room than a file takes.
fn expect_room(target: &Path, facts: &Facts, path: &str) -> Result<(), HubError> {
    let there = fs::metadata(target).map_or(0, |it| it.len());
    let needed = facts.size.unwrap_or(0).saturating_sub(there);
    let folder = target.parent().unwrap_or(Path::new("."));
    match free_bytes(folder) {
        Some(free) if free < needed => {
            Err(HubError::NoRoom { path: path.to_owned(), folder: folder.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

/// Whether a file is what the hub promised: its size, and where the hub names it by its SHA-256, that.
fn check(file: &Path, facts: &Facts, path: &str) -> Result<(), HubError> {
    let disk = || HubError::disk(file);
    let damaged = |expected: String, found: String| {
        // The next attempt must not go on from here.
        let _ = fs::remove_file(file);
        Err(HubError::Damaged { path: path.to_owned(), expected, found })
    };
    let size = fs::metadata(file).map_err(disk())?.len();
    if let Some(expected) = facts.size.filter(|&it| it != size) {
        return damaged(format!("{expected} bytes"), format!("{size}"));
    }
    if facts.etag.len() == 64 {
        let found = sha256_of_file(file)?;
        if found != facts.etag {
            return damaged(format!("SHA-256 {}", facts.etag), found);
        }
    }
    Ok(())
}
