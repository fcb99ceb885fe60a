//! Winsorization: single components of residuals that are huge for no reason of the prompt are cut down.
//!
//! Some models write "massive activations" into a few components of the stream, hundreds of times the others
//! (Sun et al. 2024, arXiv:2402.17762). They can rule a difference of means that they say nothing about. So each
//! prompt's residual is clamped, per site, to the q-quantile of the absolute values of its own components.

use glossary::ResidualSite;

use crate::moments::{first_not_finite, site_name};

/// Why residuals cannot be winsorized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WinsorizeError {
    /// The quantile is not one.
    #[error("winsorization quantile: expected a number from 0 to 1, found `{found}`\n\nhint: 1 turns it off")]
    Quantile {
        /// The number given.
        found: f64,
    },
    /// Residuals are not whole vectors.
    #[error("residuals: expected a multiple of d_model {d_model}, found {found} numbers")]
    Length {
        /// d_model.
        d_model: usize,
        /// How many numbers were given.
        found: usize,
    },
    /// A residual is infinite or not a number. Clamping would hide that.
    #[error(
        "residual {}, component {component}, is `{value}`\
         \n\nhint: the model overflows in this number format, try bfloat16 or f32 weights", site_name(*site)
    )]
    NotFinite {
        /// Where in the stream.
        site: ResidualSite,
        /// Which component of the vector.
        component: usize,
        /// Its value.
        value: f32,
    },
}

/// Clamps one prompt's residual at each site to the `quantile` of its absolute components; 1 leaves it as it is.
///
/// Between two components the quantile is interpolated linearly, rank `quantile · (d_model − 1)`, as `torch.quantile`
/// does; the rank is computed in f64 here, in the tensor's type there.
///
/// # Shapes
/// - `residuals`: `[sites, d_model]`
pub fn winsorize(residuals: &mut [f32], d_model: usize, quantile: f64) -> Result<(), WinsorizeError> {
    if !(0.0..=1.0).contains(&quantile) {
        return Err(WinsorizeError::Quantile { found: quantile });
    }
    if d_model == 0 || !residuals.len().is_multiple_of(d_model) {
        return Err(WinsorizeError::Length { d_model, found: residuals.len() });
    }
    if let Some((site, component, value)) = first_not_finite(residuals, d_model) {
        return Err(WinsorizeError::NotFinite { site, component, value });
    }
    if quantile < 1.0 {
        for residual in residuals.chunks_exact_mut(d_model) {
            let limit = quantile_of_absolutes(residual, quantile);
            for it in residual {
                *it = it.clamp(-limit, limit);
            }
        }
    }
    Ok(())
}

/// The quantile of the absolute values of numbers, of which there is at least one and all are finite.
fn quantile_of_absolutes(numbers: &[f32], quantile: f64) -> f32 {
    let mut absolutes: Vec<f32> = numbers.iter().map(|it| it.abs()).collect();
    let rank = quantile * (absolutes.len() - 1) as f64;
    let (_, &mut lower, above) = absolutes.select_nth_unstable_by(rank as usize, f32::total_cmp);
    // At the last rank nothing is above, and nothing to interpolate either.
    let upper = above.iter().copied().min_by(f32::total_cmp).unwrap_or(lower);
    (f64::from(lower) + rank.fract() * (f64::from(upper) - f64::from(lower))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_beyond_the_quantile_are_clamped_to_it_at_each_site_by_itself() {
        // Absolutes 1 2 3 4 100, rank 0.75 · 4 = 3: the quantile is 4. The other site is ten times as large.
        let mut residuals = [1.0, -100.0, 3.0, -4.0, 2.0, 10.0, -1000.0, 30.0, -40.0, 20.0];
        winsorize(&mut residuals, 5, 0.75).unwrap();
        assert_eq!(residuals, [1.0, -4.0, 3.0, -4.0, 2.0, 10.0, -40.0, 30.0, -40.0, 20.0]);
    }

    #[test]
    fn a_quantile_between_two_components_is_interpolated() {
        // Absolutes 1 2 4, rank 0.75 · 2 = 1.5: half way from 2 to 4.
        let mut residuals = [4.0, -2.0, 1.0];
        winsorize(&mut residuals, 3, 0.75).unwrap();
        assert_eq!(residuals, [3.0, -2.0, 1.0]);
    }

    #[test]
    fn quantile_one_changes_nothing_and_zero_leaves_the_smallest() {
        let mut residuals = [4.0, -2.0, 1.0];
        winsorize(&mut residuals, 3, 1.0).unwrap();
        assert_eq!(residuals, [4.0, -2.0, 1.0]);
        winsorize(&mut residuals, 3, 0.0).unwrap();
        assert_eq!(residuals, [1.0, -1.0, 1.0]);
    }

    #[test]
    fn what_cannot_be_winsorized_is_refused() {
        for found in [-0.1, 1.1, f64::INFINITY] {
            assert_eq!(winsorize(&mut [1.0], 1, found), Err(WinsorizeError::Quantile { found }));
        }
        assert!(matches!(winsorize(&mut [1.0], 1, f64::NAN), Err(WinsorizeError::Quantile { .. })));
        assert_eq!(winsorize(&mut [1.0], 2, 0.5), Err(WinsorizeError::Length { d_model: 2, found: 1 }));
        assert_eq!(winsorize(&mut [], 0, 0.5), Err(WinsorizeError::Length { d_model: 0, found: 0 }));
        let error = winsorize(&mut [1.0, 2.0, f32::INFINITY, 4.0], 2, 0.5).unwrap_err();
        assert_eq!(
            error,
            WinsorizeError::NotFinite { site: ResidualSite::at(1), component: 0, value: f32::INFINITY }
        );
    }
}
