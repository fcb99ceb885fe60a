//! Views of tensors: orders, slices, threads.

use checkpoint::{Checkpoint, CheckpointError, Tensor};
use tempfile::TempDir;

use crate::gguf_builder::{Gguf, Q4_0};

/// `[4, 2]`: row i is (10 i, 10 i + 1).
fn four_rows() -> (TempDir, Tensor) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Gguf::new().floats("w", &[2, 4], &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0]).write(&path);
    let tensor = Checkpoint::open(&path).unwrap().tensor("w").unwrap();
    (folder, tensor)
}

fn first_column(tensor: &Tensor) -> Vec<f32> {
    tensor.to_f32().chunks(tensor.row_len()).map(|row| row[0]).collect()
}

#[test]
fn a_row_order_is_applied_to_rows_and_to_the_whole_but_not_to_bytes() {
    let (_folder, tensor) = four_rows();
    let ordered = tensor.clone().with_row_order(vec![2, 0, 3, 1]);
    assert_eq!(first_column(&ordered), [20.0, 0.0, 30.0, 10.0]);
    let mut row = [0.0; 2];
    ordered.read_row(2, &mut row);
    assert_eq!(row.as_slice(), [30.0, 31.0]);
    assert_eq!(ordered.bytes(), tensor.bytes());
}

#[test]
fn an_order_of_an_order_is_taken_of_the_ordered_rows() {
    let (_folder, tensor) = four_rows();
    let twice = tensor.with_row_order(vec![2, 0, 3, 1]).with_row_order(vec![3, 3, 0, 1]);
    assert_eq!(first_column(&twice), [10.0, 10.0, 20.0, 0.0]);
}

#[test]
fn a_slice_has_its_rows_its_shape_and_its_bytes() {
    let (_folder, tensor) = four_rows();
    let slice = tensor.slice_rows(1..3);
    assert_eq!(slice.shape(), [2, 2]);
    assert_eq!(first_column(&slice), [10.0, 20.0]);
    assert_eq!(slice.bytes(), &tensor.bytes()[8..24]);
    assert_eq!(first_column(&slice.slice_rows(1..2)), [20.0]);
    assert!(tensor.slice_rows(4..4).to_f32().is_empty());
}

#[test]
fn slices_and_orders_combine_either_way() {
    let (_folder, tensor) = four_rows();
    assert_eq!(first_column(&tensor.clone().with_row_order(vec![3, 2, 1, 0]).slice_rows(1..3)), [20.0, 10.0]);
    assert_eq!(first_column(&tensor.slice_rows(1..3).with_row_order(vec![1, 0])), [20.0, 10.0]);
}

#[test]
fn rows_of_a_tensor_with_three_dimensions_run_over_the_first_two() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut blocks = vec![0_u8; 6 * 18];
    (0..6).for_each(|row| blocks[row * 18 + 2] = row as u8); // number 0 of each block is row − 8, scaled
    (0..6).for_each(|row| blocks[row * 18..][..2].copy_from_slice(&half::f16::ONE.to_le_bytes()));
    Gguf::new().tensor("experts", &[32, 3, 2], Q4_0, &blocks).write(&path);
    let tensor = Checkpoint::open(&path).unwrap().tensor("experts").unwrap();
    assert_eq!((tensor.shape(), tensor.rows(), tensor.row_len()), (&[2, 3, 32][..], 6, 32));
    assert_eq!(first_column(&tensor.slice_rows(3..6)), [-5.0, -4.0, -3.0]); // the second expert
}

#[test]
fn a_wrong_shape_is_told_with_both_shapes() {
    let (_folder, tensor) = four_rows();
    assert!(tensor.expect_shape(&[4, 2]).is_ok());
    let error = tensor.expect_shape(&[2, 4]).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: expected shape [2, 4], found [4, 2]");
    assert!(matches!(error, CheckpointError::Shape { .. }));
}

#[test]
fn a_tensor_is_read_and_released_from_several_threads_at_once() {
    let (_folder, tensor) = four_rows();
    std::thread::scope(|scope| {
        for row in 0..4_u8 {
            let tensor = tensor.clone();
            scope.spawn(move || {
                let mut out = [0.0; 2];
                for _ in 0..200 {
                    tensor.read_row(row.into(), &mut out);
                    tensor.release();
                    assert_eq!(out.as_slice(), [f32::from(row) * 10.0, f32::from(row) * 10.0 + 1.0]);
                }
            });
        }
    });
}

/// How much of a mapped file is in this process's memory, in KiB, as the kernel counts it.
#[cfg(target_os = "linux")]
fn resident(path: &std::path::Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_released_tensor_leaves_memory_and_comes_back_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let values = vec![0.5; 1 << 20]; // 4096 KiB
    Gguf::new().floats("kept", &[1 << 20], &values).floats("released", &[1 << 20], &values).write(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let [kept, released] = ["kept", "released"].map(|it| checkpoint.tensor(it).unwrap());
    assert!(kept.to_f32() == values && released.to_f32() == values);
    assert!(resident(&path) >= 8192, "{} KiB", resident(&path));
    released.release();
    assert!((4000..4400).contains(&resident(&path)), "{} KiB", resident(&path));
    assert!(released.to_f32() == values);
}

#[test]
fn rows_without_numbers_cost_nothing_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Gguf::new().info("none", &[0, 1 << 62], 0, 0).write(&path);
    let tensor = Checkpoint::open(&path).unwrap().tensor("none").unwrap();
    assert_eq!((tensor.rows(), tensor.row_len()), (1 << 62, 0));
    assert!(tensor.to_f32().is_empty());
    tensor.read_row(12345, &mut []);
}

#[test]
#[should_panic(expected = "tensor `w` has 4 rows, row 4 was asked for")]
fn a_row_that_does_not_exist_is_the_callers_mistake() {
    four_rows().1.read_row(4, &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "tensor `w` has 4 rows, the order names row 4")]
fn an_order_with_a_row_that_does_not_exist_is_the_callers_mistake() {
    let _ = four_rows().1.with_row_order(vec![0, 1, 2, 4]);
}

#[test]
#[should_panic(expected = "tensor `w` has 4 rows, rows 3..5 were asked for")]
fn a_slice_that_does_not_exist_is_the_callers_mistake() {
    let _ = four_rows().1.slice_rows(3..5);
}

#[test]
fn a_transposed_tensor_has_the_columns_as_rows() {
    let (_folder, tensor) = four_rows();
    let columns = tensor.slice_rows(1..4).transposed();
    assert_eq!(columns.shape(), [2, 3]);
    assert_eq!(columns.to_f32(), [10.0, 20.0, 30.0, 11.0, 21.0, 31.0]);
    assert_eq!(columns.slice_rows(1..2).to_f32(), [11.0, 21.0, 31.0]);
    assert_eq!(tensor.transposed().stepped_rows(1, 5, 1).to_f32(), [1.0, 11.0, 21.0, 31.0]);
}

#[test]
fn every_second_row_is_a_tensor_of_its_own() {
    let (_folder, tensor) = four_rows();
    assert_eq!(first_column(&tensor.stepped_rows(1, 2, 2)), [10.0, 30.0]);
    assert_eq!(first_column(&tensor.with_row_order(vec![3, 2, 1, 0]).stepped_rows(0, 2, 2)), [30.0, 10.0]);
}

#[test]
fn some_columns_are_a_tensor_of_their_own() {
    let (_folder, tensor) = four_rows();
    let second = tensor.slice_columns(1..2);
    assert_eq!((second.shape(), second.to_f32()), (&[4, 1][..], vec![1.0, 11.0, 21.0, 31.0]));
    assert_eq!(second.slice_rows(1..3).to_f32(), [11.0, 21.0]);
    assert_eq!(tensor.slice_rows(2..4).slice_columns(0..1).to_f32(), [20.0, 30.0]);
}

#[test]
#[should_panic(expected = "tensor `w` has 2 columns, columns 1..3 were asked for")]
fn columns_that_do_not_exist_are_the_callers_mistake() {
    let _ = four_rows().1.slice_columns(1..3);
}

/// Two experts of two rows of 32 numbers: every number of row i is 2^i.
fn microscaled() -> (TempDir, Checkpoint) {
    use safetensors::tensor::{Dtype, TensorView};
    let folder = tempfile::tempdir().unwrap();
    let (blocks, scales) = ([0x22_u8; 64], [127_u8, 128, 129, 130]);
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::U8, shape.to_vec(), bytes).unwrap();
    let tensors = [("b", view(&[2, 2, 1, 16], &blocks[..])), ("s", view(&[2, 2, 1], &scales))];
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

#[test]
fn microscaled_blocks_are_cut_into_experts_and_rows_with_their_scales() {
    let (_folder, checkpoint) = microscaled();
    let (blocks, scales) = (checkpoint.tensor("b").unwrap(), checkpoint.tensor("s").unwrap());
    let tensor = Tensor::microscaled(&blocks, &scales).unwrap();
    assert_eq!((tensor.shape(), tensor.name()), (&[2, 2, 32][..], "b"));
    assert_eq!(first_column(&tensor), [1.0, 2.0, 4.0, 8.0]);
    assert_eq!(first_column(&tensor.slice_rows(2..4)), [4.0, 8.0]);
    assert_eq!(first_column(&tensor.slice_rows(1..4).slice_rows(1..3)), [4.0, 8.0]);
    assert_eq!(first_column(&tensor.slice_rows(1..4).stepped_rows(0, 2, 2)), [2.0, 8.0]);
    let error = Tensor::microscaled(&blocks, &scales.slice_rows(0..2)).unwrap_err();
    assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
    let error = Tensor::microscaled(&scales, &scales).unwrap_err();
    assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
    let (_other, plain) = four_rows();
    let error = Tensor::microscaled(&plain, &scales).unwrap_err();
    assert!(error.to_string().contains("F32"), "{error}");
}
