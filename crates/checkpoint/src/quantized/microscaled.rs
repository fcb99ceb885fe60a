//! MXFP4 experts, as gpt-oss has them.
//!
//! `*_blocks` `[experts, outputs, inputs / 32, 16]`, bytes of two numbers of 4 bits, and `*_scales` `[experts, outputs,
//! inputs / 32]`, a power of two for each block (OCP Microscaling Formats 1.0). In the model before it was quantized the
//! same weight is `[experts, inputs, outputs]`: rows of one are columns of the other.
//!
//! Reference: transformers, `integrations/mxfp4.py`, `convert_moe_packed_tensors`: bf16, which holds every product.

use std::sync::Arc;

use super::{Method, Numbers, Reader, Stored, Weight, expect_dtype, unfit};
use crate::decode::{microscaled, microscaled_at};
use crate::{CheckpointError, Tensor, TensorDtype};

pub(super) const METHOD: Method = Method { name: "mxfp4", reader: |_| Ok(Box::new(Microscaled)) };

/// Numbers of a block, and the bytes that they take.
const BLOCK: (usize, usize) = (32, 16);

struct Microscaled;

impl Reader for Microscaled {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        let Some(weight) = name.strip_suffix("_blocks") else { return Ok(None) };
        let part = format!("{weight}_scales");
        let (blocks, scales) = (stored.part(name, name)?, stored.part(&part, name)?);
        expect_dtype(&blocks, &[TensorDtype::U8])?;
        expect_dtype(&scales, &[TensorDtype::U8, TensorDtype::F8E8M0])?;
        let [experts, outputs, groups, bytes] = *blocks.shape() else {
            return Err(unfit(name, format!("expected four dimensions, found {:?}", blocks.shape())));
        };
        blocks.expect_shape(&[experts, outputs, groups, BLOCK.1])?;
        scales.expect_shape(&[experts, outputs, groups])?;
        // A stack of no experts may have any other sizes.
        let inputs = groups.checked_mul(2 * bytes).ok_or_else(|| unfit(name, "its shape overflows"))?;
        let numbers = Experts { blocks, scales, outputs, inputs, as_stored: false };
        Ok(Some(Weight {
            name: weight.to_owned(),
            shape: vec![experts, inputs, outputs],
            dtype: TensorDtype::BF16,
            numbers: Arc::new(numbers),
            parts: vec![part],
        }))
    }
}

#[derive(Clone, Debug)]
struct Experts {
    blocks: Tensor,
    scales: Tensor,
    outputs: usize,
    inputs: usize,
    /// Whether rows are outputs, as they are stored.
    as_stored: bool,
}

impl Numbers for Experts {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let (blocks, scales) = (self.blocks.bytes(), self.scales.bytes());
        if self.as_stored {
            let each = self.inputs / BLOCK.0;
            let range = row * each..(row + 1) * each;
            microscaled(&blocks[range.start * BLOCK.1..range.end * BLOCK.1], &scales[range], out);
            return;
        }
        let (expert, input) = (row / self.inputs, row % self.inputs);
        for (output, out) in out.iter_mut().enumerate() {
            *out = microscaled_at(blocks, scales, (expert * self.outputs + output) * self.inputs + input);
        }
    }

    fn transposed(&self) -> Option<(usize, Arc<dyn Numbers>)> {
        let rows = if self.as_stored { self.outputs } else { self.inputs };
        Some((rows, Arc::new(Self { as_stored: !self.as_stored, ..self.clone() })))
    }
}
