//! `ablate bench`: how fast a model runs here, against what the machine can do.

use std::time::{Duration, Instant};

use engine::backend::cpu::Machine;
use engine::{Engine, Generation, PartTimes, Request};
use glossary::TokenId;
use serde_json::{Value, json};

use crate::interrupt;
use crate::model::{ModelArguments, QuantizeArgument};
use crate::terminal::{line, remark};

/// Measure speed: prefill and decoding at several batch sizes, against the machine's own limits
///
/// The limits are measured first: the fastest matrix product and the fastest read of memory on the same threads.
/// "of product peak" is the share of the former that the model's matrix products alone account for; "of
/// bandwidth" is the share of the latter that reading each weight once accounts for, at every step of decoding, in
/// prefill for all prompts together. A large batch is
/// bound by the first, a small one by the second. Numbers are medians; on a shared machine run it more than once.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    quantize: QuantizeArgument,

    /// Numbers of sequences that are decoded together
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,100", value_name = "N,…",
          value_parser = clap::value_parser!(u32).range(1..))]
    batch_sizes: Vec<u32>,

    /// Tokens of each prompt
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,

    /// Tokens of each answer
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    new_tokens: u32,

    /// Runs of each size, of which the median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// One phase at one batch size.
struct Phase {
    name: &'static str,
    batch: usize,
    tokens: usize,
    seconds: f64,
    times: PartTimes,
    /// Floating-point operations of matrix products.
    flops: f64,
    /// Weights that had to be read, in bytes.
    bytes: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.model.quantized(arguments.quantize);
    let checkpoint = model.open()?;
    let mut engine = model.load(&checkpoint)?;
    interrupt::listen()?;
    remark("measuring the machine");
    let compute = model.compute();
    let machine = Machine::measure(compute.isa()?, compute.arithmetic(), compute.threads())?;
    let mut phases = Vec::new();
    for &batch in &arguments.batch_sizes {
        remark(&format!("batch of {batch}: {} runs", arguments.runs));
        let mut runs = Vec::new();
        for _ in 0..=arguments.runs {
            if interrupt::requested() {
                return Ok(());
            }
            runs.push(measure(&mut engine, batch as usize, arguments)?);
        }
        runs.remove(0); // warms up
        let (prefill, decode): (Vec<Phase>, Vec<Phase>) = runs.into_iter().unzip();
        phases.push(median(prefill));
        phases.push(median(decode));
    }
    if arguments.json {
        line(&as_json(&engine, &machine, &phases).to_string())?;
    } else {
        as_table(&engine, &machine, &phases)?;
    }
    Ok(())
}

fn median(mut runs: Vec<Phase>) -> Phase {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs.swap_remove((runs.len() - 1) / 2)
}

/// Prefills and decodes once; nothing stops an answer early.
fn measure(engine: &mut Engine, batch: usize, arguments: &Arguments) -> anyhow::Result<(Phase, Phase)> {
    let (prompt_tokens, new_tokens) = (arguments.prompt_tokens as usize, arguments.new_tokens as usize);
    let vocab = engine.info().vocab;
    // Different from the first token on, so that no common head is computed once for all.
    let requests: Vec<Request> = (0..batch)
        .map(|i| Request {
            tokens: (0..prompt_tokens)
                .map(|j| TokenId(((i * 7919 + j * 104_729 + 17) % vocab) as u32))
                .collect(),
            edit: 0,
        })
        .collect();
    engine.take_times();
    let started = Instant::now();
    let mut prefill: Option<(Duration, PartTimes)> = None;
    let mut first = 0;
    let mut started_decoding = Instant::now();
    let how = Generation { max_tokens: new_tokens, batch, ..Generation::default() };
    engine.generate(&requests, &how, &mut |_, _| {
        first += 1;
        if first == batch {
            prefill = Some((started.elapsed(), PartTimes::default()));
            started_decoding = Instant::now();
        }
        interrupt::requested()
    })?;
    let decoding = started_decoding.elapsed();
    let both = engine.take_times();
    // The parts of prefill alone, from a run of its own.
    engine.generate(&requests, &Generation { max_tokens: 0, ..how }, &mut |_, _| false)?;
    let prefill_times = engine.take_times();
    let prefill_seconds = prefill.map_or(started.elapsed(), |it| it.0).as_secs_f64();

    let info = engine.info();
    let (blocks, head) = (info.block_weights as f64, info.head_weights as f64);
    // Of all weights: those of experts that a token is not sent to are like the others.
    let size = info.weight_bytes as f64 / info.weights as f64;
    let rows = (batch * prompt_tokens) as f64;
    let steps = (new_tokens - 1) as f64;
    let decoded = batch * (new_tokens - 1);
    Ok((
        Phase {
            name: "prefill",
            batch,
            tokens: batch * prompt_tokens,
            seconds: prefill_seconds,
            times: prefill_times,
            flops: 2.0 * (rows * blocks + batch as f64 * head),
            bytes: size * (blocks + head),
        },
        Phase {
            name: "decode",
            batch,
            tokens: decoded,
            seconds: decoding.as_secs_f64(),
            times: difference(both, prefill_times),
            flops: 2.0 * decoded as f64 * (blocks + head),
            bytes: size * steps * (blocks + head),
        },
    ))
}

fn difference(all: PartTimes, part: PartTimes) -> PartTimes {
    PartTimes {
        products: all.products.saturating_sub(part.products),
        head: all.head.saturating_sub(part.head),
        attention: all.attention.saturating_sub(part.attention),
        rest: all.rest.saturating_sub(part.rest),
    }
}

impl Phase {
    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }

    fn of_product_peak(&self, machine: &Machine) -> f64 {
        self.flops / self.seconds / 1e9 / machine.product_gflops
    }

    fn of_bandwidth(&self, machine: &Machine) -> f64 {
        self.bytes / self.seconds / 1e9 / machine.read_gbs
    }

    /// Shares of the time: products, head, attention, rest.
    fn shares(&self) -> [f64; 4] {
        let PartTimes { products, head, attention, rest } = self.times;
        let all = (products + head + attention + rest).as_secs_f64();
        [products, head, attention, rest].map(|it| it.as_secs_f64() / all)
    }
}

fn as_table(engine: &Engine, machine: &Machine, phases: &[Phase]) -> std::io::Result<()> {
    let info = engine.info();
    let mebibytes = info.weight_bytes as f64 / f64::from(1 << 20);
    let bits = 8.0 * info.weight_bytes as f64 / info.weights as f64;
    line(&format!("weights: {} in {mebibytes:.1} MiB, {bits:.2} bits each", info.weights))?;
    line(&format!(
        "machine, {} threads: {:.0} GFLOP/s in products, {:.0} in multiply-adds alone, reads {:.1} GB/s\n",
        machine.threads, machine.product_gflops, machine.fma_gflops, machine.read_gbs
    ))?;
    line("phase    batch  tokens/s  of product peak  of bandwidth  products   head  attention   rest")?;
    for phase in phases {
        let [products, head, attention, rest] = phase.shares().map(|it| 100.0 * it);
        line(&format!(
            "{:<8} {:>5} {:>9.1} {:>15.1}% {:>12.1}% {products:>8.1}% {head:>5.1}% {attention:>9.1}% {rest:>5.1}%",
            phase.name,
            phase.batch,
            phase.tokens_per_second(),
            100.0 * phase.of_product_peak(machine),
            100.0 * phase.of_bandwidth(machine),
        ))?;
    }
    Ok(())
}

fn as_json(engine: &Engine, machine: &Machine, phases: &[Phase]) -> Value {
    let phases: Vec<Value> = phases
        .iter()
        .map(|phase| {
            let [products, head, attention, rest] = phase.shares();
            json!({
                "phase": phase.name,
                "batch": phase.batch,
                "tokens": phase.tokens,
                "seconds": phase.seconds,
                "tokens_per_second": phase.tokens_per_second(),
                "of_product_peak": phase.of_product_peak(machine),
                "of_bandwidth": phase.of_bandwidth(machine),
                "shares": {"products": products, "head": head, "attention": attention, "rest": rest},
            })
        })
        .collect();
    json!({
        "device": engine.device(),
        "dtype": engine.info().dtype.name(),
        "quantization": engine.info().quantization.map(checkpoint::Quantization::name),
        "weights": engine.info().weights,
        "weight_bytes": engine.info().weight_bytes,
        "arithmetic": engine.info().arithmetic.name(),
        "machine": {
            "threads": machine.threads,
            "product_gflops": machine.product_gflops,
            "fma_gflops": machine.fma_gflops,
            "read_gbs": machine.read_gbs,
        },
        "phases": phases,
    })
}
