//! The pages of a Parquet column, looked at before they are read.
//!
//! Who reads them reserves what they say of themselves, first in their headers ([`largest`]), then inside ([`check`]).
//!
//! A page is preceded by a header in Thrift's compact form
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>): a struct whose second field is the page's size when it is unfolded and whose third its
//! size in the file. The reader of pages reserves what the first says, and what the lengths of texts in it say.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};

/// Headers have their column's smallest and largest text in them.
const MAX_HEADER: u64 = 16 << 20;

/// How deep structs lie in a header.
const MAX_DEPTH: usize = 8;

/// The unfolded size of the largest page of a column, from the first one's place and the size of all.
pub(super) fn largest(mut file: &File, start: i64, size: i64) -> Result<u64, String> {
    let length = file.metadata().map_err(|it| it.to_string())?.len();
    let outside =
        || format!("a column is said to have {size} bytes from byte {start}, in a file of {length}");
    let mut at = u64::try_from(start).map_err(|_| outside())?;
    let end = u64::try_from(size).ok().and_then(|it| at.checked_add(it)).filter(|it| *it <= length);
    let end = end.ok_or_else(outside)?;
    let mut largest = 0;
    while at < end {
        file.seek(SeekFrom::Start(at)).map_err(|it| it.to_string())?;
        // Most headers are shorter than this by far.
        let mut bytes = Vec::new();
        let mut wanted = 4096;
        let (header, unfolded, folded) = loop {
            let limit = (end - at).min(wanted);
            file.take(limit - bytes.len() as u64).read_to_end(&mut bytes).map_err(|it| it.to_string())?;
            let mut compact = Compact { bytes: &bytes, at: 0 };
            match compact.page_sizes() {
                Ok((unfolded, folded)) => break (compact.at as u64, unfolded, folded),
                Err(Ended) if limit < end - at && wanted < MAX_HEADER => wanted *= 8,
                Err(Ended) => return Err(format!("the header of the page at byte {at} does not end")),
            }
        };
        let sizes = u64::try_from(unfolded).ok().zip(u64::try_from(folded).ok());
        let (unfolded, folded) = sizes.ok_or_else(|| {
            format!("the page at byte {at} is said to have {unfolded} bytes, {folded} in the file")
        })?;
        largest = largest.max(unfolded);
        at += header + folded;
        if at > end {
            return Err(format!("a page is said to end at byte {at}, its column at {end}"));
        }
    }
    Ok(largest)
}

/// Whether all pages have as many values as they say, and at most so many. Answers whether values are written as what
/// differs from the one before, so that few bytes may make many long ones.
pub(super) fn check(mut pages: Box<dyn PageReader>, levels: [i16; 2], most: u64) -> Result<bool, String> {
    let mut differences = false;
    while let Some(page) = pages.get_next_page().map_err(|it| it.to_string())? {
        let (bytes, values, encoding, skipped) = match &page {
            Page::DictionaryPage { buf, num_values, .. } => {
                // Each has its length before it.
                let fits = buf.len() as u64 / 4;
                if u64::from(*num_values) > fits {
                    return Err(format!(
                        "a dictionary is said to have {num_values} values, {fits} would fit"
                    ));
                }
                continue;
            }
            Page::DataPage { buf, num_values, encoding, .. } => {
                (buf, *num_values, *encoding, levels_of(buf, levels))
            }
            Page::DataPageV2 {
                buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, ..
            } => {
                let skipped = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                (buf, *num_values, *encoding, Some(skipped))
            }
        };
        if u64::from(values) > most {
            return Err(format!("a page is said to have {values} values, expected at most {most}"));
        }
        let sequences = match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => continue,
        };
        differences |= sequences == 2;
        let ends = || "a page ends within its values".to_owned();
        let mut compact = Compact { bytes, at: skipped.filter(|it| *it <= bytes.len()).ok_or_else(ends)? };
        for _ in 0..sequences {
            let count = compact.skip_numbers(u64::from(values)).map_err(|Ended| ends())?;
            if count > u64::from(values) {
                return Err(format!("a page is said to have {values} values, and lengths of {count}"));
            }
        }
    }
    Ok(differences)
}

/// The bytes before the values of a page of the first version: for each kind of levels that there is, their length and
/// they.
fn levels_of(page: &[u8], levels: [i16; 2]) -> Option<usize> {
    let mut at = 0;
    for _ in levels.iter().filter(|&&it| it > 0) {
        let length = page.get(at..at + 4)?;
        at += 4 + u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    }
    Some(at)
}

/// There are not as many bytes as are said to be there, or no header.
struct Ended;

struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    /// The sizes of a page, from its header.
    fn page_sizes(&mut self) -> Result<(i64, i64), Ended> {
        let (mut unfolded, mut folded) = (None, None);
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, 5) => unfolded = Some(self.signed()?),
                (3, 5) => folded = Some(self.signed()?),
                _ => self.skip(kind, MAX_DEPTH)?,
            }
        }
        unfolded.zip(folded).ok_or(Ended)
    }

    /// Goes past numbers that are written as differences in blocks, and answers how many there are; not past more than
    /// so many.
    fn skip_numbers(&mut self, most: u64) -> Result<u64, Ended> {
        let (block, parts, count) = (self.unsigned()?, self.unsigned()?, self.unsigned()?);
        self.unsigned()?;
        if count > most {
            return Ok(count);
        }
        let part = block.checked_div(parts).filter(|it| *it > 0 && block <= 1 << 20).ok_or(Ended)?;
        let mut left = count.saturating_sub(1);
        while left > 0 {
            self.unsigned()?;
            let widths = self.at;
            self.jump(parts)?;
            for place in 0..parts as usize {
                if left == 0 {
                    break;
                }
                self.jump(u64::from(self.bytes[widths + place]) * part / 8)?;
                left = left.saturating_sub(part);
            }
        }
        Ok(count)
    }

    fn byte(&mut self) -> Result<u8, Ended> {
        let byte = self.bytes.get(self.at).copied().ok_or(Ended)?;
        self.at += 1;
        Ok(byte)
    }

    fn unsigned(&mut self) -> Result<u64, Ended> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Ended)
    }

    fn signed(&mut self) -> Result<i64, Ended> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The kind of the next field of a struct, and its number; `None` at the struct's end.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>, Ended> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *id = match byte >> 4 {
            0 => self.signed()?,
            step => id.saturating_add(i64::from(step)),
        };
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Ended> {
        let depth = depth.checked_sub(1).ok_or(Ended)?;
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.unsigned()?),
            7 => self.jump(8)?,
            8 => {
                let length = self.unsigned()?;
                self.jump(length)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.unsigned()? } else { u64::from(byte >> 4) };
                for _ in 0..count {
                    // Truth values in lists take a byte.
                    self.skip(if byte & 0x0f <= 2 { 3 } else { byte & 0x0f }, depth)?;
                }
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth)?;
                }
            }
            _ => return Err(Ended),
        }
        Ok(())
    }

    fn jump(&mut self, bytes: u64) -> Result<(), Ended> {
        let left = (self.bytes.len() - self.at) as u64;
        if bytes > left {
            return Err(Ended);
        }
        self.at += bytes as usize;
        Ok(())
    }
}
