//! Rules of a model's generation settings, as a user meets them, on the toy model of `demo/README.md`.

mod support;

use serde_json::{Value, json};
use support::{SHORT, ablate, toy};

#[test]
fn answers_obey_the_generation_settings_of_a_model_unless_that_is_not_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(toy()).unwrap().map(|it| it.unwrap().path()) {
        std::fs::copy(&file, model.join(file.file_name().unwrap())).unwrap();
    }
    let path = model.join("generation_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let run = |more: &[&str]| {
        let mut command = ablate(&folder);
        command.args(["generate", "model", "--prompt", "What is a ship?", "--max-tokens", "12", "--json"]);
        let output = command.args(more).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (_, plain, said) = run(&[]);
    assert!(!said.contains("generation_config.json"), "nothing to obey: {said}");
    let first: Value = serde_json::from_str(plain.lines().next().unwrap()).unwrap();
    config["suppress_tokens"] = json!([first["answer_ids"][0]]);
    config["repetition_penalty"] = json!(1.3);
    std::fs::write(&path, config.to_string()).unwrap();
    let (_, obeyed, said) = run(&[]);
    assert!(
        said.contains("answers obey generation_config.json: suppress_tokens, repetition_penalty 1.3"),
        "{said}"
    );
    assert_ne!(obeyed, plain);
    let (_, left_out, said) = run(&["--obey-generation-config=false"]);
    assert!(left_out == plain && !said.contains("answers obey"), "{said}");
    config["num_beams"] = json!(4);
    std::fs::write(&path, config.to_string()).unwrap();
    let (success, _, said) = run(&[]);
    assert!(
        !success && said.contains("`num_beams` is 4") && said.contains("--obey-generation-config=false"),
        "{said}"
    );
    let output =
        ablate(&folder).args(["evaluate", "model", "--against"]).arg(toy()).args(SHORT).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("`num_beams` is 4"), "{said}");
}
