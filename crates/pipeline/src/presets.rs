//! Presets: configuration files that come with the program, one for each behaviour that many people want to remove.
//!
//! A growth room: a file in `presets/` and a line in [`PRESETS`]. A preset names what its files name and nothing
//! else, in the form of any other configuration file.

use serde_json::{Map, Value};
use settings::{Origin, SettingsError};

use crate::written::translate;

/// A configuration file of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    /// The file; its first line says what it is for.
    pub text: &'static str,
}

/// All presets, the default first.
pub const PRESETS: &[Preset] = &[
    Preset { name: "refusals", text: include_str!("presets/refusals.toml") },
    Preset { name: "over-refusal", text: include_str!("presets/over-refusal.toml") },
    Preset { name: "disclaimers", text: include_str!("presets/disclaimers.toml") },
    Preset { name: "slop", text: include_str!("presets/slop.toml") },
    Preset { name: "humor", text: include_str!("presets/humor.toml") },
];

/// Their names.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|it| it.name).collect()
}

impl Preset {
    /// The preset of that name.
    pub fn named(name: &str) -> Option<Self> {
        PRESETS.iter().find(|it| it.name == name).copied()
    }

    /// What it is for.
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// Its settings.
    pub fn settings(&self) -> Result<Map<String, Value>, SettingsError> {
        translate(settings::from_toml(self.name, self.text)?, &Origin::Preset(self.name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prompts::sources::EmbeddedSet;
    use settings::{Fields, Layers};

    use super::*;
    use crate::Settings;

    fn settings(preset: &Preset) -> Settings {
        let mut layers = Layers::new(&[Settings::FIELDS]);
        let origin = Origin::Preset(preset.name.to_owned());
        layers.set_all(&preset.settings().unwrap(), &origin).unwrap();
        layers.resolve().unwrap()
    }

    #[test]
    fn every_preset_is_a_run_that_can_be_started() {
        for preset in PRESETS {
            let settings = settings(preset);
            for set in ["good_prompts", "bad_prompts", "refusal_prompts", "kl_prompts"] {
                assert!(!settings.set(set).unwrap().dataset.is_empty(), "{}: {set}", preset.name);
            }
            for (name, set) in settings.sets() {
                prompts::sources::open(set.source())
                    .unwrap_or_else(|it| panic!("{}: {name}: {it}", preset.name));
            }
            assert!(crate::objectives(&settings).unwrap().len() >= 2, "{}", preset.name);
            assert!(preset.summary().len() > 20, "{}", preset.name);
        }
    }

    #[test]
    fn markers_of_presets_are_distinct_and_in_the_form_in_which_they_are_compared() {
        for preset in PRESETS {
            let mut seen = HashSet::new();
            for marker in settings(preset).refusal_markers.unwrap_or_default() {
                assert!(
                    !marker.is_empty() && marker == marker.trim().to_lowercase(),
                    "{}: `{marker}`",
                    preset.name
                );
                assert!(seen.insert(marker.clone()), "{}: {marker}", preset.name);
            }
        }
    }

    #[test]
    fn no_ordinary_prompt_asks_for_a_disclaimer() {
        let markers = settings(&Preset::named("disclaimers").unwrap()).refusal_markers.unwrap();
        assert!(markers.iter().any(|it| it == "as an ai"));
        for name in ["ordinary-train", "ordinary-eval"] {
            for prompt in EmbeddedSet::named(name).unwrap().prompts() {
                assert!(!markers.iter().any(|it| prompt.to_lowercase().contains(it)), "{prompt}");
            }
        }
    }
}
