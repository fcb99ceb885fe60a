//! Compares what this program makes of configurations with what transformers does, as `tools/config_variants.py` has
//! written it down.
//!
//! `cargo run --example compare_configs -p ablate-engine -- FOLDER`: a line for each that is read otherwise.

use std::path::Path;

use checkpoint::Checkpoint;
use engine::backend::WeightDtype;
use engine::{Device, DtypeChoice, Engine, Generation, LoadOptions, Request};
use glossary::TokenId;
use serde_json::Value;

/// Logits that differ by more than this part of the largest are of another model.
const RELATIVE: f32 = 1e-3;

/// The logits at the last token of each prompt.
fn logits(folder: &Path, prompts: &Value) -> Result<Vec<Vec<f32>>, String> {
    let checkpoint = Checkpoint::open(folder).map_err(|error| error.to_string())?;
    let dtype = DtypeChoice::Fixed(WeightDtype::F32);
    let options = LoadOptions { device: Device::Cpu, dtype, threads: 1, ..LoadOptions::default() };
    let mut engine =
        Engine::load(&checkpoint, &options, &mut |_, _| {}).map_err(|error| error.to_string())?;
    let token = |it: &Value| TokenId(it.as_u64().unwrap_or(0) as u32);
    let prompts = prompts.as_array().into_iter().flatten();
    let requests: Vec<Request> = prompts
        .map(|it| Request { tokens: it.as_array().into_iter().flatten().map(token).collect(), edit: 0 })
        .collect();
    let how = Generation { max_tokens: 1, logits: true, ..Generation::default() };
    let answers = engine.generate(&requests, &how, &mut |_, _| false).map_err(|error| error.to_string())?;
    Ok(answers.into_iter().filter_map(|it| it.first_token.map(|it| it.logits)).collect())
}

/// The largest difference as a part of the largest logit.
fn difference(found: &[Vec<f32>], expected: &Value) -> f32 {
    let mut worst = 0.0_f32;
    for (found, expected) in found.iter().zip(expected.as_array().into_iter().flatten()) {
        let expected: Vec<f32> =
            expected.as_array().into_iter().flatten().map(|it| it.as_f64().unwrap_or(0.0) as f32).collect();
        let largest = expected.iter().fold(0.0_f32, |most, it| most.max(it.abs()));
        let by = found.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        worst = worst.max(by / largest.max(f32::MIN_POSITIVE));
    }
    worst
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os().nth(1).ok_or("name the folder that tools/config_variants.py wrote")?;
    let mut folders: Vec<_> =
        std::fs::read_dir(root)?.map(|it| it.map(|it| it.path())).collect::<Result<_, _>>()?;
    folders.sort();
    let mut counts = [0; 4];
    for folder in folders {
        let record: Value = serde_json::from_slice(&std::fs::read(folder.join("variant.json"))?)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let missing = record["info"]["missing_keys"].as_array().is_some_and(|it| !it.is_empty());
        let theirs = match record["error"].as_str() {
            Some(error) => Err(error),
            // What is missing is drawn at random there.
            None if missing => Err("tensors are missing"),
            None => Ok(&record["logits"]),
        };
        let (kind, line) = match (logits(&folder, &record["prompts"]), theirs) {
            (Ok(found), Ok(expected)) => match difference(&found, expected) {
                by if by <= RELATIVE => (0, None),
                by => (1, Some(format!("differs by {by}, matters there: {}", record["matters"]))),
            },
            (Err(ours), Ok(_)) => (2, Some(format!("refused: {}", ours.lines().next().unwrap_or_default()))),
            (Ok(_), Err(theirs)) => (3, Some(format!("read here, not there: {theirs}"))),
            (Err(_), Err(_)) => (0, None),
        };
        counts[kind] += 1;
        if let Some(line) = line {
            #[expect(clippy::print_stdout, reason = "a tool for a terminal")]
            {
                println!("{name}: {line}");
            }
        }
    }
    #[expect(clippy::print_stdout, reason = "a tool for a terminal")]
    {
        let [same, other, refused, more] = counts;
        println!(
            "{same} alike, {other} read otherwise, {refused} refused here alone, {more} read here alone"
        );
    }
    Ok(())
}
