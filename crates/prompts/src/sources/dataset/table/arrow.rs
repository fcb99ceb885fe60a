//! Arrow: its stream format, which `datasets` writes, or its file format.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow_array::{Array, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use arrow_ipc::reader::{FileReader, StreamReader};

use super::{DatasetError, Reading, Texts};

/// How both kinds of message begin since 2019.
const CONTINUATION: [u8; 4] = [0xff; 4];

const MAGIC: &[u8; 6] = b"ARROW1";

impl Reading<'_> {
    pub(super) fn arrow(&self, mut file: File) -> Result<Vec<String>, DatasetError> {
        let mut magic = [0; 6];
        let is_file = file.read_exact(&mut magic).is_ok() && &magic == MAGIC;
        let length = file.metadata().map_or(0, |it| it.len());
        let mut texts = self.texts();
        if is_file {
            check_blocks(&mut file, length).map_err(|it| self.malformed(&it))?;
            file.rewind().map_err(|it| self.malformed(&it))?;
            let reader = FileReader::try_new(file, None).map_err(|it| self.malformed(&it))?;
            for batch in reader {
                self.batch(&batch.map_err(|it| self.malformed(&it))?, &mut texts)?;
            }
        } else {
            file.rewind().map_err(|it| self.malformed(&it))?;
            check_messages(&mut file, length).map_err(|it| self.malformed(&it))?;
            file.rewind().map_err(|it| self.malformed(&it))?;
            let reader =
                StreamReader::try_new(BufReader::new(file), None).map_err(|it| self.malformed(&it))?;
            for batch in reader {
                self.batch(&batch.map_err(|it| self.malformed(&it))?, &mut texts)?;
            }
        }
        Ok(texts.all)
    }

    fn batch(&self, batch: &RecordBatch, texts: &mut Texts) -> Result<(), DatasetError> {
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
            let place = texts.rows();
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
            texts.push(text)?;
        }
        Ok(())
    }
}

/// Whether all messages of a stream say that they have no more bytes than are there: as many are reserved.
fn check_messages(file: &mut File, length: u64) -> Result<(), String> {
    let io = |it: std::io::Error| it.to_string();
    let mut at = 0_u64;
    loop {
        let Some(mut size) = word(file)? else { return Ok(()) };
        at += 4;
        if size == CONTINUATION {
            let Some(after) = word(file)? else { return Ok(()) };
            size = after;
            at += 4;
        }
        let metadata = u64::from(u32::from_le_bytes(size));
        if metadata == 0 {
            return Ok(());
        }
        let body = body_length(file, metadata, length.saturating_sub(at))?;
        at += metadata + body;
        if at > length {
            return Err(format!("a message is said to end at byte {at} of {length}"));
        }
        file.seek(SeekFrom::Start(at)).map_err(io)?;
    }
}

/// The same of the messages that the end of a file lists.
fn check_blocks(file: &mut File, length: u64) -> Result<(), String> {
    let io = |it: std::io::Error| it.to_string();
    // The footer, its length in four bytes, and the six of the beginning once more.
    let end = length.checked_sub(10).ok_or("it ends in its beginning")?;
    file.seek(SeekFrom::Start(end)).map_err(io)?;
    let size = u64::from(u32::from_le_bytes(word(file)?.ok_or("it has no end")?));
    let start = end
        .checked_sub(size)
        .ok_or_else(|| format!("its footer is said to have {size} bytes of {length}"))?;
    file.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut footer = Vec::new();
    file.take(size).read_to_end(&mut footer).map_err(io)?;
    let footer = arrow_ipc::root_as_footer(&footer).map_err(|it| format!("its footer: {it}"))?;
    let blocks =
        footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten());
    for block in blocks {
        let parts = [block.offset(), i64::from(block.metaDataLength()), block.bodyLength()];
        let sum = parts.iter().try_fold(0_u64, |sum, &it| sum.checked_add(u64::try_from(it).ok()?));
        if sum.is_none_or(|it| it > length) {
            return Err(format!(
                "a block is said to have {parts:?} as beginning and lengths, in a file of {length} bytes"
            ));
        }
        let mut at = parts[0].cast_unsigned();
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        let mut size = word(file)?.ok_or("a block ends in its beginning")?;
        at += 4;
        if size == CONTINUATION {
            size = word(file)?.ok_or("a block ends in its beginning")?;
            at += 4;
        }
        let size = u64::from(u32::from_le_bytes(size));
        let body = body_length(file, size, length.saturating_sub(at))?;
        if at + size + body > length {
            return Err(format!("a message is said to end at byte {} of {length}", at + size + body));
        }
    }
    Ok(())
}

/// The bytes after a message's description, which is read from here.
fn body_length(file: &mut File, metadata: u64, left: u64) -> Result<u64, String> {
    if metadata > left {
        return Err(format!("a message is said to be described in {metadata} bytes, {left} are left"));
    }
    let mut bytes = Vec::new();
    file.take(metadata).read_to_end(&mut bytes).map_err(|it| it.to_string())?;
    let message = arrow_ipc::root_as_message(&bytes).map_err(|it| format!("a message: {it}"))?;
    let body = message.bodyLength();
    let fits = u64::try_from(body).ok().filter(|it| *it <= left);
    fits.ok_or_else(|| format!("a message is said to have {body} bytes, {left} are left"))
}

/// Four bytes, if there are any.
fn word(file: &mut File) -> Result<Option<[u8; 4]>, String> {
    let mut word = [0; 4];
    let mut filled = 0;
    while filled < 4 {
        match file.read(&mut word[filled..]).map_err(|it| it.to_string())? {
            0 if filled == 0 => return Ok(None),
            0 => return Err("it ends in a message's beginning".to_owned()),
            read => filled += read,
        }
    }
    Ok(Some(word))
}
