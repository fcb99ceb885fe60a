//! A blueprint's weights on a back end.

use checkpoint::Tensor;

use crate::LoadError;
use crate::backend::{Backend, GatedParams, NormParams, Stacking, WeightDtype};
use crate::blueprint::{
    Attention, Beside, Blueprint, Branch, Experts, Gain, Gated, Memory, Mixer, Mlp, Norm, PerLayer,
    PerLayerEmbedding, Plain, Projection,
};
use crate::families::Source;

/// All weights of a model.
pub(crate) struct Model<B: Backend> {
    pub(crate) embedding: B::Table,
    pub(crate) blocks: Vec<BlockWeights<B>>,
    pub(crate) final_norm: NormParams<B::Vector>,
    pub(crate) head: B::Matrix,
}

pub(crate) struct BlockWeights<B: Backend> {
    pub(crate) mixer: BranchWeights<B, MixerWeights<B>>,
    pub(crate) mlp: BranchWeights<B, MlpWeights<B>>,
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
        output: B::Matrix,
        output_bias: Option<B::Vector>,
    },
}

pub(crate) enum MlpWeights<B: Backend> {
    Gated(GatedParams<B>),
    Plain {
        up: B::Matrix,
        up_bias: Option<B::Vector>,
        down: B::Matrix,
        down_bias: Option<B::Vector>,
    },
    Experts {
        router: B::Matrix,
        router_bias: Option<B::Vector>,
        correction: Option<B::Vector>,
        experts: Vec<GatedParams<B>>,
        shared: Option<GatedParams<B>>,
    },
    Beside(BesideWeights<B>),
}

pub(crate) struct BesideWeights<B: Backend> {
    pub(crate) dense: GatedParams<B>,
    pub(crate) dense_norm: NormParams<B::Vector>,
    pub(crate) router: B::Matrix,
    pub(crate) router_norm: NormParams<B::Vector>,
    pub(crate) experts: Vec<GatedParams<B>>,
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

/// Brings tensors onto a back end, one matrix after the other.
pub(crate) struct Loader<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) source: &'a Source<'a>,
    pub(crate) dtype: WeightDtype,
}

impl<B: Backend> Loader<'_, B> {
    /// Loads everything; `progress` is called after each block with how many are done.
    pub(crate) fn model(
        &self,
        blueprint: &Blueprint,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Model<B>, LoadError> {
        let (vocab, d_model) = (blueprint.vocab, blueprint.d_model);
        let embedding = self.source.tensor(&blueprint.embedding.weight, &[vocab, d_model])?;
        let head = self.source.tensor(&blueprint.head.weight, &[vocab, d_model])?;
        let all = blueprint.blocks.len();
        let per_layer = blueprint.per_layer.as_ref().map(|it| self.per_layer_tables(it, all)).transpose()?;
        let mut blocks = Vec::with_capacity(all);
        for block in &blueprint.blocks {
            let table = per_layer.as_ref().map(|it| &it[blocks.len()]);
            blocks.push(BlockWeights {
                mixer: self.branch(&block.mixer, |it| self.mixer(it))?,
                mlp: self.branch(&block.mlp, |it| self.mlp(it))?,
                per_layer: table
                    .zip(block.per_layer.as_ref())
                    .map(|(table, branch)| self.branch(branch, |it| self.per_layer(it, table)))
                    .transpose()?,
            });
            progress(blocks.len());
        }
        Ok(Model {
            embedding: self.backend.table(&embedding, self.dtype)?,
            blocks,
            final_norm: self.norm(&blueprint.final_norm)?,
            head: self.backend.matrix(&[head], Stacking::EndToEnd, self.dtype)?,
        })
    }

    fn branch<S, T>(
        &self,
        branch: &Branch<S>,
        inner: impl FnOnce(&S) -> Result<T, LoadError>,
    ) -> Result<BranchWeights<B, T>, LoadError> {
        let optional = |norm: &Option<Norm>| norm.as_ref().map(|it| self.norm(it)).transpose();
        Ok(BranchWeights {
            pre_norm: optional(&branch.pre_norm)?,
            inner: inner(&branch.inner)?,
            post_norm: optional(&branch.post_norm)?,
        })
    }

    /// The embeddings of each of so many blocks, `[tokens, width]`.
    fn per_layer_tables(
        &self,
        embedding: &PerLayerEmbedding,
        blocks: usize,
    ) -> Result<Vec<Tensor>, LoadError> {
        let PerLayerEmbedding { weight, tokens, width, .. } = embedding;
        let all = self.source.tensor(weight, &[*tokens, blocks * width])?;
        Ok((0..blocks).map(|block| all.slice_columns(block * width..(block + 1) * width)).collect())
    }

    fn per_layer(&self, per_layer: &PerLayer, table: &Tensor) -> Result<PerLayerWeights<B>, LoadError> {
        let PerLayer { gate, context, context_norm, projection, .. } = per_layer;
        let matrix = |it| self.matrix(&[it], Stacking::EndToEnd);
        Ok(PerLayerWeights {
            table: self.backend.table(table, self.dtype)?,
            context: matrix(context)?,
            context_norm: self.norm(context_norm)?,
            gate: matrix(gate)?,
            projection: matrix(projection)?,
        })
    }

    fn mixer(&self, mixer: &Mixer) -> Result<MixerWeights<B>, LoadError> {
        match mixer {
            Mixer::Attention(attention) => self.attention(attention),
        }
    }

    fn attention(&self, attention: &Attention) -> Result<MixerWeights<B>, LoadError> {
        let Attention { query, key, value, .. } = attention;
        let parts: &[_] = match attention.memory {
            Memory::Own => &[query, key, value],
            Memory::Of(_) => &[query],
        };
        let optional = |norm: &Option<Norm>| norm.as_ref().map(|it| self.norm(it)).transpose();
        let own = |norm| if attention.memory == Memory::Own { norm } else { &None };
        let sinks = attention.sinks.as_ref();
        Ok(MixerWeights::Attention {
            qkv: self.matrix(parts, Stacking::EndToEnd)?,
            bias: self.bias(parts, 1)?,
            query_norm: optional(&attention.query_norm)?,
            key_norm: optional(own(&attention.key_norm))?,
            value_norm: optional(own(&attention.value_norm))?,
            sinks: sinks.map(|name| self.vector(name, attention.shape.n_heads)).transpose()?,
            output: self.matrix(&[&attention.output], Stacking::EndToEnd)?,
            output_bias: self.bias(&[&attention.output], 1)?,
        })
    }

    fn mlp(&self, mlp: &Mlp) -> Result<MlpWeights<B>, LoadError> {
        match mlp {
            Mlp::Gated(gated) => self.gated(gated).map(MlpWeights::Gated),
            Mlp::Beside(beside) => self.beside(beside).map(MlpWeights::Beside),
            Mlp::Plain(Plain { up, down, .. }) => Ok(MlpWeights::Plain {
                up: self.matrix(&[up], Stacking::EndToEnd)?,
                up_bias: self.bias(&[up], 1)?,
                down: self.matrix(&[down], Stacking::EndToEnd)?,
                down_bias: self.bias(&[down], 1)?,
            }),
            Mlp::Experts(Experts { router, correction, experts, shared, .. }) => Ok(MlpWeights::Experts {
                router: self.matrix(&[router], Stacking::EndToEnd)?,
                router_bias: self.bias(&[router], 1)?,
                correction: correction.as_ref().map(|it| self.vector(it, experts.len())).transpose()?,
                experts: experts.iter().map(|it| self.gated(it)).collect::<Result<_, _>>()?,
                shared: shared.as_ref().map(|it| self.gated(it)).transpose()?,
            }),
        }
    }

    fn beside(&self, beside: &Beside) -> Result<BesideWeights<B>, LoadError> {
        let Experts { router, experts, .. } = &beside.experts;
        Ok(BesideWeights {
            dense: self.gated(&beside.dense)?,
            dense_norm: self.norm(&beside.dense_norm)?,
            router: self.matrix(&[router], Stacking::EndToEnd)?,
            router_norm: self.norm(&beside.router_norm)?,
            experts: experts.iter().map(|it| self.gated(it)).collect::<Result<_, _>>()?,
            experts_pre_norm: self.norm(&beside.experts_pre_norm)?,
            experts_post_norm: self.norm(&beside.experts_post_norm)?,
            share_scales: self.vector(&beside.share_scales, experts.len())?,
        })
    }

    fn gated(&self, Gated { gate, up, down, .. }: &Gated) -> Result<GatedParams<B>, LoadError> {
        Ok(GatedParams {
            gate_up: self.matrix(&[gate, up], Stacking::Paired)?,
            // Each half is rounded up to whole groups of 16, as its outputs are.
            gate_up_bias: self.bias(&[gate, up], 16)?,
            down: self.matrix(&[down], Stacking::EndToEnd)?,
            down_bias: self.bias(&[down], 1)?,
        })
    }

    fn matrix(&self, parts: &[&Projection], stacking: Stacking) -> Result<B::Matrix, LoadError> {
        let parts: Vec<Tensor> =
            parts.iter().map(|it| self.source.projection(it)).collect::<Result<_, _>>()?;
        self.backend.matrix(&parts, stacking, self.dtype)
    }

    /// The biases of several projections end to end, zeros where one has none; `None` where none has any.
    fn bias(&self, parts: &[&Projection], multiple: usize) -> Result<Option<B::Vector>, LoadError> {
        if parts.iter().all(|it| it.bias.is_none()) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for part in parts {
            let end = values.len() + part.outputs.next_multiple_of(multiple);
            if let Some((tensor, numbers)) = self.source.bias(part)? {
                crate::backend::cpu::check_finite(&tensor, 0, &numbers)?;
                values.extend(numbers);
            }
            values.resize(end, 0.0);
        }
        Ok(Some(self.backend.vector(&values)))
    }

    fn norm(&self, norm: &Norm) -> Result<NormParams<B::Vector>, LoadError> {
        let bias = norm.bias.as_ref();
        Ok(NormParams {
            kind: norm.kind,
            gain: self.gain(norm)?,
            bias: bias.map(|name| self.vector(name, norm.width)).transpose()?,
            epsilon: norm.epsilon,
            width: norm.width,
        })
    }

    /// The gains of a norm; those of several heads each filled up to a multiple of 16 numbers.
    fn gain(&self, norm: &Norm) -> Result<B::Vector, LoadError> {
        let width = norm.width;
        let mut rows: Vec<Vec<f32>> = match &norm.gain {
            Gain::Shared(name) => vec![self.values(name, width)?],
            Gain::Scaled { tensor, by } => {
                vec![self.values(tensor, width)?.into_iter().map(|it| it * by).collect()]
            }
            Gain::Ones => return Ok(self.backend.vector(&vec![1.0; width])),
            Gain::Each(names) => names.iter().map(|it| self.values(it, width)).collect::<Result<_, _>>()?,
            Gain::Rows { tensor, heads } => {
                let tensor = self.source.tensor(tensor, &[*heads, width])?;
                let values = tensor.to_f32();
                crate::backend::cpu::check_finite(&tensor, 0, &values)?;
                values.chunks(width).map(<[f32]>::to_vec).collect()
            }
        };
        let several = rows.len() > 1;
        for row in &mut rows {
            for gain in &mut *row {
                *gain += norm.gain_offset;
            }
            if several {
                row.resize(width.next_multiple_of(16), 0.0);
            }
        }
        Ok(self.backend.vector(&rows.concat()))
    }

    fn vector(&self, name: &str, width: usize) -> Result<B::Vector, LoadError> {
        Ok(self.backend.vector(&self.values(name, width)?))
    }

    fn values(&self, name: &str, width: usize) -> Result<Vec<f32>, LoadError> {
        let (tensor, values) = self.source.vector(name, width)?;
        crate::backend::cpu::check_finite(&tensor, 0, &values)?;
        Ok(values)
    }
}
