//! Layers of settings, the later over the earlier.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Field, Fields, Kind, SettingsError, nearest};

/// Who set something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The command that is run.
    Command(&'static str),
    /// A preset.
    Preset(String),
    /// A configuration file.
    File(String),
    /// An environment variable.
    Environment(String),
    /// An option.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::Command(name) => write!(f, "ablate {name}"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(name) | Self::Environment(name) | Self::CommandLine(name) => write!(f, "{name}"),
        }
    }
}

impl Origin {
    /// Whether the user did not write it.
    fn built_in(&self) -> bool {
        matches!(self, Self::Default | Self::Command(_) | Self::Preset(_))
    }
}

/// What has been set, with who set it.
#[derive(Clone, Debug)]
pub struct Layers {
    groups: Vec<&'static [Field]>,
    leaves: BTreeMap<Vec<String>, (Value, Origin)>,
}

impl Layers {
    /// Nothing set yet, of these groups of settings.
    pub fn new(groups: &[&'static [Field]]) -> Self {
        Self { groups: groups.to_vec(), leaves: BTreeMap::new() }
    }

    /// Sets a table's settings over what is there.
    ///
    /// # Errors
    /// [`SettingsError::Unknown`] with the nearest name, [`SettingsError::Value`].
    pub fn set_all(&mut self, layer: &Map<String, Value>, origin: &Origin) -> Result<(), SettingsError> {
        for (key, value) in layer {
            self.set(std::slice::from_ref(key), value, origin)?;
        }
        Ok(())
    }

    /// Sets one setting.
    pub fn set(&mut self, path: &[String], value: &Value, origin: &Origin) -> Result<(), SettingsError> {
        let groups = self.groups.clone();
        self.set_in(&groups, path, 0, value, origin)
    }

    fn set_in(
        &mut self,
        groups: &[&'static [Field]],
        path: &[String],
        depth: usize,
        value: &Value,
        origin: &Origin,
    ) -> Result<(), SettingsError> {
        let fields = || groups.iter().flat_map(|it| it.iter());
        let Some(field) = fields().find(|it| it.name == path[depth]) else {
            let near = nearest(&path[depth], fields().map(|it| it.name))[0];
            let mut meant = path[..depth].to_vec();
            meant.push(near.to_owned());
            return Err(SettingsError::Unknown {
                key: path[..=depth].join("."),
                origin: origin.clone(),
                hint: format!("did you mean `{}`?", meant.join(".")),
            });
        };
        let last = depth + 1 == path.len();
        match (field.kind, value) {
            (Kind::Table(fields), _) if !last => {
                self.replace_built_in(path, depth, fields, origin);
                self.set_in(&[fields], path, depth + 1, value, origin)
            }
            (Kind::Table(fields), Value::Object(table)) => {
                let mut keys: Vec<&String> = table.keys().collect();
                // The first setting of a table makes it another table, before the rest is set.
                keys.sort_by_key(|it| *it != fields[0].name);
                for key in keys {
                    let mut deeper = path.to_vec();
                    deeper.push(key.clone());
                    self.set_in(groups, &deeper, depth, &table[key], origin)?;
                }
                Ok(())
            }
            (Kind::Table(fields), Value::String(_)) => {
                self.forget(path);
                let mut deeper = path.to_vec();
                deeper.push(fields[0].name.to_owned());
                self.set_in(&[fields], &deeper, depth + 1, value, origin)
            }
            (Kind::Open, _) => {
                self.set_open(path, value, origin);
                Ok(())
            }
            _ if !last => Err(SettingsError::Unknown {
                key: path.join("."),
                origin: origin.clone(),
                hint: format!("`{}` is no table", path[..=depth].join(".")),
            }),
            (kind, value) => {
                let value =
                    checked(kind, field.optional, value).map_err(|expected| SettingsError::Value {
                        key: path.join("."),
                        origin: origin.clone(),
                        found: if value.is_string() {
                            format!("`{}`", value.as_str().unwrap_or_default())
                        } else {
                            format!("`{value}`")
                        },
                        expected,
                    })?;
                self.leaves.insert(path.to_vec(), (value, origin.clone()));
                Ok(())
            }
        }
    }

    /// A user who names the first setting of a table means a table of their own, not the rest of a preset's.
    fn replace_built_in(&mut self, path: &[String], depth: usize, fields: &[Field], origin: &Origin) {
        if path.get(depth + 1).is_some_and(|it| it == fields[0].name) && !origin.built_in() {
            let table = &path[..=depth];
            self.leaves.retain(|it, (_, origin)| !(it.starts_with(table) && origin.built_in()));
        }
    }

    /// Takes back everything below a path.
    pub fn forget(&mut self, path: &[String]) {
        self.leaves.retain(|it, _| !it.starts_with(path));
    }

    /// Tables whose keys are not known here are merged key by key.
    fn set_open(&mut self, path: &[String], value: &Value, origin: &Origin) {
        if let Value::Object(table) = value {
            for (key, value) in table {
                let mut deeper = path.to_vec();
                deeper.push(key.clone());
                self.set_open(&deeper, value, origin);
            }
        } else {
            self.leaves.insert(path.to_vec(), (value.clone(), origin.clone()));
        }
    }

    /// Who set this.
    pub fn origin(&self, path: &[&str]) -> &Origin {
        let path: Vec<String> = path.iter().map(|&it| it.to_owned()).collect();
        let mut below = self.leaves.range(path.clone()..).take_while(|(it, _)| it.starts_with(&path));
        below.next().map_or(&Origin::Default, |(_, (_, origin))| origin)
    }

    /// What is set, leaf by leaf.
    pub fn leaves(&self) -> impl Iterator<Item = (&[String], &Value, &Origin)> {
        self.leaves.iter().map(|(path, (value, origin))| (path.as_slice(), value, origin))
    }

    /// The values of one group, what is not set by default.
    ///
    /// # Errors
    /// [`SettingsError::Value`] with the setting that does not fit.
    pub fn resolve<T: Fields>(&self) -> Result<T, SettingsError> {
        let mut tree = Map::new();
        for field in T::FIELDS {
            let Some(value) = self.tree(&[field.name.to_owned()]) else { continue };
            // One by one, so that an error can say whose it is.
            let alone = Value::Object(Map::from_iter([(field.name.to_owned(), value.clone())]));
            serde_json::from_value::<T>(alone).map_err(|error| SettingsError::Value {
                key: field.name.to_owned(),
                origin: self.origin(&[field.name]).clone(),
                found: format!("`{value}`"),
                expected: format!("something else: {error}"),
            })?;
            tree.insert(field.name.to_owned(), value);
        }
        Ok(serde_json::from_value(Value::Object(tree)).expect("each setting was read by itself"))
    }

    /// The tree below a path, if anything is set there.
    pub fn tree(&self, path: &[String]) -> Option<Value> {
        let mut root = None;
        for (leaf, (value, _)) in
            self.leaves.range(path.to_vec()..).take_while(|(it, _)| it.starts_with(path))
        {
            let mut at = root.get_or_insert(Value::Null);
            for key in &leaf[path.len()..] {
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                at = at.as_object_mut().expect("made above").entry(key.clone()).or_insert(Value::Null);
            }
            *at = value.clone();
        }
        root
    }
}

/// The value in the form of its kind, or what was expected.
fn checked(kind: Kind, optional: bool, value: &Value) -> Result<Value, String> {
    let unchanged =
        |fits: bool, expected: &str| if fits { Ok(value.clone()) } else { Err(expected.to_owned()) };
    match kind {
        _ if optional && value.is_null() => Ok(Value::Null),
        Kind::Bool => unchanged(value.is_boolean(), "true or false"),
        Kind::Integer { least } => unchanged(
            value.as_u64().is_some_and(|it| it >= least),
            &format!("a whole number, at least {least}"),
        ),
        Kind::Number { least, most } => {
            let fits = value.as_f64().is_some_and(|it| (least..=most).contains(&it));
            let range = match (least.is_finite(), most.is_finite()) {
                (true, true) => format!("a number from {least} to {most}"),
                (true, false) => format!("a number, at least {least}"),
                _ => "a number".to_owned(),
            };
            // 1 and 1.0 are the same here.
            unchanged(fits, &range).map(|it| it.as_f64().map_or(it.clone(), Value::from))
        }
        Kind::Text => unchanged(value.is_string(), "a text"),
        Kind::Choice(choices) => {
            let choices = choices();
            let known = value.as_str().is_some_and(|it| choices.contains(&it));
            unchanged(known, &format!("one of {}", choices.join(", ")))
        }
        Kind::Texts => match value {
            Value::String(path) => {
                let text = files::read_text(Path::new(path), files::SMALL)
                    .map_err(|it| format!("a list, or a file with one item a line: {it}"))?;
                let items: Vec<&str> = files::lines(&text).collect();
                if items.is_empty() {
                    return Err("a list, or a file with one item a line: the file has none".to_owned());
                }
                Ok(items.into_iter().collect())
            }
            Value::Array(items) => unchanged(items.iter().all(Value::is_string), "a list of texts"),
            _ => Err("a list of texts".to_owned()),
        },
        Kind::List => unchanged(value.is_array(), "a list"),
        Kind::Table(_) => Err("a table".to_owned()),
        Kind::Open | Kind::Any => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings;

    settings! {
        /// A table.
        struct Set {
            section "Sets";
            /// Which.
            pub dataset: String = String::new();
            /// A part.
            pub split: Option<String> = None;
            /// Before.
            pub prefix: String = String::new();
        }
    }

    settings! {
        /// All.
        struct All {
            section "Numbers";
            /// How many.
            pub n_trials: usize [Kind::Integer { least: 1 }] = 200;
            /// A share.
            pub share: f64 [Kind::Number { least: 0.0, most: 1.0 }] = 1.0;
            /// Whether.
            pub plain: bool = false;
            /// Words.
            pub words: Vec<String> = Vec::new();
            /// A set.
            pub good: Option<Set> = None;
        }
    }

    fn file() -> Origin {
        Origin::File("ablate.toml".into())
    }

    fn layers(layers: &[(Value, Origin)]) -> Result<Layers, SettingsError> {
        let mut all = Layers::new(&[All::FIELDS]);
        for (layer, origin) in layers {
            all.set_all(layer.as_object().unwrap(), origin)?;
        }
        Ok(all)
    }

    fn refused(layer: Value) -> String {
        layers(&[(layer, file())]).unwrap_err().to_string()
    }

    #[test]
    fn the_later_layer_counts_and_is_remembered() {
        let line = Origin::CommandLine("--n-trials".into());
        let all = layers(&[
            (json!({"n_trials": 5, "plain": true}), file()),
            (json!({"n_trials": 6}), line.clone()),
        ]);
        let all = all.unwrap();
        let resolved: All = all.resolve().unwrap();
        assert_eq!((resolved.n_trials, resolved.plain, resolved.share), (6, true, 1.0));
        assert_eq!((all.origin(&["n_trials"]), all.origin(&["plain"])), (&line, &file()));
        assert_eq!(all.origin(&["share"]), &Origin::Default);
    }

    #[test]
    fn a_user_who_names_a_table_of_their_own_gets_nothing_of_the_presets() {
        let preset = (
            json!({"good": {"dataset": "hub/set", "split": "train[:4]", "prefix": "p"}}),
            Origin::Preset("x".into()),
        );
        let set = |layer: Value| {
            let all = layers(&[preset.clone(), (layer, file())]).unwrap();
            all.resolve::<All>().unwrap().good.unwrap()
        };
        let mine = Set { dataset: "mine.txt".into(), ..Set::default() };
        assert_eq!(set(json!({"good": {"dataset": "mine.txt"}})), mine);
        assert_eq!(set(json!({"good": "mine.txt"})), mine);
        assert_eq!(
            set(json!({"good": {"prefix": "q"}})),
            Set { dataset: "hub/set".into(), split: Some("train[:4]".into()), prefix: "q".into() }
        );
        // What the user wrote in two places belongs together.
        let both = layers(&[
            preset.clone(),
            (json!({"good": {"split": "test", "dataset": "a"}}), file()),
            (json!({"good": {"dataset": "b"}}), Origin::CommandLine("--good.dataset".into())),
        ]);
        let both = both.unwrap().resolve::<All>().unwrap().good.unwrap();
        assert_eq!(both, Set { dataset: "b".into(), split: Some("test".into()), prefix: String::new() });
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_one_and_the_place() {
        let said = refused(json!({"n_trial": 5}));
        assert!(
            said.starts_with("ablate.toml: unknown setting `n_trial`") && said.contains("`n_trials`"),
            "{said}"
        );
        let said = refused(json!({"good": {"data_set": "x"}}));
        assert!(said.contains("`good.data_set`") && said.contains("did you mean `good.dataset`?"), "{said}");
    }

    #[test]
    fn a_value_of_another_kind_is_named_with_what_was_expected() {
        for (layer, expected) in [
            (json!({"n_trials": 0}), "a whole number, at least 1"),
            (json!({"n_trials": -1}), "a whole number, at least 1"),
            (json!({"n_trials": "many"}), "a whole number, at least 1"),
            (json!({"share": 1.5}), "a number from 0 to 1"),
            (json!({"plain": 1}), "true or false"),
            (json!({"words": [1]}), "a list of texts"),
            (json!({"words": "no/such/file"}), "a file with one item a line"),
            (json!({"good": 5}), "a table"),
            (json!({"good": {"dataset": 5}}), "a text"),
        ] {
            let said = refused(layer.clone());
            assert!(said.contains(expected) && said.contains("ablate.toml"), "{layer}: {said}");
        }
    }

    #[test]
    fn a_list_of_texts_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\r\n\n two \n").unwrap();
        let all = layers(&[(json!({"words": file.path().to_str().unwrap()}), Origin::Default)]).unwrap();
        assert_eq!(all.resolve::<All>().unwrap().words, ["one", "two"]);
    }

    #[test]
    fn environment_variables_are_settings_and_misspelled_ones_are_errors() {
        let read = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            crate::from_environment("ABLATE_", &[All::FIELDS], &["ABLATE_OTHER"], variables)
        };
        let found = read(&[
            ("ABLATE_N_TRIALS", "7"),
            ("ABLATE_GOOD__SPLIT", "train[:3]"),
            ("ABLATE_PLAIN", "on"),
            ("ABLATE_OTHER", "x"),
            ("HOME", "/"),
        ])
        .unwrap();
        let mut all = Layers::new(&[All::FIELDS]);
        for (path, value, origin) in &found {
            all.set(path, value, origin).unwrap();
        }
        let resolved: All = all.resolve().unwrap();
        assert_eq!((resolved.n_trials, resolved.plain), (7, true));
        assert_eq!(resolved.good.unwrap().split.unwrap(), "train[:3]");
        assert_eq!(all.origin(&["n_trials"]).to_string(), "ABLATE_N_TRIALS");
        let said = read(&[("ABLATE_TRIALS", "7")]).unwrap_err().to_string();
        assert!(said.contains("`ABLATE_N_TRIALS`"), "{said}");
        let said = read(&[("ABLATE_N_TRIALS", "x")]).unwrap_err().to_string();
        assert!(said.contains("`x`") && said.contains("a whole number"), "{said}");
    }

    #[test]
    fn words_of_a_list_are_its_items_and_json_is_itself() {
        let field = Field {
            name: "list",
            documentation: "",
            section: "",
            kind: Kind::List,
            optional: false,
            also: &[],
        };
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&it| it.to_owned()).collect();
            crate::from_text(&field, &words, &["list".to_owned()], &Origin::Default).unwrap()
        };
        assert_eq!(read(&["a", "{\"b\": 1}"]), json!(["a", {"b": 1}]));
        assert_eq!(read(&["[1, 2]"]), json!([1, 2]));
    }
}
