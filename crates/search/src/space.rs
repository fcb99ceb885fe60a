//! What may be tried.

use crate::{Distribution, DistributionError};

/// A named value to find.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The values it may take.
    pub distribution: Distribution,
}

impl Parameter {
    /// A parameter from its parts.
    pub fn new(name: impl Into<String>, distribution: Distribution) -> Self {
        Self { name: name.into(), distribution }
    }
}

/// The parameters of a search: at least one, in order, each name once, each with a distribution that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Space(Vec<Parameter>);

/// Why parameters do not make a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpaceError {
    /// There is nothing to find.
    #[error("a search space without parameters")]
    Empty,
    /// Two parameters have one name.
    #[error("parameter `{name}` appears twice, as number {first} and {second}")]
    Twice {
        /// The name.
        name: String,
        /// Place of the first one, from 0.
        first: usize,
        /// Place of the second one, from 0.
        second: usize,
    },
    /// A parameter's distribution makes no sense.
    #[error("parameter `{name}`: {source}")]
    Distribution {
        /// The parameter.
        name: String,
        /// What is wrong with its distribution.
        source: DistributionError,
    },
}

impl Space {
    /// A space of these parameters.
    pub fn new(parameters: Vec<Parameter>) -> Result<Self, SpaceError> {
        if parameters.is_empty() {
            return Err(SpaceError::Empty);
        }
        for (second, parameter) in parameters.iter().enumerate() {
            let name = &parameter.name;
            if let Some(first) = parameters[..second].iter().position(|it| it.name == *name) {
                return Err(SpaceError::Twice { name: name.clone(), first, second });
            }
            parameter
                .distribution
                .check()
                .map_err(|source| SpaceError::Distribution { name: name.clone(), source })?;
        }
        Ok(Self(parameters))
    }

    /// The parameters in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_refused_with_the_name_of_the_parameter() {
        assert_eq!(Space::new(vec![]).unwrap_err(), SpaceError::Empty);
        let x = || Parameter::new("x", Distribution::float(0.0, 1.0));
        let error = Space::new(vec![x(), Parameter::new("y", Distribution::int(0, 1)), x()]).unwrap_err();
        assert_eq!(error.to_string(), "parameter `x` appears twice, as number 0 and 2");
        let error = Space::new(vec![Parameter::new("y", Distribution::int(3, 1))]).unwrap_err();
        let message = "parameter `y`: bounds `3` and `1` are not a range of finite numbers in order";
        assert_eq!(error.to_string(), message);
    }
}
