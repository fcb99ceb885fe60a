//! The scorer `command` with real programs: small shell scripts, and the example in Python.
#![cfg(unix)]

use std::process::Command;
use std::time::{Duration, Instant};

use scorers::{
    Configured, DefaultSets, Evidence, LastLines, Need, Plan, ProgramError, ProgramFailure, Score,
    ScoreError, configure,
};
use serde_json::{Value, json};

/// The polite beginning of every script, and a way to read the id of a request to score.
const PREAMBLE: &str = r#"
    read -r hello; echo '{"type":"hello","version":1}'
    read -r init; echo '{"type":"ready"}'
    id() { id=${1#*\"id\":}; printf %s "${id%%,*}"; }
"#;

fn scorer(settings: &Value) -> Configured {
    let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
    configure("command", Some("mine"), None, settings, &sets).unwrap()
}

fn script(text: &str) -> Configured {
    scorer(&json!({"command": ["sh", "-c", format!("{PREAMBLE}{text}")], "time_limit_seconds": 20.0}))
}

fn evidence(prompts: &[&str], answers: &[&str]) -> Evidence {
    let owned = |texts: &[&str]| texts.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    Evidence::new().with_prompts(&"bad".into(), owned(prompts)).with_answers(&"bad".into(), owned(answers))
}

fn two() -> Evidence {
    evidence(&["One?", "Two?"], &["one", "two"])
}

fn program_error(result: Result<Score, ScoreError>) -> ProgramError {
    match result {
        Err(ScoreError::Program { scorer, source }) if scorer == "mine" => *source,
        other => panic!("expected an error of the program, found {other:?}"),
    }
}

fn lines(lines: &[&str]) -> LastLines {
    LastLines(lines.iter().map(|&it| it.to_owned()).collect())
}

/// Whether a process exists.
fn lives(process: &str) -> bool {
    let status = Command::new("sh").args(["-c", &format!("kill -0 {process} 2>/dev/null")]).status();
    status.unwrap().success()
}

const GOOD: &str =
    r#"while read -r line; do echo "{\"type\":\"score\",\"id\":$(id "$line"),\"value\":0.25}"; done"#;

#[test]
fn a_program_scores_many_candidates_and_is_started_once() {
    let scorer = script(
        r#"n=0; while read -r line; do n=$((n+1))
            echo "{\"type\":\"score\",\"id\":$(id "$line"),\"value\":$n,\"objective\":9,\"display\":\"run $n of $$\"}"
        done"#,
    );
    scorer.scorer.prepare(&|| false).unwrap();
    let first = scorer.score(&two()).unwrap();
    let second = scorer.score(&two()).unwrap();
    assert_eq!((first.value, second.value, second.objective), (1.0, 2.0, 9.0));
    let process = first.display.strip_prefix("run 1 of ").unwrap();
    assert_eq!(second.display, format!("run 2 of {process}"));

    assert!(lives(process));
    drop(scorer);
    assert!(!lives(process), "a dropped scorer leaves its program behind");
}

#[test]
fn the_program_gets_its_settings_and_every_prompt_with_its_answer() {
    let dump = r#"while read -r line; do printf '%s\n' \
        "{\"type\":\"score\",\"id\":$(id "$line"),\"value\":0,\"details\":{\"seen\":[$hello,$init,$line]}}"; done"#;
    let command = json!(["sh", "-c", format!("{PREAMBLE}{dump}")]);
    let scorer = scorer(&json!({"command": command, "settings": {"words": ["a", 2]}}));
    assert_eq!(scorer.scorer.needs(), [Need::Answers { prompts: "bad".into(), until: None }]);
    let score = scorer.score(&evidence(&["Why \"so\"?", "b"], &["line\nbreak – ’", ""])).unwrap();
    let seen = &score.details.facts["reported"]["seen"];
    assert_eq!(seen[0], json!({"type": "hello", "version": 1}));
    assert_eq!(seen[1], json!({"type": "init", "name": "mine", "settings": {"words": ["a", 2]}}));
    let expected = json!({
        "type": "score", "id": seen[2]["id"],
        "prompts": ["Why \"so\"?", "b"], "responses": ["line\nbreak – ’", ""],
    });
    assert_eq!(seen[2], expected);
}

#[test]
fn without_a_display_the_value_is_shown_and_details_are_kept() {
    let scorer = script(
        r#"read -r line; echo "{\"type\":\"score\",\"id\":$(id "$line"),\"value\":0.25,\"per_prompt\":[0,0.5],\"details\":{\"count\":1}}""#,
    );
    let score = scorer.score(&two()).unwrap();
    assert_eq!((score.value, score.objective, score.display.as_str()), (0.25, 0.25, "0.2500"));
    assert_eq!(score.details.per_prompt, [0.0, 0.5]);
    assert_eq!(score.details.facts["reported"], json!({"count": 1}));
}

#[test]
fn a_program_that_does_not_exist_is_found_out_before_the_run() {
    let scorer = scorer(&json!({"command": ["/no/such/program"]}));
    let error =
        program_error(scorer.scorer.prepare(&|| false).map(|()| unreachable!("it cannot have been started")));
    assert!(matches!(error.failure, ProgramFailure::Start { .. }), "{error}");
    assert_eq!(error.program, "/no/such/program");
}

#[test]
fn a_crash_is_told_with_status_and_stderr_and_the_next_candidate_gets_a_new_program() {
    let marker = std::env::temp_dir().join(format!("ablate-scorers-crash-{}", std::process::id()));
    let _ = std::fs::remove_file(&marker);
    let path = marker.display();
    let scorer = script(&format!(
        "if [ ! -e {path} ]; then touch {path}; read -r line; echo 'loading' >&2; echo 'out of memory' >&2; exit 3; fi\n{GOOD}"
    ));
    let error = program_error(scorer.score(&two()));
    let message = error.to_string();
    let ProgramFailure::Ended { request, status } = error.failure else { panic!("{error}") };
    assert_eq!((request.as_str(), error.stderr), ("score", lines(&["loading", "out of memory"])));
    assert!(status.contains('3') && message.contains("\n  stderr: out of memory"), "{message}");
    assert_eq!(scorer.score(&two()).unwrap().value.to_bits(), 0.25_f64.to_bits());
    std::fs::remove_file(&marker).unwrap();
}

#[test]
fn a_program_that_hangs_is_killed_at_its_time_limit() {
    let hang = format!("{PREAMBLE} echo $$ >&2; read -r line; exec sleep 600");
    let scorer = scorer(&json!({"command": ["sh", "-c", hang], "time_limit_seconds": 0.5}));
    let start = Instant::now();
    let error = program_error(scorer.score(&two()));
    let ProgramFailure::TimeLimit { seconds, .. } = error.failure else { panic!("{error}") };
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    assert_eq!(seconds.to_bits(), 0.5_f64.to_bits());
    assert!(!lives(&error.stderr.0[0]), "the program outlives its time limit");
}

#[test]
fn what_is_not_json_is_shown() {
    let scorer = script("read -r line; echo 'Loading model…'; cat >/dev/null");
    let error = program_error(scorer.score(&two()));
    assert!(
        matches!(&error.failure, ProgramFailure::NotJson { reply, .. } if reply == "Loading model…"),
        "{error}"
    );
    assert!(error.to_string().contains("hint: stdout is for the protocol alone"));
}

#[test]
fn bytes_that_are_no_text_are_no_json_either() {
    let scorer = script(r"read -r line; printf '\377\376\n'; cat >/dev/null");
    assert!(matches!(program_error(scorer.score(&two())).failure, ProgramFailure::NotJson { .. }));
}

#[test]
fn a_reply_of_another_form_is_refused_with_the_reason() {
    for (reply, reason) in [
        (r#"{\"type\":\"score\",\"id\":77,\"value\":1}"#, "id 77"),
        (r#"{\"type\":\"ready\",\"id\":$(id "$line"),\"value\":1}"#, "type `ready`"),
        (r#"{\"type\":\"score\",\"id\":$(id "$line")}"#, "missing field `value`"),
        (r#"{\"type\":\"score\",\"id\":$(id "$line"),\"value\":\"high\"}"#, "invalid type"),
        (
            r#"{\"type\":\"score\",\"id\":$(id "$line"),\"value\":1,\"per_prompt\":[1]}"#,
            "1 values per prompt",
        ),
        (
            r#"{\"type\":\"score\",\"id\":$(id "$line"),\"value\":1,\"dispaly\":\"x\"}"#,
            "unknown field `dispaly`",
        ),
        ("[]", "invalid"),
    ] {
        let scorer = script(&format!("read -r line; echo \"{reply}\"; cat >/dev/null"));
        let error = program_error(scorer.score(&two()));
        assert!(matches!(&error.failure, ProgramFailure::Protocol { .. }), "{reply}: {error}");
        assert!(error.to_string().contains(reason), "{reply}: {error}");
    }
}

#[test]
fn a_failure_that_the_program_reports_is_passed_on() {
    let scorer = script(r#"read -r line; echo '{"type":"error","message":"no GPU left"}'; cat >/dev/null"#);
    let error = program_error(scorer.score(&two()));
    assert!(
        matches!(&error.failure, ProgramFailure::Reported { message, .. } if message == "no GPU left"),
        "{error}"
    );
}

#[test]
fn a_program_of_another_version_is_refused_before_the_run() {
    let script = r#"read -r hello; echo '{"type":"hello","version":2}'; cat >/dev/null"#;
    let error = scorer(&json!({"command": ["sh", "-c", script]})).scorer.prepare(&|| false).unwrap_err();
    assert!(error.to_string().contains(r#""version":1"#), "{error}");
}

#[test]
fn a_value_that_is_too_large_for_a_number_is_no_score() {
    let scorer = script(
        r#"read -r line; echo "{\"type\":\"score\",\"id\":$(id "$line"),\"value\":1e999}"; cat >/dev/null"#,
    );
    assert!(matches!(program_error(scorer.score(&two())).failure, ProgramFailure::NotJson { .. }));
}

#[test]
fn large_requests_and_a_talkative_stderr_do_not_block_each_other() {
    // More than a pipe holds, in both directions, before the program reads a single byte.
    let scorer = script(&format!("yes noise | head -c 1000000 >&2\n{GOOD}"));
    let answer = "long ".repeat(100_000);
    let score = scorer.score(&evidence(&["a", "b", "c"], &[&answer, &answer, &answer])).unwrap();
    assert_eq!(score.value.to_bits(), 0.25_f64.to_bits());
}

#[test]
fn a_wait_ends_when_nobody_wants_the_score_any_longer() {
    let scorer = script("echo $$ >&2; read -r line; exec sleep 600");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 3;
    let start = Instant::now();
    let error = scorer.score_until(&two(), &stop).unwrap_err();
    assert_eq!(error, ScoreError::Stopped { scorer: "mine".into() });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn what_a_program_started_does_not_outlive_it() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let path = note.path().display();
    let scorer = script(&format!("sleep 600 >/dev/null 2>&1 & echo $! > {path}\n{GOOD}"));
    assert_eq!(scorer.score(&two()).unwrap().value.to_bits(), 0.25_f64.to_bits());
    let child = std::fs::read_to_string(note.path()).unwrap();
    assert!(lives(child.trim()));
    drop(scorer);
    // A killed process that nobody waited for yet still has its number.
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(child.trim()) {
        assert!(Instant::now() < deadline, "the child of a program outlives it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_child_of_a_program_that_ended_by_itself_does_not_outlive_the_error() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let path = note.path().display();
    let scorer =
        script(&format!("sleep 600 >/dev/null 2>&1 </dev/null & echo $! > {path}; read -r line; exit 4"));
    let error = program_error(scorer.score(&two()));
    assert!(
        matches!(&error.failure, ProgramFailure::Ended { status, .. } if status.contains('4')),
        "{error}"
    );
    let child = std::fs::read_to_string(note.path()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(child.trim()) {
        assert!(Instant::now() < deadline, "the child of a program outlives it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn details_and_displays_that_a_study_has_no_room_for_are_refused() {
    let long = "x".repeat(70_000);
    for (more, reason) in [
        (format!(r#""details":{{"a":"{long}"}}"#), "`details` of 70008 bytes, at most 65536"),
        (format!(r#""display":"{}""#, &long[..201]), "`display` of 201 characters, expected at most 200"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), more).unwrap();
        let scorer = script(&format!(
            r#"read -r line; echo "{{\"type\":\"score\",\"id\":$(id "$line"),\"value\":1,$(cat {})}}"; cat >/dev/null"#,
            file.path().display()
        ));
        let error = program_error(scorer.score(&two()));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_display_cannot_control_a_terminal() {
    let scorer = script(
        r#"read -r line; printf '{"type":"score","id":%s,"value":1,"display":"a\\u001b[2Jb\\u000ac"}\n' "$(id "$line")""#,
    );
    assert_eq!(scorer.score(&two()).unwrap().display, "a\u{fffd}[2Jb\u{fffd}c");
}

#[test]
fn replies_that_nobody_asked_for_are_not_collected() {
    // Were they, a second of this would take gigabytes.
    let scorer = script(r#"yes '{"type":"score","id":7,"value":1}'"#);
    let error = program_error(scorer.score(&two()));
    assert!(
        matches!(&error.failure, ProgramFailure::Protocol { reason, .. } if reason.contains("id 7")),
        "{error}"
    );
}

#[test]
fn a_program_that_never_reads_meets_the_time_limit() {
    let deaf = format!("{PREAMBLE} exec sleep 600");
    let scorer = scorer(&json!({"command": ["sh", "-c", deaf], "time_limit_seconds": 0.5}));
    let answer = "long ".repeat(100_000);
    let error = program_error(scorer.score(&evidence(&["a"], &[&answer])));
    assert!(matches!(error.failure, ProgramFailure::TimeLimit { .. }), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let sets = DefaultSets { behavior: "bad".into(), baseline: "good".into() };
    let refused =
        |settings: Value| configure("command", None, None, &settings, &sets).unwrap_err().to_string();
    assert!(refused(json!({})).contains("`command` is required"));
    for seconds in [0.0, -1.0, 1e300] {
        let message = refused(json!({"command": ["true"], "time_limit_seconds": seconds}));
        assert!(message.contains("time_limit_seconds"), "{message}");
    }
}

#[test]
fn the_example_in_python_counts_the_words_that_it_is_told() {
    if Command::new("python3").arg("--version").output().is_err() {
        #[expect(
            clippy::print_stderr,
            reason = "a skipped test says so; the protocol is tested without Python above"
        )]
        {
            eprintln!("skipped: there is no python3");
        }
        return;
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/example_scorer.py");
    let scorer = scorer(&json!({"command": ["python3", example], "settings": {"words": ["delve", "sorry"]}}));
    let plan = Plan::merge(scorer.scorer.needs());
    assert_eq!(plan.sets[0].answers.as_ref().unwrap().until, None);
    let score =
        scorer.score(&evidence(&["a", "b"], &["Delve, and delve again. Sorry!", "No – “ok”"])).unwrap();
    assert_eq!((score.value, score.display.as_str()), (1.5, "3 in 2 answers"));
    assert_eq!(score.details.per_prompt, [3.0, 0.0]);
    assert_eq!(score.details.facts["reported"], json!({"answers_with_one": 1}));

    let broken = self::scorer(&json!({"command": ["python3", example], "settings": {"words": 7}}));
    let error = program_error(broken.score(&two()));
    assert!(
        matches!(&error.failure, ProgramFailure::Reported { message, .. } if message.contains("TypeError")),
        "{error}"
    );
}
