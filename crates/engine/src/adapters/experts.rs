//! Factors of a parameter that all experts of a layer share.
//!
//! Of E experts peft has one matrix A `[E r, inputs]`, the rows of one expert after those of another, and one B
//! `[outputs, E r]`, in which the columns of all experts alternate: column `j E + e` is the j-th of expert e. Which dimension of
//! the parameter is the inputs changed with peft's versions; the shapes of the factors tell.

use checkpoint::adapter::{Adapter, AdapterError, Change, Factors, Part};
use checkpoint::{Checkpoint, Tensor};

use super::flipped;
use crate::LoadError;
use crate::blueprint::{FeedForward, Projection};

/// The tensors of a parameter.
pub(super) struct OfExperts {
    /// `module.parameter`
    name: String,
    count: usize,
    /// Whether the parameter is `[experts, inputs, outputs]`.
    transposed: bool,
    pieces: Vec<Piece>,
}

/// Some rows or all of an expert's part of the parameter.
struct Piece {
    tensor: String,
    expert: usize,
    /// Rows of the parameter.
    from: usize,
    /// Rows of the tensor.
    first: usize,
    rows: usize,
}

impl OfExperts {
    /// `own`: the projections of an expert that the parameter holds, in order; `stored`: the tensor of one.
    pub(super) fn new<'a>(
        name: &str,
        experts: &'a [FeedForward],
        own: impl Fn(&'a FeedForward) -> Vec<&'a Projection>,
        stored: impl Fn(&Projection) -> Option<String>,
    ) -> Option<Self> {
        let (mut pieces, mut transposed) = (Vec::new(), false);
        for (expert, it) in experts.iter().enumerate() {
            let projections = own(it);
            let first = projections.first()?;
            // One tensor that holds them all as the parameter does.
            let together = projections.iter().all(|it| it.weight == first.weight);
            if let (Some(share), true) = (&first.share, together) {
                transposed = share.transposed;
                let rows = if share.transposed { first.inputs } else { share.of };
                pieces.push(Piece { tensor: stored(first)?, expert, from: 0, first: expert * rows, rows });
                continue;
            }
            let mut from = 0;
            for projection in projections {
                let rows = projection.outputs;
                let place = projection.share.as_ref().map_or(Some(0), |share| {
                    let plain = !share.transposed && share.step == 1 && share.together == 1;
                    plain.then_some(expert * share.of + share.first)
                });
                pieces.push(Piece { tensor: stored(projection)?, expert, from, first: place?, rows });
                from += rows;
            }
        }
        Some(Self { name: name.to_owned(), count: experts.len(), transposed, pieces })
    }

    pub(super) fn tensor(&self) -> &str {
        self.pieces.first().map_or("", |it| &it.tensor)
    }

    pub(super) fn changes(
        &self,
        checkpoint: &Checkpoint,
        adapter: &Adapter,
        part: &Part,
        factors: &Factors,
    ) -> Result<Vec<Change>, LoadError> {
        let count = self.count;
        let all = factors.down.rows();
        if !all.is_multiple_of(count) || factors.magnitude.is_some() || factors.bias.is_some() {
            let what = format!("factors of rank {all} are none of {count} experts");
            return Err(adapter.unusable(part, what).into());
        }
        let rank = all / count;
        let scale = adapter.scale(&self.name, rank)?;
        let (inputs, outputs) = (factors.down.row_len(), factors.up.rows());
        let (down, up) = (factors.down.to_f32(), factors.up.to_f32());
        let rows_of_one: usize = self.pieces.iter().filter(|it| it.expert == 0).map(|it| it.rows).sum();
        let mut changes = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let width = checkpoint.tensor(&piece.tensor)?.row_len();
            let down = &down[piece.expert * rank * inputs..][..rank * inputs];
            let column = |row: usize, j: usize| up[row * all + j * count + piece.expert];
            let own_up: Vec<f32> = (0..outputs)
                .flat_map(|row| (0..rank).map(move |j| (row, j)))
                .map(|(r, j)| column(r, j))
                .collect();
            // Where both ways fit, that of this parameter's layout: files of gpt-oss are [inputs, outputs].
            let plain = (inputs, outputs) == (width, rows_of_one);
            let flip = (outputs, inputs) == (width, rows_of_one);
            let (up, down) = match (plain, flip) {
                (true, _) if !(flip && self.transposed) => (own_up, down.to_vec()),
                (_, true) => (flipped(down, rank), flipped(&own_up, outputs)),
                _ => {
                    let what = format!(
                        "factors {:?} and {:?} do not fit experts of {rows_of_one} × {width}",
                        factors.down.shape(),
                        factors.up.shape()
                    );
                    return Err(adapter.unusable(part, what).into());
                }
            };
            let up = up[piece.from * rank..][..piece.rows * rank].to_vec();
            changes.push(Change::add(
                &piece.tensor,
                piece.first..piece.first + piece.rows,
                rank,
                up,
                down,
                scale,
            ));
        }
        Ok(changes)
    }
}

/// The changes of a tensor of all experts, `[experts, rows, width]`, by factors of each, `[experts, rank, width]` and
/// `[experts, rows, rank]`: those of GGUF adapters.
pub(super) fn stacked(
    adapter: &Adapter,
    part: &Part,
    factors: &Factors,
    base: &Tensor,
    [count, rows, width]: [usize; 3],
) -> Result<Vec<Change>, AdapterError> {
    let rank = factors.down.shape()[1];
    super::expect_shape(adapter, part, &factors.down, &[count, rank, width])?;
    super::expect_shape(adapter, part, &factors.up, &[count, rows, rank])?;
    let scale = adapter.scale(&part.module, rank)?;
    let (down, up) = (factors.down.to_f32(), factors.up.to_f32());
    let change = |expert: usize| {
        let down = down[expert * rank * width..][..rank * width].to_vec();
        let up = up[expert * rows * rank..][..rows * rank].to_vec();
        Change::add(base.name(), expert * rows..(expert + 1) * rows, rank, up, down, scale)
    };
    Ok((0..count).map(change).collect())
}
