//! What can go wrong with the hub.

use std::path::PathBuf;

use crate::Repository;

/// Why something of the hub cannot be had. No message holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No such repository, or none that we may see: the hub does not tell which.
    #[error(
        "{repository} is not on {endpoint}, or is private\n\nhint: check the name{}",
        if *known { "; the token given may not see it" } else { "; for a private one set HF_TOKEN or use `hf auth login`" }
    )]
    NoRepository {
        /// Which.
        repository: Repository,
        /// Where.
        endpoint: String,
        /// Whether we said who we are.
        known: bool,
    },
    /// Its owner wants to be asked.
    #[error(
        "{repository} is gated: its owner wants to be asked first\n\nhint: ask at {endpoint}/{}{} with your account, {}",
        repository.prefix(), repository.id,
        if *known { "and use a token of that account" } else { "then set HF_TOKEN or use `hf auth login`" }
    )]
    Gated {
        /// Which.
        repository: Repository,
        /// Where.
        endpoint: String,
        /// Whether we said who we are.
        known: bool,
    },
    /// No such branch, tag or commit.
    #[error("{repository} has no revision `{revision}`")]
    NoRevision {
        /// Which.
        repository: Repository,
        /// The revision.
        revision: String,
    },
    /// No such file.
    #[error("{repository} has no file `{path}` at `{revision}`")]
    NoFile {
        /// Which.
        repository: Repository,
        /// The revision.
        revision: String,
        /// The file.
        path: String,
    },
    /// The token is not accepted.
    #[error(
        "{endpoint} does not accept the token\n\nhint: make a new one at {endpoint}/settings/tokens and set HF_TOKEN, or use `hf auth login`"
    )]
    Token {
        /// Where.
        endpoint: String,
    },
    /// We may not do that.
    #[error(
        "{action}: {endpoint} says no: {reason}\n\nhint: set HF_TOKEN, or use `hf auth login`; the token needs the right to write"
    )]
    Forbidden {
        /// What was wanted.
        action: String,
        /// Where.
        endpoint: String,
        /// What the hub says.
        reason: String,
    },
    /// Offline, and not in the cache.
    #[error(
        "{repository}: `{what}` is not in the cache `{}`, and the network is not to be used\n\nhint: unset HF_HUB_OFFLINE, or download it once",
        cache.display()
    )]
    Offline {
        /// Which.
        repository: Repository,
        /// File or revision.
        what: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The network does not answer, and the cache has it not.
    #[error("{action}: {reason}\n\nhint: is the network there? What was downloaded so far is kept")]
    Network {
        /// What was wanted.
        action: String,
        /// What happened.
        reason: String,
    },
    /// A download that does not come on.
    #[error("{action}: too slow, {reason}\n\nhint: try again later; what was downloaded so far is kept")]
    TooSlow {
        /// What was wanted.
        action: String,
        /// How slow.
        reason: String,
    },
    /// The hub has too much to do, or we ask too much.
    #[error(
        "{action}: {endpoint} answered {status}: {reason}{}\n\nhint: try again later; with HF_TOKEN set more is allowed",
        seconds.map_or(String::new(), |it| format!(" (it asks to wait for {it} seconds)"))
    )]
    Busy {
        /// What was wanted.
        action: String,
        /// Where.
        endpoint: String,
        /// The code.
        status: u16,
        /// How long to wait, if the hub says.
        seconds: Option<u64>,
        /// What it says.
        reason: String,
    },
    /// It was asked to stop.
    #[error("the work with the hub was interrupted\n\nhint: the same command goes on where it stopped")]
    Interrupted,
    /// The disk does not have room for a file.
    #[error(
        "`{path}` takes {needed} more bytes, and `{}` has {free}\n\nhint: make room, or set HF_HUB_CACHE to a folder of \
         another disk",
        folder.display()
    )]
    NoRoom {
        /// The file.
        path: String,
        /// Where it was to go.
        folder: PathBuf,
        /// How many bytes are missing of it.
        needed: u64,
        /// How many are free.
        free: u64,
    },
    /// A link in a folder that is to be uploaded.
    #[error(
        "`{}` is a link, and is not uploaded: what it leads to may be private\n\nhint: put a copy of the file in its \
         place",
        path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Another answer than the protocol has.
    #[error("{action}: {endpoint} answered {status}: {reason}")]
    Answer {
        /// What was wanted.
        action: String,
        /// Where.
        endpoint: String,
        /// The code.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// What was downloaded is not what was promised.
    #[error(
        "`{path}`: expected {expected}, found {found}\n\nhint: try again; what was downloaded has been removed"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Size or checksum promised.
        expected: String,
        /// Size or checksum found.
        found: String,
    },
    /// A path that leads out of the folder.
    #[error("{repository} names a file `{path}`, which would lie outside of its folder")]
    Path {
        /// Which.
        repository: Repository,
        /// The file.
        path: String,
    },
    /// A page that is none, or not what was wanted.
    #[error("`{address}` cannot be read: {reason}\n\nhint: does the address lead to the file itself?")]
    Page {
        /// The address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Files of this machine.
    #[error("`{}`: {reason}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl HubError {
    /// An error of the system at a path.
    pub(crate) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |reason| Self::Disk { path, reason }
    }

    /// Whether it is the network that failed, so that the cache may help.
    pub(crate) fn is_network(&self) -> bool {
        matches!(self, Self::Network { .. } | Self::Busy { .. } | Self::Answer { status: 500.., .. })
    }
}
