//! Bringing weights into the layout that [`super::matmul`] reads.

use std::sync::Mutex;

use checkpoint::{Quantization, SuperBlock, Tensor};
use half::{bf16, f16};

use super::blocks::{self, Blocks, GROUP, Piece, Q4K, Q8_0};
use super::matmul::{HalfLine, Matrix, PairLine, Panels};
use super::rows::Line;
use super::simd::LANES;
use crate::LoadError;
use crate::backend::{QuantizedPart, Stacking, WeightDtype};

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
    let rows = Outputs::new(parts.iter().map(Tensor::rows), stacking);
    let n = rows.count;
    let read = |panel: usize, lane: usize, row: &mut [f32]| match rows.source(panel, lane) {
        None => {
            row.fill(0.0);
            Ok(())
        }
        Some((part, index)) => {
            parts[part].read_row(index, row);
            check_finite(&parts[part], index, row)
        }
    };
    let panels = pack_panels(n.div_ceil(LANES), k, packing, &read)?;
    for part in parts {
        part.release();
    }
    Ok(Matrix::new(n, k, panels))
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
    Ok(Matrix::new(n, k, panels))
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

/// The outputs of stacked tensors.
struct Outputs {
    /// Where each tensor's outputs end.
    ends: Vec<usize>,
    stacking: Stacking,
    /// All of them, with those that fill up panels between paired tensors.
    count: usize,
}

impl Outputs {
    fn new(rows: impl Iterator<Item = usize>, stacking: Stacking) -> Self {
        let ends: Vec<usize> = rows
            .scan(0, |end, rows| {
                *end += rows;
                Some(*end)
            })
            .collect();
        let count = match stacking {
            Stacking::EndToEnd | Stacking::Transposed => ends.last().copied().unwrap_or(0),
            Stacking::Paired => 2 * ends[0].next_multiple_of(LANES),
        };
        Self { ends, stacking, count }
    }

    /// The tensor and its row that stand behind one output of a panel, if any do.
    fn source(&self, panel: usize, lane: usize) -> Option<(usize, usize)> {
        let begin = |part: usize| if part == 0 { 0 } else { self.ends[part - 1] };
        match self.stacking {
            Stacking::EndToEnd | Stacking::Transposed => {
                let output = panel * LANES + lane;
                let part = self.ends.iter().position(|&end| output < end)?;
                Some((part, output - begin(part)))
            }
            Stacking::Paired => {
                let part = panel % 2;
                let row = panel / 2 * LANES + lane;
                (row < self.ends[part] - begin(part)).then_some((part, row))
            }
        }
    }
}

/// Packs tensors that are kept in blocks.
pub(super) fn pack_blocks(parts: &[QuantizedPart], stacking: Stacking) -> Result<Matrix, LoadError> {
    let k = parts[0].tensor.row_len();
    if parts.iter().any(|it| it.quantization != parts[0].quantization) {
        assert_eq!(stacking, Stacking::EndToEnd, "different blocks cannot be paired");
        let all = parts.iter().map(|it| pack_blocks(std::slice::from_ref(it), stacking));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        assert!(all.iter().all(|it| it.n.is_multiple_of(LANES)), "different blocks need whole panels");
        return Ok(Matrix::new(all.iter().map(|it| it.n).sum(), k, Panels::Several(all)));
    }
    let rows = Outputs::new(parts.iter().map(|it| it.tensor.rows()), stacking);
    let panels = match parts[0].quantization {
        Quantization::Q8_0 => Panels::Q8_0(fill_blocks::<Q8_0>(parts, &rows, lay_out_q8_0)?),
        Quantization::Q4_K => Panels::Q4K(fill_blocks::<Q4K>(parts, &rows, lay_out_q4_k)?),
    };
    for part in parts {
        part.tensor.release();
    }
    Ok(Matrix::new(rows.count, k, panels))
}

/// A line for each panel of stacked tensors, with a number for the outputs `(outputs, by)` of each of them.
pub(super) fn scales(parts: &[(usize, f32)], stacking: Stacking) -> Vec<Line> {
    let rows = Outputs::new(parts.iter().map(|it| it.0), stacking);
    let number = |panel, lane| rows.source(panel, lane).map_or(0.0, |(part, _)| parts[part].1);
    (0..rows.count.div_ceil(LANES))
        .map(|panel| Line(std::array::from_fn(|lane| number(panel, lane))))
        .collect()
}

/// The pieces of all panels; `lay_out` puts the blocks of one output into its lane.
fn fill_blocks<B: Blocks>(
    parts: &[QuantizedPart],
    rows: &Outputs,
    lay_out: impl Fn(&[u8], usize, &mut [u8]) + Sync,
) -> Result<Vec<Piece>, LoadError> {
    use rayon::prelude::*;
    let k = parts[0].tensor.row_len();
    let size = B::panel_bytes(k) / size_of::<Piece>();
    let mut pieces = vec![Piece::default(); rows.count.div_ceil(LANES) * size];
    pieces.par_chunks_mut(size.max(1)).enumerate().try_for_each_init(
        || (vec![0.0_f32; k], vec![0_u8; parts[0].row_bytes()]),
        |(numbers, bytes), (panel, pieces)| {
            for lane in 0..LANES {
                // What stands behind no output stays zero.
                let Some((part, row)) = rows.source(panel, lane) else { continue };
                parts[part].read(row, numbers, bytes)?;
                lay_out(bytes, lane, blocks::bytes_mut(pieces));
            }
            Ok::<_, LoadError>(())
        },
    )?;
    Ok(pieces)
}

fn lay_out_q8_0(row: &[u8], lane: usize, panel: &mut [u8]) {
    for (block, to) in row.as_chunks::<34>().0.iter().zip(panel.chunks_mut(Q8_0::SIZE.1)) {
        to[2 * lane..][..2].copy_from_slice(&block[..2]);
        for (i, integer) in block[2..].iter().enumerate() {
            to[Q8_0::INTEGERS + i * LANES + lane] = *integer;
        }
    }
}

fn lay_out_q4_k(row: &[u8], lane: usize, panel: &mut [u8]) {
    for (index, block) in row.as_chunks().0.iter().enumerate() {
        let block = SuperBlock::of_bytes(block);
        let halves = &mut panel[index * Q4K::SIZE.1..][..Q4K::GROUPS];
        halves[2 * lane..][..2].copy_from_slice(&block.d.to_le_bytes());
        halves[2 * (LANES + lane)..][..2].copy_from_slice(&block.dmin.to_le_bytes());
        for (group, numbers) in block.numbers.chunks(GROUP).enumerate() {
            let to = &mut panel[Q4K::place(8 * index + group)..];
            (to[lane], to[LANES + lane]) = (block.scales[group], block.minima[group]);
            for (pair, numbers) in numbers.as_chunks::<2>().0.iter().enumerate() {
                to[Q4K::INTEGERS + pair * LANES + lane] = numbers[0] | numbers[1] << 4;
            }
        }
    }
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
