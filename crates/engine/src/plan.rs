//! What is known of the rows of one forward pass, and where their keys and values lie.
//!
//! Rows of all sequences are packed end to end; nothing is padded. Keys and values are kept in pages of
//! [`PAGE`] positions. A sequence is a list of [`Chunk`]s, so that sequences which begin alike share the pages of
//! their common head. Where layers are recurrent it has a state beside them.

use glossary::TokenId;

pub use crate::states::StateStep;
use crate::states::StateTable;

/// Positions that a page of the key/value cache holds.
pub const PAGE: usize = 16;

/// The filled part of a page, from its first position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The page.
    pub page: u32,
    /// How many of its positions belong to the sequence.
    pub len: u32,
}

/// Where one token's key and value are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The page.
    pub page: u32,
    /// The position within the page.
    pub offset: u32,
}

/// What a row that another one stands for depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The row that is computed for it.
    pub leader: u32,
    /// The first block that it is computed in itself.
    pub until: usize,
}

/// The rows of one forward pass.
#[derive(Debug, Default)]
pub struct Plan {
    /// The token of each row.
    pub tokens: Vec<TokenId>,
    /// The token's position in its sequence, from 0.
    pub positions: Vec<u32>,
    /// Which edit set applies to the row; 0 is the original model.
    pub edits: Vec<u32>,
    /// Where the row's key and value go.
    pub slots: Vec<Slot>,
    /// Which of the contexts below the row attends to, up to and including its own position.
    context: Vec<u32>,
    /// Where each context's chunks begin, and one more entry for where the last ends.
    starts: Vec<u32>,
    chunks: Vec<Chunk>,
    /// By context.
    states: Vec<StateStep>,
    /// By row, as far as rows follow others.
    follows: Vec<Option<Following>>,
    /// More slots that a row's key and value go to, in the order of rows.
    echoes: Vec<(u32, Slot)>,
    /// More slots that the state after a context's rows goes to, in the order of contexts.
    state_echoes: Vec<(u32, u32)>,
}

/// Rows that follow each other in one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: usize,
    /// How many there are.
    pub rows: usize,
    context: u32,
}

impl Plan {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.edits.clear();
        self.slots.clear();
        self.context.clear();
        self.starts.clear();
        self.chunks.clear();
        self.states.clear();
        self.follows.clear();
        self.echoes.clear();
        self.state_echoes.clear();
    }

    /// The number of the context that is added next.
    pub fn next_context(&self) -> u32 {
        (self.starts.len() as u32).saturating_sub(1)
    }

    /// Adds a context: the chunks of a sequence, the rows of this pass included.
    pub fn push_context(&mut self, chunks: &[Chunk]) {
        self.push_recurrent_context(chunks, StateStep::default());
    }

    /// The same of a sequence that has a state beside its chunks.
    pub fn push_recurrent_context(&mut self, chunks: &[Chunk], state: StateStep) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.chunks.extend_from_slice(chunks);
        self.starts.push(self.chunks.len() as u32);
        self.states.push(state);
    }

    /// Adds a row that attends to a context.
    pub fn push_row(&mut self, token: TokenId, position: u32, edit: u32, slot: Slot, context: u32) {
        self.tokens.push(token);
        self.positions.push(position);
        self.edits.push(edit);
        self.slots.push(slot);
        self.context.push(context);
    }

    /// Lets a row follow another one.
    pub fn follow(&mut self, row: usize, following: Following) {
        self.follows.resize(self.rows(), None);
        self.follows[row] = Some(following);
    }

    /// Whether any row follows another one.
    pub fn has_followers(&self) -> bool {
        !self.follows.is_empty()
    }

    /// What a row follows, if anything.
    pub fn follows(&self, row: usize) -> Option<Following> {
        self.follows.get(row).copied().flatten()
    }

    /// Lets keys and values go to more slots than their own.
    pub fn echo(&mut self, echoes: impl IntoIterator<Item = (u32, Slot)>) {
        self.echoes.extend(echoes);
        self.echoes.sort_by_key(|it| it.0);
    }

    /// The other slots that a row's key and value go to.
    pub fn echoes(&self, row: usize) -> impl Iterator<Item = Slot> {
        let from = self.echoes.partition_point(|it| (it.0 as usize) < row);
        self.echoes[from..].iter().take_while(move |it| it.0 as usize == row).map(|it| it.1)
    }

    /// The rows of each sequence; those of a context lie side by side.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let mut first = 0;
        self.context.chunk_by(|a, b| a == b).map(move |rows| {
            let run = Run { first, rows: rows.len(), context: rows[0] };
            first += rows.len();
            run
        })
    }

    /// From where to where the state of a run's sequence goes.
    pub fn state_of(&self, run: Run) -> StateStep {
        self.states[run.context as usize]
    }

    /// The slots that the state after a run goes to: its own, and its echoes.
    pub fn states_after(&self, run: Run) -> impl Iterator<Item = u32> {
        let from = self.state_echoes.partition_point(|it| it.0 < run.context);
        let echoes =
            self.state_echoes[from..].iter().take_while(move |it| it.0 == run.context).map(|it| it.1);
        std::iter::once(self.state_of(run).to).chain(echoes)
    }

    /// Lets states go to more slots than their own: those of the runs of rows that follow others beyond a block.
    pub(crate) fn echo_states(&mut self, pass: &Self, block: usize) {
        for run in pass.runs() {
            if let Some(Following { leader, .. }) = pass.follows(run.first).filter(|it| it.until > block) {
                self.state_echoes.push((pass.context[leader as usize], pass.state_of(run).to));
            }
        }
        self.state_echoes.sort_by_key(|it| it.0);
    }

    /// The chunks that a row attends to; the row sees the first `positions[row] + 1` positions of them.
    pub fn chunks_of(&self, row: usize) -> &[Chunk] {
        let context = self.context[row] as usize;
        &self.chunks[self.starts[context] as usize..self.starts[context + 1] as usize]
    }

    /// Makes `to` the plan of some of the rows, in the given order.
    pub fn select(&self, rows: &[u32], to: &mut Self) {
        to.clear();
        to.starts.extend_from_slice(&self.starts);
        to.chunks.extend_from_slice(&self.chunks);
        to.states.extend_from_slice(&self.states);
        for &row in rows {
            let row = row as usize;
            to.push_row(
                self.tokens[row],
                self.positions[row],
                self.edits[row],
                self.slots[row],
                self.context[row],
            );
        }
    }
}

/// Which pages each sequence has, and which state.
#[derive(Debug, Default)]
pub struct PageTable {
    /// How many chunks refer to each page.
    users: Vec<u32>,
    free: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    vacant: Vec<u32>,
    /// `None` where no layer is recurrent.
    states: Option<StateTable>,
}

/// A sequence of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u32);

#[derive(Debug, Default)]
struct Sequence {
    chunks: Vec<Chunk>,
    len: u32,
    state: Option<u32>,
}

impl PageTable {
    /// A table of sequences that have states, too.
    pub fn recurrent() -> Self {
        Self { states: Some(StateTable::default()), ..Self::default() }
    }

    /// An empty sequence.
    pub fn open(&mut self) -> SequenceId {
        self.insert(Sequence::default())
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        if let Some(id) = self.vacant.pop() {
            self.sequences[id as usize] = Some(sequence);
            return SequenceId(id);
        }
        self.sequences.push(Some(sequence));
        SequenceId(self.sequences.len() as u32 - 1)
    }

    /// A sequence that begins with all of another's positions and shares their pages.
    pub fn fork(&mut self, id: SequenceId) -> SequenceId {
        let Sequence { chunks, len, state } = self.get(id);
        let (chunks, len, state) = (chunks.clone(), *len, *state);
        for chunk in &chunks {
            self.users[chunk.page as usize] += 1;
        }
        if let (Some(states), Some(state)) = (&mut self.states, state) {
            states.share(state);
        }
        self.insert(Sequence { chunks, len, state })
    }

    /// Gives a sequence's pages back.
    pub fn close(&mut self, id: SequenceId) {
        let sequence = self.sequences[id.0 as usize].take().expect("a sequence is closed once");
        self.vacant.push(id.0);
        for chunk in sequence.chunks {
            release(&mut self.users, &mut self.free, chunk.page);
        }
        if let (Some(states), Some(state)) = (&mut self.states, sequence.state) {
            states.release(state);
        }
    }

    /// Forgets all positions of a sequence but the first `len`, and tells how many are left: none where there is a
    /// state, which cannot be wound back.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> usize {
        let sequence = self.sequences[id.0 as usize].as_mut().expect("the sequence is open");
        let mut len = len.min(sequence.len as usize);
        if let Some(states) = &mut self.states
            && len < sequence.len as usize
        {
            if let Some(state) = sequence.state.take() {
                states.release(state);
            }
            len = 0;
        }
        while sequence.len as usize > len {
            let surplus = sequence.len - len as u32;
            let last = sequence.chunks.last_mut().expect("chunks hold all positions");
            if last.len > surplus {
                last.len -= surplus;
                sequence.len -= surplus;
            } else {
                sequence.len -= last.len;
                let page = last.page;
                sequence.chunks.pop();
                release(&mut self.users, &mut self.free, page);
            }
        }
        len
    }

    /// Lets a sequence's state go on; nothing where no layer is recurrent.
    pub fn advance(&mut self, id: SequenceId) -> StateStep {
        let Some(states) = &mut self.states else { return StateStep::default() };
        let sequence = self.sequences[id.0 as usize].as_mut().expect("the sequence is open");
        let step = states.advance(sequence.state);
        sequence.state = Some(step.to);
        step
    }

    /// A pass is over: states that it read may be written again.
    pub fn settle(&mut self) {
        if let Some(states) = &mut self.states {
            states.settle();
        }
    }

    /// Slots of states that exist, used or free.
    pub fn states(&self) -> usize {
        self.states.as_ref().map_or(0, StateTable::slots)
    }

    /// Makes room for one more position.
    pub fn append(&mut self, id: SequenceId) -> Slot {
        let sequence = self.sequences[id.0 as usize].as_mut().expect("the sequence is open");
        sequence.len += 1;
        if let Some(last) = sequence.chunks.last_mut() {
            // A shared page is never written: what follows a common head goes into a page of its own.
            if (last.len as usize) < PAGE && self.users[last.page as usize] == 1 {
                last.len += 1;
                return Slot { page: last.page, offset: last.len - 1 };
            }
        }
        let page = self.free.pop().unwrap_or_else(|| {
            self.users.push(0);
            self.users.len() as u32 - 1
        });
        self.users[page as usize] = 1;
        sequence.chunks.push(Chunk { page, len: 1 });
        Slot { page, offset: 0 }
    }

    /// Where a sequence's positions lie.
    pub fn chunks(&self, id: SequenceId) -> &[Chunk] {
        &self.get(id).chunks
    }

    /// How many positions a sequence has.
    pub fn len(&self, id: SequenceId) -> u32 {
        self.get(id).len
    }

    /// Pages that exist, used or free.
    pub fn pages(&self) -> usize {
        self.users.len()
    }

    fn get(&self, id: SequenceId) -> &Sequence {
        self.sequences[id.0 as usize].as_ref().expect("the sequence is open")
    }
}

/// One chunk less refers to a page.
fn release(users: &mut [u32], free: &mut Vec<u32>, page: u32) {
    let users = &mut users[page as usize];
    *users -= 1;
    if *users == 0 {
        free.push(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(table: &mut PageTable, id: SequenceId, count: usize) -> Vec<Slot> {
        (0..count).map(|_| table.append(id)).collect()
    }

    #[test]
    fn a_sequence_fills_its_pages_in_order() {
        let mut table = PageTable::default();
        let id = table.open();
        let slots = fill(&mut table, id, PAGE + 2);
        assert_eq!(slots[PAGE - 1], Slot { page: 0, offset: PAGE as u32 - 1 });
        assert_eq!(slots[PAGE], Slot { page: 1, offset: 0 });
        assert_eq!(table.chunks(id), [Chunk { page: 0, len: PAGE as u32 }, Chunk { page: 1, len: 2 }]);
        assert_eq!(table.len(id), PAGE as u32 + 2);
    }

    #[test]
    fn forks_share_what_was_there_and_never_write_to_it() {
        let mut table = PageTable::default();
        let head = table.open();
        fill(&mut table, head, 5);
        let (a, b) = (table.fork(head), table.fork(head));
        let (in_a, in_b) = (table.append(a), table.append(b));
        assert_ne!(in_a.page, in_b.page);
        assert_eq!((in_a.offset, in_b.offset), (0, 0));
        assert_eq!(table.append(head), Slot { page: 3, offset: 0 });
        assert_eq!(table.chunks(a), [Chunk { page: 0, len: 5 }, Chunk { page: in_a.page, len: 1 }]);
        assert_eq!(table.len(a), 6);
    }

    #[test]
    fn a_page_is_used_again_once_its_last_sequence_is_closed() {
        let mut table = PageTable::default();
        let head = table.open();
        fill(&mut table, head, 3);
        let fork = table.fork(head);
        table.close(head);
        let other = table.open();
        assert_eq!(table.append(other).page, 1, "page 0 is still the fork's");
        table.close(fork);
        let another = table.open();
        assert_eq!(table.append(another).page, 0);
        assert_eq!(table.pages(), 2);
    }

    #[test]
    fn the_last_owner_of_a_page_goes_on_in_it() {
        let mut table = PageTable::default();
        let head = table.open();
        fill(&mut table, head, 3);
        let fork = table.fork(head);
        table.close(head);
        assert_eq!(table.append(fork), Slot { page: 0, offset: 3 });
    }

    #[test]
    fn a_shortened_sequence_gives_pages_back_and_goes_on_where_it_ends() {
        let mut table = PageTable::default();
        let id = table.open();
        fill(&mut table, id, 2 * PAGE + 3);
        table.truncate(id, PAGE + 4);
        assert_eq!(table.len(id), PAGE as u32 + 4);
        assert_eq!(table.append(id), Slot { page: 1, offset: 4 });
        let other = table.open();
        assert_eq!(table.append(other).page, 2, "what was cut off is free");
        table.truncate(id, 100);
        assert_eq!(table.len(id), PAGE as u32 + 5);
        table.truncate(id, 0);
        assert!(table.chunks(id).is_empty() && table.len(id) == 0);
    }

    #[test]
    fn what_a_fork_shares_survives_when_the_other_is_shortened() {
        let mut table = PageTable::default();
        let head = table.open();
        fill(&mut table, head, PAGE + 2);
        let fork = table.fork(head);
        table.truncate(head, 3);
        let slot = table.append(head);
        assert!(slot.page > 1, "a shared page is never written");
        assert_eq!(table.chunks(fork), [Chunk { page: 0, len: PAGE as u32 }, Chunk { page: 1, len: 2 }]);
    }
}
