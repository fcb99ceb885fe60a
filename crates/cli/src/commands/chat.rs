//! `ablate chat`: a conversation with a model.

use pipeline::Model;

use crate::conversation::{self, Voice};
use crate::interrupt;
use crate::model::{ModelArguments, QuantizeArgument, TextArguments};

/// Talk to a model
///
/// Answers are greedy and appear as they are written. Ctrl-C stops an answer; Ctrl-C at the prompt, or Ctrl-D,
/// leaves. The model sees the whole conversation; `/reset` begins a new one.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    quantize: QuantizeArgument,

    #[command(flatten)]
    text: TextArguments,

    /// Longest answer, in tokens
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_tokens: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.model.quantized(arguments.quantize);
    let checkpoint = model.open()?;
    let encoder = arguments.text.encoder(&checkpoint)?;
    let mut engine = model.load(&checkpoint)?;
    arguments.text.obey(&checkpoint, &mut engine)?;
    interrupt::listen()?;
    let mut model = Model { checkpoint, engine, encoder };
    let system = arguments.text.system.as_deref().unwrap_or_default();
    conversation::hold(&mut model, system, arguments.max_tokens, Voice::Original)
}
