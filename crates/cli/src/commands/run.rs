//! `ablate run`: the whole job.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use pipeline::pick::Pick;
use pipeline::search_run::{HeldOut, attributes, held_out_of, parameters_of, scores_of};
use pipeline::{Calibration, Cancel, PipelineError, PromptTexts, Session, Settings};
use search::journal::Journal;
use search::{Study, Trial};
use serde_json::json;

use crate::commands::evaluate::open;
use crate::interrupt;
use crate::job::JobArguments;
use crate::menu;
use crate::model::{ModelArguments, TemplateArguments};
use crate::report::{self, Style, Teller};
use crate::saving::SaveArguments;
use crate::terminal::{line, remark};

/// Find the direction of a behaviour, search for the best way to take it out, choose, and write the model
///
/// Everything that was tried is in the study file; the same command again goes on where it stopped.
///
/// Examples:
///   ablate run MODEL --preset disclaimers
///   ablate run MODEL --good-prompts good.txt[:400] --bad-prompts bad.txt[:400] \
///     --refusal-prompts bad.txt[400:] --kl-prompts good.txt[400:]
///   ablate run MODEL --preset disclaimers --trials 60 --seed 1 --study disclaimers.jsonl \
///     --pick "min kl where refusals <= 5" --save EDITED --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    template: TemplateArguments,

    #[command(flatten)]
    job: JobArguments,

    #[command(flatten)]
    search: SearchArguments,

    #[command(flatten)]
    save: SaveArguments,

    /// Choose the trial by a sentence in place of a menu: "min kl where refusals <= 5"
    ///
    /// Scores by name, or by the beginning of a name. What counts is compared by its count; with % by its share.
    #[arg(long, value_name = "SENTENCE")]
    pick: Option<Pick>,

    /// One JSON object a line for everything that happens, on standard output
    #[arg(long)]
    json: bool,
}

/// How to search.
#[derive(clap::Args)]
#[command(next_help_heading = "Search")]
pub(crate) struct SearchArguments {
    /// Trials in all
    #[arg(long, value_name = "N", alias = "n-trials")]
    trials: Option<usize>,

    /// Random trials to begin with
    #[arg(long, value_name = "N", alias = "n-startup-trials")]
    startup_trials: Option<usize>,

    /// Sampler: tpe, nsga2 or random
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,

    /// Where random numbers begin
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Trials that are proposed and computed together
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel_trials: Option<u32>,

    /// Study file, Optuna's journal format; `checkpoints/MODEL.jsonl` if not given
    #[arg(long, value_name = "FILE")]
    study: Option<PathBuf>,

    /// What to do when the study exists; asked if there is a terminal, else continue
    #[arg(long, value_enum)]
    checkpoint_action: Option<CheckpointAction>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckpointAction {
    /// Go on with its settings
    Continue,
    /// Begin anew; the old file is kept, with `.old` (or `.old2`, …) at its name's end
    Restart,
    /// Ask
    Ask,
}

/// The study's name: that of heretic's studies, so that files can be told apart by content alone.
const STUDY: &str = "ablate";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut settings = Settings::default();
    arguments.job.apply(&mut settings)?;
    arguments.search.apply(&mut settings);
    arguments.save.check()?;
    if arguments.pick.is_none() && arguments.save.place().is_some() && !interactive(arguments) {
        anyhow::bail!(
            "--save without a terminal needs to know which trial\n\nhint: add --pick \"min kl where refusals <= 5\""
        );
    }
    let path = arguments.search.study_path(arguments.model.path());
    let known = resume(&path, arguments)?;
    let mut calibration = None;
    if let Some((stored, found)) = known {
        let n_trials = arguments.search.trials.unwrap_or(stored.search.n_trials);
        let same_search = Settings { search: settings.search.clone(), ..stored.clone() };
        if same_search != settings {
            remark("the study goes on with the settings that it began with; those given now are not used");
        }
        settings = stored;
        settings.search.n_trials = n_trials;
        calibration = found;
    }
    // What is wrong with settings or the study file is better known before a model is loaded.
    let objectives = pipeline::objectives(&settings)?;
    let texts = PromptTexts::load(&settings)?;
    for set in [pipeline::settings::GOOD_PROMPTS, pipeline::settings::BAD_PROMPTS] {
        settings.set(set)?;
    }
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })?;
    }
    let mut study = Study::open(&path, STUDY, &objectives)?;
    interrupt::listen()?;
    let cancel = Cancel(&interrupt::requested);
    let mut teller = Teller::new(if arguments.json { Style::Json } else { Style::Remarks });
    let model = open(&arguments.model, &arguments.template)?;
    let mut session =
        Session::start(model, settings, texts, calibration, &mut |it| teller.tell(&it), &cancel)?;
    study.set_user_attr(attributes::SETTINGS, json!(serde_json::to_string(session.settings())?))?;
    study.set_user_attr(attributes::CALIBRATION, json!(session.calibration()))?;
    study.set_user_attr(attributes::FINISHED, json!(false))?;
    let n_trials = session.settings().search.n_trials;
    let outcome = pipeline::search(&mut session, &mut study, n_trials, &mut |it| teller.tell(&it), &cancel);
    teller.done();
    match outcome {
        Err(PipelineError::Interrupted) if interactive(arguments) && !study.front().is_empty() => {
            interrupt::take();
            remark("interrupted; the same command goes on later. The trials so far:");
        }
        Err(PipelineError::Interrupted) => {
            remark(&format!("the same command goes on; told so far is in `{}`", path.display()));
            return Err(PipelineError::Interrupted.into());
        }
        other => other.with_context(|| format!("study `{}`", path.display()))?,
    }
    if let Some(pick) = &arguments.pick {
        let chosen = choose(&study, pick)?;
        let unseen = held_out_of(study.snapshot());
        use_trial(arguments, &mut session, &chosen, &unseen, &mut teller)?;
    } else if interactive(arguments) {
        menu::choose(&mut session, &mut study, &arguments.save, &mut teller)?;
    } else if !arguments.json {
        let unseen = held_out_of(study.snapshot());
        for text in report::trial_table(study.front(), &unseen) {
            line(&text)?;
        }
        remark(report::about_unseen(&unseen));
    }
    Ok(teller.finish()?)
}

/// Whether somebody can be asked.
fn interactive(arguments: &Arguments) -> bool {
    !arguments.json
        && arguments.pick.is_none()
        && std::io::stdin().is_terminal()
        && std::io::stderr().is_terminal()
}

/// The complete trial that a sentence chooses.
fn choose(study: &Study, pick: &Pick) -> anyhow::Result<Trial> {
    let complete: Vec<&Trial> = study.trials().iter().filter(|it| it.values.is_some()).collect();
    let scores: Vec<_> = complete.iter().map(|it| scores_of(it)).collect();
    Ok(complete[pick.choose(&scores)?].clone())
}

/// Tells which trial was chosen, and saves it if that is wanted.
fn use_trial(
    arguments: &Arguments,
    session: &mut Session,
    trial: &Trial,
    unseen: &HeldOut,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let parameters = parameters_of(trial)
        .with_context(|| format!("trial {}: the study file has no parameters for it", trial.number))?;
    let scores = scores_of(trial);
    remark(&format!("chosen: trial {}: {}", trial.number + 1, report::summary(&scores)));
    if arguments.json {
        line(
            &json!({"event": "chosen", "number": trial.number, "parameters": parameters, "scores": scores})
                .to_string(),
        )?;
    } else {
        line(&serde_json::to_string_pretty(&parameters)?)?;
    }
    let unseen = unseen.get(&trial.number).map(Vec::as_slice).unwrap_or_default();
    arguments.save.save(session, &parameters, &scores, unseen, teller)
}

/// The settings and the calibration of a study that is to go on.
fn resume(path: &Path, arguments: &Arguments) -> anyhow::Result<Option<(Settings, Option<Calibration>)>> {
    if !path.exists() || path.metadata().is_ok_and(|it| it.len() == 0) {
        return Ok(None);
    }
    let snapshot = Study::load(path, Some(STUDY)).or_else(|_| Study::load(path, None))?;
    let begun = snapshot.user_attrs.get(attributes::SETTINGS).and_then(serde_json::Value::as_str);
    let restart = match arguments.search.checkpoint_action {
        Some(CheckpointAction::Restart) => true,
        Some(CheckpointAction::Ask) | None if begun.is_none() => false,
        Some(CheckpointAction::Ask) | None if interactive(arguments) => !menu::go_on(path, &snapshot)?,
        Some(CheckpointAction::Ask) => {
            anyhow::bail!(
                "study `{}` exists, and nobody can be asked what to do with it\n\n\
                 hint: give --checkpoint-action continue or restart",
                path.display()
            )
        }
        Some(CheckpointAction::Continue) | None => false,
    };
    if restart {
        let old = set_aside(path)?;
        remark(&format!("the old study is now `{}`", old.display()));
        return Ok(None);
    }
    let Some(begun) = begun else { return Ok(None) };
    let settings = serde_json::from_str(begun)
        .with_context(|| format!("study `{}` has settings that this program cannot read", path.display()))?;
    let found = snapshot.user_attrs.get(attributes::CALIBRATION).cloned();
    Ok(Some((settings, found.and_then(|it| serde_json::from_value(it).ok()))))
}

/// Moves a study file to a name that is free, unless somebody is writing to it, and answers with that name.
fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    drop(Journal::open(path)?);
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|it| with(&format!(".old{it}")));
    let old = std::iter::once(with(".old")).chain(numbered).find(|it| !it.exists());
    let old = old.expect("numbers do not end");
    std::fs::rename(path, &old)
        .with_context(|| format!("moving the old study `{}` out of the way", path.display()))?;
    Ok(old)
}

impl SearchArguments {
    fn apply(&self, settings: &mut Settings) {
        let search = &mut settings.search;
        search.n_trials = self.trials.unwrap_or(search.n_trials);
        search.n_startup_trials = self.startup_trials.unwrap_or(search.n_startup_trials);
        search.seed = self.seed.unwrap_or(search.seed);
        search.parallel_trials = self.parallel_trials.map_or(search.parallel_trials, |it| it as usize);
        if let Some(sampler) = &self.sampler {
            search.sampler.clone_from(sampler);
        }
    }

    /// The study file: as told, or one for each model.
    fn study_path(&self, model: &Path) -> PathBuf {
        self.study.clone().unwrap_or_else(|| {
            let name: String = model
                .to_string_lossy()
                .chars()
                .map(|it| if it.is_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '-' })
                .collect();
            Path::new("checkpoints").join(format!("{}.jsonl", name.trim_matches(['-', '.'])))
        })
    }
}
