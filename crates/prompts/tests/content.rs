//! Templates that want the content of messages in parts, and such that leave something out.

use prompts::{ChatTemplate, ContentForm, Conventions, Message, RenderOptions, SystemRole, TemplateError};
use serde_json::json;

/// Takes the parts of a kind by a filter, and has no place for system prompts.
const FILTERED: &str = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}\
    {% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}\
    {% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}\
    {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}";

/// Looks at the first part and then goes through all.
const LOOPED: &str = "{% for m in messages %}{{ m['role'] | capitalize }}\
    {% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}\
    {% for line in m['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% endif %}{% endfor %}<end>\n\
    {% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/// System prompts as texts, what users say in parts.
const MIXED: &str = "{% for m in messages %}{% if m.role == 'system' %}<s>{{ m.content + '' }}</s>\
    {% elif m.role == 'user' %}<u>{{ m.content[0].text }}</u>{% else %}<a>{{ m.content | trim }}</a>{% endif %}{% endfor %}";

/// Insists on one part, with fields of its own.
const TRANSLATES: &str = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}\
    {{ raise_exception('only user and assistant speak here') }}{% endif %}\
    {% if m.content is string or m.content | length != 1 %}{{ raise_exception('content has to have one part') }}{% endif %}\
    {% set part = m.content[0] %}\
    {% if 'source_lang_code' not in part or 'target_lang_code' not in part %}\
    {{ raise_exception('a part needs source_lang_code and target_lang_code') }}{% endif %}\
    {{ part.source_lang_code }} to {{ part.target_lang_code }}: {{ part.text | trim }}\n{% endfor %}";

/// Takes both, like most.
const EITHER: &str = "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}\
    {% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}</{{ m.role }}>{% endfor %}";

fn conversation() -> [Message; 4] {
    [
        Message::system("Be nice."),
        Message::user("What is it?"),
        Message::assistant("A thing."),
        Message::user("And this, \"here\"?"),
    ]
}

fn compiled(source: &str, options: &RenderOptions) -> (ChatTemplate, Conventions) {
    let template = ChatTemplate::new(source).unwrap();
    let conventions = template.conventions(options).unwrap();
    (template, conventions)
}

fn rendered(source: &str, options: &RenderOptions) -> Result<String, TemplateError> {
    let (template, conventions) = compiled(source, options);
    template.render_as(&conversation(), &conventions, options)
}

#[test]
fn each_role_gets_its_content_in_the_form_that_the_template_shows() {
    let options = RenderOptions::default();
    let forms = |source: &str| {
        let it = compiled(source, &options).1;
        (it.system, it.user, it.assistant)
    };
    let (text, parts) = (ContentForm::Text, ContentForm::Parts);
    assert_eq!(forms(FILTERED), (None, parts, parts));
    assert_eq!(forms(LOOPED), (Some(parts), parts, parts));
    assert_eq!(forms(MIXED), (Some(text), parts, text));
    assert_eq!(forms(EITHER), (Some(text), text, text));
    assert_eq!(forms(include_str!("templates/chatml.jinja")), (Some(text), text, text));
}

#[test]
fn templates_that_want_parts_show_every_word() {
    let options = RenderOptions::default();
    assert_eq!(
        rendered(FILTERED, &options).unwrap(),
        "USER: Be nice.\n\nWhat is it? ASSISTANT: A thing. USER: And this, \"here\"? ASSISTANT:"
    );
    assert_eq!(
        rendered(LOOPED, &options).unwrap(),
        "System: Be nice.<end>\nUser: What is it?<end>\nAssistant: A thing.<end>\nUser: And this, \"here\"?<end>\n\
         Assistant:"
    );
    assert_eq!(
        rendered(MIXED, &options).unwrap(),
        "<s>Be nice.</s><u>What is it?</u><a>A thing.</a><u>And this, \"here\"?</u>"
    );
}

#[test]
fn a_template_that_wants_fields_in_its_parts_gets_them_from_variables_or_says_what_it_wants() {
    let error = rendered(TRANSLATES, &RenderOptions::default()).unwrap_err().to_string();
    assert!(error.contains("content has to have one part"), "{error}");
    assert!(error.contains("a part needs source_lang_code"), "{error}");
    assert!(error.contains("hint: ") && error.contains("--chat-template-kwargs"), "{error}");
    let variables = json!({"source_lang_code": "en", "target_lang_code": "de"});
    let options =
        RenderOptions { variables: variables.as_object().unwrap().clone(), ..RenderOptions::default() };
    let text = rendered(TRANSLATES, &options).unwrap();
    assert_eq!(
        text,
        "en to de: Be nice.\n\nWhat is it?\nen to de: A thing.\nen to de: And this, \"here\"?\n"
    );
    assert_eq!(compiled(TRANSLATES, &options).1.system_role(), SystemRole::Folded);
}

#[test]
fn a_rendered_prompt_without_its_text_is_an_error_that_names_it() {
    let options = RenderOptions::default();
    for source in [
        "{% for m in messages %}<{{ m.role }}>{% endfor %}",
        "{% for m in messages %}<{{ m.role }}>{{ m.content[:12] }}{% endfor %}",
        "{% for m in messages %}<{{ m.role }}>{{ m.text }}{% endfor %}",
        "{{ messages[0].role }}",
        "Once upon a time",
    ] {
        let (template, conventions) = compiled(source, &options);
        let asked = [Message::system("A"), Message::user("How tall is a giraffe, and why?")];
        let error = template.render_as(&asked, &conventions, &options).unwrap_err();
        assert!(matches!(error, TemplateError::Lost { .. }), "{source}: {error}");
        let said = error.to_string();
        assert!(said.contains("`How tall is a giraffe, and why?`"), "{said}");
        assert!(said.contains("chat template") && said.contains("hint: "), "{said}");
    }
}

#[test]
fn what_templates_do_to_a_text_is_no_loss_of_it() {
    let options = RenderOptions::default();
    for change in [
        "m.content | trim",
        "m.content | upper",
        "m.content.replace('/no_think', '').rstrip()",
        "m.content | tojson",
        "m.content | tojson(ensure_ascii=true)",
        "m.content | e",
        "m.content.split('<image>') | join('')",
        "m.content.strip() ~ ' /think'",
        "m.content.split() | join(' ')",
    ] {
        let source = format!("{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ {change} }}}}{{% endfor %}}");
        let (template, conventions) = compiled(&source, &options);
        for said in [
            "  Is \"a\" < b & c > 'd'?\n\n\tNaïve 日本 👩‍💻 \\n  ",
            "Answer at once. /no_think",
            "<image>\nWhat is this?",
            "/no_think",
            "",
        ] {
            let conversation = [Message::system(said), Message::user(said)];
            let rendered = template.render_as(&conversation, &conventions, &options);
            assert!(rendered.is_ok(), "{change}, {said:?}: {}", rendered.unwrap_err());
        }
    }
}

#[test]
fn variables_with_the_names_of_what_is_rendered_are_refused_by_name() {
    for name in ["messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"]
    {
        let variables = json!({name: 1}).as_object().unwrap().clone();
        let options = RenderOptions { variables, ..RenderOptions::default() };
        let said = options.check_variables().unwrap_err().to_string();
        assert!(said.contains(&format!("`{name}`")), "{said}");
    }
    let variables = json!({"enable_thinking": false, "bos_token": "<s>"}).as_object().unwrap().clone();
    assert!(RenderOptions { variables, ..RenderOptions::default() }.check_variables().is_ok());
}
