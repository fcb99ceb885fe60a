//! `ablate evaluate`: every scorer's opinion of a model, or of fixed parameters.

use std::path::PathBuf;

use ablation::Parameters;
use anyhow::Context;
use pipeline::reproduction::Template;
use pipeline::{Calibration, Cancel, Evaluation, Model, PromptTexts, Session, Settings};
use prompts::Clock;
use serde_json::json;

use crate::configuration::Options;
use crate::fetching;
use crate::interrupt;
use crate::model::{ModelArguments, TemplateArguments, encoder, remark_date};
use crate::noting::Circumstances;
use crate::report;
use crate::saving::SaveArguments;
use crate::terminal::{Misuse, line};

/// Score a model against its original, or the model that fixed parameters make of it
///
/// Every scorer that needs no settings of its own is asked, unless --scorer names some.
///
/// Examples:
///   ablate evaluate EDITED --against ORIGINAL --refusal-prompts hard.txt --kl-prompts ordinary.txt
///   ablate evaluate MODEL --parameters trial.json --good-prompts good.txt --bad-prompts bad.txt \
///     --refusal-prompts hard.txt --kl-prompts ordinary.txt --save EDITED
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// The original model that MODEL is compared with
    #[arg(long, value_name = "MODEL", conflicts_with = "parameters")]
    against: Option<PathBuf>,

    /// JSON file with `direction_index` (a number, or null: each layer its own) and `abliteration_parameters`
    ///
    /// The latter has a profile for each component: `{"attn.o_proj": {"max_weight": 1.2, "max_weight_position": 20,
    /// "min_weight": 0.4, "min_weight_distance": 9}, "mlp.down_proj": {…}}`. `min_weight` is a strength, no fraction.
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,

    #[command(flatten)]
    template: TemplateArguments,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    save: SaveArguments,

    /// One JSON object: scores and objectives in full precision
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let base = json!({ "scorers": report::scorers_without_required_settings() });
    if arguments.against.is_none() && arguments.parameters.is_none() {
        return Err(Misuse::error(
            "evaluating needs something to compare with\n\n\
             hint: `ablate evaluate EDITED --against ORIGINAL`, or `ablate evaluate MODEL --parameters FILE`",
        ));
    }
    let told = arguments.options.resolve("evaluate", base.as_object().expect("written as one"))?;
    told.program.no_other_job()?;
    let mut settings = told.run.clone();
    if arguments.against.is_some() {
        // Two models are compared without directions; prompts for them are only asked for what answers begin with, and
        // those for scores are as good for that.
        for (set, prompts) in [
            (pipeline::settings::GOOD_PROMPTS, &mut settings.good_prompts),
            (pipeline::settings::BAD_PROMPTS, &mut settings.bad_prompts),
            (pipeline::settings::KEEP_PROMPTS, &mut settings.keep_prompts),
        ] {
            if !(told.user_set(&[set]) || told.user_set(&["preset"])) {
                *prompts = None;
            }
        }
    }
    let (model, save) = (arguments.model.with(&told.program)?, arguments.save.with(&told.program)?);
    let save = save.under(Circumstances {
        compute: model.compute().clone(),
        template: arguments.template.template()?,
        weights: None,
        study: None,
        uploaded: false,
    });
    let parameters = arguments.parameters.as_ref().map(|path| -> anyhow::Result<Parameters> {
        let text = files::read_text(path, files::SMALL)
            .with_context(|| format!("reading parameters from `{}`", path.display()))?;
        read_parameters(&text).with_context(|| format!("parameters `{}`", path.display()))
    });
    let parameters = parameters.transpose()?;
    // What is wrong with the scorers is better known before a model is loaded, and prompts that none of them asks for
    // need not be had.
    let needed = pipeline::evaluated_sets(&settings)?;
    for (set, prompts) in [
        (pipeline::settings::REFUSAL_PROMPTS, &mut settings.refusal_prompts),
        (pipeline::settings::KL_PROMPTS, &mut settings.kl_prompts),
    ] {
        if !(told.user_set(&[set]) || needed.iter().any(|it| it == set)) {
            *prompts = None;
        }
    }
    let client = fetching::client();
    let texts = PromptTexts::load(&mut settings, &client)?;
    let clock = settings.stop_clock(Clock::stopped_now())?;
    save.check()?;
    interrupt::listen()?;
    let cancel = Cancel(&interrupt::requested);
    let mut teller = report::Teller::new(report::Style::Remarks);
    let original = arguments.against.as_ref().map(|it| model.at(it));
    let template = arguments.template.template()?;
    let original = open(original.as_ref().unwrap_or(&model), &template, &settings, &clock)?;
    // What cannot be written is better known before anything is scored.
    save.format(&original, settings.row_normalization)?;
    remark_date(&original.encoder, &clock);
    let mut edited =
        arguments.against.as_ref().map(|_| open(&model, &template, &settings, &clock)).transpose()?;
    let mut session =
        Session::start(original, settings, texts, None, &mut |event| teller.tell(&event), &cancel)?;
    let evaluation = match (&mut edited, parameters) {
        (Some(edited), _) => session.evaluate_other(edited, &mut |it| teller.tell(&it), &cancel)?,
        (None, Some(parameters)) => {
            session.find_directions(&mut |event| teller.tell(&event), &cancel)?;
            let mut evaluations =
                session.evaluate(std::slice::from_ref(&parameters), &mut |it| teller.tell(&it), &cancel)?;
            let evaluation = evaluations.pop().context("no evaluation")??;
            save.save(&mut session, &parameters, &evaluation.scores, &[], &mut teller)?;
            evaluation
        }
        (None, None) => unreachable!("clap requires one of the two"),
    };
    teller.done();
    tell(&evaluation, session.calibration(), arguments.json)
}

/// Parameters as they are written down, or an error that knows what else people may have at hand.
fn read_parameters(text: &str) -> anyhow::Result<Parameters> {
    let whole = |it: &serde_json::Value| it.get("parameters").is_some();
    serde_json::from_str(text).map_err(|error| match serde_json::from_str(text) {
        Ok(other) if whole(&other) => Misuse::error(
            "this is a whole reproduction file\n\n\
             hint: `ablate reproduce FILE` makes its model; --parameters takes what stands under `parameters`",
        ),
        _ => error.into(),
    })
}

fn tell(evaluation: &Evaluation, calibration: &Calibration, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let object = json!({
            "scores": evaluation.scores, "objectives": evaluation.objectives, "calibration": calibration,
        });
        line(&object.to_string())?;
    } else {
        for text in report::score_table(&evaluation.scores, &[]) {
            line(&text)?;
        }
    }
    Ok(())
}

/// A model with its tokenizer and chat template.
fn open(
    arguments: &ModelArguments,
    template: &Template,
    settings: &Settings,
    clock: &Clock,
) -> anyhow::Result<Model> {
    let checkpoint = arguments.open()?;
    let encoder =
        encoder(template.clone(), settings.chat_template_kwargs.clone(), clock.clone(), &checkpoint)?;
    let engine = arguments.load(&checkpoint)?;
    Ok(Model { checkpoint, engine, encoder })
}
