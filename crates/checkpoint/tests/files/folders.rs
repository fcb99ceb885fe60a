//! What is read from Hugging Face folders that are as they should be.

use std::path::Path;

use checkpoint::{Checkpoint, CheckpointError, Format, TensorDtype};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use crate::gguf_builder::le_bytes;

/// Writes a safetensors file of F32 vectors.
pub(crate) fn write_shard(path: &Path, tensors: &[(&str, &[f32])]) {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, values)| le_bytes(values)).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, values), bytes)| {
        (*name, TensorView::new(Dtype::F32, vec![values.len()], bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A folder with a configuration and nothing else.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"hidden_size": 8}"#).unwrap();
    folder
}

/// A folder with two shards: `a` and `b` in the first, `c` in the second.
pub(crate) fn sharded() -> TempDir {
    let folder = folder();
    write_shard(&folder.path().join("model-1.safetensors"), &[("a", &[1.0]), ("b", &[2.0, 3.0])]);
    write_shard(&folder.path().join("model-2.safetensors"), &[("c", &[4.0])]);
    let map = json!({"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"});
    write_index(&folder, &map);
    folder
}

pub(crate) fn write_index(folder: &TempDir, weight_map: &serde_json::Value) {
    let index = json!({"metadata": {"total_size": 16}, "weight_map": weight_map});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_folder_with_one_file_is_a_checkpoint() {
    let folder = folder();
    write_shard(&folder.path().join("model.safetensors"), &[("w", &[1.0, -2.5])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!((checkpoint.format(), checkpoint.path()), (Format::HuggingFace, folder.path()));
    assert_eq!(checkpoint.config(), &json!({"hidden_size": 8}));
    assert!(checkpoint.contains("w") && !checkpoint.contains("v"));
    let tensor = checkpoint.tensor("w").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (TensorDtype::F32, &[2][..]));
    assert_eq!(tensor.to_f32(), [1.0, -2.5]);
}

#[test]
fn a_single_file_of_another_name_is_found() {
    let folder = folder();
    write_shard(&folder.path().join("weights.safetensors"), &[("w", &[1.0])]);
    assert!(Checkpoint::open(folder.path()).unwrap().contains("w"));
}

#[test]
fn shards_are_put_together_and_each_tensor_knows_its_file() {
    let folder = sharded();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [2.0, 3.0]);
    assert_eq!(checkpoint.tensor("c").unwrap().file(), folder.path().join("model-2.safetensors"));
}

#[test]
fn a_tensor_that_the_index_forgets_is_still_there() {
    let folder = sharded();
    write_index(&folder, &json!({"a": "model-1.safetensors", "c": "model-2.safetensors"}));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [2.0, 3.0]);
}

#[test]
fn the_index_decides_which_of_two_tensors_counts() {
    let folder = sharded();
    write_shard(&folder.path().join("model-2.safetensors"), &[("b", &[9.0]), ("c", &[4.0])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [2.0, 3.0]);
}

#[test]
fn data_that_is_not_aligned_is_decoded() {
    let folder = folder();
    let header = r#"{"odd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let data = [vec![1], le_bytes(&[0.25, -3.0])].concat();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().to_f32(), [0.25, -3.0]);
}

#[test]
fn a_type_without_whole_bytes_is_an_error_only_for_that_tensor() {
    let folder = folder();
    let header = r#"{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0x21]].concat();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let error = checkpoint.tensor("w").unwrap_err().to_string();
    assert!(error.starts_with("tensor `w`: type F4 cannot be decoded, only F64, F32"), "{error}");
}

#[test]
fn a_missing_tensor_is_named_with_similar_ones() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    write_shard(&path, &[("model.layers.0.mlp.up_proj.weight", &[1.0]), ("lm_head.weight", &[1.0])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let error = checkpoint.tensor("model.layers.0.mlp.gate_proj.weight").unwrap_err().to_string();
    let expected = format!(
        "tensor `model.layers.0.mlp.gate_proj.weight` is not in `{}`\n\n\
         hint: similar names are `model.layers.0.mlp.up_proj.weight`",
        folder.path().display()
    );
    assert_eq!(error, expected);
    let error = checkpoint.tensor("x").unwrap_err().to_string();
    assert!(!error.contains("hint"), "{error}");
}

#[test]
fn a_tensor_in_another_shard_than_the_index_says_is_found() {
    let folder = sharded();
    write_index(
        &folder,
        &json!({"a": "model-2.safetensors", "c": "model-2.safetensors", "b": "model-1.safetensors"}),
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap().to_f32(), [1.0]);
    assert!(checkpoint.notices().is_empty(), "{:?}", checkpoint.notices());
}

#[test]
fn a_tensor_that_no_shard_has_is_missed_only_by_those_who_need_it() {
    let folder = sharded();
    let map =
        json!({"a": "model-1.safetensors", "c": "model-2.safetensors", "tower.z": "model-2.safetensors"});
    write_index(&folder, &map);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(!checkpoint.contains("tower.z"));
    assert!(
        checkpoint.notices()[0].contains("1 tensors that no file has, `tower.z`"),
        "{:?}",
        checkpoint.notices()
    );
    let error = checkpoint.tensor("tower.z").unwrap_err();
    let CheckpointError::NotInShard { name, shard } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), shard), ("tower.z", &folder.path().join("model-2.safetensors")));
    assert!(error.to_string().contains("\n\nhint: "), "{error}");
}

#[test]
fn numbers_that_json_does_not_have_keep_their_names_in_every_file() {
    let folder = sharded();
    let text = r#"{"a": [0.0, Infinity], "b": -Infinity, "c": NaN, "d": "NaN"}"#;
    let files = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"];
    for file in files {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let index = r#"{"metadata": {"total_size": NaN}, "weight_map": {"a": "model-1.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let named = |name: &str| json!({"__float__": name});
    let expected =
        json!({"a": [0.0, named("Infinity")], "b": named("-Infinity"), "c": named("NaN"), "d": "NaN"});
    let assets = checkpoint.assets();
    assert_eq!(checkpoint.config(), &expected);
    for found in [&assets.generation_config, &assets.tokenizer_config, &assets.special_tokens_map] {
        assert_eq!(found.as_ref(), Some(&expected));
    }
}
