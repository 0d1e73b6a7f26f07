//! Keys that verify signed notes, as people hand them on.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Algorithm, Curve, PublicKey, Verifier, sha256};
use crate::error::{Error, Kind, Result};

/// What a key signs, and how: the byte before it in a verifier key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Scheme {
    /// Ed25519 over the text of the note.
    Ed25519 = 0x01,
    /// ECDSA P-256 over the text of the note.
    Ecdsa = 0x02,
    /// What a witness says of a checkpoint, with the time.
    Cosignature = 0x04,
}

/// The key of a log or a witness: `name+id+base64(scheme || key)`, the verifier key of
/// [C2SP signed-note](https://c2sp.org/signed-note#verifier-keys).
///
/// The schemes are 0x01 (Ed25519), 0x02 (ECDSA P-256, its key as SubjectPublicKeyInfo) and 0x04
/// ([cosignature/v1](https://c2sp.org/tlog-cosignature), by Ed25519).
#[derive(Clone)]
pub struct NoteKey {
    name: String,
    id: [u8; 4],
    scheme: Scheme,
    /// What stands behind the scheme.
    key: Vec<u8>,
    verifier: std::sync::Arc<Verifier>,
}

impl NoteKey {
    /// A key that signs the checkpoints of log `origin`: ECDSA P-256, or Ed25519.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for any other.
    pub fn of_log(origin: &str, key: &PublicKey) -> Result<Self> {
        match key.raw() {
            Ok(raw) if PublicKey::ed25519(&raw).is_ok_and(|one| one == *key) => Self::new(origin, Scheme::Ed25519, raw),
            Ok(_) | Err(_) => Self::new(origin, Scheme::Ecdsa, key.as_der().to_vec()),
        }
    }

    /// The key that a witness cosigns with: Ed25519.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for any other, and for a name that cannot be one.
    pub fn of_witness(name: &str, key: &PublicKey) -> Result<Self> {
        Self::new(name, Scheme::Cosignature, key.raw()?)
    }

    fn new(name: &str, scheme: Scheme, key: Vec<u8>) -> Result<Self> {
        // "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus (U+002B) characters."
        let good = (1..=200).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_graphic() && c != b'+');
        if !good {
            let text = "the name of a log or a witness has 1 to 200 visible ASCII characters without '+'";
            return Err(Error::new(Kind::Invalid, text));
        }
        let (algorithm, public) = match scheme {
            Scheme::Ed25519 | Scheme::Cosignature => (Algorithm::Ed25519, PublicKey::ed25519(&key)?),
            Scheme::Ecdsa => (Algorithm::EcdsaP256, p256(&key)?),
        };
        let verifier = Verifier::new(algorithm, &public)?.into();
        Ok(Self { name: name.to_owned(), id: id(name, scheme, &key), scheme, key, verifier })
    }

    /// The same key of another log, whose origin is known to be one.
    #[must_use]
    pub(crate) fn for_log(&self, origin: &str) -> Self {
        Self { name: origin.to_owned(), id: id(origin, self.scheme, &self.key), ..self.clone() }
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from other keys of that name.
    #[must_use]
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether it is that of a witness.
    #[must_use]
    pub fn cosigns(&self) -> bool {
        self.scheme == Scheme::Cosignature
    }

    /// Whether it is that of a log, of ECDSA.
    #[must_use]
    pub fn is_ecdsa(&self) -> bool {
        self.scheme == Scheme::Ecdsa
    }

    /// What it signs with, for people.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self.scheme {
            Scheme::Ecdsa => "ECDSA P-256",
            Scheme::Ed25519 | Scheme::Cosignature => "Ed25519",
        }
    }

    /// Whether `signature`, which bears the name and the id of this key, is one over `text`; for a witness its time comes first.
    #[must_use]
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        match self.scheme {
            Scheme::Ed25519 => self.verifier.verifies(text.as_bytes(), signature),
            Scheme::Ecdsa => self.verifier.verifies_der(text.as_bytes(), signature),
            Scheme::Cosignature => signature.split_first_chunk().is_some_and(|(time, signature)| {
                let message = cosigned(text, u64::from_be_bytes(*time));
                self.verifier.verifies(message.as_bytes(), signature)
            }),
        }
    }
}

/// What a witness signs at `time`, in seconds since 1970: "two newline (U+000A) terminated lines (one header line and one
/// timestamp line) followed by the whole note body of the cosigned checkpoint"
/// ([cosignature/v1](https://c2sp.org/tlog-cosignature)).
#[must_use]
pub fn cosigned(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

fn id(name: &str, scheme: Scheme, key: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = match scheme {
        Scheme::Ecdsa => sha256(&[key]),
        Scheme::Ed25519 | Scheme::Cosignature => sha256(&[name.as_bytes(), b"\n", &[scheme as u8], key]),
    };
    [a, b, c, d]
}

fn p256(der: &[u8]) -> Result<PublicKey> {
    let point = || {
        let info: spki::SubjectPublicKeyInfoRef<'_> = der::Decode::from_der(der).ok()?;
        let key = PublicKey::ec(Curve::P256, info.subject_public_key.as_bytes()?).ok()?;
        (key.as_der() == der).then_some(key)
    };
    point().ok_or_else(|| Error::new(Kind::Invalid, "not an ECDSA P-256 public key"))
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64.encode([&[self.scheme as u8], self.key.as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.id))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for NoteKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.scheme, &self.key) == (&other.name, other.scheme, &other.key)
    }
}

impl Eq for NoteKey {}

impl FromStr for NoteKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::Invalid, "not the key of a log or a witness: NAME+ID+BASE64")
                .hint("`signet audit head --verifier-key` prints that of a log, `signet witness key` that of a witness")
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let key = BASE64.decode(key).map_err(|_| wrong())?;
        let (scheme, key) = match key.split_first() {
            Some((0x01, key)) => (Scheme::Ed25519, key),
            Some((0x02, key)) => (Scheme::Ecdsa, key),
            Some((0x04, key)) => (Scheme::Cosignature, key),
            Some(_) | None => return Err(wrong()),
        };
        let key = Self::new(name, scheme, key.to_vec())?;
        if hex::encode(key.id) == id { Ok(key) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of the example in the specification of cosignatures' reference library, `witness.example.com/w1` with a key of
    /// 32 bytes that is on the curve.
    fn witness() -> NoteKey {
        let key = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        NoteKey::of_witness("witness.example/w1", &PublicKey::ed25519(&key).unwrap()).unwrap()
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = witness();
        let text = key.to_string();
        assert!(text.starts_with("witness.example/w1+"), "{text}");
        assert_eq!(text.parse::<NoteKey>().unwrap(), key);
        assert!(key.cosigns());
        // The same bytes as a key of another scheme have another id, and sign other things.
        let other = NoteKey::new("witness.example/w1", Scheme::Ed25519, key.key.clone()).unwrap();
        assert!(other.id() != key.id() && !other.cosigns());
        assert_eq!(other.to_string().parse::<NoteKey>().unwrap(), other);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let text = witness().to_string();
        let (name, rest) = text.split_once('+').unwrap();
        let (id, key) = rest.split_once('+').unwrap();
        let wrong = [
            String::new(),
            name.to_owned(),
            format!("{name}+{id}"),
            format!("other+{id}+{key}"),
            format!("{name}+00000000+{key}"),
            format!("{name}+{}+{key}", id.to_uppercase() + "0"),
            format!("+{id}+{key}"),
            format!("a b+{id}+{key}"),
            format!("{name}+{id}+{}", &key[..key.len() - 4]),
            format!("{name}+{id}+{}", BASE64.encode([7; 33])),
            format!("{text}\n"),
        ];
        for text in wrong {
            assert!(text.parse::<NoteKey>().is_err(), "{text}");
        }
    }
}
