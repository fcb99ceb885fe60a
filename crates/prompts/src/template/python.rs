//! How Python writes numbers, and the methods that templates call on Python's types.

use minijinja::{Error, State, Value};

/// Methods of strings, lists and dictionaries.
pub(super) fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method, args) {
        (Some(text), "title", []) => Ok(Value::from(title(text))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Python's `str.title`: a letter is upper case unless it follows a letter, whatever else a word is.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for it in text.chars() {
        if in_word {
            out.extend(it.to_lowercase());
        } else {
            out.extend(it.to_uppercase());
        }
        in_word = it.is_lowercase() || it.is_uppercase();
    }
    out
}

/// A float as the text that Python prints for it; every other value as it is.
pub(super) fn with_python_float(value: &Value) -> Value {
    match f64::try_from(value.clone()) {
        Ok(float) if value.is_number() && !value.is_integer() && float.is_finite() => {
            Value::from(self::float(float))
        }
        _ => value.clone(),
    }
}

/// A float as Python's `repr` writes it: the shortest digits that read back, an exponent from 1e16 and below 1e-4.
///
/// Infinities and not-a-number are written as `json.dumps` does.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes the exponent in decimal");
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Each pair is `repr(value)` of Python 3.11.
        for (value, repr) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(value), repr);
        }
    }
}
