//! `ablate chat`: a conversation with a model.

use engine::{Generation, Request};
use prompts::{Message, PromptEncoder};
use rustyline::error::ReadlineError;

use crate::interrupt;
use crate::model::{ModelArguments, TextArguments};
use crate::terminal::{line, piece, remark};

/// Talk to a model
///
/// Answers are greedy and appear as they are written. Ctrl-C stops an answer; Ctrl-C at the prompt, or Ctrl-D,
/// leaves. The model sees the whole conversation; `/reset` begins a new one.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    text: TextArguments,

    /// Longest answer, in tokens
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_tokens: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let checkpoint = arguments.model.open()?;
    let encoder = arguments.text.encoder(&checkpoint)?;
    let mut engine = arguments.model.load(&checkpoint)?;
    interrupt::listen()?;
    let how = Generation {
        max_tokens: arguments.max_tokens,
        stop_tokens: encoder.tokenizer().stop_tokens().to_vec(),
        ..Generation::default()
    };
    let beginning: Vec<Message> = arguments.text.system.iter().map(Message::system).collect();
    let mut conversation = beginning.clone();
    let mut editor = rustyline::DefaultEditor::new()?;
    loop {
        let said = match editor.readline("> ") {
            Ok(said) => said,
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
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
        let prompt = encoder.encode_conversation(&conversation)?;
        if let Some(length) = engine.info().context_length.filter(|&it| prompt.ids.len() >= it) {
            remark(&format!(
                "the conversation has {} tokens, the model was made for {length}; /reset begins a new one",
                prompt.ids.len()
            ));
        }
        let request = Request { tokens: prompt.ids, edit: 0 };
        let answer = stream(&mut engine, &encoder, &request, &how)?;
        if interrupt::take() {
            remark("(stopped)");
        }
        conversation.push(Message::assistant(answer));
    }
}

/// Answers and prints the answer while it is written.
fn stream(
    engine: &mut engine::Engine,
    encoder: &PromptEncoder,
    request: &Request,
    how: &Generation,
) -> anyhow::Result<String> {
    let mut decoder = encoder.tokenizer().decoder(true);
    let mut text = String::new();
    let mut failure: Option<anyhow::Error> = None;
    engine.generate(std::slice::from_ref(request), how, &mut |_, answer| {
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
    Ok(text)
}
