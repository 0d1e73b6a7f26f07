//! The vocabulary: small values that can only hold good content. Their constructors are the only place that checks.

mod action;
mod agreement;
mod algorithm;
mod base64_bytes;
mod blocking;
mod caller;
mod certified;
mod cipher;
mod clock;
mod context;
mod crash;
mod encapsulated;
mod entries;
mod est_label;
mod hexadecimal;
mod name;
mod note_key;
pub mod operation;
mod own_file;
mod pcrs;
mod period;
mod public_key;
mod rules;
mod secret;
mod signature;
mod spiffe;
mod turns;

pub use action::{Action, Resource};
pub use agreement::{Agreed, is_point};
pub(crate) use algorithm::words;
pub use algorithm::{
    Algorithm, Curve, Domain, Hash, Protection, Purpose, Residency, Role, SignatureFormat, State, Uses,
};
pub use base64_bytes::Base64Bytes;
pub use blocking::blocking;
pub use caller::{Caller, Credential, Principal};
pub use certified::{Distribution, Subject};
pub use cipher::{CipherCall, Direction};
pub use clock::{Clock, ManualClock};
pub use context::Context;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use crash::crash_here;
pub use encapsulated::Encapsulated;
pub use entries::{entries, optional_entries};
pub use est_label::EstLabel;
pub use hexadecimal::lower_hex;
pub use name::{EndpointName, IssuerName, KeyId, KeyName, Name, ProfileName, Version};
pub use note_key::{NoteKey, cosigned};
pub use own_file::read_own;
pub use pcrs::{PcrValues, Pcrs};
pub use period::Period;
pub use public_key::{PublicKey, Verified, Verifier};
pub use rules::{Retention, Rollover, Rotation};
pub use secret::{SecretBytes, same};
pub use signature::raw_length;
pub use spiffe::SpiffeId;
pub use turns::Turns;

/// SHA-256 of `parts`, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        digest.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(digest.finish().as_ref());
    out
}
