//! Folders whose weights are quantized: what is read from them, and what is written of them.
//!
//! `tests/golden/quantized` has a folder for each way to store weights; `numbers.safetensors` in it is what the method's
//! reference implementation reads (`tools/golden_quantized.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::write::{Replacements, Settings};
use checkpoint::{Checkpoint, TensorDtype};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

use crate::write_folders::{numbers, write};

/// A stored tensor: type, shape, bytes.
pub(crate) type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A folder of quantized weights that can be changed before it is written.
pub(crate) struct Parts {
    folder: PathBuf,
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

impl Parts {
    pub(crate) fn golden(name: &str) -> Self {
        let folder = goldens().into_iter().find(|it| it.ends_with(name)).expect(name);
        let config = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        let tensors = stored(&folder.join("model.safetensors"));
        Self { folder, config, tensors }
    }

    pub(crate) fn write(&self) -> TempDir {
        let to = tempfile::tempdir().unwrap();
        for file in fs::read_dir(&self.folder).unwrap().map(|it| it.unwrap().path()) {
            fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
        }
        fs::write(to.path().join("config.json"), self.config.to_string()).unwrap();
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(to.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        to
    }
}

fn stored(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |(name, view): (String, TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.tensors().into_iter().map(owned).collect()
}

fn goldens() -> Vec<PathBuf> {
    let all = fs::read_dir("tests/golden/quantized").unwrap().map(|it| it.unwrap().path());
    let mut all: Vec<PathBuf> = all.collect();
    all.sort();
    all
}

/// The numbers that the weights of a folder mean, by name.
fn meant(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let floats = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let numbers = stored(&folder.join("numbers.safetensors")).into_iter();
    numbers.map(|(name, (_, shape, bytes))| (name, (shape, floats(bytes)))).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|it| it.to_bits()).collect()
}

/// A number in a type, rounded to nearest.
fn rounded(number: f32, dtype: TensorDtype) -> f32 {
    match dtype {
        TensorDtype::BF16 => bf16::from_f32(number).to_f32(),
        TensorDtype::F16 => f16::from_f32(number).to_f32(),
        _ => number,
    }
}

#[test]
fn a_quantized_weight_has_the_bits_that_its_reference_reads() {
    let (mut folders, mut weights) = (0, 0);
    for folder in goldens() {
        folders += 1;
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let place = folder.display();
        assert!(checkpoint.quantization().is_some(), "{place}");
        let expected = meant(&folder);
        let names: Vec<&str> = checkpoint.names().collect();
        assert_eq!(names.len(), expected.len() + 1, "{place}: {names:?}");
        assert!(names.contains(&"norm.weight"), "{place}: {names:?}");
        for (name, (shape, expected)) in &expected {
            weights += 1;
            let tensor = checkpoint.tensor(name).unwrap();
            assert!(tensor.is_quantized() && tensor.shape() == shape, "{place}: {tensor:?}");
            let found = tensor.to_f32();
            for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let same = expected.to_bits() == found.to_bits();
                assert!(same, "{place}, {name}, number {index}: expected {expected:e}, found {found:e}");
                assert_eq!(rounded(*found, tensor.dtype()).to_bits(), found.to_bits(), "{place}: {name}");
            }
        }
    }
    assert!(folders >= 30 && weights >= 2 * folders - 2, "{folders} folders, {weights} weights");
}

#[test]
fn views_of_a_quantized_weight_are_views_of_its_numbers() {
    for folder in goldens() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for (name, (shape, expected)) in meant(&folder) {
            let tensor = checkpoint.tensor(&name).unwrap();
            let (rows, width) = (tensor.rows(), tensor.row_len());
            assert_eq!(rows * width, shape.iter().product::<usize>());
            let row = |it: usize| &expected[it * width..(it + 1) * width];
            assert_eq!(tensor.slice_rows(3..rows - 1).to_f32(), expected[3 * width..(rows - 1) * width]);
            let nested = tensor.slice_rows(2..rows).slice_rows(1..4);
            assert_eq!(nested.to_f32(), expected[3 * width..6 * width], "{name}");
            let stepped = tensor.stepped_rows(1, 2, 3).to_f32();
            assert_eq!(stepped, [row(1), row(3), row(5)].concat(), "{name}");
            let turned = tensor.with_row_order((0..rows as u32).rev().collect()).slice_rows(0..2);
            assert_eq!(turned.to_f32(), [row(rows - 1), row(rows - 2)].concat(), "{name}");
            assert!(!turned.can_be_transposed());
        }
    }
}

#[test]
fn an_expert_of_blocks_is_read_by_inputs_and_by_outputs() {
    let folder = goldens().into_iter().find(|it| it.ends_with("mxfp4")).unwrap();
    let tensor = Checkpoint::open(&folder).unwrap().tensor("layers.0.experts.down_proj").unwrap();
    let (shape, expected) = &meant(&folder)["layers.0.experts.down_proj"];
    let [experts, inputs, outputs] = shape[..] else { panic!("{shape:?}") };
    for expert in 0..experts {
        let own = tensor.slice_rows(expert * inputs..(expert + 1) * inputs);
        let numbers = &expected[expert * inputs * outputs..][..inputs * outputs];
        let turned: Vec<f32> = (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| numbers[input * outputs + output]))
            .collect();
        assert_eq!(own.transposed().to_f32(), turned);
        assert_eq!(own.transposed().transposed().to_f32(), numbers);
        assert_eq!(own.transposed().slice_rows(1..3).to_f32(), turned[inputs..3 * inputs]);
    }
    assert!(!tensor.slice_rows(1..inputs + 1).can_be_transposed(), "parts of two experts");
    assert!(!tensor.slice_rows(0..1).can_be_transposed(), "a part of one");
}

#[test]
fn what_is_written_is_the_model_before_it_was_quantized() {
    for folder in goldens() {
        let (place, to) = (folder.display(), tempfile::tempdir().unwrap());
        let target = to.path().join("model");
        let written = write(&folder, &Replacements::new(), &target, &Settings::default()).unwrap();
        let (before, after) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&target).unwrap());
        assert_eq!(after.quantization(), None, "{place}");
        let mut names = [before.names().collect::<Vec<_>>(), after.names().collect()];
        for names in &mut names {
            names.sort_unstable();
        }
        assert_eq!(names[0], names[1], "{place}");
        for (name, (shape, expected)) in meant(&folder) {
            let tensor = after.tensor(&name).unwrap();
            // As `dtype` of the configuration says.
            assert_eq!((tensor.dtype(), tensor.shape()), (TensorDtype::BF16, &shape[..]), "{place}: {name}");
            let expected: Vec<f32> = expected.iter().map(|&it| rounded(it, TensorDtype::BF16)).collect();
            assert!(bits(&tensor.to_f32()) == bits(&expected), "{place}: {name}");
        }
        let norm = |it: &Checkpoint| it.tensor("norm.weight").unwrap().bytes().to_vec();
        assert_eq!(norm(&before), norm(&after));
        let mut config = before.config().clone();
        config.as_object_mut().unwrap().shift_remove("quantization_config");
        assert_eq!(after.config(), &config, "{place}");
        // The golden numbers are weights in a file that is not the model's.
        let expected = ["numbers.safetensors", "hf_quant_config.json"].map(|it| folder.join(it));
        let expected: Vec<PathBuf> = expected.into_iter().filter(|it| it.exists()).collect();
        assert_eq!(written.left_out, expected, "{place}");
    }
}

#[test]
fn a_replaced_weight_is_rounded_to_the_type_that_the_model_computes_in() {
    for (dtype, expected) in [("float16", TensorDtype::F16), ("torch.float32", TensorDtype::F32)] {
        let mut parts = Parts::golden("gptq_4");
        parts.config["dtype"] = dtype.into();
        let (from, to) = (parts.write(), tempfile::tempdir().unwrap());
        let target = to.path().join("model");
        let replacement = numbers(&[48, 64], |row, column| (row as f64).mul_add(0.1, column as f64 / 3.0));
        let replacements = Replacements::from([("layers.0.proj.weight".to_owned(), replacement)]);
        write(from.path(), &replacements, &target, &Settings::default()).unwrap();
        let tensor = Checkpoint::open(&target).unwrap().tensor("layers.0.proj.weight").unwrap();
        assert_eq!(tensor.dtype(), expected);
        let number = (3.0_f64.mul_add(0.1, 5.0 / 3.0)) as f32;
        assert_eq!(tensor.to_f32()[3 * 64 + 5].to_bits(), rounded(number, expected).to_bits());
    }
}

#[test]
fn without_a_type_of_the_model_numbers_of_16_bits_stay_what_they_are() {
    for (name, expected) in [
        ("gptq_4", TensorDtype::F16),
        ("ct_int4_group", TensorDtype::BF16),
        ("fp8_blocks", TensorDtype::BF16), // products in f32 are written as models are made
    ] {
        let mut parts = Parts::golden(name);
        parts.config.as_object_mut().unwrap().shift_remove("dtype");
        let (from, to) = (parts.write(), tempfile::tempdir().unwrap());
        let target = to.path().join("model");
        write(from.path(), &Replacements::new(), &target, &Settings::default()).unwrap();
        let tensor = Checkpoint::open(&target).unwrap().tensor("layers.0.proj.weight").unwrap();
        assert_eq!(tensor.dtype(), expected, "{name}");
    }
}

#[test]
fn parts_may_lie_in_several_files_and_all_of_them_belong_to_the_model() {
    let parts = Parts::golden("gptq_4_sorted");
    let folder = parts.write();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (index, (name, (dtype, shape, bytes))) in parts.tensors.iter().enumerate() {
        let file = format!("part-{}.safetensors", index % 3);
        map.insert(name.clone(), file.clone().into());
        let path = folder.path().join(&file);
        let mut all = if path.exists() { stored(&path) } else { BTreeMap::new() };
        all.insert(name.clone(), (*dtype, shape.clone(), bytes.clone()));
        let views = all.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    crate::folders::write_index(&folder, &Value::Object(map));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.weight_files().len(), 3);
    for (name, (_, expected)) in meant(&parts.folder) {
        assert_eq!(bits(&checkpoint.tensor(&name).unwrap().to_f32()), bits(&expected));
    }
}

#[test]
fn settings_beside_the_configuration_count_where_it_has_none() {
    for (name, file) in [("gptq_4", "quantize_config.json"), ("awq", "quant_config.json")] {
        let mut parts = Parts::golden(name);
        let mut settings = parts.config.as_object_mut().unwrap().shift_remove("quantization_config").unwrap();
        settings.as_object_mut().unwrap().shift_remove("quant_method");
        let folder = parts.write();
        fs::write(folder.path().join(file), settings.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let (_, expected) = &meant(&parts.folder)["layers.0.proj.weight"];
        assert_eq!(&checkpoint.tensor("layers.0.proj.weight").unwrap().to_f32(), expected, "{name}");
    }
}

#[test]
fn settings_may_stand_in_the_part_of_the_language_model() {
    let mut parts = Parts::golden("ct_int4_group");
    let settings = parts.config.as_object_mut().unwrap().shift_remove("quantization_config").unwrap();
    parts.config["text_config"] = serde_json::json!({"compression_config": settings, "dtype": "float16"});
    let (folder, to) = (parts.write(), tempfile::tempdir().unwrap());
    assert_eq!(Checkpoint::open(folder.path()).unwrap().quantization(), Some("compressed-tensors"));
    let target = to.path().join("model");
    write(folder.path(), &Replacements::new(), &target, &Settings::default()).unwrap();
    let written = Checkpoint::open(&target).unwrap();
    assert_eq!(written.config()["text_config"], serde_json::json!({"dtype": "float16"}));
}

/// Tools that widen or merge weights leave descriptions of a quantization behind: in the configuration, or in a file of
/// `AutoGPTQ`, `AutoAWQ` or `ModelOpt`.
#[test]
fn a_description_of_a_quantization_that_the_weights_do_not_have_is_reported_and_left_out() {
    let side_files = [
        ("quantize_config.json", r#"{"bits": 4, "group_size": 128, "desc_act": false}"#, "gptq"),
        ("quant_config.json", r#"{"w_bit": 4, "q_group_size": 128, "version": "gemm"}"#, "awq"),
        ("hf_quant_config.json", r#"{"quantization": {"quant_algo": "FP8"}}"#, "modelopt"),
        ("config.json", r#"{"quantization_config": {"quant_method": "gptq", "bits": 3}, "a": 1}"#, "gptq"),
        ("config.json", r#"{"text_config": {"quantization_config": {"quant_method": "fp8"}}}"#, "fp8"),
    ];
    for (file, text, method) in side_files {
        let folder = crate::folders::sharded();
        fs::write(folder.path().join(file), text).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.quantization(), None, "{file}");
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        let notice = &checkpoint.notices()[0];
        assert!(notice.contains(file) && notice.contains(method), "{notice}");
        let out = folder.path().join("out");
        write(folder.path(), &Replacements::new(), &out, &Settings::default()).unwrap();
        let again = Checkpoint::open(&out).unwrap();
        assert!(again.notices().is_empty(), "{:?}", again.notices());
        assert_eq!(file != "config.json", !out.join(file).exists(), "{file}");
    }
}

/// What is stored in an unknown way cannot be told from what is not.
#[test]
fn an_unknown_method_is_refused_whatever_the_tensors_are() {
    let folder = crate::folders::sharded();
    fs::write(folder.path().join("config.json"), r#"{"quantization_config": {"quant_method": "aqlm"}}"#)
        .unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`quant_method` is `aqlm`"), "{error}");
}
