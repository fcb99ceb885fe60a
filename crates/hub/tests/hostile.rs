//! What a hub that means no good, or does not work, can do: nothing but make us say so, and soon.

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    clippy::type_complexity,
    reason = "a server for tests, which is to be short"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hub::{Access, Client, HubError, Kind, Patience, Repository, Token, Upload, sha256};

const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const TOKEN: &str = "hf_secret_token_of_the_test";

/// A request: its method, its address, its headers.
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

/// A server that answers with whatever bytes it wants.
struct Hostile {
    address: String,
    /// Method, address and authorization of each request.
    log: Arc<Mutex<Vec<(String, String, Option<String>)>>>,
}

impl Hostile {
    fn start(answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (log, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let of_thread = log.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (of_thread.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(asked) = read(&mut stream) else { return };
                    let told = asked.headers.get("authorization").cloned();
                    log.lock().unwrap().push((asked.method.clone(), asked.path.clone(), told));
                    answer(&asked, &mut stream);
                });
            }
        });
        Self { address, log }
    }

    fn tokens(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|it| it.2.is_some()).count()
    }

    fn requests(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// A client with a token, which has little patience.
    fn client(&self, cache: &Path) -> Client {
        let (endpoint, token) = (self.address.clone(), Token::new(TOKEN));
        let access = Access { endpoint, token, cache: cache.to_owned(), offline: false };
        let short = Duration::from_millis(300);
        Client::new(access).patient(Patience {
            read: short,
            response: short,
            change: short,
            window: Duration::from_secs(2),
            pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(1),
        })
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(Asked { method, path, headers })
}

/// Sends a whole answer.
fn send(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let mut text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|it| it.0 == "content-length") {
        text += &format!("content-length: {}\r\n", body.len());
    }
    drop(stream.write_all((text + "\r\n").as_bytes()));
    drop(stream.write_all(body));
}

/// The head of an answer about a file.
fn about(stream: &mut TcpStream, etag: &str, size: u64) {
    let (etag, size) = (format!("\"{etag}\""), size.to_string());
    send(stream, 200, &[("etag", &etag), ("x-repo-commit", COMMIT), ("content-length", &size)], b"");
}

fn model() -> Repository {
    Repository::new(Kind::Model, "owner/name").unwrap()
}

fn cache() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// All files below a folder but those of locks.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()) {
        if path.is_dir() && !path.ends_with(".locks") {
            found.extend(files(&path));
        } else if !path.is_dir() {
            found.push(path.display().to_string());
        }
    }
    found
}

fn soon<T>(work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    result
}

#[test]
fn a_commit_that_is_a_path_is_refused_and_nothing_is_written() {
    let victim = cache();
    let file = victim.path().join("victim");
    std::fs::write(&file, "precious").unwrap();
    for sha in [file.to_str().unwrap(), "../../../victim", "main", "", &COMMIT[1..]] {
        let body = format!(r#"{{"sha": "{sha}", "siblings": [{{"rfilename": "config.json"}}]}}"#);
        let server = Hostile::start(move |_, stream| send(stream, 200, &[], body.as_bytes()));
        let cache = cache();
        let error = server.client(cache.path()).info(&model(), "main").unwrap_err().to_string();
        assert!(error.contains("40 hexadecimal digits"), "{error}");
        assert_eq!(files(cache.path()), [""; 0]);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    // Of a commit that was asked for, no other one is taken.
    let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "config.json"}}]}}"#);
    let server = Hostile::start(move |_, stream| send(stream, 200, &[], body.as_bytes()));
    let other = "b".repeat(40);
    assert!(server.client(cache().path()).info(&model(), &other).is_err());
}

#[test]
fn names_of_contents_and_commits_of_files_that_are_paths_are_refused() {
    for (etag, commit) in [
        ("..", COMMIT),
        (".", COMMIT),
        ("../../../evil", COMMIT),
        ("", COMMIT),
        ("abc", "../../../evil"),
        ("abc", "main"),
    ] {
        let server = Hostile::start(move |asked, stream| {
            let etag = format!("\"{etag}\"");
            let body: &[u8] = if asked.method == "HEAD" { b"" } else { b"evil" };
            let headers = [("etag", &*etag), ("x-repo-commit", commit), ("content-length", "4")];
            send(stream, 200, &headers, body);
        });
        let cache = cache();
        let error = server.client(cache.path()).file(&model(), "main", "a.txt").unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{etag} {commit}: {error}");
        assert_eq!(files(cache.path()), [""; 0]);
    }
    // What a record of a stranger names as a revision, or a listing as a file.
    let server = Hostile::start(|_, stream| about(stream, "abc", 4));
    let client = server.client(cache().path());
    for revision in ["../../../evil", "/etc", "a/../../b", "", "a\\b"] {
        assert!(matches!(client.info(&model(), revision), Err(HubError::NoRevision { .. })), "{revision}");
        let error = client.file(&model(), revision, "a.txt");
        assert!(matches!(error, Err(HubError::NoRevision { .. })), "{revision}");
    }
    for path in ["../evil", "/etc/passwd", "a/../../b", "..", "a\0b", "a\\..\\b", "c:b"] {
        assert!(matches!(client.file(&model(), "main", path), Err(HubError::Path { .. })), "{path}");
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_token_stays_with_the_scheme_host_and_port_of_the_hub() {
    let body = b"contents".to_vec();
    let digest = sha256([&body]);
    let (of_file, of_other) = (body.clone(), body);
    let other = Hostile::start(move |_, stream| send(stream, 200, &[], &of_other));
    let place = format!("{}/x", other.address);
    let (linked, size) = (format!("\"{digest}\""), of_file.len().to_string());
    let server = Hostile::start(move |asked, stream| {
        let headers = [
            ("location", &*place),
            ("x-repo-commit", COMMIT),
            ("x-linked-etag", &linked),
            ("x-linked-size", &size),
        ];
        if asked.path.starts_with("/api") {
            // A listing whose next page is elsewhere.
            let link = format!("<{place}>; rel=\"next\"");
            send(stream, 200, &[("link", &link)], b"[]");
        } else {
            send(stream, 302, &headers, b"");
        }
    });
    let cache = cache();
    let client = server.client(cache.path());
    let file = client.file(&model(), "main", "large.bin").unwrap();
    assert_eq!(std::fs::read(file).unwrap(), of_file);
    assert_eq!((other.requests(), other.tokens()), (1, 0), "the same host, another port");
    assert!(server.tokens() >= 2);
    assert_eq!(client.models(&["x"]).unwrap().len(), 0);
    assert_eq!(client.page(&format!("{}/somewhere", server.address), 100).unwrap(), "contents");
    assert_eq!(other.tokens(), 0);
}

#[test]
fn redirections_that_go_round_in_circles_or_nowhere_are_errors() {
    for location in ["/again", "file:///etc/passwd", "ftp://x/y", "http://"] {
        let server = Hostile::start(move |_, stream| send(stream, 302, &[("location", location)], b""));
        let cache = cache();
        let client = server.client(cache.path());
        soon(|| assert!(client.info(&model(), "main").is_err()));
        soon(|| assert!(client.file(&model(), "main", "a.txt").is_err()));
        soon(|| assert!(client.page(&format!("{}/x", server.address), 100).is_err()));
        assert!(server.requests() < 40, "{location}: {}", server.requests());
    }
}

#[test]
fn bodies_that_stall_are_given_up() {
    let server = Hostile::start(|asked, stream| {
        if asked.method == "HEAD" {
            return about(stream, "abc", 1000);
        }
        send(stream, 200, &[("content-length", "1000")], b"{");
        std::thread::sleep(Duration::from_mins(1));
    });
    let cache = cache();
    let client = server.client(cache.path());
    let error = soon(|| client.info(&model(), "main")).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    let error = soon(|| client.file(&model(), "main", "a.txt")).unwrap_err();
    assert!(matches!(error, HubError::Network { .. } | HubError::TooSlow { .. }), "{error}");
    assert!(soon(|| client.models(&["x"])).is_err());
    assert!(soon(|| client.user()).is_err());
    assert!(soon(|| client.page(&format!("{}/x", server.address), 100)).is_err());
}

#[test]
fn a_body_that_drips_is_given_up_although_something_comes_all_the_time() {
    let server = Hostile::start(|asked, stream| {
        if asked.method == "HEAD" {
            return about(stream, "abc", 100_000);
        }
        send(stream, 200, &[("content-length", "100000")], b"");
        for _ in 0..100_000 {
            if stream.write_all(b"x").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let cache = cache();
    let error = soon(|| server.client(cache.path()).file(&model(), "main", "a.txt")).unwrap_err();
    assert!(matches!(error, HubError::TooSlow { .. }), "{error}");
    assert!(error.to_string().contains("bytes in the last"), "{error}");
}

#[test]
fn a_body_without_end_is_cut_at_the_size_that_was_promised_and_not_kept() {
    let server = Hostile::start(|asked, stream| {
        if asked.method == "HEAD" {
            return about(stream, "abc", 1000);
        }
        drop(stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"));
        let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 65536], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    let cache = cache();
    let client = server.client(cache.path());
    let error = soon(|| client.file(&model(), "main", "a.txt")).unwrap_err().to_string();
    assert!(error.contains("at most 1000 bytes"), "{error}");
    assert!(files(cache.path()).iter().all(|it| it.ends_with("/refs/main")), "{:?}", files(cache.path()));
    let error = soon(|| client.info(&model(), "main")).unwrap_err().to_string();
    assert!(error.contains("more than 67108864 bytes"), "{error}");
    let error = soon(|| client.page(&format!("{}/x", server.address), 100)).unwrap_err().to_string();
    assert!(error.contains("longer than 100 bytes"), "{error}");
}

#[test]
fn a_file_larger_than_the_disk_is_refused_before_anything_is_fetched() {
    let server = Hostile::start(|_, stream| about(stream, "abc", 1 << 60));
    let cache = cache();
    let error = server.client(cache.path()).file(&model(), "main", "a.txt").unwrap_err();
    if cfg!(unix) {
        assert!(matches!(error, HubError::NoRoom { needed, .. } if needed == 1 << 60), "{error}");
        assert_eq!(server.requests(), 1);
    }
}

#[test]
fn a_hub_that_asks_to_wait_is_obeyed_and_not_for_long() {
    let busy = Arc::new(AtomicUsize::new(2));
    let of_server = busy.clone();
    let server = Hostile::start(move |_, stream| {
        if of_server.load(Ordering::Relaxed) > 0 {
            of_server.fetch_sub(1, Ordering::Relaxed);
            return send(stream, 429, &[("retry-after", "1")], br#"{"error": "slow down"}"#);
        }
        send(stream, 200, &[], format!(r#"{{"sha": "{COMMIT}"}}"#).as_bytes());
    });
    let cache = cache();
    let client = server.client(cache.path());
    let begun = Instant::now();
    assert_eq!(client.info(&model(), "main").unwrap().commit, COMMIT);
    assert!(begun.elapsed() >= Duration::from_secs(2) && server.requests() == 3);
    let forever = Hostile::start(|_, stream| {
        send(stream, 503, &[("retry-after", "999999")], br#"{"error": "slow down"}"#);
    });
    let error = soon(|| forever.client(cache.path()).info(&model(), "main")).unwrap_err().to_string();
    assert!(error.contains("slow down") && error.contains("wait for 999999 seconds"), "{error}");
    assert_eq!(forever.requests(), 1);
    let always = Hostile::start(|_, stream| send(stream, 503, &[], b"busy"));
    let error = soon(|| always.client(cache.path()).info(&model(), "main")).unwrap_err();
    assert!(matches!(error, HubError::Busy { status: 503, .. }), "{error}");
    assert_eq!(always.requests(), 5);
}

#[test]
fn no_message_holds_the_token_or_what_a_terminal_obeys() {
    let server = Hostile::start(|asked, stream| {
        let told = asked.headers.get("authorization").cloned().unwrap_or_default();
        let status = if asked.path.contains("whoami") { 418 } else { 500 };
        let body = format!("you said {told} \x1b]0;title\x07 {}", "x".repeat(3000));
        send(stream, status, &[], body.as_bytes());
    });
    let cache = cache();
    let client = server.client(cache.path());
    let errors = [
        client.info(&model(), "main").unwrap_err(),
        client.file(&model(), "main", "a.txt").unwrap_err(),
        client.models(&["x"]).unwrap_err(),
        client.may_read(&model()).unwrap_err(),
        client.last_commit(&model(), "x").unwrap_err(),
        client.user().unwrap_err(),
        client.page(&format!("{}/x", server.address), 10_000).unwrap_err(),
    ];
    for error in errors {
        let said = format!("{error} {error:?}");
        assert!(!said.contains("secret_token") && !said.contains('\x1b'), "{said}");
        assert!(said.len() < 3000, "{said}");
    }
}

#[test]
fn whatever_is_waited_for_it_can_be_stopped_at_once() {
    let server = Hostile::start(|asked, stream| {
        if asked.method == "HEAD" {
            return about(stream, "abc", 1000);
        }
        std::thread::sleep(Duration::from_mins(1));
    });
    let cache = cache();
    let stopped = Arc::new(AtomicBool::new(false));
    let of_client = stopped.clone();
    let patient =
        Patience { response: Duration::from_mins(1), read: Duration::from_mins(1), ..Patience::default() };
    let client =
        server.client(cache.path()).patient(patient).stopping_when(move || of_client.load(Ordering::Relaxed));
    let stop = || {
        let stopped = stopped.clone();
        stopped.store(false, Ordering::Relaxed);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            stopped.store(true, Ordering::Relaxed);
        });
    };
    let interrupted = |result: Result<(), HubError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, HubError::Interrupted), "{error}");
    };
    stop();
    soon(|| interrupted(client.info(&model(), "main").map(drop)));
    // A lock that another process holds, and then a file.
    let locks = cache.path().join(".locks/models--owner--name");
    std::fs::create_dir_all(&locks).unwrap();
    let held = std::fs::File::create(locks.join("abc.lock")).unwrap();
    held.lock().unwrap();
    stop();
    soon(|| interrupted(client.file(&model(), "main", "a.txt").map(drop)));
    drop(held);
    stop();
    soon(|| interrupted(client.file(&model(), "main", "a.txt").map(drop)));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "a").unwrap();
    stop();
    let upload = Upload { folder: folder.path(), private: true, message: "x" };
    soon(|| interrupted(client.upload(&model(), &upload).map(drop)));
}

#[cfg(unix)]
#[test]
fn links_in_a_folder_are_not_uploaded() {
    let server = Hostile::start(|_, stream| send(stream, 200, &[], b"{}"));
    let (cache, folder) = (cache(), tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for (target, name) in [("/etc/hostname", "a"), ("/etc", "sub/b"), ("nowhere", "c")] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let upload = Upload { folder: folder.path(), private: true, message: "x" };
        let error = server.client(cache.path()).upload(&model(), &upload).unwrap_err();
        assert!(matches!(&error, HubError::Link { path } if *path == link), "{error}");
        std::fs::remove_file(link).unwrap();
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn storage_that_names_odd_parts_is_refused() {
    for (chunk, parts) in [("18446744073709551615", 2), ("1", 2), ("4", 0), ("4", 9), ("8", 2)] {
        let server = Hostile::start(move |asked, stream| {
            let body = if asked.path.contains("preupload") {
                r#"{"files": [{"path": "a", "uploadMode": "lfs"}]}"#.to_owned()
            } else if asked.path.contains("batch") {
                let addresses: String =
                    (1..=parts).map(|it| format!(r#", "{it}": "http://127.0.0.1:1/{it}""#)).collect();
                format!(
                    r#"{{"objects": [{{"oid": "{}", "actions": {{"upload": {{"href": "http://127.0.0.1:1/",
                        "header": {{"chunk_size": "{chunk}"{addresses}}}}}}}}}]}}"#,
                    sha256(["12345678"])
                )
            } else {
                "{}".to_owned()
            };
            send(stream, 200, &[], body.as_bytes());
        });
        let (cache, folder) = (cache(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("a"), "12345678").unwrap();
        let upload = Upload { folder: folder.path(), private: true, message: "x" };
        let error = server.client(cache.path()).upload(&model(), &upload).unwrap_err().to_string();
        assert!(error.contains("parts of"), "{chunk} {parts}: {error}");
    }
}
