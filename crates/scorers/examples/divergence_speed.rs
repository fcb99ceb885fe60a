//! How long a divergence takes: nanoseconds per logit, for vocabularies from small to the largest in use.
//!
//! ```text
//! cargo run --release -p ablate-scorers --example divergence_speed
//! ```
#![expect(clippy::print_stdout, reason = "a program, not the library")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use scorers::divergence::{kl_from_logits, log_softmax_at};

/// The fastest of several rounds, in nanoseconds per logit: other work on the machine only ever adds.
fn fastest(vocab: usize, work: impl Fn() -> f64) -> f64 {
    let rounds = (0..40).map(|_| {
        let repeats = (2_000_000 / vocab).max(1);
        let start = Instant::now();
        let sum: f64 = (0..repeats).map(|_| work()).sum();
        black_box(sum);
        start.elapsed() / repeats as u32
    });
    rounds.min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e9 / vocab as f64
}

/// The definition with the standard library's functions.
fn naive(original: &[f32], edited: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum = logits.iter().map(|&it| (f64::from(it) - max).exp()).sum::<f64>().ln();
        logits.iter().map(|&it| f64::from(it) - max - sum).collect()
    };
    log_softmax(original).iter().zip(log_softmax(edited)).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn main() {
    println!("{:>8}  {:>10}  {:>10}  {:>10}   ns per logit", "vocab", "kl", "naive kl", "log p");
    for vocab in [32_000, 49_152, 151_936, 262_144] {
        let original: Vec<f32> = (0..vocab).map(|it| (it as f32 * 0.618_034).fract() * 20.0).collect();
        let edited: Vec<f32> = (0..vocab).map(|it| (it as f32 * 0.618_034).fract() * 20.1).collect();
        let kl = fastest(vocab, || kl_from_logits(black_box(&original), black_box(&edited)));
        let slow = fastest(vocab, || naive(black_box(&original), black_box(&edited)));
        let single = fastest(vocab, || log_softmax_at(black_box(&original), 7));
        println!("{vocab:>8}  {kl:>10.2}  {slow:>10.2}  {single:>10.2}");
    }
}
