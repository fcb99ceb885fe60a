//! Texts that lie anywhere.

use ureq::ResponseExt;

use crate::{Client, HubError};

impl Client {
    /// The text at an address, of at most `limit` bytes. Who we are is only told to the hub.
    ///
    /// Addresses of pages that show a file, as the hub, GitHub and Codeberg have them, are taken for the file's own.
    ///
    /// # Errors
    /// [`HubError::Page`] when there is none, it is no text, or it is too long; [`HubError::Network`], also offline.
    pub fn page(&self, address: &str, limit: u64) -> Result<String, HubError> {
        let action = format!("fetching `{address}`");
        if self.access.offline {
            return Err(HubError::Network {
                action,
                reason: "the network is not to be used (HF_HUB_OFFLINE)".to_owned(),
            });
        }
        let raw = address.replace("/blob/", "/raw/").replace("/src/branch/", "/raw/branch/");
        let mut request = self.agent.get(&raw);
        let ours = raw.strip_prefix(&self.access.endpoint).is_some_and(|it| it.starts_with('/'));
        if let Some((name, value)) = self.identity().filter(|_| ours) {
            request = request.header(name, value);
        }
        let mut response = request.call().map_err(|it| self.network(&action, &it))?;
        let failed = |reason: String| HubError::Page { address: address.to_owned(), reason };
        if !response.status().is_success() {
            return Err(failed(format!("{} answered {}", response.get_uri(), response.status())));
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
