//! A model with its text side: what turns prompts into tokens and answers into text.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::Checkpoint;
use engine::{Engine, LogitRules};
use glossary::TokenId;
use hub::Client;
use prompts::{EncodedPrompt, PromptEncoder, sources};

use crate::settings::PromptSetSettings;
use crate::{PipelineError, Settings};

/// A loaded model, its files and its tokenizer.
pub struct Model {
    /// The files.
    pub checkpoint: Checkpoint,
    /// The weights, ready to compute.
    pub engine: Engine,
    /// The chat template and the tokenizer.
    pub encoder: PromptEncoder,
}

impl Model {
    /// What others know it by: its repository on the hub with the commit, or the last part of its path.
    pub(crate) fn name_and_commit(&self) -> (String, Option<String>) {
        name_and_commit(self.checkpoint.path())
    }

    /// Has answers obey the model's own settings of generation, or not; the names of the rules that there are.
    pub fn obey_generation_config(&mut self, obey: bool) -> Result<Vec<String>, PipelineError> {
        let config = self.checkpoint.assets().generation_config.as_ref().filter(|_| obey);
        let rules = config.map(LogitRules::from_generation_config).transpose()?.unwrap_or_default();
        let names = rules.names();
        self.engine.obey(rules);
        Ok(names)
    }

    /// The text of an answer, without special tokens.
    pub fn text(&self, answer: &[TokenId]) -> Result<String, PipelineError> {
        Ok(self.encoder.tokenizer().decode(answer, true)?)
    }

    /// Puts the prompts of a set as the settings say.
    pub(crate) fn encode(
        &self,
        set: &PromptSetSettings,
        settings: &Settings,
        texts: &[String],
    ) -> Result<Vec<EncodedPrompt>, PipelineError> {
        let system = set.system_prompt.as_ref().unwrap_or(&settings.system_prompt);
        let system = Some(system.as_str()).filter(|it| !it.is_empty());
        texts.iter().map(|it| Ok(self.encoder.encode_prompt(&set.put(it), system)?)).collect()
    }
}

/// What others know a model by: its repository on the hub with the commit, or the last part of its path.
pub(crate) fn name_and_commit(path: &Path) -> (String, Option<String>) {
    match hub::Repository::of_cached(path) {
        Some((repository, commit)) => (repository.id, Some(commit)),
        None => (path.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned()), None),
    }
}

/// The prompts of all sets by name, without prefix and suffix. Read once: a source may be a pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptTexts(BTreeMap<String, Vec<String>>);

impl PromptTexts {
    /// Reads the prompts of all sets, and notes the commits of those that are on the hub, so that the same prompts can
    /// be had again.
    pub fn load(settings: &mut Settings, client: &Client) -> Result<Self, PipelineError> {
        let names: Vec<String> = settings.sets().map(|it| it.0.to_owned()).collect();
        let mut texts = BTreeMap::new();
        for name in names {
            let set = settings.set_mut(&name);
            let mut source = set.source();
            let read = source.pin(client).and_then(|_| sources::open_with(source.clone(), client)?.load());
            let read = read.map_err(|source| PipelineError::Prompts { set: name.clone(), source })?;
            set.commit = source.commit;
            texts.insert(name, read);
        }
        Ok(Self(texts))
    }

    /// The prompts of one set.
    pub fn of(&self, name: &str) -> Result<&[String], PipelineError> {
        self.0.get(name).map(Vec::as_slice).ok_or_else(|| PipelineError::UnknownSet {
            set: name.to_owned(),
            known: self.0.keys().cloned().collect(),
        })
    }

    /// All sets by name.
    pub fn sets(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, prompts)| (name.as_str(), prompts.as_slice()))
    }

    /// The same with the prompts of some sets replaced.
    #[must_use]
    pub(crate) fn with(&self, sets: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let mut all = self.clone();
        all.0.extend(sets);
        all
    }

    /// All prompts of all sets.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values().flatten()
    }
}
