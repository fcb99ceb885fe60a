//! Quantized weights of Hugging Face folders: several stored tensors that mean one.
//!
//! `config.json` names a method. A member of [`METHODS`] knows which stored tensors belong together under it (integers or
//! small floats, scales, zero points, the order of columns), checks that they fit each other, and decodes a row of the
//! weight that they mean. The checkpoint then has that weight, under the name and with the shape that it has in the model
//! before it was quantized, and no longer its parts: nobody outside this module can mistake packed integers for numbers.
//!
//! **What a number is** the method's reference implementation in Python says, to the bit: each member names it, and in
//! which precision it computes. [`Weight::dtype`] is a type that holds all of these numbers exactly. Which modules were
//! left as they were is not read from lists of names: a weight is quantized if its parts are there.
//!
//! Only weights count. Methods that round activations, too (FP8, W8A8), do so while they multiply; here nothing does.
//!
//! A member is one file with one or more [`Method`]s and lines in [`METHODS`].

mod affine;
mod awq;
mod bitsandbytes;
mod codes;
mod compressed_tensors;
mod config;
mod float8;
mod gptq;
mod microscaled;
mod scaled;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use serde_json::Value;

pub(crate) use self::config::{KEYS, SIDE_FILES, Section};
use crate::checkpoint::Entry;
use crate::{CheckpointError, Tensor, TensorDtype};

/// All methods, in the order shown to users.
const METHODS: &[&Method] = &[
    &float8::FP8,
    &float8::MXFP8,
    &float8::FBGEMM,
    &float8::MODELOPT,
    &compressed_tensors::METHOD,
    &gptq::METHOD,
    &awq::METHOD,
    &bitsandbytes::METHOD,
    &microscaled::METHOD,
];

/// A way to quantize.
struct Method {
    /// As `quant_method` names it.
    name: &'static str,
    /// Reads what the configuration says of it.
    reader: fn(&Section<'_>) -> Result<Box<dyn Reader>, CheckpointError>,
}

/// A method with its settings.
trait Reader {
    /// The weight that a stored tensor is the main part of; `None` where it is not one.
    fn weight(&self, name: &str, stored: &Stored<'_>) -> Result<Option<Weight>, CheckpointError>;

    /// Whether a stored tensor only serves products with quantized activations.
    fn is_of_activations(&self, _name: &str) -> bool {
        false
    }
}

/// A weight that several stored tensors mean together.
struct Weight {
    /// Its name in the model before it was quantized.
    name: String,
    /// Its shape there.
    shape: Vec<usize>,
    /// A type that holds each of its numbers exactly.
    dtype: TensorDtype,
    numbers: Arc<dyn Numbers>,
    /// The names of all stored tensors that it is made of, but the main one's.
    parts: Vec<String>,
}

/// The numbers of a weight, row by row.
pub(crate) trait Numbers: fmt::Debug + Send + Sync {
    /// Decodes a row; rows are counted over all dimensions but the last.
    ///
    /// `row` is below the number of rows and `out` as long as a row: the tensor that asks has checked it.
    fn read_row(&self, row: usize, out: &mut [f32]);

    /// Where they are a stack of matrices of so many rows, and can be read by columns as well: that number, and the same
    /// with rows as columns and columns as rows.
    fn transposed(&self) -> Option<(usize, Arc<dyn Numbers>)> {
        None
    }
}

/// The tensors of a folder, and what can be asked of them while weights are put together.
struct Stored<'a> {
    path: &'a Path,
    entries: &'a [Entry],
    places: HashMap<&'a str, usize>,
}

impl Stored<'_> {
    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor, if there is one of this name.
    fn find(&self, name: &str) -> Result<Option<Tensor>, CheckpointError> {
        self.places.get(name).map(|&it| self.entries[it].tensor(SUPPORTED)).transpose()
    }

    /// The type of a tensor, if there is one of this name and it can be decoded.
    fn dtype(&self, name: &str) -> Option<TensorDtype> {
        self.entries[*self.places.get(name)?].dtype.as_ref().ok().copied()
    }

    /// A part without which `of` cannot be read.
    fn part(&self, name: &str, of: &str) -> Result<Tensor, CheckpointError> {
        self.find(name)?.ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            path: self.path.to_owned(),
            hint: format!(
                "\n\nhint: `{of}` is quantized and cannot be read without it; fetch the model again"
            ),
        })
    }
}

const SUPPORTED: &str = "the types of quantized weights and their scales";

/// The tensors of a folder after its quantized weights have been put together.
pub(crate) struct Assembled {
    pub(crate) entries: Vec<Entry>,
    /// The name of the method, if any weight is quantized.
    pub(crate) method: Option<&'static str>,
    /// Where files describe a method and no weight is quantized: what to tell the user.
    pub(crate) stale: Option<String>,
}

/// Puts the weights of a folder together: the entries with quantized weights in place of their parts, in the same order,
/// and the name of the method.
///
/// The tensors count more than the files that describe them: tools that widen or merge weights leave descriptions behind.
///
/// # Errors
/// [`CheckpointError::UnknownQuantization`] for methods, and variants of them, that are not known here;
/// [`CheckpointError::MissingTensor`], [`CheckpointError::Shape`], [`CheckpointError::QuantizedTensor`] when the parts of a
/// weight are not there or do not fit each other.
pub(crate) fn assemble(
    path: &Path,
    config: &Value,
    entries: Vec<Entry>,
) -> Result<Assembled, CheckpointError> {
    let Some(owned) = config::find(path, config)? else {
        return Ok(Assembled { entries, method: None, stale: None });
    };
    let section = owned.section();
    let found = section.method()?;
    let method = METHODS.iter().find(|it| it.name == found).ok_or_else(|| {
        let known = METHODS.iter().map(|it| format!("`{}`", it.name)).collect::<Vec<_>>().join(", ");
        section.unknown("quant_method", &found, &known)
    })?;
    if !entries.iter().any(looks_quantized) {
        let stale = format!(
            "`{}` describes weights quantized with {found}, and none is: they are read as they are",
            section.file().display()
        );
        return Ok(Assembled { entries, method: None, stale: Some(stale) });
    }
    let reader = (method.reader)(&section)?;

    let places = entries.iter().enumerate().map(|(place, it)| (&*it.name, place)).collect();
    let stored = Stored { path, entries: &entries, places };
    let mut weights: HashMap<usize, Weight> = HashMap::new();
    let mut parts: HashSet<usize> = HashSet::new();
    for (place, entry) in entries.iter().enumerate() {
        if let Some(weight) = reader.weight(&entry.name, &stored)? {
            parts.extend(weight.parts.iter().filter_map(|it| stored.places.get(it.as_str())));
            weights.insert(place, weight);
        } else if reader.is_of_activations(&entry.name) {
            parts.insert(place);
        }
    }
    let left = entries
        .iter()
        .enumerate()
        .filter(|(place, _)| !weights.contains_key(place) && !parts.contains(place));
    for (_, entry) in left {
        expect_numbers(entry, method.name)?;
    }
    drop(stored);
    let mut assembled = Vec::with_capacity(entries.len());
    for (place, entry) in entries.into_iter().enumerate() {
        match weights.remove(&place) {
            Some(Weight { name, shape, dtype, numbers, .. }) => {
                crate::tensor::size_in_bytes(dtype, &shape)
                    .map_err(|_| unfit(&name, format!("its shape {shape:?} has no size")))?;
                assembled.push(Entry {
                    name: name.into(),
                    shape,
                    dtype: Ok(dtype),
                    numbers: Some(numbers),
                    quantized: true,
                    ..entry
                });
            }
            None if parts.contains(&place) => {}
            None => assembled.push(entry),
        }
    }
    Ok(Assembled { entries: assembled, method: Some(method.name), stale: None })
}

/// Whether a tensor can be a part of a quantized weight: by its type, or by its name. Ordinary models have floats of 16
/// and more bits, and a few integers that are no weights.
fn looks_quantized(entry: &Entry) -> bool {
    const PARTS: [&str; 5] = ["qweight", "qzeros", "g_idx", "scales", "SCB"];
    const BUFFERS: [&str; 3] = ["position_ids", "token_type_ids", "num_batches_tracked"];
    let last = entry.name.rsplit('.').next().unwrap_or_default();
    let ordinary = match entry.dtype {
        Ok(TensorDtype::Bool) => true,
        Ok(dtype) => dtype.is_float_storage() && dtype.block().1 > 1 || BUFFERS.contains(&last),
        Err(_) => false,
    };
    !ordinary || PARTS.contains(&last) || last.starts_with("weight_")
}

/// Checks that an ordinary weight is one: integers would be read as if they were its numbers.
fn expect_numbers(entry: &Entry, method: &str) -> Result<(), CheckpointError> {
    match &entry.dtype {
        Ok(dtype) if entry.name.ends_with("weight") && !dtype.is_float_storage() => Err(unfit(
            &entry.name,
            format!("expected a weight, found {dtype}, which `{method}` does not explain"),
        )),
        _ => Ok(()),
    }
}

/// The error for a part that does not fit the others.
fn unfit(name: &str, what: impl Into<String>) -> CheckpointError {
    CheckpointError::QuantizedTensor { name: name.to_owned(), what: what.into() }
}

/// Checks the type of a part.
fn expect_dtype(tensor: &Tensor, known: &[TensorDtype]) -> Result<(), CheckpointError> {
    if known.contains(&tensor.dtype()) {
        return Ok(());
    }
    let known = known.iter().map(|it| it.name()).collect::<Vec<_>>().join(" or ");
    Err(unfit(tensor.name(), format!("expected type {known}, found {}", tensor.dtype())))
}

/// A tensor of two dimensions, as `[rows, columns]`.
fn matrix(tensor: &Tensor) -> Result<[usize; 2], CheckpointError> {
    <[usize; 2]>::try_from(tensor.shape())
        .map_err(|_| unfit(tensor.name(), format!("expected two dimensions, found {:?}", tensor.shape())))
}

/// One number of a tensor that lies in its file as it is.
fn number_at(tensor: &Tensor, place: usize) -> f32 {
    let (dtype, mut number) = (tensor.dtype(), [0.0]);
    let width = dtype.block().1;
    dtype.decode(&tensor.bytes()[place * width..(place + 1) * width], &mut number);
    number[0]
}

/// The types of scales, which are the precisions that the references compute in.
const SCALES: &[TensorDtype] = &[TensorDtype::F32, TensorDtype::BF16, TensorDtype::F16];

/// What a result of f32 is in a precision, rounded to nearest, ties to even.
fn rounded(number: f32, precision: TensorDtype) -> f32 {
    match precision {
        TensorDtype::BF16 => bf16::from_f32(number).to_f32(),
        TensorDtype::F16 => f16::from_f32(number).to_f32(),
        _ => number,
    }
}
