//! A key and its certificate on disk, which are never seen apart.
//!
//! ```text
//! FOLDER/current        a link to the folder in force: it changes in one rename
//! FOLDER/c-3f2a…        a pair, by the fingerprint of its certificate
//!   tls.key             the private key, PKCS #8 or TSS2 in PEM, readable by its owner only
//!   tls.crt             the certificate and those between it and the anchor, leaf first
//!   ca.crt              the anchors
//!   secret.yaml         all three as a Secret of Kubernetes, where that is wanted
//!   told                there once the service was told
//!   wanted              what was asked for: issuer, profile, names, subject, type and home of the key
//!   advice              when to renew, where the server has said that it should be early
//! FOLDER/new-7c1e…      a pair that is being written: its key is there before anybody is asked to certify it
//! ```
//!
//! The names are those of a TLS Secret. What a crash leaves is either not linked, and is removed by the next look, or whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::advice::Advice;
use super::key;
use super::wanted::Wanted;
use crate::client::Certificate as Credential;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::SecretBytes;
use crate::x509::Certificate;

/// The link to the pair in force.
pub const CURRENT: &str = "current";
/// The private key.
pub const KEY: &str = "tls.key";
/// The certificate and those above it.
pub const CERTIFICATE: &str = "tls.crt";
/// The anchors.
pub const TRUST: &str = "ca.crt";
const SECRET: &str = "secret.yaml";
const TOLD: &str = "told";
const ADVICE: &str = "advice";
const WANTED: &str = "wanted";
/// What the name of something starts with that is being written; chance says the rest.
const NEW: &str = "new-";
/// What the name of a folder of a pair starts with.
const PREFIX: &str = "c-";
/// The longest file that is read back.
const MAX_FILE: u64 = 1 << 20;

/// What is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The private key, in PEM.
    pub key: &'a SecretBytes,
    /// The certificate and those above it, in PEM.
    pub chain: &'a str,
    /// The anchors, in PEM.
    pub trust: &'a str,
}

impl Files<'_> {
    /// The certificate, which is that of the key; and whether the key is in a TPM.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is no PEM, and for a certificate of another key.
    pub fn read(&self) -> Result<(Certificate, bool)> {
        let certificate = leaf(self.chain)?;
        let key = key::read(self.key.expose());
        let (key, in_tpm) = key.ok_or_else(|| Error::new(Kind::Invalid, "the private key cannot be read"))?;
        if *certificate.public_key() != key {
            return Err(Error::new(Kind::Invalid, "the certificate is that of another key"));
        }
        Ok((certificate, in_tpm))
    }
}

/// A pair that is in place.
#[derive(Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: Certificate,
    /// Whether its key is in a TPM.
    pub in_tpm: bool,
    place: PathBuf,
}

impl Pair {
    /// The pair in force, where there is one that holds together.
    #[must_use]
    pub fn current(folder: &Path) -> Option<Self> {
        let place = folder.join(fs::read_link(folder.join(CURRENT)).ok()?);
        let text = |name: &str| read(&place.join(name)).ok();
        let (key, chain) = (SecretBytes::new(text(KEY)?), String::from_utf8(text(CERTIFICATE)?).ok()?);
        let (certificate, in_tpm) = Files { key: &key, chain: &chain, trust: "" }.read().ok()?;
        Some(Self { certificate, in_tpm, place })
    }

    /// What was wanted when it was made; unknown of one that an older agent made.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        Wanted::read(&fs::read_to_string(self.place.join(WANTED)).ok()?)
    }

    /// It, as a credential.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the files cannot be read.
    pub fn credential(&self) -> Result<Credential> {
        let read = |name: &str| {
            let unreadable = |e| Error::new(Kind::Unavailable, format!("{} cannot be read: {e}", self.place.display()));
            read(&self.place.join(name)).map_err(unreadable)
        };
        Ok(Credential { chain: read(CERTIFICATE)?, key: SecretBytes::new(read(KEY)?) })
    }

    /// The advice about it that is followed.
    pub(super) fn advice(&self) -> Option<Advice> {
        Advice::read(&fs::read_to_string(self.place.join(ADVICE)).ok()?)
    }

    /// Keeps advice, or forgets it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where that cannot be written.
    pub(super) fn follow(&self, advice: Option<Advice>) -> Result<()> {
        let path = self.place.join(ADVICE);
        let done = match advice {
            Some(advice) => fs::write(path, advice.written()),
            None => fs::remove_file(path),
        };
        done.map_err(|e| unwritable(&self.place, &e))
    }

    /// Whether the service was told of it.
    #[must_use]
    pub fn was_told(&self) -> bool {
        self.place.join(TOLD).exists()
    }

    /// Notes that the service was told of it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where that cannot be written.
    pub fn told(&self) -> Result<()> {
        file(&self.place.join(TOLD), b"").map_err(|e| unwritable(&self.place, &e))
    }
}

/// A pair that is being written.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    folder: &'a Path,
    place: PathBuf,
}

impl<'a> Draft<'a> {
    /// Writes the key of a pair, so that it is known that the folder can be written. What crashes left is removed.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the folder cannot be written.
    pub(super) fn begin(folder: &'a Path, key: &SecretBytes) -> Result<Self> {
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        let draft = Self { folder, place: folder.join(format!("{NEW}{}", hex::encode(chance))) };
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            clear(folder, &[fs::read_link(folder.join(CURRENT)).ok().as_deref()])?;
            crash_point!("agent.before_pair");
            DirBuilder::new().mode(0o700).create(&draft.place)?;
            file(&draft.place.join(KEY), key.expose())
        };
        write().map_err(|e| unwritable(folder, &e))?;
        Ok(draft)
    }

    /// Writes what belongs to the key and puts the pair in force; the one before it stays beside it, older ones are removed.
    ///
    /// # Errors
    /// As [`Files::read`]; [`Kind::Unavailable`] where the folder cannot be written.
    pub(super) fn install(&self, files: &Files<'_>, kubernetes_secret: Option<&str>, wanted: &Wanted) -> Result<Pair> {
        let (certificate, in_tpm) = files.read()?;
        let Self { folder, place: new } = self;
        let write = || {
            let before = fs::read_link(folder.join(CURRENT)).ok();
            let fingerprint = hex::encode(certificate.fingerprint());
            let name = PathBuf::from(format!("{PREFIX}{}", fingerprint.get(..32).unwrap_or_default()));
            file(&new.join(CERTIFICATE), files.chain.as_bytes())?;
            file(&new.join(TRUST), files.trust.as_bytes())?;
            if let Some(secret) = kubernetes_secret {
                file(&new.join(SECRET), secret_yaml(secret, files).as_bytes())?;
            }
            file(&new.join(WANTED), wanted.written().as_bytes())?;
            File::open(new)?.sync_all()?;
            let place = folder.join(&name);
            crash_point!("agent.before_name");
            fs::rename(new, &place)?;
            crash_point!("agent.named");
            // A link cannot be changed in place, but another one can take its name.
            symlink(&name, new)?;
            crash_point!("agent.linked");
            fs::rename(new, folder.join(CURRENT))?;
            crash_point!("agent.in_force");
            File::open(folder)?.sync_all()?;
            clear(folder, &[Some(name.as_path()), before.as_deref()])?;
            crash_point!("agent.cleared");
            Ok(place)
        };
        let place = write().map_err(|e| unwritable(folder, &e))?;
        Ok(Pair { certificate, in_tpm, place })
    }

    /// Removes it. What cannot be removed now is removed by the next look.
    pub(super) fn discard(self) {
        let current = fs::read_link(self.folder.join(CURRENT)).ok();
        if let Err(error) = clear(self.folder, &[current.as_deref()]) {
            tracing::debug!(%error, "a key that nobody certified stays for a while");
        }
    }
}

/// Removes what is ours and is not in `keep`.
fn clear(folder: &Path, keep: &[Option<&Path>]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // An older agent wrote under a name without chance.
        let ours = |name: &str| name == "new" || name.starts_with(NEW) || name.starts_with(PREFIX);
        let ours = name.to_str().is_some_and(ours);
        if !ours || keep.contains(&Some(Path::new(&name))) {
            continue;
        }
        crash_point!("agent.before_removal");
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
        crash_point!("agent.removed");
    }
    Ok(())
}

fn file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crash_point!("agent.before_file");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    crash_point!("agent.file_empty");
    file.write_all(bytes)?;
    crash_point!("agent.file_written");
    file.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first certificate of a chain.
fn leaf(chain: &str) -> Result<Certificate> {
    const END: &str = "-----END CERTIFICATE-----";
    let broken = || Error::new(Kind::Invalid, "the certificate is not PEM that can be read");
    let end = chain.find(END).ok_or_else(broken)? + END.len();
    let (_, der) = der::pem::decode_vec(chain.get(..end).ok_or_else(broken)?.as_bytes()).map_err(|_| broken())?;
    Certificate::parse(&der)
}

/// [A TLS Secret](https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets), for `kubectl apply -f`.
fn secret_yaml(name: &str, files: &Files<'_>) -> Zeroizing<String> {
    let Files { key, chain, trust } = files;
    let key = Zeroizing::new(STANDARD.encode(key.expose()));
    let (chain, trust) = (STANDARD.encode(chain), STANDARD.encode(trust));
    Zeroizing::new(format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: {name}\ndata:\n  {CERTIFICATE}: {chain}\n  \
         {KEY}: {}\n  {TRUST}: {trust}\n",
        *key
    ))
}

pub(super) fn unwritable(folder: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("{} cannot be written: {error}", folder.display()))
        .hint("the user that the agent runs as must own the folder")
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Made {
        key: SecretBytes,
        chain: String,
    }

    fn made() -> Made {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        Made { key: SecretBytes::new(key.serialize_pem().into_bytes()), chain }
    }

    fn install(folder: &Path, made: &Made) -> Pair {
        let files = Files { key: &made.key, chain: &made.chain, trust: "anchors" };
        let wanted = Wanted::read(r#"{"issuer":"","profile":"","names":[],"subject":{},"key_type":"","key_in":""}"#);
        Draft::begin(folder, &made.key).unwrap().install(&files, Some("web-tls"), &wanted.unwrap()).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_pair_takes_the_place_of_the_last_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, rounds) = (folder.path().join("web"), [made(), made(), made()]);
        assert!(Pair::current(&folder).is_none());
        for round in &rounds {
            let pair = install(&folder, round);
            assert!(!pair.was_told());
            pair.told().unwrap();
            let current = Pair::current(&folder).unwrap();
            assert!(current.was_told() && current.certificate == pair.certificate);
            assert_eq!(read(&folder.join(CURRENT).join(KEY)).unwrap(), round.key.expose());
        }
        // The last one stays beside the new one: somebody may be reading it.
        assert_eq!(names(&folder).len(), 3, "{:?}", names(&folder));
        for file in [KEY, CERTIFICATE, TRUST, SECRET] {
            let mode = fs::metadata(folder.join(CURRENT).join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let secret = fs::read_to_string(folder.join(CURRENT).join(SECRET)).unwrap();
        assert!(secret.contains("  name: web-tls\n") && secret.contains("kubernetes.io/tls"), "{secret}");
    }

    #[test]
    fn what_a_crash_leaves_is_never_seen_and_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (first, second) = (made(), made());
        let before = install(folder, &first).certificate;
        // Ended while it wrote, before it linked, and while it linked.
        let crashes: [&dyn Fn(); 3] = [
            &|| {
                Draft::begin(folder, &second.key).unwrap();
            },
            &|| {
                let whole = folder.join("c-0123");
                fs::create_dir(&whole).unwrap();
                fs::write(whole.join(KEY), second.key.expose()).unwrap();
                fs::write(whole.join(CERTIFICATE), &second.chain).unwrap();
            },
            &|| symlink("c-0123", folder.join("new-0123")).unwrap(),
        ];
        for crash in crashes {
            crash();
            assert_eq!(Pair::current(folder).unwrap().certificate, before);
            let after = made();
            install(folder, &after);
            assert!(!names(folder).iter().any(|name| name.starts_with(NEW) || name == "c-0123"), "{:?}", names(folder));
            install(folder, &first);
        }
    }

    #[test]
    fn halves_of_two_pairs_are_no_pair() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (made(), made());
        install(folder.path(), &one);
        fs::write(folder.path().join(CURRENT).join(KEY), other.key.expose()).unwrap();
        assert!(Pair::current(folder.path()).is_none());
        let files = Files { key: &one.key, chain: &other.chain, trust: "" };
        assert_eq!(files.read().unwrap_err().kind(), Kind::Invalid);
    }
}
