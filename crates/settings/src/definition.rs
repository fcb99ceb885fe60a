//! Definitions of settings.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key in files; `ABLATE_` and its capitals in the environment; `--` and its hyphens on the command line.
    pub name: &'static str,
    /// Its documentation as it stands in the definition: paragraphs of lines.
    pub documentation: &'static str,
    /// Where it stands in help and in files.
    pub section: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it may be left unset.
    pub optional: bool,
    /// Shorter names on the command line.
    pub also: &'static [&'static str],
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Yes or no.
    Bool,
    /// A whole number.
    Integer {
        /// The smallest.
        least: u64,
    },
    /// A number.
    Number {
        /// The smallest.
        least: f64,
        /// The largest.
        most: f64,
    },
    /// A text.
    Text,
    /// One of these texts.
    Choice(fn() -> Vec<&'static str>),
    /// Texts: a list, or the name of a file with one a line.
    Texts,
    /// A list.
    List,
    /// A table with these settings. A text stands for a table that has only the first of them.
    Table(&'static [Field]),
    /// Tables whose keys are known elsewhere.
    Open,
    /// Anything: it is checked where it is used.
    Any,
}

/// A type that settings may have.
pub trait Kinded {
    /// What values look like.
    const KIND: Kind;
    /// Whether there may be none.
    const OPTIONAL: bool = false;
}

/// A struct of settings, made by [`settings!`](crate::settings!).
pub trait Fields: Default + Serialize + DeserializeOwned {
    /// Its fields, in order.
    const FIELDS: &'static [Field];
}

impl Kinded for bool {
    const KIND: Kind = Kind::Bool;
}
impl Kinded for usize {
    const KIND: Kind = Kind::Integer { least: 0 };
}
impl Kinded for u64 {
    const KIND: Kind = Kind::Integer { least: 0 };
}
impl Kinded for f64 {
    const KIND: Kind = Kind::Number { least: f64::NEG_INFINITY, most: f64::INFINITY };
}
impl Kinded for String {
    const KIND: Kind = Kind::Text;
}
impl Kinded for Vec<String> {
    const KIND: Kind = Kind::Texts;
}
impl Kinded for serde_json::Value {
    const KIND: Kind = Kind::Any;
    const OPTIONAL: bool = true;
}
impl<T: Kinded> Kinded for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;
}

impl Field {
    /// The first paragraph of the documentation, on one line.
    pub fn summary(&self) -> String {
        self.paragraphs().into_iter().next().unwrap_or_default()
    }

    /// The documentation as paragraphs of one line each.
    pub fn paragraphs(&self) -> Vec<String> {
        let paragraph = |it: &str| it.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
        let trimmed: Vec<&str> = self.documentation.lines().map(str::trim).collect();
        trimmed.join("\n").split("\n\n").map(paragraph).filter(|it| !it.is_empty()).collect()
    }
}

/// The field of a path of names, through tables.
pub fn find<'a>(groups: &[&'a [Field]], path: &[String]) -> Option<&'a Field> {
    let (first, rest) = path.split_first()?;
    let field = groups.iter().flat_map(|it| it.iter()).find(|it| it.name == first)?;
    match field.kind {
        _ if rest.is_empty() => Some(field),
        Kind::Table(fields) => find(&[fields], rest),
        _ => None,
    }
}

/// Defines settings: a struct with a documented default for each field, unknown keys refused.
///
/// After a field's type may stand its [`Kind`] in brackets, if the type alone does not tell, and after `also` shorter
/// names for the command line. Whoever uses this also uses `serde`.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident {
            $( section $section:literal;
                $( $(#[doc = $doc:literal])+
                   pub $field:ident: $type:ty $([$kind:expr])? $(, also $($also:literal)|+)? = $default:expr; )+ )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        $vis struct $name {
            $($( $(#[doc = $doc])+ pub $field: $type, )+)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($( $field: $default, )+)+ }
            }
        }

        impl $crate::Fields for $name {
            const FIELDS: &'static [$crate::Field] = &[ $($( $crate::Field {
                name: stringify!($field),
                documentation: concat!($($doc, "\n"),+),
                section: $section,
                kind: $crate::settings!(@kind $type $(, $kind)?),
                optional: $crate::settings!(@optional $type $(, $kind)?),
                also: &[$($($also),+)?],
            }, )+)+ ];
        }

        impl $crate::Kinded for $name {
            const KIND: $crate::Kind = $crate::Kind::Table(<Self as $crate::Fields>::FIELDS);
        }
    };
    (@kind $type:ty) => { <$type as $crate::Kinded>::KIND };
    (@kind $type:ty, $kind:expr) => { $kind };
    (@optional $type:ty) => { <$type as $crate::Kinded>::OPTIONAL };
    // With a kind of its own the type need not be known here; such settings have a default.
    (@optional $type:ty, $kind:expr) => { false };
}
