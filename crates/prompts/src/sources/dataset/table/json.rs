//! JSON: an object a line, a list, or an object around a list.
//!
//! | the file holds | rows |
//! |---|---|
//! | `{"text": "a"}` lines | each line |
//! | `[{"text": "a"}, …]` | each entry |
//! | `["a", …]`, or `"a"` lines | each text, as the column `text` |
//! | `{"data": [{"text": "a"}, …]}`, under this name or another | each entry of the list |
//! | `{"prompts": ["a", …]}` | each text, as a column of that name |
//! | `{"text": ["a", …], "n": [1, …]}` | each place of the lists, which are columns |

use serde_json::{Map, Value};

use super::{DatasetError, Reading};

/// What a column is called where nothing has a name.
const UNNAMED: &str = "text";

/// The names under which lists of rows lie in objects that have texts, too, such as a version.
const ROWS: [&str; 8] = ["data", "rows", "examples", "instances", "items", "records", "prompts", "train"];

impl Reading<'_> {
    pub(super) fn json(&self, text: &str) -> Result<Vec<String>, DatasetError> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut values: Vec<Value> = values.collect::<Result<_, _>>().map_err(|it| self.malformed(&it))?;
        let mut name = UNNAMED.to_owned();
        let rows = match values.as_mut_slice() {
            [Value::Array(_)] => match values.remove(0) {
                Value::Array(rows) => rows,
                _ => unreachable!("it was a list"),
            },
            [Value::Object(one)] => match self.inner(one) {
                Inner::Row => values,
                Inner::Rows(key) => {
                    let rows = one.remove(&key).unwrap_or_default();
                    name = key;
                    match rows {
                        Value::Array(rows) => rows,
                        _ => Vec::new(),
                    }
                }
                Inner::Columns => transposed(one),
            },
            _ => values,
        };
        if rows.iter().any(Value::is_string) {
            return self.plain(&rows, &name);
        }
        self.objects(&rows)
    }

    /// What an object is that is all there is in a file.
    fn inner(&self, one: &Map<String, Value>) -> Inner {
        let lists: Vec<(&String, &Vec<Value>)> =
            one.iter().filter_map(|(key, it)| Some((key, it.as_array()?))).collect();
        let asked_for = self.column.and_then(|it| one.get(it));
        if asked_for.is_some_and(Value::is_string) || lists.is_empty() {
            return Inner::Row;
        }
        let of = |is: fn(&Value) -> bool| {
            move |it: &&(&String, &Vec<Value>)| !it.1.is_empty() && it.1.iter().all(is)
        };
        let has_texts = one.values().any(Value::is_string);
        let of_objects: Vec<_> = lists.iter().filter(of(Value::is_object)).collect();
        if let [(key, _)] = of_objects.as_slice()
            && (!has_texts || self.column.is_some() || ROWS.contains(&key.as_str()))
        {
            return Inner::Rows((*key).clone());
        }
        let of_texts: Vec<_> = lists.iter().filter(of(Value::is_string)).collect();
        let length = lists[0].1.len();
        if has_texts {
            return match of_texts.as_slice() {
                [(key, _)] if asked_for.is_some() || ROWS.contains(&key.as_str()) => {
                    Inner::Rows((*key).clone())
                }
                _ => Inner::Row,
            };
        }
        match of_texts.as_slice() {
            [(key, _)] if lists.len() == 1 => Inner::Rows((*key).clone()),
            [] => Inner::Row,
            _ if lists.len() == one.len() && lists.iter().all(|it| it.1.len() == length) => Inner::Columns,
            _ => Inner::Row,
        }
    }

    /// Texts without names.
    fn plain(&self, rows: &[Value], name: &str) -> Result<Vec<String>, DatasetError> {
        // In a list under a name both that name and the usual one are meant.
        let asked_for = self.column.is_none_or(|it| it == name || it == UNNAMED);
        if !asked_for {
            self.choose(&[name.to_owned()], &[true])?;
        }
        let cell = |(row, it): (usize, &Value)| match it {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Err(self.cell(row, name, "empty")),
            other => Err(self.cell(row, name, format!("`{}`", shortened(other)))),
        };
        rows.iter().enumerate().map(cell).collect()
    }

    fn objects(&self, rows: &[Value]) -> Result<Vec<String>, DatasetError> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let no_object = |it: &Value| {
            let found = shortened(it);
            self.malformed(&format!("expected objects or texts as rows, found `{found}`"))
        };
        let first = first.as_object().ok_or_else(|| no_object(first))?;
        // A row may lack what others have.
        let mut names: Vec<String> = first.keys().cloned().collect();
        if let Some(column) = self.column.filter(|it| !first.contains_key(*it))
            && rows.iter().any(|it| it.get(column).is_some())
        {
            names.push(column.to_owned());
        }
        let texts: Vec<bool> = names.iter().map(|it| first.get(it).is_some_and(Value::is_string)).collect();
        let name = &names[self.choose(&names, &texts)?];
        let cell = |(row, it): (usize, &Value)| match it.as_object().ok_or_else(|| no_object(it))?.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            None | Some(Value::Null) => Err(self.cell(row, name, "empty")),
            Some(other) => Err(self.cell(row, name, format!("`{}`", shortened(other)))),
        };
        rows.iter().enumerate().map(cell).collect()
    }
}

/// What an object is that is all there is in a file.
enum Inner {
    /// The only row.
    Row,
    /// It has the rows under this name.
    Rows(String),
    /// It has columns, lists of one length.
    Columns,
}

/// Rows from columns.
fn transposed(columns: &mut Map<String, Value>) -> Vec<Value> {
    let length = columns.values().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
    let mut rows = vec![Map::new(); length];
    for (name, values) in columns.iter_mut() {
        let Value::Array(values) = values.take() else { continue };
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.clone(), value);
        }
    }
    rows.into_iter().map(Value::Object).collect()
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
