//! Rows of weights as quantized blocks, whatever back end keeps them.

use checkpoint::{Quantization, Tensor};

use super::cpu::check_finite;
use crate::LoadError;

/// A weight tensor and the blocks that it is kept in.
#[derive(Clone, Debug)]
pub struct QuantizedPart {
    /// `[n, k]`, k whole blocks.
    pub tensor: Tensor,
    /// The kind of blocks: the file's own where it has them.
    pub quantization: Quantization,
}

impl QuantizedPart {
    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        let bytes = self.quantization.dtype().row_bytes(self.tensor.row_len());
        bytes.expect("only rows of whole blocks are kept in blocks")
    }

    /// One row in blocks: as the file has it, else its numbers rounded. `numbers [k]` are what the blocks mean.
    ///
    /// # Errors
    /// [`LoadError::NotFinite`] of the file, [`LoadError::TooLarge`] where a scale leaves half precision.
    pub(crate) fn read(&self, row: usize, numbers: &mut [f32], bytes: &mut [u8]) -> Result<(), LoadError> {
        let Self { tensor, quantization } = self;
        tensor.read_row(row, numbers);
        check_finite(tensor, row, numbers)?;
        if let Some(stored) = tensor.stored_row(row).filter(|_| quantization.is_that_of(tensor)) {
            bytes.copy_from_slice(stored);
            return Ok(());
        }
        quantization.encode(numbers, bytes);
        let largest = numbers.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        quantization.dtype().decode(bytes, numbers);
        if numbers.iter().all(|it| it.is_finite()) {
            return Ok(());
        }
        Err(LoadError::TooLarge {
            tensor: tensor.name().to_owned(),
            row,
            value: largest,
            quantization: *quantization,
        })
    }
}
