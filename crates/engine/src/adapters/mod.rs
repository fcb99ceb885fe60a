//! A checkpoint with the changes of an adapter in its weights.
//!
//! The room `checkpoint` reads adapters and adds what they say to rows; which tensor a module of the transformers library is,
//! and which rows of it, the families know. Everything that an adapter has is used, or the adapter is refused with the name of
//! the tensor that is not: half of an adapter is another model.
//!
//! What Python's peft computes while an adapter is not merged is what counts. Where the head is the embedding, peft's own
//! merging changes both and computes something else; here a change of one of the two gives the checkpoint a head of its own.
//!
//! | part | what becomes of it |
//! |---|---|
//! | factors of a linear module, LoRA and DoRA | `W + s B A`, rows with the lengths of the DoRA |
//! | factors of an embedding | the same with `Bᵀ` and `Aᵀ`, columns with the lengths of the DoRA |
//! | factors of a parameter of experts | those of each expert, whether its tensors are its own or all experts' |
//! | parameters, rows of an embedding | in place of the model's |

mod experts;
mod places;

use checkpoint::adapter::{Adapter, AdapterError, Change, Factors, Part, Values};
use checkpoint::{Checkpoint, Format, Tensor};

use self::places::{Place, Places};
use crate::LoadError;
use crate::families::Source;

/// The same checkpoint with an adapter's changes in its weights. `family`: as [`LoadOptions::family`](crate::LoadOptions::family).
///
/// # Errors
/// [`LoadError::Adapter`] when the adapter is not for this model, or has something that cannot be used, and whatever reading
/// the checkpoint as a model can end with.
pub fn with_adapter(
    checkpoint: Checkpoint,
    adapter: &Adapter,
    family: Option<&str>,
) -> Result<Checkpoint, LoadError> {
    let plan = Plan::of(&checkpoint, adapter, family)?;
    let mut changed = checkpoint;
    for (part, place) in &plan.before {
        changed = apply(changed, adapter, part, std::slice::from_ref(place))?;
    }
    if let Some((embedding, head)) = &plan.untied {
        changed = changed.untied(embedding, head)?;
    }
    // What is replaced comes before what is added to it.
    for (part, places) in &plan.replaced {
        changed = apply(changed, adapter, part, places)?;
    }
    let mut changes = Vec::new();
    for (part, places) in &plan.added {
        let Values::Factors(factors) = &part.values else { continue };
        for place in places {
            changes.extend(place.changes(&changed, adapter, part, factors)?);
        }
    }
    Ok(changed.with_changes(adapter, changes)?.adapted_by(adapter))
}

/// What has to be done, in this order.
#[derive(Default)]
struct Plan<'a> {
    /// To the embedding while it is the head as well.
    before: Vec<(&'a Part, Place)>,
    /// Embedding and head that become two.
    untied: Option<(String, String)>,
    replaced: Vec<(&'a Part, Vec<Place>)>,
    added: Vec<(&'a Part, Vec<Place>)>,
}

impl<'a> Plan<'a> {
    fn of(checkpoint: &Checkpoint, adapter: &'a Adapter, family: Option<&str>) -> Result<Self, LoadError> {
        let source = Source::new(checkpoint, family)?;
        let blueprint = source.blueprint()?;
        let places = Places::new(&source, &blueprint);
        places.expect_architecture(adapter)?;
        places.expect_all_targets(adapter)?;
        let tied = blueprint.head.weight == blueprint.embedding.weight;
        let mut plan = Self::default();
        for part in adapter.parts() {
            let mut found = places.of(adapter, part)?;
            let is_head = tied && Places::is_head(&part.module);
            let is_embedding = tied && found.iter().any(|it| it.is_of(&places.embedding()));
            let for_both = match &part.values {
                Values::Whole { of_base, .. } => *of_base,
                Values::Rows(_) => true,
                Values::Factors(_) => false,
            };
            if is_embedding && !is_head && for_both {
                plan.before.extend(found.into_iter().map(|it| (part, it)));
                continue;
            }
            if is_head || is_embedding {
                if checkpoint.format() == Format::Gguf {
                    let what =
                        "the head of this GGUF file is its embedding, and no other tensor can be added";
                    return Err(adapter.unusable(part, what).into());
                }
                let head = places.head();
                if is_head {
                    for it in &mut found {
                        it.rename(&head);
                    }
                }
                plan.untied = Some((places.embedding(), head));
            }
            match part.values {
                Values::Factors(_) => plan.added.push((part, found)),
                Values::Whole { .. } | Values::Rows(_) => plan.replaced.push((part, found)),
            }
        }
        Ok(plan)
    }
}

/// Replaces what a part replaces.
fn apply(
    checkpoint: Checkpoint,
    adapter: &Adapter,
    part: &Part,
    places: &[Place],
) -> Result<Checkpoint, LoadError> {
    let mut changes = Vec::new();
    for place in places {
        let base = checkpoint.tensor(place.tensor())?;
        match &part.values {
            Values::Whole { tensor, .. } => {
                expect_shape(adapter, part, tensor, base.shape())?;
                changes.push(Change::replace(base.name(), 0..base.rows(), tensor.clone(), 0));
            }
            Values::Rows(tensor) => {
                let rows = adapter.token_indices(&part.module).ok_or_else(|| {
                    adapter.unusable(part, "`trainable_token_indices` does not say which rows they are")
                })?;
                expect_shape(adapter, part, tensor, &[rows.len(), base.row_len()])?;
                if let Some(row) = rows.iter().find(|it| **it >= base.rows()) {
                    let what =
                        format!("row {row} of `{}` is replaced, which has {}", base.name(), base.rows());
                    return Err(adapter.unusable(part, what).into());
                }
                let change = |(place, &row): (usize, &usize)| {
                    Change::replace(base.name(), row..row + 1, tensor.clone(), place)
                };
                changes.extend(rows.iter().enumerate().map(change));
            }
            Values::Factors(_) => {}
        }
    }
    Ok(checkpoint.with_changes(adapter, changes)?)
}

/// Checks the shape of an adapter's tensor; the error says what the base model asks for.
fn expect_shape(
    adapter: &Adapter,
    part: &Part,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<(), AdapterError> {
    if tensor.shape() == expected {
        return Ok(());
    }
    let what = format!(
        "`{}` has shape {:?}, and the base model asks for {expected:?}",
        tensor.name(),
        tensor.shape()
    );
    Err(adapter.unusable(part, what))
}

/// The change of a weight `[outputs, inputs]` that is rows of a tensor from `first` on; `order`: which row of the weight each of
/// these is.
fn change_of_linear(
    adapter: &Adapter,
    part: &Part,
    factors: &Factors,
    (weight, first): (&Tensor, usize),
    [outputs, inputs]: [usize; 2],
    order: Option<&[u32]>,
) -> Result<Change, AdapterError> {
    let rank = factors.down.rows();
    expect_shape(adapter, part, &factors.down, &[rank, inputs])?;
    expect_shape(adapter, part, &factors.up, &[outputs, rank])?;
    let scale = adapter.scale(&part.module, rank)?;
    let in_order = |numbers: Vec<f32>, width: usize| match order {
        None => numbers,
        Some(order) => {
            order.iter().flat_map(|&it| numbers[it as usize * width..][..width].iter().copied()).collect()
        }
    };
    let up = in_order(factors.up.to_f32(), rank);
    let change = Change::add(weight.name(), first..first + outputs, rank, up, factors.down.to_f32(), scale);
    let Some(magnitude) = &factors.magnitude else { return Ok(change) };
    if magnitude.rows() * magnitude.row_len() != outputs {
        expect_shape(adapter, part, magnitude, &[outputs])?;
    }
    Ok(change.with_row_lengths(in_order(magnitude.to_f32(), 1)))
}

/// The change of an embedding `[vocab, d_model]`.
fn change_of_embedding(
    adapter: &Adapter,
    part: &Part,
    factors: &Factors,
    weight: &Tensor,
) -> Result<Change, AdapterError> {
    let (rank, vocab, width) = (factors.down.rows(), weight.rows(), weight.row_len());
    expect_shape(adapter, part, &factors.down, &[rank, vocab])?;
    expect_shape(adapter, part, &factors.up, &[width, rank])?;
    let scale = adapter.scale(&part.module, rank)?;
    let (up, down) = (flipped(&factors.down.to_f32(), rank), flipped(&factors.up.to_f32(), width));
    let change = Change::add(weight.name(), 0..vocab, rank, up, down, scale);
    let Some(magnitude) = &factors.magnitude else { return Ok(change) };
    expect_shape(adapter, part, magnitude, &[width])?;
    Ok(change.with_column_lengths(&magnitude.to_f32(), weight))
}

/// A matrix of so many rows, transposed.
fn flipped(numbers: &[f32], rows: usize) -> Vec<f32> {
    let columns = numbers.len().checked_div(rows).unwrap_or(0);
    (0..numbers.len()).map(|it| numbers[it % rows * columns + it / rows]).collect()
}
