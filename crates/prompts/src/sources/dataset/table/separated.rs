//! Values separated by commas or tabs.

use super::{DatasetError, Reading};

impl Reading<'_> {
    pub(super) fn separated(&self, text: &str, delimiter: u8) -> Result<Vec<String>, DatasetError> {
        if let Some(line) = unbalanced(text, delimiter) {
            return Err(self.malformed(&format!(
                "the quote that opens in line {line} is not closed before the line ends or the file does\n\n\
                 hint: a quote inside of quotes is written twice"
            )));
        }
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|it| self.malformed(&it))?;
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        let chosen = self.choose(&names, &vec![true; names.len()])?;
        let cell = |(row, record): (usize, Result<csv::StringRecord, csv::Error>)| {
            let record = record.map_err(|it| self.malformed(&it))?;
            match record.get(chosen) {
                Some(text) if !text.is_empty() => Ok(text.to_owned()),
                _ => Err(self.cell(row, &names[chosen], "empty")),
            }
        };
        reader.records().enumerate().map(cell).collect()
    }
}

/// The line in which a quote opens that swallows what follows: none closes it, or the one that does has text behind it,
/// lines later, so that it was meant to open another value.
fn unbalanced(text: &str, delimiter: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut value_begins = true;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'"' && value_begins {
            let opened = line;
            loop {
                let length = bytes[at..].iter().position(|&it| it == b'"');
                let Some(length) = length else { return Some(opened) };
                line += line_ends(&bytes[at..at + length]);
                at += length + 1;
                if bytes.get(at) != Some(&b'"') {
                    break;
                }
                at += 1;
            }
            let closes =
                bytes.get(at).is_none_or(|&it| it == delimiter || matches!(it, b'\n' | b'\r' | b' '));
            if !closes && line > opened {
                return Some(opened);
            }
            value_begins = false;
            continue;
        }
        if byte == b'\n' || (byte == b'\r' && bytes.get(at) != Some(&b'\n')) {
            line += 1;
        }
        value_begins = byte == delimiter || matches!(byte, b'\n' | b'\r');
    }
    None
}

fn line_ends(bytes: &[u8]) -> usize {
    let lone = |it: &[u8]| it[0] == b'\r' && it[1] != b'\n';
    bytes.split(|&it| it == b'\n').count() - 1 + bytes.windows(2).filter(|it| lone(it)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_not_closed_is_found_where_it_opens() {
        for (text, line) in [
            ("text\n\"a\nb\nc\n", 2),
            ("text\nfine\n\"never\nends", 3),
            ("text,n\n\"one\"\"two,1\n", 2),
            // The next value's own quotes seem to close it.
            ("text,n\nfine,1\n\"oops,2\nlost,3\n\"quoted\",4\n", 3),
            ("text\r\n\"a\r\n", 2),
            ("text\r\"a\r", 2),
            ("\"text\na\n", 1),
        ] {
            assert_eq!(unbalanced(text, b','), Some(line), "{text:?}");
        }
        assert_eq!(unbalanced("text\tn\n\"a\tb\n", b'\t'), Some(2));
    }

    #[test]
    fn quotes_that_are_closed_or_are_text_are_fine() {
        for text in [
            "text\n\"a\nb\"\n",
            "text\n\"a \"\"b\"\" c\"\n",
            "text,n\n\"a, b\",1\r\n\"\",2\n",
            "text\n5\" disk\n",
            "text\nsay \"hi\n",
            "text,n\n\"a\" ,1\n",
            "text\n\"sloppy\"er\n",
            "\"text\"\n\"last\"",
            "",
        ] {
            assert_eq!(unbalanced(text, b','), None, "{text:?}");
        }
    }
}
