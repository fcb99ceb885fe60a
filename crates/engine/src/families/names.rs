//! What other programs call a model's weights: modules of the transformers library, tensors of GGUF files.

use checkpoint::{Checkpoint, Format};

use super::gguf::Stored;
use super::{Source, architecture, decoder};
use crate::LoadError;

/// Parts of the names of modules that transformers has under other names than their checkpoints, by family.
const RENAMED: &[(&str, &str, &str)] = &[
    ("kimi_linear", ".block_sparse_moe.", ".mlp."),
    ("laguna", ".mlp.shared_expert.", ".mlp.shared_experts."),
    ("step3p7", ".share_expert.", ".mlp.shared_experts."),
];

/// The names that other programs have for the weights of a checkpoint.
pub struct Names<'a>(Source<'a>);

impl<'a> Names<'a> {
    /// Those of a checkpoint read as one of this family, [`ModelInfo::family`](crate::ModelInfo::family).
    ///
    /// # Errors
    /// What loading it as one would end with.
    pub fn of(checkpoint: &'a Checkpoint, family: &str) -> Result<Self, LoadError> {
        Source::new(checkpoint, Some(family)).map(Self)
    }

    /// The module that holds a weight when transformers has loaded the folder; `None` for a tensor that is not the
    /// weight of a module of its own, and for those of GGUF files.
    pub fn module(&self, tensor: &str) -> Option<String> {
        let name = tensor.strip_suffix(".weight").filter(|_| self.format() == Format::HuggingFace)?;
        // Containers that were written by transformers 4 have their modules in another order there, or their language
        // model under the name of one that stands alone.
        let [alone, now, before, text_model] = decoder::ROOTS;
        if within(name, text_model).is_some() {
            return Some(name.to_owned());
        }
        let holds_images = self.0.checkpoint.config().get("vision_config").is_some();
        let alone = within(name, alone).filter(|_| holds_images && within(name, now).is_none());
        let rest = within(name, before).or(alone);
        let name = rest.map_or_else(|| name.to_owned(), |rest| format!("{now}.{rest}"));
        let renamed = RENAMED.iter().filter(|it| it.0 == self.0.family.name);
        Some(renamed.fold(name, |name, (_, stored, module)| name.replace(stored, module)))
    }

    /// What GGUF files of this model have as `general.architecture`; `None` where the family has no such files.
    pub fn gguf_architecture(&self) -> Option<String> {
        let found = architecture(self.0.checkpoint);
        if self.format() == Format::Gguf {
            return Some(found);
        }
        let known = self.0.family.gguf.as_ref()?.architectures;
        // llama.cpp has architectures of their own for these, which no file here has been compared with.
        if ["VLFor", "Exaone4_5_"].iter().any(|it| found.contains(it)) {
            return None;
        }
        let found = found.to_ascii_lowercase();
        let own = known.iter().filter(|it| found.starts_with(**it)).max_by_key(|it| it.len());
        own.or(known.first()).map(|it| (*it).to_owned())
    }

    /// What GGUF files call a tensor of this checkpoint.
    pub fn gguf_tensor(&self, tensor: &str) -> Option<String> {
        self.gguf_stored(tensor).map(|it| it.name)
    }

    /// How GGUF files hold a tensor of this checkpoint.
    pub(crate) fn gguf_stored(&self, tensor: &str) -> Option<Stored> {
        if self.format() == Format::Gguf {
            return Some(Stored { name: tensor.to_owned(), row_order: None });
        }
        let [alone, containers @ ..] = decoder::ROOTS;
        let rest = containers.iter().find_map(|root| within(tensor, root));
        let name = rest.map_or_else(|| tensor.to_owned(), |rest| format!("{alone}.{rest}"));
        (self.0.family.gguf.as_ref()?.tensor)(&self.0.config, &name)
    }

    fn format(&self) -> Format {
        self.0.checkpoint.format()
    }
}

/// What follows on a root in a name.
fn within<'a>(name: &'a str, root: &str) -> Option<&'a str> {
    name.strip_prefix(root)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{DtypeChoice, Engine, LoadOptions};

    fn goldens(folder: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)
    }

    fn writers(checkpoint: &Checkpoint) -> (&'static str, Vec<String>) {
        let options = LoadOptions { dtype: DtypeChoice::Auto, threads: 1, ..LoadOptions::default() };
        let engine = Engine::load(checkpoint, &options, &mut |_, _| {}).unwrap();
        let info = engine.info();
        // Experts have one tensor for all of them in GGUF files.
        let writers = info.writers.iter().filter(|it| it.writer.expert.is_none());
        (info.family, writers.map(|it| it.weight.name().to_owned()).collect())
    }

    #[test]
    fn writers_and_architecture_are_named_as_the_converter_of_llama_cpp_names_them() {
        let mut files = 0;
        for file in std::fs::read_dir(goldens("golden_gguf")).unwrap() {
            let file = file.unwrap().path();
            let folder = goldens("golden").join(file.file_stem().unwrap());
            let (folder, file) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&file).unwrap());
            let (family, ours) = writers(&folder);
            let names = Names::of(&folder, family).unwrap();
            let architecture = file.config()["general.architecture"].as_str().unwrap();
            if family == "mixtral" {
                // Its files are read as Llama's, and none can be made of a folder.
                assert_eq!(names.gguf_architecture(), None);
                continue;
            }
            assert_eq!(names.gguf_architecture().as_deref(), Some(architecture));
            let theirs = writers(&file).1;
            let found: Vec<String> = ours.iter().map(|it| names.gguf_tensor(it).unwrap()).collect();
            assert_eq!(found, theirs, "{architecture}");
            let names = Names::of(&file, family).unwrap();
            assert_eq!(names.gguf_architecture().as_deref(), Some(architecture));
            assert_eq!(names.gguf_tensor(&theirs[0]).as_ref(), Some(&theirs[0]));
            assert_eq!(names.module(&theirs[0]), None);
            files += 1;
        }
        assert!(files > 10, "golden files are part of the repository");
    }

    #[test]
    fn modules_that_transformers_renames_on_loading_have_its_names() {
        for (golden, tensor, module) in [
            (
                "kimi_linear",
                "model.layers.1.block_sparse_moe.shared_experts.",
                "model.layers.1.mlp.shared_experts.",
            ),
            ("laguna", "model.layers.1.mlp.shared_expert.", "model.layers.1.mlp.shared_experts."),
            ("laguna_elements", "model.layers.0.mlp.shared_experts.", "model.layers.0.mlp.shared_experts."),
            (
                "step3p7_container",
                "model.layers.1.share_expert.",
                "model.language_model.layers.1.mlp.shared_experts.",
            ),
        ] {
            let checkpoint = Checkpoint::open(&goldens("golden").join(golden)).unwrap();
            let tensor = format!("{tensor}down_proj.weight");
            let (family, writers) = writers(&checkpoint);
            assert!(writers.contains(&tensor), "{golden}: {writers:?}");
            let names = Names::of(&checkpoint, family).unwrap();
            assert_eq!(names.module(&tensor), Some(format!("{module}down_proj")), "{golden}");
        }
    }

    #[test]
    fn modules_of_containers_are_where_transformers_5_has_them() {
        for (golden, module) in [
            ("llama_gqa_tied", "model.layers.0.self_attn.o_proj"),
            ("gemma3_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("gemma3_container_4", "model.language_model.layers.0.self_attn.o_proj"),
            ("ministral3_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("gemma3n_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("gemma4_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("qwen2_vl_container_4", "model.language_model.layers.0.self_attn.o_proj"),
            ("qwen3_vl_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("mistral3_container_4", "model.language_model.layers.0.self_attn.o_proj"),
            ("gemma4_unified_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("exaone4_5_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("internvl_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("llava_onevision_container", "model.language_model.layers.0.self_attn.o_proj"),
            ("smolvlm_container", "model.text_model.layers.0.self_attn.o_proj"),
            ("idefics3_container", "model.text_model.layers.0.self_attn.o_proj"),
        ] {
            let checkpoint = Checkpoint::open(&goldens("golden").join(golden)).unwrap();
            let (family, writers) = writers(&checkpoint);
            let names = Names::of(&checkpoint, family).unwrap();
            assert_eq!(names.module(&writers[0]).as_deref(), Some(module), "{golden}");
            assert_eq!(names.module("model.layers.0.mlp.experts.down_proj"), None);
            let in_files =
                !["ministral3", "gemma3n", "gemma4", "gemma4_unified", "qwen3_vl"].contains(&family);
            let gguf = in_files.then_some("blk.0.attn_output.weight");
            assert_eq!(names.gguf_tensor(&writers[0]).as_deref(), gguf, "{golden}");
        }
    }
}
