//! GGUF files that are written.

use std::fs;
use std::path::Path;

use checkpoint::gguf::{Header, StoredType};
use checkpoint::write::{Dequantized, Replacements, Settings, WriteError};
use checkpoint::{Checkpoint, TensorDtype};
use proptest::prelude::*;

use crate::gguf_builder::{ARRAY, Gguf, Q4_0, STRING, U8, array, string};
use crate::write_folders::{numbers, write};

/// Type, number in the file, numbers and bytes of a block.
const TYPES: [(TensorDtype, u32, usize, usize); 6] = [
    (TensorDtype::F32, 0, 1, 4),
    (TensorDtype::F16, 1, 1, 2),
    (TensorDtype::BF16, 30, 1, 2),
    (TensorDtype::I8, 24, 1, 1),
    (TensorDtype::Q4_0, 2, 32, 18),
    (TensorDtype::Q8_0, 8, 32, 34),
];

/// Metadata of several types, an array of strings among them.
fn with_metadata(alignment: usize) -> Gguf {
    let mut file = Gguf::new()
        .text("general.architecture", "test")
        .number("general.alignment", alignment as u32)
        .entry("small", U8, &[7])
        .entry("tokens", ARRAY, &[array(STRING, 2), string("a"), string("\u{2581}b")].concat());
    file.alignment = alignment;
    file
}

fn open(path: &Path) -> (Vec<u8>, Header) {
    let file = fs::read(path).unwrap();
    let header = Header::parse(&file).unwrap();
    (file, header)
}

#[test]
fn metadata_are_copied_byte_for_byte_and_a_copy_of_a_plain_file_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    for version in [2, 3] {
        let mut file =
            with_metadata(64).floats("w", &[2, 3], &[1.0; 6]).tensor("q", &[32, 2], Q4_0, &[5; 36]);
        file.version = version;
        file.data.resize(file.data.len().next_multiple_of(64), 0); // the last tensor is padded too
        file.write(&from);
        let written = write(&from, &Replacements::new(), &to, &Settings::default()).unwrap();
        assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
        assert_eq!((written.files, written.tensor_bytes), (vec![to.clone()], 24 + 36));
        fs::remove_file(&to).unwrap();
    }
}

#[test]
fn a_quantized_tensor_that_is_replaced_becomes_half_or_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("a.gguf");
    with_metadata(32)
        .tensor("q", &[32, 2], Q4_0, &[5; 36])
        .floats("w", &[2], &[1.5, -2.5])
        .tensor("k", &[32], Q4_0, &[9; 18])
        .write(&from);
    for (dequantized, dtype) in [(Dequantized::F16, TensorDtype::F16), (Dequantized::F32, TensorDtype::F32)] {
        let to = folder.path().join(format!("{dtype}.gguf"));
        let replacements = Replacements::from([(
            "q".to_owned(),
            numbers(&[2, 32], |row, column| (row * 32 + column) as f64),
        )]);
        write(&from, &replacements, &to, &Settings { dequantized, ..Settings::default() }).unwrap();
        let checkpoint = Checkpoint::open(&to).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["q", "w", "k"]);
        let tensor = checkpoint.tensor("q").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[2, 32][..]));
        assert_eq!(tensor.to_f32(), (0..64_u8).map(f32::from).collect::<Vec<_>>());
        assert_eq!(checkpoint.tensor("w").unwrap().to_f32(), [1.5, -2.5]);
        assert_eq!(checkpoint.tensor("k").unwrap().bytes(), [9; 18]);
        assert_eq!(checkpoint.config(), Checkpoint::open(&from).unwrap().config());
    }
}

#[test]
fn a_tensor_of_an_unknown_type_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    // IQ4_XS: 136 bytes for 256 numbers, which nothing here knows.
    let (first, last) = ([1_u8; 136], [2_u8; 136]);
    with_metadata(32)
        .tensor("first", &[256], 23, &first)
        .floats("w", &[2], &[1.5, -2.5])
        .tensor("last", &[256], 23, &last)
        .write(&from);
    let replacements = Replacements::from([("w".to_owned(), numbers(&[2], |_, column| column as f64))]);
    write(&from, &replacements, &to, &Settings::default()).unwrap();
    let (file, header) = open(&to);
    assert_eq!(header.tensors[0].stored, StoredType::Other(23));
    assert_eq!(file[header.tensors[0].range.start..][..136], first);
    assert_eq!(file[header.tensors[2].range.start..][..136], last);
    assert_eq!(Checkpoint::open(&to).unwrap().tensor("w").unwrap().to_f32(), [0.0, 1.0]);
}

#[test]
fn the_parts_of_a_split_file_become_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let part = |no: u16, file: Gguf| {
        let path = folder.path().join(format!("m-{:05}-of-00002.gguf", no + 1));
        let number = |it: u16| it.to_le_bytes();
        let file = file.entry("split.no", 2, &number(no)).entry("split.count", 2, &number(2));
        file.entry("split.tensors.count", 5, &2_i32.to_le_bytes()).write(&path);
        path
    };
    let first = part(0, with_metadata(32).floats("a", &[2], &[1.0, 2.0]));
    part(1, Gguf::new().floats("b", &[1], &[3.0]));
    let to = folder.path().join("whole.gguf");
    write(&first, &Replacements::new(), &to, &Settings::default()).unwrap();
    let (_, header) = open(&to);
    assert_eq!(
        header.metadata.keys().collect::<Vec<_>>(),
        ["general.architecture", "general.alignment", "small", "tokens"]
    );
    let checkpoint = Checkpoint::open(&to).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [3.0]);
}

#[test]
fn what_stands_at_the_target_stays_even_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    Gguf::new().floats("w", &[1], &[1.0]).write(&from);
    fs::create_dir(&to).unwrap();
    for target in [&from, &to] {
        let error = write(&from, &Replacements::new(), target, &Settings::default());
        assert!(matches!(error, Err(WriteError::Exists { .. })), "{error:?}");
    }
    let replacements = Replacements::from([("w".to_owned(), numbers(&[1], |_, _| 1e39))]);
    let error = write(&from, &replacements, &folder.path().join("c.gguf"), &Settings::default()).unwrap_err();
    assert!(
        error.to_string().starts_with("tensor `w`, row 0, column 0: `1e39` has no finite value as F32"),
        "{error}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_written_file_reads_back_as_the_input_with_the_new_numbers(
        tensors in prop::collection::vec((0..TYPES.len(), prop::collection::vec(1_usize..4, 1..4), any::<bool>(), any::<u8>()), 0..6),
        alignment in prop::sample::select(vec![8_usize, 32, 256]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
        let mut file = with_metadata(alignment);
        let mut replacements = Replacements::new();
        for (place, (kind, shape, replaced, byte)) in tensors.iter().enumerate() {
            let (dtype, number, block, block_bytes) = TYPES[*kind];
            let mut shape = shape.clone();
            *shape.last_mut().unwrap() *= block;
            let dimensions: Vec<u64> = shape.iter().rev().map(|&it| it as u64).collect();
            let bytes = vec![*byte; shape.iter().product::<usize>() / block * block_bytes];
            file = file.tensor(&format!("t{place}"), &dimensions, number, &bytes);
            if *replaced && dtype != TensorDtype::I8 {
                replacements.insert(format!("t{place}"), numbers(&shape, |row, column| row as f64 - 0.5 * column as f64));
            }
        }
        file.write(&from);
        write(&from, &replacements, &to, &Settings::default()).unwrap();
        let (input, output) = (Checkpoint::open(&from).unwrap(), Checkpoint::open(&to).unwrap());
        prop_assert_eq!(input.config(), output.config());
        prop_assert_eq!(input.names().collect::<Vec<_>>(), output.names().collect::<Vec<_>>());
        for name in input.names() {
            let (before, after) = (input.tensor(name).unwrap(), output.tensor(name).unwrap());
            prop_assert_eq!(before.shape(), after.shape());
            if replacements.contains_key(name) {
                let expected = if before.dtype().is_quantized() { TensorDtype::F16 } else { before.dtype() };
                prop_assert_eq!(after.dtype(), expected);
                let row_len = after.row_len();
                let expected: Vec<f32> = (0..after.shape().iter().product())
                    .map(|it: usize| (it / row_len) as f32 - 0.5 * (it % row_len) as f32).collect();
                prop_assert_eq!(after.to_f32(), expected);
            } else {
                prop_assert_eq!(before.dtype(), after.dtype());
                prop_assert_eq!(before.bytes(), after.bytes());
            }
        }
    }
}
