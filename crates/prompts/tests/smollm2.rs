//! A real model: prompts of SmolLM2-135M-Instruct as Python renders and encodes them.
//!
//! `golden/smollm2.json` is made by `tools/tokenizer_smollm2.py`. The model is not kept here; the test that needs
//! it finds it by the environment variable `ABLATE_SMOLLM2_GGUF`.

use std::io::Write as _;
use std::path::Path;

use checkpoint::Checkpoint;
use glossary::TokenId;
use prompts::{PromptEncoder, PromptSettings};
use serde_json::Value as Json;

#[test]
fn smollm2_prompts_are_rendered_and_encoded_as_in_python() {
    let Some(path) = std::env::var_os("ABLATE_SMOLLM2_GGUF") else {
        // Straight to the stream: what `eprintln!` says in a test that passes is not shown.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: set ABLATE_SMOLLM2_GGUF to SmolLM2-135M-Instruct as a GGUF file to run this test"
        );
        return;
    };
    let checkpoint = Checkpoint::open(Path::new(&path)).unwrap();
    let encoder = PromptEncoder::from_checkpoint(&checkpoint, PromptSettings::default()).unwrap();
    let stops: Vec<_> =
        encoder.tokenizer().stop_tokens().iter().map(|&it| encoder.tokenizer().token(it)).collect();
    assert_eq!(stops, [Some("<|endoftext|>".to_owned()), Some("<|im_end|>".to_owned())]);
    let golden: Json = serde_json::from_str(include_str!("golden/smollm2.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let encoded =
            encoder.encode_prompt(case["prompt"].as_str().unwrap(), case["system"].as_str()).unwrap();
        assert_eq!(encoded.rendered, case["rendered"].as_str().unwrap());
        let ids: Vec<TokenId> =
            case["ids"].as_array().unwrap().iter().map(|it| TokenId(it.as_u64().unwrap() as u32)).collect();
        assert_eq!(encoded.ids, ids, "{:?}", encoded.rendered);
        assert_eq!(encoder.tokenizer().decode(&encoded.ids, false).unwrap(), encoded.rendered);
    }
}
