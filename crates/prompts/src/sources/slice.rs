//! A part of a list, written as the Python library `datasets` writes it after the name of a split.
//!
//! `[from:to]`, both optional; a bound is a number of items or, with `%`, a share of all items, and counts from the
//! end when negative. If either bound has a `%`, both are shares. A share becomes a number of items by rounding to
//! the nearest, halves to the even number (the library's "closest"). Bounds beyond the list mean its ends.

use std::str::FromStr;

/// One end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A number of items; negative counts from the end.
    Items(i64),
    /// Hundredths of all items, from −100 to 100; negative counts from the end.
    Percent(i64),
}

/// A part of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The first item; `None` means the first of all.
    pub from: Option<Bound>,
    /// The item after the last; `None` means after the last of all.
    pub to: Option<Bound>,
}

/// Why a text is no slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// It is written in another way.
    #[error("`{text}` is not a slice\n\nhint: write `[:400]`, `[10:20]`, `[-5:]` or `[10%:20%]`")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// A split is written in another way.
    #[error(
        "`{text}` is not a part of a data set\n\nhint: write `train[:400]`, `test[10%:20%]` or `train[:50]+test[:50]`"
    )]
    Split {
        /// What was given.
        text: String,
    },
    /// Whole hundredths of fewer than 100 rows are nothing.
    #[error("`{text}`: a hundredth of {rows} rows is no row\n\nhint: leave `(pct1_dropremainder)` out")]
    FewRows {
        /// What was given.
        text: String,
        /// Rows that there are.
        rows: usize,
    },
    /// A share lies outside the whole.
    #[error("slice `{text}`: {percent} % is not between -100 % and 100 %")]
    Percent {
        /// What was given.
        text: String,
        /// The share.
        percent: i64,
    },
}

impl FromStr for Slice {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        let malformed = || SliceError::Malformed { text: text.to_owned() };
        let inner = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).ok_or_else(malformed)?;
        let (from, to) = inner.split_once(':').ok_or_else(malformed)?;
        let shares = inner.contains('%');
        let bound = |written: &str| {
            if written.is_empty() {
                return Ok(None);
            }
            let number = written.strip_suffix('%').unwrap_or(written);
            let digits = number.strip_prefix('-').unwrap_or(number);
            let is_number = digits.starts_with(|it: char| it.is_ascii_digit())
                && digits.chars().all(|it| it.is_ascii_digit() || it == '_');
            let number: i64 =
                number.replace('_', "").parse().ok().filter(|_| is_number).ok_or_else(malformed)?;
            match shares {
                false => Ok(Some(Bound::Items(number))),
                true if number.abs() <= 100 => Ok(Some(Bound::Percent(number))),
                true => Err(SliceError::Percent { text: text.to_owned(), percent: number }),
            }
        };
        Ok(Self { from: bound(from)?, to: bound(to)? })
    }
}

impl std::fmt::Display for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = |it: Option<Bound>| match it {
            None => String::new(),
            Some(Bound::Items(items)) => items.to_string(),
            Some(Bound::Percent(percent)) => format!("{percent}%"),
        };
        write!(f, "[{}:{}]", bound(self.from), bound(self.to))
    }
}

impl Slice {
    /// Whether bounds are shares.
    pub fn has_shares(self) -> bool {
        [self.from, self.to].iter().any(|it| matches!(it, Some(Bound::Percent(_))))
    }

    /// The same slice of a list of `len`, with a hundredth of `len / 100` items and the remainder left out.
    #[must_use]
    pub(super) fn of_whole_hundredths(self, len: usize) -> Self {
        let hundredth = i64::try_from(len / 100).unwrap_or(i64::MAX);
        let bound = |it: Bound| match it {
            Bound::Percent(percent) => Bound::Items(percent.saturating_mul(hundredth)),
            items @ Bound::Items(_) => items,
        };
        Self { from: self.from.map(bound), to: self.to.map(bound) }
    }

    /// The selected items of a list of `len`, as a range that lies within it; empty when the bounds cross.
    pub fn range(self, len: usize) -> std::ops::Range<usize> {
        let from = self.from.map_or(0, |it| it.index(len));
        let to = self.to.map_or(len, |it| it.index(len));
        from..to.max(from)
    }
}

impl Bound {
    fn index(self, len: usize) -> usize {
        let total = i128::try_from(len).expect("a length fits 127 bits");
        let items = match self {
            Self::Items(items) => i128::from(items),
            Self::Percent(percent) => nearest_even(i128::from(percent) * total, 100),
        };
        let index = if items < 0 { total + items } else { items };
        usize::try_from(index.clamp(0, total)).expect("clamped to the length")
    }
}

/// `numerator / denominator`, rounded to the nearest integer, halves to the even one, as Python's `round`.
fn nearest_even(numerator: i128, denominator: i128) -> i128 {
    let (floor, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(slice: &str, len: usize) -> std::ops::Range<usize> {
        slice.parse::<Slice>().unwrap().range(len)
    }

    #[test]
    fn items_are_counted_from_either_end() {
        assert_eq!(range("[:400]", 1000), 0..400);
        assert_eq!(range("[10:20]", 1000), 10..20);
        assert_eq!(range("[-5:]", 1000), 995..1000);
        assert_eq!(range("[:-5]", 1000), 0..995);
        assert_eq!(range("[:]", 7), 0..7);
        assert_eq!(range("[:1_000]", 2000), 0..1000);
    }

    #[test]
    fn bounds_beyond_the_list_mean_its_ends_and_crossed_bounds_mean_nothing() {
        assert_eq!(range("[:400]", 3), 0..3);
        assert_eq!(range("[-400:]", 3), 0..3);
        assert_eq!(range("[5:]", 3), 3..3);
        assert_eq!(range("[2:1]", 3), 2..2);
        assert_eq!(range("[:9223372036854775807]", 3), 0..3);
        assert_eq!(range("[-9223372036854775807:]", 3), 0..3);
    }

    #[test]
    fn shares_round_to_the_nearest_and_halves_to_the_even_number() {
        // Python: round(50 * 5 / 100) = 2, round(50 * 7 / 100) = 4, round(33 * 10 / 100) = 3
        assert_eq!(range("[:50%]", 5), 0..2);
        assert_eq!(range("[:50%]", 7), 0..4);
        assert_eq!(range("[33%:]", 10), 3..10);
        // round(-25 * 10 / 100) = round(-2.5) = -2, so the last two; -35 % is -3.5, so the last four
        assert_eq!(range("[-25%:]", 10), 8..10);
        assert_eq!(range("[-35%:]", 10), 6..10);
        assert_eq!(range("[10%:20%]", 200), 20..40);
    }

    #[test]
    fn one_percent_sign_makes_both_bounds_shares() {
        assert_eq!(range("[10:20%]", 200), 20..40);
    }

    #[test]
    fn neighbouring_shares_leave_no_gap_and_no_overlap() {
        for len in [0, 1, 7, 99, 100, 101, 1234] {
            let mut next = 0;
            for percent in 0..100 {
                let range = range(&format!("[{percent}%:{}%]", percent + 1), len);
                assert_eq!(range.start, next, "{percent} % of {len}");
                next = range.end;
            }
            assert_eq!(next, len);
        }
    }

    #[test]
    fn what_is_no_slice_is_refused_with_the_text() {
        for text in
            ["", "[]", "[5]", "[a:b]", "[1:2:3]", "[1.5:]", "[:400", "[+1:]", "[_1:]", "[--1:]", "[%:]"]
        {
            assert_eq!(text.parse::<Slice>(), Err(SliceError::Malformed { text: text.to_owned() }), "{text}");
        }
        let error = "[:101%]".parse::<Slice>().unwrap_err();
        assert_eq!(error, SliceError::Percent { text: "[:101%]".to_owned(), percent: 101 });
    }

    #[test]
    fn a_slice_is_read_back_from_what_it_prints() {
        for text in ["[:400]", "[10%:20%]", "[-5:]", "[:]"] {
            assert_eq!(text.parse::<Slice>().unwrap().to_string(), text);
        }
    }
}
