//! The menu at the end of a run, as a person at a terminal uses it: the real program in a pseudo-terminal, on the toy
//! model of `demo/README.md`.

#![cfg(unix)]

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::path::Path;
use std::process::{Command, Stdio};

use rexpect::session::{Options, PtySession, spawn_with_options};
use serde_json::Value;
use server::{Server, TOKEN};

const ENTER: &str = "\r";
const ESCAPE: &str = "\x1b";
const CONTROL_C: &str = "\x03";
const CONTROL_D: &str = "\x04";
const DOWN: &str = "\x1b[B";
const UP: &str = "\x1b[A";

/// The arguments of a short run of the toy in this folder.
fn arguments(folder: &Path, more: &[&str]) -> Vec<String> {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let study = folder.join("study.jsonl");
    let mut arguments: Vec<String> =
        ["run", toy.to_str().unwrap(), "--study", study.to_str().unwrap()].map(str::to_owned).to_vec();
    arguments.extend(
        "--good-prompts embedded:demo-answered-train --bad-prompts embedded:demo-refused-train \
         --kl-prompts embedded:demo-answered-eval[:32] \
         --max-response-length 32 --batch-size 64 --response-prefix= --startup-trials 6 --seed 3"
            .split_whitespace()
            .map(str::to_owned),
    );
    if !more.contains(&"--refusal-prompts") {
        arguments.extend(["--refusal-prompts", "embedded:demo-refused-eval[:32]"].map(str::to_owned));
    }
    arguments.extend(more.iter().map(|it| (*it).to_owned()));
    arguments
}

/// The program at a terminal of its own.
struct Terminal(PtySession);

impl Terminal {
    fn start(folder: &Path, more: &[&str]) -> Self {
        Self::beside(&Server::start(0), folder, more)
    }

    /// With this hub, where nobody is logged in.
    fn beside(hub: &Server, folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.env("HF_ENDPOINT", &hub.address).env("HF_HOME", folder.join("hub"));
        for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
        command.args(arguments(folder, more)).current_dir(folder).env("NO_COLOR", "1").env("TERM", "xterm");
        // Long, for a loaded machine; nothing waits for it to pass.
        let options = Options::new().timeout_ms(Some(120_000)).strip_ansi_escape_codes(true);
        Self(spawn_with_options(command, options).unwrap())
    }

    /// Waits until this is said, and answers with what was said before it.
    fn says(&mut self, what: &str) -> String {
        self.0.exp_string(what).unwrap_or_else(|error| panic!("waiting for {what:?}: {error}"))
    }

    fn press(&mut self, keys: &str) {
        self.0.send(keys).unwrap();
        self.0.flush().unwrap();
    }

    /// Goes down so many lines of a menu, and takes the one that is there.
    fn take(&mut self, down: usize) {
        self.press(&DOWN.repeat(down));
        self.press(ENTER);
    }

    fn exit_code(self) -> i32 {
        // `Exited(Pid(123), 0)`: rexpect does not export the type.
        let ended = format!("{:?}", self.0.process().wait().unwrap());
        let code = ended.strip_prefix("Exited").and_then(|it| it.trim_end_matches(')').rsplit(' ').next());
        code.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{ended}"))
    }
}

fn show(folder: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.args(["study", "show", folder.join("study.jsonl").to_str().unwrap()]).args(more);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn study(folder: &Path) -> Value {
    serde_json::from_str(&show(folder, &["--json"])).unwrap()
}

#[test]
fn every_branch_of_the_menu_does_what_it_says_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = Terminal::start(folder.path(), &["--trials", "8"]);
    at.says("(8 of 8;");
    at.says("prompts of the same sources that the search did not see");
    at.says("trial  refusals  95 %");
    let heading = at.says("Which trial?");
    for column in ["unseen", "kl_divergence", "median", "largest"] {
        assert!(heading.contains(column), "{heading}");
    }
    let rows = at.says("Run more trials");
    assert!(rows.contains("/32") && rows.contains(" %  "), "{rows}");

    at.take(0);
    let table = at.says("What now?");
    assert!(table.contains("95 % interval") && table.contains("median"), "{table}");
    assert!(table.contains("\n  unseen"), "{table}");
    assert!(table.contains("32/32"), "the original refuses all: {table}");

    at.says("Back");
    at.take(5);
    at.says("\"direction_index\"");

    other_prompts(&mut at);
    talk(&mut at);
    save(&mut at, folder.path());
    at.says("Back");
    at.press(ESCAPE);
    at.says("Which trial?");
    more_trials(&mut at);
    assert_eq!(at.exit_code(), 0);

    let study = study(folder.path());
    assert_eq!(study["trials"].as_array().unwrap().len(), 11);
    for member in study["front"].as_array().unwrap() {
        let unseen = &study["user_attrs"]["held_out"][member.to_string()];
        assert_eq!(unseen[0]["details"]["total"], 32, "{unseen}");
        let display = unseen[1]["display"].as_str().unwrap();
        assert!(show(folder.path(), &["--front"]).contains(&format!("kl_divergence {display}")), "{display}");
    }
    assert!(show(folder.path(), &[]).lines().nth(1).unwrap().contains("unseen"));
}

fn other_prompts(at: &mut Terminal) {
    // Prompts that cannot be read are asked for again.
    at.says("Back");
    at.press(UP);
    at.press(ENTER);
    at.says("Prompts that show the behaviour");
    at.press("no/such.txt\r");
    at.says("prompts: `no/such.txt`: No such file");
    at.press(ESCAPE);
    at.says("Back");
    at.press(ENTER);
    at.says("Prompts that show the behaviour");
    at.press("-\r");
    at.says("standard input is the terminal here");
    at.press(CONTROL_C);
    at.says("Back");
    at.press(ENTER);
    at.says("Prompts that show the behaviour");
    at.press("embedded:demo-refused-eval[40:60]\r");
    at.says("Prompts that do not?");
    at.press(ENTER);
    at.says("/20");
}

fn talk(at: &mut Terminal) {
    at.says("Back");
    at.press(UP);
    at.press(ENTER);
    at.says("/reset begins anew");
    at.says("> ");
    at.press("Tell me about the nimdep curse.\r");
    at.says("-- the original:");
    let refusal = at.says("> ");
    assert!(refusal.contains("sorry"), "{refusal}");
    at.press(CONTROL_D);
    at.says("Back");
    at.press(UP);
    at.press(ENTER);
    at.says("/reset begins anew");
    at.says("> ");
    at.press("Tell me about the nimdep curse.\r");
    at.says("The nimdep curse");
    at.press("/reset\r");
    at.says("a new conversation");
    at.press(CONTROL_C);
}

fn save(at: &mut Terminal, folder: &Path) {
    at.says("Back");
    at.press(UP);
    at.press(UP);
    at.press(ENTER);
    at.says("As what?");
    at.says("an adapter");
    at.press(ENTER);
    at.says("Where to?");
    at.press(ENTER);
    at.says("a name, please");
    at.press("edited\r");
    at.says("so that it can be made again?");
    at.says("Nothing");
    at.press(ENTER);
    at.says("model written to edited");
    at.says("how to make it again: edited/reproduce");
    at.says("as written: refusals");
    assert!(folder.join("edited/reproduce/reproduce.json").exists());
    let card = std::fs::read_to_string(folder.join("edited/README.md")).unwrap();
    assert!(card.contains("on unseen prompts"), "{card}");
    at.says("Back");
    at.press(ENTER);
    at.says("an adapter");
    at.take(1);
    at.says("Where to?");
    at.press("edited\r");
    at.says("`edited` exists already");
    at.press("\x7f\x7f\x7f\x7f\x7f\x7fadapter\r");
    at.says("adapter written to adapter");
    at.says("the adapter, of rank 1, is exact");
    let adapter = std::fs::read_dir(folder.join("adapter")).unwrap();
    assert_eq!(adapter.count(), 3, "configuration, weights, card; no model, and nothing noted");
    let card = std::fs::read_to_string(folder.join("adapter/README.md")).unwrap();
    assert!(card.contains("DoRA") && card.contains("on unseen prompts"), "{card}");
    at.says("Back");
    at.press(ENTER);
    at.says("an adapter");
    at.press(ESCAPE);
    at.says("Back");
    at.press(ENTER);
    at.says("an adapter");
    at.press(ENTER);
    at.says("Where to?");
    // Nobody, the administrator included, can make a folder in a file.
    at.press("study.jsonl/edited\r");
    at.says("Nothing");
    at.take(2);
    at.says("error: ");
    at.says("study.jsonl");
}

fn more_trials(at: &mut Terminal) {
    at.says("Leave");
    at.press(UP);
    at.press(UP);
    at.press(ENTER);
    at.says("How many more?");
    at.press("0\r");
    at.says("a whole number above 0");
    at.press("\x7f3\r");
    at.says("(11 of 11;");
    at.says("Which trial?");
    at.says("Leave");
    at.press(ENTER);
    at.says("How many more?");
    at.press(ESCAPE);
    at.says("Which trial?");
    at.says("Leave");
    at.take(1);
}

#[test]
fn a_trial_is_uploaded_by_somebody_who_was_not_logged_in_and_more_trials_are_run_as_told() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Server::start(0));
    let told = ["--trials", "2", "--n-additional-trials", "1", "--no-check"];
    let mut at = Terminal::beside(&hub, folder.path(), &told);
    at.says("Which trial?");
    at.says("Leave");
    at.take(0);
    at.says("Back");
    at.take(1);
    at.says("Your access token");
    at.press("nonsense\r");
    at.says("error: ");
    at.says("Back");
    at.press(ENTER);
    at.says("Your access token");
    at.press(&format!("{TOKEN}\r"));
    let said = at.says("Which repository?");
    assert!(!said.contains(TOKEN), "{said}");
    at.says("tester/model-edited");
    at.press("no name of one\r");
    at.says("Public");
    at.press(ENTER);
    at.says("cannot be a repository's name");
    at.says("Back");
    at.press(ENTER);
    at.says("Your access token");
    at.press(&format!("{TOKEN}\r"));
    at.says("Which repository?");
    at.press(ENTER);
    at.says("Public");
    at.take(1);
    at.says("an adapter");
    at.press(ENTER);
    at.says("Nothing");
    at.press(ENTER);
    at.says("others cannot make this model again, nothing is noted");
    at.says("/tester/model-edited (public), commit ");
    at.says("Back");
    at.press(ESCAPE);
    at.says("Which trial?");
    at.says("Leave");
    at.press(UP);
    at.press(UP);
    at.press(ENTER);
    at.says("(3 of 3;");
    at.says("Leave");
    at.press(ESCAPE);
    assert_eq!(at.exit_code(), 0);
    hub.change(|it| {
        let files = &it.repos["models/tester/model-edited"].files;
        assert!(files.contains_key("model.safetensors") && files.contains_key("config.json"));
        let card = String::from_utf8(files["README.md"].clone()).unwrap();
        assert!(card.starts_with("---\ntags:\n- ablate\n- abliterated\nbase_model: "), "{card}");
    });
    let left = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
    assert!(left.into_iter().all(|it| !it.to_string_lossy().starts_with("upload-")));
}

#[test]
fn sources_without_more_prompts_are_said_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let all = ["--trials", "2", "--refusal-prompts", "embedded:demo-refused-eval"];
    let mut at = Terminal::start(folder.path(), &all);
    at.says("no held-out scores of refusals: fewer than 20 unused prompts");
    // The other set has more, so that its score is there.
    at.says("on prompts that the search did not see: kl_divergence");
    at.says("Which trial?");
    at.press(CONTROL_C);
    assert_eq!(at.exit_code(), 0);
}

#[test]
fn a_search_that_is_interrupted_shows_what_it_has_and_goes_on_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = Terminal::start(folder.path(), &["--trials", "1000000"]);
    at.says("(7 of 1000000;");
    at.press(CONTROL_C);
    at.says("interrupted; the same command goes on later");
    at.says("Which trial?");
    at.says("Leave");
    at.press(ESCAPE);
    assert_eq!(at.exit_code(), 0);
    let known = study(folder.path())["trials"].as_array().unwrap().len();

    // Whoever does not answer has changed nothing.
    for key in [ESCAPE, CONTROL_C] {
        let mut at = Terminal::start(folder.path(), &["--trials", "4"]);
        at.says("it was not finished");
        at.says("Begin anew");
        at.press(key);
        at.says("interrupted");
        assert_eq!(at.exit_code(), 130);
        assert_eq!(study(folder.path())["trials"].as_array().unwrap().len(), known);
    }
    let more = (known + 2).to_string();
    let mut at = Terminal::start(folder.path(), &["--trials", &more]);
    at.says("Begin anew");
    at.press(ENTER);
    at.says("resuming the study");
    at.says("Which trial?");
    at.says("Leave");
    at.press(ESCAPE);
    assert_eq!(at.exit_code(), 0);
    assert_eq!(study(folder.path())["trials"].as_array().unwrap().len(), known + 2);

    // `ask` asks, as no choice does; begun anew twice, two old files are kept.
    for (kept, action) in [("study.jsonl.old", "ask"), ("study.jsonl.old2", "restart")] {
        let mut at = Terminal::start(folder.path(), &["--trials", "2", "--checkpoint-action", action]);
        if action == "ask" {
            at.says("Begin anew");
            at.take(1);
        }
        at.says(&format!("{kept}`"));
        at.says("Which trial?");
        at.says("Leave");
        at.press(ESCAPE);
        assert_eq!(at.exit_code(), 0);
        assert_eq!(study(folder.path())["trials"].as_array().unwrap().len(), 2);
        assert!(folder.path().join(kept).exists());
    }
    let mut at = Terminal::start(folder.path(), &["--trials", "3", "--checkpoint-action", "continue"]);
    at.says("(3 of 3;");
    at.says("Leave");
    at.press(ESCAPE);
    assert_eq!(at.exit_code(), 0);
}

#[test]
fn without_a_terminal_nobody_is_asked_and_an_interruption_has_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let command = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.args(arguments(folder.path(), more)).stdin(Stdio::null());
        command
    };
    let output = command(&["--trials", "3"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("trial  refusals  95 %") && said.contains("unseen"), "{said}");
    let output = command(&["--trials", "4", "--checkpoint-action", "ask"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("nobody can be asked") && said.contains("hint: give --checkpoint-action"),
        "{said}"
    );

    let mut child = command(&["--trials", "1000000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|it| it.unwrap().contains(r#""event":"trial""#)));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the same command goes on") && said.ends_with("interrupted\n"), "{said}");
}
