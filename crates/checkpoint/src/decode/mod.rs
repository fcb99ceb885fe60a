//! From stored bytes to f32.
//!
//! One tight loop per type, chosen once per call. Bytes are read in whole little-endian groups, never through a
//! pointer cast: nothing promises that a tensor lies aligned in its file. Everything is exact except F64 and
//! integers above 2^24, which are rounded to the nearest f32, and the quantized types, whose scale times integer
//! plus minimum is rounded after each operation in f32, as the format's reference does.

mod blocks;
mod microscaled;
mod small_floats;
mod super_blocks;

use half::f16;
use half::slice::HalfFloatSliceExt;

pub(crate) use self::microscaled::{microscaled, microscaled_at};
use crate::TensorDtype;

impl TensorDtype {
    /// Decodes whole blocks.
    ///
    /// # Panics
    /// When `bytes` is not what `out.len()` numbers take by [`Self::row_bytes`].
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert!(
            self.row_bytes(out.len()) == Some(bytes.len()),
            "{self}: {} bytes do not hold {} numbers",
            bytes.len(),
            out.len()
        );
        match self {
            Self::F64 => each(bytes, out, |it| f64::from_le_bytes(it) as f32),
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => halves(bytes, out),
            Self::BF16 => each(bytes, out, |it| f32::from_bits(u32::from(u16::from_le_bytes(it)) << 16)),
            Self::F8E4M3 => small_floats::look_up(&small_floats::E4M3, bytes, out),
            Self::F8E5M2 => small_floats::look_up(&small_floats::E5M2, bytes, out),
            Self::F8E8M0 => small_floats::look_up(&small_floats::E8M0, bytes, out),
            Self::F8E4M3Fnuz => small_floats::look_up(&small_floats::E4M3_FNUZ, bytes, out),
            Self::F8E5M2Fnuz => small_floats::look_up(&small_floats::E5M2_FNUZ, bytes, out),
            Self::Bool => each(bytes, out, |[it]| f32::from(u8::from(it != 0))),
            Self::I8 => each(bytes, out, |it| f32::from(i8::from_le_bytes(it))),
            Self::U8 => each(bytes, out, |[it]| f32::from(it)),
            Self::I16 => each(bytes, out, |it| f32::from(i16::from_le_bytes(it))),
            Self::U16 => each(bytes, out, |it| f32::from(u16::from_le_bytes(it))),
            Self::I32 => each(bytes, out, |it| i32::from_le_bytes(it) as f32),
            Self::U32 => each(bytes, out, |it| u32::from_le_bytes(it) as f32),
            Self::I64 => each(bytes, out, |it| i64::from_le_bytes(it) as f32),
            Self::U64 => each(bytes, out, |it| u64::from_le_bytes(it) as f32),
            Self::Q4_0 => in_blocks(bytes, out, blocks::q4_0),
            Self::Q4_1 => in_blocks(bytes, out, blocks::q4_1),
            Self::Q5_0 => in_blocks(bytes, out, blocks::q5_0),
            Self::Q5_1 => in_blocks(bytes, out, blocks::q5_1),
            Self::Q8_0 => in_blocks(bytes, out, blocks::q8_0),
            Self::Q2_K => in_blocks(bytes, out, super_blocks::q2_k),
            Self::Q3_K => in_blocks(bytes, out, super_blocks::q3_k),
            Self::Q4_K => in_blocks(bytes, out, super_blocks::q4_k),
            Self::Q5_K => in_blocks(bytes, out, super_blocks::q5_k),
            Self::Q6_K => in_blocks(bytes, out, super_blocks::q6_k),
            Self::MXFP4 => in_blocks(bytes, out, microscaled::mxfp4),
        }
    }
}

/// One number per `N` bytes.
fn each<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *out = decode(*bytes);
    }
}

/// `NUMBERS` numbers per block of `BYTES` bytes.
fn in_blocks<const BYTES: usize, const NUMBERS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (numbers, _) = out.as_chunks_mut::<NUMBERS>();
    for (block, out) in blocks.iter().zip(numbers) {
        decode(block, out);
    }
}

/// Half precision, through an aligned buffer so that the processor's own conversion is used for many at once.
fn halves(bytes: &[u8], out: &mut [f32]) {
    const AT_ONCE: usize = 128;
    let mut buffer = [f16::ZERO; AT_ONCE];
    for (bytes, out) in bytes.chunks(2 * AT_ONCE).zip(out.chunks_mut(AT_ONCE)) {
        let aligned = &mut buffer[..out.len()];
        for (half, bytes) in aligned.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        aligned.convert_to_f32_slice(out);
    }
}

/// The half-precision number at a place of a block.
fn half_at(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}
