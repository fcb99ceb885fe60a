//! Texts that lie anywhere.

use crate::requests::Follow;
use crate::{Client, HubError};

impl Client {
    /// The text at an address, of at most `limit` bytes. Who we are is only told to the hub.
    ///
    /// Addresses of pages that show a file, as the hub, GitHub and Codeberg have them, are taken for the file's own.
    ///
    /// # Errors
    /// [`HubError::Page`] when there is none, it is no text, or it is too long; [`HubError::Network`], also offline.
    pub fn page(&self, address: &str, limit: u64) -> Result<String, HubError> {
        let address = address.to_owned();
        self.stoppable(move |client| client.fetch_page(&address, limit))
    }

    fn fetch_page(&self, address: &str, limit: u64) -> Result<String, HubError> {
        let action = format!("fetching `{address}`");
        self.expect_online(&action)?;
        let raw = address.replace("/blob/", "/raw/").replace("/src/branch/", "/raw/branch/");
        let (mut response, place) =
            self.ask_at("GET", &raw, &[], &Follow::All, self.patience.response, &action)?;
        let failed = |reason: String| HubError::Page { address: address.to_owned(), reason };
        if !response.status().is_success() {
            return Err(failed(format!("{} answered {}", self.hide(&place), response.status())));
        }
        let body = response.body_mut().with_config().limit(limit + 1).read_to_vec();
        match body {
            Ok(bytes) if bytes.len() as u64 <= limit => {
                String::from_utf8(bytes).map_err(|_| failed("it is not valid UTF-8".to_owned()))
            }
            Ok(_) | Err(ureq::Error::BodyExceedsLimit(_)) => {
                Err(failed(format!("it is longer than {limit} bytes")))
            }
            Err(error) => Err(self.network(&action, &error)),
        }
    }
}
