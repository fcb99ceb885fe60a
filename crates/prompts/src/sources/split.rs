//! Parts of data sets: `train[:400]`, `test[10%:20%]`, `train[:50]+test[:50]`, as Python's `datasets` reads them.

use std::fmt;
use std::str::FromStr;

use super::slice::{Slice, SliceError};

/// Parts of splits, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The parts; at least one.
    pub parts: Vec<SplitPart>,
}

/// A part of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// The split's name; empty where a text file has none.
    pub name: String,
    /// Which of its rows; `None` means all.
    pub slice: Option<Slice>,
    /// Whether shares count whole hundredths, so that rows may be left over; else they are rounded to rows.
    pub whole_hundredths: bool,
}

impl Split {
    /// A whole split.
    pub fn whole(name: &str) -> Self {
        Self { parts: vec![SplitPart { name: name.to_owned(), slice: None, whole_hundredths: false }] }
    }
}

impl SplitPart {
    /// The rows of a split that has so many.
    ///
    /// # Errors
    /// Whole hundredths of fewer than 100 rows.
    pub fn range(&self, rows: usize) -> Result<std::ops::Range<usize>, SliceError> {
        let slice = self.slice.unwrap_or_default();
        if !self.whole_hundredths || !slice.has_shares() {
            return Ok(slice.range(rows));
        }
        if rows < 100 {
            return Err(SliceError::FewRows { text: self.to_string(), rows });
        }
        Ok(slice.of_whole_hundredths(rows).range(rows))
    }
}

impl FromStr for Split {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        Ok(Self { parts: text.split('+').map(|it| it.trim().parse()).collect::<Result<_, _>>()? })
    }
}

impl FromStr for SplitPart {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        let malformed = || SliceError::Split { text: text.to_owned() };
        let (rest, rounding) = match text.strip_suffix(')') {
            Some(it) => it.split_once('(').ok_or_else(malformed)?,
            None => (text, "closest"),
        };
        let whole_hundredths = match rounding {
            "closest" => false,
            "pct1_dropremainder" => true,
            _ => return Err(malformed()),
        };
        let (name, slice) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        if !name.chars().all(|it| it.is_alphanumeric() || matches!(it, '_' | '.' | '-')) {
            return Err(malformed());
        }
        let slice = (!slice.is_empty()).then(|| slice.parse()).transpose()?;
        Ok(Self { name: name.to_owned(), slice, whole_hundredths })
    }
}

impl fmt::Display for SplitPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = self.slice.map(|it| it.to_string()).unwrap_or_default();
        let rounding = if self.whole_hundredths { "(pct1_dropremainder)" } else { "" };
        write!(f, "{}{slice}{rounding}", self.name)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join("+"))
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one part has one range")]
mod tests {
    use super::*;

    fn rows(split: &str, rows: usize) -> Vec<std::ops::Range<usize>> {
        split.parse::<Split>().unwrap().parts.iter().map(|it| it.range(rows).unwrap()).collect()
    }

    #[test]
    fn parts_are_named_cut_and_joined() {
        let split: Split = "train[:2] + test[10%:20%]".parse().unwrap();
        assert_eq!(split.parts.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["train", "test"]);
        assert_eq!(rows("train[:2]+test[10%:20%]+all", 40), [0..2, 4..8, 0..40]);
        assert_eq!(rows("[:3]", 40), [0..3]);
    }

    #[test]
    fn whole_hundredths_leave_the_remainder_out() {
        // 1 % of 250 rows is trunc(250 / 100) = 2 rows, so 10 % to 20 % is 20..40; rounded to rows it is 25..50.
        assert_eq!(rows("train[10%:20%](pct1_dropremainder)", 250), [20..40]);
        assert_eq!(rows("train[10%:20%](closest)", 250), [25..50]);
        assert_eq!(rows("train[:-10%](pct1_dropremainder)", 250), [0..230]);
        let part: SplitPart = "train[:10%](pct1_dropremainder)".parse().unwrap();
        assert!(matches!(part.range(99), Err(SliceError::FewRows { rows: 99, .. })));
    }

    #[test]
    fn what_is_no_split_is_refused_with_the_text() {
        for text in ["train[:2", "tr ain", "train(up)", "train[1]", "train[:2]x"] {
            let error = text.parse::<Split>().unwrap_err().to_string();
            assert!(error.contains('`'), "{text}: {error}");
        }
    }

    #[test]
    fn a_split_is_read_back_from_what_it_prints() {
        for text in ["train[:400]", "train[:1]+test[10%:20%](pct1_dropremainder)", "validation"] {
            assert_eq!(text.parse::<Split>().unwrap().to_string(), text);
        }
    }
}
