//! What a template may use up.

use super::TemplateError;

/// The longest source of a template, in bytes. The longest of 231 real templates has 20 KB.
pub(super) const MAX_SOURCE: usize = 1 << 20;

/// The stack of the thread that compiles and renders, in bytes. 231 real templates render in the 8 MiB of a main thread.
pub(super) const STACK: usize = 64 << 20;

/// The memory of a process that renders, in bytes. It has 10 MB with a real template.
pub(super) const MEMORY: u64 = 512 << 20;

/// How long compiling, and rendering one conversation, may take, in seconds. Real ones take milliseconds; the rest is for
/// machines that are busy with something else.
pub(super) const SECONDS: u32 = 10;

/// Bytes of text that may be rendered of a conversation without any text.
const TEXT: usize = 1 << 20;

/// Bytes of text that may be rendered for each byte of the conversation: six where JSON escapes it, and room to say it
/// twice.
const TEXT_PER_BYTE: usize = 12;

/// Characters that are kept of a message of the template or of the engine.
const MESSAGE: usize = 1000;

/// Whether a source is short enough to be compiled.
pub(super) fn check_source(source: &str) -> Result<(), TemplateError> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::TooLong { bytes: source.len(), limit: MAX_SOURCE });
    }
    Ok(())
}

/// Whether a text is one that could have been rendered of a conversation (with everything that the template sees) of so
/// many bytes.
pub(super) fn check_rendered(text: &str, conversation: usize) -> Result<(), TemplateError> {
    let limit = TEXT.saturating_add(conversation.saturating_mul(TEXT_PER_BYTE));
    if text.len() > limit {
        return Err(TemplateError::TooMuchText { bytes: text.len(), limit });
    }
    Ok(())
}

/// The beginning of a message, which a template can make as long as it likes.
pub(super) fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("é".repeat(MESSAGE)), "é".repeat(MESSAGE));
        assert_eq!(shortened("é".repeat(MESSAGE + 1)), format!("{}…", "é".repeat(MESSAGE)));
    }

    #[test]
    fn rendered_text_has_to_be_in_proportion_to_the_conversation() {
        assert!(check_rendered(&"x".repeat(TEXT), 0).is_ok());
        let error = check_rendered(&"x".repeat(TEXT + 1), 0).unwrap_err();
        assert!(error.to_string().contains("1048577 bytes"), "{error}");
        assert!(check_rendered(&"x".repeat(TEXT + 1200), 100).is_ok());
    }
}
