//! Writes GGUF files, right ones and wrong ones.

use std::path::Path;

/// Numbers of value types.
pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

/// Numbers of tensor types.
pub(crate) const F32: u32 = 0;
pub(crate) const Q4_0: u32 = 2;

/// A GGUF file whose every number can be set wrong.
pub(crate) struct Gguf {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) entry_count: Option<u64>,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Info>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

impl Gguf {
    pub(crate) fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            entry_count: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    pub(crate) fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&string(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, STRING, &string(value))
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.entry(key, U32, &value.to_le_bytes())
    }

    /// Adds a tensor behind those that are there; dimensions fastest first.
    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        self.info(name, dimensions, kind, offset)
    }

    pub(crate) fn floats(self, name: &str, dimensions: &[u64], values: &[f32]) -> Self {
        self.tensor(name, dimensions, F32, &le_bytes(values))
    }

    /// Adds only what the header says about a tensor.
    pub(crate) fn info(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        self.tensors.push(Info { name, dimensions, kind, offset });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = self.magic.to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        for info in &self.tensors {
            file.extend(string(&info.name));
            file.extend((info.dimensions.len() as u32).to_le_bytes());
            info.dimensions.iter().for_each(|it| file.extend(it.to_le_bytes()));
            file.extend(info.kind.to_le_bytes());
            file.extend(info.offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(&self.data);
        file
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

/// A string as GGUF stores it.
pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The start of an array as GGUF stores it.
pub(crate) fn array(kind: u32, count: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

pub(crate) fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_le_bytes()).collect()
}
