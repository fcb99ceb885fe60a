//! Which repositories there are, and what was last done to a file of one.

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Body, RequestExt, http};

use crate::repository::encoded;
use crate::{Client, HubError, Kind, Repository};

/// A repository of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub repository: Repository,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether its owner wants to be asked first.
    pub gated: bool,
}

/// A repository as the hub lists it.
#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    tags: Vec<String>,
    /// `false`, or how the owner is asked.
    #[serde(default)]
    gated: Value,
}

/// A file as the hub tells of it.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "lastCommit")]
    last_commit: Option<LastCommit>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: String,
}

/// Pages that are asked for at most: a listing that leads in circles ends.
const PAGES: usize = 10_000;

impl Client {
    /// The public models that have all these tags, the newest first; those whose names are none are left out.
    pub fn models(&self, tags: &[&str]) -> Result<Vec<Listed>, HubError> {
        let action = format!("listing models with the tags {}", tags.join(", "));
        let filters: Vec<String> = tags.iter().map(|it| format!("filter={}", encoded(it, false))).collect();
        let filters = filters.join("&");
        let endpoint = &self.access.endpoint;
        let mut next =
            Some(format!("{endpoint}/api/models?{filters}&sort=createdAt&expand=gated&expand=tags"));
        let mut listed = Vec::new();
        for _ in 0..PAGES {
            let Some(url) = next.take() else { break };
            let response = self.ask_api(http::Request::get(&url), (), &action)?;
            next = next_page(&response).filter(|it| it.starts_with(endpoint));
            let items: Vec<Item> = self.read_api(response, &action)?;
            listed.extend(items.into_iter().filter_map(|it| {
                let gated = !matches!(it.gated, Value::Bool(false) | Value::Null);
                Some(Listed { repository: Repository::new(Kind::Model, &it.id)?, tags: it.tags, gated })
            }));
        }
        Ok(listed)
    }

    /// Whether we may read a repository that is gated.
    pub fn may_read(&self, repository: &Repository) -> Result<bool, HubError> {
        let action = format!("asking whether {repository} may be read");
        let url = format!("{}/api/{}/{}/auth-check", self.access.endpoint, repository.kinds(), repository.id);
        let response = self.send_api(http::Request::get(&url), (), &action)?;
        if response.status().is_success() {
            return Ok(true);
        }
        match self.refused(response, repository, "main", None, &action) {
            HubError::Gated { .. } => Ok(false),
            other => Err(other),
        }
    }

    /// The commit that last changed a file of the main branch; `None` if there is no such file.
    pub fn last_commit(&self, repository: &Repository, path: &str) -> Result<Option<String>, HubError> {
        let action = format!("asking for `{path}` of {repository}");
        let url =
            format!("{}/api/{}/{}/paths-info/main", self.access.endpoint, repository.kinds(), repository.id);
        let body = json!({"paths": [path], "expand": true}).to_string();
        let request = http::Request::post(&url).header("content-type", "application/json");
        let response = self.send_api(request, body, &action)?;
        if !response.status().is_success() {
            return Err(self.refused(response, repository, "main", None, &action));
        }
        let entries: Vec<Entry> = self.read_api(response, &action)?;
        let entry = entries.into_iter().find(|it| it.path == path);
        Ok(entry.and_then(|it| it.last_commit).map(|it| it.id))
    }

    /// Sends a request of the hub's interface.
    fn send_api(
        &self,
        request: http::request::Builder,
        body: impl ureq::AsSendBody,
        action: &str,
    ) -> Result<Response<Body>, HubError> {
        if self.access.offline {
            return Err(HubError::Network {
                action: action.to_owned(),
                reason: "the network is not to be used (HF_HUB_OFFLINE)".to_owned(),
            });
        }
        let request = match self.identity() {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        let request = request.body(body).map_err(|it| self.network(action, &it))?;
        request.with_agent(&self.agent).run().map_err(|it| self.network(action, &it))
    }

    /// The same where nothing but success will do.
    fn ask_api(
        &self,
        request: http::request::Builder,
        body: impl ureq::AsSendBody,
        action: &str,
    ) -> Result<Response<Body>, HubError> {
        let mut response = self.send_api(request, body, action)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let reason = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
        let (endpoint, status) = (self.access.endpoint.clone(), response.status().as_u16());
        Err(HubError::Answer { action: action.to_owned(), endpoint, status, reason })
    }

    fn read_api<T: serde::de::DeserializeOwned>(
        &self,
        mut response: Response<Body>,
        action: &str,
    ) -> Result<T, HubError> {
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string();
        let text = text.map_err(|it| self.network(action, &it))?;
        serde_json::from_str(&text).map_err(|error| HubError::Answer {
            action: action.to_owned(),
            endpoint: self.access.endpoint.clone(),
            status: 200,
            reason: error.to_string(),
        })
    }
}

/// Where a listing goes on: the address that `Link: <address>; rel="next"` names.
fn next_page(response: &Response<Body>) -> Option<String> {
    let links = response.headers().get("link")?.to_str().ok()?;
    let next = links.split(',').find(|it| it.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}
