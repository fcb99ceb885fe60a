//! Requests and what their answers mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::{Access, HubError, Repository};

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes that it has.
    pub all: u64,
}

type Observer = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Talks to the hub. Clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) access: Access,
    pub(crate) agent: Agent,
    observer: Option<Observer>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("access", &self.access).finish_non_exhaustive()
    }
}

/// How long the hub may take to accept a connection or to begin an answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Client {
    /// A client as the environment says.
    pub fn from_environment() -> Self {
        Self::new(Access::from_environment())
    }

    /// A client; nothing is asked yet.
    pub fn new(access: Access) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Files lie on other machines, which are not to see who we are.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .user_agent(concat!("ablate/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { access, agent: agent.into(), observer: None }
    }

    /// The same with somebody who is told how far files have come.
    #[must_use]
    pub fn watched(mut self, observer: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where the hub is and who we are.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The name of the account that the token belongs to.
    ///
    /// # Errors
    /// [`HubError::Token`] for a token that is not accepted, [`HubError::Forbidden`] without one.
    pub fn user(&self) -> Result<String, HubError> {
        let action = "asking who we are".to_owned();
        let endpoint = self.access.endpoint.clone();
        let Some((name, value)) = self.identity() else {
            return Err(HubError::Forbidden { action, endpoint, reason: "nobody is logged in".to_owned() });
        };
        if self.access.offline {
            return Err(HubError::Network {
                action,
                reason: "the network is not to be used (HF_HUB_OFFLINE)".to_owned(),
            });
        }
        let url = format!("{endpoint}/api/whoami-v2");
        let mut response =
            self.agent.get(&url).header(name, value).call().map_err(|it| self.network(&action, &it))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|it| self.network(&action, &it))?;
        let name = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|it| Some(it.get("name")?.as_str()?.to_owned()));
        match (status, name) {
            (200, Some(name)) => Ok(name),
            (401 | 403, _) => Err(HubError::Token { endpoint }),
            _ => Err(HubError::Answer { action, endpoint, status, reason: self.hide(&text) }),
        }
    }

    pub(crate) fn tell(&self, file: &str, done: u64, all: u64) {
        if let Some(observer) = &self.observer {
            observer(Progress { file, done, all });
        }
    }

    /// The header that says who we are, if we do.
    pub(crate) fn identity(&self) -> Option<(&'static str, String)> {
        self.access.token.as_ref().map(|it| ("authorization", it.header()))
    }

    /// An error of the connection.
    pub(crate) fn network(&self, action: &str, error: &dyn fmt::Display) -> HubError {
        HubError::Network { action: self.hide(action), reason: self.hide(&error.to_string()) }
    }

    /// A text without our token.
    fn hide(&self, text: &str) -> String {
        self.access.token.as_ref().map_or_else(|| text.to_owned(), |it| it.hide_in(text))
    }

    /// An answer that is none: what it means.
    pub(crate) fn refused(
        &self,
        mut response: Response<Body>,
        repository: &Repository,
        revision: &str,
        path: Option<&str>,
        action: &str,
    ) -> HubError {
        let header =
            |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let (code, message) = (header("x-error-code").unwrap_or_default(), header("x-error-message"));
        let (repository, revision) = (repository.clone(), revision.to_owned());
        let endpoint = self.access.endpoint.clone();
        let known = self.access.token.is_some();
        match (status, code.as_str()) {
            (_, "GatedRepo") => return HubError::Gated { repository, endpoint, known },
            (_, "RevisionNotFound") => return HubError::NoRevision { repository, revision },
            (_, "EntryNotFound") => {
                let path = path.unwrap_or_default().to_owned();
                return HubError::NoFile { repository, revision, path };
            }
            (_, "RepoNotFound") => return HubError::NoRepository { repository, endpoint, known },
            (401, _) if message.as_deref().is_some_and(|it| it.contains("Invalid credentials")) && known => {
                return HubError::Token { endpoint };
            }
            (401, _) => return HubError::NoRepository { repository, endpoint, known },
            (404, _) if path.is_none() => return HubError::NoRepository { repository, endpoint, known },
            _ => {}
        }
        let body = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
        let said = message.or_else(|| {
            let body: serde_json::Value = serde_json::from_str(&body).ok()?;
            Some(body.get("error")?.as_str()?.to_owned())
        });
        let reason = self.hide(&said.unwrap_or(body));
        let action = self.hide(action);
        match status {
            403 => HubError::Forbidden { action, endpoint, reason },
            _ => HubError::Answer { action, endpoint, status, reason },
        }
    }
}
