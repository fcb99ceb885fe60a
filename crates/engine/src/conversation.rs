//! A conversation: prompts that begin with what was computed before.
//!
//! Each prompt of a conversation is the one before it, with the answer and something new. Keys and values of what
//! is the same are kept, so that a turn costs as much as it adds, however long the conversation is.

use glossary::TokenId;

use crate::generate::{CommonHead, Job, Rule};
use crate::plan::SequenceId;
use crate::{Answer, Engine, EngineError, Generation, Request};

/// What has been computed of a conversation; it belongs to the engine that made it.
#[derive(Debug)]
pub struct Conversation {
    edit: usize,
    /// How often the engine's edits had been set.
    edition: u64,
    tokens: Vec<TokenId>,
    sequence: SequenceId,
}

impl Engine {
    /// A conversation with an edit set; 0 is the original model. [`Self::end`] gives its memory back.
    pub fn converse(&mut self, edit: usize) -> Conversation {
        Conversation { edit, edition: self.edition, tokens: Vec::new(), sequence: self.table.open() }
    }

    /// Answers a prompt, the whole conversation so far: exactly as [`Self::generate`] does, but what the last call
    /// computed is not computed again. `rule(answer)` is asked after every token whether the answer ends.
    ///
    /// If edits have been set since, everything is: a conversation goes on with the edit of its index.
    pub fn reply(
        &mut self,
        conversation: &mut Conversation,
        prompt: &[TokenId],
        how: &Generation,
        rule: &mut dyn FnMut(&[TokenId]) -> bool,
    ) -> Result<Answer, EngineError> {
        let request = [Request { tokens: prompt.to_vec(), edit: conversation.edit }];
        let mut answers = self.begin(&request, how)?;
        // The last token's output is wanted, so it is computed in any case.
        let known = if conversation.edition == self.edition { &conversation.tokens[..] } else { &[] };
        let len = prompt[..prompt.len() - 1].iter().zip(known).take_while(|(a, b)| a == b).count();
        let len = self.table.truncate(conversation.sequence, len);
        let head = CommonHead { edit: conversation.edit, len, sequence: conversation.sequence };
        let job = Job { requests: &request, how, heads: &[head], keep: true };
        let kept = self.answer(&job, &mut Rule(&mut |_, answer| rule(answer)), &mut answers);
        let answer = answers.swap_remove(0);
        self.table.close(conversation.sequence);
        conversation.sequence = kept[0];
        conversation.edition = self.edition;
        conversation.tokens.truncate(len);
        conversation.tokens.extend_from_slice(&prompt[len..]);
        conversation.tokens.extend_from_slice(&answer.tokens);
        // An answer's last token has not been computed.
        conversation.tokens.truncate(self.table.len(conversation.sequence) as usize);
        Ok(answer)
    }

    /// Forgets a conversation.
    #[expect(clippy::needless_pass_by_value, reason = "what has ended cannot be used")]
    pub fn end(&mut self, conversation: Conversation) {
        self.table.close(conversation.sequence);
    }
}
