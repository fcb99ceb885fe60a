//! Microscaled blocks (OCP Microscaling Formats 1.0, MXFP4): 32 numbers of 4 bits and a power of two for all of them.

use super::small_floats::E8M0;

/// 1 sign, 2 exponent, 1 mantissa bits, bias 1; every pattern is a finite number.
pub(super) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Blocks of 16 bytes and a byte of scale for each; byte `i` of a block holds number `2 i` in its lower half and number
/// `2 i + 1` in its upper half. Exact unless the result is below f32's smallest normal number.
pub(crate) fn microscaled(blocks: &[u8], scales: &[u8], out: &mut [f32]) {
    let (blocks, _) = blocks.as_chunks::<16>();
    let (numbers, _) = out.as_chunks_mut::<32>();
    for ((block, &scale), out) in blocks.iter().zip(scales).zip(numbers) {
        let scale = E8M0[usize::from(scale)];
        for (&byte, pair) in block.iter().zip(out.as_chunks_mut::<2>().0) {
            *pair = [E2M1[usize::from(byte & 0xf)] * scale, E2M1[usize::from(byte >> 4)] * scale];
        }
    }
}

/// A block as GGUF files have it: the scale, then bytes of which byte `i` holds number `i` in its lower half and number
/// `i + 16` in its upper half.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let [scale, bytes @ ..] = block;
    let scale = E8M0[usize::from(*scale)];
    let (lower, upper) = out.split_at_mut(16);
    // ggml's table is one of integers, whose zero has no sign: adding nothing takes it away.
    let number = |code: u8| E2M1[usize::from(code)] * scale + 0.0;
    for (byte, (lower, upper)) in bytes.iter().zip(lower.iter_mut().zip(upper)) {
        *lower = number(byte & 0xf);
        *upper = number(byte >> 4);
    }
}

/// One number of such blocks.
pub(crate) fn microscaled_at(blocks: &[u8], scales: &[u8], place: usize) -> f32 {
    let byte = blocks[place / 2];
    let number = if place.is_multiple_of(2) { byte & 0xf } else { byte >> 4 };
    E2M1[usize::from(number)] * E8M0[usize::from(scales[place / 32])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_gguf_block_lie_in_halves() {
        let mut block = [0_u8; 17];
        (block[0], block[1], block[16]) = (128, 0xf2, 0x19);
        let mut out = [f32::NAN; 32];
        mxfp4(&block, &mut out);
        assert_eq!((out[0], out[16], out[15], out[31]), (2.0, -12.0, -1.0, 1.0));
    }

    #[test]
    fn numbers_lie_in_pairs_and_have_the_scale_of_their_block() {
        let mut blocks = [0_u8; 32];
        blocks[0] = 0xf2; // number 0 is 1, number 1 is −6
        blocks[31] = 0x19; // the last but one is −0.5, the last 0.5
        let mut out = [f32::NAN; 64];
        microscaled(&blocks, &[128, 125], &mut out);
        assert_eq!((out[0], out[1], out[2], out[62], out[63]), (2.0, -12.0, 0.0, -0.125, 0.125));
        microscaled(&blocks, &[255, 127], &mut out);
        assert!(out[0].is_nan());
        assert_eq!(out[63].to_bits(), 0.5_f32.to_bits());
    }
}
