//! A signature with all that it takes to judge it: what the device says of the key, and the proof that the signing is in the log.
//!
//! ```text
//! {
//!   "format": "signet-bundle@v1",
//!   "signature": "…",        in the raw form of the device
//!   "attestation": { … },    of the version that signed: `attestation`
//!   "proof": "c2sp.org/tlog-proof@v1\n…"    of the record of this very signing: `audit::proof`
//! }
//! ```
//!
//! Judged without the service, against the artifact, a pinned attestation key and the pinned key of the log. A file has one spelling,
//! as an attestation has.
//!
//! **Promises.** All of it is about one signing: the record names the key, its id, the version and the digest, and stands in the log of
//! the installation that the attestation names. **Limits.** The log vouches for the record; when it says that this was is the service's word.

use serde::{Deserialize, Serialize};

use crate::attestation::{Attestation, Expected, Report};
use crate::audit::proof::Proof;
use crate::audit::{HeadKeys, Phase, Record};
use crate::error::{Error, Kind, Result};
use crate::types::{Action, Algorithm, Base64Bytes, PublicKey, Resource, SignatureFormat, Verifier};

const FORMAT: &str = "signet-bundle@v1";
/// The most bytes of a file: an attestation, and the longest record of a log in a proof.
pub const MAX_BYTES: usize = 256 * 1024;

/// A signature with its evidence.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: String,
    signature: Base64Bytes,
    attestation: Attestation,
    proof: String,
}

/// What was signed, as it is in the verifier's hands.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// Its digest by the hash of the key's algorithm; itself where that has none.
    pub input: Vec<u8>,
}

impl Bundle {
    /// Puts a signature, in one of its forms, together with its evidence.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a signature of another form.
    pub fn new(signature: &[u8], form: SignatureFormat, attestation: Attestation, proof: &Proof) -> Result<Self> {
        let signature = Base64Bytes(form.decode(attestation.claim.algorithm, signature)?);
        Ok(Self { format: FORMAT.to_owned(), signature, attestation, proof: proof.encode() })
    }

    /// As a file.
    ///
    /// # Errors
    /// [`Kind::Internal`] where it cannot be written, which is a defect.
    pub fn encode(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::internal(format!("a bundle: {e}")))?;
        Ok(text + "\n")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] for anything that [`Self::encode`] would write otherwise.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let none = |why: &str| broken(format!("the file is no bundle: {why}"));
        if bytes.len() > MAX_BYTES {
            return Err(none("it is too long"));
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|e| none("it cannot be read").because(e))?;
        if read.format != FORMAT || read.encode()?.as_bytes() != bytes {
            return Err(none("it is not spelt as bundles are"));
        }
        // What stands within is judged as the file of its own.
        Attestation::parse(read.attestation.encode()?.as_bytes())?;
        Ok(read)
    }

    /// What the key of the signature does: by it the verifier knows the digest that he must make.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.attestation.claim.algorithm
    }

    /// Judges all of it.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with the first thing that does not hold.
    pub fn verify(&self, artifact: &Artifact, expected: &Expected, log: &HeadKeys) -> Result<Report> {
        // 1. The key.
        let mut report = self.attestation.verify(expected)?;
        let claim = &self.attestation.claim;
        // 2. The signature.
        let public = claim.public_key.as_ref().ok_or_else(|| broken("the attested key makes no signatures"))?;
        let verifier = Verifier::new(claim.algorithm, &PublicKey::from_der(public.0.clone()))
            .map_err(|e| broken("the attested key makes no signatures").because(e))?;
        let hash = claim.algorithm.hash();
        let signed = match hash {
            Some(_) => verifier.verifies_digest(&artifact.input, &self.signature.0),
            None => verifier.verifies(&artifact.input, &self.signature.0),
        };
        if !signed {
            return Err(broken("the signature is not one of the attested key over the artifact"));
        }
        report.fact("signature", "over the artifact, by the attested key", "the key");
        // 3. The record of that signing.
        let proof = Proof::parse(&self.proof).map_err(|e| broken("the proof cannot be read").because(e))?;
        if proof.encode() != self.proof {
            return Err(broken("the proof is not spelt as proofs are"));
        }
        proof.verify(Some(log))?;
        let record: Record =
            serde_json::from_slice(&proof.record).map_err(|e| broken("what is proven is no record").because(e))?;
        if proof.head.origin().as_str() != claim.installation {
            return Err(broken("the record is in the log of another installation"));
        }
        let digests = [
            Some(format!("sha256:{}", hex::encode(artifact.sha256))),
            hash.map(|hash| format!("{hash}:{}", hex::encode(&artifact.input))),
        ];
        let recorded = record.facts.get("signed");
        let is_this = record.phase == Phase::Done
            && record.outcome == "ok"
            && record.action == Action::Sign.as_str()
            && record.resource == Resource::Key(claim.key.clone()).to_string()
            && record.key_id == claim.id.to_string()
            && record.version == claim.version.number();
        if !is_this {
            return Err(broken("the record is not that of a signing by this version"));
        }
        if !digests.iter().flatten().any(|digest| Some(digest) == recorded) {
            return Err(broken("the record is that of the signing of something else"));
        }
        let Record { time, principal, .. } = record;
        report.fact(
            "recorded",
            format!("as record {} of {}, for {principal} at {time}", proof.index, claim.installation),
            "the log",
        );
        Ok(report)
    }
}

fn broken(what: impl Into<String>) -> Error {
    Error::new(Kind::DoesNotOpen, what.into())
}
