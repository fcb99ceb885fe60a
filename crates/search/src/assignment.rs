//! The values that a trial tries.

use serde_json::Value;

use crate::{Distribution, Parameter, Space};

/// One value for each of a trial's parameters, with the distribution that it was drawn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    entries: Vec<(Parameter, f64)>,
}

/// Why an assignment does not have what was asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AssignmentError {
    /// The parameter has no value.
    #[error("no value for parameter `{name}`; there are {present:?}")]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        present: Vec<String>,
    },
    /// The parameter is of another kind.
    #[error("parameter `{name}` was asked for as {asked}, but it is {found:?}")]
    Kind {
        /// The parameter.
        name: String,
        /// What was asked for.
        asked: &'static str,
        /// What it is.
        found: Distribution,
    },
    /// A value lies outside of its distribution.
    #[error("parameter `{name}`: value `{value}` is outside of {distribution:?}")]
    Outside {
        /// The parameter.
        name: String,
        /// Its internal value.
        value: f64,
        /// Where it should lie.
        distribution: Distribution,
    },
    /// There are more or fewer values than parameters.
    #[error("{found} values for {expected} parameters")]
    Count {
        /// How many parameters there are.
        expected: usize,
        /// How many values there are.
        found: usize,
    },
}

impl Assignment {
    /// Internal values, one per parameter of a space and in its order.
    pub fn new(space: &Space, values: &[f64]) -> Result<Self, AssignmentError> {
        let parameters = space.parameters();
        if parameters.len() != values.len() {
            return Err(AssignmentError::Count { expected: parameters.len(), found: values.len() });
        }
        for (parameter, &value) in parameters.iter().zip(values) {
            if !parameter.distribution.contains(value) {
                let Parameter { name, distribution } = parameter.clone();
                return Err(AssignmentError::Outside { name, value, distribution });
            }
        }
        Ok(Self { entries: parameters.iter().cloned().zip(values.iter().copied()).collect() })
    }

    /// Sets one parameter, as a journal record does: unchecked, for bounds may have changed since.
    pub(crate) fn set(&mut self, parameter: Parameter, value: f64) {
        match self.entries.iter_mut().find(|(it, _)| it.name == parameter.name) {
            Some(entry) => *entry = (parameter, value),
            None => self.entries.push((parameter, value)),
        }
    }

    /// Parameters and internal values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Parameter, f64)> {
        self.entries.iter().map(|(parameter, value)| (parameter, *value))
    }

    /// How many parameters have a value.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing has a value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A parameter's internal value: the float, the integer as a float, the index of the choice.
    pub fn internal(&self, name: &str) -> Option<f64> {
        self.entry(name).map(|(_, value)| *value)
    }

    /// A parameter's distribution.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.entry(name).map(|(parameter, _)| &parameter.distribution)
    }

    /// The value of a real parameter.
    pub fn float(&self, name: &str) -> Result<f64, AssignmentError> {
        match self.required(name)? {
            (Distribution::Float { .. }, value) => Ok(value),
            (found, _) => Err(kind(name, "a float", found)),
        }
    }

    /// The value of a whole parameter.
    pub fn int(&self, name: &str) -> Result<i64, AssignmentError> {
        match self.required(name)? {
            (Distribution::Int { .. }, value) => Ok(value as i64),
            (found, _) => Err(kind(name, "an integer", found)),
        }
    }

    /// What was chosen.
    pub fn choice(&self, name: &str) -> Result<&Value, AssignmentError> {
        let (distribution, value) = self.required(name)?;
        let Distribution::Categorical { choices } = distribution else {
            return Err(kind(name, "a choice", distribution));
        };
        choices.get(value as usize).ok_or_else(|| AssignmentError::Outside {
            name: name.into(),
            value,
            distribution: distribution.clone(),
        })
    }

    /// The value as Python shows it: a number, or the choice itself.
    pub fn external(&self, name: &str) -> Result<Value, AssignmentError> {
        match self.required(name)? {
            (Distribution::Float { .. }, value) => Ok(value.into()),
            (Distribution::Int { .. }, value) => Ok((value as i64).into()),
            (Distribution::Categorical { .. }, _) => self.choice(name).cloned(),
        }
    }

    fn entry(&self, name: &str) -> Option<&(Parameter, f64)> {
        self.entries.iter().find(|(it, _)| it.name == name)
    }

    fn required(&self, name: &str) -> Result<(&Distribution, f64), AssignmentError> {
        self.entry(name).map(|(parameter, value)| (&parameter.distribution, *value)).ok_or_else(|| {
            AssignmentError::Missing {
                name: name.into(),
                present: self.entries.iter().map(|(it, _)| it.name.clone()).collect(),
            }
        })
    }
}

fn kind(name: &str, asked: &'static str, found: &Distribution) -> AssignmentError {
    AssignmentError::Kind { name: name.into(), asked, found: found.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coffee() -> Assignment {
        let space = Space::new(vec![
            Parameter::new("heat", Distribution::float(85.0, 96.0)),
            Parameter::new("grind", Distribution::int(1, 12)),
            Parameter::new("bean", Distribution::categorical(["arabica", "robusta"])),
        ]);
        Assignment::new(&space.unwrap(), &[90.5, 3.0, 1.0]).unwrap()
    }

    #[test]
    fn values_come_back_as_what_they_are() {
        let coffee = coffee();
        assert_eq!(coffee.float("heat"), Ok(90.5));
        assert_eq!(coffee.int("grind"), Ok(3));
        assert_eq!(coffee.choice("bean").unwrap(), "robusta");
        assert_eq!(coffee.internal("bean"), Some(1.0));
        assert_eq!(coffee.external("grind").unwrap(), 3);
    }

    #[test]
    fn asking_for_the_wrong_thing_says_what_there_is() {
        let missing = coffee().float("milk").unwrap_err().to_string();
        assert_eq!(missing, r#"no value for parameter `milk`; there are ["heat", "grind", "bean"]"#);
        assert!(matches!(coffee().int("heat"), Err(AssignmentError::Kind { asked: "an integer", .. })));
        assert!(matches!(coffee().choice("heat"), Err(AssignmentError::Kind { .. })));
        assert!(matches!(coffee().float("bean"), Err(AssignmentError::Kind { .. })));
    }

    #[test]
    fn values_outside_of_the_space_are_refused() {
        let space = Space::new(vec![Parameter::new("x", Distribution::float(0.0, 1.0))]).unwrap();
        assert!(matches!(Assignment::new(&space, &[1.5]), Err(AssignmentError::Outside { .. })));
        let error = Assignment::new(&space, &[]).unwrap_err();
        assert_eq!(error, AssignmentError::Count { expected: 1, found: 0 });
    }
}
