//! A blueprint's weights on a back end.

mod streams;
mod weights;

use std::cell::Cell;

use checkpoint::{Quantization, Tensor};

pub(crate) use self::streams::{LaurelWeights, StreamsWeights, UpdateWeights};
pub(crate) use self::weights::{
    BesideWeights, BlockWeights, BranchWeights, LatentWeights, LinearWeights, MixerWeights, MlpWeights,
    PerLayerWeights, RecurrenceLatents,
};

use crate::LoadError;
use crate::backend::{
    Backend, ConvolutionParams, FeedForwardParams, GatedNormParams, NormParams, RecurrenceParams, RuleParams,
    Stacking, WeightDtype,
};
use crate::blueprint::{
    Attention, Beside, Blueprint, Branch, Convolution, Experts, FeedForward, Gain, LatentAttention, Memory,
    Mixer, Mlp, Norm, PerLayer, PerLayerEmbedding, Projection, Rate, Recurrence, Rule, Sparse,
};
use crate::families::Source;
use crate::quantization::{Kept, Quantizing};

/// All weights of a model.
pub(crate) struct Model<B: Backend> {
    pub(crate) embedding: B::Table,
    pub(crate) blocks: Vec<BlockWeights<B>>,
    pub(crate) streams: Option<StreamsWeights<B>>,
    pub(crate) final_norm: NormParams<B::Vector>,
    pub(crate) head: B::Matrix,
    pub(crate) head_bias: Option<B::Vector>,
}

impl<B: Backend> Model<B> {
    /// The weights of [`Blueprint::mixer`].
    pub(crate) fn mixer(&self, number: usize) -> Option<&BranchWeights<B, MixerWeights<B>>> {
        match number.checked_sub(self.blocks.len()) {
            None => Some(&self.blocks[number].mixer),
            Some(block) => self.blocks[block].beside.as_ref(),
        }
    }

    /// The norm that a block, or the head after the last one, reads through what the block before it leaves in the stream.
    /// With several streams what is read is made of all of them first.
    pub(crate) fn entry_norm(&self, block: usize) -> Option<&NormParams<B::Vector>> {
        if self.streams.is_some() {
            return None;
        }
        match self.blocks.get(block) {
            None => Some(&self.final_norm),
            Some(BlockWeights { mixer, mlp, .. }) => match mixer.inner {
                MixerWeights::Nothing => mlp.pre_norm.as_ref(),
                _ => mixer.pre_norm.as_ref(),
            },
        }
    }
}

/// Brings tensors onto a back end, one matrix after the other.
pub(crate) struct Loader<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) source: &'a Source<'a>,
    pub(crate) dtype: WeightDtype,
    /// What is kept in blocks, and in which.
    quantizing: Option<Quantizing>,
    matrices: Cell<Weights>,
}

/// How much of a model's weights lies in matrices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weights {
    pub(crate) numbers: usize,
    pub(crate) bytes: usize,
}

impl<'a, B: Backend> Loader<'a, B> {
    /// Weights in `dtype`, where they are not quantized.
    pub(crate) fn new(backend: &'a B, source: &'a Source<'a>, dtype: WeightDtype) -> Self {
        Self { backend, source, dtype, quantizing: None, matrices: Cell::default() }
    }

    /// The same with weights of this model in blocks.
    pub(crate) fn quantizing(
        self,
        wanted: Option<Quantization>,
        blueprint: &Blueprint,
    ) -> Result<Self, LoadError> {
        let Some(wanted) = wanted else { return Ok(self) };
        let embedding = self.source.whole(&blueprint.embedding.weight)?;
        let head = self.source.whole(&blueprint.head.weight)?;
        let quantizing = self.source.quantizing(wanted, &[embedding.name(), head.name()]);
        Ok(Self { quantizing: Some(quantizing), ..self })
    }

    /// What has been loaded so far.
    pub(crate) fn matrices(&self) -> Weights {
        self.matrices.get()
    }

    /// Loads everything; `progress` is called after each block with how many are done.
    pub(crate) fn model(
        &self,
        blueprint: &Blueprint,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Model<B>, LoadError> {
        let (vocab, d_model) = (blueprint.vocab, blueprint.d_model);
        let embedding = self.source.tensor(&blueprint.embedding.weight, &[vocab, d_model])?;
        let head = self.source.tensor(&blueprint.head.weight, &[vocab, d_model])?;
        let head_bias = blueprint.head.bias.as_ref();
        let all = blueprint.blocks.len();
        let per_layer = blueprint.per_layer.as_ref().map(|it| self.per_layer_tables(it, all)).transpose()?;
        let mut blocks = Vec::with_capacity(all);
        for block in &blueprint.blocks {
            let table = per_layer.as_ref().map(|it| &it[blocks.len()]);
            blocks.push(BlockWeights {
                mixer: self.branch(&block.mixer, |it| self.mixer(it))?,
                beside: block
                    .beside
                    .as_ref()
                    .map(|branch| self.branch(branch, |it| self.mixer(it)))
                    .transpose()?,
                mlp: self.branch(&block.mlp, |it| self.mlp(it))?,
                update: block.update.as_ref().map(|it| self.update(it)).transpose()?,
                laurel: block.laurel.as_ref().map(|it| self.laurel(it)).transpose()?,
                per_layer: table
                    .zip(block.per_layer.as_ref())
                    .map(|(table, branch)| self.branch(branch, |it| self.per_layer(it, table)))
                    .transpose()?,
            });
            progress(blocks.len());
        }
        let head = match self.quantizing {
            Some(quantizing) => quantizing.of_head(head),
            None => Kept::Plain(vec![head]),
        };
        Ok(Model {
            embedding: self.backend.table(&embedding, self.dtype)?,
            blocks,
            streams: blueprint.streams.as_ref().map(|it| self.streams(it)).transpose()?,
            final_norm: self.norm(&blueprint.final_norm)?,
            head: self.kept(head, Stacking::EndToEnd)?,
            head_bias: head_bias.map(|name| self.vector(name, vocab)).transpose()?,
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
            Mixer::ShortConvolution(it) => {
                let inputs = it.inputs();
                Ok(MixerWeights::ShortConvolution {
                    inputs: self.matrix(&inputs, Stacking::EndToEnd)?,
                    bias: self.bias(&inputs, 1)?,
                    convolution: self.convolution(&it.convolution)?,
                    output: self.linear(&it.output)?,
                })
            }
            Mixer::Recurrence(recurrence) => self.recurrence(recurrence),
            Mixer::Nothing => Ok(MixerWeights::Nothing),
            Mixer::Latent(attention) => self.latent_attention(attention).map(MixerWeights::Latent),
        }
    }

    fn linear(&self, output: &Projection) -> Result<LinearWeights<B>, LoadError> {
        Ok(LinearWeights {
            matrix: self.matrix(&[output], Stacking::EndToEnd)?,
            bias: self.bias(&[output], 1)?,
        })
    }

    fn recurrence(&self, recurrence: &Recurrence) -> Result<MixerWeights<B>, LoadError> {
        let Recurrence { shape, convolution, latents, rate, rule, gating, .. } = recurrence;
        let heads = shape.heads;
        let rates = match rate {
            Rate::Logarithm(name) => self.rates(name, heads)?.into_iter().map(|it| -it.exp()).collect(),
            Rate::Negative(name) => self.rates(name, heads)?,
        };
        let by_channel = matches!(rule, Rule::Delta { by_channel: true, .. });
        let decays = shape.decays(by_channel);
        let (gate, decay) = if latents.is_some() {
            (0, shape.outputs())
        } else {
            (shape.channels(), shape.channels() + shape.outputs())
        };
        let strength = if latents.is_some() { shape.channels() } else { decay + decays };
        let inputs = recurrence.inputs();
        let latents = match latents {
            None => None,
            Some([of_gate, of_decay]) => Some(RecurrenceLatents {
                inputs: self.matrix(&[of_gate, of_decay], Stacking::EndToEnd)?,
                by_head: recurrence
                    .gate
                    .iter()
                    .chain(&recurrence.decay)
                    .map(|it| self.unquantized(&[it]))
                    .collect::<Result<_, _>>()?,
            }),
        };
        Ok(MixerWeights::Recurrence {
            inputs: self.matrix(&inputs, Stacking::EndToEnd)?,
            bias: self.bias(&inputs, 1)?,
            convolution: self.convolution(convolution)?,
            latents,
            params: RecurrenceParams {
                shape: *shape,
                decay_bias: self.vector(&recurrence.decay_bias, decays)?,
                rate: self.backend.vector(&rates),
                rule: match rule {
                    Rule::StateSpace { skip, limits } => {
                        RuleParams::StateSpace { skip: self.vector(skip, heads)?, limits: *limits }
                    }
                    Rule::Delta { scale, by_channel, .. } => {
                        RuleParams::Delta { scale: *scale, by_channel: *by_channel }
                    }
                },
                norm: match &gating.norm {
                    None => None,
                    Some(norm) => {
                        let outputs = shape.outputs();
                        let gain = if norm.shared {
                            self.values(&norm.gain, norm.width)?.repeat(outputs / norm.width)
                        } else {
                            self.values(&norm.gain, outputs)?
                        };
                        let gain = self.backend.vector(&gain);
                        Some(GatedNormParams { gain, width: norm.width, epsilon: norm.epsilon })
                    }
                },
                gate_first: gating.gate_first,
                sigmoid: gating.sigmoid,
                gate,
                decay,
                strength,
            },
            output: self.linear(&recurrence.output)?,
        })
    }

    /// A number for each head, which some files have as `[1, 1, heads, 1]`.
    fn rates(&self, name: &str, heads: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.source.whole(name)?;
        if tensor.shape() != [1, 1, heads, 1] {
            return self.values(name, heads);
        }
        let values = tensor.to_f32();
        crate::backend::cpu::check_finite(&tensor, 0, &values)?;
        Ok(values)
    }

    /// The weights of a convolution, tap by tap.
    fn convolution(&self, convolution: &Convolution) -> Result<ConvolutionParams<B::Vector>, LoadError> {
        let Convolution { weights, bias, channels, taps } = convolution;
        let (channels, taps) = (*channels, *taps);
        let mut values = Vec::new();
        let mut left = channels;
        for (index, name) in weights.iter().enumerate() {
            let tensor = self.source.whole(name)?;
            let own = if index + 1 < weights.len() { tensor.rows().min(left) } else { left };
            if tensor.shape() != [own, taps] {
                tensor.expect_shape(&[own, 1, taps])?;
            }
            left -= own;
            let part = tensor.to_f32();
            crate::backend::cpu::check_finite(&tensor, 0, &part)?;
            values.extend(part);
        }
        let mut by_tap = Vec::with_capacity(taps * channels.next_multiple_of(16));
        for tap in 0..taps {
            by_tap.extend(values.iter().skip(tap).step_by(taps));
            by_tap.resize(by_tap.len().next_multiple_of(16), 0.0);
        }
        Ok(ConvolutionParams {
            channels,
            taps,
            weight: self.backend.vector(&by_tap),
            bias: bias.as_ref().map(|name| self.vector(name, channels)).transpose()?,
        })
    }

    fn attention(&self, attention: &Attention) -> Result<MixerWeights<B>, LoadError> {
        let parts = attention.inputs();
        let optional = |norm: &Option<Norm>| norm.as_ref().map(|it| self.norm(it)).transpose();
        let own = |norm| if attention.memory == Memory::Own { norm } else { &None };
        let sinks = attention.sinks.as_ref();
        Ok(MixerWeights::Attention {
            qkv: self.matrix(&parts, Stacking::EndToEnd)?,
            bias: self.bias(&parts, 1)?,
            query_norm: optional(&attention.query_norm)?,
            key_norm: optional(own(&attention.key_norm))?,
            value_norm: optional(own(&attention.value_norm))?,
            sinks: sinks.map(|name| self.vector(name, attention.shape.n_heads)).transpose()?,
            output: self.linear(&attention.output)?,
        })
    }

    fn latent_attention(&self, attention: &LatentAttention) -> Result<LatentWeights<B>, LoadError> {
        let LatentAttention { shape, query_latent, query, latent, latent_norm, expansion, output, .. } =
            attention;
        let matrix = |it: &Projection| self.matrix(&[it], Stacking::EndToEnd);
        let before = |(it, norm): &(Projection, Norm)| -> Result<_, LoadError> {
            Ok((self.linear(it)?, self.norm(norm)?))
        };
        let expansion = self.source.projection(expansion)?;
        let (keys, all) = (shape.d_nope, shape.d_nope + shape.d_value);
        let parts = |from, to, stacking| -> Result<Vec<B::Matrix>, LoadError> {
            let of = |head| expansion.slice_rows(head * all + from..head * all + to);
            (0..shape.n_heads).map(|head| self.backend.matrix(&[of(head)], stacking, self.dtype)).collect()
        };
        Ok(LatentWeights {
            query_latent: query_latent.as_ref().map(before).transpose()?,
            query: matrix(query)?,
            query_bias: self.bias(&[query], 1)?,
            latent: matrix(latent)?,
            latent_bias: self.bias(&[latent], 1)?,
            latent_norm: self.norm(latent_norm)?,
            to_latent: parts(0, keys, Stacking::Transposed)?,
            from_latent: parts(keys, all, Stacking::EndToEnd)?,
            output: self.linear(output)?,
        })
    }

    fn mlp(&self, mlp: &Mlp) -> Result<MlpWeights<B>, LoadError> {
        match mlp {
            Mlp::Nothing => Ok(MlpWeights::Nothing),
            Mlp::Dense(dense) => self.feed_forward(dense).map(MlpWeights::Dense),
            Mlp::Sparse(Sparse { inner, .. }) => Ok(MlpWeights::Sparse {
                inputs: inner.inputs().into_iter().map(|it| self.linear(it)).collect::<Result<_, _>>()?,
                down: self.linear(&inner.down)?,
            }),
            Mlp::Beside(beside) => self.beside(beside).map(MlpWeights::Beside),
            Mlp::Experts(Experts { router, correction, experts, shared, shared_gate, .. }) => {
                Ok(MlpWeights::Experts {
                    router: self.unquantized(&[router])?,
                    router_bias: self.bias(&[router], 1)?,
                    correction: correction
                        .as_ref()
                        .map(|it| self.correction(it, experts.len()))
                        .transpose()?,
                    experts: experts.iter().map(|it| self.feed_forward(it)).collect::<Result<_, _>>()?,
                    shared: shared.as_ref().map(|it| self.feed_forward(it)).transpose()?,
                    shared_gate: shared_gate.as_ref().map(|it| self.unquantized(&[it])).transpose()?,
                })
            }
        }
    }

    fn beside(&self, beside: &Beside) -> Result<BesideWeights<B>, LoadError> {
        let Experts { router, experts, .. } = &beside.experts;
        Ok(BesideWeights {
            dense: self.feed_forward(&beside.dense)?,
            dense_norm: self.norm(&beside.dense_norm)?,
            router: self.matrix(&[router], Stacking::EndToEnd)?,
            router_norm: self.norm(&beside.router_norm)?,
            experts: experts.iter().map(|it| self.feed_forward(it)).collect::<Result<_, _>>()?,
            experts_pre_norm: self.norm(&beside.experts_pre_norm)?,
            experts_post_norm: self.norm(&beside.experts_post_norm)?,
            share_scales: self.vector(&beside.share_scales, experts.len())?,
        })
    }

    fn feed_forward(&self, mlp: &FeedForward) -> Result<FeedForwardParams<B>, LoadError> {
        let (inputs, gated) = (mlp.inputs(), mlp.gate.is_some());
        Ok(FeedForwardParams {
            gated,
            up: self.matrix(&inputs, if gated { Stacking::Paired } else { Stacking::EndToEnd })?,
            // Each part is rounded up to whole groups of 16, as paired outputs are.
            up_bias: self.bias(&inputs, 16)?,
            down: self.matrix(&[&mlp.down], Stacking::EndToEnd)?,
            down_bias: self.bias(&[&mlp.down], 1)?,
        })
    }

    fn matrix(&self, parts: &[&Projection], stacking: Stacking) -> Result<B::Matrix, LoadError> {
        let tensors = self.projections(parts)?;
        let kept = match self.quantizing {
            Some(quantizing) => quantizing.of_block(tensors, stacking),
            None => Kept::Plain(tensors),
        };
        Ok(self.scaled(self.kept(kept, stacking)?, parts, stacking))
    }

    fn scaled(&self, matrix: B::Matrix, parts: &[&Projection], stacking: Stacking) -> B::Matrix {
        if parts.iter().all(|it| it.scale.to_bits() == 1.0_f32.to_bits()) {
            return matrix;
        }
        let scales: Vec<_> = parts.iter().map(|it| (it.outputs, it.scale)).collect();
        self.backend.scaled(matrix, &scales, stacking)
    }

    /// A matrix that is kept as the file has it, whatever others are kept in.
    fn unquantized(&self, parts: &[&Projection]) -> Result<B::Matrix, LoadError> {
        let matrix = self.kept(Kept::Plain(self.projections(parts)?), Stacking::EndToEnd)?;
        Ok(self.scaled(matrix, parts, Stacking::EndToEnd))
    }

    fn projections(&self, parts: &[&Projection]) -> Result<Vec<Tensor>, LoadError> {
        parts.iter().map(|it| self.source.projection(it)).collect()
    }

    fn kept(&self, parts: Kept, stacking: Stacking) -> Result<B::Matrix, LoadError> {
        let numbers = |tensor: &Tensor| tensor.rows() * tensor.row_len();
        let (matrix, numbers): (_, usize) = match parts {
            Kept::Blocks(parts) => {
                let matrix = self.backend.quantized(&parts, stacking)?;
                (matrix, parts.iter().map(|it| numbers(&it.tensor)).sum())
            }
            Kept::Plain(parts) => {
                let matrix = self.backend.matrix(&parts, stacking, self.dtype)?;
                (matrix, parts.iter().map(numbers).sum())
            }
        };
        let Weights { numbers: before, bytes } = self.matrices.get();
        let bytes = bytes + self.backend.bytes(&matrix);
        self.matrices.set(Weights { numbers: before + numbers, bytes });
        Ok(matrix)
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
                values.extend(numbers.into_iter().map(|it| it * part.scale));
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

    /// A number for each expert; some files have them as a row.
    fn correction(&self, name: &str, experts: usize) -> Result<B::Vector, LoadError> {
        let tensor = self.source.whole(name)?;
        let shape = if tensor.shape().len() == 2 { vec![1, experts] } else { vec![experts] };
        tensor.expect_shape(&shape)?;
        let values = tensor.to_f32();
        crate::backend::cpu::check_finite(&tensor, 0, &values)?;
        Ok(self.backend.vector(&values))
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
