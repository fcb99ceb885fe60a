//! A study that is killed loses nothing that was told, and ends as if it had not been killed.
//!
//! Two ways of killing: a process is really killed, again and again, wherever it happens to be; and a journal is cut
//! at every length that a kill could leave behind.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use search::samplers::{Proposals, Tpe};
use search::{
    Assignment, Attributes, Distribution, Objective, Parameter, Search, Space, Stream, Study, StudyError,
    Trial, TrialState,
};

/// The environment variable that makes this test binary a worker: path, batch and number of trials.
const WORKER: &str = "SEARCH_TEST_WORKER";

fn space() -> Space {
    Space::new(vec![
        Parameter::new("heat", Distribution::float(85.0, 96.0)),
        Parameter::new("grind", Distribution::int(1, 12)),
        Parameter::new("bean", Distribution::categorical(["arabica", "robusta"])),
    ])
    .unwrap()
}

fn objectives() -> [Objective; 2] {
    [Objective::minimize("bitterness"), Objective::maximize("strength")]
}

fn brew(it: &Assignment) -> [f64; 2] {
    let (heat, grind) = (it.float("heat").unwrap(), it.int("grind").unwrap() as f64);
    let bean = if it.choice("bean").unwrap() == "robusta" { 1.5 } else { 1.0 };
    [bean * (heat - 88.0).abs() + 1.0 / grind, bean * heat / (grind + 3.0)]
}

/// Continues a study until it has `count` trials.
fn work(path: &Path, batch: usize, count: usize) {
    try_to_work(path, batch, count).unwrap_or_else(|error| panic!("{error}"));
}

fn try_to_work(path: &Path, batch: usize, count: usize) -> Result<(), StudyError> {
    let sampler =
        Tpe { n_startup_trials: 6, n_ei_candidates: 16, proposals: Proposals::Alternating, ..Tpe::default() };
    let space = space();
    let search = Search { sampler: &sampler, space: &space, seed: 42, batch };
    let mut study = Study::open(path, "coffee", &objectives())?;
    let mut asked = study.running(&search)?;
    while !asked.is_empty() || study.trials().len() < count {
        // What a killed process left is told before the rest of its batch is asked: the hardest order.
        for trial in asked.drain(..) {
            let note = Attributes::from_iter([("cup".to_owned(), (trial.number + 1).into())]);
            study.tell(trial.number, &brew(&trial.assignment), note)?;
        }
        asked = study.ask_batch(&search, count)?;
    }
    Ok(())
}

/// Not a test: what the processes do that the others start.
#[test]
fn worker() {
    let Ok(order) = std::env::var(WORKER) else { return };
    let [path, batch, count] = order.split('|').collect::<Vec<_>>()[..] else { panic!("{order}") };
    work(Path::new(path), batch.parse().unwrap(), count.parse().unwrap());
}

fn start(path: &Path, batch: usize, count: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact"])
        .env(WORKER, format!("{}|{batch}|{count}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What must not depend on kills: everything but the times.
fn essence(trials: &[Trial]) -> Vec<Trial> {
    trials.iter().map(|it| Trial { start: None, complete: None, ..it.clone() }).collect()
}

fn load(path: &Path) -> Vec<Trial> {
    Study::load(path, None).map(|it| it.trials).unwrap_or_default()
}

fn survives_being_killed(batch: usize) {
    const TRIALS: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let (calm, killed) = (folder.path().join("calm.jsonl"), folder.path().join("killed.jsonl"));
    work(&calm, batch, TRIALS);

    let mut stream = Stream::new(batch as u64, 0);
    let mut told = 0;
    let mut kills = 0;
    loop {
        let mut child = start(&killed, batch, TRIALS);
        // From before the first write to somewhere in the middle of the rest, a little longer each time, so that a
        // busy machine gets on as well.
        let patience = stream.uniform() * (40.0 + 2.0 * f64::from(kills));
        std::thread::sleep(Duration::from_micros((1000.0 * patience) as u64));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 2000, "no end after {kills} kills");
        let lock = folder.path().join("killed.jsonl.lock");
        assert!(
            std::fs::metadata(lock).map_or(true, |it| it.len() > 0),
            "a lock without its mark is not broken"
        );
        let complete = load(&killed).iter().filter(|it| it.state == TrialState::Complete).count();
        assert!(complete >= told, "{complete} after {told}");
        told = complete;
    }
    assert!(kills > 0);
    assert_eq!(essence(&load(&killed)), essence(&load(&calm)), "after {kills} kills");
    // A kill between renaming and removing a lock leaves the renamed one, which nobody looks at.
    let is_lock = |it: std::io::Result<std::fs::DirEntry>| it.unwrap().file_name() == "killed.jsonl.lock";
    assert!(!std::fs::read_dir(folder.path()).unwrap().any(is_lock));
}

#[test]
fn a_process_killed_again_and_again_ends_with_the_same_trials() {
    survives_being_killed(1);
}

#[test]
fn a_process_killed_again_and_again_ends_with_the_same_trials_in_batches() {
    survives_being_killed(8);
}

/// Cuts a finished journal at many lengths and lets it be continued.
fn survives_any_cut(batch: usize, count: usize, every: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    work(&path, batch, count);
    let whole = std::fs::read(&path).unwrap();
    let expected = essence(&load(&path));
    assert_eq!(expected.len(), count);
    let ends = (0..whole.len()).filter(|&it| whole[it] == b'\n').flat_map(|it| [it, it + 1]);
    for length in ends.chain((0..whole.len()).step_by(every)) {
        std::fs::File::create(&path).unwrap().write_all(&whole[..length]).unwrap();
        let told: Vec<_> = load(&path).into_iter().filter(|it| it.state.is_finished()).collect();
        work(&path, batch, count);
        let trials = load(&path);
        assert_eq!(essence(&trials), expected, "cut to {length} bytes");
        for trial in told {
            assert_eq!(trials[trial.number], trial, "told before the cut to {length} bytes, times included");
        }
    }
}

#[test]
fn a_journal_cut_anywhere_is_continued_to_the_same_trials() {
    survives_any_cut(1, 9, 97);
}

#[test]
fn a_journal_cut_anywhere_is_continued_to_the_same_trials_in_batches() {
    survives_any_cut(8, 16, 97);
}

#[test]
fn a_study_stopped_within_a_batch_and_extended_equals_one_that_ran_through() {
    let folder = tempfile::tempdir().unwrap();
    let (through, extended) = (folder.path().join("through.jsonl"), folder.path().join("extended.jsonl"));
    work(&through, 8, 24);
    for count in [3, 11, 12, 24] {
        work(&extended, 8, count);
    }
    assert_eq!(essence(&load(&extended)), essence(&load(&through)));
}

#[test]
fn a_second_process_on_the_same_study_is_kept_out_and_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.jsonl");
    let study = Study::open(&path, "coffee", &objectives()).unwrap();
    assert!(!start(&path, 1, 3).wait().unwrap().success());
    let error = Study::open(&path, "coffee", &objectives()).unwrap_err().to_string();
    assert!(error.contains("is in use by another process"), "{error}");
    assert_eq!(load(&path).len(), 0);
    drop(study);
    assert!(start(&path, 1, 3).wait().unwrap().success());
    assert_eq!(load(&path).len(), 3);
}

/// A limit on the size of files stands for a full disk: a write up to the limit succeeds, the rest is refused.
#[cfg(target_os = "linux")]
#[test]
fn an_append_that_failed_half_way_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (calm, full) = (folder.path().join("calm.jsonl"), folder.path().join("full.jsonl"));
    work(&calm, 8, 16);
    // Blocks of 512 bytes; without the trap the signal would end the process before it could tidy up.
    let script = "trap '' XFSZ; ulimit -f 9; exec \"$0\" worker --exact";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(WORKER, format!("{}|8|16", full.display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("append to it") && message.contains("make room"), "{message}");
    let text = std::fs::read_to_string(&full).unwrap();
    assert!(text.ends_with('\n') && text.len() < 9 * 512, "{} bytes", text.len());
    work(&full, 8, 16);
    assert_eq!(essence(&load(&full)), essence(&load(&calm)));
}
