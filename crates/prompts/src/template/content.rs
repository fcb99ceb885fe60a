//! Whether a template wants the content of a message as a text or in parts, and whether it shows it at all.
//!
//! Templates of models that also see want `[{"type": "text", "text": "…"}]`; many take both. A template that is given the
//! form that it does not know renders without a word, and without the prompt. So it is rendered with a word of ours in
//! each form, role by role, and the form counts in which the word comes out.

use serde_json::{Map, Value as Json, json};

use super::{ChatTemplate, RenderOptions, SystemRole, TemplateError, fold_system};
use crate::{Message, Role};

/// How a message's content is given to a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentForm {
    /// `"content": "…"`.
    #[default]
    Text,
    /// `"content": [{"type": "text", "text": "…"}]`.
    Parts,
}

/// How a template takes a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// The content of system messages; `None` where the template takes none, and they are put before the first user message.
    pub system: Option<ContentForm>,
    /// The content of user messages.
    pub user: ContentForm,
    /// The content of the model's own messages.
    pub assistant: ContentForm,
    /// Why the template did not take a user's message as a text, and in parts, if it took it in neither form.
    refusals: [Option<String>; 2],
}

impl Default for Conventions {
    /// Texts, with system messages.
    fn default() -> Self {
        let form = ContentForm::Text;
        Self { system: Some(form), user: form, assistant: form, refusals: [None, None] }
    }
}

/// Fields that some templates want in a part, beside its text. They are taken from the variables of these names.
const PART_FIELDS: [&str; 2] = ["source_lang_code", "target_lang_code"];

/// Words that no template contains, and that survive upper-casing and quoting.
fn probe(role: Role) -> &'static str {
    match role {
        Role::System => "systemprobexyzzy",
        Role::Assistant => "assistantprobexyzzy",
        Role::User | Role::Tool => "userprobexyzzy",
    }
}

impl Conventions {
    /// How system prompts are taken.
    pub fn system_role(&self) -> SystemRole {
        if self.system.is_some() { SystemRole::Own } else { SystemRole::Folded }
    }

    fn form(&self, role: Role) -> ContentForm {
        match role {
            Role::System => self.system.unwrap_or(self.user),
            Role::Assistant => self.assistant,
            Role::User | Role::Tool => self.user,
        }
    }

    /// A conversation as the template takes it.
    fn messages(&self, conversation: &[Message], options: &RenderOptions) -> Vec<Json> {
        let folded = self.system.is_none().then(|| fold_system(conversation));
        let message = |it: &Message| {
            let content = match self.form(it.role) {
                ContentForm::Text => Json::from(it.content.as_str()),
                ContentForm::Parts => {
                    let mut part = Map::new();
                    part.insert("type".to_owned(), json!("text"));
                    for name in PART_FIELDS {
                        if let Some(value) = options.variables.get(name) {
                            part.insert(name.to_owned(), value.clone());
                        }
                    }
                    part.insert("text".to_owned(), json!(it.content));
                    json!([part])
                }
            };
            json!({ "role": it.role.name(), "content": content })
        };
        folded.as_deref().unwrap_or(conversation).iter().map(message).collect()
    }
}

/// Where a search among conventions ends.
enum Probed {
    Shown,
    Missing,
    Refused(String),
}

impl ChatTemplate {
    /// Finds out how the template takes a conversation, by rendering some.
    ///
    /// # Errors
    /// When the template is stopped ([`TemplateError::Stopped`], [`TemplateError::Endless`]), or cannot be started. A
    /// template that fails in another way fails on real conversations, too, and what it says there is better told.
    pub fn conventions(&self, options: &RenderOptions) -> Result<Conventions, TemplateError> {
        const FORMS: [ContentForm; 2] = [ContentForm::Text, ContentForm::Parts];
        let mut found = Conventions::default();
        let shown = |it: &Conventions, roles: &[Role]| self.probed(it, roles, options);
        let mut decided = None;
        // Few templates insist on a system message.
        'user: for roles in [&[Role::User][..], &[Role::System, Role::User]] {
            for user in FORMS {
                for system in if roles.len() > 1 { &FORMS[..] } else { &FORMS[..1] } {
                    let tried = Conventions { system: Some(*system), user, ..Conventions::default() };
                    match shown(&tried, roles)? {
                        Probed::Shown => {
                            decided = Some(tried);
                            break 'user;
                        }
                        Probed::Refused(reason) if roles.len() == 1 => {
                            found.refusals[usize::from(user == ContentForm::Parts)] = Some(reason);
                        }
                        Probed::Missing | Probed::Refused(_) => {}
                    }
                }
            }
        }
        let Some(decided) = decided else { return Ok(found) };
        found = decided;
        found.system = None;
        for system in FORMS {
            let tried = Conventions { system: Some(system), ..found.clone() };
            if matches!(shown(&tried, &[Role::System, Role::User])?, Probed::Shown) {
                found = tried;
                break;
            }
        }
        found.assistant = found.user;
        for assistant in FORMS {
            let tried = Conventions { assistant, ..found.clone() };
            if matches!(shown(&tried, &[Role::User, Role::Assistant, Role::User])?, Probed::Shown) {
                found = tried;
                break;
            }
        }
        Ok(found)
    }

    /// Whether words of ours come out when these roles say them.
    fn probed(
        &self,
        conventions: &Conventions,
        roles: &[Role],
        options: &RenderOptions,
    ) -> Result<Probed, TemplateError> {
        let conversation: Vec<Message> =
            roles.iter().map(|&role| Message { role, content: probe(role).to_owned() }).collect();
        match self.render_json(&conventions.messages(&conversation, options), options) {
            Ok(text) if roles.iter().all(|&it| shows(&text, probe(it)) && !is_printed(&text, probe(it))) => {
                Ok(Probed::Shown)
            }
            Ok(_) => Ok(Probed::Missing),
            Err(
                error @ (TemplateError::Stopped { .. }
                | TemplateError::Endless { .. }
                | TemplateError::TooMuchText { .. }
                | TemplateError::NoProcess { .. }),
            ) => Err(error),
            Err(TemplateError::Raised { message }) => Ok(Probed::Refused(message)),
            Err(other) => Ok(Probed::Refused(other.to_string())),
        }
    }

    /// Renders a conversation in the forms that the template wants, and makes sure that it shows the system prompt and what
    /// the user said last.
    ///
    /// # Errors
    /// As [`Self::render`], and [`TemplateError::Lost`].
    pub fn render_as(
        &self,
        conversation: &[Message],
        conventions: &Conventions,
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let rendered = self.render_json(&conventions.messages(conversation, options), options);
        let rendered = rendered.map_err(|error| match (error, &conventions.refusals) {
            (TemplateError::Raised { .. }, [Some(message), Some(in_parts)]) if message != in_parts => {
                TemplateError::RaisedTwice { message: message.clone(), in_parts: in_parts.clone() }
            }
            (error, _) => error,
        })?;
        let folded = conventions.system.is_none().then(|| fold_system(conversation));
        let conversation = folded.as_deref().unwrap_or(conversation);
        let system = conversation.iter().find(|it| it.role == Role::System);
        let user = conversation.iter().rev().find(|it| it.role == Role::User);
        for message in user.into_iter().chain(system) {
            if !shows(&rendered, &message.content) {
                return Err(TemplateError::Lost {
                    template: self.name.clone(),
                    role: message.role.name().to_owned(),
                    prompt: excerpt(&message.content),
                    rendered: excerpt(&rendered),
                });
            }
        }
        Ok(rendered)
    }
}

/// Whether a part is printed as what it is, a dictionary: then the template wants something else.
fn is_printed(rendered: &str, said: &str) -> bool {
    let before = ["'text': '", "\"text\": \"", "\"text\":\""];
    rendered.match_indices(said).any(|(at, _)| before.iter().any(|it| rendered[..at].ends_with(it)))
}

/// The beginning of a text, for an error.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a rendered text shows what was said, as far as templates leave a text alone.
///
/// They trim it, some change its case, write it as JSON or HTML, or take out words that are commands to them (`/no_think`,
/// `<image>`); none of these makes another prompt of it.
fn shows(rendered: &str, said: &str) -> bool {
    if rendered.contains(said.trim()) {
        return true;
    }
    let rendered = essence(rendered);
    let quoted = Json::from(said).to_string();
    let forms = [
        said.to_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
        escaped(said, ["&#34;", "&#39;"]),
        escaped(said, ["&quot;", "&#x27;"]),
        non_ascii_escaped(&quoted[1..quoted.len() - 1]),
    ];
    forms.iter().any(|it| rendered.contains(&essence(it)))
}

/// A text without white space, case, and words that are commands to templates: tags in angle or square brackets without
/// white space inside, and words behind a slash.
fn essence(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let command = word.strip_prefix('/').is_some_and(|it| {
            !it.is_empty() && it.chars().all(|it| it.is_ascii_lowercase() || matches!(it, '_' | '-'))
        });
        if !command {
            without_tags(word, &mut out);
        }
    }
    out
}

/// Adds a word in lower case, without what looks like `<tag>` or `[TAG]`.
fn without_tags(mut word: &str, out: &mut String) {
    while let Some(start) = word.find(['<', '[']) {
        let close = if word[start..].starts_with('<') { '>' } else { ']' };
        out.extend(word[..start].chars().flat_map(char::to_lowercase));
        let inside = &word[start + 1..];
        let tag = inside.find(['<', '>', '[', ']']).filter(|&end| {
            inside[end..].starts_with(close)
                && (close == '>'
                    || inside[..end].chars().all(|it| it.is_ascii_uppercase() || "/_".contains(it)))
        });
        if let Some(end) = tag {
            word = &inside[end + 1..];
        } else {
            out.push_str(&word[start..=start]);
            word = inside;
        }
    }
    out.extend(word.chars().flat_map(char::to_lowercase));
}

/// A text with the characters escaped that HTML gives a meaning.
fn escaped(text: &str, [double, single]: [&str; 2]) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', double).replace('\'', single)
}

/// A text in which characters that are not ASCII are escaped as JSON does it on request.
fn non_ascii_escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        if it.is_ascii() {
            out.push(it);
        } else {
            for unit in it.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_templates_do_to_a_text_leaves_it_shown() {
        for (rendered, said) in [
            ("<|user|>Hi there<|end|>", "  Hi there\n"),
            ("USER: HI THERE", "Hi there"),
            ("user: a\nb", "a \n\n b"),
            (r#"{"content": "say \"a\"\nand b"}"#, "say \"a\"\nand b"),
            (r"caf\u00e9", "café"),
            ("1 &lt; 2 &amp; &#39;x&#39;", "1 < 2 & 'x'"),
            ("Be nice.", "Be nice. /no_think"),
            ("What is this?", "<image>What is this?"),
            ("<s>[INST] Is a<b and c>d? [/INST]", "Is a<b and c>d?"),
            ("list[int] of x[0]", "list[int] of x[0]"),
            ("", ""),
            ("anything", "<image>"),
            ("about <> tags", "about </think> tags"),
        ] {
            assert!(shows(rendered, said), "{rendered:?} {said:?}");
        }
    }

    #[test]
    fn what_is_cut_or_left_out_is_not_shown() {
        for (rendered, said) in [
            ("<|user|><|end|>", "Hi"),
            ("<|user|>Tell me ab<|end|>", "Tell me about it"),
            ("a c", "a b c"),
            ("{'type': 'text'}", "Is it a text?"),
            ("the user", "the <user name>"),
        ] {
            assert!(!shows(rendered, said), "{rendered:?} {said:?}");
        }
    }
}
