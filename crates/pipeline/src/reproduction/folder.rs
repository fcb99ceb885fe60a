//! What lies in the folder `reproduce` beside a model.

use std::fmt::Write as _;

use super::Record;

/// The folder's name.
pub const REPRODUCE: &str = "reproduce";

/// The file that says all.
pub const FILE: &str = "reproduce.json";

/// The digests as `sha256sum --check` reads them.
pub const SUMS: &str = "SHA256SUMS";

/// The file for people.
pub const README: &str = "README.md";

/// Names and contents of the files. `study`: the name of the study file, if it lies there, too.
///
/// # Errors
/// None that a record made by [`Record::of`] can have: numbers that are not finite are none of JSON.
pub fn folder_files(
    record: &Record,
    study: Option<&str>,
) -> Result<Vec<(&'static str, String)>, serde_json::Error> {
    let json = serde_json::to_string_pretty(record)? + "\n";
    Ok(vec![(FILE, json), (SUMS, sums(record)), (README, readme(record, study))])
}

fn sums(record: &Record) -> String {
    record.hashes.iter().fold(String::new(), |mut text, (file, digest)| {
        // Writing to a string cannot fail. The asterisk says that the file is no text.
        let _ = writeln!(text, "{digest} *{file}");
        text
    })
}

fn readme(record: &Record, study: Option<&str>) -> String {
    let machine = &record.machine;
    let commit = record.model.commit.as_ref().map_or(String::new(), |it| format!(" at commit `{it}`"));
    let mut text = format!(
        "# Making this model again\n\n\
         It was made of `{}`{commit} by ablate {}, without training and without chance: on a machine of the same kind \
         the same version makes the same bits.\n\n\
         ```sh\nablate reproduce {FILE}\n```\n\n\
         does that without a search, compares the files with their digests, and shows the scores beside those that were \
         measured here. What is on the hub is fetched; what is not has to be given (`--model`, `--prompts SET=FILE`) and \
         is known by its SHA-256.\n\n\
         | file | what it is |\n|---|---|\n\
         | `{FILE}` | settings, prompts, parameters, scores, machine, digests |\n\
         | `{SUMS}` | digests of the weights: `sha256sum --check reproduce/{SUMS}` beside them |\n",
        record.model.name, record.program,
    );
    // Writing to a string cannot fail.
    if let Some(study) = study {
        let _ = writeln!(text, "| `{study}` | the study: every trial, for `ablate study show` and Optuna |");
    }
    let set = machine.instruction_set.as_deref().unwrap_or("no instruction set of its own");
    let _ = write!(
        text,
        "\nThe machine: {} {}, {} ({set}), weights in {}, products in {}, {} threads (which do not matter).\n",
        machine.system,
        machine.architecture,
        machine.device,
        machine.weights,
        machine.arithmetic,
        machine.threads,
    );
    text
}
