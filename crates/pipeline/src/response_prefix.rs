//! What all answers begin with, so that they are compared where they begin to differ.

use engine::{Generation, Request};
use prompts::EncodedPrompt;

use crate::calibrate::{self, CALIBRATION_SETS, PROMPTS};
use crate::model::{Model, PromptTexts};
use crate::thoughts::{self, Thought};
use crate::{Cancel, Event, Events, PipelineError, Settings};

/// The text that all answers begin with; a chain of thought that they open, or the chat template, is closed at once.
///
/// Leaves a prefix of its own in the model's encoder.
pub(crate) fn find(
    model: &mut Model,
    settings: &Settings,
    texts: &PromptTexts,
    batch_size: usize,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<String, PipelineError> {
    let skips = &settings.chain_of_thought_skips;
    let mut prefix;
    if let Some(Thought { closing: Some(closing), .. }) = opened_by_template(model, settings, texts, events)?
    {
        prefix = closing;
    } else {
        let begin = Beginning::of(model, settings, texts, batch_size, cancel)?;
        let Some((thought, Some(closed))) = thoughts::at_beginning(&begin.text, skips) else {
            begin.report_thoughts(skips, events);
            let prefix = begin.usable(events);
            events(Event::ResponsePrefix { prefix: prefix.clone() });
            return Ok(prefix);
        };
        events(Event::ChainOfThought {
            opened: thought.opened,
            by_template: false,
            answers: begin.answers.len(),
            of: begin.answers.len(),
            closed: Some(closed.clone()),
            variable: variable(model, settings, texts)?,
        });
        prefix = closed;
    }
    // What follows the closed block may be common again, a line break perhaps.
    model.encoder.set_response_prefix(prefix.clone());
    let begin = Beginning::of(model, settings, texts, batch_size, cancel)?;
    begin.report_thoughts(skips, events);
    prefix += &begin.usable(events);
    events(Event::ResponsePrefix { prefix: prefix.clone() });
    Ok(prefix)
}

/// The chain of thought that prompts end in, the prefix in the encoder included, which is reported.
///
/// It is one only if all prompts end in it: templates may open one for some.
pub(crate) fn opened_by_template(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
    events: &mut Events<'_>,
) -> Result<Option<Thought>, PipelineError> {
    if model.encoder.system_role().is_none() {
        // Without a template.
        return Ok(None);
    }
    let prompts = prompts(model, settings, texts)?.concat();
    let thoughts: Vec<Thought> = prompts
        .iter()
        .filter_map(|it| thoughts::at_end(&it.rendered, &settings.chain_of_thought_skips))
        .collect();
    let Some(first) = thoughts.first() else { return Ok(None) };
    let all = thoughts.len() == prompts.len() && thoughts.iter().all(|it| it == first);
    let closed = first.closing.clone().filter(|_| all && settings.response_prefix.is_none());
    events(Event::ChainOfThought {
        opened: first.opened.clone(),
        by_template: true,
        answers: thoughts.len(),
        of: prompts.len(),
        closed,
        variable: variable(model, settings, texts)?,
    });
    Ok(all.then(|| first.clone()))
}

/// The variable of the chat template that has to do with thinking, if there is one.
fn variable(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
) -> Result<Option<String>, PipelineError> {
    let prompts = prompts(model, settings, texts)?;
    let Some(prompt) = prompts.iter().flatten().next() else { return Ok(None) };
    Ok(model.encoder.thinking_variable(&prompt.prompt))
}

/// The prompts of each kind that are looked at.
fn prompts(
    model: &Model,
    settings: &Settings,
    texts: &PromptTexts,
) -> Result<Vec<Vec<EncodedPrompt>>, PipelineError> {
    CALIBRATION_SETS.iter().map(|&it| calibrate::encoded(model, settings, texts, it, PROMPTS)).collect()
}

/// Tokens that are enough to see most answers differ.
const FEW: usize = 8;

/// Answers, and the longest text that all of them begin with.
struct Beginning {
    /// Special tokens included, but for those that end them.
    answers: Vec<String>,
    /// Without spaces at its end: a prompt that ends in one is tokenized in an uncommon way.
    text: String,
}

impl Beginning {
    fn of(
        model: &mut Model,
        settings: &Settings,
        texts: &PromptTexts,
        batch_size: usize,
        cancel: &Cancel<'_>,
    ) -> Result<Self, PipelineError> {
        let prompts = prompts(model, settings, texts)?;
        // What prompts of one kind have in common may be the very behavior: the words of a refusal.
        if prompts.iter().any(Vec::is_empty) {
            return Ok(Self { answers: Vec::new(), text: String::new() });
        }
        let requests: Vec<Request> =
            prompts.into_iter().flatten().map(|it| Request { tokens: it.ids, edit: 0 }).collect();
        let stop_tokens = model.encoder.tokenizer().stop_tokens().to_vec();
        let mut answers = Vec::new();
        for max_tokens in [FEW, settings.max_response_length] {
            let max_tokens = max_tokens.min(settings.max_response_length);
            let how = Generation {
                max_tokens,
                stop_tokens: stop_tokens.clone(),
                batch: batch_size,
                ..Generation::default()
            };
            let found = model.engine.generate(&requests, &how, &mut |_, _| cancel.requested())?;
            cancel.check()?;
            answers = found.iter().map(|it| shown(model, it)).collect::<Result<Vec<_>, _>>()?;
            let common = common_prefix(&answers).len();
            // Where they have differed, more tokens change nothing.
            if answers.iter().all(|it| it.len() > common) || max_tokens == settings.max_response_length {
                break;
            }
        }
        let text = common_prefix(&answers).trim_end_matches(' ').to_owned();
        Ok(Self { answers, text })
    }

    /// The prefix that can be used: none if it is the whole of an answer, of which nothing would be left to score.
    fn usable(&self, events: &mut Events<'_>) -> String {
        let left = |it: &&String| it.trim_end().len() > self.text.trim_end().len();
        let whole = self.answers.iter().filter(|it| !left(it)).count();
        if whole == 0 || (self.text.is_empty() && whole < self.answers.len()) {
            return self.text.clone();
        }
        events(Event::WholeAnswers { text: self.text.clone(), answers: whole, of: self.answers.len() });
        String::new()
    }

    /// Reports chains of thought that some answers begin with and that nobody closes.
    fn report_thoughts(&self, skips: &[(String, String)], events: &mut Events<'_>) {
        let thoughts: Vec<Thought> =
            self.answers.iter().filter_map(|it| Some(thoughts::at_beginning(it, skips)?.0)).collect();
        if let Some(first) = thoughts.first() {
            events(Event::ChainOfThought {
                opened: first.opened.clone(),
                by_template: false,
                answers: thoughts.len(),
                of: self.answers.len(),
                closed: None,
                variable: None,
            });
        }
    }
}

/// An answer's text with its special tokens, up to where a turn ends.
fn shown(model: &Model, answer: &engine::Answer) -> Result<String, PipelineError> {
    let tokenizer = model.encoder.tokenizer();
    let text = tokenizer.decode(&answer.tokens, false)?;
    // A character that is not yet whole is not compared.
    let text = text.trim_end_matches('\u{fffd}');
    let ends = tokenizer.turn_ends().filter_map(|it| text.find(it)).min();
    Ok(text[..ends.unwrap_or(text.len())].to_owned())
}

/// The longest text that all texts begin with, in whole characters.
fn common_prefix(texts: &[String]) -> &str {
    let Some((first, others)) = texts.split_first() else { return "" };
    let end = others.iter().fold(first.len(), |end, other| {
        let differs = first[..end].char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
        differs.map_or(end.min(other.len()), |((at, _), _)| at)
    });
    &first[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&it| it.to_owned()).collect()
    }

    #[test]
    fn the_common_prefix_ends_before_the_first_difference() {
        let prefix = |it: &[&str]| common_prefix(&texts(it)).to_owned();
        assert_eq!(prefix(&["<think> a", "<think> b"]), "<think> ");
        assert_eq!(prefix(&["aé", "aè"]), "a");
        assert_eq!(prefix(&["ab", "abc", "abd"]), "ab");
        assert_eq!(prefix(&["abc", "ab", "abd"]), "ab");
        assert_eq!(prefix(&["alone"]), "alone");
        assert_eq!(prefix(&[]), "");
        assert_eq!(prefix(&["", "a"]), "");
    }

    #[test]
    fn a_prefix_that_is_the_whole_of_an_answer_is_not_used() {
        let usable = |answers: &[&str]| {
            let answers = texts(answers);
            let text = common_prefix(&answers).trim_end_matches(' ').to_owned();
            let mut warned = Vec::new();
            let prefix = Beginning { answers, text }.usable(&mut |it| {
                if let Event::WholeAnswers { answers, of, .. } = it {
                    warned.push((answers, of));
                }
            });
            (prefix, warned.pop())
        };
        assert_eq!(usable(&["Sure. One", "Sure. Two"]), ("Sure.".to_owned(), None));
        assert_eq!(usable(&["I can't.", "I can't."]), (String::new(), Some((2, 2))));
        assert_eq!(usable(&["Yes.", "Yes. It is.", "Yes. \n"]), (String::new(), Some((2, 3))));
        assert_eq!(usable(&["", ""]), (String::new(), Some((2, 2))));
        // Nothing in common, and nothing wrong with it.
        assert_eq!(usable(&["", "a"]), (String::new(), None));
        assert_eq!(usable(&[]), (String::new(), None));
    }
}
