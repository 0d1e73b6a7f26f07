//! What crosses the worker socket.
//!
//! ```text
//! frame = length (4, of what follows, at most 1 MiB) || id (8) || body                                          big-endian
//! body  = a Request towards the worker, a Reply towards the front, in postcard encoding
//! ```
//!
//! Both ends are this very program, started by itself, so the encoding carries no version. The decoder trusts nothing all
//! the same: a worker runs a vendor's library in its address space.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use super::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attempt, Attest, AttestationKey, Class, Description, Fault, Generated,
    Health, Identity, Inventory, Kek, KekRole, KeyRef, KeySpec, PinSource, Settings, SharedKek, TpmChallenge,
};
use crate::attestation::Evidence;
use crate::types::{KeyId, PcrValues, Pcrs, PublicKey, Role, SecretBytes, Version};

/// The most bytes that follow the length.
pub(super) const MAX_FRAME: usize = 1 << 20;
const LENGTH: usize = 4;
const ID: usize = 8;

/// One job for the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// When it is too late to begin, in nanoseconds of the monotonic clock, which all processes of a machine share.
    pub(super) deadline: u64,
    /// What to do.
    pub(super) job: Job,
}

/// What a worker can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// The first job of all: load the library, log in, find the sentinel.
    Open {
        settings: Box<Settings>,
        #[serde(with = "as_json")]
        identity: Option<Box<Identity>>,
        /// Whether the PIN is tried though the token says that a wrong one was entered.
        insist: bool,
    },
    Enrol,
    Describe,
    Generate(KeySpec),
    /// Use one key on each input, by its role.
    Use {
        key: Arc<KeyRef>,
        inputs: Arc<Vec<ByteBuf>>,
    },
    Destroy(KeyRef),
    Forget {
        id: KeyId,
        version: Version,
    },
    Random(usize),
    Health([u8; 32]),
    Inventory,
    Attack,
    MakeAnchor(AnchorPlace),
    ReadAnchor(AnchorPlace),
    WriteAnchor(AnchorWrite),
    MakeAttestationKey,
    MakeMissingKeks,
    OpenTransport,
    MakeShared {
        roles: Vec<KekRole>,
        transports: Vec<PublicKey>,
    },
    PassOnShared {
        transport: PublicKey,
        officer: PinSource,
    },
    TakeShared(Vec<SharedKek>),
    Attest(Box<Attest>),
    Endorsement,
    Pcrs(Pcrs),
    Challenge(TpmChallenge),
}

impl Job {
    /// Whether it takes microseconds on a quick device, so that the answers before it may wait for its own.
    pub(super) fn is_quick(&self) -> bool {
        match self {
            Self::Use { key, inputs } => inputs.len() == 1 && matches!(key.algorithm.role(), Role::Mac | Role::Cipher),
            Self::Open { .. } | Self::Enrol | Self::Describe | Self::Generate(_) | Self::Destroy(_) => false,
            Self::Forget { .. } | Self::Random(_) | Self::Health(_) | Self::Inventory | Self::Attack => false,
            Self::MakeAnchor(_) | Self::ReadAnchor(_) | Self::WriteAnchor(_) => false,
            Self::MakeAttestationKey
            | Self::MakeMissingKeks
            | Self::OpenTransport
            | Self::MakeShared { .. }
            | Self::PassOnShared { .. }
            | Self::TakeShared(_)
            | Self::Attest(_)
            | Self::Endorsement
            | Self::Pcrs(_)
            | Self::Challenge(_) => false,
        }
    }
}

/// What came of a job.
pub(super) type Reply = Result<Answer, Fault>;

/// The answer to a [`Job`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Enrolled(#[serde(with = "as_json")] Box<Identity>),
    Described(Description),
    Generated(Generated),
    Used(Vec<Result<SecretBytes, Fault>>),
    Random(SecretBytes),
    Health(Health),
    Inventory(Inventory),
    Attacked(Vec<Attempt>),
    Anchor(Vec<AnchorSlot>),
    AttestationKey(AttestationKey),
    Keks(#[serde(with = "as_json")] Vec<Kek>),
    Transport(PublicKey),
    Shared(Vec<Vec<SharedKek>>),
    Endorsement(Vec<u8>),
    Pcrs(PcrValues),
    Attested(#[serde(with = "as_json")] Box<Evidence>),
}

/// What files hold too, and leaves out what an older one does not have: postcard could not read that, as it names no fields.
mod as_json {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::to_vec(value).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        serde_json::from_slice(&Vec::<u8>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Appends a frame to `buffer`.
pub(super) fn encode(id: u64, body: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), Fault> {
    let broken = |e: postcard::Error| Fault::new(Class::Internal, format!("encoding a frame: {e}"));
    let bytes = zeroize::Zeroizing::new(postcard::to_stdvec(body).map_err(broken)?);
    let length = ID + bytes.len();
    if length > MAX_FRAME {
        return Err(Fault::new(Class::Refused, "too much for one call of the device"));
    }
    let length = u32::try_from(length).map_err(|_| Fault::new(Class::Internal, "a frame of over 4 GiB"))?;
    buffer.extend(length.to_be_bytes());
    buffer.extend(id.to_be_bytes());
    buffer.extend_from_slice(&bytes);
    Ok(())
}

/// Gives the first frame of `buffer` its id.
pub(super) fn set_id(buffer: &mut [u8], id: u64) {
    if let Some(place) = buffer.get_mut(LENGTH..LENGTH + ID) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes in what was read, and leaves nothing of it where it was read to.
    pub(super) fn push(&mut self, bytes: &mut [u8]) {
        // What was read may be a MAC: nothing of it stays behind the end of what is left.
        let left = self.buffer.len() - self.start;
        self.buffer.copy_within(self.start.., 0);
        self.buffer.get_mut(left..).unwrap_or_default().zeroize();
        self.buffer.truncate(left);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
        bytes.zeroize();
    }

    /// The next whole frame, or `None` where more bytes are needed. An error means that the stream is lost.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(u64, T)>, Fault> {
        let broken = |what: &str| Fault::new(Class::Internal, format!("a broken frame: {what}"));
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(ID..=MAX_FRAME).contains(&length) {
            return Err(broken("its length"));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let (id, body) = frame.split_first_chunk::<ID>().ok_or_else(|| broken("its id"))?;
        let (id, value) = (u64::from_be_bytes(*id), postcard::from_bytes(body).map_err(|e| broken(&e.to_string()))?);
        // It may hold a plaintext, and until the next one comes nothing would be written over it.
        let end = self.start + LENGTH + length;
        self.buffer.get_mut(self.start..end).unwrap_or_default().zeroize();
        self.start = end;
        Ok(Some((id, value)))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

/// Decodes any bytes as either end of the socket does, in pieces as they come. For `fuzz/`.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let (mut front, mut worker) = (Decoder::default(), Decoder::default());
    for piece in [first, rest] {
        front.push(&mut piece.to_vec());
        while let Ok(Some(_)) = front.next::<Reply>() {}
        worker.push(&mut piece.to_vec());
        while let Ok(Some(_)) = worker.next::<Request>() {}
    }
}

/// Nanoseconds of the monotonic clock.
pub(super) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{KekRole, Wrapping};
    use crate::types::KeyId;
    use proptest::prelude::*;

    #[test]
    fn nothing_of_a_frame_stays_behind() {
        let mut stream = Vec::new();
        encode(1, &vec![7u8; 500], &mut stream).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&mut stream);
        assert!(decoder.next::<Vec<u8>>().unwrap().is_some_and(|(_, body)| body == [7; 500]));
        assert!(stream.iter().chain(&decoder.buffer).all(|byte| *byte == 0));
    }

    #[test]
    fn what_files_leave_out_survives_a_frame() {
        let kek = |wrapping, shared| Kek { role: KekRole::Mac, id: KeyId::random().unwrap(), wrapping, shared };
        let keks = vec![kek(Wrapping::Pad, false), kek(Wrapping::Kwp, true)];
        let (mut stream, mut decoder) = (Vec::new(), Decoder::default());
        encode(1, &Answer::Keks(keks.clone()), &mut stream).unwrap();
        decoder.push(&mut stream);
        let answer = decoder.next::<Answer>().unwrap();
        assert!(matches!(answer, Some((1, Answer::Keks(got))) if got == keks));
    }

    #[test]
    fn the_values_of_registers_cross_a_frame() {
        let of: Pcrs = "sha256:2,10".parse().unwrap();
        let values = PcrValues::new(of, vec![vec![2; 32], vec![10; 32]]).unwrap();
        let (mut stream, mut decoder) = (Vec::new(), Decoder::default());
        encode(1, &Answer::Pcrs(values.clone()), &mut stream).unwrap();
        decoder.push(&mut stream);
        let answer = decoder.next::<Answer>().unwrap();
        assert!(matches!(answer, Some((1, Answer::Pcrs(got))) if got == values));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(sizes in prop::collection::vec(0usize..5000, 1..8), cut in 1usize..700) {
            let mut stream = Vec::new();
            for (id, size) in sizes.iter().enumerate() {
                encode(id as u64, &vec![7u8; *size], &mut stream).unwrap();
            }
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for part in stream.chunks_mut(cut) {
                decoder.push(part);
                while let Some((id, body)) = decoder.next::<Vec<u8>>().unwrap() {
                    assert_eq!(id, seen.len() as u64);
                    seen.push(body.len());
                }
            }
            prop_assert_eq!(seen, sizes);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.push(&mut bytes.clone());
            while let Ok(Some(_)) = decoder.next::<Request>() {}
            let mut decoder = Decoder::default();
            decoder.push(&mut bytes.clone());
            while let Ok(Some(_)) = decoder.next::<Reply>() {}
        }
    }
}
