//! Whatever text a chat template is, and whatever it is asked to render: no panic, and the same text each time.
//!
//! What overflows the stack or takes memory without end in the template engine is bounded by a process of its own in the
//! program (`crates/cli/tests/hostile_templates.rs`), which a fuzzer cannot look into; here the length of the template and
//! the budget of work keep most of it away, and a crash in the engine is one to report there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prompts::{ChatTemplate, Message, RenderOptions, TemplateError};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The template, and behind a NUL what is said.
    let (source, said) = text.split_once('\0').unwrap_or((text, "Hi there"));
    if source.len() > 2000 {
        return;
    }
    let Ok(template) = ChatTemplate::new(source) else { return };
    let options = RenderOptions::default();
    let Ok(conventions) = template.conventions(&options) else { return };
    let conversation = [Message::system("Be nice."), Message::user(said)];
    match template.render_as(&conversation, &conventions, &options) {
        Ok(rendered) => {
            assert_eq!(template.render_as(&conversation, &conventions, &options).ok(), Some(rendered));
        }
        Err(TemplateError::Failed { reason, .. }) => assert!(!reason.contains("panicked"), "{reason}"),
        Err(_) => {}
    }
});
