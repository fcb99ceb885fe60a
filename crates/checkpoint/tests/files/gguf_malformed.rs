//! One test for each way a GGUF file can be broken.

use checkpoint::gguf::{GgufError, Header};
use checkpoint::{Checkpoint, CheckpointError, TensorDtype};

use crate::gguf_builder::{ARRAY, F32, Gguf, Q4_0, STRING, U8, U32, array};

fn error(file: &Gguf) -> GgufError {
    Header::parse(&file.bytes()).unwrap_err()
}

/// A tensor of 8 numbers.
fn small() -> Gguf {
    Gguf::new().text("general.architecture", "test").floats("w", &[4, 2], &[0.5; 8])
}

#[test]
fn a_file_with_another_magic_is_not_gguf() {
    let file = Gguf { magic: *b"GGML", ..small() };
    assert_eq!(error(&file), GgufError::BadMagic { found: *b"GGML" });
}

#[test]
fn versions_other_than_2_and_3_are_refused() {
    for version in [0, 1, 4, u32::MAX] {
        let file = Gguf { version, ..small() };
        assert_eq!(error(&file), GgufError::UnsupportedVersion { found: version });
    }
}

#[test]
fn a_big_endian_file_is_called_so() {
    let file = Gguf { version: 3_u32.swap_bytes(), ..small() };
    assert_eq!(error(&file), GgufError::BigEndian);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = small().bytes();
    for length in 0..file.len() {
        assert!(Header::parse(&file[..length]).is_err(), "cut to {length} of {} bytes", file.len());
    }
}

#[test]
fn a_file_that_ends_in_its_tensor_data_says_how_long_it_should_be() {
    let file = small().bytes();
    let error = Header::parse(&file[..file.len() - 5]).unwrap_err();
    let expected =
        GgufError::Truncated { name: "w".to_owned(), expected: file.len() as u64, found: file.len() - 5 };
    assert_eq!(error, expected);
}

#[test]
fn a_file_that_ends_in_its_header_says_where() {
    let error = Header::parse(&small().bytes()[..26]).unwrap_err();
    // Magic, version and two counts are 24 bytes; what follows is too short for a tensor.
    assert_eq!(error, GgufError::CountExceedsFile { things: "tensors", count: 1, available: 2 });
}

#[test]
fn a_hostile_number_of_tensors_reserves_nothing() {
    for count in [1000, u64::MAX] {
        let file = Gguf { tensor_count: Some(count), ..small() };
        assert!(matches!(error(&file), GgufError::CountExceedsFile { things: "tensors", .. }));
    }
}

#[test]
fn more_tensors_than_any_model_has_are_refused_even_if_the_file_could_hold_them() {
    let limit = 1 << 20;
    let file = Gguf { tensor_count: Some(limit as u64 + 1), data: vec![0; (limit + 1) * 24], ..Gguf::new() };
    assert_eq!(error(&file), GgufError::TooMany { things: "tensors", limit });
}

#[test]
fn a_hostile_number_of_entries_reserves_nothing() {
    for count in [1000, u64::MAX] {
        let file = Gguf { entry_count: Some(count), ..small() };
        assert!(matches!(error(&file), GgufError::CountExceedsFile { things: "metadata entries", .. }));
    }
}

#[test]
fn a_hostile_array_length_reserves_nothing() {
    for (kind, count) in [(U8, u64::MAX), (STRING, 1 << 40), (U32, u64::MAX / 4 + 2), (ARRAY, 1 << 60)] {
        let file = Gguf::new().entry("a", ARRAY, &array(kind, count));
        let GgufError::CountExceedsFile { things, count: found, available } = error(&file) else {
            panic!("{:?}", error(&file));
        };
        assert_eq!((things, found), ("elements of a metadata array", count));
        assert!(available < 32, "only padding follows");
    }
}

#[test]
fn an_array_of_more_elements_than_any_vocabulary_is_refused() {
    let count = (1 << 22) + 1;
    let file = Gguf::new().entry("a", ARRAY, &[array(U8, count), vec![0; count as usize]].concat());
    assert_eq!(error(&file), GgufError::TooMany { things: "metadata values", limit: 1 << 22 });
}

#[test]
fn a_string_longer_than_the_file_is_refused() {
    for length in [1000, u64::MAX] {
        let file = Gguf::new().entry("a", STRING, &[&length.to_le_bytes()[..], b"short"].concat());
        let GgufError::UnexpectedEnd { reading, needed, .. } = error(&file) else {
            panic!("{:?}", error(&file));
        };
        assert_eq!((reading, needed), ("a metadata string", length));
    }
}

#[test]
fn a_key_longer_than_the_file_is_refused() {
    let mut file = Gguf::new().number("a", 1);
    file.entries[0][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(error(&file), GgufError::UnexpectedEnd { reading: "a metadata key", .. }));
}

#[test]
fn a_tensor_name_longer_than_the_file_is_refused() {
    let file = Gguf::new().info("w", &[1, 1, 1, 1], F32, 0);
    let mut bytes = file.bytes();
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = Header::parse(&bytes).unwrap_err();
    assert!(matches!(error, GgufError::UnexpectedEnd { reading: "a tensor name", .. }));
}

#[test]
fn a_string_that_is_not_utf_8_is_refused_with_its_place() {
    let file = Gguf::new().entry("a", STRING, &[&1_u64.to_le_bytes()[..], b"\xff"].concat());
    // 24 bytes of counts, key of 8 + 1, type of 4, length of 8.
    assert_eq!(error(&file), GgufError::NotUtf8 { reading: "a metadata string", offset: 45 });
}

#[test]
fn a_key_that_appears_twice_is_refused() {
    let file = small().number("twice", 1).text("twice", "x");
    assert_eq!(error(&file), GgufError::DuplicateKey { key: "twice".to_owned() });
}

#[test]
fn a_value_type_that_does_not_exist_is_refused() {
    let file = Gguf::new().entry("a", 13, &[0; 8]);
    assert_eq!(error(&file), GgufError::UnknownValueType { key: "a".to_owned(), found: 13 });
}

#[test]
fn an_array_of_a_type_that_does_not_exist_is_refused_even_when_empty() {
    let file = Gguf::new().entry("a", ARRAY, &array(99, 0));
    assert_eq!(error(&file), GgufError::UnknownValueType { key: "a".to_owned(), found: 99 });
}

#[test]
fn a_boolean_is_0_or_1() {
    let file = Gguf::new().entry("a", 7, &[2]);
    assert_eq!(error(&file), GgufError::BadBool { key: "a".to_owned(), found: 2 });
}

#[test]
fn arrays_nested_a_hundred_thousand_deep_do_not_exhaust_the_stack() {
    let file = Gguf::new().entry("a", ARRAY, &array(ARRAY, 1).repeat(100_000));
    assert_eq!(error(&file), GgufError::NestedTooDeep { key: "a".to_owned(), limit: 4 });
}

#[test]
fn arrays_are_nested_at_most_four_deep() {
    let nested = |depth: usize| [array(ARRAY, 1).repeat(depth - 1), array(U8, 0)].concat();
    assert!(Header::parse(&Gguf::new().entry("a", ARRAY, &nested(4)).bytes()).is_ok());
    let file = Gguf::new().entry("a", ARRAY, &nested(5));
    assert_eq!(error(&file), GgufError::NestedTooDeep { key: "a".to_owned(), limit: 4 });
}

#[test]
fn the_alignment_is_a_power_of_two() {
    for found in [0, 3, 48, u32::MAX] {
        let file = small().number("general.alignment", found);
        assert_eq!(error(&file), GgufError::BadAlignment { found: found.to_string() });
    }
}

#[test]
fn the_alignment_is_a_number() {
    let file = small().text("general.alignment", "32");
    assert_eq!(error(&file), GgufError::BadAlignment { found: "\"32\"".to_owned() });
}

#[test]
fn a_tensor_that_appears_twice_is_refused() {
    let file = small().floats("w", &[1], &[1.0]);
    assert_eq!(error(&file), GgufError::DuplicateTensor { name: "w".to_owned() });
}

#[test]
fn a_tensor_has_at_most_four_dimensions() {
    let file = Gguf::new().floats("w", &[1; 5], &[1.0]);
    let expected = GgufError::TooManyDimensions { name: "w".to_owned(), limit: 4, found: 5 };
    assert_eq!(error(&file), expected);
}

#[test]
fn a_shape_whose_product_overflows_is_refused() {
    let half = 1 << 32;
    for shape in [[half, half], [u64::MAX, 1], [u64::MAX, 2], [0, u64::MAX]] {
        let shape = [shape[0], shape[1], 2];
        let file = Gguf::new().info("w", &shape, F32, 0);
        assert_eq!(
            error(&file),
            GgufError::SizeOverflow { name: "w".to_owned(), shape: shape.to_vec() },
            "{shape:?}"
        );
    }
}

#[test]
fn a_quantized_row_is_a_whole_number_of_blocks() {
    let file = Gguf::new().tensor("w", &[48, 2], Q4_0, &[0; 54]);
    let expected =
        GgufError::PartialBlock { name: "w".to_owned(), row_len: 48, dtype: TensorDtype::Q4_0, block: 32 };
    assert_eq!(error(&file), expected);
}

#[test]
fn a_tensor_starts_at_a_multiple_of_the_alignment() {
    let file = small().info("v", &[1], F32, 4);
    let expected = GgufError::MisalignedOffset { name: "v".to_owned(), offset: 4, alignment: 32 };
    assert_eq!(error(&file), expected);
}

#[test]
fn a_tensor_behind_the_end_of_the_file_is_refused() {
    let file = small().info("v", &[8], F32, 1 << 40);
    let length = file.bytes().len() as u64;
    let data_start = length - 32;
    let expected = data_start + (1 << 40) + 32;
    assert_eq!(error(&file), GgufError::Truncated { name: "v".to_owned(), expected, found: length as usize });
}

#[test]
fn an_offset_that_overflows_is_refused() {
    let file = small().info("v", &[8], F32, u64::MAX - 31);
    assert_eq!(error(&file), GgufError::SizeOverflow { name: "v".to_owned(), shape: vec![8] });
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let file = small().info("v", &[8], F32, 0);
    let expected = GgufError::Overlap { first: "w".to_owned(), second: "v".to_owned() };
    assert_eq!(error(&file), expected);
}

#[test]
fn a_type_that_is_not_decoded_is_an_error_only_for_that_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    small().tensor("iq", &[256], 16, &[0; 66]).tensor("new", &[1], 4711, &[0; 32]).write(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w", "iq", "new"]);
    assert!(checkpoint.tensor("w").is_ok());
    for (name, kind) in [("iq", "IQ2_XXS"), ("new", "number 4711")] {
        let error = checkpoint.tensor(name).unwrap_err();
        let CheckpointError::UnsupportedType { found, supported, .. } = &error else { panic!("{error}") };
        assert_eq!(found, kind);
        assert!(supported.starts_with("F32, F16, Q4_0") && supported.contains("Q6_K"), "{supported}");
    }
}

#[test]
fn the_path_and_the_problem_are_in_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let file = Gguf::new().entry("a", STRING, &9_u64.to_le_bytes());
    std::fs::write(&path, &file.bytes()[..45]).unwrap();
    let message = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("`{}`: the file ends inside its header", path.display())));
    assert!(message.contains("9 bytes, 0 are left\n\nhint: "), "{message}");
}
