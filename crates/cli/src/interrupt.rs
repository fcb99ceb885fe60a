//! Ctrl-C.
//!
//! The first one asks the work at hand to end in good order; a second one, while that has not happened yet,
//! leaves at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was interrupted: 128 + SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen.
pub(crate) fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Whether Ctrl-C was pressed, which is thereby answered.
pub(crate) fn take() -> bool {
    REQUESTED.swap(false, Ordering::Relaxed)
}

/// Whether work ended because of it.
pub(crate) fn was_cause(error: &anyhow::Error) -> bool {
    error.chain().any(|it| matches!(it.downcast_ref(), Some(pipeline::PipelineError::Interrupted)))
}
