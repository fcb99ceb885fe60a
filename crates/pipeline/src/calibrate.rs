//! Facts found at the start of a run: how many sequences to compute together, and what all answers begin with.
//!
//! They are printed, stored in the study and never written back into the settings.

use std::time::{Duration, Instant};

use engine::{Engine, Generation, Request};
use glossary::TokenId;
use prompts::EncodedPrompt;
use scorers::divergence::kl_from_logits;
use serde::{Deserialize, Serialize};

use crate::model::{Model, PromptTexts};
use crate::settings::{BAD_PROMPTS, GOOD_PROMPTS, KL_PROMPTS, REFUSAL_PROMPTS};
use crate::{Cancel, Event, Events, PipelineError, Settings, response_prefix};

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Sequences that are computed together.
    pub batch_size: usize,
    /// Text with which every answer begins, so that answers are compared where they begin to differ.
    pub response_prefix: String,
    /// The blocks that weights are held in, if in any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<Quantized>,
}

/// Weights that are held in fewer bits than the file has, and what that does to the original.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantized {
    /// The blocks that were asked for: `q8_0`, `q4_k`.
    pub blocks: String,
    /// KL(file ‖ blocks) of the original's first answer tokens, mean over prompts in nats: below this, divergences between
    /// models in blocks say little of the models as they are written. `None` where the file's own weights do not fit
    /// into memory, or there are no prompts that do not show the behaviour.
    pub kl_divergence: Option<f64>,
}

/// Prompts of each set that are looked at.
pub(crate) const PROMPTS: usize = 100;

/// The sets that are looked at: of each pair the first that is given. When two models are compared there are no prompts
/// for directions, and those for scores show as well what all answers begin with.
pub(crate) const CALIBRATION_SETS: [[&str; 2]; 2] =
    [[GOOD_PROMPTS, KL_PROMPTS], [BAD_PROMPTS, REFUSAL_PROMPTS]];

/// The first prompts of the first set that is given; none where none is.
pub(crate) fn encoded(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
    names: [&str; 2],
    most: usize,
) -> Result<Vec<EncodedPrompt>, PipelineError> {
    let given = names.into_iter().find_map(|it| Some((settings.set(it).ok()?, texts.of(it).ok()?)));
    let Some((set, texts)) = given else { return Ok(Vec::new()) };
    model.encode(set, settings, &texts[..texts.len().min(most)])
}

/// The same in tokens.
fn encode(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
    names: [&str; 2],
    most: usize,
) -> Result<Vec<Vec<TokenId>>, PipelineError> {
    Ok(encoded(model, settings, texts, names, most)?.into_iter().map(|it| it.ids).collect())
}

/// Measures and looks, where the settings do not say.
///
/// Sets the prefix in the model's encoder.
pub(crate) fn calibrate(
    model: &mut Model,
    settings: &Settings,
    texts: &PromptTexts,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<Calibration, PipelineError> {
    model.encoder.set_response_prefix(settings.response_prefix.clone().unwrap_or_default());
    let batch_size = match settings.batch_size {
        0 => batch_size(model, settings, texts, events, cancel)?,
        told => told,
    };
    let response_prefix = match &settings.response_prefix {
        Some(told) => {
            // Nothing is closed then, and what is scored is said.
            response_prefix::opened_by_template(model, settings, texts, events)?;
            told.clone()
        }
        None => response_prefix::find(model, settings, texts, batch_size, events, cancel)?,
    };
    model.encoder.set_response_prefix(response_prefix.clone());
    let quantized = match model.engine.info().quantization {
        None => None,
        Some(blocks) => {
            let kl_divergence = divergence_from_file(model, settings, texts, batch_size, cancel)?;
            let quantized = Quantized { blocks: blocks.name().to_owned(), kl_divergence };
            events(Event::Quantized(quantized.clone()));
            Some(quantized)
        }
    };
    Ok(Calibration { batch_size, response_prefix, quantized })
}

/// How far the original in blocks is from the original as its file has it.
fn divergence_from_file(
    model: &mut Model,
    settings: &Settings,
    texts: &PromptTexts,
    batch_size: usize,
    cancel: &Cancel<'_>,
) -> Result<Option<f64>, PipelineError> {
    let prompts = encode(model, settings, texts, [KL_PROMPTS, GOOD_PROMPTS], PROMPTS)?;
    if prompts.is_empty() {
        return Ok(None);
    }
    let info = model.engine.info();
    if info.weights.saturating_mul(info.dtype.bytes()) > memory() {
        return Ok(None);
    }
    let requests: Vec<Request> = prompts.into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
    let how = Generation { max_tokens: 0, batch: batch_size, logits: true, ..Generation::default() };
    let first_tokens = |engine: &mut Engine| -> Result<Vec<Vec<f32>>, PipelineError> {
        let answers = engine.generate(&requests, &how, &mut |_, _| cancel.requested())?;
        cancel.check()?;
        Ok(answers.into_iter().filter_map(|it| Some(it.first_token?.logits)).collect())
    };
    let mut full = model.engine.unquantized(&model.checkpoint)?;
    let exact = first_tokens(&mut full)?;
    drop(full);
    let held = first_tokens(&mut model.engine)?;
    let divergences: Vec<f64> =
        exact.iter().zip(&held).map(|(exact, held)| kl_from_logits(exact, held)).collect();
    Ok(Some(divergences.iter().sum::<f64>() / divergences.len() as f64))
}

/// Tokens of each answer while batch sizes are tried.
const TRIED_TOKENS: usize = 8;

/// A larger batch is not tried when it would take longer than this.
const PATIENCE: Duration = Duration::from_secs(8);

/// A batch that is faster by less than this share is not worth its memory.
const WORTH: f64 = 1.05;

/// Doubles the batch while that makes answers faster, fits into memory, and does not take too long to try.
fn batch_size(
    model: &mut Model,
    settings: &Settings,
    texts: &PromptTexts,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<usize, PipelineError> {
    let mut encoded = Vec::new();
    for names in CALIBRATION_SETS {
        if encoded.is_empty() {
            encoded = encode(model, settings, texts, names, settings.max_batch_size)?;
        }
    }
    let prompt = encoded.iter().map(Vec::len).max().unwrap_or(0);
    let longest = prompt.saturating_add(settings.max_response_length);
    let info = model.engine.info();
    let of_sequence =
        info.cache_bytes_per_token.saturating_mul(longest).saturating_add(info.state_bytes_per_sequence);
    let fits = memory() / of_sequence.max(1);
    let how = Generation { max_tokens: TRIED_TOKENS, ..Generation::default() };
    let (mut size, mut best, mut best_rate) = (1, 1, 0.0);
    while size <= settings.max_batch_size.min(fits) {
        cancel.check()?;
        let requests: Vec<Request> =
            encoded.iter().cycle().take(size).map(|it| Request { tokens: it.clone(), edit: 0 }).collect();
        // Prompts take the same time alone as together; what depends on the batch is decoding.
        let mut decoding: Option<Instant> = None;
        let mut tokens = 0_u32;
        let how = Generation { batch: size, ..how.clone() };
        model.engine.generate(&requests, &how, &mut |_, _| {
            decoding.get_or_insert_with(Instant::now);
            tokens += 1;
            cancel.requested()
        })?;
        let seconds = decoding.map_or(Duration::MAX, |it| it.elapsed()).as_secs_f64();
        let rate = f64::from(tokens.saturating_sub(size as u32)) / seconds.max(1e-9);
        events(Event::BatchSizeTried { size, tokens_per_second: rate });
        if rate < best_rate * WORTH {
            break;
        }
        (best, best_rate) = (size, rate);
        if decoding.is_some_and(|it| it.elapsed() * 2 > PATIENCE) {
            break;
        }
        size *= 2;
    }
    events(Event::BatchSize { size: best });
    Ok(best)
}

/// Half of the memory that is free, in bytes: the other half is for passes, and for other programs. Unlimited where
/// the system does not tell.
fn memory() -> usize {
    free_memory().map_or(usize::MAX, |it| (it / 2) as usize)
}

/// The memory that programs can still have, in bytes; `None` where the system does not tell.
pub fn free_memory() -> Option<u64> {
    sysinfo::System::new().ok().map(|mut system| {
        system.refresh_memory();
        system.available_memory()
    })
}
