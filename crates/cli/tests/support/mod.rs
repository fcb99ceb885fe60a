//! Short runs of the program on the toy model.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The toy model of `demo/README.md`.
pub(crate) fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

/// What makes runs short.
pub(crate) const SHORT: [&str; 17] = [
    "--good-prompts",
    "embedded:demo-answered-train",
    "--bad-prompts",
    "embedded:demo-refused-train",
    "--refusal-prompts",
    "embedded:demo-refused-eval[:8]",
    "--kl-prompts",
    "embedded:demo-answered-eval[:8]",
    "--scorer",
    "kl_divergence:minimize",
    "--max-response-length",
    "8",
    "--batch-size",
    "16",
    "--response-prefix",
    "",
    "--isolated",
];

/// The program in a folder, without a network.
pub(crate) fn ablate(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command.current_dir(folder.path()).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env("HF_HUB_OFFLINE", "1").env("HF_HOME", "no/such/cache");
    command
}
