//! A model with several streams whose declared writers are all silent, in plain f64.
//!
//! Of a block is left what its streams make of each other: their prediction; the active one beside its own norm, where the
//! short way beside attention has it; and the correction by these two. So what is read at a site depends on the last token alone, on
//! no weight of attention, MLP or short way, and on no position.

use checkpoint::Checkpoint;
use glossary::TokenId;
use serde_json::Value;

/// The parts of such a model.
pub struct Silent<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Value,
    root: &'static str,
}

impl<'a> Silent<'a> {
    /// `None` of a model with one stream.
    pub fn of(checkpoint: &'a Checkpoint) -> Option<Self> {
        let whole = checkpoint.config();
        let config = if whole["text_config"].is_object() { &whole["text_config"] } else { whole };
        config.get("altup_num_inputs")?;
        let roots = ["model", "model.language_model"];
        let root = roots.into_iter().find(|it| checkpoint.contains(&format!("{it}.embed_tokens.weight")))?;
        Some(Self { checkpoint, config, root })
    }

    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensor = self.checkpoint.tensor(&format!("{}.{name}", self.root)).unwrap();
        tensor.to_f32().into_iter().map(f64::from).collect()
    }

    /// The product of a matrix and x.
    fn product(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum();
        self.tensor(name).chunks(x.len()).map(dot).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (mean_square(x) + self.config["rms_norm_eps"].as_f64().unwrap()).sqrt();
        x.iter().zip(self.tensor(name)).map(|(x, gain)| x * scale * gain).collect()
    }

    /// Others of the streams, made of x and brought to the size of the first.
    fn projected(&self, name: &str, x: &[f64], first: &[f64]) -> Vec<f64> {
        let y = self.product(name, x);
        let scale = (mean_square(first) / mean_square(&y).max(1e-5)).sqrt();
        y.into_iter().map(|it| it * scale).collect()
    }

    /// What a layer's router says of a stream.
    fn modalities(&self, layer: &str, x: &[f64]) -> Vec<f64> {
        let normed = self.norm(&format!("{layer}.router_norm.weight"), x);
        let routed = self.product(&format!("{layer}.modality_router.weight"), &normed);
        routed.into_iter().map(|it| (it / x.len() as f64).tanh()).collect()
    }

    /// The active stream at each site after a sequence that ends with a token; the last is what the head reads.
    pub fn sites(&self, last: TokenId) -> Vec<Vec<f32>> {
        let (d, count) = (self.number("hidden_size"), self.number("altup_num_inputs"));
        let active = self.number("altup_active_idx");
        let embedding = self.tensor("embed_tokens.weight");
        let first: Vec<f64> =
            embedding[last.index() * d..][..d].iter().map(|it| it * (d as f64).sqrt()).collect();
        let begin = |it| self.projected(&format!("altup_projections.{it}.weight"), &first, &first);
        let mut streams: Vec<Vec<f64>> = (0..count - 1).map(begin).collect();
        streams.insert(0, first);
        let mut sites = vec![narrowed(&streams[active])];
        for layer in 0..self.number("num_hidden_layers") {
            let altup = format!("layers.{layer}.altup");
            let modalities = self.modalities(&altup, &streams[active]);
            let shares = self.product(&format!("{altup}.prediction_coefs.weight"), &modalities);
            let predicted: Vec<Vec<f64>> = (0..count)
                .map(|to| {
                    let from =
                        |i: usize| (0..count).map(|it| shares[to * count + it] * streams[it][i]).sum::<f64>();
                    (0..d).map(|i| streams[to][i] + from(i)).collect()
                })
                .collect();
            let normed = self.norm(&format!("layers.{layer}.input_layernorm.weight"), &predicted[active]);
            let kept: Vec<f64> =
                predicted[active].iter().zip(&normed).map(|(a, b)| (a + b) / 2.0_f64.sqrt()).collect();
            let modalities = self.modalities(&altup, &kept);
            let shares = self.product(&format!("{altup}.correction_coefs.weight"), &modalities);
            streams = (0..count)
                .map(|to| {
                    let found = |i: usize| (1.0 + shares[to]) * (kept[i] - predicted[active][i]);
                    (0..d).map(|i| predicted[to][i] + found(i)).collect()
                })
                .collect();
            sites.push(narrowed(&streams[active]));
        }
        let end = |it: usize| {
            self.projected(&format!("altup_unembed_projections.{}.weight", it - 1), &streams[it], &streams[0])
        };
        let mut sum = streams[0].clone();
        for stream in (1..count).map(end) {
            sum.iter_mut().zip(stream).for_each(|(sum, it)| *sum += it);
        }
        let mean: Vec<f64> = sum.into_iter().map(|it| it / count as f64).collect();
        *sites.last_mut().unwrap() = narrowed(&self.norm("norm.weight", &mean));
        sites
    }
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|it| it * it).sum::<f64>() / x.len() as f64
}

fn narrowed(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&it| it as f32).collect()
}
