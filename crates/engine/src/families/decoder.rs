//! The decoder that most families vary: embedding, blocks of attention and a gated MLP, a final norm, a head.
//!
//! A family reads it with its [`Traits`], makes the attention and the MLP of each layer with it, says what is
//! otherwise by struct update, and puts norms around them ([`Norms`]).

use serde_json::{Map, Value};

use super::gguf;

use crate::backend::{AttentionShape, Values};
use crate::blueprint::{
    Activation, Arrangement, Attention, Block, Blueprint, Branch, Embedding, FeedForward, Gain, Head, Memory,
    Mixer, Mlp, Norm, NormKind, Pairing, Projection, Rope, Share,
};
use crate::config::{NoTensors, kind_of_layer};
use crate::rope::{rope, said};
use crate::{Config, ConfigError};

/// What is the same in all layers of a family's models and not in every family's.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub(super) struct Traits {
    /// The kind of all norms.
    pub(super) norm: NormKind,
    /// Whether norms have gains, but for those of heads.
    pub(super) norm_gain: bool,
    /// Whether norms have biases.
    pub(super) norm_bias: bool,
    /// The key of the norms' epsilon, and its value where the configuration has none.
    pub(super) epsilon: (&'static str, f64),
    /// Added to every gain.
    pub(super) gain_offset: f32,
    /// The key of the activation, and its name where the configuration has none.
    pub(super) activation: (&'static str, &'static str),
    /// The rotary base where the configuration has none.
    pub(super) theta: f64,
    /// Which numbers of a head form rotated pairs.
    pub(super) pairing: Pairing,
    /// Whether `partial_rotary_factor` says how much of a head is rotated; others do not look at it.
    pub(super) partial: bool,
    /// Where layers with a window rotate otherwise than those without: the key of their base in the older notation, in which
    /// they are not scaled, and its value where the configuration has none.
    pub(super) local_theta: Option<(&'static str, f64)>,
    /// Whether the head is the embedding where the configuration does not say.
    pub(super) tied: bool,
}

/// Llama's.
pub(super) const LLAMA: Traits = Traits {
    norm: NormKind::RootMeanSquare,
    norm_gain: true,
    norm_bias: false,
    epsilon: ("rms_norm_eps", 1e-6),
    gain_offset: 0.0,
    activation: ("hidden_act", "silu"),
    theta: 10_000.0,
    pairing: Pairing::Halves,
    partial: false,
    local_theta: None,
    tied: false,
};

/// The names of the norms before and after the two branches of a block.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    pub(super) before_attention: Option<&'static str>,
    pub(super) after_attention: Option<&'static str>,
    pub(super) before_mlp: Option<&'static str>,
    pub(super) after_mlp: Option<&'static str>,
}

/// Branches read through norms, as in Llama.
pub(super) const BEFORE: Norms = Norms {
    before_attention: Some("input_layernorm"),
    after_attention: None,
    before_mlp: Some("post_attention_layernorm"),
    after_mlp: None,
};

/// Branches write through norms, as in OLMo 2.
pub(super) const AFTER: Norms = Norms {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
};

/// Branches read and write through norms, as in Gemma 2.
pub(super) const AROUND: Norms = Norms {
    before_attention: Some("input_layernorm"),
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
};

/// A decoder's sizes, and how its tensors are called.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'a> {
    /// The configuration of the language model; in a container that is a part of the whole.
    pub(super) config: Config<'a>,
    pub(super) traits: Traits,
    /// What the names of the decoder's tensors begin with.
    pub(super) root: &'static str,
    pub(super) head: Option<&'static str>,
    pub(super) d_mlp: usize,
    pub(super) n_layers: usize,
    pub(super) d_model: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) d_head: usize,
    /// Whether queries, keys and values have biases.
    pub(super) qkv_bias: bool,
    /// Whether the attention's writer has one.
    pub(super) output_bias: bool,
    /// Whether the MLP's projections have.
    pub(super) mlp_bias: bool,
}

/// Where the decoder lies in a checkpoint: alone, in a container as transformers 5 writes it, as transformers 4 did, and in
/// `SmolVLM` and Idefics.
pub(super) const ROOTS: [&str; 4] =
    ["model", "model.language_model", "language_model.model", "model.text_model"];

/// Where its head does then.
const HEADS: [&str; 4] =
    ["lm_head.weight", "lm_head.weight", "language_model.lm_head.weight", "lm_head.weight"];

const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu2", Activation::SquaredRelu),
];

/// The divisors of the rotary frequencies in GGUF files whose models use Llama 3's rule.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

impl<'a> Decoder<'a> {
    /// Reads sizes and flags; `defaults` are the values that the family's configurations may leave out.
    pub(super) fn read(
        config: &Config<'a>,
        traits: Traits,
        defaults: Option<&'a Value>,
    ) -> Result<Self, ConfigError> {
        Self::read_with(config, traits, defaults, |text| text.size("intermediate_size"))
    }

    /// The same with another rule for how wide MLPs are.
    pub(super) fn read_with(
        config: &Config<'a>,
        traits: Traits,
        defaults: Option<&'a Value>,
        d_mlp: impl Fn(&Config<'_>) -> Result<usize, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let text = config.section("text_config").unwrap_or(*config);
        let tied = config.flag("tie_word_embeddings")?.or(text.flag("tie_word_embeddings")?);
        let text = text.with_defaults(defaults);
        let lies = |root: &str| config.has_tensor(&format!("{root}.embed_tokens.weight"));
        let (root, head) = ROOTS.into_iter().zip(HEADS).find(|it| lies(it.0)).unwrap_or((ROOTS[0], HEADS[0]));
        // Files of tied models leave the head out; some say so only by that. One that is there and differs is the model's
        // own, whatever the configuration says, as in transformers 5: merges of tied models with others are such.
        let embedding = || format!("{root}.embed_tokens.weight");
        let untied = config.has_tensor(head)
            && (!tied.unwrap_or(traits.tied) || config.tensors_differ(head, &embedding()));
        let (n_heads, n_kv_heads, d_head) = heads(&text)?;
        let bias = |key: &str, module: &str| -> Result<bool, ConfigError> {
            // Where nothing is said (GGUF files never say it), the tensors do. Where a file without any says that there are
            // some, the architecture does not look at the key, or they are zeros.
            let there = || config.has_tensor(&format!("{root}.layers.0.{module}.bias"));
            let (branch, _) = module.split_once('.').unwrap_or((module, ""));
            let any = || {
                let parts = [format!(".{branch}."), ".mixer.".to_owned(), ".feed_forward.".to_owned()];
                config.has_tensor_like(&|it| {
                    it.rsplit('.').next() == Some("bias")
                        && it.contains(".layers.")
                        && parts.iter().any(|part| it.contains(part))
                })
            };
            Ok(text.flag(key)?.map_or_else(there, |said| said && any()))
        };
        Ok(Self {
            traits,
            root,
            head: untied.then_some(head),
            d_mlp: d_mlp(&text)?,
            n_layers: layers(&text)?,
            d_model: text.size("hidden_size")?,
            n_heads,
            n_kv_heads,
            d_head,
            qkv_bias: bias("attention_bias", "self_attn.q_proj")?,
            output_bias: bias("attention_bias", "self_attn.o_proj")?,
            mlp_bias: bias("mlp_bias", "mlp.down_proj")?,
            config: text,
        })
    }

    /// All of it, block by block.
    pub(super) fn blueprint(
        &self,
        block: impl Fn(usize) -> Result<Block, ConfigError>,
    ) -> Result<Blueprint, ConfigError> {
        let embedding = format!("{}.embed_tokens.weight", self.root);
        Ok(Blueprint {
            d_model: self.d_model,
            vocab: self.config.size("vocab_size")?,
            context_length: self.config.count("max_position_embeddings")?,
            per_layer: None,
            streams: None,
            blocks: (0..self.n_layers).map(block).collect::<Result<_, _>>()?,
            final_norm: self.named_norm(&format!("{}.norm", self.root), self.d_model)?,
            head: Head {
                weight: self.head.map_or_else(|| embedding.clone(), str::to_owned),
                bias: None,
                scale: 1.0,
                softcap: None,
            },
            embedding: Embedding { weight: embedding, scale: 1.0 },
        })
    }

    /// A name within a layer.
    pub(super) fn name(&self, layer: usize, name: &str) -> String {
        format!("{}.layers.{layer}.{name}", self.root)
    }

    /// A projection of a layer with a tensor of its own.
    pub(super) fn projection(
        &self,
        layer: usize,
        name: &str,
        bias: bool,
        outputs: usize,
        inputs: usize,
    ) -> Projection {
        let name = self.name(layer, name);
        Projection {
            weight: format!("{name}.weight"),
            share: None,
            bias: bias.then(|| format!("{name}.bias")),
            scale: 1.0,
            outputs,
            inputs,
        }
    }

    /// Some of the `of` outputs of a tensor that holds several projections of a layer, one after the other, without
    /// biases.
    pub(super) fn part(
        &self,
        layer: usize,
        name: &str,
        first: usize,
        outputs: usize,
        of: usize,
    ) -> Projection {
        let share = Share::part(first, of);
        Projection { share: Some(share), ..self.projection(layer, name, false, outputs, self.d_model) }
    }

    /// A norm over `width` numbers.
    pub(super) fn named_norm(&self, name: &str, width: usize) -> Result<Norm, ConfigError> {
        let (key, default) = self.traits.epsilon;
        Ok(Norm {
            kind: self.traits.norm,
            bias: self.traits.norm_bias.then(|| format!("{name}.bias")),
            gain: if self.traits.norm_gain { Gain::Shared(format!("{name}.weight")) } else { Gain::Ones },
            gain_offset: self.traits.gain_offset,
            epsilon: self.config.number(key)?.unwrap_or(default) as f32,
            width,
        })
    }

    /// A norm within a layer over `width` numbers.
    pub(super) fn norm(&self, layer: usize, name: &str, width: usize) -> Result<Norm, ConfigError> {
        self.named_norm(&self.name(layer, name), width)
    }

    /// Whether a layer sees a window of positions only: by `layer_types`, or where there is no such list by the
    /// family's rule.
    pub(super) fn slides(&self, layer: usize, rule: impl Fn(usize) -> bool) -> Result<bool, ConfigError> {
        let Some(types) = self.config.list("layer_types")? else { return Ok(rule(layer)) };
        kind_of_layer(types, "layer_types", layer, &[(FULL, false), (SLIDING, true)])
    }

    /// Whether a layer's MLP is one for all tokens: by `mlp_layer_types`, or where there is no such list by the family's rule.
    pub(super) fn is_dense(&self, layer: usize, rule: impl Fn(usize) -> bool) -> Result<bool, ConfigError> {
        let Some(types) = self.config.list("mlp_layer_types")? else { return Ok(rule(layer)) };
        kind_of_layer(types, "mlp_layer_types", layer, &[("dense", true), ("sparse", false)])
    }

    /// A layer's attention as in Llama, with the window if the layer slides and there is one.
    pub(super) fn attention(&self, layer: usize, slides: bool) -> Result<Attention, ConfigError> {
        let Self { n_heads, n_kv_heads, d_head, d_model, qkv_bias, .. } = *self;
        // A window of nothing is how some files say that there is none.
        let window = if slides { self.config.count("sliding_window")?.filter(|&it| it > 0) } else { None };
        let projection = |name, heads| self.projection(layer, name, qkv_bias, heads * d_head, d_model);
        Ok(Attention {
            shape: AttentionShape {
                n_heads,
                n_kv_heads,
                d_head,
                scale: (1.0 / (d_head as f64).sqrt()) as f32,
                softcap: None,
                window,
                values: Values::Own(d_head),
            },
            query: projection("self_attn.q_proj", n_heads),
            key: projection("self_attn.k_proj", n_kv_heads),
            value: projection("self_attn.v_proj", n_kv_heads),
            memory: Memory::Own,
            query_norm: None,
            key_norm: None,
            gate: None,
            value_norm: None,
            norms_last: false,
            clip: None,
            rope: Some(self.rope(slides)?),
            sinks: None,
            output: self.projection(layer, "self_attn.o_proj", self.output_bias, d_model, n_heads * d_head),
        })
    }

    /// The rotary embedding of layers that slide or do not. GGUF files bring Llama 3's rule as a tensor of divisors.
    fn rope(&self, slides: bool) -> Result<Rope, ConfigError> {
        let Traits { theta, pairing, .. } = self.traits;
        // GGUF files say how many numbers are rotated, and mean it.
        let partial = self.traits.partial || self.config.flag(gguf::ROTATES_AS_SAID)? == Some(true);
        let kind = if slides { SLIDING } else { FULL };
        let mut rope = match self.traits.local_theta {
            None => rope(&self.config, kind, self.d_head, theta, pairing, partial)?,
            Some(local) => {
                let own = self.rotation_of_kind(slides, local)?;
                let base = if slides { local.1 } else { theta };
                rope(&Config::new(&own, &NoTensors), kind, self.d_head, base, pairing, partial)?
            }
        };
        if slides && self.traits.local_theta.is_some() {
            return Ok(rope);
        }
        if let Some(divisors) = self.config.tensor_values(DIVISORS) {
            if divisors.len() != rope.frequencies.len() {
                return Err(ConfigError::unsupported(
                    DIVISORS,
                    format!("{} numbers", divisors.len()),
                    format!("one for each of the {} rotated pairs", rope.frequencies.len()),
                ));
            }
            for (frequency, divisor) in rope.frequencies.iter_mut().zip(divisors) {
                *frequency /= divisor;
            }
        }
        Ok(rope)
    }

    /// The parameters of the rotation where each kind of layers has its own: those of `rope_parameters`; `rope_scaling` counts
    /// more, for layers without a window.
    fn rotation_of_kind(&self, slides: bool, local: (&str, f64)) -> Result<Value, ConfigError> {
        let kind = if slides { SLIDING } else { FULL };
        let all = self.config.section("rope_parameters");
        let mut own = all.and_then(|it| it.section(kind)).map_or_else(Map::new, |it| it.members());
        if let Some(scaling) = self.config.section("rope_scaling").filter(|_| !slides) {
            own.extend(scaling.members());
        }
        let key = if slides { local.0 } else { "rope_theta" };
        if let (None, Some(theta)) = (own.get("rope_theta"), self.config.number(key)?) {
            own.insert("rope_theta".to_owned(), theta.into());
        }
        let mut config = Map::new();
        for key in ["max_position_embeddings", "partial_rotary_factor"] {
            if let Some(value) = self.config.get(key) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        config.insert("rope_parameters".to_owned(), Value::Object(own));
        Ok(Value::Object(config))
    }

    /// A layer's MLP as in Llama.
    pub(super) fn gated(&self, layer: usize) -> Result<Mlp, ConfigError> {
        self.gated_in(layer, "mlp", self.d_mlp).map(Mlp::Dense)
    }

    /// An MLP as in Llama in a module of a layer, with so many hidden numbers.
    pub(super) fn gated_in(
        &self,
        layer: usize,
        module: &str,
        width: usize,
    ) -> Result<FeedForward, ConfigError> {
        let projection = |name: &str, outputs, inputs| {
            self.projection(layer, &format!("{module}.{name}"), self.mlp_bias, outputs, inputs)
        };
        Ok(FeedForward {
            gate: Some(projection("gate_proj", width, self.d_model)),
            up: projection("up_proj", width, self.d_model),
            activation: self.activation()?,
            down: projection("down_proj", self.d_model, width),
        })
    }

    /// A layer's MLP without a gate; `names` are those of its two projections.
    pub(super) fn plain(&self, layer: usize, names: [&str; 2]) -> Result<Mlp, ConfigError> {
        Ok(Mlp::Dense(self.plain_with(layer, names, self.d_mlp, self.activation()?)))
    }

    /// The same with so many hidden numbers and any activation.
    pub(super) fn plain_with(
        &self,
        layer: usize,
        [up, down]: [&str; 2],
        width: usize,
        activation: Activation,
    ) -> FeedForward {
        let projection = |name, outputs, inputs| self.projection(layer, name, self.mlp_bias, outputs, inputs);
        FeedForward {
            gate: None,
            up: projection(up, width, self.d_model),
            activation,
            down: projection(down, self.d_model, width),
        }
    }

    /// A layer's MLP whose gate and up projections lie in one tensor.
    pub(super) fn gated_in_one(&self, layer: usize) -> Result<Mlp, ConfigError> {
        let part = |first| self.part(layer, "mlp.gate_up_proj", first, self.d_mlp, 2 * self.d_mlp);
        Ok(Mlp::Dense(FeedForward {
            gate: Some(part(0)),
            up: part(self.d_mlp),
            ..self.gated_in(layer, "mlp", self.d_mlp)?
        }))
    }

    pub(super) fn activation(&self) -> Result<Activation, ConfigError> {
        let (key, default) = self.traits.activation;
        self.config.word(key, default, ACTIVATIONS)
    }

    /// A block of the two, with norms where `norms` has names.
    pub(super) fn block(
        &self,
        layer: usize,
        mixer: impl Into<Mixer>,
        mlp: Mlp,
        norms: Norms,
    ) -> Result<Block, ConfigError> {
        let norm = |name: Option<&str>| name.map(|it| self.norm(layer, it, self.d_model)).transpose();
        Ok(Block {
            mixer: Branch {
                pre_norm: norm(norms.before_attention)?,
                inner: mixer.into(),
                post_norm: norm(norms.after_attention)?,
                scale: 1.0,
            },
            beside: None,
            mlp: Branch {
                pre_norm: norm(norms.before_mlp)?,
                inner: mlp,
                post_norm: norm(norms.after_mlp)?,
                scale: 1.0,
            },
            arrangement: Arrangement::Sequential,
            update: None,
            laurel: None,
            per_layer: None,
            scale: 1.0,
        })
    }
}

/// Whether a configuration says how heads are rotated, in whichever notation.
pub(super) fn says_how_to_rotate(config: &Config<'_>) -> bool {
    let text = config.section("text_config").unwrap_or(*config);
    said(&text).is_some() || text.get("rope_theta").is_some()
}

/// What `layer_types` calls a layer that sees a window, and one that sees everything.
pub(super) const SLIDING: &str = "sliding_attention";
pub(super) const FULL: &str = "full_attention";

/// Refuses a flag that would make the model another one.
pub(super) fn refuse_flag(config: &Config<'_>, key: &str) -> Result<(), ConfigError> {
    match config.flag(key)? {
        Some(true) => Err(ConfigError::unsupported(key, "true", "`false`")),
        _ => Ok(()),
    }
}

/// How many blocks there are.
fn layers(config: &Config<'_>) -> Result<usize, ConfigError> {
    // No model has a tenth of it; a damaged number must not reserve memory for a billion blocks.
    const MOST: usize = 4096;
    let layers = config.size("num_hidden_layers")?;
    if layers > MOST {
        return Err(ConfigError::unsupported("num_hidden_layers", layers, format!("1 to {MOST}")));
    }
    Ok(layers)
}

/// Far above any model; a damaged number must not reserve memory for tables of rows and frequencies.
pub(super) const WIDEST: usize = 1 << 20;

/// Query heads, key/value heads, width of a head.
pub(super) fn heads(config: &Config<'_>) -> Result<(usize, usize, usize), ConfigError> {
    let n_heads = config.size("num_attention_heads")?;
    let n_kv_heads = if config.get("num_key_value_heads").is_some() {
        config.size("num_key_value_heads")?
    } else {
        n_heads
    };
    let d_head = if config.get("head_dim").is_some() {
        config.size("head_dim")?
    } else {
        config.size("hidden_size")? / n_heads
    };
    if d_head == 0 {
        return Err(ConfigError::unsupported(
            "num_attention_heads",
            n_heads,
            "at most hidden_size, where there is no head_dim",
        ));
    }
    if n_heads.saturating_mul(d_head) > WIDEST {
        return Err(ConfigError::unsupported(
            "num_attention_heads",
            format!("{n_heads} heads of {d_head}"),
            format!("up to {WIDEST} numbers in all heads"),
        ));
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(ConfigError::unsupported(
            "num_key_value_heads",
            n_kv_heads,
            format!("the divisors of num_attention_heads = {n_heads}"),
        ));
    }
    Ok((n_heads, n_kv_heads, d_head))
}
