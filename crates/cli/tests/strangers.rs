//! Folders and hubs of strangers, and signals that come at any time: the real program on the toy model of
//! `demo/README.md`.

#![cfg(unix)]

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use server::{Server, TOKEN};

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

/// The program in a folder, with a hub or without the network.
fn ablate(folder: &Path, server: Option<&Server>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("HF_HOME", folder.join("cache"));
    match server {
        Some(server) => command.env("HF_ENDPOINT", &server.address).env("HF_TOKEN", TOKEN),
        None => command.env("HF_HUB_OFFLINE", "1"),
    };
    command
}

/// A run of one trial.
fn run<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments =
        vec!["run", model, "--isolated", "--study", "study.jsonl", "--trials", "1", "--pick", "min kl"];
    arguments.extend(
        "--good-prompts embedded:demo-answered-train[:8] --bad-prompts embedded:demo-refused-train[:8] \
         --refusal-prompts embedded:demo-refused-eval[:4] --kl-prompts embedded:demo-answered-eval[:4] \
         --max-response-length 4 --batch-size 8 --response-prefix= --startup-trials 1"
            .split_whitespace(),
    );
    arguments.extend(more);
    arguments
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// A hub with the toy.
fn hub() -> Server {
    let server = Server::start(0);
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(toy())
        .unwrap()
        .map(|it| it.unwrap())
        .map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|it| (it.0.as_str(), it.1.as_slice())).collect();
    server.add("models/owner/name", &files);
    server
}

#[test]
fn a_private_file_that_a_models_folder_links_to_is_neither_saved_nor_put_into_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir_all(model.join("sub")).unwrap();
    for entry in std::fs::read_dir(toy()).unwrap().map(|it| it.unwrap()) {
        std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("secret.txt"), "a-private-token").unwrap();
    drop(std::fs::remove_file(model.join("README.md")));
    symlink("../secret.txt", model.join("LICENSE")).unwrap();
    symlink("../secret.txt", model.join("README.md")).unwrap();
    symlink("../../secret.txt", model.join("sub/notes.txt")).unwrap();
    let output = ablate(folder.path(), None, &run("model", &["--save", "out", "--reproduction", "full"]));
    let output = output_of(output);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for name in ["LICENSE", "sub/notes.txt"] {
        assert!(said.contains(&format!("not copied: model/{name} is a link")), "{said}");
    }
    let mut folders = vec![folder.path().join("out")];
    while let Some(at) = folders.pop() {
        for path in std::fs::read_dir(at).unwrap().map(|it| it.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!String::from_utf8_lossy(&bytes).contains("a-private-token"), "{}", path.display());
            }
        }
    }
    // What the model is loaded from is refused by name.
    std::fs::remove_file(model.join("tokenizer_config.json")).unwrap();
    symlink("../secret.txt", model.join("tokenizer_config.json")).unwrap();
    let output = output_of(ablate(folder.path(), None, &["generate", "model", "--prompt", "hi"]));
    let error = self::said(&output);
    assert!(
        error.contains("tokenizer_config.json` is a link that leads out") && error.contains("hint: "),
        "{error}"
    );
}

fn output_of(mut command: Command) -> Output {
    command.output().unwrap()
}

#[test]
fn signals_end_a_download_that_has_stalled_and_the_exit_code_says_which_it_was() {
    let server = hub();
    server.change(|it| it.stalls = true);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let folder = tempfile::tempdir().unwrap();
        server.asked();
        let mut command = ablate(folder.path(), Some(&server), &run("owner/name", &[]));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while !server.state.lock().unwrap().log.iter().any(|it| it.0 == "GET" && it.1.starts_with("/storage"))
        {
            assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", server.asked());
            std::thread::sleep(Duration::from_millis(20));
        }
        let signalled = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(signalled.unwrap().success());
        let begun = Instant::now();
        let status = child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn a_model_may_be_named_by_its_address_and_half_of_one_in_the_cache_is_called_that() {
    let (server, folder) = (hub(), tempfile::tempdir().unwrap());
    let generate = |model: &str, server| {
        output_of(ablate(folder.path(), server, &["generate", model, "--prompt", "hi", "--max-tokens", "1"]))
    };
    let output = generate(&format!("{}/owner/name/tree/main", server.address), Some(&server));
    assert!(output.status.success(), "{}", said(&output));
    let output = generate("https://huggingface.co/owner/name", None);
    assert!(output.status.success(), "{}", said(&output));
    let output = generate("https://huggingface.co/datasets/owner/name", None);
    assert!(
        said(&output).contains("names no model of the hub: it is one of `datasets`"),
        "{}",
        said(&output)
    );
    // As a download that was cut off leaves it.
    let snapshots = folder.path().join("cache/hub/models--owner--name/snapshots");
    let snapshot = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let output = generate("owner/name", None);
    let said = said(&output);
    assert!(said.contains("only half downloaded") && said.contains("but not its weights"), "{said}");
    assert!(said.contains("hint: unset HF_HUB_OFFLINE"), "{said}");
}

#[test]
fn a_model_whose_upload_fails_is_kept_and_it_is_said_where_and_how_to_upload_it() {
    let (server, folder) = (Server::start(0), tempfile::tempdir().unwrap());
    server.change(|it| it.no_commits = true);
    let model = toy();
    let arguments = run(model.to_str().unwrap(), &["--upload", "tester/edited", "--no-check"]);
    let output = output_of(ablate(folder.path(), Some(&server), &arguments));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (_, rest) = said.split_once("the model is kept in `").expect(&said);
    let (place, rest) = rest.split_once('`').unwrap();
    assert!(rest.contains("hf upload --private tester/edited "), "{said}");
    assert!(folder.path().join(place).join("model.safetensors").exists(), "{place}");
}

#[test]
fn what_a_killed_saving_left_is_removed_and_named_at_the_next() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".out.partial-77")).unwrap();
    std::fs::write(folder.path().join(".out.partial-77/model.safetensors"), "half").unwrap();
    std::fs::write(folder.path().join(".out.partial-77.lock"), "").unwrap();
    let model = toy();
    let arguments = run(model.to_str().unwrap(), &["--save", "out", "--no-check"]);
    let output = output_of(ablate(folder.path(), None, &arguments));
    let said = said(&output);
    assert!(output.status.success() && said.contains("removed `.out.partial-77`"), "{said}");
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["out", "study.jsonl"]);
}

#[test]
fn numbers_that_no_machine_can_serve_are_errors_or_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let model = toy();
    let generate = |more: &[&str]| {
        let mut arguments = vec!["generate", model.to_str().unwrap(), "--prompt", "hi"];
        arguments.extend(more);
        output_of(ablate(folder.path(), None, &arguments))
    };
    for threads in ["10000", "18446744073709551615"] {
        let output = generate(&["--max-tokens", "1", "--threads", threads]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(threads) && said.contains("at most"), "{said}");
    }
    let mut arguments = vec!["run", model.to_str().unwrap(), "--isolated", "--parallel-trials", "1000000"];
    arguments.extend(["--good-prompts", "text:a", "--bad-prompts", "text:b"]);
    arguments.extend(["--refusal-prompts", "text:b", "--kl-prompts", "text:a"]);
    let output = output_of(ablate(folder.path(), None, &arguments));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`parallel_trials` is 1000000, expected 1 to 1024"), "{said}");
}
