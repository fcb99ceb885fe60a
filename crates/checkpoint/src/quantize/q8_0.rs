//! Q8_0: `d q` with d the largest magnitude over 127.

use half::f16;

/// The nearest integer, halves away from zero.
pub(super) fn encode(numbers: &[f32; 32]) -> [u8; 34] {
    let largest = numbers.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (byte, number) in block[2..].iter_mut().zip(numbers) {
        *byte = (number * inverse).round() as i8 as u8;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_scaled_to_127_and_halves_go_away_from_zero() {
        let mut numbers = [0.0; 32];
        (numbers[0], numbers[1], numbers[2], numbers[31]) = (127.0, 2.5, -2.5, -126.6);
        let block = encode(&numbers); // d = 127/127
        assert_eq!(block[..2], f16::ONE.to_le_bytes());
        let mut expected = [0; 32];
        (expected[0], expected[1], expected[2], expected[31]) = (127, 3, -3, -127);
        assert_eq!(std::array::from_fn(|i| block[2 + i] as i8), expected);
    }

    #[test]
    fn zeros_and_numbers_too_small_for_a_scale_are_zeros() {
        assert_eq!(encode(&[0.0; 32]), [0; 34]);
        // 1e-40/127 has an inverse beyond f32; the integers mean nothing with a scale of zero.
        assert_eq!(encode(&[1e-40; 32])[..2], [0, 0]);
    }
}
