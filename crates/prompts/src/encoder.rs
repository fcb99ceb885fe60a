//! From a prompt to the tokens that the model reads.
//!
//! A chat prompt goes through the model's chat template; what the template writes is encoded as it stands, because
//! the template brings the tokens that stand around a text. A plain prompt is encoded with those tokens around it,
//! once. A system prompt that the template does not take is put before the first user message, with an empty line
//! between.

use checkpoint::{Checkpoint, TextAssets};
use glossary::TokenId;
use serde_json::Value as Json;

use crate::template::fold_system;
use crate::{
    ChatTemplate, Message, RenderOptions, SpecialTokens, SystemRole, TemplateError, Tokenizer, TokenizerError,
};

/// How prompts are put to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptFormat {
    /// As the user's turn of a conversation, through the chat template.
    #[default]
    Chat,
    /// As a text to continue, for base models; a system prompt comes first, with an empty line after it.
    Plain,
}

/// What is decided before the first prompt is encoded.
#[derive(Clone, Debug, Default)]
pub struct PromptSettings {
    /// How prompts are put to the model.
    pub format: PromptFormat,
    /// The source of a template to use in place of the model's own.
    pub chat_template: Option<String>,
    /// Which of the model's templates, where it has several; `None` means the default one.
    pub template_name: Option<String>,
    /// What the template sees beside the messages. The tokenizer's named tokens are added to it.
    pub render: RenderOptions,
    /// Text with which every answer begins, put after the prompt.
    pub response_prefix: String,
}

/// A prompt on its way to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// What the person says; of a conversation, what was said last.
    pub prompt: String,
    /// The whole text that the model reads, the response prefix included.
    pub rendered: String,
    /// That text in tokens.
    pub ids: Vec<TokenId>,
}

/// Why a prompt could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A model's tokenizer together with the way prompts are put to it.
#[derive(Debug)]
pub struct PromptEncoder {
    tokenizer: Tokenizer,
    template: Option<(ChatTemplate, SystemRole)>,
    render: RenderOptions,
    response_prefix: String,
}

impl PromptEncoder {
    /// For a checkpoint.
    ///
    /// # Errors
    /// [`TemplateError::NoTemplate`] when the format is chat and neither the model nor the settings bring a template.
    pub fn from_checkpoint(checkpoint: &Checkpoint, settings: PromptSettings) -> Result<Self, EncodeError> {
        Self::new(checkpoint.assets(), checkpoint.config(), settings)
    }

    /// For what a checkpoint would hold. `config` is `config.json` or the flat metadata of a GGUF file.
    ///
    /// # Errors
    /// As [`Self::from_checkpoint`].
    pub fn new(assets: &TextAssets, config: &Json, settings: PromptSettings) -> Result<Self, EncodeError> {
        let tokenizer = Tokenizer::new(assets, config)?;
        let mut render = settings.render.clone();
        for (name, token) in tokenizer.named_tokens() {
            render.special_tokens.entry(name.clone()).or_insert_with(|| token.clone());
        }
        let template = match settings.format {
            PromptFormat::Plain => None,
            PromptFormat::Chat => {
                let template = ChatTemplate::new(template_source(assets, &settings)?)?;
                let system_role = template.system_role(&render);
                Some((template, system_role))
            }
        };
        Ok(Self { tokenizer, template, render, response_prefix: settings.response_prefix })
    }

    /// Text with which every answer begins from now on.
    pub fn set_response_prefix(&mut self, prefix: String) {
        self.response_prefix = prefix;
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How the model takes a system prompt; `None` for plain prompts.
    pub fn system_role(&self) -> Option<SystemRole> {
        self.template.as_ref().map(|it| it.1)
    }

    /// Encodes one prompt.
    pub fn encode_prompt(&self, prompt: &str, system: Option<&str>) -> Result<EncodedPrompt, EncodeError> {
        let mut conversation: Vec<Message> = system.map(Message::system).into_iter().collect();
        conversation.push(Message::user(prompt));
        self.encode_conversation(&conversation)
    }

    /// Encodes a conversation up to where the model is to speak.
    ///
    /// Plain prompts have no roles: what is said is put one after the other, with empty lines between.
    pub fn encode_conversation(&self, conversation: &[Message]) -> Result<EncodedPrompt, EncodeError> {
        let prompt = conversation.last().map(|it| it.content.clone()).unwrap_or_default();
        let (mut rendered, special) = match &self.template {
            None => {
                let said: Vec<&str> = conversation.iter().map(|it| it.content.as_str()).collect();
                (said.join("\n\n"), SpecialTokens::Add)
            }
            Some((template, SystemRole::Own)) => {
                (template.render(conversation, &self.render)?, SpecialTokens::None)
            }
            Some((template, SystemRole::Folded)) => {
                (template.render(&fold_system(conversation), &self.render)?, SpecialTokens::None)
            }
        };
        rendered.push_str(&self.response_prefix);
        let ids = self.tokenizer.encode(&rendered, special)?;
        Ok(EncodedPrompt { prompt, rendered, ids })
    }
}

/// The source of the template to use.
///
/// Among several of the model's own, tools ask for `tool_use`, as in the reference stack.
fn template_source<'a>(
    assets: &'a TextAssets,
    settings: &'a PromptSettings,
) -> Result<&'a str, TemplateError> {
    let named =
        |name: &str| assets.named_chat_templates.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    if let Some(source) = &settings.chat_template {
        return Ok(source);
    }
    if let Some(name) = &settings.template_name {
        return named(name).ok_or_else(|| TemplateError::UnknownName {
            name: name.clone(),
            known: assets.named_chat_templates.iter().map(|it| it.0.clone()).collect(),
        });
    }
    let for_tools = settings.render.tools.as_ref().and_then(|_| named("tool_use"));
    for_tools
        .or(assets.chat_template.as_deref())
        .or_else(|| named("default"))
        .ok_or(TemplateError::NoTemplate)
}
