//! Resuming a study: what it began with counts, and whatever else is different by now is an error.
//!
//! Settings that nobody has set are those of the study. What somebody has set otherwise, and files that hold something
//! else by now, would put scores into one front that cannot be compared (`pipeline::identity` says what belongs to that):
//! such a study is not resumed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use engine::Engine;
use pipeline::identity::{Change, Identity, Ingredients, settings_changes};
use pipeline::reproduction::Template;
use pipeline::search_run::attributes;
use pipeline::settings::PromptSetSettings;
use pipeline::{Calibration, Model, PromptTexts, Settings};
use prompts::Clock;
use search::{Snapshot, Study};
use serde_json::{Value, json};

use super::{MODEL, STUDY, study_file};
use crate::configuration::Configuration;
use crate::menu;
use crate::model::{ModelArguments, encoder, remark_date};
use crate::program::CheckpointAction;
use crate::terminal::remark;

/// What a run computes with: what it was told, or where a study is resumed what that began with.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) calibration: Option<Calibration>,
    pub(super) model: ModelArguments,
    pub(super) template: Template,
    begun: Option<Begun>,
}

/// A study that is to be resumed.
struct Begun {
    path: PathBuf,
    settings: Settings,
    calibration: Option<Calibration>,
    /// The commit of a model of the hub.
    commit: Option<String>,
    /// What its scores depend on; former versions of this program have not stored it.
    identity: Option<Identity>,
}

impl Plan {
    /// Reads the study at `path`, if there is one that is to be resumed.
    pub(super) fn of(
        path: &Path,
        told: &Configuration,
        model: ModelArguments,
        template: Template,
        person: bool,
    ) -> anyhow::Result<Self> {
        match Begun::read(path, told.program.checkpoint_action, person)? {
            Some(begun) => begun.plan(told, model, template),
            None => Ok(Self { settings: told.run.clone(), calibration: None, model, template, begun: None }),
        }
    }

    /// Whether the study has stored already what its scores depend on.
    pub(super) fn has_identity(&self) -> bool {
        self.begun.as_ref().is_some_and(|it| it.identity.is_some())
    }

    /// Opens and loads the model, unless the study began with something else.
    pub(super) fn open(&self, texts: &PromptTexts, clock: &Clock) -> anyhow::Result<(Model, Identity)> {
        let checkpoint = self.model.open()?;
        let encoder = encoder(
            self.template.clone(),
            self.settings.chat_template_kwargs.clone(),
            clock.clone(),
            &checkpoint,
        )?;
        let ingredients = Ingredients::of(&checkpoint, &encoder, &self.template, &self.settings, texts)?;
        let stored = self.begun.as_ref().and_then(|it| Some((it, it.identity.as_ref()?)));
        if let Some((begun, identity)) = stored {
            begun.refuse(&identity.ingredients.changes(&ingredients))?;
        }
        let engine = self.model.load(&checkpoint)?;
        let identity = self.identity(ingredients, &engine)?;
        remark_date(&encoder, clock);
        Ok((Model { checkpoint, engine, encoder }, identity))
    }

    /// What scores of this run depend on, unless the study computed otherwise.
    fn identity(&self, ingredients: Ingredients, engine: &Engine) -> anyhow::Result<Identity> {
        let compute = self.model.compute();
        let here = Identity::new(ingredients, engine.info().family, compute.machine(engine)?);
        let Some(begun) = &self.begun else { return Ok(here) };
        let Some(stored) = &begun.identity else {
            remark(
                "the study was begun by a former version, which did not store what its scores depend on: that model, \
                 tokenizer and prompts are still the same is not known",
            );
            return Ok(here);
        };
        begun.refuse(&stored.changes_of_arithmetic(&here.family, &here.machine))?;
        let rounding = stored.changes_of_rounding(&here.machine);
        if compute.names_instruction_set() {
            begun.refuse(&rounding)?;
        }
        for change in rounding {
            remark(&format!("{change}: the last digits of scores may differ"));
        }
        if stored.program != here.program {
            remark(&format!("the study was begun by version {} of this program", stored.program));
        }
        Ok(stored.clone())
    }
}

impl Begun {
    /// What a study that is to be resumed began with.
    fn read(path: &Path, action: Option<CheckpointAction>, person: bool) -> anyhow::Result<Option<Self>> {
        if !path.exists() || path.metadata().is_ok_and(|it| it.len() == 0) {
            return Ok(None);
        }
        let snapshot = Study::load(path, Some(STUDY)).or_else(|_| Study::load(path, None))?;
        let begun = snapshot.user_attrs.contains_key(attributes::SETTINGS);
        let restart = match action {
            Some(CheckpointAction::Restart) => true,
            Some(CheckpointAction::Ask) | None if !begun => false,
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
            let old = study_file::set_aside(path)?;
            remark(&format!("the old study is now `{}`", old.display()));
            return Ok(None);
        }
        Self::of(path, &snapshot).with_context(|| format!("study `{}`", path.display()))
    }

    fn of(path: &Path, snapshot: &Snapshot) -> anyhow::Result<Option<Self>> {
        let attribute = |name: &str| snapshot.user_attrs.get(name).filter(|it| !it.is_null());
        let complete = snapshot.comparable_trials().len();
        let Some(stored) = attribute(attributes::SETTINGS) else {
            if snapshot.name == STUDY && complete > 0 {
                anyhow::bail!(
                    "it has {complete} complete trials and no settings, so that they cannot be compared with others{ANEW}"
                );
            }
            return Ok(None);
        };
        let mut settings = settings(stored, &snapshot.name)?;
        if snapshot.trials.is_empty() {
            // Nothing that was begun otherwise would be continued.
            return Ok(None);
        }
        if settings.template_date.is_none() {
            // Before the date was noted, prompts were rendered as on the day of each trial.
            let first = snapshot.trials.iter().find_map(|it| it.start);
            settings.template_date = first.map(|it| it.date().to_string());
        }
        let unreadable = |what: &str, why: &dyn std::fmt::Display| {
            anyhow::anyhow!("its {what} cannot be read: {why}{ANEW}")
        };
        let calibration = attribute(attributes::CALIBRATION).cloned().map(serde_json::from_value).transpose();
        let calibration = calibration.map_err(|it| unreadable("calibration", &it))?;
        if calibration.is_none() && complete > 0 {
            remark("the study has no calibration: it is made anew, and need not be what its trials had");
        }
        let identity = attribute(attributes::IDENTITY).map(Identity::read).transpose();
        let identity = identity.map_err(|it| unreadable("identity", &it))?;
        let commit = attribute(MODEL).and_then(|it| it.get("model_commit")?.as_str());
        let (path, commit) = (path.to_owned(), commit.map(str::to_owned));
        Ok(Some(Self { path, settings, calibration, commit, identity }))
    }

    /// The run that resumes it.
    fn plan(self, told: &Configuration, model: ModelArguments, template: Template) -> anyhow::Result<Plan> {
        let mut settings = told.over(&self.settings)?;
        if told.chosen_by("template_date").is_some() {
            settings.stop_clock(Clock::stopped_now())?;
        }
        self.refuse(&settings_changes(&self.settings, &settings, |it| told.chosen_by(it)))?;
        if self.identity.is_none() {
            self.refuse(&self.changes_of_sources(&settings))?;
        }
        let sets: Vec<String> = settings.sets().map(|it| it.0.to_owned()).collect();
        for name in sets {
            // Prompts that are to be the same are read from the same commit.
            if let Ok(stored) = self.settings.set(&name)
                && stored.dataset == settings.set(&name)?.dataset
            {
                let commit = stored.commit.clone();
                let set = settings.set_mut(&name);
                set.commit = set.commit.take().or(commit);
            }
        }
        let mut calibration = self.calibration.clone();
        if let Some(calibration) = calibration.as_mut()
            && settings.batch_size > 0
        {
            calibration.batch_size = settings.batch_size;
        }
        let model = model.or_at(self.commit.clone());
        let (model, template) = match (&self.identity, &calibration) {
            (Some(identity), _) => {
                let asked_for = model.compute().asked_for(&identity.machine);
                self.refuse(&identity.changes_of_arithmetic(&identity.family, &asked_for))?;
                let ours = template != Template::default();
                let template = if ours { template } else { identity.ingredients.template.clone() };
                (model.resumed(&identity.machine), template)
            }
            (None, Some(calibration)) => (model.held_as_in(calibration), template),
            (None, None) => (model, template),
        };
        Ok(Plan { settings, calibration, model, template, begun: Some(self) })
    }

    /// Sets of prompts that come from elsewhere by now: all that is known where the prompts themselves were not noted.
    fn changes_of_sources(&self, here: &Settings) -> Vec<Change> {
        let shown = |it: &Settings, name: &str| {
            it.set(name).map_or_else(|_| "none".to_owned(), |it| format!("`{}`", json!(it)))
        };
        let mut changes = Vec::new();
        for (name, set) in here.sets() {
            let stored = self.settings.set(name).ok();
            let commit = set.commit.clone().or_else(|| stored?.commit.clone());
            if stored != Some(&PromptSetSettings { commit, ..set.clone() }) {
                let what = format!("`{name}`");
                changes.push(Change { what, study: shown(&self.settings, name), here: shown(here, name) });
            }
        }
        changes
    }

    /// An error where something is not as it was.
    fn refuse(&self, changes: &[Change]) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = changes.iter().map(|it| format!("\n  {it}")).collect();
        anyhow::bail!(
            "study `{}` began with something else than this run, so that its scores could not be compared:{}{ANEW}",
            self.path.display(),
            named.concat()
        )
    }
}

/// What can be done where a study cannot be resumed.
const ANEW: &str = "\n\nhint: undo the change to resume the study, give this run a file of its own (--study FILE), or begin \
                    anew and keep the old file (--checkpoint-action restart)";

/// The settings that a study began with.
fn settings(stored: &Value, study: &str) -> anyhow::Result<Settings> {
    let parsed: Result<Value, String> = match stored {
        Value::String(text) => serde_json::from_str(text).map_err(|it| it.to_string()),
        other => Ok(other.clone()),
    };
    // No settings of a run are called so; heretic's, which lie in the same place, are.
    let is_heretics = |it: &Value| study == "heretic" || it.get("model").is_some();
    if parsed.as_ref().is_ok_and(is_heretics) {
        anyhow::bail!(
            "this is a study of heretic, whose trials were computed by another arithmetic and cannot be resumed here\n\n\
             hint: `ablate study show FILE` shows it; its `config.toml` works with --config and another --study; its \
             `reproduce.json`, with `ablate reproduce`"
        );
    }
    let read = parsed.and_then(|it| serde_json::from_value(it).map_err(|it| it.to_string()));
    read.map_err(|why| {
        anyhow::anyhow!(
            "its settings cannot be read: {why}\n\n\
             hint: a later version of this program may have begun it; give this run a file of its own (--study FILE), or \
             begin anew and keep the old file (--checkpoint-action restart)"
        )
    })
}
