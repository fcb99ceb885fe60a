//! Against NumPy and PyTorch, from `tools/ablation_golden.py`: from residuals of prompts to edited weights.

use ablation::{
    Blend, DirectionOptions, Directions, Merged, Moments, RowMajor, RowNormalization, Target, WriterFacts,
    winsorize,
};
use glossary::{Direction, ResidualSite};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    quantile: f64,
    bad: Vec<Vec<f32>>,
    good: Vec<Vec<f32>>,
    winsorized_good: Vec<Vec<f32>>,
    plain_directions: Vec<Vec<f64>>,
    winsorized_orthogonal_directions: Vec<Vec<f64>>,
    global: Vec<GlobalDirection>,
    weight: Vec<Vec<f32>>,
    gain: Vec<f32>,
    x: Vec<f64>,
    edits: Vec<GoldenEdit>,
}

#[derive(Deserialize)]
struct GlobalDirection {
    index: f64,
    direction: Vec<f64>,
}

#[derive(Deserialize)]
struct GoldenEdit {
    row_normalization: RowNormalization,
    direction_index: f64,
    strength: f64,
    merged: Vec<Vec<f64>>,
    merged_under_gain: Vec<Vec<f64>>,
    y: Vec<f64>,
}

const D_MODEL: usize = 6;

/// Both sides compute in f64.
const TOLERANCE: f64 = 1e-13;

/// Limits are rounded to f32 on both sides after different ways to interpolate: one unit in the last place of numbers
/// around 10, and what that makes of directions.
const WINSORIZED: f64 = 2e-6;

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/ablation.json")).unwrap()
}

fn moments(prompts: &[Vec<f32>]) -> Moments {
    let mut moments = Moments::new(prompts[0].len() / D_MODEL, D_MODEL);
    for prompt in prompts {
        moments.add(prompt).unwrap();
    }
    moments
}

fn winsorized(prompts: &[Vec<f32>], quantile: f64) -> Vec<Vec<f32>> {
    let mut prompts = prompts.to_vec();
    for prompt in &mut prompts {
        winsorize(prompt, D_MODEL, quantile).unwrap();
    }
    prompts
}

fn clean_directions(golden: &Golden) -> Directions {
    let bad = moments(&winsorized(&golden.bad, golden.quantile));
    let good = moments(&winsorized(&golden.good, golden.quantile));
    Directions::between(&bad, &good, DirectionOptions::default()).unwrap()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}, number {place}: expected {expected}, found {found}"
        );
    }
}

#[test]
fn residuals_are_winsorized_as_torch_quantile_does() {
    let golden = golden();
    let found = winsorized(&golden.good, golden.quantile);
    assert_ne!(found, golden.good);
    for (found, expected) in found.iter().zip(&golden.winsorized_good) {
        let wide = |it: &Vec<f32>| it.iter().map(|&it| f64::from(it)).collect::<Vec<_>>();
        assert_close(&wide(found), &wide(expected), WINSORIZED, "winsorized");
    }
}

#[test]
fn directions_are_those_of_numpy_at_every_site() {
    let golden = golden();
    let plain = DirectionOptions { orthogonalize: false };
    let plain = Directions::between(&moments(&golden.bad), &moments(&golden.good), plain).unwrap();
    let clean = clean_directions(&golden);
    for site in 0..=plain.n_layers() {
        let at = |it: &Directions| it.at(ResidualSite::at(site)).unwrap().as_slice().to_vec();
        assert_close(&at(&plain), &golden.plain_directions[site], TOLERANCE, "plain");
        assert_close(&at(&clean), &golden.winsorized_orthogonal_directions[site], WINSORIZED, "clean");
    }
}

#[test]
fn global_directions_are_those_of_numpy() {
    let golden = golden();
    let directions = clean_directions(&golden);
    for GlobalDirection { index, direction } in &golden.global {
        let found = directions.global(*index).unwrap();
        assert_close(found.as_slice(), direction, WINSORIZED, &format!("index {index}"));
    }
}

/// The directions of the layers exactly as NumPy had them.
fn layers(golden: &Golden) -> Vec<Direction> {
    golden.winsorized_orthogonal_directions[1..].iter().map(|it| Direction::normalized(it).unwrap()).collect()
}

#[test]
fn edited_weights_and_outputs_are_those_of_numpy() {
    let golden = golden();
    let weight = golden.weight.concat();
    let weight = RowMajor::new(&weight, golden.x.len()).unwrap();
    let y: Vec<f64> = golden
        .weight
        .iter()
        .map(|row| row.iter().zip(&golden.x).map(|(&w, x)| f64::from(w) * x).sum())
        .collect();
    for edit in &golden.edits {
        let layers = layers(&golden);
        let blend = Blend::at(edit.direction_index, layers.len()).unwrap();
        let pair = [&layers[blend.lower.0], &layers[blend.upper.0]];
        let facts = WriterFacts::of(&weight, edit.row_normalization).unwrap();
        for (gain, expected) in [(None, &edit.merged), (Some(&*golden.gain), &edit.merged_under_gain)] {
            let targets = facts.targets(&weight, &pair, gain).unwrap();
            let target = Target::blend(blend, &targets[0], &targets[1]).unwrap();
            let merged = Merged::new(&weight, &target, edit.strength).unwrap();
            let mut row = vec![0.0; golden.x.len()];
            for (i, expected) in expected.iter().enumerate() {
                merged.row_f64(i, &mut row);
                assert_close(&row, expected, TOLERANCE, &format!("{:?} row {i}", edit.row_normalization));
            }
            if gain.is_some() {
                continue;
            }
            let vectors = target.vectors(edit.strength).unwrap();
            let along: f64 = vectors.q.iter().zip(&y).map(|(q, y)| q * y).sum();
            let scale = vectors.s.unwrap_or(vec![1.0; D_MODEL]);
            let found: Vec<f64> = (0..D_MODEL).map(|i| scale[i] * (y[i] - vectors.p[i] * along)).collect();
            assert_close(&found, &edit.y, TOLERANCE, &format!("{:?} output", edit.row_normalization));
        }
    }
}
