//! Places in the residual stream.

use serde::{Deserialize, Serialize};

/// The number of a decoder block, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerIndex(pub usize);

impl std::fmt::Display for LayerIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A place where the residual stream is read.
///
/// A decoder with L blocks has L + 1 sites: the embedding, then after each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResidualSite {
    /// What the embedding writes, before the first block.
    Embedding,
    /// What stands in the stream after a block.
    After(LayerIndex),
}

impl ResidualSite {
    /// The site's place in a list of all sites: 0 for the embedding, `l + 1` after block `l`.
    pub fn index(self) -> usize {
        match self {
            Self::Embedding => 0,
            Self::After(LayerIndex(layer)) => layer + 1,
        }
    }

    /// The site at a place of the list of all sites; the inverse of [`Self::index`].
    pub fn at(index: usize) -> Self {
        index.checked_sub(1).map_or(Self::Embedding, |layer| Self::After(LayerIndex(layer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_and_its_index_name_each_other() {
        for index in 0..5 {
            assert_eq!(ResidualSite::at(index).index(), index);
        }
        assert_eq!(ResidualSite::at(1), ResidualSite::After(LayerIndex(0)));
    }
}
