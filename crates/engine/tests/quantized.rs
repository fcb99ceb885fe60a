//! Weights in quantized blocks: a model in blocks is the model of the numbers that the blocks mean, bit for bit.

#[allow(dead_code, unreachable_pub, reason = "the builder is shared with the tests of the files themselves")]
#[path = "../../checkpoint/tests/files/gguf_builder.rs"]
mod gguf_builder;
mod support;

use std::path::Path;

use checkpoint::{Checkpoint, Quantization, TensorDtype};
use engine::backend::Arithmetic;
use engine::backend::cpu::Isa;
use engine::{Answer, Device, DtypeChoice, Engine, Generation, LoadError, LoadOptions, Request};
use gguf_builder::Gguf;
use glossary::TokenId;
use support::{goldens, largest, largest_difference};

/// The same numbers, summed in f32 or in f64: as of weights in half precision.
const RELATIVE: f32 = 2e-5;

const VOCAB: usize = 40;
const D_MODEL: usize = 256;
const D_MLP: usize = 512;
const LAYERS: usize = 2;

/// A small Llama in a GGUF file: each matrix by name, outputs and inputs.
struct Small {
    /// 32: rows of the attention output are whole 32; 20: they are not, nor are key and value whole panels.
    d_head: usize,
}

/// The type and the bytes of a tensor of this name, these numbers and rows of this length.
type Store<'a> = &'a dyn Fn(&str, &[f32], usize) -> (u32, Vec<u8>);

impl Small {
    /// The matrices of blocks, in order.
    fn matrices(&self) -> Vec<(String, usize, usize)> {
        let (d, heads) = (self.d_head, 2);
        let of_layer = |layer: usize| {
            [
                ("attn_q", heads * d, D_MODEL),
                ("attn_k", d, D_MODEL),
                ("attn_v", d, D_MODEL),
                ("attn_output", D_MODEL, heads * d),
                ("ffn_gate", D_MLP, D_MODEL),
                ("ffn_up", D_MLP, D_MODEL),
                ("ffn_down", D_MODEL, D_MLP),
            ]
            .map(|(name, n, k)| (format!("blk.{layer}.{name}.weight"), n, k))
        };
        (0..LAYERS).flat_map(of_layer).collect()
    }

    /// Writes it with matrices as `store` says: a type of files and the bytes of all rows.
    fn write(&self, path: &Path, store: Store<'_>) {
        let mut file = Gguf::new()
            .text("general.architecture", "llama")
            .number("llama.embedding_length", D_MODEL as u32)
            .number("llama.block_count", LAYERS as u32)
            .number("llama.feed_forward_length", D_MLP as u32)
            .number("llama.attention.head_count", 2)
            .number("llama.attention.head_count_kv", 1)
            .number("llama.attention.key_length", self.d_head as u32)
            .number("llama.vocab_size", VOCAB as u32)
            .entry("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
            .floats("token_embd.weight", &[D_MODEL as u64, VOCAB as u64], &noise(1, VOCAB * D_MODEL, 1.0))
            .floats("output_norm.weight", &[D_MODEL as u64], &[1.0; D_MODEL]);
        for layer in 0..LAYERS {
            for norm in ["attn_norm", "ffn_norm"] {
                file = file.floats(&format!("blk.{layer}.{norm}.weight"), &[D_MODEL as u64], &[1.0; D_MODEL]);
            }
        }
        let head = ("output.weight".to_owned(), VOCAB, D_MODEL);
        for (seed, (name, n, k)) in self.matrices().into_iter().chain([head]).enumerate() {
            let numbers = noise(seed as u64 + 2, n * k, 1.0 / (k as f32).sqrt());
            let (kind, bytes) = store(&name, &numbers, k);
            file = file.tensor(&name, &[k as u64, n as u64], kind, &bytes);
        }
        file.write(path);
    }
}

/// In ±scale: splitmix64.
fn noise(seed: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 * scale - scale
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn as_f32(numbers: &[f32]) -> (u32, Vec<u8>) {
    (gguf_builder::F32, gguf_builder::le_bytes(numbers))
}

/// Rows in blocks.
fn in_blocks(kind: Quantization, numbers: &[f32], k: usize) -> (u32, Vec<u8>) {
    let bytes = numbers.chunks(k).flat_map(|row| {
        let mut bytes = vec![0; kind.dtype().row_bytes(k).unwrap()];
        kind.encode(row, &mut bytes);
        bytes
    });
    (if kind == Quantization::Q8_0 { 8 } else { 12 }, bytes.collect())
}

/// What blocks make of numbers.
fn through_blocks(kind: Quantization, numbers: &[f32], k: usize) -> Vec<f32> {
    let mut decoded = vec![0.0; numbers.len()];
    kind.dtype().decode(&in_blocks(kind, numbers, k).1, &mut decoded);
    decoded
}

/// What the table of the engine's documentation says of a tensor.
fn expected_blocks(wanted: Quantization, name: &str, k: usize) -> Option<Quantization> {
    match wanted {
        Quantization::Q4_K if k.is_multiple_of(256) && name != "output.weight" => Some(Quantization::Q4_K),
        _ => k.is_multiple_of(32).then_some(Quantization::Q8_0),
    }
}

fn load(path: &Path, device: Device, quantize: Option<Quantization>) -> Engine {
    let options = LoadOptions { device, quantize, threads: 2, ..LoadOptions::default() };
    Engine::load(&Checkpoint::open(path).unwrap(), &options, &mut |_, _| {}).unwrap()
}

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(Device::CpuWith).chain([Device::Reference]).collect()
}

/// Prompts of 1 to 60 tokens: few rows, many rows, and a few decoded ones.
fn answers(engine: &mut Engine) -> Vec<Answer> {
    let prompt = |n: u32| (0..n).map(|j| TokenId((7 * n + 3 * j * j) % VOCAB as u32)).collect();
    let requests = [1, 2, 5, 60].map(|it| Request { tokens: prompt(it), edit: 0 });
    let how = Generation { max_tokens: 3, logits: true, residuals: true, top: 2, ..Generation::default() };
    engine.generate(&requests, &how, &mut |_, _| false).unwrap()
}

#[test]
fn a_quantized_model_has_the_bits_of_the_model_whose_weights_were_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let (full, rounded) = (folder.path().join("full.gguf"), folder.path().join("rounded.gguf"));
    for d_head in [32, 20] {
        let small = Small { d_head };
        small.write(&full, &|_, numbers, _| as_f32(numbers));
        for wanted in Quantization::ALL {
            small.write(&rounded, &|name, numbers, k| match expected_blocks(wanted, name, k) {
                Some(kind) => as_f32(&through_blocks(kind, numbers, k)),
                None => as_f32(numbers),
            });
            for device in devices() {
                let mut quantized = load(&full, device, Some(wanted));
                let found = answers(&mut quantized);
                let place = format!("{d_head}, {}, {device:?}", wanted.name());
                assert!(found == answers(&mut load(&rounded, device, None)), "{place}");
                assert!(found != answers(&mut load(&full, device, None)), "{place}: rounding does something");
            }
        }
    }
}

#[test]
fn blocks_of_a_file_are_held_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.gguf");
    for (d_head, in_file) in [(32, Quantization::Q8_0), (32, Quantization::Q4_K), (20, Quantization::Q8_0)] {
        Small { d_head }.write(&path, &|name, numbers, k| match expected_blocks(in_file, name, k) {
            Some(kind) => in_blocks(kind, numbers, k),
            None => as_f32(numbers),
        });
        for device in devices() {
            let expected = answers(&mut load(&path, device, None));
            // Blocks of 4 bits are not made 8, and 8 are not made 4 where the file holds most weights in 4.
            for wanted in Quantization::ALL {
                let mut quantized = load(&path, device, Some(wanted));
                let same = answers(&mut quantized) == expected;
                let rounded_again = (in_file, wanted) == (Quantization::Q8_0, Quantization::Q4_K);
                let place = format!("{d_head}, {} as {}", in_file.name(), wanted.name());
                assert_eq!(same, !rounded_again, "{place}, {device:?}");
            }
        }
    }
}

#[test]
fn queries_keys_and_values_may_lie_in_different_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.gguf");
    for (d_head, same) in [(32, true), (20, false)] {
        // Whole panels keep their own blocks; else Q8_0 serves all three, and what was Q4_K is rounded.
        Small { d_head }.write(
            &path,
            &|name, numbers, k| match expected_blocks(Quantization::Q4_K, name, k) {
                Some(_) if name.contains("attn_v") => in_blocks(Quantization::Q8_0, numbers, k),
                Some(kind) => in_blocks(kind, numbers, k),
                None => as_f32(numbers),
            },
        );
        for device in devices() {
            let expected = answers(&mut load(&path, device, None));
            let found = answers(&mut load(&path, device, Some(Quantization::Q4_K)));
            assert_eq!(found == expected, same, "{d_head}, {device:?}");
            for (found, expected) in found.iter().zip(&expected) {
                let by = largest_difference(&found.residuals, &expected.residuals).0;
                assert!(by <= 0.02 * largest(&expected.residuals), "{d_head}, {device:?}: off by {by}");
            }
        }
    }
}

#[test]
fn finer_blocks_of_a_file_that_is_mostly_q4_k_become_q8_0() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rounded) = (folder.path().join("mixture.gguf"), folder.path().join("rounded.gguf"));
    // Q6_K: whatever bits, with a scale of a 4,096th.
    let q6_k = |numbers: &[f32]| {
        let mut bytes = vec![0_u8; TensorDtype::Q6_K.row_bytes(numbers.len()).unwrap()];
        for (block, numbers) in bytes.chunks_mut(210).zip(numbers.chunks(256)) {
            for (byte, number) in block.iter_mut().zip(numbers) {
                *byte = number.to_bits() as u8;
            }
            block[192..208].iter_mut().for_each(|it| *it %= 32);
            block[208..].copy_from_slice(&half::f16::from_f32(1.0 / 4096.0).to_le_bytes());
        }
        bytes
    };
    let finer = |name: &str| name.contains("ffn_down") || name.contains("attn_v");
    let small = Small { d_head: 32 };
    let kind = |name: &str, k| expected_blocks(Quantization::Q4_K, name, k).unwrap();
    small.write(&path, &|name, numbers, k| {
        if finer(name) { (14, q6_k(numbers)) } else { in_blocks(kind(name, k), numbers, k) }
    });
    small.write(&rounded, &|name, numbers, k| {
        if !finer(name) {
            return in_blocks(kind(name, k), numbers, k);
        }
        let mut decoded = vec![0.0; numbers.len()];
        TensorDtype::Q6_K.decode(&q6_k(numbers), &mut decoded);
        in_blocks(Quantization::Q8_0, &decoded, k)
    });
    for device in devices() {
        let expected = answers(&mut load(&rounded, device, None));
        for wanted in Quantization::ALL {
            assert!(answers(&mut load(&path, device, Some(wanted))) == expected, "{device:?}");
        }
    }
}

#[test]
fn quantized_models_of_every_family_give_the_numbers_of_the_oracle() {
    for golden in goldens() {
        let requests: Vec<Request> =
            golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
        let how = Generation { max_tokens: 4, logits: true, residuals: true, ..Generation::default() };
        for wanted in Quantization::ALL {
            let run = |device| {
                let mut engine = load(&golden.folder, device, Some(wanted));
                assert_eq!(engine.info().quantization, Some(wanted));
                engine.generate(&requests, &how, &mut |_, _| false).unwrap()
            };
            let oracle = run(Device::Reference);
            for isa in Isa::available() {
                for (prompt, (found, exact)) in run(Device::CpuWith(isa)).iter().zip(&oracle).enumerate() {
                    let place = format!("{}, {}, {}, {prompt}", golden.name, wanted.name(), isa.name());
                    let by = largest_difference(&found.residuals, &exact.residuals).0;
                    assert!(
                        by <= RELATIVE * largest(&exact.residuals),
                        "{place}: residuals differ by {by:e}"
                    );
                    let logits = |it: &Answer| it.first_token.as_ref().unwrap().logits.clone();
                    let by = largest_difference(&logits(found), &logits(exact)).0;
                    assert!(by <= RELATIVE * largest(&logits(exact)), "{place}: logits differ by {by:e}");
                }
            }
        }
    }
}

#[test]
fn answers_of_quantized_weights_do_not_depend_on_the_batch_or_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.gguf");
    Small { d_head: 32 }.write(&path, &|_, numbers, _| as_f32(numbers));
    for wanted in Quantization::ALL {
        for isa in Isa::available() {
            let together = answers(&mut load(&path, Device::CpuWith(isa), Some(wanted)));
            let options = LoadOptions {
                device: Device::CpuWith(isa),
                quantize: Some(wanted),
                threads: 1,
                ..LoadOptions::default()
            };
            let mut engine =
                Engine::load(&Checkpoint::open(&path).unwrap(), &options, &mut |_, _| {}).unwrap();
            let how =
                Generation { max_tokens: 3, logits: true, residuals: true, top: 2, ..Generation::default() };
            for (n, together) in [1_u32, 2, 5, 60].into_iter().zip(together) {
                let tokens = (0..n).map(|j| TokenId((7 * n + 3 * j * j) % VOCAB as u32)).collect();
                let alone = engine.generate(&[Request { tokens, edit: 0 }], &how, &mut |_, _| false).unwrap();
                assert!(alone[0] == together, "{}, {}", wanted.name(), isa.name());
            }
        }
    }
}

#[test]
fn blocks_take_the_memory_that_their_bits_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.gguf");
    let small = Small { d_head: 32 };
    small.write(&path, &|_, numbers, _| as_f32(numbers));
    // The head's 40 outputs fill three panels of 16, of which numbers count what there is, and memory what is taken.
    let (numbers, padded): (usize, usize) = small
        .matrices()
        .into_iter()
        .chain([("output.weight".to_owned(), VOCAB, D_MODEL)])
        .map(|(_, n, k)| (n * k, n.next_multiple_of(16) * k))
        .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let info = |quantize| load(&path, Device::Cpu, quantize).info().clone();
    assert_eq!((info(None).weights, info(None).weight_bytes), (numbers, 4 * padded));
    assert_eq!(info(Some(Quantization::Q8_0)).weight_bytes, padded / 32 * 34);
    let head_and_output = VOCAB.next_multiple_of(16) * D_MODEL + LAYERS * D_MODEL * 64;
    let expected = (padded - head_and_output) / 256 * 148 + head_and_output / 32 * 34;
    assert_eq!(info(Some(Quantization::Q4_K)).weight_bytes, expected);
}

#[test]
fn products_in_bf16_and_weights_in_blocks_refuse_each_other() {
    let checkpoint = Checkpoint::open(&goldens()[0].folder).unwrap();
    let options = LoadOptions {
        arithmetic: Arithmetic::Bf16,
        quantize: Some(Quantization::Q8_0),
        dtype: DtypeChoice::Auto,
        ..LoadOptions::default()
    };
    let error = Engine::load(&checkpoint, &options, &mut |_, _| {}).err().unwrap();
    assert!(matches!(error, LoadError::QuantizedArithmetic { quantization: Quantization::Q8_0 }), "{error}");
    assert!(error.to_string().contains("hint"), "{error}");
}

#[test]
fn a_weight_that_has_no_place_in_blocks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.gguf");
    Small { d_head: 32 }.write(&path, &|name, numbers, _| {
        let mut numbers = numbers.to_vec();
        if name == "blk.1.ffn_up.weight" {
            numbers[3 * D_MODEL + 5] = 1e10;
        }
        as_f32(&numbers)
    });
    for device in devices() {
        for quantize in Quantization::ALL {
            let options = LoadOptions { device, quantize: Some(quantize), ..LoadOptions::default() };
            let error =
                Engine::load(&Checkpoint::open(&path).unwrap(), &options, &mut |_, _| {}).err().unwrap();
            let LoadError::TooLarge { tensor, row, value, .. } = &error else { panic!("{error}") };
            assert_eq!((tensor.as_str(), *row, *value), ("blk.1.ffn_up.weight", 3, 1e10), "{device:?}");
        }
    }
}
