//! Where a study lies.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pipeline::settings::{BAD_PROMPTS, PromptSetSettings};
use pipeline::{PipelineError, Settings};
use search::Study;
use search::journal::Journal;

use super::STUDY;

use crate::configuration::Configuration;
use crate::program::Program;
use crate::terminal::remark;

/// Bytes of a name that say what it is the name of; the rest of a longer one is in its digest.
const LONGEST: usize = 60;

/// The study file: as set, or one for each model and behavior.
pub(super) fn path(told: &Configuration, model: &Path) -> PathBuf {
    let program = &told.program;
    if let Some(path) = &program.study {
        return PathBuf::from(path);
    }
    let behavior = match told.run.set(BAD_PROMPTS) {
        Ok(set) if told.user_set(&[BAD_PROMPTS]) => last_part(&set.dataset),
        _ => program.preset.clone(),
    };
    let path = Path::new(&program.study_checkpoint_dir).join(name(model, &behavior, &told.run));
    let former = former_path(program, model);
    // heretic's studies may lie there, too.
    if !path.exists() && former.is_file() && Study::load(&former, Some(STUDY)).is_ok() {
        let former = former.display();
        remark(&format!(
            "`{former}` is a study of this model under a former name: --study \"{former}\" resumes it"
        ));
    }
    path
}

/// `MODEL-BEHAVIOR-DIGEST.jsonl`. The digest is of where the model is and of what prompts are, so that two models or two
/// behaviors never share a study, however their names are written.
fn name(model: &Path, behavior: &str, settings: &Settings) -> String {
    let place = std::fs::canonicalize(model).ok();
    let shown = match &place {
        Some(place) => place.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
        // A repository of the hub.
        None => model.to_string_lossy().into_owned(),
    };
    let place = place.unwrap_or_else(|| model.to_owned());
    let sets: Vec<(&str, PromptSetSettings)> = settings
        .sets()
        .map(|(name, set)| {
            (name, PromptSetSettings { residual_plot_label: None, residual_plot_color: None, ..set.clone() })
        })
        .collect();
    let sets = serde_json::to_vec(&sets).unwrap_or_default();
    let digest = hub::sha256([place.as_os_str().as_encoded_bytes(), b"\0", &sets]);
    let parts = [shortened(&plain(&shown)), shortened(&plain(behavior)), digest[..8].to_owned()];
    let parts: Vec<String> = parts.into_iter().filter(|it| !it.is_empty()).collect();
    format!("{}.jsonl", parts.join("-"))
}

/// What a source of prompts is called: its last part, without ending and slice.
fn last_part(source: &str) -> String {
    let source = source.split('[').next().unwrap_or_default();
    let last = source.rsplit(['/', '\\', ':']).find(|it| !it.is_empty()).unwrap_or_default();
    Path::new(last).file_stem().map_or_else(String::new, |it| it.to_string_lossy().into_owned())
}

/// A text with only what file names can have everywhere.
fn plain(text: &str) -> String {
    let kept = |it: char| if it.is_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '-' };
    let text: String = text.chars().map(kept).collect();
    text.trim_matches(['-', '.']).to_owned()
}

fn shortened(text: &str) -> String {
    let end = (0..=LONGEST.min(text.len())).rev().find(|&it| text.is_char_boundary(it)).unwrap_or(0);
    text[..end].to_owned()
}

/// Where the study of a model was before its name told the behavior, too.
fn former_path(program: &Program, model: &Path) -> PathBuf {
    let name = plain(&model.to_string_lossy());
    Path::new(&program.study_checkpoint_dir).join(format!("{name}.jsonl"))
}

/// Makes the folder of a study.
pub(super) fn make_folder_of(study: &Path) -> anyhow::Result<()> {
    if let Some(folder) = study.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|source| PipelineError::Folder { path: folder.to_owned(), source })?;
    }
    Ok(())
}

/// Moves a study file to a name that is free, unless somebody is writing to it, and answers with that name.
pub(super) fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bad: &str) -> Settings {
        Settings { bad_prompts: Some(PromptSetSettings::of(bad)), ..Settings::default() }
    }

    #[test]
    fn names_tell_model_and_behavior_and_never_meet() {
        let folder = tempfile::tempdir().unwrap();
        let models = ["x (1)", "x [1]", "x -1-", "X (1)"].map(|it| folder.path().join(it));
        for model in &models {
            std::fs::create_dir_all(model).unwrap();
        }
        let mut names: Vec<String> = models.iter().map(|it| name(it, "slop", &with("a.txt"))).collect();
        assert!(
            names[0].starts_with("x--1-slop-")
                && Path::new(&names[0]).extension().is_some_and(|it| it == "jsonl"),
            "{names:?}"
        );
        names.push(name(&models[0], "slop", &with("b.txt")));
        names.push(name(Path::new("owner/model"), "refusals", &with("a.txt")));
        assert!(names[5].starts_with("owner-model-refusals-"), "{names:?}");
        names.push(name(Path::new("owner-model"), "refusals", &with("a.txt")));
        let long = "ü".repeat(300);
        names.push(name(Path::new(&format!("owner/{long}")), &long, &with("a.txt")));
        names.push(name(Path::new(&format!("owner/{long}2")), &long, &with("a.txt")));
        assert!(names.iter().all(|it| it.len() <= 2 * LONGEST + 20), "{names:?}");
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }

    #[test]
    fn one_model_has_one_name_however_its_path_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        let of = |it: &Path| name(it, "slop", &with("a.txt"));
        assert_eq!(of(&model), of(&folder.path().join("./model/../model/")));
    }

    #[test]
    fn a_behavior_of_ones_own_is_called_as_its_prompts_are() {
        for (source, expected) in [
            ("bad.txt", "bad"),
            ("folder/of/prompts.v2.txt[:400]", "prompts.v2"),
            ("embedded:demo-refused-train", "demo-refused-train"),
            ("owner/data-set", "data-set"),
            ("C:\\prompts\\bad.txt", "bad"),
            ("folder/", "folder"),
        ] {
            assert_eq!(last_part(source), expected, "{source}");
        }
    }
}
