//! Layers that remember a sequence in a state of fixed size: convolutions and recurrences.
//!
//! A task is a run of rows of one sequence and some of its columns, so the order of every sum is that of the positions,
//! whatever else is in the batch and however many threads there are.

mod convolution;
mod recurrence;

pub(super) use self::convolution::convolve;
pub(super) use self::recurrence::recur;
use super::rows::Slabs;
use super::simd::LANES;
use crate::plan::{Plan, Run};

/// The states of sequences in one layer, each of rows that are filled up to whole lines.
///
/// Each task of an operation has its own columns of the states; who goes on from a state that others read writes to
/// another slot.
pub struct States {
    slabs: Slabs,
    /// The runs of the pass at hand; kept for its memory.
    runs: Vec<Run>,
}

impl States {
    pub(super) fn new([rows, cols]: [usize; 2]) -> Self {
        Self { slabs: Slabs::new(rows * cols.div_ceil(LANES)), runs: Vec::new() }
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.slabs.reserve(count);
    }

    /// Lines of a state.
    pub(super) fn lines(&self) -> usize {
        self.slabs.lines()
    }

    /// The runs of a pass; to be given back.
    fn take_runs(&mut self, plan: &Plan) -> Vec<Run> {
        self.runs.clear();
        self.runs.extend(plan.runs());
        std::mem::take(&mut self.runs)
    }

    /// The first number of a state.
    fn state(&self, slot: u32) -> *mut f32 {
        self.slabs.at(slot)
    }
}
