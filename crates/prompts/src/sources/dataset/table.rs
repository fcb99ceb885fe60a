//! Columns of texts from files of tables.

use std::io::{Read, Seek};
use std::path::Path;

use arrow_array::{Array, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;

use super::DatasetError;
use crate::sources::SourceError;

/// A kind of file. In the order in which one is preferred among equally many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Parquet,
    Json,
    Csv,
    Tsv,
    Arrow,
    Text,
}

impl Format {
    /// The kind that a file's name tells, with `.gz` at its end or without.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        Some(match plain.rsplit_once('.')?.1 {
            "parquet" => Self::Parquet,
            "jsonl" | "json" | "ndjson" => Self::Json,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "arrow" => Self::Arrow,
            "txt" => Self::Text,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Json => "JSON lines",
            Self::Csv => "CSV",
            Self::Tsv => "tab-separated values",
            Self::Arrow => "Arrow",
            Self::Text => "text",
        }
    }
}

/// A file that is being read, for errors.
struct Reading<'a> {
    file: &'a str,
    format: Format,
    column: Option<&'a str>,
}

/// A column of a file; its only column of texts if none is named. `shown` is what errors call it.
pub(super) fn column(shown: &str, path: &Path, column: Option<&str>) -> Result<Vec<String>, SourceError> {
    let format = Format::of(&path.to_string_lossy()).or(Format::of(shown)).unwrap_or(Format::Text);
    let reading = Reading { file: shown, format, column };
    let unread = |reason| SourceError::Read { path: shown.to_owned(), reason };
    let mut file = std::fs::File::open(path).map_err(unread)?;
    let packed = shown.to_ascii_lowercase().ends_with(".gz");
    Ok(match format {
        Format::Parquet => reading.parquet(file)?,
        Format::Arrow => reading.arrow(file)?,
        _ => {
            let mut bytes = Vec::new();
            if packed {
                flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).map_err(unread)?;
            } else {
                file.read_to_end(&mut bytes).map_err(unread)?;
            }
            let text = String::from_utf8(bytes).map_err(|error| reading.malformed(&error.utf8_error()))?;
            let text = text.trim_start_matches('\u{feff}');
            match format {
                Format::Json => reading.json(text)?,
                Format::Csv => reading.csv(text, b',')?,
                Format::Tsv => reading.csv(text, b'\t')?,
                _ => reading.lines(text)?,
            }
        }
    })
}

impl Reading<'_> {
    fn malformed(&self, reason: &dyn std::fmt::Display) -> DatasetError {
        DatasetError::Malformed {
            file: self.file.to_owned(),
            format: self.format.name(),
            reason: reason.to_string(),
        }
    }

    fn cell(&self, row: usize, column: &str, found: impl Into<String>) -> DatasetError {
        DatasetError::Cell { file: self.file.to_owned(), row, column: column.to_owned(), found: found.into() }
    }

    /// The place of the column asked for, or of the only one that may be meant.
    fn choose(&self, names: &[String], texts: &[bool]) -> Result<usize, DatasetError> {
        let unknown = || DatasetError::Column {
            file: self.file.to_owned(),
            column: self.column.map(str::to_owned),
            known: names.to_vec(),
        };
        if let Some(column) = self.column {
            names.iter().position(|it| it == column).ok_or_else(unknown)
        } else {
            let mut meant = (0..names.len()).filter(|&it| texts[it]);
            let first = meant.next().ok_or_else(unknown)?;
            if meant.next().is_some() { Err(unknown()) } else { Ok(first) }
        }
    }

    fn parquet(&self, file: std::fs::File) -> Result<Vec<String>, DatasetError> {
        let reader = SerializedFileReader::new(file).map_err(|it| self.malformed(&it))?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let fields = schema.get_fields();
        let is_text = |it: &Type| {
            it.is_primitive()
                && it.get_physical_type() == PhysicalType::BYTE_ARRAY
                && (it.get_basic_info().converted_type() == ConvertedType::UTF8
                    || it.get_basic_info().logical_type_ref() == Some(&LogicalType::String))
        };
        let names: Vec<String> = fields.iter().map(|it| it.name().to_owned()).collect();
        let texts: Vec<bool> = fields.iter().map(|it| is_text(it)).collect();
        let chosen = fields[self.choose(&names, &texts)?].clone();
        let name = chosen.name().to_owned();
        let projection = Type::group_type_builder(schema.name()).with_fields(vec![chosen]).build();
        let projection = projection.map_err(|it| self.malformed(&it))?;
        let rows = reader.get_row_iter(Some(projection)).map_err(|it| self.malformed(&it))?;
        let texts = rows.enumerate().map(|(row, it)| {
            let it = it.map_err(|it| self.malformed(&it))?;
            match it.get_column_iter().next() {
                Some((_, Field::Str(text))) => Ok(text.clone()),
                Some((_, Field::Null)) | None => Err(self.cell(row, &name, "empty")),
                Some((_, other)) => Err(self.cell(row, &name, format!("`{other}`"))),
            }
        });
        texts.collect()
    }

    /// Arrow's stream format, which `datasets` writes, or its file format.
    fn arrow(&self, mut file: std::fs::File) -> Result<Vec<String>, DatasetError> {
        let mut magic = [0; 6];
        let is_file = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
        file.rewind().map_err(|it| self.malformed(&it))?;
        let mut texts = Vec::new();
        let mut read = |batch: RecordBatch| self.batch(&batch, &mut texts);
        if is_file {
            let reader =
                arrow_ipc::reader::FileReader::try_new(file, None).map_err(|it| self.malformed(&it))?;
            for batch in reader {
                read(batch.map_err(|it| self.malformed(&it))?)?;
            }
        } else {
            let reader = std::io::BufReader::new(file);
            let reader =
                arrow_ipc::reader::StreamReader::try_new(reader, None).map_err(|it| self.malformed(&it))?;
            for batch in reader {
                read(batch.map_err(|it| self.malformed(&it))?)?;
            }
        }
        Ok(texts)
    }

    fn batch(&self, batch: &RecordBatch, texts: &mut Vec<String>) -> Result<(), DatasetError> {
        let schema = batch.schema();
        let names: Vec<String> = schema.fields().iter().map(|it| it.name().clone()).collect();
        let is_text = |it: &dyn Array| {
            let it = it.as_any();
            it.is::<StringArray>() || it.is::<LargeStringArray>() || it.is::<StringViewArray>()
        };
        let kinds: Vec<bool> = batch.columns().iter().map(|it| is_text(it)).collect();
        let chosen = self.choose(&names, &kinds)?;
        let (name, column) = (&names[chosen], batch.column(chosen));
        for row in 0..column.len() {
            let any = column.as_any();
            let place = texts.len();
            if column.is_null(row) {
                return Err(self.cell(place, name, "empty"));
            }
            let text = any
                .downcast_ref::<StringArray>()
                .map(|it| it.value(row))
                .or_else(|| any.downcast_ref::<LargeStringArray>().map(|it| it.value(row)))
                .or_else(|| any.downcast_ref::<StringViewArray>().map(|it| it.value(row)));
            let text =
                text.ok_or_else(|| self.cell(place, name, format!("of type {}", column.data_type())))?;
            texts.push(text.to_owned());
        }
        Ok(())
    }

    /// One object a line, or a list of objects.
    fn json(&self, text: &str) -> Result<Vec<String>, DatasetError> {
        let rows: Vec<Value> = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map_err(|it| self.malformed(&it))?
        } else {
            let rows = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            rows.collect::<Result<_, _>>().map_err(|it| self.malformed(&it))?
        };
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let first = first.as_object().ok_or_else(|| self.malformed(&"rows are no objects"))?;
        // A row may lack what others have.
        let mut names: Vec<String> = first.keys().cloned().collect();
        if let Some(column) = self.column.filter(|it| !first.contains_key(*it))
            && rows.iter().any(|it| it.get(column).is_some())
        {
            names.push(column.to_owned());
        }
        let texts: Vec<bool> = names.iter().map(|it| first.get(it).is_some_and(Value::is_string)).collect();
        let name = &names[self.choose(&names, &texts)?];
        let cell = |(row, it): (usize, &Value)| match it.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            None | Some(Value::Null) => Err(self.cell(row, name, "empty")),
            Some(other) => Err(self.cell(row, name, format!("`{other}`"))),
        };
        rows.iter().enumerate().map(cell).collect()
    }

    fn csv(&self, text: &str, delimiter: u8) -> Result<Vec<String>, DatasetError> {
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|it| self.malformed(&it))?;
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        let chosen = self.choose(&names, &vec![true; names.len()])?;
        let cell = |(row, record): (usize, Result<csv::StringRecord, csv::Error>)| {
            let record = record.map_err(|it| self.malformed(&it))?;
            match record.get(chosen) {
                Some(text) if !text.is_empty() => Ok(text.to_owned()),
                _ => Err(self.cell(row, &names[chosen], "empty")),
            }
        };
        reader.records().enumerate().map(cell).collect()
    }

    /// Lines as they are: a data set's text file has a row for each, blank ones included.
    fn lines(&self, text: &str) -> Result<Vec<String>, DatasetError> {
        self.choose(&["text".to_owned()], &[true])?;
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        Ok(text.strip_suffix('\n').unwrap_or(&text).split('\n').map(str::to_owned).collect())
    }
}
