//! Ctrl-C, and the other signals that ask a program to end.
//!
//! The first one asks the work at hand to end in good order; a second one, while that has not happened yet,
//! leaves at once. The exit code says which it was, as a shell does: 128 and the number of the signal.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use hub::HubError;
use pipeline::PipelineError;

/// The signal of Ctrl-C.
const SIGINT: i32 = 2;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// The signal that came last.
static SIGNAL: AtomicI32 = AtomicI32::new(SIGINT);

/// Begins to listen: to Ctrl-C, to what `kill` sends, and to the end of the terminal, unless `nohup` has it ignored.
#[cfg(unix)]
pub(crate) fn listen() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static LISTENING: AtomicBool = AtomicBool::new(false);
    if LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            received(signal);
        }
    })?;
    Ok(())
}

/// Begins to listen.
#[cfg(not(unix))]
pub(crate) fn listen() -> anyhow::Result<()> {
    static LISTENING: AtomicBool = AtomicBool::new(false);
    if LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    Ok(ctrlc::set_handler(|| received(SIGINT))?)
}

fn received(signal: i32) {
    SIGNAL.store(signal, Ordering::Relaxed);
    if REQUESTED.swap(true, Ordering::Relaxed) {
        std::process::exit(i32::from(exit_code()));
    }
}

/// Whether whoever started this program has a signal ignored, where the system says so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The exit code of a program that was interrupted.
pub(crate) fn exit_code() -> u8 {
    128 + SIGNAL.load(Ordering::Relaxed) as u8
}

/// Whether somebody asked to end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Whether somebody asked to end, which is thereby answered.
pub(crate) fn take() -> bool {
    REQUESTED.swap(false, Ordering::Relaxed)
}

/// Whether work ended because of it.
pub(crate) fn was_cause(error: &anyhow::Error) -> bool {
    // What wraps the hub's error may show it as its own.
    let of_hub = HubError::Interrupted.to_string();
    error.chain().any(|it| {
        matches!(it.downcast_ref(), Some(PipelineError::Interrupted)) || it.to_string().ends_with(&of_hub)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn work_that_was_interrupted_is_told_from_work_that_failed() {
        let of_hub: anyhow::Result<()> = Err(HubError::Interrupted.into());
        assert!(was_cause(&of_hub.context("as a model of the hub").unwrap_err()));
        assert!(was_cause(&PipelineError::Interrupted.into()));
        assert!(!was_cause(&anyhow::anyhow!("the disk is full")));
        assert_eq!(exit_code(), 130);
    }
}
