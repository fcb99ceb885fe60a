//! `precompiled_charsmap`: the rules of `SentencePiece` for replacing characters, in its binary form.
//!
//! The file has it in base64: the length of a trie in bytes, as a little-endian u32; the trie, a double array of u32;
//! then the texts that it leads to, each with a zero byte after it. The engine reserves what the length says, and follows
//! the trie wherever it leads. So both are looked at before: the length against what there is, and each place that some
//! text leads to against the array and the texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest text that a character is replaced by, in bytes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(base64: &str) -> Result<usize, String> {
    let bytes = STANDARD.decode(base64).map_err(|it| format!("it is no base64: {it}"))?;
    let (length, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| format!("expected at least 4 bytes, found {}", bytes.len()))?;
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let (trie, texts) = rest
        .split_at_checked(length)
        .ok_or_else(|| format!("its trie is said to have {length} bytes, found {}", rest.len()))?;
    let texts = std::str::from_utf8(texts).map_err(|it| format!("its texts are no UTF-8: {it}"))?;
    let units: Vec<usize> =
        trie.chunks_exact(4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]) as usize).collect();
    follow(&units, texts)?;
    Ok(texts.split('\0').map(str::len).max().unwrap_or(0))
}

/// Goes wherever a text leads to.
fn follow(units: &[usize], texts: &str) -> Result<(), String> {
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let out = |place: usize| format!("its trie leads to place {place} of {}", units.len());
    let first = units.first().ok_or_else(|| out(0))?;
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*first)];
    while let Some(node) = open.pop() {
        // All labels of a byte lie within 256 places.
        if node | 0xff >= units.len() {
            return Err(out(node | 0xff));
        }
        if std::mem::replace(&mut seen[node], true) {
            continue;
        }
        for label in 1..=0xff_usize {
            let unit = units[node ^ label];
            if unit & ((1 << 31) | 0xff) != label {
                continue;
            }
            let next = node ^ label ^ offset(unit);
            if (unit >> 8) & 1 == 1 {
                let leaf = units.get(next).ok_or_else(|| out(next))?;
                let text = leaf & ((1 << 31) - 1);
                if !texts.is_char_boundary(text) {
                    return Err(format!("its trie leads to byte {text} of {} bytes of texts", texts.len()));
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(length: u32, units: &[u32], texts: &[u8]) -> String {
        let units = units.iter().flat_map(|it| it.to_le_bytes());
        STANDARD.encode(
            length.to_le_bytes().into_iter().chain(units).chain(texts.iter().copied()).collect::<Vec<_>>(),
        )
    }

    /// A trie that replaces `a` by the text at `text`, through a node at `node`.
    fn trie(text: u32, node: u32, places: usize) -> Vec<u32> {
        let mut units = vec![0_u32; places];
        units[0] = 256 << 10; // children from 256 on
        units[256 ^ 0x61] = 0x61 | (1 << 8) | ((node ^ 256 ^ 0x61) << 10);
        if let Some(leaf) = units.get_mut(node as usize) {
            *leaf = text | (1 << 31);
        }
        units
    }

    #[test]
    fn a_trie_that_stays_inside_is_accepted_and_its_longest_text_is_known() {
        assert_eq!(check(&packed(768 * 4, &trie(2, 512, 768), b"x\0abc\0")), Ok(3));
        assert_eq!(
            tokenizers::normalizers::Precompiled::from(
                &STANDARD.decode(packed(768 * 4, &trie(2, 512, 768), b"x\0abc\0")).unwrap()
            )
            .unwrap()
            .normalize_string("ab"),
            "abcb"
        );
    }

    #[test]
    fn what_leads_outside_is_refused_with_both_values() {
        let error = |it: &str| check(it).unwrap_err();
        assert!(error("!").contains("base64"));
        assert_eq!(error(""), "expected at least 4 bytes, found 0");
        assert_eq!(error(&packed(u32::MAX, &[1], b"")), "its trie is said to have 4294967292 bytes, found 4");
        assert_eq!(error(&packed(0, &[], b"a")), "its trie leads to place 0 of 0");
        assert_eq!(error(&packed(4, &[1 << 20], b"")), "its trie leads to place 1279 of 1");
        assert_eq!(
            error(&packed(768 * 4, &trie(7, 512, 768), b"x\0abc\0")),
            "its trie leads to byte 7 of 6 bytes of texts"
        );
        assert_eq!(
            error(&packed(768 * 4, &trie(3, 512, 768), "x\0é\0".as_bytes())),
            "its trie leads to byte 3 of 5 bytes of texts"
        );
        assert_eq!(
            error(&packed(512 * 4, &trie(2, 1000, 512), b"x\0abc\0")),
            "its trie leads to place 1000 of 512"
        );
    }
}
