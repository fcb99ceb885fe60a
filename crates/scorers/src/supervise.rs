//! Processes that do not outlive the run that started them.
//!
//! On Unix a scorer's program is the leader of a process group of its own: what it starts belongs to the group, and
//! the whole group is killed when the scorer is done with it. A killed run (`kill -9`, out of memory) can kill
//! nobody. So the program `ablate` puts itself between ([`use_supervisor`]): a small process that starts the scorer's
//! program, waits for it, looks every half second whether the run is still its parent, and kills the group if it is
//! not. A process that leaves the group on purpose (`setsid`) leaves this supervision, too.
//!
//! Elsewhere only the program itself is killed.

use std::ffi::OsString;
use std::io;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The words that start this program as a supervisor; nothing if no one does.
static SUPERVISOR: OnceLock<Vec<OsString>> = OnceLock::new();

/// How often a supervisor looks whether its parent still lives.
#[cfg(unix)]
const WATCH: Duration = Duration::from_millis(500);

/// What a supervisor writes to stderr before the reason why it could not start the program.
const CANNOT_BE_STARTED: &str = "ablate supervisor: cannot be started: ";

/// The exit code of a supervisor that could not start the program, as that of a shell.
const NOT_FOUND: u8 = 127;

/// Starts programs through `words`, a command that ends in a call of [`supervise`] with the words after it. The first
/// call counts.
pub fn use_supervisor(words: Vec<OsString>) {
    let _ = SUPERVISOR.set(words);
}

/// The reason in a line of a supervisor that says that a program cannot be started.
pub(crate) fn cannot_be_started(line: &str) -> Option<&str> {
    line.strip_prefix(CANNOT_BE_STARTED)
}

/// The pipes of a started program: stdin, stdout, stderr.
pub(crate) type Pipes = (ChildStdin, ChildStdout, ChildStderr);

/// A running program and whatever it started.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    supervisor: bool,
    killed: bool,
}

impl Supervised {
    /// Starts `command`, its name or path and its arguments. No shell is involved.
    pub(crate) fn start(command: &[String]) -> io::Result<(Self, Pipes)> {
        let mut words: Vec<OsString> = Vec::new();
        let supervisor = SUPERVISOR.get().filter(|_| cfg!(unix));
        if let Some(supervisor) = supervisor {
            words.extend(supervisor.iter().cloned());
            words.push(std::process::id().to_string().into());
        }
        words.extend(command.iter().map(OsString::from));
        let mut command = Command::new(words.first().cloned().unwrap_or_default());
        command.args(words.iter().skip(1));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let supervised = Self { child, supervisor: supervisor.is_some(), killed: false };
        Ok((supervised, (stdin, stdout, stderr)))
    }

    /// How the program ended, waiting up to `patience`, because pipes close before a process is gone.
    pub(crate) fn exit_status(&mut self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return "stdout closed".to_owned();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // The dead leader still holds the group's number, so that it can be no one else's.
        self.kill_group();
        self.killed = true;
        match self.child.wait() {
            Ok(status) => self.described(status),
            Err(_) => "stdout closed".to_owned(),
        }
    }

    /// A supervisor ends as a shell does: 128 and the signal's number.
    fn described(&self, status: std::process::ExitStatus) -> String {
        match status.code() {
            Some(code @ 129..=192) if self.supervisor => format!("signal: {}", code - 128),
            _ => status.to_string(),
        }
    }

    /// Kills the program with all that it started.
    pub(crate) fn kill(&mut self) {
        if self.killed {
            return;
        }
        self.killed = true;
        self.kill_group();
        // It may be dead already; a killed one has to be waited for, or it stays as a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the leader is dead; it is not waited for, so that its number stays taken.
    #[cfg(unix)]
    fn has_ended(&self) -> bool {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let leader = WaitId::Pid(Pid::from_child(&self.child));
        !matches!(waitid(leader, options), Ok(None))
    }

    #[cfg(not(unix))]
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn kill_group(&self) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process_group};
            // Nobody may be left in it.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the program that `words` name after the number of the process that wants it, waits for it, and ends as it
/// does; kills the process group, itself included, once that process is no longer its parent.
#[cfg(unix)]
pub fn supervise(words: &[OsString]) -> ExitCode {
    use rustix::process::{Signal, getpgrp, getppid, kill_process_group};
    let parent = words.first().and_then(|it| it.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, words.get(1)) else {
        return not_started("no program is named");
    };
    // SAFETY of numbers: the group is this process's own, as `Supervised::start` made it the leader of one.
    let orphaned = move || getppid().is_none_or(|it| it.as_raw_nonzero().get() != parent);
    let mut child = match Command::new(program).args(&words[2..]).spawn() {
        Ok(child) => child,
        Err(error) => return not_started(&error.to_string()),
    };
    // The pipes are the program's alone: they have to close when it closes them.
    if let Ok(nothing) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&nothing);
        let _ = rustix::stdio::dup2_stdout(&nothing);
        let _ = rustix::stdio::dup2_stderr(&nothing);
    }
    std::thread::spawn(move || {
        loop {
            if orphaned() {
                let _ = kill_process_group(getpgrp(), Signal::KILL);
            }
            std::thread::sleep(WATCH);
        }
    });
    let Ok(status) = child.wait() else { return ExitCode::FAILURE };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or_else(|| signal.map(|it| 128 + it)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// There are no process groups here, so nobody is asked to supervise.
#[cfg(not(unix))]
pub fn supervise(_: &[OsString]) -> ExitCode {
    not_started("programs are supervised on Unix only")
}

fn not_started(reason: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{CANNOT_BE_STARTED}{reason}");
    ExitCode::from(NOT_FOUND)
}
