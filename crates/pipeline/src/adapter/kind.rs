//! What adapters there are, and which of them a model can have.

use ablation::RowNormalization;
use checkpoint::{Checkpoint, Format};
use engine::WriterInfo;
use engine::families::Names;
use serde::{Deserialize, Serialize};

use crate::Model;

/// What an adapter is, and who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A folder for Python's peft: two factors for each weight.
    Lora,
    /// The same, and the lengths of the rows.
    Dora,
    /// A GGUF file for llama.cpp: two factors for each weight.
    Gguf,
}

/// Why an edit cannot be an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Adapters of Python's peft are added to the modules of a Hugging Face model.
    #[error(
        "`{path}` is a GGUF file, and a `{kind}` adapter is added to a Hugging Face folder\n\nhint: `gguf` is the kind of adapter for it"
    )]
    Folder {
        /// The model.
        path: String,
        /// What was wanted.
        kind: &'static str,
    },
    /// GGUF files are not known of every family.
    #[error(
        "models of the family `{family}` have no GGUF files here\n\nhint: `lora` and `dora` are adapters for its folder"
    )]
    Family {
        /// The family.
        family: &'static str,
    },
    /// DoRA keeps lengths of rows, and the edit does not.
    #[error(
        "row normalization `{found}` does not keep the lengths of rows, as a `dora` adapter does\n\nhint: the edit is exactly a `lora` adapter"
    )]
    Lengths {
        /// The row normalization.
        found: String,
    },
    /// Experts have no adapters here.
    #[error(
        "tensor `{tensor}` belongs to an expert, and an adapter cannot carry what changes there\n\nhint: write the whole model: --export-strategy merge"
    )]
    Expert {
        /// Its name.
        tensor: String,
    },
    /// The reader of the adapter has no name for a tensor.
    #[error(
        "tensor `{tensor}` cannot be reached by a `{kind}` adapter: it has no name of its own there\n\nhint: write the whole model: --export-strategy merge"
    )]
    Tensor {
        /// Its name.
        tensor: String,
        /// The kind of adapter.
        kind: &'static str,
    },
    /// What is written would be relative to weights that no reader of it has.
    #[error(
        "the model has an adapter in its weights, and another adapter would be relative to these\n\nhint: write the whole model: --export-strategy merge"
    )]
    Adapted,
    /// The parameters edit no writer.
    #[error(
        "the parameters change no weight, so that there is nothing to write\n\nhint: choose another trial"
    )]
    Nothing,
    /// The model's names.
    #[error(transparent)]
    Names(engine::LoadError),
}

impl AdapterKind {
    /// All kinds, in the order shown to users.
    pub const ALL: [Self; 3] = [Self::Lora, Self::Dora, Self::Gguf];

    /// The name used in settings and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Dora => "dora",
            Self::Gguf => "gguf",
        }
    }

    /// The kind that is wanted, if this model can have it; else the one that fits: exact where one of them is.
    pub fn choose(
        wanted: Option<Self>,
        model: &Model,
        normalization: RowNormalization,
    ) -> Result<Self, AdapterError> {
        if model.checkpoint.is_adapted() {
            return Err(AdapterError::Adapted);
        }
        Self::of(wanted, &model.checkpoint, model.engine.info().family, normalization)
    }

    fn of(
        wanted: Option<Self>,
        checkpoint: &Checkpoint,
        family: &'static str,
        normalization: RowNormalization,
    ) -> Result<Self, AdapterError> {
        let kind = match (wanted, checkpoint.format(), normalization) {
            (Some(kind), ..) => kind,
            (None, Format::Gguf, _) => Self::Gguf,
            (None, Format::HuggingFace, RowNormalization::Full) => Self::Dora,
            (None, Format::HuggingFace, _) => Self::Lora,
        };
        match (kind, checkpoint.format()) {
            (Self::Lora | Self::Dora, Format::Gguf) => {
                let path = checkpoint.path().display().to_string();
                return Err(AdapterError::Folder { path, kind: kind.name() });
            }
            (Self::Gguf, _) => {
                let names = Names::of(checkpoint, family).map_err(AdapterError::Names)?;
                if names.gguf_architecture().is_none() {
                    return Err(AdapterError::Family { family });
                }
            }
            _ => {}
        }
        if kind == Self::Dora && normalization != RowNormalization::Full {
            let found = format!("{normalization:?}").to_lowercase();
            return Err(AdapterError::Lengths { found });
        }
        Ok(kind)
    }

    /// Whether an edit of this row normalization is more than factors of rank one can do.
    pub(super) fn truncates(self, normalization: RowNormalization) -> bool {
        normalization == RowNormalization::Full && self != Self::Dora
    }

    /// What the reader of the adapter calls the weight of a writer.
    pub(super) fn place(self, names: &Names<'_>, writer: &WriterInfo) -> Result<String, AdapterError> {
        let tensor = writer.weight.name();
        if writer.writer.expert.is_some() {
            return Err(AdapterError::Expert { tensor: tensor.to_owned() });
        }
        let place = match self {
            Self::Lora | Self::Dora => names.module(tensor),
            Self::Gguf => names.gguf_tensor(tensor),
        };
        place.ok_or_else(|| AdapterError::Tensor { tensor: tensor.to_owned(), kind: self.name() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use engine::{Engine, LoadOptions};

    use super::*;
    use RowNormalization::{Full, None as Plain, Pre};

    fn golden(name: &str) -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests").join(name)).unwrap()
    }

    #[test]
    fn the_kind_that_fits_is_exact_where_one_of_them_is() {
        let (folder, file) = (golden("golden/llama_gqa_tied"), golden("golden_gguf/llama_gqa_tied.gguf"));
        let of = |checkpoint, mode| AdapterKind::of(None, checkpoint, "llama", mode).unwrap();
        assert_eq!(
            [Plain, Pre, Full].map(|it| of(&folder, it)),
            [AdapterKind::Lora, AdapterKind::Lora, AdapterKind::Dora]
        );
        assert_eq!([Plain, Full].map(|it| of(&file, it)), [AdapterKind::Gguf; 2]);
        assert!(!of(&folder, Full).truncates(Full) && of(&file, Full).truncates(Full));
    }

    #[test]
    fn kinds_that_a_model_cannot_have_are_refused_with_one_that_it_can() {
        let of = |kind, golden_name: &str, family, mode| {
            AdapterKind::of(Some(kind), &golden(golden_name), family, mode).unwrap_err().to_string()
        };
        let said = of(AdapterKind::Dora, "golden_gguf/llama_gqa_tied.gguf", "llama", Full);
        assert!(said.contains("hint: `gguf`"), "{said}");
        let said = of(AdapterKind::Gguf, "golden/stablelm", "stablelm", Full);
        assert!(said.contains("`stablelm`") && said.contains("hint: `lora`"), "{said}");
        let said = of(AdapterKind::Dora, "golden/llama_gqa_tied", "llama", Pre);
        assert!(said.contains("`pre`") && said.contains("`lora` adapter"), "{said}");
    }

    #[test]
    fn what_an_adapter_cannot_carry_is_named() {
        let checkpoint = golden("golden/llama_gqa_tied");
        let engine = Engine::load(&checkpoint, &LoadOptions::default(), &mut |_, _| {}).unwrap();
        let names = Names::of(&checkpoint, "llama").unwrap();
        let mut writer = engine.info().writers[0].clone();
        let place = AdapterKind::Gguf.place(&names, &writer).unwrap();
        assert_eq!(place, "blk.0.attn_output.weight");
        writer.writer.expert = Some(3);
        for kind in AdapterKind::ALL {
            let said = kind.place(&names, &writer).unwrap_err().to_string();
            assert!(said.contains("`model.layers.0.self_attn.o_proj.weight`"), "{said}");
            assert!(said.contains("expert") && said.contains("--export-strategy merge"), "{said}");
        }
        writer.writer.expert = None;
        writer.weight = checkpoint.tensor("model.norm.weight").unwrap();
        let of_the_file = golden("golden_gguf/llama_gqa_tied.gguf");
        let elsewhere = Names::of(&of_the_file, "llama").unwrap();
        let said = AdapterKind::Lora.place(&elsewhere, &writer).unwrap_err().to_string();
        assert!(said.contains("`model.norm.weight`") && said.contains("`lora`"), "{said}");
    }
}
