//! Conversations: every reply has the bits of an answer to the whole prompt.

mod support;

use engine::{Answer, Device, Engine, Generation, Request};
use glossary::{Edit, EditSet, TokenId};
use support::goldens;

const HOW: Generation =
    Generation { max_tokens: 6, stop_tokens: Vec::new(), batch: 8, top: 3, logits: true, residuals: true };

/// An edit of every writer that is no identity.
fn edits(engine: &Engine) -> EditSet {
    let d = engine.info().d_model;
    let unit = |place: usize| (0..d).map(|it| if it == place { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    let edit = Edit::new(d, unit(1), unit(1), None).unwrap();
    engine.info().writers.iter().map(|it| (it.writer, edit.clone())).collect()
}

fn afresh(engine: &mut Engine, prompt: &[TokenId], edit: usize) -> Answer {
    let request = [Request { tokens: prompt.to_vec(), edit }];
    engine.generate(&request, &HOW, &mut |_, _| false).unwrap().remove(0)
}

/// Continues a prompt with what was answered and something new.
fn next(prompt: &[TokenId], answer: &Answer, more: &[u32]) -> Vec<TokenId> {
    prompt.iter().chain(&answer.tokens).copied().chain(more.iter().map(|&it| TokenId(it))).collect()
}

#[test]
fn replies_have_the_bits_of_answers_to_the_whole_prompt() {
    for golden in goldens() {
        let mut engine = golden.engine(Device::Cpu);
        let set = edits(&engine);
        engine.set_edits(&[set]).unwrap();
        for edit in [0, 1] {
            let mut conversation = engine.converse(edit);
            let mut prompt = golden.prompts().remove(0);
            // It grows; then its last answer is another one; then it begins anew; then it is the same once more.
            for step in 0..6 {
                let reply = engine.reply(&mut conversation, &prompt, &HOW, &mut |_| false).unwrap();
                let expected = afresh(&mut engine, &prompt, edit);
                assert!(reply == expected, "{}, edit {edit}, step {step}", golden.name);
                prompt = match step {
                    0 | 1 => next(&prompt, &reply, &[3, 1, 2]),
                    2 => [&prompt[..prompt.len() - 2], &[TokenId(7), TokenId(5)]].concat(),
                    3 => golden.prompts().remove(1),
                    _ => prompt,
                };
            }
            engine.end(conversation);
        }
    }
}

#[test]
fn a_reply_computes_only_what_is_new() {
    let golden = goldens().remove(0);
    let mut engine = golden.engine(Device::Cpu);
    let mut conversation = engine.converse(0);
    let first: Vec<TokenId> = (0..40).map(|it| TokenId(it % 7 + 1)).collect();
    let answer = engine.reply(&mut conversation, &first, &HOW, &mut |_| false).unwrap();
    let before = engine.block_rows();
    let second = next(&first, &answer, &[3, 1]);
    engine.reply(&mut conversation, &second, &HOW, &mut |_| false).unwrap();
    // The last token of the answer, the two new ones, and five of the six tokens of the new answer.
    assert_eq!(engine.block_rows() - before, (1 + 2 + 5) * engine.info().n_layers as u64);
}

#[test]
fn other_edits_begin_a_conversation_anew() {
    let golden = goldens().remove(0);
    let mut engine = golden.engine(Device::Cpu);
    let mut conversation = engine.converse(1);
    let prompt = golden.prompts().remove(0);
    assert!(engine.reply(&mut conversation, &prompt, &HOW, &mut |_| false).is_err(), "no edit is set");
    let set = edits(&engine);
    engine.set_edits(&[EditSet::new()]).unwrap();
    let before = engine.reply(&mut conversation, &prompt, &HOW, &mut |_| false).unwrap();
    engine.set_edits(&[set]).unwrap();
    let after = engine.reply(&mut conversation, &prompt, &HOW, &mut |_| false).unwrap();
    assert!(before != after, "the edit does something");
    assert!(after == afresh(&mut engine, &prompt, 1));
}

#[test]
fn conversations_that_have_ended_give_their_memory_back() {
    let golden = goldens().remove(0);
    let mut engine = golden.engine(Device::Cpu);
    let prompt = golden.prompts().remove(0);
    let mut round = || {
        let mut conversation = engine.converse(0);
        engine.reply(&mut conversation, &prompt, &HOW, &mut |_| false).unwrap();
        engine.end(conversation);
        engine.cache_positions()
    };
    let first = round();
    assert_eq!((0..5).map(|_| round()).max(), Some(first));
}
