//! Decoding against what the reference implementations read from the same bytes (`tools/quant_golden.py`).

use checkpoint::TensorDtype;
use safetensors::SafeTensors;

#[test]
fn every_stored_type_decodes_to_the_bits_of_its_reference() {
    let file = std::fs::read("tests/golden/stored_types.safetensors").unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let mut compared = 0;
    for name in golden.names().iter().filter_map(|it| it.strip_suffix(".bytes")) {
        let dtype = *TensorDtype::ALL.iter().find(|it| it.name() == name).unwrap();
        let bytes = golden.tensor(&format!("{name}.bytes")).unwrap();
        let expected = golden.tensor(&format!("{name}.numbers")).unwrap();
        let expected: Vec<f32> =
            expected.data().as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
        let mut found = vec![f32::NAN; expected.len()];
        dtype.decode(bytes.data(), &mut found);
        for (place, (expected, found)) in expected.iter().zip(&found).enumerate() {
            // The bits of a NaN depend on the processor.
            let same = expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan();
            assert!(same, "{name}, number {place}: expected {expected:e}, found {found:e}");
        }
        compared += 1;
    }
    assert_eq!(compared, 18, "11 quantized types, 5 one-byte floats, F16 and BF16");
}

#[test]
fn every_type_decodes_bytes_that_are_not_aligned() {
    for dtype in TensorDtype::ALL {
        let (numbers, size) = dtype.block();
        let shifted: Vec<u8> = (0..=3 * size).map(|it| (it * 37 % 120) as u8).collect();
        let aligned = shifted[1..].to_vec();
        let mut expected = vec![0.0; 3 * numbers];
        let mut found = expected.clone();
        dtype.decode(&aligned, &mut expected);
        dtype.decode(&shifted[1..], &mut found);
        let bits = |it: &[f32]| it.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&expected), bits(&found), "{dtype}");
    }
}

#[test]
#[should_panic(expected = "Q8_0: 33 bytes do not hold 32 numbers")]
fn bytes_and_numbers_that_do_not_fit_are_the_callers_mistake() {
    TensorDtype::Q8_0.decode(&[0; 33], &mut [0.0; 32]);
}
