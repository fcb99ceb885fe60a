//! Our samplers on the problems of `tools/optuna_compare.py`, one JSON line per run; see there for what they are.
//!
//! ```text
//! cargo run --release -p ablate-search --example compare -- --seeds 10 [--problems zdt1 …] [--samplers k1 k8 …]
//! cargo run --release -p ablate-search --example compare -- --points     values to check the problems by
//! cargo run --release -p ablate-search --example compare -- --timing     how long one ask takes
//! ```
#![expect(clippy::print_stdout, reason = "an example's output is what it is for")]

use std::f64::consts::PI;
use std::time::Instant;

use search::hypervolume::hypervolume;
use search::samplers::{Nsga2, Proposals, Random, Tpe};
use search::{Assignment, Attributes, Distribution, Objective, Parameter, Sampler, Search, Space, Study};
use serde_json::json;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const PROBLEMS: [&str; 5] = ["zdt1", "zdt2", "dtlz2", "edit_a", "edit_b"];
const SAMPLERS: [&str; 2] = ["k1", "k8"];
const TRIALS: usize = 200;
const LAYERS: usize = 32;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let list = |name: &str, default: &[&str]| -> Vec<String> {
        let given =
            arguments.iter().skip_while(|it| *it != name).skip(1).take_while(|it| !it.starts_with("--"));
        let given: Vec<String> = given.cloned().collect();
        if given.is_empty() { default.iter().map(|it| (*it).to_owned()).collect() } else { given }
    };
    if arguments.iter().any(|it| it == "--points") {
        return points();
    }
    if arguments.iter().any(|it| it == "--timing") {
        return timing();
    }
    let seeds: u64 = list("--seeds", &["10"])[0].parse()?;
    for problem in list("--problems", &PROBLEMS) {
        for sampler in list("--samplers", &SAMPLERS) {
            for seed in 0..seeds {
                let start = Instant::now();
                let study = run(&problem, &sampler, seed)?;
                let values: Vec<&Vec<f64>> =
                    study.trials().iter().filter_map(|it| it.values.as_ref()).collect();
                let volume = hypervolume(&values, reference(&problem));
                let run = json!({
                    "problem": problem,
                    "sampler": format!("ours {sampler}"),
                    "seed": seed,
                    "hypervolume": volume,
                    "seconds": start.elapsed().as_secs_f64(),
                });
                println!("{run}");
            }
        }
    }
    Ok(())
}

/// A sampler and a batch size, by name: a mode of the estimator, then `k` and the batch size.
fn named_sampler(name: &str) -> Fallible<(Box<dyn Sampler>, usize)> {
    let (mode, batch) = name.rsplit_once('k').ok_or("a sampler's name ends with k and the batch size")?;
    let tpe = |proposals, n_startup_trials| -> Box<dyn Sampler> {
        Box::new(Tpe { proposals, n_startup_trials, ..Tpe::default() })
    };
    let sampler = match mode {
        "" => tpe(Proposals::Multivariate, 60),
        "univariate-" => tpe(Proposals::Univariate, 60),
        "alternating-" => tpe(Proposals::Alternating, 60),
        "alternating20-" => tpe(Proposals::Alternating, 20),
        "nsga2-" => Box::new(Nsga2::default()),
        "random-" => Box::new(Random),
        _ => return Err(format!("no sampler `{mode}`").into()),
    };
    Ok((sampler, batch.parse()?))
}

fn run(problem: &str, sampler: &str, seed: u64) -> Fallible<Study> {
    let space = space(problem)?;
    let (sampler, batch) = named_sampler(sampler)?;
    let mut study = Study::in_memory(problem, &objectives(problem))?;
    let search = Search { sampler: &*sampler, space: &space, seed, batch };
    while study.trials().len() < TRIALS {
        for trial in study.ask_batch(&search, TRIALS)? {
            study.tell(trial.number, &evaluate(problem, &trial.assignment)?, Attributes::new())?;
        }
    }
    Ok(study)
}

fn reference(problem: &str) -> &'static [f64] {
    match problem {
        "zdt1" => &[1.1, 5.0],
        "zdt2" => &[1.1, 6.0],
        "dtlz2" => &[2.0, 2.0, 2.0],
        _ => &[1.0, 1.0],
    }
}

fn objectives(problem: &str) -> Vec<Objective> {
    (0..reference(problem).len()).map(|it| Objective::minimize(format!("f{it}"))).collect()
}

const COMPONENTS: [&str; 2] = ["attn.o_proj", "mlp.down_proj"];

fn space(problem: &str) -> Fallible<Space> {
    let unit = |count| {
        (0..count).map(|it| Parameter::new(format!("x{it}"), Distribution::float(0.0, 1.0))).collect()
    };
    let parameters = match problem {
        "zdt1" | "zdt2" => unit(10),
        "dtlz2" => unit(7),
        "edit_a" | "edit_b" => {
            let last = (LAYERS - 1) as f64;
            let mut parameters = vec![
                Parameter::new("direction_scope", Distribution::categorical(["global", "per layer"])),
                Parameter::new("direction_index", Distribution::float(0.4 * last, 0.9 * last)),
            ];
            for (component, least) in COMPONENTS.into_iter().zip([0.8, -0.25]) {
                let float = |name: &str, low, high| {
                    Parameter::new(format!("{component}.{name}"), Distribution::float(low, high))
                };
                parameters.extend([
                    float("max_weight", least, 1.5),
                    float("max_weight_position", 0.6 * last, last),
                    float("min_weight", 0.0, 1.0),
                    float("min_weight_distance", 1.0, 0.6 * last),
                ]);
            }
            parameters
        }
        _ => return Err(format!("no problem `{problem}`").into()),
    };
    Ok(Space::new(parameters)?)
}

fn evaluate(problem: &str, it: &Assignment) -> Fallible<Vec<f64>> {
    let x: Vec<f64> = it.iter().map(|(_, value)| value).collect();
    Ok(match problem {
        "zdt1" | "zdt2" => {
            let g = 1.0 + x[1..].iter().sum::<f64>();
            let ratio = x[0] / g;
            vec![x[0], g * (1.0 - if problem == "zdt1" { ratio.sqrt() } else { ratio * ratio })]
        }
        "dtlz2" => {
            let g: f64 = x[2..].iter().map(|it| (it - 0.5).powi(2)).sum();
            let (a, b) = (x[0] * PI / 2.0, x[1] * PI / 2.0);
            vec![(1.0 + g) * a.cos() * b.cos(), (1.0 + g) * a.cos() * b.sin(), (1.0 + g) * a.sin()]
        }
        "edit_a" => edit(it, 0.35)?,
        _ => edit(it, 0.05)?,
    })
}

/// Removing a direction, as far as its objectives go; explained in `tools/optuna_compare.py`.
fn edit(it: &Assignment, mlp_share: f64) -> Fallible<Vec<f64>> {
    let index = it.float("direction_index")?;
    let per_layer = it.choice("direction_scope")? == "per layer";
    let scope = if per_layer { 0.9 } else { (-((index - 17.0) / 8.0).powi(2)).exp() };
    let (mut removed, mut damage) = (0.0, 0.0);
    for (component, share) in COMPONENTS.into_iter().zip([1.0 - mlp_share, mlp_share]) {
        let value = |name: &str| it.float(&format!("{component}.{name}"));
        let most = value("max_weight")?.max(0.0);
        let (position, reach) = (value("max_weight_position")?, value("min_weight_distance")?);
        let least = value("min_weight")? * most;
        for layer in (0..LAYERS).map(|it| it as f64) {
            let distance = (layer - position).abs();
            if distance > reach {
                continue;
            }
            let strength = most + (least - most) * distance / reach;
            let bell = (-((layer - 18.0) / 5.0).powi(2)).exp() / 8.862;
            removed += share * bell * strength.min(1.0) * scope;
            damage += 0.02 * strength * strength * (1.0 + 2.0 * (layer / (LAYERS - 1) as f64).powi(4));
        }
    }
    let refusals = 1.0 / (1.0 + (-12.0 * (0.55 - removed)).exp());
    Ok(vec![(100.0 * refusals + 0.5).floor() / 100.0, damage])
}

/// Some points of every problem with their values.
fn points() -> Fallible<()> {
    for problem in PROBLEMS {
        for trial in run(problem, "k1", 0)?.trials().iter().step_by(20) {
            let params: Result<serde_json::Map<_, _>, _> = trial
                .assignment
                .iter()
                .map(|(it, _)| {
                    Ok::<_, search::AssignmentError>((it.name.clone(), trial.assignment.external(&it.name)?))
                })
                .collect();
            println!("{}", json!({"problem": problem, "params": params?, "values": trial.values}));
        }
    }
    Ok(())
}

/// How long one ask takes, in milliseconds, after many trials.
fn timing() -> Fallible<()> {
    for problem in ["edit_a", "dtlz2"] {
        for mode in ["k1", "univariate-k1"] {
            let (space, (sampler, batch)) = (space(problem)?, named_sampler(mode)?);
            let search = Search { sampler: &*sampler, space: &space, seed: 1, batch };
            let mut study = Study::in_memory(problem, &objectives(problem))?;
            for trials in [200, 1000] {
                while study.trials().len() < trials {
                    // Random until then: what was proposed does not matter for the time.
                    let random = Search { sampler: &Random, ..search };
                    let trial = study.ask(&random)?;
                    study.tell(trial.number, &evaluate(problem, &trial.assignment)?, Attributes::new())?;
                }
                let start = Instant::now();
                for _ in 0..10 {
                    let number = study.ask(&search)?.number;
                    study.fail(number)?;
                }
                let milliseconds = start.elapsed().as_secs_f64() * 100.0;
                println!("{problem} {mode}: {milliseconds:.2} ms an ask after {trials} trials");
            }
        }
    }
    Ok(())
}
