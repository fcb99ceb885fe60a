//! What came out, beside what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use pipeline::ScoreRecord;
use pipeline::reproduction::Difference;
use serde::Serialize;

use crate::terminal::line;
use crate::{noting, report};

/// What came out.
#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) writer: String,
    /// What was different before anything was computed.
    pub(super) differences: Vec<Difference>,
    /// SHA-256 of the directions, where the file has one.
    pub(super) directions: Option<Compared>,
    pub(super) scores: Vec<PairOfScores>,
    /// Files of weights, where any were written.
    pub(super) files: Vec<WrittenFile>,
    /// Whether everything that could be compared is the same, to the last bit.
    pub(super) same: bool,
}

#[derive(Serialize)]
pub(super) struct Compared {
    pub(super) recorded: String,
    pub(super) here: String,
}

#[derive(Serialize)]
pub(super) struct PairOfScores {
    pub(super) recorded: Option<ScoreRecord>,
    pub(super) here: Option<ScoreRecord>,
}

#[derive(Serialize)]
pub(super) struct WrittenFile {
    pub(super) name: String,
    pub(super) recorded: Option<String>,
    pub(super) here: Option<String>,
    /// The share of bytes that differ, where the original is at hand.
    pub(super) differing_bytes: Option<f64>,
}

/// The written files beside the digests recorded; `original`: the model as it was written first, if it is at hand.
pub(super) fn compare_files(
    recorded: &BTreeMap<String, String>,
    target: &Path,
    original: Option<&Path>,
) -> anyhow::Result<Vec<WrittenFile>> {
    let here = noting::digests(target)?;
    let folder = if target.is_dir() { target } else { target.parent().unwrap_or(Path::new("")) };
    // A model in one file is the same model under another name.
    let single = (recorded.len(), here.len()) == (1, 1);
    let names: BTreeSet<&String> =
        if single { recorded.keys().collect() } else { recorded.keys().chain(here.keys()).collect() };
    let compared = names.into_iter().map(|name| {
        let written = if single { here.keys().next().unwrap_or(name) } else { name };
        let (recorded, here) = (recorded.get(name).cloned(), here.get(written).cloned());
        // Only what has the recorded digest is the original.
        let original = original.map(|it| if it.is_file() { it.to_owned() } else { it.join(name) });
        let original = original
            .filter(|it| here.is_some() && recorded != here && hub::sha256_of_file(it).ok() == recorded);
        let share = original.map(|it| share_of_differing_bytes(&it, &folder.join(written)));
        let differing_bytes = share.transpose().with_context(|| format!("comparing `{name}`"))?;
        Ok(WrittenFile { name: name.clone(), recorded, here, differing_bytes })
    });
    compared.collect()
}

/// Recorded scores beside those of here: by name, or for heretic's, which has other names, by their order.
pub(super) fn pairs(recorded: &[ScoreRecord], by_name: bool, here: &[ScoreRecord]) -> Vec<PairOfScores> {
    let pair = |recorded: Option<&ScoreRecord>, here: Option<&ScoreRecord>| PairOfScores {
        recorded: recorded.cloned(),
        here: here.cloned().map(ScoreRecord::without_prompts),
    };
    if by_name {
        let found = |it: &ScoreRecord| here.iter().find(|here| here.name == it.name);
        return recorded.iter().map(|it| pair(Some(it), found(it))).collect();
    }
    let most = recorded.len().max(here.len());
    (0..most).map(|it| pair(recorded.get(it), here.get(it))).collect()
}

/// Of two files; where one is longer, what it has more differs.
fn share_of_differing_bytes(a: &Path, b: &Path) -> std::io::Result<f64> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let longest = a.metadata()?.len().max(b.metadata()?.len());
    let (mut same, mut left, mut right) = (0_u64, Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        let piece = |file: &mut File, into: &mut Vec<u8>| file.take(1 << 20).read_to_end(into);
        if piece(&mut a, &mut left)?.min(piece(&mut b, &mut right)?) == 0 {
            break;
        }
        same += left.iter().zip(&right).filter(|(a, b)| a == b).count() as u64;
    }
    Ok(if longest == 0 { 0.0 } else { (longest - same) as f64 / longest as f64 })
}

impl PairOfScores {
    /// A score that could not be had here is no difference; that it is missing is seen.
    pub(super) fn is_same(&self) -> bool {
        match (&self.recorded, &self.here) {
            (Some(recorded), Some(here)) => recorded.value.to_bits() == here.value.to_bits(),
            _ => true,
        }
    }

    fn row(&self) -> Vec<String> {
        let text =
            |of: Option<&ScoreRecord>, what: fn(&ScoreRecord) -> String| of.map_or(String::new(), what);
        let (recorded, here) = (self.recorded.as_ref(), self.here.as_ref());
        let difference = match (recorded, here) {
            (Some(recorded), Some(here)) if self.is_same() || recorded.display == here.display => {
                if self.is_same() {
                    "the same".to_owned()
                } else {
                    format!("{:+.1e}", here.value - recorded.value)
                }
            }
            (Some(recorded), Some(here)) => format!("{:+.4}", here.value - recorded.value),
            _ => String::new(),
        };
        vec![
            here.or(recorded).map_or(String::new(), |it| it.name.clone()),
            text(recorded, |it| it.display.clone()),
            text(here, |it| it.display.clone()),
            difference,
            text(recorded, ScoreRecord::baseline_display),
            text(here, ScoreRecord::baseline_display),
        ]
    }
}

impl WrittenFile {
    fn in_words(&self) -> String {
        let name = &self.name;
        match (&self.recorded, &self.here) {
            (Some(recorded), Some(here)) if recorded == here => format!("{name}: the same bits"),
            (Some(recorded), Some(here)) => {
                let share = self.differing_bytes.map_or_else(
                    || "how many bytes differ can be told with the original (--against)".to_owned(),
                    |it| {
                        let percent = it * 100.0;
                        // Of large files a few bytes are a share with many zeros.
                        let percent =
                            if percent < 0.01 { format!("{percent:.1e}") } else { format!("{percent:.2}") };
                        format!("{percent} % of its bytes differ")
                    },
                );
                format!("{name}: other bits: {share}\n  recorded {recorded}\n  here     {here}")
            }
            (Some(_), None) => format!("{name}: recorded, and not written here"),
            (None, _) => format!("{name}: written here, and not recorded"),
        }
    }
}

impl Outcome {
    pub(super) fn tell(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            line(&serde_json::to_string(self)?)?;
            return Ok(());
        }
        let heading = ["score", "recorded", "here", "difference", "original recorded", "original here"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.scores.iter().map(PairOfScores::row));
        for text in report::columns(&rows) {
            line(&text)?;
        }
        if let Some(it) = &self.directions {
            let same = if it.recorded == it.here { "the same bits" } else { "other bits" };
            line(&format!("directions: {same}"))?;
        }
        for file in &self.files {
            line(&file.in_words())?;
        }
        Ok(())
    }
}
