//! A checkpoint of either format.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::adapter::{Adapter, AppliedAdapter};
use crate::gguf::{self, StoredType};
use crate::mapped_file::MappedFile;
use crate::quantized::{self, Numbers};
use crate::tensor::Layout;
use crate::{CheckpointError, Tensor, TensorDtype, TextAssets, foreign, hugging_face};

/// The key of a configuration that makes the embedding the head.
pub(crate) const TIED: &str = "tie_word_embeddings";

/// The part of a configuration that describes the language model in a container.
pub(crate) const TEXT: &str = "text_config";

/// The format of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder with `config.json` and safetensors files.
    HuggingFace,
    /// A GGUF file, or several parts of one.
    Gguf,
}

/// A model's files: named tensors, metadata and text assets.
///
/// Opening maps the files and reads headers; weights are read from the disk when they are decoded.
#[derive(Debug)]
pub struct Checkpoint {
    format: Format,
    path: PathBuf,
    config: Value,
    entries: Vec<Entry>,
    places: HashMap<Arc<str>, usize>,
    stored: Vec<Stored>,
    assets: TextAssets,
    weight_files: Vec<PathBuf>,
    /// Tensors that an index names and no file has, each with the file that should have it.
    absent: BTreeMap<String, PathBuf>,
    quantization: Option<&'static str>,
    /// Whether files describe a quantization that the weights do not have.
    stale_quantization: bool,
    notices: Vec<String>,
    /// In the order in which they were added.
    adapters: Vec<AppliedAdapter>,
    /// Whether the head is a copy of the embedding that the file does not have.
    untied: bool,
}

/// A tensor's bytes as they lie in a file, whatever they mean.
#[derive(Clone, Copy, Debug)]
pub struct StoredTensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The name of the type in the file, be it one that can be decoded or not.
    pub dtype: &'a str,
    /// The dimensions, row-major.
    pub shape: &'a [usize],
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Where a stored tensor lies.
#[derive(Debug)]
struct Stored {
    name: Arc<str>,
    dtype: String,
    shape: Vec<usize>,
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl Stored {
    fn of(entry: &Entry) -> Self {
        Self {
            name: Arc::clone(&entry.name),
            dtype: entry.dtype.as_ref().map_or_else(Clone::clone, |it| it.name().to_owned()),
            shape: entry.shape.clone(),
            file: Arc::clone(&entry.file),
            range: entry.range.clone(),
        }
    }
}

/// A tensor that is not necessarily one that can be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) shape: Vec<usize>,
    /// The type, or the name of one that cannot be decoded.
    pub(crate) dtype: Result<TensorDtype, String>,
    pub(crate) file: Arc<MappedFile>,
    pub(crate) range: Range<usize>,
    /// Where the numbers come from, if these bytes do not mean them by themselves: those of a quantized weight, or of one that
    /// an adapter has changed.
    pub(crate) numbers: Option<Arc<dyn Numbers>>,
    /// The type that it had before an adapter changed it.
    pub(crate) adapted: Option<TensorDtype>,
    /// Whether it is a quantized weight of a folder.
    pub(crate) quantized: bool,
}

impl Entry {
    /// The tensor; `supported`: what the error says of types that can be decoded.
    pub(crate) fn tensor(&self, supported: &str) -> Result<Tensor, CheckpointError> {
        let dtype = self.dtype.as_ref().map_err(|found| CheckpointError::UnsupportedType {
            name: self.name.to_string(),
            found: found.clone(),
            supported: supported.to_owned(),
        })?;
        let quantized = |it: &Arc<dyn Numbers>| Layout::Quantized { numbers: Arc::clone(it), first: 0 };
        Ok(Tensor {
            name: Arc::clone(&self.name),
            dtype: *dtype,
            shape: self.shape.clone(),
            file: Arc::clone(&self.file),
            range: self.range.clone(),
            order: None,
            layout: self.numbers.as_ref().map_or(Layout::Rows, quantized),
        })
    }
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a GGUF file, told apart by content: a folder, or a file that starts with
    /// the magic `GGUF`. Of a GGUF file in parts, name the first; the others are found beside it.
    ///
    /// The files must not change while the checkpoint or a tensor of it lives: they are mapped, not copied.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_dir() {
            return Self::open_folder(path);
        }
        match file_start(path)?.as_slice() {
            [] => Err(CheckpointError::EmptyFile { path: path.to_owned() }),
            start if start.starts_with(&gguf::MAGIC) => Self::open_gguf(path),
            start => Err(not_a_checkpoint(path, start)),
        }
    }

    fn open_folder(path: &Path) -> Result<Self, CheckpointError> {
        let config = hugging_face::read_config(path)?;
        let assets = TextAssets::of_folder(path)?;
        let mut entries = Vec::new();
        let hugging_face::Weights { shards, absent } = hugging_face::read_weights(path)?;
        for (file, header) in shards {
            entries.extend(header.tensors.into_iter().map(|tensor| Entry {
                dtype: tensor.dtype().ok_or_else(|| tensor.stored.to_string()),
                name: tensor.name.into(),
                shape: tensor.shape,
                file: Arc::clone(&file),
                range: tensor.range,
                numbers: None,
                adapted: None,
                quantized: false,
            }));
        }
        let mut checkpoint = Self::assemble(Format::HuggingFace, path, config, entries, assets)?;
        if let Some(first) = absent.keys().next() {
            checkpoint.notices.push(format!(
                "the index names {} tensors that no file has, `{first}` first; they are missing if the model needs them",
                absent.len()
            ));
        }
        checkpoint.absent = absent;
        Ok(checkpoint)
    }

    fn open_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let mut entries = Vec::new();
        let mut config = None;
        for (file, header) in gguf::parts::read(path)? {
            config.get_or_insert(header.metadata); // that of the first part
            entries.extend(header.tensors.into_iter().map(|tensor| Entry {
                dtype: match tensor.stored {
                    StoredType::Decoded(dtype) => Ok(dtype),
                    other @ StoredType::Other(_) => Err(other.to_string()),
                },
                name: tensor.name.into(),
                shape: tensor.shape,
                file: Arc::clone(&file),
                range: tensor.range,
                numbers: None,
                adapted: None,
                quantized: false,
            }));
        }
        let config = config.unwrap_or_default();
        let assets = TextAssets::of_gguf(path, &config)?;
        Self::assemble(Format::Gguf, path, Value::Object(config), entries, assets)
    }

    fn assemble(
        format: Format,
        path: &Path,
        config: Value,
        entries: Vec<Entry>,
        assets: TextAssets,
    ) -> Result<Self, CheckpointError> {
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
        for (place, entry) in entries.iter().enumerate() {
            if let Some(first) = places.insert(&entry.name, place) {
                return Err(CheckpointError::InTwoShards {
                    name: entry.name.to_string(),
                    first: entries[first].file.path().to_owned(),
                    second: entry.file.path().to_owned(),
                });
            }
        }
        let files: BTreeSet<&Path> = entries.iter().map(|it| it.file.path()).collect();
        let weight_files = files.into_iter().map(Path::to_owned).collect();
        let stored = entries.iter().map(Stored::of).collect();
        let quantized::Assembled { entries, method, stale } = match format {
            Format::HuggingFace => quantized::assemble(path, &config, entries)?,
            Format::Gguf => quantized::Assembled { entries, method: None, stale: None },
        };
        let notices = stale.iter().cloned().collect();
        let places = entries.iter().enumerate().map(|(place, it)| (Arc::clone(&it.name), place)).collect();
        let path = path.to_owned();
        Ok(Self {
            format,
            path,
            config,
            entries,
            places,
            stored,
            assets,
            weight_files,
            absent: BTreeMap::new(),
            quantization: method,
            stale_quantization: stale.is_some(),
            notices,
            adapters: Vec::new(),
            untied: false,
        })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold its weights, in the order of their names.
    pub fn weight_files(&self) -> Vec<&Path> {
        self.weight_files.iter().map(PathBuf::as_path).collect()
    }

    /// The method by which weights of a folder are quantized, as `quant_method` names it. Such weights are tensors like
    /// others here, under the names that they have in the model before it was quantized.
    pub fn quantization(&self) -> Option<&'static str> {
        self.quantization
    }

    /// Whether files describe a quantization that the weights do not have. What is written of them does not.
    pub(crate) fn has_stale_quantization(&self) -> bool {
        self.stale_quantization
    }

    /// What a user should know about the files although they can be read, a sentence each.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The model's description, always an object. Of a folder the parsed `config.json`; of a GGUF file all
    /// metadata, flat, keys as in the file (`"llama.embedding_length": 576`), arrays as arrays. Floats that are
    /// not finite are objects, `{"__float__": "Infinity"}`, in both, but null within the arrays of a GGUF file, whose
    /// 32-bit floats are widened exactly.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The names of all tensors, in the order of the files and of the data in them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|it| &*it.name)
    }

    /// All tensors as the files have them, parts of quantized weights included, in the order of the files.
    pub fn stored_tensors(&self) -> impl ExactSizeIterator<Item = StoredTensor<'_>> {
        self.stored.iter().map(|it| StoredTensor {
            name: &it.name,
            dtype: &it.dtype,
            shape: &it.shape,
            bytes: &it.file.bytes()[it.range.clone()],
        })
    }

    /// Whether there is a tensor of this name, decodable or not.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] with names that resemble it; [`CheckpointError::UnsupportedType`] when
    /// its type cannot be decoded.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let Some(&place) = self.places.get(name) else {
            if let Some(shard) = self.absent.get(name) {
                return Err(CheckpointError::NotInShard { name: name.to_owned(), shard: shard.clone() });
            }
            return Err(CheckpointError::MissingTensor {
                name: name.to_owned(),
                path: self.path.clone(),
                hint: similar_names(name, self.names()),
            });
        };
        self.entries[place].tensor(&self.supported_types())
    }

    /// The adapters whose changes are in its weights, in the order in which they were added.
    pub fn adapters(&self) -> &[AppliedAdapter] {
        &self.adapters
    }

    /// Whether an adapter has changed any of its weights.
    pub fn is_adapted(&self) -> bool {
        self.entries.iter().any(|it| it.adapted.is_some())
    }

    /// Tokenizer, chat templates and what else belongs to text.
    pub fn assets(&self) -> &TextAssets {
        &self.assets
    }

    /// All tensors, in the order of [`Self::names`].
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the head is a copy of the embedding that the file does not have.
    pub(crate) fn is_untied(&self) -> bool {
        self.untied
    }

    pub(crate) fn note_adapter(&mut self, adapter: &Adapter) {
        self.adapters
            .push(AppliedAdapter { path: adapter.path().to_owned(), files: adapter.files().to_vec() });
    }

    /// A tensor that is known to be there.
    pub(crate) fn entry_mut(&mut self, name: &str) -> &mut Entry {
        &mut self.entries[self.places[name]]
    }

    /// Adds a head that the embedding was before.
    pub(crate) fn add_head(&mut self, head: Entry) {
        self.places.insert(Arc::clone(&head.name), self.entries.len());
        self.entries.push(head);
        self.untied = true;
        if let Value::Object(config) = &mut self.config {
            config.insert(TIED.to_owned(), Value::Bool(false));
            let text = config.get_mut(TEXT).and_then(Value::as_object_mut);
            if let Some(it) = text.and_then(|it| it.get_mut(TIED)) {
                *it = Value::Bool(false);
            }
        }
    }

    fn supported_types(&self) -> String {
        let names: Vec<&str> = match self.format {
            Format::HuggingFace => {
                TensorDtype::ALL.iter().filter(|it| !it.is_quantized()).map(|it| it.name()).collect()
            }
            Format::Gguf => StoredType::decoded().map(TensorDtype::name).collect(),
        };
        names.join(", ")
    }
}

/// The first bytes of a file: enough for a magic number or the first words of a pointer file.
fn file_start(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let io = |problem| CheckpointError::Io { path: path.to_owned(), problem };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_owned() });
    }
    let mut start = Vec::new();
    let most = foreign::LOOKED_AT as u64;
    std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut start)).map_err(io)?;
    Ok(start)
}

fn not_a_checkpoint(path: &Path, start: &[u8]) -> CheckpointError {
    let of_folder = path.extension().is_some_and(|it| it == "safetensors" || it == "json");
    if !of_folder && let Some(error) = foreign::error(path, start, "a GGUF file") {
        return error;
    }
    if foreign::is_git_lfs_pointer(start) {
        return CheckpointError::GitLfsPointer { path: path.to_owned() };
    }
    let hint = if of_folder {
        "name the folder that the file lies in"
    } else {
        "name a folder with `config.json` and safetensors files, or a GGUF file"
    };
    let start = &start[..start.len().min(gguf::MAGIC.len())];
    CheckpointError::NotACheckpoint {
        path: path.to_owned(),
        found: format!("a file that starts with `{}`, not `GGUF`", start.escape_ascii()),
        hint: hint.to_owned(),
    }
}

/// A hint with the names that share most of their start and end with `name`: what differs between two families'
/// words for one thing, or between two spellings, lies in the middle or at one end.
fn similar_names<'names>(name: &str, names: impl Iterator<Item = &'names str>) -> String {
    let mut scored: Vec<(usize, &str)> = names
        .filter(|other| other.len() < 2 * name.len().max(8))
        .map(|other| (shared_ends(name, other), other))
        .filter(|(shared, _)| 2 * shared >= name.len())
        .collect();
    scored.sort_by_key(|&(shared, other)| (std::cmp::Reverse(shared), other.len().abs_diff(name.len())));
    match scored.iter().take(3).map(|(_, other)| format!("`{other}`")).collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        found => format!("\n\nhint: similar names are {}", found.join(", ")),
    }
}

/// How many bytes of `name` are the start or the end of `other`.
fn shared_ends(name: &str, other: &str) -> usize {
    let start = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let end = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
    (start + end).min(name.len()).min(other.len())
}
