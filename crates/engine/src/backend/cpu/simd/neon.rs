//! Sixteen lanes as four 128-bit registers of ARM's Advanced SIMD.

#[allow(clippy::wildcard_imports, reason = "the vocabulary of intrinsics")]
use core::arch::aarch64::*;

use super::Simd;

/// Four 128-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// Applies a function to all four quarters.
#[inline(always)]
fn each(f: impl Fn(usize) -> float32x4_t) -> [float32x4_t; 4] {
    [f(0), f(1), f(2), f(3)]
}

// SAFETY (every block below): Advanced SIMD is part of every 64-bit ARM processor that Rust supports; pointers
// are valid for 16 elements by the trait's contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one contract, stated above, for every block")]
impl Simd for Neon {
    type V = [float32x4_t; 4];

    // 32 registers: 24 sums, four for the weights, the rest for the input.
    const ACCUMULATORS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        each(|i| unsafe { vld1q_f32(from.add(4 * i)) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::V {
        each(|i| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(from.add(4 * i))))) })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::V {
        let bits = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        let wide = bits.map(|it| half::f16::from_bits(it).to_f32());
        unsafe { Self::load(wide.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::V {
        let wide = unsafe { from.cast::<[i8; 16]>().read_unaligned() }.map(f32::from);
        unsafe { Self::load(wide.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::V {
        let wide = unsafe { from.cast::<[u8; 16]>().read_unaligned() }.map(f32::from);
        unsafe { Self::load(wide.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [Self::V; 2] {
        let bytes = unsafe { from.cast::<[u8; 16]>().read_unaligned() };
        let (low, high) = (bytes.map(|it| f32::from(it & 0xf)), bytes.map(|it| f32::from(it >> 4)));
        unsafe { [Self::load(low.as_ptr()), Self::load(high.as_ptr())] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        for (i, quarter) in v.into_iter().enumerate() {
            unsafe { vst1q_f32(to.add(4 * i), quarter) }
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe { vsubq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe { vdivq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        // Not `vmaxq_f32`, which knows NaN and the sign of zero.
        each(|i| unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: Self::V, b: Self::V) -> Self::V {
        each(|i| unsafe {
            let larger = vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]);
            vbslq_f32(vceqq_f32(a[i], a[i]), larger, a[i])
        })
    }

    #[inline(always)]
    unsafe fn round(a: Self::V) -> Self::V {
        each(|i| unsafe { vrndnq_f32(a[i]) })
    }

    #[inline(always)]
    unsafe fn pow2(n: Self::V) -> Self::V {
        each(|i| unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n[i]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        })
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}

    #[inline(always)]
    unsafe fn select_less(a: Self::V, b: Self::V, then: Self::V, other: Self::V) -> Self::V {
        each(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), then[i], other[i]) })
    }
}
