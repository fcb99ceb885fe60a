//! New numbers for a tensor, and how they are rounded.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use half::{bf16, f16};

use super::{Dequantized, WriteError};
use crate::{Checkpoint, Tensor, TensorDtype};

/// New content of some tensors, by name.
pub type Replacements<'a> = BTreeMap<String, Replacement<'a>>;

/// Makes whole rows from the number of the first.
type Fill<'a> = dyn Fn(usize, &mut [f64]) + 'a;

/// New content of one tensor, computed when it is written.
pub struct Replacement<'a> {
    shape: Vec<usize>,
    fill: Box<Fill<'a>>,
}

impl<'a> Replacement<'a> {
    /// A tensor of a shape whose rows are what `fill` makes of them: it gets the number of a row and the place for this
    /// row and perhaps some of the following ones, whole rows end to end. Rows are counted over all dimensions but the
    /// last, so the rows of an expert in a fused tensor follow those of the one before it, and they are in the order of
    /// the file, whatever [`Tensor::with_row_order`](crate::Tensor::with_row_order) made of them elsewhere.
    ///
    /// Numbers come in f64 so that they are rounded only once, to the type of the tensor.
    pub fn new(shape: Vec<usize>, fill: impl Fn(usize, &mut [f64]) + 'a) -> Self {
        Self { shape, fill: Box::new(fill) }
    }

    /// The numbers of a tensor.
    pub(super) fn of(tensor: Tensor) -> Self {
        let shape = tensor.shape().to_vec();
        let row_numbers = RefCell::new(vec![0.0; tensor.row_len()]);
        Self::new(shape, move |first, out| {
            let mut numbers = row_numbers.borrow_mut();
            for (row, out) in (first..).zip(out.chunks_exact_mut(tensor.row_len())) {
                tensor.read_row(row, &mut numbers);
                for (out, &number) in out.iter_mut().zip(&*numbers) {
                    *out = f64::from(number);
                }
            }
        })
    }

    /// The length of a row.
    pub(super) fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How many numbers there are; the shape is that of a tensor in a file, so this does not overflow.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn fill(&self, first_row: usize, out: &mut [f64]) {
        (self.fill)(first_row, out);
    }
}

impl std::fmt::Debug for Replacement<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replacement").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Whether each replacement has a tensor to replace, of the same shape and of a type that can be rounded to.
pub(super) fn check(checkpoint: &Checkpoint, replacements: &Replacements) -> Result<(), WriteError> {
    for (name, replacement) in replacements {
        if !checkpoint.contains(name) {
            return Err(WriteError::UnknownTensor { name: name.clone(), path: checkpoint.path().to_owned() });
        }
        let tensor = checkpoint.tensor(name)?;
        if tensor.shape() != replacement.shape {
            let (expected, found) = (tensor.shape().to_vec(), replacement.shape.clone());
            return Err(WriteError::Shape { name: name.clone(), expected, found });
        }
        stored_as(name, tensor.dtype(), Dequantized::default())?;
    }
    Ok(())
}

/// The type in which a replaced tensor is stored.
pub(super) fn stored_as(
    name: &str,
    dtype: TensorDtype,
    dequantized: Dequantized,
) -> Result<TensorDtype, WriteError> {
    match dtype {
        TensorDtype::F64 | TensorDtype::F32 | TensorDtype::F16 | TensorDtype::BF16 => Ok(dtype),
        quantized if quantized.is_quantized() => Ok(dequantized.dtype()),
        other => Err(WriteError::NotReplaceable { name: name.to_owned(), found: other.to_string() }),
    }
}

/// Appends numbers, rounded to the nearest of a type, ties to even.
///
/// # Errors
/// The place and the value of the first number without a finite value in the type.
///
/// # Panics
/// When the type is not one of those that [`stored_as`] answers with.
pub(super) fn encode(dtype: TensorDtype, numbers: &[f64], out: &mut Vec<u8>) -> Result<(), (usize, f64)> {
    match dtype {
        TensorDtype::F64 => each(numbers, out, |it| it.is_finite().then(|| it.to_le_bytes())),
        TensorDtype::F32 => each(numbers, out, |it| {
            let rounded = it as f32;
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
        TensorDtype::F16 => each(numbers, out, |it| {
            let rounded = f16::from_f32(to_odd_f32(it));
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
        TensorDtype::BF16 => each(numbers, out, |it| {
            let rounded = bf16::from_f32(to_odd_f32(it));
            rounded.is_finite().then(|| rounded.to_le_bytes())
        }),
        other => unreachable!("replaced tensors are never stored as {other}"),
    }
}

fn each<const N: usize>(
    numbers: &[f64],
    out: &mut Vec<u8>,
    encode: impl Fn(f64) -> Option<[u8; N]>,
) -> Result<(), (usize, f64)> {
    for (place, &number) in numbers.iter().enumerate() {
        out.extend(encode(number).ok_or((place, number))?);
    }
    Ok(())
}

/// Rounds to f32 such that rounding the result further gives what rounding the number itself would give: of the two
/// neighbors of a number that f32 cannot hold, the one whose last bit is set. To nearest twice is not the same: just above
/// the middle between two bf16 numbers, the first rounding can land on the middle, and the tie then goes down.
///
/// Boldo & Melquiond 2008, "Emulation of a FMA and correctly rounded sums": right whenever the second type has at least two
/// bits less.
fn to_odd_f32(number: f64) -> f32 {
    let nearest = number as f32;
    if !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    // The bits of floats of one sign are ordered by magnitude.
    match number.abs().total_cmp(&f64::from(nearest).abs()) {
        Ordering::Less => f32::from_bits(nearest.to_bits() - 1),
        Ordering::Equal => nearest,
        Ordering::Greater => f32::from_bits(nearest.to_bits() + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(dtype: TensorDtype, number: f64) -> Result<f32, (usize, f64)> {
        let mut bytes = Vec::new();
        encode(dtype, &[number], &mut bytes)?;
        let mut decoded = [0.0];
        dtype.decode(&bytes, &mut decoded);
        Ok(decoded[0])
    }

    #[test]
    fn a_number_is_rounded_once_and_not_by_way_of_f32() {
        // bf16 has 8 bits of precision: between 1 and 1 + 2^-7 the middle is 1 + 2^-8. Just above it, f32 sees the middle.
        let above_middle = 1.0 + (2.0_f64).powi(-8) + (2.0_f64).powi(-40);
        assert_eq!(bf16::from_f32(above_middle as f32), bf16::ONE, "the test needs a double rounding");
        assert_eq!(encoded(TensorDtype::BF16, above_middle), Ok(1.007_812_5)); // 1 + 2^-7
        assert_eq!(encoded(TensorDtype::BF16, -above_middle), Ok(-1.007_812_5));
        // The middle itself is a tie, and 1 is even.
        assert_eq!(encoded(TensorDtype::BF16, 1.0 + (2.0_f64).powi(-8)), Ok(1.0));
        // f16 has 11 bits: the same at 2^-11.
        let above_middle = 1.0 + (2.0_f64).powi(-11) + (2.0_f64).powi(-40);
        assert_eq!(encoded(TensorDtype::F16, above_middle), Ok(1.000_976_6)); // 1 + 2^-10
    }

    #[test]
    fn what_has_no_finite_value_is_found_with_its_place() {
        let mut bytes = Vec::new();
        assert_eq!(encode(TensorDtype::F16, &[1.0, 65520.0], &mut bytes), Err((1, 65520.0)));
        assert_eq!(encoded(TensorDtype::F16, 65519.0), Ok(65504.0));
        assert_eq!(encoded(TensorDtype::F32, 1e39), Err((0, 1e39)));
        assert_eq!(encoded(TensorDtype::BF16, 3.4e38), Err((0, 3.4e38))); // above the largest, 3.39e38
        assert_eq!(encoded(TensorDtype::F64, f64::NEG_INFINITY), Err((0, f64::NEG_INFINITY)));
        assert!(encoded(TensorDtype::BF16, f64::NAN).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_other_number_of_the_type_is_nearer(number in -60000.0..60000.0_f64, exponent in -30..0) {
            let number = number * (2.0_f64).powi(exponent);
            for dtype in [TensorDtype::F16, TensorDtype::BF16] {
                let value = |bits: u16| {
                    let mut out = [0.0];
                    dtype.decode(&bits.to_le_bytes(), &mut out);
                    f64::from(out[0])
                };
                let mut bytes = Vec::new();
                encode(dtype, &[number], &mut bytes).unwrap();
                let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
                let magnitude = bits & 0x7fff;
                let off = (value(bits) - number).abs();
                for neighbor in [magnitude.saturating_sub(1), magnitude + 1] {
                    let other = (value(neighbor | bits & 0x8000) - number).abs();
                    let nearer = match off.total_cmp(&other) {
                        Ordering::Less => true,
                        Ordering::Equal => bits & 1 == 0,
                        Ordering::Greater => false,
                    };
                    prop_assert!(nearer || neighbor == magnitude, "{number} as {dtype}");
                }
            }
        }
    }
}
