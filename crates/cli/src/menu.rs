//! Asking a person: which trial, and what to do with it.
//!
//! Escape or Ctrl-C at a question goes back to the one before it; at the first one it leaves. What fails is told, and
//! the menu goes on: the trials are in the study file, and nothing that is tried here can harm them.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ablation::Parameters;
use hub::{Access, Token};
use inquire::list_option::ListOption;
use inquire::validator::Validation;
use inquire::{CustomType, InquireError, Password, PasswordDisplayMode, Select, Text};
use pipeline::search_run::{HeldOut, attributes, held_out_of, parameters_of, scores_of};
use pipeline::settings::{KL_PROMPTS, PromptSetSettings, REFUSAL_PROMPTS};
use pipeline::{Cancel, PipelineError, Session};
use search::{Snapshot, Study, Trial};

use crate::conversation::{self, Voice};
use crate::program::{ExportStrategy, Material, Program};
use crate::report::{self, Teller};
use crate::saving::SaveArguments;
use crate::uploading::{self, Passing};
use crate::{fetching, interrupt, terminal};

/// Whether a study that exists goes on; else it begins anew.
pub(crate) fn go_on(path: &Path, snapshot: &Snapshot) -> anyhow::Result<bool> {
    let complete = snapshot.comparable_trials().len();
    let finished = snapshot.user_attrs.get(attributes::FINISHED).is_some_and(|it| it == true);
    let state = if finished { "it was finished" } else { "it was not finished" };
    terminal::remark(&format!(
        "the study `{}` exists, with {complete} complete trials; {state}",
        path.display()
    ));
    let choices =
        vec!["Go on with it, with the settings that it began with", "Begin anew; the old file is kept"];
    let chosen = answered(Select::new("What is to be done?", choices).raw_prompt())?;
    Ok(chosen.ok_or(PipelineError::Interrupted)?.index == 0)
}

/// A line of the first menu.
enum Choice {
    Trial { row: String, place: usize },
    MoreTrials,
    Leave,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // Displays of scorer programs are in it, and inquire prints what it is given.
            Self::Trial { row, .. } => return f.write_str(&terminal::printable(row)),
            Self::MoreTrials => "Run more trials",
            Self::Leave => "Leave",
        })
    }
}

/// What can be done with a trial, in the order of the menu.
#[derive(Clone, Copy)]
enum Action {
    Save,
    Upload,
    Talk,
    TalkToBoth,
    OtherPrompts,
    Parameters,
    Back,
}

impl Action {
    const ALL: [Self; 7] = [
        Self::Save,
        Self::Upload,
        Self::Talk,
        Self::TalkToBoth,
        Self::OtherPrompts,
        Self::Parameters,
        Self::Back,
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Save => "Save the model",
            Self::Upload => "Upload it to the hub",
            Self::Talk => "Talk to it",
            Self::TalkToBoth => "Talk to it, with the original's answers beside",
            Self::OtherPrompts => "Score it on other prompts",
            Self::Parameters => "Show its parameters",
            Self::Back => "Back",
        })
    }
}

/// What was told beforehand, and is not asked for.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) save: &'a SaveArguments,
    pub(crate) program: &'a Program,
    pub(crate) study: &'a Path,
}

/// Lets the user look at the trials of the front until they have seen enough.
pub(crate) fn choose(
    session: &mut Session,
    study: &mut Study,
    told: &Told<'_>,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let mut cursor = 0;
    loop {
        let front: Vec<Trial> = study.snapshot().sorted_front().into_iter().cloned().collect();
        let unseen = held_out_of(study.snapshot());
        let mut table = report::trial_table(&front, &unseen).into_iter();
        if let Some(heading) = table.next() {
            // Two columns are the cursor's.
            terminal::remark(&format!("\n{}\n  {heading}", report::about_unseen(&unseen)));
        } else {
            terminal::remark("\nno trial is complete");
        }
        let rows = table.enumerate().map(|(place, row)| Choice::Trial { row, place });
        let choices: Vec<Choice> = rows.chain([Choice::MoreTrials, Choice::Leave]).collect();
        let brief = |it: ListOption<&Choice>| match it.value {
            Choice::Trial { place, .. } => front[*place].number.to_string(),
            other => other.to_string(),
        };
        let asked = Select::new("Which trial?", choices)
            .with_page_size(20)
            .with_starting_cursor(cursor.min(front.len() + 1))
            .with_formatter(&brief);
        let Some(chosen) = answered(asked.raw_prompt())? else { return Ok(()) };
        cursor = chosen.index;
        match chosen.value {
            Choice::Trial { place, .. } => with_trial(session, &front[place], &unseen, told, teller)?,
            Choice::MoreTrials => more_trials(session, study, told, teller)?,
            Choice::Leave => return Ok(()),
        }
    }
}

fn more_trials(
    session: &mut Session,
    study: &mut Study,
    told: &Told<'_>,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let more = if let Some(told) = told.program.n_additional_trials {
        told
    } else {
        let asked = CustomType::<NonZeroUsize>::new("How many more?")
            .with_default(NonZeroUsize::new(20).expect("20 is not 0"))
            .with_error_message("a whole number above 0, please")
            .prompt();
        let Some(more) = answered(asked)? else { return Ok(()) };
        more.get()
    };
    let n_trials = study.trials().len().saturating_add(more);
    let cancel = Cancel(&interrupt::requested);
    let outcome = pipeline::search(session, study, n_trials, &mut |it| teller.tell(&it), &cancel);
    teller.done();
    tell(outcome.map_err(Into::into));
    Ok(())
}

fn with_trial(
    session: &mut Session,
    trial: &Trial,
    unseen: &HeldOut,
    told: &Told<'_>,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let Some(parameters) = parameters_of(trial) else {
        terminal::remark("the study file has no parameters for this trial");
        return Ok(());
    };
    let scores = scores_of(trial);
    let unseen = unseen.get(&trial.number).map(Vec::as_slice).unwrap_or_default();
    terminal::remark(&format!("\ntrial {}", trial.number));
    for text in report::score_table(&scores, unseen) {
        terminal::remark(&text);
    }
    let mut cursor = 0;
    loop {
        terminal::remark("");
        let asked = Select::new("What now?", Action::ALL.to_vec()).with_starting_cursor(cursor);
        let Some(chosen) = answered(asked.raw_prompt())? else { return Ok(()) };
        cursor = chosen.index;
        match chosen.value {
            Action::Save => {
                let Some(save) = with_strategy(told.save.clone())? else { continue };
                let Some(path) = answered(place_to_save(&save))? else { continue };
                let Some(save) = with_material(save.to(&expanded(&path)))? else { continue };
                tell(save.save(session, &parameters, &scores, unseen, teller));
                teller.done();
            }
            Action::Upload => {
                let Some(target) = place_to_upload(session, told)? else { continue };
                let Some(save) = with_strategy(told.save.clone().uploaded())? else { continue };
                let Some(save) = with_material(save)? else { continue };
                let outcome = Passing::of(session, &save, told.study).and_then(|passing| {
                    save.to(passing.model()).save(session, &parameters, &scores, unseen, teller)?;
                    passing.send(&target)
                });
                teller.done();
                tell(outcome);
            }
            Action::Talk => tell(talk(session, &parameters, Voice::Edited)),
            Action::TalkToBoth => tell(talk(session, &parameters, Voice::Both)),
            Action::OtherPrompts => other_prompts(session, &parameters, teller)?,
            Action::Parameters => terminal::line(&serde_json::to_string_pretty(&parameters)?)?,
            Action::Back => return Ok(()),
        }
    }
}

/// Asks where to save, until it is a place that is free.
fn place_to_save(save: &SaveArguments) -> Result<String, InquireError> {
    let given = save.path().map(|it| it.display().to_string());
    let free = {
        let save = save.clone();
        move |text: &str| {
            let path = expanded(text);
            if path.as_os_str().is_empty() {
                return Ok(Validation::Invalid("a name, please; Escape goes back".into()));
            }
            Ok(if save.to(&path).check().is_ok() {
                Validation::Valid
            } else {
                invalid(&format!("`{}` exists already", path.display()))
            })
        }
    };
    let mut asked =
        Text::new("Where to? (a folder; for a GGUF model a file may be named)").with_validator(free);
    if let Some(given) = given.as_deref().and_then(offered) {
        asked = asked.with_default(given);
    }
    asked.prompt()
}

/// Asks who we are, if the environment does not say, and which repository is meant. What goes wrong is told; then, and
/// when a question is left, there is no place.
fn place_to_upload(session: &Session, told: &Told<'_>) -> anyhow::Result<Option<uploading::Target>> {
    let mut access = Access::from_environment();
    if access.token.is_none() {
        let asked = Password::new("Your access token of the hub?")
            .with_help_message("it is neither shown nor kept")
            .with_display_mode(PasswordDisplayMode::Masked)
            .without_confirmation()
            .prompt();
        let Some(text) = answered(asked)? else { return Ok(None) };
        access.token = Token::new(&text);
    }
    let client = fetching::watched(hub::Client::new(access));
    let user = match client.user() {
        Ok(user) => user,
        Err(error) => {
            tell(Err(error.into()));
            return Ok(None);
        }
    };
    let proposed = told.program.upload_repo_id.clone().unwrap_or_else(|| {
        let model = session.model.checkpoint.path();
        let name = hub::Repository::of_cached(model).map(|(it, _)| it.id).map_or_else(
            || model.file_stem().map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
            |it| it.rsplit('/').next().unwrap_or_default().to_owned(),
        );
        format!("{user}/{name}-edited")
    });
    let proposed = offered(&proposed).unwrap_or_default();
    let asked = Text::new("Which repository?").with_default(proposed).prompt();
    let Some(id) = answered(asked)? else { return Ok(None) };
    let choices = vec!["Private", "Public"];
    let asked = Select::new("Who may see it, if it has to be made?", choices)
        .with_starting_cursor(usize::from(!told.program.upload_repo_private))
        .raw_prompt();
    let Some(visibility) = answered(asked)? else { return Ok(None) };
    match uploading::Target::new(client, &user, id.trim(), visibility.index == 0) {
        Ok(target) => Ok(Some(target)),
        Err(error) => {
            tell(Err(error));
            Ok(None)
        }
    }
}

/// The same with what is to be written, which is asked for if nobody has said.
fn with_strategy(save: SaveArguments) -> anyhow::Result<Option<SaveArguments>> {
    if !save.asks_for_strategy() {
        return Ok(Some(save));
    }
    let choices =
        vec!["The whole model", "What changes, as an adapter: a small file that is added to the original"];
    let asked = Select::new("As what?", choices).raw_prompt();
    Ok(answered(asked)?.map(|it| match it.index {
        0 => save.writing(ExportStrategy::Merge),
        _ => save.writing(ExportStrategy::Adapter),
    }))
}

/// The same with what is to be noted beside the model, which is asked for if nobody has said.
fn with_material(save: SaveArguments) -> anyhow::Result<Option<SaveArguments>> {
    if !save.asks_for_material() {
        return Ok(Some(save));
    }
    Ok(answered(material_to_note())?.map(|it| save.noting(it)))
}

/// Asks what is to be noted beside the model.
fn material_to_note() -> Result<Material, InquireError> {
    let choices = vec![
        "Settings, parameters, scores, versions, digests",
        "The same, and what system this is",
        "Nothing",
    ];
    let asked = Select::new("What is written beside it, so that it can be made again?", choices).raw_prompt();
    Ok(match asked?.index {
        0 => Material::Basic,
        1 => Material::Full,
        _ => Material::None,
    })
}

/// The path that a user means: no shell has replaced `~` here.
fn expanded(text: &str) -> PathBuf {
    let text = text.trim();
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

fn talk(session: &mut Session, parameters: &Parameters, voice: Voice) -> anyhow::Result<()> {
    terminal::remark(
        "(Ctrl-C stops an answer; at the prompt it goes back, as Ctrl-D does; /reset begins anew)",
    );
    let edits = session.edit_set(parameters)?;
    session.model.engine.set_edits(&[edits])?;
    let system = session.settings().system_prompt.clone();
    let outcome = conversation::hold(&mut session.model, &system, 1024, voice);
    session.model.engine.set_edits(&[])?;
    outcome
}

fn other_prompts(session: &mut Session, parameters: &Parameters, teller: &mut Teller) -> anyhow::Result<()> {
    let mut sets = Vec::new();
    for (name, what) in [
        (REFUSAL_PROMPTS, "Prompts that show the behaviour (a file, or embedded:NAME)?"),
        (KL_PROMPTS, "Prompts that do not?"),
    ] {
        let now = session.settings().set(name)?.clone();
        let asked = Text::new(what)
            .with_default(offered(&now.dataset).unwrap_or_default())
            .with_help_message("Enter takes those that the search saw")
            .with_validator(readable)
            .prompt();
        let Some(dataset) = answered(asked)? else { return Ok(()) };
        let dataset = dataset.trim().to_owned();
        let set = if dataset == now.dataset { now } else { PromptSetSettings { dataset, ..now.elsewhere() } };
        sets.push((name, set));
    }
    let cancel = Cancel(&interrupt::requested);
    let outcome = session.evaluate_on(&sets, parameters, &mut |it| teller.tell(&it), &cancel);
    teller.done();
    match outcome {
        Ok(evaluation) => {
            for text in report::score_table(&evaluation.scores, &[]) {
                terminal::line(&text)?;
            }
        }
        Err(error) => tell(Err(error.into())),
    }
    Ok(())
}

/// Whether a line names prompts that can be read; standard input cannot, where the answers come from.
#[expect(clippy::unnecessary_wraps, reason = "inquire's validators may fail")]
fn readable(line: &str) -> Result<Validation, inquire::CustomUserError> {
    let line = line.trim();
    if line.starts_with('-') {
        return Ok(Validation::Invalid("standard input is the terminal here; name a file".into()));
    }
    Ok(match prompts::sources::open(line).and_then(|it| it.load()) {
        Ok(_) => Validation::Valid,
        Err(error) => invalid(&error.to_string()),
    })
}

/// Why an answer is not taken, as it may be printed.
fn invalid(message: &str) -> Validation {
    Validation::Invalid(terminal::printable(message).into_owned().into())
}

/// A text that is offered as an answer; none if it cannot be printed as it is.
fn offered(text: &str) -> Option<&str> {
    Some(text).filter(|it| terminal::printable(it) == **it)
}

/// Tells what went wrong with something that was asked for here. That it was stopped is nothing wrong.
fn tell(outcome: anyhow::Result<()>) {
    match outcome {
        Ok(()) => drop(interrupt::take()),
        Err(_) if interrupt::take() => terminal::remark("(stopped)"),
        Err(error) => drop(terminal::report(&error)),
    }
}

/// What was answered; `None` when the question was left with Escape or Ctrl-C.
fn answered<T>(outcome: Result<T, InquireError>) -> anyhow::Result<Option<T>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(InquireError::OperationCanceled | InquireError::OperationInterrupted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
