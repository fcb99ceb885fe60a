//! How large a file of weights may become.

use std::str::FromStr;

/// The most bytes of tensors in one safetensors file. Written as people write it: `5GB`, `500 MB`, `2GiB`, or bytes.
///
/// ```
/// # use checkpoint::write::ShardSize;
/// let size: ShardSize = "5GB".parse()?;
/// assert_eq!(size, ShardSize::default());
/// assert_eq!(size.bytes(), 5_000_000_000); // decimal, as the hubs count
/// # Ok::<(), checkpoint::write::ShardSizeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardSize(u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard size: expected a number of bytes above 0, found `{found}`\
     \n\nhint: units are KB, MB, GB, TB (thousands) and KiB, MiB, GiB, TiB (1024s), as in `5GB`"
)]
pub struct ShardSizeError {
    found: String,
}

impl ShardSize {
    /// A number of bytes; `None` for 0.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }

    /// The number of bytes, above 0.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for ShardSize {
    /// 5 GB: what hubs and other tools use.
    fn default() -> Self {
        Self(5_000_000_000)
    }
}

impl FromStr for ShardSize {
    type Err = ShardSizeError;

    fn from_str(text: &str) -> Result<Self, ShardSizeError> {
        parse(text).and_then(Self::from_bytes).ok_or_else(|| ShardSizeError { found: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" => 1024,
        "mib" => 1024_u64.pow(2),
        "gib" => 1024_u64.pow(3),
        "tib" => 1024_u64.pow(4),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        let sizes = [
            ("5GB", 5_000_000_000),
            ("500 MB", 500_000_000),
            (" 2gib ", 2_147_483_648),
            ("1TiB", 1_099_511_627_776),
            ("4096", 4096),
            ("7B", 7),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(ShardSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_the_units() {
        for text in ["", "GB", "0", "0GB", "-1GB", "5XB", "1.5GB", "99999999999TB", "5 G B"] {
            let error = text.parse::<ShardSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("found `{text}`")) && error.contains("GiB"), "{error}");
        }
    }
}
