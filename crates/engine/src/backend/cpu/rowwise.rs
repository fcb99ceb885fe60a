//! Operations on one row at a time: norms, the gated activation, and how a writer joins the residual stream.

use super::rows::Line;
use super::simd::{LANES, Simd, load_part, with_isa};
use crate::backend::softplus;
use crate::blueprint::{Activation, GateActivation, NormKind};

/// A norm as the kernels see it; gain and bias are padded with zeros to whole lines.
#[derive(Clone, Copy)]
pub(super) struct NormView<'a> {
    pub(super) kind: NormKind,
    pub(super) gain: &'a [Line],
    pub(super) bias: Option<&'a [Line]>,
    pub(super) epsilon: f32,
    /// Numbers that are normed together; the rest of the last line is pad.
    pub(super) width: usize,
}

/// An edit as the kernels see it; vectors are padded with zeros to whole lines.
pub(super) struct EditLines {
    pub(super) rank: usize,
    /// `[rank][lines]`
    pub(super) p: Vec<Line>,
    /// `[rank][lines]`
    pub(super) q: Vec<Line>,
    pub(super) s: Option<Vec<Line>>,
}

/// A line of a row of `width` numbers with zeros in the row's pad.
#[inline(always)]
pub(super) unsafe fn without_pad<S: Simd>(v: S::V, line: usize, width: usize) -> S::V {
    if (line + 1) * LANES <= width {
        return v;
    }
    let mut lanes = [0.0_f32; LANES];
    // SAFETY: the array has 16 elements.
    unsafe {
        S::store(lanes.as_mut_ptr(), v);
        lanes[width % LANES..].fill(0.0);
        S::load(lanes.as_ptr())
    }
}

/// `out = norm(x)`; `x` and `out` may be the same row. Its pad must hold zeros and is given zeros.
#[inline(always)]
pub(super) unsafe fn norm_row<S: Simd>(x: *const f32, norm: &NormView<'_>, out: *mut f32) {
    let lines = norm.gain.len();
    let width = norm.width as f32;
    // SAFETY: the caller promises whole lines behind both pointers.
    unsafe {
        let mut mean = S::splat(0.0);
        let mut square = S::splat(0.0);
        match norm.kind {
            NormKind::RootMeanSquare => {
                for i in 0..lines {
                    let v = S::load(x.add(i * LANES));
                    square = S::fma(v, v, square);
                }
            }
            NormKind::Layer => {
                for i in 0..lines {
                    mean = S::add(mean, S::load(x.add(i * LANES)));
                }
                mean = S::splat(S::sum(mean) / width);
                for i in 0..lines {
                    // The pad's zeros are not the row's: they add nothing.
                    let v = S::sub(S::load(x.add(i * LANES)), mean);
                    let v = without_pad::<S>(v, i, norm.width);
                    square = S::fma(v, v, square);
                }
            }
            NormKind::Nothing => {}
        }
        let scale = match norm.kind {
            NormKind::RootMeanSquare | NormKind::Layer => {
                S::splat(1.0 / (S::sum(square) / width + norm.epsilon).sqrt())
            }
            NormKind::Nothing => S::splat(1.0),
        };
        for i in 0..lines {
            let v = S::mul(S::sub(S::load(x.add(i * LANES)), mean), scale);
            let gained = S::mul(v, S::load(norm.gain[i].0.as_ptr()));
            let shifted = match norm.bias {
                Some(bias) => S::add(gained, S::load(bias[i].0.as_ptr())),
                None => gained,
            };
            S::store(out.add(i * LANES), shifted);
        }
    }
}

with_isa! {
    /// [`norm_row`] for the instruction set at hand.
    pub(super) unsafe fn norm(x: *const f32, norm: &NormView<'_>, out: *mut f32) = norm_row
}

/// Everything that happens to one row when a writer joins the stream.
pub(super) struct WriteRow<'a> {
    pub(super) lines: usize,
    pub(super) y: *mut f32,
    pub(super) edit: Option<&'a EditLines>,
    pub(super) bias: Option<&'a [Line]>,
    pub(super) post_norm: Option<NormView<'a>>,
    pub(super) scale: f32,
    pub(super) stream_scale: f32,
    pub(super) residual: *mut f32,
    pub(super) next_norm: Option<NormView<'a>>,
    pub(super) x: *mut f32,
}

#[inline(always)]
unsafe fn write_row<S: Simd>(row: &WriteRow<'_>) {
    // SAFETY: the caller promises whole lines behind all pointers.
    unsafe {
        if let Some(edit) = row.edit {
            edit_row::<S>(row.y, row.lines, edit);
        }
        if let Some(bias) = row.bias {
            for (i, bias) in bias.iter().enumerate() {
                let y = row.y.add(i * LANES);
                S::store(y, S::add(S::load(y), S::load(bias.0.as_ptr())));
            }
        }
        if let Some(norm) = &row.post_norm {
            norm_row::<S>(row.y, norm, row.y);
        }
        let (scale, stream_scale) = (S::splat(row.scale), S::splat(row.stream_scale));
        for i in 0..row.lines {
            let residual = row.residual.add(i * LANES);
            let y = S::load(row.y.add(i * LANES));
            S::store(residual, S::mul(stream_scale, S::fma(scale, y, S::load(residual))));
        }
        if let Some(norm) = &row.next_norm {
            norm_row::<S>(row.residual, norm, row.x);
        }
    }
}
with_isa! {
    /// Edits, biases, norms and adds one row of a writer's output.
    pub(super) unsafe fn write(row: &WriteRow<'_>) = write_row
}

/// The output of an expert that a row was sent to.
pub(super) struct Answer<'a> {
    pub(super) y: *mut f32,
    pub(super) edit: Option<&'a EditLines>,
    pub(super) bias: Option<&'a [Line]>,
    pub(super) share: f32,
}

#[inline(always)]
unsafe fn add_answer_kernel<S: Simd>(lines: usize, answer: &Answer<'_>, out: *mut f32) {
    // SAFETY: the caller promises whole lines behind all pointers.
    unsafe {
        if let Some(edit) = answer.edit {
            edit_row::<S>(answer.y, lines, edit);
        }
        let share = S::splat(answer.share);
        for i in 0..lines {
            let mut y = S::load(answer.y.add(i * LANES));
            if let Some(bias) = answer.bias {
                y = S::add(y, S::load(bias[i].0.as_ptr()));
            }
            let out = out.add(i * LANES);
            S::store(out, S::fma(share, y, S::load(out)));
        }
    }
}
with_isa! {
    /// `out += share (edit(y) + bias)`; y is spent.
    pub(super) unsafe fn add_answer(lines: usize, answer: &Answer<'_>, out: *mut f32) = add_answer_kernel
}

/// `y' = s ∘ (y − Σ_j p_j (q_j · y))`: all projections of the unedited y, then one subtraction after the other.
#[inline(always)]
unsafe fn edit_row<S: Simd>(y: *mut f32, lines: usize, edit: &EditLines) {
    let mut few = [0.0_f32; FEW];
    let mut many = Vec::new();
    let dots = if edit.rank <= FEW {
        &mut few[..edit.rank]
    } else {
        many.resize(edit.rank, 0.0);
        &mut many[..]
    };
    // SAFETY: as the caller promises; the edit's vectors have as many lines.
    unsafe {
        for (j, dot) in dots.iter_mut().enumerate() {
            let mut sum = S::splat(0.0);
            for i in 0..lines {
                sum = S::fma(S::load(edit.q[j * lines + i].0.as_ptr()), S::load(y.add(i * LANES)), sum);
            }
            *dot = S::sum(sum);
        }
        for i in 0..lines {
            let mut v = S::load(y.add(i * LANES));
            for (j, dot) in dots.iter().enumerate() {
                let p = S::load(edit.p[j * lines + i].0.as_ptr());
                v = S::fma(p, S::splat(-dot), v);
            }
            if let Some(s) = &edit.s {
                v = S::mul(v, S::load(s[i].0.as_ptr()));
            }
            S::store(y.add(i * LANES), v);
        }
    }
}

/// Directions of an edit whose projections lie on the stack: those of more, as adapters of a high rank have, are allocated
/// for each row.
const FEW: usize = 32;

#[inline(always)]
unsafe fn gate_by_sigmoid_kernel<S: Simd>(gates: &[f32], y: *mut f32) {
    // SAFETY: y has as many numbers as there are gates, and a whole last line.
    unsafe {
        for at in (0..gates.len()).step_by(LANES) {
            let e = S::exp(S::sub(S::splat(0.0), load_part::<S>(gates.as_ptr().add(at), gates.len() - at)));
            let y = y.add(at);
            S::store(y, S::div(S::load(y), S::add(S::splat(1.0), e)));
        }
    }
}
with_isa! {
    /// `y ∘= sigmoid(gates)`.
    pub(super) unsafe fn gate_by_sigmoid(gates: &[f32], y: *mut f32) = gate_by_sigmoid_kernel
}

/// Multiplies groups of so many numbers with their gates. These are computed in f64, so that they have the same bits with
/// every instruction set.
pub(super) fn gate_groups(y: &mut [f32], gates: &[f32], each: usize, activation: GateActivation) {
    for (group, gate) in y.chunks_exact_mut(each).zip(gates) {
        let gate = f64::from(*gate);
        let gate = match activation {
            GateActivation::Sigmoid => 1.0 / (1.0 + (-gate).exp()),
            GateActivation::Softplus => softplus(gate),
        } as f32;
        for number in group {
            *number *= gate;
        }
    }
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub(super) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe { S::div(S::splat(1.0), S::add(S::splat(1.0), S::exp(S::sub(S::splat(0.0), x)))) }
}

/// `x / (1 + e^−x)`.
#[inline(always)]
pub(super) unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe { S::div(x, S::add(S::splat(1.0), S::exp(S::sub(S::splat(0.0), x)))) }
}

/// One line of gate outputs and one of up outputs to one line of the product.
#[inline(always)]
unsafe fn activate<S: Simd>(activation: Activation, gate: S::V, up: S::V) -> S::V {
    // SAFETY: register arithmetic; the caller promises the instruction set.
    unsafe {
        let one = S::splat(1.0);
        match activation {
            Activation::Silu => S::mul(silu::<S>(gate), up),
            Activation::Gelu => {
                // x Φ(x) = max(x, 0) − |x| Φ(−|x|), so that nothing cancels. Φ(−z √2) = t p(t) e^(−z²) / 2 with
                // t = 1 / (1 + 0.3275911 z): Abramowitz & Stegun 7.1.26, off by 1.5e-7 / 2 at most.
                let size = S::max(S::sub(S::splat(0.0), gate), gate);
                let z = S::mul(size, S::splat(std::f32::consts::FRAC_1_SQRT_2));
                let t = S::div(one, S::fma(S::splat(0.327_591_1), z, one));
                let mut tail = S::splat(1.061_405_4);
                for coefficient in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
                    tail = S::fma(tail, t, S::splat(coefficient));
                }
                let e = S::exp(S::mul(z, S::sub(S::splat(0.0), z)));
                let below = S::mul(S::mul(S::mul(tail, t), e), S::splat(0.5));
                S::mul(S::sub(S::max(S::splat(0.0), gate), S::mul(size, below)), up)
            }
            Activation::SquaredRelu => {
                let positive = S::max(S::splat(0.0), gate);
                S::mul(S::mul(positive, positive), up)
            }
            Activation::Xielu { positive, negative } => {
                // The second of two operands where one is NaN: NaN stays NaN.
                let (above, below) = (S::max(S::splat(0.0), gate), S::min(S::splat(0.0), gate));
                let curve = S::sub(S::sub(S::exp(below), one), below);
                let bent = S::fma(S::splat(negative), curve, S::mul(S::splat(0.5), gate));
                S::mul(S::fma(S::mul(S::splat(positive), above), above, bent), up)
            }
            Activation::GeluTanh => {
                // 0.5 x (1 + tanh u) = x / (1 + e^(-2 u)), u = sqrt(2/pi) (x + 0.044715 x³)
                let cubic = S::mul(S::mul(gate, gate), S::mul(gate, S::splat(0.044_715)));
                let u = S::mul(S::splat(0.797_884_6), S::add(gate, cubic));
                let e = S::exp(S::mul(S::splat(-2.0), u));
                S::mul(S::div(gate, S::add(one, e)), up)
            }
            Activation::CappedSilu { limit } => {
                // The second of two operands where one is NaN: NaN stays NaN.
                let up = S::max(S::splat(-limit), S::min(S::splat(limit), up));
                S::mul(S::min(S::splat(limit), silu::<S>(gate)), up)
            }
            Activation::ClampedSilu { steepness, limit } => {
                // The second of two operands where one is NaN: NaN stays NaN.
                let gate = S::min(S::splat(limit), gate);
                let up = S::max(S::splat(-limit), S::min(S::splat(limit), up));
                let e = S::exp(S::mul(S::splat(-steepness), gate));
                S::mul(S::div(gate, S::add(one, e)), S::add(up, one))
            }
        }
    }
}

#[inline(always)]
unsafe fn gate_by_kernel<S: Simd>(activation: Activation, lines: usize, x: *mut f32, by: Option<*const f32>) {
    for i in 0..lines {
        // SAFETY: the caller promises whole lines behind both pointers.
        unsafe {
            let x = x.add(i * LANES);
            let by = match by {
                Some(by) => S::load(by.add(i * LANES)),
                None => S::splat(1.0),
            };
            S::store(x, activate::<S>(activation, S::load(x), by));
        }
    }
}
with_isa! {
    /// `x = activation(x) ∘ by` of a row, or `x = activation(x)`.
    pub(super) unsafe fn gate_by(
        activation: Activation,
        lines: usize,
        x: *mut f32,
        by: Option<*const f32>,
    ) = gate_by_kernel
}

/// A tile of alternating gate and up panels, and where its products go.
pub(super) struct GateTile<'a> {
    pub(super) rows: usize,
    /// Pairs of panels.
    pub(super) pairs: usize,
    pub(super) y: *const f32,
    pub(super) y_stride: usize,
    /// The biases of gate and up for these pairs.
    pub(super) bias: Option<(&'a [Line], &'a [Line])>,
    pub(super) activation: Activation,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

#[inline(always)]
unsafe fn gate_kernel<S: Simd>(tile: &GateTile<'_>) {
    // SAFETY: the caller promises rows and panels behind both pointers.
    unsafe {
        for row in 0..tile.rows {
            for pair in 0..tile.pairs {
                let y = tile.y.add(row * tile.y_stride + 2 * pair * LANES);
                let (mut gate, mut up) = (S::load(y), S::load(y.add(LANES)));
                if let Some((gate_bias, up_bias)) = tile.bias {
                    gate = S::add(gate, S::load(gate_bias[pair].0.as_ptr()));
                    up = S::add(up, S::load(up_bias[pair].0.as_ptr()));
                }
                let out = tile.out.add(row * tile.out_stride + pair * LANES);
                S::store(out, activate::<S>(tile.activation, gate, up));
            }
        }
    }
}
with_isa! {
    /// Gated activation of a tile.
    pub(super) unsafe fn gate(tile: &GateTile<'_>) = gate_kernel
}
