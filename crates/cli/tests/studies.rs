//! What a study remembers, and what is done with one that something has changed around, on the toy model of
//! `demo/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a copy of the toy and prompts of its own.
struct Place(TempDir);

/// What makes a run short: few prompts and tokens, and nothing has to be measured.
const SETTINGS: [&str; 18] = [
    "--good-prompts",
    "good.txt",
    "--bad-prompts",
    "bad.txt",
    "--refusal-prompts",
    "refusals.txt",
    "--kl-prompts",
    "kl.txt",
    "--max-response-length",
    "6",
    "--batch-size",
    "16",
    "--response-prefix",
    "",
    "--startup-trials",
    "2",
    "--checkpoint-action",
    "continue",
];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        copy(&demo().join("model"), &place.at("model"));
        for (name, set) in [
            ("good.txt", "answered_train"),
            ("bad.txt", "refused_train"),
            ("refusals.txt", "refused_eval"),
            ("kl.txt", "answered_eval"),
        ] {
            let prompts = std::fs::read_to_string(demo().join(format!("prompts/{set}.txt"))).unwrap();
            let few: Vec<&str> = prompts.lines().take(6).collect();
            std::fs::write(place.at(name), few.join("\n")).unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ablate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.at("cache")).output().unwrap()
    }

    /// A run with so many trials of the study `s.jsonl`.
    fn run(&self, trials: &str, more: &[&str]) -> Output {
        let common = ["run", "model", "--isolated", "--study", "s.jsonl", "--trials", trials];
        self.ablate(&[&common[..], &SETTINGS, more].concat())
    }

    /// The same without any setting but the number of trials.
    fn resume(&self, trials: &str, more: &[&str]) -> Output {
        self.ablate(
            &[&["run", "model", "--isolated", "--study", "s.jsonl", "--trials", trials], more].concat(),
        )
    }

    fn study(&self) -> Value {
        serde_json::from_str(&succeeded(&self.ablate(&["study", "show", "s.jsonl", "--json"]))).unwrap()
    }

    fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.at(name);
        let before = std::fs::read_to_string(&path).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "nothing was changed in {name}");
        std::fs::write(path, after).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// What a run that succeeds writes to standard output.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a run that fails says; it must be an error with a hint.
fn failed(output: &Output) -> String {
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status.code());
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

#[test]
fn a_trial_has_one_number_in_tables_events_choices_and_files() {
    let place = Place::new();
    let output = place.run("4", &["--json", "--trial", "2"]);
    let events = lines(&succeeded(&output));
    let numbers: Vec<&Value> =
        events.iter().filter(|it| it["event"] == "trial").map(|it| &it["number"]).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(events.iter().find(|it| it["event"] == "chosen").unwrap()["number"], 2);
    let said = text(&output.stderr);
    for number in 0..4 {
        assert!(said.contains(&format!("\ntrial {number:>3}: refusals")), "{said}");
    }
    assert!(said.contains("(4 of 4;") && said.contains("\nchosen: trial 2: "), "{said}");
    assert!(!said.contains("trial   4"), "{said}");

    let study = place.study();
    let shown = succeeded(&place.ablate(&["study", "show", "s.jsonl"]));
    for (row, trial) in shown.lines().skip(2).zip(study["trials"].as_array().unwrap()) {
        let columns: Vec<&str> = row.trim_start_matches('*').split_whitespace().collect();
        assert_eq!(columns[0], trial["number"].to_string(), "{shown}");
        assert_eq!(row.starts_with('*'), study["front"].as_array().unwrap().contains(&trial["number"]));
        // heretic's own number, which its files have, counts from 1.
        assert_eq!(trial["user_attrs"]["index"], trial["number"].as_u64().unwrap() + 1);
    }

    // The front's table, from the best of the first objective on: heretic's `trial_index` is a place in it.
    let table = succeeded(&place.resume("4", &[]));
    let first = table.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let chosen = text(&place.resume("4", &["--trial-index", "0"]).stderr);
    assert!(chosen.contains(&format!("chosen: trial {first}: ")), "{table}{chosen}");

    let said = failed(&place.resume("4", &["--trial", "4"]));
    assert!(said.contains("`trial` is 4, and the study has trials 0 to 3"), "{said}");
    let said = failed(&place.resume("4", &["--trial-index", "9"]));
    assert!(said.contains("`trial_index` is 9") && said.contains("hint: `trial` chooses"), "{said}");
    let said = failed(&place.resume("4", &["--trial-index", "0", "--trial", "0"]));
    assert!(said.contains("`trial` and `trial_index` are both set"), "{said}");
}

/// A study's file with each line that belongs to trial 1 given to `change`, which may drop it or make several.
fn rewritten(file: &str, change: impl Fn(Value) -> Vec<Value>) -> String {
    let mut out = String::new();
    for record in lines(file) {
        let of_trial = record["trial_id"] == 1;
        for it in if of_trial { change(record) } else { vec![record] } {
            out.push_str(&it.to_string());
            out.push('\n');
        }
    }
    out
}

/// What is done to a line of a trial.
type LineChange<'a> = Box<dyn Fn(Value) -> Vec<Value> + 'a>;

#[test]
#[expect(clippy::too_many_lines, reason = "a list of what can be wrong")]
fn trials_that_other_programs_wrote_wrongly_are_named_and_left_out() {
    let place = Place::new();
    succeeded(&place.run("3", &[]));
    let whole = std::fs::read_to_string(place.at("s.jsonl")).unwrap();
    let told = |it: &Value| it["op_code"] == 6;
    let with = |mut it: Value, key: &str, value: Value| {
        it[key] = value;
        vec![it]
    };
    let values = |values: Value| {
        move |it: Value| if told(&it) { with(it, "values", values.clone()) } else { vec![it] }
    };
    let left_out = "left out, for want of one value per objective: trial 1";
    let parameter = |name: &'static str, change: fn(&mut Value)| -> LineChange<'_> {
        Box::new(move |mut it: Value| {
            if it["param_name"] == name {
                change(&mut it);
            }
            vec![it]
        })
    };
    let cases: Vec<(&str, LineChange<'_>, &str)> = vec![
        ("one value of two", Box::new(values(json!([0.5]))), left_out),
        ("three values", Box::new(values(json!([0.5, 0.1, 7.0]))), left_out),
        ("no values", Box::new(values(json!([]))), left_out),
        ("null", Box::new(values(Value::Null)), left_out),
        (
            "the best of all values, and no scores",
            Box::new(|it: Value| match it["op_code"].as_i64() {
                Some(8) => vec![],
                Some(6) => vec![{
                    let mut it = it;
                    it["values"] = json!([-1.0, -1.0]);
                    it
                }],
                _ => vec![it],
            }),
            "",
        ),
        ("no parameters", Box::new(|it: Value| if it["op_code"] == 5 { vec![] } else { vec![it] }), ""),
        (
            "still running, without parameters",
            Box::new(|it: Value| if it["op_code"] == 5 || it["op_code"] == 6 { vec![] } else { vec![it] }),
            "1 to evaluate again",
        ),
        (
            "running, a parameter out of bounds",
            Box::new(move |mut it: Value| {
                if told(&it) {
                    return vec![];
                }
                if it["param_name"] == "direction_index" {
                    it["param_value_internal"] = json!(1e300);
                }
                if it["param_name"] == "direction_scope" {
                    it["param_value_internal"] = json!(0.0);
                }
                vec![it]
            }),
            "trial   1 failed: ",
        ),
        (
            "a parameter out of bounds",
            parameter("direction_index", |it| it["param_value_internal"] = json!(-1e9)),
            "",
        ),
        (
            "another kind of distribution",
            parameter("direction_index", |it| {
                it["distribution"] = json!(
                    r#"{"name":"IntDistribution","attributes":{"log":false,"step":1,"low":0,"high":9}}"#
                );
                it["param_value_internal"] = json!(3);
            }),
            "",
        ),
        (
            "parameters that are no object",
            Box::new(|mut it: Value| {
                if it["user_attr"].get("parameters").is_some() {
                    it["user_attr"]["parameters"] = json!([1]);
                }
                vec![it]
            }),
            "",
        ),
    ];
    for (what, change, expected) in cases {
        std::fs::write(place.at("s.jsonl"), rewritten(&whole, &*change)).unwrap();
        for pick in [["--pick", "min kl"], ["--trial-index", "0"]] {
            let output = place.resume("4", &pick);
            let said = text(&output.stderr);
            assert!(
                matches!(output.status.code(), Some(0 | 1)) && !said.contains("panicked"),
                "{what}: {said}"
            );
            assert!(pick[0] != "--pick" || output.status.success(), "{what}: {said}");
            assert!(said.contains(expected) || pick[0] != "--pick", "{what}: {said}");
        }
        assert_eq!(place.study()["trials"].as_array().unwrap().len(), 4, "{what}");
    }
    // Numbers that JSON does not have, as Python writes them.
    for number in ["NaN", "Infinity", "-Infinity"] {
        let file = rewritten(&whole, values(json!([12345.5, 0.25]))).replace("12345.5", number);
        std::fs::write(place.at("s.jsonl"), file).unwrap();
        succeeded(&place.resume("4", &["--pick", "min kl", "--json"]));
    }
}

/// Lets the toy's template print the date, as the template of Llama 3 does.
fn with_date_in_template(place: &Place) {
    place.edit("model/tokenizer_config.json", |it| {
        let mut config: Value = serde_json::from_str(&it).unwrap();
        let template = config["chat_template"].as_str().unwrap();
        config["chat_template"] = json!(format!("{{{{ strftime_now('%d %b %Y') }}}} {template}"));
        config.to_string()
    });
}

#[test]
fn the_date_that_a_template_prints_is_fixed_when_a_study_begins_and_noted_with_the_model() {
    let place = Place::new();
    with_date_in_template(&place);
    let output = place.run(
        "3",
        &["--template-date", "2024-07-26", "--pick", "min kl", "--save", "edited", "--reproduction", "basic"],
    );
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(said.contains("rendered as on 2024-07-26T00:00:00"), "{said}");
    // Another day, on which nobody gives a date.
    let output = place.resume("5", &["--json", "--pick", "min kl"]);
    let resumed = lines(&succeeded(&output));
    assert!(text(&output.stderr).contains("rendered as on 2024-07-26"), "{}", text(&output.stderr));
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.at("edited/reproduce/reproduce.json")).unwrap()).unwrap();
    assert_eq!(
        (&record["version"], &record["settings"]["template_date"]),
        (&json!(2), &json!("2024-07-26T00:00:00"))
    );

    // What was resumed is what was not interrupted, and what another date makes is something else.
    let whole = |study: &str, date: &str| {
        let arguments = [
            "run",
            "model",
            "--isolated",
            "--study",
            study,
            "--trials",
            "5",
            "--json",
            "--template-date",
            date,
        ];
        lines(&succeeded(&place.ablate(&[&arguments[..], &SETTINGS, &["--pick", "min kl"]].concat())))
    };
    let scores = |events: &[Value]| -> Vec<Value> {
        let chosen = events.iter().filter(|it| it["event"] == "chosen");
        chosen.flat_map(|it| it["scores"].as_array().unwrap().iter().map(|it| it["value"].clone())).collect()
    };
    assert_eq!(scores(&resumed), scores(&whole("same.jsonl", "2024-07-26")));
    assert_ne!(scores(&resumed), scores(&whole("other.jsonl", "2025-12-24")));

    let reproduce = ["reproduce", "edited/reproduce/reproduce.json", "--model", "model", "--json"];
    let same: Value = serde_json::from_str(&succeeded(&place.ablate(&reproduce))).unwrap();
    assert_eq!(same["same"], true, "{same}");
    let said = failed(&place.ablate(&[&reproduce[..], &["--template-date", "2025-12-24"]].concat()));
    assert!(said.contains("not what was noted"), "{said}");
    // The first version of the format has no date.
    let mut first = record.clone();
    first["version"] = json!(1);
    first["settings"].as_object_mut().unwrap().remove("template_date");
    std::fs::write(place.at("first.json"), first.to_string()).unwrap();
    let dated = ["reproduce", "first.json", "--model", "model", "--json", "--template-date", "2024-07-26"];
    let same: Value = serde_json::from_str(&succeeded(&place.ablate(&dated))).unwrap();
    assert_eq!(same["same"], true, "{same}");
    let output = place.ablate(&dated[..5]);
    assert!(text(&output.stderr).contains("does not say on which date"), "{}", text(&output.stderr));
    assert!(!output.status.success());
}

#[test]
fn a_date_that_is_none_is_refused_wherever_it_is_given() {
    let place = Place::new();
    let said = failed(&place.run("2", &["--template-date", "yesterday"]));
    assert!(
        said.contains("`yesterday` is not a date") && said.contains("hint: write it as 2026-11-23"),
        "{said}"
    );
    assert!(!said.contains("loaded in"), "{said}");
    let said =
        failed(&place.ablate(&["generate", "model", "--prompt", "a", "--template-date", "26 Jul 2024"]));
    assert!(said.contains("`26 Jul 2024` is not a date"), "{said}");
}

#[test]
fn generate_renders_as_on_a_given_day() {
    let place = Place::new();
    with_date_in_template(&place);
    let arguments = [
        "generate",
        "model",
        "--prompt",
        "Hello",
        "--max-tokens",
        "1",
        "--json",
        "--template-date",
        "2024-07-26",
    ];
    let answer: Value = serde_json::from_str(succeeded(&place.ablate(&arguments)).trim()).unwrap();
    assert!(answer["rendered"].as_str().unwrap().starts_with("26 Jul 2024<|user|>"), "{answer}");
}

/// Changes one bit of the model's weights, in the middle of the file.
fn flip_a_bit(place: &Place) {
    let path = place.at("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn json_file(place: &Place, name: &str, change: impl FnOnce(&mut Value)) {
    place.edit(name, |it| {
        let mut value: Value = serde_json::from_str(&it).unwrap();
        change(&mut value);
        value.to_string()
    });
}

/// What somebody does to files between two runs.
type DiskChange = fn(&Place);

#[test]
fn a_study_is_not_continued_when_what_it_scores_has_changed_on_the_disk() {
    let place = Place::new();
    let output = place.run("2", &[]);
    succeeded(&output);
    copy(&place.at("model"), &place.at("kept"));
    let files = ["good.txt", "bad.txt", "refusals.txt", "kl.txt"];
    let before: Vec<String> = files.iter().map(|it| std::fs::read_to_string(place.at(it)).unwrap()).collect();
    let changes: [(&str, DiskChange); 11] = [
        ("weights: ", flip_a_bit),
        ("configuration (config.json): ", |it| {
            json_file(it, "model/config.json", |it| it["rms_norm_eps"] = json!(1e-3));
        }),
        ("tokenizer: ", |it| {
            json_file(it, "model/tokenizer.json", |it| it["normalizer"] = json!({"type": "NFC"}));
        }),
        ("tokenizer: ", |it| {
            json_file(it, "model/tokenizer_config.json", |it| it["pad_token"] = json!("<|user|>"));
        }),
        ("generation settings (generation_config.json): ", |it| {
            json_file(it, "model/generation_config.json", |it| it["repetition_penalty"] = json!(1.5));
        }),
        ("chat template: ", |it| {
            json_file(it, "model/tokenizer_config.json", |it| {
                it["chat_template"] = json!(format!("{} ", it["chat_template"].as_str().unwrap()));
            });
        }),
        ("chat template: ", |it| {
            std::fs::write(it.at("model/chat_template.jinja"), "{{ messages[0].content }}").unwrap();
        }),
        ("prompts of `good_prompts`: the study has 6 prompts, ", |it| {
            it.edit("good.txt", |it| it.replacen('a', "e", 1));
        }),
        ("prompts of `bad_prompts`: ", |it| {
            it.edit("bad.txt", |it| it.lines().rev().collect::<Vec<_>>().join("\n"));
        }),
        ("prompts of `refusal_prompts`: ", |it| it.edit("refusals.txt", |it| it + "\nOne more?")),
        ("prompts of `kl_prompts`: ", |it| {
            it.edit("kl.txt", |it| it.lines().skip(1).collect::<Vec<_>>().join("\n"));
        }),
    ];
    for (expected, change) in changes {
        change(&place);
        for output in [place.run("3", &[]), place.resume("3", &["--pick", "min kl", "--save", "edited"])] {
            let said = failed(&output);
            assert!(said.contains(&format!("\n  {expected}")), "{expected}: {said}");
            assert!(
                said.contains("s.jsonl")
                    && said.contains(", here it is ")
                    && said.contains("--checkpoint-action restart"),
                "{said}"
            );
            assert!(!said.contains("loaded in") && said.matches(", here it is ").count() == 1, "{said}");
        }
        std::fs::remove_dir_all(place.at("model")).unwrap();
        copy(&place.at("kept"), &place.at("model"));
        for (name, text) in files.iter().zip(&before) {
            std::fs::write(place.at(name), text).unwrap();
        }
    }
    assert!(!place.at("edited").exists());
    assert_eq!(place.study()["trials"].as_array().unwrap().len(), 2, "nothing was scored");
    // A copy at another place and another time is the same model, and so are prompts in another file.
    std::fs::rename(place.at("kept"), place.at("moved")).unwrap();
    std::fs::rename(place.at("good.txt"), place.at("same.txt")).unwrap();
    let moved =
        ["run", "moved", "--isolated", "--study", "s.jsonl", "--trials", "3", "--good-prompts", "same.txt"];
    succeeded(&place.ablate(&moved));
    assert_eq!(place.study()["trials"].as_array().unwrap().len(), 3);
    flip_a_bit(&place);
    std::fs::rename(place.at("same.txt"), place.at("good.txt")).unwrap();
    succeeded(&place.run("1", &["--checkpoint-action", "restart"]));
    assert_eq!(place.study()["trials"].as_array().unwrap().len(), 1);
}

#[test]
fn a_study_is_not_continued_with_other_settings_and_says_what_both_are() {
    let place = Place::new();
    succeeded(&place.run("2", &["--dtype", "f32"]));
    for (more, expected) in [
        (
            &["--row-normalization", "none"][..],
            "`row_normalization`: the study has `\"full\"`, here it is `\"none\"` (--row-normalization)",
        ),
        (&["--seed", "9"], "`seed`: the study has `0`, here it is `9` (--seed)"),
        (&["--system-prompt", "Be brief."], "`system_prompt`: "),
        (&["--detect-false-refusals"], "`detect_false_refusals`: the study has `false`"),
        (&["--max-response-length", "7"], "`max_response_length`: "),
        (&["--template-date", "2020-02-02"], "`template_date`: the study has `\"20"),
        (&["--scorer", "refusals:maximize"], "`scorers`: "),
        (&["--preset", "slop"], "`max_response_length`: the study has `6`, here it is `300` (preset slop)"),
        (&["--dtype", "bf16"], "weights: the study has `f32`, here it is `bf16`"),
        (&["--arithmetic", "bf16"], "arithmetic: the study has `f32`, here it is `bf16`"),
        (&["--device", "reference"], "device: the study has `cpu`, here it is `reference`"),
        (&["--quantize", "q8_0"], "quantized weights: the study has none, here it is `q8_0`"),
        (&["--instruction-set", "portable"], "instruction set: the study has "),
        (&["--plain"], "chat template: the study has "),
        (&["--good-prompts.prefix", "Please:"], "prompts of `good_prompts`: "),
        (&["--kl-prompts.system-prompt", "Be kind."], "prompts of `kl_prompts`: "),
        (&["--refusal-prompts", "kl.txt"], "prompts of `refusal_prompts`: "),
        (&["--keep-prompts", "kl.txt"], "prompts of `keep_prompts`: the study has none"),
    ] {
        let said = failed(&place.resume("3", more));
        assert!(said.contains(&format!("\n  {expected}")), "{more:?}: {said}");
        assert!(said.contains("hint: undo the change"), "{said}");
    }
    let variable = Command::new(env!("CARGO_BIN_EXE_ablate"))
        .args(["run", "model", "--study", "s.jsonl"])
        .env("ABLATE_WINSORIZATION_QUANTILE", "0.9")
        .env("HF_HUB_OFFLINE", "1")
        .current_dir(place.0.path())
        .output();
    let said = failed(&variable.unwrap());
    assert!(said.contains("(ABLATE_WINSORIZATION_QUANTILE)"), "{said}");
    assert_eq!(place.study()["trials"].as_array().unwrap().len(), 2, "nothing was scored");
}

#[test]
fn what_is_not_set_is_the_studys_and_what_no_score_depends_on_may_be_another() {
    let place = Place::new();
    std::fs::write(place.at("template.jinja"), "{% for it in messages %}{{ it.content }}{% endfor %}")
        .unwrap();
    let begun =
        ["--dtype", "bf16", "--arithmetic", "bf16", "--chat-template", "template.jinja", "--seed", "4"];
    succeeded(&place.run("2", &begun));
    let settings = |study: &Value| -> Value {
        serde_json::from_str(study["user_attrs"]["settings"].as_str().unwrap()).unwrap()
    };
    let before = place.study();
    std::fs::remove_file(place.at("template.jinja")).unwrap();
    let free = [
        "--threads",
        "1",
        "--batch-size",
        "3",
        "--print-residual-geometry",
        "--dtype",
        "auto",
        "--max-batch-size",
        "5",
    ];
    let output = place.resume("4", &free);
    succeeded(&output);
    assert!(text(&output.stderr).contains("Silh"), "the geometry is printed: {}", text(&output.stderr));
    let after = place.study();
    assert_eq!(after["trials"].as_array().unwrap().len(), 4);
    assert_eq!(after["user_attrs"]["identity"], before["user_attrs"]["identity"]);
    assert_eq!(after["user_attrs"]["calibration"]["batch_size"], 3);
    let (mut changed, before) = (settings(&after), settings(&before));
    for (name, value) in [("n_trials", 4), ("batch_size", 3), ("max_batch_size", 5)] {
        assert_eq!(changed[name], value);
        changed[name] = before[name].clone();
    }
    changed["print_residual_geometry"] = json!(false);
    assert_eq!(changed, before);
    // As if it had been one run.
    let whole = ["run", "model", "--isolated", "--study", "whole.jsonl", "--trials", "4"];
    std::fs::write(place.at("template.jinja"), "{% for it in messages %}{{ it.content }}{% endfor %}")
        .unwrap();
    succeeded(&place.ablate(&[&whole[..], &SETTINGS, &begun].concat()));
    let whole: Value =
        serde_json::from_str(&succeeded(&place.ablate(&["study", "show", "whole.jsonl", "--json"]))).unwrap();
    for (ours, theirs) in after["trials"].as_array().unwrap().iter().zip(whole["trials"].as_array().unwrap())
    {
        assert_eq!((&ours["parameters"], &ours["values"]), (&theirs["parameters"], &theirs["values"]));
    }
}

#[cfg(unix)]
#[test]
fn a_program_that_scores_is_part_of_what_a_study_is() {
    let place = Place::new();
    let script = "import json, sys\nprint(json.dumps({'protocol': 1}))\n";
    std::fs::write(place.at("score.py"), script).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/example_scorer.py");
    std::fs::copy(example, place.at("score.py")).unwrap();
    let scorer = r#"command:none:{"command": ["python3", "score.py"]}"#;
    let scorers = ["--scorer", "refusals", "--scorer", "kl_divergence", "--scorer", scorer];
    if Command::new("python3").arg("--version").output().is_err() {
        return;
    }
    succeeded(&place.run("2", &scorers));
    succeeded(&place.resume("3", &[]));
    place.edit("score.py", |it| it + "\n# changed\n");
    let said = failed(&place.resume("4", &[]));
    assert!(said.contains("\n  file `score.py` of a scorer: the study has `"), "{said}");
}

#[test]
fn every_model_and_behavior_has_a_study_of_its_own() {
    let place = Place::new();
    std::fs::copy(place.at("kl.txt"), place.at("other.txt")).unwrap();
    let run = |model: &str, more: &[&str]| {
        let common = ["run", model, "--isolated", "--trials", "1"];
        succeeded(&place.ablate(&[&common[..], &SETTINGS, more].concat()));
        let mut names: Vec<String> = std::fs::read_dir(place.at("checkpoints"))
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|it| Path::new(it).extension().is_some_and(|it| it == "jsonl"))
            .collect();
        names.sort();
        names
    };
    for copied in ["x (1)", "x [1]"] {
        copy(&place.at("model"), &place.at(copied));
    }
    assert_eq!(run("x (1)", &[]).len(), 1);
    assert_eq!(run("./x (1)/", &[]).len(), 1, "the same model");
    let names = run("x [1]", &[]);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|it| it.starts_with("x--1-bad-")), "{names:?}");
    let names = run("x [1]", &["--bad-prompts", "other.txt"]);
    assert!(names.len() == 3 && names.iter().any(|it| it.starts_with("x--1-other-")), "{names:?}");
    // A study of the former naming is pointed at.
    std::fs::copy(place.at("checkpoints").join(&names[0]), place.at("checkpoints/model.jsonl")).unwrap();
    let arguments = ["run", "model", "--isolated", "--trials", "1"];
    let output = place.ablate(&[&arguments[..], &SETTINGS].concat());
    assert!(
        text(&output.stderr).contains("--study \"checkpoints/model.jsonl\" resumes it"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_study_of_a_former_version_is_resumed_with_a_remark_and_has_an_identity_from_then_on() {
    let place = Place::new();
    succeeded(&place.run("2", &[]));
    place.edit("s.jsonl", |it| {
        let kept = it.lines().filter(|it| !it.contains("\"identity\"")).map(|it| {
            it.replace(&format!("\\\"template_date\\\":{}", date_of(it)), "\\\"seed\\\":0").replacen(
                ",\\\"seed\\\":0",
                "",
                1,
            )
        });
        kept.map(|it| it + "\n").collect()
    });
    assert!(!std::fs::read_to_string(place.at("s.jsonl")).unwrap().contains("template_date"));
    let said = failed(&place.resume("3", &["--good-prompts", "kl.txt"]));
    assert!(said.contains("\n  `good_prompts`: the study has "), "{said}");
    let output = place.run("3", &[]);
    succeeded(&output);
    assert!(text(&output.stderr).contains("begun by a former version"), "{}", text(&output.stderr));
    let study = place.study();
    let began = study["user_attrs"]["settings"].as_str().unwrap();
    assert!(began.contains("T00:00:00"), "the day of its first trial: {began}");
    flip_a_bit(&place);
    assert!(failed(&place.run("4", &[])).contains("\n  weights: "));
}

/// The JSON of the date in a line of settings, as it stands there.
fn date_of(line: &str) -> String {
    let rest = line.split_once("\\\"template_date\\\":").map_or("", |it| it.1);
    rest.split(',').next().unwrap_or_default().to_owned()
}

#[test]
fn what_cannot_be_read_of_a_study_is_an_error_that_says_what_to_do() {
    let place = Place::new();
    succeeded(&place.run("2", &[]));
    let whole = std::fs::read_to_string(place.at("s.jsonl")).unwrap();
    let line = |attribute: &str, value: Value| {
        json!({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {attribute: value}}).to_string()
            + "\n"
    };
    for (attribute, value, expected) in [
        ("settings", json!("{\"shades\": 3}"), "its settings cannot be read: unknown field `shades`"),
        ("settings", json!(7), "its settings cannot be read: "),
        (
            "settings",
            json!("{\"model\": \"owner/name\", \"dtypes\": [\"auto\"]}"),
            "this is a study of heretic",
        ),
        ("settings", Value::Null, "it has 2 complete trials and no settings"),
        ("calibration", json!({"batch_size": "many"}), "its calibration cannot be read: "),
        ("calibration", json!([]), "its calibration cannot be read: "),
        ("identity", json!({"version": 99}), "its identity cannot be read: its version is 99"),
        ("identity", json!(true), "its identity cannot be read: "),
    ] {
        std::fs::write(place.at("s.jsonl"), whole.clone() + &line(attribute, value)).unwrap();
        let said = failed(&place.resume("3", &[]));
        assert!(said.contains(&format!("study `s.jsonl`: {expected}")), "{expected}: {said}");
        assert!(said.contains("\nhint: ") && said.contains("--study"), "{said}");
        assert!(!said.contains("loaded in"), "{said}");
    }
    // Whose name alone says it.
    let heretics = [
        json!({"op_code": 0, "worker_id": "h", "study_name": "heretic", "directions": [1, 1]}),
        json!({"op_code": 2, "worker_id": "h", "study_id": 0, "user_attr": {"settings": "{\"n_trials\": 200}"}}),
    ];
    std::fs::write(place.at("s.jsonl"), heretics.map(|it| format!("{it}\n")).concat()).unwrap();
    let said = failed(&place.resume("3", &[]));
    assert!(
        said.contains("this is a study of heretic") && said.contains("hint: `ablate study show"),
        "{said}"
    );
    std::fs::write(place.at("s.jsonl"), whole.clone() + &line("calibration", Value::Null)).unwrap();
    let output = place.resume("3", &[]);
    succeeded(&output);
    assert!(text(&output.stderr).contains("the study has no calibration"), "{}", text(&output.stderr));
}
