//! The arguments of saving, and saving.

use std::path::{Path, PathBuf};

use ablation::{Parameters, RowNormalization};
use anyhow::Context;
use checkpoint::write::{Dequantized, Settings, ShardSize, remove_leftovers};
use checkpoint::{Checkpoint, Format};
use clap::ValueEnum;
use engine::backend::WeightDtype;
use engine::{Engine, LoadOptions};
use pipeline::reproduction::Writing;
use pipeline::{AdapterKind, Cancel, Model, Product, ScoreRecord, Session};
use prompts::{PromptEncoder, PromptFormat, PromptSettings};
use serde_json::Value;

use crate::adapting::Adapting;
use crate::interrupt;
use crate::noting::{Circumstances, Noting};
use crate::program::{ExportStrategy, Material, Program};
use crate::report::{self, Teller};
use crate::terminal::remark;

/// Whether, where and how the edited model is written.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Saving")]
pub(crate) struct SaveArguments {
    /// Where to; a setting, like the size of files.
    #[arg(skip)]
    save: Option<PathBuf>,

    #[arg(skip)]
    max_shard_size: Option<ShardSize>,

    /// What is noted beside the model; a setting.
    #[arg(skip)]
    material: Option<Material>,

    #[arg(skip)]
    circumstances: Option<Circumstances>,

    /// What is written; settings, too.
    #[arg(skip)]
    strategy: Option<ExportStrategy>,

    #[arg(skip)]
    adapter_kind: Option<AdapterKind>,

    #[arg(skip)]
    lora_rank: usize,

    /// How edited tensors of a quantized GGUF file are stored
    #[arg(long, value_enum, default_value_t = StoredAs::F16)]
    dequantized: StoredAs,

    /// Do not load the written model and score it once more
    #[arg(long)]
    no_check: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoredAs {
    F16,
    F32,
}

impl SaveArguments {
    /// The same with what the settings say.
    pub(crate) fn with(&self, program: &Program) -> anyhow::Result<Self> {
        let size = match &program.max_shard_size {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Ok(Self {
            save: program.save_directory.as_ref().map(PathBuf::from),
            max_shard_size: Some(size.parse().context("`max_shard_size`")?),
            material: program.upload_reproducibility_information,
            strategy: program.export_strategy,
            adapter_kind: program.adapter_kind,
            lora_rank: program.full_normalization_lora_rank,
            ..self.clone()
        })
    }

    /// Models that a command writes by itself, under these circumstances: files as large, tensors stored as told.
    pub(crate) fn by_itself(path: &Path, writing: Option<&Writing>) -> Self {
        let size = writing.and_then(|it| ShardSize::from_bytes(it.max_shard_bytes));
        let dequantized = writing.and_then(|it| StoredAs::from_str(&it.dequantized, true).ok());
        Self {
            save: Some(path.to_owned()),
            max_shard_size: size,
            material: Some(Material::None),
            circumstances: None,
            strategy: Some(ExportStrategy::Merge),
            adapter_kind: None,
            lora_rank: 0,
            dequantized: dequantized.unwrap_or(StoredAs::F16),
            no_check: true,
        }
    }

    /// The same with what is to be noted of how a model came about.
    pub(crate) fn under(self, circumstances: Circumstances) -> Self {
        Self { circumstances: Some(circumstances), ..self }
    }

    /// The same for a model that is brought to others.
    pub(crate) fn uploaded(self) -> Self {
        let circumstances = self.circumstances.map(|it| Circumstances { uploaded: true, ..it });
        Self { circumstances, ..self }
    }

    /// Whether nobody has said yet what is to be noted. (Only whole models are made again.)
    pub(crate) fn asks_for_material(&self) -> bool {
        self.material.is_none() && self.circumstances.is_some() && !self.writes_adapter()
    }

    /// Whether nobody has said yet what is to be written.
    pub(crate) fn asks_for_strategy(&self) -> bool {
        self.strategy.is_none()
    }

    /// The same, with this written.
    pub(crate) fn writing(self, strategy: ExportStrategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    fn writes_adapter(&self) -> bool {
        self.strategy == Some(ExportStrategy::Adapter)
    }

    /// The kind of adapter that is written of this model, if it is one.
    ///
    /// # Errors
    /// When the model cannot have the kind that was wanted.
    pub(crate) fn adapter(
        &self,
        model: &Model,
        normalization: RowNormalization,
    ) -> anyhow::Result<Option<AdapterKind>> {
        if !self.writes_adapter() {
            return Ok(None);
        }
        Ok(Some(AdapterKind::choose(self.adapter_kind, model, normalization)?))
    }

    /// The format of what is written of this model: a folder, or a GGUF file.
    pub(crate) fn format(&self, model: &Model, normalization: RowNormalization) -> anyhow::Result<Format> {
        Ok(match self.adapter(model, normalization)? {
            None => model.checkpoint.format(),
            Some(AdapterKind::Gguf) => Format::Gguf,
            Some(AdapterKind::Lora | AdapterKind::Dora) => Format::HuggingFace,
        })
    }

    /// Where a model or an adapter is written when this place is named.
    pub(crate) fn target(&self, session: &Session, wanted: &Path) -> anyhow::Result<PathBuf> {
        let adapter = self.adapter(&session.model, session.settings().row_normalization)?;
        Ok(match adapter {
            None => pipeline::export::target(session, wanted),
            Some(kind) => pipeline::adapter::target(kind, wanted),
        })
    }

    /// The same, with this noted.
    pub(crate) fn noting(self, material: Material) -> Self {
        Self { material: Some(material), ..self }
    }

    /// Whether a model is to be written.
    pub(crate) fn wanted(&self) -> bool {
        self.save.is_some()
    }

    /// Where to.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.save.as_deref()
    }

    /// The same, to another place.
    pub(crate) fn to(&self, path: &Path) -> Self {
        Self { save: Some(path.to_owned()), ..self.clone() }
    }

    /// What can be known before hours of work.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some(path) = &self.save else { return Ok(()) };
        let taken = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => path.exists(),
        };
        if taken {
            anyhow::bail!(
                "`{}` exists already\n\nhint: give --save another place, or remove it",
                path.display()
            );
        }
        Self::clear(path);
        Ok(())
    }

    /// Says what savings that were killed have left at the target, and removes it if nobody is writing it.
    fn clear(target: &Path) {
        let found = remove_leftovers(target);
        for path in found.removed {
            remark(&format!("removed `{}`: a saving that was killed had left it", path.display()));
        }
        for path in found.unknown {
            remark(&format!(
                "`{}` may be left of a saving that was killed; remove it if nothing is writing there",
                path.display()
            ));
        }
    }

    /// Writes the model or the adapter, if that is wanted, and scores what was written. The scores are for its card; `unseen` are
    /// those on prompts that the search did not see, if there are any.
    pub(crate) fn save(
        &self,
        session: &mut Session,
        parameters: &Parameters,
        scores: &[ScoreRecord],
        unseen: &[ScoreRecord],
        teller: &mut Teller,
    ) -> anyhow::Result<()> {
        let Some(path) = &self.save else { return Ok(()) };
        let scored = self.circumstances.as_ref().and_then(|it| it.weights.as_ref());
        if scored.is_some_and(|it| *it != pipeline::identity::digest_of_weights(&session.model.checkpoint)) {
            anyhow::bail!(
                "the files of `{}` have changed since its weights were loaded, so that what is written would not be what was \
                 scored\n\nhint: bring the files back, or begin a new study",
                session.model.checkpoint.path().display()
            );
        }
        let target = self.target(session, path)?;
        Self::clear(&target);
        let cancel = Cancel(&interrupt::requested);
        if let Some(kind) = self.adapter(&session.model, session.settings().row_normalization)? {
            if self.material.is_some_and(|it| it != Material::None) {
                remark("only whole models are made again: nothing is noted beside an adapter");
            }
            let adapting = Adapting { kind, rank: self.lora_rank, check: !self.no_check };
            return adapting.save(session, parameters, (scores, unseen), &target, teller);
        }
        let noting = self.circumstances.as_ref().and_then(|it| it.noting(session, self.material));
        let for_others = noting.as_ref().is_some_and(Noting::is_for_others);
        let card = pipeline::model_card(
            session,
            parameters,
            scores,
            unseen,
            Product::Model { reproducible: for_others },
        );
        let settings = Settings {
            max_shard_size: self.max_shard_size.unwrap_or_default(),
            dequantized: match self.dequantized {
                StoredAs::F16 => Dequantized::F16,
                StoredAs::F32 => Dequantized::F32,
            },
            model_card: Some(card.clone()),
        };
        let writing = Writing {
            max_shard_bytes: settings.max_shard_size.bytes(),
            dequantized: match self.dequantized {
                StoredAs::F16 => "f16",
                StoredAs::F32 => "f32",
            }
            .to_owned(),
        };
        let written =
            pipeline::save(session, parameters, &target, &settings, &mut |it| teller.tell(&it), &cancel)?;
        for file in &written.left_out {
            remark(&format!("not copied: {}", file.display()));
        }
        for (link, target) in &written.links_out {
            remark(&format!(
                "not copied: {} is a link that leads out of the model's folder, to {}; if that file belongs to the model, \
                 put a copy of it in place of the link",
                link.display(),
                target.display()
            ));
        }
        if let Some(method) = session.model.checkpoint.quantization() {
            remark(&format!(
                "the weights, quantized with {method}, are written as ordinary ones; quantize them anew with the tool that \
                 made them"
            ));
        }
        if session.model.checkpoint.format() == Format::Gguf {
            card_beside(&target, &card)?;
        }
        if let Some(noting) = noting {
            noting.write(session, parameters, scores, writing, &target)?;
        }
        if self.no_check {
            return Ok(());
        }
        let checkpoint = Checkpoint::open(&target)?;
        let needed = weights_in_memory(&checkpoint, session.model.engine.info().dtype)?;
        if let Some(free) = pipeline::free_memory().filter(|it| *it < needed) {
            remark(&format!(
                "not scored as written: another model of {} MiB does not fit into the {} MiB that are free",
                needed >> 20,
                free >> 20
            ));
            return Ok(());
        }
        // As the original was loaded, under the weights of the search: otherwise scores would be others.
        let compute = self.circumstances.as_ref().map(|it| it.compute.options());
        let quantize = session.model.engine.info().quantization;
        let options = LoadOptions { quantize, ..compute.transpose()?.unwrap_or_default() };
        let engine = Engine::load(&checkpoint, &options, &mut |_, _| {})?;
        // Prompts are put by the session's encoder; this one only reads answers.
        let plain = PromptSettings { format: PromptFormat::Plain, ..PromptSettings::default() };
        let encoder = PromptEncoder::from_checkpoint(&checkpoint, plain)?;
        let mut saved = Model { checkpoint, engine, encoder };
        let evaluation = session.evaluate_other(&mut saved, &mut |it| teller.tell(&it), &cancel)?;
        teller.done();
        let held = quantize.map_or(String::new(), |it| format!(", held in {} as the original", it.name()));
        remark(&format!("as written{held}: {}", report::summary(&evaluation.scores)));
        Ok(())
    }
}

/// What the weights of a model take when they are kept so, in bytes.
fn weights_in_memory(checkpoint: &Checkpoint, dtype: WeightDtype) -> anyhow::Result<u64> {
    let of_one = if dtype == WeightDtype::F32 { 4 } else { 2 };
    let mut numbers = 0;
    for name in checkpoint.names() {
        numbers += checkpoint.tensor(name)?.shape().iter().product::<usize>() as u64;
    }
    Ok(numbers * of_one)
}

/// Writes the card of a file, which has no place for one, under its name beside it.
pub(crate) fn card_beside(file: &Path, card: &str) -> anyhow::Result<()> {
    let beside = file.with_extension("md");
    std::fs::write(&beside, card).with_context(|| format!("writing `{}`", beside.display()))
}
