//! Text in: prompt files, chat templates, tokenizers.
//!
//! This room turns what a person writes into the tokens that a model reads, and tokens back into text. It knows
//! no tensors, no model and no terminal. Files are read only by [`sources`]; the clock only when a template asks
//! for the date, and then through [`Clock`].
//!
//! The main path, in order:
//!
//! ```text
//! sources::open("prompts.txt[:400]")? .load()?                    -> Vec<String>
//! PromptEncoder::from_checkpoint(&checkpoint, PromptSettings)?    chat template and tokenizer together
//!     .encode_prompt(prompt, system)?                             -> EncodedPrompt { prompt, rendered, ids }
//!     .encode_conversation(&[Message])?                           -> EncodedPrompt
//!     .tokenizer()                                                -> &Tokenizer
//! Tokenizer::from_checkpoint(&checkpoint)?
//!     .encode(text, SpecialTokens::{Add, None})?                  -> Vec<TokenId>
//!     .decode(&ids, skip_special)?                                -> String
//!     .decoder(skip_special) .push(id)? .finish()?                text of an answer while it is written
//!     .stop_tokens()                                              -> &[TokenId]
//! ChatTemplate::isolated(source, &Isolation)?
//!     .conventions(&RenderOptions)?                               -> Conventions: texts or parts, system or none
//!     .render_as(&[Message], &Conventions, &RenderOptions)?       -> String
//!     .render(&[Message], &RenderOptions)?                        -> String
//!     .render_json(&[Value], &RenderOptions)?                     tool calls, content in parts, reasoning
//! ```

mod contained;
mod encoder;
mod message;
pub mod sources;
mod template;
mod tokenizer;

pub use encoder::{EncodeError, EncodedPrompt, PromptEncoder, PromptFormat, PromptSettings};
pub use message::{Message, Role};
pub use template::{
    ChatTemplate, Clock, ClockError, ContentForm, Conventions, FUEL, Isolation, RenderOptions, StopReason,
    SystemRole, TemplateError, fold_system, serve_templates,
};
pub use tokenizer::{Decoder, SpecialTokens, Tokenizer, TokenizerError};
