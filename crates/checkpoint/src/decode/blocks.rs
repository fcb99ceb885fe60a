//! Blocks of 32 numbers that share a scale `d` and, in the `_1` types, a minimum `m` (both half precision).
//!
//! Byte `i` of the 4-bit part holds number `i` in its lower and number `i + 16` in its upper half. The 5-bit
//! types keep the fifth bits in a 32-bit word, bit `i` for number `i`.

use super::half_at;

/// `d (q − 8)`: d, 16 bytes of q.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[2..].iter().zip(low).zip(high) {
        *low = d * f32::from((byte & 0xf) as i8 - 8);
        *high = d * f32::from((byte >> 4) as i8 - 8);
    }
}

/// `d q + m`: d, m, 16 bytes of q.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((&byte, low), high) in block[4..].iter().zip(low).zip(high) {
        *low = d * f32::from(byte & 0xf) + m;
        *high = d * f32::from(byte >> 4) + m;
    }
}

/// `d (q − 16)`: d, fifth bits, 16 bytes of q.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(16);
    for (i, ((&byte, low), high)) in block[6..].iter().zip(low).zip(high).enumerate() {
        *low = d * f32::from((byte & 0xf | fifth_bit(fifth, i)) as i8 - 16);
        *high = d * f32::from((byte >> 4 | fifth_bit(fifth, i + 16)) as i8 - 16);
    }
}

/// `d q + m`: d, m, fifth bits, 16 bytes of q.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    let (low, high) = out.split_at_mut(16);
    for (i, ((&byte, low), high)) in block[8..].iter().zip(low).zip(high).enumerate() {
        *low = d * f32::from(byte & 0xf | fifth_bit(fifth, i)) + m;
        *high = d * f32::from(byte >> 4 | fifth_bit(fifth, i + 16)) + m;
    }
}

/// `d q`: d, 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (&byte, out) in block[2..].iter().zip(out) {
        *out = d * f32::from(byte as i8);
    }
}

fn fifth_bit(bits: u32, number: usize) -> u8 {
    (((bits >> number) & 1) << 4) as u8
}

#[cfg(test)]
mod tests {
    use crate::TensorDtype;

    #[test]
    fn a_q4_1_block_is_scale_times_integer_plus_minimum() {
        let mut block = [0_u8; 20];
        block[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        block[2..4].copy_from_slice(&half::f16::from_f32(-1.0).to_le_bytes());
        block[4] = 0xf3; // number 0 is 3, number 16 is 15
        let mut out = [f32::NAN; 32];
        TensorDtype::Q4_1.decode(&block, &mut out);
        assert_eq!((out[0], out[16], out[1]), (0.5, 6.5, -1.0)); // 0.5*3-1, 0.5*15-1, 0.5*0-1
    }

    #[test]
    fn the_fifth_bit_of_number_20_is_bit_20_of_the_word() {
        let mut block = [0_u8; 22];
        block[..2].copy_from_slice(&half::f16::from_f32(2.0).to_le_bytes());
        block[4] = 1 << 4; // bits 16..24, of these the fifth
        let mut out = [f32::NAN; 32];
        TensorDtype::Q5_0.decode(&block, &mut out);
        assert_eq!((out[20], out[19]), (0.0, -32.0)); // 2*(16-16), 2*(0-16)
    }
}
