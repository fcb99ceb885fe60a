//! A process of its own for a template, which nothing that the template does can outlast.
//!
//! The template engine counts instructions and bytes, and that stops most of what does not end. It does not count how deep
//! values and expressions are nested, what comparing two values takes, or what lists that hold each other become when they
//! are printed, and each of these can overflow the stack, which ends a process, or take all time and memory. Guards for
//! every operation would have to follow each version of the engine; a process has bounds that hold for all of them. It is
//! started once for each template, in about 10 ms, and a prompt of `ChatML` comes back in 0.014 ms (a build for development,
//! two cores): nobody waits for that.
//!
//! The process that asks writes a line of JSON for each request and reads a line for each reply; the first request is the
//! template. When it ends, whatever the reason, the other one sees the end of its input and ends as well.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::compiled::Compiled;
use super::limits::{self, MEMORY, SECONDS, STACK};
use super::{Clock, RenderOptions, StopReason, TemplateError};

/// Where templates are compiled and rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// In this process, with a budget of work ([`FUEL`](super::FUEL)) as the only bound: for templates of one's own.
    #[default]
    None,
    /// In a process that this command starts. It has to call [`serve_templates`] and nothing else.
    Process {
        /// The program, usually the one that is running.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

#[derive(Serialize, Deserialize)]
enum Request {
    Compile(String),
    Render(Box<Rendering>),
}

#[derive(Serialize, Deserialize)]
struct Rendering {
    messages: Vec<Json>,
    add_generation_prompt: bool,
    special_tokens: std::collections::BTreeMap<String, String>,
    tools: Option<Vec<Json>>,
    documents: Option<Vec<Json>>,
    variables: serde_json::Map<String, Json>,
    clock: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Compiled,
    Rendered(String),
    Failed(TemplateError),
}

/// A template that lives in another process.
#[derive(Debug)]
pub(super) struct Process {
    program: PathBuf,
    arguments: Vec<OsString>,
    source: String,
    /// None when it has been stopped: it is started again when it is needed.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the process and compiles the template there.
    pub(super) fn start(
        source: &str,
        program: PathBuf,
        arguments: Vec<OsString>,
    ) -> Result<Self, TemplateError> {
        limits::check_source(source)?;
        let process = Self { program, arguments, source: source.to_owned(), running: Mutex::new(None) };
        let running = process.compiled()?;
        *process.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(process)
    }

    pub(super) fn render(&self, messages: &[Json], options: &RenderOptions) -> Result<String, TemplateError> {
        let clock = match &options.clock {
            Clock::Running => None,
            stopped @ Clock::Stopped(_) => Some(stopped.to_string()),
        };
        let request = Request::Render(Box::new(Rendering {
            messages: messages.to_vec(),
            add_generation_prompt: options.add_generation_prompt,
            special_tokens: options.special_tokens.clone(),
            tools: options.tools.clone(),
            documents: options.documents.clone(),
            variables: options.variables.clone(),
            clock,
        }));
        let mut place = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = match place.take() {
            Some(running) => running,
            None => self.compiled()?,
        };
        match running.ask(&request) {
            Some(reply) => {
                *place = Some(running);
                match reply {
                    Reply::Rendered(text) => Ok(text),
                    Reply::Failed(error) => Err(error),
                    Reply::Compiled => Err(TemplateError::Stopped { reason: StopReason::Protocol }),
                }
            }
            None => Err(TemplateError::Stopped { reason: running.end() }),
        }
    }

    /// A new process with the template.
    fn compiled(&self) -> Result<Running, TemplateError> {
        let mut running = self.spawned().map_err(|error| TemplateError::NoProcess {
            program: self.program.display().to_string(),
            reason: error.to_string(),
        })?;
        match running.ask(&Request::Compile(self.source.clone())) {
            Some(Reply::Compiled) => Ok(running),
            Some(Reply::Failed(error)) => Err(error),
            Some(Reply::Rendered(_)) => Err(TemplateError::Stopped { reason: StopReason::Protocol }),
            None => Err(TemplateError::Stopped { reason: running.end() }),
        }
    }

    fn spawned(&self) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the program that asks: it may want to render afterwards.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(windows)]
        std::os::windows::process::CommandExt::creation_flags(&mut command, CREATE_NO_WINDOW);
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let from = from.ok_or_else(|| io::Error::other("its output is not connected"))?;
        Ok(Running { child, to, from: BufReader::new(from) })
    }
}

/// Without the console, and so without the Ctrl-C of the console.
#[cfg(windows)]
const CREATE_NO_WINDOW: u32 = 0x0800_0000;

impl Running {
    /// The reply to a request; `None` when the process is no more.
    fn ask(&mut self, request: &Request) -> Option<Reply> {
        let to = self.to.as_mut()?;
        let mut line = serde_json::to_vec(request).ok()?;
        line.push(b'\n');
        to.write_all(&line).and_then(|()| to.flush()).ok()?;
        let mut reply = String::new();
        self.from.read_line(&mut reply).ok()?;
        serde_json::from_str(&reply).ok()
    }

    /// Waits for the end of a process that does not reply, and answers with the reason for it.
    fn end(mut self) -> StopReason {
        self.to = None;
        let mut said = String::new();
        if let Some(errors) = self.child.stderr.take() {
            let _ = errors.take(1 << 16).read_to_string(&mut said);
        }
        let Ok(status) = self.child.wait() else { return StopReason::Protocol };
        match status.code() {
            Some(TIME_IS_UP) => StopReason::Time { seconds: SECONDS },
            Some(TOO_MUCH_MEMORY) => StopReason::Memory { bytes: MEMORY },
            // Rust's own words before it aborts.
            _ if said.contains("has overflowed its stack") => StopReason::Stack { bytes: STACK },
            _ if said.contains("memory allocation of") => StopReason::Memory { bytes: MEMORY },
            _ => StopReason::Died { status: status.to_string() },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends at the end of its input; if it is at work, it is not waited for.
        self.to = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code of a process that worked for too long.
const TIME_IS_UP: i32 = 3;

/// Exit code of a process that took too much memory.
const TOO_MUCH_MEMORY: i32 = 4;

/// How often a process looks at itself.
const TICK: Duration = Duration::from_millis(20);

/// The other side of [`Isolation::Process`]: compiles and renders what standard input asks for until that ends.
///
/// Nothing else of the process may use standard input and output. A process that exceeds its bounds of time or memory
/// ends itself; the bounds are those of this module and, where the system has them, limits of the system.
pub fn serve_templates() {
    limit_process();
    // A panic is told in the reply.
    std::panic::set_hook(Box::new(|_| {}));
    let ticks = Arc::new(AtomicU32::new(IDLE));
    let watched = Arc::clone(&ticks);
    let rendering = std::thread::Builder::new().stack_size(STACK).spawn(move || serve(&watched));
    let watching = std::thread::Builder::new().spawn(move || watch(&ticks));
    if let (Ok(rendering), Ok(_)) = (rendering, watching) {
        let _ = rendering.join();
    }
}

/// In place of a number of ticks: no request is being worked on.
const IDLE: u32 = u32::MAX;

fn serve(ticks: &AtomicU32) {
    let mut template = None;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line).is_ok_and(|it| it > 0) {
        ticks.store(0, Ordering::Relaxed);
        let reply = match serde_json::from_str(&line) {
            Ok(request) => reply(request, &mut template, line.len()),
            // Variables nested deeper than JSON is read.
            Err(error) => Reply::Failed(TemplateError::Failed { line: 0, reason: error.to_string() }),
        };
        let Ok(mut reply) = serde_json::to_vec(&reply) else { return };
        ticks.store(IDLE, Ordering::Relaxed);
        reply.push(b'\n');
        if output.write_all(&reply).and_then(|()| output.flush()).is_err() {
            return;
        }
        line.clear();
    }
}

fn reply(request: Request, template: &mut Option<Compiled>, bytes: usize) -> Reply {
    match (request, template) {
        (Request::Compile(source), template) => match Compiled::new(&source) {
            Ok(compiled) => {
                *template = Some(compiled);
                Reply::Compiled
            }
            Err(error) => Reply::Failed(error),
        },
        (Request::Render(it), Some(template)) => {
            let clock = it.clock.map_or(Clock::Running, |it| Clock::stopped_at(&it).unwrap_or_default());
            let options = RenderOptions {
                add_generation_prompt: it.add_generation_prompt,
                special_tokens: it.special_tokens,
                tools: it.tools,
                documents: it.documents,
                variables: it.variables,
                clock,
            };
            let rendered = template
                .render(&it.messages, &options)
                .and_then(|text| limits::check_rendered(&text, bytes).map(|()| text));
            rendered.map_or_else(Reply::Failed, Reply::Rendered)
        }
        (Request::Render(_), None) => Reply::Failed(TemplateError::NoTemplate),
    }
}

/// Ends the process when a request takes too long or too much. Ticks are counted, not time: a process that is stopped and
/// goes on later, or a computer that sleeps, loses none.
fn watch(ticks: &AtomicU32) {
    let most = SECONDS * 1000 / TICK.as_millis() as u32;
    let mut system = sysinfo::System::new().ok();
    loop {
        std::thread::sleep(TICK);
        // The reply may have come in between: then the count stays where it is.
        let counted =
            ticks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| (it != IDLE).then(|| it + 1));
        let Ok(before) = counted else { continue };
        if before >= most {
            std::process::exit(TIME_IS_UP);
        }
        if system.as_mut().map_or(0, memory) > MEMORY {
            std::process::exit(TOO_MUCH_MEMORY);
        }
    }
}

/// The physical memory of this process in bytes; 0 where the system does not tell.
fn memory(system: &mut sysinfo::System) -> u64 {
    let pid = sysinfo::Pid::from_u32(std::process::id());
    let memory = sysinfo::ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(sysinfo::ProcessesToUpdate::Some(&[pid]), false, memory);
    system.process(pid).map_or(0, sysinfo::Process::memory)
}

/// Lets the system bound what it can: address space, so that not even one huge allocation succeeds, and the core file
/// that an overflow of the stack would leave behind. Elsewhere [`watch`] is alone.
fn limit_process() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let lower = |resource: Resource, bytes: u64| {
            let now = getrlimit(resource);
            let bytes = [now.current, now.maximum].into_iter().flatten().fold(bytes, u64::min);
            let _ = setrlimit(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
        };
        lower(Resource::As, 2 * MEMORY);
        lower(Resource::Core, 0);
    }
}
