//! What is put around a plain text.

use std::collections::BTreeMap;

use checkpoint::TextAssets;
use serde_json::Value as Json;
use tokenizers::Tokenizer;
use tokenizers::processors::template::TemplateProcessing;

use super::TokenizerError;

/// What is put around a plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(super) begin: Option<String>,
    pub(super) end: Option<String>,
}

impl Frame {
    /// What the settings put around a text, if they say so; else `tokenizer.json` knows.
    ///
    /// Saying it of one end says it of both.
    pub(super) fn of_settings(assets: &TextAssets, named: &BTreeMap<String, String>) -> Option<Self> {
        let settings = assets.tokenizer_config.as_ref()?;
        let (begin, end) = (settings.get("add_bos_token"), settings.get("add_eos_token"));
        if begin.is_none() && end.is_none() {
            return None;
        }
        let token = |wanted: Option<&Json>, name: &str| {
            wanted.and_then(Json::as_bool).unwrap_or(false).then(|| named.get(name).cloned()).flatten()
        };
        Some(Self { begin: token(begin, "bos_token"), end: token(end, "eos_token") })
    }

    /// Has the engine put it there.
    pub(super) fn add(&self, engine: &mut Tokenizer) -> Result<(), TokenizerError> {
        let fail = |reason: String| TokenizerError::Build { reason };
        let mut template = Vec::new();
        template.extend(self.begin.clone());
        template.push("$A".to_owned());
        template.extend(self.end.clone());
        let tokens = [&self.begin, &self.end]
            .into_iter()
            .flatten()
            .map(|token| {
                let id = engine.token_to_id(token);
                id.map(|id| (token.clone(), id))
                    .ok_or_else(|| fail(format!("`{token}` is not in the vocabulary")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let processor = TemplateProcessing::builder()
            .try_single(template)
            .map_err(fail)?
            .special_tokens(tokens)
            .build()
            .map_err(|it| fail(it.to_string()))?;
        engine.with_post_processor(Some(processor));
        Ok(())
    }
}
