//! Rotary position embedding, fused with the norms of heads and with storing keys and values.

use super::Vector;
use super::attention::Pages;
use super::rows::Rows;
use super::rowwise::NormView;
use super::simd::{Isa, LANES, Simd, with_isa};
use crate::backend::{AttentionShape, HeadNorms};
use crate::blueprint::{Pairing, Rope};
use crate::plan::Plan;

/// Cosines and sines of all positions seen so far.
pub struct Angles {
    frequencies: Vec<f32>,
    magnitude: f32,
    pairing: Pairing,
    /// `[positions][pairs]`
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    pub(super) fn new(rope: &Rope) -> Self {
        Self {
            frequencies: rope.frequencies.clone(),
            magnitude: rope.magnitude,
            pairing: rope.pairing,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    /// Makes sure that positions below `count` are there.
    pub(super) fn reach(&mut self, count: usize) {
        let known = self.cos.len() / self.frequencies.len().max(1);
        if known >= count || self.frequencies.is_empty() {
            return;
        }
        // Doubled, so that a growing context does not allocate at every token.
        for position in known..count.next_power_of_two().max(64) {
            for frequency in &self.frequencies {
                // The reference stack rounds the angle to f32 before it takes the cosine; so do we.
                let angle = f64::from(position as f32 * frequency);
                self.cos.push((angle.cos() * f64::from(self.magnitude)) as f32);
                self.sin.push((angle.sin() * f64::from(self.magnitude)) as f32);
            }
        }
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let pairs = self.frequencies.len();
        (&self.cos[position * pairs..][..pairs], &self.sin[position * pairs..][..pairs])
    }

    /// Rotates the first numbers of a head, two for each frequency, as at a position that has been
    /// [reached](Self::reach).
    pub(super) fn rotate(&self, isa: Isa, head: &mut [f32], position: usize) {
        let (cos, sin) = self.at(position);
        assert!(head.len() >= 2 * cos.len(), "{} numbers for {} pairs", head.len(), cos.len());
        match self.pairing {
            // SAFETY: the head has two numbers for each cosine.
            Pairing::Halves => unsafe { rotate_halves(isa, head, cos, sin) },
            Pairing::Neighbors => rotate_neighbors(head, cos, sin),
        }
    }
}

pub(super) fn rotate_and_store(
    isa: Isa,
    qkv: &mut Rows,
    shape: &AttentionShape,
    norms: &HeadNorms<'_, Vector>,
    angles: Option<&mut Angles>,
    plan: &Plan,
    pages: Option<&mut Pages>,
) {
    let pages = pages.map(|it| &*it);
    let expected = if pages.is_some() { shape.qkv_cols() } else { shape.query_cols() };
    assert!(qkv.cols() >= expected, "queries, keys and values side by side");
    let kept = if pages.is_some() { shape.n_kv_heads } else { 0 };
    let angles = angles.map(|angles| {
        angles.reach(plan.positions.iter().max().map_or(0, |&it| it as usize + 1));
        &*angles
    });
    let (rows, cols) = (qkv.rows(), qkv.cols());
    let qkv = qkv.shared();
    let (last, clip) = (norms.last, norms.clip);
    let [query_norm, key_norm, value_norm] =
        [norms.query, norms.key, norms.value].map(|it| it.map(super::norm_view));
    let (d, d_value) = (shape.d_head, shape.d_value());
    super::parallel_rows(rows, super::ROW_GRAIN, |row| {
        // SAFETY: each task has its own row.
        let row_values = unsafe { std::slice::from_raw_parts_mut(qkv.at(row, 0), cols) };
        let (queries, rest) = row_values.split_at_mut(shape.n_heads * d);
        let (keys, rest) = rest.split_at_mut(kept * d);
        let values = &mut rest[..kept * d_value];
        for (heads, norm) in [(&mut *queries, &query_norm), (&mut *keys, &key_norm)] {
            if let Some(norm) = norm.as_ref().filter(|_| !last) {
                norm_heads(isa, heads, norm);
            }
            if let Some(clip) = clip {
                clamp(heads, clip);
            }
            if let Some(angles) = angles {
                for head in heads.chunks_exact_mut(d) {
                    angles.rotate(isa, head, plan.positions[row] as usize);
                }
            }
            if let Some(norm) = norm.as_ref().filter(|_| last) {
                norm_heads(isa, heads, norm);
            }
        }
        let Some(pages) = pages else { return };
        if let Some(norm) = &value_norm {
            norm_heads(isa, values, norm);
        }
        if let Some(clip) = clip {
            clamp(values, clip);
        }
        for slot in std::iter::once(plan.slots[row]).chain(plan.echoes(row)) {
            for (head, (key, value)) in keys.chunks_exact(d).zip(values.chunks_exact(d_value)).enumerate() {
                // SAFETY: each row has its own slots.
                unsafe { pages.store(slot.page, slot.offset, head, key, value) }
            }
        }
    });
}

/// Keeps numbers within ± a limit.
fn clamp(numbers: &mut [f32], limit: f32) {
    for number in numbers {
        *number = number.clamp(-limit, limit);
    }
}

/// Norms heads, one after the other or all together. They lie end to end, so the pad that the kernel wants is made in
/// memory of the thread.
pub(super) fn norm_heads(isa: Isa, heads: &mut [f32], norm: &NormView<'_>) {
    thread_local! {
        static PADDED: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let lines = norm.width.div_ceil(LANES);
    let several = norm.gain.len() > lines;
    PADDED.with_borrow_mut(|padded| {
        padded.clear();
        padded.resize(lines * LANES, 0.0);
        for (index, head) in heads.chunks_exact_mut(norm.width).enumerate() {
            let gain = if several { &norm.gain[index * lines..][..lines] } else { norm.gain };
            padded[..head.len()].copy_from_slice(head);
            // SAFETY: the buffer covers the norm's lines; the kernel leaves zeros in its pad.
            unsafe {
                super::rowwise::norm(isa, padded.as_ptr(), &NormView { gain, ..*norm }, padded.as_mut_ptr());
            }
            head.copy_from_slice(&padded[..head.len()]);
        }
    });
}

#[inline(always)]
unsafe fn rotate_halves_kernel<S: Simd>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = cos.len();
    let (first, second) = head.split_at_mut(pairs);
    let whole = pairs / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        // SAFETY: 16 more pairs exist.
        unsafe {
            let (a, b) = (S::load(first.as_ptr().add(i)), S::load(second.as_ptr().add(i)));
            let (cos, sin) = (S::load(cos.as_ptr().add(i)), S::load(sin.as_ptr().add(i)));
            S::store(first.as_mut_ptr().add(i), S::sub(S::mul(a, cos), S::mul(b, sin)));
            S::store(second.as_mut_ptr().add(i), S::add(S::mul(b, cos), S::mul(a, sin)));
        }
    }
    for i in whole..pairs {
        let (a, b) = (first[i], second[i]);
        first[i] = a * cos[i] - b * sin[i];
        second[i] = b * cos[i] + a * sin[i];
    }
}
with_isa! { unsafe fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_halves_kernel }

fn rotate_neighbors(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = b * cos + a * sin;
    }
}
