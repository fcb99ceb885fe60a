//! Rows that stand for others until an edit tells them apart.
//!
//! Candidates that read the same tokens compute the same until the first block that one of them edits. So among
//! rows of the same token at the same position the one whose edits begin last is the *leader*: the others, its
//! *followers*, are not computed until the block where their own edits begin, and take a copy of the leader's row
//! then. Their keys and values of the blocks before are stored with the leader's. Nothing is approximated: the
//! same operation on the same numbers is left out.

use crate::plan::{Following, Plan};

/// The rows of a pass that are computed in the blocks at hand.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// The plan of these rows.
    pub(crate) plan: Plan,
    /// Which rows of the pass they are, in order.
    live: Vec<u32>,
    /// For every row of the pass the place, among these, of itself or of its leader.
    places: Vec<u32>,
    gather: Vec<u32>,
    chosen: Vec<u32>,
}

impl Stage {
    /// The rows of the first block.
    pub(crate) fn begin(&mut self, pass: &Plan) {
        self.arrange(pass, 0);
    }

    /// Goes on to a block. If rows go their own way from there on, tells of which row so far each is a copy.
    pub(crate) fn advance(&mut self, pass: &Plan, block: usize) -> Option<&[u32]> {
        if !(0..pass.rows()).any(|row| pass.follows(row).is_some_and(|it| it.until == block)) {
            return None;
        }
        self.gather.clear();
        for row in 0..pass.rows() {
            if is_live(pass, row, block) {
                self.gather.push(self.places[row]);
            }
        }
        self.arrange(pass, block);
        Some(&self.gather)
    }

    /// Where some rows of the pass, or their leaders, are among those at hand.
    pub(crate) fn places(&mut self, rows: &[u32]) -> &[u32] {
        self.chosen.clear();
        self.chosen.extend(rows.iter().map(|&it| self.places[it as usize]));
        &self.chosen
    }

    fn arrange(&mut self, pass: &Plan, block: usize) {
        self.live.clear();
        self.live.extend((0..pass.rows()).filter(|&it| is_live(pass, it, block)).map(|it| it as u32));
        self.places.clear();
        self.places.resize(pass.rows(), 0);
        for (place, &row) in self.live.iter().enumerate() {
            self.places[row as usize] = place as u32;
        }
        pass.select(&self.live, &mut self.plan);
        let places = &mut self.places;
        self.plan.echo((0..pass.rows()).filter_map(|row| {
            let Following { leader, .. } = pass.follows(row).filter(|it| it.until > block)?;
            places[row] = places[leader as usize];
            Some((places[row], pass.slots[row]))
        }));
        self.plan.echo_states(pass, block);
    }
}

fn is_live(pass: &Plan, row: usize, block: usize) -> bool {
    pass.follows(row).is_none_or(|it| it.until <= block)
}

#[cfg(test)]
mod tests {
    use glossary::TokenId;

    use super::*;
    use crate::plan::{PageTable, Slot};

    /// Two tokens for each of three sequences: the second leads, the others go their own way at blocks 2 and 1.
    fn pass() -> Plan {
        let (mut table, mut plan) = (PageTable::default(), Plan::default());
        for edit in 0..3 {
            let sequence = table.open();
            for token in 0..2 {
                let slot = table.append(sequence);
                plan.push_row(TokenId(token), token, edit, slot, edit);
            }
            plan.push_context(table.chunks(sequence));
        }
        for token in 0..2 {
            plan.follow(token, Following { leader: 2 + token as u32, until: 2 });
            plan.follow(4 + token, Following { leader: 2 + token as u32, until: 1 });
        }
        plan
    }

    fn echoes(stage: &Stage) -> Vec<Vec<Slot>> {
        (0..stage.plan.rows()).map(|it| stage.plan.echoes(it).collect()).collect()
    }

    #[test]
    fn followers_are_copies_of_their_leader_from_their_own_block_on() {
        let pass = pass();
        let slot = |row: usize| pass.slots[row];
        let mut stage = Stage::default();
        stage.begin(&pass);
        assert_eq!(stage.plan.edits, [1, 1]);
        assert_eq!(stage.places(&[1, 3, 5]), [1, 1, 1]);
        assert_eq!(echoes(&stage), [vec![slot(0), slot(4)], vec![slot(1), slot(5)]]);

        assert_eq!(stage.advance(&pass, 1), Some(&[0, 1, 0, 1][..]));
        assert_eq!(stage.plan.edits, [1, 1, 2, 2]);
        assert_eq!(stage.places(&[1, 3, 5]), [1, 1, 3]);
        assert_eq!(echoes(&stage), [vec![slot(0)], vec![slot(1)], vec![], vec![]]);

        assert_eq!(stage.advance(&pass, 2), Some(&[0, 1, 0, 1, 2, 3][..]));
        assert_eq!(stage.plan.edits, pass.edits);
        assert_eq!(stage.plan.slots, pass.slots);
        assert!(echoes(&stage).iter().all(Vec::is_empty));
        assert_eq!(stage.advance(&pass, 3), None);
    }
}
