//! Requests that only read, and the redirections that they follow.

use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use crate::address::{Origin, resolved};
use crate::{Client, HubError};

/// How many redirections are followed.
const REDIRECTIONS: usize = 10;

/// Which redirections are followed.
pub(crate) enum Follow {
    /// All redirections: the answer is that of whoever has the contents.
    All,
    /// Those within the hub, where a repository may have another name now: elsewhere lies the file itself, and the
    /// answer that says so is the wanted one.
    WithinTheHub,
}

impl Client {
    /// The answer to a question, wherever it is redirected to.
    pub(crate) fn get(&self, url: &str, action: &str) -> Result<Response<Body>, HubError> {
        Ok(self.ask_at("GET", url, &[], &Follow::All, self.patience.response, action)?.0)
    }

    /// The same with more headers, waiting so long for each piece; also where the answer came from. The token goes with
    /// a request as long as scheme, host and port are the hub's and no redirection has left it.
    pub(crate) fn ask_at(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        follow: &Follow,
        read: Duration,
        action: &str,
    ) -> Result<(Response<Body>, String), HubError> {
        let mut url = url.to_owned();
        let mut at_home = true;
        for _ in 0..=REDIRECTIONS {
            let mut request = if method == "HEAD" { self.agent.head(&url) } else { self.agent.get(&url) };
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let identity = self.identity_for(&url).filter(|_| at_home);
            if let Some((name, value)) = &identity {
                request = request.header(*name, value);
            }
            let request = request.config().timeout_per_read(Some(read)).build();
            let response = request.call().map_err(|it| self.network(action, &it))?;
            let status = response.status().as_u16();
            let location = response.headers().get("location").and_then(|it| it.to_str().ok());
            let Some(location) = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) else {
                return Ok((response, url));
            };
            let next = self.next(&url, location, action)?;
            let leaves = Origin::of(&next) != Origin::of(&url);
            if leaves && matches!(follow, Follow::WithinTheHub) {
                return Ok((response, url));
            }
            at_home &= !leaves;
            url = next;
        }
        Err(self.answer(action, 302, &format!("more than {REDIRECTIONS} redirections")))
    }

    /// Where a redirection leads.
    fn next(&self, url: &str, location: &str, action: &str) -> Result<String, HubError> {
        let next = resolved(url, location);
        let origins = next.as_deref().and_then(Origin::of).zip(Origin::of(url));
        let Some((next, (to, from))) = next.zip(origins) else {
            return Err(self.answer(action, 302, "it redirects to an address that is none"));
        };
        if from.is_secure() && !to.is_secure() {
            return Err(self.answer(action, 302, &format!("it redirects to {to}, which is not encrypted")));
        }
        Ok(next)
    }
}
