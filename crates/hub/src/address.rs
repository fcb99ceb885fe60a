//! Addresses: what is the same origin, and where a redirection leads.

use ureq::http::Uri;

/// Scheme, host and port: who it is that a request reaches. A token that one origin may see no other one may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an address of the web; `None` for another text.
    pub(crate) fn of(address: &str) -> Option<Self> {
        let uri: Uri = address.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        // A port that is written and is none must not count as the default one.
        let written = uri.authority()?.as_str().rsplit('@').next()?.rsplit_once(':').map(|it| it.1);
        let port = match written.filter(|it| !it.contains(']')) {
            Some(text) => text.parse().ok()?,
            None => default,
        };
        (!host.is_empty()).then_some(Self { scheme, host, port })
    }

    /// Whether what is sent there can be read on the way, while it could not be on the way to this one.
    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    fn root(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root())
    }
}

/// The address that `Location: location` means in an answer from `base` (RFC 3986, as far as answers use it).
pub(crate) fn resolved(base: &str, location: &str) -> Option<String> {
    let location = location.trim().split('#').next()?;
    let origin = Origin::of(base)?;
    let address = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", origin.scheme)
    } else if location.starts_with('/') {
        format!("{}{location}", origin.root())
    } else {
        let path = base.split(['?', '#']).next()?;
        let scheme = path.find("://")? + 3;
        let folder = path[scheme..].rfind('/').map_or(path, |it| &path[..scheme + it]);
        format!("{folder}/{location}")
    };
    Origin::of(&address).map(|_| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Origin::of(a).is_some() && Origin::of(a) == Origin::of(b);
        assert!(same("https://hub.co", "https://HUB.co:443/x?y"));
        assert!(same("http://127.0.0.1:18600", "http://127.0.0.1:18600/a"));
        for other in [
            "https://hub.co:444",
            "http://hub.co",
            "https://hub.co.evil.com",
            "https://hub.co@evil.com/",
            "https://hub.co:443@evil.com/",
            "https://hub.com",
            "https://cdn.hub.co",
        ] {
            assert!(!same("https://hub.co", other), "{other}");
        }
        for none in
            ["", "hub.co", "/x", "ftp://hub.co", "file:///etc/passwd", "https://", "https://hub.co:x/"]
        {
            assert_eq!(Origin::of(none), None, "{none}");
        }
    }

    #[test]
    fn redirections_are_resolved() {
        let at = |location: &str| resolved("http://hub:81/a/b?c=/d", location);
        assert_eq!(at("https://other/x").as_deref(), Some("https://other/x"));
        assert_eq!(at("//other/x").as_deref(), Some("http://other/x"));
        assert_eq!(at("/x?y=1#z").as_deref(), Some("http://hub:81/x?y=1"));
        assert_eq!(at("x").as_deref(), Some("http://hub:81/a/x"));
        assert_eq!(resolved("http://hub", "x").as_deref(), Some("http://hub/x"));
        for none in ["file:///etc/passwd", "ftp://x/y", "http://"] {
            assert_eq!(at(none), None, "{none}");
        }
    }
}
