//! Measures answers, to choose the thresholds of `degenerate_answers` for a model.
//!
//! Reads JSON lines `{"kind", "text", "tokens", "nats_per_token"}` from stdin and prints, for each kind, how the three
//! measures are distributed and how many answers the default thresholds flag:
//!
//! ```text
//! cargo run -p ablate-scorers --example degeneracy < answers.jsonl
//! ```
#![expect(clippy::print_stdout, reason = "a program, not the library")]

use std::collections::BTreeMap;
use std::io::BufRead;

use scorers::JudgedAnswer;
use scorers::degeneracy::{Degeneracy, Measures};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    kind: String,
    text: String,
    tokens: usize,
    nats_per_token: f64,
}

/// Smallest, median, 95 % and largest value.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |quantile: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * quantile).round() as usize);
    let shown = [0.0, 0.5, 0.95, 1.0].map(|it| at(it).map_or("-".to_owned(), |it| format!("{it:.2}")));
    shown.map(|it| format!("{it:>6}")).concat()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let verbose = std::env::args().any(|it| it == "--flagged");
    let mut kinds: BTreeMap<String, Vec<JudgedAnswer>> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let Line { kind, text, tokens, nats_per_token } = serde_json::from_str(&line?)?;
        kinds.entry(kind).or_default().push(JudgedAnswer { text, tokens, nats_per_token });
    }
    println!("{:44}{:>26}{:>26}{:>26}  flagged", "", "repetition", "compression", "nats per token");
    for (kind, answers) in kinds {
        let measures: Vec<Measures> = answers.iter().map(Measures::of).collect();
        let flags: Vec<_> = answers.iter().map(|it| Degeneracy::default().flags(it)).collect();
        let by = |test: &str| flags.iter().filter(|it| it.contains(&test)).count();
        println!(
            "{kind:44}  {}  {}  {}  {}/{} (r {} c {} n {})",
            spread(measures.iter().filter_map(|it| it.repetition)),
            spread(measures.iter().filter_map(|it| it.compression)),
            spread(measures.iter().filter_map(|it| it.nats_per_token)),
            flags.iter().filter(|it| !it.is_empty()).count(),
            flags.len(),
            by("repetition"),
            by("compression"),
            by("nats_per_token"),
        );
        for (index, flags) in flags.iter().enumerate().filter(|it| verbose && !it.1.is_empty()) {
            println!("    {flags:?} {:?} {:?}", measures[index], answers[index].text);
        }
    }
    Ok(())
}
