//! `signet sign` and `verify`.
//!
//! A key of the domain `raw` signs digests: the file is hashed here, in constant memory, by the hash of the key's algorithm.
//! Every other key is sent the message, because the service must see what it signs.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;

use super::App;
use super::input::{MAX_MESSAGE, one_of, open, parsed, read, read_bytes, read_text, unreadable};
use super::key::version;
use super::sink::{self, Access, To};
use crate::attestation::Attestation;
use crate::audit::Receipt;
use crate::audit::proof::Proof;
use crate::bundle::{Artifact, Bundle};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Domain, Hash, KeyName, SignatureFormat, State, Version};
use crate::wire::{self, Base64, Digest, Verified};

/// The longest signature, RSA 4096 with room.
const MAX_SIGNATURE: usize = 4096;

/// What is signed, and how that is told to the server.
#[derive(Args, Debug)]
struct What {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The message; - for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How the signature is written: `der` as openssl reads it, `raw` as r and s, `jws` as raw in base64url.
    #[arg(long, value_name = "FORMAT", value_parser = one_of(SignatureFormat::ALL, SignatureFormat::as_str), default_value = "der")]
    format: SignatureFormat,
    /// Hash the file by this without asking the server for the key, for callers who may not read it; the key's domain must
    /// be `raw`.
    #[arg(long, value_name = "HASH", value_parser = one_of(Hash::ALL, Hash::as_str))]
    hash: Option<Hash>,
    /// The signature is in base64.
    #[arg(long)]
    base64: bool,
}

/// A message, or its digest.
enum Payload {
    Message(Base64),
    Digest(Digest),
}

impl Payload {
    fn split(self) -> (Option<Base64>, Option<Digest>) {
        match self {
            Self::Message(message) => (Some(message), None),
            Self::Digest(digest) => (None, Some(digest)),
        }
    }
}

impl What {
    async fn payload(&self, client: &Client) -> Result<Payload> {
        let hash = match self.hash {
            Some(hash) => Some(hash),
            None => {
                let key = client.key(&self.name).await?;
                key.algorithm.hash().filter(|_| key.domain == Some(Domain::Raw))
            }
        };
        match hash {
            Some(hash) => Ok(Payload::Digest(digest(&self.file, hash)?)),
            None => message(&self.file).map(Payload::Message),
        }
    }
}

fn message(file: &Path) -> Result<Base64> {
    let message = read(file, MAX_MESSAGE).map_err(|error| {
        let too_long = error.kind() == Kind::Limit;
        if too_long { error.hint("a key of the domain `raw` signs files of any size by their digest") } else { error }
    })?;
    Ok(Base64(message.expose().to_vec()))
}

/// Hashes a file piece by piece.
fn digest(file: &Path, hash: Hash) -> Result<Digest> {
    let algorithm = match hash {
        Hash::Sha256 => &aws_lc_rs::digest::SHA256,
        Hash::Sha384 => &aws_lc_rs::digest::SHA384,
        Hash::Sha512 => &aws_lc_rs::digest::SHA512,
    };
    let mut state = aws_lc_rs::digest::Context::new(algorithm);
    let mut reader = open(file)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(Digest { hash, value: Base64(state.finish().as_ref().to_vec()) }),
            Ok(n) => state.update(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(file, &e)),
        }
    }
}

/// Sign a file: its digest where the key's domain is `raw`, else its content of up to 64 KiB.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet sign release app.tar --out app.tar.sig
  signet sign release app.tar --out app.tar.sig --bundle app.tar.bundle
  signet sign tokens signing-input.txt --format jws")]
pub(super) struct Sign {
    #[command(flatten)]
    what: What,
    /// Write the signature into FILE as well, together with what the device says of the key and the proof that the signing is in
    /// the log: `signet attest verify-bundle` judges it offline. The caller must be able to read the key and the log.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    to: To,
}

impl Sign {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { what, bundle, to } = self;
        let signed = app.online(async |client| {
            let (message, digest) = what.payload(client).await?.split();
            let body = wire::Sign { message, digest, format: Some(what.format) };
            let (signed, receipt) = client.sign_with_receipt(&what.name, &body).await?;
            if let Some(path) = &bundle {
                let made = bundled(client, &what, &signed, receipt).await?;
                sink::write(path, made.encode()?.as_bytes(), Access::Umask, to.force())?;
            }
            Ok(signed)
        })?;
        if app.out.json {
            return to.body(app.out, &signed);
        }
        match what.format {
            SignatureFormat::Jws => to.line(app.out, &signed.signature),
            SignatureFormat::Der | SignatureFormat::Raw => {
                let bytes = STANDARD.decode(&signed.signature);
                let bytes = bytes.map_err(|_| Error::new(Kind::Internal, "the server's signature is not base64"))?;
                to.public(app.out, &bytes, what.base64)
            }
        }
    }
}

/// The signature with its evidence. The record is proven once a head is signed above it, for which the client waits.
async fn bundled(client: &Client, what: &What, signed: &wire::Signed, receipt: Option<String>) -> Result<Bundle> {
    let receipt = receipt.ok_or_else(|| {
        Error::new(Kind::Unsupported, "the server gave no receipt for the signature, so there is no bundle")
            .hint("a server of this version gives one; what stands between may take the header Signet-Log away")
    })?;
    let receipt: Receipt = receipt.parse()?;
    let said = client.attestation(&what.name, Some(signed.version), None).await?;
    let proof = Proof::parse(&client.audit_proof(receipt.index).await?.proof)?;
    let signature = match what.format {
        SignatureFormat::Jws => signed.signature.clone().into_bytes(),
        SignatureFormat::Der | SignatureFormat::Raw => STANDARD
            .decode(&signed.signature)
            .map_err(|_| Error::new(Kind::Internal, "the server's signature is not base64"))?,
    };
    Bundle::new(&signature, what.format, Attestation::parse(said.as_bytes())?, &proof)
}

/// What a file is to a verifier of the signature of a key.
pub(super) fn artifact(file: &Path, algorithm: Algorithm) -> Result<Artifact> {
    let hashed = |hash| digest(file, hash).map(|digest| digest.value.0);
    let input = match algorithm.hash() {
        Some(hash) => hashed(hash)?,
        None => read(file, MAX_MESSAGE)?.expose().to_vec(),
    };
    let sha256 = hashed(Hash::Sha256)?.try_into().map_err(|_| Error::internal("a digest of another length"))?;
    Ok(Artifact { sha256, input })
}

/// Verify a signature over a file: prints VALID, INVALID or COMPROMISED, and exits with 6 unless it is valid.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet verify release app.tar --signature app.tar.sig
  signet verify release app.tar --signature app.tar.sig --version 3")]
pub(super) struct Verify {
    #[command(flatten)]
    what: What,
    /// The signature, as signet sign wrote it.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
    /// The version that made it, instead of the primary one.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
}

impl Verify {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { what, signature, version } = self;
        let signature = written(&signature, what.format, what.base64)?;
        let verified = app.online(async |client| {
            let (message, digest) = what.payload(client).await?.split();
            let format = Some(what.format);
            client.verify(&what.name, &wire::Verify { message, digest, signature, format, version }).await
        })?;
        judge(app, &verified, "signature")
    }
}

/// A signature file as the API writes signatures.
fn written(file: &Path, format: SignatureFormat, base64: bool) -> Result<String> {
    match format {
        SignatureFormat::Der | SignatureFormat::Raw => Ok(STANDARD.encode(read_bytes(file, MAX_SIGNATURE, base64)?)),
        SignatureFormat::Jws => {
            let text = read_text(file)?.trim().to_owned();
            let good = URL_SAFE_NO_PAD.decode(&text).is_ok();
            good.then_some(text)
                .ok_or_else(|| Error::new(Kind::Invalid, format!("{} is not base64url", file.display())))
        }
    }
}

/// What a verification proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Invalid,
    /// Somebody else may have made it.
    Compromised,
}

impl Verdict {
    const fn of(verified: &Verified) -> Self {
        match (verified.valid, matches!(verified.state, State::Compromised)) {
            (false, _) => Self::Invalid,
            (true, true) => Self::Compromised,
            (true, false) => Self::Valid,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
            Self::Compromised => "COMPROMISED",
        }
    }
}

/// Tells what became of a verification; all but a valid one is an error, so that no script can overlook it.
pub(super) fn judge(app: &App, verified: &Verified, what: &str) -> Result<()> {
    let verdict = Verdict::of(verified);
    let version = verified.version;
    app.out.answer(verified, |verified| format!("{} version {version} ({})", verdict.word(), verified.state))?;
    match verdict {
        Verdict::Valid => Ok(()),
        Verdict::Invalid => {
            let sentence = format!("the {what} is not one of version {version} over this message");
            Err(Error::new(Kind::DoesNotOpen, sentence)
                .hint("check the file, the format, and by --version the version that made it"))
        }
        Verdict::Compromised => {
            let sentence = format!("version {version} was declared compromised: its {what} proves nothing");
            Err(Error::new(Kind::DoesNotOpen, sentence).hint("make a new one with the primary version"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_hashed_as_a_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; 200_000];
        file.write_all(&content).unwrap();
        for hash in Hash::ALL.iter().copied() {
            assert_eq!(digest(file.path(), hash).unwrap().value.0, hash.digest(&content));
        }
        let error = message(file.path()).err().unwrap();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.mend().unwrap().contains("raw"));
    }

    #[test]
    fn only_a_sound_version_proves_something() {
        for state in State::ALL.iter().copied() {
            let verdict = |valid| Verdict::of(&Verified { valid, version: Version::FIRST, state });
            assert_eq!(verdict(false), Verdict::Invalid);
            assert_eq!(verdict(true) == Verdict::Valid, state != State::Compromised, "{state}");
        }
    }

    #[test]
    fn signatures_are_read_as_they_are_written() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"_-8\n").unwrap();
        assert_eq!(written(file.path(), SignatureFormat::Jws, false).unwrap(), "_-8");
        assert_eq!(written(file.path(), SignatureFormat::Der, false).unwrap(), STANDARD.encode(b"_-8\n"));
        assert!(written(file.path(), SignatureFormat::Der, true).is_err());
    }
}
