//! What works on each position alone.

use super::{Norm, Projection};

/// `down(activation(gate(x)) ∘ up(x))`, or without a gate `down(activation(up(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForward {
    /// Goes through the activation; `None`: the up projection does.
    pub gate: Option<Projection>,
    /// Is multiplied with it.
    pub up: Projection,
    /// The activation.
    pub activation: Activation,
    /// The writer.
    pub down: Projection,
}

/// The same with `max(g − t, 0)` in place of g, what goes through the activation: the threshold `t = mean + deviations *
/// deviation`, where mean and standard deviation are those of the numbers of g (statistical top-k, You et al. 2025,
/// arXiv:2506.06644).
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// Its projections and its activation.
    pub inner: FeedForward,
    /// How many standard deviations above their mean numbers begin to pass.
    pub deviations: f32,
}

/// A mixture of experts: `Σ share_e expert_e(x) + share shared(x)`, the sum over the experts that the token is sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Tells how well each expert suits a token.
    pub router: Projection,
    /// A tensor `[experts]` that is added to the scores when experts are chosen, and not to the shares.
    pub correction: Option<String>,
    /// Who is chosen, and with what share.
    pub routing: Routing,
    /// The experts, of equal shapes and activations.
    pub experts: Vec<FeedForward>,
    /// One that every token is sent to.
    pub shared: Option<FeedForward>,
    /// One number from a token, the logistic function of which is that one's share; `None`: a share of 1.
    pub shared_gate: Option<Projection>,
}

/// `norm(dense(x)) + norm(Σ share_e expert_e(norm(stream)))`: an MLP that reads through the branch's norm, and a mixture
/// with norms of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// For every token.
    pub dense: FeedForward,
    /// The norm that it writes through.
    pub dense_norm: Norm,
    /// The mixture, all of it.
    pub experts: Experts,
    /// The norm that its router reads the stream through.
    pub router_norm: Norm,
    /// The norm that its experts read the stream through.
    pub experts_pre_norm: Norm,
    /// The norm that they write through.
    pub experts_post_norm: Norm,
    /// A tensor `[experts]` that shares are multiplied with last.
    pub share_scales: String,
}

/// From what the router says of a token to its experts and their shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// How many experts a token is sent to; of equal scores the lower expert comes first.
    pub chosen: usize,
    /// `c` in `c tanh(output / c)`, what the router's outputs go through first.
    pub softcap: Option<f32>,
    /// What the router's outputs mean.
    pub scores: Scores,
    /// Which groups of experts there is a choice of; `None`: all experts.
    pub groups: Option<Groups>,
    /// Whether the shares of the chosen are made to add up to one.
    pub normalized: bool,
    /// What shares are multiplied with after that.
    pub scale: f32,
}

/// What the router's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// An expert's score and share is its part of the softmax.
    Softmax,
    /// The logistic function of its own output.
    Sigmoid,
    /// `SparseMixer` (Liu et al. 2024, arXiv:2409.12136), in use after training: experts are chosen one after the other;
    /// the share of each is its part of the softmax over those that are left and not much worse. An output is much
    /// worse than the best one when they differ by more than `tolerance` of its size, or of the best if that is larger.
    OneByOne {
        /// The largest relative difference.
        tolerance: f32,
    },
}

/// Experts in groups of equal size, of which the best are kept before experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many groups there are.
    pub count: usize,
    /// How many of them are kept.
    pub chosen: usize,
    /// A group's score is the sum of so many of its best.
    pub best: usize,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x / (1 + e^−x)`.
    Silu,
    /// x times the share of the normal distribution below it (Hendrycks & Gimpel 2016, arXiv:1606.08415).
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// The square of x, or zero where x is negative (So et al. 2021, arXiv:2109.08668).
    SquaredRelu,
    /// `positive x² + x / 2` above zero, `negative (e^x − 1 − x) + x / 2` below (xIELU, Huang & Schlag 2024,
    /// arXiv:2411.13010).
    Xielu {
        /// How strongly it is bent above zero.
        positive: f32,
        /// How strongly below.
        negative: f32,
    },
    /// `x / (1 + e^−x)` up to a limit; what it is multiplied with is kept within ± the limit.
    CappedSilu {
        /// Where numbers are cut off.
        limit: f32,
    },
    /// `x / (1 + e^(−steepness x))` of x up to a limit; what it is multiplied with is kept within ± the limit, and then
    /// 1 larger.
    ClampedSilu {
        /// What x is multiplied with in the exponent.
        steepness: f32,
        /// Where numbers are cut off.
        limit: f32,
    },
}

impl Routing {
    /// Experts by their parts of the softmax, which are made to add up to one.
    pub fn by_softmax(chosen: usize) -> Self {
        Self { chosen, softcap: None, scores: Scores::Softmax, groups: None, normalized: true, scale: 1.0 }
    }
}

impl Experts {
    /// Weights that take part in products for a token.
    pub(super) fn weights(&self) -> usize {
        let Self { router, routing, experts, shared, .. } = self;
        let used = experts.iter().take(routing.chosen).chain(shared).map(FeedForward::weights);
        used.fold(router.weights(), usize::saturating_add)
    }
}

impl FeedForward {
    /// What its input is multiplied with, in the order in which it is laid out.
    pub fn inputs(&self) -> Vec<&Projection> {
        self.gate.iter().chain([&self.up]).collect()
    }

    pub(super) fn weights(&self) -> usize {
        let all = self.inputs().into_iter().chain([&self.down]);
        all.map(Projection::weights).fold(0, usize::saturating_add)
    }
}
