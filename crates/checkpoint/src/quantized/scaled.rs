//! Numbers of one byte, a scale for each block of a matrix: `scale (number − zero)`.

use std::sync::Arc;

use super::{Numbers, SCALES, expect_dtype, rounded, unfit};
use crate::{CheckpointError, Tensor, TensorDtype};

/// The types of such numbers.
pub(super) const SMALL_FLOATS: &[TensorDtype] =
    &[TensorDtype::F8E4M3, TensorDtype::F8E5M2, TensorDtype::F8E4M3Fnuz, TensorDtype::F8E5M2Fnuz];

/// A weight `[…, rows, columns]` and its scales `[…, blocks of rows, blocks of columns]`.
#[derive(Debug)]
pub(super) struct Scaled {
    values: Tensor,
    scales: Tensor,
    zeros: Option<Tensor>,
    grid: Grid,
    /// What the reference computes in.
    precision: TensorDtype,
}

/// Which scale a number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Rows of one matrix: of the stack that the weight may be, each has its own blocks.
    rows: usize,
    /// Blocks of rows in each.
    bands: usize,
    /// Rows and columns of a block. The last ones may be smaller.
    block: [usize; 2],
    /// Whether there is one scale for everything.
    single: bool,
}

impl Grid {
    /// The grid of scales over a weight.
    ///
    /// `block`: rows and columns of a block, where the settings say them; where not, or where they do not fit, blocks are
    /// all of one size and as many as there are scales, which covers one scale for everything, for each row, or for groups
    /// of columns.
    ///
    /// # Errors
    /// [`CheckpointError::QuantizedTensor`] of the scales when they fit the weight neither way.
    pub(super) fn of(
        values: &Tensor,
        scales: &Tensor,
        block: Option<[usize; 2]>,
    ) -> Result<Self, CheckpointError> {
        let wrong = || {
            let sizes =
                block.map_or(String::new(), |[rows, columns]| format!(" in blocks of {rows} × {columns}"));
            let (found, weight) = (scales.shape(), values.shape());
            unfit(scales.name(), format!("shape {found:?} does not fit a weight of shape {weight:?}{sizes}"))
        };
        let [stack @ .., rows, columns] = values.shape() else { return Err(wrong()) };
        let (rows, columns) = (*rows, *columns);
        if scales.shape().iter().product::<usize>() == 1 {
            return Ok(Self { rows, bands: 1, block: [rows.max(1), columns.max(1)], single: true });
        }
        let shape = match scales.shape() {
            // A scale for each row.
            [bands] if stack.is_empty() => vec![*bands, 1],
            // A scale for each matrix of a stack.
            [all] if stack == [*all] => vec![*all, 1, 1],
            shape => shape.to_vec(),
        };
        let (bands, strips) = match &shape[..] {
            [scale_stack @ .., bands, strips] if scale_stack == stack => (*bands, *strips),
            _ => return Err(wrong()),
        };
        let fits = |&[height, width]: &[usize; 2]| {
            rows.div_ceil(height) == bands && columns.div_ceil(width) == strips
        };
        let even = || {
            let divide = |all: usize, parts: usize| {
                (parts > 0 && all.is_multiple_of(parts)).then(|| (all / parts).max(1))
            };
            Some([divide(rows, bands)?, divide(columns, strips)?])
        };
        let block = block.filter(fits).or_else(|| even().filter(fits)).ok_or_else(wrong)?;
        Ok(Self { rows, bands, block, single: false })
    }

    /// The row of scales that belongs to a row of the weight.
    fn band(&self, row: usize) -> usize {
        if self.single { 0 } else { row / self.rows * self.bands + row % self.rows / self.block[0] }
    }
}

impl Scaled {
    /// Puts values and scales together, and says which type the products have. `precision`: what the reference computes
    /// in; `None`: the type of the scales.
    ///
    /// # Errors
    /// [`CheckpointError::QuantizedTensor`] when a type is none of those known or the scales do not fit.
    pub(super) fn numbers(
        values: Tensor,
        scales: Tensor,
        zeros: Option<Tensor>,
        block: Option<[usize; 2]>,
        precision: Option<TensorDtype>,
    ) -> Result<(TensorDtype, Arc<dyn Numbers>), CheckpointError> {
        let exponents = [TensorDtype::F8E8M0, TensorDtype::U8];
        // Bare exponents are no precision to compute in.
        let known = if precision.is_some() { [SCALES, &exponents].concat() } else { SCALES.to_vec() };
        expect_dtype(&scales, &known)?;
        let grid = Grid::of(&values, &scales, block)?;
        if let Some(zeros) = &zeros {
            expect_dtype(zeros, &[TensorDtype::I8, TensorDtype::U8])?;
            zeros.expect_shape(scales.shape())?;
        }
        // The same byte with its meaning: MXFP8 files store exponents as plain bytes.
        let scales = match scales.dtype() {
            TensorDtype::U8 => Tensor { dtype: TensorDtype::F8E8M0, ..scales },
            _ => scales,
        };
        let precision = precision.unwrap_or(scales.dtype());
        Ok((precision, Arc::new(Self { values, scales, zeros, grid, precision })))
    }
}

/// A row of blocks, however many dimensions the tensor has.
fn band_of(tensor: &Tensor, band: usize, strips: usize) -> Vec<f32> {
    let width = tensor.dtype().block().1;
    let mut numbers = vec![0.0; strips];
    tensor.dtype().decode(&tensor.bytes()[band * strips * width..][..strips * width], &mut numbers);
    numbers
}

impl Numbers for Scaled {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        self.values.read_row(row, out);
        let (band, width) = (self.grid.band(row), self.grid.block[1]);
        let strips = out.len().div_ceil(width);
        let scales = band_of(&self.scales, band, strips);
        let zeros = self.zeros.as_ref().map(|it| band_of(it, band, strips));
        for (strip, (block, scale)) in out.chunks_mut(width).zip(scales).enumerate() {
            // Small integers: their difference is exact in each of the precisions.
            let zero = zeros.as_ref().map_or(0.0, |it| it[strip]);
            for number in block {
                *number = rounded((*number - zero) * scale, self.precision);
            }
        }
    }
}
