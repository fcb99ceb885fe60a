//! Reads sets of prompts and writes what was found: `read_datasets cases.json`, a list of
//! `{"dataset": …, "split": …, "column": …, "config": …, "commit": …}`; writes a list of `{"prompts": […]}` or
//! `{"error": …}`, with the commit that was noted. For `tools/datasets_compare.py`.

#![expect(clippy::print_stdout, reason = "a program for comparisons")]

use prompts::sources::{Specification, open};
use serde_json::{Value, json};

fn main() {
    let path = std::env::args().nth(1).expect("a file of cases");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let client = hub::Client::from_environment();
    let outcome = |case: &Value| {
        let text = |name: &str| case[name].as_str().map(str::to_owned);
        let mut specification = Specification {
            dataset: text("dataset").unwrap_or_default(),
            commit: text("commit"),
            config: text("config"),
            split: text("split"),
            column: text("column"),
        };
        let prompts = specification.pin(&client).and_then(|_| open(specification.clone())?.load());
        match prompts {
            Ok(prompts) => json!({"prompts": prompts, "commit": specification.commit}),
            Err(error) => json!({"error": error.to_string()}),
        }
    };
    println!("{}", Value::Array(cases.iter().map(outcome).collect()));
}
