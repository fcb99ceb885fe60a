//! Mean residuals of a prompt set.
//!
//! Residuals come as f32, one vector per site and prompt, and are summed in f64: over n prompts the sum of a component
//! is off by at most n·2⁻⁵³ of the sum of its absolute values, a millionth of what f32 would lose.

use glossary::ResidualSite;

/// Sums of residuals at each site over the prompts of one set.
///
/// ```
/// # use ablation::Moments;
/// # use glossary::ResidualSite;
/// let mut moments = Moments::new(2, 1); // embedding and one block, one component
/// moments.add(&[1.0, 10.0])?;
/// moments.add(&[2.0, 30.0])?;
/// assert_eq!(moments.mean(ResidualSite::at(0))?, [1.5]);
/// assert_eq!(moments.mean(ResidualSite::at(1))?, [20.0]);
/// # Ok::<(), ablation::MomentsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    sites: usize,
    d_model: usize,
    prompts: u64,
    /// `[sites, d_model]`
    sums: Vec<f64>,
}

/// Why residuals have no mean.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MomentsError {
    /// A prompt's residuals are not one vector per site.
    #[error("residuals of a prompt: expected {sites} sites of d_model {d_model}, found {found} numbers")]
    Length {
        /// How many sites there are.
        sites: usize,
        /// d_model.
        d_model: usize,
        /// How many numbers were given.
        found: usize,
    },
    /// A residual is infinite or not a number.
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
    /// There is no prompt to take the mean of.
    #[error("the mean over no prompts was asked for")]
    NoPrompts,
    /// The site is not one of the model's.
    #[error("residual {} was asked for, there are {sites} sites", site_name(*site))]
    UnknownSite {
        /// The site.
        site: ResidualSite,
        /// How many there are.
        sites: usize,
    },
    /// Moments of different models cannot be put together.
    #[error(
        "moments of {} sites of d_model {} and of {} sites of d_model {} do not go together",
        first.0, first.1, second.0, second.1
    )]
    DifferentModels {
        /// Sites and `d_model` of one.
        first: (usize, usize),
        /// Sites and `d_model` of the other.
        second: (usize, usize),
    },
}

impl Moments {
    /// No prompts yet.
    pub fn new(sites: usize, d_model: usize) -> Self {
        Self { sites, d_model, prompts: 0, sums: vec![0.0; sites * d_model] }
    }

    /// Takes in one prompt. On an error nothing is changed.
    ///
    /// # Shapes
    /// - `residuals`: `[sites, d_model]`
    pub fn add(&mut self, residuals: &[f32]) -> Result<(), MomentsError> {
        if residuals.len() != self.sums.len() {
            let (sites, d_model) = (self.sites, self.d_model);
            return Err(MomentsError::Length { sites, d_model, found: residuals.len() });
        }
        if let Some((site, component, value)) = first_not_finite(residuals, self.d_model) {
            return Err(MomentsError::NotFinite { site, component, value });
        }
        for (sum, &residual) in self.sums.iter_mut().zip(residuals) {
            *sum += f64::from(residual);
        }
        self.prompts += 1;
        Ok(())
    }

    /// Takes in the prompts of another set. Sums depend on the order of merging in their last bits: merge in a
    /// fixed order for the same bits.
    pub fn merge(&mut self, other: &Self) -> Result<(), MomentsError> {
        self.expect_same_model(other)?;
        for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
            *sum += other;
        }
        self.prompts += other.prompts;
        Ok(())
    }

    /// The mean residual at a site, `[d_model]`.
    pub fn mean(&self, site: ResidualSite) -> Result<Vec<f64>, MomentsError> {
        if self.prompts == 0 {
            return Err(MomentsError::NoPrompts);
        }
        if site.index() >= self.sites {
            return Err(MomentsError::UnknownSite { site, sites: self.sites });
        }
        let start = site.index() * self.d_model;
        let sums = &self.sums[start..start + self.d_model];
        Ok(sums.iter().map(|it| it / self.prompts as f64).collect())
    }

    /// How many prompts were taken in.
    pub fn prompts(&self) -> u64 {
        self.prompts
    }

    /// How many sites there are: one more than blocks.
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// `d_model`.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    pub(crate) fn expect_same_model(&self, other: &Self) -> Result<(), MomentsError> {
        let (first, second) = ((self.sites, self.d_model), (other.sites, other.d_model));
        if first == second { Ok(()) } else { Err(MomentsError::DifferentModels { first, second }) }
    }
}

/// The first number that is infinite or none at all, with its place in `[sites, d_model]`.
pub(crate) fn first_not_finite(residuals: &[f32], d_model: usize) -> Option<(ResidualSite, usize, f32)> {
    let place = residuals.iter().position(|it| !it.is_finite())?;
    Some((ResidualSite::at(place / d_model), place % d_model, residuals[place]))
}

/// A site in words, after "residual" or "direction".
pub(crate) fn site_name(site: ResidualSite) -> String {
    match site {
        ResidualSite::Embedding => "at the embedding".to_owned(),
        ResidualSite::After(layer) => format!("after layer {layer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_moments_are_those_of_all_prompts() {
        let (mut all, mut first, mut second) = (Moments::new(1, 2), Moments::new(1, 2), Moments::new(1, 2));
        all.add(&[1.0, 2.0]).unwrap();
        first.add(&[1.0, 2.0]).unwrap();
        for prompt in [[3.0, -5.0], [8.0, 0.5]] {
            all.add(&prompt).unwrap();
            second.add(&prompt).unwrap();
        }
        first.merge(&second).unwrap();
        assert_eq!(first, all);
        assert_eq!(first.mean(ResidualSite::Embedding).unwrap(), [4.0, -2.5 / 3.0]); // 12/3, (2 − 5 + 1/2)/3
    }

    #[test]
    fn small_residuals_are_not_lost_among_large_ones() {
        // In f32, 2^24 + 1 is 2^24.
        let mut moments = Moments::new(1, 1);
        moments.add(&[16_777_216.0]).unwrap();
        moments.add(&[1.0]).unwrap();
        assert_eq!(moments.mean(ResidualSite::Embedding).unwrap(), [8_388_608.5]);
    }

    #[test]
    fn a_residual_that_is_no_number_is_named_and_leaves_the_sums_alone() {
        let mut moments = Moments::new(2, 2);
        let error = moments.add(&[1.0, 2.0, 3.0, f32::INFINITY]).unwrap_err();
        assert_eq!(
            error,
            MomentsError::NotFinite { site: ResidualSite::at(1), component: 1, value: f32::INFINITY }
        );
        assert!(error.to_string().starts_with("residual after layer 0, component 1, is `inf`"), "{error}");
        assert_eq!(moments, Moments::new(2, 2));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_values() {
        let mut moments = Moments::new(2, 3);
        let error = moments.add(&[0.0; 5]).unwrap_err();
        assert_eq!(error, MomentsError::Length { sites: 2, d_model: 3, found: 5 });
        assert_eq!(moments.mean(ResidualSite::at(0)), Err(MomentsError::NoPrompts));
        moments.add(&[0.0; 6]).unwrap();
        let error = moments.mean(ResidualSite::at(2)).unwrap_err();
        assert_eq!(error, MomentsError::UnknownSite { site: ResidualSite::at(2), sites: 2 });
        let error = moments.merge(&Moments::new(3, 2)).unwrap_err();
        assert_eq!(error, MomentsError::DifferentModels { first: (2, 3), second: (3, 2) });
    }
}
