//! From candidates to evidence: what scorers need, computed once for all scorers and many candidates.
//!
//! Every set of prompts is prefilled once for each candidate; first-token distributions and answers come from the
//! same pass. Distributions of the original are held for first tokens only; along whole answers the original runs
//! beside the candidates in the same batch, since its distributions would fill the memory.

use std::ops::RangeInclusive;
use std::sync::Arc;

use engine::{Answer, Continuation, Engine, Forced, Generation, Request, StopReason, Watch};
use glossary::TokenId;
use prompts::{Decoder, SpecialTokens, TokenizerError};
use scorers::divergence::{kl_from_logits, log_probability_of_any};
use scorers::{Evidence, ForcedToken, JudgedAnswer, Plan, SetPlan, StopRule};

use crate::model::{Model, PromptTexts};
use crate::work::Work;
use crate::{Calibration, PipelineError, Settings};

/// Prompts put to the model and the original's behaviour on them: all that evidence of candidates is made from.
pub(crate) struct Collector {
    sets: Vec<CollectedSet>,
    texts: Vec<(Arc<str>, Vec<TokenId>)>,
    max_response_length: usize,
    batch_size: usize,
    stop_tokens: Vec<TokenId>,
}

/// A set of prompts: what is needed of it, and what the original does with it.
struct CollectedSet {
    plan: SetPlan,
    texts: Arc<[String]>,
    prompts: Vec<Vec<TokenId>>,
    /// First tokens of each list of openings.
    openings: Vec<Vec<usize>>,
    /// The original's first-token logits, `[prompts, vocab]`; empty if not needed.
    original_logits: Vec<f32>,
    /// The original's whole answers; empty if not needed.
    original_answers: Vec<Vec<TokenId>>,
}

impl Collector {
    /// Puts the prompts that a plan names to the model. Nothing is computed yet.
    pub(crate) fn new(
        model: &Model,
        settings: &Settings,
        calibration: &Calibration,
        plan: &Plan,
        texts: &PromptTexts,
    ) -> Result<Self, PipelineError> {
        let tokenizer = model.encoder.tokenizer();
        let sets = plan.sets.iter().map(|plan| {
            let name = plan.prompts.as_str();
            let set = settings.set(name)?;
            let texts = texts.of(name)?;
            let encoded = model.encode(set, settings, texts)?;
            let openings = plan.openings.iter().map(|list| {
                let mut first = Vec::with_capacity(list.len());
                for text in list {
                    first.extend(tokenizer.encode(text, SpecialTokens::None)?.first().map(|it| it.index()));
                }
                first.sort_unstable();
                first.dedup();
                Ok(first)
            });
            Ok(CollectedSet {
                openings: openings.collect::<Result<_, TokenizerError>>()?,
                plan: plan.clone(),
                texts: Arc::from(texts),
                prompts: encoded.into_iter().map(|it| it.ids).collect(),
                original_logits: Vec::new(),
                original_answers: Vec::new(),
            })
        });
        let texts =
            plan.texts.iter().map(|text| Ok((Arc::clone(text), tokenizer.encode(text, SpecialTokens::Add)?)));
        Ok(Self {
            sets: sets.collect::<Result<_, PipelineError>>()?,
            texts: texts.collect::<Result<_, TokenizerError>>()?,
            max_response_length: settings.max_response_length,
            batch_size: calibration.batch_size,
            stop_tokens: tokenizer.stop_tokens().to_vec(),
        })
    }

    /// What the original does, which candidates are compared with; and its own evidence.
    pub(crate) fn original(
        &mut self,
        model: &mut Model,
        work: &mut Work<'_, '_>,
    ) -> Result<Evidence, PipelineError> {
        work.of(self.tokens(1));
        let mut evidence = [Evidence::new()];
        for index in 0..self.sets.len() {
            let mut observed = self.observe(model, index, 0..=0, As::Original, work)?;
            overflow(model, &self.sets[index], &observed.answers)?;
            let set = &mut self.sets[index];
            set.original_logits = std::mem::take(&mut observed.logits);
            if set.plan.original_answers {
                set.original_answers = observed.answers.iter().map(|it| it.tokens.clone()).collect();
                observed.forced = vec![self.force_itself(model, index, work)?];
            }
            observed.nats = self.judge(model, index, &observed.answers, work)?;
            self.add(model, index, &observed, &mut evidence)?;
        }
        self.add_texts(model, 0..=0, &mut evidence, work)?;
        let [evidence] = evidence;
        Ok(evidence)
    }

    /// Evidence of the candidates `1..=count`, whose edits are set in the engine.
    pub(crate) fn candidates(
        &self,
        model: &mut Model,
        count: usize,
        work: &mut Work<'_, '_>,
    ) -> Result<Vec<Evidence>, PipelineError> {
        work.of(self.tokens(count));
        let mut evidence = vec![Evidence::new(); count];
        for index in 0..self.sets.len() {
            let mut observed = self.observe(model, index, 1..=count, As::Candidate, work)?;
            if self.sets[index].plan.original_answers {
                observed.forced = self.force(model, index, count, work)?;
            }
            observed.nats = self.judge(model, index, &observed.answers, work)?;
            self.add(model, index, &observed, &mut evidence)?;
        }
        self.add_texts(model, 1..=count, &mut evidence, work)?;
        Ok(evidence)
    }

    /// Evidence of another model, of the same vocabulary.
    pub(crate) fn other(
        &self,
        original: &mut Model,
        other: &mut Model,
        work: &mut Work<'_, '_>,
    ) -> Result<Evidence, PipelineError> {
        work.of(self.tokens(1));
        let mut evidence = [Evidence::new()];
        for index in 0..self.sets.len() {
            let mut observed = self.observe(other, index, 0..=0, As::Candidate, work)?;
            if self.sets[index].plan.original_answers {
                observed.forced = vec![self.force_other(original, other, index, work)?];
            }
            observed.nats = self.judge(original, index, &observed.answers, work)?;
            self.add(other, index, &observed, &mut evidence)?;
        }
        self.add_texts(other, 0..=0, &mut evidence, work)?;
        let [evidence] = evidence;
        Ok(evidence)
    }

    /// How many tokens evidence of so many models takes at most, by and large: answers that end early end it earlier.
    fn tokens(&self, models: usize) -> usize {
        let sets = self.sets.iter().map(|set| {
            let prompts: usize = set.prompts.iter().map(Vec::len).sum();
            let answers = set.prompts.len() * self.max_response_length;
            let (plan, forced) = (&set.plan, &set.original_answers);
            let observed = match plan.answers {
                Some(_) => prompts + answers,
                None if plan.original_answers && forced.is_empty() => prompts + answers,
                None if plan.first_token || !plan.openings.is_empty() => prompts,
                None => 0,
            };
            let along = |answers: usize| prompts + answers;
            let forced = match plan.original_answers {
                false => 0,
                true if forced.is_empty() => along(answers),
                true => along(forced.iter().map(Vec::len).sum()),
            };
            let judged = plan.answers.as_ref().is_some_and(|it| it.judged);
            observed + forced + if judged { along(answers) } else { 0 }
        });
        let texts = self.texts.iter().map(|it| it.1.len());
        models * sets.chain(texts).sum::<usize>()
    }

    /// First-token distributions and answers of a set, of all edits in one batch.
    fn observe(
        &self,
        model: &mut Model,
        set: usize,
        edits: RangeInclusive<usize>,
        role: As,
        work: &mut Work<'_, '_>,
    ) -> Result<Observed, PipelineError> {
        let set = &self.sets[set];
        // The original's answers are forced through candidates whole.
        let whole = role == As::Original && set.plan.original_answers;
        let requests: Vec<Request> = edits
            .clone()
            .flat_map(|edit| set.prompts.iter().map(move |it| Request { tokens: it.clone(), edit }))
            .collect();
        let answers = whole || set.plan.answers.is_some();
        if !(answers || set.plan.first_token || !set.openings.is_empty()) {
            return Ok(Observed::default());
        }
        let how = Generation {
            max_tokens: if answers { self.max_response_length } else { 0 },
            stop_tokens: self.stop_tokens.clone(),
            batch: self.batch_size,
            ..Generation::default()
        };
        let until = set.plan.answers.as_ref().and_then(|it| it.until.as_ref()).filter(|_| !whole);
        let Model { engine, encoder, .. } = model;
        let mut watcher = Watcher {
            set,
            longest_answer: how.max_tokens,
            keep_logits: role == As::Original && set.plan.first_token,
            vocab: engine.info().vocab,
            divergences: vec![0.0; requests.len()],
            openings: vec![vec![0.0; requests.len()]; set.openings.len()],
            logits: Vec::new(),
            until,
            streams: until.map_or_else(Vec::new, |_| {
                requests.iter().map(|_| (encoder.tokenizer().decoder(true), String::new())).collect()
            }),
            failure: None,
            work,
        };
        if watcher.keep_logits {
            watcher.logits = vec![0.0; requests.len() * watcher.vocab];
        }
        let answers = engine.generate_watched(&requests, &how, &mut watcher)?;
        let Watcher { divergences, openings, logits, failure, work, .. } = watcher;
        work.check()?;
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        Ok(Observed { divergences, openings, logits, answers, ..Observed::default() })
    }

    /// Puts what was observed of a set into the evidence of each edit.
    fn add(
        &self,
        model: &Model,
        set: usize,
        observed: &Observed,
        evidence: &mut [Evidence],
    ) -> Result<(), PipelineError> {
        let CollectedSet { plan, texts, prompts, .. } = &self.sets[set];
        let n = prompts.len();
        let name = &plan.prompts;
        for (place, slot) in evidence.iter_mut().enumerate() {
            let range = place * n..(place + 1) * n;
            let mut filled = std::mem::take(slot).with_prompts(name, Arc::clone(texts));
            if plan.first_token {
                filled = filled.with_first_token(name, observed.divergences[range.clone()].to_vec());
            }
            for (list, values) in plan.openings.iter().zip(&observed.openings) {
                filled = filled.with_openings(name, list, values[range.clone()].to_vec());
            }
            if let Some(wanted) = &plan.answers {
                let answers = &observed.answers[range.clone()];
                let texts = answers.iter().map(|it| model.text(&it.tokens)).collect::<Result<Vec<_>, _>>()?;
                filled = if wanted.judged {
                    let judged = texts.into_iter().zip(answers).zip(&observed.nats[range]);
                    let judged = judged.map(|((text, answer), &nats_per_token)| JudgedAnswer {
                        text,
                        tokens: answer.tokens.len(),
                        nats_per_token,
                    });
                    filled.with_judged_answers(name, judged.collect())
                } else {
                    filled.with_answers(name, texts)
                };
            }
            if let Some(forced) = observed.forced.get(place) {
                filled = filled.with_original_answers(name, forced.clone());
            }
            *slot = filled;
        }
        Ok(())
    }

    /// What the original thinks of answers, if that is needed: mean nats per token, 0 for empty ones.
    fn judge(
        &self,
        model: &mut Model,
        set: usize,
        answers: &[Answer],
        work: &mut Work<'_, '_>,
    ) -> Result<Vec<f64>, PipelineError> {
        let CollectedSet { plan, prompts, .. } = &self.sets[set];
        if !plan.answers.as_ref().is_some_and(|it| it.judged) {
            return Ok(Vec::new());
        }
        let rows = model.engine.info().vocab;
        let answers: Vec<Vec<TokenId>> = answers.iter().map(|it| known(&it.tokens, rows)).collect();
        let judged: Vec<usize> = (0..answers.len()).filter(|&it| !answers[it].is_empty()).collect();
        let mut nats = vec![0.0; answers.len()];
        for chunk in judged.chunks(self.batch_size.max(1)) {
            let requests: Vec<Continuation> = chunk
                .iter()
                .map(|&it| Continuation {
                    prompt: prompts[it % prompts.len()].clone(),
                    continuation: answers[it].clone(),
                    edit: 0,
                })
                .collect();
            visit_forced(&mut model.engine, work, &requests, false, &mut |it| {
                nats[chunk[it.request]] -= log_probability(&it);
            })?;
        }
        for (nats, answer) in nats.iter_mut().zip(&answers) {
            *nats /= answer.len().max(1) as f64;
        }
        Ok(nats)
    }

    /// A prompt with the original's answer to it.
    fn continuation(&self, set: usize, prompt: usize, edit: usize) -> Continuation {
        let CollectedSet { prompts, original_answers, .. } = &self.sets[set];
        Continuation { prompt: prompts[prompt].clone(), continuation: original_answers[prompt].clone(), edit }
    }

    /// Prompts to which the original has an answer.
    fn answered(&self, set: usize) -> Vec<usize> {
        let answers = &self.sets[set].original_answers;
        (0..answers.len()).filter(|&it| !answers[it].is_empty()).collect()
    }

    /// What the original makes of its own answers, `[prompts][tokens]`.
    fn force_itself(
        &self,
        model: &mut Model,
        set: usize,
        work: &mut Work<'_, '_>,
    ) -> Result<ForcedAnswers, PipelineError> {
        let mut forced = vec![Vec::new(); self.sets[set].prompts.len()];
        for chunk in self.answered(set).chunks(self.batch_size.max(1)) {
            let requests: Vec<Continuation> = chunk.iter().map(|&it| self.continuation(set, it, 0)).collect();
            visit_forced(&mut model.engine, work, &requests, false, &mut |it| {
                forced[chunk[it.request]].push(ForcedToken {
                    kl_original_edited: 0.0,
                    flipped: false,
                    log_probability: log_probability(&it),
                });
            })?;
        }
        Ok(forced)
    }

    /// What each candidate makes of the original's own answers, `[candidates][prompts][tokens]`.
    ///
    /// The original runs along: its distributions are held for one prompt at a time.
    fn force(
        &self,
        model: &mut Model,
        set: usize,
        count: usize,
        work: &mut Work<'_, '_>,
    ) -> Result<Vec<ForcedAnswers>, PipelineError> {
        let mut forced = vec![vec![Vec::new(); self.sets[set].prompts.len()]; count];
        let of_prompt = count + 1;
        let mut held = Held::default();
        for chunk in self.answered(set).chunks((self.batch_size / of_prompt).max(1)) {
            let requests: Vec<Continuation> = chunk
                .iter()
                .flat_map(|&prompt| (0..of_prompt).map(move |edit| self.continuation(set, prompt, edit)))
                .collect();
            visit_forced(&mut model.engine, work, &requests, true, &mut |it| match it.request % of_prompt {
                0 => held.keep(&it),
                edit => forced[edit - 1][chunk[it.request / of_prompt]].push(held.compare(&it)),
            })?;
        }
        Ok(forced)
    }

    /// What another model makes of the original's own answers, `[prompts][tokens]`.
    fn force_other(
        &self,
        original: &mut Model,
        other: &mut Model,
        set: usize,
        work: &mut Work<'_, '_>,
    ) -> Result<ForcedAnswers, PipelineError> {
        let mut forced = vec![Vec::new(); self.sets[set].prompts.len()];
        let mut held = Held::default();
        let rows = other.engine.info().vocab;
        for prompt in self.answered(set) {
            let Continuation { prompt: tokens, continuation, edit } = self.continuation(set, prompt, 0);
            let continuation = known(&continuation, rows);
            if continuation.is_empty() {
                continue;
            }
            let request = [Continuation { prompt: tokens, continuation, edit }];
            visit_forced(&mut original.engine, work, &request, true, &mut |it| held.keep(&it))?;
            visit_forced(&mut other.engine, work, &request, true, &mut |it| {
                forced[prompt].push(held.compare(&it));
            })?;
        }
        Ok(forced)
    }

    /// Log-probabilities of the tokens of given texts.
    fn add_texts(
        &self,
        model: &mut Model,
        edits: RangeInclusive<usize>,
        evidence: &mut [Evidence],
        work: &mut Work<'_, '_>,
    ) -> Result<(), PipelineError> {
        let window = model.engine.info().context_length.map_or(WINDOW, |it| it.min(WINDOW));
        for (text, tokens) in &self.texts {
            for (edit, slot) in edits.clone().zip(evidence.iter_mut()) {
                let mut values = Vec::with_capacity(tokens.len());
                let mut start = 0;
                // Each window begins with the last token of the one before.
                while start + 1 < tokens.len() {
                    let end = tokens.len().min(start + window);
                    let request = Continuation {
                        prompt: vec![tokens[start]],
                        continuation: tokens[start + 1..end].to_vec(),
                        edit,
                    };
                    visit_forced(&mut model.engine, work, &[request], false, &mut |it| {
                        values.push(log_probability(&it));
                    })?;
                    start = end - 1;
                }
                *slot = std::mem::take(slot).with_text(text, values);
            }
        }
        Ok(())
    }
}

/// An error if the original overflows: its empty answers would count as refusals.
fn overflow(model: &Model, set: &CollectedSet, answers: &[Answer]) -> Result<(), PipelineError> {
    match answers.iter().filter(|it| it.stop == StopReason::Overflow).count() {
        0 => Ok(()),
        count => Err(PipelineError::Overflow {
            set: set.plan.prompts.as_str().to_owned(),
            answers: count,
            of: answers.len(),
            dtype: model.engine.info().dtype.name(),
        }),
    }
}

/// What a model makes of continuations, unless that is interrupted.
fn visit_forced(
    engine: &mut Engine,
    work: &mut Work<'_, '_>,
    requests: &[Continuation],
    logits: bool,
    visit: &mut dyn FnMut(Forced<'_>),
) -> Result<(), PipelineError> {
    let cancel = work.cancel;
    engine.force_while(requests, logits, &|| !cancel.requested(), &mut |it| {
        let prompt = if it.position == 0 { requests[it.request].prompt.len() } else { 0 };
        work.advance(prompt + 1, prompt + 1);
        visit(it);
    })?;
    work.check()
}

/// Tokens of a long text that are seen at once.
const WINDOW: usize = 2048;

/// Whether a model is looked at to compare with, or to be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Original,
    Candidate,
}

/// What is made of each token of answers, `[prompts][tokens]`.
type ForcedAnswers = Vec<Vec<ForcedToken>>;

/// What is known of a set, in the order of the requests: edit by edit, prompt by prompt.
#[derive(Default)]
struct Observed {
    divergences: Vec<f64>,
    openings: Vec<Vec<f64>>,
    logits: Vec<f32>,
    answers: Vec<Answer>,
    nats: Vec<f64>,
    forced: Vec<ForcedAnswers>,
}

/// The original's distributions along one answer.
#[derive(Default)]
struct Held {
    logits: Vec<f32>,
    /// Logits of a position.
    vocab: usize,
    choices: Vec<TokenId>,
}

impl Held {
    fn keep(&mut self, it: &Forced<'_>) {
        if it.position == 0 {
            self.logits.clear();
            self.choices.clear();
            self.vocab = it.logits.len();
        }
        self.logits.extend_from_slice(it.logits);
        self.choices.push(it.choice);
    }

    fn compare(&self, it: &Forced<'_>) -> ForcedToken {
        let common = self.vocab.min(it.logits.len());
        let original = &self.logits[it.position * self.vocab..][..common];
        ForcedToken {
            kl_original_edited: kl_from_logits(original, &it.logits[..common]),
            flipped: it.choice != self.choices[it.position],
            log_probability: log_probability(it),
        }
    }
}

/// The beginning of an answer that a model has rows for: another model of the same tokenizer may have more, and say what is
/// no token.
fn known(answer: &[TokenId], rows: usize) -> Vec<TokenId> {
    answer.iter().copied().take_while(|it| it.index() < rows).collect()
}

fn log_probability(it: &Forced<'_>) -> f64 {
    f64::from(it.logit) - f64::from(it.logsumexp)
}

/// Reduces distributions as they come, and cuts answers whose verdict is known.
struct Watcher<'a, 'w, 'e> {
    set: &'a CollectedSet,
    longest_answer: usize,
    keep_logits: bool,
    vocab: usize,
    divergences: Vec<f64>,
    openings: Vec<Vec<f64>>,
    logits: Vec<f32>,
    until: Option<&'a StopRule>,
    streams: Vec<(Decoder<'a>, String)>,
    failure: Option<TokenizerError>,
    work: &'a mut Work<'w, 'e>,
}

impl Watch for Watcher<'_, '_, '_> {
    fn wants_logits(&self) -> bool {
        self.set.plan.first_token || !self.set.openings.is_empty()
    }

    fn first_logits(&mut self, request: usize, logits: &[f32]) {
        if self.keep_logits {
            self.logits[request * self.vocab..][..self.vocab].copy_from_slice(logits);
        } else if self.set.plan.first_token {
            let prompt = request % self.set.prompts.len();
            // Of models with the same tokens one may have more rows; those are no tokens.
            let vocab = self.set.original_logits.len() / self.set.prompts.len();
            let original = &self.set.original_logits[prompt * vocab..][..vocab];
            let common = vocab.min(logits.len());
            self.divergences[request] = kl_from_logits(&original[..common], &logits[..common]);
        }
        for (tokens, values) in self.set.openings.iter().zip(&mut self.openings) {
            values[request] = log_probability_of_any(logits, tokens);
        }
    }

    fn began(&mut self, request: usize) {
        let prompt = self.set.prompts[request % self.set.prompts.len()].len();
        self.work.advance(prompt, prompt);
    }

    fn ended(&mut self, _: usize, answer: &Answer) {
        self.work.advance(self.longest_answer.saturating_sub(answer.tokens.len()), 0);
    }

    fn ends(&mut self, request: usize, answer: &[TokenId]) -> bool {
        self.work.advance(1, 1);
        if self.failure.is_some() || self.work.cancel.requested() {
            return true;
        }
        let (Some(until), Some(&token)) = (self.until, answer.last()) else { return false };
        let (decoder, text) = &mut self.streams[request];
        match decoder.push(token) {
            Ok(more) if more.is_empty() => false,
            Ok(more) => {
                text.push_str(&more);
                until.verdict_known(text)
            }
            Err(failure) => {
                self.failure = Some(failure);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forced(choice: u32, logits: &[f32]) -> Forced<'_> {
        let sum: f32 = logits.iter().map(|it| it.exp()).sum();
        let (token, choice) = (TokenId(0), TokenId(choice));
        Forced { request: 0, position: 0, token, logit: logits[0], logsumexp: sum.ln(), choice, logits }
    }

    #[test]
    fn rows_of_one_model_that_are_no_tokens_of_the_other_are_left_out() {
        let (original, padded) = ([0.3_f32, -1.0, 0.7], [0.1_f32, -0.5, 0.9, 8.0, 0.0]);
        let mut held = Held::default();
        held.keep(&forced(2, &original));
        let expected = held.compare(&forced(2, &padded[..3]));
        let found = held.compare(&forced(2, &padded));
        assert_eq!(found.kl_original_edited.to_bits(), expected.kl_original_edited.to_bits());
        let mut held = Held::default();
        held.keep(&forced(2, &padded));
        held.keep(&Forced { position: 1, ..forced(2, &padded) });
        let second = Forced { position: 1, ..forced(2, &original) };
        let expected = kl_from_logits(&padded[..3], &original);
        assert_eq!(held.compare(&second).kl_original_edited.to_bits(), expected.to_bits());
    }

    #[test]
    fn along_answers_the_divergence_is_from_the_original_to_the_candidate() {
        let (original, candidate) = ([0.5_f32, 0.25, 0.25], [0.8_f32, 0.1, 0.1]);
        let logits = |it: [f32; 3]| it.map(f32::ln);
        let mut held = Held::default();
        held.keep(&forced(0, &logits(original)));
        let found = held.compare(&forced(1, &logits(candidate)));
        // Σ p ln (p / q), and what the other order would give.
        let kl = 0.5 * (0.5_f64 / 0.8).ln() + 2.0 * 0.25 * (0.25_f64 / 0.1).ln();
        let reversed = 0.8 * (0.8_f64 / 0.5).ln() + 2.0 * 0.1 * (0.1_f64 / 0.25).ln();
        assert!((found.kl_original_edited - kl).abs() < 1e-6, "{found:?}");
        assert!((kl - reversed).abs() > 0.02);
        assert!(found.flipped);
        assert!((found.log_probability - 0.8_f64.ln()).abs() < 1e-6);
    }
}
