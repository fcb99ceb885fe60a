//! What is applied to a writer, as a function of the writer's output.
//!
//! Every directional edit of a weight matrix `W [d_model, d_in]` that this program makes is, exactly, a cheap
//! function of `y = W x` alone:
//!
//! ```text
//! y' = s ∘ (y − Σ_j p_j (q_j · y))        p_j, q_j, s: [d_model]; j counts the directions taken out
//! ```
//!
//! so that candidates are evaluated without touching `W`, and taking an edit off restores the original bits.
//! How `p`, `q` and `s` follow from a direction and a strength is the business of the room `ablation`.

use std::collections::BTreeMap;

use crate::Writer;

/// The edit of one writer: `y' = s ∘ (y − Σ_j p_j (q_j · y))`, before a bias if the writer has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    width: usize,
    p: Vec<f32>,
    q: Vec<f32>,
    s: Option<Vec<f32>>,
}

/// Why vectors do not form an edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A vector's length does not fit the writer's width.
    #[error("edit vector `{vector}`: expected a multiple of d_model {width}, found {found} numbers")]
    Width {
        /// Which vector: p, q or s.
        vector: &'static str,
        /// d_model.
        width: usize,
        /// How many numbers were given.
        found: usize,
    },
    /// p and q must come in pairs.
    #[error("edit vectors `p` and `q` differ in length: {p} and {q} numbers")]
    Pairs {
        /// Length of p.
        p: usize,
        /// Length of q.
        q: usize,
    },
}

impl Edit {
    /// An edit from its vectors.
    ///
    /// # Shapes
    /// - `p`, `q`: `[rank, width]`, row-major; rank may be 0
    /// - `s`: `[width]`, or `None` for all ones
    pub fn new(width: usize, p: Vec<f32>, q: Vec<f32>, s: Option<Vec<f32>>) -> Result<Self, EditError> {
        if p.len() != q.len() {
            return Err(EditError::Pairs { p: p.len(), q: q.len() });
        }
        if width == 0 || !p.len().is_multiple_of(width) {
            return Err(EditError::Width { vector: "p", width, found: p.len() });
        }
        if let Some(found) = s.as_ref().map(Vec::len).filter(|&it| it != width) {
            return Err(EditError::Width { vector: "s", width, found });
        }
        Ok(Self { width, p, q, s })
    }

    /// d_model.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many directions are taken out.
    pub fn rank(&self) -> usize {
        self.p.len() / self.width
    }

    /// What is subtracted, `[rank, width]`.
    pub fn p(&self) -> &[f32] {
        &self.p
    }

    /// What the output is projected on, `[rank, width]`.
    pub fn q(&self) -> &[f32] {
        &self.q
    }

    /// The scale of each output, `[width]`; `None` means all ones.
    pub fn s(&self) -> Option<&[f32]> {
        self.s.as_deref()
    }
}

/// One candidate model: at most one edit per writer. Writers that it does not name are left as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EditSet {
    edits: BTreeMap<Writer, Edit>,
}

impl EditSet {
    /// The original model.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the edit of a writer and returns the one that it replaces.
    pub fn insert(&mut self, writer: Writer, edit: Edit) -> Option<Edit> {
        self.edits.insert(writer, edit)
    }

    /// The edit of a writer, if it has one.
    pub fn get(&self, writer: Writer) -> Option<&Edit> {
        self.edits.get(&writer)
    }

    /// All edits in the order of their writers.
    pub fn iter(&self) -> impl Iterator<Item = (Writer, &Edit)> {
        self.edits.iter().map(|(&writer, edit)| (writer, edit))
    }

    /// Whether this is the original model.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

impl FromIterator<(Writer, Edit)> for EditSet {
    fn from_iter<T: IntoIterator<Item = (Writer, Edit)>>(edits: T) -> Self {
        Self { edits: edits.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_do_not_fit_are_refused_with_both_lengths() {
        let error = Edit::new(3, vec![0.0; 3], vec![0.0; 6], None).unwrap_err();
        assert_eq!(error, EditError::Pairs { p: 3, q: 6 });
        let error = Edit::new(3, vec![0.0; 4], vec![0.0; 4], None).unwrap_err();
        assert_eq!(error, EditError::Width { vector: "p", width: 3, found: 4 });
        let error = Edit::new(3, vec![0.0; 3], vec![0.0; 3], Some(vec![1.0; 2])).unwrap_err();
        assert_eq!(error, EditError::Width { vector: "s", width: 3, found: 2 });
    }

    #[test]
    fn the_rank_is_the_number_of_direction_pairs() {
        assert_eq!(Edit::new(2, vec![0.0; 6], vec![0.0; 6], None).unwrap().rank(), 3);
        assert_eq!(Edit::new(2, vec![], vec![], Some(vec![0.0; 2])).unwrap().rank(), 0);
    }
}
