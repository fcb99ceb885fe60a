//! How numbers are stored.

/// How the numbers of a tensor are stored.
///
/// The quantized types store blocks of 32 or 256 numbers along the last dimension; their names are those that
/// GGUF files use. The others are named as in safetensors.
#[expect(non_camel_case_types, reason = "the names that the formats use")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorDtype {
    /// IEEE 754 double precision; decoding rounds to f32.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 1 sign, 4 exponent, 3 mantissa bits, bias 7; no infinity, NaN only with all bits set. arXiv:2209.05433.
    F8E4M3,
    /// 1 sign, 5 exponent, 2 mantissa bits, bias 15; infinity and NaN as in IEEE 754. arXiv:2209.05433.
    F8E5M2,
    /// A power of two, 2^(byte − 127); 255 is NaN. Scales of the OCP microscaling formats.
    F8E8M0,
    /// As [`Self::F8E4M3`] with bias 8 and no negative zero: that pattern is the only NaN. arXiv:2206.02915.
    F8E4M3Fnuz,
    /// As [`Self::F8E5M2`] with bias 16, no infinity and no negative zero: that pattern is the only NaN.
    F8E5M2Fnuz,
    /// A byte, 0 or 1.
    Bool,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer; decoding rounds to f32.
    I32,
    /// Unsigned 32-bit integer; decoding rounds to f32.
    U32,
    /// Signed 64-bit integer; decoding rounds to f32.
    I64,
    /// Unsigned 64-bit integer; decoding rounds to f32.
    U64,
    /// 32 numbers, 4 bits each, one scale.
    Q4_0,
    /// 32 numbers, 4 bits each, scale and minimum.
    Q4_1,
    /// 32 numbers, 5 bits each, one scale.
    Q5_0,
    /// 32 numbers, 5 bits each, scale and minimum.
    Q5_1,
    /// 32 numbers, 8 bits each, one scale.
    Q8_0,
    /// 256 numbers, 2 bits each, 16 sub-blocks with scale and minimum.
    Q2_K,
    /// 256 numbers, 3 bits each, 16 sub-blocks with a scale.
    Q3_K,
    /// 256 numbers, 4 bits each, 8 sub-blocks with scale and minimum.
    Q4_K,
    /// 256 numbers, 5 bits each, 8 sub-blocks with scale and minimum.
    Q5_K,
    /// 256 numbers, 6 bits each, 16 sub-blocks with a scale.
    Q6_K,
    /// 32 numbers, 4-bit floats, a power of two as scale. OCP Microscaling Formats 1.0.
    MXFP4,
}

impl TensorDtype {
    /// Every type that can be decoded.
    pub const ALL: [Self; 29] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E8M0,
        Self::F8E4M3Fnuz,
        Self::F8E5M2Fnuz,
        Self::Bool,
        Self::I8,
        Self::U8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::MXFP4,
    ];

    /// The name that the file formats use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Self::Bool => "BOOL",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::MXFP4 => "MXFP4",
        }
    }

    /// How many numbers a block holds (1 for plain types) and how many bytes it takes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F8E4M3
            | Self::F8E5M2
            | Self::F8E8M0
            | Self::F8E4M3Fnuz
            | Self::F8E5M2Fnuz
            | Self::Bool
            | Self::I8
            | Self::U8 => (1, 1),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => (1, 2),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
            Self::MXFP4 => (32, 17),
        }
    }

    /// How many bytes a row of `row_len` numbers takes; `None` if that overflows or is not a whole number of
    /// blocks.
    pub fn row_bytes(self, row_len: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        if !row_len.is_multiple_of(numbers) {
            return None;
        }
        (row_len / numbers).checked_mul(bytes)
    }

    /// Whether each number is stored by itself as a floating-point number.
    pub fn is_float_storage(self) -> bool {
        matches!(
            self,
            Self::F64
                | Self::F32
                | Self::F16
                | Self::BF16
                | Self::F8E4M3
                | Self::F8E5M2
                | Self::F8E8M0
                | Self::F8E4M3Fnuz
                | Self::F8E5M2Fnuz
        )
    }

    /// Whether numbers are stored in blocks that share a scale.
    pub fn is_quantized(self) -> bool {
        self.block().0 > 1
    }
}

impl std::fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_own_name_and_is_one_of_float_quantized_integer() {
        let names: std::collections::BTreeSet<_> = TensorDtype::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), TensorDtype::ALL.len());
        for dtype in TensorDtype::ALL {
            let integer = dtype.name().starts_with(['I', 'U', 'B']) && dtype != TensorDtype::BF16;
            let kinds = [integer, dtype.is_float_storage(), dtype.is_quantized()];
            assert_eq!(kinds.iter().filter(|&&it| it).count(), 1, "{dtype}");
        }
    }

    #[test]
    fn a_row_is_a_whole_number_of_blocks_or_has_no_size() {
        assert_eq!(TensorDtype::Q4_K.row_bytes(512), Some(288)); // 2 blocks of 144
        assert_eq!(TensorDtype::Q4_K.row_bytes(511), None);
        assert_eq!(TensorDtype::F64.row_bytes(usize::MAX), None);
        assert_eq!(TensorDtype::Q8_0.row_bytes(usize::MAX - 31), None); // 34/32 of it does not fit
    }
}
