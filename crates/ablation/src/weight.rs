//! Weights of writers, row by row.

/// The weight of one writer, `[d_model, d_in]`, whose rows are decoded when they are asked for: a model is larger as
/// f32 than as a file, so nobody should hold it that way.
///
/// Each computation in this room says how many times it goes over the rows, always from the first to the last.
pub trait WriterWeight {
    /// `d_model` and `d_in`.
    fn shape(&self) -> (usize, usize);

    /// Decodes one row.
    ///
    /// # Shapes
    /// - `out`: `[d_in]`
    fn row(&self, row: usize, out: &mut [f32]);
}

/// A weight in memory: rows end to end.
#[derive(Clone, Copy, Debug)]
pub struct RowMajor<'a> {
    numbers: &'a [f32],
    d_in: usize,
}

impl<'a> RowMajor<'a> {
    /// `None` when the numbers are not whole rows.
    ///
    /// # Shapes
    /// - `numbers`: `[d_model, d_in]`
    pub fn new(numbers: &'a [f32], d_in: usize) -> Option<Self> {
        (d_in > 0 && numbers.len().is_multiple_of(d_in)).then_some(Self { numbers, d_in })
    }
}

impl WriterWeight for RowMajor<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.numbers.len() / self.d_in, self.d_in)
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.numbers[row * self.d_in..(row + 1) * self.d_in]);
    }
}
