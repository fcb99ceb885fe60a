//! A program that is spoken to in JSON lines: one request, one reply, one line each.
//!
//! The program is started once and stays. Every request has a time limit. What goes wrong is told with the last
//! lines that the program wrote to stderr. A program that failed is killed, and the next request starts it anew.
//! Dropping the handle kills it, together with whatever it started ([`supervise`](fn@crate::supervise)).

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::supervise::{Supervised, cannot_be_started};

/// A reply longer than this, in bytes, is taken for a program gone wild: some hundred times what a score of a
/// thousand prompts needs.
const LONGEST_REPLY: u64 = 16 << 20;
/// Replies that wait to be read; a program that writes more of them has to wait as well.
const WAITING_REPLIES: usize = 2;
/// How often a wait for a reply looks up to see whether it is still wanted.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Lines of stderr that an error shows.
const STDERR_LINES: usize = 20;
/// Bytes of one line of stderr, or of a reply, that an error shows.
const SHOWN_BYTES: usize = 400;
/// How long the end of stderr is waited for once the program is dead; a grandchild may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A program that gave no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{program}` {failure}{stderr}{}", failure.hint())]
pub struct ProgramError {
    /// The program.
    pub program: String,
    /// What happened.
    pub failure: ProgramFailure,
    /// What it wrote to stderr last.
    pub stderr: LastLines,
}

/// Why a program gave no answer. A `request` is the type of what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProgramFailure {
    /// It cannot be started.
    #[error("cannot be started: {reason}")]
    Start {
        /// What the system says.
        reason: String,
    },
    /// It took too long and was killed.
    #[error("gave no answer to `{request}` within {seconds} s")]
    TimeLimit {
        /// What was asked.
        request: String,
        /// The limit.
        seconds: f64,
    },
    /// It ended, or closed its stdout, instead of answering.
    #[error("ended ({status}) instead of answering `{request}`")]
    Ended {
        /// What was asked.
        request: String,
        /// Its exit status.
        status: String,
    },
    /// Its answer is not a line of JSON.
    #[error("answered `{request}` with `{reply}`, which is not JSON: {reason}")]
    NotJson {
        /// What was asked.
        request: String,
        /// The beginning of what it wrote.
        reply: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// Its answer is JSON, but not what the protocol asks for.
    #[error("answered `{request}` with what the protocol does not have: {reason}")]
    Protocol {
        /// What was asked.
        request: String,
        /// What is wrong.
        reason: String,
    },
    /// It says itself that it failed.
    #[error("failed to answer `{request}`: {message}")]
    Reported {
        /// What was asked.
        request: String,
        /// What it says.
        message: String,
    },
}

impl ProgramFailure {
    fn hint(&self) -> &'static str {
        match self {
            Self::Start { .. } => {
                "\n\nhint: give the program and its arguments as a list; no shell is involved"
            }
            Self::TimeLimit { .. } => "\n\nhint: raise `time_limit_seconds`",
            Self::NotJson { .. } => {
                "\n\nhint: stdout is for the protocol alone; print everything else to stderr"
            }
            Self::Ended { .. } | Self::Protocol { .. } | Self::Reported { .. } => "",
        }
    }
}

/// The last lines of a program's stderr; shown as lines of their own, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastLines(pub Vec<String>);

impl std::fmt::Display for LastLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  stderr: {line}"))
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Supervised,
    requests: Sender<Vec<u8>>,
    replies: Receiver<io::Result<Vec<u8>>>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    stderr_end: Receiver<()>,
    time_limit: Duration,
}

impl Program {
    /// Starts a program; `command` is its name or path and its arguments. No shell is involved.
    pub(crate) fn start(command: &[String], time_limit: Duration) -> Result<Self, ProgramError> {
        let name = command.first().cloned().unwrap_or_default();
        let failed = |error: io::Error| ProgramError {
            program: name.clone(),
            failure: ProgramFailure::Start { reason: error.to_string() },
            stderr: LastLines::default(),
        };
        let (child, pipes) = Supervised::start(command).map_err(failed)?;
        let (mut stdin, stdout, stderr_pipe) = pipes;

        // A thread per pipe, so that neither side can block the other: a program that answers before it has read
        // everything, or one that fills stderr, would otherwise hang together with us. They end with the pipes.
        let (requests, outgoing) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for line in outgoing {
                if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                    break;
                }
            }
        });
        let (incoming, replies) = sync_channel(WAITING_REPLIES);
        std::thread::spawn(move || read_replies(stdout, &incoming));
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let lines = Arc::clone(&stderr);
        let (ended, stderr_end) = channel();
        std::thread::spawn(move || {
            keep_last_lines(stderr_pipe, &lines);
            let _ = ended.send(());
        });
        Ok(Self { name, child, requests, replies, stderr, stderr_end, time_limit })
    }

    /// Sends a request and waits for its reply, or until `stop` says that nobody waits any longer. After an error the
    /// program is dead.
    pub(crate) fn ask(&mut self, request: &Value, stop: Stop<'_>) -> Result<Value, NoReply> {
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        // A failure to send shows as the end of the replies.
        let _ = self.requests.send(line);
        let kind = request["type"].as_str().unwrap_or_default().to_owned();
        let deadline = Instant::now() + self.time_limit;
        let reply = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left.min(LOOK_UP)) {
                Err(RecvTimeoutError::Timeout) if stop() => {
                    self.child.kill();
                    return Err(NoReply::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                reply => break reply,
            }
        };
        let failure = match reply {
            Ok(Ok(reply)) => match parsed(kind, &reply) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            },
            Ok(Err(error)) => {
                ProgramFailure::NotJson { request: kind, reply: String::new(), reason: error.to_string() }
            }
            Err(RecvTimeoutError::Timeout) => {
                ProgramFailure::TimeLimit { request: kind, seconds: self.time_limit.as_secs_f64() }
            }
            Err(RecvTimeoutError::Disconnected) => {
                ProgramFailure::Ended { request: kind, status: self.child.exit_status(LAST_WORDS) }
            }
        };
        Err(self.error(failure).into())
    }

    /// The error of a reply that is not what was asked for.
    pub(crate) fn protocol_error(&mut self, request: &str, reason: String) -> NoReply {
        self.error(ProgramFailure::Protocol { request: request.to_owned(), reason }).into()
    }

    /// Kills the program, and tells what it wrote to stderr last.
    fn error(&mut self, failure: ProgramFailure) -> ProgramError {
        self.child.kill();
        let _ = self.stderr_end.recv_timeout(LAST_WORDS);
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match lines.iter().rev().find_map(|it| cannot_be_started(it)) {
            Some(reason) => ProgramFailure::Start { reason: reason.to_owned() },
            None => failure,
        };
        let stderr = match failure {
            ProgramFailure::Start { .. } => LastLines::default(),
            _ => LastLines(lines.iter().cloned().collect()),
        };
        ProgramError { program: self.name.clone(), failure, stderr }
    }
}

/// Says that a reply is no longer waited for.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum NoReply {
    /// Nobody waits for it any longer.
    Stopped,
    /// The program failed.
    Failed(Box<ProgramError>),
}

impl From<ProgramError> for NoReply {
    fn from(error: ProgramError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The value of a reply that is JSON and not the report of a failure.
fn parsed(request: String, reply: &[u8]) -> Result<Value, ProgramFailure> {
    let value: Value = match serde_json::from_slice(reply) {
        Ok(value) => value,
        Err(error) => {
            return Err(ProgramFailure::NotJson { request, reply: shown(reply), reason: error.to_string() });
        }
    };
    if value["type"] == "error" {
        let message = value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Err(ProgramFailure::Reported { request, message });
    }
    Ok(value)
}

fn read_replies(stdout: impl Read, replies: &SyncSender<io::Result<Vec<u8>>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let message = match stdout.by_ref().take(LONGEST_REPLY).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == LONGEST_REPLY && !line.ends_with(b"\n") => {
                Err(io::Error::other(format!("a line of more than {LONGEST_REPLY} bytes")))
            }
            // Blank lines are nobody's reply.
            Ok(_) if line.trim_ascii().is_empty() => continue,
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        };
        let last = message.is_err();
        if replies.send(message).is_err() || last {
            return;
        }
    }
}

fn keep_last_lines(stderr: impl Read, lines: &Mutex<VecDeque<String>>) {
    let mut stderr = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        // Bounded, because a progress bar may never end its line.
        match stderr.by_ref().take(1 << 16).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(shown(&line));
    }
}

fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii_end();
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let ellipsis = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{ellipsis}", String::from_utf8_lossy(cut))
}
