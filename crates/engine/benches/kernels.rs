//! The processor's operations one by one, at the shapes of SmolLM2-135M.
//!
//! `cargo bench -p ablate-engine --bench kernels` runs all of them in about two minutes; `-- product/down` only those
//! whose name contains it, `-- --quick` stops as soon as a number is steady. All threads take part. Products, the
//! head and norms report elements per second, which are floating-point operations per second where there are products;
//! attention reports the bytes of keys and values that it reads. Several matrices take turns, so that weights come
//! from memory, as they do in a model whose layers follow one another.

use std::hint::black_box;
use std::time::Duration;

use checkpoint::{Checkpoint, Quantization, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::backend::cpu::Cpu;
use engine::backend::{
    Arithmetic, AttentionShape, Backend, HeadNorms, HeadOutput, HeadWants, NormParams, QuantizedPart,
    Stacking, Values, WeightDtype, WriteParams,
};
use engine::blueprint::{Activation, NormKind};
use engine::plan::{PageTable, Plan, Slot};
use glossary::{Edit, TokenId};
use safetensors::tensor::{Dtype, TensorView};

const D_MODEL: usize = 576;
const D_MLP: usize = 1536;
const VOCAB: usize = 49_152;
const ATTENTION: AttentionShape = AttentionShape {
    n_heads: 9,
    n_kv_heads: 3,
    d_head: 64,
    scale: 0.125,
    softcap: None,
    window: None,
    values: Values::Own(64),
};

/// Bytes of weights that take turns: more than a cache that one program is likely to have for itself.
const WEIGHTS: usize = 64 << 20;

/// What weights are kept in, and what they are multiplied in.
#[derive(Clone, Copy)]
enum Precision {
    Plain(WeightDtype, Arithmetic),
    Blocks(Quantization),
}

/// What products are measured with.
const PRECISIONS: [(&str, Precision); 5] = [
    ("f32", Precision::Plain(WeightDtype::F32, Arithmetic::F32)),
    ("bf16 weights", Precision::Plain(WeightDtype::Bf16, Arithmetic::F32)),
    ("bf16 arithmetic", Precision::Plain(WeightDtype::Bf16, Arithmetic::Bf16)),
    ("q8_0 blocks", Precision::Blocks(Quantization::Q8_0)),
    ("q4_k blocks", Precision::Blocks(Quantization::Q4_K)),
];

impl Precision {
    fn cpu(self) -> Cpu {
        match self {
            Self::Plain(_, arithmetic) => Cpu::new().computing_in(arithmetic),
            Self::Blocks(_) => Cpu::new(),
        }
    }

    /// Whether rows of so many inputs can be kept so.
    fn holds(self, inputs: usize) -> bool {
        match self {
            Self::Plain(..) => true,
            Self::Blocks(blocks) => blocks.dtype().row_bytes(inputs).is_some(),
        }
    }

    fn matrix(self, cpu: &Cpu, parts: &[Tensor], stacking: Stacking) -> <Cpu as Backend>::Matrix {
        match self {
            Self::Plain(dtype, _) => cpu.matrix(parts, stacking, dtype),
            Self::Blocks(quantization) => {
                let part = |it: &Tensor| QuantizedPart { tensor: it.clone(), quantization };
                cpu.quantized(&parts.iter().map(part).collect::<Vec<_>>(), stacking)
            }
        }
        .expect("noise is finite")
    }
}

/// Numbers in −1..1 that look random: a linear congruential generator's upper bits.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A tensor in a file of its own, which is gone when the tensor is.
fn tensor(rows: usize, cols: usize) -> Tensor {
    let folder = tempfile::tempdir().expect("a folder for the tensor");
    let bytes: Vec<u8> = noise(rows * cols).into_iter().flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, vec![rows, cols], &bytes).expect("the shape is that of the bytes");
    safetensors::serialize_to_file([("tensor", view)], None, &folder.path().join("model.safetensors"))
        .expect("the folder can be written");
    std::fs::write(folder.path().join("config.json"), "{}").expect("the folder can be written");
    let checkpoint = Checkpoint::open(folder.path()).expect("what was written can be read");
    checkpoint.tensor("tensor").expect("the tensor was written")
}

/// A plan of unconnected rows, whose edit indices go round.
fn unconnected(rows: usize, edits: usize) -> Plan {
    let mut plan = Plan::default();
    for row in 0..rows as u32 {
        plan.push_row(TokenId(row), 0, row % (edits as u32 + 1), Slot { page: 0, offset: 0 }, 0);
    }
    plan
}

/// Rows of noise on the back end: the embedding of tokens 0, 1, 2, ….
fn rows(cpu: &mut Cpu, count: usize, cols: usize) -> <Cpu as Backend>::Rows {
    let mut rows = cpu.rows(cols);
    let table = cpu.table(&tensor(count, cols), WeightDtype::F32).expect("noise is finite");
    cpu.embed(&table, &unconnected(count, 0), 1.0, &mut rows);
    rows
}

fn norm(cpu: &Cpu) -> NormParams<<Cpu as Backend>::Vector> {
    let gain = cpu.vector(&noise(D_MODEL));
    NormParams { kind: NormKind::RootMeanSquare, width: D_MODEL, gain, bias: None, epsilon: 1e-5 }
}

/// One product, again and again with another matrix of the same shape.
fn product(criterion: &mut Criterion, name: &str, outputs: usize, inputs: usize, stacking: Stacking) {
    let parts = match stacking {
        Stacking::EndToEnd | Stacking::Transposed => vec![tensor(outputs, inputs)],
        Stacking::Paired => vec![tensor(outputs / 2, inputs), tensor(outputs / 2, inputs)],
    };
    let mut group = criterion.benchmark_group(format!("product/{name}"));
    for (name, precision) in PRECISIONS.into_iter().filter(|it| it.1.holds(inputs)) {
        let mut cpu = precision.cpu();
        let first = precision.matrix(&cpu, &parts, stacking);
        let copies = WEIGHTS.div_ceil(cpu.bytes(&first));
        let others = (1..copies).map(|_| precision.matrix(&cpu, &parts, stacking));
        let matrices: Vec<_> = std::iter::once(first).chain(others).collect();
        for count in [1, 16, 100, 400] {
            let x = rows(&mut cpu, count, inputs);
            let mut out = cpu.rows(if stacking == Stacking::Paired { outputs / 2 } else { outputs });
            let mut turn = 0;
            group.throughput(Throughput::Elements((2 * count * outputs * inputs) as u64));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    turn = (turn + 1) % copies;
                    match stacking {
                        Stacking::EndToEnd | Stacking::Transposed => {
                            cpu.linear(&x, &matrices[turn], None, &mut out);
                        }
                        Stacking::Paired => {
                            cpu.gated_linear(&x, &matrices[turn], None, Activation::Silu, &mut out);
                        }
                    }
                });
            });
        }
    }
    group.finish();
}

fn products(criterion: &mut Criterion) {
    product(criterion, "qkv", ATTENTION.qkv_cols(), D_MODEL, Stacking::EndToEnd);
    product(criterion, "attention output", D_MODEL, D_MODEL, Stacking::EndToEnd);
    product(criterion, "gate and up", 2 * D_MLP, D_MODEL, Stacking::Paired);
    product(criterion, "down", D_MODEL, D_MLP, Stacking::EndToEnd);
}

fn heads(criterion: &mut Criterion) {
    let head = tensor(VOCAB, D_MODEL);
    let mut group = criterion.benchmark_group("head");
    for (name, precision) in PRECISIONS.into_iter().filter(|it| it.1.holds(D_MODEL)) {
        let mut cpu = precision.cpu();
        let matrix = precision.matrix(&cpu, std::slice::from_ref(&head), Stacking::EndToEnd);
        for count in [1, 100] {
            let x = rows(&mut cpu, count, D_MODEL);
            let wants = HeadWants { top: 1, logsumexp: true, ..HeadWants::default() };
            let mut out = HeadOutput::default();
            group.throughput(Throughput::Elements((2 * count * VOCAB * D_MODEL) as u64));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    cpu.head(&x, &matrix, None, 1.0, None, &wants, &mut out);
                    black_box(&out);
                });
            });
        }
    }
    group.finish();
}

/// One row for each of many sequences, at the end of a context of its own; several layers take turns.
fn attention(criterion: &mut Criterion) {
    const LAYERS: usize = 8;
    let mut group = criterion.benchmark_group("attention, decoding");
    for (sequences, context) in [(1, 100), (100, 40), (100, 100), (100, 400)] {
        let mut cpu = Cpu::new();
        let mut table = PageTable::default();
        let (mut filling, mut last) = (Plan::default(), Plan::default());
        for token in 0..sequences as u32 {
            let id = table.open();
            let at = filling.next_context();
            for position in 0..context {
                let slot = table.append(id);
                filling.push_row(TokenId(token), position, 0, slot, at);
                if position + 1 == context {
                    last.push_row(TokenId(token), position, 0, slot, last.next_context());
                }
            }
            filling.push_context(table.chunks(id));
            last.push_context(table.chunks(id));
        }
        let noise =
            cpu.table(&tensor(sequences, ATTENTION.qkv_cols()), WeightDtype::F32).expect("noise is finite");
        let none = || HeadNorms { query: None, key: None, value: None, last: false, clip: None };
        let mut qkv = cpu.rows(ATTENTION.qkv_cols());
        let mut layers: Vec<_> = (0..LAYERS).map(|_| cpu.pages(&ATTENTION)).collect();
        for layer in &mut layers {
            cpu.reserve(layer, table.pages());
            cpu.embed(&noise, &filling, 1.0, &mut qkv);
            cpu.rotate_and_store(&mut qkv, &ATTENTION, none(), None, &filling, Some(layer));
        }
        cpu.embed(&noise, &last, 1.0, &mut qkv);
        let mut out = cpu.rows(ATTENTION.n_heads * ATTENTION.d_head);
        let numbers = 2 * ATTENTION.n_kv_heads * ATTENTION.d_head * sequences * context as usize;
        let mut turn = 0;
        group.throughput(Throughput::Bytes((numbers * size_of::<f32>()) as u64));
        group.bench_function(BenchmarkId::new(format!("{sequences} sequences"), context), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % LAYERS;
                cpu.attend(&qkv, &ATTENTION, None, &last, &layers[turn], &mut out);
            });
        });
    }
    group.finish();
}

/// How a writer joins the stream under no edit, and under those of one and of four candidates beside the original.
fn writes(criterion: &mut Criterion) {
    const ROWS: usize = 100;
    let mut group = criterion.benchmark_group("write");
    for candidates in [0, 1, 4] {
        let mut cpu = Cpu::new();
        let edit = |_| {
            Edit::new(D_MODEL, noise(D_MODEL), noise(D_MODEL), Some(vec![1.0; D_MODEL]))
                .expect("equal widths")
        };
        let edits: Vec<Edit> = (0..candidates).map(edit).collect();
        let by_index: Vec<Option<&Edit>> = std::iter::once(None).chain(edits.iter().map(Some)).collect();
        let edits = (candidates > 0).then(|| cpu.edits(&by_index, D_MODEL));
        let (plan, norm) = (unconnected(ROWS, candidates), norm(&cpu));
        let (mut y, mut residual) = (rows(&mut cpu, ROWS, D_MODEL), rows(&mut cpu, ROWS, D_MODEL));
        let mut x = cpu.rows(D_MODEL);
        group.throughput(Throughput::Elements((ROWS * D_MODEL) as u64));
        group.bench_function(BenchmarkId::new("candidates", candidates), |bencher| {
            bencher.iter(|| {
                let params = WriteParams {
                    edits: edits.as_ref(),
                    bias: None,
                    post_norm: None,
                    gates: None,
                    // What is added again and again must not grow out of the numbers.
                    scale: 1e-6,
                    stream_scale: 1.0,
                    next_norm: Some(&norm),
                };
                cpu.write(&mut y, params, &plan, &mut residual, &mut x);
            });
        });
    }
    group.finish();
}

fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("norm");
    let mut cpu = Cpu::new();
    let norm = norm(&cpu);
    for count in [1, 100, 400] {
        let x = rows(&mut cpu, count, D_MODEL);
        let mut out = cpu.rows(D_MODEL);
        group.throughput(Throughput::Elements((count * D_MODEL) as u64));
        group.bench_function(BenchmarkId::new("root mean square", count), |bencher| {
            bencher.iter(|| cpu.norm(&x, &norm, &mut out));
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
}

criterion_group! { name = kernels; config = short(); targets = products, heads, attention, writes, norms }
criterion_main!(kernels);
