//! From a prompt to the tokens that the model reads.
//!
//! A chat prompt goes through the model's chat template; what the template writes is encoded as it stands, because
//! the template brings the tokens that stand around a text. A plain prompt is encoded with those tokens around it,
//! once. A system prompt that the template does not take is put before the first user message, with an empty line
//! between.

use checkpoint::{Checkpoint, TextAssets};
use glossary::TokenId;
use serde_json::Value as Json;

use crate::{
    ChatTemplate, Conventions, Isolation, Message, RenderOptions, SpecialTokens, SystemRole, TemplateError,
    Tokenizer, TokenizerError,
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
    /// Where the template runs.
    pub isolation: Isolation,
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
    template: Option<(ChatTemplate, Conventions)>,
    template_source: Option<String>,
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
        let (template, template_source) = match settings.format {
            PromptFormat::Plain => (None, None),
            PromptFormat::Chat => {
                render.check_variables()?;
                let (source, name) = template_source(assets, &settings)?;
                let template = ChatTemplate::isolated(source, &settings.isolation)?.named(name);
                let conventions = template.conventions(&render)?;
                (Some((template, conventions)), Some(source.to_owned()))
            }
        };
        let response_prefix = settings.response_prefix;
        Ok(Self { tokenizer, template, template_source, render, response_prefix })
    }

    /// Text with which every answer begins from now on.
    pub fn set_response_prefix(&mut self, prefix: String) {
        self.response_prefix = prefix;
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The source of the chat template that renders prompts; `None` for plain prompts.
    pub fn template_source(&self) -> Option<&str> {
        self.template_source.as_deref()
    }

    /// Whether the chat template may print the date: whether it names `strftime_now`.
    pub fn reads_clock(&self) -> bool {
        self.template_source().is_some_and(|it| it.contains("strftime_now"))
    }

    /// How the model takes a system prompt; `None` for plain prompts.
    pub fn system_role(&self) -> Option<SystemRole> {
        self.template.as_ref().map(|it| it.1.system_role())
    }

    /// The variable with which the chat template can be told not to let the model think, if it has one that is not set.
    ///
    /// It is tried with this prompt: a variable that the template has changes what is rendered.
    pub fn thinking_variable(&self, prompt: &str) -> Option<String> {
        let (template, conventions) = self.template.as_ref()?;
        let conversation = [Message::user(prompt)];
        let rendered = |options: &RenderOptions| template.render_as(&conversation, conventions, options).ok();
        let now = rendered(&self.render)?;
        let changes = |name: &&str| {
            let mut options = self.render.clone();
            options.variables.insert((*name).to_owned(), Json::Bool(false)).is_none()
                && rendered(&options).is_some_and(|it| it != now)
        };
        THINKING.into_iter().find(changes).map(str::to_owned)
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
            Some((template, conventions)) => {
                (template.render_as(conversation, conventions, &self.render)?, SpecialTokens::None)
            }
        };
        rendered.push_str(&self.response_prefix);
        let ids = self.tokenizer.encode(&rendered, special)?;
        Ok(EncodedPrompt { prompt, rendered, ids })
    }
}

/// What templates call the variable that says whether the model thinks.
const THINKING: [&str; 3] = ["enable_thinking", "thinking", "enable_reasoning"];

/// The source of the template to use, and what errors call it.
///
/// Among several of the model's own, tools ask for `tool_use`, as in the reference stack.
fn template_source<'a>(
    assets: &'a TextAssets,
    settings: &'a PromptSettings,
) -> Result<(&'a str, String), TemplateError> {
    let own = "the model's chat template";
    let named = |name: &str| {
        let found = assets.named_chat_templates.iter().find(|it| it.0 == name)?;
        Some((found.1.as_str(), format!("{own} `{name}`")))
    };
    if let Some(source) = &settings.chat_template {
        return Ok((source, "the chat template that was given".to_owned()));
    }
    if let Some(name) = &settings.template_name {
        return named(name).ok_or_else(|| TemplateError::UnknownName {
            name: name.clone(),
            known: assets.named_chat_templates.iter().map(|it| it.0.clone()).collect(),
        });
    }
    let for_tools = settings.render.tools.as_ref().and_then(|_| named("tool_use"));
    for_tools
        .or_else(|| assets.chat_template.as_deref().map(|it| (it, own.to_owned())))
        .or_else(|| named("default"))
        .ok_or(TemplateError::NoTemplate)
}
