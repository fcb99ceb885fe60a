//! The program `ablate`: arguments, commands, and the only room that prints.

mod adapting;
mod commands;
mod configuration;
mod conversation;
mod fetching;
mod interrupt;
mod menu;
mod model;
mod naming;
mod noting;
mod overflow;
mod program;
mod report;
mod saving;
mod terminal;
mod uploading;
mod with_adapters;

use clap::Parser;

/// Removes an unwanted behaviour from an open-weight language model, exactly and fast.
///
/// A MODEL is a Hugging Face folder (config.json, *.safetensors, tokenizer.json), a GGUF file, or a repository of the
/// hub (owner/name, owner/name/file.gguf).
#[derive(Parser)]
#[command(name = "ablate", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Run(commands::run::Arguments),
    Evaluate(commands::evaluate::Arguments),
    Settings(commands::settings::Arguments),
    Reproduce(commands::reproduce::Arguments),
    Collect(commands::collect::Arguments),
    Study(commands::study::Arguments),
    Scorers(commands::scorers::Arguments),
    Demo(commands::demo::Arguments),
    Generate(commands::generate::Arguments),
    Chat(commands::chat::Arguments),
    Bench(commands::bench::Arguments),
    /// Runs a scorer's program and ends it with the run that wants it; not for people
    #[command(name = SUPERVISE, hide = true, disable_help_flag = true)]
    Supervise {
        /// The number of the process that wants it, the program, its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
}

/// The command that this program calls itself with to run a scorer's program.
const SUPERVISE: &str = "supervise-scorer";

fn main() -> std::process::ExitCode {
    if model::renders_templates() {
        prompts::serve_templates();
        return std::process::ExitCode::SUCCESS;
    }
    terminal::report_panics();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return terminal::report_usage(&error),
    };
    if let Ok(own) = model::this_program() {
        scorers::use_supervisor(vec![own.into(), SUPERVISE.into()]);
    }
    let result = match arguments.command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(&arguments),
        Command::Settings(arguments) => commands::settings::run(&arguments),
        Command::Reproduce(arguments) => commands::reproduce::run(&arguments),
        Command::Collect(arguments) => commands::collect::run(&arguments),
        Command::Study(arguments) => commands::study::run(&arguments),
        Command::Scorers(arguments) => commands::scorers::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Chat(arguments) => commands::chat::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Supervise { words } => return scorers::supervise(&words),
    };
    match result {
        Ok(()) if interrupt::requested() => std::process::ExitCode::from(interrupt::exit_code()),
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) if interrupt::was_cause(&error) => {
            terminal::remark("interrupted");
            std::process::ExitCode::from(interrupt::exit_code())
        }
        Err(error) => terminal::report(&error),
    }
}
