//! Metadata values, as JSON.
//!
//! Integers keep their value, f32 is widened exactly. JSON has no word for floats that are not finite: they become objects
//! with their names ([`float`]), and null within arrays, which are long.

use std::ops::Range;

use serde_json::{Map, Value};

use super::GgufError;
use super::cursor::Cursor;
use crate::json::float;

/// How deep arrays may be nested. Files in the wild use one level.
const DEEPEST: usize = 4;

/// How many keys and array elements are accepted in one file. An element takes up to a hundred times more memory
/// than in the file, so a hostile file of a gigabyte must stop somewhere. The largest vocabularies known (262 144
/// tokens: text, score and type of each, and 514 906 merges) need a third of it.
const MOST_VALUES: usize = 1 << 22;

/// The smallest entry: an empty key, its value's type, a value of one byte.
const SMALLEST_ENTRY: usize = 8 + 4 + 1;

/// Where each entry lies in a file, from its key to the end of its value, by key in file order.
pub(crate) fn entry_ranges(file: &[u8]) -> Result<Vec<(String, Range<usize>)>, GgufError> {
    let mut cursor = Cursor::new(file);
    cursor.array::<4>("the magic")?;
    cursor.u32("the version")?;
    cursor.u64("the number of tensors")?;
    let count = cursor.count("metadata entries", SMALLEST_ENTRY)?;
    let mut values_left = MOST_VALUES;
    let mut ranges = Vec::new();
    for _ in 0..count {
        let start = cursor.position();
        let (key, _) = read_entry(&mut cursor, &mut values_left)?;
        ranges.push((key.to_owned(), start..cursor.position()));
    }
    Ok(ranges)
}

pub(super) fn read(cursor: &mut Cursor, count: u64) -> Result<Map<String, Value>, GgufError> {
    let count = cursor.fits(count, "metadata entries", SMALLEST_ENTRY)?;
    let mut values_left = MOST_VALUES;
    let mut metadata = Map::new();
    for _ in 0..count {
        let (key, value) = read_entry(cursor, &mut values_left)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(GgufError::DuplicateKey { key: key.to_owned() });
        }
    }
    Ok(metadata)
}

fn read_entry<'bytes>(
    cursor: &mut Cursor<'bytes>,
    values_left: &mut usize,
) -> Result<(&'bytes str, Value), GgufError> {
    spend(values_left, 1)?;
    let key = cursor.string("a metadata key")?;
    let kind = cursor.u32("a metadata type")?;
    let value = Reader { cursor, key, values_left }.value(kind, 0)?;
    Ok((key, value))
}

fn spend(left: &mut usize, values: usize) -> Result<(), GgufError> {
    *left = left
        .checked_sub(values)
        .ok_or(GgufError::TooMany { things: "metadata values", limit: MOST_VALUES })?;
    Ok(())
}

/// Reads the value of one key.
struct Reader<'cursor, 'bytes> {
    cursor: &'cursor mut Cursor<'bytes>,
    key: &'bytes str,
    values_left: &'cursor mut usize,
}

impl Reader<'_, '_> {
    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.number()?).into(),
            1 => i8::from_le_bytes(self.number()?).into(),
            2 => u16::from_le_bytes(self.number()?).into(),
            3 => i16::from_le_bytes(self.number()?).into(),
            4 => u32::from_le_bytes(self.number()?).into(),
            5 => i32::from_le_bytes(self.number()?).into(),
            6 => of_depth(f32::from_le_bytes(self.number()?).into(), depth),
            7 => self.boolean()?.into(),
            8 => self.cursor.string("a metadata string")?.into(),
            9 => self.array(depth + 1)?,
            10 => u64::from_le_bytes(self.number()?).into(),
            11 => i64::from_le_bytes(self.number()?).into(),
            12 => of_depth(f64::from_le_bytes(self.number()?), depth),
            found => return Err(GgufError::UnknownValueType { key: self.key.to_owned(), found }),
        })
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.cursor.array("a metadata number")
    }

    fn boolean(&mut self) -> Result<bool, GgufError> {
        match self.number()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(GgufError::BadBool { key: self.key.to_owned(), found }),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, GgufError> {
        if depth > DEEPEST {
            return Err(GgufError::NestedTooDeep { key: self.key.to_owned(), limit: DEEPEST });
        }
        let kind = self.cursor.u32("the type of a metadata array")?;
        let smallest = self.smallest(kind)?;
        let count = self.cursor.count("elements of a metadata array", smallest)?;
        spend(self.values_left, count)?;
        (0..count).map(|_| self.value(kind, depth)).collect()
    }

    /// How many bytes a value takes at least.
    fn smallest(&self, kind: u32) -> Result<usize, GgufError> {
        Ok(match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            found => return Err(GgufError::UnknownValueType { key: self.key.to_owned(), found }),
        })
    }
}

/// A float by itself, or an element of an array.
fn of_depth(number: f64, depth: usize) -> Value {
    if depth == 0 { float(number) } else { number.into() }
}
