//! The source of a template as the engine wants it: one kind of line end, and no `generation` tags.
//!
//! `{% generation %} … {% endgeneration %}` marks what the model itself says, for training. The reference stack
//! runs the body as a `call` block, that is with a scope of its own; `{% with %} … {% endwith %}` is the same.

/// The tags of the reference stack and what they become. No shorter name is a prefix of a longer one.
const TAGS: [(&str, &str); 2] = [("generation", "with"), ("endgeneration", "endwith")];

/// Replaces line ends and tags; line numbers stay as they are.
pub(super) fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        if let Some((replaced, len)) = replacement(tag) {
            out.push_str(&replaced);
            rest = &tag[len..];
        }
    }
    out.push_str(rest);
    out
}

/// For what follows a `{%`: the tag's new inside, and how many bytes of the old it stands for.
fn replacement(tag: &str) -> Option<(String, usize)> {
    let name_start = tag.find(|it: char| !matches!(it, '-' | '+') && !it.is_whitespace())?;
    let after = &tag[name_start..];
    let (name, new) = TAGS.iter().find(|(name, _)| after.starts_with(name))?;
    let closing = after[name.len()..].trim_start();
    let is_alone = ["%}", "-%}", "+%}"].iter().any(|it| closing.starts_with(it));
    is_alone.then(|| (format!("{}{new}", &tag[..name_start]), name_start + name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_generation_tags_are_replaced() {
        assert_eq!(prepared("a{% generation %}b{% endgeneration %}"), "a{% with %}b{% endwith %}");
        assert_eq!(prepared("{%- generation -%}\n{%-endgeneration-%}"), "{%- with -%}\n{%-endwith-%}");
        for untouched in
            ["{% generations %}", "{% if generation %}", "{{ generation }}", "{% generation", "{%"]
        {
            assert_eq!(prepared(untouched), untouched);
        }
    }

    #[test]
    fn every_line_end_becomes_a_line_feed() {
        assert_eq!(prepared("a\r\nb\rc\n"), "a\nb\nc\n");
    }
}
