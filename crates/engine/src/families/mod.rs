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
mod latent;
mod lfm2;
mod lfm3;
mod llama;
mod minicpm3;
mod minimax_m2;
mod ministral3;
mod mistral4;
mod mixtral;
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
mod youtu;

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
    &hunyuan::FAMILY,
    &glm4_moe::SOLAR,
    &deepseek_v2::FAMILY,
    &deepseek_v3::FAMILY,
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
        Ok(Self { checkpoint, family, config })
    }

    /// What the model is made of.
    pub(crate) fn blueprint(&self) -> Result<Blueprint, ConfigError> {
        (self.family.blueprint)(&Config::new(&self.config, self))
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
}

fn architecture(checkpoint: &Checkpoint) -> String {
    let config = checkpoint.config();
    let name = match checkpoint.format() {
        Format::Gguf => config.get("general.architecture"),
        Format::HuggingFace => config.get("architectures").and_then(|it| it.get(0)),
    };
    containers::language_model(name.and_then(Value::as_str).unwrap_or("(none named)"), config)
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
