//! The arguments that name a model, and loading it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use checkpoint::{Checkpoint, Quantization};
use clap::ValueEnum;
use engine::backend::cpu::Isa;
use engine::backend::{Arithmetic, WeightDtype};
use engine::{Device, DtypeChoice, Engine, LoadOptions, LogitRules};
use pipeline::Calibration;
use pipeline::reproduction::{Machine, Template};
use prompts::{Clock, Isolation, PromptEncoder, PromptFormat, PromptSettings, RenderOptions};

use crate::fetching;
use crate::program::{Program, Quantize};
use crate::terminal::{Misuse, Progress, remark};
use crate::with_adapters;

/// Which model, and how it is held.
#[derive(clap::Args, Clone)]
pub(crate) struct ModelArguments {
    /// A Hugging Face folder (config.json, *.safetensors, tokenizer.json), a GGUF file, or a repository of the hub
    #[arg(id = "MODEL", value_name = "MODEL")]
    model: Option<PathBuf>,

    /// Add an adapter to the model: a folder of peft (LoRA, DoRA), a GGUF adapter, or a repository of the hub
    ///
    /// May be given several times; they are added in order. Weights are merged as they are read, in f32: `--dtype bf16` halves
    /// the memory and rounds them. What is saved is the whole model, without an adapter.
    #[arg(long = "adapter", value_name = "ADAPTER")]
    adapters: Vec<PathBuf>,

    /// The commit of a model of the hub; a setting.
    #[arg(skip)]
    commit: Option<String>,

    #[command(flatten)]
    compute: ComputeArguments,
}

/// How a model is held, and what it is computed with.
#[derive(clap::Args, Clone)]
pub(crate) struct ComputeArguments {
    /// Precision of the weights; what they are multiplied in is --arithmetic
    ///
    /// `auto` keeps what the file has, and where it is quantized what holds its values exactly: f32, or the type of
    /// a folder's scales if that has 16 bits. bf16 and f16 halve the memory.
    #[arg(long, value_enum)]
    dtype: Option<DtypeArgument>,

    /// What products with weights compute in; everything else is always f32
    ///
    /// bf16 rounds what goes into a product and the weights to bf16 and sums in f32. On processors that multiply
    /// bf16 (AVX512-BF16) it is nearly twice as fast; on others it only rounds. f32 if not given.
    #[arg(long, value_enum)]
    arithmetic: Option<ArithmeticArgument>,

    /// Where to compute; `reference` means plain f64 loops, to check the others against
    #[arg(long, value_enum, default_value_t = DeviceArgument::Auto)]
    device: DeviceArgument,

    /// Threads; 0 means one per core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = threads)]
    threads: usize,

    /// Instruction set of the processor: portable, avx2, avx512 or neon; the best one if not given
    #[arg(long, value_name = "NAME")]
    instruction_set: Option<String>,

    /// Try this model family, whatever the model says it is
    #[arg(long, value_name = "NAME")]
    family: Option<String>,

    /// The blocks that weights are held in: a setting, or an option of commands without settings.
    #[arg(skip)]
    quantize: Option<Quantize>,
}

/// The option of commands that have no settings.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct QuantizeArgument {
    /// Hold weights in blocks of small integers: q8_0 (8.5 bits a weight) or q4_k (4.6 bits)
    ///
    /// q4_k is for rows of whole blocks of 256; others are held as q8_0, and so is the head. Blocks of these kinds that
    /// a GGUF file has are held as they are.
    #[arg(long, value_enum, value_name = "NAME")]
    quantize: Option<Quantize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeArgument {
    Auto,
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, ValueEnum)]
enum ArithmeticArgument {
    F32,
    Bf16,
}

/// The device that checks the others.
const REFERENCE: &str = "reference";

/// The device that computes otherwise.
const CPU: &str = "cpu";

#[derive(Clone, Copy, ValueEnum)]
enum DeviceArgument {
    Auto,
    Cpu,
    Reference,
}

/// How a conversation is written for the model.
#[derive(clap::Args, Clone)]
pub(crate) struct TemplateArguments {
    /// Chat template (Jinja) to use in place of the model's own
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    chat_template: Option<PathBuf>,

    /// Give prompts to the model as they are, without a chat template: for base models
    #[arg(long)]
    plain: bool,
}

/// Variables of a chat template.
#[derive(Clone)]
struct Variables(serde_json::Map<String, serde_json::Value>);

fn variables(text: &str) -> Result<Variables, String> {
    serde_json::from_str(text).map(Variables).map_err(|it| format!("expected a JSON object: {it}"))
}

/// How prompts are put to the model.
#[derive(clap::Args)]
pub(crate) struct TextArguments {
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    #[command(flatten)]
    template: TemplateArguments,

    /// Variables of the chat template, as JSON: `{"enable_thinking": false}`
    #[arg(long, value_name = "JSON", value_parser = variables, conflicts_with = "plain")]
    chat_template_kwargs: Option<Variables>,

    /// Text with which every answer begins
    #[arg(long, value_name = "TEXT", default_value = "")]
    response_prefix: String,

    /// The date that the chat template prints where it prints today's: 2026-11-30, 2026-11-30T12:00:00
    #[arg(long, value_name = "DATE")]
    template_date: Option<String>,
    /// Obey the rules of `generation_config.json` that count in greedy decoding: repetition penalty, suppressed tokens, …
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    obey_generation_config: bool,
}

/// A number of threads that a machine can have use of.
fn threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().map_err(|it| format!("{it}"))?;
    engine::check_threads(threads).map_err(|it| it.to_string())?;
    Ok(threads)
}

impl QuantizeArgument {
    /// What was named.
    pub(crate) fn named(self) -> Option<Quantize> {
        self.quantize
    }
}

impl ModelArguments {
    /// A model by name, at a commit if it is one of the hub.
    pub(crate) fn of(model: &Path, commit: Option<String>, compute: ComputeArguments) -> Self {
        Self { model: Some(model.to_owned()), adapters: Vec::new(), commit, compute }
    }

    /// The same for another model, without adapters.
    pub(crate) fn at(&self, model: &Path) -> Self {
        Self::of(model, None, self.compute.clone())
    }

    /// The same where settings say what the command line does not.
    pub(crate) fn with(&self, program: &Program) -> anyhow::Result<Self> {
        let model = self.model.clone().or(program.model.as_ref().map(PathBuf::from));
        let named = model.as_deref().map(fetching::by_address).transpose()?;
        let revision = named.as_ref().and_then(|it| it.1.clone());
        if let (Some(named), Some(commit)) = (&revision, &program.model_commit)
            && named != commit
        {
            return Err(Misuse::error(format!(
                "the model's address is at `{named}`, and `model_commit` is `{commit}`\n\nhint: name one of them"
            )));
        }
        Ok(Self {
            model: named.map(|it| it.0),
            commit: program.model_commit.clone().or(revision),
            adapters: self.adapters.clone(),
            compute: self.compute.with(program)?,
        })
    }

    /// The same with weights in these blocks, if any are named.
    pub(crate) fn quantized(&self, argument: QuantizeArgument) -> Self {
        let compute = self.compute.quantized(argument.quantize);
        Self { compute, ..self.clone() }
    }

    /// The same with weights as they were held when a calibration was made.
    pub(crate) fn held_as_in(self, calibration: &Calibration) -> Self {
        let known = Quantize::of_blocks(calibration.quantized.as_ref().map(|it| it.blocks.as_str()));
        if self.compute.quantize.is_some_and(|it| it != known) {
            remark("the study goes on with weights held as it began with; `quantize` is not used");
        }
        let compute = self.compute.quantized(Some(known));
        Self { compute, ..self }
    }

    /// The same, held and computed with as a study was begun, where the command line does not say.
    pub(crate) fn resumed(self, begun: &Machine) -> Self {
        Self { compute: self.compute.resumed(begun), ..self }
    }

    /// How it is held and computed with.
    pub(crate) fn compute(&self) -> &ComputeArguments {
        &self.compute
    }

    /// The path.
    pub(crate) fn path(&self) -> anyhow::Result<&Path> {
        self.model.as_deref().ok_or_else(|| {
            Misuse::error("no model is given\n\nhint: name a folder or a GGUF file: `ablate COMMAND MODEL`")
        })
    }

    /// The same at a commit of the hub, unless one was given.
    pub(crate) fn or_at(mut self, commit: Option<String>) -> Self {
        self.commit = self.commit.or(commit);
        self
    }

    /// Opens the files, which are downloaded first if they are on the hub, and adds the adapters.
    pub(crate) fn open(&self) -> anyhow::Result<Checkpoint> {
        with_adapters::open(
            self.path()?,
            self.commit.as_deref(),
            &self.adapters,
            self.compute.family.as_deref(),
        )
    }

    /// Brings the weights into place.
    pub(crate) fn load(&self, checkpoint: &Checkpoint) -> anyhow::Result<Engine> {
        self.compute
            .load(checkpoint)
            .with_context(|| format!("loading `{}`", self.path().unwrap_or(Path::new("")).display()))
    }
}

impl ComputeArguments {
    /// The same where settings say what the command line does not.
    pub(crate) fn with(&self, program: &Program) -> anyhow::Result<Self> {
        let dtype = match program.dtypes.first().map(String::as_str) {
            None | Some("auto") => DtypeArgument::Auto,
            Some("float32" | "f32") => DtypeArgument::F32,
            Some("bfloat16" | "bf16") => DtypeArgument::Bf16,
            Some("float16" | "f16") => DtypeArgument::F16,
            Some(other) => {
                anyhow::bail!("`dtypes` begins with `{other}`: expected auto, float32, bfloat16 or float16")
            }
        };
        let quantize = match program.quantize {
            None if program.quantization != "none" => {
                remark(
                    "`quantization = \"bnb_4bit\"` is taken for `quantize = \"q4_k\"`: other blocks of 4 bits",
                );
                Some(Quantize::Q4)
            }
            told => told,
        };
        Ok(Self { dtype: self.dtype.or(Some(dtype)), ..self.quantized(quantize) })
    }

    /// The same with weights in these blocks, unless others were named.
    pub(crate) fn quantized(&self, quantize: Option<Quantize>) -> Self {
        Self { quantize: quantize.or(self.quantize), ..self.clone() }
    }

    /// The same where a file says what the command line does not. What this machine has not is left to it.
    pub(crate) fn as_recorded(&self, weights: Option<&str>, machine: Option<&Machine>) -> Self {
        let available = |it: &&String| Isa::available().iter().any(|isa| isa.name() == it.as_str());
        let set = machine.and_then(|it| it.instruction_set.as_ref()).filter(available);
        let arithmetic = machine.and_then(|it| ArithmeticArgument::from_str(&it.arithmetic, true).ok());
        Self {
            dtype: self.dtype.or(weights.and_then(|it| DtypeArgument::from_str(it, true).ok())),
            arithmetic: self.arithmetic.or(arithmetic),
            quantize: self.quantize.or(machine.map(|it| Quantize::of_blocks(it.quantized.as_deref()))),
            device: match (self.device, machine) {
                (DeviceArgument::Auto, Some(machine)) if machine.device == REFERENCE => {
                    DeviceArgument::Reference
                }
                (told, _) => told,
            },
            instruction_set: self.instruction_set.as_ref().or(set).cloned(),
            ..self.clone()
        }
    }

    /// The same as a study was begun, where the command line does not say. `auto` says nothing.
    fn resumed(&self, begun: &Machine) -> Self {
        let dtype = self.dtype.filter(|it| !matches!(it, DtypeArgument::Auto));
        Self { dtype, ..self.clone() }.as_recorded(Some(&begun.weights), Some(begun))
    }

    /// The machine that a study was begun on, but for what the command line asks for.
    pub(crate) fn asked_for(&self, begun: &Machine) -> Machine {
        let dtype = self.dtype.and_then(|it| match it {
            DtypeArgument::Auto => None,
            DtypeArgument::F32 => Some(WeightDtype::F32),
            DtypeArgument::Bf16 => Some(WeightDtype::Bf16),
            DtypeArgument::F16 => Some(WeightDtype::F16),
        });
        let device = match self.device {
            DeviceArgument::Auto => None,
            DeviceArgument::Cpu => Some(CPU),
            DeviceArgument::Reference => Some(REFERENCE),
        };
        let quantized = self.quantize.map(|it| it.blocks().map(|it| it.name().to_owned()));
        Machine {
            weights: dtype.map_or_else(|| begun.weights.clone(), |it| it.name().to_owned()),
            arithmetic: self
                .arithmetic
                .map_or_else(|| begun.arithmetic.clone(), |_| self.arithmetic().name().to_owned()),
            device: device.unwrap_or(&begun.device).to_owned(),
            quantized: quantized.unwrap_or_else(|| begun.quantized.clone()),
            ..begun.clone()
        }
    }

    /// Whether an instruction set was asked for, by the user or by what a study began with.
    pub(crate) fn names_instruction_set(&self) -> bool {
        self.instruction_set.is_some()
    }

    /// The kind of machine that a model runs on.
    pub(crate) fn machine(&self, engine: &Engine) -> anyhow::Result<Machine> {
        let reference = matches!(self.device, DeviceArgument::Reference);
        Ok(Machine {
            architecture: std::env::consts::ARCH.to_owned(),
            system: std::env::consts::OS.to_owned(),
            device: if reference { REFERENCE } else { CPU }.to_owned(),
            instruction_set: if reference { None } else { Some(self.isa()?.name().to_owned()) },
            weights: engine.info().dtype.name().to_owned(),
            quantized: engine.info().quantization.map(|it| it.name().to_owned()),
            arithmetic: engine.info().arithmetic.name().to_owned(),
            threads: engine.threads(),
        })
    }

    /// The instruction set asked for, or the best.
    pub(crate) fn isa(&self) -> anyhow::Result<Isa> {
        let available = Isa::available();
        match &self.instruction_set {
            None => Ok(*available.last().context("no instruction set")?),
            Some(name) => available.iter().copied().find(|it| it.name() == name).with_context(|| {
                let names: Vec<&str> = available.iter().map(|it| it.name()).collect();
                format!("instruction set `{name}`: this processor has {}", names.join(", "))
            }),
        }
    }

    /// What products are to compute in.
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        match self.arithmetic {
            None | Some(ArithmeticArgument::F32) => Arithmetic::F32,
            Some(ArithmeticArgument::Bf16) => Arithmetic::Bf16,
        }
    }

    /// Threads asked for.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// How a model is loaded.
    pub(crate) fn options(&self) -> anyhow::Result<LoadOptions> {
        Ok(LoadOptions {
            device: match self.device {
                DeviceArgument::Reference => Device::Reference,
                DeviceArgument::Auto | DeviceArgument::Cpu => Device::CpuWith(self.isa()?),
            },
            dtype: match self.dtype.unwrap_or(DtypeArgument::Auto) {
                DtypeArgument::Auto => DtypeChoice::Auto,
                DtypeArgument::F32 => DtypeChoice::Fixed(WeightDtype::F32),
                DtypeArgument::Bf16 => DtypeChoice::Fixed(WeightDtype::Bf16),
                DtypeArgument::F16 => DtypeChoice::Fixed(WeightDtype::F16),
            },
            quantize: self.quantize.and_then(Quantize::blocks),
            arithmetic: self.arithmetic(),
            threads: self.threads,
            family: self.family.clone(),
        })
    }

    fn load(&self, checkpoint: &Checkpoint) -> anyhow::Result<Engine> {
        let options = self.options()?;
        let started = Instant::now();
        let mut progress: Option<Progress> = None;
        let engine = Engine::load(checkpoint, &options, &mut |done, all| {
            progress.get_or_insert_with(|| Progress::new("loading", all)).at(done, "blocks");
        })?;
        drop(progress);
        let info = engine.info();
        for notice in &info.notices {
            remark(notice);
        }
        remark(&format!(
            "{} family, {} blocks, width {}, vocabulary {}, {} weights ({:.0} MiB), {}, {} threads, loaded in {:.1} s",
            info.family,
            info.n_layers,
            info.d_model,
            info.vocab,
            info.quantization.map_or(info.dtype.name(), Quantization::name),
            info.weight_bytes as f64 / f64::from(1 << 20),
            engine.device(),
            engine.threads(),
            started.elapsed().as_secs_f64()
        ));
        Ok(engine)
    }
}

/// What is said of rules that answers obey.
pub(crate) fn about_rules(rules: &[String]) -> String {
    format!(
        "answers obey generation_config.json: {} (--obey-generation-config=false leaves it out)",
        rules.join(", ")
    )
}

impl TextArguments {
    /// Has the engine's answers obey what the model's files say, unless that is not wanted; says what.
    pub(crate) fn obey(&self, checkpoint: &Checkpoint, engine: &mut Engine) -> anyhow::Result<()> {
        let config = checkpoint.assets().generation_config.as_ref().filter(|_| self.obey_generation_config);
        let rules = config.map(LogitRules::from_generation_config).transpose()?.unwrap_or_default();
        if !rules.is_empty() {
            remark(&about_rules(&rules.names()));
        }
        engine.obey(rules);
        Ok(())
    }

    /// The tokenizer and chat template.
    pub(crate) fn encoder(&self, checkpoint: &Checkpoint) -> anyhow::Result<PromptEncoder> {
        let variables = self.chat_template_kwargs.as_ref().map(|it| it.0.clone()).unwrap_or_default();
        let clock = self.template_date.as_deref().map_or_else(|| Ok(Clock::stopped_now()), Clock::stopped_at);
        let mut encoder = encoder(self.template.template()?, variables, clock?, checkpoint)?;
        encoder.set_response_prefix(self.response_prefix.clone());
        Ok(encoder)
    }
}

impl TemplateArguments {
    /// What they say, the template read.
    pub(crate) fn template(&self) -> anyhow::Result<Template> {
        let chat_template = self.chat_template.as_ref().map(|path| {
            files::read_text(path, files::SMALL)
                .with_context(|| format!("reading chat template `{}`", path.display()))
        });
        Ok(Template { plain: self.plain, chat_template: chat_template.transpose()? })
    }
}

/// The argument that makes this program the process that renders a chat template.
const RENDER: &str = "__render-chat-template";

/// Whether this process was started to render a chat template for another one.
pub(crate) fn renders_templates() -> bool {
    std::env::args_os().nth(1).is_some_and(|it| it == RENDER)
}

/// The file of this program, to start it once more.
pub(crate) fn this_program() -> std::io::Result<PathBuf> {
    // On Linux the program itself, even if its file was replaced by a newer one.
    let itself = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

/// This program, where chat templates cannot do harm to the one that runs.
fn isolation() -> anyhow::Result<Isolation> {
    let program = this_program().context("finding this program, which renders chat templates")?;
    Ok(Isolation::Process { program, arguments: vec![RENDER.into()] })
}

/// Says which date prompts are rendered with, where that matters.
pub(crate) fn remark_date(encoder: &PromptEncoder, clock: &Clock) {
    if encoder.reads_clock() {
        remark(&format!(
            "the chat template may print the date: prompts are rendered as on {clock} (`template_date`)"
        ));
    }
}

/// The tokenizer of a model, and a way to put prompts to it: a template with its variables; `clock`: what it takes for now.
pub(crate) fn encoder(
    template: Template,
    variables: serde_json::Map<String, serde_json::Value>,
    clock: Clock,
    checkpoint: &Checkpoint,
) -> anyhow::Result<PromptEncoder> {
    let render = RenderOptions { variables, clock, ..RenderOptions::default() };
    render.check_variables().map_err(|it| Misuse::error(it.to_string()))?;
    let settings = PromptSettings {
        format: if template.plain { PromptFormat::Plain } else { PromptFormat::Chat },
        chat_template: template.chat_template,
        isolation: isolation()?,
        render,
        ..PromptSettings::default()
    };
    Ok(PromptEncoder::from_checkpoint(checkpoint, settings)?)
}
