//! Reading little-endian values off the front of the bytes.

use super::GgufError;

pub(super) struct Cursor<'bytes> {
    bytes: &'bytes [u8],
    position: usize,
}

impl<'bytes> Cursor<'bytes> {
    pub(super) fn new(bytes: &'bytes [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn array<const N: usize>(&mut self, reading: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N as u64, reading)?;
        Ok(*bytes.first_chunk().expect("take returns as many bytes as asked"))
    }

    pub(super) fn u32(&mut self, reading: &'static str) -> Result<u32, GgufError> {
        self.array(reading).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, reading: &'static str) -> Result<u64, GgufError> {
        self.array(reading).map(u64::from_le_bytes)
    }

    /// A string: its length in bytes, then UTF-8.
    pub(super) fn string(&mut self, reading: &'static str) -> Result<&'bytes str, GgufError> {
        let length = self.u64(reading)?;
        let offset = self.position;
        std::str::from_utf8(self.take(length, reading)?).map_err(|_| GgufError::NotUtf8 { reading, offset })
    }

    /// A number of things of at least `smallest` bytes each, refused when the rest of the file is too short for
    /// them. So what is reserved for a count is never more than a small multiple of the file.
    pub(super) fn count(&mut self, things: &'static str, smallest: usize) -> Result<usize, GgufError> {
        let count = self.u64(things)?;
        self.fits(count, things, smallest)
    }

    pub(super) fn fits(&self, count: u64, things: &'static str, smallest: usize) -> Result<usize, GgufError> {
        let available = self.left();
        match usize::try_from(count) {
            Ok(fitting) if fitting <= available / smallest => Ok(fitting),
            _ => Err(GgufError::CountExceedsFile { things, count, available }),
        }
    }

    fn take(&mut self, needed: u64, reading: &'static str) -> Result<&'bytes [u8], GgufError> {
        let rest = &self.bytes[self.position..];
        let taken = usize::try_from(needed).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or(GgufError::UnexpectedEnd {
            reading,
            offset: self.position,
            needed,
            available: rest.len(),
        })?;
        self.position += taken.len();
        Ok(taken)
    }
}
