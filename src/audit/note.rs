//! Signed notes of any log ([C2SP signed-note](https://c2sp.org/signed-note)): text, and who signed it.
//!
//! ```text
//! example.com/log                                       the text, which ends with a newline
//! 1204
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/log Az3grlgt…                           base64(key id (4) || signature)
//! — witness.example/w1 jWbPPwAAAABk…                    base64(key id (4) || time (8) || signature): a cosignature
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Kind, Result};
use crate::types::NoteKey;

/// The most signatures of a note.
const MAX_SIGNATURES: usize = 32;

/// A note, well-formed; who signed it is for [`Self::is_signed_by`] to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// A line below a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: [u8; 4],
    /// What stands behind the id.
    bytes: Vec<u8>,
}

impl Note {
    /// The most bytes of a note.
    pub const MAX: usize = 16 * 1024;

    /// Reads a note.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is none, or is too long.
    pub fn parse(note: &str) -> Result<Self> {
        let parse = || {
            // "MUST NOT contain any ASCII control characters (those below U+0020) other than newline"
            let plain = note.len() <= Self::MAX && !note.bytes().any(|byte| byte < 0x20 && byte != b'\n');
            let (text, signatures) = note.rsplit_once("\n\n").filter(|_| plain)?;
            let signatures = signatures.strip_suffix('\n')?.split('\n').map(Signature::parse);
            let signatures: Vec<_> = signatures.take(MAX_SIGNATURES + 1).collect::<Option<_>>()?;
            (signatures.len() <= MAX_SIGNATURES).then(|| Self { text: format!("{text}\n"), signatures })
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not a signed note"))
    }

    /// What is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether one of `keys` signed it. A signature in the name of one of them that does not verify spoils the note.
    #[must_use]
    pub fn is_signed_by(&self, keys: &[NoteKey]) -> bool {
        let known = self.signatures.iter().filter_map(|line| Some((line, keys.iter().find(|key| line.bears(key))?)));
        let mut signed = false;
        for (line, key) in known {
            if !key.verifies(&self.text, &line.bytes) {
                return false;
            }
            signed = true;
        }
        signed
    }

    /// When the witness with `key` cosigned it, in seconds since 1970.
    #[must_use]
    pub fn cosigned(&self, key: &NoteKey) -> Option<u64> {
        let lines = self.signatures.iter();
        lines.filter_map(|line| line.cosigns(&self.text, key)).max()
    }
}

impl Signature {
    /// The line of `signature` by the key of `name` and `id`.
    #[must_use]
    pub fn line(key: &NoteKey, signature: &[u8]) -> String {
        format!("— {} {}\n", key.name(), BASE64.encode([&key.id(), signature].concat()))
    }

    /// Reads lines as a witness answers them.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where one is none.
    pub fn parse_all(lines: &str) -> Result<Vec<Self>> {
        let parse = || -> Option<Vec<_>> {
            lines.strip_suffix('\n')?.split('\n').take(MAX_SIGNATURES).map(Self::parse).collect()
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not the signature lines of a note"))
    }

    /// When the witness with `key` made this cosignature over `text`; `None` where it did not.
    #[must_use]
    pub fn cosigns(&self, text: &str, key: &NoteKey) -> Option<u64> {
        let time = u64::from_be_bytes(*self.bytes.first_chunk()?);
        (key.cosigns() && self.bears(key) && key.verifies(text, &self.bytes)).then_some(time)
    }

    /// The bytes behind the key id.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bears(&self, key: &NoteKey) -> bool {
        self.name == key.name() && self.id == key.id()
    }

    /// `— name base64`
    fn parse(line: &str) -> Option<Self> {
        let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = BASE64.decode(base64).ok()?;
        let (id, bytes) = bytes.split_first_chunk()?;
        let good = !name.is_empty() && !name.contains('+') && !bytes.is_empty();
        good.then(|| Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PublicKey, cosigned};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    fn witness(name: &str, seed: u8) -> (Ed25519KeyPair, NoteKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = PublicKey::ed25519(pair.public_key().as_ref()).unwrap();
        (pair, NoteKey::of_witness(name, &public).unwrap())
    }

    fn line(pair: &Ed25519KeyPair, key: &NoteKey, text: &str, time: u64) -> String {
        let signature = pair.sign(cosigned(text, time).as_bytes());
        Signature::line(key, &[&time.to_be_bytes(), signature.as_ref()].concat())
    }

    #[test]
    fn a_cosignature_is_over_text_and_time_and_of_one_witness() {
        let ((pair, key), (_, other)) = (witness("w/1", 1), witness("w/1", 2));
        let text = "example.com/log\n5\nAAAA\n";
        let note = Note::parse(&format!("{text}\n{}", line(&pair, &key, text, 77))).unwrap();
        assert_eq!((note.text(), note.cosigned(&key), note.cosigned(&other)), (text, Some(77), None));
        assert!(note.is_signed_by(std::slice::from_ref(&key)) && !note.is_signed_by(&[other]));
        // Another time or another text in its place does not verify, and spoils the note.
        let late = line(&pair, &key, text, 78).replace("— w/1 ", "");
        let forged = format!("{text}\n{}", line(&pair, &key, "example.com/log\n6\nAAAA\n", 77));
        assert!(!Note::parse(&forged).unwrap().is_signed_by(std::slice::from_ref(&key)));
        assert!(!late.is_empty());
        let both = format!("{}{}", note.text(), "\n") + &line(&pair, &key, text, 77) + &line(&pair, &key, "x\n", 77);
        assert!(!Note::parse(&both).unwrap().is_signed_by(&[key]));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = "a\nb\n\n— n AAAAAAA=\n";
        assert_eq!(Note::parse(good).unwrap().text(), "a\nb\n");
        // The last empty line is the one that counts.
        assert_eq!(Note::parse(&format!("x\n\n{good}")).unwrap().text(), "x\n\na\nb\n");
        let long = format!("{}\n\n— n AAAAAAA=\n", "a".repeat(Note::MAX));
        let many = format!("a\n\n{}", "— n AAAAAAA=\n".repeat(MAX_SIGNATURES + 1));
        let wrong =
            ["", "a\n", "a\n\n", "a\n\n— n AAAAAAA=", "a\n\n- n AAAAAAA=\n", "a\n\n—  AAAAAAA=\n", "a\n\n— n AAA\n"];
        for note in wrong.into_iter().chain([long.as_str(), many.as_str(), "a\tb\n\n— n AAAAAAA=\n"]) {
            assert!(Note::parse(note).is_err(), "{note:.80}");
        }
    }
}
