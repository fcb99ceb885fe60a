//! One tensor: a view of a mapped file that is decoded row by row.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::mapped_file::MappedFile;
use crate::{CheckpointError, TensorDtype};

/// A named tensor: a view of a mapped file whose rows are decoded to f32 on demand.
///
/// Cloning is cheap, and a tensor outlives the [`Checkpoint`](crate::Checkpoint) that it comes from. Rows may be
/// read from several threads at once.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: TensorDtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) file: Arc<MappedFile>,
    /// Where the bytes lie in the file; checked when the header was read.
    pub(crate) range: Range<usize>,
    /// Row `i` is row `order[i]` of the bytes; `None` means as in the file.
    pub(crate) order: Option<Arc<[u32]>>,
}

impl Tensor {
    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions, row-major, as Hugging Face writes them (GGUF's dimensions reversed).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> TensorDtype {
        self.dtype
    }

    /// The file that the tensor lies in: with several shards, which one.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// The raw bytes as in the file. Ignores a row order, and the rows taken by [`Self::slice_rows`] after one.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// The number of rows: the product of all dimensions but the last; 1 for a vector and for a scalar.
    pub fn rows(&self) -> usize {
        // The loader checked that this product fits, as part of the product of all dimensions.
        self.shape.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// The length of a row: the last dimension; 1 for a scalar.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Decodes one row.
    ///
    /// # Shapes
    /// - `out`: `[row_len]`
    ///
    /// # Panics
    /// When `row` is not below [`Self::rows`] or `out` does not have [`Self::row_len`] numbers: the caller asked
    /// for something that [`Self::shape`] rules out.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.rows(),
            "tensor `{}` has {} rows, row {row} was asked for",
            self.name,
            self.rows()
        );
        let row = self.order.as_ref().map_or(row, |order| order[row] as usize);
        let bytes = self.row_bytes();
        self.dtype.decode(&self.bytes()[row * bytes..(row + 1) * bytes], out);
    }

    /// All rows, decoded, `shape` row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        // With rows of no length, the number of rows may be anything: nothing was stored for them.
        if self.row_len() == 0 {
            return Vec::new();
        }
        let mut numbers = vec![0.0; self.rows() * self.row_len()];
        if self.order.is_none() {
            self.dtype.decode(self.bytes(), &mut numbers);
        } else {
            for (row, out) in numbers.chunks_exact_mut(self.row_len()).enumerate() {
                self.read_row(row, out);
            }
        }
        numbers
    }

    /// Checks the shape.
    ///
    /// # Errors
    /// [`CheckpointError::Shape`] with both shapes when they differ.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<(), CheckpointError> {
        if self.shape == expected {
            return Ok(());
        }
        Err(CheckpointError::Shape {
            name: self.name.to_string(),
            expected: expected.to_vec(),
            found: self.shape.clone(),
        })
    }

    /// The same tensor with its rows in another order: row `i` of the result is row `order[i]` of this one.
    /// Undoes the permutation of query and key rows that GGUF files of some families hold.
    ///
    /// # Panics
    /// When `order` does not name a row for each of [`Self::rows`], or names one that does not exist.
    #[must_use]
    pub fn with_row_order(self, order: Vec<u32>) -> Self {
        let rows = self.rows();
        assert!(order.len() == rows, "tensor `{}` has {rows} rows, the order has {}", self.name, order.len());
        if let Some(&row) = order.iter().find(|&&row| row as usize >= rows) {
            panic!("tensor `{}` has {rows} rows, the order names row {row}", self.name);
        }
        let order = match &self.order {
            None => order.into(),
            Some(earlier) => order.iter().map(|&row| earlier[row as usize]).collect(),
        };
        Self { order: Some(order), ..self }
    }

    /// A view of some rows, with shape `[rows, row_len]`: one expert of a fused tensor, for example.
    ///
    /// # Panics
    /// When `rows` is not within `0..self.rows()`.
    #[must_use]
    pub fn slice_rows(&self, rows: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end && rows.end <= self.rows(),
            "tensor `{}` has {} rows, rows {rows:?} were asked for",
            self.name,
            self.rows()
        );
        let shape = vec![rows.len(), self.row_len()];
        let mut slice = Self { shape, ..self.clone() };
        if let Some(order) = &self.order {
            slice.order = Some(order[rows].into());
        } else {
            let bytes = self.row_bytes();
            slice.range = self.range.start + rows.start * bytes..self.range.start + rows.end * bytes;
        }
        slice
    }

    /// Tells the system that the mapped pages of this tensor are no longer needed in memory. A hint, without
    /// effect on what is read; may be called from any thread. Does nothing where the system has no such call.
    pub fn release(&self) {
        self.file.release(self.range.start, self.range.len());
    }

    fn row_bytes(&self) -> usize {
        self.dtype.row_bytes(self.row_len()).expect("the loader refuses rows that are not whole blocks")
    }
}

/// How many bytes a tensor of this shape takes.
///
/// # Errors
/// What is wrong with the shape, as the end of a sentence about the tensor.
pub(crate) fn size_in_bytes(dtype: TensorDtype, shape: &[usize]) -> Result<usize, SizeError> {
    let (&row_len, rest) = shape.split_last().unwrap_or((&1, &[]));
    let rows = rest.iter().try_fold(1_usize, |product, &it| product.checked_mul(it));
    let rows = rows.ok_or(SizeError::Overflow)?;
    if !row_len.is_multiple_of(dtype.block().0) {
        return Err(SizeError::PartialBlock { row_len, block: dtype.block().0 });
    }
    // The number of elements must fit too: code that decodes the tensor counts them.
    rows.checked_mul(row_len).ok_or(SizeError::Overflow)?;
    dtype.row_bytes(row_len).and_then(|it| it.checked_mul(rows)).ok_or(SizeError::Overflow)
}

/// Why a shape has no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeError {
    /// The product does not fit into a `usize`.
    Overflow,
    /// The last dimension is not a whole number of blocks.
    PartialBlock { row_len: usize, block: usize },
}
