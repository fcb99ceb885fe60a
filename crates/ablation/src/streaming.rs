//! Passes over the rows of a weight, in f64.
//!
//! Rows are decoded and widened once for all directions, a few at a time, so that the sums over rows are read and
//! written once per few rows: with dozens of directions these sums are what does not fit into the cache.

use crate::WriterWeight;

/// How many rows are taken together. Twice as many gain nothing where memory is fast enough for one.
const ROWS: usize = 4;

/// How many partial sums a dot product has: enough for the processor to add without waiting.
const LANES: usize = 8;

/// A few neighboring rows; those beyond the last row are zero.
pub(crate) struct Block<'a> {
    /// The number of the first.
    pub(crate) first: usize,
    /// `[ROWS, d_in]`
    numbers: &'a [f64],
    d_in: usize,
}

impl Block<'_> {
    /// The rows that there are, with their numbers.
    pub(crate) fn rows(&self, d_model: usize) -> impl Iterator<Item = (usize, &[f64])> {
        (self.first..d_model.min(self.first + ROWS)).zip(self.numbers.chunks_exact(self.d_in))
    }

    /// `sum += Σ_i by(i) row_i`, over the rows of the block.
    fn add_to(&self, sum: &mut [f64], by: impl Fn(usize) -> f64) {
        let [c0, c1, c2, c3] = std::array::from_fn::<_, ROWS, _>(|it| by(self.first + it));
        let mut rows = self.numbers.chunks_exact(self.d_in);
        let mut row = || rows.next().expect("a block has ROWS rows");
        let (r0, r1, r2, r3) = (row(), row(), row(), row());
        for ((((sum, a), b), c), d) in sum.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
            *sum += (c0 * a + c1 * b) + (c2 * c + c3 * d);
        }
    }
}

/// Decodes all rows in their order.
pub(crate) fn each_block(weight: &(impl WriterWeight + ?Sized), mut visit: impl FnMut(&Block)) {
    let (d_model, d_in) = weight.shape();
    if d_in == 0 {
        return;
    }
    let mut decoded = vec![0.0_f32; d_in];
    let mut numbers = vec![0.0_f64; ROWS * d_in];
    for first in (0..d_model).step_by(ROWS) {
        for (row, wide) in (first..).zip(numbers.chunks_exact_mut(d_in)) {
            if row < d_model {
                weight.row(row, &mut decoded);
                wide.iter_mut().zip(&decoded).for_each(|(wide, &it)| *wide = f64::from(it));
            } else {
                wide.fill(0.0);
            }
        }
        visit(&Block { first, numbers: &numbers, d_in });
    }
}

/// `Wᵀ v` for each of several `v`, in one pass.
///
/// # Shapes
/// - `vectors`: each `[d_model]`
/// - returns for each `[d_in]`
pub(crate) fn transposed_products(
    weight: &(impl WriterWeight + ?Sized),
    vectors: &[&[f64]],
) -> Vec<Vec<f64>> {
    let (_, d_in) = weight.shape();
    let mut sums = vec![vec![0.0; d_in]; vectors.len()];
    each_block(weight, |block| {
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            block.add_to(sum, |row| vector.get(row).copied().unwrap_or(0.0));
        }
    });
    sums
}

/// `W v` for each of several `v`, in one pass.
///
/// # Shapes
/// - `vectors`: each `[d_in]`
/// - returns for each `[d_model]`
pub(crate) fn products(weight: &(impl WriterWeight + ?Sized), vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (d_model, _) = weight.shape();
    let mut results = vec![vec![0.0; d_model]; vectors.len()];
    each_block(weight, |block| {
        for (result, vector) in results.iter_mut().zip(vectors) {
            for (row, numbers) in block.rows(d_model) {
                result[row] = dot(numbers, vector);
            }
        }
    });
    results
}

/// The lengths of all rows, in one pass.
pub(crate) fn row_norms(weight: &(impl WriterWeight + ?Sized)) -> Vec<f64> {
    let (d_model, _) = weight.shape();
    let mut norms = vec![0.0; d_model];
    each_block(weight, |block| {
        for (row, numbers) in block.rows(d_model) {
            norms[row] = dot(numbers, numbers).sqrt();
        }
    });
    norms
}

/// A dot product in [`LANES`] partial sums.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowMajor;

    #[test]
    fn passes_over_a_weight_agree_with_plain_sums_at_every_size() {
        for (d_model, d_in) in [(1, 1), (3, 2), (4, 8), (5, 9), (8, 17), (9, 7)] {
            let numbers: Vec<f32> = (0..d_model * d_in).map(|it| ((it * 37) % 11) as f32 - 5.0).collect();
            let weight = RowMajor::new(&numbers, d_in).unwrap();
            let at = |i: usize, j: usize| f64::from(numbers[i * d_in + j]);
            let v: Vec<f64> = (0..d_model).map(|it| it as f64 - 2.0).collect();
            let x: Vec<f64> = (0..d_in).map(|it| 3.0 - it as f64).collect();
            // Small whole numbers: every order of summation gives the same.
            let down: Vec<f64> = (0..d_in).map(|j| (0..d_model).map(|i| at(i, j) * v[i]).sum()).collect();
            let up: Vec<f64> = (0..d_model).map(|i| (0..d_in).map(|j| at(i, j) * x[j]).sum()).collect();
            let norms: Vec<f64> =
                (0..d_model).map(|i| (0..d_in).map(|j| at(i, j) * at(i, j)).sum::<f64>().sqrt()).collect();
            let twice: Vec<f64> = down.iter().map(|it| 2.0 * it).collect();
            let double: Vec<f64> = v.iter().map(|it| 2.0 * it).collect();
            assert_eq!(transposed_products(&weight, &[&v, &double]), [down, twice]);
            assert_eq!(products(&weight, &[x]), [up]);
            assert_eq!(row_norms(&weight), norms);
        }
    }
}
