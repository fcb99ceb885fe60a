//! Files that a user names or a stranger made: regular ones, of a bounded size, as text.
//!
//! A named pipe makes its reader wait for ever, `/dev/zero` fills the memory, and a text may be in another encoding than
//! UTF-8. Everything that reads a small file as a whole reads it here, so that each of these is the same error everywhere,
//! with the name of the file and what to do.
//!
//! This room knows nothing of what is in a file.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes of a file that says how something is to be done: settings, parameters, templates, phrases.
pub const SMALL: u64 = 16 << 20;

/// The most bytes of a file of prompts, and of a text to be scored.
pub const TEXT: u64 = 256 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says no.
    #[error("`{}`: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("`{}` is {found}, expected a regular file{}", path.display(), pipe_hint(found))]
    NotRegular {
        /// What was named.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// More than is ever meant.
    #[error(
        "`{}` has {found} bytes, expected at most {most}\n\nhint: is it the right file? it can be split into several",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes it has, or at least has.
        found: u64,
        /// How many it may have.
        most: u64,
    },
    /// Not UTF-8.
    #[error("`{}`, line {line}: not valid UTF-8\n\nhint: {}", path.display(), conversion(path, encoding))]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it looks like, as `iconv` calls it.
        encoding: &'static str,
    },
}

fn pipe_hint(found: &str) -> &'static str {
    if found == PIPE { "\n\nhint: `-` reads from standard input, where the command has that" } else { "" }
}

fn conversion(path: &Path, encoding: &str) -> String {
    let name = path.display().to_string().replace('\'', r"'\''");
    let other = if encoding.starts_with("UTF") { "" } else { ", or whatever encoding it has after `-f`" };
    format!("convert it: `iconv -f {encoding} -t UTF-8 '{name}' > '{name}.utf8'`{other}")
}

/// Opens a file for reading, if it is a regular one.
///
/// A pipe that the program was started with (`<(...)` of a shell, `/dev/stdin`) is a file, too: its writer is there.
pub fn open(path: &Path) -> Result<File, FileError> {
    let io = |reason| FileError::Io { path: path.to_owned(), reason };
    let refuse = |facts: &Metadata| {
        let found = kind(facts.file_type());
        if facts.is_file() || (found == PIPE && is_inherited(path)) {
            return Ok(());
        }
        Err(FileError::NotRegular { path: path.to_owned(), found })
    };
    // Before opening: to open a pipe waits for a writer, and to open a device may do something.
    refuse(&std::fs::metadata(path).map_err(io)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    if !is_inherited(path) {
        use std::os::unix::fs::OpenOptionsExt as _;
        // What became a pipe meanwhile is not waited for.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path).map_err(io)?;
    refuse(&file.metadata().map_err(io)?)?;
    Ok(file)
}

/// The bytes of a regular file that has at most so many.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    let found = file.metadata().map_or(0, |it| it.len());
    if found > most {
        return Err(FileError::TooLarge { path: path.to_owned(), found, most });
    }
    read_from(path, file, most)
}

/// The bytes of what is open already; errors call it `path`.
pub fn read_from(path: &Path, source: impl Read, most: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let reading = source.take(most + 1).read_to_end(&mut bytes);
    reading.map_err(|reason| FileError::Io { path: path.to_owned(), reason })?;
    let found = bytes.len() as u64;
    if found > most { Err(FileError::TooLarge { path: path.to_owned(), found, most }) } else { Ok(bytes) }
}

/// The text of a regular file that has at most so many bytes, without the mark that some editors put at its beginning.
pub fn read_text(path: &Path, most: u64) -> Result<String, FileError> {
    text(path, read(path, most)?)
}

/// Bytes as text, without the mark that some editors put at its beginning; errors call it `path`.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    let not_utf8 =
        |line, bytes: &[u8]| FileError::NotUtf8 { path: path.to_owned(), line, encoding: encoding(bytes) };
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        not_utf8(1 + line_ends(valid), error.as_bytes())
    })?;
    // Every other byte of a text in UTF-16 may be zero, which is UTF-8 as well.
    if encoding(text.as_bytes()).starts_with("UTF-16") {
        return Err(not_utf8(1, text.as_bytes()));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The lines of a text, whichever way they end (LF, CRLF or CR), trimmed, without those that are blank.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r']).map(str::trim).filter(|it| !it.is_empty())
}

fn line_ends(bytes: &[u8]) -> usize {
    let count = |wanted: u8| bytes.split(|&it| it == wanted).count() - 1;
    match count(b'\n') {
        0 => count(b'\r'),
        lines => lines,
    }
}

/// What bytes that are no UTF-8 look like.
fn encoding(bytes: &[u8]) -> &'static str {
    let start = &bytes[..bytes.len().min(4096)];
    let zeros =
        |first: usize| start.iter().skip(first).step_by(2).filter(|&&it| it == 0).count() * 4 > start.len();
    match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        _ if zeros(1) => "UTF-16LE",
        _ if zeros(0) => "UTF-16BE",
        _ => "WINDOWS-1252",
    }
}

const PIPE: &str = "a named pipe";

fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return PIPE;
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    if kind.is_dir() { "a folder" } else { "no file" }
}

/// Whether a name is that of something that the program was started with.
fn is_inherited(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's.txt");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn a_text_is_read_without_its_byte_order_mark() {
        let (_folder, path) = written(b"\xef\xbb\xbfone");
        assert_eq!(read_text(&path, 6).unwrap(), "one");
    }

    #[test]
    fn a_file_with_more_bytes_than_allowed_is_refused_with_both_numbers() {
        let (_folder, path) = written(b"sixteen bytes...");
        assert_eq!(read(&path, 16).unwrap().len(), 16);
        let error = read(&path, 15).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { found: 16, most: 15, .. }), "{error}");
        let error = read_from(&path, std::io::repeat(7), 99).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { found: 100, most: 99, .. }), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_devices_sockets_and_folders_are_no_files_and_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        )
        .unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let zero = Path::new("/dev/zero");
        for (path, expected) in [
            (pipe.as_path(), "a named pipe"),
            (&link, "a named pipe"),
            (&socket, "a socket"),
            (zero, "a device"),
            (folder.path(), "a folder"),
        ] {
            let error = open(path).unwrap_err();
            assert!(matches!(error, FileError::NotRegular { found, .. } if found == expected), "{error}");
        }
    }

    #[test]
    fn a_text_in_another_encoding_says_how_to_convert_it() {
        let of =
            |text: &str, wide: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(wide).collect::<Vec<u8>>();
        for (bytes, encoding, line) in [
            (of("\u{feff}Say hello.\n", u16::to_le_bytes), "UTF-16", 1),
            (of("\u{feff}Say hello.\n", u16::to_be_bytes), "UTF-16", 1),
            (of("Say hello, café.\n", u16::to_le_bytes), "UTF-16LE", 1),
            (of("Say hello.\n", u16::to_le_bytes), "UTF-16LE", 1),
            (of("Say hello.\n", u16::to_be_bytes), "UTF-16BE", 1),
            (b"one\ntwo\ncaf\xe9\n".to_vec(), "WINDOWS-1252", 3),
            (b"one\rcaf\xe9\r".to_vec(), "WINDOWS-1252", 2),
        ] {
            let (_folder, path) = written(&bytes);
            let error = read_text(&path, SMALL).unwrap_err();
            assert!(
                matches!(error, FileError::NotUtf8 { line: it, encoding: found, .. } if it == line && found == encoding),
                "{error}"
            );
            let command = format!("`iconv -f {encoding} -t UTF-8 '");
            assert!(
                error.to_string().contains(&command) && error.to_string().contains(r"it'\''s.txt' > '"),
                "{error}"
            );
        }
    }

    #[test]
    fn lines_end_in_every_way_and_blank_ones_are_none() {
        assert_eq!(lines("a\r\n b \rc\n\n\r\r \td").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }
}
