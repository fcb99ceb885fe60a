//! Text files, one prompt a line.
//!
//! Lines end in LF, CRLF or CR, blank lines are skipped, spaces at the ends of a line and a byte order mark at the start
//! are dropped. A slice counts the lines that are not blank.

use std::path::{Path, PathBuf};

use files::FileError;
use hub::Client;

use super::{PromptSource, Slice, SourceError, Specification};

/// A text file, or standard input under the name `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Which of its prompts.
    pub slice: Option<Slice>,
}

/// Any line names a text file, with or without a slice at its end.
#[expect(clippy::unnecessary_wraps, reason = "all kinds of sources have this shape")]
pub(super) fn recognize(
    specification: &Specification,
    _: &Client,
) -> Option<Result<Box<dyn PromptSource>, SourceError>> {
    let file = TextFile::named(&specification.dataset);
    let file = file.and_then(|it| Ok(TextFile { slice: specification.slice(it.slice)?, ..it }));
    Some(file.map(|it| Box::new(it) as Box<dyn PromptSource>))
}

impl TextFile {
    /// The file that a line names. A file whose name itself ends in what looks like a slice is taken whole.
    ///
    /// # Errors
    /// [`SourceError::Slice`] when the name ends in brackets, no such file exists, and they hold no slice.
    pub fn named(line: &str) -> Result<Self, SourceError> {
        let whole = Self { path: line.into(), slice: None };
        if !line.ends_with(']') || Path::new(line).exists() {
            return Ok(whole);
        }
        let Some(start) = line.rfind('[') else { return Ok(whole) };
        let (path, slice) = line.split_at(start);
        Ok(Self { path: path.into(), slice: Some(slice.parse()?) })
    }

    fn read(&self) -> Result<String, FileError> {
        if self.path.as_os_str() == "-" {
            let bytes = files::read_from(&self.path, std::io::stdin().lock(), files::TEXT)?;
            return files::text(&self.path, bytes);
        }
        files::read_text(&self.path, files::TEXT)
    }
}

impl PromptSource for TextFile {
    fn name(&self) -> String {
        let slice = self.slice.map(|it| it.to_string()).unwrap_or_default();
        format!("{}{slice}", self.path.display())
    }

    fn load(&self) -> Result<Vec<String>, SourceError> {
        let text = self.read()?;
        let mut prompts: Vec<String> = files::lines(&text).map(str::to_owned).collect();
        let total = prompts.len();
        if let Some(slice) = self.slice {
            let range = slice.range(total);
            prompts.truncate(range.end);
            prompts.drain(..range.start);
        }
        if prompts.is_empty() {
            return Err(SourceError::Empty { name: self.name(), total });
        }
        Ok(prompts)
    }

    /// Standard input cannot be read twice.
    fn load_all(&self) -> Result<Vec<String>, SourceError> {
        Self { path: self.path.clone(), slice: None }.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{SliceError, open};

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_line_that_is_not_blank_is_a_prompt() {
        let (_folder, path) = file("prompts.txt", b"\xef\xbb\xbfone\r\n\r\n \t\n  two \nthree");
        assert_eq!(open(&path).unwrap().load().unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn a_slice_counts_the_prompts_and_not_the_blank_lines() {
        let (_folder, path) = file("prompts.txt", b"a\n\nb\n\nc\n\nd\n");
        assert_eq!(open(&format!("{path}[1:3]")).unwrap().load().unwrap(), ["b", "c"]);
        assert_eq!(open(&format!("{path}[-1:]")).unwrap().load().unwrap(), ["d"]);
        assert_eq!(open(&format!("{path}[-1:]")).unwrap().load_all().unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(open(&format!("{path}[:50%]")).unwrap().load().unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_file_whose_name_ends_like_a_slice_is_opened_whole() {
        let (_folder, path) = file("prompts.txt[:1]", b"a\nb\n");
        assert_eq!(open(&path).unwrap().load().unwrap(), ["a", "b"]);
        assert_eq!(open(&format!("{path}[1:]")).unwrap().load().unwrap(), ["b"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_reported_with_their_line() {
        let (_folder, path) = file("prompts.txt", b"fine\n\nbad \xff\n");
        let error = open(&path).unwrap().load().unwrap_err();
        assert!(matches!(error, SourceError::File(FileError::NotUtf8 { line: 3, .. })), "{error}");
        let (_folder, path) = file("prompts.txt", b"caf\xe9");
        let error = open(&path).unwrap().load().unwrap_err().to_string();
        assert!(
            error.contains(&format!("`iconv -f WINDOWS-1252 -t UTF-8 '{path}' > '{path}.utf8'`")),
            "{error}"
        );
    }

    #[test]
    fn lines_may_end_in_carriage_returns_alone() {
        let (_folder, path) = file("prompts.txt", b"one\rtwo\r\rthree\r");
        assert_eq!(open(&path).unwrap().load().unwrap(), ["one", "two", "three"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_not_read() {
        for device in ["/dev/zero", "/dev/urandom"] {
            let error = open(device).unwrap().load().unwrap_err();
            assert!(matches!(&error, SourceError::File(FileError::NotRegular { .. })), "{error}");
            assert!(error.to_string().contains(device), "{error}");
        }
    }

    #[test]
    fn nothing_selected_is_an_error_that_says_how_many_there_were() {
        let (_folder, path) = file("prompts.txt", b"a\nb\n");
        let error = open(&format!("{path}[5:]")).unwrap().load().unwrap_err();
        assert!(matches!(error, SourceError::Empty { total: 2, .. }), "{error}");
        let (_folder, path) = file("prompts.txt", b"\n \n");
        assert!(matches!(open(&path).unwrap().load(), Err(SourceError::Empty { total: 0, .. })));
    }

    #[test]
    fn a_missing_file_and_a_malformed_slice_are_named() {
        let error = open("no/such/file.txt").unwrap().load().unwrap_err();
        assert!(error.to_string().contains("`no/such/file.txt`"), "{error}");
        let error = open("prompts.txt[5]").unwrap_err();
        assert!(matches!(error, SourceError::Slice(SliceError::Malformed { .. })), "{error}");
    }

    #[test]
    fn the_name_is_the_line_that_was_given() {
        assert_eq!(open("prompts.txt[10%:20%]").unwrap().name(), "prompts.txt[10%:20%]");
    }
}
