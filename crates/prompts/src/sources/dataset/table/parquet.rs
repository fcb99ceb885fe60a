//! Parquet.

use std::fs::File;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{DatasetError, PER_TEXT, Reading, pages};

impl Reading<'_> {
    pub(super) fn parquet(&self, file: File) -> Result<Vec<String>, DatasetError> {
        let pages_of = file.try_clone().map_err(|it| self.malformed(&it))?;
        let reader = SerializedFileReader::new(Bounded(file)).map_err(|it| self.malformed(&it))?;
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
        let mut differences = false;
        for index in 0..reader.num_row_groups() {
            let group = reader.get_row_group(index).map_err(|it| self.malformed(&it))?;
            for (place, column) in group.metadata().columns().iter().enumerate() {
                if column.column_path().parts().first() != Some(&name) {
                    continue;
                }
                let start = column.dictionary_page_offset().filter(|it| *it > 0);
                let start = start.map_or(column.data_page_offset(), |it| it.min(column.data_page_offset()));
                let found = pages::largest(&pages_of, start, column.compressed_size());
                if found.map_err(|it| self.malformed(&it))? > self.most {
                    return Err(self.too_large());
                }
                let pages = group.get_column_page_reader(place).map_err(|it| self.malformed(&it))?;
                let description = column.column_descr();
                let levels = [description.max_rep_level(), description.max_def_level()];
                let checked = pages::check(pages, levels, self.most / PER_TEXT);
                differences |= checked.map_err(|it| self.malformed(&it))?;
            }
        }
        let projection = Type::group_type_builder(schema.name()).with_fields(vec![chosen]).build();
        let projection = projection.map_err(|it| self.malformed(&it))?;
        let rows = reader.get_row_iter(Some(projection)).map_err(|it| self.malformed(&it))?;
        // So many texts are made before the first of them is counted.
        let rows = rows.with_batch_size(if differences { 16 } else { 1024 });
        let mut texts = self.texts();
        for row in rows {
            let row = row.map_err(|it| self.malformed(&it))?;
            match row.get_column_iter().next() {
                Some((_, Field::Str(text))) => texts.push(text)?,
                Some((_, Field::Null)) | None => return Err(self.cell(texts.rows(), &name, "empty")),
                Some((_, other)) => return Err(self.cell(texts.rows(), &name, format!("`{other}`"))),
            }
        }
        Ok(texts.all)
    }
}

/// A file of which no more is asked for than it has: as much is reserved.
struct Bounded(File);

impl Length for Bounded {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Bounded {
    type T = <File as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let has = Length::len(&self.0);
        if start.checked_add(length as u64).is_none_or(|end| end > has) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes from byte {start} are more than its {has}"
            )));
        }
        self.0.get_bytes(start, length)
    }
}
