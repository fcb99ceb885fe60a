//! Tunes a coffee machine, to show the main path and to have a journal that Python can check.
//!
//! ```text
//! cargo run -p ablate-search --example coffee -- coffee.jsonl [trials] [batch]
//! python tools/optuna_check.py coffee.jsonl
//! ```
//!
//! Run it again with more trials and it goes on; kill it at any time and run it again.
#![expect(clippy::print_stdout, reason = "an example's output is what it is for")]

use search::samplers::Tpe;
use search::{Attributes, Distribution, Objective, Parameter, Search, Space, Study};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("give the path of a journal")?;
    let number = |place: usize, default: usize| arguments.get(place).map_or(Ok(default), |it| it.parse());
    let (trials, batch) = (number(1, 40)?, number(2, 1)?);

    let space = Space::new(vec![
        Parameter::new("heat", Distribution::float(85.0, 96.0)),
        Parameter::new("pressure", Distribution::Float { low: 0.5, high: 15.0, step: None, log: true }),
        Parameter::new("dose", Distribution::Float { low: 14.0, high: 22.0, step: Some(0.5), log: false }),
        Parameter::new("grind", Distribution::int(1, 12)),
        Parameter::new("bean", Distribution::categorical(["arabica", "robusta"])),
    ])?;
    let objectives = [Objective::minimize("bitterness"), Objective::maximize("strength")];
    let mut study = Study::open(path, "coffee", &objectives)?;
    let sampler = Tpe { n_startup_trials: 10, ..Tpe::default() };
    let search = Search { sampler: &sampler, space: &space, seed: 7, batch };
    let mut asked = study.running(&search)?;
    // What was left behind is told before the next batch is asked, so that all of it is known by then.
    while !asked.is_empty() || study.trials().len() < trials {
        for trial in asked.drain(..) {
            let (heat, pressure) = (trial.assignment.float("heat")?, trial.assignment.float("pressure")?);
            let (dose, grind) = (trial.assignment.float("dose")?, trial.assignment.int("grind")? as f64);
            let robusta = trial.assignment.choice("bean")? == "robusta";
            let strength =
                dose * (pressure / 9.0).ln_1p() * (1.0 - grind / 20.0) * if robusta { 1.2 } else { 1.0 };
            let bitterness = (heat - 85.0) * strength / 20.0 + if robusta { 2.0 } else { 0.0 };
            let note = Attributes::from_iter([("index".to_owned(), (trial.number + 1).into())]);
            study.tell(trial.number, &[bitterness, strength], note)?;
        }
        asked = study.ask_batch(&search, trials)?;
    }
    for trial in study.front() {
        println!("{:3} {:?}", trial.number, trial.values);
    }
    Ok(())
}
