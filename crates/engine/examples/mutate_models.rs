//! Loads the golden checkpoints with changed configurations, headers and metadata, and computes with what can be loaded.
//!
//! `cargo run --example mutate_models -p ablate-engine -- SEED COUNT [FOLDER]`: an error is as good as an answer; a panic is
//! printed with the seed of the model that caused it, which `-- SEED 1 FOLDER` makes again and leaves in a folder. The seed
//! of the model at hand is in `mutate_models.seed`, for what ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Quantization};
use engine::{Device, Engine, Generation, LoadOptions, Request};
use glossary::TokenId;
use serde_json::{Map, Value, json};

/// A generator of numbers, `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values that no configuration should have, and some that it might.
fn nonsense(chance: &mut Chance) -> Value {
    let all = [
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(7),
        json!(16),
        json!(-3),
        json!(0.5),
        json!(1e300),
        json!(1e-320),
        json!(-1e300),
        json!(1_u64 << 20),
        json!(1_u64 << 31),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("wide"),
        json!("sliding_attention"),
        json!(true),
        json!(false),
        json!([]),
        json!([1, "two", null]),
        json!([0, 1]),
        json!({}),
        json!({"__float__": "Infinity"}),
        json!({"__float__": "NaN"}),
        json!({"rope_type": "yarn", "factor": 0.0, "rope_theta": -1.0}),
        json!({"rope_type": "linear", "factor": 1e-300}),
        json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 1}),
        json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": []}),
        json!({"full_attention": {"rope_type": "default"}, "sliding_attention": null}),
        json!({"quant_method": "fp8"}),
        json!({"quant_method": "gptq", "bits": 4}),
        Value::Null,
    ];
    if chance.below(4) == 0 { json!(chance.below(200)) } else { chance.of(&all).clone() }
}

/// The places of all values within a configuration, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, it)| places(it, &format!("{at}/{key}"), out)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, it)| places(it, &format!("{at}/{i}"), out));
        }
        _ => {}
    }
}

/// Changes a few values of a JSON object; `keys` are those that may be added.
fn spoil(value: &mut Value, keys: &[String], chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        let mut all = Vec::new();
        places(value, "", &mut all);
        all.remove(0);
        if all.is_empty() {
            return;
        }
        let place = chance.of(&all).clone();
        match chance.below(6) {
            0 => {
                let (within, key) = place.rsplit_once('/').unwrap_or(("", ""));
                if let Some(Value::Object(map)) = value.pointer_mut(within) {
                    map.remove(key);
                }
            }
            1 => {
                let other = value.pointer(chance.of(&all).as_str()).cloned();
                if let (Some(here), Some(other)) = (value.pointer_mut(&place), other) {
                    *here = other;
                }
            }
            2 => {
                let (key, added) = (chance.of(keys).clone(), nonsense(chance));
                if let Some(map) = value.as_object_mut() {
                    map.insert(key, added);
                }
            }
            _ => {
                if let Some(here) = value.pointer_mut(&place) {
                    *here = nonsense(chance);
                }
            }
        }
    }
}

/// A safetensors file with a changed header.
fn spoil_header(file: &[u8], chance: &mut Chance) -> Vec<u8> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else { return file.to_vec() };
    let (header, data) = rest.split_at((u64::from_le_bytes(*length) as usize).min(rest.len()));
    let Ok(mut header) = serde_json::from_slice::<Map<String, Value>>(header) else { return file.to_vec() };
    let names: Vec<String> = header.keys().cloned().collect();
    for _ in 0..=chance.below(2) {
        let (name, other) = (chance.of(&names).clone(), chance.of(&names).clone());
        match chance.below(7) {
            0 => drop(header.remove(&name)),
            1 => {
                if let Some(info) = header.remove(&name) {
                    header.insert(other, info);
                }
            }
            2 => {
                let (a, b) = (header.get(&name).cloned(), header.get(&other).cloned());
                if let (Some(a), Some(b)) = (a, b) {
                    header.insert(name, b);
                    header.insert(other, a);
                }
            }
            3 => {
                if let Some(shape) = header.get_mut(&name).and_then(|it| it["shape"].as_array_mut()) {
                    shape.reverse();
                }
            }
            4 => {
                if let Some(shape) = header.get_mut(&name).and_then(|it| it["shape"].as_array_mut()) {
                    let product: u64 = shape.iter().filter_map(Value::as_u64).product();
                    let flat = chance.below(2) == 0;
                    *shape = if flat { vec![json!(product)] } else { vec![json!(1), json!(product)] };
                }
            }
            5 => {
                // Numbers of two bytes for half as many of four, of one for four.
                let dtype = *chance.of(&["F32", "F16", "BF16", "F8_E4M3", "I32", "U8", "I64", "BOOL", "F64"]);
                if let Some(info) = header.get_mut(&name) {
                    let range = [0, 1].map(|it| info["data_offsets"][it].as_u64().unwrap_or(0));
                    let width = match dtype {
                        "F32" | "I32" => 4,
                        "F16" | "BF16" => 2,
                        "I64" | "F64" => 8,
                        _ => 1,
                    };
                    info["dtype"] = dtype.into();
                    let count = range[1].saturating_sub(range[0]) / width;
                    let rows = info["shape"][0].as_u64().filter(|it| *it > 0 && count.is_multiple_of(*it));
                    info["shape"] = rows.map_or(json!([count]), |rows| json!([rows, count / rows]));
                }
            }
            _ => {
                if let Some(info) = header.get_mut(&name) {
                    let key = *chance.of(&["dtype", "shape", "data_offsets"]);
                    info[key] = nonsense(chance);
                }
            }
        }
    }
    // Without gaps again, so that what lies behind is reached.
    let mut data_again = Vec::new();
    if chance.below(4) > 0 {
        for info in header.values_mut().filter(|it| it["data_offsets"].is_array()) {
            let range = [0, 1].map(|it| info["data_offsets"][it].as_u64().unwrap_or(0) as usize);
            if let Some(bytes) = data.get(range[0]..range[1]) {
                info["data_offsets"] = json!([data_again.len(), data_again.len() + bytes.len()]);
                data_again.extend_from_slice(bytes);
            }
        }
    } else {
        data_again = data.to_vec();
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data_again].concat()
}

/// A file with a few bytes or numbers of its first part changed.
fn spoil_bytes(file: &mut [u8], chance: &mut Chance) {
    let reach = file.len().min(if chance.below(2) == 0 { 4096 } else { 1 << 16 });
    for _ in 0..=chance.below(3) {
        let at = chance.below(reach);
        match chance.below(3) {
            0 => file[at] ^= 1 << chance.below(8),
            1 => file[at] = chance.next() as u8,
            _ => {
                let number = *chance.of(&[0, 1, 2, 3, 7, 64, 1 << 20, u64::from(u32::MAX), u64::MAX]);
                let width = *chance.of(&[4, 8]);
                let end = (at + width).min(file.len());
                file[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

/// Copies a model with something changed; where it is then.
fn mutate(model: &Path, keys: &[String], to: &Path, chance: &mut Chance) -> std::io::Result<PathBuf> {
    if model.is_file() {
        let mut file = std::fs::read(model)?;
        spoil_bytes(&mut file, chance);
        let target = to.join("model.gguf");
        std::fs::write(&target, file)?;
        return Ok(target);
    }
    for file in std::fs::read_dir(model)? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default();
        if !name.to_string_lossy().starts_with("golden") {
            std::fs::copy(&file, to.join(name))?;
        }
    }
    let kind = chance.below(4);
    if kind != 1 {
        let path = to.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let text = if config["text_config"].is_object() && chance.below(4) > 0 {
            &mut config["text_config"]
        } else {
            &mut config
        };
        spoil(text, keys, chance);
        std::fs::write(&path, config.to_string())?;
    }
    if kind == 1 || kind == 2 {
        for file in std::fs::read_dir(to)? {
            let file = file?.path();
            if file.extension().is_some_and(|it| it == "safetensors") {
                let bytes = spoil_header(&std::fs::read(&file)?, chance);
                std::fs::write(&file, bytes)?;
            }
        }
    }
    Ok(to.to_owned())
}

/// Loads, and computes a little with what could be loaded.
fn survive(path: &Path, chance: &mut Chance) -> Result<(), String> {
    let checkpoint = Checkpoint::open(path).map_err(|error| error.to_string())?;
    let quantize = match chance.below(6) {
        0 => Some(Quantization::Q8_0),
        1 => Some(Quantization::Q4_K),
        _ => None,
    };
    let device = if chance.below(8) == 0 { Device::Reference } else { Device::Cpu };
    let options = LoadOptions { device, quantize, threads: 1, ..LoadOptions::default() };
    let mut engine =
        Engine::load(&checkpoint, &options, &mut |_, _| {}).map_err(|error| error.to_string())?;
    let vocab = engine.info().vocab as u64;
    let tokens = (0..20).map(|it| TokenId((it * 7 % vocab) as u32)).collect();
    let how = Generation { max_tokens: 2, top: 2, ..Generation::default() };
    let answers = engine.generate(&[Request { tokens, edit: 0 }], &how, &mut |_, _| false);
    answers.map(drop).map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || -> Result<u64, Box<dyn std::error::Error>> {
        Ok(arguments.next().ok_or("SEED COUNT [FOLDER]")?.parse()?)
    };
    let (seed, count) = (number()?, number()?);
    let kept = arguments.next().map(PathBuf::from);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut models = Vec::new();
    for folder in ["golden", "golden_gguf"] {
        for model in std::fs::read_dir(tests.join(folder))? {
            let model = model?.path();
            if model.join("config.json").exists() || model.extension().is_some_and(|it| it == "gguf") {
                models.push(model);
            }
        }
    }
    models.sort();
    let mut keys = Vec::new();
    for model in &models {
        if let Ok(config) = std::fs::read(model.join("config.json")) {
            let config: Value = serde_json::from_slice(&config)?;
            for part in [&config, &config["text_config"]] {
                keys.extend(part.as_object().into_iter().flatten().map(|it| it.0.clone()));
            }
        }
    }
    keys.sort();
    keys.dedup();
    let (mut loaded, mut refused, mut panicked) = (0, 0, 0);
    for seed in seed..seed + count {
        std::fs::write(std::env::temp_dir().join("mutate_models.seed"), seed.to_string())?;
        let mut chance = Chance(seed);
        let model = chance.of(&models).clone();
        let scratch = tempfile::tempdir()?;
        let folder = kept.as_deref().unwrap_or(scratch.path());
        std::fs::create_dir_all(folder)?;
        let path = mutate(&model, &keys, folder, &mut chance)?;
        match catch_unwind(AssertUnwindSafe(|| survive(&path, &mut chance))) {
            Ok(Ok(())) => loaded += 1,
            Ok(Err(_)) => refused += 1,
            Err(_) => {
                panicked += 1;
                report(&format!("seed {seed}: {} panics", model.display()));
            }
        }
    }
    report(&format!("{loaded} computed, {refused} refused, {panicked} panicked"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn report(line: &str) {
    println!("{line}");
}
