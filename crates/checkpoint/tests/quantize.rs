//! Rounding to blocks against what ggml makes of the same numbers (`tools/quantize_golden.py`).

use checkpoint::Quantization;
use safetensors::SafeTensors;

/// Numbers `[rows][256]`, and ggml's blocks of each row.
fn golden(kind: Quantization) -> Vec<(Vec<f32>, Vec<u8>)> {
    let file = std::fs::read("tests/golden/quantized.safetensors").unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let numbers = golden.tensor("numbers").unwrap();
    let blocks = golden.tensor(kind.dtype().name()).unwrap();
    let row_bytes = kind.dtype().row_bytes(256).unwrap();
    let row = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let rows = numbers.data().chunks(4 * 256).zip(blocks.data().chunks(row_bytes));
    rows.map(|(numbers, blocks)| (row(numbers), blocks.to_vec())).collect()
}

fn encoded(kind: Quantization, numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xaa; kind.dtype().row_bytes(numbers.len()).unwrap()];
    kind.encode(numbers, &mut bytes);
    bytes
}

/// Σ (decoded − number)².
fn squared_error(kind: Quantization, numbers: &[f32], bytes: &[u8]) -> f64 {
    let mut decoded = vec![f32::NAN; numbers.len()];
    kind.dtype().decode(bytes, &mut decoded);
    numbers.iter().zip(decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn blocks_of_8_bits_have_ggmls_bytes() {
    let golden = golden(Quantization::Q8_0);
    assert_eq!(golden.len(), 48);
    for (row, (numbers, expected)) in golden.iter().enumerate() {
        assert_eq!(&encoded(Quantization::Q8_0, numbers), expected, "row {row}");
    }
}

#[test]
fn blocks_of_4_bits_are_off_by_no_more_than_ggmls() {
    /// Candidates that are equally good but for a rounding may be chosen otherwise: seen were 8e-4 in all and, of a row
    /// full of ties, 0.16.
    const HAIR: f64 = 1.005;
    const ROW: f64 = 1.25;
    let (mut same, mut ours, mut theirs) = (0, 0.0, 0.0);
    let golden = golden(Quantization::Q4_K);
    for (row, (numbers, expected)) in golden.iter().enumerate() {
        let found = encoded(Quantization::Q4_K, numbers);
        let errors = [&found, expected].map(|it| squared_error(Quantization::Q4_K, numbers, it));
        assert!(errors[0] <= ROW * errors[1] + 1e-18, "row {row}: {errors:?}");
        same += usize::from(found == *expected);
        ours += errors[0];
        theirs += errors[1];
    }
    assert!(ours <= theirs * HAIR, "{ours:e} beside {theirs:e}");
    assert!(same >= golden.len() * 9 / 10, "{same} of {} rows have ggml's bytes", golden.len());
}

#[test]
fn numbers_that_a_block_holds_exactly_are_kept() {
    // d = 1/8 and integers up to 127.
    let numbers: Vec<f32> = (0..32).map(|it| (it * 8 - 127) as f32 / 8.0).collect();
    let error = squared_error(Quantization::Q8_0, &numbers, &encoded(Quantization::Q8_0, &numbers));
    assert_eq!(error.to_bits(), 0.0_f64.to_bits());
}

#[test]
#[should_panic(expected = "Q4_K: 143 bytes do not hold 256 numbers")]
fn bytes_and_numbers_that_do_not_fit_are_the_callers_mistake() {
    Quantization::Q4_K.encode(&[0.0; 256], &mut [0; 143]);
}
