//! Asking a person: which trial, and what to do with it.

use std::path::Path;

use inquire::{InquireError, Select, Text};
use pipeline::search_run::{parameters_of, scores_of};
use pipeline::settings::PromptSetSettings;
use pipeline::{Cancel, Evaluation, Session};
use search::{Snapshot, Study, Trial};

use crate::conversation::{self, Voice};
use crate::report::{self, Teller};
use crate::saving::SaveArguments;
use crate::{interrupt, terminal};

/// Whether a study that exists goes on; else it begins anew.
pub(crate) fn go_on(path: &Path, snapshot: &Snapshot) -> anyhow::Result<bool> {
    let complete = snapshot.trials.iter().filter(|it| it.values.is_some()).count();
    terminal::remark(&format!("the study `{}` exists, with {complete} complete trials", path.display()));
    let choices =
        vec!["Go on with it, with the settings that it began with", "Begin anew; the old file is kept"];
    Ok(Select::new("What is to be done?", choices).raw_prompt()?.index == 0)
}

/// Lets the user look at the trials of the front until they have seen enough.
pub(crate) fn choose(
    session: &mut Session,
    study: &mut Study,
    save: &SaveArguments,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    loop {
        let mut front: Vec<Trial> = study.front().into_iter().cloned().collect();
        front.sort_by(|a, b| {
            let key = |it: &Trial| it.values.clone().unwrap_or_default();
            key(a)
                .iter()
                .zip(&key(b))
                .map(|(a, b)| a.total_cmp(b))
                .find(|it| it.is_ne())
                .unwrap_or(a.number.cmp(&b.number))
        });
        let mut choices: Vec<String> = front.iter().map(title).collect();
        choices.push("Run more trials".to_owned());
        choices.push("Leave".to_owned());
        let last = choices.len() - 1;
        let Some(chosen) = answered(Select::new("Which trial?", choices).with_page_size(20).raw_prompt())?
        else {
            return Ok(());
        };
        match chosen.index {
            index if index == last => return Ok(()),
            index if index == last - 1 => more_trials(session, study, teller)?,
            index => with_trial(session, &front[index], save, teller)?,
        }
    }
}

fn title(trial: &Trial) -> String {
    let scores = scores_of(trial);
    let parts: Vec<String> = scores
        .iter()
        .map(|it| {
            let details = &it.details;
            let more = match (details.interval, details.median, details.max) {
                (Some([low, high]), ..) => format!(" ({:.0}–{:.0} %)", low * 100.0, high * 100.0),
                (None, Some(median), Some(max)) => format!(" (median {median:.4}, largest {max:.3})"),
                _ => String::new(),
            };
            format!("{} {}{more}", it.name, it.display)
        })
        .collect();
    format!("[{:>3}] {}", trial.number + 1, parts.join(", "))
}

fn more_trials(session: &mut Session, study: &mut Study, teller: &mut Teller) -> anyhow::Result<()> {
    let asked = Text::new("How many more?").with_default("20").prompt();
    let Some(text) = answered(asked)? else { return Ok(()) };
    let Some(more) = text.trim().parse::<usize>().ok().filter(|&it| it > 0) else {
        terminal::remark("that is no number above 0");
        return Ok(());
    };
    let n_trials = study.trials().len() + more;
    let cancel = Cancel(&interrupt::requested);
    let outcome = pipeline::search(session, study, n_trials, &mut |it| teller.tell(&it), &cancel);
    teller.done();
    if interrupt::take() { Ok(()) } else { Ok(outcome?) }
}

fn with_trial(
    session: &mut Session,
    trial: &Trial,
    save: &SaveArguments,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let Some(parameters) = parameters_of(trial) else {
        terminal::remark("the study file has no parameters for this trial");
        return Ok(());
    };
    let scores = scores_of(trial);
    loop {
        for text in report::score_table(&scores) {
            terminal::remark(&text);
        }
        let choices = vec![
            "Save the model",
            "Talk to it",
            "Talk to it, with the original's answers beside",
            "Score it on other prompts",
            "Show its parameters",
            "Back",
        ];
        let Some(chosen) = answered(Select::new("What now?", choices).raw_prompt())? else { return Ok(()) };
        match chosen.index {
            0 => {
                let asked = Text::new("Folder to write it to?").prompt();
                if let Some(folder) = answered(asked)?.filter(|it| !it.trim().is_empty()) {
                    let evaluation = Evaluation { scores: scores.clone(), objectives: Vec::new() };
                    let target = save.to(Path::new(folder.trim()));
                    if let Err(error) = target.save(session, &parameters, &evaluation, teller) {
                        terminal::report(&error);
                    }
                }
            }
            1 | 2 => {
                let edits = session.edit_set(&parameters)?;
                session.model.engine.set_edits(&[edits])?;
                let voice = if chosen.index == 1 { Voice::Edited } else { Voice::Both };
                let system = session.settings().system_prompt.clone();
                let outcome = conversation::hold(&mut session.model, &system, 1024, voice);
                session.model.engine.set_edits(&[])?;
                outcome?;
            }
            3 => other_prompts(session, &parameters, teller)?,
            4 => terminal::line(&serde_json::to_string_pretty(&parameters)?)?,
            _ => return Ok(()),
        }
    }
}

fn other_prompts(
    session: &mut Session,
    parameters: &ablation::Parameters,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    use pipeline::settings::{KL_PROMPTS, REFUSAL_PROMPTS};
    let mut sets = Vec::new();
    for (name, what) in [
        (REFUSAL_PROMPTS, "Prompts that show the behaviour (file, or embedded:NAME)?"),
        (KL_PROMPTS, "Prompts that do not?"),
    ] {
        let now = session.settings().set(name)?.dataset.clone();
        let Some(dataset) = answered(Text::new(what).with_default(&now).prompt())? else { return Ok(()) };
        sets.push((name, PromptSetSettings { dataset, ..session.settings().set(name)?.elsewhere() }));
    }
    let cancel = Cancel(&interrupt::requested);
    match session.evaluate_on(&sets, parameters, &cancel) {
        Ok(evaluation) => {
            teller.done();
            for text in report::score_table(&evaluation.scores) {
                terminal::line(&text)?;
            }
        }
        Err(error) => {
            interrupt::take();
            terminal::report(&error.into());
        }
    }
    Ok(())
}

/// What was answered; `None` when the question was left with Escape or Ctrl-C.
fn answered<T>(outcome: Result<T, InquireError>) -> anyhow::Result<Option<T>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(InquireError::OperationCanceled | InquireError::OperationInterrupted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
