//! `ablate run`: the whole job.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::Format;
use pipeline::pick::Pick;
use pipeline::search_run::{HeldOut, attributes, held_out_of, parameters_of, scores_of};
use pipeline::{Calibration, Cancel, PipelineError, PromptTexts, Session, Settings};
use search::journal::Journal;
use search::{Study, Trial};
use serde_json::json;
use settings::Origin;

use crate::commands::evaluate::open;
use crate::commands::{collect, reproduce};
use crate::configuration::{Configuration, Options};
use crate::fetching;
use crate::interrupt;
use crate::menu::{self, Told};
use crate::model::{ModelArguments, TemplateArguments};
use crate::noting::Circumstances;
use crate::program::{CheckpointAction, Program};
use crate::report::{self, Style, Teller};
use crate::saving::SaveArguments;
use crate::terminal::{Misuse, line, remark};
use crate::uploading::{self, Passing};

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
    options: Options,

    #[command(flatten)]
    save: SaveArguments,

    /// One JSON object a line for everything that happens, on standard output
    #[arg(long)]
    json: bool,
}

/// The study's name: that of heretic's studies, so that files can be told apart by content alone.
const STUDY: &str = "ablate";

/// A study's attribute: repository and commit of a model of the hub.
const MODEL: &str = "model";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let told = arguments.options.resolve("run", &serde_json::Map::new())?;
    if let Some(folder) = &told.program.collect_reproducibles {
        return collect::collect(Path::new(folder));
    }
    if let Some(file) = &told.program.reproduce {
        return reproduce::in_place_of_a_run(file, &told.program, arguments.model.compute(), arguments.json);
    }
    whole_job(arguments, &told)
}

fn whole_job(arguments: &Arguments, told: &Configuration) -> anyhow::Result<()> {
    let choice = Choice::of(&told.program)?;
    let person = choice.is_none() && interactive(arguments);
    let mut model = arguments.model.with(&told.program)?;
    let save = arguments.save.with(&told.program)?;
    save.check()?;
    let upload = uploading::Target::of(&told.program)?;
    let mut settings = told.run.clone();
    if choice.is_none() && (save.wanted() || upload.is_some()) && !person {
        return Err(Misuse::error(
            "saving without a terminal needs to know which trial\n\nhint: add --pick \"min kl where refusals <= 5\"",
        ));
    }
    let path = study_path(&told.program, model.path()?);
    let save = save.under(Circumstances {
        compute: model.compute().clone(),
        template: arguments.template.template()?,
        study: Some(path.clone()),
        uploaded: upload.is_some(),
    });
    let known = resume(&path, told.program.checkpoint_action, person)?;
    let mut calibration = None;
    if let Some((stored, found, commit)) = known {
        model = model.or_at(commit);
        let n_trials = if told.user_set(&["n_trials"]) { settings.n_trials } else { stored.n_trials };
        let unused = not_used(&stored, told);
        if !unused.is_empty() {
            remark(&format!(
                "the study goes on with the settings that it began with, not with those of {}; --checkpoint-action \
                 restart begins anew",
                unused.join(", ")
            ));
        }
        settings = stored;
        settings.n_trials = n_trials;
        calibration = found;
    }
    if let Some(known) = &calibration {
        model = model.held_as_in(known);
    }
    // What is wrong with settings or the study file is better known before a model is loaded.
    let objectives = pipeline::objectives(&settings)?;
    if let Some(Choice::Pick(pick)) = &choice {
        pick.check(&pipeline::score_names(&settings)?)?;
    }
    let client = fetching::client();
    let texts = PromptTexts::load(&mut settings, &client)?;
    for set in [pipeline::settings::GOOD_PROMPTS, pipeline::settings::BAD_PROMPTS] {
        settings.set(set)?;
    }
    make_folder_of(&path)?;
    let mut study = Study::open(&path, STUDY, &objectives)?;
    if let Some(reason) = study.unlocked() {
        remark(&format!(
            "the study file `{}` cannot be locked ({reason}): nothing keeps a second run from writing to it, give each run \
             a file of its own",
            path.display()
        ));
    }
    interrupt::listen()?;
    let cancel = Cancel(&interrupt::requested);
    let mut teller = Teller::new(if arguments.json { Style::Json } else { Style::Remarks });
    let model = open(&model, &arguments.template, &settings)?;
    let format = save.format(&model, settings.row_normalization)?;
    if upload.is_some() && save.wanted() && format == Format::Gguf {
        anyhow::bail!("a GGUF file that is saved is not uploaded\n\nhint: leave --save out");
    }
    if let Some((repository, commit)) = hub::Repository::of_cached(model.checkpoint.path()) {
        study.set_user_attr(MODEL, json!({"model": repository.id, "model_commit": commit}))?;
    }
    let mut session =
        Session::start(model, settings, texts, calibration, &mut |it| teller.tell(&it), &cancel)?;
    study.set_user_attr(attributes::SETTINGS, json!(serde_json::to_string(session.settings())?))?;
    study.set_user_attr(attributes::CALIBRATION, json!(session.calibration()))?;
    study.set_user_attr(attributes::FINISHED, json!(false))?;
    let n_trials = session.settings().n_trials;
    let outcome = pipeline::search(&mut session, &mut study, n_trials, &mut |it| teller.tell(&it), &cancel);
    teller.done();
    searched(outcome, person && !study.front().is_empty(), &path)?;
    if let Some(choice) = &choice {
        let chosen = choice.choose(&study)?;
        let passing = upload
            .as_ref()
            .filter(|_| !save.wanted())
            .map(|_| Passing::of(&session, &save, &path))
            .transpose()?;
        let save = passing.as_ref().map_or(save.clone(), |it| save.to(it.model()));
        let unseen = held_out_of(study.snapshot());
        use_trial(arguments.json, &save, &mut session, &chosen, &unseen, &mut teller)?;
        match (&upload, passing, save.path()) {
            (Some(upload), Some(passing), _) => passing.send(upload)?,
            (Some(upload), None, Some(written)) => upload.send(written)?,
            _ => {}
        }
    } else if person {
        menu::choose(
            &mut session,
            &mut study,
            &Told { save: &save, program: &told.program, study: &path },
            &mut teller,
        )?;
    } else if !arguments.json {
        let unseen = held_out_of(study.snapshot());
        for text in report::trial_table(study.snapshot().sorted_front(), &unseen) {
            line(&text)?;
        }
        remark(report::about_unseen(&unseen));
    }
    Ok(teller.finish()?)
}

fn make_folder_of(study: &Path) -> anyhow::Result<()> {
    if let Some(folder) = study.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })?;
    }
    Ok(())
}

/// What an interrupted search means: with a person and a front, the menu; else it ends here.
fn searched(outcome: Result<(), PipelineError>, menu: bool, path: &Path) -> anyhow::Result<()> {
    match outcome {
        Err(PipelineError::Interrupted) if menu => {
            interrupt::take();
            remark("interrupted; the same command goes on later. The trials so far:");
            Ok(())
        }
        Err(PipelineError::Interrupted) => {
            remark(&format!("the same command goes on; told so far is in `{}`", path.display()));
            Err(PipelineError::Interrupted.into())
        }
        other => other.with_context(|| format!("study `{}`", path.display())),
    }
}

/// Whether somebody can be asked.
fn interactive(arguments: &Arguments) -> bool {
    !arguments.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// How a trial is chosen when nobody is asked.
enum Choice {
    /// By a sentence.
    Pick(Pick),
    /// By its place in the front.
    Place(usize),
}

impl Choice {
    fn of(program: &Program) -> anyhow::Result<Option<Self>> {
        Ok(match (&program.pick, program.trial_index) {
            (Some(_), Some(_)) => {
                return Err(Misuse::error(
                    "`pick` and `trial_index` are both set\n\nhint: choose one way of choosing",
                ));
            }
            (Some(sentence), None) => Some(Self::Pick(sentence.parse()?)),
            (None, place) => place.map(Self::Place),
        })
    }

    /// The chosen one of the complete trials.
    fn choose(&self, study: &Study) -> anyhow::Result<Trial> {
        match self {
            Self::Pick(pick) => {
                let complete: Vec<&Trial> = study.trials().iter().filter(|it| it.values.is_some()).collect();
                let scores: Vec<_> = complete.iter().map(|it| scores_of(it)).collect();
                Ok(complete[pick.choose(&scores)?].clone())
            }
            Self::Place(place) => {
                let front = study.snapshot().sorted_front();
                let chosen = front.get(*place).with_context(|| {
                    format!("`trial_index` is {place}, and the front has {} trials", front.len())
                })?;
                Ok((*chosen).clone())
            }
        }
    }
}

/// Tells which trial was chosen, and saves it if that is wanted.
fn use_trial(
    as_json: bool,
    save: &SaveArguments,
    session: &mut Session,
    trial: &Trial,
    unseen: &HeldOut,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let parameters = parameters_of(trial)
        .with_context(|| format!("trial {}: the study file has no parameters for it", trial.number))?;
    let scores = scores_of(trial);
    remark(&format!("chosen: trial {}: {}", trial.number + 1, report::summary(&scores)));
    if as_json {
        line(
            &json!({"event": "chosen", "number": trial.number, "parameters": parameters, "scores": scores})
                .to_string(),
        )?;
    } else {
        line(&serde_json::to_string_pretty(&parameters)?)?;
    }
    let unseen = unseen.get(&trial.number).map(Vec::as_slice).unwrap_or_default();
    save.save(session, &parameters, &scores, unseen, teller)
}

/// What a study began with: settings, calibration, the model's commit.
type Begun = (Settings, Option<Calibration>, Option<String>);

/// What a study that is to go on began with.
fn resume(path: &Path, action: Option<CheckpointAction>, person: bool) -> anyhow::Result<Option<Begun>> {
    if !path.exists() || path.metadata().is_ok_and(|it| it.len() == 0) {
        return Ok(None);
    }
    let snapshot = Study::load(path, Some(STUDY)).or_else(|_| Study::load(path, None))?;
    let begun = snapshot.user_attrs.get(attributes::SETTINGS).and_then(serde_json::Value::as_str);
    let restart = match action {
        Some(CheckpointAction::Restart) => true,
        Some(CheckpointAction::Ask) | None if begun.is_none() => false,
        Some(CheckpointAction::Ask) | None if person => !menu::go_on(path, &snapshot)?,
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
    let commit =
        snapshot.user_attrs.get(MODEL).and_then(|it| it.get("model_commit")?.as_str()).map(str::to_owned);
    Ok(Some((settings, found.and_then(|it| serde_json::from_value(it).ok()), commit)))
}

/// Who has set something that a study began otherwise with: options, variables, files. How many trials there are to be may
/// change.
fn not_used(stored: &Settings, told: &Configuration) -> Vec<String> {
    let mut origins: Vec<String> = Vec::new();
    for name in stored.differing(&told.run) {
        let origin = told.layers.origin(&[name]);
        let chosen = match origin {
            Origin::Preset(_) => told.user_set(&["preset"]),
            _ => told.user_set(&[name]),
        };
        let origin = origin.to_string();
        if chosen && name != "n_trials" && !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
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

/// The study file: as told, or one for each model.
fn study_path(program: &Program, model: &Path) -> PathBuf {
    program.study.as_ref().map_or_else(
        || {
            let name: String = model
                .to_string_lossy()
                .chars()
                .map(|it| if it.is_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '-' })
                .collect();
            let name = name.trim_matches(['-', '.']);
            Path::new(&program.study_checkpoint_dir).join(format!("{name}.jsonl"))
        },
        PathBuf::from,
    )
}
