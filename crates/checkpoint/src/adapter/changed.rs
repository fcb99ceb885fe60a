//! A stored weight with an adapter's change in it: `W + s B A` row by row.
//!
//! What comes out of a row is f64 until all has been added, then rounded once to f32. Of a DoRA each row has the length that
//! the adapter keeps for it; of a DoRA of an embedding each column, as peft has it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::Tensor;
use crate::quantized::Numbers;

/// A change of some rows of a tensor.
#[derive(Clone, Debug)]
pub struct Change {
    /// The tensor, as its checkpoint calls it.
    pub(crate) tensor: String,
    /// Rows are counted over all dimensions but the last.
    pub(crate) rows: Range<usize>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Add(LowRank),
    /// These rows, in this order, are those of a tensor of the adapter.
    Replace {
        values: Tensor,
        first: usize,
    },
}

/// `W + scale · up · down`
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    /// `[rows, rank]`
    up: Arc<[f32]>,
    /// `[rank, row_len]`
    down: Arc<[f32]>,
    rank: usize,
    scale: f64,
    lengths: Lengths,
}

/// What the changed weight has as lengths.
#[derive(Clone, Debug)]
enum Lengths {
    Own,
    /// One for each row.
    OfRows(Arc<[f32]>),
    /// Factors of the columns.
    OfColumns(Arc<[f64]>),
}

impl Change {
    /// Adds a product of two factors, `up` `[rows, rank]` and `down` `[rank, row_len]`, to some rows.
    ///
    /// # Panics
    /// When there are not as many numbers as that takes.
    pub fn add(
        tensor: &str,
        rows: Range<usize>,
        rank: usize,
        up: Vec<f32>,
        down: Vec<f32>,
        scale: f64,
    ) -> Self {
        assert!(
            up.len() == rows.len() * rank,
            "`{tensor}`: {} numbers are no factor of rank {rank}",
            up.len()
        );
        assert!(rank == 0 || down.len().is_multiple_of(rank), "`{tensor}`: a factor of rank {rank}");
        let (up, down) = (up.into(), down.into());
        let low_rank = LowRank { up, down, rank, scale, lengths: Lengths::Own };
        Self { tensor: tensor.to_owned(), rows, kind: Kind::Add(low_rank) }
    }

    /// Puts other rows in place of some.
    ///
    /// # Panics
    /// When `values` has fewer.
    pub fn replace(tensor: &str, rows: Range<usize>, values: Tensor, first: usize) -> Self {
        assert!(first + rows.len() <= values.rows(), "`{tensor}`: too few rows in `{}`", values.name());
        Self { tensor: tensor.to_owned(), rows, kind: Kind::Replace { values, first } }
    }

    /// The same with lengths for the rows of the sum.
    ///
    /// # Panics
    /// When this is no sum, or there is not one for each row.
    #[must_use]
    pub fn with_row_lengths(mut self, lengths: Vec<f32>) -> Self {
        assert!(lengths.len() == self.rows.len(), "`{}`: a length for each row", self.tensor);
        match &mut self.kind {
            Kind::Add(it) => it.lengths = Lengths::OfRows(lengths.into()),
            Kind::Replace { .. } => panic!("`{}`: what is replaced has its own lengths", self.tensor),
        }
        self
    }

    /// The same with lengths for the columns of the sum, which is computed once for that. All rows of `base` are changed.
    ///
    /// # Panics
    /// When this is no sum of all of them, or there is not one length for each column.
    #[must_use]
    pub fn with_column_lengths(mut self, lengths: &[f32], base: &Tensor) -> Self {
        assert!(
            lengths.len() == base.row_len() && self.rows == (0..base.rows()),
            "`{}`: all of it",
            self.tensor
        );
        let Kind::Add(low_rank) = &mut self.kind else { panic!("`{}`: a sum", self.tensor) };
        let mut squares = vec![0.0_f64; lengths.len()];
        let (mut row_numbers, mut sum) = (vec![0.0; lengths.len()], Vec::new());
        for row in 0..base.rows() {
            base.read_row(row, &mut row_numbers);
            low_rank.sum(row, &row_numbers, &mut sum);
            squares.iter_mut().zip(&sum).for_each(|(all, it)| *all += it * it);
        }
        let factor = |(length, squares): (&f32, f64)| share(f64::from(*length), squares);
        low_rank.lengths = Lengths::OfColumns(lengths.iter().zip(squares).map(factor).collect());
        self
    }

    fn apply(&self, row: usize, out: &mut [f32]) {
        let row = row - self.rows.start;
        match &self.kind {
            Kind::Add(low_rank) => low_rank.apply(row, out),
            Kind::Replace { values, first } => values.read_row(first + row, out),
        }
    }
}

/// What numbers whose squares add up to `squares` are multiplied with to be of a length.
fn share(length: f64, squares: f64) -> f64 {
    if squares > 0.0 { length / squares.sqrt() } else { 0.0 }
}

impl LowRank {
    /// A row of the sum.
    fn sum(&self, row: usize, stored: &[f32], sum: &mut Vec<f64>) {
        sum.clear();
        sum.extend(stored.iter().map(|&it| f64::from(it)));
        if stored.is_empty() {
            return;
        }
        for (&up, down) in
            self.up[row * self.rank..][..self.rank].iter().zip(self.down.chunks_exact(stored.len()))
        {
            let factor = self.scale * f64::from(up);
            sum.iter_mut().zip(down).for_each(|(sum, &down)| *sum += factor * f64::from(down));
        }
    }

    fn apply(&self, row: usize, out: &mut [f32]) {
        let mut sum = Vec::with_capacity(out.len());
        self.sum(row, out, &mut sum);
        match &self.lengths {
            Lengths::Own => {}
            Lengths::OfRows(lengths) => {
                let factor = share(f64::from(lengths[row]), sum.iter().map(|it| it * it).sum());
                for it in &mut sum {
                    *it *= factor;
                }
            }
            Lengths::OfColumns(factors) => {
                sum.iter_mut().zip(&**factors).for_each(|(it, factor)| *it *= factor);
            }
        }
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum as f32;
        }
    }

    /// The factors of the transposed product.
    fn transposed(&self) -> Self {
        let flip = |numbers: &[f32], rows: usize| -> Arc<[f32]> {
            let columns = numbers.len().checked_div(rows).unwrap_or(0);
            (0..numbers.len()).map(|it| numbers[it % rows * columns + it / rows]).collect()
        };
        let rows = self.up.len().checked_div(self.rank).unwrap_or(0);
        let (up, down) = (flip(&self.down, self.rank), flip(&self.up, rows));
        Self { up, down, lengths: Lengths::Own, ..*self }
    }
}

/// A tensor with its changes.
#[derive(Debug)]
pub(crate) struct Changed {
    base: Tensor,
    /// In order, without overlap.
    changes: Vec<Change>,
    /// The other way round, made when it is first asked for: of a stack each matrix asks.
    transposed: OnceLock<Option<(usize, Arc<dyn Numbers>)>>,
}

impl Changed {
    /// `changes` must lie within the tensor. `Err`: the first row that two of them change.
    pub(crate) fn new(base: Tensor, mut changes: Vec<Change>) -> Result<Self, usize> {
        changes.sort_by_key(|it| it.rows.start);
        match changes.windows(2).find(|it| it[1].rows.start < it[0].rows.end) {
            Some(pair) => Err(pair[1].rows.start),
            None => Ok(Self { base, changes, transposed: OnceLock::new() }),
        }
    }
}

/// The change that a row has.
fn change_of(changes: &[Change], row: usize) -> Option<&Change> {
    let after = changes.partition_point(|it| it.rows.start <= row);
    changes[..after].last().filter(|it| it.rows.contains(&row))
}

impl Numbers for Changed {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let change = change_of(&self.changes, row);
        if !matches!(change, Some(Change { kind: Kind::Replace { .. }, .. })) {
            self.base.read_row(row, out);
        }
        if let Some(change) = change {
            change.apply(row, out);
        }
    }

    fn transposed(&self) -> Option<(usize, Arc<dyn Numbers>)> {
        self.transposed.get_or_init(|| self.transpose()).clone()
    }
}

impl Changed {
    fn transpose(&self) -> Option<(usize, Arc<dyn Numbers>)> {
        let [stack @ .., rows, columns] = self.base.shape() else { return None };
        let (rows, columns) = (*rows, *columns);
        let matrices: usize = stack.iter().product();
        let base: Vec<Tensor> = (0..matrices)
            .map(|it| self.base.slice_rows(it * rows..(it + 1) * rows))
            .map(|it| it.can_be_transposed().then(|| it.transposed()))
            .collect::<Option<_>>()?;
        let mut changes = Vec::with_capacity(self.changes.len());
        for Change { tensor, rows: changed, kind } in &self.changes {
            // A change of whole matrices one by one is one of their columns; others are not needed.
            let whole = changed.len() == rows && changed.start.is_multiple_of(rows);
            let Kind::Add(low_rank) = kind else { return None };
            if !whole || !matches!(low_rank.lengths, Lengths::Own) {
                return None;
            }
            let first = changed.start / rows * columns;
            let kind = Kind::Add(low_rank.transposed());
            changes.push(Change { tensor: tensor.clone(), rows: first..first + columns, kind });
        }
        Some((rows, Arc::new(Transposed { base, columns, changes })))
    }
}

/// A stack of transposed matrices with their changes.
#[derive(Debug)]
struct Transposed {
    base: Vec<Tensor>,
    /// Of the matrices before they were transposed.
    columns: usize,
    changes: Vec<Change>,
}

impl Numbers for Transposed {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        self.base[row / self.columns].read_row(row % self.columns, out);
        if let Some(change) = change_of(&self.changes, row) {
            change.apply(row, out);
        }
    }
}
