//! Blocks of 256 numbers, divided into sub-blocks of 16 or 32 whose own scales (and minima) are small integers,
//! multiplied by a half-precision scale `d` (and `dmin`) of the whole block.
//!
//! The bits of a number lie in planes: in the 4-bit part, 32 consecutive bytes hold one sub-block of 32 in their
//! lower and the next in their upper halves; the 2-bit parts hold four, the 1-bit parts eight.

use super::half_at;

/// `d s q − dmin m`: 16 bytes of (s, m) in 4 bits each, 64 bytes of 2-bit q, d, dmin.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let twos = plane::<32>(block, 16 + group / 4 * 32);
        let shift = group % 4 * 2;
        for half in 0..2 {
            let scale = block[group * 2 + half];
            let (s, m) = (d * f32::from(scale & 0xf), dmin * f32::from(scale >> 4));
            for i in half * 16..half * 16 + 16 {
                out[i] = s * f32::from(twos[i] >> shift & 3) - m;
            }
        }
    }
}

/// `d (s − 32) q` with q in −4..4: 32 bytes of third bits, 64 bytes of lower two bits, 12 bytes of 6-bit s, d.
/// A third bit that is set means that 4 is *not* subtracted.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at(block, 108);
    let scales = six_bit_scales(plane(block, 96));
    let thirds = plane::<32>(block, 0);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let twos = plane::<32>(block, 32 + group / 4 * 32);
        let shift = group % 4 * 2;
        for half in 0..2 {
            let s = d * f32::from(scales[group * 2 + half]);
            for i in half * 16..half * 16 + 16 {
                let third = (thirds[i] >> group & 1) << 2;
                out[i] = s * f32::from((twos[i] >> shift & 3 | third) as i8 - 4);
            }
        }
    }
}

/// `d s q − dmin m`: d, dmin, 12 bytes of 6-bit (s, m), 128 bytes of 4-bit q.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let packed = plane(block, 4);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let fours = plane::<32>(block, 16 + group / 2 * 32);
        let shift = group % 2 * 4;
        let (s, m) = scale_and_minimum(packed, group);
        let (s, m) = (d * s, dmin * m);
        for (out, &byte) in out.iter_mut().zip(fours) {
            *out = s * f32::from(byte >> shift & 0xf) - m;
        }
    }
}

/// `d s q − dmin m`: d, dmin, 12 bytes of 6-bit (s, m), 32 bytes of fifth bits, 128 bytes of 4-bit q.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let packed = plane(block, 4);
    let fifths = plane::<32>(block, 16);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let fours = plane::<32>(block, 48 + group / 2 * 32);
        let shift = group % 2 * 4;
        let (s, m) = scale_and_minimum(packed, group);
        let (s, m) = (d * s, dmin * m);
        for ((out, &byte), &fifth) in out.iter_mut().zip(fours).zip(fifths) {
            *out = s * f32::from(byte >> shift & 0xf | (fifth >> group & 1) << 4) - m;
        }
    }
}

/// `d s (q − 32)`: 128 bytes of lower four bits, 64 bytes of upper two bits, 16 signed bytes s, d.
///
/// Here 64 bytes of four-bit parts hold sub-blocks of 32 in the order: lower halves of the first 32 bytes, of the
/// second, then the upper halves.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (side, quarter) = (group / 4, group % 4);
        let fours = plane::<32>(block, side * 64 + quarter % 2 * 32);
        let twos = plane::<32>(block, 128 + side * 32);
        let (four_shift, two_shift) = (quarter / 2 * 4, quarter * 2);
        for half in 0..2 {
            let s = d * f32::from(block[192 + group * 2 + half] as i8);
            for i in half * 16..half * 16 + 16 {
                let q = fours[i] >> four_shift & 0xf | (twos[i] >> two_shift & 3) << 4;
                out[i] = s * f32::from(q as i8 - 32);
            }
        }
    }
}

/// `N` bytes of a block.
fn plane<const N: usize>(block: &[u8], start: usize) -> &[u8; N] {
    block[start..].first_chunk().expect("every plane lies within its block")
}

/// The 6-bit scale and minimum of sub-block `group` of eight, packed into 12 bytes: bytes 0–3 hold the scales
/// and bytes 4–7 the minima of the first four in their lower six bits and, in their upper two, the upper two
/// bits of the last four's, whose lower bits share bytes 8–11 (scale in the lower half).
fn scale_and_minimum(packed: &[u8; 12], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 0x3f, packed[group + 4] & 0x3f)
    } else {
        let low = packed[group + 4];
        (low & 0xf | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// Sixteen 6-bit scales less 32: lower four bits in the halves of bytes 0–7 (lower halves first), upper two bits
/// in bytes 8–11, of each first the lowest pairs of all four.
fn six_bit_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = packed[i % 8] >> (i / 8 * 4) & 0xf;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}
