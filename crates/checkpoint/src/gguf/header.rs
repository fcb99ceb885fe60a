//! Everything before the tensor data.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::{Map, Value};

use super::cursor::Cursor;
use super::{GgufError, MAGIC, StoredType, metadata};
use crate::tensor::{SizeError, size_in_bytes};

/// Where tensor data is aligned when the file does not say, in bytes.
const DEFAULT_ALIGNMENT: u64 = 32;

/// How many dimensions the format allows.
const MOST_DIMENSIONS: usize = 4;

/// How many tensors are accepted; the largest mixtures of experts, with unfused experts, stay below a tenth.
const MOST_TENSORS: usize = 1 << 20;

/// The smallest tensor info: an empty name, no dimension, type, offset.
const SMALLEST_TENSOR: usize = 8 + 4 + 4 + 8;

/// What a GGUF file says before its tensor data, checked: all ranges lie within the file and none overlap.
#[derive(Clone, Debug)]
pub struct Header {
    /// The format's version, 2 or 3.
    pub version: u32,
    /// All metadata in file order, floats that are not finite as objects with their names.
    pub metadata: Map<String, Value>,
    /// All tensors in file order.
    pub tensors: Vec<TensorInfo>,
    /// Where the data of every tensor is aligned, in bytes.
    pub alignment: u64,
}

/// One tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its dimensions, row-major: the reverse of the file's order.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub stored: StoredType,
    /// Where its bytes lie, from the start of the file; empty at its start for a type that is not decoded, whose
    /// size is not known here.
    pub range: Range<usize>,
}

impl Header {
    /// Reads the header of a whole file.
    pub fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(file);
        let found = cursor.array("the magic")?;
        if found != MAGIC {
            return Err(GgufError::BadMagic { found });
        }
        let version = match cursor.u32("the version")? {
            version @ (2 | 3) => version,
            found if matches!(found.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
            found => return Err(GgufError::UnsupportedVersion { found }),
        };
        let tensors = cursor.u64("the number of tensors")?;
        let entries = cursor.u64("the number of metadata entries")?;
        // Both counts come first, so a hostile one is refused before the metadata is read.
        cursor.fits(tensors, "tensors", SMALLEST_TENSOR)?;
        let metadata = metadata::read(&mut cursor, entries)?;
        let alignment = alignment(&metadata)?;
        let infos = read_infos(&mut cursor, tensors)?;
        let tensors = place(infos, cursor.position() as u64, alignment, file.len())?;
        check_overlap(&tensors)?;
        Ok(Self { version, metadata, tensors, alignment })
    }
}

/// A tensor info as stored.
struct StoredInfo {
    name: String,
    /// Fastest first.
    dimensions: Vec<u64>,
    stored: StoredType,
    /// From the start of the tensor data.
    offset: u64,
}

fn alignment(metadata: &Map<String, Value>) -> Result<u64, GgufError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let alignment = value.as_u64().filter(|it| it.is_power_of_two() && u32::try_from(*it).is_ok());
    alignment.ok_or_else(|| GgufError::BadAlignment { found: value.to_string() })
}

fn read_infos(cursor: &mut Cursor, count: u64) -> Result<Vec<StoredInfo>, GgufError> {
    let count = cursor.fits(count, "tensors", SMALLEST_TENSOR)?;
    if count > MOST_TENSORS {
        return Err(GgufError::TooMany { things: "tensors", limit: MOST_TENSORS });
    }
    let mut names = HashSet::new();
    let mut infos = Vec::new();
    for _ in 0..count {
        let name = cursor.string("a tensor name")?;
        if !names.insert(name) {
            return Err(GgufError::DuplicateTensor { name: name.to_owned() });
        }
        let dimensions = cursor.u32("the number of dimensions of a tensor")?;
        if dimensions as usize > MOST_DIMENSIONS {
            return Err(GgufError::TooManyDimensions {
                name: name.to_owned(),
                limit: MOST_DIMENSIONS,
                found: dimensions,
            });
        }
        infos.push(StoredInfo {
            name: name.to_owned(),
            dimensions: (0..dimensions)
                .map(|_| cursor.u64("a dimension of a tensor"))
                .collect::<Result<_, _>>()?,
            stored: StoredType::from_number(cursor.u32("the type of a tensor")?),
            offset: cursor.u64("the offset of a tensor")?,
        });
    }
    Ok(infos)
}

/// Turns offsets into ranges of the file.
fn place(
    infos: Vec<StoredInfo>,
    header_end: u64,
    alignment: u64,
    file_len: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    let data_start = header_end.next_multiple_of(alignment); // a file's length and 2^32 do not overflow a u64
    let mut last: Option<(u64, String)> = None;
    let mut tensors = Vec::with_capacity(infos.len());
    for info in infos {
        let StoredInfo { name, dimensions, stored, offset } = info;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::MisalignedOffset { name, offset, alignment });
        }
        let overflow = || GgufError::SizeOverflow { name: name.clone(), shape: dimensions.clone() };
        let shape: Vec<usize> = dimensions
            .iter()
            .rev()
            .map(|&it| usize::try_from(it))
            .collect::<Result<_, _>>()
            .map_err(|_| overflow())?;
        let size = match stored {
            StoredType::Other(_) => 0,
            StoredType::Decoded(dtype) => size_in_bytes(dtype, &shape).map_err(|error| match error {
                SizeError::Overflow => overflow(),
                SizeError::PartialBlock { row_len, block } => {
                    GgufError::PartialBlock { name: name.clone(), row_len, dtype, block }
                }
            })?,
        };
        let start = data_start.checked_add(offset).ok_or_else(overflow)?;
        let end = start.checked_add(size as u64).ok_or_else(overflow)?;
        // Nothing to read lies nowhere; a last tensor without bytes may stand behind missing padding.
        if end > file_len as u64 && (size > 0 || matches!(stored, StoredType::Other(_))) {
            if last.as_ref().is_none_or(|(latest, _)| end > *latest) {
                last = Some((end, name));
            }
            continue;
        }
        let range = if size == 0 && end > file_len as u64 { 0..0 } else { start as usize..end as usize };
        tensors.push(TensorInfo { name, shape, stored, range });
    }
    match last {
        Some((expected, name)) => Err(GgufError::Truncated { name, expected, found: file_len }),
        None => Ok(tensors),
    }
}

fn check_overlap(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().filter(|it| !it.range.is_empty()).collect();
    by_start.sort_by_key(|it| it.range.start);
    for pair in by_start.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(GgufError::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone() });
        }
    }
    Ok(())
}
