//! Small unsigned integers, several in each word of 32 bits, lowest bits first.

use super::{expect_dtype, unfit};
use crate::{CheckpointError, Tensor, TensorDtype};

/// In which places of a word AutoAWQ's kernels expect neighboring columns: column `8 j + i` is in place `AWQ_ORDER[i]`.
pub(super) const AWQ_ORDER: [u8; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The dimension along which integers share words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// A word holds integers of one column and several rows.
    Rows,
    /// A word holds integers of one row and several columns.
    Columns,
}

/// A matrix of integers of `bits` bits, in words.
#[derive(Debug)]
pub(super) struct Codes {
    words: Tensor,
    /// Columns of words.
    width: usize,
    /// A divisor of 32.
    bits: usize,
    along: Along,
    /// Whether columns are in [`AWQ_ORDER`].
    awq: bool,
    /// Added to each word before it is taken apart.
    plus: u32,
}

impl Codes {
    /// A matrix `[rows, columns]` of integers; words may hold more than it needs.
    ///
    /// # Errors
    /// [`CheckpointError::QuantizedTensor`] when these are no words; [`CheckpointError::Shape`] when they are not as many
    /// as the matrix takes.
    pub(super) fn new(
        words: Tensor,
        [rows, columns]: [usize; 2],
        bits: usize,
        along: Along,
    ) -> Result<Self, CheckpointError> {
        expect_dtype(&words, &[TensorDtype::I32, TensorDtype::U32])?;
        let each = 32 / bits;
        let shape = match along {
            Along::Rows => [rows.div_ceil(each), columns],
            Along::Columns => [rows, columns.div_ceil(each)],
        };
        words.expect_shape(&shape)?;
        Ok(Self { words, width: shape[1], bits, along, awq: false, plus: 0 })
    }

    /// The same with columns in the order of AutoAWQ. There are whole words of them.
    pub(super) fn in_awq_order(self) -> Self {
        Self { awq: true, ..self }
    }

    /// The same with one added to each integer, in a way that files are made with: to whole words.
    pub(super) fn plus_one(self) -> Self {
        let ones = (0..32 / self.bits).fold(0, |ones, place| ones | 1 << (place * self.bits));
        Self { plus: ones, ..self }
    }

    fn word(&self, place: usize) -> u32 {
        let bytes = &self.words.bytes()[4 * place..][..4];
        u32::from_le_bytes(bytes.try_into().expect("there are four")).wrapping_add(self.plus)
    }

    fn mask(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// The lowest bit of a column's integers in their words.
    fn shift_of_column(&self, column: usize) -> usize {
        let place = column % (32 / self.bits);
        self.bits * if self.awq { usize::from(AWQ_ORDER[place]) } else { place }
    }

    pub(super) fn at(&self, row: usize, column: usize) -> u32 {
        let each = 32 / self.bits;
        let (word, shift) = match self.along {
            Along::Rows => (row / each * self.width + column, row % each * self.bits),
            Along::Columns => (row * self.width + column / each, self.shift_of_column(column)),
        };
        self.word(word) >> shift & self.mask()
    }

    /// The first integers of a row, as many as there is room for.
    pub(super) fn row(&self, row: usize, out: &mut [u8]) {
        if self.along == Along::Rows || self.awq {
            for (column, out) in out.iter_mut().enumerate() {
                *out = self.at(row, column) as u8; // at most 8 bits
            }
            return;
        }
        for (word, out) in out.chunks_mut(32 / self.bits).enumerate() {
            self.take_apart(self.word(row * self.width + word), out);
        }
    }

    /// The first integers of a column, as many as there is room for.
    pub(super) fn column(&self, column: usize, out: &mut [u8]) {
        let each = 32 / self.bits;
        match self.along {
            Along::Rows => {
                for (word, out) in out.chunks_mut(each).enumerate() {
                    self.take_apart(self.word(word * self.width + column), out);
                }
            }
            Along::Columns => {
                let (place, shift) = (column / each, self.shift_of_column(column));
                for (row, out) in out.iter_mut().enumerate() {
                    *out = (self.word(row * self.width + place) >> shift & self.mask()) as u8;
                }
            }
        }
    }

    fn take_apart(&self, word: u32, out: &mut [u8]) {
        for (place, out) in out.iter_mut().enumerate() {
            *out = (word >> (place * self.bits) & self.mask()) as u8;
        }
    }
}

/// Checks that integers of so many bits are known here: those that share words without crossing into the next.
pub(super) fn expect_bits(name: &str, bits: usize, known: &[usize]) -> Result<(), CheckpointError> {
    if known.contains(&bits) {
        return Ok(());
    }
    let known = known.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(unfit(name, format!("integers of {bits} bits, known are {known}")))
}
