//! Chat templates that would take the program's stack, memory or time: they end in an error, and the next one renders.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use prompts::{ChatTemplate, Isolation, Message, RenderOptions, StopReason, TemplateError};

/// The program as the process that renders.
fn apart() -> Isolation {
    Isolation::Process {
        program: env!("CARGO_BIN_EXE_ablate").into(),
        arguments: vec!["__render-chat-template".into()],
    }
}

fn rendered(source: &str) -> Result<String, TemplateError> {
    ChatTemplate::isolated(source, &apart())?.render(&[Message::user("Hi")], &RenderOptions::default())
}

/// An expression made of one piece again and again.
fn chain(first: &str, piece: &str, count: usize) -> String {
    format!("{{{{ {first}{} }}}}", piece.repeat(count))
}

#[test]
fn chains_that_overflow_the_stack_of_the_parser_end_in_an_error() {
    let many = 60_000;
    for source in [
        chain("1", "+1", many),
        chain("1", " and 1", many),
        chain("1", " or 1", many),
        chain("a", ".a", many),
        chain("'a'", "~'a'", many),
        chain("1", "|abs", many),
        chain("messages", "[0]", many),
        chain("1", " if 1 else 1", many / 2),
        chain("2", "**2", many),
        chain("1", "<1", many),
        chain("1", " in 1", many),
        chain("a", "()", many),
        chain("1", " is odd", many),
        format!("{{{{ {}1 }}}}", "-".repeat(many)),
        format!("{{{{ {}1 }}}}", "not ".repeat(many)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(many / 2)),
        format!("{{{{ {}1{} }}}}", "[".repeat(many), "]".repeat(many)),
        "{% if 1 %}".repeat(many / 2),
        "{% for a in b %}".repeat(many / 2),
    ] {
        let begin = &source[..40];
        // Python's parser gives up on these as well, long before.
        match rendered(&source) {
            Err(
                TemplateError::Stopped { reason: StopReason::Stack { .. } | StopReason::Time { .. } }
                | TemplateError::Syntax { .. }
                | TemplateError::Failed { .. },
            ) => {}
            // Shallow enough for the stack that there is: then it is a template like others.
            Ok(text) => assert!(text.len() <= many + 1, "{begin}"),
            Err(other) => panic!("{begin}: {other}"),
        }
    }
}

#[test]
fn values_without_end_end_in_an_error_that_says_which_bound_they_hit() {
    let doubled = |how: &str, end: &str| {
        format!("{{% set n = namespace(s=[1], t=[1]) %}}{{% for i in range(60) %}}{how}{{% endfor %}}{end}")
    };
    let pairs = "{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}";
    for source in [
        "{% set n = namespace() %}{% set n.s = n %}{{ n }}".to_owned(),
        "{% set n = namespace() %}{% set n.s = [n] %}{{ n|tojson }}".to_owned(),
        "{% set n = namespace() %}{% set n.s = {'a': [n]} %}{{ n|string|length }}".to_owned(),
        "{% set n = namespace() %}{% set n.s = [n] %}{% set m = namespace() %}{% set m.s = [m] %}{{ n.s == m.s }}"
            .to_owned(),
        "{% set n = namespace() %}{% set n.s = [n] %}{% set m = namespace() %}{% set m.s = [m] %}{{ n.s < m.s }}"
            .to_owned(),
        "{% set n = namespace(s=1) %}{% for i in range(90000) %}{% for j in range(9) %}{% set n.s = [n.s] %}{% endfor %}\
         {% endfor %}{{ n.s }}"
            .to_owned(),
        doubled("{% set n.s = n.s + n.s %}", "{{ n.s|length }}"),
        doubled(pairs, "{{ n.s }}"),
        "{{ '{:>9999999999}'.format('a') }}".to_owned(),
        "{{ '%9999999999d'|format(1) }}".to_owned(),
        "{% set s = 'ab ' * 30000000 %}{{ s.split(' ')|length }}{{ s.split('b')|length }}".to_owned(),
        "{% set s = 'x' * 100000000 %}{{ s|list|length }}{{ s.replace('x', s[:1000])|length }}".to_owned(),
        "{{ range(10**9)|list|length }}".to_owned(),
    ] {
        let error = rendered(&source).expect_err(&source);
        let bounded = matches!(
            error,
            TemplateError::Stopped { reason: StopReason::Stack { .. } | StopReason::Memory { .. } | StopReason::Time { .. } }
                | TemplateError::Endless { .. }
                | TemplateError::TooMuchText { .. }
                | TemplateError::Failed { .. }
        );
        assert!(bounded, "{source}: {error}");
    }
}

#[test]
fn work_that_the_budget_does_not_count_ends_when_its_time_is_up() {
    let pairs = "{% set n = namespace(s=[1], t=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}\
                 {% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}";
    let started = Instant::now();
    let error = rendered(pairs).unwrap_err();
    assert!(matches!(error, TemplateError::Stopped { reason: StopReason::Time { .. } }), "{error}");
    assert!(error.to_string().contains("more than 10 s"), "{error}");
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_template_that_was_stopped_renders_the_next_conversation() {
    let template = "{% if messages[0].content == 'loop' %}{% set n = namespace() %}{% set n.s = n %}{{ n }}{% endif %}\
                    {{ messages[0].content }}";
    let template = ChatTemplate::isolated(template, &apart()).unwrap();
    let say = |text: &str| template.render(&[Message::user(text)], &RenderOptions::default());
    assert_eq!(say("Hi").unwrap(), "Hi");
    let error = say("loop").unwrap_err();
    assert!(matches!(error, TemplateError::Stopped { reason: StopReason::Stack { .. } }), "{error}");
    assert_eq!(say("Bye").unwrap(), "Bye");
}

#[test]
fn a_process_apart_renders_what_this_one_does() {
    let source = "{{ bos_token }}{{ variable }}{{ strftime_now('%Y-%m-%d') }}{{ tools }}{{ documents }}\
                  {% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{% endfor %}{{ add_generation_prompt }}";
    let options = RenderOptions {
        add_generation_prompt: false,
        special_tokens: [("bos_token".to_owned(), "<s>\u{1b}\n".to_owned())].into(),
        tools: Some(vec![serde_json::json!({"name": "t", "x": 0.1})]),
        documents: None,
        variables: serde_json::from_str(r#"{"variable": [1, -2.5, null, true, "é", {"b": 1, "a": 2}]}"#)
            .unwrap(),
        clock: prompts::Clock::stopped_at("2026-01-02T03:04:05").unwrap(),
    };
    let messages =
        [serde_json::json!({"role": "user", "content": "Hi\u{0}\u{7f}", "reasoning": "Hm", "none": null})];
    let render = |isolation: &Isolation| {
        ChatTemplate::isolated(source, isolation).unwrap().render_json(&messages, &options).unwrap()
    };
    let here = render(&Isolation::None);
    assert!(here.contains("2026-01-02") && here.contains("Hm"), "{here}");
    assert_eq!(render(&apart()), here);
    let refused = rendered("one\n{{ raise_exception('No: ' ~ messages[0].content) }}").unwrap_err();
    assert!(matches!(refused, TemplateError::Raised { message } if message == "No: Hi"));
    let wrong = ChatTemplate::isolated("one\n{% for %}", &apart()).unwrap_err();
    assert!(matches!(wrong, TemplateError::Syntax { line: 2, .. }), "{wrong}");
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let nowhere = Isolation::Process { program: "/nowhere/ablate".into(), arguments: Vec::new() };
    let error = ChatTemplate::isolated("{{ 1 }}", &nowhere).unwrap_err();
    assert!(error.to_string().contains("`/nowhere/ablate`"), "{error}");
}

#[test]
fn sources_and_texts_out_of_all_proportion_are_refused_with_their_length() {
    let error = ChatTemplate::new(&" ".repeat((1 << 20) + 1)).unwrap_err();
    assert!(error.to_string().contains("1048577 bytes"), "{error}");
    let error = rendered("{{ 'x' * 50000000 }}").unwrap_err();
    assert!(matches!(error, TemplateError::TooMuchText { bytes: 50_000_000, .. }), "{error}");
}

fn generate(template: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.jinja");
    std::fs::write(&file, template).unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
    command
        .arg("generate")
        .arg(toy)
        .args(["--max-tokens", "2", "--prompt", "hi", "--chat-template"])
        .arg(&file);
    command.args(more).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_program_survives_a_hostile_template_and_says_what_it_did() {
    let output = generate("{% set n = namespace() %}{% set n.s = n %}{{ n }}", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: the chat template was stopped: it is nested too deep"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
}

#[test]
fn what_a_template_says_cannot_command_a_terminal() {
    let output = generate("{{ raise_exception('\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m') }}", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(r"\u001b]0;title\u0007\u001b[2J\u009b31m"), "{said:?}");
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{said:?}");
}

#[cfg(unix)]
#[test]
fn results_keep_their_bytes_in_a_pipe_and_cannot_command_a_terminal() {
    use rexpect::session::{Options, spawn_with_options};
    let said = "\u{1b}]0;title\u{7}red \u{9b}31m\u{202e}";
    let command = |more: &[&str]| {
        let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ablate"));
        command.arg("generate").arg(toy).args(["--max-tokens", "1", "--prompt", said]).args(more);
        command
    };
    let piped = String::from_utf8(command(&[]).stdin(Stdio::null()).output().unwrap().stdout).unwrap();
    assert!(piped.starts_with(&format!("> {said}\n")), "{piped:?}");
    for more in [&[][..], &["--json"]] {
        let options = Options::new().timeout_ms(Some(120_000)).strip_ansi_escape_codes(false);
        let shown = spawn_with_options(command(more), options).unwrap().exp_eof().unwrap();
        assert!(shown.contains(r"\u001b]0;title\u0007red \u009b31m\u202e"), "{shown:?}");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{shown:?}");
    }
    // Arguments that are not understood are quoted; the terminal does not obey them either.
    let options = Options::new().timeout_ms(Some(120_000)).strip_ansi_escape_codes(false);
    let shown =
        spawn_with_options(command(&["--\u{1b}]0;title\u{7}\u{9b}31m"]), options).unwrap().exp_eof().unwrap();
    assert!(shown.contains("error: unexpected argument"), "{shown:?}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
}
