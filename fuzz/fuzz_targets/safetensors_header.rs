//! Whatever bytes a safetensors file holds, its header is read or refused as the reference crate does (but for names
//! that appear twice, of which that keeps the last), with the same tensors, and every tensor decodes.

#![no_main]

use checkpoint::hugging_face::Header;
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

fuzz_target!(|file: &[u8]| {
    let reference = SafeTensors::deserialize(file);
    let header = match Header::parse(file) {
        Ok(header) => header,
        Err(error) => {
            let twice = error.to_string().contains("appears twice");
            assert!(twice || reference.is_err(), "refused: {error}");
            return;
        }
    };
    let reference = reference.expect("what is accepted here is accepted by the reference crate");
    assert_eq!(header.tensors.len(), reference.len());
    for tensor in &header.tensors {
        let bytes = &file[tensor.range.clone()];
        let expected = reference.tensor(&tensor.name).expect("both have the same names");
        assert_eq!(
            (bytes, &*tensor.shape, tensor.stored),
            (expected.data(), expected.shape(), expected.dtype())
        );
        if let Some(dtype) = tensor.dtype() {
            let elements: usize = tensor.shape.iter().product();
            dtype.decode(bytes, &mut vec![0.0; elements]);
        }
    }
});
