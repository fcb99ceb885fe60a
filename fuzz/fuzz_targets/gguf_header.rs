//! Whatever bytes a GGUF file holds, its header is read or refused, what it names lies within the file, no two
//! tensors share a byte, and every tensor decodes.

#![no_main]

use checkpoint::gguf::{Header, StoredType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(header) = Header::parse(file) else { return };
    let mut ranges = Vec::new();
    for tensor in &header.tensors {
        let bytes = &file[tensor.range.clone()];
        let StoredType::Decoded(dtype) = tensor.stored else { continue };
        let elements: usize = tensor.shape.iter().product();
        let mut numbers = vec![0.0; elements];
        dtype.decode(bytes, &mut numbers);
        if !bytes.is_empty() {
            ranges.push(tensor.range.clone());
        }
    }
    ranges.sort_by_key(|it| it.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
});
