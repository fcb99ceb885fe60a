//! What families with recurrent layers share: sizes, and Mamba-2.

use super::decoder::{Decoder, WIDEST};
use crate::blueprint::{
    Convolution, GatedNorm, Gating, Projection, Rate, Recurrence, RecurrenceShape, Rule, Share,
};
use crate::config::number_or_infinite;
use crate::{Config, ConfigError};

/// A size that a layer cannot be without.
pub(super) fn size_within(config: &Config<'_>, key: &str, otherwise: usize) -> Result<usize, ConfigError> {
    let size = config.count(key)?.unwrap_or(otherwise);
    if size == 0 || size > WIDEST {
        return Err(ConfigError::unsupported(key, size, format!("1 to {WIDEST}")));
    }
    Ok(size)
}

/// The sizes of a Mamba-2 layer, and which biases there are.
#[derive(Clone, Copy)]
pub(super) struct Mamba {
    /// Heads.
    pub(super) heads: usize,
    /// Width of a head.
    pub(super) d_head: usize,
    /// Groups of heads that share B and C.
    pub(super) groups: usize,
    /// Width of B and C.
    pub(super) d_state: usize,
    /// Positions that the convolution sees.
    pub(super) taps: usize,
    /// Whether the convolution has a bias.
    pub(super) convolution_bias: bool,
    /// Whether the projections have.
    pub(super) bias: bool,
    /// Whether the writer has.
    pub(super) output_bias: bool,
    /// The smallest and the largest step.
    pub(super) limits: (f32, f32),
    /// What gates, values, keys, queries and steps are multiplied with.
    pub(super) multipliers: [f32; 5],
    /// The norm beside the gate.
    pub(super) norm: Option<MambaNorm>,
}

/// A norm of each group of heads.
#[derive(Clone, Copy)]
pub(super) struct MambaNorm {
    pub(super) epsilon: f32,
    /// Whether the gate is multiplied before it.
    pub(super) gate_first: bool,
}

impl MambaNorm {
    /// With the epsilon of the model's other norms, after the gate.
    pub(super) fn behind_gate(decoder: &Decoder<'_>) -> Result<Self, ConfigError> {
        let (key, epsilon) = decoder.traits.epsilon;
        Ok(Self { epsilon: decoder.config.number(key)?.unwrap_or(epsilon) as f32, gate_first: true })
    }
}

impl Mamba {
    /// As most configurations have it that call its sizes `mamba_…`.
    pub(super) fn read(decoder: &Decoder<'_>) -> Result<Self, ConfigError> {
        let config = &decoder.config;
        let heads = size_within(config, "mamba_n_heads", 128)?;
        let (key, width) = if let Some(width) = config.count("mamba_d_ssm")? {
            ("mamba_d_ssm", width)
        } else {
            let expand = size_within(config, "mamba_expand", 2)?;
            ("mamba_expand * hidden_size", decoder.d_model.saturating_mul(expand))
        };
        let d_head = match config.get("mamba_d_head") {
            Some(value) if value.as_str() != Some("auto") => size_within(config, "mamba_d_head", 1)?,
            _ => width / heads,
        };
        if width == 0 || heads.checked_mul(d_head) != Some(width) {
            let known = format!("the divisors of {key} = {width}");
            return Err(ConfigError::unsupported(
                "mamba_n_heads",
                format!("{heads} heads of {d_head}"),
                known,
            ));
        }
        let bias = config.flag("mamba_proj_bias")?.unwrap_or(false);
        Ok(Self {
            heads,
            d_head,
            groups: size_within(config, "mamba_n_groups", 1)?,
            d_state: size_within(config, "mamba_d_state", 256)?,
            taps: size_within(config, "mamba_d_conv", 4)?,
            convolution_bias: config.flag("mamba_conv_bias")?.unwrap_or(true),
            bias,
            output_bias: bias,
            limits: step_limits(config, "time_step_limit")?,
            multipliers: [1.0; 5],
            norm: Some(MambaNorm::behind_gate(decoder)?),
        })
    }

    /// A layer in a module: `[gate | x, B, C | Δ]` from one projection: gates, values, keys, queries, steps.
    pub(super) fn layer(
        &self,
        decoder: &Decoder<'_>,
        layer: usize,
        module: &str,
    ) -> Result<Recurrence, ConfigError> {
        let Self { heads, d_head, groups, d_state, .. } = *self;
        if !heads.is_multiple_of(groups) {
            return Err(ConfigError::unsupported(
                "mamba_n_groups",
                groups,
                format!("the divisors of the {heads} heads"),
            ));
        }
        let width = heads.saturating_mul(d_head);
        let channels = width.saturating_add((2 * groups).saturating_mul(d_state));
        if channels > WIDEST {
            return Err(ConfigError::unsupported(
                "mamba_n_heads",
                heads,
                format!("up to {WIDEST} channels in all"),
            ));
        }
        let name = |name: &str| decoder.name(layer, &format!("{module}.{name}"));
        let all = width + channels + heads;
        let part = |first, outputs, scale| Projection {
            share: Some(Share::part(first, all)),
            scale,
            ..decoder.projection(layer, &format!("{module}.in_proj"), self.bias, outputs, decoder.d_model)
        };
        let [of_gates, of_values, of_keys, of_queries, of_steps] = self.multipliers;
        let (keys, queries) = (2 * width, 2 * width + groups * d_state);
        Ok(Recurrence {
            shape: RecurrenceShape {
                heads,
                groups,
                d_key: d_state,
                d_value: d_head,
                values: 0,
                keys: width,
                queries: width + groups * d_state,
            },
            convolved: vec![
                part(width, width, of_values),
                part(keys, groups * d_state, of_keys),
                part(queries, groups * d_state, of_queries),
            ],
            convolution: Convolution {
                weights: vec![name("conv1d.weight")],
                bias: self.convolution_bias.then(|| name("conv1d.bias")),
                channels,
                taps: self.taps,
            },
            latents: None,
            gate: vec![part(0, width, of_gates)],
            decay: vec![part(width + channels, heads, of_steps)],
            decay_bias: name("dt_bias"),
            rate: Rate::Logarithm(name("A_log")),
            rule: Rule::StateSpace { skip: name("D"), limits: self.limits },
            gating: Gating {
                norm: self.norm.map(|it| GatedNorm {
                    gain: name("norm.weight"),
                    shared: false,
                    width: width / groups,
                    epsilon: it.epsilon,
                }),
                gate_first: self.norm.is_some_and(|it| it.gate_first),
                sigmoid: false,
            },
            output: decoder.projection(
                layer,
                &format!("{module}.out_proj"),
                self.output_bias,
                decoder.d_model,
                width,
            ),
        })
    }
}

/// The smallest and the largest step under a key: two numbers, of which the second is most often infinite, and null is no
/// limit. JSON has no infinity, and files write it in several ways.
pub(super) fn step_limits(config: &Config<'_>, key: &str) -> Result<(f32, f32), ConfigError> {
    let Some(list) = config.list(key)? else { return Ok((0.0, f32::INFINITY)) };
    let limit = |index: usize, none: f64| match list.get(index) {
        Some(it) if it.is_null() => Some(none as f32),
        Some(it) => number_or_infinite(it).map(|it| it as f32),
        None => None,
    };
    match (list.len(), limit(0, 0.0), limit(1, f64::INFINITY)) {
        (2, Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err(ConfigError::unsupported(
            key,
            serde_json::Value::from(list.to_vec()),
            "two numbers, the smaller first",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::NoTensors;

    #[test]
    fn limits_of_steps_are_read_in_every_spelling_of_infinity() {
        let read = |limits: Value| {
            let value = json!({ "limits": limits });
            step_limits(&Config::new(&value, &NoTensors), "limits").ok()
        };
        let named = |name: &str| json!([0.5, {"__float__": name}]);
        for infinite in [named("Infinity"), json!([0.5, "inf"]), json!([0.5, "Infinity"]), json!([0.5, null])]
        {
            assert_eq!(read(infinite.clone()), Some((0.5, f32::INFINITY)), "{infinite}");
        }
        assert_eq!(read(json!([{"__float__": "-Infinity"}, 2])), Some((f32::NEG_INFINITY, 2.0)));
        assert_eq!(read(json!([null, 2.5])), Some((0.0, 2.5)));
        assert_eq!(read(Value::Null), Some((0.0, f32::INFINITY)));
        for wrong in [named("NaN"), json!([0.5]), json!([2, 1]), json!(["x", 1]), json!([0, 1, 2]), json!(1)]
        {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
