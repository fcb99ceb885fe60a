//! What the machine can do, measured: the yardstick for what the engine makes of it.

use std::hint::black_box;
use std::time::Instant;

use super::matmul::{HalfLine, Matrix, PairLine, Panels, product};
use super::rows::{Line, Rows};
use super::simd::{Isa, LANES, Simd, with_isa};
use crate::backend::Arithmetic;

/// Measured limits of this machine, for a number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Threads that took part.
    pub threads: usize,
    /// Multiply-adds on registers alone, in GFLOP/s: no product can be faster.
    pub fma_gflops: f64,
    /// The best of several large products, in GFLOP/s.
    pub product_gflops: f64,
    /// Reading memory in order, in GB/s.
    pub read_gbs: f64,
}

/// Runs of each measurement; the median counts, for the product the best shape's.
const RUNS: usize = 7;

impl Machine {
    /// Measures for about a second on `threads` threads; 0: all. Multiply-adds and products are of `arithmetic`.
    pub fn measure(
        isa: Isa,
        arithmetic: Arithmetic,
        threads: usize,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(pool.install(|| Self {
            threads: rayon::current_num_threads(),
            fma_gflops: multiply_add_gflops(isa, arithmetic),
            product_gflops: [(1024, 1024), (1536, 576), (4096, 2048)]
                .into_iter()
                .map(|(n, k)| product_gflops(isa, arithmetic, n, k))
                .fold(0.0, f64::max),
            read_gbs: read_gbs(isa),
        }))
    }
}

/// The median time of several runs after one that warms up, in seconds.
fn median_seconds(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// Independent chains of multiply-add: enough to hide its latency.
const CHAINS: usize = 10;

#[inline(always)]
unsafe fn fma_kernel<S: Simd>(rounds: usize, out: &mut f32) {
    // SAFETY: register arithmetic.
    unsafe {
        let mut chains = [S::splat(1.0); CHAINS];
        let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(1e-3)));
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = S::fma(*chain, a, b);
            }
        }
        *out = chains.into_iter().fold(0.0, |sum, it| sum + S::sum(it));
    }
}
with_isa! { unsafe fn fma_chains(rounds: usize, out: &mut f32) = fma_kernel }

/// The same with products of pairs, on one line of ones.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pair_chains(rounds: usize, out: &mut f32) {
    use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_reduce_add_ps, _mm512_setzero_ps};
    const ONES: [u32; LANES] = [0x3f80_3f80; LANES];
    // SAFETY: 16 pairs of bf16 are a register of them.
    let ones = unsafe { std::mem::transmute::<[u32; LANES], __m512bh>(black_box(ONES)) };
    let mut chains = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = _mm512_dpbf16_ps(*chain, ones, ones);
        }
    }
    *out = chains.into_iter().fold(0.0, |sum, it| sum + _mm512_reduce_add_ps(it));
}

fn multiply_add_gflops(isa: Isa, arithmetic: Arithmetic) -> f64 {
    const ROUNDS: usize = 1_000_000;
    let threads = rayon::current_num_threads();
    let pairs = arithmetic == Arithmetic::Bf16 && isa.multiplies_bf16();
    let seconds = median_seconds(|| {
        rayon::broadcast(|_| {
            let mut out = 0.0;
            // SAFETY: no pointers; an instruction set exists only where the processor has it.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if pairs {
                    pair_chains(ROUNDS, &mut out);
                } else {
                    fma_chains(isa, ROUNDS, &mut out);
                }
                #[cfg(not(target_arch = "x86_64"))]
                fma_chains(isa, ROUNDS, &mut out);
            }
            black_box(out);
        });
    });
    let operations = if pairs { 4 } else { 2 };
    (threads * ROUNDS * CHAINS * LANES * operations) as f64 / seconds / 1e9
}

fn product_gflops(isa: Isa, arithmetic: Arithmetic, n: usize, k: usize) -> f64 {
    const ROWS: usize = 192;
    // Weights of 0.5 times an input of 0.25, or of pairs of them.
    const HALF: u16 = 0x3f00;
    let lines = n.div_ceil(LANES) * k;
    let (panels, number) = match arithmetic {
        Arithmetic::F32 => (Panels::F32(vec![Line([0.5; LANES]); lines]), 0.25),
        Arithmetic::Bf16 if isa.multiplies_bf16() => {
            (Panels::Bf16Pairs(vec![PairLine([0x3f00_3f00; LANES]); lines / 2]), f32::from_bits(0x3e80_3e80))
        }
        Arithmetic::Bf16 => (Panels::Bf16(vec![HalfLine([HALF; LANES]); lines]), 0.25),
    };
    let weights = Matrix::new(n, k, panels);
    let (mut x, mut y) = (Rows::new(weights.steps()), Rows::new(n));
    x.resize(ROWS);
    for row in 0..ROWS {
        x.row_mut(row).fill(number);
    }
    // Each run takes some 10 ms.
    let repeats = (1_000_000_000 / (ROWS * n * k)).max(1);
    let seconds = median_seconds(|| {
        for _ in 0..repeats {
            product(isa, &x, &weights, None, &mut y);
        }
    });
    (repeats * ROWS * n * k * 2) as f64 / seconds / 1e9
}

#[inline(always)]
unsafe fn read_kernel<S: Simd>(lines: &[Line], out: &mut f32) {
    // SAFETY: loads stay within the lines.
    unsafe {
        let mut sums = [S::splat(0.0); 4];
        for four in lines.chunks_exact(4) {
            for (sum, line) in sums.iter_mut().zip(four) {
                *sum = S::add(*sum, S::load(line.0.as_ptr()));
            }
        }
        *out = sums.into_iter().fold(0.0, |sum, it| sum + S::sum(it));
    }
}
with_isa! { unsafe fn read_lines(lines: &[Line], out: &mut f32) = read_kernel }

fn read_gbs(isa: Isa) -> f64 {
    use rayon::prelude::*;
    // Larger than any cache that a single program is likely to have for itself.
    const LINES: usize = (256 << 20) / size_of::<Line>();
    let lines = vec![Line([1.0; LANES]); LINES];
    let seconds = median_seconds(|| {
        lines.par_chunks(LINES / 64).for_each(|lines| {
            let mut out = 0.0;
            // SAFETY: the slice is read within its bounds.
            unsafe { read_lines(isa, lines, &mut out) };
            black_box(out);
        });
    });
    (LINES * size_of::<Line>()) as f64 / seconds / 1e9
}
