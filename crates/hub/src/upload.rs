//! Uploading: a folder becomes one commit of a repository.
//!
//! The hub says of each file whether it goes into the commit itself or, being large, to its storage of large files
//! (Git LFS) first. Contents that are there already are not sent again, so that an upload that was cut off goes on. Every
//! request is made again when the connection fails or the hub has too much to do: all of them may be, even the commit,
//! which changes nothing the second time.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Body, SendBody};

use crate::address::Origin;
use crate::answers;
use crate::digest::sha256_of_file;
use crate::{Client, HubError, Repository};

/// What is uploaded.
#[derive(Clone, Debug)]
pub struct Upload<'a> {
    /// The folder; all files in it are uploaded.
    pub folder: &'a Path,
    /// Whether a repository that is made is a private one.
    pub private: bool,
    /// What the commit says.
    pub message: &'a str,
}

/// What was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The commit.
    pub commit: String,
    /// Where to look at it.
    pub url: String,
}

/// A file to upload.
struct Local {
    /// Its path in the repository.
    name: String,
    path: PathBuf,
    size: u64,
    large: bool,
}

/// Bytes of a file by which the hub decides how it is stored.
const SAMPLE: usize = 512;

/// Bytes of a file that may go into the commit itself, where it is in memory as a whole; what is larger goes to the
/// storage of large files, whatever the hub says.
const LARGEST_IN_COMMIT: u64 = 16 << 20;

/// Files whose ways are asked for, or whose contents are offered, at once.
const BATCH: usize = 100;

#[derive(Deserialize)]
struct Ways {
    files: Vec<Way>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct Offers {
    objects: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    oid: String,
    actions: Option<Actions>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: serde_json::Map<String, Value>,
}

impl Client {
    /// Makes the repository if it is not there, and commits all files of a folder at once.
    ///
    /// # Errors
    /// [`HubError::Link`] for a link in the folder, before anything is sent.
    pub fn upload(&self, repository: &Repository, upload: &Upload<'_>) -> Result<Uploaded, HubError> {
        let (repository, private) = (repository.clone(), upload.private);
        let (folder, message) = (upload.folder.to_owned(), upload.message.to_owned());
        self.stoppable(move |client| {
            client.send_folder(&repository, &Upload { folder: &folder, private, message: &message })
        })
    }

    fn send_folder(&self, repository: &Repository, upload: &Upload<'_>) -> Result<Uploaded, HubError> {
        self.expect_online(&format!("uploading {repository}"))?;
        let mut files = local_files(upload.folder)?;
        self.create(repository, upload.private)?;
        self.ask_ways(repository, &mut files)?;
        let mut lines =
            vec![json!({"key": "header", "value": {"summary": upload.message, "description": ""}})];
        let large: Vec<(&Local, String)> = files
            .iter()
            .filter(|it| it.large)
            .map(|it| Ok((it, sha256_of_file(&it.path)?)))
            .collect::<Result<_, _>>()?;
        for batch in large.chunks(BATCH) {
            self.send_large(repository, batch)?;
        }
        for (file, oid) in &large {
            let value = json!({"path": file.name, "algo": "sha256", "oid": oid, "size": file.size});
            lines.push(json!({"key": "lfsFile", "value": value}));
        }
        for file in files.iter().filter(|it| !it.large) {
            let bytes = fs::read(&file.path).map_err(HubError::disk(&file.path))?;
            let value = json!({"path": file.name, "encoding": "base64", "content": STANDARD.encode(bytes)});
            lines.push(json!({"key": "file", "value": value}));
        }
        let body = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let action = format!("committing to {repository}");
        let url =
            format!("{}/api/{}/{}/commit/main", self.access.endpoint, repository.kinds(), repository.id);
        let answer: Value = self.post(&url, "application/x-ndjson", &body, repository, &action)?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let url = format!("{}/{}{}", self.access.endpoint, repository.prefix(), repository.id);
        Ok(Uploaded { commit: answers::shown(&text("commitOid")), url })
    }

    fn create(&self, repository: &Repository, private: bool) -> Result<(), HubError> {
        let action = format!("making {repository}");
        let (owner, name) = match repository.id.split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, repository.id.as_str()),
        };
        let kind = repository.kinds().trim_end_matches('s');
        let mut body = json!({"name": name, "organization": owner, "private": private});
        if kind != "model" {
            body["type"] = json!(kind);
        }
        let url = format!("{}/api/repos/create", self.access.endpoint);
        let response = self.send_surely(&url, "application/json", &body.to_string(), &action)?;
        match response.status().as_u16() {
            // 409: it exists.
            200..=299 | 409 => Ok(()),
            _ => Err(self.refused_write(response, repository, &action)),
        }
    }

    /// Learns which files are large ones, and forgets those that the hub does not want.
    fn ask_ways(&self, repository: &Repository, files: &mut Vec<Local>) -> Result<(), HubError> {
        let action = format!("preparing the upload to {repository}");
        let url =
            format!("{}/api/{}/{}/preupload/main", self.access.endpoint, repository.kinds(), repository.id);
        let mut ignored = Vec::new();
        for batch in files.chunks_mut(BATCH) {
            let asked = batch.iter().map(|it| {
                let mut sample = Vec::new();
                let file = fs::File::open(&it.path).map_err(HubError::disk(&it.path))?;
                file.take(SAMPLE as u64).read_to_end(&mut sample).map_err(HubError::disk(&it.path))?;
                Ok(json!({"path": it.name, "size": it.size, "sample": STANDARD.encode(sample)}))
            });
            let body = json!({"files": asked.collect::<Result<Vec<_>, HubError>>()?});
            let ways: Ways = self.post(&url, "application/json", &body.to_string(), repository, &action)?;
            for way in ways.files {
                if way.should_ignore {
                    ignored.push(way.path);
                } else if let Some(file) = batch.iter_mut().find(|it| it.name == way.path) {
                    // The storage of large files does not take empty ones.
                    let large = way.upload_mode == "lfs" || file.size > LARGEST_IN_COMMIT;
                    file.large = large && file.size > 0;
                }
            }
        }
        files.retain(|it| !ignored.contains(&it.name));
        Ok(())
    }

    /// Sends large files that are not there yet.
    fn send_large(&self, repository: &Repository, files: &[(&Local, String)]) -> Result<(), HubError> {
        let action = format!("offering large files to {repository}");
        let objects: Vec<Value> =
            files.iter().map(|(file, oid)| json!({"oid": oid, "size": file.size})).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256", "objects": objects,
        });
        let url = format!(
            "{}/{}{}.git/info/lfs/objects/batch",
            self.access.endpoint,
            repository.prefix(),
            repository.id
        );
        let offers: Offers =
            self.post(&url, "application/vnd.git-lfs+json", &body.to_string(), repository, &action)?;
        for offer in offers.objects {
            let Some((file, oid)) = files.iter().find(|it| it.1 == offer.oid) else { continue };
            let action = format!("uploading `{}` to {repository}", file.name);
            if let Some(error) = offer.error {
                return Err(self.answer(&action, 200, &error.to_string()));
            }
            // Without actions, it is there.
            let Some(actions) = offer.actions else { continue };
            if let Some(upload) = &actions.upload {
                self.send_contents(file, oid, upload, repository, &action)?;
            }
            if let Some(verify) = &actions.verify {
                let body = json!({"oid": oid, "size": file.size}).to_string();
                let response =
                    self.send_surely(&verify.href, "application/vnd.git-lfs+json", &body, &action)?;
                if !response.status().is_success() {
                    return Err(self.refused_write(response, repository, &action));
                }
            }
        }
        Ok(())
    }

    /// Sends the contents of a file, in one piece or in parts of the size that the hub wants.
    fn send_contents(
        &self,
        file: &Local,
        oid: &str,
        upload: &Action,
        repository: &Repository,
        action: &str,
    ) -> Result<(), HubError> {
        let part = upload.header.get("chunk_size").and_then(|it| match it {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let Some(part) = part.filter(|&it: &u64| it > 0) else {
            self.send_part(file, 0, file.size, &upload.href, repository, action)?;
            return Ok(());
        };
        let mut addresses: Vec<(u64, &str)> = upload
            .header
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?)))
            .collect();
        addresses.sort_unstable();
        // As many addresses as there are parts: what the hub says must fit the file.
        if addresses.len() as u64 != file.size.div_ceil(part) {
            let found = addresses.len();
            let reason = format!("{found} parts of {part} bytes for a file of {} bytes", file.size);
            return Err(self.answer(action, 200, &reason));
        }
        let mut parts = Vec::new();
        for (place, (number, address)) in (0..).zip(addresses) {
            let from: u64 = place * part;
            let length = part.min(file.size - from);
            let tag = self.send_part(file, from, length, address, repository, action)?;
            parts.push(json!({"partNumber": number, "etag": tag}));
        }
        let body = json!({"oid": oid, "parts": parts}).to_string();
        let response = self.send_surely(&upload.href, "application/vnd.git-lfs+json", &body, action)?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(self.refused_write(response, repository, action))
        }
    }

    /// Sends bytes of a file and answers with what the storage calls them. The address is a secret of its own and
    /// wants no other.
    fn send_part(
        &self,
        local: &Local,
        from: u64,
        length: u64,
        address: &str,
        repository: &Repository,
        action: &str,
    ) -> Result<String, HubError> {
        self.expect_secure(address, action)?;
        let disk = || HubError::disk(&local.path);
        let response = self.persevere(true, || {
            let mut file = fs::File::open(&local.path).map_err(disk())?;
            file.seek(SeekFrom::Start(from)).map_err(disk())?;
            let mut reader = Told { client: self, local, done: from, inner: file.take(length) };
            let request = self.agent.put(address).header("content-length", length.to_string());
            let request = request.config().timeout_recv_response(Some(self.patience.change)).build();
            let request = request.config().timeout_per_read(Some(self.patience.change)).build();
            let response = request.send(SendBody::from_reader(&mut reader));
            self.go_on()?;
            self.unless_busy(response.map_err(|it| self.network(action, &it))?, action)
        })?;
        if !response.status().is_success() {
            return Err(self.refused_write(response, repository, action));
        }
        let tag = response.headers().get("etag").and_then(|it| it.to_str().ok()).unwrap_or_default();
        Ok(tag.to_owned())
    }

    /// Where the hub is only reached encrypted, files are only sent encrypted.
    fn expect_secure(&self, address: &str, action: &str) -> Result<(), HubError> {
        let secure = Origin::of(&self.access.endpoint).is_some_and(|it| it.is_secure());
        match Origin::of(address) {
            Some(origin) if origin.is_secure() || !secure => Ok(()),
            Some(origin) => {
                Err(self.answer(action, 200, &format!("it wants the file at {origin}, unencrypted")))
            }
            None => Err(self.answer(action, 200, "it wants the file at an address that is none")),
        }
    }

    /// Sends a text once. Only the hub itself may know who we are.
    pub(crate) fn send(
        &self,
        url: &str,
        kind: &str,
        body: &str,
        action: &str,
    ) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.post(url).header("content-type", kind);
        if kind.contains("git-lfs") {
            request = request.header("accept", kind);
        }
        if let Some((name, value)) = self.identity_for(url) {
            request = request.header(name, value);
        }
        let request = request.config().timeout_recv_response(Some(self.patience.change)).build();
        let request = request.config().timeout_per_read(Some(self.patience.change)).build();
        request.send(body).map_err(|it| self.network(action, &it))
    }

    /// Sends a text, again where that may help.
    fn send_surely(
        &self,
        url: &str,
        kind: &str,
        body: &str,
        action: &str,
    ) -> Result<Response<Body>, HubError> {
        self.expect_secure(url, action)?;
        self.persevere(true, || self.unless_busy(self.send(url, kind, body, action)?, action))
    }

    fn post<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        kind: &str,
        body: &str,
        repository: &Repository,
        action: &str,
    ) -> Result<T, HubError> {
        let mut response = self.send_surely(url, kind, body, action)?;
        if !response.status().is_success() {
            return Err(self.refused_write(response, repository, action));
        }
        let text = self.text(&mut response, answers::JSON_BYTES, action)?;
        serde_json::from_str(&text).map_err(|it| self.answer(action, 200, &it.to_string()))
    }

    /// Without the right to write, the hub says that there is nothing.
    fn refused_write(&self, response: Response<Body>, repository: &Repository, action: &str) -> HubError {
        match response.status().as_u16() {
            401 if self.access.token.is_none() => HubError::Forbidden {
                action: action.to_owned(),
                endpoint: self.access.endpoint.clone(),
                reason: "nobody is logged in".to_owned(),
            },
            401 => HubError::Token { endpoint: self.access.endpoint.clone() },
            _ => self.refused(response, repository, "main", Some(""), action),
        }
    }
}

/// Tells how far a file has been read.
struct Told<'a> {
    client: &'a Client,
    local: &'a Local,
    done: u64,
    inner: std::io::Take<fs::File>,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.client.go_on().is_err() {
            return Err(std::io::Error::other("interrupted"));
        }
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        self.client.tell(&self.local.name, self.done, self.local.size);
        Ok(read)
    }
}

/// All files of a folder, in order, but for hidden ones. A link is an error: what it leads to may be private.
fn local_files(folder: &Path) -> Result<Vec<Local>, HubError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).map_err(HubError::disk(&at))? {
            let path = entry.map_err(HubError::disk(&at))?.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            if name.split('/').any(|it| it.starts_with('.')) {
                continue;
            }
            let facts = fs::symlink_metadata(&path).map_err(HubError::disk(&path))?;
            if facts.is_symlink() {
                return Err(HubError::Link { path });
            } else if facts.is_dir() {
                folders.push(path);
            } else if facts.is_file() {
                files.push(Local { name, size: facts.len(), path, large: false });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
