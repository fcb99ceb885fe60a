//! Weights in half precision: rounded once, the same way on every back end; and products in bf16, which round
//! what goes into them as well.

mod support;

use std::path::Path;

use checkpoint::{Checkpoint, TensorDtype};
use engine::backend::cpu::Isa;
use engine::backend::{Arithmetic, WeightDtype};
use engine::{Answer, Device, DtypeChoice, Engine, Generation, LoadError, LoadOptions, Request};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use support::{Golden, goldens, largest, largest_difference};

/// The same rounded weights, summed in f32 or in f64: logits and residuals were seen to differ by 6e-6 of their
/// largest value.
const RELATIVE: f32 = 2e-5;

const HALVES: [WeightDtype; 2] = [WeightDtype::Bf16, WeightDtype::F16];

const HOW: Generation =
    Generation { max_tokens: 4, stop_tokens: Vec::new(), batch: 128, top: 1, logits: true, residuals: true };

fn load(folder: &Path, device: Device, dtype: DtypeChoice) -> Engine {
    let options = LoadOptions { device, dtype, threads: 2, ..LoadOptions::default() };
    Engine::load(&Checkpoint::open(folder).unwrap(), &options, &mut |_, _| {}).unwrap()
}

/// Products in bf16. Sums in another order differ in their last bits, and now and then such a number lies on the
/// other side of the middle between two bf16, 2^-9 of it away: residuals and logits were seen to differ by 6e-3 of
/// their largest value. That the rounding is the same one is tested operation by operation, where inputs are equal.
const RELATIVE_IN_BF16: f32 = 2e-2;

fn load_in_bf16(folder: &Path, device: Device, threads: usize) -> Engine {
    let options = LoadOptions { device, arithmetic: Arithmetic::Bf16, threads, ..LoadOptions::default() };
    Engine::load(&Checkpoint::open(folder).unwrap(), &options, &mut |_, _| {}).unwrap()
}

fn answers(golden: &Golden, engine: &mut Engine) -> Vec<Answer> {
    let requests: Vec<Request> =
        golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
    engine.generate(&requests, &HOW, &mut |_, _| false).unwrap()
}

fn rounded(value: f32, dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::F32 => value,
        WeightDtype::Bf16 => bf16::from_f32(value).to_f32(),
        WeightDtype::F16 => f16::from_f32(value).to_f32(),
    }
}

/// Writes a checkpoint with its matrices in `dtype`; vectors stay in f32.
fn rewrite(golden: &Golden, folder: &Path, dtype: WeightDtype) {
    let checkpoint = Checkpoint::open(&golden.folder).unwrap();
    let tensors: Vec<_> = checkpoint
        .names()
        .map(|name| {
            let tensor = checkpoint.tensor(name).unwrap();
            let numbers = tensor.to_f32();
            // Vectors, also those of all experts, and convolutions, which are one for each tap.
            let vectors = matches!(tensor.shape(), [_] | [_, 1, _]) || name.ends_with("bias");
            let dtype = if vectors { WeightDtype::F32 } else { dtype };
            let (stored, bytes): (Dtype, Vec<u8>) = match dtype {
                WeightDtype::F32 => (Dtype::F32, numbers.iter().flat_map(|it| it.to_le_bytes()).collect()),
                WeightDtype::Bf16 => {
                    (Dtype::BF16, numbers.iter().flat_map(|&it| bf16::from_f32(it).to_le_bytes()).collect())
                }
                WeightDtype::F16 => {
                    (Dtype::F16, numbers.iter().flat_map(|&it| f16::from_f32(it).to_le_bytes()).collect())
                }
            };
            (name, stored, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, stored, shape, bytes)| (*name, TensorView::new(*stored, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    std::fs::copy(golden.folder.join("config.json"), folder.join("config.json")).unwrap();
}

#[test]
fn half_precision_weights_give_the_numbers_of_the_oracle_on_every_instruction_set() {
    for golden in goldens() {
        let full =
            answers(&golden, &mut load(&golden.folder, Device::Cpu, DtypeChoice::Fixed(WeightDtype::F32)));
        for dtype in HALVES {
            let choice = DtypeChoice::Fixed(dtype);
            let oracle = answers(&golden, &mut load(&golden.folder, Device::Reference, choice));
            assert_ne!(oracle, full, "{}: rounding weights to {} does something", golden.name, dtype.name());
            for isa in Isa::available() {
                let mut engine = load(&golden.folder, Device::CpuWith(isa), choice);
                assert_eq!(engine.info().dtype, dtype);
                let d_model = engine.info().d_model;
                for (prompt, (found, exact)) in answers(&golden, &mut engine).iter().zip(&oracle).enumerate()
                {
                    let place = format!("{}, {}, {}, prompt {prompt}", golden.name, dtype.name(), isa.name());
                    let sites = found.residuals.chunks(d_model).zip(exact.residuals.chunks(d_model));
                    for (site, (found, exact)) in sites.enumerate() {
                        let by = largest_difference(found, exact).0 / largest(exact);
                        assert!(by <= RELATIVE, "{place}: site {site} is the first to differ, by {by:e}");
                    }
                    let logits = |it: &Answer| it.first_token.as_ref().unwrap().logits.clone();
                    let by = largest_difference(&logits(found), &logits(exact)).0 / largest(&logits(exact));
                    assert!(by <= RELATIVE, "{place}: logits differ by {by:e}");
                    assert_eq!(found.tokens, exact.tokens, "{place}");
                }
            }
        }
    }
}

#[test]
fn rounding_on_loading_gives_the_bits_of_a_file_that_holds_rounded_weights() {
    for golden in goldens() {
        for dtype in HALVES {
            let folder = tempfile::tempdir().unwrap();
            rewrite(&golden, folder.path(), dtype);
            for device in [Device::Cpu, Device::Reference] {
                let from_full =
                    answers(&golden, &mut load(&golden.folder, device, DtypeChoice::Fixed(dtype)));
                let from_half = answers(&golden, &mut load(folder.path(), device, DtypeChoice::Auto));
                assert!(from_full == from_half, "{}, {}, {device:?}", golden.name, dtype.name());
                // Half-precision numbers are f32 numbers, too; on one instruction set they are summed alike.
                let widened =
                    answers(&golden, &mut load(folder.path(), device, DtypeChoice::Fixed(WeightDtype::F32)));
                assert!(widened == from_half, "{}, {}, {device:?}, kept in f32", golden.name, dtype.name());
            }
        }
    }
}

#[test]
fn embeddings_are_rounded_to_the_nearest_half_and_ties_to_even_on_every_back_end() {
    for golden in goldens() {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let names = ["embed_tokens.weight", "backbone.embeddings.weight", "model.embeddings.weight"];
        let name = checkpoint.names().find(|it| names.iter().any(|end| it.ends_with(end))).unwrap();
        let embedding = checkpoint.tensor(name).unwrap();
        let mut row = vec![0.0; embedding.row_len()];
        embedding.read_row(golden.prompts()[0].last().unwrap().index(), &mut row);
        let whole = DtypeChoice::Fixed(WeightDtype::F32);
        if answers(&golden, &mut load(&golden.folder, Device::Cpu, whole))[0].residuals[..row.len()] != row {
            continue; // The family multiplies embeddings, after they are rounded.
        }
        for dtype in HALVES {
            for device in [Device::Cpu, Device::Reference] {
                let mut engine = load(&golden.folder, device, DtypeChoice::Fixed(dtype));
                for (prompt, answer) in golden.prompts().iter().zip(answers(&golden, &mut engine)) {
                    embedding.read_row(prompt.last().unwrap().index(), &mut row);
                    let expected: Vec<f32> = row.iter().map(|&it| rounded(it, dtype)).collect();
                    assert_eq!(answer.residuals[..row.len()], expected, "{}, {device:?}", golden.name);
                }
            }
        }
    }
}

#[test]
fn the_automatic_choice_is_what_most_of_the_file_is_stored_in() {
    let golden = &goldens()[0];
    let picked = |folder: &Path| load(folder, Device::Cpu, DtypeChoice::Auto).info().dtype;
    for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
        let folder = tempfile::tempdir().unwrap();
        rewrite(golden, folder.path(), dtype);
        let stored = Checkpoint::open(folder.path()).unwrap();
        let has_f32 = stored.names().any(|it| stored.tensor(it).unwrap().dtype() == TensorDtype::F32);
        assert!(has_f32, "norms are in f32, which does not decide");
        assert_eq!(picked(folder.path()), dtype);
    }
}

#[test]
fn products_in_bf16_give_the_numbers_of_the_oracle_on_every_instruction_set() {
    for golden in goldens() {
        let oracle = answers(&golden, &mut load_in_bf16(&golden.folder, Device::Reference, 2));
        let bf16 = DtypeChoice::Fixed(WeightDtype::Bf16);
        let only_weights = answers(&golden, &mut load(&golden.folder, Device::Reference, bf16));
        assert_ne!(oracle, only_weights, "{}: rounding activations does something", golden.name);
        for isa in Isa::available() {
            let mut engine = load_in_bf16(&golden.folder, Device::CpuWith(isa), 2);
            assert_eq!(
                (engine.info().dtype, engine.info().arithmetic),
                (WeightDtype::Bf16, Arithmetic::Bf16)
            );
            let d_model = engine.info().d_model;
            for (found, exact) in answers(&golden, &mut engine).iter().zip(&oracle) {
                let place = format!("{}, {}", golden.name, isa.name());
                let sites = found.residuals.chunks(d_model).zip(exact.residuals.chunks(d_model));
                for (site, (found, exact)) in sites.enumerate() {
                    let by = largest_difference(found, exact).0 / largest(exact);
                    assert!(by <= RELATIVE_IN_BF16, "{place}: site {site} is the first to differ, by {by:e}");
                }
                let logits = |it: &Answer| it.first_token.as_ref().unwrap().logits.clone();
                let by = largest_difference(&logits(found), &logits(exact)).0 / largest(&logits(exact));
                assert!(by <= RELATIVE_IN_BF16, "{place}: logits differ by {by:e}");
            }
        }
    }
}

#[test]
fn products_in_bf16_do_not_depend_on_the_batch_or_on_threads() {
    let golden = &goldens()[0];
    for isa in Isa::available() {
        let together = answers(golden, &mut load_in_bf16(&golden.folder, Device::CpuWith(isa), 2));
        let mut engine = load_in_bf16(&golden.folder, Device::CpuWith(isa), 1);
        for (tokens, together) in golden.prompts().into_iter().zip(together) {
            let alone = engine.generate(&[Request { tokens, edit: 0 }], &HOW, &mut |_, _| false).unwrap();
            assert!(alone[0] == together, "{}", isa.name());
        }
    }
}

#[test]
fn products_in_bf16_say_what_they_are_and_refuse_weights_in_another_precision() {
    let golden = &goldens()[0];
    for isa in Isa::available() {
        let device = load_in_bf16(&golden.folder, Device::CpuWith(isa), 1).device();
        assert_eq!(device.contains("at the speed of f32"), !isa.multiplies_bf16(), "{device}");
        assert!(device.contains("bf16"), "{device}");
    }
    for dtype in [WeightDtype::F32, WeightDtype::F16] {
        let options = LoadOptions {
            arithmetic: Arithmetic::Bf16,
            dtype: DtypeChoice::Fixed(dtype),
            ..LoadOptions::default()
        };
        let error = Engine::load(&Checkpoint::open(&golden.folder).unwrap(), &options, &mut |_, _| {}).err();
        assert!(
            matches!(&error, Some(LoadError::Arithmetic { dtype: found }) if *found == dtype),
            "{error:?}"
        );
    }
}
