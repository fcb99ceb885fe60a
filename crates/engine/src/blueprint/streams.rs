//! Several residual streams side by side, and what a block adds beside its two branches.
//!
//! Alternating updates (`AltUp`, Baykal et al. 2023, arXiv:2301.13310) widen the stream without widening the blocks: of n
//! streams one is *active*, and a block works on that one alone. Before it, all streams are predicted from each other;
//! after it, all are corrected by what it did to the active one:
//!
//! ```text
//! m  = tanh(router(norm(stream_active)))      n numbers, of the streams before the block
//! p_i = stream_i + Σ_j (P m)_ij stream_j      P: [n, n, n]
//! a  = what the block makes of p_active
//! m' = tanh(router(norm(a)))
//! stream_i = p_i + (1 + (C m')_i) (a − p_active)      C: [n, n]
//! ```
//!
//! The active stream is what the rest of the program calls the residual stream: it is read at sites, and a block's
//! writers add to it.

use super::{Norm, Projection};

/// The most streams that there can be.
pub const MAX_STREAMS: usize = 8;

/// Streams side by side. The first one begins as the embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Streams {
    /// How many there are, from 1 to [`MAX_STREAMS`].
    pub count: usize,
    /// Which one blocks work on.
    pub active: usize,
    /// What the others begin as: projections `[d_model, d_model]` of the first, brought to its root mean square.
    pub beginnings: Vec<Projection>,
    /// What the others end as, in the same way: projections of themselves, brought to the root mean square of the first.
    /// The final norm reads the mean of all.
    pub endings: Vec<Projection>,
    /// The mean square of a projection counts as this much at least.
    pub smallest: f32,
}

/// What a block has to do with the streams that it does not work on. Such a block has an MLP, leaves
/// [`Block::scale`](super::Block) at 1, and adds what it knows of the token alone to all streams but the first.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamUpdate {
    /// The norm that the router reads the active stream through.
    pub router_norm: Norm,
    /// `[streams, d_model]`
    pub router: Projection,
    /// The tensor P, `[streams * streams, streams]`.
    pub prediction: String,
    /// The tensor C, `[streams, streams]`.
    pub correction: String,
}

/// A learned augmented residual layer (`LAuReL`, Menghani et al. 2024, arXiv:2411.07501) beside the mixer, which has a
/// norm before it: with x being what that norm says, `scale (stream + mixer(x) + x + norm(right(left(x))))` is what the
/// MLP sees as the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Laurel {
    /// `[rank, d_model]`
    pub left: Projection,
    /// The writer, `[d_model, rank]`.
    pub right: Projection,
    /// The norm behind it.
    pub norm: Norm,
    /// What the sum is multiplied with.
    pub scale: f32,
}

impl Streams {
    /// Weights that take part in products for a token.
    pub fn weights(&self) -> usize {
        let projections = self.beginnings.iter().chain(&self.endings);
        projections.map(Projection::weights).fold(0, usize::saturating_add)
    }
}
