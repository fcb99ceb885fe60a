//! Layers that remember a sequence in a state of fixed size.
//!
//! What they have in common is a causal convolution of each channel over its last few positions, and, but for the
//! short convolutions, a matrix for each head that every token decays and adds to:
//!
//! ```text
//! S ← a S + k vᵀ        S: [d_key, d_value], a in 0..1
//! y = Sᵀ q
//! ```
//!
//! In Mamba-2 (Dao & Gu 2024, arXiv:2405.21060) v is the head's input times a step Δ, k and q are called B and C, and
//! a = e^(Δ A). In gated delta nets (Yang, Kautz & Hatamizadeh 2024, arXiv:2412.06464) v is what the state does not say
//! of k already, times a strength.

use super::Projection;

/// A causal convolution of each channel by itself: `out_t = bias + Σ_j weight_j in_(t − taps + 1 + j)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// The weight tensors, whose channels lie end to end wherever they are cut: `[channels, 1, taps]`, or `[channels, taps]`
    /// as GGUF files have it.
    pub weights: Vec<String>,
    /// The bias tensor's name, `[channels]`.
    pub bias: Option<String>,
    /// How many channels there are.
    pub channels: usize,
    /// How many positions it sees, its own included.
    pub taps: usize,
}

/// `output(after(x) ∘ convolution(before(x) ∘ input(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConvolution {
    /// Multiplied with what is convolved.
    pub before: Projection,
    /// Multiplied with the result.
    pub after: Projection,
    /// What is convolved.
    pub input: Projection,
    /// Over so many channels as the projections have outputs.
    pub convolution: Convolution,
    /// The writer.
    pub output: Projection,
}

/// A matrix for each head.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrence {
    /// Sizes.
    pub shape: RecurrenceShape,
    /// What is convolved, end to end: queries, keys and values, in the order of `shape`.
    pub convolved: Vec<Projection>,
    /// Over these, with a `SiLU` after it.
    pub convolution: Convolution,
    /// What gates and decays are made of where that is not what the branch reads: a projection of it for each. Then there
    /// is one of each, and the two have the same shape.
    pub latents: Option<[Projection; 2]>,
    /// What the output is gated with, end to end: `[heads * d_value]`.
    pub gate: Vec<Projection>,
    /// What decays depend on, end to end: `[heads]`, or `[heads * d_key]` where every number of a key decays by itself.
    pub decay: Vec<Projection>,
    /// Added to it: a tensor of the same width.
    pub decay_bias: String,
    /// How fast states decay: a tensor `[heads]`.
    pub rate: Rate,
    /// What is added to states.
    pub rule: Rule,
    /// A norm beside the gate.
    pub gating: Gating,
    /// The writer.
    pub output: Projection,
}

/// The sizes of a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecurrenceShape {
    /// States.
    pub heads: usize,
    /// Heads of queries and of keys; each serves `heads / groups` states.
    pub groups: usize,
    /// Width of a query and of a key.
    pub d_key: usize,
    /// Width of a value.
    pub d_value: usize,
    /// The first channel of queries, of keys and of values.
    pub queries: usize,
    /// See `queries`.
    pub keys: usize,
    /// See `queries`.
    pub values: usize,
}

/// A tensor `[heads]` of rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Of their logarithms: A = −e^log.
    Logarithm(String),
    /// Of A, as GGUF files have it.
    Negative(String),
}

/// What a token does to the states.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Mamba-2: Δ = softplus(decay + bias) within limits, a = e^(Δ A), `S ← a S + k (Δ v)ᵀ`, `y = Sᵀ q + D v`.
    StateSpace {
        /// D: a tensor `[heads]`.
        skip: String,
        /// The smallest and the largest Δ.
        limits: (f32, f32),
    },
    /// The gated delta rule: a = e^(A softplus(decay + bias)), β = scale sigmoid(strength), queries and keys of length 1
    /// (queries divided by the root of their width, too), `S ← a S`, `S ← S + k (β (v − Sᵀ k))ᵀ`, `y = Sᵀ q`.
    Delta {
        /// What strengths depend on, end to end: `[heads]`.
        strength: Vec<Projection>,
        /// The largest strength: 1, or 2 where states may change the sign of what they hold (Grazzi et al. 2024,
        /// arXiv:2411.12537).
        scale: f32,
        /// Whether every number of a key decays by itself (Kimi Team 2025, arXiv:2510.26692): `S ← diag(a) S`.
        by_channel: bool,
    },
}

/// How a recurrence's output meets its gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Gating {
    /// A norm of the output by the root of the mean square.
    pub norm: Option<GatedNorm>,
    /// Whether the gate is multiplied before the norm.
    pub gate_first: bool,
    /// Whether the gate goes through the logistic function, and not through a `SiLU`.
    pub sigmoid: bool,
}

/// A norm of groups of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedNorm {
    /// The tensor of gains: `[heads * d_value]`, or `[width]` for all groups.
    pub gain: String,
    /// Whether all groups have the same gains.
    pub shared: bool,
    /// How many numbers are normed together.
    pub width: usize,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl Convolution {
    /// What is kept of a sequence: `[taps - 1, channels]`.
    pub fn state(&self) -> [usize; 2] {
        [self.taps.saturating_sub(1), self.channels]
    }
}

impl RecurrenceShape {
    /// What is kept of a sequence: `[heads * d_key, d_value]`.
    pub fn state(&self) -> [usize; 2] {
        [self.heads.saturating_mul(self.d_key), self.d_value]
    }

    /// Channels of queries, keys and values.
    pub fn channels(&self) -> usize {
        (2 * self.groups).saturating_mul(self.d_key).saturating_add(self.heads.saturating_mul(self.d_value))
    }

    /// Numbers of the output.
    pub fn outputs(&self) -> usize {
        self.heads * self.d_value
    }

    /// Numbers that decay at rates of their own.
    pub fn decays(&self, by_channel: bool) -> usize {
        if by_channel { self.heads * self.d_key } else { self.heads }
    }
}

impl ShortConvolution {
    /// What the stream is multiplied with, in the order in which it is laid out.
    pub fn inputs(&self) -> [&Projection; 3] {
        [&self.before, &self.after, &self.input]
    }
}

impl Recurrence {
    /// All that takes part in products for a token but the writer.
    pub fn projections(&self) -> Vec<&Projection> {
        let of_latents = self.latents.iter().flat_map(|it| it.iter().chain(&self.gate).chain(&self.decay));
        self.inputs().into_iter().chain(of_latents).collect()
    }

    /// What the stream is multiplied with, in the order in which it is laid out: what is convolved, the gate and decays
    /// unless they are made of something else, strengths.
    pub fn inputs(&self) -> Vec<&Projection> {
        let own = self.latents.is_none().then_some([&self.gate, &self.decay]);
        let strength = match &self.rule {
            Rule::StateSpace { .. } => &[][..],
            Rule::Delta { strength, .. } => strength,
        };
        self.convolved.iter().chain(own.into_iter().flatten().flatten()).chain(strength).collect()
    }
}
