//! What is written with the reference crates is read back, whatever it is; and no bytes make a reader panic.

use checkpoint::gguf::Header as GgufHeader;
use checkpoint::hugging_face::Header as SafetensorsHeader;
use checkpoint::{Checkpoint, TensorDtype};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::folders::folder;
use crate::gguf_builder::{ARRAY, Gguf, Q4_0, STRING, array, string};

/// The plain types as the crate writes them, and as they are read.
const TYPES: [(Dtype, TensorDtype, u32); 7] = [
    (Dtype::F64, TensorDtype::F64, 28),
    (Dtype::F32, TensorDtype::F32, 0),
    (Dtype::F16, TensorDtype::F16, 1),
    (Dtype::BF16, TensorDtype::BF16, 30),
    (Dtype::I8, TensorDtype::I8, 24),
    (Dtype::I32, TensorDtype::I32, 26),
    (Dtype::I64, TensorDtype::I64, 27),
];

/// The slow way to decode one number.
fn decode_one(dtype: Dtype, bytes: &[u8]) -> f32 {
    match dtype {
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()) as f32,
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Dtype::BF16 => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Dtype::I8 => f32::from(i8::from_le_bytes(bytes.try_into().unwrap())),
        Dtype::I32 => i32::from_le_bytes(bytes.try_into().unwrap()) as f32,
        Dtype::I64 => i64::from_le_bytes(bytes.try_into().unwrap()) as f32,
        other => panic!("{other}"),
    }
}

fn assert_same(found: &[f32], dtype: Dtype, bytes: &[u8]) {
    let expected = bytes.chunks(dtype.bitsize() / 8).map(|it| decode_one(dtype, it));
    assert_eq!(found.len(), bytes.len() / (dtype.bitsize() / 8));
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
    }
}

fn tensors() -> impl Strategy<Value = Vec<(usize, Vec<usize>, Vec<u8>)>> {
    let tensor = (0..TYPES.len(), prop::collection::vec(0_usize..5, 0..4)).prop_flat_map(|(kind, shape)| {
        let length = shape.iter().product::<usize>() * TYPES[kind].0.bitsize() / 8;
        (Just(kind), Just(shape), prop::collection::vec(any::<u8>(), length))
    });
    prop::collection::vec(tensor, 0..6)
}

/// Files that are as they should be, for breaking.
fn good_gguf() -> Vec<u8> {
    Gguf::new()
        .text("general.architecture", "test")
        .number("general.alignment", 32)
        .entry("tokens", ARRAY, &[array(STRING, 2), string("a"), string("b")].concat())
        .floats("a", &[4, 2], &[1.0; 8])
        .tensor("b", &[32], Q4_0, &[3; 18])
        .bytes()
}

fn good_safetensors() -> Vec<u8> {
    let bytes = [0; 24];
    let views = [
        ("a", TensorView::new(Dtype::F32, vec![2, 3], &bytes).unwrap()),
        ("b", TensorView::new(Dtype::BF16, vec![12], &bytes).unwrap()),
        ("c", TensorView::new(Dtype::U8, vec![0, 5], &[]).unwrap()),
    ];
    safetensors::serialize(views, None).unwrap()
}

/// Changes some bytes and perhaps the length.
fn broken(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let interesting = prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)];
    let changes = prop::collection::vec((0..good.len(), interesting), 0..6);
    (changes, 0..good.len() * 8).prop_map(move |(changes, length)| {
        let mut file = good.clone();
        for &(place, byte) in &changes {
            file[place] = byte;
        }
        file.truncate(length); // seven times in eight beyond the end
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_folder_written_by_the_crate_is_read_back(tensors in tensors()) {
        let folder = folder();
        let names: Vec<String> = (0..tensors.len()).map(|it| format!("t{it}")).collect();
        let views = names.iter().zip(&tensors).map(|(name, (kind, shape, bytes))| {
            (name, TensorView::new(TYPES[*kind].0, shape.clone(), bytes).unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        prop_assert_eq!(checkpoint.names().count(), tensors.len());
        for (name, (kind, shape, bytes)) in names.iter().zip(&tensors) {
            let tensor = checkpoint.tensor(name).unwrap();
            prop_assert_eq!((tensor.shape(), tensor.dtype()), (shape.as_slice(), TYPES[*kind].1));
            prop_assert_eq!(tensor.bytes(), bytes);
            assert_same(&tensor.to_f32(), TYPES[*kind].0, bytes);
        }
    }

    #[test]
    fn a_gguf_file_is_read_back(tensors in tensors()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut file = Gguf::new();
        for (place, (kind, shape, bytes)) in tensors.iter().enumerate() {
            let dimensions: Vec<u64> = shape.iter().rev().map(|&it| it as u64).collect();
            file = file.tensor(&format!("t{place}"), &dimensions, TYPES[*kind].2, bytes);
        }
        file.write(&path);
        let checkpoint = Checkpoint::open(&path).unwrap();
        for (place, (kind, shape, bytes)) in tensors.iter().enumerate() {
            let tensor = checkpoint.tensor(&format!("t{place}")).unwrap();
            prop_assert_eq!((tensor.shape(), tensor.dtype()), (shape.as_slice(), TYPES[*kind].1));
            assert_same(&tensor.to_f32(), TYPES[*kind].0, bytes);
        }
    }

    #[test]
    fn a_broken_gguf_file_is_read_or_refused_and_never_leads_out_of_itself(file in broken(good_gguf())) {
        if let Ok(header) = GgufHeader::parse(&file) {
            for tensor in header.tensors {
                prop_assert!(tensor.range.end <= file.len());
            }
        }
    }

    #[test]
    fn a_broken_safetensors_file_is_accepted_when_the_crate_accepts_it(file in broken(good_safetensors())) {
        let (ours, theirs) = (SafetensorsHeader::parse(&file), SafeTensors::deserialize(&file));
        let twice = ours.as_ref().is_err_and(|it| it.to_string().contains("appears twice"));
        prop_assert!(ours.is_ok() == theirs.is_ok() || twice, "{:?} {:?}", ours, theirs);
    }
}
