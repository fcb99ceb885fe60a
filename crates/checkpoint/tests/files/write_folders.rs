//! Hugging Face folders that are written.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use checkpoint::write::{
    Progress, Replacement, Replacements, Settings, ShardSize, WriteError, Written, write_model,
};
use checkpoint::{Checkpoint, TensorDtype};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::folders::{folder, sharded, write_shard};

/// Writes without asking to stop.
pub(crate) fn write(
    from: &Path,
    replacements: &Replacements,
    to: &Path,
    settings: &Settings,
) -> Result<Written, WriteError> {
    write_model(&Checkpoint::open(from).unwrap(), replacements, to, settings, &mut |_| {
        ControlFlow::Continue(())
    })
}

/// A replacement by the numbers of a function of row and column.
pub(crate) fn numbers<'a>(shape: &[usize], number: impl Fn(usize, usize) -> f64 + 'a) -> Replacement<'a> {
    let row_len = shape.last().copied().unwrap_or(1);
    Replacement::new(shape.to_vec(), move |first, out| {
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_len)) {
            out.iter_mut().enumerate().for_each(|(column, it)| *it = number(row, column));
        }
    })
}

fn one(name: &str, replacement: Replacement<'static>) -> Replacements<'static> {
    BTreeMap::from([(name.to_owned(), replacement)])
}

fn shards_of(bytes: u64) -> Settings {
    Settings { max_shard_size: ShardSize::from_bytes(bytes).unwrap(), ..Settings::default() }
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn shards_hold_as_many_tensors_as_fit_and_the_index_says_where() {
    let (from, to) = (sharded(), tempfile::tempdir().unwrap());
    let target = to.path().join("model");
    // a: 4 bytes, b: 8 bytes, c: 4 bytes.
    let written = write(from.path(), &Replacements::new(), &target, &shards_of(12)).unwrap();
    let names = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names_in(&target), names);
    assert_eq!((written.tensor_bytes, written.left_out.len()), (16, 0));
    assert_eq!(written.files, [1, 2, 3, 0].map(|it| target.join(names[it])));
    let index: Value = serde_json::from_slice(&fs::read(target.join(names[3])).unwrap()).unwrap();
    let expected = json!({
        "metadata": {"total_size": 16},
        "weight_map": {"a": names[1], "b": names[1], "c": names[2]},
    });
    assert_eq!(index, expected);
    let checkpoint = Checkpoint::open(&target).unwrap();
    assert_eq!(checkpoint.tensor("b").unwrap().to_f32(), [2.0, 3.0]);
    assert_eq!(checkpoint.tensor("c").unwrap().file(), target.join(names[2]));
}

#[test]
fn what_fits_into_one_file_is_one_and_a_tensor_larger_than_a_shard_has_one_for_itself() {
    let (from, to) = (sharded(), tempfile::tempdir().unwrap());
    let single = to.path().join("single");
    write(from.path(), &Replacements::new(), &single, &shards_of(16)).unwrap();
    assert_eq!(names_in(&single), ["config.json", "model.safetensors"]);
    let many = to.path().join("many");
    write(from.path(), &Replacements::new(), &many, &shards_of(1)).unwrap();
    assert_eq!(names_in(&many).len(), 5, "{:?}", names_in(&many));
}

#[test]
fn a_written_file_says_that_it_is_for_pytorch_and_its_data_are_aligned() {
    let from = folder();
    let (odd, wide) = ([1_u8; 3], [0_u8; 8]);
    let views = [
        ("odd", TensorView::new(Dtype::U8, vec![3], &odd).unwrap()),
        ("wide", TensorView::new(Dtype::F64, vec![1], &wide).unwrap()),
    ];
    fs::write(from.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("model");
    write(from.path(), &Replacements::new(), &target, &Settings::default()).unwrap();
    let file = fs::read(target.join("model.safetensors")).unwrap();
    let (header_len, metadata) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!((8 + header_len) % 8, 0);
    assert_eq!(metadata.info("wide").unwrap().data_offsets, (0, 8));
    assert_eq!(metadata.info("odd").unwrap().data_offsets, (8, 11));
}

#[test]
fn side_files_are_copied_byte_for_byte_and_other_weights_left_out() {
    let from = folder();
    let put = |name: &str, bytes: &[u8]| {
        let path = from.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write_shard(&from.path().join("model.safetensors"), &[("w", &[1.0])]);
    put("vocab.txt", b"{}\r\n \xff");
    put("additional_chat_templates/tool_use.jinja", b"x");
    put("README.md", b"theirs");
    put(".git/HEAD", b"ref");
    for weights in ["pytorch_model.bin", "model.gguf", "original/consolidated.00.pth"] {
        put(weights, b"weights");
    }
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("model");
    let written = write(from.path(), &Replacements::new(), &target, &Settings::default()).unwrap();
    assert_eq!(
        names_in(&target),
        ["README.md", "additional_chat_templates", "config.json", "model.safetensors", "vocab.txt"]
    );
    assert_eq!(fs::read(target.join("vocab.txt")).unwrap(), b"{}\r\n \xff");
    assert_eq!(fs::read(target.join("additional_chat_templates/tool_use.jinja")).unwrap(), b"x");
    assert_eq!(fs::read(target.join("README.md")).unwrap(), b"theirs");
    let left_out = ["model.gguf", "original/consolidated.00.pth", "pytorch_model.bin"];
    assert_eq!(written.left_out, left_out.map(|it| from.path().join(it)));

    let card = Settings { model_card: Some("ours".to_owned()), ..Settings::default() };
    let target = to.path().join("with a card");
    write(from.path(), &Replacements::new(), &target, &card).unwrap();
    assert_eq!(fs::read(target.join("README.md")).unwrap(), b"ours");
}

#[cfg(unix)]
#[test]
fn links_of_the_hubs_cache_are_followed_and_one_that_leads_nowhere_is_an_error() {
    let cache = tempfile::tempdir().unwrap();
    let (from, blobs) = (cache.path().join("snapshots/0123"), cache.path().join("blobs"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir(&blobs).unwrap();
    write_shard(&blobs.join("0a1b"), &[("w", &[1.0])]);
    fs::write(blobs.join("2c3d"), "merges").unwrap();
    fs::write(blobs.join("4e5f"), "{}").unwrap();
    let link = |blob: &str, name: &str| {
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), from.join(name)).unwrap();
    };
    link("0a1b", "model.safetensors");
    link("2c3d", "merges.txt");
    link("4e5f", "config.json");
    let to = tempfile::tempdir().unwrap();
    let model = to.path().join("model");
    let written = write(&from, &Replacements::new(), &model, &Settings::default()).unwrap();
    assert_eq!((written.left_out.len(), written.links_out.len()), (0, 0));
    assert!(!model.join("merges.txt").is_symlink());
    assert_eq!(fs::read_to_string(model.join("merges.txt")).unwrap(), "merges");
    fs::remove_file(blobs.join("2c3d")).unwrap();
    let error = write(&from, &Replacements::new(), &to.path().join("other"), &Settings::default());
    assert!(error.unwrap_err().to_string().contains("merges.txt"));
    assert_eq!(names_in(to.path()), ["model"]);
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_folder_are_not_copied_and_are_named_with_what_they_lead_to() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let (from, secret) = (root.path().join("model"), root.path().join("secret"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::create_dir(root.path().join("private")).unwrap();
    fs::write(root.path().join("private/key.txt"), "secret").unwrap();
    fs::write(&secret, "secret").unwrap();
    fs::write(from.join("config.json"), "{}").unwrap();
    fs::write(from.join("NOTICE"), "notice").unwrap();
    // Weights may lie on another disk.
    write_shard(&root.path().join("weights"), &[("w", &[1.0])]);
    symlink("../weights", from.join("model.safetensors")).unwrap();
    symlink("../secret", from.join("LICENSE")).unwrap();
    symlink(&secret, from.join("sub/x.txt")).unwrap();
    symlink("LICENSE", from.join("COPYING")).unwrap();
    symlink("../private", from.join("docs")).unwrap();
    symlink("NOTICE", from.join("NOTICE.md")).unwrap();
    symlink("../secret", from.join("README.md")).unwrap();
    let target = root.path().join("edited");
    let written = write(&from, &Replacements::new(), &target, &Settings::default()).unwrap();
    assert_eq!(names_in(&target), ["NOTICE", "NOTICE.md", "config.json", "model.safetensors"]);
    assert_eq!(fs::read_to_string(target.join("NOTICE.md")).unwrap(), "notice");
    let secret = fs::canonicalize(&secret).unwrap();
    let private = secret.with_file_name("private");
    let out = ["COPYING", "LICENSE", "README.md", "docs", "sub/x.txt"];
    let leads = |name: &str| if name == "docs" { private.clone() } else { secret.clone() };
    assert_eq!(written.links_out, out.map(|it| (from.join(it), leads(it))));
}

#[cfg(unix)]
#[test]
fn a_text_of_the_model_that_is_a_link_out_of_its_folder_is_refused_by_name() {
    use std::os::unix::fs::symlink;
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates",
    ] {
        let from = folder();
        write_shard(&from.path().join("model.safetensors"), &[("w", &[1.0])]);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x.json"), r#"{"auths": "secret"}"#).unwrap();
        let link = from.path().join(name);
        drop(fs::remove_file(&link));
        let target = if name.contains('.') { outside.path().join("x.json") } else { outside.path().into() };
        symlink(&target, &link).unwrap();
        let error = Checkpoint::open(from.path()).unwrap_err().to_string();
        assert!(error.contains(link.to_str().unwrap()) && error.contains("leads out of"), "{name}: {error}");
        assert!(error.contains("\n\nhint: ") && !error.contains("secret"), "{name}: {error}");
        // The same text as a file, or as a link to a file of the folder, is fine.
        fs::remove_file(&link).unwrap();
        if target.is_file() {
            fs::copy(&target, from.path().join("own")).unwrap();
            symlink("own", &link).unwrap();
            Checkpoint::open(from.path()).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_nothing_behind() {
    let from = folder();
    let (half, byte) = ([0_u8; 12], [0_u8; 4]);
    let views = [
        ("half", TensorView::new(Dtype::F16, vec![3, 2], &half).unwrap()),
        ("byte", TensorView::new(Dtype::F8_E4M3, vec![4], &byte).unwrap()),
    ];
    fs::write(from.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let to = tempfile::tempdir().unwrap();
    let refused = |replacements: &Replacements| {
        let error =
            write(from.path(), replacements, &to.path().join("model"), &Settings::default()).unwrap_err();
        assert_eq!(names_in(to.path()), [""; 0], "{error}");
        error.to_string()
    };
    let error = refused(&one("haIf", numbers(&[3, 2], |_, _| 0.0)));
    assert!(error.starts_with("there is no tensor `haIf` in"), "{error}");
    let error = refused(&one("half", numbers(&[2, 3], |_, _| 0.0)));
    assert_eq!(error, "tensor `half`: its replacement has shape [2, 3], expected [3, 2]");
    let error = refused(&one("byte", numbers(&[4], |_, _| 0.0)));
    assert!(error.starts_with("tensor `byte` is stored as F8_E4M3, only F64, F32, F16 and BF16"), "{error}");
    let too_large = |row, column| if (row, column) == (2, 1) { -65520.0 } else { 65504.0 };
    let error = refused(&one("half", numbers(&[3, 2], too_large)));
    assert!(
        error.starts_with("tensor `half`, row 2, column 1: `-6.552e4` has no finite value as F16"),
        "{error}"
    );
    let error = refused(&one("half", numbers(&[3, 2], |_, _| f64::NAN)));
    assert!(error.starts_with("tensor `half`, row 0, column 0: `NaN` has no finite value as F16"), "{error}");
}

#[test]
fn a_cancelled_write_leaves_nothing_behind() {
    let (from, to) = (sharded(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::open(from.path()).unwrap();
    let mut seen = Vec::new();
    let mut stop_at_12 = |progress: Progress| {
        seen.push(progress);
        if progress.done == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let target = to.path().join("model");
    let error =
        write_model(&checkpoint, &Replacements::new(), &target, &shards_of(4), &mut stop_at_12).unwrap_err();
    assert!(matches!(error, WriteError::Cancelled), "{error}");
    assert_eq!(seen, [4, 12].map(|done| Progress { done, total: 16 }));
    assert_eq!(names_in(to.path()), [""; 0]);
}

#[test]
fn what_stands_at_the_target_stays_unless_it_is_an_empty_folder() {
    let (from, to) = (sharded(), tempfile::tempdir().unwrap());
    let again = write(from.path(), &Replacements::new(), from.path(), &Settings::default());
    assert!(matches!(again, Err(WriteError::Exists { .. })), "{again:?}");
    write(from.path(), &Replacements::new(), to.path(), &Settings::default()).unwrap();
    assert_eq!(names_in(to.path()), ["config.json", "model.safetensors"]);
}

#[test]
fn a_tensor_of_a_type_that_cannot_be_decoded_is_copied() {
    let from = folder();
    let header = r#"{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0x21]].concat();
    fs::write(from.path().join("model.safetensors"), file).unwrap();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("model");
    write(from.path(), &Replacements::new(), &target, &Settings::default()).unwrap();
    let file = fs::read(target.join("model.safetensors")).unwrap();
    let tensor =
        SafeTensors::deserialize(&file).unwrap().tensor("w").map(|it| (it.dtype(), it.data().to_vec()));
    assert_eq!(tensor.unwrap(), (Dtype::F4, vec![0x21]));
}

/// A tensor of a random checkpoint, and whether it is replaced.
#[derive(Clone, Debug)]
struct Random {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
    replaced: bool,
    shard: usize,
}

fn random_tensors() -> impl Strategy<Value = Vec<Random>> {
    let types = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I8, Dtype::BOOL, Dtype::I64];
    let tensor = (
        prop::sample::select(types.to_vec()),
        prop::collection::vec(0_usize..5, 0..4),
        any::<bool>(),
        0..2_usize,
    )
        .prop_flat_map(|(dtype, shape, replaced, shard)| {
            let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            prop::collection::vec(any::<u8>(), length).prop_map(move |bytes| Random {
                dtype,
                shape: shape.clone(),
                bytes,
                replaced: replaced && !matches!(dtype, Dtype::I8 | Dtype::BOOL | Dtype::I64),
                shard,
            })
        });
    prop::collection::vec(tensor, 1..7)
}

/// Writes a random checkpoint, in two shards if its tensors say so.
fn put(tensors: &[Random], folder: &Path) {
    let name = |it: usize| format!("t{it}");
    let in_shard = |shard| {
        let views = tensors.iter().enumerate().filter(move |(_, it)| it.shard == shard).map(|(place, it)| {
            (name(place), TensorView::new(it.dtype, it.shape.clone(), &it.bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    };
    for shard in (0..2).filter(|shard| tensors.iter().any(|it| it.shard == *shard)) {
        fs::write(folder.join(format!("m{shard}.safetensors")), in_shard(shard)).unwrap();
    }
    let map: BTreeMap<String, String> = tensors
        .iter()
        .enumerate()
        .map(|(place, it)| (name(place), format!("m{}.safetensors", it.shard)))
        .collect();
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// What the new tensors hold: exact in every type.
fn new_number(row: usize, column: usize) -> f64 {
    row as f64 - 0.5 * column as f64
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_written_folder_reads_back_as_the_input_with_the_new_numbers(tensors in random_tensors(), most in 1_u64..400) {
        let (from, to) = (folder(), tempfile::tempdir().unwrap());
        put(&tensors, from.path());
        let replaced = tensors.iter().enumerate().filter(|(_, it)| it.replaced);
        let replacements: Replacements =
            replaced.map(|(place, it)| (format!("t{place}"), numbers(&it.shape, new_number))).collect();
        let target = to.path().join("model");
        let written = write(from.path(), &replacements, &target, &shards_of(most)).unwrap();
        prop_assert_eq!(written.left_out.len(), 0);
        let (input, output) = (Checkpoint::open(from.path()).unwrap(), Checkpoint::open(&target).unwrap());
        prop_assert_eq!(output.names().count(), tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            let name = format!("t{place}");
            let (before, after) = (input.tensor(&name).unwrap(), output.tensor(&name).unwrap());
            prop_assert_eq!((before.shape(), before.dtype()), (after.shape(), after.dtype()));
            if tensor.replaced {
                let row_len = after.row_len();
                let expected: Vec<f32> = (0..after.shape().iter().product())
                    .map(|it: usize| new_number(it / row_len, it % row_len) as f32).collect();
                prop_assert_eq!(after.to_f32(), expected);
            } else {
                prop_assert_eq!(before.bytes(), after.bytes());
            }
        }
        // No file is larger than asked for unless it holds one tensor.
        for file in names_in(&target).iter().filter(|it| it.ends_with(".safetensors")) {
            let bytes = fs::read(target.join(file)).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let size: usize = file.tensors().iter().map(|(_, it)| it.data().len()).sum();
            let with_content = file.tensors().iter().filter(|(_, it)| !it.data().is_empty()).count();
            prop_assert!(size as u64 <= most || with_content == 1);
        }
    }
}

#[test]
fn rows_are_asked_for_in_pieces_that_cover_a_large_tensor_once() {
    // 3000 rows of 1000 numbers are several pieces.
    let from = folder();
    let bytes = vec![0; 3000 * 1000 * 2];
    let view = TensorView::new(Dtype::BF16, vec![3, 1000, 1000], &bytes).unwrap();
    fs::write(from.path().join("model.safetensors"), safetensors::serialize([("w", view)], None).unwrap())
        .unwrap();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("model");
    let number = |row: usize, column: usize| f64::from(((row * 7 + column) % 200) as u8);
    write(from.path(), &one("w", numbers(&[3, 1000, 1000], number)), &target, &Settings::default()).unwrap();
    let tensor = Checkpoint::open(&target).unwrap().tensor("w").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (TensorDtype::BF16, &[3, 1000, 1000][..]));
    let found = tensor.to_f32();
    let expected: Vec<f32> = (0..3_000_000).map(|it| number(it / 1000, it % 1000) as f32).collect();
    assert!(found == expected);
}
