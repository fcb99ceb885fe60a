//! GPTQ, as AutoGPTQ and GPTQModel write it.
//!
//! | part | shape | |
//! |---|---|---|
//! | `qweight` | `[inputs · bits / 32, outputs]` | words of integers of several inputs |
//! | `qzeros` | `[groups, outputs · bits / 32]` | words of zero points of several outputs |
//! | `scales` | `[groups, outputs]` | |
//! | `g_idx` | `[inputs]` | the group of each input; in the order that they come in, unless `desc_act` sorted them |
//!
//! The first format (`gptq`) stores zero points less one, and `gptq_v2` as they are. Whole words are incremented, as
//! GPTQModel does it, so that the borrow of a zero point 0 is undone, too.
//!
//! Reference: GPTQModel 7.7, `nn_modules/qlinear`, `dequantize_weight`: `scales (weight − zeros)` in the type of the scales.

use std::sync::Arc;

use super::affine::{Affine, Groups, Zeros};
use super::codes::{Along, Codes, expect_bits};
use super::{Method, Reader, SCALES, Section, Stored, Weight, expect_dtype, matrix};
use crate::CheckpointError;

pub(super) const METHOD: Method = Method { name: "gptq", reader: read };

/// Integers of 3 bits cross the ends of words in a way of their own.
const BITS: &[usize] = &[2, 4, 8];

struct Gptq {
    /// What the settings say; the sizes of the parts count more.
    bits: Option<usize>,
    /// Whether zero points are stored less one.
    less_one: bool,
}

fn read(settings: &Section<'_>) -> Result<Box<dyn Reader>, CheckpointError> {
    if settings.flag("is_marlin_format")? == Some(true) {
        return Err(settings.unknown("is_marlin_format", "true", "`false`"));
    }
    let key = if settings.has("checkpoint_format") { "checkpoint_format" } else { "format" };
    let format = settings.word(key, &["gptq", "gptq_v2"])?;
    Ok(Box::new(Gptq { bits: settings.count("bits")?, less_one: format == "gptq" }))
}

impl Reader for Gptq {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        let Some(module) = name.strip_suffix(".qweight") else { return Ok(None) };
        let part = |it: &str| format!("{module}.{it}");
        let (words, scales) = (stored.part(name, name)?, stored.part(&part("scales"), name)?);
        let (zeros, list) = (stored.part(&part("qzeros"), name)?, stored.find(&part("g_idx"))?);
        expect_dtype(&scales, SCALES)?;
        let ([rows, _], [count, outputs]) = (matrix(&words)?, matrix(&scales)?);
        // Modules may differ in their bits (`dynamic`); the list of groups tells how many inputs there are.
        let inputs = list.as_ref().map(|it| it.rows() * it.row_len());
        let bits = match inputs {
            Some(inputs) if inputs > 0 && (rows.saturating_mul(32)).is_multiple_of(inputs) => {
                rows * 32 / inputs
            }
            _ => self.bits.unwrap_or(4),
        };
        expect_bits(name, bits, BITS)?;
        let inputs = inputs.unwrap_or(rows.saturating_mul(32 / bits));
        let integers = Codes::new(words, [inputs, outputs], bits, Along::Rows)?;
        let zeros = Codes::new(zeros, [count, outputs], bits, Along::Columns)?;
        let groups = match &list {
            Some(list) => Groups::listed(list, inputs, count)?,
            None => Groups::runs(&scales, inputs, count)?,
        };
        let zeros = if self.less_one { zeros.plus_one() } else { zeros };
        let dtype = scales.dtype();
        let zeros = Zeros::Each(zeros);
        let numbers =
            Affine { integers, zeros, scales, single: false, groups, outputs, inputs, transposed: true };
        Ok(Some(Weight {
            name: part("weight"),
            shape: vec![outputs, inputs],
            dtype,
            numbers: Arc::new(numbers),
            parts: ["qzeros", "scales", "g_idx"].map(part).to_vec(),
        }))
    }
}
