//! Chains of thought: how they are opened, and what closes them at once, so that answers are scored and not thoughts.
//!
//! The setting `chain_of_thought_skips` has pairs of what opens one and the same, closed. Others are known by their form:
//! a tag that speaks of thinking or reasoning, such as `<seed:think>`.

/// An open chain of thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thought {
    /// What opened it.
    pub(crate) opened: String,
    /// What closes it at once; `None` where that is not known.
    pub(crate) closing: Option<String>,
}

/// The chain of thought that a text begins with, white space aside, and the text with it closed at once.
pub(crate) fn at_beginning(text: &str, skips: &[(String, String)]) -> Option<(Thought, Option<String>)> {
    let trimmed = text.trim_start();
    let lead = &text[..text.len() - trimmed.len()];
    for (opened, closed) in skips {
        if !opened.trim().is_empty() && trimmed.starts_with(opened.as_str()) {
            let closing = closed.strip_prefix(opened.as_str()).map(str::to_owned);
            let thought = Thought { opened: opened.clone(), closing };
            return Some((thought, Some(format!("{lead}{closed}"))));
        }
    }
    let (open, close) = BRACKETS.into_iter().find(|(open, _)| trimmed.starts_with(*open))?;
    let inside = &trimmed[open.len_utf8()..];
    let name = &inside[..inside.find(close)?];
    let thought = tagged(open, name, close)?;
    let closed = thought.closing.as_ref().map(|it| format!("{lead}{}{it}", thought.opened));
    Some((thought, closed))
}

/// The chain of thought that a prompt ends in, white space aside. Where its opening stands on a line of its own, so does
/// what closes it: models that do not think were trained on `<think>`, an empty line, `</think>`.
pub(crate) fn at_end(prompt: &str, skips: &[(String, String)]) -> Option<Thought> {
    let trimmed = prompt.trim_end();
    let new_line = if prompt[trimmed.len()..].matches('\n').count() == 1 { "\n" } else { "" };
    let named = skips.iter().find(|(opened, _)| {
        let end = opened.trim_end();
        !end.is_empty() && trimmed.ends_with(end)
    });
    let mut thought = if let Some((opened, closed)) = named {
        let closing = closed.strip_prefix(opened.as_str()).map(str::to_owned);
        Thought { opened: opened.trim_end().to_owned(), closing }
    } else {
        let (open, close) = BRACKETS.into_iter().find(|(_, close)| trimmed.ends_with(*close))?;
        let start = trimmed.rfind(open)?;
        tagged(open, &trimmed[start + open.len_utf8()..trimmed.len() - close.len_utf8()], close)?
    };
    thought.closing = thought.closing.map(|it| format!("{new_line}{it}"));
    Some(thought)
}

/// What stands around the names of tags.
const BRACKETS: [(char, char); 3] = [('<', '>'), ('[', ']'), ('◁', '▷')];

/// A tag that opens a chain of thought, judging by its name.
fn tagged(open: char, name: &str, close: char) -> Option<Thought> {
    let lower = name.to_lowercase();
    let speaks_of_it = ["think", "thought", "reason"].iter().any(|it| lower.contains(it));
    let is_name = name.chars().count() <= 40
        && !name.starts_with('/')
        && !lower.contains("end")
        && !name.contains(|it: char| it.is_whitespace() || it == open || it == close);
    if !speaks_of_it || !is_name {
        return None;
    }
    let swapped = [("START", "END"), ("start", "end"), ("begin", "end"), ("BEGIN", "END")]
        .into_iter()
        .find(|(begin, _)| name.contains(begin))
        .map(|(begin, end)| name.replacen(begin, end, 1));
    let closing = match swapped {
        Some(name) => Some(name),
        None if name.contains('|') => None,
        None => Some(format!("/{name}")),
    };
    Some(Thought {
        opened: format!("{open}{name}{close}"),
        closing: closing.map(|it| format!("{open}{it}{close}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn thought(prompt: &str) -> Option<Thought> {
        at_end(prompt, &Settings::default().chain_of_thought_skips)
    }

    fn closed(prefix: &str) -> Option<String> {
        at_beginning(prefix, &Settings::default().chain_of_thought_skips)?.1
    }

    #[test]
    fn a_prompt_that_ends_in_an_open_thought_is_told_what_closes_it() {
        for (prompt, expected) in [
            ("<|assistant|><think>", "</think>"),
            ("<|assistant|>\n<think>\n", "\n</think>"),
            ("<|assistant|><think> ", "</think>"),
            ("[/INST][THINK]", "[/THINK]"),
            ("<seed:bos>assistant\n<seed:think>", "</seed:think>"),
            ("<|START_OF_TURN_TOKEN|><|START_THINKING|>", "<|END_THINKING|>"),
            ("assistant◁think▷", "◁/think▷"),
            ("assistant<reasoning>\n", "\n</reasoning>"),
            ("<|begin_of_thought|>\n\n", "<|end_of_thought|>"),
            (
                "<|start|>assistant<|channel|>analysis<|message|>",
                "<|end|><|start|>assistant<|channel|>final<|message|>",
            ),
        ] {
            assert_eq!(thought(prompt).unwrap().closing.as_deref(), Some(expected), "{prompt:?}");
        }
        assert_eq!(thought("assistant<|think|>").unwrap().closing, None);
    }

    #[test]
    fn a_prompt_whose_thought_is_closed_or_that_has_none_is_left_alone() {
        for prompt in [
            "<think>\n\n</think>\n\n",
            "<think></think>",
            "<|assistant|>",
            "What do you think?",
            "What do you <think> of it?\n<|assistant|>",
            "a > b",
            "[/THINK]",
            "<|END_THINKING|>",
            "",
        ] {
            assert_eq!(thought(prompt), None, "{prompt:?}");
        }
    }

    #[test]
    fn answers_that_begin_with_a_thought_have_it_closed_whatever_white_space_is_around() {
        for (prefix, expected) in [
            ("<think>", "<think></think>"),
            ("<think>\nOkay, the user", "<think></think>"),
            ("\n<think>\n", "\n<think></think>"),
            ("<seed:think>", "<seed:think></seed:think>"),
            ("[THINK] ", "[THINK][/THINK]"),
        ] {
            assert_eq!(closed(prefix).as_deref(), Some(expected), "{prefix:?}");
        }
        assert_eq!(closed("I think"), None);
        assert_eq!(closed("<b>think</b>"), None);
        let own = [("<plan>".to_owned(), "Answer:".to_owned())];
        assert_eq!(at_beginning("<plan>\n1.", &own).unwrap().1.as_deref(), Some("Answer:"));
        assert_eq!(at_end("<plan>", &own).unwrap().closing, None);
    }
}
