//! The header of a safetensors file.
//!
//! The crate `safetensors` defines the entries and their types. Reading is ours, because what the crate reports
//! names neither the tensor nor the sizes, it keeps the last of two tensors of one name, and it gives tensors
//! without bytes in no fixed order. What is accepted is otherwise the same, which a fuzz target checks.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::SafetensorsError;
use crate::TensorDtype;

/// The longest header that the format allows, in bytes.
const LONGEST: u64 = 100_000_000;

/// How many bytes say how long the header is.
const LENGTH_BYTES: usize = 8;

/// What a safetensors file says before its tensor data, checked: the ranges cover the data without gap or overlap.
#[derive(Clone, Debug)]
pub struct Header {
    /// Free-form facts that the writer left, `{"format": "pt"}` most often, by key.
    pub metadata: HashMap<String, String>,
    /// All tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
}

/// One tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// How its numbers are stored, as the file says.
    pub stored: Dtype,
    /// Where its bytes lie, from the start of the file.
    pub range: Range<usize>,
}

impl Header {
    /// Reads the header of a whole file.
    pub fn parse(file: &[u8]) -> Result<Self, SafetensorsError> {
        let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(SafetensorsError::TooShort { found: file.len() });
        };
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length).ok().and_then(|it| rest.get(..it));
        let header =
            header.ok_or(SafetensorsError::HeaderExceedsFile { expected: length, found: rest.len() })?;
        if length > LONGEST {
            return Err(SafetensorsError::HeaderTooLong { found: length, limit: LONGEST });
        }
        let header = std::str::from_utf8(header)
            .map_err(|error| SafetensorsError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
        let Entries { metadata, mut tensors } =
            serde_json::from_str(header).map_err(SafetensorsError::Json)?;
        tensors.sort_by_key(|(_, info)| info.data_offsets); // stable: without bytes, the header's order
        let data_start = LENGTH_BYTES + header.len();
        let tensors = place(tensors, data_start)?;
        let expected = tensors.last().map_or(data_start, |it| it.range.end) as u64;
        match expected.cmp(&(file.len() as u64)) {
            std::cmp::Ordering::Equal => Ok(Self { metadata, tensors }),
            std::cmp::Ordering::Greater => Err(SafetensorsError::Truncated { expected, found: file.len() }),
            std::cmp::Ordering::Less => {
                Err(SafetensorsError::Surplus { found: file.len(), surplus: file.len() as u64 - expected })
            }
        }
    }
}

impl TensorInfo {
    /// The type as one that can be decoded. The 4-bit and 6-bit floats, whose elements are not whole bytes, and
    /// complex numbers cannot.
    pub fn dtype(&self) -> Option<TensorDtype> {
        Some(match self.stored {
            Dtype::BOOL => TensorDtype::Bool,
            Dtype::U8 => TensorDtype::U8,
            Dtype::I8 => TensorDtype::I8,
            Dtype::F8_E5M2 => TensorDtype::F8E5M2,
            Dtype::F8_E4M3 => TensorDtype::F8E4M3,
            Dtype::F8_E8M0 => TensorDtype::F8E8M0,
            Dtype::F8_E4M3FNUZ => TensorDtype::F8E4M3Fnuz,
            Dtype::F8_E5M2FNUZ => TensorDtype::F8E5M2Fnuz,
            Dtype::I16 => TensorDtype::I16,
            Dtype::U16 => TensorDtype::U16,
            Dtype::F16 => TensorDtype::F16,
            Dtype::BF16 => TensorDtype::BF16,
            Dtype::I32 => TensorDtype::I32,
            Dtype::U32 => TensorDtype::U32,
            Dtype::F32 => TensorDtype::F32,
            Dtype::F64 => TensorDtype::F64,
            Dtype::I64 => TensorDtype::I64,
            Dtype::U64 => TensorDtype::U64,
            _ => return None,
        })
    }
}

/// Turns offsets into ranges of the file and checks that they follow on each other.
fn place(
    entries: Vec<(String, safetensors::tensor::TensorInfo)>,
    data_start: usize,
) -> Result<Vec<TensorInfo>, SafetensorsError> {
    let mut tensors = Vec::with_capacity(entries.len());
    let mut expected = 0;
    for (name, safetensors::tensor::TensorInfo { dtype, shape, data_offsets: (start, end) }) in entries {
        let Some(size) = size_in_bytes(dtype, &shape) else {
            return Err(SafetensorsError::SizeOverflow { name, shape });
        };
        if end.checked_sub(start) != Some(size) {
            let dtype = dtype.to_string();
            return Err(SafetensorsError::Size { name, dtype, shape, expected: size, start, end });
        }
        if start != expected {
            return Err(SafetensorsError::Offset { name, expected, found: start });
        }
        let range = match (data_start.checked_add(start), data_start.checked_add(end)) {
            (Some(start), Some(end)) => start..end,
            _ => return Err(SafetensorsError::SizeOverflow { name, shape }),
        };
        expected = end;
        tensors.push(TensorInfo { name, shape, stored: dtype, range });
    }
    Ok(tensors)
}

/// `None` when a product overflows or the elements do not fill whole bytes.
fn size_in_bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1_usize, |product, &it| product.checked_mul(it))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The header's JSON, in its order, with names that appear twice refused.
struct Entries {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, safetensors::tensor::TensorInfo)>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut names = HashSet::new();
        let mut entries = Entries { metadata: HashMap::new(), tensors: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor `{name}` appears twice")));
            }
            if name == "__metadata__" {
                entries.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else {
                entries.tensors.push((name, map.next_value()?));
            }
        }
        Ok(entries)
    }
}
