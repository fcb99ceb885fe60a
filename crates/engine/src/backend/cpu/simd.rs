//! Sixteen f32 lanes, however the machine provides them.
//!
//! Every kernel of this back end is written once, over [`Simd`], and compiled once per instruction set; the
//! [`Isa`] found at run time picks the copy. All sets see a vector as 16 lanes, so kernels sum in the same order
//! everywhere, and sets with fused multiply-add give the same bits.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, whatever the processor.
    Portable,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 F with products of bf16 numbers (AVX512-BF16). Arithmetic in f32 is that of [`Self::Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// ARM's Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The sets that this processor has, the best one last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "no set but the portable one exists on other processors")]
        let mut found = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                found.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    found.push(Self::Avx512);
                    if is_x86_feature_detected!("avx512bf16") {
                        found.push(Self::Avx512Bf16);
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Self::Neon);
        found
    }

    /// Whether it multiplies pairs of bf16 numbers.
    pub fn multiplies_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => true,
            _ => false,
        }
    }

    /// The set's name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }
}

/// The operations that the kernels are written in.
///
/// # Safety
/// All functions must only be reached on a processor that has the instruction set: from inside a function that
/// [`with_isa`] made. Pointers need no alignment; they must be valid for 16 elements.
pub(super) trait Simd: Copy + 'static {
    /// A vector of 16 f32.
    type V: Copy;

    /// Vectors that fit the registers as accumulators of a matrix product, beside its operands.
    const ACCUMULATORS: usize;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    unsafe fn load_f16(from: *const u16) -> Self::V;
    /// Sixteen signed bytes.
    unsafe fn load_i8(from: *const i8) -> Self::V;
    /// Sixteen bytes.
    unsafe fn load_u8(from: *const u8) -> Self::V;
    /// The lower halves of sixteen bytes, and the upper ones.
    unsafe fn load_nibbles(from: *const u8) -> [Self::V; 2];
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, rounded once where the set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a where a > b, else b: of two zeros the second, and b where one of them is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// a where a < b, else b: of two zeros the second, and b where one of them is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Like [`Self::max`], but NaN where either is NaN.
    unsafe fn max_or_nan(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, halves to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// 2^n for integers n in −126..=127.
    unsafe fn pow2(n: Self::V) -> Self::V;
    /// Asks for the cache line at an address that need not be valid, into the second-level cache.
    unsafe fn prefetch(at: *const u8);

    /// The sum of the lanes, always as the same tree: halves, quarters, pairs.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { Self::store(lanes.as_mut_ptr(), v) };
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane; NaN where there is one.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { Self::store(lanes.as_mut_ptr(), v) };
        lanes.iter().fold(f32::NEG_INFINITY, |a, &b| if a > b || a.is_nan() { a } else { b })
    }

    /// e^x within 2 ulp; 0 below −87.3, e^88.3 above it, NaN of NaN.
    ///
    /// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose remainder is
    /// (ln 2 / 2)^8 / 8! = 5e-9.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // ln 2 in two parts: the first has few enough bits that n times it is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        const TAYLOR: [f32; 8] =
            [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        // SAFETY: pure register arithmetic; the caller promises the instruction set.
        unsafe {
            // Below this, 2^n would leave the normal numbers.
            let smallest = Self::splat(-87.3);
            // x comes second both times, so that NaN stays NaN.
            let clamped = Self::min(Self::splat(88.3), Self::max(smallest, x));
            let n = Self::round(Self::mul(clamped, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-LN2_HIGH), clamped);
            let r = Self::fma(n, Self::splat(-LN2_LOW), r);
            let mut polynomial = Self::splat(TAYLOR[0]);
            for coefficient in &TAYLOR[1..] {
                polynomial = Self::fma(polynomial, r, Self::splat(*coefficient));
            }
            let value = Self::mul(polynomial, Self::pow2(Self::min(n, Self::splat(127.0))));
            Self::select_less(x, smallest, Self::splat(0.0), value)
        }
    }

    /// `then` where a < b, else `other`.
    unsafe fn select_less(a: Self::V, b: Self::V, then: Self::V, other: Self::V) -> Self::V;
}

/// A vector of the first `count` numbers, zeros after them.
///
/// # Safety
/// As [`Simd`]'s, for `count` numbers.
#[inline(always)]
pub(super) unsafe fn load_part<S: Simd>(from: *const f32, count: usize) -> S::V {
    // SAFETY: not more than `count` numbers are read.
    unsafe {
        if count >= LANES {
            return S::load(from);
        }
        let mut lanes = [0.0_f32; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
        S::load(lanes.as_ptr())
    }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// As [`Simd`]'s, for `count` numbers.
#[inline(always)]
pub(super) unsafe fn store_part<S: Simd>(to: *mut f32, v: S::V, count: usize) {
    // SAFETY: not more than `count` numbers are written.
    unsafe {
        if count >= LANES {
            return S::store(to, v);
        }
        let mut lanes = [0.0_f32; LANES];
        S::store(lanes.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
    }
}

/// The sum of the squares of some numbers.
///
/// # Safety
/// As [`Simd`]'s, for `count` numbers.
#[inline(always)]
pub(super) unsafe fn sum_of_squares<S: Simd>(of: *const f32, count: usize) -> f32 {
    // SAFETY: not more than `count` numbers are read.
    unsafe {
        let mut sum = S::splat(0.0);
        for at in (0..count).step_by(LANES) {
            let v = load_part::<S>(of.add(at), count - at);
            sum = S::fma(v, v, sum);
        }
        S::sum(sum)
    }
}

/// Makes a function that runs a kernel compiled for an [`Isa`].
///
/// The generic kernel must be `#[inline(always)]`, so that its body takes on the instruction set of the copy.
macro_rules! with_isa {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name(isa: $crate::backend::cpu::simd::Isa, $($arg: $ty),*) {
            use $crate::backend::cpu::simd::Isa;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: as promised by the caller; the features are enabled here.
                unsafe { $kernel::<$crate::backend::cpu::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: as promised by the caller; the features are enabled here.
                unsafe { $kernel::<$crate::backend::cpu::simd::Avx2>($($arg),*) }
            }
            // SAFETY: an `Isa` other than the portable one exists only where the processor has it.
            unsafe {
                match isa {
                    Isa::Portable => $kernel::<$crate::backend::cpu::simd::Portable>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 | Isa::Avx512Bf16 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => $kernel::<$crate::backend::cpu::simd::Neon>($($arg),*),
                }
            }
        }
    };
}
pub(super) use with_isa;

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies `exp` to 16 numbers at a time.
    #[inline(always)]
    unsafe fn exp_kernel<S: Simd>(x: *mut f32) {
        // SAFETY: the test passes 16 elements.
        unsafe { S::store(x, S::exp(S::load(x))) }
    }
    with_isa! { unsafe fn exp_16(x: *mut f32) = exp_kernel }

    #[inline(always)]
    unsafe fn widen_kernel<S: Simd>(from: *const u16, bf16: *mut f32, f16: *mut f32) {
        // SAFETY: the test passes 16 elements each.
        unsafe {
            S::store(bf16, S::load_bf16(from));
            S::store(f16, S::load_f16(from));
        }
    }
    with_isa! { unsafe fn widen_16(from: *const u16, bf16: *mut f32, f16: *mut f32) = widen_kernel }

    #[test]
    fn exp_is_within_two_ulp_of_the_exact_value_on_every_instruction_set() {
        for isa in Isa::available() {
            let mut worst = 0.0_f64;
            for step in 0..20_000 {
                let x: [f32; LANES] =
                    std::array::from_fn(|lane| -87.0 + (step * LANES + lane) as f32 * (175.0 / 320_000.0));
                let mut y = x;
                // SAFETY: 16 elements.
                unsafe { exp_16(isa, y.as_mut_ptr()) };
                for (x, y) in x.iter().zip(y) {
                    let exact = f64::from(*x).exp();
                    let ulp = (f64::from(y) - exact).abs() / exact / f64::from(f32::EPSILON);
                    // Rust 1.95 crashes when it turns this maximum into a vector.
                    worst = worst.max(std::hint::black_box(ulp));
                }
            }
            assert!(worst < 2.0, "{}: {worst} ulp", isa.name());
            let mut y = [-1000.0_f32; LANES];
            // SAFETY: 16 elements.
            unsafe { exp_16(isa, y.as_mut_ptr()) };
            assert_eq!(y, [0.0; LANES]);
            let mut y = [f32::NEG_INFINITY; LANES];
            // SAFETY: 16 elements.
            unsafe { exp_16(isa, y.as_mut_ptr()) };
            assert_eq!(y, [0.0; LANES]);
        }
    }

    #[inline(always)]
    unsafe fn compare_kernel<S: Simd>(a: *const f32, b: *const f32, out: &mut [[f32; LANES]; 4]) {
        // SAFETY: the test passes 16 elements each.
        unsafe {
            let (a, b) = (S::load(a), S::load(b));
            S::store(out[0].as_mut_ptr(), S::max(a, b));
            S::store(out[1].as_mut_ptr(), S::min(a, b));
            S::store(out[2].as_mut_ptr(), S::max_or_nan(a, b));
            S::store(out[3].as_mut_ptr(), S::select_less(a, b, a, b));
        }
    }
    with_isa! {
        unsafe fn compare_16(a: *const f32, b: *const f32, out: &mut [[f32; LANES]; 4]) = compare_kernel
    }

    #[test]
    fn every_instruction_set_answers_alike_for_nan_and_signed_zeros() {
        const CORNERS: [f32; 8] =
            [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE];
        let pairs: Vec<(f32, f32)> =
            CORNERS.iter().flat_map(|&a| CORNERS.iter().map(move |&b| (a, b))).collect();
        for isa in Isa::available() {
            for pairs in pairs.chunks_exact(LANES) {
                let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
                let mut out = [[0.0; LANES]; 4];
                // SAFETY: 16 elements each.
                unsafe { compare_16(isa, a.as_ptr(), b.as_ptr(), &mut out) };
                for (lane, &(a, b)) in pairs.iter().enumerate() {
                    let larger = if a > b { a } else { b };
                    let smaller = if a < b { a } else { b };
                    let expected = [larger, smaller, if a.is_nan() { a } else { larger }, smaller];
                    let found = out.map(|it| it[lane]);
                    let place = format!("{}: {a} and {b}", isa.name());
                    assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{place}");
                    assert_eq!(found[2].is_nan(), a.is_nan() || b.is_nan(), "{place}");
                }
            }
        }
    }

    #[test]
    fn exp_of_nan_is_nan_beside_numbers_on_every_instruction_set() {
        for isa in Isa::available() {
            let mut y = [0.0_f32; LANES];
            (y[3], y[9]) = (f32::NAN, -f32::NAN);
            // SAFETY: 16 elements.
            unsafe { exp_16(isa, y.as_mut_ptr()) };
            for (lane, y) in y.into_iter().enumerate() {
                assert!(if [3, 9].contains(&lane) { y.is_nan() } else { y == 1.0 }, "{}: {y}", isa.name());
            }
            // As far as it goes above; what is larger than the largest f32 is not needed by any kernel.
            let mut y = [f32::INFINITY; LANES];
            // SAFETY: 16 elements.
            unsafe { exp_16(isa, y.as_mut_ptr()) };
            assert!(y.iter().all(|it| *it > 2e38), "{}: {y:?}", isa.name());
        }
    }

    #[inline(always)]
    unsafe fn bytes_kernel<S: Simd>(from: *const u8, out: &mut [[f32; LANES]; 4]) {
        // SAFETY: the test passes 16 elements each.
        unsafe {
            S::store(out[0].as_mut_ptr(), S::load_i8(from.cast()));
            S::store(out[1].as_mut_ptr(), S::load_u8(from));
            let [low, high] = S::load_nibbles(from);
            S::store(out[2].as_mut_ptr(), low);
            S::store(out[3].as_mut_ptr(), high);
        }
    }
    with_isa! { unsafe fn bytes_16(from: *const u8, out: &mut [[f32; LANES]; 4]) = bytes_kernel }

    #[test]
    fn bytes_and_their_halves_widen_to_the_integers_that_they_are_on_every_instruction_set() {
        for isa in Isa::available() {
            for start in (0..=u8::MAX - 15).step_by(16) {
                let bytes: [u8; LANES] = std::array::from_fn(|lane| start + lane as u8);
                let mut out = [[f32::NAN; LANES]; 4];
                // SAFETY: 16 elements each.
                unsafe { bytes_16(isa, bytes.as_ptr(), &mut out) };
                for (lane, byte) in bytes.into_iter().enumerate() {
                    let expected =
                        [f32::from(byte as i8), byte.into(), (byte & 15).into(), (byte >> 4).into()];
                    assert_eq!(out.map(|it| it[lane]), expected, "{}: {byte}", isa.name());
                }
            }
        }
    }

    #[test]
    fn half_precision_numbers_widen_exactly_on_every_instruction_set() {
        for isa in Isa::available() {
            for start in (0..=u16::MAX - 15).step_by(16) {
                let bits: [u16; LANES] = std::array::from_fn(|lane| start + lane as u16);
                let (mut wide_bf16, mut wide_f16) = ([0.0_f32; LANES], [0.0_f32; LANES]);
                // SAFETY: 16 elements each.
                unsafe { widen_16(isa, bits.as_ptr(), wide_bf16.as_mut_ptr(), wide_f16.as_mut_ptr()) };
                for lane in 0..LANES {
                    let bf16 = half::bf16::from_bits(bits[lane]).to_f32();
                    let f16 = half::f16::from_bits(bits[lane]).to_f32();
                    assert!(bf16.is_nan() || bf16.to_bits() == wide_bf16[lane].to_bits());
                    assert!(f16.is_nan() || f16.to_bits() == wide_f16[lane].to_bits());
                }
            }
        }
    }
}
