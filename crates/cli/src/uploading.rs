//! Bringing the edited model to the hub.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::Format;
use hub::{Client, Kind, Repository, Upload};
use pipeline::Session;
use pipeline::reproduction::REPRODUCE;

use crate::fetching;
use crate::noting;
use crate::program::{ModelAction, Program};
use crate::saving::SaveArguments;
use crate::terminal::remark;

/// Where the model is to go.
pub(crate) struct Target {
    client: Client,
    repository: Repository,
    private: bool,
}

impl Target {
    /// What the settings say. Who we are is asked before the work: hours later would be late.
    pub(crate) fn of(program: &Program) -> anyhow::Result<Option<Self>> {
        let wanted = match program.model_action {
            Some(ModelAction::Save) => false,
            Some(ModelAction::Upload) => true,
            None => program.upload_repo_id.is_some(),
        };
        if !wanted {
            return Ok(None);
        }
        let id = program.upload_repo_id.as_ref();
        let id =
            id.context("`model_action` is upload, and no repository is named\n\nhint: set `upload_repo_id`")?;
        let client = fetching::client();
        let user = client.user()?;
        Self::new(client, &user, id, program.upload_repo_private).map(Some)
    }

    /// A repository, of this user if its name does not say whose.
    pub(crate) fn new(client: Client, user: &str, id: &str, private: bool) -> anyhow::Result<Self> {
        let whole = if id.contains('/') { id.to_owned() } else { format!("{user}/{id}") };
        let repository = Repository::new(Kind::Model, &whole)
            .with_context(|| format!("`{whole}` cannot be a repository's name\n\nhint: write OWNER/NAME"))?;
        Ok(Self { client, repository, private })
    }

    /// Uploads all files of a folder. When that fails, an error says how to do it later.
    pub(crate) fn send(&self, folder: &Path) -> anyhow::Result<()> {
        let upload =
            Upload { folder, private: self.private, message: "Upload the model as edited by ablate" };
        let uploaded = self.client.upload(&self.repository, &upload).inspect_err(|_| {
            let private = if self.private { " --private" } else { "" };
            remark(&format!(
                "not uploaded; the model is kept in `{}`. Later: hf upload{private} {} {} .",
                folder.display(),
                self.repository.id,
                quoted(folder)
            ));
        })?;
        let who = if self.private { "private" } else { "public" };
        remark(&format!("uploaded to {} ({who}), commit {}", uploaded.url, uploaded.commit));
        Ok(())
    }
}

/// How the name of a folder begins that is only uploaded.
const PREFIX: &str = "upload-";

/// A folder as an argument of a shell.
fn quoted(folder: &Path) -> String {
    let text = folder.display().to_string();
    let plain = text.chars().all(|it| it.is_alphanumeric() || "/._-+=:@".contains(it));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A place for what is only uploaded, beside the study; gone when dropped, unless the upload has failed.
pub(crate) struct Passing {
    folder: tempfile::TempDir,
    model: PathBuf,
    format: Format,
}

impl Passing {
    /// A place for what is written of this session's edited model.
    pub(crate) fn of(session: &Session, save: &SaveArguments, study: &Path) -> anyhow::Result<Self> {
        let beside = study.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for path in std::fs::read_dir(beside).into_iter().flatten().flatten().map(|it| it.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name.strip_prefix(PREFIX).is_some_and(|it| it.len() == 6) {
                remark(&format!(
                    "`{}` is left of an upload that failed or was killed; remove it if it is not needed",
                    path.display()
                ));
            }
        }
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(beside)
            .with_context(|| format!("making a folder in `{}`", beside.display()))?;
        let format = save.format(&session.model, session.settings().row_normalization)?;
        let model = match format {
            Format::Gguf => save.target(session, folder.path())?,
            // What is written makes its folder itself.
            Format::HuggingFace => folder.path().join("model"),
        };
        Ok(Self { folder, model, format })
    }

    /// Where the model is to be written.
    pub(crate) fn model(&self) -> &Path {
        &self.model
    }

    /// Uploads what was written. It took hours to make: when the upload fails it is kept.
    pub(crate) fn send(mut self, to: &Target) -> anyhow::Result<()> {
        let sent = match self.format {
            Format::Gguf => {
                names_of_the_hub(self.folder.path(), &self.model).and_then(|()| to.send(self.folder.path()))
            }
            Format::HuggingFace => to.send(&self.model),
        };
        if sent.is_err() {
            self.folder.disable_cleanup(true);
        }
        sent
    }
}

/// What lies beside a GGUF file under its name, brought where the hub looks for it: the card, and what is noted of how the
/// model came about.
fn names_of_the_hub(folder: &Path, file: &Path) -> anyhow::Result<()> {
    std::fs::rename(file.with_extension("md"), folder.join("README.md")).context("moving the card")?;
    let noted = noting::folder(Format::Gguf, file);
    if noted.exists() {
        std::fs::rename(&noted, folder.join(REPRODUCE))
            .with_context(|| format!("moving `{}`", noted.display()))?;
    }
    Ok(())
}
