//! `SentencePiece` BPE: spaces are written `▁`, what the vocabulary lacks is spelled in bytes.
//!
//! `SentencePiece` joins, again and again, the two neighbours whose union has the best score. A BPE with ranked
//! merges does the same when the ranks follow the scores: every way to cut a token in two tokens is a merge, the
//! merges of a better token come first, and among the merges of one token the longer left half wins, as in the
//! reference stack's conversion (`generate_merges`).

use std::borrow::Cow;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::TokenizerError;
use super::gguf::{Kind, Vocabulary, failed};

/// How `SentencePiece` writes a space.
const SPACE: &str = "▁";

/// A token as the merges see it.
struct Piece<'a> {
    text: Cow<'a, str>,
    /// How early it is made; `None` when it is not made by merging.
    score: Option<f64>,
}

/// Above every score of a file: scores are logarithms of probabilities, or negated ranks.
const RUNS_OF_SPACES: f64 = 1e15;

/// The tokens with their scores. Runs of spaces, which files list as real spaces and without a score, are spelled
/// as text is, and come before all else, the shorter ones first.
fn pieces<'a>(vocabulary: &Vocabulary<'a>, scores: &[f64]) -> Vec<Piece<'a>> {
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(scores);
    tokens
        .map(|((&token, kind), &score)| match kind {
            Kind::Normal => Piece { text: token.into(), score: Some(score) },
            Kind::UserDefined if is_run_of_spaces(token) => Piece {
                text: token.replace(' ', SPACE).into(),
                score: Some(RUNS_OF_SPACES - token.len() as f64),
            },
            _ => Piece { text: token.into(), score: None },
        })
        .collect()
}

/// Whether a token stands for several spaces.
pub(super) fn is_run_of_spaces(token: &str) -> bool {
    token.len() > 1 && token.bytes().all(|it| it == b' ')
}

/// A tokenizer whose merges follow from scores.
///
/// `prefix`: whether every stretch of text between special tokens begins with a space of its own.
pub(super) fn with_scores(
    vocabulary: &Vocabulary,
    scores: &[f64],
    prefix: bool,
) -> Result<Tokenizer, TokenizerError> {
    let pieces = pieces(vocabulary, scores);
    let ids: Vocab = (0..).zip(&pieces).map(|(id, it)| (it.text.to_string(), id)).collect();
    let merges = merges(&pieces, &ids);
    let mut tokenizer = build(vocabulary, ids, merges)?;
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(failed)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
    tokenizer.with_decoder(Some(decoder(prefix)?));
    Ok(tokenizer)
}

/// A tokenizer whose merges are listed. Lines and runs of line feeds are words of their own.
pub(super) fn with_merges(vocabulary: &Vocabulary, merges: Merges) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer = build(vocabulary, vocabulary.ids(), merges)?;
    tokenizer.with_normalizer(Some(Replace::new(" ", SPACE).map_err(failed)?)).map_err(failed)?;
    let lines = SplitPattern::Regex("[^\\n]+|[\\n]+".to_owned());
    let split = Split::new(lines, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(split)).with_decoder(Some(decoder(false)?));
    Ok(tokenizer)
}

fn build(vocabulary: &Vocabulary, ids: Vocab, merges: Merges) -> Result<Tokenizer, TokenizerError> {
    let mut model = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = vocabulary.named.get("unk_token") {
        model = model.unk_token(unknown.clone());
    }
    Ok(Tokenizer::new(model.build().map_err(failed)?))
}

fn decoder(prefix: bool) -> Result<Decoders, TokenizerError> {
    let mut decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ").map_err(failed)?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(decoders))
}

/// Every way to cut a token into two, best first.
fn merges(pieces: &[Piece], ids: &Vocab) -> Merges {
    let is_piece = |part: &str| ids.get(part).is_some_and(|&id| pieces[id as usize].score.is_some());
    let mut ranked: Vec<(f64, usize, &str, &str)> = Vec::new();
    for piece in pieces {
        let Some(score) = piece.score else { continue };
        for (left_len, (cut, _)) in piece.text.char_indices().enumerate().skip(1) {
            let (left, right) = piece.text.split_at(cut);
            if is_piece(left) && is_piece(right) {
                ranked.push((score, left_len, left, right));
            }
        }
    }
    // Stable: what is equal stays in the order of the vocabulary.
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    ranked.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}
