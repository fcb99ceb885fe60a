//! One test for each way a Hugging Face folder can be broken.

use checkpoint::{Checkpoint, CheckpointError};
use serde_json::json;
use tempfile::TempDir;

use crate::folders::{folder, sharded, write_index, write_shard};
use crate::gguf_builder::Gguf;

fn error(folder: &TempDir) -> CheckpointError {
    Checkpoint::open(folder.path()).unwrap_err()
}

fn message(folder: &TempDir) -> String {
    error(folder).to_string()
}

fn write(folder: &TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).unwrap();
}

#[test]
fn a_path_that_leads_nowhere_is_named() {
    let error = Checkpoint::open("/no/such/checkpoint".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read `/no/such/checkpoint`: "), "{error}");
}

#[test]
fn a_folder_without_a_configuration_is_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(&folder).contains("a folder without `config.json`\n\nhint: name the folder"));
}

#[test]
fn a_folder_with_only_a_gguf_file_says_to_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    Gguf::new().write(&folder.path().join("model.gguf"));
    assert!(message(&folder).contains("hint: name the GGUF file itself: `"));
}

#[test]
fn a_weights_file_says_to_name_its_folder() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    write_shard(&path, &[("w", &[1.0])]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("hint: name the folder that the file lies in"), "{error}");
}

#[test]
fn an_empty_file_is_called_empty() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Checkpoint::open(file.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::EmptyFile { .. }), "{error}");
}

#[test]
fn a_folder_without_weights_is_no_checkpoint() {
    let message = message(&folder());
    assert!(
        message.contains("a folder without safetensors files\n\nhint: fetch the weights too"),
        "{message}"
    );
}

#[test]
fn pickled_weights_come_with_the_way_to_convert_them() {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let folder = folder();
        write(&folder, name, "x");
        assert!(message(&folder).contains("\n\nhint: convert it once in Python: "), "{name}");
    }
}

#[test]
fn several_files_without_an_index_are_not_guessed_at() {
    let folder = folder();
    write_shard(&folder.path().join("a.safetensors"), &[("a", &[1.0])]);
    write_shard(&folder.path().join("b.safetensors"), &[("b", &[1.0])]);
    let message = message(&folder);
    assert!(message.contains("2 safetensors files without `model.safetensors.index.json`"), "{message}");
}

#[test]
fn a_missing_shard_is_named_and_counted() {
    let folder = sharded();
    std::fs::remove_file(folder.path().join("model-2.safetensors")).unwrap();
    let message = message(&folder);
    let path = folder.path().join("model-2.safetensors");
    assert_eq!(
        message,
        format!(
            "`{}` is missing (1 of 2 shards are)\n\n\
             hint: an interrupted download looks like this, fetch the model again",
            path.display()
        )
    );
}

#[test]
fn a_truncated_shard_is_named_with_both_sizes() {
    let folder = sharded();
    let path = folder.path().join("model-2.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = message(&folder);
    let expected = format!(
        "`{}`: the file has {} bytes, its tensors end at byte {}\n\nhint: ",
        path.display(),
        bytes.len() - 1,
        bytes.len()
    );
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn an_empty_shard_is_called_empty() {
    let folder = sharded();
    write(&folder, "model-1.safetensors", "");
    assert!(matches!(error(&folder), CheckpointError::EmptyFile { .. }));
}

#[test]
fn a_pointer_file_in_place_of_a_shard_is_recognized() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n";
    let folder = sharded();
    write(&folder, "model-1.safetensors", pointer);
    assert!(
        message(&folder).contains("is a Git LFS pointer, not the file itself\n\nhint: run `git lfs pull`")
    );
    let folder = sharded();
    write(&folder, "tokenizer.json", pointer);
    assert!(matches!(error(&folder), CheckpointError::GitLfsPointer { .. }));
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, pointer).unwrap();
    assert!(matches!(Checkpoint::open(&file).unwrap_err(), CheckpointError::GitLfsPointer { .. }));
}

#[test]
fn a_folder_in_place_of_a_file_is_recognized() {
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let folder = sharded();
        let path = folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).unwrap();
        let error = error(&folder);
        assert!(matches!(&error, CheckpointError::NotAFile { path: found } if *found == path), "{error}");
    }
}

#[test]
fn broken_json_is_named_with_line_and_column() {
    let folder = sharded();
    write(&folder, "config.json", "{\n  \"a\": 1,\n  oops\n}");
    let message = message(&folder);
    let path = folder.path().join("config.json");
    assert_eq!(message, format!("`{}`: key must be a string at line 3 column 3", path.display()));
}

#[test]
fn a_configuration_that_is_no_object_is_refused() {
    let folder = sharded();
    write(&folder, "config.json", "[1]");
    assert!(message(&folder).ends_with("the whole file should be an object, found an array"));
}

#[test]
fn a_configuration_nested_a_hundred_thousand_deep_does_not_exhaust_the_stack() {
    let folder = sharded();
    write(&folder, "config.json", &"[".repeat(100_000));
    assert!(matches!(error(&folder), CheckpointError::Json { .. }));
}

#[test]
fn text_that_is_not_utf_8_is_refused_with_its_place() {
    let folder = sharded();
    std::fs::write(folder.path().join("chat_template.jinja"), b"ab\xff").unwrap();
    assert!(message(&folder).ends_with("is not valid UTF-8 from byte 2 on"));
}

#[test]
fn an_index_without_a_map_is_refused() {
    let folder = sharded();
    write(&folder, "model.safetensors.index.json", "{}");
    assert!(message(&folder).ends_with("`weight_map` should be an object, found null"));
    write_index(&folder, &json!({"a": 1}));
    assert!(message(&folder).ends_with("the shard of `a` should be a string, found a number"));
}

#[test]
fn an_index_does_not_lead_out_of_its_folder() {
    for name in ["../secret.safetensors", "/etc/passwd", "deep/a.safetensors", "..", "", "a\\b"] {
        let folder = sharded();
        write_index(&folder, &json!({"a": name}));
        let error = error(&folder);
        assert!(matches!(&error, CheckpointError::ShardName { shard, .. } if shard == name), "{error}");
    }
}

#[test]
fn a_tensor_in_two_shards_that_the_index_does_not_place_is_refused() {
    let folder = sharded();
    write_shard(&folder.path().join("model-2.safetensors"), &[("b", &[9.0]), ("c", &[4.0])]);
    write_index(&folder, &json!({"a": "model-1.safetensors", "c": "model-2.safetensors"}));
    let error = error(&folder);
    assert!(matches!(&error, CheckpointError::InTwoShards { name, .. } if name == "b"), "{error}");
}

/// What is found in place of a file, the beginning of what is said of it, and of the hint.
const IN_PLACE: [(&[u8], &str, &str); 12] = [
    (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "a web page (HTML)", "the download went wrong"),
    (b"\n<html lang='en'>", "a web page (HTML)", "the download went wrong"),
    (b"<?xml version='1.0'?><Error/>", "an XML document", "the download went wrong"),
    (b"Entry not found", "a short text, `Entry not found`", "the download went wrong"),
    (b"{\"error\":\"Invalid credentials\"}", "", "the download went wrong"),
    (b"PK\x03\x04\x00\x00\x08\x08", "a ZIP archive", "convert it once in Python"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a pickle", "convert it once in Python"),
    (b"\x80\x02}q\x00", "a pickle", "convert it once in Python"),
    (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "a gzip archive", "unpack the archive"),
    (b"\x28\xb5\x2f\xfd\x04\x00\x00\x00", "a Zstandard archive", "unpack the archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert it once in Python"),
    (&[0; 40], "nothing but zeros", "the download was interrupted"),
];

#[test]
fn something_else_in_place_of_weights_is_called_what_it_is() {
    for (bytes, found, hint) in IN_PLACE {
        for shard in ["model-1.safetensors", "model.safetensors"] {
            let folder = sharded();
            std::fs::write(folder.path().join(shard), bytes).unwrap();
            let message = message(&folder);
            let file = folder.path().join(shard);
            assert!(message.starts_with(&format!("`{}` is {found}", file.display())), "{message}");
            assert!(message.contains(", not a safetensors file\n\nhint: "), "{message}");
            assert!(message.contains(&format!("hint: {hint}")), "{message}");
        }
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let message = Checkpoint::open(file.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!(" is {found}")) && message.contains("not a GGUF file"),
            "{message}"
        );
    }
}

#[test]
fn something_else_in_place_of_json_is_called_what_it_is() {
    for name in
        ["config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"]
    {
        for (bytes, found, hint) in IN_PLACE.into_iter().take(5) {
            let folder = sharded();
            std::fs::write(folder.path().join(name), bytes).unwrap();
            let message = message(&folder);
            let file = folder.path().join(name);
            assert!(message.starts_with(&format!("`{}` is {found}", file.display())), "{message}");
            assert!(message.contains(&format!("hint: {hint}")), "{message}");
        }
    }
}

#[test]
fn a_truncated_file_whose_length_looks_like_a_magic_number_is_truncated() {
    // A header of 640 bytes: 80 02 00 ….
    let folder = folder();
    let file = [&640_u64.to_le_bytes()[..], b"{\"w\": {"].concat();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    assert!(message(&folder).contains("the header takes 640 bytes, 7 follow its length"));
}

#[test]
fn a_file_that_a_download_manager_is_not_done_with_is_not_read() {
    let folder = sharded();
    write(&folder, "model-2.safetensors.aria2", "x");
    let message = message(&folder);
    assert!(
        message.contains("is not complete") && message.contains("model-2.safetensors.aria2"),
        "{message}"
    );
}
