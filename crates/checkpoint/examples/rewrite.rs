//! Writes a model again with one tensor doubled: `rewrite INPUT OUTPUT TENSOR [SHARD_SIZE]`.
//!
//! `tools/written_model_check.py` reads the result with the reference readers.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use checkpoint::Checkpoint;
use checkpoint::write::{Replacement, Replacements, Settings, write_model};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, name, rest @ ..] = arguments.as_slice() else {
        return Err("usage: rewrite INPUT OUTPUT TENSOR [SHARD_SIZE]".into());
    };
    let checkpoint = Checkpoint::open(Path::new(input))?;
    let tensor = checkpoint.tensor(name)?;
    let doubled = Replacement::new(tensor.shape().to_vec(), |first, out| {
        let mut row = vec![0.0; tensor.row_len()];
        for (number, out) in (first..).zip(out.chunks_exact_mut(tensor.row_len())) {
            tensor.read_row(number, &mut row);
            for (out, &it) in out.iter_mut().zip(&row) {
                *out = 2.0 * f64::from(it);
            }
        }
    });
    let mut settings = Settings::default();
    if let [size] = rest {
        settings.max_shard_size = size.parse()?;
    }
    let replacements = Replacements::from([(name.clone(), doubled)]);
    write_model(
        &checkpoint,
        &replacements,
        Path::new(output),
        &settings,
        &mut |_| ControlFlow::Continue(()),
    )?;
    Ok(())
}
