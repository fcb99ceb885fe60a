#![doc = include_str!("command.md")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{DefaultSets, Member, Scorer};
use crate::program::{NoReply, Program, Stop};
use crate::settings::settings;
use crate::{ConfigureError, Evidence, EvidenceKind, Goal, Need, PromptSet, Score, ScoreError};

/// The version of the protocol.
const VERSION: u64 = 1;
/// Bytes of `details`, as JSON: they are stored with every trial.
const LARGEST_DETAILS: usize = 64 << 10;
/// Characters of `display`: it stands in tables.
const LONGEST_DISPLAY: usize = 200;

settings! {
    /// Settings of `command`.
    pub struct CommandSettings {
        /// The program and its arguments, as a list. Required.
        pub command: Vec<String> = Vec::new(),
        /// Prompts to answer. Default: the evaluation prompts that show the behavior.
        pub prompts: Option<PromptSet> = None,
        /// What is passed on to the program at its start.
        pub settings: Map<String, Value> = Map::new(),
        /// How long the program may take for one reply, in seconds.
        pub time_limit_seconds: f64 = 300.0,
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Command {
    name: String,
    prompts: PromptSet,
    /// The program and its arguments.
    words: Vec<String>,
    settings: Map<String, Value>,
    time_limit: Duration,
    running: Mutex<Running>,
}

/// The program, if it runs, and how many scores were asked for.
#[derive(Debug, Default)]
struct Running {
    program: Option<Program>,
    asked: u64,
}

/// The program's answer to `score`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[serde(rename = "type")]
    kind: String,
    id: u64,
    value: f64,
    objective: Option<f64>,
    display: Option<String>,
    #[serde(default)]
    per_prompt: Vec<f64>,
    #[serde(default)]
    details: Map<String, Value>,
}

impl Member for Command {
    const NAME: &'static str = "command";
    const SUMMARY: &'static str = "a score from a program of your own, in any language";
    const MORE: &'static str = include_str!("command.md");
    const GOAL: Goal = Goal::None;
    type Settings = CommandSettings;

    fn configure(name: &str, settings: CommandSettings, sets: &DefaultSets) -> Result<Self, ConfigureError> {
        let scorer = name.to_owned();
        if settings.command.first().is_none_or(String::is_empty) {
            return Err(ConfigureError::Required { scorer, setting: "command" });
        }
        let seconds = settings.time_limit_seconds;
        let time_limit = Duration::try_from_secs_f64(seconds).ok().filter(|it| !it.is_zero());
        let Some(time_limit) = time_limit else {
            let (setting, expected) = ("time_limit_seconds", "a positive number of seconds");
            return Err(ConfigureError::Value { scorer, setting, found: seconds.to_string(), expected });
        };
        Ok(Self {
            name: scorer,
            prompts: settings.prompts.unwrap_or_else(|| sets.behavior.clone()),
            words: settings.command,
            settings: settings.settings,
            time_limit,
            running: Mutex::default(),
        })
    }

    /// A program that calls every candidate a half.
    #[cfg(test)]
    fn example() -> Value {
        let script = r#"while read -r line; do case "$line" in
            *'"hello"'*) echo '{"type":"hello","version":1}';;
            *'"init"'*) echo '{"type":"ready"}';;
            *) id=${line#*\"id\":}; echo "{\"type\":\"score\",\"id\":${id%%,*},\"value\":0.5}";;
        esac; done"#;
        json!({"command": ["sh", "-c", script]})
    }
}

impl Scorer for Command {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::Answers { prompts: self.prompts.clone(), until: None }]
    }

    fn prepare(&self, stop: Stop<'_>) -> Result<(), ScoreError> {
        self.with_program(stop, |_, _| Ok(()))
    }

    fn score(&self, evidence: &Evidence) -> Result<Score, ScoreError> {
        self.score_until(evidence, &|| false)
    }

    fn score_until(&self, evidence: &Evidence, stop: Stop<'_>) -> Result<Score, ScoreError> {
        let answers = evidence.answers(&self.prompts)?;
        let prompts = evidence.prompts(&self.prompts)?;
        if prompts.len() != answers.len() {
            return Err(ScoreError::Lengths {
                set: self.prompts.to_string(),
                left_kind: EvidenceKind::Prompts,
                left: prompts.len(),
                right_kind: EvidenceKind::Answers,
                right: answers.len(),
            });
        }
        let reply = self.with_program(stop, |program, id| {
            let request = json!({"type": "score", "id": id, "prompts": prompts, "responses": answers});
            let reply = program.ask(&request, stop)?;
            let reply: Reply = serde_json::from_value(reply)
                .map_err(|it| program.protocol_error("score", it.to_string()))?;
            let wrong = if reply.kind != "score" {
                Some(format!("type `{}`, expected `score`", reply.kind))
            } else if reply.id != id {
                Some(format!("id {}, expected {id}", reply.id))
            } else if !reply.per_prompt.is_empty() && reply.per_prompt.len() != prompts.len() {
                Some(format!("{} values per prompt, expected {}", reply.per_prompt.len(), prompts.len()))
            } else {
                too_much(&reply)
            };
            wrong.map_or(Ok(reply), |reason| Err(program.protocol_error("score", reason)))
        })?;
        let display = reply.display.unwrap_or_else(|| format!("{:.4}", reply.value));
        // It stands in tables of one line, and no program writes to the user's terminal but through them.
        let display: String = display
            .chars()
            .map(|it| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it })
            .collect();
        let mut score = Score::plain(reply.value, display);
        score.objective = reply.objective.unwrap_or(reply.value);
        score.details.per_prompt = reply.per_prompt;
        if !reply.details.is_empty() {
            score.details.add("reported", reply.details);
        }
        Ok(score)
    }
}

impl Command {
    /// Does something with the running program, started if it must be; after an error it is gone.
    fn with_program<T>(
        &self,
        stop: Stop<'_>,
        work: impl FnOnce(&mut Program, u64) -> Result<T, NoReply>,
    ) -> Result<T, ScoreError> {
        // A panic elsewhere while the lock was held leaves at worst a program that is in the middle of something;
        // its next reply has the wrong id.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = || {
            let mut program = running.program.take().map_or_else(|| self.start(stop), Ok)?;
            running.asked += 1;
            let result = work(&mut program, running.asked)?;
            running.program = Some(program);
            Ok(result)
        };
        attempt().map_err(|error| match error {
            NoReply::Stopped => ScoreError::Stopped { scorer: self.name.clone() },
            NoReply::Failed(source) => ScoreError::Program { scorer: self.name.clone(), source },
        })
    }

    fn start(&self, stop: Stop<'_>) -> Result<Program, NoReply> {
        let mut program = Program::start(&self.words, self.time_limit)?;
        let reply = program.ask(&json!({"type": "hello", "version": VERSION}), stop)?;
        if reply["type"] != "hello" || reply["version"] != VERSION {
            let expected = json!({"type": "hello", "version": VERSION});
            return Err(program.protocol_error("hello", format!("`{reply}`, expected `{expected}`")));
        }
        let init = json!({"type": "init", "name": self.name, "settings": self.settings});
        let reply = program.ask(&init, stop)?;
        if reply["type"] != "ready" {
            let expected = json!({"type": "ready"});
            return Err(program.protocol_error("init", format!("`{reply}`, expected `{expected}`")));
        }
        Ok(program)
    }
}

/// What is larger in a reply than a study can hold for each of its trials.
fn too_much(reply: &Reply) -> Option<String> {
    let details = serde_json::to_string(&reply.details).map_or(0, |it| it.len());
    let display = reply.display.as_ref().map_or(0, |it| it.chars().count());
    if details > LARGEST_DETAILS {
        Some(format!("`details` of {details} bytes, at most {LARGEST_DETAILS} are stored with a trial"))
    } else if display > LONGEST_DISPLAY {
        Some(format!("`display` of {display} characters, expected at most {LONGEST_DISPLAY}"))
    } else {
        None
    }
}
