//! What the audit log hands out, as whoever checks it reads it: proofs, receipts, paths of tiles, and the receiver of notices.
#![no_main]

use signet::audit::proof::{Consistency, Proof};
use signet::audit::tile::Tile;
use signet::audit::{Receipt, Receipts};
use signet::outbound::Address;

libfuzzer_sys::fuzz_target!(|text: &str| {
    // What was read is the only way to write it.
    if let Ok(proof) = Proof::parse(text) {
        assert_eq!(proof.encode(), text);
        let _ = proof.verify(None);
    }
    if let Ok(proof) = Consistency::parse(text) {
        assert_eq!(proof.encode(), text);
        let _ = proof.verify(&proof.head, None);
    }
    if let Ok(receipt) = text.parse::<Receipt>() {
        assert_eq!(receipt.to_string(), text);
    }
    if let Ok(tile) = text.parse::<Tile>() {
        assert_eq!(tile.to_string(), text);
        let _ = (tile.start(), tile.is_in(u64::MAX), tile.is_in(0));
    }
    let _ = Receipts::parse("file", text);
    let _ = text.parse::<Address>();
});
