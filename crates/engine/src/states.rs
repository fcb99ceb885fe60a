//! Where the states of recurrent layers lie.
//!
//! A recurrent layer remembers a sequence in a state of fixed size instead of keys and values of every position. States
//! lie in numbered slots, the same number in all layers. Sequences that begin alike share the slot of their common
//! head; a shared slot is never written: who goes on from it writes to one of its own.

/// From which state the rows of a sequence go on, and where the state after them goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateStep {
    /// The slot of the state before the first row; `None`: the sequence begins, the state is zero.
    pub from: Option<u32>,
    /// The slot of the state after the last row; it may be the same.
    pub to: u32,
}

/// Which slots are in use.
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    /// How many sequences refer to each slot.
    users: Vec<u32>,
    free: Vec<u32>,
    /// References that the rows of the pass at hand still read through.
    spent: Vec<u32>,
}

impl StateTable {
    /// Slots that exist, used or free.
    pub(crate) fn slots(&self) -> usize {
        self.users.len()
    }

    /// One more sequence refers to a slot.
    pub(crate) fn share(&mut self, slot: u32) {
        self.users[slot as usize] += 1;
    }

    /// One sequence less refers to a slot.
    pub(crate) fn release(&mut self, slot: u32) {
        let users = &mut self.users[slot as usize];
        *users -= 1;
        if *users == 0 {
            self.free.push(slot);
        }
    }

    /// Lets a sequence go on from its slot; the step's `to` is its slot from then on.
    ///
    /// A slot that others share is read until [`Self::settle`]: the last of them to go on in the same pass must not write
    /// over what the others are reading.
    pub(crate) fn advance(&mut self, from: Option<u32>) -> StateStep {
        if let Some(own) = from.filter(|&it| self.users[it as usize] == 1) {
            return StateStep { from, to: own };
        }
        self.spent.extend(from);
        let to = self.free.pop().unwrap_or_else(|| {
            self.users.push(0);
            self.users.len() as u32 - 1
        });
        self.users[to as usize] = 1;
        StateStep { from, to }
    }

    /// The pass is over.
    pub(crate) fn settle(&mut self) {
        while let Some(slot) = self.spent.pop() {
            self.release(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_alone_goes_on_in_its_own_slot() {
        let mut table = StateTable::default();
        let first = table.advance(None);
        assert_eq!(first, StateStep { from: None, to: 0 });
        assert_eq!(table.advance(Some(0)), StateStep { from: Some(0), to: 0 });
        table.release(0);
        assert_eq!(table.advance(None).to, 0, "a slot is used again once nobody refers to it");
        assert_eq!(table.slots(), 1);
    }

    #[test]
    fn nobody_writes_to_a_slot_that_others_read_in_the_same_pass() {
        let mut table = StateTable::default();
        let head = table.advance(None).to;
        table.share(head); // two forks of it; the head itself is closed
        let (a, b) = (table.advance(Some(head)), table.advance(Some(head)));
        assert_eq!((a.from, b.from), (Some(head), Some(head)));
        assert!(a.to != head && b.to != head && a.to != b.to, "{a:?} {b:?}");
        table.settle();
        assert_eq!(table.advance(None).to, head, "free after the pass");
    }

    #[test]
    fn a_head_that_stays_open_keeps_its_state() {
        let mut table = StateTable::default();
        let head = table.advance(None).to;
        for _ in 0..3 {
            table.share(head);
            let fork = table.advance(Some(head));
            table.settle();
            assert_ne!(fork.to, head);
            table.release(fork.to);
        }
        assert_eq!(table.advance(Some(head)).to, head);
        assert_eq!(table.slots(), 2);
    }
}
