//! GGUF files as llama.cpp's converter writes them, against the checkpoints that they were made of.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use checkpoint::Checkpoint;
use engine::families::FAMILIES;
use engine::{Answer, Device, Generation, Request};
use support::{Golden, largest, largest_difference};

const HOW: Generation =
    Generation { max_tokens: 16, stop_tokens: Vec::new(), batch: 128, top: 3, logits: true, residuals: true };

/// The converter computes the divisors of some rotary embeddings in f32, we in f64.
const RELATIVE: f32 = 1e-5;

fn answers(golden: &Golden, path: &Path) -> Vec<Answer> {
    let requests: Vec<Request> =
        golden.prompts().into_iter().map(|tokens| Request { tokens, edit: 0 }).collect();
    support::engine(path, Device::Cpu).generate(&requests, &HOW, &mut |_, _| false).unwrap()
}

fn logits(answer: &Answer) -> &[f32] {
    &answer.first_token.as_ref().unwrap().logits
}

#[test]
fn a_gguf_file_has_the_bits_of_the_checkpoint_that_it_was_made_of() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files: Vec<_> =
        std::fs::read_dir(tests.join("golden_gguf")).unwrap().map(|it| it.unwrap().path()).collect();
    let mut families = BTreeSet::new();
    for file in files {
        families.insert(support::engine(&file, Device::Cpu).info().family);
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let golden = Golden::open(&tests.join("golden").join(&name));
        let (found, expected) = (answers(&golden, &file), answers(&golden, &golden.folder));
        let divided = Checkpoint::open(&file).unwrap().names().any(|it| it.starts_with("rope_f"));
        for (prompt, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if divided {
                let by = largest_difference(logits(found), logits(expected)).0;
                assert!(
                    by <= RELATIVE * largest(logits(expected)),
                    "{name}, prompt {prompt}: logits differ by {by}"
                );
                assert_eq!(found.tokens, expected.tokens, "{name}, prompt {prompt}");
            } else {
                assert_eq!(found, expected, "{name}, prompt {prompt}");
            }
        }
    }
    let converted = FAMILIES.iter().filter(|it| it.gguf.is_some()).map(|it| it.name);
    assert_eq!(families, converted.collect(), "a file of every family that has them");
}
