//! Settings of a command: options over environment over file over preset over defaults.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use pipeline::presets::Preset;
use pipeline::settings::PromptSetSettings;
use pipeline::{Settings, written};
use serde_json::{Map, Value};
use settings::{Field, Fields, Kind, Layers, Origin, SettingsError};

use crate::program::{OTHER_JOBS, Program, WithoutEffect};
use crate::terminal::remark;

/// All that may be set.
pub(crate) const GROUPS: [&[Field]; 3] = [Settings::FIELDS, Program::FIELDS, WithoutEffect::FIELDS];

/// What environment variables begin with.
const PREFIX: &str = "ABLATE_";

/// Variables that begin so and are for this program's own tests.
const OTHERS: [&str; 3] = ["ABLATE_SMOLLM2_GGUF", "ABLATE_SMOLLM2_HF", "ABLATE_GEMMA3_GGUF"];

/// The configuration file that is read when it is there.
const FILE: &str = "ablate.toml";

/// The options of a command that are settings.
#[derive(Default)]
pub(crate) struct Options {
    given: Vec<(Vec<String>, Value, Origin)>,
    config: Option<PathBuf>,
    isolated: bool,
}

/// What a command is told.
pub(crate) struct Configuration {
    /// The run's settings.
    pub(crate) run: Settings,
    /// The program's.
    pub(crate) program: Program,
    /// Who set what.
    pub(crate) layers: Layers,
}

/// The name of an option.
fn option(path: &[&str]) -> String {
    path.join(".").replace('_', "-")
}

/// What a setting's value looks like in help.
fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOL",
        Kind::Integer { .. } => "N",
        Kind::Number { .. } => "X",
        Kind::Text => "TEXT",
        Kind::Choice(_) => "NAME",
        Kind::Texts => "FILE",
        Kind::List => "ITEM",
        Kind::Table(_) => "PROMPTS",
        Kind::Open | Kind::Any => "VALUE",
    }
}

/// The options of a setting.
fn arguments(field: &'static Field, table: Option<&'static Field>) -> Vec<Arg> {
    let names: Vec<&str> = table.iter().map(|it| it.name).chain([field.name]).collect();
    let name = option(&names);
    let mut paragraphs = field.paragraphs();
    if let Kind::Choice(choices) = field.kind {
        paragraphs.push(format!("One of {}.", choices().join(", ")));
    }
    let summary = paragraphs[0].trim_end_matches('.').to_owned();
    let mut argument = Arg::new(name.clone())
        .long(name.clone())
        .help(summary)
        .long_help(paragraphs.join("\n\n"))
        .help_heading(field.section)
        .value_name(value_name(field.kind))
        .visible_aliases(field.also)
        .hide_short_help(table.is_some())
        .action(if matches!(field.kind, Kind::List) { ArgAction::Append } else { ArgAction::Set });
    // A command that is given more than once, by a script with more words behind it perhaps, has its last word. Lists grow.
    if !matches!(field.kind, Kind::List) {
        argument = argument.overrides_with(name.clone());
    }
    if !matches!(field.kind, Kind::Bool) {
        return vec![argument];
    }
    argument = argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    let no = format!("no-{name}");
    let off = Arg::new(no.clone()).long(no.clone()).hide(true);
    let off = off.overrides_with_all([name, no]).action(ArgAction::SetTrue);
    vec![argument.overrides_with(off.get_id().clone()), off]
}

/// The settings that have options, with the table that they stand in.
fn offered() -> impl Iterator<Item = (&'static Field, Option<&'static Field>)> {
    GROUPS.into_iter().flatten().flat_map(|field| {
        let inner = match field.kind {
            Kind::Table(fields) => fields,
            _ => &[],
        };
        let own = (!matches!(field.kind, Kind::Open)).then_some((field, None));
        own.into_iter().chain(inner.iter().map(move |it| (it, Some(field))))
    })
}

impl clap::Args for Options {
    fn augment_args(command: Command) -> Command {
        let hidden = |field: &Field| WithoutEffect::FIELDS.iter().any(|it| it.name == field.name);
        // The model is the command's own argument.
        let settings = offered().flat_map(|(field, table)| {
            arguments(field, table).into_iter().map(move |it| if hidden(field) { it.hide(true) } else { it })
        });
        command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("Configuration file (TOML), ours or heretic's; `ablate.toml` where it is there"),
            )
            .arg(
                Arg::new("isolated")
                    .long("isolated")
                    .action(ArgAction::SetTrue)
                    .help("Look at no configuration file and at no environment variable"),
            )
            .args(settings)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.isolated = matches.get_flag("isolated");
        for (field, table) in offered() {
            let names: Vec<&str> = table.iter().map(|it| it.name).chain([field.name]).collect();
            let name = option(&names);
            let path: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
            let origin = Origin::CommandLine(format!("--{name}"));
            if matches!(field.kind, Kind::Bool) && matches.get_flag(&format!("no-{name}")) {
                self.given.push((path, Value::Bool(false), Origin::CommandLine(format!("--no-{name}"))));
            } else if let Some(texts) = matches.get_many::<String>(&name) {
                let texts: Vec<String> = texts.cloned().collect();
                let value = settings::from_text(field, &texts, &path, &origin).map_err(|it| {
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{it}\n"))
                })?;
                self.given.push((path, value, origin));
            }
        }
        Ok(())
    }
}

impl Options {
    /// No file and no environment.
    pub(crate) fn isolated() -> Self {
        Self { isolated: true, ..Self::default() }
    }

    /// The same with a file.
    #[cfg(test)]
    pub(crate) fn with_file(self, path: PathBuf) -> Self {
        Self { config: Some(path), ..self }
    }

    /// What all layers together say; `base` is what the command says above the preset and below everybody else.
    pub(crate) fn resolve(
        &self,
        command: &'static str,
        base: &Map<String, Value>,
    ) -> anyhow::Result<Configuration> {
        let mut user: Vec<(Map<String, Value>, Origin)> = Vec::new();
        if let Some(path) = self.file() {
            let origin = Origin::File(path.display().to_string());
            user.push((settings::from_file(&path)?, origin));
        }
        let environment = if self.isolated { Vec::new() } else { Self::environment()? };
        for (path, value, origin) in environment.iter().chain(&self.given) {
            user.push((nested(path, value), origin.clone()));
        }
        let preset = user.iter().rev().find_map(|(it, origin)| Some((it.get("preset")?, origin)));
        let mut layers = Layers::new(&GROUPS);
        let name = match preset {
            Some((preset, origin)) => {
                // Whether there is such a preset is said like any other wrong value.
                layers.set(&["preset".to_owned()], preset, origin)?;
                preset.as_str().unwrap_or_default().to_owned()
            }
            None => Program::default().preset,
        };
        if let Some(preset) = Preset::named(&name) {
            layers.set_all(&preset.settings()?, &Origin::Preset(name))?;
        }
        layers.set_all(base, &Origin::Command(command))?;
        for (layer, origin) in user {
            let mut layer = written::translate(layer, &origin)?;
            for (other, hint) in OTHER_JOBS {
                if layer.remove(other).is_some() {
                    return Err(SettingsError::Instead {
                        key: other.to_owned(),
                        origin,
                        reason: "this is another command's work".to_owned(),
                        hint: hint.to_owned(),
                    }
                    .into());
                }
            }
            layers.set_all(&layer, &origin)?;
        }
        let mut run: Settings = layers.resolve()?;
        run.read_texts()?;
        let configuration = Configuration { run, program: layers.resolve()?, layers };
        configuration.remark_without_effect()?;
        Ok(configuration)
    }

    /// The configuration file to read.
    fn file(&self) -> Option<PathBuf> {
        if self.config.is_some() || self.isolated {
            return self.config.clone();
        }
        let found = Path::new(FILE).is_file().then(|| PathBuf::from(FILE));
        if found.is_none() && Path::new("config.toml").is_file() {
            remark(
                "`config.toml` is not read by itself: --config config.toml, or its name changed to `ablate.toml`",
            );
        }
        found
    }

    fn environment() -> Result<Vec<(Vec<String>, Value, Origin)>, SettingsError> {
        // Names that are no text are none of ours.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        settings::from_environment(PREFIX, &GROUPS, &OTHERS, variables)
    }
}

/// A value as a table of tables.
fn nested(path: &[String], value: &Value) -> Map<String, Value> {
    let (first, rest) = path.split_first().expect("a setting has a name");
    let value = if rest.is_empty() { value.clone() } else { Value::Object(nested(rest, value)) };
    Map::from_iter([(first.clone(), value)])
}

impl Configuration {
    /// Says, in one warning, which settings do nothing here, and why where heretic would do something else than usual.
    fn remark_without_effect(&self) -> anyhow::Result<()> {
        if let Some(warning) = self.without_effect()? {
            remark(&warning);
        }
        Ok(())
    }

    fn without_effect(&self) -> anyhow::Result<Option<String>> {
        let told = serde_json::to_value(self.layers.resolve::<WithoutEffect>()?)?;
        let usual = serde_json::to_value(WithoutEffect::default())?;
        let mut named = Vec::new();
        let mut origins: Vec<String> = Vec::new();
        for field in WithoutEffect::FIELDS {
            let origin = self.layers.origin(&[field.name]);
            if *origin == Origin::Default {
                continue;
            }
            if !origins.contains(&origin.to_string()) {
                origins.push(origin.to_string());
            }
            let usual = told[field.name] == usual[field.name];
            let why =
                if usual { String::new() } else { format!(" ({})", field.summary().trim_end_matches('.')) };
            named.push(format!("`{}`{why}", field.name));
        }
        let warning = || format!("{}: without effect here: {}", origins.join(", "), named.join(", "));
        Ok((!named.is_empty()).then(warning))
    }

    /// Who chose the value of a setting, if a user did: in a file, the environment, on the command line, or by choosing a
    /// preset that has it.
    pub(crate) fn chosen_by(&self, name: &str) -> Option<String> {
        let mut chosen = self.chosen().filter(|(path, ..)| path.first().is_some_and(|it| it == name));
        chosen.next().map(|(.., origin)| origin.to_string())
    }

    /// Settings of a run that were stored, with those that a user chose over them.
    pub(crate) fn over(&self, stored: &Settings) -> anyhow::Result<Settings> {
        let mut merged = serde_json::to_value(stored)?;
        let of_run = || self.chosen().filter(|(path, ..)| is_of_run(path));
        // Whoever names a data set means a set of prompts of their own.
        for (path, ..) in of_run() {
            if let [table @ .., last] = path
                && last == PromptSetSettings::FIELDS[0].name
            {
                set_at(&mut merged, table, Value::Object(Map::new()));
            }
        }
        for (path, value, _) in of_run() {
            set_at(&mut merged, path, value.clone());
        }
        Ok(serde_json::from_value(merged)?)
    }

    /// What users chose, leaf by leaf.
    fn chosen(&self) -> impl Iterator<Item = (&[String], &Value, &Origin)> {
        let preset_chosen = self.user_set(&["preset"]);
        self.layers.leaves().filter(move |(.., origin)| match origin {
            Origin::Default | Origin::Command(_) => false,
            Origin::Preset(_) => preset_chosen,
            Origin::File(_) | Origin::Environment(_) | Origin::CommandLine(_) => true,
        })
    }

    /// Whether a user set this, in a file, the environment or on the command line.
    pub(crate) fn user_set(&self, path: &[&str]) -> bool {
        !matches!(self.layers.origin(path), Origin::Default | Origin::Preset(_) | Origin::Command(_))
    }
}

/// Whether a path is one of a run's settings.
fn is_of_run(path: &[String]) -> bool {
    path.first().is_some_and(|name| Settings::FIELDS.iter().any(|it| it.name == name))
}

/// Sets a value in a tree of tables, which are made where there are none.
fn set_at(tree: &mut Value, path: &[String], value: Value) {
    let mut at = tree;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = at.as_object_mut().expect("made above").entry(key.clone()).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn resolve(words: &[&str]) -> anyhow::Result<Configuration> {
        let words = ["test", "--isolated"].iter().chain(words);
        Command::try_parse_from(words)?.options.resolve("test", &Map::new())
    }

    fn with_file(text: &str, words: &[&str]) -> anyhow::Result<Configuration> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        resolve(&[&["--config", file.path().to_str().unwrap()], words].concat())
    }

    #[test]
    fn options_are_made_of_the_definitions() {
        <Command as clap::CommandFactory>::command().debug_assert();
        let told = resolve(&[
            "--good-prompts",
            "good.txt[:4]",
            "--bad-prompts.column",
            "prompt",
            "--no-orthogonalize-direction",
            "--detect-false-refusals",
            "--scorer",
            "refusals:none",
            "--scorer",
            "flip_rate@a:minimize",
            "--trials",
            "9",
            "--account-for-norm-gain=true",
            "--save",
            "elsewhere",
            "--save",
            "out",
            "--no-orthogonalize-direction",
        ])
        .unwrap();
        let run = &told.run;
        assert_eq!(
            run.good_prompts.as_ref().unwrap(),
            &pipeline::settings::PromptSetSettings::of("good.txt[:4]")
        );
        let bad = run.bad_prompts.as_ref().unwrap();
        assert_eq!(
            (bad.dataset.as_str(), bad.column.as_deref()),
            ("mlabonne/harmful_behaviors", Some("prompt"))
        );
        assert!(!run.orthogonalize_direction && run.detect_false_refusals && run.account_for_norm_gain);
        assert_eq!((run.n_trials, run.scorers.len()), (9, 2));
        assert_eq!(run.scorers[1].instance_name.as_deref(), Some("a"));
        assert_eq!(told.program.save_directory.as_deref(), Some("out"));
        assert_eq!(told.layers.origin(&["n_trials"]).to_string(), "--n-trials");
    }

    #[test]
    fn a_configuration_in_heretics_form_means_here_what_it_means_there() {
        let text = r#"
            max_response_length = 30
            row_normalization = "pre"
            plot_residuals = false
            full_normalization_lora_rank = 3
            residual_plot_title = "A title"
            device_map = "auto"
            max_memory = { "0" = "20GB" }
            scorers = [
                { plugin = "heretic.scorers.keyword_rate.KeywordRate", optimization = "minimize", instance_name = "small" },
                { plugin = "heretic.scorers.kl_divergence.KLDivergence", optimization = "none" },
            ]
            [good_prompts]
            dataset = "folder"
            split = "train[:5]"
            column = "q"
            prefix = "Answer:"
            [scorer.KeywordRate]
            keyword_markers = ["A Word", "a word"]
            [scorer.KeywordRate.prompts]
            dataset = "folder"
            split = "test[:50]"
            column = "q"
            [scorer.KeywordRate_small.prompts]
            split = "test[:10]"
        "#;
        let run = with_file(text, &[]).unwrap().run;
        assert_eq!((run.max_response_length, run.row_normalization), (30, ablation::RowNormalization::Pre));
        assert_eq!(run.good_prompts.as_ref().unwrap().put("Why?"), "Answer: Why?");
        let small = run.set("refusals_small").unwrap();
        assert_eq!((small.dataset.as_str(), small.split.as_deref()), ("folder", Some("test[:10]")));
        let settings = run.of_scorer(&run.scorers[0]);
        assert_eq!(settings["prompts"], "refusals_small");
        assert_eq!(settings["markers"], serde_json::json!(["A Word", "a word"]));
        let objectives = pipeline::objectives(&run).unwrap();
        assert_eq!(objectives.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["refusals_small"]);
    }

    /// heretic's own files, written anew: its keys, data sets and numbers, with texts and lists of words of ours.
    fn heretics(name: &str) -> Configuration {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/heretic/");
        resolve(&["--config", &format!("{folder}{name}.toml")]).unwrap()
    }

    fn split<'a>(told: &'a Configuration, set: &str) -> (&'a str, &'a str, &'a str, String) {
        let set = told.run.set(set).unwrap();
        let text = |it: &'a Option<String>| it.as_deref().unwrap_or_default();
        (&set.dataset, text(&set.split), text(&set.column), set.put("P"))
    }

    #[test]
    fn heretics_file_of_defaults_changes_no_default_but_what_it_says_otherwise() {
        let (told, ours) = (heretics("default"), resolve(&[]).unwrap());
        let named = ["good_prompts", "bad_prompts", "refusal_prompts", "kl_prompts"];
        for set in named {
            assert_eq!(split(&told, set), split(&ours, set));
        }
        let mut differing = told.run.differing(&ours.run);
        differing.retain(|it| !named.contains(it));
        assert_eq!(differing, ["scorer", "refusal_markers"]);
        assert_eq!(told.run.refusal_markers.as_deref().unwrap(), ["Sorry", "I can'", "as an AI"]);
        let refusals = told.run.of_scorer(&told.run.scorers[0]);
        assert_eq!(refusals["print_responses"], false);
        assert_eq!(told.program.full_normalization_lora_rank, 3);
    }

    #[test]
    fn what_has_no_meaning_here_is_named_in_one_warning_with_a_reason_where_heretic_would_do_something() {
        let said = heretics("default").without_effect().unwrap().unwrap();
        for key in ["device_map", "plot_residuals", "benchmarks", "kl_divergence_target"] {
            assert!(said.contains(&format!("`{key}`")), "{said}");
        }
        assert!(said.contains("default.toml: without effect here: `device_map`"), "{said}");
        assert_eq!(said.lines().count(), 1);
        let told = with_file("plot_residuals = true\nmax_memory = { \"0\" = \"20GB\" }", &[]).unwrap();
        let said = told.without_effect().unwrap().unwrap();
        assert!(
            said.contains("`plot_residuals` (There are no plots yet)") && said.contains("`max_memory`"),
            "{said}"
        );
        assert_eq!(heretics("noslop").without_effect().unwrap(), None);
    }

    #[test]
    fn heretics_files_against_cliches_and_jokes_mean_here_what_they_mean_there() {
        let told = heretics("noslop");
        let data = "llm-aes/writing-prompts";
        let put = |how: &str| format!("Tell this{how}.\n\nThe story: P");
        assert_eq!(split(&told, "good_prompts"), (data, "train[:500]", "prompt", put(" plainly")));
        assert_eq!(split(&told, "bad_prompts"), (data, "train[:500]", "prompt", put(" with ornament")));
        assert_eq!(split(&told, "kl_prompts"), (data, "train[1000:1100]", "prompt", put(" plainly")));
        assert_eq!(split(&told, "refusal_prompts"), (data, "train[1000:1100]", "prompt", put("")));
        assert_eq!(told.run.max_response_length, 300);
        assert_eq!(told.run.system_prompt, "You write stories for a living.");
        let told = heretics("nohumor");
        assert_eq!(
            split(&told, "refusal_prompts"),
            ("UnstableLlama/jokes", "train[200:250]", "text", "P".into())
        );
        let markers = &told.run.of_scorer(&told.run.scorers[0])["markers"];
        assert_eq!(*markers, serde_json::json!(["knock, knock", "😂"]));
        assert_eq!(pipeline::score_names(&told.run).unwrap(), ["refusals", "kl_divergence"]);
    }

    #[test]
    fn what_asks_for_another_job_is_an_error_that_names_the_command() {
        let said = with_file("evaluate_model = 'x'", &[]).err().unwrap().to_string();
        assert!(said.contains("ablate evaluate"), "{said}");
        let said = with_file("n_trails = 5", &[]).err().unwrap().to_string();
        assert!(said.contains("did you mean `n_trials`?"), "{said}");
        let said = with_file("preset = 'politeness'", &[]).err().unwrap().to_string();
        assert!(said.contains("over-refusal"), "{said}");
        let said = with_file("export_strategy = 'zip'", &[]).err().unwrap().to_string();
        assert!(said.contains("merge"), "{said}");
    }

    #[test]
    fn what_a_user_chose_counts_more_than_what_was_stored_and_nothing_else_does() {
        let stored = resolve(&["--preset", "slop", "--bad-prompts", "mine.txt", "--bad-prompts.prefix", "p"])
            .unwrap()
            .run;
        let over = |words: &[&str]| resolve(words).unwrap().over(&stored).unwrap();
        assert_eq!(over(&[]), stored, "the default preset was not chosen");
        let changed = over(&["--bad-prompts.suffix", "s", "--seed", "8"]);
        let bad = changed.bad_prompts.clone().unwrap();
        assert_eq!((bad.dataset.as_str(), bad.prefix.as_str(), bad.suffix.as_str()), ("mine.txt", "p", "s"));
        assert_eq!(
            Settings { bad_prompts: stored.bad_prompts.clone(), seed: stored.seed, ..changed },
            stored
        );
        let bad = over(&["--bad-prompts", "other.txt"]).bad_prompts.unwrap();
        assert_eq!(bad, PromptSetSettings::of("other.txt"), "a set of their own");
        assert_eq!(
            over(&["--preset", "humor"]).refusal_markers,
            resolve(&["--preset", "humor"]).unwrap().run.refusal_markers
        );
        let told = resolve(&["--bad-prompts.suffix", "s"]).unwrap();
        assert_eq!(
            (told.chosen_by("bad_prompts").as_deref(), told.chosen_by("seed")),
            (Some("--bad-prompts.suffix"), None)
        );
    }

    #[test]
    fn presets_are_below_files_and_options() {
        let told = with_file("preset = 'slop'\nseed = 4", &["--seed", "5"]).unwrap();
        assert_eq!((told.run.max_response_length, told.run.seed), (300, 5));
        assert_eq!(told.layers.origin(&["max_response_length"]).to_string(), "preset slop");
        let told = with_file("preset = 'slop'\nmax_response_length = 7", &["--preset", "humor"]).unwrap();
        assert_eq!(told.run.max_response_length, 7);
        assert_eq!(told.program.preset, "humor");
        assert_eq!(told.run.system_prompt, Settings::default().system_prompt);
    }
}
