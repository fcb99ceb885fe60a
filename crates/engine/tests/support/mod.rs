//! Golden checkpoints: tiny random models and what the reference stack makes of them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod streams;

use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use engine::{Device, DtypeChoice, Engine, LoadOptions, backend::WeightDtype};
use glossary::TokenId;
use serde_json::Value;

/// One golden checkpoint.
pub struct Golden {
    pub name: String,
    pub folder: PathBuf,
    pub facts: Value,
    tensors: Vec<u8>,
}

/// All golden checkpoints, by name: those of the repository, or of the folder that `ABLATE_GOLDENS` names.
pub fn goldens() -> Vec<Golden> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let root = std::env::var_os("ABLATE_GOLDENS").map_or(own, PathBuf::from);
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|it| it.unwrap().path()).filter(|it| it.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "golden checkpoints are part of the repository");
    folders.into_iter().map(|it| Golden::open(&it)).collect()
}

impl Golden {
    pub fn open(folder: &Path) -> Self {
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            facts: serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap(),
            tensors: std::fs::read(folder.join("golden.safetensors")).unwrap(),
        }
    }

    /// A golden tensor's shape and numbers.
    pub fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        read_tensor(&self.tensors, name)
    }

    pub fn prompts(&self) -> Vec<Vec<TokenId>> {
        self.facts["prompts"].as_array().unwrap().iter().map(tokens).collect()
    }

    /// A copy of its folder, to be changed.
    pub fn copied(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&self.folder).unwrap().map(|it| it.unwrap().path()) {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        folder
    }

    pub fn engine(&self, device: Device) -> Engine {
        engine(&self.folder, device)
    }
}

pub fn read_tensor(file: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = safetensors::SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    let numbers = view.data().chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect();
    (view.shape().to_vec(), numbers)
}

/// A model in f32.
pub fn engine(path: &Path, device: Device) -> Engine {
    let dtype = DtypeChoice::Fixed(WeightDtype::F32);
    let options = LoadOptions { device, dtype, threads: 2, ..LoadOptions::default() };
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Engine::load(&checkpoint, &options, &mut |_, _| {})
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn tokens(list: &Value) -> Vec<TokenId> {
    list.as_array().unwrap().iter().map(|it| TokenId(it.as_u64().unwrap() as u32)).collect()
}

pub fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|it| it.as_f64().unwrap() as f32).collect()
}

/// The largest difference of two lists, and where it is.
pub fn largest_difference(a: &[f32], b: &[f32]) -> (f32, usize) {
    assert_eq!(a.len(), b.len());
    let mut worst = (0.0, 0);
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        let difference = (a - b).abs();
        // A NaN is the worst difference of all, not none.
        if difference > worst.0 || difference.is_nan() {
            worst = (if difference.is_nan() { f32::INFINITY } else { difference }, index);
        }
    }
    worst
}

pub fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, b| a.max(b.abs()))
}
