//! The normal distribution.

use crate::backend::reference::erf;

/// The number below which this share of normal numbers lies, in standard deviations from their mean, by halving an
/// interval; `share` is between 0 and 1. Off by less than 1e-12 from a share of 1e-4 up.
pub(crate) fn quantile(share: f64) -> f64 {
    let below = |x: f64| 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
    let (mut low, mut high) = (-8.5, 8.5); // past these the share is 0 or 1 to f64's precision
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // Abramowitz & Stegun, table 26.5, and R's qnorm for the last digits.
        for (share, expected) in [
            (0.5, 0.0),
            (0.75, 0.674_489_750_196_081_7),
            (0.95, 1.644_853_626_951_472_2),
            (0.975, 1.959_963_984_540_054),
            (0.999, 3.090_232_306_167_813_5),
            (1e-4, -3.719_016_485_455_680_5),
        ] {
            let found = quantile(share);
            assert!((found - expected).abs() < 1e-12, "{share}: {found}, not {expected}");
        }
    }

    #[test]
    fn shares_next_to_none_and_all_have_finite_quantiles() {
        assert!(quantile(f64::MIN_POSITIVE) < -8.0 && quantile(1.0 - f64::EPSILON) > 8.0);
    }
}
