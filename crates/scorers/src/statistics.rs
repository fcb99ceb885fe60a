//! Means, medians and intervals.
//!
//! Values are sorted before they are summed, so that the order of the prompts does not show in a single bit.

/// What is told of a list of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median; of an even number of values, the mean of the two in the middle.
    pub median: f64,
    /// Largest value.
    pub max: f64,
    /// Standard error of the mean: sample standard deviation (n − 1) divided by √n. None for one value.
    pub standard_error: Option<f64>,
}

impl Summary {
    /// The summary of a list; all NaN if it is empty.
    ///
    /// ```
    /// # use scorers::statistics::Summary;
    /// let summary = Summary::of(&[1.0, 3.0, 8.0]);
    /// assert_eq!((summary.mean, summary.median, summary.max), (4.0, 3.0, 8.0));
    /// // Deviations −3, −1, 4: variance 26/2 = 13, so √(13/3).
    /// assert!((summary.standard_error.unwrap() - (13.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    /// ```
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let squares: f64 = sorted.iter().map(|it| (it - mean).powi(2)).sum();
        let standard_error = (sorted.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        Self {
            mean,
            median: median_of_sorted(&sorted),
            max: sorted.last().copied().unwrap_or(f64::NAN),
            standard_error,
        }
    }
}

/// The mean; NaN of nothing. Does not depend on the order.
pub fn mean(values: &[f64]) -> f64 {
    Summary::of(values).mean
}

/// The median; NaN of nothing.
///
/// ```
/// assert_eq!(scorers::statistics::median(&[5.0, 1.0, 2.0, 4.0]), 3.0); // (2 + 4) / 2
/// ```
pub fn median(values: &[f64]) -> f64 {
    Summary::of(values).median
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let upper = sorted.len() / 2;
    match sorted {
        [] => f64::NAN,
        _ if sorted.len() % 2 == 1 => sorted[upper],
        _ => f64::midpoint(sorted[upper - 1], sorted[upper]),
    }
}

/// The 95 % Wilson score interval of a share; `[0, 1]` when nothing was counted.
///
/// With p = count/total and z = 1.96: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z·se it stays
/// inside [0, 1] and has a width at 0 of n, which is where a search for few refusals ends.
///
/// # Source
/// Wilson 1927, *Probable inference, the law of succession, and statistical inference*.
pub fn wilson_interval(count: usize, total: usize) -> [f64; 2] {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    if total == 0 {
        return [0.0, 1.0];
    }
    let n = total as f64;
    let p = count as f64 / n;
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let middle = p + Z * Z / (2.0 * n);
    let scale = 1.0 + Z * Z / n;
    // At the ends middle and spread are equal but for rounding.
    let low = if count == 0 { 0.0 } else { (middle - spread) / scale };
    let high = if count >= total { 1.0 } else { (middle + spread) / scale };
    [low.max(0.0), high.min(1.0)]
}

/// A ratio of sums, Σ parts / Σ sizes, with its standard error over groups (prompts), whose members (tokens) are
/// not independent of each other.
///
/// With R the ratio, m the mean size and n groups: se = √(Σ (part − R·size)² / (n (n − 1))) / m. None for one group,
/// and no ratio without a size.
///
/// # Source
/// Cochran 1977, *Sampling Techniques*, chapter 6 (ratio estimators).
pub fn ratio(parts_and_sizes: &[(f64, f64)]) -> Option<(f64, Option<f64>)> {
    let sorted_sum = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values.iter().sum::<f64>()
    };
    let size = sorted_sum(parts_and_sizes.iter().map(|it| it.1).collect());
    if size <= 0.0 {
        return None;
    }
    let ratio = sorted_sum(parts_and_sizes.iter().map(|it| it.0).collect()) / size;
    let n = parts_and_sizes.len() as f64;
    let squares = sorted_sum(parts_and_sizes.iter().map(|it| (it.0 - ratio * it.1).powi(2)).collect());
    let error = (parts_and_sizes.len() > 1).then(|| (squares / (n * (n - 1.0))).sqrt() / (size / n));
    Some((ratio, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_intervals_are_those_of_the_literature() {
        // Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
        for (count, total, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [found_low, found_high] = wilson_interval(count, total);
            assert!((found_low - low).abs() < 5e-5, "{count}/{total}: {found_low}");
            assert!((found_high - high).abs() < 5e-5, "{count}/{total}: {found_high}");
        }
    }

    #[test]
    fn an_interval_holds_its_share_and_stays_between_zero_and_one() {
        for total in [1, 2, 7, 100, 100_000] {
            for count in [0, 1, total / 2, total - 1, total] {
                let [low, high] = wilson_interval(count, total);
                let share = count as f64 / total as f64;
                assert!(0.0 <= low && low <= share && share <= high && high <= 1.0, "{count}/{total}");
            }
        }
        assert_eq!(wilson_interval(0, 0).map(f64::to_bits), [0.0_f64, 1.0].map(f64::to_bits));
    }

    #[test]
    fn sums_do_not_depend_on_the_order() {
        let values = [1e16, 1.0, -1e16, 3.5, 0.1, 1e-9];
        let mut reversed = values;
        reversed.reverse();
        assert_eq!(mean(&values).to_bits(), mean(&reversed).to_bits());
    }

    #[test]
    fn a_ratio_weighs_groups_by_their_size() {
        // 1 of 1 and 1 of 3: 2/4. Residuals 0.5 and −0.5: √(0.5 / 2) / 2 = 0.25.
        let (value, error) = ratio(&[(1.0, 1.0), (1.0, 3.0)]).unwrap();
        assert_eq!((value, error), (0.5, Some(0.25)));
        assert_eq!(ratio(&[(0.0, 0.0)]), None);
        assert_eq!(ratio(&[(3.0, 4.0)]), Some((0.75, None)));
    }
}
