//! Given continuations through the model: what it thinks of each of their tokens.

use glossary::TokenId;

use crate::backend::HeadWants;
use crate::engine::{Feed, Variant};
use crate::executor::{Output, Wants};
use crate::{Engine, EngineError};

/// A given continuation of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The prompt.
    pub prompt: Vec<TokenId>,
    /// What follows.
    pub continuation: Vec<TokenId>,
    /// The edit set; 0 is the original model.
    pub edit: usize,
}

/// What the model thinks of one token of a given continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forced<'a> {
    /// The request's place in the list.
    pub request: usize,
    /// The token's place in the continuation.
    pub position: usize,
    /// The token.
    pub token: TokenId,
    /// Its logit.
    pub logit: f32,
    /// The logarithm of the sum of all logits' exponentials, in nats.
    pub logsumexp: f32,
    /// The token that the model would have chosen.
    pub choice: TokenId,
    /// All logits, if they were wanted; else empty.
    pub logits: &'a [f32],
}

impl Engine {
    /// The model's opinion of given continuations, token by token, in one pass without decoding.
    ///
    /// With `logits`, each token comes with the whole distribution that it was judged by. Tokens of a request come
    /// in order; requests that differ in their edits alone and follow each other come in turns, some tokens of the
    /// one, then those of the next.
    pub fn force(
        &mut self,
        requests: &[Continuation],
        logits: bool,
        visit: &mut dyn FnMut(Forced<'_>),
    ) -> Result<(), EngineError> {
        self.force_while(requests, logits, &|| true, visit)
    }

    /// The same as long as `go_on` says so, which is asked before each pass of some hundred tokens: what was not visited
    /// then stays so.
    pub fn force_while(
        &mut self,
        requests: &[Continuation],
        logits: bool,
        go_on: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(Forced<'_>),
    ) -> Result<(), EngineError> {
        // Room for the logits of one pass, in numbers: 128 MiB.
        const LOGITS: usize = 32 << 20;
        for (request, it) in requests.iter().enumerate() {
            self.check(request, &it.prompt, it.edit)?;
            self.check_tokens(request, &it.continuation)?;
            if it.continuation.is_empty() {
                return Err(EngineError::EmptyContinuation { request });
            }
            self.check_length(request, it.prompt.len() + it.continuation.len())?;
        }
        // Candidates with the same tokens go through the model together.
        let same =
            |a: &Continuation, b: &Continuation| (&a.prompt, &a.continuation) == (&b.prompt, &b.continuation);
        let groups: Vec<&[Continuation]> = requests.chunk_by(same).collect();
        let inputs: Vec<Vec<TokenId>> = groups
            .iter()
            .map(|it| [&it[0].prompt[..], &it[0].continuation[..it[0].continuation.len() - 1]].concat())
            .collect();
        let feeds: Vec<Feed<'_>> = groups
            .iter()
            .zip(&inputs)
            .map(|(group, tokens)| Feed {
                tokens,
                variants: group
                    .iter()
                    .map(|it| Variant { sequence: self.table.open(), edit: it.edit })
                    .collect(),
                outputs: group[0].continuation.len(),
                targets: &group[0].continuation,
            })
            .collect();
        let mut first_request = 0;
        let first_requests: Vec<usize> = groups
            .iter()
            .map(|it| {
                first_request += it.len();
                first_request - it.len()
            })
            .collect();
        let vocab = self.info().vocab;
        let rows = if logits { (LOGITS / vocab).max(1) } else { usize::MAX };
        let mut wants = Wants {
            head: HeadWants { top: 1, logsumexp: true, logits, targets: Vec::new() },
            residuals: false,
        };
        self.run_while(go_on, &feeds, rows, &mut wants, &mut Output::default(), &mut |places, out| {
            for (row, place) in places.iter().enumerate() {
                visit(Forced {
                    request: first_requests[place.feed] + place.variant,
                    position: place.output,
                    token: feeds[place.feed].targets[place.output],
                    logit: out.head.targets[row],
                    logsumexp: out.head.logsumexp[row],
                    choice: out.head.top[row].0,
                    logits: if logits { &out.head.logits[row * vocab..][..vocab] } else { &[] },
                });
            }
            out.clear();
        });
        for variant in feeds.iter().flat_map(|it| &it.variants) {
            self.table.close(variant.sequence);
        }
        Ok(())
    }
}
