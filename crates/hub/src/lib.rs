//! The hub: repositories of models and data sets, and the cache that its clients on a machine share.
//!
//! ```text
//! Client::new(Access::from_environment())
//!     .info(&repository, revision)?       -> Info { commit, files }
//!     .file(&repository, commit, path)?   -> a path in the cache, downloaded if it is not there
//!     .upload(&repository, folder, …)?    -> one commit of all files
//!     .models(&[tag])?                    -> repositories that have all these tags
//!     .page(address, limit)?              -> the text at an address
//! ```
//!
//! The protocol, the layout of the cache and the environment variables are those of Python's `huggingface_hub`, so that
//! what one of them has downloaded the others find. Answers come from strangers: `answers` checks what becomes a path or an
//! address, `limits` says how long is waited and how much is taken, `requests` who may see the token. This room knows no models and no prompts, and it prints nothing: who
//! wants to see progress passes an observer.

mod access;
mod address;
#[doc(hidden)]
pub mod answers;
mod cache;
mod client;
mod digest;
mod download;
mod error;
mod limits;
mod listing;
mod page;
mod repository;
mod requests;
mod roots;
mod upload;

pub use access::{Access, Token};
pub use client::{Client, Progress};
pub use digest::{sha256, sha256_of_file};
pub use download::{File, Info};
pub use error::HubError;
pub use limits::{PACE, Patience};
pub use listing::Listed;
pub use repository::{Kind, Repository};
pub use upload::{Upload, Uploaded};
