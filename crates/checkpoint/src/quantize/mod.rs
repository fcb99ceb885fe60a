//! From f32 to blocks of small integers, as llama.cpp's reference quantizers do it without an importance matrix.
//!
//! What goes in is finite. What comes out is decoded by [`TensorDtype::decode`]; where a scale leaves the range of
//! half precision (weights above 4 million in Q4_K, 8 million in Q8_0) that is not finite, and callers have to look.

mod q4_k;
mod q8_0;

pub use self::q4_k::SuperBlock;
use crate::{Tensor, TensorDtype};

/// A block type that numbers can be rounded to.
#[expect(non_camel_case_types, reason = "the names that the formats use")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// 8 bits each and a scale for 32 of them: 8.5 bits a number.
    Q8_0,
    /// 4 bits each, scale and minimum for 32 of them, and those of 256 again in 6 bits: 4.5 bits a number.
    Q4_K,
}

impl Quantization {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Q8_0, Self::Q4_K];

    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_K => "q4_k",
        }
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// The type that files know it as.
    pub fn dtype(self) -> TensorDtype {
        match self {
            Self::Q8_0 => TensorDtype::Q8_0,
            Self::Q4_K => TensorDtype::Q4_K,
        }
    }

    /// Rounds a row of whole blocks.
    ///
    /// # Panics
    /// When `bytes` is not what `numbers` take by [`TensorDtype::row_bytes`].
    pub fn encode(self, numbers: &[f32], bytes: &mut [u8]) {
        assert!(
            self.dtype().row_bytes(numbers.len()) == Some(bytes.len()),
            "{}: {} bytes do not hold {} numbers",
            self.dtype(),
            bytes.len(),
            numbers.len()
        );
        match self {
            Self::Q8_0 => {
                for (numbers, block) in numbers.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
                    *block = q8_0::encode(numbers);
                }
            }
            Self::Q4_K => {
                for (numbers, block) in numbers.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
                    *block = q4_k::encode(numbers).to_bytes();
                }
            }
        }
    }

    /// Whether a tensor holds its rows in just these blocks.
    pub fn is_that_of(self, tensor: &Tensor) -> bool {
        tensor.dtype() == self.dtype() && tensor.rows() > 0 && tensor.stored_row(0).is_some()
    }
}
