//! `ablate scorers`: what can be measured, and how it is set.

use scorers::{Goal, MEMBERS};
use serde_json::Value;
use settings::nearest;

use crate::report;
use crate::terminal::{Misuse, line};

/// Show the scorers; with a name, what one of them measures and may be told
///
/// Examples:
///   ablate scorers
///   ablate scorers command
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// One of them
    name: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(name) = &arguments.name else {
        let rows = MEMBERS
            .iter()
            .map(|it| vec![it.name.to_owned(), goal(it.goal).to_owned(), it.summary.to_owned()]);
        let heading = ["scorer", "goal", ""].map(str::to_owned).to_vec();
        for row in report::columns(&[heading].into_iter().chain(rows).collect::<Vec<_>>()) {
            line(&row)?;
        }
        return Ok(());
    };
    let Some(member) = MEMBERS.iter().find(|it| it.name == name) else {
        let near = nearest(name, MEMBERS.iter().map(|it| it.name))[0];
        return Err(Misuse::error(format!("unknown scorer `{name}`\n\nhint: did you mean `{near}`?")));
    };
    line(&format!("{}: {}", member.name, member.summary))?;
    line(&format!("goal unless told otherwise: {}", goal(member.goal)))?;
    if !member.more.is_empty() {
        line(&format!("\n{}", member.more.trim_end()))?;
    }
    line(&format!(
        "\nsettings, under [scorer.{}], or of one instance under [scorer.{}_INSTANCE]:",
        member.name, member.name
    ))?;
    for setting in member.settings() {
        let default = match &setting.default {
            Value::Null => String::new(),
            value => format!(" = {}", settings::toml(value)),
        };
        line(&format!("\n{}{}{default}", settings::comment(&setting.help), setting.name))?;
    }
    Ok(())
}

fn goal(goal: Goal) -> &'static str {
    match goal {
        Goal::Minimize => "minimize",
        Goal::Maximize => "maximize",
        Goal::None => "none",
    }
}
