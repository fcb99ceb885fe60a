//! AWQ, as AutoAWQ writes it for its matrix products (`version: gemm`).
//!
//! | part | shape | |
//! |---|---|---|
//! | `qweight` | `[inputs, outputs / 8]` | words of integers of 4 bits of eight outputs, in an order of their own |
//! | `qzeros` | `[groups, outputs / 8]` | zero points, in the same order |
//! | `scales` | `[groups, outputs]` | |
//!
//! Reference: AutoAWQ 0.2.9, `utils/packing_utils.py`, `dequantize_gemm`: `(weight − zeros) scales` in the type of the
//! scales.

use std::sync::Arc;

use super::affine::{Affine, Groups, Zeros};
use super::codes::{Along, Codes};
use super::{Method, Reader, SCALES, Section, Stored, Weight, expect_dtype, matrix, unfit};
use crate::CheckpointError;

pub(super) const METHOD: Method = Method { name: "awq", reader: read };

const BITS: usize = 4;

struct Awq;

fn read(settings: &Section<'_>) -> Result<Box<dyn Reader>, CheckpointError> {
    for key in ["version", "format", "checkpoint_format"] {
        settings.word(key, &["gemm"])?;
    }
    for key in ["bits", "w_bit"] {
        let bits = settings.count(key)?.unwrap_or(BITS);
        if bits != BITS {
            return Err(settings.unknown(key, &bits.to_string(), &format!("`{BITS}`")));
        }
    }
    Ok(Box::new(Awq))
}

impl Reader for Awq {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        let Some(module) = name.strip_suffix(".qweight") else { return Ok(None) };
        let part = |it: &str| format!("{module}.{it}");
        let (words, scales) = (stored.part(name, name)?, stored.part(&part("scales"), name)?);
        let zeros = stored.part(&part("qzeros"), name)?;
        expect_dtype(&scales, SCALES)?;
        let ([inputs, _], [count, outputs]) = (matrix(&words)?, matrix(&scales)?);
        if !outputs.is_multiple_of(32 / BITS) {
            return Err(unfit(
                scales.name(),
                format!("{outputs} outputs are not a multiple of {}", 32 / BITS),
            ));
        }
        let integers = Codes::new(words, [inputs, outputs], BITS, Along::Columns)?.in_awq_order();
        let zeros = Zeros::Each(Codes::new(zeros, [count, outputs], BITS, Along::Columns)?.in_awq_order());
        let groups = Groups::runs(&scales, inputs, count)?;
        let dtype = scales.dtype();
        let numbers =
            Affine { integers, zeros, scales, single: false, groups, outputs, inputs, transposed: true };
        Ok(Some(Weight {
            name: part("weight"),
            shape: vec![outputs, inputs],
            dtype,
            numbers: Arc::new(numbers),
            parts: ["qzeros", "scales"].map(part).to_vec(),
        }))
    }
}
