//! What a file is that is not what its name says: an error page, an archive, weights in another format.
//!
//! Downloads go wrong in a few ways that the first bytes tell apart, and each has another remedy. Only what cannot be
//! the expected format is recognized here: callers ask after reading has failed, or where no such start is valid.

use std::path::Path;

use crate::CheckpointError;

/// How many bytes of a file are looked at: enough for a TAR archive's magic number, which stands at byte 257.
pub(crate) const LOOKED_AT: usize = 1024;

/// The longest text that can be a server's refusal; an error page is recognized by its markup.
const LONGEST_REFUSAL: usize = 1000;

const FETCH_AGAIN: &str = "the download went wrong; fetch the file itself: its address on the hub has `/resolve/` in \
                           place of `/blob/`, and a gated or private model needs a token";
const UNPACK: &str = "unpack the archive and name the folder in it";
const PICKLE: &str = "convert it once in Python: `AutoModelForCausalLM.from_pretrained(folder)\
                      .save_pretrained(new_folder)`, and copy the tokenizer files";

const PICKLED: &str = "a pickle, as PyTorch's old checkpoints (`.bin`, `.pt`, `.pth`) are";

/// Magic numbers with what they mean and what to do.
const MAGIC: &[(&[u8], &str, &str)] = &[
    (b"PK\x03\x04", "a ZIP archive, as PyTorch's checkpoints (`.bin`, `.pt`, `.pth`) are", PICKLE),
    (b"\x80\x02", PICKLED, PICKLE),
    (b"\x80\x03", PICKLED, PICKLE),
    (b"\x80\x04", PICKLED, PICKLE),
    (b"\x80\x05", PICKLED, PICKLE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as TensorFlow's checkpoints (`.h5`) are", PICKLE),
    (b"\x93NUMPY", "a NumPy array", PICKLE),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"lmgg", "a GGML file, which llama.cpp used before GGUF", "convert the original model again"),
    (b"tjgg", "a GGML file (GGJT), which llama.cpp used before GGUF", "convert the original model again"),
    (b"fmgg", "a GGML file (GGMF), which llama.cpp used before GGUF", "convert the original model again"),
    (b"\xff\xfe", "a text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "a text in UTF-16", "save it as UTF-8"),
];

const HTML: [&str; 4] = ["<!doctype html", "<html", "<head", "<body"];

/// What the first bytes of a file, of `size` bytes in all, show it to be, and what to do; `None` if they are of no kind
/// that is known here.
pub(crate) fn recognize(start: &[u8], size: u64) -> Option<(String, &'static str)> {
    let start = &start[..start.len().min(LOOKED_AT)];
    // A safetensors file: eight bytes of length, which may look like any magic number, and an object.
    if start.get(8) == Some(&b'{') && start[4..8] == [0; 4] {
        return None;
    }
    if let Some((_, kind, hint)) = MAGIC.iter().find(|it| start.starts_with(it.0)) {
        return Some(((*kind).to_owned(), hint));
    }
    if start.get(257..262) == Some(b"ustar".as_slice()) {
        return Some(("a TAR archive".to_owned(), UNPACK));
    }
    if start.len() >= 16 && start.iter().all(|&it| it == 0) {
        let found = "nothing but zeros at its start: room that was reserved for a download".to_owned();
        return Some((found, "the download was interrupted, fetch the file again"));
    }
    let text = beginning_as_text(start)?;
    let lower = text.to_ascii_lowercase();
    if HTML.iter().any(|it| lower.starts_with(it)) {
        return Some(("a web page (HTML)".to_owned(), FETCH_AGAIN));
    }
    if lower.starts_with("<?xml") {
        return Some(("an XML document, as servers answer with errors".to_owned(), FETCH_AGAIN));
    }
    (size as usize <= LONGEST_REFUSAL).then(|| (format!("a short text, `{}`", shown(text)), FETCH_AGAIN))
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let text: String = text.trim().chars().take(80).collect();
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// The error for what a server answered in place of a file.
pub(crate) fn refusal(path: &Path, text: &str) -> CheckpointError {
    let found = format!("the answer of a server, `{}`", shown(text));
    CheckpointError::Foreign {
        path: path.to_owned(),
        expected: "a file of a model",
        found,
        hint: FETCH_AGAIN,
    }
}

/// The error for a file that is something else than `expected`; `None` if it is not known what it is.
pub(crate) fn error(path: &Path, bytes: &[u8], expected: &'static str) -> Option<CheckpointError> {
    if is_git_lfs_pointer(bytes) {
        return Some(CheckpointError::GitLfsPointer { path: path.to_owned() });
    }
    let (found, hint) = recognize(bytes, bytes.len() as u64)?;
    Some(CheckpointError::Foreign { path: path.to_owned(), expected, found, hint })
}

/// Whether a file holds the address of its content in Git's large file storage.
pub(crate) fn is_git_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs") || bytes.starts_with(b"version https://hawser.github.com")
}

/// The text that a file begins with, without a byte order mark and blanks; `None` if it is no text.
fn beginning_as_text(start: &[u8]) -> Option<&str> {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be cut in two at the end of what is looked at.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |it: char| !it.is_control() || it.is_ascii_whitespace();
    (!text.trim().is_empty() && text.chars().all(is_text)).then(|| text.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_downloads_leave_in_place_of_a_file_is_told_apart() {
        let mut tar = vec![b'a'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, expected) in [
            (b"<!DOCTYPE html><html>".as_slice(), "a web page"),
            (b"\xef\xbb\xbf\n  <HTML lang=\"en\">", "a web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
            (b"Entry not found", "a short text, `Entry not found`"),
            (b"{\"error\":\"Access\x20restricted\"}", "a short text, `{\"error\":"),
            (b"PK\x03\x04\x00\x00", "a ZIP archive"),
            (b"\x80\x02}q\x00", "a pickle"),
            (b"\x1f\x8b\x08\x00", "a gzip archive"),
            (&tar, "a TAR archive"),
            (&[0; 64], "nothing but zeros"),
            ("Zugriff verweigert: ä".as_bytes(), "a short text, `Zugriff"),
        ] {
            let (found, hint) = recognize(bytes, bytes.len() as u64).expect(expected);
            assert!(found.starts_with(expected), "{found}");
            assert!(!hint.is_empty());
        }
    }

    #[test]
    fn weights_and_long_texts_are_not_mistaken() {
        let header = b"\x10\0\0\0\0\0\0\0{}              ";
        assert_eq!(recognize(header, header.len() as u64), None);
        assert_eq!(recognize(b"GGUF\x03\0\0\0", 8), None);
        assert_eq!(recognize(&[b'a'; 4000], 4000), None);
        assert_eq!(recognize(b"", 0), None);
    }
}
