//! What holds for every weight, direction and strength.

use ablation::{Adapter, Blend, Merged, RowMajor, RowNormalization, Target, WriterFacts, WriterWeight};
use glossary::{Direction, LayerIndex};
use proptest::prelude::*;

const MODES: [RowNormalization; 3] = [RowNormalization::None, RowNormalization::Pre, RowNormalization::Full];

/// What f64 sums over a dozen rows and columns of numbers around 1 may be off by.
const ROUNDING: f64 = 1e-12;

/// A weight, a direction, a strength and an input.
#[derive(Clone, Debug)]
struct Case {
    weight: Vec<f32>,
    d_model: usize,
    d_in: usize,
    r: Vec<f64>,
    other: Vec<f64>,
    strength: f64,
    x: Vec<f64>,
}

impl Case {
    fn weight(&self) -> RowMajor<'_> {
        RowMajor::new(&self.weight, self.d_in).unwrap()
    }

    fn r(&self) -> Direction {
        Direction::normalized(&self.r).unwrap()
    }

    fn target(&self, mode: RowNormalization) -> Target {
        self.target_along(mode, &self.r())
    }

    fn target_along(&self, mode: RowNormalization, r: &Direction) -> Target {
        let facts = WriterFacts::of(&self.weight(), mode).unwrap();
        facts.targets(&self.weight(), &[r], None).unwrap().remove(0)
    }

    fn row(&self, i: usize) -> Vec<f64> {
        self.weight[i * self.d_in..(i + 1) * self.d_in].iter().map(|&it| f64::from(it)).collect()
    }

    /// The edited weight from the room.
    fn merged(&self, mode: RowNormalization) -> Vec<Vec<f64>> {
        rows(&Merged::new(&self.weight(), &self.target(mode), self.strength).unwrap())
    }

    /// The edited weight from its definition, one number at a time.
    fn defined(&self, mode: RowNormalization) -> Vec<Vec<f64>> {
        let r = self.r();
        let norms: Vec<f64> = (0..self.d_model)
            .map(|i| if mode == RowNormalization::None { 1.0 } else { norm(&self.row(i)) })
            .collect();
        let unit: Vec<Vec<f64>> =
            (0..self.d_model).map(|i| self.row(i).iter().map(|it| it / norms[i]).collect()).collect();
        let along: Vec<f64> =
            (0..self.d_in).map(|j| (0..self.d_model).map(|i| r.as_slice()[i] * unit[i][j]).sum()).collect();
        let mut edited = Vec::new();
        for i in 0..self.d_model {
            let mut row: Vec<f64> =
                (0..self.d_in).map(|j| unit[i][j] - self.strength * r.as_slice()[i] * along[j]).collect();
            if mode == RowNormalization::Full {
                let length = norm(&row);
                for it in &mut row {
                    *it /= length;
                }
            }
            edited.push(row.iter().map(|it| it * norms[i]).collect());
        }
        edited
    }
}

fn rows<W: WriterWeight>(merged: &Merged<'_, W>) -> Vec<Vec<f64>> {
    let (d_model, d_in) = merged.shape();
    let row = |i| {
        let mut row = vec![0.0; d_in];
        merged.row_f64(i, &mut row);
        row
    };
    (0..d_model).map(row).collect()
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn apply(weight: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    weight.iter().map(|row| dot(row, x)).collect()
}

fn farthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn numbers(count: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-1.0..1.0_f64, count)
}

/// Rows are kept away from zero, where relative errors would say nothing; such rows have tests of their own.
fn cases() -> impl Strategy<Value = Case> {
    (2_usize..12, 1_usize..12, 0.05..1.5_f64).prop_flat_map(|(d_model, d_in, strength)| {
        let away_from_zero = |it: f32| if it < 0.0 { it - 0.1 } else { it + 0.1 };
        (
            prop::collection::vec((-1.0..1.0_f32).prop_map(away_from_zero), d_model * d_in),
            numbers(d_model),
            numbers(d_model),
            numbers(d_in),
        )
            .prop_filter("the directions need a length", |(_, r, other, _)| {
                norm(r) > 0.1 && norm(other) > 0.1
            })
            .prop_map(move |(weight, r, other, x)| Case {
                weight,
                d_model,
                d_in,
                r,
                other,
                strength,
                x,
            })
    })
}

/// How short the shortest row becomes before *full* scales it back: what is left decides how much rounding counts.
fn least_left(case: &Case) -> f64 {
    let scales = case.target(RowNormalization::Full).vectors(case.strength).unwrap().s.unwrap();
    scales.iter().map(|it| it.recip()).fold(1.0, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_closed_form_is_the_edited_weight(case in cases()) {
        prop_assume!(least_left(&case) > 1e-2);
        let y: Vec<f64> = (0..case.d_model).map(|i| dot(&case.row(i), &case.x)).collect();
        for mode in MODES {
            let vectors = case.target(mode).vectors(case.strength).unwrap();
            let along = dot(&vectors.q, &y);
            let scale = |i: usize| vectors.s.as_ref().map_or(1.0, |s| s[i]);
            let found: Vec<f64> =
                (0..case.d_model).map(|i| scale(i) * (y[i] - vectors.p[i] * along)).collect();
            let defined = case.defined(mode);
            let merged = case.merged(mode);
            prop_assert!(farthest(&found, &apply(&defined, &case.x)) < ROUNDING / least_left(&case), "{mode:?}");
            prop_assert!(farthest(&found, &apply(&merged, &case.x)) < ROUNDING / least_left(&case), "{mode:?}");
            prop_assert!(farthest(&merged.concat(), &defined.concat()) < ROUNDING, "{mode:?}");
        }
    }

    #[test]
    fn the_rounded_edit_is_that_of_the_engine_within_f32(case in cases()) {
        prop_assume!(least_left(&case) > 1e-2);
        let y: Vec<f64> = (0..case.d_model).map(|i| dot(&case.row(i), &case.x)).collect();
        for mode in MODES {
            let edit = case.target(mode).edit(case.strength).unwrap();
            prop_assert_eq!((edit.width(), edit.rank()), (case.d_model, 1));
            let wide = |it: &[f32]| it.iter().map(|&it| f64::from(it)).collect::<Vec<f64>>();
            let (p, q) = (wide(edit.p()), wide(edit.q()));
            let s = edit.s().map_or(vec![1.0; case.d_model], wide);
            let along = dot(&q, &y);
            let found: Vec<f64> = (0..case.d_model).map(|i| s[i] * (y[i] - p[i] * along)).collect();
            let exact = apply(&case.defined(mode), &case.x);
            prop_assert!(farthest(&found, &exact) < 1e-5 / least_left(&case), "{:?}", mode);
        }
    }

    #[test]
    fn nothing_is_left_along_the_direction_and_ablating_twice_changes_nothing_more(case in cases()) {
        let once = Case { strength: 1.0, ..case };
        let merged = once.merged(RowNormalization::None);
        prop_assert!(dot(once.r().as_slice(), &apply(&merged, &once.x)).abs() < ROUNDING);
        // p = q = r, so applying the closed form to its own result takes out r·(y − r (r·y)) = 0.
        let vectors = once.target(RowNormalization::None).vectors(1.0).unwrap();
        let y = apply(&merged, &once.x);
        let along = dot(&vectors.q, &y);
        let twice: Vec<f64> = y.iter().zip(&vectors.p).map(|(y, p)| y - p * along).collect();
        prop_assert!(farthest(&y, &twice) < ROUNDING);
    }

    #[test]
    fn strength_is_the_share_that_is_taken(case in cases()) {
        let y: Vec<f64> = (0..case.d_model).map(|i| dot(&case.row(i), &case.x)).collect();
        let edited = apply(&case.merged(RowNormalization::None), &case.x);
        let (before, after) = (dot(case.r().as_slice(), &y), dot(case.r().as_slice(), &edited));
        prop_assert!((after - (1.0 - case.strength) * before).abs() < ROUNDING);
    }

    #[test]
    fn full_normalization_keeps_the_length_of_every_row(case in cases()) {
        prop_assume!(least_left(&case) > 1e-4);
        for (i, row) in case.merged(RowNormalization::Full).iter().enumerate() {
            prop_assert!((norm(row) / norm(&case.row(i)) - 1.0).abs() < 1e-14);
        }
    }

    #[test]
    fn strength_zero_is_the_identity_to_the_last_bit(case in cases()) {
        let case = Case { strength: 0.0, ..case };
        let y: Vec<f32> = (0..case.d_model).map(|i| dot(&case.row(i), &case.x) as f32).collect();
        for mode in MODES {
            let edit = case.target(mode).edit(0.0).unwrap();
            let along: f32 = edit.q().iter().zip(&y).map(|(q, y)| q * y).sum();
            for i in 0..case.d_model {
                let edited = edit.s().map_or(1.0, |s| s[i]) * (y[i] - edit.p()[i] * along);
                prop_assert_eq!(edited.to_bits(), y[i].to_bits());
            }
        }
        for mode in [RowNormalization::None, RowNormalization::Pre] {
            prop_assert_eq!(case.merged(mode).concat(), case.weight.iter().map(|&it| f64::from(it)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_sign_of_the_direction_does_not_matter(case in cases()) {
        let turned = Case { r: case.r.iter().map(|it| -it).collect(), ..case.clone() };
        for mode in MODES {
            prop_assert_eq!(case.merged(mode), turned.merged(mode));
        }
    }

    #[test]
    fn pre_is_none_when_all_rows_are_equally_long(case in cases()) {
        // Signs along an axis: every row has length 0.75, exactly.
        let mut weight = vec![0.0; case.weight.len()];
        for i in 0..case.d_model {
            weight[i * case.d_in + i % case.d_in] = if case.weight[i * case.d_in] < 0.0 { -0.75 } else { 0.75 };
        }
        let case = Case { weight, ..case };
        let (none, pre) = (case.merged(RowNormalization::None), case.merged(RowNormalization::Pre));
        prop_assert!(farthest(&none.concat(), &pre.concat()) < 1e-15);
    }

    #[test]
    fn a_blend_of_targets_is_the_target_of_the_blend(case in cases(), fraction in 0.0..1.0_f64) {
        let (lower, upper) = (case.r(), Direction::normalized(&case.other).unwrap());
        let blend = Blend { lower: LayerIndex(0), upper: LayerIndex(1), fraction };
        let mixed: Vec<f64> = lower.as_slice().iter().zip(upper.as_slice())
            .map(|(a, b)| a + fraction * (b - a)).collect();
        prop_assume!(norm(&mixed) > 0.1);
        let mixed = Direction::normalized(&mixed).unwrap();
        let gain: Vec<f32> = (0..case.d_model).map(|it| 0.5 + it as f32).collect();
        for mode in MODES {
            for gain in [None, Some(&*gain)] {
                let weight = case.weight();
                let facts = WriterFacts::of(&weight, mode).unwrap();
                let pair = facts.targets(&weight, &[&lower, &upper], gain).unwrap();
                let blended = Target::blend(blend, &pair[0], &pair[1]).unwrap();
                let direct = facts.targets(&weight, &[&mixed], gain).unwrap().remove(0);
                let [blended, direct] = [blended, direct].map(|it| it.vectors(case.strength).unwrap());
                prop_assert!(farthest(&blended.p, &direct.p) < ROUNDING);
                prop_assert!(farthest(&blended.q, &direct.q) < ROUNDING);
                let [blended, direct] = [blended, direct].map(|it| it.s.unwrap_or_default());
                let inverse = |s: &[f64]| s.iter().map(|it| (it * it).recip()).collect::<Vec<_>>();
                prop_assume!(direct.iter().all(|&it| it != 0.0 && it < 1e3));
                prop_assert!(farthest(&inverse(&blended), &inverse(&direct)) < 10.0 * ROUNDING);
            }
        }
    }

    #[test]
    fn under_a_gain_the_stream_loses_the_direction(case in cases()) {
        let gain: Vec<f32> = (0..case.d_model).map(|it| 0.5 + it as f32).collect();
        let weight = case.weight();
        let facts = WriterFacts::of(&weight, RowNormalization::None).unwrap();
        let target = facts.targets(&weight, &[&case.r()], Some(&gain)).unwrap().remove(0);
        let edited = apply(&rows(&Merged::new(&weight, &target, 1.0).unwrap()), &case.x);
        let stream: Vec<f64> = edited.iter().zip(&gain).map(|(y, &g)| y * f64::from(g)).collect();
        prop_assert!(dot(case.r().as_slice(), &stream).abs() < 10.0 * ROUNDING);
    }

    #[test]
    fn adapters_make_the_merged_weight(case in cases()) {
        prop_assume!(least_left(&case) > 1e-2);
        for mode in MODES {
            let adapter = Adapter::of(&case.weight(), &case.target(mode), case.strength).unwrap();
            prop_assert_eq!(adapter.magnitude.is_some(), mode == RowNormalization::Full);
            let found: Vec<Vec<f64>> = (0..case.d_model).map(|i| {
                let row: Vec<f64> =
                    case.row(i).iter().zip(&adapter.down).map(|(w, a)| w + adapter.up[i] * a).collect();
                let scale = adapter.magnitude.as_ref().map_or(1.0, |it| it[i] / norm(&row));
                row.iter().map(|it| it * scale).collect()
            }).collect();
            prop_assert!(farthest(&found.concat(), &case.merged(mode).concat()) < ROUNDING, "{:?}", mode);
        }
    }

    /// A LoRA rounds each factor once, so that a number is off by at most 2 ε |B_i A_j|. A DoRA divides a row that is
    /// off by that through a length that is off by as much, and its magnitude is rounded: ε (1 + 4 |B_i| ‖A‖ / ‖V_i‖)
    /// of the row's length; a fifth for products of two ε.
    #[test]
    fn adapters_in_f32_are_off_by_no_more_than_their_rounding(case in cases()) {
        const EPSILON: f64 = 1.0 / (1_u64 << 24) as f64;
        let f32s = |numbers: &[f64]| numbers.iter().map(|&it| f64::from(it as f32)).collect::<Vec<f64>>();
        prop_assume!(least_left(&case) > 1e-2);
        for mode in MODES {
            let exact = Adapter::of(&case.weight(), &case.target(mode), case.strength).unwrap();
            let (up, down) = (f32s(&exact.up), f32s(&exact.down));
            for (i, expected) in case.merged(mode).iter().enumerate() {
                let row: Vec<f64> = case.row(i).iter().zip(&down).map(|(w, a)| w + up[i] * a).collect();
                let Some(m) = exact.magnitude.as_ref().map(|it| f64::from(it[i] as f32)) else {
                    for ((found, expected), a) in row.iter().zip(expected).zip(&exact.down) {
                        let bound = 2.01 * EPSILON * (exact.up[i] * a).abs() + ROUNDING;
                        prop_assert!((found - expected).abs() <= bound, "{:?}: {} {}", mode, found, expected);
                    }
                    continue;
                };
                let off: Vec<f64> = row.iter().zip(expected).map(|(it, w)| it * m / norm(&row) - w).collect();
                let added = exact.up[i].abs() * norm(&exact.down);
                let bound = m * EPSILON * (1.0 + 5.0 * added / norm(&row)) + ROUNDING;
                prop_assert!(norm(&off) <= bound, "row {}: {} {}", i, norm(&off), bound);
            }
        }
    }
}
