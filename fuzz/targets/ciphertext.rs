//! A ciphertext: any client may send any bytes to be unwrapped.
#![no_main]

use signet::ciphertext::derived::{Header, device_input, open, seal};
use signet::types::Context;

libfuzzer_sys::fuzz_target!(|input: ([u8; 32], &[u8])| {
    let (ikm, blob) = input;
    let context = Context::default().hash();
    if let Ok(enc) = signet::ciphertext::hpke::enc(blob) {
        assert!(enc.len() == 1088 || signet::types::is_point(enc));
    }
    let _ = signet::ciphertext::oaep::encrypted_seed(blob);
    let _ = signet::ciphertext::gcm::to_open(blob, &context);
    let _ = signet::types::CipherCall::parse(blob);
    let said = signet::types::SecretBytes::new(blob.to_vec());
    assert!(signet::ciphertext::gcm::open(&said, blob, &context).is_err());
    let Ok((header, _)) = Header::parse(blob) else {
        assert!(open(&ikm, blob, &context).is_err());
        return;
    };
    assert!(blob.starts_with(&header.encode()));
    let _ = device_input(&header, &context);
    // Nobody finds a blob that opens but by sealing it.
    assert!(open(&ikm, blob, &context).is_err());
    let sealed = seal(&ikm, &header, &context, &blob[Header::LEN..]).unwrap();
    assert_eq!(open(&ikm, &sealed, &context).unwrap().expose(), &blob[Header::LEN..]);
});
