//! Models made again from what was noted when they were made, as a user does it, on the toy model of `demo/README.md`.

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use server::{Server, TOKEN};
use tempfile::TempDir;

/// A folder with prompts, parameters, and what a test makes of them.
struct Place(TempDir);

/// What makes the toy's answers short, and leaves nothing to be measured.
const SHORT: [&str; 5] = ["--max-response-length", "32", "--batch-size", "64", "--response-prefix="];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo")
}

fn toy() -> String {
    demo().join("model").to_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, set) in
            [("good.txt", "answered_train"), ("bad.txt", "refused_train"), ("refusals.txt", "refused_eval")]
        {
            std::fs::copy(demo().join(format!("prompts/{set}.txt")), place.at(name)).unwrap();
        }
        let profile = |strength: f64| {
            json!({"max_weight": strength, "max_weight_position": 3.0, "min_weight": strength / 2.0,
                "min_weight_distance": 8.0})
        };
        let parameters = json!({
            "direction_index": 2.25,
            "abliteration_parameters": {"attn.o_proj": profile(1.0), "mlp.down_proj": profile(0.75)},
        });
        std::fs::write(place.at("parameters.json"), parameters.to_string()).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The program, in this folder; without a server it has no network.
    fn ablate(&self, arguments: &[&str], server: Option<&Server>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
        command.env("HF_HOME", self.at("cache"));
        match server {
            Some(server) => command.env("HF_ENDPOINT", &server.address).env("HF_TOKEN", TOKEN),
            None => command.env("HF_HUB_OFFLINE", "1"),
        };
        command.output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        succeeded(&self.ablate(arguments, None))
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.ablate(arguments, None);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Saves the edited toy in the folder `edited`, computed by one thread.
    fn save(&self, more: &[&str]) {
        let toy = toy();
        let mut arguments = vec!["evaluate", &toy, "--parameters", "parameters.json", "--save", "edited"];
        // A path of this machine, which is nobody else's business.
        let refusals = format!("{}[:24]", self.at("refusals.txt").display());
        arguments.extend([
            "--good-prompts",
            "good.txt",
            "--bad-prompts",
            "bad.txt",
            "--refusal-prompts",
            &refusals,
        ]);
        arguments.extend(["--kl-prompts", "embedded:demo-answered-eval[:24]", "--threads", "1"]);
        arguments.extend(["--scorer", "refusals", "--scorer", "kl_divergence"]);
        arguments.extend(SHORT);
        arguments.extend(more);
        self.succeeds(&arguments);
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

const NOTED: &str = "edited/reproduce/reproduce.json";

#[test]
fn a_model_is_made_again_bit_for_bit_from_what_was_noted() {
    let place = Place::new();
    place.save(&["--reproduction", "basic"]);
    let noted = place.json(NOTED);
    assert!(noted.get("system").is_none(), "basic");
    assert!(!place.read(NOTED).contains(place.0.path().to_str().unwrap()), "no folders of this machine");
    assert_eq!(noted["settings"]["refusal_prompts"]["dataset"], "refusals.txt[:24]");
    // The digest of a plain text file is that of its prompts.
    let good = hub_digest(&std::fs::read(place.at("good.txt")).unwrap());
    assert_eq!(noted["prompts"]["good_prompts"]["sha256"], good);
    let weights = hub_digest(&std::fs::read(place.at("edited/model.safetensors")).unwrap());
    assert_eq!(noted["hashes"], json!({"model.safetensors": weights}));
    assert_eq!(place.read("edited/reproduce/SHA256SUMS"), format!("{weights} *model.safetensors\n"));
    assert!(!place.read("edited/README.md").contains("reproducible"), "others do not have the prompts");

    let toy = toy();
    let again = ["reproduce", NOTED, "--model", &toy, "--threads", "2"];
    let told: Value =
        serde_json::from_str(&place.succeeds(&[&again[..], &["--json", "--output", "again"]].concat()))
            .unwrap();
    assert_eq!(told["same"], true, "{told}");
    assert_eq!(told["differences"], json!([]));
    assert_eq!(told["files"][0]["here"], weights);
    let value = |it: &Value| it["value"].as_f64().unwrap().to_bits();
    for pair in told["scores"].as_array().unwrap() {
        assert_eq!(value(&pair["recorded"]), value(&pair["here"]));
    }
    let bytes = |name: &str| std::fs::read(place.at(name)).unwrap();
    assert_eq!(bytes("edited/model.safetensors"), bytes("again/model.safetensors"));

    let shown = place.succeeds(&again);
    assert!(shown.contains("model.safetensors: the same bits"), "{shown}");
    let left: Vec<String> = std::fs::read_dir(place.0.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "what was only written to be compared is gone: {left:?}");
}

fn hub_digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    server::hex(&Sha256::digest(bytes))
}

#[test]
fn what_was_changed_in_the_file_is_found() {
    let place = Place::new();
    place.save(&["--reproduction", "full"]);
    let noted = place.json(NOTED);
    assert!(noted["system"]["cores"].as_u64().unwrap() > 0);
    let toy = toy();
    let changed = |pointer: &str, value: Value| {
        let mut file = noted.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        std::fs::write(place.at("edited/reproduce/changed.json"), file.to_string()).unwrap();
        ["reproduce", "edited/reproduce/changed.json", "--model", &toy]
    };
    let other = "0".repeat(64);
    let arguments = changed("/hashes/model.safetensors", json!(other));
    let said = place.fails(&arguments);
    assert!(said.contains("model.safetensors: other bits") && said.contains(&other), "{said}");
    assert!(said.contains("not what was noted"), "{said}");
    let said = place.fails(&changed("/directions", json!(other)));
    assert!(said.contains("directions: other bits"), "{said}");
    let said = place.fails(&changed("/scores/1/value", json!(0.5)));
    assert!(!said.contains("other bits") && said.contains("not what was noted"), "{said}");
    // Another strength: every weight that is edited is another one, and the original is at hand to say how many.
    let said =
        place.fails(&changed("/parameters/abliteration_parameters/attn.o_proj/max_weight", json!(0.5)));
    assert!(said.contains("% of its bytes differ"), "{said}");
    let said = place.fails(&changed("/model/files/config.json", json!(other)));
    assert!(
        said.contains("file of the model  config.json") && said.contains("--ignore-mismatches"),
        "{said}"
    );
}

#[test]
fn another_machine_or_version_is_told_and_other_prompts_are_a_reason_to_stop() {
    let place = Place::new();
    place.save(&["--reproduction", "basic"]);
    let toy = toy();
    let mut file = place.json(NOTED);
    file["program"] = json!("0.0.1");
    file["machine"]["instruction_set"] = json!("abacus");
    std::fs::write(place.at("elsewhere.json"), file.to_string()).unwrap();
    let elsewhere = ["reproduce", "elsewhere.json", "--model", &toy];
    let output = place.ablate(&elsewhere, None);
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(said.contains("0.0.1") && said.contains("abacus"), "{said}");
    let said = place.fails(&[&elsewhere[..], &["--ignore-mismatches=false"]].concat());
    assert!(said.contains("something is different here"), "{said}");

    let fewer: Vec<String> = place.read("good.txt").lines().skip(1).map(str::to_owned).collect();
    std::fs::write(place.at("fewer.txt"), fewer.join("\n")).unwrap();
    let with_others = ["reproduce", NOTED, "--model", &toy, "--prompts", "good_prompts=fewer.txt"];
    let said = place.fails(&with_others);
    assert!(said.contains("good_prompts  96 prompts") && said.contains("95 prompts"), "{said}");
    let arguments = [&with_others[..], &["--ignore-mismatches", "--json"]].concat();
    let told: Value = serde_json::from_str(&place.succeeds(&arguments)).unwrap();
    assert_eq!((&told["same"], &told["differences"][0]["subject"]), (&json!(false), &json!("prompts")));
    let share = told["files"][0]["differing_bytes"].as_f64().unwrap();
    assert!(share > 0.001 && share < 1.0, "{share}");

    std::fs::remove_file(place.at("bad.txt")).unwrap();
    let said = place.fails(&["reproduce", NOTED, "--model", &toy]);
    assert!(said.contains("bad.txt") && said.contains("--prompts SET=SOURCE"), "{said}");
    let said = place.fails(&["reproduce", NOTED, "--prompts", "bad_prompts=good.txt"]);
    assert!(said.contains("`model`") && said.contains("--model FOLDER"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_file_from_elsewhere_runs_no_programs() {
    let place = Place::new();
    place.save(&["--reproduction", "basic"]);
    let mut file = place.json(NOTED);
    let scorers = file["settings"]["scorers"].as_array_mut().unwrap();
    let program = json!({"command": ["sh", "-c", "echo > ran"]});
    scorers.push(json!({"plugin": "command", "optimization": "none", "settings": program}));
    std::fs::write(place.at("trap.json"), file.to_string()).unwrap();
    let toy = toy();
    let output = place.ablate(&["reproduce", "trap.json", "--model", &toy], None);
    succeeded(&output);
    assert!(text(&output.stderr).contains("--allow-programs"), "{}", text(&output.stderr));
    assert!(!place.at("ran").exists());
    place.fails(&["reproduce", "trap.json", "--model", &toy, "--allow-programs"]);
    assert!(place.at("ran").exists(), "or this test shows nothing");
}

#[test]
fn an_edited_model_does_not_inherit_how_its_original_was_made() {
    let place = Place::new();
    place.save(&["--reproduction", "basic"]);
    std::fs::rename(place.at("edited"), place.at("first")).unwrap();
    let toy = toy();
    let mut arguments = vec!["evaluate", "first", "--parameters", "parameters.json", "--save", "second"];
    arguments.extend(["--good-prompts", "good.txt", "--bad-prompts", "bad.txt"]);
    arguments.extend(["--refusal-prompts", "refusals.txt[:24]", "--kl-prompts", "good.txt[:24]"]);
    arguments.extend(["--scorer", "refusals"]);
    arguments.extend(SHORT);
    let output = place.ablate(&arguments, None);
    succeeded(&output);
    assert!(place.at("second/model.safetensors").exists() && !place.at("second/reproduce").exists());
    assert!(text(&output.stderr).contains("not copied: first/reproduce"), "{}", text(&output.stderr));
    assert!(!place.read("second/README.md").contains("reproducible"), "{toy}");
}

#[test]
fn a_model_of_the_hub_is_uploaded_gathered_and_made_again_from_its_address() {
    let (place, server) = (Place::new(), Server::start(0));
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(toy())
        .unwrap()
        .map(|it| it.unwrap())
        .map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|it| (it.0.as_str(), it.1.as_slice())).collect();
    server.add("models/owner/toy", &files);
    let mut arguments =
        vec!["run", "owner/toy", "--study", "study.jsonl", "--trials", "3", "--startup-trials", "3"];
    arguments.extend([
        "--good-prompts",
        "embedded:demo-answered-train",
        "--bad-prompts",
        "embedded:demo-refused-train",
    ]);
    arguments.extend(["--refusal-prompts", "embedded:demo-refused-eval[:24]"]);
    arguments.extend(["--kl-prompts", "embedded:demo-answered-eval[:24]", "--pick", "min kl", "--no-check"]);
    arguments.extend(["--upload", "tester/again", "--no-upload-repo-private", "--reproduction", "basic"]);
    arguments.extend(SHORT);
    let output = place.ablate(&arguments, Some(&server));
    succeeded(&output);
    server.change(|it| {
        let uploaded = &it.repos["models/tester/again"].files;
        let names: Vec<&str> =
            uploaded.keys().map(String::as_str).filter(|it| it.starts_with("reproduce/")).collect();
        let expected = ["README.md", "SHA256SUMS", "reproduce.json", "study.jsonl"];
        assert_eq!(names, expected.map(|it| format!("reproduce/{it}")));
        assert!(text(&uploaded["README.md"]).contains("(reproduce/README.md)"));
    });

    server.add("models/owner/copy", &[("README.md", b"---\ntags:\n- gguf\n- ablate\n- reproducible\n---\n")]);
    server.add("models/owner/empty", &[("README.md", b"---\ntags:\n- heretic\n- reproducible\n---\n")]);
    for expected in ["tester/again: downloaded", "tester/again: is there already"] {
        let output = place.ablate(&["collect", "gathered"], Some(&server));
        succeeded(&output);
        let said = text(&output.stderr);
        assert!(
            said.contains(expected) && said.contains("owner/empty: has no reproduce/reproduce.json"),
            "{said}"
        );
        assert!(said.contains("1 files found") && !said.contains("owner/copy"), "{said}");
    }
    let mut gathered = std::fs::read_dir(place.at("gathered/127.0.0.1/tester")).unwrap();
    let gathered = gathered.next().unwrap().unwrap().path();
    assert_eq!(gathered.file_name().unwrap().len(), "again-0123456.json".len());

    let address = format!("{}/tester/again/blob/main/reproduce/reproduce.json", server.address);
    for file in [address.as_str(), gathered.to_str().unwrap()] {
        let output = place.ablate(&["reproduce", file, "--json"], Some(&server));
        let told: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        assert_eq!(told["same"], true, "{told}");
        assert_eq!(told["files"].as_array().unwrap().len(), 1);
    }
    let said = place.fails(&["reproduce", &address]);
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
}

/// A file as heretic 1.4 writes it for these parameters, with scores that it did not measure.
fn heretics(place: &Place) -> Value {
    let parameters = place.json("parameters.json");
    let set = |name: &str, split: &str| {
        json!({"dataset": name, "commit": null, "split": split, "column": null,
        "prefix": "", "suffix": "", "system_prompt": null})
    };
    json!({
        "version": "2",
        "environment": {"heretic": {"version": "1.4.0"}, "requirements": {}},
        "settings": {
            "model": toy(), "model_commit": null, "quantization": "none", "dtypes": ["auto"], "batch_size": 128,
            "max_response_length": 32, "response_prefix": "", "row_normalization": "none",
            "good_prompts": set("good.txt", "[:96]"), "bad_prompts": set("bad.txt", "[:96]"),
            "good_evaluation_prompts": set("good.txt", "[:24]"),
            "bad_evaluation_prompts": set("refusals.txt", "[:24]"),
        },
        "parameters": parameters,
        "metrics": {"kl_divergence": 9.5, "refusals": 7, "base_refusals": 23, "n_bad_prompts": 24},
        "hashes": {"model.safetensors": "0".repeat(64)},
    })
}

#[test]
fn a_file_of_heretics_is_scored_side_by_side_and_its_configuration_asks_for_it() {
    let place = Place::new();
    std::fs::write(place.at("theirs.json"), heretics(&place).to_string()).unwrap();
    let told: Value = serde_json::from_str(&place.succeeds(&["reproduce", "theirs.json", "--json"])).unwrap();
    let toy = toy();
    let mut arguments = vec!["evaluate", &toy, "--parameters", "parameters.json", "--json"];
    arguments.extend([
        "--good-prompts",
        "good.txt",
        "--bad-prompts",
        "bad.txt",
        "--row-normalization",
        "none",
    ]);
    arguments.extend(["--refusal-prompts", "refusals.txt[:24]", "--kl-prompts", "good.txt[:24]"]);
    arguments.extend(["--scorer", "refusals", "--scorer", "kl_divergence"]);
    arguments.extend(SHORT);
    let ours: Value = serde_json::from_str(&place.succeeds(&arguments)).unwrap();
    for (place, recorded) in [(0, json!(7.0 / 24.0)), (1, json!(9.5))] {
        let pair = &told["scores"][place];
        assert_eq!(pair["recorded"]["value"], recorded);
        assert_eq!(pair["here"]["value"], ours["scores"][place]["value"]);
        assert_eq!(pair["here"]["name"], ours["scores"][place]["name"]);
    }
    assert_eq!(told["files"], json!([]), "nothing is written that was not asked for");

    let configuration = "reproduce = 'theirs.json'\nsave_directory = 'out'\nmodel_action = 'save'\n";
    std::fs::write(place.at("config.toml"), configuration).unwrap();
    let shown = place.succeeds(&["run", "--config", "config.toml"]);
    assert!(shown.contains("7/24") && shown.contains("23/24") && shown.contains("9.5000"), "{shown}");
    assert!(shown.contains("model.safetensors: other bits"), "{shown}");
    assert!(place.at("out/config.json").exists());
    let said = place.fails(&["evaluate", &toy, "--parameters", "parameters.json", "--config", "config.toml"]);
    assert!(said.contains("`ablate reproduce theirs.json`"), "{said}");
    let said = place.fails(&["run", "--collect-reproducibles", "gathered"]);
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
}

#[test]
fn files_that_cannot_be_read_are_explained() {
    let place = Place::new();
    let mut file = heretics(&place);
    file["version"] = json!("4");
    std::fs::write(place.at("new.json"), file.to_string()).unwrap();
    let said = place.fails(&["reproduce", "new.json"]);
    assert!(said.contains("format 4 of heretic") && said.contains("newer version"), "{said}");
    std::fs::write(place.at("page.json"), "<html>").unwrap();
    let said = place.fails(&["reproduce", "page.json"]);
    assert!(said.contains("not JSON"), "{said}");
    let said = place.fails(&["reproduce", "nowhere.json"]);
    assert!(said.contains("nowhere.json"), "{said}");
    std::fs::write(place.at("empty.json"), "{}").unwrap();
    let said = place.fails(&["reproduce", "empty.json"]);
    assert!(said.contains("neither `format` nor `version`"), "{said}");
}
