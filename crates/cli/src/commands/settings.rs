//! `ablate settings`: what everything is set to, and by whom.

use std::fmt::Write as _;

use pipeline::Settings;
use serde_json::{Map, Value, json};
use settings::{Field, Fields, Kind};

use crate::configuration::{Configuration, Options};
use crate::program::Program;
use crate::terminal::line;

/// Show what everything is set to, and where that comes from
///
/// The command line counts more than the environment (`ABLATE_N_TRIALS=50`), that more than the configuration file
/// (`ablate.toml`, or --config FILE), that more than the preset, and that more than the defaults.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,

    /// The file of defaults with all documentation: a beginning for a configuration file
    #[arg(long)]
    default_file: bool,

    /// One JSON object: value and origin of every setting
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.default_file {
        line(default_file()?.trim_end())?;
        return Ok(());
    }
    let configuration = arguments.options.resolve("settings", &Map::new())?;
    let shown = lines(&configuration)?;
    if arguments.json {
        let object: Map<String, Value> = shown
            .into_iter()
            .map(|(path, value, origin)| (path.join("."), json!({"value": value, "from": origin})))
            .collect();
        line(&Value::Object(object).to_string())?;
        return Ok(());
    }
    let rows: Vec<(String, String)> = shown
        .into_iter()
        .map(|(path, value, origin)| {
            let set = match value {
                Value::Null => format!("# {} =", path.join(".")),
                value => format!("{} = {}", path.join("."), settings::toml(&value)),
            };
            (set, origin)
        })
        .collect();
    let width = rows.iter().map(|it| it.0.chars().count()).filter(|&it| it < 60).max().unwrap_or(0);
    for (set, origin) in rows {
        line(&format!("{set:width$}  # {origin}"))?;
    }
    Ok(())
}

/// Path, value and origin of every setting, tables by their keys.
fn lines(configuration: &Configuration) -> anyhow::Result<Vec<(Vec<String>, Value, String)>> {
    let (run, program) =
        (serde_json::to_value(&configuration.run)?, serde_json::to_value(&configuration.program)?);
    let mut lines = Vec::new();
    for (fields, values) in [(Program::FIELDS, &program), (Settings::FIELDS, &run)] {
        for field in fields {
            add(configuration, field, &[field.name], &values[field.name], &mut lines);
        }
    }
    Ok(lines)
}

fn add(
    configuration: &Configuration,
    field: &Field,
    path: &[&str],
    value: &Value,
    lines: &mut Vec<(Vec<String>, Value, String)>,
) {
    match (field.kind, value) {
        (Kind::Table(fields), Value::Object(table)) => {
            for inner in fields {
                // Of a table, what is not set is not worth a line.
                let value = table.get(inner.name).filter(|it| !it.is_null() && it.as_str() != Some(""));
                if let Some(value) = value {
                    add(configuration, inner, &[path, &[inner.name]].concat(), value, lines);
                }
            }
        }
        (Kind::Open, _) => {
            for (leaf, value, origin) in configuration.layers.leaves().filter(|it| it.0[0] == path[0]) {
                lines.push((leaf.to_vec(), value.clone(), origin.to_string()));
            }
        }
        _ => {
            let origin = configuration.layers.origin(path).to_string();
            lines.push((path.iter().map(|&it| it.to_owned()).collect(), value.clone(), origin));
        }
    }
}

/// `config.default.toml`.
fn default_file() -> anyhow::Result<String> {
    let isolated = Options::isolated().resolve("settings", &Map::new())?;
    let program = serde_json::to_value(&isolated.program)?;
    let run = serde_json::to_value(&isolated.run)?;
    let mut text = "# Every setting with its default. Rename this file to ablate.toml, keep what you want to change, and\n\
                    # put it where ablate is started, or give it with --config.\n"
        .to_owned();
    text += &settings::default_file(&[(Program::FIELDS, &program), (Settings::FIELDS, &run)]);
    text += "\n# Presets replace prompts, markers and scorers:\n";
    for preset in pipeline::presets::PRESETS {
        let _ = writeln!(text, "# - {}: {}", preset.name, preset.summary());
    }
    text += "\n# Settings of scorers; each may also stand under [scorer.NAME_INSTANCE] for one instance.\n";
    for member in scorers::MEMBERS {
        let _ = writeln!(text, "\n# {}: {}\n# [scorer.{}]", member.name, member.summary, member.name);
        for setting in member.settings() {
            let value = match &setting.default {
                Value::Null => String::new(),
                value => format!(" {}", settings::toml(value)),
            };
            text += &settings::comment(&setting.help);
            let _ = writeln!(text, "# {} ={value}", setting.name);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_defaults_in_the_repository_is_what_the_types_say() {
        let written = include_str!("../../../../config.default.toml");
        assert!(
            written == default_file().unwrap(),
            "config.default.toml is stale: cargo run -- settings --default-file > config.default.toml"
        );
    }

    #[test]
    fn the_file_of_defaults_read_as_a_configuration_changes_nothing() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config.default.toml");
        let none = Options::isolated().resolve("settings", &Map::new()).unwrap();
        let read = Options::isolated().with_file(path.into()).resolve("settings", &Map::new()).unwrap();
        assert_eq!(none.run, read.run);
        assert_eq!(none.program, read.program);
    }
}
