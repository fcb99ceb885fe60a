//! Noting beside a written model how it came about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ablation::Parameters;
use anyhow::Context;
use checkpoint::{Checkpoint, Format};
use pipeline::reproduction::{self, Making, REPRODUCE, Record, System, Template, Writing};
use pipeline::{ScoreRecord, Session};

use crate::model::ComputeArguments;
use crate::program::Material;
use crate::terminal::remark;

/// What a command knows of how its models come about.
#[derive(Clone)]
pub(crate) struct Circumstances {
    /// What is computed with.
    pub(crate) compute: ComputeArguments,
    /// How conversations are put.
    pub(crate) template: Template,
    /// The digest of the weights that scores were made with (`pipeline::identity`), where it is known.
    pub(crate) weights: Option<String>,
    /// The study, if there is one.
    pub(crate) study: Option<PathBuf>,
    /// Whether the model is brought to others.
    pub(crate) uploaded: bool,
}

/// What is to be noted of one model.
pub(crate) struct Noting<'a> {
    circumstances: &'a Circumstances,
    material: Material,
    for_others: bool,
}

impl Circumstances {
    /// What is to be noted, if anything; says what stands in the way.
    pub(crate) fn noting(&self, session: &Session, material: Option<Material>) -> Option<Noting<'_>> {
        let material = material.filter(|it| *it != Material::None)?;
        if session.model.checkpoint.is_adapted() {
            remark("nothing is noted of a model with an adapter: a reproduction file names no adapters");
            return None;
        }
        let obstacles = reproduction::obstacles(session);
        let for_others = obstacles.is_empty();
        if !for_others {
            let what = if self.uploaded { "nothing is noted" } else { "only noted for this machine" };
            remark(&format!("others cannot make this model again, {what}: {}", obstacles.join("; ")));
        }
        let wanted = for_others || !self.uploaded;
        wanted.then_some(Noting { circumstances: self, material, for_others })
    }
}

impl Noting<'_> {
    /// Whether others can make the model again.
    pub(crate) fn is_for_others(&self) -> bool {
        self.for_others
    }

    /// Writes the folder beside the model that was written.
    pub(crate) fn write(
        &self,
        session: &Session,
        parameters: &Parameters,
        scores: &[ScoreRecord],
        writing: Writing,
        target: &Path,
    ) -> anyhow::Result<()> {
        let making = Making {
            parameters,
            scores,
            machine: self.circumstances.compute.machine(&session.model.engine)?,
            system: (self.material == Material::Full).then(System::here),
            template: self.circumstances.template.clone(),
            writing,
            hashes: digests(target)?,
        };
        let record = Record::of(session, making)?;
        let folder = folder(session.model.checkpoint.format(), target);
        // A study tells where prompts lie on this machine.
        let study = self.circumstances.study.as_ref().filter(|_| self.for_others);
        let name = study.and_then(|it| it.file_name()).map(|it| it.to_string_lossy().into_owned());
        let written = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            for (name, text) in reproduction::folder_files(&record, name.as_deref())? {
                std::fs::write(folder.join(name), text)?;
            }
            if let (Some(study), Some(name)) = (study, &name) {
                std::fs::copy(study, folder.join(name))?;
            }
            Ok(())
        };
        written().with_context(|| format!("writing `{}`", folder.display()))?;
        remark(&format!("how to make it again: {}", folder.display()));
        Ok(())
    }
}

/// The folder of what is noted of a model: in its folder, or beside its GGUF file under the file's name.
pub(crate) fn folder(format: Format, model: &Path) -> PathBuf {
    match format {
        Format::HuggingFace => model.join(REPRODUCE),
        Format::Gguf => model.with_extension(REPRODUCE),
    }
}

/// The SHA-256 of each file of a model's weights, by its name.
pub(crate) fn digests(model: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let checkpoint = Checkpoint::open(model)?;
    let digest = |it: &Path| {
        let name = it.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
        Ok((name, hub::sha256_of_file(it)?))
    };
    checkpoint.weight_files().into_iter().map(digest).collect()
}
