//! Weights in 8-bit floats with scales beside them.
//!
//! * `fp8`: DeepSeek's, and Qwen's, and Mistral's: `weight` and `weight_scale_inv`, one for each block of 128 × 128 (or what
//!   `weight_block_size` says; none: one for all). The name speaks of an inverse; it is what the number is multiplied with.
//!   Reference: transformers, `integrations/finegrained_fp8.py`, `Fp8Dequantize`: f32. There the blocks' sizes are derived
//!   from the number of scales, and refused where they do not divide the weight; the format, and DeepSeek's own kernels,
//!   have smaller blocks at the ends, and so it is here.
//! * `mxfp8`: the same with blocks of 1 × 32 and powers of two as scales (OCP Microscaling Formats 1.0).
//! * `fbgemm_fp8`: `weight` and `weight_scale`, one for each row. f32.
//! * `modelopt` with the algorithm `FP8`: `weight` and `weight_scale`, one for all. f32.

use super::scaled::{SMALL_FLOATS, Scaled};
use super::{Method, Reader, Section, Stored, Weight};
use crate::{CheckpointError, TensorDtype};

pub(super) const FP8: Method = Method { name: "fp8", reader: |it| blocks(it, [128, 128]) };

pub(super) const MXFP8: Method = Method { name: "mxfp8", reader: |it| blocks(it, [1, 32]) };

pub(super) const FBGEMM: Method =
    Method { name: "fbgemm_fp8", reader: |_| Ok(Box::new(Float8 { scale: "_scale", block: None })) };

pub(super) const MODELOPT: Method = Method {
    name: "modelopt",
    reader: |settings| {
        settings.word("quant_algo", &["FP8"])?;
        Ok(Box::new(Float8 { scale: "_scale", block: None }))
    },
};

struct Float8 {
    /// What the name of the scales has more than that of the weight.
    scale: &'static str,
    block: Option<[usize; 2]>,
}

fn blocks(settings: &Section<'_>, usual: [usize; 2]) -> Result<Box<dyn Reader>, CheckpointError> {
    settings.word("expert_dtype", &["fp8"])?;
    let said = settings.pair("weight_block_size")?;
    let block = if settings.has("weight_block_size") { said } else { Some(usual) };
    Ok(Box::new(Float8 { scale: "_scale_inv", block }))
}

impl Reader for Float8 {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        if !stored.dtype(name).is_some_and(|it| SMALL_FLOATS.contains(&it)) {
            return Ok(None);
        }
        let values = stored.part(name, name)?;
        let part = format!("{name}{}", self.scale);
        let scales = stored.part(&part, name)?;
        let shape = values.shape().to_vec();
        let (dtype, numbers) = Scaled::numbers(values, scales, None, self.block, Some(TensorDtype::F32))?;
        Ok(Some(Weight { name: name.to_owned(), shape, dtype, numbers, parts: vec![part] }))
    }

    fn is_of_activations(&self, name: &str) -> bool {
        of_activations(name)
    }
}

/// Scales of what goes into products, and of what is kept of keys and values.
pub(super) fn of_activations(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "input_scale",
        "input_scale_ub",
        "input_zero_point",
        "input_global_scale",
        "output_scale",
        "output_zero_point",
        "activation_scale",
        "q_scale",
        "k_scale",
        "v_scale",
    ];
    let last = name.rsplit('.').next().unwrap_or(name);
    NAMES.contains(&last) || last.ends_with("_activation_scale")
}
