//! `ablate study`: what is in a study file, whoever wrote it.

use std::path::PathBuf;

use pipeline::search_run::held_out_of;
use search::{Study, Trial};
use serde_json::{Value, json};

use crate::report;
use crate::terminal::line;

/// Look at study files (Optuna's journal format): those of this program, of heretic, of Optuna
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the trials of a study; those of the front are marked
    Show {
        /// The study file
        file: PathBuf,

        /// The study's name, where the file has several
        #[arg(long)]
        name: Option<String>,

        /// Only the front
        #[arg(long)]
        front: bool,

        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Command::Show { file, name, front: only_front, json: as_json } = &arguments.command;
    let study = Study::load(file, name.as_deref())?;
    let front: Vec<usize> = study.front().iter().map(|it| it.number).collect();
    let trials: Vec<&Trial> =
        study.trials.iter().filter(|it| !only_front || front.contains(&it.number)).collect();
    if *as_json {
        let objectives: Vec<Value> = study
            .objectives()
            .iter()
            .map(|it| json!({"name": it.name, "goal": it.goal.to_string()}))
            .collect();
        let trials: Vec<Value> = trials.iter().map(|it| as_object(it)).collect();
        let object = json!({
            "name": study.name, "objectives": objectives, "front": front, "user_attrs": study.user_attrs,
            "trials": trials,
        });
        line(&object.to_string())?;
        return Ok(());
    }
    let names: Vec<String> = study.objectives().iter().map(ToString::to_string).collect();
    line(&format!("study {}: {} trials; {}", study.name, study.trials.len(), names.join(", ")))?;
    let unseen = held_out_of(&study);
    let mut rows =
        vec![["", "trial", "state", "scores", report::UNSEEN, "parameters"].map(str::to_owned).to_vec()];
    for trial in trials {
        rows.push(vec![
            if front.contains(&trial.number) { "*".to_owned() } else { String::new() },
            trial.number.to_string(),
            trial.state.to_string(),
            scores(trial, &study.objectives()),
            unseen.get(&trial.number).map_or(String::new(), |it| report::summary(it)),
            parameters(trial),
        ]);
    }
    if unseen.is_empty() {
        for row in &mut rows {
            row.remove(4);
        }
    }
    for text in report::columns(&rows) {
        line(&text)?;
    }
    Ok(())
}

/// Scores as whoever wrote the file shows them; else the objectives' values.
fn scores(trial: &Trial, objectives: &[search::Objective]) -> String {
    let shown = |it: &Value| {
        let display = it.get("display").or_else(|| it.pointer("/score/rich_display"))?.as_str()?;
        Some(format!("{} {display}", it.get("name")?.as_str()?))
    };
    let stored = trial.user_attrs.get("scores").and_then(Value::as_array);
    let parts: Vec<String> = stored.into_iter().flatten().filter_map(shown).collect();
    if !parts.is_empty() {
        return parts.join(", ");
    }
    let values = trial.values.iter().flatten().zip(objectives);
    values.map(|(value, objective)| format!("{} {value:.4}", objective.name)).collect::<Vec<_>>().join(", ")
}

fn parameters(trial: &Trial) -> String {
    let shown = |name: &str| match trial.assignment.external(name) {
        Ok(Value::Number(number)) => number.as_f64().map_or(String::new(), |it| format!("{it:.3}")),
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    };
    let parts: Vec<String> =
        trial.assignment.iter().map(|(it, _)| format!("{}={}", it.name, shown(&it.name))).collect();
    parts.join(" ")
}

fn as_object(trial: &Trial) -> Value {
    let parameters: serde_json::Map<String, Value> = trial
        .assignment
        .iter()
        .filter_map(|(it, _)| Some((it.name.clone(), trial.assignment.external(&it.name).ok()?)))
        .collect();
    json!({
        "number": trial.number, "state": trial.state.to_string(), "values": trial.values,
        "parameters": parameters, "user_attrs": trial.user_attrs,
    })
}
