//! Programs that score, in runs that are interrupted and killed.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A run on the toy model with a program of the user's among its scorers.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run, its program a shell script that has introduced itself already; `$NOTES` is the folder's path.
    fn command(&self, script: &str) -> Command {
        let script = format!(
            "NOTES={}\nread -r hello; echo '{{\"type\":\"hello\",\"version\":1}}'\nread -r init; echo '{{\"type\":\"ready\"}}'\n{script}",
            self.folder.path().display()
        );
        self.with_program(&["sh", "-c", &script])
    }

    /// The run with this program.
    fn with_program(&self, words: &[&str]) -> Command {
        let settings = serde_json::json!({"command": words});
        let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.args(["run", toy.to_str().unwrap(), "--isolated"]);
        for (set, source) in [
            ("--good-prompts", "embedded:demo-answered-train[:4]"),
            ("--bad-prompts", "embedded:demo-refused-train[:4]"),
            ("--refusal-prompts", "embedded:demo-refused-eval[:2]"),
            ("--kl-prompts", "embedded:demo-answered-eval[:2]"),
        ] {
            command.args([set, source]);
        }
        command.args(["--max-response-length", "4", "--batch-size", "8", "--response-prefix", ""]);
        command.args(["--n-trials", "2", "--scorer", "kl_divergence:minimize"]);
        command.args(["--scorer", &format!("command@mine:none:{settings}")]);
        command.arg("--study").arg(self.path("study.jsonl"));
        command.env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn started(&self, script: &str) -> Child {
        self.command(script).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What the script has noted, once it has.
    fn note(&self, name: &str) -> String {
        let mut noted = String::new();
        until("a note of the program", || {
            noted = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            noted.ends_with('\n')
        });
        noted.trim().to_owned()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process exists that is not merely waiting to be noticed as dead.
fn lives(process: &str) -> bool {
    let state = format!("ps -o stat= -p {process} | grep -qv Z");
    Command::new("sh").args(["-c", &state]).status().unwrap().success()
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// Whether this process ignores SIGHUP, and so do those that it starts.
fn hangups_are_ignored() -> bool {
    let shell = Command::new("sh").args(["-c", "kill -HUP $$; echo ignored"]).output().unwrap();
    shell.stdout == b"ignored\n"
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Hangs once it has to score, together with a child, and notes both.
const HANG: &str = "sleep 600 </dev/null >/dev/null 2>&1 & echo $! > $NOTES/child
    read -r line; echo $$ > $NOTES/program; sleep 600";

#[test]
fn a_run_obeys_a_signal_while_its_program_hangs_and_leaves_nothing_running() {
    // Under `nohup` a run is not to end when its terminal is closed, and these tests may be run so.
    let signals = if hangups_are_ignored() { &["-INT", "-TERM"][..] } else { &["-INT", "-TERM", "-HUP"] };
    for signal in signals {
        let run = Run::new();
        let child = run.started(HANG);
        let (program, of_program) = (run.note("program"), run.note("child"));
        let asked = Instant::now();
        kill(signal, child.id());
        let output = child.wait_with_output().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(20), "{signal}: {:?}", asked.elapsed());
        assert!(!output.status.success(), "{signal}");
        assert!(text(&output).contains("interrupted"), "{signal}: {}", text(&output));
        until("the program's end", || !lives(&program) && !lives(&of_program));
    }
}

#[test]
fn a_program_and_its_children_do_not_outlive_a_run_that_was_killed() {
    let run = Run::new();
    let mut child = run.started(HANG);
    let (program, of_program) = (run.note("program"), run.note("child"));
    assert!(lives(&program) && lives(&of_program));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the program's end", || !lives(&program) && !lives(&of_program));
}

#[test]
fn the_status_of_a_program_that_dies_reaches_the_user() {
    let run = Run::new();
    let output = run.command("echo 'no memory' >&2; read -r line; kill -SEGV $$").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("signal: 11") && said.contains("stderr: no memory"), "{said}");
}

#[test]
fn a_program_that_cannot_be_started_is_named_before_anything_is_computed() {
    let output = Run::new().with_program(&["/no/such/program"]).output().unwrap();
    let said = text(&output);
    assert!(said.contains("`/no/such/program` cannot be started: "), "{said}");
    assert!(said.contains("hint: give the program and its arguments as a list"), "{said}");
}
