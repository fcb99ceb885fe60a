//! This program's own `reproduce.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ablation::Parameters;
use checkpoint::links::way_out;
use checkpoint::{Checkpoint, Format};
use hub::{HubError, Repository};
use prompts::sources::Place;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Recipe, ReproductionError, part};
use crate::identity::Change;
use crate::{Calibration, PipelineError, PromptTexts, ScoreRecord, Session, Settings};

/// What `format` holds.
pub(super) const FORMAT: &str = "ablate";

/// The version that is written.
///
/// | version | what is new |
/// |---|---|
/// | 1 | |
/// | 2 | `settings.template_date`, without which a chat template that prints the date makes other prompts on another day; `settings.chat_template_kwargs` |
const VERSION: u64 = 2;

/// All that was noted of a model when it was made: format `ablate`, version 2.
///
/// On a machine of the same kind the same version of the program makes the same bits of the same model and prompts.
/// What lies on this machine alone is noted by its name, without the folders that it lies in; what it holds is known by
/// its SHA-256.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `ablate`.
    pub format: String,
    /// The format's version. A reader of one version need not understand a later one.
    pub version: u64,
    /// The version of the program that made the model.
    pub program: String,
    /// The kind of machine that it was made on.
    pub machine: Machine,
    /// More of the machine, if that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    /// The model that it was made of.
    pub model: ModelFiles,
    /// How conversations were put to it.
    pub template: Template,
    /// What the run was told.
    pub settings: Settings,
    /// The prompts of every set.
    pub prompts: BTreeMap<String, PromptsDigest>,
    /// What was found at the start.
    pub calibration: Calibration,
    /// SHA-256 of the directions: those of the layers in their order, components as 64-bit floats, lowest byte first.
    pub directions: String,
    /// What makes the model of the directions.
    pub parameters: Parameters,
    /// What it scored, edited and not yet written.
    pub scores: Vec<ScoreRecord>,
    /// How it was written.
    pub writing: Writing,
    /// SHA-256 of each written file of weights, by its name.
    pub hashes: BTreeMap<String, String>,
}

/// What the bits of a result depend on, beside what went in. (Not on the number of threads: that is a note.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// `linux`, `macos`, `windows`.
    pub system: String,
    /// `cpu` or `reference`.
    pub device: String,
    /// Of the processor: `avx2`, `avx512`.
    pub instruction_set: Option<String>,
    /// What weights were kept in: `f32`, `bf16`, `f16`.
    pub weights: String,
    /// The blocks that weights were held in, if in any: `q8_0`, `q4_k`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<String>,
    /// What products were computed in: `f32`, `bf16`.
    pub arithmetic: String,
    /// How many computed.
    pub threads: usize,
}

/// More of a machine: nothing that could say whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Name and version of the operating system.
    pub system: Option<String>,
    /// Version of its kernel.
    pub kernel: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// Its cores, as far as the system shows them.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// A model as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFiles {
    /// The repository of the hub; else the name of its folder or file.
    pub name: String,
    /// The commit on the hub.
    pub commit: Option<String>,
    /// SHA-256 of each of its files, by name: weights, configuration, tokenizer.
    pub files: BTreeMap<String, String>,
}

/// How conversations are put to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Without a template.
    pub plain: bool,
    /// The text of a template in place of the model's own.
    pub chat_template: Option<String>,
}

/// The prompts of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsDigest {
    /// How many.
    pub count: usize,
    /// SHA-256 of the prompts in order, each with a line feed after it: for plain text files that of the file.
    pub sha256: String,
}

/// How a model is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writing {
    /// Most bytes of tensors in a file.
    pub max_shard_bytes: u64,
    /// How tensors of quantized files are stored: `f16`, `f32`.
    pub dequantized: String,
}

/// What only the caller knows of a model that was written.
#[derive(Clone, Debug)]
pub struct Making<'a> {
    /// What makes it.
    pub parameters: &'a Parameters,
    /// What it scored.
    pub scores: &'a [ScoreRecord],
    /// The kind of machine.
    pub machine: Machine,
    /// More of it, if wanted.
    pub system: Option<System>,
    /// How conversations were put.
    pub template: Template,
    /// How it was written.
    pub writing: Writing,
    /// SHA-256 of each written file of weights.
    pub hashes: BTreeMap<String, String>,
}

impl Record {
    /// Notes everything. Reads the original's files once more, for their digests.
    pub fn of(session: &Session, making: Making<'_>) -> Result<Self, PipelineError> {
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            machine: making.machine,
            system: making.system,
            model: files_of(&session.model.checkpoint).map_err(PipelineError::Digest)?,
            template: making.template,
            settings: shareable(session.settings()),
            prompts: digests_of_prompts(session.texts()),
            calibration: session.calibration().clone(),
            directions: session.digest_of_directions()?,
            parameters: making.parameters.clone(),
            scores: making.scores.iter().cloned().map(ScoreRecord::without_prompts).collect(),
            writing: making.writing,
            hashes: making.hashes,
        })
    }

    /// What is different here from where the model was made, as far as it is known before directions are.
    pub fn differences(&self, machine: &Machine, model: &ModelFiles, texts: &PromptTexts) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |subject, name: &str, recorded: Option<&str>, here: Option<&str>| {
            if recorded != here {
                let text = |it: Option<&str>| it.unwrap_or("none").to_owned();
                let (recorded, here) = (text(recorded), text(here));
                found.push(Difference { subject, name: name.to_owned(), recorded, here });
            }
        };
        compare(Subject::Program, "ablate", Some(&self.program), Some(env!("CARGO_PKG_VERSION")));
        for (name, of) in MACHINE {
            compare(Subject::Machine, name, of(&self.machine), of(machine));
        }
        for name in names(&self.model.files, &model.files) {
            let of = |it: &ModelFiles| it.files.get(name).cloned();
            compare(Subject::Model, name, of(&self.model).as_deref(), of(model).as_deref());
        }
        let prompts = digests_of_prompts(texts);
        for name in names(&self.prompts, &prompts) {
            let of = |it: &BTreeMap<String, PromptsDigest>| it.get(name).map(ToString::to_string);
            compare(Subject::Prompts, name, of(&self.prompts).as_deref(), of(&prompts).as_deref());
        }
        found
    }
}

/// The keys of both.
fn names<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

/// A part of a machine that bits depend on.
type MachinePart = (&'static str, fn(&Machine) -> Option<&str>);

const MACHINE: [MachinePart; 7] = [
    ("architecture", |it| Some(&it.architecture)),
    ("system", |it| Some(&it.system)),
    ("device", |it| Some(&it.device)),
    ("instruction set", |it| it.instruction_set.as_deref()),
    ("weights", |it| Some(&it.weights)),
    ("quantized weights", |it| it.quantized.as_deref()),
    ("arithmetic", |it| Some(&it.arithmetic)),
];

/// What of [`MACHINE`] is chosen, and changes results by more than their last bits.
const CHOSEN: [&str; 4] = ["device", "weights", "quantized weights", "arithmetic"];

impl Machine {
    /// What computes otherwise here: what changes results by more than their last bits, or the rest.
    pub(crate) fn differences(&self, here: &Self, by_more: bool) -> Vec<Change> {
        let parts = MACHINE.into_iter().filter(|it| CHOSEN.contains(&it.0) == by_more);
        let shown = |it: Option<&str>| it.map_or_else(|| "none".to_owned(), |it| format!("`{it}`"));
        parts
            .filter(|(_, of)| of(self) != of(here))
            .map(|(name, of)| Change { what: name.to_owned(), study: shown(of(self)), here: shown(of(here)) })
            .collect()
    }
}

/// Something that is different here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What sort of thing.
    pub subject: Subject,
    /// Which.
    pub name: String,
    /// What the file says.
    pub recorded: String,
    /// What is here.
    pub here: String,
}

/// What sort of thing is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The program's version.
    Program,
    /// The kind of machine.
    Machine,
    /// A file of the model.
    Model,
    /// A set of prompts.
    Prompts,
}

impl Subject {
    /// Whether it is what the model is made of: another one cannot come out the same.
    pub fn is_ingredient(self) -> bool {
        matches!(self, Self::Model | Self::Prompts)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => "program",
            Self::Machine => "machine",
            Self::Model => "file of the model",
            Self::Prompts => "prompt set",
        })
    }
}

impl fmt::Display for PromptsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prompts, {}", self.count, self.sha256)
    }
}

/// A model's files with their digests.
///
/// # Errors
/// [`HubError::Disk`] when one cannot be read.
pub fn files_of(checkpoint: &Checkpoint) -> Result<ModelFiles, HubError> {
    let path = checkpoint.path();
    let mut files: Vec<_> = checkpoint.weight_files().into_iter().map(Path::to_owned).collect();
    if checkpoint.format() == Format::HuggingFace {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path());
        // Of what a link outside leads to, not even the digest is anybody's business.
        let own = |it: &PathBuf| matches!(way_out(path, it), Ok(None));
        files.extend(entries.filter(|it| it.is_file() && is_text_of_a_model(it) && own(it)));
    }
    let digest = |it: &Path| Ok((file_name(it), hub::sha256_of_file(it)?));
    let files = files.iter().map(|it| digest(it)).collect::<Result<_, HubError>>()?;
    let cached = Repository::of_cached(path);
    let (name, commit) = match cached {
        Some((repository, commit)) if path.is_dir() => (repository.id, Some(commit)),
        Some((repository, commit)) => (format!("{}/{}", repository.id, file_name(path)), Some(commit)),
        None => (file_name(path), None),
    };
    Ok(ModelFiles { name, commit, files })
}

/// Configuration, tokenizer, chat template: what results depend on beside weights.
fn is_text_of_a_model(path: &Path) -> bool {
    let name = file_name(path);
    [".json", ".jinja", ".model", ".txt"].iter().any(|it| name.ends_with(it))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned())
}

/// The digests of all sets.
pub fn digests_of_prompts(texts: &PromptTexts) -> BTreeMap<String, PromptsDigest> {
    let digest = |prompts: &[String]| PromptsDigest {
        count: prompts.len(),
        sha256: hub::sha256(prompts.iter().flat_map(|it| [it.as_str(), "\n"])),
    };
    texts.sets().map(|(name, prompts)| (name.to_owned(), digest(prompts))).collect()
}

/// Why others cannot make this model again, if there are reasons.
pub fn obstacles(session: &Session) -> Vec<String> {
    let mut found = Vec::new();
    if Repository::of_cached(session.model.checkpoint.path()).is_none() {
        found.push("the model is none of the hub".to_owned());
    }
    for (name, set) in session.settings().sets() {
        let for_all = match set.source().place() {
            Place::Program => true,
            Place::Machine => false,
            Place::Hub => set.commit.is_some(),
        };
        if !for_all {
            found.push(format!("`{name}` is no data set of the hub at a known commit"));
        }
    }
    for scorer in session.settings().scorers.iter().filter(|it| it.scorer == COMMAND) {
        let name = scorer.instance_name.as_ref().map_or(String::new(), |it| format!(" `{it}`"));
        found.push(format!("the scorer{name} is a program of this machine"));
    }
    found
}

/// The scorer that runs programs.
const COMMAND: &str = "command";

/// Settings without the folders of this machine: of what lies here alone, the last part of its name is left.
fn shareable(settings: &Settings) -> Settings {
    let mut shared = settings.clone();
    for (name, set) in settings.sets() {
        if set.source().place() == Place::Machine {
            let last = set.dataset.rsplit(['/', '\\']).find(|it| !it.is_empty()).unwrap_or_default();
            last.clone_into(&mut shared.set_mut(name).dataset);
        }
    }
    shared
}

/// Reads what [`Record::of`] has noted.
pub(super) fn read(file: Map<String, Value>) -> Result<Recipe, ReproductionError> {
    let version: u64 = part(&file, "version")?;
    if !(1..=VERSION).contains(&version) {
        let found = version.to_string();
        return Err(ReproductionError::TooNew { program: "ablate", found, known: "1 and 2" });
    }
    let record: Record = serde_json::from_value(Value::Object(file))
        .map_err(|error| ReproductionError::Part { part: "reproduce.json", reason: error.to_string() })?;
    let mut remarks = Vec::new();
    if record.settings.scorers.iter().any(|it| it.scorer == COMMAND) {
        remarks.push("a program of the machine that it was made on was asked for a score".to_owned());
    }
    Ok(Recipe {
        writer: format!("ablate {}", record.program),
        model: record.model.name.clone(),
        commit: record.model.commit.clone(),
        settings: record.settings.clone(),
        calibration: Some(record.calibration.clone()),
        weights: Some(record.machine.weights.clone()),
        parameters: record.parameters.clone(),
        scores: record.scores.clone(),
        hashes: record.hashes.clone(),
        remarks,
        record: Some(Box::new(record)),
    })
}

impl Recipe {
    /// Takes out the scorers that run programs, which a file from elsewhere must not choose; says whether there were
    /// any.
    pub fn without_programs(&mut self) -> bool {
        let before = self.settings.scorers.len();
        self.settings.scorers.retain(|it| it.scorer != COMMAND);
        self.settings.scorers.len() < before
    }
}

impl System {
    /// That of this machine.
    pub fn here() -> Self {
        use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what).ok();
        let processors = system.as_ref().map_or(&[][..], System::cpus);
        Self {
            system: System::long_os_version().ok(),
            kernel: System::kernel_version().ok(),
            processor: processors.first().map(|it| it.brand().trim().to_owned()),
            cores: processors.len(),
            memory_mib: system.as_ref().map_or(0, System::total_memory) >> 20,
        }
    }
}
