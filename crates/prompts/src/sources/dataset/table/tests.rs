//! Files of every kind, whole, damaged and hostile.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn read(path: &Path, named: Option<&str>) -> Result<Vec<String>, SourceError> {
    column(&path.display().to_string(), path, named)
}

fn read_as(name: &str, bytes: &[u8], named: Option<&str>) -> Result<Vec<String>, SourceError> {
    let folder = folder();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read(&path, named)
}

/// A Parquet file of a column of texts, and perhaps one of numbers.
fn parquet_file(path: &Path, properties: WriterProperties, texts: &[&str], numbers: bool) {
    let schema = if numbers {
        "message m { required binary text (UTF8); required int64 n; }"
    } else {
        "message m { required binary text (UTF8); }"
    };
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    // A text that comes again is the same bytes in memory.
    let mut values: Vec<ByteArray> = Vec::new();
    for (place, &text) in texts.iter().enumerate() {
        let before = place.checked_sub(1).filter(|&it| std::ptr::eq(texts[it], text));
        values.push(before.map_or_else(|| text.into(), |it| values[it].clone()));
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    if numbers {
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<i64> = (0..texts.len() as i64).collect();
        column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

fn properties(compression: Compression) -> WriterProperties {
    WriterProperties::builder().set_compression(compression).build()
}

fn arrow_batch(texts: &[&str]) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    RecordBatch::try_from_iter([("text", texts), ("n", numbers)]).unwrap()
}

fn arrow_stream(path: &Path, texts: &[&str]) {
    let batch = arrow_batch(texts);
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new(File::create(path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

fn arrow_file(path: &Path, texts: &[&str]) {
    let batch = arrow_batch(texts);
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new(File::create(path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

const TEXTS: [&str; 4] = ["one", "two", "two", "three and four"];

/// Small files of the binary kinds.
fn samples(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut path = |name: &str| {
        paths.push(folder.join(name));
        paths.last().unwrap().clone()
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for (name, compression) in
        [("plain", Compression::UNCOMPRESSED), ("snappy", Compression::SNAPPY), ("zstd", zstd)]
    {
        parquet_file(&path(&format!("{name}.parquet")), properties(compression), &TEXTS, true);
    }
    let second = WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0);
    let second =
        second.set_dictionary_enabled(false).set_compression(Compression::GZIP(GzipLevel::default()));
    parquet_file(&path("second.parquet"), second.build(), &TEXTS, true);
    arrow_stream(&path("stream.arrow"), &TEXTS);
    arrow_file(&path("file.arrow"), &TEXTS);
    paths
}

#[test]
fn whole_files_are_read() {
    let folder = folder();
    for path in samples(folder.path()) {
        assert_eq!(read(&path, Some("text")).unwrap(), TEXTS, "{}", path.display());
        assert_eq!(read(&path, None).unwrap(), TEXTS, "{}", path.display());
    }
}

/// Every fifth byte of each sample, with a bit of it changed, and as the largest and the smallest.
#[test]
fn a_file_with_one_byte_changed_is_read_or_refused_by_name() {
    let folder = folder();
    let changed = folder.path().join("changed");
    for path in samples(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let changed = changed.with_extension(path.extension().unwrap());
        let (mut refused, mut same) = (0, 0);
        for at in (0..bytes.len()).step_by(5) {
            for value in [bytes[at] ^ 1, bytes[at] ^ 128, 0, 255, 91] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                std::fs::write(&changed, &bytes).unwrap();
                match read(&changed, Some("text")) {
                    Ok(texts) => {
                        assert!(texts.len() < 1000, "{} texts", texts.len());
                        same += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("changed."), "{error}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 50 && same > 50, "{}: {refused} refused, {same} read", path.display());
    }
}

/// Whole numbers of four and eight bytes replaced by ones that nobody can reserve.
#[test]
fn a_file_with_one_number_changed_is_read_or_refused_by_name() {
    let folder = folder();
    let changed = folder.path().join("changed");
    for path in samples(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let changed = changed.with_extension(path.extension().unwrap());
        for at in (0..bytes.len() - 8).step_by(4) {
            for value in [1_u64 << 63, i64::MAX as u64, 1 << 40, u64::MAX] {
                for width in [4, 8] {
                    let mut bytes = bytes.clone();
                    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                    std::fs::write(&changed, &bytes).unwrap();
                    if let Err(error) = read(&changed, Some("text")) {
                        assert!(error.to_string().contains("changed."), "{error}");
                    }
                }
            }
        }
        for length in (0..bytes.len()).step_by(9) {
            std::fs::write(&changed, &bytes[..length]).unwrap();
            drop(read(&changed, Some("text")));
        }
    }
}

#[test]
fn a_small_file_that_unfolds_into_gigabytes_is_refused_with_the_bound() {
    let folder = folder();
    let path = folder.path().join("bomb.parquet");
    let long = "x".repeat(1 << 20);
    // One text of a mebibyte, in a dictionary, 20000 times: 20 GB.
    let zstd = || WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let dictionary = zstd().set_dictionary_page_size_limit(4 << 20).build();
    parquet_file(&path, dictionary, &vec![long.as_str(); 20_000], false);
    assert!(path.metadata().unwrap().len() < 100_000, "{}", path.metadata().unwrap().len());
    let error = read(&path, None).unwrap_err();
    assert!(
        matches!(&error, SourceError::Dataset(DatasetError::TooLarge { most, .. }) if *most == 256 << 20),
        "{error}"
    );
    // The same without a dictionary: pages that unfold.
    let without = zstd().set_dictionary_enabled(false).build();
    parquet_file(&path, without, &vec![long.as_str(); 300], false);
    assert!(path.metadata().unwrap().len() < 1 << 20, "{}", path.metadata().unwrap().len());
    let error = read(&path, None).unwrap_err();
    assert!(matches!(&error, SourceError::Dataset(DatasetError::TooLarge { .. })), "{error}");
    // Texts of the usual size, repeated as often as data sets do, are fine.
    parquet_file(
        &path,
        properties(Compression::SNAPPY),
        &vec!["You are a helpful assistant."; 50_000],
        false,
    );
    assert_eq!(read(&path, None).unwrap().len(), 50_000);
}

#[test]
fn a_packed_text_that_unfolds_into_gigabytes_is_refused() {
    use std::io::Write as _;
    let folder = folder();
    for name in ["bomb.jsonl.gz", "bomb.csv.gz", "bomb.txt.gz"] {
        let path = folder.path().join(name);
        let mut packer =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::best());
        let block = vec![b' '; 1 << 20];
        for _ in 0..300 {
            packer.write_all(&block).unwrap();
        }
        packer.finish().unwrap();
        let error = read(&path, None).unwrap_err();
        assert!(matches!(&error, SourceError::Dataset(DatasetError::TooLarge { .. })), "{error}");
    }
}

#[test]
fn json_is_read_in_every_form_in_which_prompts_are_kept() {
    let texts = ["a", "b"];
    for (json, column) in [
        (r#"["a", "b"]"#, None),
        ("\u{feff}[\"a\",\n \"b\"]\n", Some("text")),
        ("\"a\"\n\"b\"\n", None),
        ("{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}", None),
        ("{\"text\": \"a\"}\r{\"text\": \"b\"}\r", None),
        (r#"[{"n": 1, "text": "a"}, {"n": 2, "text": "b"}]"#, None),
        (r#"{"data": [{"text": "a"}, {"text": "b"}]}"#, None),
        (r#"{"version": "1.1", "data": [{"text": "a", "n": 1}, {"text": "b", "n": 2}]}"#, None),
        (r#"{"name": "x", "questions": [{"text": "a"}, {"text": "b"}]}"#, Some("text")),
        (r#"{"prompts": ["a", "b"]}"#, None),
        (r#"{"prompts": ["a", "b"]}"#, Some("prompts")),
        (r#"{"about": "x", "data": ["a", "b"]}"#, None),
        (r#"{"text": ["a", "b"], "n": [1, 2]}"#, None),
        (r#"{"text": ["a", "b"], "other": ["c", "d"]}"#, Some("text")),
    ] {
        assert_eq!(read_as("rows.json", json.as_bytes(), column).unwrap(), texts, "{json}");
    }
    // A row with a list in it stays a row.
    let row = r#"{"text": "a", "tags": ["x", "y"], "messages": [{"role": "user"}]}"#;
    assert_eq!(read_as("rows.jsonl", row.as_bytes(), None).unwrap(), ["a"]);
    let error = |json: &str, column: Option<&str>| {
        read_as("rows.json", json.as_bytes(), column).unwrap_err().to_string()
    };
    assert!(error(r#"["a", 3]"#, None).contains("row 1: column `text` is `3`"));
    assert!(
        error(r#"["a", "b"]"#, Some("prompt"))
            .contains("has no column `prompt`\n\nhint: set `column` to one of text")
    );
    assert!(error("[1, 2]", None).contains("found `1`"));
}

#[test]
fn a_column_that_is_no_text_is_not_called_several_columns() {
    let error = read_as("rows.jsonl", b"{\"n\": 1}\n{\"n\": 2}", None).unwrap_err().to_string();
    assert!(error.contains("has no column of texts; it has `n`\n\nhint: "), "{error}");
    let error =
        read_as("rows.jsonl", b"{\"a\": \"x\", \"n\": 1, \"b\": \"y\"}", None).unwrap_err().to_string();
    assert!(error.contains("has 2 columns of texts\n\nhint: set `column` to one of a, b"), "{error}");
    let folder = folder();
    let path = folder.path().join("numbers.arrow");
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new(File::create(&path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let error = read(&path, None).unwrap_err().to_string();
    assert!(error.contains("has no column of texts; it has `n`"), "{error}");
}

#[test]
fn an_unbalanced_quote_is_refused_with_its_line() {
    for (name, text) in
        [("rows.csv", "text,n\nfine,1\n\"oops,2\nlost,3\n"), ("rows.tsv", "text\tn\nfine\t1\n\"oops\t2\n")]
    {
        let error = read_as(name, text.as_bytes(), Some("text")).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
    let fine = "text,n\n\"a \"\"b\"\"\nc\",1\n5\" disk,2\n";
    assert_eq!(read_as("rows.csv", fine.as_bytes(), Some("text")).unwrap(), ["a \"b\"\nc", "5\" disk"]);
}

#[test]
fn tables_in_other_encodings_say_how_to_convert_them() {
    let utf16: Vec<u8> = "\u{feff}text\na\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["rows.csv", "rows.jsonl", "rows.tsv"] {
        let error = read_as(name, &utf16, None).unwrap_err().to_string();
        assert!(error.contains("`iconv -f UTF-16 -t UTF-8 '"), "{error}");
        let error = read_as(name, b"text\ncaf\xe9\n", None).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`iconv -f WINDOWS-1252 -t UTF-8 '"), "{error}");
    }
}
