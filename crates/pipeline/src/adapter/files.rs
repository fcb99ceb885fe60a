//! The files of an adapter.
//!
//! **peft** reads a folder: `adapter_config.json`, and `adapter_model.safetensors` with `lora_A [rank, d_in]`,
//! `lora_B [d_model, rank]` and for DoRA `lora_magnitude_vector [d_model]` under the path of each module. It multiplies
//! `B A` with `lora_alpha / r`, which is 1 here. Modules are named by their whole paths, so that no other is touched.
//!
//! **llama.cpp** reads a GGUF file: `NAME.lora_a [rank, d_in]` and `NAME.lora_b [d_model, rank]` for the weight `NAME`; the
//! scale is `adapter.lora.alpha` over the rank. The rows of queries and keys lie in another order in files of some
//! families; writers are none of them.

use std::path::{Path, PathBuf};

use checkpoint::write::{NewTensor, NewValue, Written, write_new_folder, write_new_gguf};
use serde_json::json;

use super::{AdaptedWriter, Adapter, AdapterKind};
use crate::{Cancel, Events, PipelineError, export};

/// The weights of a folder.
const WEIGHTS: &str = "adapter_model.safetensors";

/// What its reader has to know of them.
const CONFIGURATION: &str = "adapter_config.json";

/// The file of a GGUF adapter in a folder that is named for it.
const GGUF: &str = "adapter.gguf";

/// Where an adapter of this kind goes: a folder, or for GGUF a file; of a folder that is named for it, a file in it.
pub fn target(kind: AdapterKind, wanted: &Path) -> PathBuf {
    match kind {
        AdapterKind::Gguf if !export::is_gguf(wanted) => wanted.join(GGUF),
        _ => wanted.to_owned(),
    }
}

impl Adapter {
    /// Writes it to a place where nothing is yet, whole or not at all. `card`: the text of the folder's `README.md`; a
    /// file has no place for one.
    pub fn write(
        &self,
        target: &Path,
        card: &str,
        events: &mut Events<'_>,
        cancel: &Cancel<'_>,
    ) -> Result<Written, PipelineError> {
        let tensors: Vec<NewTensor> = self.writers.iter().flat_map(|it| self.tensors_of(it)).collect();
        export::to_disk("adapter", target, events, cancel, |progress| match self.kind {
            AdapterKind::Lora | AdapterKind::Dora => {
                let texts = [(CONFIGURATION, self.configuration()), ("README.md", card.to_owned())];
                write_new_folder(target, WEIGHTS, &tensors, &texts, progress)
            }
            AdapterKind::Gguf => {
                let text = |it: &str| NewValue::Text(it.to_owned());
                let metadata = [
                    ("general.type", text("adapter")),
                    ("general.architecture", text(&self.architecture)),
                    ("general.name", text(&format!("{}, edited", self.base.0))),
                    ("adapter.type", text("lora")),
                    ("adapter.lora.alpha", NewValue::F32(self.rank as f32)),
                ];
                write_new_gguf(target, &metadata, &tensors, progress)
            }
        })
    }

    fn tensors_of(&self, it: &AdaptedWriter) -> Vec<NewTensor> {
        let (place, factors) = (&it.place, &it.factors);
        let (down, up) = match self.kind {
            AdapterKind::Gguf => (format!("{place}.lora_a"), format!("{place}.lora_b")),
            _ => (peft(place, "lora_A.weight"), peft(place, "lora_B.weight")),
        };
        let (d_in, d_model) = (factors.down.len() / self.rank, factors.up.len() / self.rank);
        let mut tensors = vec![
            NewTensor { name: down, shape: vec![self.rank, d_in], numbers: factors.down.clone() },
            NewTensor { name: up, shape: vec![d_model, self.rank], numbers: factors.up.clone() },
        ];
        if let Some(magnitude) = &factors.magnitude {
            let name = peft(place, "lora_magnitude_vector");
            tensors.push(NewTensor { name, shape: vec![d_model], numbers: magnitude.clone() });
        }
        tensors
    }

    fn configuration(&self) -> String {
        let modules: Vec<&String> = self.writers.iter().map(|it| &it.place).collect();
        let configuration = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base.0,
            "revision": self.base.1,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "use_dora": self.kind == AdapterKind::Dora,
            "target_modules": modules,
        });
        format!("{configuration:#}\n")
    }
}

/// The name of a module's part in a folder.
fn peft(module: &str, part: &str) -> String {
    format!("base_model.model.{module}.{part}")
}
