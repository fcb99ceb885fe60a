//! Which repositories there are, and what was last done to a file of one.

use serde_json::json;
use ureq::Body;
use ureq::http::Response;

use crate::address::Origin;
use crate::answers;
use crate::repository::encoded;
use crate::{Client, HubError, Repository};

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

/// Pages that are asked for at most: a listing that leads in circles ends.
const PAGES: usize = 10_000;

/// Models that are listed at most.
const MODELS: usize = 200_000;

impl Client {
    /// The public models that have all these tags, the newest first; those whose names are none are left out.
    pub fn models(&self, tags: &[&str]) -> Result<Vec<Listed>, HubError> {
        let tags: Vec<String> = tags.iter().map(|&it| it.to_owned()).collect();
        self.stoppable(move |client| client.list_models(&tags))
    }

    fn list_models(&self, tags: &[String]) -> Result<Vec<Listed>, HubError> {
        let action = format!("listing models with the tags {}", tags.join(", "));
        let filters: Vec<String> = tags.iter().map(|it| format!("filter={}", encoded(it, false))).collect();
        let filters = filters.join("&");
        let endpoint = &self.access.endpoint;
        let mut next =
            Some(format!("{endpoint}/api/models?{filters}&sort=createdAt&expand=gated&expand=tags"));
        let mut listed: Vec<Listed> = Vec::new();
        for _ in 0..PAGES {
            let Some(url) = next.take() else { break };
            self.go_on()?;
            let mut response = self.ask_api(&url, None, &action)?;
            if !response.status().is_success() {
                return Err(self.refused_api(&mut response, &action));
            }
            let link = response.headers().get("link").and_then(|it| it.to_str().ok());
            next = link.and_then(answers::next_page).filter(|it| Origin::of(it) == Origin::of(endpoint));
            let text = self.text(&mut response, answers::JSON_BYTES, &action)?;
            listed.extend(answers::models(&text).map_err(|it| self.answer(&action, 200, &it))?);
            if listed.len() > MODELS {
                return Err(self.answer(&action, 200, &format!("more than {MODELS} models")));
            }
        }
        Ok(listed)
    }

    /// Whether we may read a repository that is gated.
    pub fn may_read(&self, repository: &Repository) -> Result<bool, HubError> {
        let repository = repository.clone();
        self.stoppable(move |client| {
            let action = format!("asking whether {repository} may be read");
            let (kinds, id) = (repository.kinds(), &repository.id);
            let url = format!("{}/api/{kinds}/{id}/auth-check", client.access.endpoint);
            let response = client.ask_api(&url, None, &action)?;
            if response.status().is_success() {
                return Ok(true);
            }
            match client.refused(response, &repository, "main", None, &action) {
                HubError::Gated { .. } => Ok(false),
                other => Err(other),
            }
        })
    }

    /// The commit that last changed a file of the main branch; `None` if there is no such file.
    pub fn last_commit(&self, repository: &Repository, path: &str) -> Result<Option<String>, HubError> {
        let (repository, path) = (repository.clone(), path.to_owned());
        self.stoppable(move |client| {
            let action = format!("asking for `{path}` of {repository}");
            let (kinds, id) = (repository.kinds(), &repository.id);
            let url = format!("{}/api/{kinds}/{id}/paths-info/main", client.access.endpoint);
            let body = json!({"paths": [path], "expand": true}).to_string();
            let mut response = client.ask_api(&url, Some(&body), &action)?;
            if !response.status().is_success() {
                return Err(client.refused(response, &repository, "main", None, &action));
            }
            let text = client.text(&mut response, answers::JSON_BYTES, &action)?;
            answers::last_commit(&text, &path).map_err(|it| client.answer(&action, 200, &it))
        })
    }

    /// Sends a request of the hub's interface that changes nothing.
    fn ask_api(&self, url: &str, body: Option<&str>, action: &str) -> Result<Response<Body>, HubError> {
        self.expect_online(action)?;
        self.persevere(false, || {
            let response = match body {
                None => self.get(url, action)?,
                Some(body) => self.send(url, "application/json", body, action)?,
            };
            self.unless_busy(response, action)
        })
    }

    fn refused_api(&self, response: &mut Response<Body>, action: &str) -> HubError {
        let status = response.status().as_u16();
        let reason = response.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
        self.answer(action, status, &reason)
    }
}
