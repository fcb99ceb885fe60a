//! A hub on this machine that speaks the protocol: repositories, files with ranges and redirections, gated and private
//! ones, creation, large files, commits. `tools/hub_check.py` shows that Python's own client is content with it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::struct_excessive_bools,
    clippy::unnecessary_get_then_check,
    reason = "each of the two users needs a part"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The token of the account that may see private repositories, and write.
pub const TOKEN: &str = "hf_right_token_of_the_test";

/// Files of at least this size are large ones.
const LARGE: usize = 10_000;

/// Large files are sent in parts of this size.
const PART: usize = 60_000;

#[derive(Clone, Default)]
pub struct Repo {
    pub files: BTreeMap<String, Vec<u8>>,
    pub private: bool,
    pub gated: bool,
    pub tags: Vec<String>,
    /// Earlier commits.
    pub history: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Repo {
    pub fn commit(&self) -> String {
        let mut digest = Sha256::new();
        for (path, bytes) in &self.files {
            digest.update(path);
            digest.update(bytes);
        }
        hex(&digest.finalize())[..40].to_owned()
    }
}

impl Repo {
    /// Its own, and those that its card has between the lines `tags:` and `---`.
    pub fn all_tags(&self) -> Vec<String> {
        let card = self.files.get("README.md").map(|it| String::from_utf8_lossy(it).into_owned());
        let card = card.unwrap_or_default();
        let listed =
            card.lines().skip_while(|it| *it != "tags:").skip(1).map_while(|it| it.strip_prefix("- "));
        self.tags.iter().cloned().chain(listed.map(str::to_owned)).collect()
    }
}

#[derive(Default)]
pub struct State {
    /// By `models/owner/name` or `datasets/owner/name`.
    pub repos: BTreeMap<String, Repo>,
    pub stored: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Method, address, whether somebody said who they are, range.
    pub log: Vec<(String, String, bool, Option<String>)>,
    /// Bytes after which answers with files are cut off, each once.
    pub cuts: Vec<usize>,
    /// Whether ranges are ignored.
    pub no_ranges: bool,
    /// Whether large files are sent in parts.
    pub in_parts: bool,
    /// Requests that change something and are answered with 503 before they are served.
    pub failures: usize,
    /// How many of them are served before that.
    pub spared: usize,
    /// Whether commits are refused.
    pub no_commits: bool,
    /// Whether large files stop after their first bytes.
    pub stalls: bool,
    /// What lies at addresses outside of all repositories.
    pub pages: BTreeMap<String, Vec<u8>>,
}

/// Repositories on one page of a listing.
const PAGE: usize = 2;

pub struct Server {
    pub address: String,
    pub state: Arc<Mutex<State>>,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: value.to_string().into(),
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let mut headers = vec![("x-error-message".to_owned(), message.to_owned())];
        if !code.is_empty() {
            headers.push(("x-error-code".into(), code.into()));
        }
        Self { status, headers, body: json!({"error": message}).to_string().into() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Server {
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (of_thread, at) = (state.clone(), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, at) = (of_thread.clone(), at.clone());
                std::thread::spawn(move || while serve(&stream, &state, &at) == Some(()) {});
            }
        });
        Self { address, state }
    }

    pub fn add(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.entry(name.to_owned()).or_default();
        if !repo.files.is_empty() {
            let (commit, files) = (repo.commit(), repo.files.clone());
            repo.history.insert(commit, files);
        }
        repo.files.extend(files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())));
        repo.commit()
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Addresses asked for, with their methods, since the last time.
    pub fn asked(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.state.lock().unwrap().log);
        log.into_iter().map(|it| format!("{} {}", it.0, it.1)).collect()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>, address: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut stream = stream;
    if headers.get("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|it| it == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk).ok()?;
            if length == 0 {
                break;
            }
            body.extend(&chunk[..length]);
        }
    } else {
        let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    }
    let asked = Asked { method, path, headers, body };
    let (answer, cut) = {
        let mut state = state.lock().unwrap();
        let known = asked.headers.contains_key("authorization");
        let range = asked.headers.get("range").cloned();
        state.log.push((asked.method.clone(), asked.path.clone(), known, range));
        let changes = asked.method != "GET" && asked.method != "HEAD";
        let answer = if changes && state.spared == 0 && state.failures > 0 {
            state.failures -= 1;
            Answer::error(503, "", "busy")
        } else {
            state.spared -= usize::from(changes && state.spared > 0);
            state.answer(&asked, address)
        };
        if state.stalls && asked.method == "GET" && answer.body.len() >= LARGE {
            drop(state);
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", answer.body.len());
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&answer.body[..100]).ok()?;
            std::thread::sleep(std::time::Duration::from_mins(10));
            return None;
        }
        let whole = matches!(answer.status, 200 | 206) && asked.method == "GET" && answer.body.len() > 1000;
        let cut = if whole && !state.cuts.is_empty() { Some(state.cuts.remove(0)) } else { None };
        (answer, cut)
    };
    let mut text = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    let told = answer.headers.iter().any(|it| it.0 == "content-length");
    if !told {
        text += &format!("content-length: {}\r\n", answer.body.len());
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).ok()?;
    if asked.method != "HEAD" {
        match cut {
            Some(cut) => {
                stream.write_all(&answer.body[..cut.min(answer.body.len())]).ok()?;
                stream.shutdown(std::net::Shutdown::Both).ok()?;
                return None;
            }
            None => stream.write_all(&answer.body).ok()?,
        }
    }
    Some(())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        if let (b'%', [a, b, more @ ..]) = (first, more) {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&[*a, *b]).unwrap(), 16).unwrap());
            rest = more;
        } else {
            bytes.push(first);
            rest = more;
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl State {
    fn answer(&mut self, asked: &Asked, address: &str) -> Answer {
        let token = asked.headers.get("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let path = path.trim_start_matches('/').to_owned();
        if let Some(oid) = path.strip_prefix("storage/") {
            // Addresses of the storage are secrets of their own: who comes with a token gave it away.
            if token.is_some() {
                return Answer::error(400, "", "a token was sent to the storage");
            }
            return self.storage(oid, asked);
        }
        if let Some(body) = self.pages.get(&path) {
            let body = body.clone();
            return Answer { status: if token.is_some() { 400 } else { 200 }, headers: Vec::new(), body };
        }
        if token.is_some_and(|it| it != TOKEN) {
            return Answer::error(401, "", "Invalid credentials in Authorization header");
        }
        let known = token.is_some();
        let parts: Vec<&str> = path.split('/').collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["api", "whoami-v2"]) if known => Answer::json(
                &json!({"name": "tester", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}),
            ),
            ("POST", ["api", "validate-yaml"]) => Answer::json(&json!({"errors": [], "warnings": []})),
            ("POST", ["api", "repos", "create"]) => self.create(asked, known, address),
            ("POST", [.., _, "info", "lfs", "objects", "batch"]) if known => self.batch(asked, address),
            ("POST", ["lfs", "verify"]) if known => Answer::json(&json!({})),
            ("GET", ["api", "models"]) => self.listing(query, address),
            (_, ["api", kind, owner, name, rest @ ..]) => {
                let key = format!("{kind}/{owner}/{name}");
                if let Some(refused) = self.refused(&key, known, false) {
                    return refused;
                }
                match (asked.method.as_str(), rest) {
                    ("GET", [] | ["revision", _]) => {
                        let revision = rest.get(1).map_or_else(|| "main".to_owned(), |it| decoded(it));
                        self.info(&key, &revision, query.contains("blobs"))
                    }
                    ("GET", ["auth-check"]) if self.repos[&key].gated && !known => {
                        Answer::error(403, "GatedRepo", "Access to it is restricted.")
                    }
                    ("GET", ["auth-check"]) => Answer::json(&json!({})),
                    ("GET", ["tree", revision, ..]) => self.tree(&key, &decoded(revision)),
                    ("POST", ["paths-info", revision]) => self.paths_info(&key, &decoded(revision), asked),
                    ("POST", ["preupload", _]) if known => preupload(asked),
                    ("POST", ["commit", _]) if known => self.commit(&key, asked, address),
                    _ => Answer::error(404, "", "no such thing"),
                }
            }
            ("GET" | "HEAD", _) => self.resolve(&parts, asked, known, address),
            _ => Answer::error(401, "", "log in first"),
        }
    }

    fn refused(&self, key: &str, known: bool, contents: bool) -> Option<Answer> {
        let Some(repo) = self.repos.get(key).filter(|it| !it.private || known) else {
            let status = if known { 404 } else { 401 };
            return Some(Answer::error(status, "RepoNotFound", "Repository not found"));
        };
        (repo.gated && !known && contents)
            .then(|| Answer::error(401, "GatedRepo", "Access to it is restricted."))
    }

    fn files(&self, key: &str, revision: &str) -> Option<(String, &BTreeMap<String, Vec<u8>>)> {
        let repo = &self.repos[key];
        let now = repo.commit();
        if revision == "main" || revision == now {
            return Some((now, &repo.files));
        }
        repo.history.get(revision).map(|it| (revision.to_owned(), it))
    }

    fn info(&self, key: &str, revision: &str, blobs: bool) -> Answer {
        let Some((commit, files)) = self.files(key, revision) else {
            return Answer::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let file = |(path, bytes): (&String, &Vec<u8>)| {
            if blobs { json!({"rfilename": path, "size": bytes.len()}) } else { json!({"rfilename": path}) }
        };
        let siblings: Vec<Value> = files.iter().map(file).collect();
        let (_, id) = key.split_once('/').unwrap();
        let repo = &self.repos[key];
        Answer::json(&json!({
            "_id": "1", "id": id, "modelId": id, "sha": commit, "private": repo.private,
            "gated": if repo.gated { json!("manual") } else { json!(false) }, "disabled": false, "tags": [],
            "downloads": 0, "likes": 0, "siblings": siblings, "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }))
    }

    /// Public models that have all tags asked for, a page of them and where the next one is.
    fn listing(&self, query: &str, address: &str) -> Answer {
        let parts: Vec<(&str, String)> =
            query.split('&').filter_map(|it| it.split_once('=')).map(|it| (it.0, decoded(it.1))).collect();
        let from = parts.iter().find(|it| it.0 == "cursor").map_or(0, |it| it.1.parse().unwrap());
        let wanted: Vec<&String> = parts.iter().filter(|it| it.0 == "filter").map(|it| &it.1).collect();
        let models: Vec<Value> = self
            .repos
            .iter()
            .filter_map(|(key, repo)| Some((key.strip_prefix("models/")?, repo)))
            .filter(|(_, repo)| !repo.private && wanted.iter().all(|it| repo.all_tags().contains(it)))
            .map(|(id, repo)| {
                let gated = if repo.gated { json!("manual") } else { json!(false) };
                json!({"_id": "1", "id": id, "modelId": id, "gated": gated, "tags": repo.all_tags()})
            })
            .collect();
        let answer = Answer::json(&models.iter().skip(from).take(PAGE).cloned().collect());
        if from + PAGE >= models.len() {
            return answer;
        }
        let rest: Vec<&str> = query.split('&').filter(|it| !it.starts_with("cursor=")).collect();
        let next = format!("<{address}/api/models?{}&cursor={}>; rel=\"next\"", rest.join("&"), from + PAGE);
        answer.with("link", next)
    }

    fn entry(path: &str, bytes: &[u8]) -> Value {
        let mut entry =
            json!({"type": "file", "oid": sha256(bytes)[..40], "size": bytes.len(), "path": path});
        if bytes.len() >= LARGE {
            entry["lfs"] = json!({"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
        }
        entry
    }

    fn tree(&self, key: &str, revision: &str) -> Answer {
        let Some((_, files)) = self.files(key, revision) else {
            return Answer::error(404, "RevisionNotFound", "Invalid rev id");
        };
        Answer::json(&files.iter().map(|(path, bytes)| Self::entry(path, bytes)).collect())
    }

    fn paths_info(&self, key: &str, revision: &str, asked: &Asked) -> Answer {
        let Some((_, files)) = self.files(key, revision) else {
            return Answer::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let expanded = body.contains("\"expand\":true") || body.contains("expand=true");
        let wanted: Vec<String> = match serde_json::from_str::<Value>(&body) {
            Ok(it) => {
                it["paths"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
            }
            Err(_) => body.split('&').filter_map(|it| it.strip_prefix("paths=")).map(decoded).collect(),
        };
        let mut found: Vec<Value> = Vec::new();
        for path in wanted {
            if let Some(bytes) = files.get(&path) {
                let mut entry = Self::entry(&path, bytes);
                if expanded {
                    let commit = sha256(bytes)[..40].to_owned();
                    entry["lastCommit"] =
                        json!({"id": commit, "title": "x", "date": "2026-01-01T00:00:00.000Z"});
                    entry["securityFileStatus"] = json!(null);
                }
                found.push(entry);
            } else if path.is_empty() || files.keys().any(|it| it.starts_with(&format!("{path}/"))) {
                found.push(json!({"type": "directory", "oid": "0", "path": path}));
            }
        }
        Answer::json(&found.into())
    }

    fn resolve(&self, parts: &[&str], asked: &Asked, known: bool, address: &str) -> Answer {
        let (kind, parts) = match parts {
            ["datasets", rest @ ..] => ("datasets", rest),
            rest => ("models", rest),
        };
        let [owner, name, "resolve" | "raw", revision, path @ ..] = parts else {
            return Answer::error(404, "", "no such page");
        };
        let (key, revision) = (format!("{kind}/{owner}/{name}"), decoded(revision));
        if let Some(refused) = self.refused(&key, known, true) {
            return refused;
        }
        let Some((commit, files)) = self.files(&key, &revision) else {
            return Answer::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let path = decoded(&path.join("/"));
        let Some(bytes) = files.get(&path) else {
            return Answer::error(404, "EntryNotFound", "Entry not found").with("x-repo-commit", commit);
        };
        let (oid, size) = (sha256(bytes), bytes.len());
        if size >= LARGE {
            // Large files lie elsewhere: another name of this machine, so that clients see another host.
            let elsewhere = address.replace("127.0.0.1", "localhost");
            return Answer { status: 302, headers: Vec::new(), body: b"Found".to_vec() }
                .with("location", format!("{elsewhere}/storage/{oid}"))
                .with("x-repo-commit", commit)
                .with("x-linked-etag", format!("\"{oid}\""))
                .with("x-linked-size", size.to_string())
                .with("etag", format!("\"{}\"", &oid[..40]));
        }
        self.contents(bytes, asked).with("x-repo-commit", commit).with("etag", format!("\"{}\"", &oid[..40]))
    }

    fn contents(&self, bytes: &[u8], asked: &Asked) -> Answer {
        let from = asked.headers.get("range").filter(|_| !self.no_ranges);
        let from = from.and_then(|it| it.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok());
        let headers = vec![("accept-ranges".to_owned(), "bytes".to_owned())];
        match from {
            Some(from) if from < bytes.len() => Answer { status: 206, headers, body: bytes[from..].to_vec() }
                .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            _ => Answer { status: 200, headers, body: bytes.to_vec() },
        }
    }

    fn storage(&mut self, oid: &str, asked: &Asked) -> Answer {
        if asked.method == "PUT" {
            let (oid, part) =
                oid.split_once('/').map_or((oid, 0), |(oid, part)| (oid, part.parse().unwrap()));
            if part > 0 {
                self.parts.insert((oid.to_owned(), part), asked.body.clone());
            } else {
                self.stored.insert(oid.to_owned(), asked.body.clone());
            }
            return Answer::json(&json!({})).with("etag", format!("\"{}\"", sha256(&asked.body)));
        }
        if asked.method == "POST" {
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            let mut whole = Vec::new();
            for (part, given) in (1..).zip(body["parts"].as_array().unwrap()) {
                let bytes = &self.parts[&(oid.to_owned(), part)];
                assert_eq!(given["etag"], format!("\"{}\"", sha256(bytes)));
                whole.extend(bytes);
            }
            self.stored.insert(oid.to_owned(), whole);
            return Answer::json(&json!({}));
        }
        let everything = self
            .repos
            .values()
            .flat_map(|it| it.files.values().chain(it.history.values().flat_map(BTreeMap::values)));
        let found = everything.filter(|it| it.len() >= LARGE).find(|it| sha256(it) == oid).cloned();
        found.map_or_else(|| Answer::error(404, "", "nothing stored"), |bytes| self.contents(&bytes, asked))
    }

    fn create(&mut self, asked: &Asked, known: bool, address: &str) -> Answer {
        if !known {
            return Answer::error(401, "", "Invalid username or password.");
        }
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let kind = body["type"].as_str().unwrap_or("model");
        let (owner, name) =
            (body["organization"].as_str().unwrap_or("tester"), body["name"].as_str().unwrap());
        if owner == "somebody-else" {
            return Answer::error(
                403,
                "",
                "You don't have the rights to create a model under this namespace",
            );
        }
        let key = format!("{kind}s/{owner}/{name}");
        let url =
            json!({"url": format!("{address}/{owner}/{name}"), "name": format!("{owner}/{name}"), "id": "1"});
        if self.repos.contains_key(&key) {
            let mut answer = Answer::json(&url);
            answer.status = 409;
            return answer;
        }
        self.repos.insert(key, Repo { private: body["private"] == true, ..Repo::default() });
        Answer::json(&url)
    }

    fn batch(&mut self, asked: &Asked, address: &str) -> Answer {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let object = |it: &Value| {
            let (oid, size) = (it["oid"].as_str().unwrap(), it["size"].as_u64().unwrap() as usize);
            if self.stored.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            let href = format!("{}/storage/{oid}", address.replace("127.0.0.1", "localhost"));
            let mut header = json!({});
            if self.in_parts {
                header["chunk_size"] = json!(PART.to_string());
                for part in 1..=size.div_ceil(PART) {
                    header[format!("{part:05}")] = json!(format!("{href}/{part}"));
                }
            }
            let verify = json!({"href": format!("{address}/lfs/verify"), "header": {}});
            json!({"oid": oid, "size": size, "actions": {"upload": {"href": href, "header": header}, "verify": verify}})
        };
        let objects: Vec<Value> = body["objects"].as_array().unwrap().iter().map(object).collect();
        let transfer = if self.in_parts { "multipart" } else { "basic" };
        Answer::json(&json!({"transfer": transfer, "objects": objects}))
    }

    fn commit(&mut self, key: &str, asked: &Asked, address: &str) -> Answer {
        if self.no_commits {
            return Answer::error(400, "", "no commits today");
        }
        let mut files = self.repos[key].files.clone();
        for line in String::from_utf8(asked.body.clone()).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let value = &line["value"];
            let path = || value["path"].as_str().unwrap().to_owned();
            match line["key"].as_str().unwrap() {
                "file" => {
                    drop(files.insert(path(), STANDARD.decode(value["content"].as_str().unwrap()).unwrap()));
                }
                "lfsFile" => {
                    let oid = value["oid"].as_str().unwrap();
                    let Some(bytes) = self.stored.get(oid) else {
                        return Answer::error(400, "", "a large file was not uploaded");
                    };
                    if sha256(bytes) != oid {
                        return Answer::error(400, "", "a large file is damaged");
                    }
                    files.insert(path(), bytes.clone());
                }
                _ => {}
            }
        }
        let repo = self.repos.get_mut(key).unwrap();
        if !repo.files.is_empty() {
            let (commit, files) = (repo.commit(), repo.files.clone());
            repo.history.insert(commit, files);
        }
        repo.files = files;
        let commit = repo.commit();
        Answer::json(
            &json!({"success": true, "commitOid": commit, "commitUrl": format!("{address}/x/commit/{commit}")}),
        )
    }
}

fn preupload(asked: &Asked) -> Answer {
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let way = |it: &Value| {
        let large = it["size"].as_u64().unwrap() as usize >= LARGE;
        json!({"path": it["path"], "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": false})
    };
    Answer::json(&json!({"files": body["files"].as_array().unwrap().iter().map(way).collect::<Vec<_>>()}))
}
