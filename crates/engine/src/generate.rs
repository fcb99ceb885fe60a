//! Sequences through the model: prefill and greedy decoding.
//!
//! Sequences that begin alike share their common head: it is computed once for each edit set. Sequences leave
//! the batch when they end, and waiting ones take their place. A sequence's results do not depend on any of
//! this: on the processor not in a single bit.

use std::collections::{HashMap, VecDeque};

use glossary::TokenId;

use crate::backend::HeadWants;
use crate::engine::{Feed, Variant};
use crate::executor::{Output, Wants};
use crate::plan::SequenceId;
use crate::{Engine, EngineError, rules};

/// A sequence to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The prompt.
    pub tokens: Vec<TokenId>,
    /// The edit set; 0 is the original model.
    pub edit: usize,
}

/// How to continue sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Tokens that an answer has at most; with 0 only the prompts are computed.
    pub max_tokens: usize,
    /// Tokens that end an answer; they are not part of it.
    pub stop_tokens: Vec<TokenId>,
    /// Sequences that are computed together.
    pub batch: usize,
    /// How many of the first token's largest logits to tell, with their logsumexp; 0: none.
    pub top: usize,
    /// Whether to tell all logits of the first token.
    pub logits: bool,
    /// Whether to tell the residual stream at the last prompt token.
    pub residuals: bool,
}

impl Default for Generation {
    /// Answers of up to 100 tokens, 128 sequences at a time.
    fn default() -> Self {
        Self { max_tokens: 100, stop_tokens: Vec::new(), batch: 128, top: 0, logits: false, residuals: false }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended it.
    EndOfSequence,
    /// It has as many tokens as allowed.
    Length,
    /// The caller's rule said so.
    Rule,
    /// The next token's logits are infinite or no numbers: weights, or an edit, have overflowed.
    Overflow,
}

/// The distribution of the first token of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirstToken {
    /// The logarithm of the sum of the logits' exponentials, in nats.
    pub logsumexp: f32,
    /// The largest logits, in order.
    pub top: Vec<(TokenId, f32)>,
    /// All logits, `[vocab]`, if they were wanted.
    pub logits: Vec<f32>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's tokens.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub stop: StopReason,
    /// The distribution of its first token, if wanted.
    pub first_token: Option<FirstToken>,
    /// The residual stream at the last prompt token, `[sites, d_model]`, the last site after the final norm;
    /// empty if not wanted.
    pub residuals: Vec<f32>,
}

/// A sequence in the batch.
struct Active {
    request: usize,
    sequence: SequenceId,
    /// The answer's last token, not yet computed.
    next: TokenId,
    logit: f32,
}

/// What a caller sees of answers while they are made.
pub trait Watch {
    /// Whether [`Self::first_logits`] is to be called.
    fn wants_logits(&self) -> bool {
        false
    }

    /// The logits of the first answer token of a request, `[vocab]`.
    ///
    /// They are shown, not kept: those of hundreds of prompts would fill the memory.
    fn first_logits(&mut self, request: usize, logits: &[f32]) {
        let _ = (request, logits);
    }

    /// The prompt of a request is computed.
    fn began(&mut self, request: usize) {
        let _ = request;
    }

    /// The answer of a request has ended, for whatever reason.
    fn ended(&mut self, request: usize, answer: &Answer) {
        let _ = (request, answer);
    }

    /// Whether the answer of a request ends here. It is asked after every token and sees all tokens so far,
    /// which is how answers are streamed, too.
    fn ends(&mut self, request: usize, answer: &[TokenId]) -> bool;
}

/// A rule of when to stop, and nothing else.
pub(crate) struct Rule<'a>(pub(crate) &'a mut dyn FnMut(usize, &[TokenId]) -> bool);

impl Watch for Rule<'_> {
    fn ends(&mut self, request: usize, answer: &[TokenId]) -> bool {
        (self.0)(request, answer)
    }
}

impl Engine {
    /// Answers requests greedily; `rule(request, answer)` is [`Watch::ends`].
    pub fn generate(
        &mut self,
        requests: &[Request],
        how: &Generation,
        rule: &mut dyn FnMut(usize, &[TokenId]) -> bool,
    ) -> Result<Vec<Answer>, EngineError> {
        self.generate_watched(requests, how, &mut Rule(rule))
    }

    /// Answers requests greedily.
    pub fn generate_watched(
        &mut self,
        requests: &[Request],
        how: &Generation,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Answer>, EngineError> {
        let mut answers = self.begin(requests, how)?;
        let heads = self.common_heads(requests);
        self.answer(&Job { requests, how, heads: &heads, keep: false }, watch, &mut answers);
        for head in heads {
            self.table.close(head.sequence);
        }
        Ok(answers)
    }

    /// Empty answers to requests that can be answered.
    pub(crate) fn begin(&self, requests: &[Request], how: &Generation) -> Result<Vec<Answer>, EngineError> {
        for (index, request) in requests.iter().enumerate() {
            self.check(index, &request.tokens, request.edit)?;
            self.check_length(index, request.tokens.len().saturating_add(how.max_tokens.max(1)))?;
        }
        let empty = |_: &Request| Answer {
            tokens: Vec::with_capacity(how.max_tokens.min(1024)),
            stop: StopReason::Length,
            first_token: None,
            residuals: Vec::new(),
        };
        Ok(requests.iter().map(empty).collect())
    }

    /// Fills the answers in. Gives the sequences that were to be kept, in the order in which they ended.
    pub(crate) fn answer(
        &mut self,
        job: &Job<'_>,
        watch: &mut dyn Watch,
        answers: &mut [Answer],
    ) -> Vec<SequenceId> {
        let &Job { requests, how, keep, .. } = job;
        let batch = how.batch.max(1);
        let mut waiting = VecDeque::from(alike_together(requests));
        let mut active: Vec<Active> = Vec::with_capacity(batch.min(requests.len()));
        let mut kept = Vec::new();
        let mut step = Step::default();
        while !(waiting.is_empty() && active.is_empty()) {
            // New sequences come in groups: a pass of few rows costs nearly as much as one of many.
            let free = batch - active.len();
            // Which sequences have a new token: after a prefill, those that joined.
            let mut fresh = 0;
            if !waiting.is_empty() && (active.is_empty() || free >= batch.div_ceil(4)) {
                fresh = active.len();
                let joining: Vec<usize> = waiting.drain(..free.min(waiting.len())).collect();
                let sequences = self.prefill(job, &joining, watch, answers, &mut step.out);
                for ((request, sequence), &(next, logit)) in
                    joining.into_iter().zip(sequences).zip(&step.out.head.top)
                {
                    active.push(Active { request, sequence, next, logit });
                }
            } else {
                self.decode(&active, requests, answers, &mut step);
                for (active, &(next, logit)) in active.iter_mut().zip(&step.out.head.top) {
                    (active.next, active.logit) = (next, logit);
                }
            }
            let mut place = 0;
            active.retain(|it| {
                place += 1;
                if place <= fresh {
                    return true;
                }
                let ended = take_token(it, how, watch, &mut answers[it.request]);
                if ended {
                    watch.ended(it.request, &answers[it.request]);
                }
                match (ended, keep) {
                    (true, true) => kept.push(it.sequence),
                    (true, false) => self.table.close(it.sequence),
                    (false, _) => {}
                }
                !ended
            });
        }
        kept
    }

    pub(crate) fn check(&self, request: usize, tokens: &[TokenId], edit: usize) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt { request });
        }
        self.check_tokens(request, tokens)?;
        if edit > self.edit_sets {
            return Err(EngineError::UnknownEdit { request, edit, sets: self.edit_sets });
        }
        Ok(())
    }

    /// Refuses a sequence that is too long with its answer, whose last token is not computed any more.
    pub(crate) fn check_length(&self, request: usize, tokens: usize) -> Result<(), EngineError> {
        match self.info().position_limit {
            Some(limit) if tokens - 1 > limit.positions => {
                Err(EngineError::TooLong { request, position: tokens - 2, limit })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check_tokens(&self, request: usize, tokens: &[TokenId]) -> Result<(), EngineError> {
        let vocab = self.info().vocab;
        match tokens.iter().find(|it| it.index() >= vocab) {
            Some(token) => Err(EngineError::UnknownToken { request, token: token.0, vocab }),
            None => Ok(()),
        }
    }

    /// Computes what all prompts of an edit set begin with, once.
    fn common_heads(&mut self, requests: &[Request]) -> Vec<CommonHead> {
        let mut heads = Vec::new();
        for edit in 0..=self.edit_sets {
            let mut prompts = requests.iter().filter(|it| it.edit == edit).map(|it| it.tokens.as_slice());
            let Some(first) = prompts.next() else { continue };
            // Every prompt keeps a token of its own, whose output is wanted.
            let mut len = first.len() - 1;
            let mut others = 0;
            for prompt in prompts {
                let same = first.iter().zip(prompt).take_while(|(a, b)| a == b).count();
                len = len.min(same).min(prompt.len() - 1);
                others += 1;
            }
            if others > 0 && len > 0 {
                heads.push((edit, &first[..len]));
            }
        }
        let opened: Vec<CommonHead> = heads
            .iter()
            .map(|&(edit, tokens)| CommonHead { edit, len: tokens.len(), sequence: self.table.open() })
            .collect();
        let all: Vec<(&CommonHead, &[TokenId])> = opened.iter().zip(heads.iter().map(|it| it.1)).collect();
        let feeds: Vec<Feed<'_>> = all
            .chunk_by(|a, b| a.1 == b.1)
            .map(|alike| Feed {
                tokens: alike[0].1,
                variants: alike
                    .iter()
                    .map(|(head, _)| Variant { sequence: head.sequence, edit: head.edit })
                    .collect(),
                outputs: 0,
                targets: &[],
            })
            .collect();
        self.run(&feeds, usize::MAX, &mut Wants::default(), &mut Output::default(), &mut |_, _| {});
        opened
    }

    /// Computes the prompts of some requests and tells what is wanted of their first tokens.
    fn prefill(
        &mut self,
        &Job { requests, how, heads, .. }: &Job<'_>,
        joining: &[usize],
        watch: &mut dyn Watch,
        answers: &mut [Answer],
        out: &mut Output,
    ) -> Vec<SequenceId> {
        let shared = |request: usize| heads.iter().find(|it| it.edit == requests[request].edit);
        let rest = |request: usize| &requests[request].tokens[shared(request).map_or(0, |it| it.len)..];
        let groups: Vec<&[usize]> = joining
            .chunk_by(|&a, &b| requests[a].tokens == requests[b].tokens && rest(a).len() == rest(b).len())
            .collect();
        let mut sequences = Vec::with_capacity(joining.len());
        let mut feeds = Vec::with_capacity(groups.len());
        for group in &groups {
            let variants = group.iter().map(|&request| {
                let sequence = match shared(request) {
                    Some(head) => self.table.fork(head.sequence),
                    None => self.table.open(),
                };
                sequences.push(sequence);
                Variant { sequence, edit: requests[request].edit }
            });
            let variants = variants.collect();
            feeds.push(Feed { tokens: rest(group[0]), variants, outputs: 1, targets: &[] });
        }
        let top = how.top.clamp(1, self.info().vocab);
        let watched = watch.wants_logits();
        let ruled = how.max_tokens > 0 && !self.rules.is_empty();
        let (rules, mut seen, mut changed) = (self.rules.clone(), std::mem::take(&mut self.seen), Vec::new());
        let mut wants = Wants {
            head: HeadWants {
                top,
                logsumexp: how.top > 0 || how.logits,
                logits: how.logits || watched || ruled,
                targets: Vec::new(),
            },
            residuals: how.residuals,
        };
        out.clear();
        let vocab = self.info().vocab;
        let stream = (self.info().n_layers + 1) * self.info().d_model;
        let mut choices = Vec::with_capacity(joining.len());
        self.run(&feeds, usize::MAX, &mut wants, out, &mut |places, out| {
            for (row, place) in places.iter().enumerate() {
                let request = groups[place.feed][place.variant];
                let answer = &mut answers[request];
                watch.began(request);
                if watched {
                    watch.first_logits(request, &out.head.logits[row * vocab..][..vocab]);
                }
                let largest = &out.head.top[row * top..][..top];
                choices.push(largest[0]);
                if ruled && largest[0].1.is_finite() {
                    changed.clear();
                    changed.extend_from_slice(&out.head.logits[row * vocab..][..vocab]);
                    rules.apply(&requests[request].tokens, &[], &mut changed, &mut seen);
                    *choices.last_mut().expect("it was pushed just now") = rules::largest(&changed);
                }
                if wants_first(how) {
                    answer.first_token = Some(FirstToken {
                        logsumexp: out.head.logsumexp[row],
                        top: largest[..how.top.min(top)].to_vec(),
                        logits: if how.logits {
                            out.head.logits[row * vocab..][..vocab].to_vec()
                        } else {
                            Vec::new()
                        },
                    });
                }
                if how.residuals {
                    answer.residuals = out.residuals[row * stream..][..stream].to_vec();
                }
            }
            out.clear();
        });
        self.seen = seen;
        out.head.top.extend(choices);
        sequences
    }

    /// One more token for every sequence of the batch.
    fn decode(&mut self, active: &[Active], requests: &[Request], answers: &[Answer], step: &mut Step) {
        step.out.clear();
        step.wants.head.top = 1;
        step.wants.head.logits = !self.rules.is_empty();
        self.step(
            active.iter().map(|it| (it.sequence, it.next, requests[it.request].edit)),
            &step.wants,
            &mut step.out,
        );
        if !step.wants.head.logits {
            return;
        }
        let vocab = self.info().vocab;
        let rows = step.out.head.logits.chunks_exact_mut(vocab).zip(&mut step.out.head.top);
        for (it, (logits, top)) in active.iter().zip(rows) {
            if top.1.is_finite() {
                let (prompt, answer) = (&requests[it.request].tokens, &answers[it.request].tokens);
                self.rules.apply(prompt, answer, logits, &mut self.seen);
                *top = rules::largest(logits);
            }
        }
    }
}

/// What does not change while requests are answered.
pub(crate) struct Job<'a> {
    pub(crate) requests: &'a [Request],
    pub(crate) how: &'a Generation,
    pub(crate) heads: &'a [CommonHead],
    /// Whether sequences stay open when their answers end.
    pub(crate) keep: bool,
}

/// The head that all prompts of an edit set have in common.
pub(crate) struct CommonHead {
    pub(crate) edit: usize,
    pub(crate) len: usize,
    pub(crate) sequence: SequenceId,
}

/// Memory that is kept from step to step.
#[derive(Default)]
struct Step {
    wants: Wants,
    out: Output,
}

/// The requests' places, those of the same prompt one after the other.
fn alike_together(requests: &[Request]) -> Vec<usize> {
    let mut first = HashMap::with_capacity(requests.len());
    let mut order: Vec<(usize, usize)> = requests
        .iter()
        .enumerate()
        .map(|(place, it)| (*first.entry(it.tokens.as_slice()).or_insert(place), place))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|it| it.1).collect()
}

fn wants_first(how: &Generation) -> bool {
    how.top > 0 || how.logits
}

/// Adds a sequence's next token to its answer; true when the answer has ended.
fn take_token(active: &Active, how: &Generation, watch: &mut dyn Watch, answer: &mut Answer) -> bool {
    if !active.logit.is_finite() {
        answer.stop = StopReason::Overflow;
        return true;
    }
    if how.max_tokens == 0 {
        return true;
    }
    if how.stop_tokens.contains(&active.next) {
        answer.stop = StopReason::EndOfSequence;
        return true;
    }
    answer.tokens.push(active.next);
    if watch.ends(active.request, &answer.tokens) {
        answer.stop = StopReason::Rule;
        return true;
    }
    answer.tokens.len() >= how.max_tokens
}
