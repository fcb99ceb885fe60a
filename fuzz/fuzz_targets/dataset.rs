//! Whatever a file of prompts holds, it is read or refused by name, without a panic that gets out.
//!
//! The first byte says which kind of file it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prompts::sources::{Specification, open};

const ENDINGS: [&str; 8] = ["parquet", "arrow", "jsonl", "json", "csv", "tsv", "txt", "csv.gz"];

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let ending = ENDINGS[usize::from(kind) % ENDINGS.len()];
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join(format!("train.{ending}"));
    std::fs::write(&path, bytes).expect("there is room for a file");
    for column in [None, Some("text".to_owned())] {
        let dataset = folder.path().display().to_string();
        let source = open(Specification { dataset, column, ..Specification::default() });
        match source.expect("a folder is a data set").load() {
            Ok(prompts) => assert!(!prompts.is_empty()),
            Err(error) => {
                assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}")
            }
        }
    }
});
