//! Bringing weights into the layout that [`super::matmul`] reads.

use std::sync::Mutex;

use checkpoint::Tensor;
use half::{bf16, f16};

use super::matmul::{HalfLine, Matrix, PairLine, Panels};
use super::rows::Line;
use super::simd::LANES;
use crate::LoadError;
use crate::backend::{Stacking, WeightDtype};

/// The layout of packed weights.
#[derive(Clone, Copy)]
pub(super) enum Packing {
    /// A line for each value of k.
    Single(WeightDtype),
    /// A line for each two values of k, in bf16.
    Bf16Pairs,
}

/// Packs tensors `[n_i, k]`, stacked, into one matrix.
///
/// Paired tensors alternate panel by panel, gate first, so that a tile holds both halves of its outputs; their
/// output count is rounded up to whole panels.
pub(super) fn pack(parts: &[Tensor], stacking: Stacking, packing: Packing) -> Result<Matrix, LoadError> {
    if stacking == Stacking::Transposed {
        return pack_transposed(&parts[0], packing);
    }
    let k = parts[0].row_len();
    let n: usize = match stacking {
        Stacking::Paired => 2 * parts[0].rows().next_multiple_of(LANES),
        _ => parts.iter().map(Tensor::rows).sum(),
    };
    let ends: Vec<usize> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.rows();
            Some(*end)
        })
        .collect();
    // The tensor and its row that stand behind one output of a panel.
    let source = |panel: usize, lane: usize| -> Option<(&Tensor, usize)> {
        if stacking == Stacking::Paired {
            let part = &parts[panel % 2];
            let row = panel / 2 * LANES + lane;
            return (row < part.rows()).then_some((part, row));
        }
        let output = panel * LANES + lane;
        let part = ends.iter().position(|&end| output < end)?;
        Some((&parts[part], output - (ends[part] - parts[part].rows())))
    };
    let read = |panel: usize, lane: usize, row: &mut [f32]| match source(panel, lane) {
        None => {
            row.fill(0.0);
            Ok(())
        }
        Some((tensor, index)) => {
            tensor.read_row(index, row);
            check_finite(tensor, index, row)
        }
    };
    let panels = pack_panels(n.div_ceil(LANES), k, packing, &read)?;
    for part in parts {
        part.release();
    }
    Ok(Matrix { n, k, panels })
}

/// Packs a small tensor `[k, n]`.
fn pack_transposed(tensor: &Tensor, packing: Packing) -> Result<Matrix, LoadError> {
    let (k, n) = (tensor.rows(), tensor.row_len());
    let numbers = tensor.to_f32();
    for (row, numbers) in numbers.chunks_exact(n).enumerate() {
        check_finite(tensor, row, numbers)?;
    }
    let read = |panel: usize, lane: usize, row: &mut [f32]| {
        let output = panel * LANES + lane;
        for (to, numbers) in row.iter_mut().zip(numbers.chunks_exact(n)) {
            *to = numbers.get(output).copied().unwrap_or(0.0);
        }
        Ok(())
    };
    let panels = pack_panels(n.div_ceil(LANES), k, packing, &read)?;
    tensor.release();
    Ok(Matrix { n, k, panels })
}

/// So many panels of what `read(panel, lane, out)` says of each output.
fn pack_panels(
    count: usize,
    k: usize,
    packing: Packing,
    read: &(impl Fn(usize, usize, &mut [f32]) -> Result<(), LoadError> + Sync),
) -> Result<Panels, LoadError> {
    let bf16_bits = |it: f32| bf16::from_f32(it).to_bits();
    let f16_bits = |it: f32| f16::from_f32(it).to_bits();
    let pair =
        |numbers: &[f32]| numbers.iter().rev().fold(0, |bits, it| bits << 16 | u32::from(bf16_bits(*it)));
    Ok(match packing {
        Packing::Single(WeightDtype::F32) => Panels::F32(fill(count, k, 1, read, |it| it[0], Line)?),
        Packing::Single(WeightDtype::Bf16) => {
            Panels::Bf16(fill(count, k, 1, read, |it| bf16_bits(it[0]), HalfLine)?)
        }
        Packing::Single(WeightDtype::F16) => {
            Panels::F16(fill(count, k, 1, read, |it| f16_bits(it[0]), HalfLine)?)
        }
        Packing::Bf16Pairs => Panels::Bf16Pairs(fill(count, k, 2, read, pair, PairLine)?),
    })
}

/// The lines of all panels; an element of a line holds `step` neighbouring numbers of an output, or what is left.
fn fill<E: Copy + Default + Send, L: Copy + Default + Send>(
    panels: usize,
    k: usize,
    step: usize,
    read: &(impl Fn(usize, usize, &mut [f32]) -> Result<(), LoadError> + Sync),
    convert: impl Fn(&[f32]) -> E + Sync,
    line: impl Fn([E; LANES]) -> L + Sync,
) -> Result<Vec<L>, LoadError> {
    use rayon::prelude::*;
    let steps = k.div_ceil(step);
    let mut lines = vec![L::default(); panels * steps];
    let bad: Mutex<Option<LoadError>> = Mutex::new(None);
    lines.par_chunks_mut(steps.max(1)).enumerate().for_each_init(
        || vec![0.0_f32; LANES * k],
        |rows, (panel, lines)| {
            for lane in 0..LANES {
                let row = &mut rows[lane * k..(lane + 1) * k];
                if let Err(error) = read(panel, lane, row) {
                    bad.lock().expect("no thread panics while it holds this").get_or_insert(error);
                }
            }
            for (at, out) in lines.iter_mut().enumerate() {
                let (from, to) = (at * step, k.min((at + 1) * step));
                *out = line(std::array::from_fn(|lane| convert(&rows[lane * k..][from..to])));
            }
        },
    );
    bad.into_inner().expect("no thread panics while it holds this").map_or(Ok(lines), Err)
}

/// Refuses a row of weights with an infinite number or NaN.
pub(crate) fn check_finite(tensor: &Tensor, row: usize, values: &[f32]) -> Result<(), LoadError> {
    match values.iter().position(|it| !it.is_finite()) {
        None => Ok(()),
        Some(column) => {
            Err(LoadError::NotFinite { tensor: tensor.name().to_owned(), row, column, value: values[column] })
        }
    }
}

/// Numbers as whole lines, the last one filled up with zeros.
pub(super) fn lines(values: &[f32]) -> Vec<Line> {
    values
        .chunks(LANES)
        .map(|chunk| {
            let mut line = Line::default();
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        })
        .collect()
}
