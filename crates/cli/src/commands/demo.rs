//! `ablate demo`: the whole job on a toy model that is part of the program.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;

use super::run;
use crate::terminal::remark;

/// Do the whole job on a toy model that comes with the program: no network, under a minute
///
/// The toy answers questions about some made-up topics and refuses others, although it knows the answers. The demo
/// writes it into a folder, finds the direction of its refusals, searches, and writes the edited model beside it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to write the toy model, the study and the edited model
    #[arg(long, value_name = "FOLDER", default_value = "ablate-demo")]
    out: PathBuf,

    /// Trials
    #[arg(long, default_value_t = 60, value_name = "N")]
    trials: usize,

    /// Where random numbers begin
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// One JSON object a line for everything that happens, on standard output
    #[arg(long)]
    json: bool,
}

/// The toy model's files; `demo/README.md` says what it is and how it was trained.
const MODEL: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../../../demo/model/config.json")),
    ("generation_config.json", include_bytes!("../../../../demo/model/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../../demo/model/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../demo/model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../demo/model/tokenizer_config.json")),
];

/// `ablate run`'s arguments by themselves.
#[derive(Parser)]
struct Run {
    #[command(flatten)]
    arguments: run::Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.out.join("model");
    write_model(&model)?;
    // The demo is a command that anyone could have given, and says which.
    let path = |name: &str| arguments.out.join(name).display().to_string();
    let (model, study, edited) = (path("model"), path("study.jsonl"), path("edited"));
    let (trials, seed) = (arguments.trials.to_string(), arguments.seed.to_string());
    let startup = arguments.trials.div_ceil(3).to_string();
    let mut words = vec![
        "run",
        &model,
        "--isolated",
        "--good-prompts",
        "embedded:demo-answered-train",
        "--bad-prompts",
        "embedded:demo-refused-train",
        "--refusal-prompts",
        "embedded:demo-refused-eval",
        "--kl-prompts",
        "embedded:demo-answered-eval",
        "--detect-false-refusals",
        "--max-response-length",
        "32",
        "--trials",
        &trials,
        "--startup-trials",
        &startup,
        "--seed",
        &seed,
        "--study",
        &study,
        "--pick",
        "min refusals then min kl",
        "--save",
        &edited,
    ];
    if arguments.json {
        words.push("--json");
    }
    let told: Vec<String> = words
        .iter()
        .map(|it| if it.contains(' ') { format!("\"{it}\"") } else { (*it).to_owned() })
        .collect();
    remark(&format!("$ ablate {}\n", told.join(" ")));
    run::run(&Run::try_parse_from(words)?.arguments)?;
    remark(&format!("\nthe report: {edited}/README.md\ntalk to it:  ablate chat {edited}"));
    Ok(())
}

/// Writes the toy model, unless it is there.
fn write_model(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating folder `{}`", folder.display()))?;
    for (name, bytes) in MODEL {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|it| it == *bytes) {
            continue;
        }
        std::fs::write(&path, bytes).with_context(|| format!("writing `{}`", path.display()))?;
    }
    Ok(())
}
