//! Where the hub is, who we are there, and where what was downloaded lies.

use std::fmt;
use std::path::PathBuf;

/// The hub that everybody means.
const ENDPOINT: &str = "https://huggingface.co";

/// A secret: what proves who we are. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token; `None` for an empty text.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The header that carries it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The text without the token, wherever it stands.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "…")
    }
}

/// Where the hub is, who we are there, and where what was downloaded lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// Who we are.
    pub token: Option<Token>,
    /// The folder of the shared cache.
    pub cache: PathBuf,
    /// Nothing is asked of the network.
    pub offline: bool,
}

impl Access {
    /// What the environment says, in the variables of Python's client: `HF_ENDPOINT`, `HF_TOKEN` or the file that
    /// `hf auth login` writes, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|it| !it.trim().is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let yes = |name| {
            variable(name).is_some_and(|it| matches!(it.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let first = |names: &[&str]| names.iter().find_map(|it| variable(it));
        let user = first(&["HOME", "USERPROFILE"]).unwrap_or_default();
        let place = |text: String| match text.strip_prefix("~/") {
            Some(rest) => PathBuf::from(&user).join(rest),
            None => PathBuf::from(text),
        };
        let home = variable("HF_HOME").map_or_else(
            || {
                let caches =
                    variable("XDG_CACHE_HOME").map_or_else(|| PathBuf::from(&user).join(".cache"), place);
                caches.join("huggingface")
            },
            place,
        );
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
            let file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), place);
            std::fs::read_to_string(file).ok()
        });
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or(ENDPOINT.to_owned()).trim_end_matches('/').to_owned(),
            token: token.as_deref().and_then(Token::new).filter(|_| !yes("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            cache: first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), place),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(variables: &[(&str, &str)]) -> Access {
        Access::from_variables(&|name| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned()))
    }

    #[test]
    fn places_are_those_of_pythons_client() {
        let cache = |variables: &[(&str, &str)]| access(variables).cache.to_str().unwrap().to_owned();
        assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), "/h/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), "/c");
        assert_eq!(access(&[("HF_ENDPOINT", "http://localhost:1/")]).endpoint, "http://localhost:1");
        assert_eq!(access(&[]).endpoint, "https://huggingface.co");
        assert!(access(&[("HF_HUB_OFFLINE", "1")]).offline && !access(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_token_comes_from_a_variable_or_a_file_and_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "secret-in-a-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(access(&[("HF_HOME", home)]).token, Token::new("secret-in-a-file"));
        let both = access(&[("HF_HOME", home), ("HF_TOKEN", " secret ")]);
        assert_eq!(both.token, Token::new("secret"));
        assert!(!format!("{both:?}").contains("secret"));
        assert_eq!(access(&[("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
    }
}
