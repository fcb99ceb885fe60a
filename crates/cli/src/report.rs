//! What is told of a job: its events as they come, and tables.

use ablation::{SiteGeometry, SiteSpread};
use pipeline::search_run::{HeldOut, scores_of};
use pipeline::settings::ScorerSettings;
use pipeline::{Event, Quantized, ScoreRecord, Settings, Stage, TrialEvent};
use search::Trial;
use serde_json::Value;

use crate::terminal::{Progress, SearchLine, line, remark};

/// How events are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// In words, on standard error.
    Remarks,
    /// In words, and one JSON object a line on standard output.
    Json,
}

/// Tells events.
pub(crate) struct Teller {
    style: Style,
    progress: Option<(Stage, Progress)>,
    search: Option<SearchLine>,
    best: Option<Best>,
    /// Standard output was closed, or another failure to write there.
    failure: Option<std::io::Error>,
}

impl Teller {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, progress: None, search: None, best: None, failure: None }
    }

    /// Tells one event.
    pub(crate) fn tell(&mut self, event: &Event) {
        if self.style == Style::Json && !matches!(event, Event::Progress { .. }) {
            let json = serde_json::to_string(event).unwrap_or_default();
            if let Err(error) = line(&json) {
                self.failure = Some(error);
            }
        }
        if let Event::Progress { stage, done, all, tokens } = event {
            self.progress(*stage, *done, *all, *tokens);
            return;
        }
        self.progress = None;
        if let Some(text) = in_words(event) {
            self.say(&text);
        }
        for text in responses(event) {
            self.say(&text);
        }
        if let Event::Directions { geometry, spread: Some(spread) } = event {
            for row in geometry_table(geometry, spread) {
                self.say(&row);
            }
        }
        self.follow(event);
    }

    fn progress(&mut self, stage: Stage, done: usize, all: usize, tokens: usize) {
        if let (Stage::Candidates, Some(search)) = (stage, &mut self.search) {
            search.under_way(done, all, tokens);
            return;
        }
        self.search = None;
        if self.progress.as_ref().is_none_or(|it| it.0 != stage) {
            self.progress = Some((stage, Progress::new(stage_name(stage), all)));
        }
        if let Some((_, progress)) = &mut self.progress {
            progress.at_tokens(done, tokens);
        }
    }

    /// Says something, above the line of a search if there is one.
    fn say(&self, text: &str) {
        match &self.search {
            Some(search) => search.above(text),
            None => remark(text),
        }
    }

    /// Keeps the line of a search up to date.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::SearchBegun { complete, n_trials } => {
                self.search = SearchLine::new(*complete, *n_trials);
                self.best = None;
            }
            Event::Trial(trial) => {
                let new = Best::of(trial);
                if self.best.as_ref().is_none_or(|it| new.losses < it.losses) {
                    self.best = Some(new);
                }
                let best = self.best.as_ref().map_or(String::new(), |it| it.text.clone());
                if let Some(search) = &mut self.search {
                    search.complete(best);
                }
            }
            Event::TrialFailed { .. } => {
                if let Some(search) = &mut self.search {
                    search.failed();
                }
            }
            _ => {}
        }
    }

    /// No more events come.
    pub(crate) fn done(&mut self) {
        self.progress = None;
        self.search = None;
    }

    /// The failure to write, if there was one.
    pub(crate) fn finish(self) -> std::io::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// The trial of a search that is best in the first objective, and of those equal there in the next.
struct Best {
    losses: Vec<f64>,
    text: String,
}

impl Best {
    fn of(trial: &TrialEvent) -> Self {
        let losses = trial.objectives.iter().map(|it| match it.goal {
            scorers::Goal::Maximize => -it.value,
            _ => it.value,
        });
        Self {
            losses: losses.collect(),
            text: format!("best: trial {}, {}", trial.number, summary(&trial.scores)),
        }
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Residuals => "reading residuals",
        Stage::Baseline => "scoring the original",
        Stage::Candidates => "scoring candidates",
        Stage::HeldOut => "scoring on other prompts",
        Stage::Factors => "computing the adapter",
        Stage::Saving => "saving",
    }
}

fn in_words(event: &Event) -> Option<String> {
    Some(match event {
        Event::BatchSizeTried { size, tokens_per_second } => {
            format!("batch of {size}: {tokens_per_second:.0} tokens/s")
        }
        Event::BatchSize { size } => format!("batch size: {size}"),
        Event::GenerationRules { rules } => crate::model::about_rules(rules),
        Event::ChainOfThought { .. } => chain_of_thought(event)?,
        Event::WholeAnswers { text, answers, of } if text.is_empty() => {
            format!("warning: {answers} of {of} answers of the original are empty")
        }
        Event::WholeAnswers { text, answers, of } => format!(
            "warning: all answers of the original begin with {text:?}, and nothing follows in {answers} of {of}: no response \
             prefix is used"
        ),
        Event::ResponsePrefix { prefix } if prefix.is_empty() => "no common response prefix".to_owned(),
        Event::ResponsePrefix { prefix } => format!("common response prefix: {prefix:?}"),
        Event::Quantized(Quantized { blocks, kl_divergence: Some(kl), .. }) => format!(
            "weights in {blocks}: the original as its file has it is {kl:.4} nats away (KL(file ‖ {blocks}), mean of first \
             tokens); scores compare with the original in {blocks}"
        ),
        Event::Quantized(Quantized { blocks, kl_divergence: None, .. }) => format!(
            "weights in {blocks}: how far that is from the file was not measured, for want of prompts or memory; scores \
             compare with the original in {blocks}"
        ),
        Event::Directions { geometry, .. } => {
            let largest = geometry.iter().filter_map(|it| Some((it.cosine_good_bad?, it.site)));
            let (cosine, site) = largest.min_by(|a, b| a.0.total_cmp(&b.0))?;
            format!(
                "directions found; the sets differ most at site {} (cosine of the means {cosine:.3})",
                site.index()
            )
        }
        Event::Baseline { scores, seconds } => {
            format!("original: {} ({seconds:.1} s)", summary(scores))
        }
        Event::Resumed { complete, running, incomparable } => {
            let numbers: Vec<String> = incomparable.iter().map(ToString::to_string).collect();
            let left_out = match &numbers[..] {
                [] => String::new(),
                numbers => {
                    format!("; left out, for want of one value per objective: trial {}", numbers.join(", "))
                }
            };
            format!("resuming the study: {complete} trials complete, {running} to evaluate again{left_out}")
        }
        Event::Trial(trial) => {
            let volume = trial.hypervolume.map_or(String::new(), |it| format!(", hypervolume {it:.5}"));
            let mark = if trial.front.contains(&trial.number) { " *" } else { "" };
            format!(
                "trial {:>3}: {}{mark} ({} of {}; {:.1} s; front of {}{volume})",
                trial.number,
                summary(&trial.scores),
                trial.number + 1,
                trial.n_trials,
                trial.seconds,
                trial.front.len(),
            )
        }
        Event::TrialFailed { number, reason, hints } => {
            let hints = hints.iter().fold(String::new(), |text, it| text + "\n\nhint: " + it);
            format!("trial {number:>3} failed: {reason}{hints}")
        }
        Event::HeldOut { number, scores } => {
            format!("trial {number:>3} on prompts that the search did not see: {}", summary(scores))
        }
        Event::NoHeldOut { scores } => {
            format!(
                "no held-out scores of {}: fewer than 20 unused prompts, or none, in what they are measured on",
                scores.join(", ")
            )
        }
        Event::Warning(warning) => format!("warning: {warning}"),
        Event::Approximated { rank, relative_error, tensors } => {
            let worst = tensors.iter().max_by(|a, b| a.relative_error.total_cmp(&b.relative_error))?;
            format!(
                "factors of rank {rank} leave {:.2} % of the edit out, at most {:.2} % of a tensor (`{}`)",
                100.0 * relative_error,
                100.0 * worst.relative_error,
                worst.tensor
            )
        }
        Event::Saved { what, path } => format!("{what} written to {path}"),
        _ => return None,
    })
}

/// Who opens a chain of thought, and what is scored therefore.
fn chain_of_thought(event: &Event) -> Option<String> {
    let Event::ChainOfThought { opened, by_template, answers, of, closed, variable } = event else {
        return None;
    };
    let concerned = if answers == of { "all".to_owned() } else { format!("{answers} of {of}") };
    let what = if *by_template {
        format!("the chat template ends {concerned} prompts in an open chain of thought ({opened:?})")
    } else {
        format!("{concerned} answers begin with a chain of thought ({opened:?})")
    };
    let scored = match closed {
        Some(closed) => {
            format!("{what}; {closed:?} closes it at once, so that what is scored is the answer behind it")
        }
        None => format!(
            "warning: {what}: what is scored there is the beginning of the thought, not an answer; a response prefix that \
             closes it (--response-prefix) or `chain_of_thought_skips` changes that"
        ),
    };
    let by_itself = variable.as_ref().map_or(String::new(), |it| {
        format!("; the template has a variable for it: --chat-template-kwargs '{{\"{it}\": false}}'")
    });
    Some(format!("{scored}{by_itself}"))
}

/// The answers that scorers were told to show (`print_responses`), each with its prompt and verdict.
fn responses(event: &Event) -> Vec<String> {
    let scores = match event {
        Event::Baseline { scores, .. } | Event::HeldOut { scores, .. } => scores,
        Event::Trial(trial) => &trial.scores,
        _ => return Vec::new(),
    };
    let indented = |text: &str| text.trim().replace('\n', "\n    ");
    let shown = scores.iter().flat_map(|score| {
        score.responses().into_iter().map(|it| {
            let verdict = if it.matches { "counts" } else { "does not count" };
            let prompt = indented(&it.prompt.unwrap_or_default());
            format!("  {} ({verdict})\n    > {prompt}\n    {}", score.name, indented(&it.response))
        })
    });
    shown.collect()
}

/// Scores in one line.
pub(crate) fn summary(scores: &[ScoreRecord]) -> String {
    let parts: Vec<String> = scores.iter().map(|it| format!("{} {}", it.name, it.display)).collect();
    parts.join(", ")
}

/// How residuals lie to each other after each layer: cosines of means and of geometric medians, lengths, silhouettes.
fn geometry_table(geometry: &[SiteGeometry], spread: &[SiteSpread]) -> Vec<String> {
    let mut lines = vec![
        "g, b: means of the good and the bad prompts' residuals; r = b − g; with *, of their geometric medians".to_owned(),
        "S: cosine; |…|: length; Silh: mean silhouette, how well the two sets lie apart".to_owned(),
        format!(
            "{:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
            "layer", "S(g,b)", "S(g*,b*)", "S(g,r)", "S(g*,r*)", "S(b,r)", "S(b*,r*)",
            "|g|", "|g*|", "|b|", "|b*|", "|r|", "|r*|", "Silh"
        ),
    ];
    let cosine = |it: Option<f64>| it.map_or("-".to_owned(), |it| format!("{it:.4}"));
    // The embedding is no layer.
    for (mean, median) in geometry.iter().zip(spread).skip(1) {
        lines.push(format!(
            "{:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7.4}",
            mean.site.index(),
            cosine(mean.cosine_good_bad),
            cosine(median.cosine_good_bad),
            cosine(mean.cosine_good_difference),
            cosine(median.cosine_good_difference),
            cosine(mean.cosine_bad_difference),
            cosine(median.cosine_bad_difference),
            mean.good_norm,
            median.good_median_norm,
            mean.bad_norm,
            median.bad_median_norm,
            mean.difference_norm,
            median.difference_norm,
            median.silhouette,
        ));
    }
    lines
}

/// Scores as a table: name, value, the original's value, interval or median and maximum; below each score the one on
/// prompts that the search did not see, where there is one.
pub(crate) fn score_table(scores: &[ScoreRecord], unseen: &[ScoreRecord]) -> Vec<String> {
    let row = |name: &str, it: &ScoreRecord| {
        vec![name.to_owned(), it.display.clone(), it.baseline_display(), it.spread()]
    };
    let mut rows = vec![["score", "value", "original", ""].map(str::to_owned).to_vec()];
    for it in scores {
        rows.push(row(&it.name, it));
        rows.extend(named(unseen, &it.name).map(|it| row(&format!("  {UNSEEN}"), it)));
    }
    columns(&rows)
}

/// The heading of scores on prompts that the search did not see.
pub(crate) const UNSEEN: &str = "unseen";

fn named<'a>(scores: &'a [ScoreRecord], name: &str) -> Option<&'a ScoreRecord> {
    scores.iter().find(|it| it.name == name)
}

/// Trials as a table, its heading first: of each score the value, the interval of what counts, median and largest of
/// what is a mean, and the value on prompts that the search did not see.
pub(crate) fn trial_table<'a>(trials: impl IntoIterator<Item = &'a Trial>, unseen: &HeldOut) -> Vec<String> {
    let mut rows = Vec::new();
    for trial in trials {
        let mut cells = vec![("trial".to_owned(), trial.number.to_string())];
        for it in scores_of(trial) {
            let details = &it.details;
            cells.push((it.name.clone(), it.display.clone()));
            if let Some([low, high]) = details.interval {
                cells.push(("95 %".to_owned(), format!("{:.0}–{:.0} %", low * 100.0, high * 100.0)));
            } else if let (Some(median), Some(max)) = (details.median, details.max) {
                cells.push(("median".to_owned(), format!("{median:.4}")));
                cells.push(("largest".to_owned(), format!("{max:.4}")));
            }
            if !unseen.is_empty() {
                let elsewhere = unseen.get(&trial.number).and_then(|scores| named(scores, &it.name));
                // A display may say more in brackets, for which a table has no room twice.
                let shown = elsewhere.and_then(|it| it.display.split(" (").next());
                cells.push((UNSEEN.to_owned(), shown.unwrap_or_default().to_owned()));
            }
        }
        if rows.is_empty() {
            rows.push(cells.iter().map(|it| it.0.clone()).collect());
        }
        rows.push(cells.into_iter().map(|it| it.1).collect());
    }
    columns(&rows)
}

/// What [`UNSEEN`] means, or that there is no such column.
pub(crate) fn about_unseen(unseen: &HeldOut) -> &'static str {
    if unseen.is_empty() {
        "(no scores on prompts that the search did not see)"
    } else {
        "(unseen: on prompts of the same sources that the search did not see)"
    }
}

/// Rows with their columns aligned; a row may lack the last ones.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width =
        |column: usize| rows.iter().filter_map(|it| it.get(column)).map(|it| it.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let row = |cells: &Vec<String>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(row).collect()
}

/// All scorers that can do without settings; those that are no goals by default are shown only.
pub(crate) fn scorers_without_required_settings() -> Vec<ScorerSettings> {
    let goals = Settings::default().scorers;
    let sets = scorers::DefaultSets { behavior: "".into(), baseline: "".into() };
    scorers::MEMBERS
        .iter()
        .filter(|it| scorers::configure(it.name, None, None, &Value::Null, &sets).is_ok())
        .map(|it| ScorerSettings {
            scorer: it.name.to_owned(),
            goal: (!goals.iter().any(|goal| goal.scorer == it.name)).then_some(scorers::Goal::None),
            instance_name: None,
            settings: Value::Null,
        })
        .collect()
}
