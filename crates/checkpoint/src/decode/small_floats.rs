//! Floating-point numbers of one byte, by table.

/// E4M3: no infinity, NaN only with all bits but the sign set.
pub(super) static E4M3: [f32; 256] = table(3, 7, Special::OnlyAllOnes);
/// E5M2: infinity and NaN as in IEEE 754.
pub(super) static E5M2: [f32; 256] = table(2, 15, Special::Ieee);
/// E4M3 FNUZ: finite but for the pattern of negative zero.
pub(super) static E4M3_FNUZ: [f32; 256] = table(3, 8, Special::OnlyNegativeZero);
/// E5M2 FNUZ: finite but for the pattern of negative zero.
pub(super) static E5M2_FNUZ: [f32; 256] = table(2, 16, Special::OnlyNegativeZero);
/// E8M0: a power of two.
pub(super) static E8M0: [f32; 256] = powers_of_two();

/// Which bit patterns are not finite numbers.
#[derive(Clone, Copy)]
enum Special {
    /// The largest exponent: infinity with mantissa 0, else NaN.
    Ieee,
    /// The largest exponent and mantissa: NaN.
    OnlyAllOnes,
    /// Only the sign bit set: NaN.
    OnlyNegativeZero,
}

pub(super) fn look_up(table: &[f32; 256], bytes: &[u8], out: &mut [f32]) {
    for (&byte, out) in bytes.iter().zip(out) {
        *out = table[usize::from(byte)];
    }
}

/// (−1)^sign · (mantissa + 2^m if exponent > 0) · 2^(max(exponent, 1) − bias − m), m = mantissa bits.
const fn table(mantissa_bits: u32, bias: i32, special: Special) -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        let sign = if byte >= 0x80 { -1.0 } else { 1.0 };
        let rest = byte as u32 & 0x7f;
        let exponent = rest >> mantissa_bits;
        let mantissa = rest & ((1 << mantissa_bits) - 1);
        let implicit = if exponent > 0 { 1 << mantissa_bits } else { 0 };
        let power = (if exponent > 0 { exponent as i32 } else { 1 }) - bias - mantissa_bits as i32;
        let largest_exponent = 0x7f >> mantissa_bits;
        let scale = f32::from_bits(((127 + power) as u32) << 23);
        values[byte] = match special {
            Special::Ieee if exponent == largest_exponent && mantissa == 0 => sign * f32::INFINITY,
            Special::Ieee if exponent == largest_exponent => f32::NAN,
            Special::OnlyAllOnes if rest == 0x7f => f32::NAN,
            Special::OnlyNegativeZero if byte == 0x80 => f32::NAN,
            _ => sign * (mantissa + implicit) as f32 * scale,
        };
        byte += 1;
    }
    values
}

/// 2^(byte − 127), of which the smallest is subnormal in f32; 255 is NaN.
const fn powers_of_two() -> [f32; 256] {
    let mut values = [f32::NAN; 256];
    values[0] = f32::from_bits(1 << 22);
    let mut byte = 1;
    while byte < 255 {
        values[byte] = f32::from_bits((byte as u32) << 23);
        byte += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_are_those_of_the_formats() {
        // arXiv:2209.05433, table 1; arXiv:2206.02915 for FNUZ.
        assert_eq!((E4M3[0x7e], E4M3[0x08], E4M3[0x01]), (448.0, 2.0_f32.powi(-6), 2.0_f32.powi(-9)));
        assert_eq!((E5M2[0x7b], E5M2[0x04], E5M2[0x01]), (57344.0, 2.0_f32.powi(-14), 2.0_f32.powi(-16)));
        assert_eq!((E5M2[0x7c], E5M2[0xfc]), (f32::INFINITY, f32::NEG_INFINITY));
        assert_eq!((E4M3_FNUZ[0x7f], E4M3_FNUZ[0x01]), (240.0, 2.0_f32.powi(-10)));
        assert_eq!((E5M2_FNUZ[0x7f], E5M2_FNUZ[0x01]), (57344.0, 2.0_f32.powi(-17)));
        assert_eq!((E8M0[0], E8M0[127], E8M0[254]), (2.0_f32.powi(-127), 1.0, 2.0_f32.powi(127)));
        assert!(
            [E4M3[0x7f], E4M3[0xff], E5M2[0x7d], E4M3_FNUZ[0x80], E5M2_FNUZ[0x80], E8M0[255]]
                .iter()
                .all(|it| it.is_nan())
        );
        assert!(E4M3[0x80] == 0.0 && E4M3[0x80].is_sign_negative());
    }

    #[test]
    fn the_upper_half_of_each_signed_table_is_the_lower_half_negated() {
        for table in [&E4M3, &E5M2, &E4M3_FNUZ, &E5M2_FNUZ] {
            for byte in 1..128 {
                let (positive, negative) = (table[byte], table[byte + 128]);
                assert!(
                    positive.to_bits() == (-negative).to_bits() || positive.is_nan() && negative.is_nan(),
                    "{byte}"
                );
            }
        }
    }
}
