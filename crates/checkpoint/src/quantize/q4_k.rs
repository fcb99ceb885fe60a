//! Q4_K: `d s q − dmin m`, q in 4 bits, s and m in 6 bits for 32 numbers, d and dmin for 256.
//!
//! Scale and minimum of 32 numbers come from a search: integers are found with 21 scales a little smaller and larger
//! than the range from the best minimum so far suggests, scale and minimum then fitted to each of them by least squares,
//! and those with the least squared error kept. Errors count by `|x| + √(mean x²)`: large weights matter more. (llama.cpp, `make_qkx2_quants`,
//! with its constants; sums are taken in eight strands here, so that now and then another candidate wins by a hair.)

use half::f16;

/// The parts of a block of 256 numbers, unpacked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuperBlock {
    /// What scales are multiplied with.
    pub d: f16,
    /// What minima are multiplied with.
    pub dmin: f16,
    /// Of each 32 numbers, below 64.
    pub scales: [u8; 8],
    /// Of each 32 numbers, below 64.
    pub minima: [u8; 8],
    /// Below 16.
    pub numbers: [u8; 256],
}

/// Numbers that share a scale and a minimum.
const GROUP: usize = 32;
/// The largest integer of 4 bits.
const MOST: f32 = 15.0;
/// The largest scale and minimum of 6 bits.
const MOST_SCALE: f32 = 63.0;

impl SuperBlock {
    /// Unpacks a block.
    pub fn of_bytes(block: &[u8; 144]) -> Self {
        let packed = &block[4..16];
        let mut parts = Self {
            d: f16::from_le_bytes([block[0], block[1]]),
            dmin: f16::from_le_bytes([block[2], block[3]]),
            scales: [0; 8],
            minima: [0; 8],
            numbers: [0; 256],
        };
        for group in 0..4 {
            let low = packed[group + 8];
            parts.scales[group] = packed[group] & 0x3f;
            parts.minima[group] = packed[group + 4] & 0x3f;
            parts.scales[group + 4] = low & 0xf | packed[group] >> 6 << 4;
            parts.minima[group + 4] = low >> 4 | packed[group + 4] >> 6 << 4;
        }
        for (bytes, numbers) in block[16..].chunks(GROUP).zip(parts.numbers.chunks_mut(2 * GROUP)) {
            for (i, byte) in bytes.iter().enumerate() {
                (numbers[i], numbers[GROUP + i]) = (byte & 0xf, byte >> 4);
            }
        }
        parts
    }

    /// Packs it; what [`Self::of_bytes`] undoes.
    pub fn to_bytes(&self) -> [u8; 144] {
        let mut block = [0; 144];
        block[..2].copy_from_slice(&self.d.to_le_bytes());
        block[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        for group in 0..4 {
            let (scale, minimum) = (self.scales[group + 4], self.minima[group + 4]);
            block[4 + group] = self.scales[group] | scale >> 4 << 6;
            block[8 + group] = self.minima[group] | minimum >> 4 << 6;
            block[12 + group] = scale & 0xf | (minimum & 0xf) << 4;
        }
        for (bytes, numbers) in block[16..].chunks_mut(GROUP).zip(self.numbers.chunks(2 * GROUP)) {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = numbers[i] | numbers[GROUP + i] << 4;
            }
        }
        block
    }
}

pub(super) fn encode(numbers: &[f32; 256]) -> SuperBlock {
    let (groups, _) = numbers.as_chunks::<GROUP>();
    let fits: [Fit; 8] = std::array::from_fn(|it| fit(&groups[it]));
    let largest = |of: fn(&Fit) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (scale, minimum) = (largest(|it| it.scale), largest(|it| it.minimum));
    let six_bits = |value: f32, largest: f32| {
        let inverse = if largest > 0.0 { MOST_SCALE / largest } else { 0.0 };
        nearest(inverse * value).min(MOST_SCALE) as u8
    };
    let mut block = SuperBlock {
        d: f16::from_f32(scale / MOST_SCALE),
        dmin: f16::from_f32(minimum / MOST_SCALE),
        scales: fits.map(|it| six_bits(it.scale, scale)),
        minima: fits.map(|it| six_bits(it.minimum, minimum)),
        numbers: [0; 256],
    };
    for (group, (numbers, out)) in groups.iter().zip(block.numbers.chunks_mut(GROUP)).enumerate() {
        let d = block.d.to_f32() * f32::from(block.scales[group]);
        let m = block.dmin.to_f32() * f32::from(block.minima[group]);
        if d == 0.0 {
            continue; // All of them are the minimum.
        }
        for (number, out) in numbers.iter().zip(out) {
            *out = nearest((number + m) / d).clamp(0.0, MOST) as u8;
        }
    }
    block
}

/// What 32 numbers are best written with: `scale q − minimum`.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    minimum: f32,
}

/// To the nearest integer, halves to even; below 2^22.
fn nearest(value: f32) -> f32 {
    // Leaves no room for a fraction.
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// Sums taken side by side, so that a processor can take them together.
const STRANDS: usize = 8;

/// Σ f(i) for several sums at once.
fn sums<const N: usize>(f: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut strands = [[0.0_f32; STRANDS]; N];
    for from in (0..GROUP).step_by(STRANDS) {
        for strand in 0..STRANDS {
            for (sums, term) in strands.iter_mut().zip(f(from + strand)) {
                sums[strand] += term;
            }
        }
    }
    strands.map(|it| it.iter().sum())
}

fn fit(x: &[f32; GROUP]) -> Fit {
    let [squares] = sums(|i| [x[i] * x[i]]);
    let typical = (squares / GROUP as f32).sqrt();
    let w: [f32; GROUP] = std::array::from_fn(|i| typical + x[i].abs());
    let low = x.iter().fold(0.0_f32, |a, &b| a.min(b));
    let high = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    if high <= low {
        return Fit { scale: 0.0, minimum: -low };
    }
    let [sum_w, sum_x] = sums(|i| [w[i], w[i] * x[i]]);
    let integers = |steps: f32, low: f32| -> [f32; GROUP] {
        let inverse = steps / (high - low);
        std::array::from_fn(|i| nearest(inverse * (x[i] - low)).clamp(0.0, MOST))
    };
    let error = |q: &[f32; GROUP], scale: f32, low: f32| {
        let [error] = sums(|i| {
            let off = scale * q[i] + low - x[i];
            [w[i] * off * off]
        });
        error
    };
    let mut best = Fit { scale: (high - low) / MOST, minimum: -low };
    let mut least = error(&integers(MOST, low), best.scale, low);
    for step in 0..=20_u8 {
        let q = integers(MOST - 1.0 + 0.1 * f32::from(step), -best.minimum);
        let [sum_q, sum_qq, sum_qx] = sums(|i| [w[i] * q[i], w[i] * q[i] * q[i], w[i] * q[i] * x[i]]);
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (sum_w * sum_qx - sum_x * sum_q) / determinant;
        let mut low = (sum_qq * sum_x - sum_q * sum_qx) / determinant;
        if low > 0.0 {
            (scale, low) = (sum_qx / sum_qq, 0.0); // Minima have no sign.
        }
        let error = error(&q, scale, low);
        if error < least {
            (best, least) = (Fit { scale, minimum: -low }, error);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TensorDtype;

    proptest! {
        #[test]
        fn packing_undoes_unpacking(bytes in prop::collection::vec(any::<u8>(), 144)) {
            let block: [u8; 144] = bytes.try_into().unwrap();
            prop_assert_eq!(SuperBlock::of_bytes(&block).to_bytes(), block);
        }

        #[test]
        fn the_parts_are_those_that_decoding_sees(bytes in prop::collection::vec(0_u8..120, 144)) {
            let block: [u8; 144] = bytes.try_into().unwrap();
            let parts = SuperBlock::of_bytes(&block);
            let mut numbers = [0.0; 256];
            TensorDtype::Q4_K.decode(&block, &mut numbers);
            for (i, number) in numbers.into_iter().enumerate() {
                let (s, m) = (f32::from(parts.scales[i / 32]), f32::from(parts.minima[i / 32]));
                let q = f32::from(parts.numbers[i]);
                let of_parts = parts.d.to_f32() * s * q - parts.dmin.to_f32() * m;
                prop_assert_eq!(of_parts.to_bits(), number.to_bits());
            }
        }

        /// Half a step of 15 over the range with zero in it, and what 6 bits of scale and minimum add to that.
        #[test]
        fn no_number_is_off_by_much_of_its_range(
            numbers in prop::collection::vec(-1.0_f32..1.0, 256), offset in -2.0_f32..2.0
        ) {
            let numbers: [f32; 256] = std::array::from_fn(|i| numbers[i] + offset);
            let mut decoded = [0.0; 256];
            TensorDtype::Q4_K.decode(&encode(&numbers).to_bytes(), &mut decoded);
            for (number, decoded) in numbers.iter().zip(decoded) {
                prop_assert!((number - decoded).abs() < 0.35, "{} became {}", number, decoded);
            }
        }
    }

    #[test]
    fn constant_numbers_and_zeros_keep_their_value() {
        for value in [0.0, -0.75, 0.75] {
            let mut decoded = [f32::NAN; 256];
            TensorDtype::Q4_K.decode(&encode(&[value; 256]).to_bytes(), &mut decoded);
            for decoded in decoded {
                // Scale and minimum are rounded to half precision: 2^-11 of the value.
                assert!((decoded - value).abs() <= value.abs() * 5e-4, "{value} became {decoded}");
            }
        }
    }
}
