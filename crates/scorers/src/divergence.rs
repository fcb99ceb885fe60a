//! Logarithms of probabilities, and divergences between distributions, from raw logits.
//!
//! With a = o − max o and b = e − max e for the original's logits o and the candidate's e, one pass over both gives
//!
//! ```text
//! Z = Σ exp(a)    Z' = Σ exp(b)    D = Σ exp(a) (a − b)        KL(original ‖ edited) = D / Z − ln Z + ln Z'
//! ```
//!
//! **Precision.** Logits are f32, everything after the first subtraction is f64: a small KL is a difference of terms
//! near 1, and f32 exponentials would leave 1e-7 of noise in it. The exponential is our own (the standard one is a
//! call per element and does not vectorize): its polynomial is off by at most 3e-13 relatively.
//!
//! **Speed.** The loops are written over 16 lanes, compiled for AVX-512, AVX2 and the plain instruction set, and chosen
//! at run time. The bits of a result depend on which is chosen (fused multiply-add rounds once), by about 1e-16.
//! One core of an EPYC of the Zen 4 kind (AVX-512) takes 1.24 ns per logit for a divergence and 0.63 ns for a
//! log-probability, at vocabularies of 32,000 to 262,144 alike; written with the standard library's functions a
//! divergence takes 77 to 100 ns (`examples/divergence_speed.rs`). 100 prompts of 49,152 logits: 6 ms.

/// Lanes of the loops: two vectors of AVX-512, four of AVX2, so that a chain of additions does not stall.
const LANES: usize = 16;

/// KL(original ‖ edited) of two distributions given by their logits, in nats.
///
/// Never negative; exactly 0 for the same logits, and 0 up to rounding for logits that differ by a constant.
/// Logits of −∞ are probabilities of 0: where the original has none nothing is added, where only the candidate has
/// none the divergence is +∞. NaN where a logit is NaN or +∞, where all of one side are −∞, and of nothing.
///
/// # Shapes
/// - `original`, `edited`: `[vocab]`
///
/// # Panics
/// When the lengths differ: then the logits are not of the same vocabulary.
///
/// ```
/// # use scorers::divergence::kl_from_logits;
/// // p = (1/2, 1/2), p' = (1/4, 3/4): ½ ln 2 + ½ ln ⅔ = ½ ln 4/3
/// let kl = kl_from_logits(&[0.0, 0.0], &[0.0, 3.0_f32.ln()]);
/// assert!((kl - 0.5 * (4.0_f64 / 3.0).ln()).abs() < 1e-7);
/// ```
pub fn kl_from_logits(original: &[f32], edited: &[f32]) -> f64 {
    assert_eq!(original.len(), edited.len(), "logits of two vocabularies");
    let sums = isa::sums(original, edited);
    let kl = sums.difference / sums.original + (sums.edited.ln() - sums.original.ln());
    // Rounding may leave −1e-17; NaN stays NaN.
    if kl < 0.0 { 0.0 } else { kl }
}

/// ln Σ exp(logit), in nats. NaN where a logit is NaN or +∞, where all are −∞, and of nothing.
pub fn logsumexp(logits: &[f32]) -> f64 {
    f64::from(largest(logits)) + isa::sum(logits).ln()
}

/// The log-probability of one token, in nats.
///
/// # Panics
/// When the token is outside of the vocabulary.
///
/// ```
/// # use scorers::divergence::log_softmax_at;
/// assert!((log_softmax_at(&[7.0, 7.0], 1) - 0.5_f64.ln()).abs() < 1e-15);
/// ```
pub fn log_softmax_at(logits: &[f32], token: usize) -> f64 {
    f64::from(logits[token]) - logsumexp(logits)
}

/// The log-probability, in nats, that the next token is one of `tokens`; each counts once. −∞ for no tokens.
///
/// Near certainty it is −ln(1 + others/these), so that the probability of the others survives, however small:
/// the log-odds of `refusal_score` need it.
///
/// # Panics
/// When a token is outside of the vocabulary.
pub fn log_probability_of_any(logits: &[f32], tokens: &[usize]) -> f64 {
    let mut tokens = tokens.to_vec();
    tokens.sort_unstable();
    tokens.dedup();
    let max = f64::from(largest(logits));
    let these: f64 = tokens.iter().map(|&it| (f64::from(logits[it]) - max).exp()).sum();
    let all = isa::sum(logits);
    if these < 0.5 * all {
        return these.ln() - all.ln();
    }
    // The others one by one: as a difference of sums they would drown in rounding.
    let mut others = 0.0;
    let mut from = 0;
    for &token in &tokens {
        others += relative_sum(&logits[from..token], max);
        from = token + 1;
    }
    others += relative_sum(&logits[from..], max);
    -(others / these).ln_1p()
}

fn relative_sum(logits: &[f32], max: f64) -> f64 {
    logits.iter().map(|&it| (f64::from(it) - max).exp()).sum()
}

/// The largest logit, −∞ of nothing; a NaN is passed over here and shows in the sums.
fn largest(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &it) in lanes.iter_mut().zip(chunk) {
            *lane = if it > *lane { it } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// What one pass over two lists of logits sums up; names as in the module's documentation.
#[derive(Clone, Copy, Debug)]
struct Sums {
    /// Z.
    original: f64,
    /// Z'.
    edited: f64,
    /// D.
    difference: f64,
}

/// The loops, once for each instruction set.
#[expect(
    clippy::inline_always,
    reason = "a loop is compiled for the instruction set of the function that it is inlined into"
)]
mod isa {
    use super::{LANES, Sums, largest};

    /// Multiply-add, fused where that is one instruction. (Without one, `mul_add` is a slow call.)
    #[inline(always)]
    fn multiply_add<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    /// e^x for x ≤ 0, relative error below 3e-13. Below −708 it stays at e^−708 = 3e-308 instead of falling to 0.
    ///
    /// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree 10, whose remainder is at most
    /// (ln 2 / 2)^11 / 11! · e^(ln 2 / 2) = 3e-13.
    #[inline(always)]
    fn exp<const FUSED: bool>(x: f64) -> f64 {
        /// Adding it leaves the nearest integer in the lowest bits: 1.5 · 2^52.
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        /// ln 2 in two parts; the first ends in zeros, so that n times it is exact.
        const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
        const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
        /// 1/10!, 1/9!, … 1/0!.
        const TAYLOR: [f64; 11] = [
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ];
        // Written so that a NaN passes.
        let x = if x < -708.0 { -708.0 } else { x };
        let shifted = multiply_add::<FUSED>(x, std::f64::consts::LOG2_E, SHIFT);
        let n = shifted - SHIFT;
        let r = multiply_add::<FUSED>(n, -LN2_HIGH, x);
        let r = multiply_add::<FUSED>(n, -LN2_LOW, r);
        let mut polynomial = TAYLOR[0];
        for coefficient in &TAYLOR[1..] {
            polynomial = multiply_add::<FUSED>(polynomial, r, *coefficient);
        }
        // The lowest bits of `shifted` are n; moved up and added to the bias they are the exponent of 2^n.
        let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
        polynomial * power
    }

    #[inline(always)]
    fn sums_by<const FUSED: bool>(original: &[f32], edited: &[f32]) -> Sums {
        let (max_original, max_edited) = (f64::from(largest(original)), f64::from(largest(edited)));
        let mut lanes = [[0.0_f64; LANES]; 3];
        let mut add = |lane: usize, o: f32, e: f32| {
            let (a, b) = (f64::from(o) - max_original, f64::from(e) - max_edited);
            let weight = exp::<FUSED>(a);
            // 0 · (−∞ − b) is to be 0; a finite minus −∞ is to be +∞, and the weight is never 0.
            let difference = if o == f32::NEG_INFINITY { 0.0 } else { a - b };
            lanes[0][lane] += weight;
            lanes[1][lane] += exp::<FUSED>(b);
            lanes[2][lane] = multiply_add::<FUSED>(weight, difference, lanes[2][lane]);
        };
        let (original_chunks, original_rest) = original.as_chunks::<LANES>();
        let (edited_chunks, edited_rest) = edited.as_chunks::<LANES>();
        for (o, e) in original_chunks.iter().zip(edited_chunks) {
            for lane in 0..LANES {
                add(lane, o[lane], e[lane]);
            }
        }
        for (lane, (&o, &e)) in original_rest.iter().zip(edited_rest).enumerate() {
            add(lane, o, e);
        }
        let [original, edited, difference] = lanes.map(|it| it.iter().sum());
        Sums { original, edited, difference }
    }

    #[inline(always)]
    fn sum_by<const FUSED: bool>(logits: &[f32]) -> f64 {
        let max = f64::from(largest(logits));
        let mut lanes = [0.0_f64; LANES];
        let (chunks, rest) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += exp::<FUSED>(f64::from(chunk[lane]) - max);
            }
        }
        for (lane, &it) in lanes.iter_mut().zip(rest) {
            *lane += exp::<FUSED>(f64::from(it) - max);
        }
        lanes.iter().sum()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
    fn sums_avx512(original: &[f32], edited: &[f32]) -> Sums {
        sums_by::<true>(original, edited)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
    fn sum_avx512(logits: &[f32]) -> f64 {
        sum_by::<true>(logits)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn sums_avx2(original: &[f32], edited: &[f32]) -> Sums {
        sums_by::<true>(original, edited)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn sum_avx2(logits: &[f32]) -> f64 {
        sum_by::<true>(logits)
    }

    /// A way to compute the sums.
    pub(super) struct Isa {
        #[cfg_attr(not(test), expect(dead_code, reason = "tests name the set that fails"))]
        pub(super) name: &'static str,
        sums: unsafe fn(&[f32], &[f32]) -> Sums,
        sum: unsafe fn(&[f32]) -> f64,
    }

    impl Isa {
        pub(super) fn sums(&self, original: &[f32], edited: &[f32]) -> Sums {
            // SAFETY: `available` gives out a set only where the processor has it.
            unsafe { (self.sums)(original, edited) }
        }

        pub(super) fn sum(&self, logits: &[f32]) -> f64 {
            // SAFETY: as above.
            unsafe { (self.sum)(logits) }
        }
    }

    /// Fused multiply-add is part of every 64-bit ARM.
    const PLAIN: Isa = Isa {
        name: "plain",
        sums: sums_by::<{ cfg!(target_arch = "aarch64") }>,
        sum: sum_by::<{ cfg!(target_arch = "aarch64") }>,
    };

    /// The sets that this processor has, the best one first.
    pub(super) fn available() -> impl Iterator<Item = Isa> {
        #[cfg(target_arch = "x86_64")]
        let vector = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            [
                avx512.then_some(Isa { name: "avx512", sums: sums_avx512, sum: sum_avx512 }),
                avx2.then_some(Isa { name: "avx2", sums: sums_avx2, sum: sum_avx2 }),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Isa>; 0] = [];
        vector.into_iter().flatten().chain([PLAIN])
    }

    pub(super) fn sums(original: &[f32], edited: &[f32]) -> Sums {
        available().next().unwrap_or(PLAIN).sums(original, edited)
    }

    pub(super) fn sum(logits: &[f32]) -> f64 {
        available().next().unwrap_or(PLAIN).sum(logits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, step by step.
    fn naive_log_softmax(logits: &[f32]) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let relative: Vec<f64> = logits.iter().map(|&it| f64::from(it) - f64::from(max)).collect();
        let normalizer = relative.iter().map(|it| it.exp()).sum::<f64>().ln();
        relative.iter().map(|it| it - normalizer).collect()
    }

    fn naive_kl(original: &[f32], edited: &[f32]) -> f64 {
        let (p, q) = (naive_log_softmax(original), naive_log_softmax(edited));
        p.iter().zip(&q).filter(|it| it.0.exp() > 0.0).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    /// Numbers that look like logits, without a generator of random numbers.
    fn logits(seed: u64, vocab: usize, spread: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..vocab).map(|_| (uniform() + uniform() + uniform() - 1.5) * spread).collect()
    }

    fn assert_close(found: f64, expected: f64, context: &str) {
        let tolerance = 1e-11 + 1e-11 * expected.abs();
        assert!((found - expected).abs() <= tolerance, "{context}: {found:e}, expected {expected:e}");
    }

    #[test]
    fn every_instruction_set_agrees_with_the_definition() {
        for isa in isa::available() {
            for vocab in [1, 2, 15, 16, 17, 49_152] {
                for (spread, change) in [(1.0, 1e-3), (8.0, 0.1), (30.0, 1.0), (30.0, 20.0)] {
                    let original = logits(vocab as u64, vocab, spread);
                    let noise = logits(vocab as u64 + 1, vocab, change);
                    let edited: Vec<f32> = original.iter().zip(&noise).map(|(a, b)| a + b).collect();
                    let sums = isa.sums(&original, &edited);
                    let kl = sums.difference / sums.original + sums.edited.ln() - sums.original.ln();
                    let context = format!("{} vocab {vocab} spread {spread} change {change}", isa.name);
                    assert_close(kl, naive_kl(&original, &edited), &context);
                    let max = f64::from(largest(&original));
                    let naive = original.iter().map(|&it| (f64::from(it) - max).exp()).sum::<f64>();
                    assert_close(isa.sum(&original), naive, &context);
                }
            }
        }
    }

    #[test]
    fn the_order_is_original_then_edited() {
        // p = (1/10, 9/10), p' = (1/2, 1/2).
        let (original, edited) = ([0.0, 9.0_f32.ln()], [0.0, 0.0]);
        let forward = 0.1 * (0.1_f64 / 0.5).ln() + 0.9 * (0.9_f64 / 0.5).ln(); // 0.368
        let backward = 0.5 * (0.5_f64 / 0.1).ln() + 0.5 * (0.5_f64 / 0.9).ln(); // 0.511
        assert!((kl_from_logits(&original, &edited) - forward).abs() < 1e-7);
        assert!((kl_from_logits(&edited, &original) - backward).abs() < 1e-7);
    }

    #[test]
    fn the_same_logits_diverge_by_exactly_nothing_and_a_shift_by_rounding() {
        let original = logits(3, 1000, 20.0);
        assert_eq!(kl_from_logits(&original, &original).to_bits(), 0);
        // Powers of two, so that the shift itself is exact.
        let coarse: Vec<f32> = original.iter().map(|it| (it * 64.0).round() / 64.0).collect();
        let shifted: Vec<f32> = coarse.iter().map(|it| it + 256.0).collect();
        assert!(kl_from_logits(&coarse, &shifted) < 1e-14);
    }

    #[test]
    fn a_token_that_the_original_never_says_adds_nothing() {
        const NEVER: f32 = f32::NEG_INFINITY;
        let with = kl_from_logits(&[0.0, 1.0, NEVER, NEVER], &[1.0, 0.0, NEVER, -40.0]);
        let without = kl_from_logits(&[0.0, 1.0], &[1.0, 0.0]);
        assert!((with - without).abs() < 1e-15);
        // It still takes probability from the others.
        let heavy = kl_from_logits(&[0.0, NEVER], &[0.0, 0.0]);
        assert!((heavy - std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn a_token_that_only_the_candidate_never_says_is_infinitely_far() {
        let never = f32::NEG_INFINITY;
        assert!(kl_from_logits(&[0.0, 0.0], &[0.0, never]) >= f64::INFINITY);
        assert!(kl_from_logits(&[0.0, -800.0], &[0.0, never]) >= f64::INFINITY);
    }

    #[test]
    fn what_is_no_distribution_is_not_a_number() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for (original, edited) in [
            ([nan, 0.0], [0.0, 0.0]),
            ([0.0, 0.0], [0.0, nan]),
            ([-inf, 0.0], [nan, 0.0]),
            ([inf, 0.0], [0.0, 0.0]),
            ([0.0, 0.0], [inf, 0.0]),
            ([-inf, -inf], [0.0, 0.0]),
            ([0.0, 0.0], [-inf, -inf]),
        ] {
            let kl = kl_from_logits(&original, &edited);
            assert!(!kl.is_finite(), "{original:?} {edited:?}: {kl}");
        }
        assert!(kl_from_logits(&[], &[]).is_nan());
        assert!(
            logsumexp(&[nan, 1.0]).is_nan() && logsumexp(&[inf, 1.0]).is_nan() && logsumexp(&[-inf]).is_nan()
        );
    }

    #[test]
    fn the_largest_logits_neither_overflow_nor_vanish() {
        assert!((logsumexp(&[3e38, 3e38]) - f64::from(3e38_f32)).abs() < 1e25);
        assert!((kl_from_logits(&[3e38, 0.0], &[3e38, 0.0])).abs() < 1e-300);
        assert!((log_softmax_at(&[0.0, -1e30], 1) + f64::from(1e30_f32)).abs() < 1e15);
    }

    #[test]
    fn the_probability_of_the_others_survives_near_certainty() {
        // 1 − p = e^−60 ≈ 9e-27: ln p = −9e-27, which 1 − p computed in f64 would round to 0.
        let found = log_probability_of_any(&[60.0, 0.0], &[0]);
        assert!((found / -(-60.0_f64).exp() - 1.0).abs() < 1e-12, "{found:e}");
    }

    #[test]
    fn several_tokens_are_counted_once_each() {
        // e^logit: 1, 2, 3, 4 of 10.
        let logits: Vec<f32> = [1.0_f32, 2.0, 3.0, 4.0].iter().map(|it| it.ln()).collect();
        for (tokens, share) in
            [(vec![1], 0.2), (vec![3, 1, 3], 0.6), (vec![0, 1, 2, 3], 1.0), (vec![0, 2], 0.4)]
        {
            let found = log_probability_of_any(&logits, &tokens);
            assert!((found - f64::ln(share)).abs() < 1e-6, "{tokens:?}: {found}");
        }
        assert!(log_probability_of_any(&logits, &[]) <= f64::NEG_INFINITY);
    }

    proptest! {
        #[test]
        fn no_divergence_is_negative_and_all_agree_with_the_definition(
            pairs in proptest::collection::vec((-60.0_f32..60.0, -60.0_f32..60.0), 1..80)
        ) {
            let (original, edited): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let kl = kl_from_logits(&original, &edited);
            prop_assert!(kl >= 0.0);
            let expected = naive_kl(&original, &edited);
            prop_assert!((kl - expected).abs() <= 1e-11 * (1.0 + expected.abs()), "{} {}", kl, expected);
            let naive = naive_log_softmax(&original);
            prop_assert!((log_softmax_at(&original, 0) - naive[0]).abs() < 1e-11);
        }
    }
}
