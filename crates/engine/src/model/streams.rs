//! The weights of further streams, and of what is beside a block's branches.

use super::Loader;
use crate::LoadError;
use crate::backend::{Backend, NormParams, Stacking};
use crate::blueprint::{Laurel, Projection, StreamUpdate, Streams};

pub(crate) struct StreamsWeights<B: Backend> {
    pub(crate) beginnings: Vec<B::Matrix>,
    pub(crate) endings: Vec<B::Matrix>,
}

pub(crate) struct UpdateWeights<B: Backend> {
    pub(crate) router_norm: NormParams<B::Vector>,
    pub(crate) router: B::Matrix,
    /// `[streams, streams, streams]`
    pub(crate) prediction: B::Vector,
    /// `[streams, streams]`
    pub(crate) correction: B::Vector,
}

pub(crate) struct LaurelWeights<B: Backend> {
    pub(crate) left: B::Matrix,
    pub(crate) right: B::Matrix,
    pub(crate) norm: NormParams<B::Vector>,
}

impl<B: Backend> Loader<'_, B> {
    pub(super) fn streams(&self, streams: &Streams) -> Result<StreamsWeights<B>, LoadError> {
        let all = |them: &[Projection]| {
            them.iter().map(|it| self.matrix(&[it], Stacking::EndToEnd)).collect::<Result<_, _>>()
        };
        Ok(StreamsWeights { beginnings: all(&streams.beginnings)?, endings: all(&streams.endings)? })
    }

    pub(super) fn update(&self, update: &StreamUpdate) -> Result<UpdateWeights<B>, LoadError> {
        let StreamUpdate { router_norm, router, prediction, correction } = update;
        let count = router.outputs;
        // They are few, and decide more than they weigh: kept in f32, whatever the others are kept in.
        let coefficients = |name: &str, rows: usize| -> Result<B::Vector, LoadError> {
            let tensor = self.source.tensor(name, &[rows, count])?;
            let values = tensor.to_f32();
            for (row, values) in values.chunks(count).enumerate() {
                crate::backend::cpu::check_finite(&tensor, row, values)?;
            }
            Ok(self.backend.vector(&values))
        };
        Ok(UpdateWeights {
            router_norm: self.norm(router_norm)?,
            router: self.unquantized(&[router])?,
            prediction: coefficients(prediction, count * count)?,
            correction: coefficients(correction, count)?,
        })
    }

    pub(super) fn laurel(&self, laurel: &Laurel) -> Result<LaurelWeights<B>, LoadError> {
        Ok(LaurelWeights {
            left: self.matrix(&[&laurel.left], Stacking::EndToEnd)?,
            right: self.matrix(&[&laurel.right], Stacking::EndToEnd)?,
            norm: self.norm(&laurel.norm)?,
        })
    }
}
