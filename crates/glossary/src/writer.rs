//! What writes to the residual stream.

use serde::{Deserialize, Serialize};

use crate::LayerIndex;

/// The kind of a writer: which part of a block adds to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Component {
    /// The output projection of attention, or of what a block has in attention's place.
    #[serde(rename = "attn.o_proj")]
    AttentionOutput,
    /// The down projection of the MLP; with a mixture of experts, of each expert.
    #[serde(rename = "mlp.down_proj")]
    MlpOutput,
    /// The projection of what a block adds for the token alone, from an embedding of the block's own.
    #[serde(rename = "per_layer_projection")]
    PerLayerProjection,
    /// The second projection of the short way beside attention (`LAuReL`).
    #[serde(rename = "laurel.linear_right")]
    LaurelOutput,
}

impl Component {
    /// All components, in the order shown to users.
    pub const ALL: [Self; 4] =
        [Self::AttentionOutput, Self::MlpOutput, Self::PerLayerProjection, Self::LaurelOutput];

    /// Those that a search edits, as heretic does. What a block adds for a token, whatever stands before it, says little
    /// of a behaviour, and the short way beside attention has seen no other token in this block; who wants them edited
    /// names them in parameters of their own.
    pub const SEARCHED: [Self; 2] = [Self::AttentionOutput, Self::MlpOutput];

    /// The name used in settings, study files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttentionOutput => "attn.o_proj",
            Self::MlpOutput => "mlp.down_proj",
            Self::PerLayerProjection => "per_layer_projection",
            Self::LaurelOutput => "laurel.linear_right",
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One linear layer whose output is added to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// The block it belongs to.
    pub layer: LayerIndex,
    /// Which part of the block.
    pub component: Component,
    /// Whether it belongs to what a block has beside its first mixer.
    pub beside: bool,
    /// Which expert, where the block has several; `None` in a dense block, and for the expert that every token is sent
    /// to.
    pub expert: Option<usize>,
}

impl Writer {
    /// The writer of its kind that every token goes through.
    pub fn dense(layer: LayerIndex, component: Component) -> Self {
        Self { layer, component, beside: false, expert: None }
    }
}

impl std::fmt::Display for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "layer {} {}", self.layer, self.component)?;
        if self.beside {
            f.write_str(" beside the first")?;
        }
        self.expert.map_or(Ok(()), |expert| write!(f, " expert {expert}"))
    }
}
