//! Integers of a few bits, a scale and a zero point for each group of inputs: `scale (integer − zero)`.

use super::codes::Codes;
use super::{Numbers, number_at, rounded, unfit};
use crate::{CheckpointError, Tensor, TensorDtype};

/// A weight `[outputs, inputs]`.
///
/// The reference takes the difference as an integer or in the type of the scales, where it is exact either way, and
/// multiplies in the type of the scales.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) integers: Codes,
    pub(super) zeros: Zeros,
    /// `[outputs, groups]`, or with [`Self::transposed`] `[groups, outputs]`.
    pub(super) scales: Tensor,
    /// Whether there is one scale for everything.
    pub(super) single: bool,
    pub(super) groups: Groups,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Whether integers, zero points and scales are stored with inputs as rows and outputs as columns.
    pub(super) transposed: bool,
}

/// What is taken from an integer.
#[derive(Debug)]
pub(super) enum Zeros {
    /// One number from all.
    All(u8),
    /// One for each output and group, stored as the scales are.
    Each(Codes),
    /// The same as signed bytes, from integers that are stored with this added.
    Bytes(Tensor, u8),
}

/// Which inputs share a scale.
#[derive(Debug)]
pub(super) enum Groups {
    /// So many that follow each other; the number of groups.
    Runs { size: usize, count: usize },
    /// Those with the same number; how many groups there are.
    Listed { of: Vec<u32>, count: usize },
}

impl Groups {
    /// `count` groups of one size.
    ///
    /// # Errors
    /// [`CheckpointError::QuantizedTensor`] of the scales when the inputs are not as many groups of one size.
    pub(super) fn runs(scales: &Tensor, inputs: usize, count: usize) -> Result<Self, CheckpointError> {
        if count == 0 || !inputs.is_multiple_of(count) || inputs == 0 {
            return Err(unfit(
                scales.name(),
                format!("{inputs} inputs do not make {count} groups of one size"),
            ));
        }
        Ok(Self::Runs { size: inputs / count, count })
    }

    /// The groups that a list names, one for each input.
    ///
    /// # Errors
    /// [`CheckpointError::Shape`] when it has not as many as there are inputs; [`CheckpointError::QuantizedTensor`] when
    /// it names a group that has no scale.
    pub(super) fn listed(list: &Tensor, inputs: usize, count: usize) -> Result<Self, CheckpointError> {
        super::expect_dtype(list, &[TensorDtype::I32, TensorDtype::I64])?;
        list.expect_shape(&[inputs])?;
        let group = |(input, number): (usize, f32)| {
            // Groups are few: f32 holds their numbers.
            let group = number as u32;
            if number >= 0.0 && (group as usize) < count {
                return Ok(group);
            }
            Err(unfit(list.name(), format!("input {input} is in group {number}, there are {count}")))
        };
        let of = list.to_f32().into_iter().enumerate().map(group).collect::<Result<_, _>>()?;
        Ok(Self::Listed { of, count })
    }

    fn count(&self) -> usize {
        match self {
            Self::Runs { count, .. } | Self::Listed { count, .. } => *count,
        }
    }
}

impl Affine {
    /// Zero point and scale of each group, for one output.
    fn of_output(&self, output: usize) -> Vec<(f32, f32)> {
        let group = |group: usize| {
            let (row, column, width) = if self.transposed {
                (group, output, self.outputs)
            } else {
                (output, group, self.groups.count())
            };
            let place = if self.single { 0 } else { row * width + column };
            let zero = match &self.zeros {
                Zeros::All(zero) => f32::from(*zero),
                Zeros::Each(codes) => codes.at(row, column) as f32,
                Zeros::Bytes(bytes, plus) => number_at(bytes, place) + f32::from(*plus),
            };
            (zero, number_at(&self.scales, place))
        };
        (0..self.groups.count()).map(group).collect()
    }
}

impl Numbers for Affine {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let mut integers = vec![0; self.inputs];
        if self.transposed {
            self.integers.column(row, &mut integers);
        } else {
            self.integers.row(row, &mut integers);
        }
        let groups = self.of_output(row);
        let precision = self.scales.dtype();
        let number =
            |integer: u8, (zero, scale): (f32, f32)| rounded((f32::from(integer) - zero) * scale, precision);
        match &self.groups {
            Groups::Runs { size, .. } => {
                for ((out, integers), &group) in
                    out.chunks_mut(*size).zip(integers.chunks(*size)).zip(&groups)
                {
                    for (out, &integer) in out.iter_mut().zip(integers) {
                        *out = number(integer, group);
                    }
                }
            }
            Groups::Listed { of, .. } => {
                for ((out, integer), &group) in out.iter_mut().zip(integers).zip(of) {
                    *out = number(integer, groups[group as usize]);
                }
            }
        }
    }
}
