//! The numbers by which GGUF files name tensor types.

use crate::TensorDtype;

/// The type of a tensor in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// A type that is decoded.
    Decoded(TensorDtype),
    /// Any other: the number in the file.
    Other(u32),
}

/// The types that are decoded, by their numbers.
const DECODED: [(u32, TensorDtype); 19] = [
    (0, TensorDtype::F32),
    (1, TensorDtype::F16),
    (2, TensorDtype::Q4_0),
    (3, TensorDtype::Q4_1),
    (6, TensorDtype::Q5_0),
    (7, TensorDtype::Q5_1),
    (8, TensorDtype::Q8_0),
    (10, TensorDtype::Q2_K),
    (11, TensorDtype::Q3_K),
    (12, TensorDtype::Q4_K),
    (13, TensorDtype::Q5_K),
    (14, TensorDtype::Q6_K),
    (24, TensorDtype::I8),
    (25, TensorDtype::I16),
    (26, TensorDtype::I32),
    (27, TensorDtype::I64),
    (28, TensorDtype::F64),
    (30, TensorDtype::BF16),
    (39, TensorDtype::MXFP4),
];

/// The names of types that are not decoded, for messages.
const OTHERS: [(u32, &str); 15] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl StoredType {
    /// The type with a number.
    pub fn from_number(number: u32) -> Self {
        let decoded = DECODED.iter().find(|(it, _)| *it == number);
        decoded.map_or(Self::Other(number), |&(_, dtype)| Self::Decoded(dtype))
    }

    /// The number of the type.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            Self::Decoded(dtype) => {
                let found = DECODED.iter().find(|&&(_, it)| it == dtype);
                found.expect("types of GGUF files are made from their numbers").0
            }
        }
    }

    /// All types that are decoded, in the order of their numbers.
    pub fn decoded() -> impl Iterator<Item = TensorDtype> {
        DECODED.iter().map(|&(_, dtype)| dtype)
    }
}

impl std::fmt::Display for StoredType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decoded(dtype) => dtype.fmt(f),
            Self::Other(number) => match OTHERS.iter().find(|(it, _)| it == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "number {number}"),
            },
        }
    }
}
