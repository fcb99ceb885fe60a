//! The words of ablate as types: one word, one meaning.
//!
//! Every other room imports this one and it imports none. It holds no arithmetic beyond the checks that its
//! types need to keep their promises, and it knows neither files nor tensors nor text.

mod direction;
mod edit;
mod residual;
mod token;
mod writer;

pub use direction::{Direction, DirectionError};
pub use edit::{Edit, EditError, EditSet};
pub use residual::{LayerIndex, ResidualSite};
pub use token::TokenId;
pub use writer::{Component, Writer};
