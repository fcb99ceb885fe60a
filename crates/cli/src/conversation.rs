//! A conversation at the terminal.

use engine::{Conversation, Generation};
use glossary::TokenId;
use pipeline::Model;
use prompts::Message;
use rustyline::error::ReadlineError;

use crate::interrupt;
use crate::overflow;
use crate::terminal::{line, piece, remark};

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The model as it is.
    Original,
    /// The edit set that is set.
    Edited,
    /// The edit set; then, for comparison, the original.
    Both,
}

/// Talks until the user leaves.
pub(crate) fn hold(model: &mut Model, system: &str, max_tokens: usize, voice: Voice) -> anyhow::Result<()> {
    let how = Generation {
        max_tokens,
        stop_tokens: model.encoder.tokenizer().stop_tokens().to_vec(),
        ..Generation::default()
    };
    let beginning: Vec<Message> =
        Some(system).filter(|it| !it.is_empty()).map(Message::system).into_iter().collect();
    let mut conversation = beginning.clone();
    let mut spoken = model.engine.converse(usize::from(voice != Voice::Original));
    let mut compared = model.engine.converse(0);
    let mut editor = rustyline::DefaultEditor::new()?;
    loop {
        let said = match editor.readline("> ") {
            Ok(said) => said,
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        match said.trim() {
            "" => continue,
            "/reset" => {
                conversation.clone_from(&beginning);
                remark("a new conversation");
                continue;
            }
            said => {
                editor.add_history_entry(said)?;
                conversation.push(Message::user(said));
            }
        }
        let prompt = model.encoder.encode_conversation(&conversation)?;
        if let Some(length) = model.engine.info().context_length.filter(|&it| prompt.ids.len() >= it) {
            remark(&format!(
                "the conversation has {} tokens, the model was made for {length}; /reset begins a new one",
                prompt.ids.len()
            ));
        }
        let answer = stream(model, &mut spoken, &prompt.ids, &how)?;
        if !interrupt::take() && voice == Voice::Both {
            remark("-- the original:");
            stream(model, &mut compared, &prompt.ids, &how)?;
            interrupt::take();
        }
        conversation.push(Message::assistant(answer));
    }
    model.engine.end(spoken);
    model.engine.end(compared);
    Ok(())
}

/// Answers and prints the answer while it is written.
fn stream(
    model: &mut Model,
    conversation: &mut Conversation,
    prompt: &[TokenId],
    how: &Generation,
) -> anyhow::Result<String> {
    let Model { engine, encoder, .. } = model;
    let mut decoder = encoder.tokenizer().decoder(true);
    let mut text = String::new();
    let mut failure: Option<anyhow::Error> = None;
    let answer = engine.reply(conversation, prompt, how, &mut |answer| {
        let Some(&last) = answer.last() else { return false };
        let told = decoder.push(last).map_err(anyhow::Error::from).and_then(|new| {
            text.push_str(&new);
            Ok(piece(&new)?)
        });
        if let Err(error) = told {
            failure = Some(error);
        }
        failure.is_some() || interrupt::requested()
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let rest = decoder.finish()?;
    text.push_str(&rest);
    line(&rest)?;
    if let Err(error) = overflow::check(std::slice::from_ref(&answer), engine.info().dtype.name()) {
        remark(&error.to_string());
    }
    if interrupt::requested() {
        remark("(stopped)");
    }
    Ok(text)
}
