//! Model families: what a checkpoint's hyper-parameters mean.
//!
//! A member is one file with one [`Family`] and a line in [`FAMILIES`]. It turns a configuration into a
//! [`Blueprint`], and says how GGUF files name and arrange the same model. It holds no arithmetic. Every member
//! passes `tests/families.rs`: golden tensors of the reference stack at every residual site, and the laws (a
//! batch equals single runs; silencing all writers makes each block the identity).

mod apertus;
mod arcee;
mod architectures;
mod cohere;
mod containers;
mod decoder;
mod deepseek_v2;
mod deepseek_v3;
mod deepseek_v32;
mod dots1;
mod ernie4_5;
mod exaone4;
mod exaone_moe;
mod experts;
mod falcon_h1;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod gguf;
mod glm;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod granite;
mod granite_hybrid;
mod granite_swa;
mod granitemoe;
mod helium;
mod hunyuan;
mod kimi_linear;
mod laguna;
mod latent;
mod lfm2;
mod lfm3;
mod llama;
mod mimo_v2_flash;
mod minicpm3;
mod minimax_m2;
mod ministral3;
mod mistral4;
mod mixtral;
mod model_types;
mod names;
mod nemotron;
mod nemotron_h;
mod olmo;
mod olmo1;
mod olmo_hybrid;
mod olmoe;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod qwen3_vl;
mod recurrent;
mod seed_oss;
mod stablelm;
mod starcoder2;
mod step3p7;
mod youtu;

use std::collections::BTreeMap;

use checkpoint::{Checkpoint, Format, Quantization, Tensor};
use serde_json::Value;

pub use self::gguf::Gguf;
pub use self::names::Names;
use crate::blueprint::{Blueprint, Projection};
use crate::config::Tensors;
use crate::quantization::Quantizing;
use crate::{Config, ConfigError, LoadError};

/// All families, in the order shown to users.
pub const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &gemma3n::FAMILY,
    &gemma4::FAMILY,
    &gemma4::UNIFIED,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &phi3::FAMILY,
    &olmo::FAMILY,
    &granite::FAMILY,
    &granite_swa::FAMILY,
    &granite_swa::SPARSE,
    &ministral3::FAMILY,
    &glm4::FAMILY,
    &cohere::FAMILY,
    &stablelm::FAMILY,
    &exaone4::FAMILY,
    &qwen3_moe::FAMILY,
    &qwen3_vl::DENSE,
    &qwen3_vl::SPARSE,
    &mixtral::FAMILY,
    &lfm2::FAMILY,
    &lfm3::FAMILY,
    &granite_hybrid::FAMILY,
    &nemotron_h::FAMILY,
    &falcon_h1::FAMILY,
    &qwen3_5::FAMILY,
    &qwen3_next::FAMILY,
    &qwen3_next::FAMILY_3_5,
    &olmo_hybrid::FAMILY,
    &gpt_oss::FAMILY,
    &phimoe::FAMILY,
    &olmoe::FAMILY,
    &granitemoe::FAMILY,
    &glm4_moe::FAMILY,
    &qwen2_moe::FAMILY,
    &ernie4_5::FAMILY,
    &dots1::FAMILY,
    &exaone_moe::FAMILY,
    &minimax_m2::FAMILY,
    &mimo_v2_flash::FAMILY,
    &laguna::FAMILY,
    &kimi_linear::FAMILY,
    &step3p7::FAMILY,
    &hunyuan::FAMILY,
    &glm4_moe::SOLAR,
    &deepseek_v2::FAMILY,
    &deepseek_v3::FAMILY,
    &deepseek_v32::FAMILY,
    &deepseek_v32::GLM,
    &glm4_moe_lite::FAMILY,
    &minicpm3::FAMILY,
    &mistral4::FAMILY,
    &youtu::FAMILY,
    &glm::FAMILY,
    &olmo1::FAMILY,
    &seed_oss::FAMILY,
    &helium::FAMILY,
    &nemotron::FAMILY,
    &arcee::FAMILY,
    &apertus::FAMILY,
    &starcoder2::FAMILY,
];

/// A family of models.
pub struct Family {
    /// The name used in settings and reports.
    pub name: &'static str,
    /// The architectures, as `config.json` names them.
    pub architectures: &'static [&'static str],
    /// What a configuration means.
    pub blueprint: fn(&Config<'_>) -> Result<Blueprint, ConfigError>,
    /// How GGUF files hold these models.
    pub gguf: Option<Gguf>,
}

/// A checkpoint read by its family: tensors under the names of Hugging Face, whatever the format.
pub(crate) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    pub(crate) family: &'static Family,
    config: Value,
    architecture: String,
}

impl<'a> Source<'a> {
    /// Finds the family of a checkpoint; `forced` names one to try whatever the checkpoint says.
    pub(crate) fn new(checkpoint: &'a Checkpoint, forced: Option<&str>) -> Result<Self, LoadError> {
        let format = checkpoint.format();
        let found = architecture(checkpoint);
        let knows = |family: &&&Family| match (forced, format) {
            (Some(forced), _) => family.name == forced,
            (None, Format::HuggingFace) => family.architectures.contains(&found.as_str()),
            (None, Format::Gguf) => {
                family.gguf.as_ref().is_some_and(|it| it.architectures.contains(&found.as_str()))
            }
        };
        let known = || known(format, forced.is_some());
        let family = *FAMILIES.iter().find(knows).ok_or_else(|| match forced {
            Some(family) => LoadError::UnknownFamily { found: family.to_owned(), known: known() },
            None => architectures::refusal(&found)
                .unwrap_or_else(|| LoadError::UnknownArchitecture { found: found.clone(), known: known() }),
        })?;
        let config = match (format, &family.gguf) {
            (Format::Gguf, Some(gguf)) => (gguf.config)(checkpoint.config(), &found)?,
            _ => checkpoint.config().clone(),
        };
        Ok(Self { checkpoint, family, config, architecture: found })
    }

    /// The files.
    pub(crate) fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// What the checkpoint calls a tensor, by its Hugging Face name, and where its rows lie there, see
    /// [`gguf::Stored::row_order`]; `None` where a GGUF file has no name for it.
    pub(crate) fn stored(&self, name: &str) -> Option<(String, Option<Vec<u32>>)> {
        match (self.checkpoint.format(), &self.family.gguf) {
            (Format::Gguf, Some(gguf)) => (gguf.tensor)(&self.config, name).map(|it| (it.name, it.row_order)),
            _ => Some((name.to_owned(), None)),
        }
    }

    /// What the model is made of.
    pub(crate) fn blueprint(&self) -> Result<Blueprint, ConfigError> {
        (self.family.blueprint)(&Config::new(&self.config, self).of_architecture(&self.architecture))
    }

    /// What a user should know about the model although it can be computed, a sentence each.
    pub(crate) fn notices(&self, blueprint: &Blueprint) -> Vec<String> {
        let mut tied = [Some(&self.config), self.config.get("text_config")].into_iter().flatten();
        let tied = tied.find_map(|it| it.get("tie_word_embeddings")?.as_bool());
        let (head, embedding) = (&blueprint.head.weight, &blueprint.embedding.weight);
        let mut notices = self.checkpoint.notices().to_vec();
        match (self.checkpoint.format(), tied) {
            (Format::HuggingFace, Some(true)) if head != embedding => notices.push(format!(
                "`tie_word_embeddings` is true, but `{head}` has other values than `{embedding}`: each is used as it is, \
                 as transformers 5 does"
            )),
            (Format::HuggingFace, Some(false)) if head == embedding => notices.push(format!(
                "`tie_word_embeddings` is false, but the files have no head of its own: `{embedding}` is used for it"
            )),
            _ => {}
        }
        notices
    }

    /// Refuses a checkpoint with blocks that the configuration does not count. `weight` is a tensor of a block by its name
    /// in the file.
    pub(crate) fn expect_no_more_blocks(&self, weight: &str, blocks: usize) -> Result<(), LoadError> {
        // Heads that predict more tokens lie behind the blocks in some files; transformers leaves them out, too.
        const NUMBERS: [&str; 3] = ["num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"];
        const MARKS: [&str; 5] = [".eh_proj.", ".enorm.", ".hnorm.", ".mtp", ".nextn."];
        let Some((prefix, _)) = numbered(weight) else { return Ok(()) };
        let mut beyond: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for name in self.checkpoint.names() {
            let number = numbered(name).filter(|it| it.0 == prefix).map(|it| it.1);
            if let Some(number) = number.filter(|&it| it >= blocks) {
                beyond.entry(number).or_default().push(name);
            }
        }
        let parts = [Some(&self.config), self.config.get("text_config")].into_iter().flatten();
        let said = parts.flat_map(|it| NUMBERS.iter().filter_map(move |key| it.get(key)?.as_u64())).max();
        let predicting = usize::try_from(said.unwrap_or(0)).unwrap_or(usize::MAX);
        let more = beyond.iter().rfind(|(number, names)| {
            **number >= blocks.saturating_add(predicting)
                && !names.iter().any(|it| MARKS.iter().any(|mark| it.contains(mark)))
        });
        match more {
            None => Ok(()),
            Some((number, names)) => Err(LoadError::MoreBlocks {
                said: blocks,
                found: number + 1,
                tensor: names[0].to_owned(),
                key: match self.checkpoint.format() {
                    Format::HuggingFace => "num_hidden_layers",
                    Format::Gguf => "block_count",
                },
            }),
        }
    }

    /// A tensor by its Hugging Face name, its shape checked.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let tensor = self.whole(name)?;
        tensor.expect_shape(shape)?;
        Ok(tensor)
    }

    /// The numbers of a tensor `[width]` by its Hugging Face name, in the order of the model, and the tensor itself.
    pub(crate) fn vector(&self, name: &str, width: usize) -> Result<(Tensor, Vec<f32>), LoadError> {
        let tensor = self.tensor(name, &[width])?;
        let mut values = tensor.to_f32();
        let stored = match (self.checkpoint.format(), &self.family.gguf) {
            (Format::Gguf, Some(gguf)) => (gguf.tensor)(&self.config, name),
            _ => None,
        };
        // A bias is in the order of the rows of its weight.
        if let Some(order) = stored.and_then(|it| it.row_order).filter(|it| it.len() == values.len()) {
            values = order.into_iter().map(|from| values[from as usize]).collect();
        }
        Ok((tensor, values))
    }

    /// The weight of a projection, `[outputs, inputs]`: a tensor, or a part of one.
    pub(crate) fn projection(&self, projection: &Projection) -> Result<Tensor, LoadError> {
        let Projection { weight, share, outputs, inputs, .. } = projection;
        let Some(share) = share else {
            let tensor = self.whole(weight)?;
            // GGUF files have no dimension of size 1 at the end.
            let tensor =
                if *outputs == 1 && tensor.shape() == [*inputs] { tensor.slice_rows(0..1) } else { tensor };
            tensor.expect_shape(&[*outputs, *inputs])?;
            return Ok(tensor);
        };
        let mut tensor = self.whole(weight)?;
        if let Some(scales) = &share.scales {
            tensor = Tensor::microscaled(&tensor, &self.whole(scales)?)?;
        }
        let (rows, row_len) = if share.transposed { (*inputs, share.of) } else { (share.of, *inputs) };
        tensor.expect_shape(&share.shape(&[rows, row_len]))?;
        let expert = share.expert.map_or(0, |it| it.0);
        let own = tensor.slice_rows(expert * rows..(expert + 1) * rows);
        if share.transposed && !own.can_be_transposed() {
            // To read one number of a row of blocks means to decode them all.
            return Err(LoadError::Transposed { tensor: weight.clone() });
        }
        let own = if share.transposed { own.transposed() } else { own };
        if share.together == 1 {
            return Ok(own.stepped_rows(share.first, share.step, *outputs));
        }
        Ok(own.chosen_rows((0..*outputs).map(|it| share.row(it))))
    }

    /// The bias of a projection, if it has one, and the tensor that it is from.
    pub(crate) fn bias(&self, projection: &Projection) -> Result<Option<(Tensor, Vec<f32>)>, LoadError> {
        let Projection { bias, share, outputs, .. } = projection;
        let Some(name) = bias else { return Ok(None) };
        let Some(share) = share else { return self.vector(name, *outputs).map(Some) };
        let tensor = self.tensor(name, &share.shape(&[share.of]))?;
        let expert = share.expert.map_or(0, |it| it.0);
        let all = tensor.slice_rows(expert..expert + 1).to_f32();
        let own = (0..*outputs).map(|output| all[share.row(output)]).collect();
        Ok(Some((tensor, own)))
    }

    /// How the weights of its blocks are quantized; `outside` are tensors of no block, by their names in the file.
    pub(crate) fn quantizing(&self, wanted: Quantization, outside: &[&str]) -> Quantizing {
        Quantizing::new(wanted, self.checkpoint, outside)
    }

    /// A tensor by its Hugging Face name, of whatever shape.
    pub(crate) fn whole(&self, name: &str) -> Result<Tensor, LoadError> {
        Ok(match (self.checkpoint.format(), &self.family.gguf) {
            (Format::Gguf, Some(gguf)) => match (gguf.tensor)(&self.config, name) {
                None => self.checkpoint.tensor(name)?,
                Some(stored) => {
                    let tensor = self.checkpoint.tensor(&stored.name)?;
                    match stored.row_order {
                        Some(order) if order.len() == tensor.rows() => tensor.with_row_order(order),
                        // Of another size: the shape check below says so.
                        _ => tensor,
                    }
                }
            },
            _ => self.checkpoint.tensor(name)?,
        })
    }
}

impl Tensors for Source<'_> {
    fn contains(&self, name: &str) -> bool {
        match (self.checkpoint.format(), &self.family.gguf) {
            (Format::Gguf, Some(gguf)) => {
                (gguf.tensor)(&self.config, name).is_some_and(|it| self.checkpoint.contains(&it.name))
            }
            _ => self.checkpoint.contains(name),
        }
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.contains(name).then(|| self.whole(name).ok().map(|it| it.shape().to_vec())).flatten()
    }

    fn values(&self, name: &str) -> Option<Vec<f32>> {
        self.contains(name).then(|| self.whole(name).ok().map(|it| it.to_f32())).flatten()
    }

    fn any(&self, named: &dyn Fn(&str) -> bool) -> bool {
        self.checkpoint.names().any(named)
    }

    fn differ(&self, one: &str, other: &str) -> bool {
        let (Ok(one), Ok(other)) = (self.whole(one), self.whole(other)) else { return true };
        if one.shape() != other.shape() {
            return true;
        }
        let (mut a, mut b) = (vec![0.0; one.row_len()], vec![0.0; one.row_len()]);
        (0..one.rows()).any(|row| {
            one.read_row(row, &mut a);
            other.read_row(row, &mut b);
            a != b
        })
    }
}

/// What a name says before the number of a block, and the number: `model.layers.` and 3 of `model.layers.3.mlp.up.weight`.
fn numbered(name: &str) -> Option<(&str, usize)> {
    let mut start = 0;
    for part in name.split('.') {
        if part.bytes().all(|it| it.is_ascii_digit())
            && let Ok(number) = part.parse()
        {
            return Some((&name[..start], number));
        }
        start += part.len() + 1;
    }
    None
}

/// The name of the architecture; where a configuration has none, that which its `model_type` means.
fn architecture(checkpoint: &Checkpoint) -> String {
    let config = checkpoint.config();
    let name = match checkpoint.format() {
        Format::Gguf => config.get("general.architecture").and_then(Value::as_str),
        Format::HuggingFace => {
            let listed = config.get("architectures");
            let named = listed.and_then(|it| it.as_str().or_else(|| it.get(0)?.as_str()));
            named.or_else(|| model_types::architecture(config))
        }
    };
    containers::language_model(name.unwrap_or("(none named)"), config)
}

fn known(format: Format, by_family: bool) -> String {
    let names = FAMILIES.iter().flat_map(|family| match (by_family, format) {
        (true, _) => vec![family.name],
        (false, Format::HuggingFace) => family.architectures.to_vec(),
        (false, Format::Gguf) => family.gguf.as_ref().map_or(Vec::new(), |it| it.architectures.to_vec()),
    });
    let containers = containers::architectures().filter(|_| !by_family && format == Format::HuggingFace);
    let names = names.chain(containers);
    names.map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ")
}
