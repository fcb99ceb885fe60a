//! The client, and what answers mean that are none.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ureq::http::Response;
use ureq::{Agent, Body};

use crate::address::Origin;
use crate::answers;
use crate::limits::{ATTEMPTS, Patience};
use crate::{Access, HubError, Repository, roots};

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

type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Talks to the hub. Clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) access: Access,
    pub(crate) agent: Agent,
    pub(crate) patience: Patience,
    observer: Option<Observer>,
    stop: Option<Stop>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("access", &self.access).finish_non_exhaustive()
    }
}

/// How often it is asked whether to stop.
const GLANCE: Duration = Duration::from_millis(50);

impl Client {
    /// A client as the environment says.
    pub fn from_environment() -> Self {
        Self::new(Access::from_environment()).patient(Patience::from_environment())
    }

    /// A client; nothing is asked yet.
    pub fn new(access: Access) -> Self {
        let patience = Patience::default();
        Self { agent: agent(&access, patience), access, patience, observer: None, stop: None }
    }

    /// The same that waits so long.
    #[must_use]
    pub fn patient(self, patience: Patience) -> Self {
        Self { agent: agent(&self.access, patience), patience, ..self }
    }

    /// The same with somebody who is told how far files have come.
    #[must_use]
    pub fn watched(mut self, observer: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The same that stops when this says so, at once and whatever it waits for: the answer is then
    /// [`HubError::Interrupted`]. What was downloaded so far is kept.
    #[must_use]
    pub fn stopping_when(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
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
        self.stoppable(Self::ask_user)
    }

    fn ask_user(&self) -> Result<String, HubError> {
        let action = "asking who we are".to_owned();
        let endpoint = self.access.endpoint.clone();
        if self.access.token.is_none() {
            return Err(HubError::Forbidden { action, endpoint, reason: "nobody is logged in".to_owned() });
        }
        self.expect_online(&action)?;
        let url = format!("{endpoint}/api/whoami-v2");
        let mut response = self.persevere(false, || {
            let response = self.get(&url, &action)?;
            self.unless_busy(response, &action)
        })?;
        let status = response.status().as_u16();
        let text = self.text(&mut response, 1 << 20, &action)?;
        let name = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|it| Some(it.get("name")?.as_str()?.to_owned()));
        match (status, name) {
            (200, Some(name)) => Ok(answers::shown(&name)),
            (401 | 403, _) => Err(HubError::Token { endpoint }),
            _ => Err(HubError::Answer { action, endpoint, status, reason: self.hide(&text) }),
        }
    }

    /// Does work that may have to wait, unless it is stopped. Then what it waits for is left to itself: a name that is
    /// looked up, a connection that is being made, a lock of another process cannot be waited for in any other way.
    pub(crate) fn stoppable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, HubError> + Send + 'static,
    ) -> Result<T, HubError> {
        let Some(stop) = self.stop.clone() else { return work(self) };
        let (sender, receiver) = channel();
        let client = self.clone();
        let worker = std::thread::spawn(move || drop(sender.send(work(&client))));
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => {
                    let Err(panic) = worker.join() else { return Err(HubError::Interrupted) };
                    std::panic::resume_unwind(panic);
                }
                Err(RecvTimeoutError::Timeout) if stop() => return Err(HubError::Interrupted),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// An error where it is asked to stop.
    pub(crate) fn go_on(&self) -> Result<(), HubError> {
        if self.stop.as_ref().is_some_and(|it| it()) { Err(HubError::Interrupted) } else { Ok(()) }
    }

    /// Waits.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), HubError> {
        let until = Instant::now() + time;
        loop {
            self.go_on()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }

    /// Makes a request again while that may help; `always`: also when there seems to be no network at all.
    pub(crate) fn persevere<T>(
        &self,
        always: bool,
        mut attempt: impl FnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        for number in 1.. {
            let error = match attempt() {
                Err(error) => error,
                done => return done,
            };
            if matches!(error, HubError::Network { .. }) && !always {
                return Err(error);
            }
            let Some(pause) = self.pause_after(&error, number) else { return Err(error) };
            self.pause(pause)?;
        }
        unreachable!("attempts are counted")
    }

    /// How long to wait before another attempt, if one may help.
    pub(crate) fn pause_after(&self, error: &HubError, attempt: u32) -> Option<Duration> {
        if attempt >= ATTEMPTS || !error.is_network() {
            return None;
        }
        let asked = match error {
            HubError::Busy { seconds: Some(seconds), .. } => Duration::from_secs(*seconds),
            _ => self.patience.pause * 2_u32.pow(attempt - 1),
        };
        (asked <= self.patience.longest_pause).then_some(asked)
    }

    pub(crate) fn expect_online(&self, action: &str) -> Result<(), HubError> {
        if self.access.offline {
            let reason = "the network is not to be used (HF_HUB_OFFLINE)".to_owned();
            return Err(HubError::Network { action: action.to_owned(), reason });
        }
        Ok(())
    }

    pub(crate) fn tell(&self, file: &str, done: u64, all: u64) {
        if let Some(observer) = &self.observer {
            observer(Progress { file, done, all });
        }
    }

    /// The header that says who we are, for an address of the hub itself: of the same scheme, host and port.
    pub(crate) fn identity_for(&self, address: &str) -> Option<(&'static str, String)> {
        let token = self.access.token.as_ref()?;
        let ours = Origin::of(&self.access.endpoint)?;
        (Origin::of(address)? == ours).then(|| ("authorization", token.header()))
    }

    /// An error of the connection.
    pub(crate) fn network(&self, action: &str, error: &dyn fmt::Display) -> HubError {
        HubError::Network { action: self.hide(action), reason: self.hide(&error.to_string()) }
    }

    /// An answer that cannot be understood.
    pub(crate) fn answer(&self, action: &str, status: u16, reason: &str) -> HubError {
        let (action, reason) = (self.hide(action), self.hide(reason));
        HubError::Answer { action, endpoint: self.access.endpoint.clone(), status, reason }
    }

    /// A text for a message: without our token, and without what a terminal would obey.
    pub(crate) fn hide(&self, text: &str) -> String {
        let hidden = self.access.token.as_ref().map_or_else(|| text.to_owned(), |it| it.hide_in(text));
        answers::shown(&hidden)
    }

    /// The text of an answer.
    pub(crate) fn text(
        &self,
        response: &mut Response<Body>,
        limit: u64,
        action: &str,
    ) -> Result<String, HubError> {
        let status = response.status().as_u16();
        let bytes = response.body_mut().with_config().limit(limit + 1).read_to_vec();
        match bytes {
            Ok(bytes) if bytes.len() as u64 <= limit => {
                String::from_utf8(bytes).map_err(|_| self.answer(action, status, "not valid UTF-8"))
            }
            Ok(_) | Err(ureq::Error::BodyExceedsLimit(_)) => {
                Err(self.answer(action, status, &format!("more than {limit} bytes")))
            }
            Err(error) => Err(self.network(action, &error)),
        }
    }

    /// An answer, or an error where the hub has too much to do.
    pub(crate) fn unless_busy(
        &self,
        mut response: Response<Body>,
        action: &str,
    ) -> Result<Response<Body>, HubError> {
        let status = response.status().as_u16();
        if !matches!(status, 429 | 500 | 502..=504) {
            return Ok(response);
        }
        let seconds = response.headers().get("retry-after").and_then(|it| it.to_str().ok());
        let seconds = seconds.and_then(answers::retry_after);
        let (action, endpoint) = (self.hide(action), self.access.endpoint.clone());
        let reason = self.hide(&said(&mut response));
        Err(HubError::Busy { action, endpoint, status, seconds, reason })
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
        let reason = self.hide(&said(&mut response));
        let action = self.hide(action);
        match status {
            403 => HubError::Forbidden { action, endpoint, reason },
            _ => HubError::Answer { action, endpoint, status, reason },
        }
    }
}

/// What an answer that is none says of why.
fn said(response: &mut Response<Body>) -> String {
    let message = response.headers().get("x-error-message").and_then(|it| it.to_str().ok());
    if let Some(message) = message {
        return message.to_owned();
    }
    let body = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    let json = serde_json::from_str::<serde_json::Value>(&body).ok();
    json.and_then(|it| Some(it.get("error")?.as_str()?.to_owned())).unwrap_or(body)
}

fn agent(access: &Access, patience: Patience) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // Who is asked next, and who of them may know us, is decided in `requests`.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(patience.response))
        .timeout_connect(Some(patience.response))
        .timeout_recv_response(Some(patience.response))
        .timeout_per_read(Some(patience.response))
        .timeout_per_write(Some(patience.response))
        .user_agent(concat!("ablate/", env!("CARGO_PKG_VERSION")));
    // The system's certificates take a moment to read, and a hub on this machine needs none.
    let config = if access.endpoint.starts_with("http://127.0.0.1") {
        config
    } else {
        config.tls_config(roots::tls())
    };
    config.build().into()
}
