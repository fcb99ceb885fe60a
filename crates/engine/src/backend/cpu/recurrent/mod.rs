//! Layers that remember a sequence in a state of fixed size: convolutions and recurrences.
//!
//! A task is a run of rows of one sequence and some of its columns, so the order of every sum is that of the positions,
//! whatever else is in the batch and however many threads there are.

mod convolution;
mod recurrence;

use std::cell::UnsafeCell;

pub(super) use self::convolution::convolve;
pub(super) use self::recurrence::recur;
use super::rows::Line;
use super::simd::{LANES, Simd};
use crate::plan::{Plan, Run};

/// States that are allocated together.
const SLAB: usize = 16;

#[repr(transparent)]
struct SharedLine(UnsafeCell<Line>);

// SAFETY: each task of an operation has its own columns of the states; who goes on from a state that others read
// writes to another slot.
unsafe impl Sync for SharedLine {}

/// The states of sequences in one layer, in whole lines.
pub struct States {
    slabs: Vec<Vec<SharedLine>>,
    numbers: usize,
    /// Lines of a state; known once an operation has said how numbers lie in them.
    lines: usize,
    count: usize,
    /// The runs of the pass at hand; kept for its memory.
    runs: Vec<Run>,
}

impl States {
    pub(super) fn new(numbers: usize) -> Self {
        Self { slabs: Vec::new(), numbers, lines: 0, count: 0, runs: Vec::new() }
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.count = self.count.max(count);
    }

    /// Says that a state has `rows` rows of `cols` numbers, each filled up to whole lines.
    fn lay(&mut self, rows: usize, cols: usize) {
        assert_eq!(rows * cols, self.numbers, "the numbers of a state");
        let lines = rows * cols.div_ceil(LANES);
        assert!(self.lines == 0 || self.lines == lines, "a state lies always alike");
        self.lines = lines;
        while self.slabs.len() * SLAB < self.count {
            let line = || SharedLine(UnsafeCell::new(Line::default()));
            self.slabs.push(std::iter::repeat_with(line).take(SLAB * lines).collect());
        }
    }

    /// The runs of a pass; to be given back.
    fn take_runs(&mut self, plan: &Plan) -> Vec<Run> {
        self.runs.clear();
        self.runs.extend(plan.runs());
        std::mem::take(&mut self.runs)
    }

    /// The first number of a state.
    fn state(&self, slot: u32) -> *mut f32 {
        let slot = slot as usize;
        assert!(slot < self.count, "state {slot} of {}", self.count);
        let lines = &self.slabs[slot / SLAB][(slot % SLAB) * self.lines..];
        UnsafeCell::raw_get(lines.as_ptr().cast::<UnsafeCell<Line>>()).cast()
    }
}

/// A vector of the first `count` numbers, zeros after them.
///
/// # Safety
/// As [`Simd`]'s, for `count` numbers.
#[inline(always)]
unsafe fn load_part<S: Simd>(from: *const f32, count: usize) -> S::V {
    // SAFETY: not more than `count` numbers are read.
    unsafe {
        if count >= LANES {
            return S::load(from);
        }
        let mut lanes = [0.0_f32; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
        S::load(lanes.as_ptr())
    }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// As [`Simd`]'s, for `count` numbers.
#[inline(always)]
unsafe fn store_part<S: Simd>(to: *mut f32, v: S::V, count: usize) {
    // SAFETY: not more than `count` numbers are written.
    unsafe {
        if count >= LANES {
            return S::store(to, v);
        }
        let mut lanes = [0.0_f32; LANES];
        S::store(lanes.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
    }
}

/// `x / (1 + e^−x)`.
#[inline(always)]
unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe { S::div(x, S::add(S::splat(1.0), S::exp(S::sub(S::splat(0.0), x)))) }
}
