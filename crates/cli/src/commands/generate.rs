//! `ablate generate`: answers to prompts, and what the model knew before it answered.

use std::path::{Path, PathBuf};

use anyhow::Context;
use engine::{Answer, Engine, Generation, Request, StopReason};
use prompts::{EncodedPrompt, PromptEncoder, sources};
use serde_json::{Value, json};

use crate::interrupt;
use crate::model::{ModelArguments, QuantizeArgument, TextArguments};
use crate::overflow;
use crate::terminal::{Progress, line, remark};

/// Answer prompts, all of them in one batch
///
/// Answers are greedy: the most likely token at every step. Results do not depend on what else is in the batch.
///
/// Examples:
///   ablate generate MODEL --prompt "Why is the sky blue?"
///   ablate generate MODEL --prompts questions.txt[:100] --max-tokens 200 --json
///   ablate generate MODEL --prompts questions.txt --max-tokens 0 --residuals residuals.safetensors
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    quantize: QuantizeArgument,

    #[command(flatten)]
    text: TextArguments,

    /// A prompt; may be given several times
    #[arg(long = "prompt", value_name = "TEXT")]
    prompt: Vec<String>,

    /// A text file with one prompt a line, `-` for standard input; a slice may follow: prompts.txt[:400]
    #[arg(long = "prompts", value_name = "FILE")]
    prompts: Option<String>,

    /// Longest answer, in tokens; 0 computes the prompts alone
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,

    /// Prompts that are answered together
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,

    /// Tell the K most likely first tokens of each answer with their logits
    #[arg(long, default_value_t = 0, value_name = "K")]
    logprobs: usize,

    /// Write the residual stream at the last token of each prompt, `residuals [prompts, sites, d_model]` in f32
    ///
    /// Sites are the embedding, then the stream after each block; the last one is read after the final norm, as
    /// `hidden_states` of the transformers library are.
    #[arg(long, value_name = "FILE.safetensors")]
    residuals: Option<PathBuf>,

    /// One JSON object a line for each prompt: prompt, rendered, `input_ids`, answer, `answer_ids`, stop
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut texts = arguments.prompt.clone();
    if let Some(source) = &arguments.prompts {
        texts.extend(sources::open(source)?.load()?);
    }
    if texts.is_empty() {
        anyhow::bail!("no prompts\n\nhint: give --prompt TEXT, or --prompts FILE with one prompt a line");
    }
    let target = arguments.residuals.as_deref().map(Target::create).transpose()?;
    let model = arguments.model.quantized(arguments.quantize);
    let checkpoint = model.open()?;
    let encoder = arguments.text.encoder(&checkpoint)?;
    let system = arguments.text.system.as_deref();
    let encoded: Vec<EncodedPrompt> =
        texts.iter().map(|it| encoder.encode_prompt(it, system)).collect::<Result<_, _>>()?;
    let mut engine = model.load(&checkpoint)?;
    arguments.text.obey(&checkpoint, &mut engine)?;
    let top = arguments.logprobs.min(engine.info().vocab);
    let how = Generation {
        max_tokens: arguments.max_tokens,
        stop_tokens: encoder.tokenizer().stop_tokens().to_vec(),
        batch: arguments.batch_size as usize,
        top,
        logits: false,
        residuals: arguments.residuals.is_some(),
    };
    interrupt::listen()?;
    let requests: Vec<Request> =
        encoded.iter().map(|it| Request { tokens: it.ids.clone(), edit: 0 }).collect();
    let answers = answer(&mut engine, &requests, &how)?;
    for (prompt, answer) in encoded.iter().zip(&answers) {
        let text = encoder.tokenizer().decode(&answer.tokens, true)?;
        if arguments.json {
            line(&as_json(prompt, answer, &text).to_string())?;
        } else {
            as_text(prompt, answer, &text, &encoder)?;
        }
    }
    if let Some(target) = target {
        let shape = [answers.len(), engine.info().n_layers + 1, engine.info().d_model];
        target.write(&shape, &answers)?;
    }
    if interrupt::requested() {
        remark("interrupted: answers are as far as they had come");
    }
    overflow::check(&answers, engine.info().dtype.name())
}

/// Answers with progress, until done or interrupted.
fn answer(engine: &mut Engine, requests: &[Request], how: &Generation) -> anyhow::Result<Vec<Answer>> {
    let started = std::time::Instant::now();
    let mut progress = Progress::new("answering", requests.len() * how.max_tokens.max(1));
    let mut tokens = 0;
    Ok(engine.generate(requests, how, &mut |_, _| {
        tokens += 1;
        if tokens % 64 == 0 {
            progress.at(tokens, &format!("tokens, {:.0}/s", tokens as f64 / started.elapsed().as_secs_f64()));
        }
        interrupt::requested()
    })?)
}

fn stop_name(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndOfSequence => "eos",
        StopReason::Length => "length",
        StopReason::Rule => "rule",
        StopReason::Overflow => "overflow",
    }
}

fn as_json(prompt: &EncodedPrompt, answer: &Answer, text: &str) -> Value {
    let mut object = json!({
        "prompt": prompt.prompt,
        "rendered": prompt.rendered,
        "input_ids": prompt.ids,
        "answer": text,
        "answer_ids": answer.tokens,
        "stop": stop_name(answer.stop),
    });
    if let Some(first) = &answer.first_token {
        let top: Vec<Value> = first.top.iter().map(|(id, logit)| json!({"id": id, "logit": logit})).collect();
        object["first_token"] = json!({"logsumexp": first.logsumexp, "top": top});
    }
    object
}

fn as_text(
    prompt: &EncodedPrompt,
    answer: &Answer,
    text: &str,
    encoder: &PromptEncoder,
) -> anyhow::Result<()> {
    line(&format!("> {}", prompt.prompt.replace('\n', "\n> ")))?;
    line(text)?;
    if let Some(first) = &answer.first_token {
        for (id, logit) in &first.top {
            let token = encoder.tokenizer().token(*id).unwrap_or_default();
            line(&format!("  {:>7.3} nats  {token:?} ({id})", logit - first.logsumexp))?;
        }
    }
    line("")?;
    Ok(())
}

/// A file for residuals, written beside its name and renamed, so that no half-written file ever has the name.
///
/// It is created before any work is done: a folder that cannot be written to is better known early.
struct Target<'a> {
    path: &'a Path,
    beside: tempfile::NamedTempFile,
}

impl<'a> Target<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // Readable by whom the user's umask says, as any file that a program writes; a temporary file is not.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let beside = builder
            .tempfile_in(folder)
            .with_context(|| format!("writing residuals to `{}`", path.display()))?;
        Ok(Self { path, beside })
    }

    fn write(mut self, shape: &[usize; 3], answers: &[Answer]) -> anyhow::Result<()> {
        use std::io::Write;
        let numbers = answers.iter().flat_map(|it| &it.residuals);
        let bytes: Vec<u8> = numbers.flat_map(|it| it.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes)?;
        let file = safetensors::serialize([("residuals", view)], None)?;
        let mut write = || -> std::io::Result<()> {
            self.beside.write_all(&file)?;
            self.beside.as_file().sync_all()
        };
        let context = || format!("writing residuals to `{}`", self.path.display());
        write().with_context(context)?;
        self.beside.persist(self.path).with_context(context)?;
        remark(&format!("residuals {shape:?} written to {}", self.path.display()));
        Ok(())
    }
}
