//! What weights are kept in when they are kept in fewer bits than the file has: which tensors, and in which blocks.
//!
//! The search needs the weights only for products: an edit is a function of a layer's output, so that a trial costs the
//! same and means the same whatever the weights are kept in. Kept in blocks are the matrices of all blocks, of experts,
//! of further streams, and the head. Not rounded are norms, biases, routers, which decide more than they weigh, and the
//! embedding, whose rows are read from the file as they are needed.
//!
//! | tensor | `q8_0` | `q4_k` |
//! |---|---|---|
//! | of a block, rows of whole 256 | Q8_0 | Q4_K |
//! | of a block, rows of whole 32 | Q8_0 | Q8_0 |
//! | other rows | as without quantization | the same |
//! | head | Q8_0 | Q8_0 |
//!
//! (llama.cpp has Q5_0 in place of Q8_0 where rows are not whole 256, F16 for other rows, and Q6_K for heads.)
//!
//! **What a file has in blocks is not rounded again** where that can be had: Q4_K stays Q4_K in both columns, Q8_0 stays
//! Q8_0 in the first. In a file most of whose blocks' weights are Q4_K, as in llama.cpp's `Q4_K_M`, the others were left
//! finer on purpose: they become (or stay) Q8_0 in the second column, too. For a matrix that is stacked of tensors with
//! different blocks and no multiple of 16 rows, Q8_0 serves all.

use checkpoint::{Checkpoint, Quantization, Tensor, TensorDtype};

use crate::backend::{QuantizedPart, Stacking};

/// The tensors of a matrix, and how they are kept.
pub(crate) enum Kept {
    /// In blocks.
    Blocks(Vec<QuantizedPart>),
    /// As without quantization.
    Plain(Vec<Tensor>),
}

/// How the weights of one checkpoint are quantized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantizing {
    wanted: Quantization,
    /// Whether the file holds most of its blocks' weights in Q4_K.
    mixed: bool,
}

impl Quantizing {
    /// What is wanted of a checkpoint; `outside` are the names of tensors that belong to no block, in the file's words.
    pub(crate) fn new(wanted: Quantization, checkpoint: &Checkpoint, outside: &[&str]) -> Self {
        let mut weights = [0_usize; TensorDtype::ALL.len()];
        for name in checkpoint.names().filter(|it| !outside.contains(it)) {
            let Ok(tensor) = checkpoint.tensor(name) else { continue };
            // Rows that cannot be Q4_K say nothing of what was preferred.
            if tensor.shape().len() > 1 && tensor.row_len().is_multiple_of(256) {
                let place = TensorDtype::ALL.iter().position(|&it| it == tensor.dtype());
                weights[place.expect("all of them are there")] += tensor.rows() * tensor.row_len();
            }
        }
        let most = weights.iter().zip(TensorDtype::ALL).max_by_key(|it| it.0);
        Self { wanted, mixed: most.is_some_and(|(&count, it)| count > 0 && it == TensorDtype::Q4_K) }
    }

    /// What the tensors of a block's matrix are kept in.
    pub(crate) fn of_block(self, parts: Vec<Tensor>, stacking: Stacking) -> Kept {
        self.stacked(parts, stacking, self.wanted)
    }

    /// What the head is kept in.
    pub(crate) fn of_head(self, head: Tensor) -> Kept {
        self.stacked(vec![head], Stacking::EndToEnd, Quantization::Q8_0)
    }

    fn stacked(self, parts: Vec<Tensor>, stacking: Stacking, wanted: Quantization) -> Kept {
        let kept: Option<Vec<_>> = parts.iter().map(|it| self.blocks(it, wanted)).collect();
        let Some(mut kept) = kept else { return Kept::Plain(parts) };
        let alike = kept.windows(2).all(|it| it[0] == it[1]);
        let whole_panels =
            stacking == Stacking::EndToEnd && parts.iter().all(|it| it.rows().is_multiple_of(16));
        if !alike && !whole_panels {
            kept.fill(Quantization::Q8_0);
        }
        let part = |(tensor, quantization)| QuantizedPart { tensor, quantization };
        Kept::Blocks(parts.into_iter().zip(kept).map(part).collect())
    }

    /// The blocks of a tensor, if its rows are whole ones.
    fn blocks(self, tensor: &Tensor, wanted: Quantization) -> Option<Quantization> {
        let own = Quantization::ALL.into_iter().find(|it| it.is_that_of(tensor));
        let chosen = match (own, wanted) {
            (Some(Quantization::Q4_K), _) => Quantization::Q4_K,
            (_, Quantization::Q4_K) if self.mixed && tensor.dtype().is_quantized() => Quantization::Q8_0,
            _ => wanted,
        };
        let whole = |it: &Quantization| it.dtype().row_bytes(tensor.row_len()).is_some_and(|it| it > 0);
        [chosen, Quantization::Q8_0].into_iter().find(whole)
    }
}
