//! One test for each way the parts of a quantized weight can fail to fit.

use checkpoint::{Checkpoint, CheckpointError};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

use crate::quantized::Parts;

fn error(parts: &Parts) -> CheckpointError {
    Checkpoint::open(parts.write().path()).unwrap_err()
}

/// Opens a golden folder with something changed and expects a message with these parts.
fn refused(name: &str, change: impl FnOnce(&mut Parts), expected: &[&str]) {
    let mut parts = Parts::golden(name);
    change(&mut parts);
    let message = error(&parts).to_string();
    for part in expected {
        assert!(message.contains(part), "{name}: `{part}` is not in: {message}");
    }
}

/// Another shape for a part, filled or cut to fit.
fn reshape<'a>(part: &'a str, shape: &'a [usize]) -> impl FnOnce(&mut Parts) + 'a {
    move |parts| {
        let (dtype, old, bytes) = parts.tensors.get_mut(part).expect(part);
        *old = shape.to_vec();
        let size = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        bytes.resize(size, 0);
    }
}

fn remove(part: &str) -> impl FnOnce(&mut Parts) + '_ {
    move |parts| {
        parts.tensors.remove(part).expect(part);
    }
}

fn set(key: &str, value: serde_json::Value) -> impl FnOnce(&mut Parts) {
    move |parts| parts.config["quantization_config"][key] = value
}

#[test]
fn an_unknown_method_is_refused_with_those_that_are_known() {
    let known =
        ["`quant_method` is `aqlm`", "`fp8`, ", "`gptq`, `awq`, `bitsandbytes`", "hint: take the model"];
    refused("gptq_4", set("quant_method", json!("aqlm")), &known);
    refused("gptq_4", set("quant_method", json!(null)), &["`quant_method` is `(none named)`"]);
    refused(
        "gptq_4",
        |it| it.config["quantization_config"] = json!("gptq"),
        &["should be an object", "a string"],
    );
}

#[test]
fn unknown_variants_of_a_known_method_are_refused_by_name() {
    refused(
        "gptq_4",
        set("checkpoint_format", json!("marlin")),
        &["`checkpoint_format` is `marlin`", "`gptq_v2`"],
    );
    refused("gptq_4", set("is_marlin_format", json!(true)), &["`is_marlin_format` is `true`"]);
    refused("awq", set("version", json!("gemv")), &["`version` is `gemv`", "`gemm`"]);
    refused("awq", set("bits", json!(3)), &["`bits` is `3`", "`4`"]);
    refused(
        "ct_int4_group",
        set("format", json!("marlin-24")),
        &["`format` is `marlin-24`", "`pack-quantized`"],
    );
    let sparse = json!({"format": "sparse-24-bitmask"});
    refused("ct_int4_group", set("sparsity_config", sparse), &["`format` is `sparse-24-bitmask`"]);
    refused("fp8_blocks", set("expert_dtype", json!("fp4")), &["`expert_dtype` is `fp4`"]);
    refused(
        "fp8_blocks",
        set("weight_block_size", json!([0, 16])),
        &["`weight_block_size`", "whole numbers from 1"],
    );
}

#[test]
fn a_missing_part_is_named_with_the_weight_that_needs_it() {
    for (name, part) in [
        ("fp8_blocks", "weight_scale_inv"),
        ("fbgemm_fp8", "weight_scale"),
        ("ct_int8_channel", "weight_scale"),
        ("ct_int4_group", "weight_scale"),
        ("ct_int4_group", "weight_shape"),
        ("gptq_4", "scales"),
        ("gptq_4", "qzeros"),
        ("awq", "qzeros"),
        ("bnb_nf4", "weight.absmax"),
        ("bnb_nf4", "weight.quant_map"),
        ("bnb_nf4", "weight.quant_state.bitsandbytes__nf4"),
        ("bnb_nf4_double", "weight.nested_absmax"),
        ("bnb_nf4_double", "weight.nested_quant_map"),
        ("bnb_int8", "SCB"),
    ] {
        let part = format!("layers.0.proj.{part}");
        refused(
            name,
            remove(&part),
            &[&format!("`{part}` is not in"), "is quantized and cannot be read without"],
        );
    }
}

#[test]
fn a_part_of_another_shape_is_named() {
    let part = |it: &str| format!("layers.0.proj.{it}");
    // The weights are 48 × 64.
    let cases: &[(&str, &str, &[usize], &str)] = &[
        (
            "fp8_blocks",
            "weight_scale_inv",
            &[3, 5],
            "[3, 5] does not fit a weight of shape [48, 64] in blocks of 16 × 16",
        ),
        ("fp8_blocks", "weight_scale_inv", &[0, 4], "does not fit"),
        ("fp8_blocks", "weight_scale_inv", &[2, 3, 4], "does not fit"),
        ("fp8_one_scale", "weight_scale_inv", &[7, 1], "does not fit"),
        ("mxfp8", "weight_scale_inv", &[48, 3], "does not fit"),
        ("ct_float_channel", "weight_scale", &[47, 1], "does not fit"),
        ("ct_int8_zeros", "weight_zero_point", &[47, 1], "expected shape [48, 1], found [47, 1]"),
        ("ct_int4_group", "weight_packed", &[48, 7], "rows of 7 words do not hold 64 integers of [4] bits"),
        ("ct_int4_group", "weight_packed", &[47, 8], "expected shape [48, 8], found [47, 8]"),
        ("ct_int4_group", "weight_scale", &[48, 5], "64 inputs do not make 5 groups of one size"),
        ("ct_int4_group", "weight_scale", &[47, 4], "expected shape [48, 4]"),
        ("ct_int4_group", "weight_shape", &[3], "expected shape [2], found [3]"),
        ("ct_int4_zeros", "weight_zero_point", &[5, 4], "expected shape [6, 4], found [5, 4]"),
        ("ct_int4_listed", "weight_g_idx", &[63], "expected shape [64], found [63]"),
        ("gptq_4", "qweight", &[8], "expected two dimensions"),
        ("gptq_4", "qweight", &[9, 48], "expected shape [8, 48], found [9, 48]"),
        ("gptq_4", "qweight", &[8, 47], "expected shape [8, 48], found [8, 47]"),
        ("gptq_4", "qweight", &[6, 48], "integers of 3 bits, known are 2, 4, 8"),
        ("gptq_4", "qzeros", &[2, 5], "expected shape [2, 6], found [2, 5]"),
        ("awq", "qweight", &[64, 5], "expected shape [64, 6], found [64, 5]"),
        ("awq", "qzeros", &[3, 6], "expected shape [2, 6], found [3, 6]"),
        ("awq", "scales", &[2, 47], "47 outputs are not a multiple of 8"),
        ("bnb_nf4", "weight", &[1535, 1], "1535 bytes do not hold 48 × 64 numbers of 4 bits"),
        ("bnb_nf4", "weight.absmax", &[47], "expected shape [48], found [47]"),
        ("bnb_nf4", "weight.quant_map", &[15], "expected shape [16], found [15]"),
        ("bnb_nf4_double", "weight.nested_absmax", &[2], "expected shape [1], found [2]"),
        ("bnb_nf4_double", "weight.nested_quant_map", &[255], "expected shape [256]"),
        ("bnb_int8", "SCB", &[47], "expected shape [48], found [47]"),
    ];
    for (name, of, shape, expected) in cases {
        let of = part(of);
        refused(name, reshape(&of, shape), &[&of, expected]);
    }
}

#[test]
fn a_list_of_groups_names_only_groups_that_there_are() {
    let change = |parts: &mut Parts| {
        let (_, _, bytes) = parts.tensors.get_mut("layers.0.proj.g_idx").unwrap();
        bytes[4 * 7..][..4].copy_from_slice(&2_i32.to_le_bytes());
    };
    refused("gptq_4_sorted", change, &["`layers.0.proj.g_idx`", "input 7 is in group 2, there are 2"]);
    let negative = |parts: &mut Parts| {
        let (_, _, bytes) = parts.tensors.get_mut("layers.0.proj.g_idx").unwrap();
        bytes[..4].copy_from_slice(&(-2_i32).to_le_bytes());
    };
    refused("gptq_4_sorted", negative, &["input 0 is in group -2"]);
}

#[test]
fn a_part_of_another_type_is_named() {
    let typed = |part: &'static str, dtype: Dtype| {
        move |parts: &mut Parts| {
            let (old, shape, bytes) = parts.tensors.get_mut(part).expect(part);
            *old = dtype;
            bytes.resize(shape.iter().product::<usize>() * dtype.bitsize() / 8, 0);
        }
    };
    let expected = ["`layers.0.proj.scales`: expected type F32 or BF16 or F16, found I32"];
    refused("gptq_4", typed("layers.0.proj.scales", Dtype::I32), &expected);
    refused("awq", typed("layers.0.proj.qweight", Dtype::F32), &["expected type I32 or U32, found F32"]);
    refused("fp8_blocks", typed("layers.0.proj.weight_scale_inv", Dtype::I64), &["found I64"]);
    refused("ct_float_channel", typed("layers.0.proj.weight_scale", Dtype::F8_E8M0), &["found F8_E8M0"]);
    refused("bnb_int8", typed("layers.0.proj.SCB", Dtype::F16), &["expected type F32, found F16"]);
    refused("bnb_nf4", typed("layers.0.proj.weight.absmax", Dtype::U8), &["expected type F32, found U8"]);
    // Bytes that no method explains are not numbers of a weight.
    refused("fp8_blocks", typed("layers.0.proj.weight", Dtype::I8), &["`layers.0.proj.weight`", "found I8"]);
}

#[test]
fn a_state_that_is_not_what_it_should_be_says_so() {
    let state = "layers.0.proj.weight.quant_state.bitsandbytes__nf4";
    for (text, expected) in [
        ("{", "not JSON"),
        (
            r#"{"shape": [48], "blocksize": 64, "dtype": "float16"}"#,
            "`shape`: expected two sizes, found `[48]`",
        ),
        (
            r#"{"shape": [48, -1], "blocksize": 64, "dtype": "float16"}"#,
            "`shape`: expected a whole number from 1",
        ),
        (
            r#"{"shape": [48, 64], "blocksize": 0, "dtype": "float16"}"#,
            "`blocksize`: expected a whole number",
        ),
        (r#"{"shape": [48, 64], "blocksize": 64, "dtype": "int8"}"#, "`dtype`: expected bfloat16"),
        (r#"{"shape": [4294967296, 4294967296], "blocksize": 1, "dtype": "float16"}"#, "overflows"),
        (
            r#"{"shape": [48, 64], "blocksize": 64, "dtype": "float16", "nested_blocksize": 256}"#,
            "`nested_offset` is no number",
        ),
    ] {
        let change = |parts: &mut Parts| {
            let bytes = text.as_bytes().to_vec();
            parts.tensors.insert(state.to_owned(), (Dtype::U8, vec![bytes.len()], bytes));
        };
        refused("bnb_nf4", change, &[state, expected]);
    }
}

#[test]
fn a_packed_weight_of_an_absurd_shape_reserves_nothing() {
    for sizes in [[i64::MAX, 8], [-1, 64], [1 << 40, 1 << 40], [48, 0]] {
        let change = |parts: &mut Parts| {
            let bytes = sizes.map(i64::to_le_bytes).concat();
            parts.tensors.insert("layers.0.proj.weight_shape".to_owned(), (Dtype::I64, vec![2], bytes));
        };
        refused("ct_int4_group", change, &["layers.0.proj.weight_"]);
    }
}

#[test]
fn blocks_and_scales_of_experts_fit_each_other() {
    let (blocks, scales) = ("layers.0.experts.down_proj_blocks", "layers.0.experts.down_proj_scales");
    refused("mxfp4", remove(scales), &["`layers.0.experts.down_proj_scales` is not in"]);
    refused("mxfp4", reshape(blocks, &[3, 20, 32]), &[blocks, "four dimensions"]);
    refused("mxfp4", reshape(blocks, &[3, 20, 2, 8]), &[blocks, "expected shape [3, 20, 2, 16]"]);
    refused("mxfp4", reshape(scales, &[3, 20, 3]), &[scales, "expected shape [3, 20, 2], found [3, 20, 3]"]);
}

const GOLDENS: [&str; 13] = [
    "mxfp4",
    "fp8_blocks",
    "fp8_one_scale",
    "mxfp8",
    "ct_float_block",
    "ct_int8_zeros",
    "ct_int4_zeros",
    "ct_int4_listed",
    "gptq_4_sorted",
    "gptq_8_channel",
    "awq",
    "bnb_nf4_double",
    "bnb_int8",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever shape, type and bytes one part has: an error, or numbers that can be read.
    #[test]
    fn a_part_of_any_shape_and_type_is_an_error_or_a_weight(
        golden in 0..GOLDENS.len(),
        part in any::<prop::sample::Index>(),
        shape in prop::collection::vec(0_usize..70, 0..4),
        dtype in prop::sample::select(vec![
            Dtype::U8, Dtype::I8, Dtype::I32, Dtype::I64, Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F8_E4M3, Dtype::F8_E8M0,
        ]),
        keep_type in any::<bool>(),
        keep_shape in any::<bool>(),
        byte in any::<u8>(),
    ) {
        let mut parts = Parts::golden(GOLDENS[golden]);
        let name = parts.tensors.keys().nth(part.index(parts.tensors.len())).unwrap().clone();
        let (old_type, old_shape, bytes) = parts.tensors.get_mut(&name).unwrap();
        if !keep_type { *old_type = dtype; }
        if !keep_shape { *old_shape = shape; }
        let size = old_shape.iter().product::<usize>() * old_type.bitsize() / 8;
        bytes.resize(size, byte);
        if keep_type && keep_shape { bytes.fill(byte); }
        if let Ok(checkpoint) = Checkpoint::open(parts.write().path()) {
            for name in checkpoint.names() {
                if let Ok(tensor) = checkpoint.tensor(name) {
                    prop_assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>());
                }
            }
        }
    }
}
