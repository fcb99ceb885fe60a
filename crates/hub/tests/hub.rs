//! Downloads and uploads against a hub on this machine.

mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};

use hub::{Access, Client, HubError, Kind, Patience, Repository, Token, Upload};
use server::{Server, TOKEN};

const MODEL: &str = "models/owner/name";

fn access(server: &Server, cache: &Path) -> Access {
    Access { endpoint: server.address.clone(), token: None, cache: cache.to_owned(), offline: false }
}

fn with_token(server: &Server, cache: &Path, token: &str) -> Client {
    Client::new(Access { token: Token::new(token), ..access(server, cache) })
}

fn model(id: &str) -> Repository {
    Repository::new(Kind::Model, id).unwrap()
}

fn large() -> Vec<u8> {
    (0..150_000_u64).map(|it| (it * it / 7) as u8).collect()
}

#[test]
fn a_file_is_downloaded_once_and_lies_where_other_clients_look_for_it() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit =
        server.add(MODEL, &[("config.json", b"{}"), ("deep/er/large.bin", &large()), ("ä b.txt", b"odd")]);
    let client = Client::new(access(&server, cache.path()));
    let info = client.info(&model("owner/name"), "main").unwrap();
    assert_eq!(info.commit, commit);
    let files: Vec<&str> = info.files.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(files, ["config.json", "deep/er/large.bin", "ä b.txt"]);
    assert_eq!(info.files[1].size, Some(150_000));
    for file in files {
        let path = client.file(&model("owner/name"), &commit, file).unwrap();
        let root = cache.path().join("models--owner--name");
        assert_eq!(path, root.join("snapshots").join(&commit).join(file));
        let blob = std::fs::canonicalize(&path).unwrap();
        assert_eq!(blob.parent().unwrap(), std::fs::canonicalize(root.join("blobs")).unwrap());
    }
    let refs = std::fs::read_to_string(cache.path().join("models--owner--name/refs/main")).unwrap();
    assert_eq!(refs, commit);
    server.asked();
    let path = client.file(&model("owner/name"), &commit, "deep/er/large.bin").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), large());
    assert!(server.asked().is_empty(), "what is there needs no network");
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_stopped() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit = server.add(MODEL, &[("large.bin", &large())]);
    server.change(|it| it.cuts = vec![70_000, 30_000]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_observer = seen.clone();
    let client = Client::new(access(&server, cache.path()))
        .watched(move |it| of_observer.lock().unwrap().push((it.done, it.all)));
    let path = client.file(&model("owner/name"), &commit, "large.bin").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), large());
    let ranges: Vec<Option<String>> = server
        .state
        .lock()
        .unwrap()
        .log
        .iter()
        .filter(|it| it.0 == "GET" && it.1.starts_with("/storage"))
        .map(|it| it.3.clone())
        .collect();
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    // Not every byte that was sent need have arrived when a connection ends.
    let from = |it: &Option<String>| {
        it.as_ref().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>().unwrap()
    };
    assert!(from(&ranges[1]) > 0 && from(&ranges[2]) > from(&ranges[1]), "{ranges:?}");
    assert_eq!(seen.lock().unwrap().last(), Some(&(150_000, 150_000)));
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole_file_again() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit = server.add(MODEL, &[("large.bin", &large())]);
    server.change(|it| (it.cuts, it.no_ranges) = (vec![70_000], true));
    let client = Client::new(access(&server, cache.path()));
    let path = client.file(&model("owner/name"), &commit, "large.bin").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), large());
}

#[test]
fn damage_is_found_and_not_kept() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit = server.add(MODEL, &[("large.bin", &large())]);
    let client = Client::new(access(&server, cache.path()));
    // What an earlier download left behind is wrong.
    let etag = server::hex(&<sha2::Sha256 as sha2::Digest>::digest(large()));
    let blobs = cache.path().join("models--owner--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{etag}.incomplete")), vec![9; 1000]).unwrap();
    let error = client.file(&model("owner/name"), &commit, "large.bin").unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    let path = client.file(&model("owner/name"), &commit, "large.bin").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), large());
}

#[test]
fn without_the_network_the_cache_answers() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit = server.add(MODEL, &[("a.txt", b"a"), ("b.txt", b"b")]);
    let client = Client::new(access(&server, cache.path()));
    client.info(&model("owner/name"), "main").unwrap();
    client.file(&model("owner/name"), "main", "a.txt").unwrap();
    let offline = Client::new(Access { offline: true, ..access(&server, cache.path()) });
    let dead =
        Client::new(Access { endpoint: "http://127.0.0.1:9".to_owned(), ..access(&server, cache.path()) });
    server.asked();
    for client in [offline, dead] {
        let info = client.info(&model("owner/name"), "main").unwrap();
        assert_eq!(
            (info.commit.as_str(), info.files.len(), info.files[0].path.as_str()),
            (commit.as_str(), 1, "a.txt")
        );
        let path = client.file(&model("owner/name"), "main", "a.txt").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"a");
        assert!(client.info(&model("owner/other"), "main").is_err());
    }
    assert!(server.asked().is_empty());
    let offline = Client::new(Access { offline: true, ..access(&server, cache.path()) });
    let said = offline.file(&model("owner/name"), "main", "b.txt").unwrap_err().to_string();
    assert!(said.contains("`b.txt`") && said.contains("HF_HUB_OFFLINE"), "{said}");
}

#[test]
fn an_earlier_commit_can_be_had() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let old = server.add(MODEL, &[("a.txt", b"old")]);
    let new = server.add(MODEL, &[("a.txt", b"new")]);
    let client = Client::new(access(&server, cache.path()));
    for (revision, text) in [(old.as_str(), "old"), (&new, "new"), ("main", "new")] {
        let path = client.file(&model("owner/name"), revision, "a.txt").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
}

#[test]
fn what_is_missing_gated_or_private_is_explained_and_no_error_holds_the_token() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    server.add(MODEL, &[("a.txt", b"a")]);
    server.add("models/owner/gated", &[("a.txt", b"a")]);
    server.add("models/owner/private", &[("a.txt", b"a")]);
    server.change(|it| {
        it.repos.get_mut("models/owner/gated").unwrap().gated = true;
        it.repos.get_mut("models/owner/private").unwrap().private = true;
    });
    let nobody = Client::new(access(&server, cache.path()));
    let wrong = with_token(&server, cache.path(), "hf_wrong_token_of_the_test");
    let right = with_token(&server, cache.path(), TOKEN);
    let said = |client: &Client, id: &str, revision: &str, file: &str| {
        let error = client.info(&model(id), revision).and_then(|_| client.file(&model(id), revision, file));
        let error = error.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("token_of_the_test"), "{said}");
        said
    };
    assert!(said(&nobody, "owner/nothing", "main", "a.txt").contains("is not on http://127.0.0.1"));
    assert!(said(&nobody, "owner/private", "main", "a.txt").contains("or is private"));
    assert!(said(&nobody, "owner/gated", "main", "a.txt").contains("is gated"));
    assert!(said(&nobody, "owner/name", "v9", "a.txt").contains("no revision `v9`"));
    assert!(said(&nobody, "owner/name", "main", "b.txt").contains("no file `b.txt`"));
    assert!(said(&nobody, "owner/name", "main", "../../x").contains("outside"));
    assert!(said(&wrong, "owner/name", "main", "a.txt").contains("does not accept the token"));
    assert!(said(&right, "owner/nothing", "main", "a.txt").contains("the token given may not see it"));
    for id in ["owner/gated", "owner/private"] {
        right.file(&model(id), "main", "a.txt").unwrap();
    }
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let commit = server.add(MODEL, &[("large.bin", &large())]);
    let client = with_token(&server, cache.path(), TOKEN);
    client.file(&model("owner/name"), &commit, "large.bin").unwrap();
    let log = &server.state.lock().unwrap().log;
    assert!(log.iter().any(|it| it.2 && it.1.contains("/resolve/")), "{log:?}");
    assert!(log.iter().all(|it| !(it.2 && it.1.starts_with("/storage"))), "{log:?}");
}

#[test]
fn a_folder_becomes_a_repository_with_one_commit_and_is_not_sent_twice() {
    for in_parts in [false, true] {
        let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
        server.change(|it| it.in_parts = in_parts);
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write("README.md", b"---\ntags:\n- ablate\n---\n");
        write("model.safetensors", &large());
        write("deep/empty.txt", b"");
        write(".hidden", b"not this");
        let client = with_token(&server, cache.path(), TOKEN);
        let upload = Upload { folder: folder.path(), private: true, message: "A model" };
        let uploaded = client.upload(&model("tester/edited"), &upload).unwrap();
        {
            let state = server.state.lock().unwrap();
            let repo = &state.repos["models/tester/edited"];
            assert!(repo.private);
            let names: Vec<&String> = repo.files.keys().collect();
            assert_eq!(names, ["README.md", "deep/empty.txt", "model.safetensors"]);
            assert_eq!(repo.files["model.safetensors"], large());
            assert_eq!(uploaded.commit, repo.commit());
            assert!(state.log.iter().all(|it| !(it.2 && it.1.starts_with("/storage"))));
        }
        server.asked();
        client.upload(&model("tester/edited"), &upload).unwrap();
        assert!(server.asked().iter().all(|it| !it.starts_with("PUT")), "large files are there already");
    }
}

#[test]
fn an_upload_goes_on_when_the_hub_has_too_much_to_do_for_a_while() {
    for in_parts in [false, true] {
        let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), large()).unwrap();
        std::fs::write(folder.path().join("README.md"), "a card").unwrap();
        let short = Patience { pause: std::time::Duration::from_millis(1), ..Patience::default() };
        let client = with_token(&server, cache.path(), TOKEN).patient(short);
        let upload = Upload { folder: folder.path(), private: true, message: "A model" };
        // Whichever request it is, and twice in a row.
        for failures in 1..=2 {
            for before in 0..6 {
                server.change(|it| {
                    (it.in_parts, it.failures, it.spared) = (in_parts, failures, before);
                    it.stored.clear();
                });
                let name = format!("tester/x{failures}{before}");
                client.upload(&model(&name), &upload).unwrap();
                let state = server.state.lock().unwrap();
                assert_eq!(state.repos[&format!("models/{name}")].files["model.safetensors"], large());
                assert_eq!(state.failures, 0);
            }
        }
        server.change(|it| it.failures = 100);
        let error = client.upload(&model("tester/never"), &upload).unwrap_err();
        assert!(matches!(error, HubError::Busy { status: 503, .. }), "{error}");
    }
}

#[test]
fn an_upload_without_the_right_to_it_is_explained() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "a").unwrap();
    let upload = Upload { folder: folder.path(), private: false, message: "x" };
    let said = |client: &Client, id: &str| client.upload(&model(id), &upload).unwrap_err().to_string();
    assert!(said(&Client::new(access(&server, cache.path())), "tester/x").contains("nobody is logged in"));
    assert!(
        said(&with_token(&server, cache.path(), "hf_wrong"), "tester/x")
            .contains("does not accept the token")
    );
    let said = said(&with_token(&server, cache.path(), TOKEN), "somebody-else/x");
    assert!(said.contains("rights to create") && said.contains("the right to write"), "{said}");
}

#[test]
fn models_are_listed_by_their_tags_over_several_pages() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    let both = vec!["a tag".to_owned(), "b".to_owned()];
    for name in ["m1", "m2", "m3", "m4", "m5"] {
        server.add(&format!("models/owner/{name}"), &[("reproduce/reproduce.json", name.as_bytes())]);
        server.change(|it| it.repos.get_mut(&format!("models/owner/{name}")).unwrap().tags = both.clone());
    }
    server.add("models/owner/one-tag", &[("README.md", b"---\ntags:\n- b\n---\n")]);
    server.change(|it| {
        it.repos.get_mut("models/owner/m2").unwrap().gated = true;
        it.repos.get_mut("models/owner/m3").unwrap().private = true;
    });
    let client = Client::new(access(&server, cache.path()));
    let listed = client.models(&["a tag", "b"]).unwrap();
    let names: Vec<(&str, bool)> = listed.iter().map(|it| (it.repository.id.as_str(), it.gated)).collect();
    assert_eq!(names, [("owner/m1", false), ("owner/m2", true), ("owner/m4", false), ("owner/m5", false)]);
    assert_eq!(listed[0].tags, both);
    assert_eq!(server.asked().len(), 2, "two on a page");
    assert_eq!(client.models(&["b"]).unwrap().len(), 5);
    assert!(!client.may_read(&model("owner/m2")).unwrap());
    assert!(with_token(&server, cache.path(), TOKEN).may_read(&model("owner/m2")).unwrap());
    assert!(matches!(client.may_read(&model("owner/none")), Err(HubError::NoRepository { .. })));
    let commit = client.last_commit(&model("owner/m1"), "reproduce/reproduce.json").unwrap().unwrap();
    assert_eq!(commit.len(), 40);
    assert_eq!(client.last_commit(&model("owner/one-tag"), "reproduce/reproduce.json").unwrap(), None);
    let offline = Client::new(Access { offline: true, ..access(&server, cache.path()) });
    for error in [offline.models(&["b"]).unwrap_err(), offline.may_read(&model("owner/m1")).unwrap_err()] {
        assert!(matches!(&error, HubError::Network { reason, .. } if reason.contains("HF_HUB_OFFLINE")));
    }
}

#[test]
fn a_page_is_fetched_from_where_its_file_lies_and_only_the_hub_learns_who_asks() {
    let (server, cache) = (Server::start(0), tempfile::tempdir().unwrap());
    server.add("models/owner/private", &[("a/file.json", b"{\"a\": 1}")]);
    server.change(|it| it.repos.get_mut("models/owner/private").unwrap().private = true);
    server.change(|it| {
        it.pages.insert("elsewhere/raw/main/x.json".to_owned(), "ä".repeat(50).into_bytes());
        it.pages.insert("latin1".to_owned(), vec![0xE4]);
    });
    let client = with_token(&server, cache.path(), TOKEN);
    let of_the_hub = format!("{}/owner/private/blob/main/a/file.json", server.address);
    assert_eq!(client.page(&of_the_hub, 100).unwrap(), "{\"a\": 1}");
    // Pages of the server that are none of the hub answer with an error to those who come with a token.
    let elsewhere = server.address.replace("127.0.0.1", "localhost");
    let page = format!("{elsewhere}/elsewhere/blob/main/x.json");
    assert_eq!(client.page(&page, 100).unwrap().chars().count(), 50);
    let said = client.page(&page, 99).unwrap_err().to_string();
    assert!(said.contains("longer than 99 bytes"), "{said}");
    let said = client.page(&format!("{elsewhere}/latin1"), 100).unwrap_err().to_string();
    assert!(said.contains("UTF-8"), "{said}");
    let said = client.page(&format!("{elsewhere}/nowhere"), 100).unwrap_err().to_string();
    assert!(said.contains("404") || said.contains("401"), "{said}");
    let offline = Client::new(Access { offline: true, ..access(&server, cache.path()) });
    assert!(offline.page(&page, 100).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
}
