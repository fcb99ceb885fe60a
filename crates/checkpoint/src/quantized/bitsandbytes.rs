//! bitsandbytes: 4 bits as places in a table of numbers (`nf4`, `fp4`), and signed bytes (`int8`).
//!
//! **4 bits**, arXiv:2305.14314: `weight` holds two places a byte, the first in the upper half, rows end to end; beside it
//! `weight.quant_map`, the table; `weight.absmax`, a scale for each block of numbers; and
//! `weight.quant_state.bitsandbytes__nf4` (or `fp4`), the shape, the size of blocks and the type in JSON. With double
//! quantization scales are bytes, places in `weight.nested_quant_map`, times `weight.nested_absmax` of their block, plus
//! an offset. Reference: bitsandbytes 0.50, `dequantize_4bit`: f32, rounded to the type.
//!
//! **8 bits**, arXiv:2208.07339: `weight` in signed bytes and `SCB`, the largest magnitude of each row. Reference:
//! `int8_vectorwise_dequant`: `weight SCB / 127` by multiplication with the reciprocal, rounded after both, f32.

use std::sync::Arc;

use serde_json::Value;

use super::{Method, Numbers, Reader, Section, Stored, Weight, expect_dtype, number_at, rounded, unfit};
use crate::{CheckpointError, Tensor, TensorDtype};

pub(super) const METHOD: Method =
    Method { name: "bitsandbytes", reader: |_: &Section<'_>| Ok(Box::new(BitsAndBytes)) };

struct BitsAndBytes;

impl Reader for BitsAndBytes {
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError> {
        let states = ["nf4", "fp4"].map(|it| format!("{name}.quant_state.bitsandbytes__{it}"));
        if let Some(state) = states.iter().find(|it| stored.contains(it)) {
            return four_bits(name, state, stored).map(Some);
        }
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        match stored.dtype(name) {
            Some(TensorDtype::I8) => eight_bits(name, module, stored).map(Some),
            // Packed numbers without what explains them.
            Some(TensorDtype::U8) => stored.part(&states[0], name).map(|_| None),
            _ => Ok(None),
        }
    }
}

fn four_bits(name: &str, state_name: &str, stored: &Stored<'_>) -> Result<Weight, CheckpointError> {
    let part = |it: &str| format!("{name}.{it}");
    let packed = stored.part(name, name)?;
    let state = State::parse(&stored.part(state_name, name)?)?;
    let mut table = table_of::<16>(&stored.part(&part("quant_map"), name)?)?;
    // Kernels of the reference multiply by the sign; they need even rows, others are looked up in the table.
    if state_name.ends_with("fp4") && state.columns.is_multiple_of(2) && table[8] == 0.0 {
        table[8] = -0.0;
    }
    let count =
        state.rows.checked_mul(state.columns).ok_or_else(|| unfit(state_name, "its shape overflows"))?;
    let bytes = packed.bytes().len();
    if bytes != count.div_ceil(2) {
        let (rows, columns) = (state.rows, state.columns);
        return Err(unfit(name, format!("{bytes} bytes do not hold {rows} × {columns} numbers of 4 bits")));
    }
    let absmax = stored.part(&part("absmax"), name)?;
    let scales = match &state.nested {
        None => {
            expect_dtype(&absmax, &[TensorDtype::F32])?;
            None
        }
        Some(nested) => {
            expect_dtype(&absmax, &[TensorDtype::U8])?;
            let scales = stored.part(&part("nested_absmax"), name)?;
            expect_dtype(&scales, &[TensorDtype::F32])?;
            expect_count(&scales, (absmax.rows() * absmax.row_len()).div_ceil(nested.block))?;
            let table = table_of::<256>(&stored.part(&part("nested_quant_map"), name)?)?;
            Some(Nested { table, scales, block: nested.block, offset: nested.offset })
        }
    };
    expect_count(&absmax, count.div_ceil(state.block))?;
    let State { rows, columns, block, dtype, .. } = state;
    let parts = ["quant_map", "absmax", "nested_absmax", "nested_quant_map"].map(part);
    Ok(Weight {
        name: name.to_owned(),
        shape: vec![rows, columns],
        dtype,
        numbers: Arc::new(FourBits { packed, table, absmax, block, nested: scales, dtype }),
        parts: parts.into_iter().chain([state_name.to_owned()]).collect(),
    })
}

fn eight_bits(name: &str, module: &str, stored: &Stored<'_>) -> Result<Weight, CheckpointError> {
    let part = |it: &str| format!("{module}.{it}");
    let (values, scales) = (stored.part(name, name)?, stored.part(&part("SCB"), name)?);
    let [rows, columns] = super::matrix(&values)?;
    expect_dtype(&scales, &[TensorDtype::F32])?;
    expect_count(&scales, rows)?;
    if let Some(format) = stored.find(&part("weight_format"))? {
        // 0 is `row`, the only one that is not made for one kind of device.
        if let Some(other) = format.to_f32().into_iter().find(|&it| it != 0.0) {
            return Err(unfit(
                format.name(),
                format!("layout {other} of the weight, known is 0, row by row"),
            ));
        }
    }
    Ok(Weight {
        name: name.to_owned(),
        shape: vec![rows, columns],
        dtype: TensorDtype::F32,
        numbers: Arc::new(EightBits { values, scales }),
        parts: ["SCB", "weight_format"].map(part).to_vec(),
    })
}

/// Checks how many numbers a tensor has.
fn expect_count(tensor: &Tensor, expected: usize) -> Result<(), CheckpointError> {
    if tensor.shape().iter().product::<usize>() == expected {
        return Ok(());
    }
    tensor.expect_shape(&[expected])
}

/// A table of numbers.
fn table_of<const N: usize>(tensor: &Tensor) -> Result<[f32; N], CheckpointError> {
    tensor.expect_shape(&[N])?;
    let numbers = tensor.to_f32();
    Ok(numbers.try_into().expect("the shape was checked"))
}

/// What is stored in JSON.
struct State {
    rows: usize,
    columns: usize,
    /// Numbers that share a scale.
    block: usize,
    dtype: TensorDtype,
    nested: Option<NestedState>,
}

struct NestedState {
    /// Scales that share a scale.
    block: usize,
    offset: f32,
}

impl State {
    fn parse(tensor: &Tensor) -> Result<Self, CheckpointError> {
        expect_dtype(tensor, &[TensorDtype::U8])?;
        let wrong = |what: String| unfit(tensor.name(), what);
        let state: Value =
            serde_json::from_slice(tensor.bytes()).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let size = |key: &str, value: &Value| {
            let size = value.as_u64().and_then(|it| usize::try_from(it).ok()).filter(|&it| it > 0);
            size.ok_or_else(|| wrong(format!("`{key}`: expected a whole number from 1, found `{value}`")))
        };
        let shape = state["shape"].as_array().map_or(&[][..], Vec::as_slice);
        let [rows, columns] = shape else {
            return Err(wrong(format!("`shape`: expected two sizes, found `{}`", state["shape"])));
        };
        let dtype = match state["dtype"].as_str() {
            Some("bfloat16") => TensorDtype::BF16,
            Some("float16") => TensorDtype::F16,
            Some("float32") => TensorDtype::F32,
            _ => {
                return Err(wrong(format!(
                    "`dtype`: expected bfloat16, float16 or float32, found `{}`",
                    state["dtype"]
                )));
            }
        };
        let nested = match state.get("nested_blocksize") {
            None | Some(Value::Null) => None,
            Some(block) => {
                let offset = state["nested_offset"].as_f64();
                let offset = offset.ok_or_else(|| wrong("`nested_offset` is no number".to_owned()))? as f32;
                Some(NestedState { block: size("nested_blocksize", block)?, offset })
            }
        };
        let block = size("blocksize", &state["blocksize"])?;
        Ok(Self { rows: size("shape", rows)?, columns: size("shape", columns)?, block, dtype, nested })
    }
}

#[derive(Debug)]
struct FourBits {
    packed: Tensor,
    table: [f32; 16],
    absmax: Tensor,
    block: usize,
    nested: Option<Nested>,
    dtype: TensorDtype,
}

/// Scales that are quantized themselves.
#[derive(Debug)]
struct Nested {
    table: [f32; 256],
    scales: Tensor,
    block: usize,
    offset: f32,
}

impl FourBits {
    fn scale(&self, block: usize) -> f32 {
        match &self.nested {
            None => number_at(&self.absmax, block),
            Some(nested) => {
                let place = usize::from(self.absmax.bytes()[block]);
                nested.table[place] * number_at(&nested.scales, block / nested.block) + nested.offset
            }
        }
    }
}

impl Numbers for FourBits {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let bytes = self.packed.bytes();
        let mut number = row * out.len();
        let mut rest = out;
        while !rest.is_empty() {
            let block = number / self.block;
            let here = rest.len().min((block + 1) * self.block - number);
            let (part, others) = rest.split_at_mut(here);
            let scale = self.scale(block);
            for out in part {
                let byte = bytes[number / 2];
                let place = if number.is_multiple_of(2) { byte >> 4 } else { byte & 0xf };
                *out = rounded(self.table[usize::from(place)] * scale, self.dtype);
                number += 1;
            }
            rest = others;
        }
    }
}

#[derive(Debug)]
struct EightBits {
    values: Tensor,
    scales: Tensor,
}

/// The reference multiplies by 7.874015718698502e-3, which is this number in f32.
const RECIPROCAL: f32 = 1.0 / 127.0;

impl Numbers for EightBits {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        self.values.read_row(row, out);
        let scale = number_at(&self.scales, row);
        for number in out {
            *number = *number * scale * RECIPROCAL;
        }
    }
}
