//! Gemma 3n: Gemma 3 with several residual streams (`AltUp`), a short way beside attention (`LAuReL`), gates in the first
//! layers that let few numbers pass, an embedding of every layer, and last layers that read keys and values of layers
//! before them. Gains are stored as they are. Alone, or the language model of a container with towers for images and
//! sounds.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::decoder::{self, Decoder, Traits};
use super::{Family, gemma2, gemma3, gemma4};
use crate::blueprint::{
    Attention, Block, Blueprint, Branch, Gain, Laurel, MAX_STREAMS, Memory, Mlp, Norm, NormKind, PerLayer,
    Projection, Sparse, StreamUpdate, Streams,
};
use crate::config::NoTensors;
use crate::{Config, ConfigError, normal};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "gemma3n",
    architectures: &["Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"],
    blueprint,
    gguf: None,
};

const TRAITS: Traits = Traits { gain_offset: 0.0, ..gemma3::TRAITS };

// The language model of a container writes down only what is not usual.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 262_400,
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "sliding_window": 512,
        "final_logit_softcapping": 30.0,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
        "altup_active_idx": 0,
        "altup_num_inputs": 4,
        "altup_correct_scale": true,
        "num_kv_shared_layers": 15,
        "laurel_rank": 64,
    })
});

fn blueprint(config: &Config<'_>) -> Result<Blueprint, ConfigError> {
    let decoder = Decoder::read_with(config, TRAITS, Some(&DEFAULTS), |text| width(text, 0))?;
    let text = &decoder.config;
    decoder::refuse_flag(text, "use_bidirectional_attention")?;
    // There has to be one.
    let width_per_layer = text.size("hidden_size_per_layer_input")?;
    let streams = streams(&decoder)?;
    let blueprint = decoder.blueprint(|index| {
        let block =
            decoder.block(index, attention(&decoder, index)?, mlp(&decoder, index)?, decoder::AROUND)?;
        Ok(Block {
            update: Some(update(&decoder, index, streams.count)?),
            laurel: Some(laurel(&decoder, index)?),
            per_layer: Some(per_layer(&decoder, index, width_per_layer)?),
            ..block
        })
    })?;
    let per_layer = gemma4::per_layer_embedding(&decoder)?;
    gemma2::finish(&decoder, Blueprint { per_layer, streams: Some(streams), ..blueprint })
}

/// How wide a layer's MLP is: one number for all layers, or one for each.
fn width(text: &Config<'_>, layer: usize) -> Result<usize, ConfigError> {
    const KEY: &str = "intermediate_size";
    let Some(list) = text.get(KEY).filter(|it| it.is_array()) else { return text.size(KEY) };
    let key = format!("{KEY}[{layer}]");
    let own = json!({ (key.clone()): list.get(layer) });
    Config::new(&own, &NoTensors).size(&key)
}

fn slides(decoder: &Decoder<'_>, index: usize) -> Result<bool, ConfigError> {
    const PATTERN: usize = 5;
    decoder.slides(index, |layer| !(layer + 1).is_multiple_of(PATTERN))
}

fn attention(decoder: &Decoder<'_>, index: usize) -> Result<Attention, ConfigError> {
    let kinds = (0..=index).map(|it| slides(decoder, it)).collect::<Result<Vec<_>, _>>()?;
    let own = |layer: usize| gemma4::attention(decoder, layer, kinds[layer]);
    let alike = |it: usize| (kinds[it] == kinds[index]).then_some(true);
    match gemma4::memory(decoder, index, alike)? {
        Memory::Own => own(index),
        Memory::Of(source) => Ok(gemma4::reading_from(source, own(index)?, own(source)?)),
    }
}

fn mlp(decoder: &Decoder<'_>, index: usize) -> Result<Mlp, ConfigError> {
    let inner = decoder.gated_in(index, "mlp", width(&decoder.config, index)?)?;
    let share = sparsity(decoder, index)?;
    if share <= 0.0 {
        return Ok(Mlp::Dense(inner));
    }
    Ok(Mlp::Sparse(Sparse { inner, deviations: normal::quantile(share) as f32 }))
}

/// The share of a layer's hidden numbers that its gate stops, were they normal; 0: it is an ordinary one.
fn sparsity(decoder: &Decoder<'_>, index: usize) -> Result<f64, ConfigError> {
    const KEY: &str = "activation_sparsity_pattern";
    const FIRST: usize = 10;
    let Some(list) = decoder.config.numbers(KEY)? else {
        let usual = decoder.n_layers > FIRST && index < FIRST;
        return Ok(if usual { 0.95 } else { 0.0 });
    };
    let known = || format!("a list of {} numbers below 1", decoder.n_layers);
    match list.get(index) {
        Some(&share) if share < 1.0 && list.len() == decoder.n_layers => Ok(share),
        Some(share) => Err(ConfigError::unsupported(&format!("{KEY}[{index}]"), share, known())),
        None => Err(ConfigError::unsupported(KEY, format!("{} numbers", list.len()), known())),
    }
}

fn streams(decoder: &Decoder<'_>) -> Result<Streams, ConfigError> {
    const COUNT: &str = "altup_num_inputs";
    const ACTIVE: &str = "altup_active_idx";
    let Decoder { root, d_model, config, .. } = *decoder;
    let count = config.size(COUNT)?;
    if count > MAX_STREAMS {
        return Err(ConfigError::unsupported(COUNT, count, format!("1 to {MAX_STREAMS}")));
    }
    let active = config.count(ACTIVE)?.unwrap_or(0);
    if active >= count {
        return Err(ConfigError::unsupported(ACTIVE, active, format!("0 to before {COUNT} = {count}")));
    }
    let projections = |module: &str| -> Vec<Projection> {
        let projection = |it| Projection {
            weight: format!("{root}.{module}.{it}.weight"),
            share: None,
            bias: None,
            scale: 1.0,
            outputs: d_model,
            inputs: d_model,
        };
        (0..count - 1).map(projection).collect()
    };
    Ok(Streams {
        count,
        active,
        beginnings: projections("altup_projections"),
        endings: projections("altup_unembed_projections"),
        smallest: 1e-5, // as in the reference implementation
    })
}

fn update(decoder: &Decoder<'_>, index: usize, streams: usize) -> Result<StreamUpdate, ConfigError> {
    let d_model = decoder.d_model;
    let name = |name: &str| decoder.name(index, &format!("altup.{name}.weight"));
    // What the router reads is divided by d_model.
    let gain = Gain::Scaled { tensor: name("router_norm"), by: (1.0 / d_model as f64) as f32 };
    Ok(StreamUpdate {
        router_norm: Norm { gain, ..decoder.norm(index, "altup.router_norm", d_model)? },
        router: decoder.projection(index, "altup.modality_router", false, streams, d_model),
        prediction: name("prediction_coefs"),
        correction: name("correction_coefs"),
    })
}

fn laurel(decoder: &Decoder<'_>, index: usize) -> Result<Laurel, ConfigError> {
    let (d_model, rank) = (decoder.d_model, decoder.config.size("laurel_rank")?);
    Ok(Laurel {
        left: decoder.projection(index, "laurel.linear_left", false, rank, d_model),
        right: decoder.projection(index, "laurel.linear_right", false, d_model, rank),
        norm: decoder.norm(index, "laurel.post_laurel_norm", d_model)?,
        scale: std::f32::consts::FRAC_1_SQRT_2,
    })
}

/// What a layer adds for the token alone; its gate reads the corrected stream, each number with a factor of its own.
fn per_layer(decoder: &Decoder<'_>, index: usize, width: usize) -> Result<Branch<PerLayer>, ConfigError> {
    let branch = gemma4::per_layer_branch(decoder, index, width)?;
    let factors = Norm {
        kind: NormKind::Nothing,
        gain: Gain::Shared(decoder.name(index, "altup.correct_output_scale")),
        gain_offset: 0.0,
        bias: None,
        epsilon: 0.0,
        width: decoder.d_model,
    };
    let scaled = decoder.config.flag("altup_correct_scale")?.unwrap_or(true);
    Ok(Branch { pre_norm: scaled.then_some(factors), ..branch })
}
