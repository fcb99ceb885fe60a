//! Ragged attention over a paged cache: each row over its own context, nothing padded.
//!
//! A page holds 16 positions. Keys lie transposed, `[d_head][16]`, so that the scores of 16 positions come from
//! one multiply-add per number of the query and no sum across lanes; values lie as `[16][d_value]`. The query
//! heads that share a key/value head are computed together: each key and value is read once for all of them.
//!
//! Where values are a part of their keys ([`Values::OfKeys`]), positions lie as `[16][d_head]`, once for both uses, and
//! scores are sums across lanes ([`super::latent`]); everything else is the same.
//!
//! Every score is one chain of multiply-adds, or 16 and their sum as always the same tree; scores are gathered in order of position before the softmax, and
//! values are added in order of position. So the bits depend neither on the batch nor on how positions are cut
//! into pages.

use super::rows::{Line, Rows, Shared, Slabs};
use super::simd::{LANES, Simd, with_isa};
use crate::backend::{AttentionShape, Values};
use crate::plan::{Chunk, PAGE};

const _: () = assert!(PAGE == LANES, "a line holds one number of each position of a page");

/// The keys and values of one layer. Writes go through [`Pages::store`], whose callers promise to own the slot; reads
/// happen in other operations, after all writes.
pub struct Pages {
    slabs: Slabs,
    /// Lines of a head's keys before its values; 0 where these are a part of them.
    key_lines: usize,
    /// From one position's value to the next.
    value_stride: usize,
    n_kv_heads: usize,
}

impl Pages {
    pub(super) fn new(shape: &AttentionShape) -> Self {
        let key_lines = match shape.values {
            Values::Own(_) => shape.d_head,
            Values::OfKeys(_) => 0,
        };
        // What lies by position: values, or whole keys where these hold them.
        let by_position = match shape.values {
            Values::Own(width) => width,
            Values::OfKeys(_) => shape.d_head,
        };
        let value_stride = by_position.div_ceil(LANES);
        let slabs = Slabs::new(shape.n_kv_heads * (key_lines + PAGE * value_stride));
        Self { slabs, key_lines, value_stride, n_kv_heads: shape.n_kv_heads }
    }

    /// Key/value heads, lines of a head's keys, lines of a value: what a page is laid out by.
    pub(super) fn layout(&self) -> [usize; 3] {
        [self.n_kv_heads, self.key_lines, self.value_stride]
    }

    /// The same for an attention.
    pub(super) fn layout_of(shape: &AttentionShape) -> [usize; 3] {
        Self::new(shape).layout()
    }

    /// Lines of one head: keys, then values.
    pub(super) fn head_lines(&self) -> usize {
        self.key_lines + PAGE * self.value_stride
    }

    pub(super) fn reserve(&mut self, pages: usize) {
        self.slabs.reserve(pages);
    }

    /// Lines from one position to the next, where they lie one after the other.
    pub(super) fn stride(&self) -> usize {
        self.value_stride
    }

    /// A head's keys in a page; its values follow after `key_lines` lines.
    pub(super) fn head(&self, page: u32, head: usize) -> *mut f32 {
        // SAFETY: a page has so many lines for each head.
        unsafe { self.slabs.at(page).add(head * self.head_lines() * LANES) }
    }

    /// Stores one position's key and value of a head.
    ///
    /// # Safety
    /// No other thread may touch this slot, and none may read the pages meanwhile.
    pub(super) unsafe fn store(&self, page: u32, offset: u32, head: usize, key: &[f32], value: &[f32]) {
        let start = self.head(page, head);
        // SAFETY: the head's lines lie behind the pointer; the slot is this thread's own.
        unsafe {
            for (d, key) in key.iter().enumerate() {
                start.add(d * LANES + offset as usize).write(*key);
            }
        }
        // SAFETY: as above.
        unsafe { self.store_in_line(page, offset, head, value) }
    }

    /// Stores one position's value of a head, or its key where the value is a part of that.
    ///
    /// # Safety
    /// No other thread may touch this slot, and none may read the pages meanwhile.
    pub(super) unsafe fn store_in_line(&self, page: u32, offset: u32, head: usize, numbers: &[f32]) {
        let start = self.head(page, head);
        // SAFETY: the head's lines lie behind the pointer; the slot is this thread's own.
        unsafe {
            let values = start.add((self.key_lines + offset as usize * self.value_stride) * LANES);
            for (d, value) in numbers.iter().enumerate() {
                values.add(d).write(*value);
            }
            for d in numbers.len()..self.value_stride * LANES {
                values.add(d).write(0.0);
            }
        }
    }
}

/// The attention of one row for query heads of one key/value head.
pub(super) struct HeadGroup<'a> {
    pub(super) pages: &'a Pages,
    pub(super) shape: &'a AttentionShape,
    pub(super) chunks: &'a [Chunk],
    /// Positions that the row sees: from the first to before the end.
    pub(super) from: usize,
    pub(super) end: usize,
    pub(super) kv_head: usize,
    /// How many query heads.
    pub(super) heads: usize,
    /// The group's query heads, side by side.
    pub(super) query: *const f32,
    /// Scores of a position with value zero, one for each query head.
    pub(super) sinks: Option<&'a [f32]>,
    /// Room for `TOGETHER × score_stride` numbers, and behind it for as many queries filled up to whole lines.
    pub(super) scores: *mut f32,
    pub(super) score_stride: usize,
    /// `[group][d_value]`
    pub(super) out: *mut f32,
}

/// Numbers that a head's scores may take: the visible positions, and a page more for stores of whole lines.
pub(super) fn score_stride(positions: usize) -> usize {
    positions.next_multiple_of(LANES) + LANES
}

/// Query heads whose sums are in registers together.
pub(super) const TOGETHER: usize = 4;

/// Query heads of a task. With a hundred of them on one key, a row would be too much for one thread.
const HEADS_OF_TASK: usize = 4 * TOGETHER;

#[inline(always)]
unsafe fn attend_kernel<S: Simd>(group: &HeadGroup<'_>) {
    let mut first = 0;
    while first < group.heads {
        // SAFETY: as promised by the caller of `attend`.
        unsafe {
            match (group.heads - first).min(TOGETHER) {
                1 => attend_heads::<S, 1>(group, first),
                2 => attend_heads::<S, 2>(group, first),
                3 => attend_heads::<S, 3>(group, first),
                _ => attend_heads::<S, TOGETHER>(group, first),
            }
        }
        first += TOGETHER;
    }
}
with_isa! {
    /// Attention of one row for one group of query heads.
    pub(super) unsafe fn attend(group: &HeadGroup<'_>) = attend_kernel
}

#[inline(always)]
unsafe fn attend_heads<S: Simd, const H: usize>(group: &HeadGroup<'_>, first: usize) {
    let d_head = group.shape.d_head;
    let visible = group.end - group.from;
    // SAFETY: queries, scores and output cover the group; chunks name pages that exist.
    unsafe {
        let query: [*const f32; H] = std::array::from_fn(|h| group.query.add((first + h) * d_head));
        let scores: [*mut f32; H] = std::array::from_fn(|h| group.scores.add(h * group.score_stride));

        match group.shape.values {
            Values::Own(_) => for_chunks(group, |page, skip, take, at| {
                page_scores::<S, H>(group, page, query, |h, line| {
                    if skip == 0 {
                        // Numbers past `take` are overwritten by the next chunk or by the fill below.
                        S::store(scores[h].add(at), line);
                    } else {
                        let mut lanes = [0.0_f32; LANES];
                        S::store(lanes.as_mut_ptr(), line);
                        std::ptr::copy_nonoverlapping(lanes.as_ptr().add(skip), scores[h].add(at), take);
                    }
                });
            }),
            Values::OfKeys(_) => super::latent::scores::<S, H>(group, query, scores),
        }

        let mut scale = [0.0_f32; H];
        for h in 0..H {
            let sink = group.sinks.map(|it| it[first + h]);
            scale[h] = 1.0 / exponentials::<S>(scores[h], visible, sink);
        }

        let value_lines = group.shape.d_value().div_ceil(LANES);
        let mut line = 0;
        while line < value_lines {
            let lines = value_lines - line;
            if lines >= 4 {
                weighted_values::<S, H, 4>(group, first, line, scores, scale);
                line += 4;
            } else if lines >= 2 {
                weighted_values::<S, H, 2>(group, first, line, scores, scale);
                line += 2;
            } else {
                weighted_values::<S, H, 1>(group, first, line, scores, scale);
                line += 1;
            }
        }
    }
}

/// Calls `f(page, skip, take, at)` for the visible part of each chunk: `take` positions of the page after the
/// first `skip`, which are the row's visible positions `at..at + take`.
#[inline(always)]
pub(super) fn for_chunks(group: &HeadGroup<'_>, mut f: impl FnMut(u32, usize, usize, usize)) {
    let mut position = 0;
    for chunk in group.chunks {
        let len = chunk.len as usize;
        let (from, to) = (group.from.max(position), group.end.min(position + len));
        if from < to {
            f(chunk.page, from - position, to - from, from - group.from);
        }
        position += len;
        if position >= group.end {
            break;
        }
    }
}

/// The scores of a page's 16 positions for H query heads.
#[inline(always)]
unsafe fn page_scores<S: Simd, const H: usize>(
    group: &HeadGroup<'_>,
    page: u32,
    query: [*const f32; H],
    mut store: impl FnMut(usize, S::V),
) {
    let keys = group.pages.head(page, group.kv_head);
    // SAFETY: keys are d_head lines; queries have d_head numbers.
    unsafe {
        let mut sums = [S::splat(0.0); H];
        for d in 0..group.shape.d_head {
            let key = S::load(keys.add(d * LANES));
            for (sum, query) in sums.iter_mut().zip(query) {
                *sum = S::fma(S::splat(*query.add(d)), key, *sum);
            }
        }
        for (h, sum) in sums.into_iter().enumerate() {
            store(h, scaled::<S>(group.shape, sum));
        }
    }
}

/// Scores of products of queries and keys.
#[inline(always)]
pub(super) unsafe fn scaled<S: Simd>(shape: &AttentionShape, products: S::V) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe {
        let scores = S::mul(products, S::splat(shape.scale));
        match shape.softcap {
            Some(cap) => softcap::<S>(scores, cap),
            None => scores,
        }
    }
}

/// `c tanh(x / c)`.
#[inline(always)]
pub(super) unsafe fn softcap<S: Simd>(x: S::V, cap: f32) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe {
        // tanh u = 1 - 2 / (e^(2 u) + 1)
        let e = S::exp(S::mul(x, S::splat(2.0 / cap)));
        let tanh = S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))));
        S::mul(S::splat(cap), tanh)
    }
}

/// Turns scores into e^(score − largest) and returns their sum, a sink included.
#[inline(always)]
unsafe fn exponentials<S: Simd>(scores: *mut f32, count: usize, sink: Option<f32>) -> f32 {
    let lines = count.div_ceil(LANES);
    // SAFETY: scores have room for whole lines.
    unsafe {
        for i in count..lines * LANES {
            scores.add(i).write(f32::NEG_INFINITY);
        }
        let mut largest = S::splat(sink.unwrap_or(f32::NEG_INFINITY));
        for i in 0..lines {
            largest = S::max(largest, S::load(scores.add(i * LANES)));
        }
        let largest = S::largest(largest);
        let shift = S::splat(largest);
        let mut sum = S::splat(0.0);
        for i in 0..lines {
            let e = S::exp(S::sub(S::load(scores.add(i * LANES)), shift));
            sum = S::add(sum, e);
            S::store(scores.add(i * LANES), e);
        }
        S::sum(sum) + sink.map_or(0.0, |it| (it - largest).exp())
    }
}

/// `out[h][line..line + L] = scale_h Σ_t scores[h][t] value[t]`.
#[inline(always)]
unsafe fn weighted_values<S: Simd, const H: usize, const L: usize>(
    group: &HeadGroup<'_>,
    first: usize,
    line: usize,
    scores: [*mut f32; H],
    scale: [f32; H],
) {
    let pages = group.pages;
    let d_value = group.shape.d_value();
    // SAFETY: values are 16 × value_stride lines behind the keys; the output has d_value numbers per head.
    unsafe {
        let mut sums = [[S::splat(0.0); L]; H];
        for_chunks(group, |page, skip, take, at| {
            let values = pages.head(page, group.kv_head).add(pages.key_lines * LANES);
            for t in 0..take {
                let value = values.add(((skip + t) * pages.value_stride + line) * LANES);
                let mut loaded = [S::splat(0.0); L];
                for (l, loaded) in loaded.iter_mut().enumerate() {
                    *loaded = S::load(value.add(l * LANES));
                }
                for (sums, scores) in sums.iter_mut().zip(scores) {
                    let weight = S::splat(*scores.add(at + t));
                    for (sum, value) in sums.iter_mut().zip(loaded) {
                        *sum = S::fma(weight, value, *sum);
                    }
                }
            }
        });
        for (h, sums) in sums.into_iter().enumerate() {
            for (l, sum) in sums.into_iter().enumerate() {
                let scaled = S::mul(sum, S::splat(scale[h]));
                let at = (line + l) * LANES;
                let out = group.out.add((first + h) * d_value + at);
                if at + LANES <= d_value {
                    S::store(out, scaled);
                } else {
                    let mut lanes = [0.0_f32; LANES];
                    S::store(lanes.as_mut_ptr(), scaled);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr(), out, d_value - at);
                }
            }
        }
    }
}

/// Attention of all rows; a task is one row and one key/value head, or some of the query heads of that.
pub(super) fn attend_all(
    isa: super::Isa,
    qkv: &Rows,
    shape: &AttentionShape,
    sinks: Option<&[Line]>,
    plan: &crate::plan::Plan,
    pages: &Pages,
    out: &mut Rows,
) {
    out.resize(qkv.rows());
    let out: Shared = out.shared();
    let group = shape.n_heads / shape.n_kv_heads;
    let parts = group.div_ceil(HEADS_OF_TASK);
    let sinks = sinks.map(super::rows::numbers);
    let padded = match shape.values {
        Values::Own(_) => 0,
        Values::OfKeys(_) => TOGETHER * shape.d_head.next_multiple_of(LANES),
    };
    super::parallel_rows(qkv.rows() * shape.n_kv_heads * parts, 4, |task| {
        let (task, part) = (task / parts, task % parts);
        let (row, kv_head) = (task / shape.n_kv_heads, task % shape.n_kv_heads);
        let heads = HEADS_OF_TASK.min(group - part * HEADS_OF_TASK);
        let first = kv_head * group + part * HEADS_OF_TASK;
        let end = plan.positions[row] as usize + 1;
        let from = shape.window.map_or(0, |window| end.saturating_sub(window));
        let stride = score_stride(end - from);
        let query = &qkv.row(row)[first * shape.d_head..][..heads * shape.d_head];
        with_scores(TOGETHER * stride + padded, |scores| {
            let group = HeadGroup {
                pages,
                shape,
                chunks: plan.chunks_of(row),
                from,
                end,
                kv_head,
                heads,
                query: query.as_ptr(),
                sinks: sinks.map(|it| &it[first..][..heads]),
                scores,
                score_stride: stride,
                // SAFETY: each task has its own heads of its own row.
                out: unsafe { out.at(row, first * shape.d_value()) },
            };
            // SAFETY: as set up above.
            unsafe { attend(isa, &group) };
        });
    });
}

/// A thread's room for scores.
fn with_scores<T>(numbers: usize, f: impl FnOnce(*mut f32) -> T) -> T {
    thread_local! {
        static SCORES: std::cell::RefCell<Vec<Line>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    SCORES.with_borrow_mut(|lines| {
        let needed = numbers.div_ceil(LANES);
        if lines.len() < needed {
            // Doubled, so that a growing context does not allocate at every token.
            lines.resize(needed.next_power_of_two(), Line::default());
        }
        f(lines.as_mut_ptr().cast())
    })
}
