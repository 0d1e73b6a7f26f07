//! The configuration of a witness: a program of its own, on a machine of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::DeviceFile;
use super::{CertificateFiles, check_device, read_toml};
use crate::device::Settings;
use crate::error::{Error, Kind, Result};
use crate::types::NoteKey;

/// A checked configuration of a witness.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// What its cosignatures bear: a URL without its scheme.
    pub name: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The folder of its state.
    pub data: PathBuf,
    /// How it proves who it is; where absent it speaks plain HTTP, to this machine only.
    pub certificate: Option<CertificateFiles>,
    /// The device of its key.
    pub device: Settings,
    /// The logs that it watches, by their origins.
    pub logs: BTreeMap<String, WatchedLog>,
}

/// A log that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedLog {
    /// The keys that may sign its checkpoints.
    pub keys: Vec<NoteKey>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    witness: Witness,
    device: DeviceFile,
    #[serde(default)]
    log: Vec<Log>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Witness {
    name: String,
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    origin: Option<String>,
    keys: Vec<String>,
}

impl WitnessConfig {
    /// Where its state is unless told otherwise.
    pub const DEFAULT_DATA: &'static str = "/var/lib/signet-witness";
    /// Where it listens unless told otherwise: on this machine only.
    pub const DEFAULT_LISTEN: &'static str = "127.0.0.1:8444";
    /// The file that is read unless told otherwise.
    pub const DEFAULT_FILE: &'static str = "/etc/signet/witness.toml";

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the option that is wrong and what it should be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::new(Kind::Invalid, format!("the configuration {} cannot be read: {e}", path.display()))
                .hint("name it with --config, or write it: docs/witness.md shows one")
        })?;
        Self::parse(&text).map_err(|e| e.context(path.display()))
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let File { witness, device, log } = read_toml(text)?;
        let Witness { name, listen, data, certificate, key } = witness;
        let listen = match listen {
            Some(listen) => listen,
            None => Self::DEFAULT_LISTEN.parse().map_err(|e| Error::internal(format!("default address: {e}")))?,
        };
        let certificate = match (certificate, key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) if listen.ip().is_loopback() => None,
            (None, None) => {
                return Err(Error::new(Kind::Invalid, "without a certificate a witness listens on this machine only")
                    .hint("give witness.certificate and witness.key, PEM files; or listen = \"127.0.0.1:8444\""));
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(Error::new(Kind::Invalid, "witness.certificate and witness.key go together"));
            }
        };
        let device = check_device(device).map_err(|e| e.context("device"))?;
        if matches!(device, Settings::Tpm(_)) {
            return Err(Error::new(Kind::Unsupported, "a TPM has no Ed25519, which cosignatures are made with")
                .hint("configure a PKCS#11 token: kind = \"pkcs11\""));
        }
        let mut logs = BTreeMap::new();
        for log in log {
            let (origin, log) = check_log(log).map_err(|e| e.context("log"))?;
            if logs.insert(origin.clone(), log).is_some() {
                return Err(Error::new(Kind::Invalid, format!("log {origin} stands there twice"))
                    .hint("one [[log]] for each origin, with all its keys"));
            }
        }
        let data = data.unwrap_or_else(|| Self::DEFAULT_DATA.into());
        Ok(Self { name, listen, data, certificate, device, logs })
    }
}

/// A log is named by its origin, which is the name of its keys unless it is given.
fn check_log(Log { origin, keys }: Log) -> Result<(String, WatchedLog)> {
    let keys = keys.iter().map(|key| key.parse()).collect::<Result<Vec<NoteKey>>>()?;
    let first = keys.first().ok_or_else(|| Error::new(Kind::Invalid, "a log has at least one key"))?;
    if keys.iter().any(NoteKey::cosigns) {
        return Err(Error::new(Kind::Invalid, "that is the key of a witness, and a log signs with another kind")
            .hint("`signet audit head --verifier-key` prints that of a log"));
    }
    let origin = origin.unwrap_or_else(|| first.name().to_owned());
    if origin.is_empty() || origin.len() > 200 || origin.bytes().any(|byte| byte < 0x20) {
        return Err(Error::new(Kind::Invalid, "an origin is one line of 1 to 200 bytes"));
    }
    Ok((origin, WatchedLog { keys }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PublicKey;

    const DEVICE: &str = "[device]\nkind = \"pkcs11\"\nmodule = \"/m\"\ntoken_label = \"t\"\npin_file = \"/p\"\n";

    fn key(of_witness: bool) -> String {
        let point = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        if of_witness {
            return NoteKey::of_witness("w/1", &PublicKey::ed25519(&point).unwrap()).unwrap().to_string();
        }
        // The generator of P-256.
        let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e16\
                     2bce33576b315ececbb6406837bf51f5";
        let key = PublicKey::ec(crate::types::Curve::P256, &hex::decode(point).unwrap()).unwrap();
        NoteKey::of_log("signet/a1", &key).unwrap().to_string()
    }

    #[test]
    fn a_small_file_is_enough() {
        let text = format!("[witness]\nname = \"w/1\"\n{DEVICE}[[log]]\nkeys = [{:?}]\n", key(false));
        let config = WitnessConfig::parse(&text).unwrap();
        assert_eq!(config.listen.to_string(), WitnessConfig::DEFAULT_LISTEN);
        assert_eq!(config.logs.keys().collect::<Vec<_>>(), ["signet/a1"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (log, other) = (key(false), key(true));
        let head = "[witness]\nname = \"w/1\"\n";
        let cases = [
            (format!("{head}[device]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\n"), "no Ed25519"),
            (format!("[witness]\nname = \"w/1\"\nlisten = \"0.0.0.0:1\"\n{DEVICE}"), "this machine only"),
            (format!("[witness]\nname = \"w/1\"\nkey = \"/k\"\n{DEVICE}"), "go together"),
            (format!("{head}{DEVICE}[[log]]\nkeys = []\n"), "at least one key"),
            (format!("{head}{DEVICE}[[log]]\nkeys = [{other:?}]\n"), "the key of a witness"),
            (format!("{head}{DEVICE}[[log]]\nkeys = [\"a+b+c\"]\n"), "not the key of a log"),
            (format!("{head}{DEVICE}[[log]]\nkeys = [{log:?}]\n[[log]]\nkeys = [{log:?}]\n"), "twice"),
            (format!("{head}{DEVICE}[[logs]]\n"), "unknown field `logs`"),
        ];
        for (text, part) in cases {
            let error = WitnessConfig::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
