//! The layers that everything else is made of: projections and norms, and the tensors that they are stored in.

/// A linear layer `[outputs, inputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The weight tensor's name.
    pub weight: String,
    /// Which part of it, where several layers share one tensor.
    pub share: Option<Share>,
    /// The bias tensor's name; shared like the weight.
    pub bias: Option<String>,
    /// What its outputs are multiplied with, the bias included.
    pub scale: f32,
    /// Width of the output.
    pub outputs: usize,
    /// Width of the input.
    pub inputs: usize,
}

/// A layer's part of a tensor `[outputs, inputs]`, or of that of an expert in `[experts, outputs, inputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which expert of how many.
    pub expert: Option<(usize, usize)>,
    /// The layer's first output.
    pub first: usize,
    /// How many of its outputs lie side by side: 1 where those of two layers alternate, d_head where their heads do.
    pub together: usize,
    /// From the first of so many outputs to the first of the next: 2 where those of two layers alternate.
    pub step: usize,
    /// How many outputs there are in all.
    pub of: usize,
    /// Whether the tensor, or that of each expert, is `[inputs, outputs]`.
    pub transposed: bool,
    /// The tensor of scales, where that of the weight holds microscaled blocks.
    pub scales: Option<String>,
}

/// A norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// What is divided by.
    pub kind: NormKind,
    /// What is multiplied with after that.
    pub gain: Gain,
    /// Added to the gain on loading: 1 where a checkpoint stores the difference from 1.
    pub gain_offset: f32,
    /// The bias tensor's name.
    pub bias: Option<String>,
    /// Added to the mean square.
    pub epsilon: f32,
    /// How many numbers are normed together.
    pub width: usize,
}

/// Where the gains of a norm lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Gain {
    /// A tensor `[width]`, the same for all heads where heads are normed.
    Shared(String),
    /// A tensor `[heads, width]`, a row for each head.
    Rows {
        /// The tensor's name.
        tensor: String,
        /// How many heads there are.
        heads: usize,
    },
    /// A tensor `[width]` for each head.
    Each(Vec<String>),
    /// A tensor `[width]`, multiplied with a number.
    Scaled {
        /// The tensor's name.
        tensor: String,
        /// The number.
        by: f32,
    },
    /// None: ones.
    Ones,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square (Zhang & Sennrich 2019, arXiv:1910.07467).
    RootMeanSquare,
    /// The standard deviation, after the mean is taken away (Ba et al. 2016, arXiv:1607.06450).
    Layer,
    /// Nothing: there is a gain alone.
    Nothing,
}

impl Projection {
    /// How many weights it has.
    pub fn weights(&self) -> usize {
        self.outputs.saturating_mul(self.inputs) // not yet checked against the tensors
    }
}

impl Share {
    /// A layer's outputs from `first` on, one after the other, of a tensor `[of, inputs]`.
    pub fn part(first: usize, of: usize) -> Self {
        Self { expert: None, first, together: 1, step: 1, of, transposed: false, scales: None }
    }

    /// Which row of the tensor, or of that of an expert, is an output of the layer.
    pub fn row(&self, output: usize) -> usize {
        let (group, place) = (output / self.together, output % self.together);
        self.first.saturating_add(group.saturating_mul(self.step)).saturating_add(place)
    }

    /// The shape of a tensor that holds a matrix or a vector for each expert, or one for all.
    pub(crate) fn shape(&self, of_one: &[usize]) -> Vec<usize> {
        self.expert.map(|it| it.1).into_iter().chain(of_one.iter().copied()).collect()
    }
}

impl Norm {
    /// The tensor of a gain that is not of heads.
    pub fn shared_gain(&self) -> Option<&str> {
        match &self.gain {
            Gain::Shared(tensor) => Some(tensor),
            Gain::Rows { .. } | Gain::Each(_) | Gain::Scaled { .. } | Gain::Ones => None,
        }
    }
}
