//! Prompts that are given in place.

use hub::Client;

use super::{PromptSource, SourceError, Specification};

/// A list of prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal(pub Vec<String>);

const PREFIX: &str = "text:";

/// Whether a name is a prompt itself.
pub(super) fn is_named(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// `text:…` is one prompt.
pub(super) fn recognize(
    specification: &Specification,
    _: &Client,
) -> Option<Result<Box<dyn PromptSource>, SourceError>> {
    let prompt = specification.dataset.strip_prefix(PREFIX)?;
    Some(Ok(Box::new(Literal(vec![prompt.to_owned()]))))
}

impl PromptSource for Literal {
    fn name(&self) -> String {
        match self.0.as_slice() {
            [prompt] => format!("text:{prompt}"),
            prompts => format!("{} prompts", prompts.len()),
        }
    }

    fn load(&self) -> Result<Vec<String>, SourceError> {
        if self.0.is_empty() {
            return Err(SourceError::Empty { name: self.name(), total: 0 });
        }
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::open;

    #[test]
    fn a_prompt_can_be_given_in_place() {
        let source = open("text:Say [hello].").unwrap();
        assert_eq!(source.load().unwrap(), ["Say [hello]."]);
        assert_eq!(source.name(), "text:Say [hello].");
    }

    #[test]
    fn an_empty_list_is_an_error() {
        assert!(matches!(Literal(vec![]).load(), Err(SourceError::Empty { total: 0, .. })));
    }
}
