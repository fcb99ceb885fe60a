//! GGUF files in several parts.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, CheckpointError};

use crate::gguf_builder::Gguf;

fn part(no: u16, count: u16) -> Gguf {
    let part = Gguf::new().entry("split.no", 2, &no.to_le_bytes());
    part.entry("split.count", 2, &count.to_le_bytes()).entry("split.tensors.count", 5, &3_i32.to_le_bytes())
}

/// Three parts with one tensor each.
fn write_parts(folder: &Path) -> [PathBuf; 3] {
    let paths = [1, 2, 3].map(|no| folder.join(format!("model-0000{no}-of-00003.gguf")));
    for (no, path) in paths.iter().enumerate() {
        let part = part(no as u16, 3).floats(&format!("w{no}"), &[1], &[no as f32]);
        if no == 0 { part.text("general.architecture", "test") } else { part }.write(path);
    }
    paths
}

#[test]
fn the_first_part_opens_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    let checkpoint = Checkpoint::open(&paths[0]).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w0", "w1", "w2"]);
    assert_eq!(checkpoint.config()["general.architecture"], "test");
    let tensor = checkpoint.tensor("w2").unwrap();
    assert_eq!((tensor.file(), tensor.to_f32()), (paths[2].as_path(), vec![2.0]));
}

#[test]
fn a_missing_part_is_named_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    std::fs::remove_file(&paths[1]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    let error = Checkpoint::open(&paths[0]).unwrap_err();
    let CheckpointError::MissingShard { path, missing, total, .. } = &error else { panic!("{error}") };
    assert_eq!((path, *missing, *total), (&paths[1], 2, 3));
    assert!(error.to_string().contains("(2 of 3 parts are)"), "{error}");
}

#[test]
fn a_later_part_asks_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    let error = Checkpoint::open(&paths[1]).unwrap_err().to_string();
    assert!(error.contains("`: split.no should be 0, found 1\n\nhint: open the first part"), "{error}");
}

#[test]
fn a_part_of_another_name_cannot_find_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    let renamed = folder.path().join("model.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    let error = Checkpoint::open(&renamed).unwrap_err().to_string();
    assert!(error.contains("should be -00001-of-00003.gguf, found model.gguf"), "{error}");
}

#[test]
fn parts_in_each_others_place_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    std::fs::copy(&paths[1], &paths[2]).unwrap();
    let error = Checkpoint::open(&paths[0]).unwrap_err().to_string();
    assert!(error.contains("split.no should be 2, found 1"), "{error}");
}

#[test]
fn tensors_missing_from_the_parts_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    part(2, 3).write(&paths[2]);
    let error = Checkpoint::open(&paths[0]).unwrap_err().to_string();
    assert!(error.contains("the number of tensors in all parts should be 3, found 2"), "{error}");
}

#[test]
fn a_tensor_in_two_parts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path());
    part(2, 3).floats("w0", &[1], &[0.0]).write(&paths[2]);
    let error = Checkpoint::open(&paths[0]).unwrap_err();
    assert!(matches!(error, CheckpointError::InTwoShards { .. }), "{error}");
}

#[test]
fn a_hostile_number_of_parts_makes_no_list_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("model-00001-of-{}.gguf", u64::MAX));
    Gguf::new().number("split.no", 0).entry("split.count", 10, &u64::MAX.to_le_bytes()).write(&path);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("split.count should be at most 99999"), "{error}");
}
