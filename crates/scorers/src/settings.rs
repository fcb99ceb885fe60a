//! Settings of scorers: data with documentation that can be printed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a user may set of one kind of scorer. Made by the macro of this module, so that the help, the defaults and
/// the documentation are one text.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Names and documentation of all fields, in order.
    const FIELDS: &'static [(&'static str, &'static str)];
}

/// The help of one setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingHelp {
    /// Its key.
    pub name: &'static str,
    /// What it means.
    pub help: String,
    /// Its default; null when it is derived from something else or required.
    pub default: Value,
}

/// The help of all settings of a scorer.
pub(crate) fn help<S: Settings>() -> Vec<SettingHelp> {
    let defaults = serde_json::to_value(S::default()).unwrap_or_default();
    let entry = |&(name, documentation): &(&'static str, &'static str)| SettingHelp {
        name,
        help: documentation.trim().to_owned(),
        default: defaults.get(name).cloned().unwrap_or_default(),
    };
    S::FIELDS.iter().map(entry).collect()
}

/// Why a scorer cannot be configured.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigureError {
    /// No member of that name.
    #[error("unknown scorer `{found}`\n\nhint: known are {known}")]
    UnknownScorer {
        /// The name that was given.
        found: String,
        /// All names.
        known: String,
    },
    /// The settings do not have the right form.
    #[error("scorer `{scorer}`: {reason}\n\nhint: its settings are {known}")]
    Form {
        /// The instance.
        scorer: String,
        /// What is wrong.
        reason: String,
        /// The settings that it has.
        known: String,
    },
    /// A setting that has no default was not given.
    #[error("scorer `{scorer}`: the setting `{setting}` is required")]
    Required {
        /// The instance.
        scorer: String,
        /// The setting.
        setting: &'static str,
    },
    /// A value is outside of what makes sense.
    #[error("scorer `{scorer}`: `{setting}` is {found}, expected {expected}")]
    Value {
        /// The instance.
        scorer: String,
        /// The setting.
        setting: &'static str,
        /// What was given.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The markers cannot be used.
    #[error("scorer `{scorer}`, setting `{setting}`: {source}")]
    Markers {
        /// The instance.
        scorer: String,
        /// The setting.
        setting: &'static str,
        /// Why.
        source: crate::MarkerError,
    },
}

/// Defines the settings of a scorer: a documented default for each field, unknown keys refused.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $kind:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $kind, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::Settings for $name {
            const FIELDS: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($field), concat!($($doc),+)), )+ ];
        }
    };
}
pub(crate) use settings;
