//! Downloading: what a repository has, and its files.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cache::{Cache, is_commit, make_parent};
use crate::digest::sha256_of_file;
use crate::repository::encoded;
use crate::{Client, HubError, Repository};

/// What a repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The commit.
    pub commit: String,
    /// Its files, in order; offline: those that are in the cache.
    pub files: Vec<File>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// Its size in bytes, if the hub tells.
    pub size: Option<u64>,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// What the hub says of a file.
struct Facts {
    etag: String,
    commit: String,
    size: Option<u64>,
}

/// How often a download is begun again where it was cut off.
const ATTEMPTS: u32 = 5;

/// How many redirections from one name of a repository to another are followed.
const MOVES: usize = 5;

impl Client {
    /// What a repository has at a revision: a branch, a tag or a commit.
    ///
    /// Where the network does not answer, what the cache knows.
    pub fn info(&self, repository: &Repository, revision: &str) -> Result<Info, HubError> {
        let cache = Cache::of(&self.access.cache, repository);
        let cached = || {
            let commit = cache.commit(revision)?;
            let files = cache.files(&commit).into_iter().map(|path| File { path, size: None }).collect();
            Some(Info { commit, files }).filter(|it: &Info| !it.files.is_empty())
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
        let mut request = self.agent.get(&url);
        if let Some((name, value)) = self.identity() {
            request = request.header(name, value);
        }
        let mut response = request.call().map_err(|it| self.network(&action, &it))?;
        if !response.status().is_success() {
            return Err(self.refused(response, repository, revision, None, &action));
        }
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string();
        let text = text.map_err(|it| self.network(&action, &it))?;
        let answer: Answer = serde_json::from_str(&text).map_err(|error| HubError::Answer {
            action,
            endpoint: self.access.endpoint.clone(),
            status: 200,
            reason: error.to_string(),
        })?;
        let mut files: Vec<File> =
            answer.siblings.into_iter().map(|it| File { path: it.rfilename, size: it.size }).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Info { commit: answer.sha, files })
    }

    /// Where a file lies on this machine; it is downloaded if it is not there yet.
    ///
    /// A download that was cut off goes on where it stopped.
    pub fn file(&self, repository: &Repository, revision: &str, path: &str) -> Result<PathBuf, HubError> {
        let inside = Path::new(path).components().all(|it| matches!(it, std::path::Component::Normal(_)));
        if !inside || path.contains('\\') {
            return Err(HubError::Path { repository: repository.clone(), path: path.to_owned() });
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
        let facts = self.facts(&url, repository, revision, path)?;
        cache.remember(revision, &facts.commit)?;
        let _lock = cache.lock(&facts.etag)?;
        let blob = cache.blob(&facts.etag);
        if !blob.exists() {
            let incomplete = blob.with_file_name(format!("{}.incomplete", facts.etag));
            make_parent(&incomplete)?;
            let mut attempt = 1;
            loop {
                match self.append(&url, &incomplete, &facts, repository, revision, path) {
                    Err(error) if error.is_network() && attempt < ATTEMPTS => {
                        std::thread::sleep(Duration::from_secs(1 << (attempt - 1)));
                        attempt += 1;
                    }
                    other => break other?,
                }
            }
            check(&incomplete, &facts, path)?;
            fs::rename(&incomplete, &blob).map_err(HubError::disk(&blob))?;
        }
        cache.link(&facts.etag, &facts.commit, path)
    }

    /// Asks about a file without downloading it.
    fn facts(
        &self,
        url: &str,
        repository: &Repository,
        revision: &str,
        path: &str,
    ) -> Result<Facts, HubError> {
        let action = format!("asking for `{path}` of {repository}");
        let mut url = url.to_owned();
        for _ in 0..MOVES {
            let mut request = self.agent.head(&url).header("accept-encoding", "identity");
            if let Some((name, value)) = self.identity() {
                request = request.header(name, value);
            }
            let request = request.config().max_redirects(0).max_redirects_will_error(false).build();
            let response = request.call().map_err(|it| self.network(&action, &it))?;
            let header =
                |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
            // Within the hub, a repository may have another name now; elsewhere lies the file itself.
            if let Some(place) = header("location").filter(|it| it.starts_with('/')) {
                url = format!("{}{place}", self.access.endpoint);
                continue;
            }
            let facts = header("x-linked-etag").or(header("etag")).zip(header("x-repo-commit"));
            if response.status().is_client_error() || response.status().is_server_error() || facts.is_none() {
                return Err(self.refused(response, repository, revision, Some(path), &action));
            }
            let (etag, commit) = facts.expect("looked at above");
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            let safe =
                !etag.is_empty() && etag.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
            if !safe || !is_commit(&commit) {
                return Err(self.refused(response, repository, revision, Some(path), &action));
            }
            let size = header("x-linked-size").or(header("content-length")).and_then(|it| it.parse().ok());
            // The length of a redirection is not the file's.
            let size = size.filter(|_| header("x-linked-size").is_some() || response.status().is_success());
            return Ok(Facts { etag, commit, size });
        }
        Err(self.network(&action, &"the repository's name leads in circles"))
    }

    /// Downloads what is missing of a file.
    fn append(
        &self,
        url: &str,
        target: &Path,
        facts: &Facts,
        repository: &Repository,
        revision: &str,
        path: &str,
    ) -> Result<(), HubError> {
        let action = format!("downloading `{path}` of {repository}");
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
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if let Some((name, value)) = self.identity() {
            request = request.header(name, value);
        }
        if done > 0 {
            request = request.header("range", format!("bytes={done}-"));
        }
        let response = request.call().map_err(|it| self.network(&action, &it))?;
        match response.status().as_u16() {
            206 => {}
            200 => {
                file.set_len(0).map_err(disk())?;
                done = 0;
            }
            _ => return Err(self.refused(response, repository, revision, Some(path), &action)),
        }
        let all = facts.size.unwrap_or(0);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = body.read(&mut buffer).map_err(|it| self.network(&action, &it))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).map_err(disk())?;
            done += read as u64;
            self.tell(path, done, all.max(done));
        }
        file.sync_all().map_err(disk())?;
        match facts.size {
            Some(size) if done < size => {
                Err(self.network(&action, &format!("the connection ended after {done} of {size} bytes")))
            }
            _ => Ok(()),
        }
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
