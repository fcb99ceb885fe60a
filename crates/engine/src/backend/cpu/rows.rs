//! Buffers of activations, and writing to them from several threads.

use std::cell::UnsafeCell;

use super::simd::LANES;

/// A cache line of 16 f32.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; LANES]);

/// Lines as the numbers that they hold.
pub(super) fn numbers(lines: &[Line]) -> &[f32] {
    // SAFETY: a line is 16 f32 without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

fn numbers_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is 16 f32 without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// A matrix of activations, one row per token, `[rows, cols]`.
///
/// Rows are padded to whole cache lines, an odd number of them, so that the rows which a kernel reads together
/// do not compete for the same cache sets. The pad up to the next multiple of 16 columns holds zeros or what a
/// kernel computed from zeros; kernels may read and write whole lines.
#[derive(Default)]
pub struct Rows {
    lines: Vec<Line>,
    count: usize,
    cols: usize,
    stride: usize,
}

impl Rows {
    /// A buffer for rows of `cols` numbers; it grows with [`Self::resize`].
    pub(super) fn new(cols: usize) -> Self {
        let stride = cols.div_ceil(LANES);
        Self { lines: Vec::new(), count: 0, cols, stride: stride | 1 }
    }

    /// Sets the number of rows. Allocates only when it has never been so large; contents are not kept.
    pub(super) fn resize(&mut self, rows: usize) {
        self.count = rows;
        if self.lines.len() < rows * self.stride {
            self.lines.resize(rows * self.stride, Line::default());
        }
    }

    /// Sets the number of rows and columns, for scratch memory that serves several widths.
    pub(super) fn reshape(&mut self, rows: usize, cols: usize) {
        (self.cols, self.stride) = (cols, cols.div_ceil(LANES) | 1);
        self.resize(rows);
    }

    pub(super) fn rows(&self) -> usize {
        self.count
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Vectors of 16 that cover a row.
    pub(super) fn vectors(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// Numbers from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride * LANES
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        assert!(row < self.count, "row {row} of {}", self.count);
        &numbers(&self.lines[row * self.stride..][..self.vectors()])[..self.cols]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.count, "row {row} of {}", self.count);
        let (vectors, cols) = (self.vectors(), self.cols);
        &mut numbers_mut(&mut self.lines[row * self.stride..][..vectors])[..cols]
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    /// The buffer for writing from several threads.
    pub(super) fn shared(&mut self) -> Shared {
        Shared { start: self.lines.as_mut_ptr().cast(), stride: self.stride() }
    }
}

/// A buffer that several threads write to, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    stride: usize,
}

// SAFETY: only a pointer travels; who dereferences it promises that no two threads touch the same part.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Where a column of a row lies.
    ///
    /// # Safety
    /// Row and column must lie in the buffer, and no other thread may touch what is written.
    #[inline(always)]
    pub(super) unsafe fn at(self, row: usize, col: usize) -> *mut f32 {
        // SAFETY: in bounds by the caller's promise.
        unsafe { self.start.add(row * self.stride + col) }
    }

    pub(super) fn stride(self) -> usize {
        self.stride
    }
}

/// A line that threads write to, each its own.
#[repr(transparent)]
struct SharedLine(UnsafeCell<Line>);

// SAFETY: a line is only reached through `Slabs::at`; who writes there promises that no other thread touches it.
unsafe impl Sync for SharedLine {}

/// Items of equal size whose number grows, in memory that stays where it is.
pub(super) struct Slabs {
    slabs: Vec<Vec<SharedLine>>,
    /// Lines of an item.
    lines: usize,
}

impl Slabs {
    /// Items that are allocated together.
    const ITEMS: usize = 16;

    /// No items yet, of so many lines each.
    pub(super) fn new(lines: usize) -> Self {
        Self { slabs: Vec::new(), lines }
    }

    /// Lines of an item.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Makes room for so many items; new ones hold zeros.
    pub(super) fn reserve(&mut self, items: usize) {
        while self.slabs.len() * Self::ITEMS < items {
            let line = || SharedLine(UnsafeCell::new(Line::default()));
            self.slabs.push(std::iter::repeat_with(line).take(Self::ITEMS * self.lines).collect());
        }
    }

    /// The numbers of an item. Whoever reads or writes them promises that no other thread writes them meanwhile.
    pub(super) fn at(&self, item: u32) -> *mut f32 {
        let item = item as usize;
        let lines = &self.slabs[item / Self::ITEMS][(item % Self::ITEMS) * self.lines..];
        UnsafeCell::raw_get(lines.as_ptr().cast::<UnsafeCell<Line>>()).cast()
    }
}
