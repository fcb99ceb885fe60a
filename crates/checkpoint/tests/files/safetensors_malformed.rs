//! One test for each way a safetensors file can be broken.

use checkpoint::hugging_face::{Header, SafetensorsError};

fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

fn error(header: &str, data: usize) -> SafetensorsError {
    Header::parse(&file(header, data)).unwrap_err()
}

const TWO: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = file(TWO, 11);
    assert!(Header::parse(&file).is_ok());
    for length in 0..file.len() {
        assert!(Header::parse(&file[..length]).is_err(), "cut to {length} of {} bytes", file.len());
    }
}

#[test]
fn a_file_cut_in_its_data_says_both_sizes() {
    let whole = file(TWO, 11);
    let error = Header::parse(&whole[..whole.len() - 4]).unwrap_err();
    let SafetensorsError::Truncated { expected, found } = error else { panic!("{error}") };
    assert_eq!((expected, found), (whole.len() as u64, whole.len() - 4));
}

#[test]
fn a_file_shorter_than_a_length_is_refused() {
    let error = Header::parse(&[1, 2, 3]).unwrap_err();
    assert!(matches!(error, SafetensorsError::TooShort { found: 3 }), "{error}");
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    for length in [100, u64::MAX] {
        let error = Header::parse(&[&length.to_le_bytes()[..], b"{}"].concat()).unwrap_err();
        let SafetensorsError::HeaderExceedsFile { expected, found } = error else { panic!("{error}") };
        assert_eq!((expected, found), (length, 2));
    }
}

#[test]
fn a_header_longer_than_the_format_allows_is_refused() {
    let length = 100_000_001_u64;
    let mut bytes = vec![b' '; 8 + length as usize];
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    let error = Header::parse(&bytes).unwrap_err();
    assert!(matches!(error, SafetensorsError::HeaderTooLong { found: 100_000_001, .. }), "{error}");
}

#[test]
fn a_header_that_is_not_utf_8_is_refused_with_its_place() {
    let error = Header::parse(&[&4_u64.to_le_bytes()[..], b"{\"\xff\""].concat()).unwrap_err();
    assert!(matches!(error, SafetensorsError::NotUtf8 { valid_up_to: 2 }), "{error}");
}

#[test]
fn a_header_that_is_not_json_is_refused_with_line_and_column() {
    let error = error("{\"a\":\n oops}", 0);
    assert!(error.to_string().ends_with("at line 2 column 2"), "{error}");
}

#[test]
fn a_header_that_is_not_an_object_is_refused() {
    assert!(error("[]", 0).to_string().contains("expected an object of tensors"));
}

#[test]
fn a_header_nested_a_hundred_thousand_deep_does_not_exhaust_the_stack() {
    let error = error(&format!("{{\"a\":{}", "[".repeat(100_000)), 0);
    assert!(matches!(error, SafetensorsError::Json(_)), "{error}");
}

#[test]
fn a_tensor_that_appears_twice_is_refused() {
    let error = error(
        r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
        0,
    );
    assert!(error.to_string().contains("tensor `a` appears twice"), "{error}");
}

#[test]
fn a_type_that_does_not_exist_is_refused() {
    let error = error(r#"{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}"#, 1);
    assert!(error.to_string().contains("unknown variant `F7`"), "{error}");
}

#[test]
fn a_negative_dimension_is_refused() {
    let error = error(r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, 1);
    assert!(matches!(error, SafetensorsError::Json(_)), "{error}");
}

#[test]
fn a_range_that_does_not_fit_the_shape_is_refused() {
    let error = error(r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}}"#, 20);
    let SafetensorsError::Size { name, expected, end, .. } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), expected, end), ("a", 24, 20));
}

#[test]
fn a_range_that_ends_before_it_starts_is_refused() {
    let error = error(r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[8,0]}}"#, 8);
    assert!(matches!(error, SafetensorsError::Size { start: 8, end: 0, .. }), "{error}");
}

#[test]
fn ranges_that_overlap_are_refused() {
    let error = error(
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
        6,
    );
    let SafetensorsError::Offset { name, expected, found } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), expected, found), ("b", 4, 2));
}

#[test]
fn a_gap_between_ranges_is_refused() {
    let error = error(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#, 5);
    assert!(matches!(error, SafetensorsError::Offset { expected: 0, found: 1, .. }), "{error}");
}

#[test]
fn a_range_at_the_end_of_all_numbers_does_not_overflow() {
    let max = usize::MAX;
    let error = error(&format!(r#"{{"a":{{"dtype":"U8","shape":[{max}],"data_offsets":[0,{max}]}}}}"#), 0);
    assert!(matches!(error, SafetensorsError::SizeOverflow { .. }), "{error}");
}

#[test]
fn a_shape_whose_product_overflows_is_refused() {
    for shape in ["4294967296,4294967296", "4294967296,4294967296,0", "2305843009213693952,8"] {
        let error = error(&format!(r#"{{"a":{{"dtype":"F64","shape":[{shape}],"data_offsets":[0,0]}}}}"#), 0);
        assert!(matches!(error, SafetensorsError::SizeOverflow { .. }), "{shape}: {error}");
    }
}

#[test]
fn a_file_that_goes_on_after_its_tensors_is_refused() {
    let error = error(TWO, 15);
    assert!(matches!(error, SafetensorsError::Surplus { surplus: 4, .. }), "{error}");
}

#[test]
fn the_order_is_that_of_the_data_and_then_of_the_header() {
    let empty = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let header = format!(
        r#"{{"late":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"y":{empty},"x":{empty},"__metadata__":{{"format":"pt"}}}}"#
    );
    let header = Header::parse(&file(&header, 1)).unwrap();
    let names: Vec<_> = header.tensors.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["y", "x", "late"]);
    assert_eq!(header.metadata["format"], "pt");
}
