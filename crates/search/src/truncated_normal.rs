//! The normal distribution cut off at two ends, in logarithms.
//!
//! A kernel's mass outside of its range, and a far tail's share of it, are far below the smallest `f64`, so
//! everything is kept as a logarithm. Written with Φ for the standard normal's distribution function:
//!
//! - `log_mass(a, b)` = ln(Φ(b) − Φ(a));
//! - `quantile(q, a, b)` = the x with Φ(x) = Φ(a) + q (Φ(b) − Φ(a)).
//!
//! Both use the mirror image when the range lies on the positive side, where Φ is next to 1 and differences are
//! lost. `libm` computes `erfc`, `exp` and `log`, the same bits on every machine.

use std::f64::consts::{LN_2, SQRT_2};

/// ln √(2π).
const LN_SQRT_2_PI: f64 = 0.918_938_533_204_672_8;

/// Below this, Φ comes from its asymptotic series, whose first neglected term (135,135 / x¹²) is then 3·10⁻¹³.
/// `erfc` itself would run out of exponents at −38.
const ASYMPTOTIC: f64 = -30.0;

/// ln Φ(x).
pub(crate) fn log_cdf(x: f64) -> f64 {
    if x > 0.0 {
        libm::log1p(-0.5 * libm::erfc(x / SQRT_2))
    } else if x > ASYMPTOTIC {
        libm::log(0.5 * libm::erfc(-x / SQRT_2))
    } else {
        // Φ(x) = φ(x)/|x| · (1 − 1/x² + 3/x⁴ − 15/x⁶ + …), the terms written from the inside out.
        let s = 1.0 / (x * x);
        let series = s * (-1.0 + s * (3.0 + s * (-15.0 + s * (105.0 + s * (-945.0 + s * 10395.0)))));
        -0.5 * x * x - libm::log(-x) - LN_SQRT_2_PI + libm::log1p(series)
    }
}

/// ln(Φ(b) − Φ(a)); −∞ for an empty range.
pub(crate) fn log_mass(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() || a >= b {
        return f64::NEG_INFINITY;
    }
    if a > 0.0 {
        return log_mass(-b, -a);
    }
    if let Some(narrow) = narrow_log_mass(a, b) {
        return narrow;
    }
    if b <= 0.0 {
        let (lower, upper) = (log_cdf(a), log_cdf(b));
        // ln(eᵘ − eˡ) = u + ln(1 − e^(l − u)).
        return upper + libm::log1p(-libm::exp(lower - upper));
    }
    // Both tails are at most one half: their sum is exact enough to subtract from one.
    libm::log1p(-0.5 * (libm::erfc(-a / SQRT_2) + libm::erfc(b / SQRT_2)))
}

/// The mass of a range so narrow that the difference of two values of Φ would lose digits, by Gauss–Legendre
/// quadrature with five points around the middle m: φ(m) · ∫ e^(−m t − t²/2) dt.
fn narrow_log_mass(a: f64, b: f64) -> Option<f64> {
    let (half, middle) = ((b - a) / 2.0, f64::midpoint(a, b));
    // The integrand then varies by less than e^±0.2, and five points are exact to 10⁻¹⁴.
    // An infinite range has no middle, and is not narrow.
    let is_narrow = half * (1.0 + middle.abs()) <= 0.2;
    if !is_narrow {
        return None;
    }
    let nodes = [
        (0.0, 0.568_888_888_888_888_9),
        (0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
        (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    ];
    let integrand = |t: f64| libm::exp(-middle * t - t * t / 2.0);
    let sum: f64 = nodes
        .iter()
        .map(|&(node, weight)| match node {
            0.0 => weight * integrand(0.0),
            _ => weight * (integrand(node * half) + integrand(-node * half)),
        })
        .sum();
    Some(-0.5 * middle * middle - LN_SQRT_2_PI + libm::log(half) + libm::log(sum))
}

/// The x with ln Φ(x) = `log_p`, for `log_p` ≤ 0.
pub(crate) fn inverse_log_cdf(log_p: f64) -> f64 {
    if log_p >= 0.0 {
        return f64::INFINITY;
    }
    if log_p == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if log_p > -LN_2 {
        // The upper half is the mirror image of the lower one: Φ(−x) = 1 − Φ(x).
        return -inverse_log_cdf(libm::log(-libm::expm1(log_p)));
    }
    // For x ≤ 0, Φ(x) ≤ ½ exp(−x²/2), so this starts to the left of the solution; ln Φ increases and is concave,
    // so Newton's steps from there only go right and never overshoot.
    let mut x = -(-2.0 * (log_p + LN_2)).max(0.0).sqrt();
    for _ in 0..NEWTON_STEPS {
        let log_phi = log_cdf(x);
        // (ln Φ)' = φ / Φ.
        let slope = libm::exp(-0.5 * x * x - LN_SQRT_2_PI - log_phi);
        let step = (log_p - log_phi) / slope;
        x += step;
        if step.abs() <= 1e-14 * x.abs().max(1e-3) {
            break;
        }
    }
    x
}

/// Enough everywhere; six are usual.
const NEWTON_STEPS: usize = 40;

/// The x in `[a, b]` below which lies the share `q` of the mass between `a` and `b`.
pub(crate) fn quantile(q: f64, a: f64, b: f64) -> f64 {
    if a > 0.0 {
        return -quantile(1.0 - q, -b, -a);
    }
    let log_part = libm::log(q) + log_mass(a, b);
    let (lower, upper) = (log_cdf(a).min(log_part), log_cdf(a).max(log_part));
    let log_p =
        if upper == f64::NEG_INFINITY { upper } else { upper + libm::log1p(libm::exp(lower - upper)) };
    inverse_log_cdf(log_p).clamp(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln ∫ φ by composite Simpson with 20,000 panels, relative to the largest value on the range: independent of
    /// `erfc` and of every case distinction above.
    fn oracle(a: f64, b: f64) -> f64 {
        // In a tail the density falls by e^(−|x|) per unit, in the middle by e^(−x²/2): beyond fifty such lengths
        // (or forty units) from the range's highest point nothing is left of it.
        let highest = 0.0_f64.clamp(a, b);
        let reach = 50.0 / highest.abs().max(1.25);
        let (a, b) = (a.max(highest - reach), b.min(highest + reach));
        let panels = 20_000;
        let width = (b - a) / f64::from(panels);
        // (h² − x²)/2 with x = a + t, without the difference of two large squares.
        let value = |t: f64| ((highest - a - t) * (highest + a + t) / 2.0).exp();
        let mut sum = value(0.0) + value(b - a);
        for panel in 1..panels {
            sum += value(f64::from(panel) * width) * if panel % 2 == 1 { 4.0 } else { 2.0 };
        }
        (sum * width / 3.0).ln() - highest * highest / 2.0 - LN_SQRT_2_PI
    }

    /// Ranges from a hair to far tails, on both sides of zero.
    fn ranges() -> Vec<(f64, f64)> {
        let starts = [
            -300.0, -60.0, -37.0, -30.1, -29.9, -14.0, -8.0, -3.0, -1.0, -0.1, 0.0, 0.1, 2.0, 9.0, 38.0,
            250.0,
        ];
        let widths = [1e-9, 1e-5, 1e-3, 0.02, 0.3, 1.0, 5.0, 30.0, 400.0];
        starts.iter().flat_map(|&a| widths.iter().map(move |&width| (a, a + width))).collect()
    }

    #[test]
    fn masses_agree_with_quadrature_in_the_middle_and_in_both_tails() {
        for (a, b) in ranges() {
            let (found, expected) = (log_mass(a, b), oracle(a, b));
            // An error of the logarithm is a relative error of the mass. The far tails' logarithms are in the
            // tens of thousands, so there it is their own last digits that count.
            let tolerance = 1e-9_f64.max(expected.abs() * 1e-12);
            assert!((found - expected).abs() < tolerance, "({a}, {b}): {found} and {expected}");
        }
    }

    #[test]
    fn a_mass_is_that_of_its_mirror_image() {
        for (a, b) in ranges() {
            assert!((log_mass(a, b) - log_mass(-b, -a)).abs() < 1e-12 * log_mass(a, b).abs().max(1.0));
        }
    }

    #[test]
    fn known_values() {
        // ln Φ(−1) = ln 0.15865525393145705…, ln Φ(−40) from the series of the complementary error function.
        assert!((log_cdf(-1.0) - 0.158_655_253_931_457_05_f64.ln()).abs() < 1e-15);
        assert!((log_cdf(-40.0) - -804.608_442_013_753_9).abs() < 1e-9);
        // Φ(1.959963984540054) = 0.975.
        assert!((inverse_log_cdf(0.975_f64.ln()) - 1.959_963_984_540_054).abs() < 1e-13);
    }

    #[test]
    fn the_series_takes_over_without_a_jump() {
        let gap = log_cdf(ASYMPTOTIC + 1e-9) - log_cdf(ASYMPTOTIC - 1e-9);
        // (ln Φ)' at −30 is 30.03. The values themselves, −454, have 10⁻¹³ for a last digit.
        assert!((gap - 2e-9 * 30.03).abs() < 1e-11, "{gap:e}");
    }

    #[test]
    fn the_inverse_undoes_the_distribution_function() {
        for step in -3000..=80 {
            let x = f64::from(step) / 10.0;
            let back = inverse_log_cdf(log_cdf(x));
            // Towards the right Φ differs from 1 by less and less of its last digit.
            let tolerance = if x > 5.0 { 1e-2 } else { 1e-9 };
            assert!((back - x).abs() < tolerance, "{x}: {back}");
        }
    }

    #[test]
    fn quantiles_increase_and_split_the_mass_as_asked() {
        for (a, b) in ranges() {
            let mut before = a;
            for tenth in 0..=10 {
                let q = f64::from(tenth) / 10.0;
                let x = quantile(q, a, b);
                assert!((a..=b).contains(&x) && x >= before, "{q} of ({a}, {b}): {x} after {before}");
                before = x;
                // x itself is only known to its last digits, which in the far tail are worth |x| · 10⁻¹⁶ · |x|.
                let blur = 1e-14 * x.abs().max(1.0) / (b - a);
                if blur < 1e-6 && (1..=9).contains(&tenth) {
                    let share = (log_mass(a, x) - log_mass(a, b)).exp();
                    assert!((share - q).abs() < 1e-6, "{q} of ({a}, {b}): {share}");
                }
            }
        }
    }

    #[test]
    fn empty_and_senseless_ranges_have_no_mass() {
        for (a, b) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::NAN)] {
            assert_eq!(log_mass(a, b), f64::NEG_INFINITY);
        }
        assert!(log_mass(f64::NEG_INFINITY, f64::INFINITY).abs() < 1e-300);
        assert_eq!(quantile(0.3, 1.0, 1.0), 1.0);
    }
}
