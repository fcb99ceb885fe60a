//! `ablate reproduce`: a model made again from what was noted when it was made.

mod outcome;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use inquire::Confirm;
use pipeline::reproduction::{self, Difference, Recipe, Template};
use pipeline::settings::PromptSetSettings;
use pipeline::{Cancel, Model, PromptTexts, Session, Settings};
use prompts::Clock;

use outcome::{Compared, Outcome, PairOfScores};

use crate::model::{ComputeArguments, ModelArguments, QuantizeArgument, encoder, remark_date};
use crate::program::{ExportStrategy, Program};
use crate::report::{self, Style, Teller};
use crate::saving::SaveArguments;
use crate::terminal::remark;
use crate::uploading::{self, Passing};
use crate::{fetching, interrupt};

/// Make a model again from what was noted when it was made, without a search, and compare
///
/// Of a model of this program: on a machine of the same kind the same version makes the same bits, which is checked; on
/// another one, what differs is told. Of a model of heretic: the scores are shown side by side.
///
/// Examples:
///   ablate reproduce https://huggingface.co/OWNER/MODEL/blob/main/reproduce/reproduce.json
///   ablate reproduce EDITED/reproduce/reproduce.json --model ORIGINAL --prompts bad_prompts=bad.txt --output AGAIN
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[expect(clippy::doc_markdown, reason = "the examples are commands")]
pub(crate) struct Arguments {
    /// A `reproduce.json`, of this program or of heretic: a file, or an address (http://, https://)
    #[arg(value_name = "FILE|URL")]
    file: String,

    /// The original model, where it is not on the hub under the name that the file has
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,

    /// Where the prompts of a set are, if not where the file says: `bad_prompts=bad.txt[:400]`
    #[arg(long = "prompts", value_name = "SET=SOURCE")]
    prompts: Vec<String>,

    /// The date that the chat template prints where it prints today's, if not that of the file: 2026-11-30
    #[arg(long, value_name = "DATE")]
    template_date: Option<String>,

    /// Where the model is written; without this it is gone when it has been compared
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    /// The model as it was written first, to tell how many bytes differ where digests do
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,

    /// Go on whatever is different here (`=false`: stop at anything); asked if there is a terminal
    ///
    /// Without a terminal, another version or machine is no reason to stop; another model or other prompts are.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ignore_mismatches: Option<bool>,

    /// Run the programs that the file names as scorers: they can do whatever you can
    #[arg(long)]
    allow_programs: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    quantize: QuantizeArgument,
}

/// Bytes of a file that is read at most.
const LIMIT: u64 = 16 << 20;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut recipe = read(&arguments.file)?;
    if !arguments.allow_programs && recipe.without_programs() {
        remark("the file names programs as scorers, which are not run (--allow-programs)");
    }
    for told in &arguments.prompts {
        let (name, source) = told.split_once('=').with_context(|| {
            format!("`--prompts {told}` names no set\n\nhint: write SET=SOURCE, as in bad_prompts=bad.txt")
        })?;
        let set = recipe.settings.set(name)?;
        let set = PromptSetSettings { dataset: source.to_owned(), commit: None, ..set.clone() };
        *recipe.settings.set_mut(name) = set;
    }
    if arguments.template_date.is_some() {
        recipe.settings.template_date.clone_from(&arguments.template_date);
    }
    let original = arguments.against.clone().or_else(|| beside(&arguments.file));
    let job = Job { original, ..Job::of(&recipe, arguments) };
    job.make(recipe)
}

/// The same for settings of heretic's that ask for it.
pub(crate) fn in_place_of_a_run(
    file: &str,
    program: &Program,
    compute: &ComputeArguments,
    json: bool,
) -> anyhow::Result<()> {
    let mut recipe = read(file)?;
    if recipe.without_programs() {
        remark("the file names programs as scorers, which are not run (`ablate reproduce --allow-programs`)");
    }
    if program.export_strategy == Some(ExportStrategy::Adapter) {
        remark("what is made again is a whole model, whatever `export_strategy` says");
    }
    let upload = uploading::Target::of(program)?;
    let output = program.save_directory.as_ref().map(PathBuf::from);
    if upload.is_some() && output.is_none() {
        anyhow::bail!("what is made again is saved before it is uploaded\n\nhint: set `save_directory`");
    }
    let job = Job {
        model: PathBuf::from(program.model.as_ref().unwrap_or(&recipe.model)),
        commit: program.model.as_ref().map_or(recipe.commit.clone(), |_| program.model_commit.clone()),
        compute: compute.quantized(program.quantize),
        original: beside(file),
        output,
        upload,
        ignore_mismatches: program.ignore_mismatches,
        json,
    };
    job.make(recipe)
}

fn read(file: &str) -> anyhow::Result<Recipe> {
    let lower = file.to_ascii_lowercase();
    let text = if lower.starts_with("http://") || lower.starts_with("https://") {
        fetching::client().page(file, LIMIT)?
    } else {
        files::read_text(Path::new(file), LIMIT).with_context(|| format!("reading `{file}`"))?
    };
    let recipe = reproduction::read(&text, file).with_context(|| format!("`{file}`"))?;
    let commit = recipe.commit.as_ref().map_or(String::new(), |it| format!(" at {it}"));
    remark(&format!("made by {}, of `{}`{commit}", recipe.writer, recipe.model));
    for text in &recipe.remarks {
        remark(text);
    }
    Ok(recipe)
}

/// The model that a file lies beside: in its folder `reproduce`, or beside a GGUF file in the folder of that name.
fn beside(file: &str) -> Option<PathBuf> {
    let folder = Path::new(file).parent()?;
    if folder.extension().is_some_and(|it| it == reproduction::REPRODUCE) {
        return Some(folder.with_extension("gguf"));
    }
    let model = folder.parent().filter(|_| folder.ends_with(reproduction::REPRODUCE))?;
    Some(if model.as_os_str().is_empty() { PathBuf::from(".") } else { model.to_owned() })
}

/// What is to be made of a recipe.
struct Job {
    model: PathBuf,
    commit: Option<String>,
    compute: ComputeArguments,
    /// The folder of the model as it was written first.
    original: Option<PathBuf>,
    output: Option<PathBuf>,
    upload: Option<uploading::Target>,
    ignore_mismatches: Option<bool>,
    json: bool,
}

impl Job {
    fn of(recipe: &Recipe, arguments: &Arguments) -> Self {
        Self {
            model: arguments.model.clone().unwrap_or_else(|| PathBuf::from(&recipe.model)),
            commit: recipe.commit.clone().filter(|_| arguments.model.is_none()),
            compute: arguments.compute.quantized(arguments.quantize.named()),
            original: None,
            output: arguments.output.clone(),
            upload: None,
            ignore_mismatches: arguments.ignore_mismatches,
            json: arguments.json,
        }
    }

    fn make(&self, mut recipe: Recipe) -> anyhow::Result<()> {
        let record = recipe.record.take();
        let writing = record.as_ref().map(|it| &it.writing);
        if let Some(output) = &self.output {
            SaveArguments::by_itself(output, writing).check()?;
        }
        let compute =
            self.compute.as_recorded(recipe.weights.as_deref(), record.as_ref().map(|it| &it.machine));
        let mut settings = recipe.settings.clone();
        let dated = settings.template_date.is_some();
        let clock = settings.stop_clock(Clock::stopped_now())?;
        let texts = PromptTexts::load(&mut settings, &fetching::client())
            .context("prompts of the file cannot be had\n\nhint: say where they are: --prompts SET=SOURCE")?;
        interrupt::listen()?;
        let template = record.as_ref().map_or_else(Template::default, |it| it.template.clone());
        let model = self.open(&compute, template, &settings, &clock)?;
        remark_date(&model.encoder, &clock);
        if model.encoder.reads_clock() && !dated {
            remark(
                "the file does not say on which date its prompts were rendered: where results differ, give the day on which \
                 the model was made with --template-date",
            );
        }
        let differences = match &record {
            Some(record) => {
                let files = reproduction::files_of(&model.checkpoint)?;
                record.differences(&compute.machine(&model.engine)?, &files, &texts)
            }
            None => Vec::new(),
        };
        tell_differences(&differences);
        self.settle(&differences)?;

        let cancel = Cancel(&interrupt::requested);
        let mut teller = Teller::new(Style::Remarks);
        let calibration = recipe.calibration.clone();
        let mut session =
            Session::start(model, settings, texts, calibration, &mut |it| teller.tell(&it), &cancel)?;
        session.find_directions(&mut |it| teller.tell(&it), &cancel)?;
        let directions = record.as_ref().map(|it| -> anyhow::Result<Compared> {
            Ok(Compared { recorded: it.directions.clone(), here: session.digest_of_directions()? })
        });
        let mut evaluations = session.evaluate(
            std::slice::from_ref(&recipe.parameters),
            &mut |it| teller.tell(&it),
            &cancel,
        )?;
        let evaluation = evaluations.pop().context("no evaluation")??;
        let passing = match self.output {
            // heretic's bits are not to be had here: nothing is written only to be compared.
            None if record.is_some() => {
                let beside = Path::new("reproduce");
                Some(Passing::of(&session, &SaveArguments::by_itself(beside, writing), beside)?)
            }
            _ => None,
        };
        let wanted = passing.as_ref().map(|it| it.model().to_owned()).or_else(|| self.output.clone());
        let files = match &wanted {
            Some(wanted) => {
                let save = SaveArguments::by_itself(wanted, writing);
                save.save(&mut session, &recipe.parameters, &evaluation.scores, &[], &mut teller)?;
                if passing.is_some() {
                    remark("(only to be compared)");
                }
                let target = pipeline::export::target(&session, wanted);
                outcome::compare_files(&recipe.hashes, &target, self.original.as_deref())?
            }
            None => Vec::new(),
        };
        teller.done();
        let scores = outcome::pairs(&recipe.scores, record.is_some(), &evaluation.scores);
        let same = directions.as_ref().is_none_or(|it| it.as_ref().is_ok_and(|it| it.recorded == it.here))
            && files.iter().all(|it| it.recorded == it.here)
            && scores.iter().all(PairOfScores::is_same);
        let directions = directions.transpose()?;
        let outcome = Outcome { writer: recipe.writer, differences, directions, scores, files, same };
        outcome.tell(self.json)?;
        if let (Some(upload), Some(output)) = (&self.upload, &self.output) {
            if session.model.checkpoint.format() == checkpoint::Format::Gguf {
                anyhow::bail!("a GGUF file that is made again is not uploaded");
            }
            upload.send(output)?;
        }
        if record.is_some() && !outcome.same && outcome.differences.is_empty() {
            anyhow::bail!(
                "what came out is not what was noted, although program, machine, model and prompts are the same\n\n\
                 hint: was the file changed?"
            );
        }
        Ok(())
    }

    fn open(
        &self,
        compute: &ComputeArguments,
        template: Template,
        settings: &Settings,
        clock: &Clock,
    ) -> anyhow::Result<Model> {
        let elsewhere = !self.model.exists() && self.model.components().count() < 2;
        if elsewhere {
            anyhow::bail!(
                "the model `{}` is none of the hub, and is not here\n\nhint: say where it is: --model FOLDER",
                self.model.display()
            );
        }
        let arguments = ModelArguments::of(&self.model, self.commit.clone(), compute.clone());
        let checkpoint = arguments.open()?;
        let encoder = encoder(template, settings.chat_template_kwargs.clone(), clock.clone(), &checkpoint)?;
        let engine = arguments.load(&checkpoint)?;
        Ok(Model { checkpoint, engine, encoder })
    }

    /// Whether to go on where something is different.
    fn settle(&self, differences: &[Difference]) -> anyhow::Result<()> {
        if differences.is_empty() || self.ignore_mismatches == Some(true) {
            return Ok(());
        }
        let ingredients = differences.iter().any(|it| it.subject.is_ingredient());
        let go_on = match self.ignore_mismatches {
            Some(go_on) => go_on,
            None if !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
                Confirm::new("Go on anyway?").with_default(!ingredients).prompt().unwrap_or(false)
            }
            None => !ingredients,
        };
        if !go_on {
            anyhow::bail!(
                "something is different here from where the model was made ({})\n\nhint: --ignore-mismatches goes on",
                differences.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }
}

fn tell_differences(differences: &[Difference]) {
    if differences.is_empty() {
        return;
    }
    let mut rows = vec![["different here", "", "recorded", "here"].map(str::to_owned).to_vec()];
    rows.extend(
        differences
            .iter()
            .map(|it| vec![it.subject.to_string(), it.name.clone(), it.recorded.clone(), it.here.clone()]),
    );
    for text in report::columns(&rows) {
        remark(&text);
    }
}
