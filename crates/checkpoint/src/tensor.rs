//! One tensor: a view of a mapped file that is decoded row by row.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::mapped_file::MappedFile;
use crate::quantized::Numbers;
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
    pub(crate) layout: Layout,
}

/// How the rows of a tensor lie in its bytes.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// One after the other.
    Rows,
    /// As the columns of a matrix that has so many of them.
    Columns(usize),
    /// Each as a part of a longer row.
    Parts {
        /// Where the part begins in that row.
        first: usize,
        /// How long that row is.
        of: usize,
    },
    /// In blocks of 32 numbers of 4 bits, two of them a byte, the scales of the blocks elsewhere: a byte for each.
    Microscaled {
        /// The file of the scales.
        file: Arc<MappedFile>,
        /// Where they lie in it, for all rows that the bytes hold.
        range: Range<usize>,
    },
    /// In several stored tensors of which the bytes are one.
    Quantized {
        numbers: Arc<dyn Numbers>,
        /// The row of theirs that is the first of this tensor.
        first: usize,
    },
}

/// Some columns of a tensor whose rows can only be decoded whole.
#[derive(Debug)]
struct ColumnsOf {
    tensor: Tensor,
    columns: Range<usize>,
}

impl Numbers for ColumnsOf {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let mut whole = vec![0.0; self.tensor.row_len()];
        self.tensor.read_row(row, &mut whole);
        out.copy_from_slice(&whole[self.columns.clone()]);
    }
}

/// Numbers of a microscaled block, and the bytes that they take.
const BLOCK: (usize, usize) = (32, BLOCK_BYTES);
const BLOCK_BYTES: usize = 16;

impl Tensor {
    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions, row-major, as Hugging Face writes them (GGUF's dimensions reversed).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the numbers are stored; of a quantized weight of a folder a type that holds each of its numbers exactly.
    pub fn dtype(&self) -> TensorDtype {
        self.dtype
    }

    /// The file that the tensor lies in: with several shards, which one.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// The raw bytes as in the file. Ignores a row order, and the rows taken by [`Self::slice_rows`] after one. Of a
    /// quantized weight of a folder those of its main part, whole.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// How many bytes its numbers take in its type.
    pub fn size(&self) -> usize {
        self.rows() * self.row_bytes()
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
        match &self.layout {
            Layout::Rows => {
                let bytes = self.row_bytes();
                self.dtype.decode(&self.bytes()[row * bytes..(row + 1) * bytes], out);
            }
            Layout::Columns(columns) => {
                let bytes = self.dtype.block().1;
                let column = self.bytes()[row * bytes..].chunks(columns * bytes);
                for (number, out) in column.zip(out) {
                    self.dtype.decode(&number[..bytes], std::slice::from_mut(out));
                }
            }
            Layout::Parts { first, of } => {
                let [start, length, whole] = [*first, self.row_len(), *of].map(|it| self.bytes_of(it));
                self.dtype.decode(&self.bytes()[row * whole + start..][..length], out);
            }
            Layout::Microscaled { file, range } => {
                let blocks = self.row_len() / BLOCK.0;
                let numbers = &self.bytes()[row * blocks * BLOCK.1..][..blocks * BLOCK.1];
                let scales = &file.bytes()[range.clone()][row * blocks..][..blocks];
                crate::decode::microscaled(numbers, scales, out);
            }
            Layout::Quantized { numbers, first } => {
                // Members rely on whole rows.
                assert!(out.len() == self.row_len(), "tensor `{}` has rows of {}", self.name, self.row_len());
                numbers.read_row(first + row, out);
            }
        }
    }

    /// The bytes of one row as they are stored; `None` where a row's bytes do not lie together.
    ///
    /// # Panics
    /// When `row` is not below [`Self::rows`].
    pub fn stored_row(&self, row: usize) -> Option<&[u8]> {
        assert!(row < self.rows(), "tensor `{}` has {} rows, not {row}", self.name, self.rows());
        let Layout::Rows = self.layout else { return None };
        let row = self.order.as_ref().map_or(row, |order| order[row] as usize);
        let bytes = self.row_bytes();
        Some(&self.bytes()[row * bytes..(row + 1) * bytes])
    }

    /// All rows, decoded, `shape` row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        // With rows of no length, the number of rows may be anything: nothing was stored for them.
        if self.row_len() == 0 {
            return Vec::new();
        }
        let mut numbers = vec![0.0; self.rows() * self.row_len()];
        if self.order.is_none() && matches!(self.layout, Layout::Rows) {
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
        Self { order: Some(self.compose(order)), ..self }
    }

    /// A view of every `step`-th row from `first` on, `count` in all, with shape `[count, row_len]`: of two projections
    /// whose outputs alternate, one.
    ///
    /// # Panics
    /// When the last of them is not below [`Self::rows`].
    #[must_use]
    pub fn stepped_rows(&self, first: usize, step: usize, count: usize) -> Self {
        if step == 1 {
            return self.slice_rows(first..first + count);
        }
        self.chosen_rows((0..count).map(|it| first + step * it))
    }

    /// A view of some rows in the given order, with shape `[rows, row_len]`.
    ///
    /// # Panics
    /// When one of them is not below [`Self::rows`].
    #[must_use]
    pub fn chosen_rows(&self, chosen: impl Iterator<Item = usize>) -> Self {
        let rows = self.rows();
        let check = |row: usize| {
            assert!(row < rows, "tensor `{}` has {rows} rows, row {row} was asked for", self.name);
            row as u32
        };
        let order: Vec<u32> = chosen.map(check).collect();
        Self { shape: vec![order.len(), self.row_len()], order: Some(self.compose(order)), ..self.clone() }
    }

    /// An order of the rows at hand as one of the rows of the bytes.
    fn compose(&self, order: Vec<u32>) -> Arc<[u32]> {
        match &self.order {
            None => order.into(),
            Some(earlier) => order.iter().map(|&row| earlier[row as usize]).collect(),
        }
    }

    /// A view of the rows as columns and of the columns as rows, with shape `[row_len, rows]`: of a weight that is stored
    /// as `[inputs, outputs]`, the usual one. Reading a row of it is slow, unless it is stored the other way round after all.
    ///
    /// # Panics
    /// When numbers are stored in blocks, or rows were put in another order: such tensors are never transposed.
    #[must_use]
    pub fn transposed(&self) -> Self {
        assert!(self.can_be_transposed(), "tensor `{}` cannot be transposed", self.name);
        let (rows, columns) = (self.rows(), self.row_len());
        let layout = match &self.layout {
            Layout::Quantized { numbers, first } => Layout::Quantized {
                numbers: numbers.transposed().expect("it was asked for just now").1,
                first: first / rows * columns,
            },
            _ => Layout::Columns(columns),
        };
        Self { shape: vec![columns, rows], layout, ..self.clone() }
    }

    /// A view of some of the columns, with shape `[rows, columns]`: of a matrix that holds several side by side, one.
    ///
    /// Where the bytes of a part do not lie together (in blocks that would be cut in two, in a view, in a quantized weight of
    /// a folder), whole rows are decoded for it.
    ///
    /// # Panics
    /// When they are not within `0..self.row_len()`.
    #[must_use]
    pub fn slice_columns(&self, columns: Range<usize>) -> Self {
        assert!(
            columns.start <= columns.end && columns.end <= self.row_len(),
            "tensor `{}` has {} columns, columns {columns:?} were asked for",
            self.name,
            self.row_len()
        );
        let block = self.dtype.block().0;
        let whole_blocks = columns.start.is_multiple_of(block) && columns.len().is_multiple_of(block);
        let shape = vec![self.rows(), columns.len()];
        if whole_blocks && matches!(self.layout, Layout::Rows) && self.order.is_none() {
            let layout = Layout::Parts { first: columns.start, of: self.row_len() };
            return Self { shape, layout, ..self.clone() };
        }
        // Decoded numbers, of a type without blocks that could be cut.
        let dtype = if self.dtype.is_quantized() { TensorDtype::F32 } else { self.dtype };
        let numbers = Arc::new(ColumnsOf { tensor: self.clone(), columns });
        Self { shape, dtype, order: None, layout: Layout::Quantized { numbers, first: 0 }, ..self.clone() }
    }

    /// The numbers that blocks of 4 bits, `[…, blocks, 16]` in bytes, and their scales, `[…, blocks]` in bytes, mean: a
    /// tensor `[…, 32 blocks]` with the name of the blocks. OCP Microscaling Formats 1.0, MXFP4.
    ///
    /// # Errors
    /// [`CheckpointError::Shape`] of the scales when they do not fit the blocks, and of the blocks when these are not
    /// blocks; [`CheckpointError::UnsupportedType`] when one of the two does not consist of bytes.
    pub fn microscaled(blocks: &Self, scales: &Self) -> Result<Self, CheckpointError> {
        for tensor in [blocks, scales] {
            if !matches!(tensor.dtype, TensorDtype::U8 | TensorDtype::F8E8M0) {
                return Err(CheckpointError::UnsupportedType {
                    name: tensor.name.to_string(),
                    found: tensor.dtype.to_string(),
                    supported: "U8 in blocks of 4 bits and their scales".to_owned(),
                });
            }
        }
        let Some((&BLOCK_BYTES, shape)) = blocks.shape.split_last() else {
            let expected = [&scales.shape[..], &[BLOCK.1]].concat();
            return Err(blocks.expect_shape(&expected).expect_err("the last dimension is another"));
        };
        scales.expect_shape(shape)?;
        let mut shape = shape.to_vec();
        *shape.last_mut().ok_or_else(|| CheckpointError::Shape {
            name: blocks.name.to_string(),
            expected: vec![1, BLOCK.1],
            found: blocks.shape.clone(),
        })? *= BLOCK.0;
        let layout = Layout::Microscaled { file: Arc::clone(&scales.file), range: scales.range.clone() };
        Ok(Self { shape, layout, ..blocks.clone() })
    }

    /// Whether it is made of blocks and scales by [`Self::microscaled`].
    pub fn is_microscaled(&self) -> bool {
        matches!(self.layout, Layout::Microscaled { .. })
    }

    /// Whether [`Self::transposed`] can be asked for.
    pub fn can_be_transposed(&self) -> bool {
        let layout = match &self.layout {
            Layout::Rows => self.dtype.block().0 == 1,
            // A whole matrix of a stack.
            Layout::Quantized { numbers, first } => {
                let rows = self.rows();
                first.checked_rem(rows) == Some(0) && numbers.transposed().is_some_and(|it| it.0 == rows)
            }
            Layout::Columns(_) | Layout::Parts { .. } | Layout::Microscaled { .. } => false,
        };
        layout && self.order.is_none()
    }

    /// Whether its numbers come from several stored tensors of a folder.
    pub fn is_quantized(&self) -> bool {
        matches!(self.layout, Layout::Quantized { .. })
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
        let part = |range: &Range<usize>, bytes: usize| {
            range.start + rows.start * bytes..range.start + rows.end * bytes
        };
        match (&self.order, &mut slice.layout) {
            (Some(order), _) => slice.order = Some(order[rows].into()),
            (None, Layout::Rows) => slice.range = part(&self.range, self.row_bytes()),
            (None, Layout::Quantized { first, .. }) => *first += rows.start,
            (None, Layout::Columns(_) | Layout::Parts { .. }) => {
                slice.order = Some(rows.map(|it| it as u32).collect());
            }
            (None, Layout::Microscaled { range, .. }) => {
                let blocks = self.row_len() / BLOCK.0;
                *range = part(range, blocks);
                slice.range = part(&self.range, blocks * BLOCK.1);
            }
        }
        slice
    }

    /// Tells the system that the mapped pages of this tensor are no longer needed in memory. A hint, without
    /// effect on what is read; may be called from any thread. Does nothing where the system has no such call.
    pub fn release(&self) {
        self.file.release(self.range.start, self.range.len());
    }

    fn row_bytes(&self) -> usize {
        self.bytes_of(self.row_len())
    }

    /// The bytes of so many numbers of a row.
    fn bytes_of(&self, numbers: usize) -> usize {
        self.dtype.row_bytes(numbers).expect("the loader refuses rows that are not whole blocks")
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
