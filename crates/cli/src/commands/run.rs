//! `ablate run`: the whole job.

mod choice;
mod resume;
mod study_file;

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use checkpoint::Format;
use pipeline::search_run::{HeldOut, attributes, held_out_of, parameters_of, scores_of};
use pipeline::{Cancel, PipelineError, PromptTexts, Session};
use prompts::Clock;
use search::{Study, Trial};
use serde_json::json;

use choice::Choice;
use resume::Plan;

use crate::commands::{collect, reproduce};
use crate::configuration::{Configuration, Options};
use crate::fetching;
use crate::interrupt;
use crate::menu::{self, Told};
use crate::model::{ModelArguments, TemplateArguments};
use crate::noting::Circumstances;
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
    let model = arguments.model.with(&told.program)?;
    let save = arguments.save.with(&told.program)?;
    save.check()?;
    let upload = uploading::Target::of(&told.program)?;
    if choice.is_none() && (save.wanted() || upload.is_some()) && !person {
        return Err(Misuse::error(
            "saving without a terminal needs to know which trial\n\nhint: add --pick \"min kl where refusals <= 5\"",
        ));
    }
    let path = study_file::path(told, model.path()?);
    let mut plan = Plan::of(&path, told, model, arguments.template.template()?, person)?;
    // What is wrong with settings or the study file is better known before a model is loaded.
    let objectives = pipeline::objectives(&plan.settings)?;
    if let Some(Choice::Pick(pick)) = &choice {
        pick.check(&pipeline::score_names(&plan.settings)?)?;
    }
    let clock = plan.settings.stop_clock(Clock::stopped_now())?;
    let texts = PromptTexts::load(&mut plan.settings, &fetching::client())?;
    for set in [pipeline::settings::GOOD_PROMPTS, pipeline::settings::BAD_PROMPTS] {
        plan.settings.set(set)?;
    }
    study_file::make_folder_of(&path)?;
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
    let (model, identity) = plan.open(&texts, &clock)?;
    let save = save.under(Circumstances {
        compute: plan.model.compute().clone(),
        template: plan.template.clone(),
        study: Some(path.clone()),
        weights: Some(identity.ingredients.weights.clone()),
        uploaded: upload.is_some(),
    });
    let format = save.format(&model, plan.settings.row_normalization)?;
    if upload.is_some() && save.wanted() && format == Format::Gguf {
        anyhow::bail!("a GGUF file that is saved is not uploaded\n\nhint: leave --save out");
    }
    if let Some((repository, commit)) = hub::Repository::of_cached(model.checkpoint.path()) {
        study.set_user_attr(MODEL, json!({"model": repository.id, "model_commit": commit}))?;
    }
    if !plan.has_identity() {
        study.set_user_attr(attributes::IDENTITY, json!(identity))?;
    }
    let (settings, calibration) = (plan.settings, plan.calibration);
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
    remark(&format!("chosen: trial {}: {}", trial.number, report::summary(&scores)));
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
