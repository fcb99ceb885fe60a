//! Given continuations through the model: what it thinks of each of their tokens.

use glossary::TokenId;

use crate::backend::HeadWants;
use crate::engine::Feed;
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
    /// With `logits`, each token comes with the whole distribution that it was judged by.
    pub fn force(
        &mut self,
        requests: &[Continuation],
        logits: bool,
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
        let vocab = self.info().vocab;
        let mut targets = Vec::new();
        let mut places = Vec::new();
        let mut inputs = Vec::with_capacity(requests.len());
        for (request, it) in requests.iter().enumerate() {
            let given = it.continuation.len();
            targets.extend_from_slice(&it.continuation);
            places.extend((0..given).map(|position| (request, position)));
            inputs.push([&it.prompt[..], &it.continuation[..given - 1]].concat());
        }
        let feeds: Vec<Feed<'_>> = requests
            .iter()
            .zip(&inputs)
            .map(|(it, tokens)| Feed {
                sequence: self.table.open(),
                tokens,
                edit: it.edit,
                outputs: it.continuation.len(),
            })
            .collect();
        let rows = if logits { (LOGITS / vocab).max(1) } else { usize::MAX };
        let mut wants = Wants {
            head: HeadWants { top: 1, logsumexp: true, logits, targets: targets.clone() },
            residuals: false,
        };
        let mut done = 0;
        self.run(&feeds, rows, &mut wants, &mut Output::default(), &mut |count, out| {
            for row in 0..count {
                let (request, position) = places[done];
                visit(Forced {
                    request,
                    position,
                    token: targets[done],
                    logit: out.head.targets[row],
                    logsumexp: out.head.logsumexp[row],
                    choice: out.head.top[row].0,
                    logits: if logits { &out.head.logits[row * vocab..][..vocab] } else { &[] },
                });
                done += 1;
            }
            out.clear();
        });
        for feed in feeds {
            self.table.close(feed.sequence);
        }
        Ok(())
    }
}
