//! compressed-tensors, as LLM Compressor writes it.
//!
//! * `float-quantized`, `int-quantized`, `naive-quantized`: `weight` in 8-bit floats or signed bytes, `weight_scale` for
//!   everything, each row, groups of a row's numbers or blocks, and perhaps `weight_zero_point` as signed bytes.
//! * `pack-quantized`: `weight_packed` `[outputs, inputs · bits / 32]`, words of integers with half their range added;
//!   `weight_scale` `[outputs, groups]`; `weight_shape`; perhaps `weight_zero_point` `[outputs · bits / 32, groups]`,
//!   packed along the outputs, and `weight_g_idx`, the group of each input.
//!
//! Reference: compressed-tensors 0.20, `quantization/lifecycle/forward_helpers.py`, `_dequantize`: the difference to the zero
//! point times the scale, in the type of the scale.

use std::sync::Arc;

use super::affine::{Affine, Groups, Zeros};
use super::codes::{Along, Codes, expect_bits};
use super::float8::of_activations;
use super::scaled::{SMALL_FLOATS, Scaled};
use super::{Method, Reader, SCALES, Section, Stored, Weight, expect_dtype, matrix, unfit};
use crate::{CheckpointError, Tensor, TensorDtype};

pub(super) const METHOD: Method = Method { name: "compressed-tensors", reader: read };

/// Integers that share words without crossing into the next.
const BITS: &[usize] = &[2, 4, 8];

const FORMATS: &[&str] =
    &["dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "mixed-precision"];

#[derive(Default)]
struct CompressedTensors {
    /// The bits of the groups of modules.
    bits: Vec<usize>,
    /// Their blocks.
    blocks: Vec<[usize; 2]>,
}

fn read(settings: &Section<'_>) -> Result<Box<dyn Reader>, CheckpointError> {
    settings.word("format", FORMATS)?;
    if let Some(sparsity) = settings.section("sparsity_config") {
        sparsity.word("format", &["dense"])?;
    }
    let mut found = CompressedTensors::default();
    for group in settings.section("config_groups").iter().flat_map(Section::sections) {
        group.word("format", FORMATS)?;
        let Some(weights) = group.section("weights") else { continue };
        found.bits.extend(weights.count("num_bits")?);
        found.blocks.extend(weights.pair("block_structure")?);
    }
    Ok(Box::new(found))
}

impl Reader for CompressedTensors {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        if let Some(weight) = name.strip_suffix("_packed") {
            return self.packed(name, weight, stored).map(Some);
        }
        let of_bytes = |it| SMALL_FLOATS.contains(&it) || it == TensorDtype::I8;
        let part = |it: &str| format!("{name}_{it}");
        // Zero points are signed bytes, too.
        if !stored.dtype(name).is_some_and(of_bytes) || name.ends_with("_zero_point") {
            return Ok(None);
        }
        let (values, scales) = (stored.part(name, name)?, stored.part(&part("scale"), name)?);
        let zeros = stored.find(&part("zero_point"))?;
        let shape = values.shape().to_vec();
        let block = self.blocks.first().copied();
        let (dtype, numbers) = Scaled::numbers(values, scales, zeros, block, None)?;
        let parts = ["scale", "zero_point"].map(part).to_vec();
        Ok(Some(Weight { name: name.to_owned(), shape, dtype, numbers, parts }))
    }

    fn is_of_activations(&self, name: &str) -> bool {
        of_activations(name)
    }
}

impl CompressedTensors {
    fn packed(&self, name: &str, weight: &str, stored: &Stored<'_>) -> Result<Weight, CheckpointError> {
        let part = |it: &str| format!("{weight}_{it}");
        let (words, scales) = (stored.part(name, name)?, stored.part(&part("scale"), name)?);
        let [outputs, inputs] = shape(&stored.part(&part("shape"), name)?)?;
        expect_dtype(&scales, SCALES)?;
        let bits = self.bits_of(&words, inputs)?;
        let integers = Codes::new(words, [outputs, inputs], bits, Along::Columns)?;
        let count = match *scales.shape() {
            [1] | [] => 1,
            [rows] if rows == outputs => 1,
            _ => matrix(&scales)?[1],
        };
        let single = scales.rows() * scales.row_len() == 1;
        if !single && scales.shape() != [outputs] {
            scales.expect_shape(&[outputs, count])?;
        }
        let middle = 1_u8 << (bits - 1);
        let zeros = match stored.find(&part("zero_point"))? {
            None => Zeros::All(middle),
            Some(it) if it.dtype() == TensorDtype::I8 => {
                it.expect_shape(scales.shape())?;
                Zeros::Bytes(it, middle)
            }
            Some(it) => Zeros::Each(Codes::new(it, [outputs, count], bits, Along::Rows)?),
        };
        let list = stored.find(&part("g_idx"))?;
        // A list of −1 stands for none.
        let list = list.filter(|it| !it.to_f32().contains(&-1.0));
        let groups = match &list {
            Some(list) => Groups::listed(list, inputs, count)?,
            None => Groups::runs(&scales, inputs, count)?,
        };
        let dtype = scales.dtype();
        let numbers = Affine { integers, zeros, scales, single, groups, outputs, inputs, transposed: false };
        Ok(Weight {
            name: weight.to_owned(),
            shape: vec![outputs, inputs],
            dtype,
            numbers: Arc::new(numbers),
            parts: ["scale", "shape", "zero_point", "g_idx"].map(part).to_vec(),
        })
    }

    /// The bits of a weight's integers: of those that the settings name, the ones that its words fit.
    fn bits_of(&self, words: &Tensor, inputs: usize) -> Result<usize, CheckpointError> {
        let width = words.row_len();
        let fits = |it: &&usize| {
            **it > 0 && **it <= 32 && inputs.checked_mul(**it).is_some_and(|it| it.div_ceil(32) == width)
        };
        let Some(&bits) = self.bits.iter().find(fits) else {
            let known = &self.bits;
            let why = format!("rows of {width} words do not hold {inputs} integers of {known:?} bits");
            return Err(unfit(words.name(), why));
        };
        expect_bits(words.name(), bits, BITS)?;
        Ok(bits)
    }
}

/// The shape that a small tensor of two integers holds.
fn shape(tensor: &Tensor) -> Result<[usize; 2], CheckpointError> {
    expect_dtype(tensor, &[TensorDtype::I64, TensorDtype::I32])?;
    tensor.expect_shape(&[2])?;
    let width = tensor.dtype().block().1;
    let size = |bytes: &[u8]| {
        // Read as an unsigned number: a negative one is too large for any matrix.
        let number = bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        usize::try_from(number).ok().filter(|&it| it < 1 << 32)
    };
    let mut sizes = tensor.bytes().chunks(width).map(size);
    match (sizes.next().flatten(), sizes.next().flatten()) {
        (Some(rows), Some(columns)) => Ok([rows, columns]),
        _ => Err(unfit(tensor.name(), format!("{:?} is no shape of a matrix", tensor.to_f32()))),
    }
}
