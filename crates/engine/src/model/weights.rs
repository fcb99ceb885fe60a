//! The weights of a block.

use super::{LaurelWeights, UpdateWeights};
use crate::backend::{Backend, ConvolutionParams, FeedForwardParams, NormParams, RecurrenceParams};

pub(crate) struct BlockWeights<B: Backend> {
    pub(crate) mixer: BranchWeights<B, MixerWeights<B>>,
    pub(crate) beside: Option<BranchWeights<B, MixerWeights<B>>>,
    pub(crate) mlp: BranchWeights<B, MlpWeights<B>>,
    pub(crate) update: Option<UpdateWeights<B>>,
    pub(crate) laurel: Option<LaurelWeights<B>>,
    pub(crate) per_layer: Option<BranchWeights<B, PerLayerWeights<B>>>,
}

pub(crate) struct BranchWeights<B: Backend, T> {
    pub(crate) pre_norm: Option<NormParams<B::Vector>>,
    pub(crate) inner: T,
    pub(crate) post_norm: Option<NormParams<B::Vector>>,
}

pub(crate) enum MixerWeights<B: Backend> {
    Attention {
        /// Queries alone, where keys and values are another block's.
        qkv: B::Matrix,
        bias: Option<B::Vector>,
        query_norm: Option<NormParams<B::Vector>>,
        key_norm: Option<NormParams<B::Vector>>,
        value_norm: Option<NormParams<B::Vector>>,
        sinks: Option<B::Vector>,
        output: LinearWeights<B>,
    },
    Latent(LatentWeights<B>),
    ShortConvolution {
        inputs: B::Matrix,
        bias: Option<B::Vector>,
        convolution: ConvolutionParams<B::Vector>,
        output: LinearWeights<B>,
    },
    Recurrence {
        inputs: B::Matrix,
        bias: Option<B::Vector>,
        convolution: ConvolutionParams<B::Vector>,
        latents: Option<RecurrenceLatents<B>>,
        params: RecurrenceParams<B::Vector>,
        output: LinearWeights<B>,
    },
    Nothing,
}

pub(crate) struct LinearWeights<B: Backend> {
    pub(crate) matrix: B::Matrix,
    pub(crate) bias: Option<B::Vector>,
}

/// What gates and decays are made of, and they of it, each as a head.
pub(crate) struct RecurrenceLatents<B: Backend> {
    pub(crate) inputs: B::Matrix,
    pub(crate) by_head: Vec<B::Matrix>,
}

pub(crate) struct LatentWeights<B: Backend> {
    /// What queries are made of: a projection and its norm.
    pub(crate) query_latent: Option<(LinearWeights<B>, NormParams<B::Vector>)>,
    pub(crate) query: B::Matrix,
    pub(crate) query_bias: Option<B::Vector>,
    pub(crate) latent: B::Matrix,
    pub(crate) latent_bias: Option<B::Vector>,
    pub(crate) latent_norm: NormParams<B::Vector>,
    /// `K_hᵀ` of each head, `[d_latent, d_nope]`.
    pub(crate) to_latent: Vec<B::Matrix>,
    /// `V_h` of each head, `[d_value, d_latent]`.
    pub(crate) from_latent: Vec<B::Matrix>,
    pub(crate) output: LinearWeights<B>,
}

impl<B: Backend> MixerWeights<B> {
    /// The writer.
    pub(crate) fn output(&self) -> Option<&LinearWeights<B>> {
        match self {
            Self::Attention { output, .. }
            | Self::Latent(LatentWeights { output, .. })
            | Self::ShortConvolution { output, .. }
            | Self::Recurrence { output, .. } => Some(output),
            Self::Nothing => None,
        }
    }
}

pub(crate) enum MlpWeights<B: Backend> {
    Dense(FeedForwardParams<B>),
    Sparse {
        /// Of what goes through the activation first.
        inputs: Vec<LinearWeights<B>>,
        down: LinearWeights<B>,
    },
    Experts {
        router: B::Matrix,
        router_bias: Option<B::Vector>,
        correction: Option<B::Vector>,
        experts: Vec<FeedForwardParams<B>>,
        shared: Option<FeedForwardParams<B>>,
        shared_gate: Option<B::Matrix>,
    },
    Nothing,
    Beside(BesideWeights<B>),
}

pub(crate) struct BesideWeights<B: Backend> {
    pub(crate) dense: FeedForwardParams<B>,
    pub(crate) dense_norm: NormParams<B::Vector>,
    pub(crate) router: B::Matrix,
    pub(crate) router_norm: NormParams<B::Vector>,
    pub(crate) experts: Vec<FeedForwardParams<B>>,
    pub(crate) experts_pre_norm: NormParams<B::Vector>,
    pub(crate) experts_post_norm: NormParams<B::Vector>,
    pub(crate) share_scales: B::Vector,
}

pub(crate) struct PerLayerWeights<B: Backend> {
    pub(crate) table: B::Table,
    pub(crate) context: B::Matrix,
    pub(crate) context_norm: NormParams<B::Vector>,
    pub(crate) gate: B::Matrix,
    pub(crate) projection: B::Matrix,
}
