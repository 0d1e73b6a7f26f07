//! Ten thousand damaged requests, the same ones each time.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use signet::types::Algorithm;
use signet::x509::{Csr, Subject};
use tempfile::TempDir;

use crate::keys::{Key, Parts, attribute, dns, extension, extensions, sequence, tagged, tlv};

/// How many of the accepted ones OpenSSL is asked about.
const SAMPLE: usize = 100;

/// A generator that anybody can write down: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }

    /// One to four changes: a byte set, turned, put in or taken out, or a piece taken out, repeated or moved.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.len() < 2 {
                return;
            }
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(24)).min(bytes.len());
            let byte = u8::try_from(self.below(256)).unwrap();
            match self.below(8) {
                0 | 1 => bytes[at] = byte,
                2 | 3 => bytes[at] ^= 1 << self.below(8),
                4 => bytes.insert(at, byte),
                5 => drop(bytes.drain(at..end)),
                6 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => drop(bytes.remove(at)),
            }
        }
    }
}

/// A request with something of everything.
fn rich(key: &Key) -> Parts {
    let names = [
        dns("web.example.com"),
        dns("xn--bcher-kva.example"),
        dns("*.example.com"),
        tagged(7, false, &[10, 0, 0, 1]),
        tagged(1, false, b"a@b.example"),
        tagged(6, false, b"spiffe://td/x"),
    ];
    let all = [
        extension("2.5.29.17", false, &sequence(&[&names.concat()])),
        extension("2.5.29.19", true, &sequence(&[])),
        extension("2.5.29.15", true, &[3, 2, 7, 0x80]),
        extension("2.5.29.37", false, b"\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"),
        extension("1.3.6.1.5.5.7.1.24", false, b"\x30\x03\x02\x01\x05"),
    ];
    let mut attributes =
        vec![extensions(&all), attribute("1.2.840.113549.1.9.7", &[tlv(der::Tag::Utf8String, &[b"secret"])])];
    attributes.sort();
    let subject = Subject { organization: Some("Société".to_owned()), ..Subject::common("web.example.com") };
    Parts { subject: subject.to_der().unwrap(), attributes, ..Parts::of(key) }
}

#[test]
fn ten_thousand_damaged_requests_end_well() {
    let algorithms = [Algorithm::EcdsaP256, Algorithm::Ed25519, Algorithm::EcdsaP384, Algorithm::Rsa2048Pkcs1];
    let keys: Vec<_> = algorithms.into_iter().map(Key::new).collect();
    let sound: Vec<_> = keys.iter().map(|key| (rich(key).body(), rich(key).signed(key))).collect();
    let mut dice = Dice(0x5eed_5eed_5eed_5eed);
    let (mut accepted, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..10_000 {
        let which = round % keys.len();
        let (body, whole) = &sound[which];
        // Half of them are damaged before they are signed, so that the proof holds and what is behind it is reached.
        let resigned = round % 8 < 4 && keys[which].algorithm != Algorithm::Rsa2048Pkcs1;
        let mut bytes = if resigned { body.clone() } else { whole.clone() };
        dice.damage(&mut bytes);
        if resigned {
            let Some(signed) = keys[which].try_finish(&bytes) else { continue };
            bytes = signed;
        }
        let began = Instant::now();
        let outcome = Csr::parse(&bytes);
        slowest = slowest.max(began.elapsed());
        if outcome.is_ok() {
            accepted.push(bytes);
        }
    }
    // Some changes are harmless: a letter of a name, say. Without any, nothing was tested.
    assert!(accepted.len() > SAMPLE, "only {} were accepted", accepted.len());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let folder = TempDir::new().unwrap();
    let step = accepted.len() / SAMPLE;
    for (at, der) in accepted.iter().step_by(step).enumerate() {
        let path = folder.path().join(format!("{at}.der"));
        fs::write(&path, der).unwrap();
        let verdict = Command::new("openssl")
            .args(["req", "-inform", "DER", "-verify", "-noout", "-in"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(verdict.status.success(), "{}: {}", hex::encode(der), String::from_utf8_lossy(&verdict.stderr));
    }
}
