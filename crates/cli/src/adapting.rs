//! Saving what changes in a model as an adapter.

use std::path::Path;

use ablation::Parameters;
use pipeline::{Adapter, AdapterKind, Cancel, Product, ScoreRecord, Session};

use crate::interrupt;
use crate::report::{self, Teller};
use crate::saving::card_beside;
use crate::terminal::remark;

/// How an adapter is made and written.
pub(crate) struct Adapting {
    pub(crate) kind: AdapterKind,
    /// Of an edit that has to be truncated.
    pub(crate) rank: usize,
    /// Whether an edit that was truncated is scored once more.
    pub(crate) check: bool,
}

impl Adapting {
    /// Writes the adapter. `scores`: those of the edit on the run's prompts, and on others that the search did not see.
    pub(crate) fn save(
        &self,
        session: &mut Session,
        parameters: &Parameters,
        scores: (&[ScoreRecord], &[ScoreRecord]),
        target: &Path,
        teller: &mut Teller,
    ) -> anyhow::Result<()> {
        let cancel = Cancel(&interrupt::requested);
        let mut tell = |it| teller.tell(&it);
        let adapter = Adapter::of(session, parameters, self.kind, self.rank, &mut tell, &cancel)?;
        let scored = match adapter.relative_error() {
            Some(_) if self.check => {
                Some(session.evaluate_edits(adapter.edit_set(), &mut tell, &cancel)?.scores)
            }
            _ => None,
        };
        // Scores on other prompts are those of the exact edit.
        let (scores, unseen) = scored.as_deref().map_or(scores, |it| (it, &[]));
        let product = Product::Adapter { adapter: &adapter, scored: scored.is_some() };
        let card = pipeline::model_card(session, parameters, scores, unseen, product);
        adapter.write(target, &card, &mut tell, &cancel)?;
        if self.kind == AdapterKind::Gguf {
            card_beside(target, &card)?;
        }
        teller.done();
        let rank = adapter.rank();
        match &scored {
            Some(scores) => remark(&format!("with the adapter of rank {rank}: {}", report::summary(scores))),
            None if adapter.relative_error().is_some() => {}
            None => remark(&format!("the adapter, of rank {rank}, is exact")),
        }
        Ok(())
    }
}
