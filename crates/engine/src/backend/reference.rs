//! The oracle: every operation in plain loops, sums in f64.
//!
//! Written to be read and believed, not to be fast; it shares no arithmetic with the other back ends. Their
//! conformance suite compares each operation with this one, and `--device reference` runs a whole model on it.

mod arithmetic;
mod recurrent;
mod streams;

use checkpoint::Tensor;
use glossary::{Edit, TokenId};

pub(crate) use self::arithmetic::erf;
use self::arithmetic::{
    activate, dot, edit_row, norm_heads, norm_row, rotate, rounded, route, sigmoid, silu, weights_of,
};
use super::{
    Arithmetic, AttentionShape, Backend, ConvolutionParams, Convolved, ExpertParams, HeadNorms, HeadOutput,
    HeadWants, LatentShape, NormParams, QuantizedPart, RecurrenceParams, Stacking, Values, WeightDtype,
    WriteParams, softplus,
};
use crate::LoadError;
use crate::blueprint::{Activation, GateActivation, Rope};
use crate::plan::Plan;

/// Plain loops.
#[derive(Default)]
pub struct Reference {
    arithmetic: Arithmetic,
}

impl Reference {
    /// The oracle of a chosen arithmetic.
    pub fn computing_in(arithmetic: Arithmetic) -> Self {
        Self { arithmetic }
    }

    /// A row as the input of a product; the product itself is exact.
    fn input(&self, row: &[f32]) -> Vec<f32> {
        match self.arithmetic {
            Arithmetic::F32 => row.to_vec(),
            Arithmetic::Bf16 => row.iter().map(|&it| rounded(it, WeightDtype::Bf16)).collect(),
        }
    }
}

/// `[rows][cols]`
#[derive(Clone, Debug, Default)]
pub struct Grid {
    rows: Vec<Vec<f32>>,
}

/// Weights `[n][k]`, rounded to their precision.
pub struct Weights(Vec<Vec<f32>>);

/// Keys and values by page and position: `[page][position][kv_head * d_head]`. No values where they are of the keys.
#[derive(Default)]
pub struct Cache {
    keys: Vec<Vec<Vec<f32>>>,
    values: Vec<Vec<Vec<f32>>>,
    cols: usize,
}

impl Backend for Reference {
    type Matrix = Weights;
    type Vector = Vec<f32>;
    type Table = Weights;
    type Rows = Grid;
    type Pages = Cache;
    type Edits = Vec<Option<Edit>>;
    type Angles = Rope;
    type States = Vec<Vec<f32>>;

    fn describe(&self) -> String {
        match self.arithmetic {
            Arithmetic::F32 => "reference (plain loops)".to_owned(),
            Arithmetic::Bf16 => "reference (plain loops), products of numbers rounded to bf16".to_owned(),
        }
    }

    fn row_block(&self) -> usize {
        usize::MAX
    }

    fn matrix(&self, parts: &[Tensor], stacking: Stacking, dtype: WeightDtype) -> Result<Weights, LoadError> {
        let parts: Vec<_> = parts.iter().map(|it| weights_of(it, dtype)).collect::<Result<_, _>>()?;
        let rows: Vec<Vec<f32>> = parts.into_iter().flatten().collect();
        Ok(Weights(match stacking {
            Stacking::EndToEnd | Stacking::Paired => rows, // gate rows come first, then up rows, in both
            Stacking::Transposed => {
                (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
            }
        }))
    }

    fn quantized(&self, parts: &[QuantizedPart], stacking: Stacking) -> Result<Weights, LoadError> {
        let _ = stacking;
        let mut rows = Vec::new();
        for part in parts {
            let mut bytes = vec![0; part.row_bytes()];
            for row in 0..part.tensor.rows() {
                let mut numbers = vec![0.0; part.tensor.row_len()];
                part.read(row, &mut numbers, &mut bytes)?;
                rows.push(numbers);
            }
        }
        Ok(Weights(rows))
    }

    fn bytes(&self, matrix: &Weights) -> usize {
        matrix.0.iter().map(|it| size_of_val(it.as_slice())).sum()
    }

    fn scaled(&self, matrix: Weights, parts: &[(usize, f32)], stacking: Stacking) -> Weights {
        assert_ne!(stacking, Stacking::Transposed, "of transposed tensors there is one");
        let by = parts.iter().flat_map(|&(outputs, by)| std::iter::repeat_n(by, outputs));
        let scaled = |(row, by): (Vec<f32>, f32)| row.into_iter().map(|it| it * by).collect();
        Weights(matrix.0.into_iter().zip(by).map(scaled).collect())
    }

    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn table(&self, tensor: &Tensor, dtype: WeightDtype) -> Result<Weights, LoadError> {
        Ok(Weights(weights_of(tensor, dtype)?))
    }

    fn rows(&self, cols: usize) -> Grid {
        let _ = cols; // Rows bring their width.
        Grid { rows: Vec::new() }
    }

    fn pages(&self, shape: &AttentionShape) -> Cache {
        Cache { cols: shape.n_kv_heads * shape.d_head, ..Cache::default() }
    }

    fn edits(&self, edits: &[Option<&Edit>], _width: usize) -> Self::Edits {
        edits.iter().map(|it| it.cloned()).collect()
    }

    fn angles(&self, rope: &Rope) -> Rope {
        rope.clone()
    }

    fn reserve(&mut self, pages: &mut Cache, count: usize) {
        let page = vec![vec![0.0; pages.cols]; crate::plan::PAGE];
        pages.keys.resize(count.max(pages.keys.len()), page.clone());
        pages.values.resize(count.max(pages.values.len()), page);
    }

    fn embed(&mut self, table: &Weights, plan: &Plan, scale: f32, out: &mut Grid) {
        let row = |token: &TokenId| {
            let row = table.0.get(token.index()).unwrap_or(&table.0[0]);
            row.iter().map(|it| it * scale).collect()
        };
        out.rows = plan.tokens.iter().map(row).collect();
    }

    fn norm(&mut self, x: &Grid, norm: &NormParams<Vec<f32>>, out: &mut Grid) {
        out.rows = x.rows.iter().map(|row| norm_row(row, norm, 0)).collect();
    }

    fn linear(&mut self, x: &Grid, weights: &Weights, bias: Option<&Vec<f32>>, out: &mut Grid) {
        let output = |row: &Vec<f32>| {
            let row = self.input(row);
            let bias = |i: usize| bias.map_or(0.0, |it| f64::from(it[i]));
            weights.0.iter().enumerate().map(|(i, w)| (dot(w, &row) + bias(i)) as f32).collect()
        };
        out.rows = x.rows.iter().map(output).collect();
    }

    fn linear_by_head(&mut self, x: &Grid, weights: &[Weights], out: &mut Grid) {
        let all_heads = |row: &Vec<f32>| {
            let heads = row.chunks(row.len() / weights.len()).zip(weights);
            let outputs = heads.flat_map(|(head, weights)| {
                let (input, rest) = head.split_at(weights.0[0].len());
                let input = self.input(input);
                let outputs = weights.0.iter().map(move |w| dot(w, &input) as f32);
                outputs.chain(rest.iter().copied())
            });
            outputs.collect()
        };
        out.rows = x.rows.iter().map(all_heads).collect();
    }

    fn gated_linear(
        &mut self,
        x: &Grid,
        weights: &Weights,
        bias: Option<&Vec<f32>>,
        activation: Activation,
        out: &mut Grid,
    ) {
        let mut both = Grid::default();
        // Each half of the bias is filled up; without the fill they lie as the outputs do.
        let half = weights.0.len() / 2;
        let bias = bias.map(|it| [&it[..half], &it[it.len() / 2..][..half]].concat());
        self.linear(x, weights, bias.as_ref(), &mut both);
        let gated = |row: &Vec<f32>| {
            let (gate, up) = row.split_at(row.len() / 2);
            let product = |(g, u): (&f32, &f32)| activate(activation, f64::from(*g), f64::from(*u)) as f32;
            gate.iter().zip(up).map(product).collect()
        };
        out.rows = both.rows.iter().map(gated).collect();
    }

    fn gate(&mut self, x: &mut Grid, activation: Activation, by: Option<&Grid>) {
        for (row, values) in x.rows.iter_mut().enumerate() {
            for (i, x) in values.iter_mut().enumerate() {
                let by = by.map_or(1.0, |it| f64::from(it.rows[row][i]));
                *x = activate(activation, f64::from(*x), by) as f32;
            }
        }
    }

    fn experts(
        &mut self,
        x: &Grid,
        scores: &Grid,
        params: ExpertParams<'_, Self>,
        plan: &Plan,
        out: &mut Grid,
    ) {
        out.rows.clear();
        for (row, (x, scores)) in x.rows.iter().zip(&scores.rows).enumerate() {
            let mut sum: Vec<f64> = Vec::new();
            for (index, share) in route(scores, params.correction, params.routing) {
                let share = share * params.share_scales.map_or(1.0, |it| f64::from(it[index]));
                let expert = &params.experts[index];
                let (mut hidden, mut y) = (Grid::default(), Grid::default());
                let x = Grid { rows: vec![x.clone()] };
                let bias = expert.up_bias.as_ref();
                if expert.gated {
                    self.gated_linear(&x, &expert.up, bias, params.activation, &mut hidden);
                } else {
                    self.linear(&x, &expert.up, bias, &mut hidden);
                    self.gate(&mut hidden, params.activation, None);
                }
                self.linear(&hidden, &expert.down, None, &mut y);
                let edits = params.edits.get(index).and_then(Option::as_ref);
                if let Some(edit) = edits.and_then(|it| it[plan.edits[row] as usize].as_ref()) {
                    edit_row(&mut y.rows[0], edit);
                }
                sum.resize(y.rows[0].len(), 0.0);
                for (i, (sum, y)) in sum.iter_mut().zip(&y.rows[0]).enumerate() {
                    let bias = expert.down_bias.as_ref().map_or(0.0, |it| f64::from(it[i]));
                    *sum += share * (f64::from(*y) + bias);
                }
            }
            out.rows.push(sum.into_iter().map(|it| it as f32).collect());
        }
    }

    fn rotate_and_store(
        &mut self,
        qkv: &mut Grid,
        shape: &AttentionShape,
        norms: HeadNorms<'_, Vec<f32>>,
        angles: Option<&mut Rope>,
        plan: &Plan,
        mut pages: Option<&mut Cache>,
    ) {
        let d = shape.d_head;
        let rope = angles.map(|it| &*it);
        let n_kv_heads = if pages.is_some() { shape.n_kv_heads } else { 0 };
        for (row, values) in qkv.rows.iter_mut().enumerate() {
            let (queries, rest) = values.split_at_mut(shape.n_heads * d);
            let (keys, held) = rest.split_at_mut(n_kv_heads * d);
            let rotate_all = |heads: &mut [f32]| {
                if let Some(rope) = rope {
                    heads.chunks_mut(d).for_each(|head| rotate(head, rope, plan.positions[row]));
                }
            };
            let clip = |heads: &mut [f32]| {
                if let Some(clip) = norms.clip {
                    for number in heads {
                        *number = number.clamp(-clip, clip);
                    }
                }
            };
            for (heads, norm) in [(queries, norms.query), (keys, norms.key)] {
                norm_heads(heads, norm.filter(|_| !norms.last));
                clip(heads);
                rotate_all(heads);
                norm_heads(heads, norm.filter(|_| norms.last));
            }
            norm_heads(held, norms.value);
            clip(held);
            let Some(pages) = pages.as_deref_mut() else { continue };
            let (keys, width) = (shape.query_cols(), n_kv_heads * d);
            let held = n_kv_heads * shape.d_value();
            for slot in std::iter::once(plan.slots[row]).chain(plan.echoes(row)) {
                let (page, offset) = (slot.page as usize, slot.offset as usize);
                pages.keys[page][offset] = values[keys..keys + width].to_vec();
                pages.values[page][offset] = values[keys + width..][..held].to_vec();
            }
        }
    }

    fn rotate_and_store_latents(
        &mut self,
        query: &mut Grid,
        kept: &mut Grid,
        shape: &LatentShape,
        norm: &NormParams<Vec<f32>>,
        angles: &mut Rope,
        plan: &Plan,
        pages: &mut Cache,
    ) {
        for (row, (query, kept)) in query.rows.iter_mut().zip(&mut kept.rows).enumerate() {
            for head in query.chunks_mut(shape.d_query()) {
                rotate(&mut head[shape.d_nope..], angles, plan.positions[row]);
            }
            let (latent, key) = kept.split_at_mut(shape.d_latent);
            latent.copy_from_slice(&norm_row(latent, norm, 0));
            rotate(key, angles, plan.positions[row]);
            for slot in std::iter::once(plan.slots[row]).chain(plan.echoes(row)) {
                pages.keys[slot.page as usize][slot.offset as usize].clone_from(kept);
            }
        }
    }

    fn attend(
        &mut self,
        qkv: &Grid,
        shape: &AttentionShape,
        sinks: Option<&Vec<f32>>,
        plan: &Plan,
        pages: &Cache,
        out: &mut Grid,
    ) {
        let (d, d_value) = (shape.d_head, shape.d_value());
        let (stored, stride) = match shape.values {
            Values::Own(_) => (&pages.values, d_value),
            Values::OfKeys(_) => (&pages.keys, d),
        };
        out.rows.clear();
        for (row, query) in qkv.rows.iter().enumerate() {
            let end = plan.positions[row] as usize + 1;
            let from = shape.window.map_or(0, |window| end.saturating_sub(window));
            let context: Vec<(usize, usize)> = plan
                .chunks_of(row)
                .iter()
                .flat_map(|chunk| (0..chunk.len as usize).map(|offset| (chunk.page as usize, offset)))
                .take(end)
                .skip(from)
                .collect();
            let mut values = vec![0.0_f32; shape.n_heads * d_value];
            for head in 0..shape.n_heads {
                let kv = head / (shape.n_heads / shape.n_kv_heads);
                let query = &query[head * d..][..d];
                let mut scores: Vec<f64> = context
                    .iter()
                    .map(|&(page, offset)| {
                        let score =
                            dot(query, &pages.keys[page][offset][kv * d..][..d]) * f64::from(shape.scale);
                        shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                scores.extend(sinks.map(|it| f64::from(it[head])));
                let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let sum: f64 = scores.iter().map(|it| (it - largest).exp()).sum();
                for i in 0..d_value {
                    let weighted = context.iter().zip(&scores).map(|(&(page, offset), score)| {
                        (score - largest).exp() / sum * f64::from(stored[page][offset][kv * stride + i])
                    });
                    values[head * d_value + i] = weighted.sum::<f64>() as f32;
                }
            }
            out.rows.push(values);
        }
    }

    fn states(&self, [rows, cols]: [usize; 2]) -> Vec<Vec<f32>> {
        vec![vec![0.0; rows * cols]] // a sample of what `reserve_states` makes more of
    }

    fn reserve_states(&mut self, states: &mut Vec<Vec<f32>>, count: usize) {
        let zero = vec![0.0; states[0].len()];
        states.resize(count.max(states.len()), zero);
    }

    fn convolve(
        &mut self,
        x: &Grid,
        how: Convolved,
        params: &ConvolutionParams<Vec<f32>>,
        plan: &Plan,
        states: &mut Vec<Vec<f32>>,
        out: &mut Grid,
    ) {
        recurrent::convolve(x, how, params, plan, states, out);
    }

    fn recur(
        &mut self,
        convolved: &Grid,
        x: &Grid,
        strengths: &Grid,
        params: &RecurrenceParams<Vec<f32>>,
        plan: &Plan,
        states: &mut Vec<Vec<f32>>,
        out: &mut Grid,
    ) {
        recurrent::recur(convolved, x, strengths, params, plan, states, out);
    }

    fn gate_by(&mut self, y: &mut Grid, gates: &Grid, first: usize, each: usize, activation: GateActivation) {
        for (y, gates) in y.rows.iter_mut().zip(&gates.rows) {
            for (numbers, gate) in y.chunks_mut(each).zip(&gates[first..]) {
                let gate = match activation {
                    GateActivation::Sigmoid => sigmoid(f64::from(*gate)),
                    GateActivation::Softplus => softplus(f64::from(*gate)),
                };
                for number in numbers {
                    *number = (f64::from(*number) * gate) as f32;
                }
            }
        }
    }

    fn write(
        &mut self,
        y: &mut Grid,
        params: WriteParams<'_, Self>,
        plan: &Plan,
        residual: &mut Grid,
        x: &mut Grid,
    ) {
        for (row, y) in y.rows.iter_mut().enumerate() {
            let edit = params.edits.and_then(|it| it[plan.edits[row] as usize].as_ref());
            if let Some(edit) = edit {
                edit_row(y, edit);
            }
            if let Some(bias) = params.bias {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
            if let Some(norm) = params.post_norm {
                *y = norm_row(y, norm, 0);
            }
            let share = params.gates.map_or(1.0, |it| sigmoid(f64::from(it.rows[row][0])));
            let scale = (f64::from(params.scale) * share) as f32;
            for (residual, y) in residual.rows[row].iter_mut().zip(y) {
                *residual = params.stream_scale * (*residual + scale * *y);
            }
        }
        if let Some(norm) = params.next_norm {
            self.norm(residual, norm, x);
        }
    }

    fn threshold(&mut self, x: &mut Grid, deviations: f32) {
        streams::threshold(x, deviations);
    }

    fn predict(
        &mut self,
        routed: &Grid,
        weights: &Vec<f32>,
        active: usize,
        streams: &mut [Grid],
        residual: &mut Grid,
    ) {
        streams::predict(routed, weights, active, streams, residual);
    }

    fn correct(
        &mut self,
        routed: &Grid,
        weights: &Vec<f32>,
        active: usize,
        streams: &mut [Grid],
        residual: &mut Grid,
    ) {
        streams::correct(routed, weights, active, streams, residual);
    }

    fn match_size(&mut self, y: &mut Grid, like: &Grid, smallest: f32) {
        streams::match_size(y, like, smallest);
    }

    fn select(&mut self, x: &Grid, rows: &[u32], out: &mut Grid) {
        out.rows = rows.iter().map(|&row| x.rows[row as usize].clone()).collect();
    }

    fn head(
        &mut self,
        x: &Grid,
        weights: &Weights,
        bias: Option<&Vec<f32>>,
        scale: f32,
        softcap: Option<f32>,
        wants: &HeadWants,
        out: &mut HeadOutput,
    ) {
        for (row, x) in x.rows.iter().enumerate() {
            let x = self.input(x);
            let logits: Vec<f32> = weights
                .0
                .iter()
                .enumerate()
                .map(|(i, w)| {
                    let bias = bias.map_or(0.0, |it| f64::from(it[i]));
                    let logit = (dot(w, &x) + bias) * f64::from(scale);
                    let logit = softcap.map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh());
                    logit as f32 + 0.0 // so that a zero has no sign and equals every other
                })
                .collect();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            // NaN first, of whichever sign, then the largest; the sort is stable.
            let key = |it: usize| if logits[it].is_nan() { f32::NAN } else { logits[it] };
            order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
            out.top.extend(order.iter().take(wants.top).map(|&it| (TokenId(it as u32), logits[it])));
            if wants.logsumexp {
                let largest = f64::from(logits[order[0]]);
                let sum: f64 = logits.iter().map(|&it| (f64::from(it) - largest).exp()).sum();
                out.logsumexp.push((largest + sum.ln()) as f32);
            }
            out.targets.extend(wants.targets.get(row).map(|it| logits[it.index()]));
            if wants.logits {
                out.logits.extend(logits);
            }
        }
    }

    fn download(&mut self, x: &Grid, out: &mut Vec<f32>) {
        out.extend(x.rows.iter().flatten());
    }
}
