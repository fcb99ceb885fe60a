//! What is read from GGUF files that are as they should be.

use checkpoint::gguf::Header;
use checkpoint::{Checkpoint, Format, TensorDtype, TokenizerSource};
use serde_json::json;

use crate::gguf_builder::{ARRAY, F32, Gguf, STRING, U8, U32, array, le_bytes, string};

#[test]
fn every_value_type_becomes_its_json() {
    let strings = [array(STRING, 2), string("a"), string("")].concat();
    let nested = [array(ARRAY, 2), array(U8, 1), vec![7], array(U8, 0)].concat();
    let file = Gguf::new()
        .entry("u8", U8, &[200])
        .entry("i8", 1, &(-2_i8).to_le_bytes())
        .entry("u16", 2, &60_000_u16.to_le_bytes())
        .entry("i16", 3, &(-300_i16).to_le_bytes())
        .number("u32", 4_000_000_000)
        .entry("i32", 5, &(-70_000_i32).to_le_bytes())
        .entry("f32", 6, &1e-5_f32.to_le_bytes())
        .entry("bool", 7, &[1])
        .text("string", "ä\n")
        .entry("strings", ARRAY, &strings)
        .entry("nested", ARRAY, &nested)
        .entry("u64", 10, &u64::MAX.to_le_bytes())
        .entry("i64", 11, &i64::MIN.to_le_bytes())
        .entry("f64", 12, &0.1_f64.to_le_bytes())
        .entry("infinite", 6, &f32::INFINITY.to_le_bytes());
    let expected = json!({
        "u8": 200, "i8": -2, "u16": 60000, "i16": -300, "u32": 4_000_000_000_u32, "i32": -70000,
        "f32": f64::from(1e-5_f32), "bool": true, "string": "ä\n", "strings": ["a", ""],
        "nested": [[7], []], "u64": u64::MAX, "i64": i64::MIN, "f64": 0.1, "infinite": {"__float__": "Infinity"},
    });
    let header = Header::parse(&file.bytes()).unwrap();
    assert_eq!(serde_json::Value::Object(header.metadata), expected);
}

#[test]
fn dimensions_are_reversed_and_names_keep_the_files_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.name");
    Gguf::new()
        .text("general.architecture", "test")
        .floats("z", &[3, 2], &[0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
        .floats("a", &[2], &[5.0, 6.0])
        .floats("scalar", &[], &[9.0])
        .write(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.format(), Format::Gguf);
    assert_eq!(checkpoint.path(), path);
    assert_eq!(checkpoint.config(), &json!({"general.architecture": "test"}));
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["z", "a", "scalar"]);
    let z = checkpoint.tensor("z").unwrap();
    assert_eq!((z.name(), z.dtype(), z.file()), ("z", TensorDtype::F32, path.as_path()));
    assert_eq!((z.shape(), z.rows(), z.row_len()), (&[2, 3][..], 2, 3));
    let mut row = [0.0; 3];
    z.read_row(1, &mut row);
    assert_eq!(row.as_slice(), [10.0, 11.0, 12.0]);
    assert_eq!(z.bytes(), le_bytes(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]));
    let scalar = checkpoint.tensor("scalar").unwrap();
    assert_eq!((scalar.rows(), scalar.row_len(), scalar.to_f32()), (1, 1, vec![9.0]));
}

#[test]
fn version_2_and_other_alignments_are_read() {
    for alignment in [1, 8, 64, 4096] {
        let mut file = Gguf { version: 2, alignment, ..Gguf::new() };
        file = file.number("general.alignment", alignment as u32);
        file = file.floats("a", &[3], &[1.0, 2.0, 3.0]).floats("b", &[1], &[4.0]);
        let bytes = file.bytes();
        let header = Header::parse(&bytes).unwrap();
        let b = &header.tensors[1];
        assert_eq!((header.version, header.alignment), (2, alignment as u64));
        assert_eq!(bytes[b.range.clone()], 4.0_f32.to_le_bytes());
    }
}

#[test]
fn a_tensor_without_numbers_may_stand_at_the_very_end() {
    let file = Gguf::new().floats("a", &[1], &[1.0]).info("none", &[0, 7], F32, 32);
    let header = Header::parse(&file.bytes()).unwrap();
    assert!(header.tensors[1].range.is_empty());
    assert_eq!(header.tensors[1].shape, [7, 0]);
}

#[test]
fn the_text_assets_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Gguf::new()
        .text("tokenizer.chat_template", "{{ messages }}")
        .text("tokenizer.chat_template.tool_use", "{{ tools }}")
        .entry("tokenizer.ggml.tokens", ARRAY, &[array(STRING, 1), string("a")].concat())
        .entry("tokenizer.ggml.token_type", ARRAY, &[array(U32, 1), vec![1, 0, 0, 0]].concat())
        .write(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let assets = checkpoint.assets();
    assert_eq!(assets.tokenizer, Some(TokenizerSource::Gguf));
    assert_eq!(assets.chat_template.as_deref(), Some("{{ messages }}"));
    assert_eq!(assets.named_chat_templates, [("tool_use".to_owned(), "{{ tools }}".to_owned())]);
    assert_eq!(assets.tokenizer_config, None);
}
