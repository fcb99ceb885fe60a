//! Latent attention: linear layers of heads, what is kept of a token, and scores with it.
//!
//! All heads attend to the same keys, whose first numbers are the values. So a position lies in one piece, `[d_kept]`,
//! and a score is a sum across lanes: 16 chains of multiply-adds in order of the numbers, summed as always the same
//! tree. It depends neither on the positions beside it nor on the heads that are computed together.

use super::attention::{HeadGroup, Pages, TOGETHER, for_chunks, scaled};
use super::matmul::{self, Group, Matrix};
use super::rotary::{self, Angles};
use super::rows::Rows;
use super::rowwise::NormView;
use super::simd::{Isa, LANES, Simd};
use crate::backend::{Arithmetic, LatentShape};
use crate::plan::Plan;

/// See [`Backend::linear_by_head`](crate::backend::Backend::linear_by_head).
pub(super) fn linear_by_head(
    isa: Isa,
    arithmetic: Arithmetic,
    x: &Rows,
    weights: &[Matrix],
    rounded: &mut Rows,
    out: &mut Rows,
) {
    let (heads, Matrix { n, k, .. }) = (weights.len(), &weights[0]);
    let width = x.cols() / heads;
    let to_width = n + width - k;
    assert_eq!((x.cols(), out.cols()), (heads * width, heads * to_width), "heads side by side");
    out.resize(x.rows());
    let shared = out.shared();
    // What products do not make.
    if width > *k {
        super::parallel_rows(x.rows(), super::ROW_GRAIN, |row| {
            for (head, numbers) in x.row(row).chunks_exact(width).enumerate() {
                let rest = &numbers[*k..];
                // SAFETY: each task has its own row; a head's rest follows on its outputs.
                unsafe {
                    let to = shared.at(row, head * to_width + n);
                    to.copy_from_nonoverlapping(rest.as_ptr(), rest.len());
                }
            }
        });
    }
    let (input, column) = match arithmetic {
        Arithmetic::F32 => (x, width),
        Arithmetic::Bf16 => {
            super::rounding::round_heads(isa, x, weights, rounded);
            (&*rounded, weights[0].steps())
        }
    };
    let group = |head: usize| {
        let weights = &weights[head];
        assert_eq!((weights.n, weights.k), (*n, *k), "layers of one shape");
        Group { weights, first: 0, rows: x.rows(), column: head * column }
    };
    matmul::grouped_product_tiles(isa, input, heads, group, 1, |done| {
        let count = (done.panels * LANES).min(n - done.panel * LANES);
        for row in 0..done.rows {
            // SAFETY: each task has its own rows and outputs of a head, all of them within the head.
            unsafe {
                let to = shared.at(done.row + row, done.group * to_width + done.panel * LANES);
                to.copy_from_nonoverlapping(done.y.add(row * done.stride), count);
            }
        }
    });
}

/// See [`Backend::rotate_and_store_latents`](crate::backend::Backend::rotate_and_store_latents).
#[expect(clippy::too_many_arguments, reason = "operands and what is done to them")]
pub(super) fn rotate_and_store(
    isa: Isa,
    query: &mut Rows,
    kept: &mut Rows,
    shape: &LatentShape,
    norm: &NormView<'_>,
    angles: &mut Angles,
    plan: &Plan,
    pages: &mut Pages,
) {
    assert_eq!(query.cols(), shape.n_heads * shape.d_query(), "queries side by side");
    assert_eq!(kept.cols(), shape.d_kept(), "a latent and a key");
    angles.reach(plan.positions.iter().max().map_or(0, |&it| it as usize + 1));
    let (rows, columns) = (query.rows(), (query.cols(), kept.cols()));
    let (query, kept, angles, pages) = (query.shared(), kept.shared(), &*angles, &*pages);
    super::parallel_rows(rows, super::ROW_GRAIN, |row| {
        // SAFETY: each task has its own row of both.
        let (query, kept) = unsafe {
            let query = std::slice::from_raw_parts_mut(query.at(row, 0), columns.0);
            (query, std::slice::from_raw_parts_mut(kept.at(row, 0), columns.1))
        };
        let position = plan.positions[row] as usize;
        for head in query.chunks_exact_mut(shape.d_query()) {
            angles.rotate(isa, &mut head[shape.d_nope..], position);
        }
        let (latent, key) = kept.split_at_mut(shape.d_latent);
        rotary::norm_heads(isa, latent, norm);
        angles.rotate(isa, key, position);
        for slot in std::iter::once(plan.slots[row]).chain(plan.echoes(row)) {
            // SAFETY: each row has its own slots.
            unsafe { pages.store_in_line(slot.page, slot.offset, 0, kept) }
        }
    });
}

/// Positions whose scores are summed together.
const POSITIONS: usize = 4;

/// Scores of a row's visible positions for H query heads.
///
/// # Safety
/// As in [`super::attention::attend`]; queries are of the group, scores have room for what it sees.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, const H: usize>(
    group: &HeadGroup<'_>,
    query: [*const f32; H],
    scores: [*mut f32; H],
) {
    let (lines, d_head) = (group.pages.stride(), group.shape.d_head);
    // SAFETY: behind the scores there is room for queries filled up to whole lines, as those of the keys are.
    unsafe {
        let filled = group.scores.add(TOGETHER * group.score_stride);
        for (h, query) in query.into_iter().enumerate() {
            let to = filled.add(h * lines * LANES);
            to.copy_from_nonoverlapping(query, d_head);
            for i in d_head..lines * LANES {
                to.add(i).write(0.0);
            }
        }
        for_chunks(group, |page, skip, take, at| {
            let keys = group.pages.head(page, group.kv_head);
            let mut done = 0;
            while done < take {
                let key = keys.add((skip + done) * lines * LANES);
                let to = scores.map(|it| it.add(at + done));
                if take - done >= POSITIONS {
                    products::<S, H, POSITIONS>(lines, filled, key, to);
                    done += POSITIONS;
                } else {
                    products::<S, H, 1>(lines, filled, key, to);
                    done += 1;
                }
            }
        });
        for scores in scores {
            for line in (0..group.end - group.from).step_by(LANES) {
                let to = scores.add(line);
                S::store(to, scaled::<S>(group.shape, S::load(to)));
            }
        }
    }
}

/// Products of H queries with the keys of T positions, all of so many lines, one after the other.
#[inline(always)]
unsafe fn products<S: Simd, const H: usize, const T: usize>(
    lines: usize,
    query: *const f32,
    key: *const f32,
    to: [*mut f32; H],
) {
    // SAFETY: the caller's pointers cover as many lines, and a number for each position.
    unsafe {
        let mut sums = [[S::splat(0.0); T]; H];
        for line in 0..lines {
            let mut keys = [S::splat(0.0); T];
            for (t, it) in keys.iter_mut().enumerate() {
                *it = S::load(key.add((t * lines + line) * LANES));
            }
            for (h, sums) in sums.iter_mut().enumerate() {
                let query = S::load(query.add((h * lines + line) * LANES));
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = S::fma(query, key, *sum);
                }
            }
        }
        for (to, sums) in to.into_iter().zip(sums) {
            for (t, sum) in sums.into_iter().enumerate() {
                to.add(t).write(S::sum(sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PAGE;

    #[test]
    fn a_page_holds_one_vector_of_each_position_however_many_heads_there_are() {
        let of = |n_heads| LatentShape {
            n_heads,
            d_latent: 512,
            d_nope: 128,
            d_rope: 64,
            d_value: 128,
            scale: 1.0,
        };
        for n_heads in [1, 16, 128] {
            let pages = Pages::new(&of(n_heads).over_latents());
            assert_eq!(pages.head_lines() * LANES, PAGE * 576);
        }
    }
}
