//! What messages are signed with.

use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::types::read_own;

/// What stands before a secret.
const PREFIX: &str = "whsec_";
/// "the secret … should be between 24 bytes … and 64 bytes"
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
/// How many secrets sign at once.
const MOST: usize = 4;
/// The longest file.
const ROOM: usize = 4096;

/// One secret, or several while receivers go over from one to the next.
pub(super) struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// Reads a file with one secret on each line, `whsec_` and base64.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = read_own(path, "secret file", ROOM)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let keys: Option<Vec<_>> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect();
        match keys {
            Some(keys) if (1..=MOST).contains(&keys.len()) => Ok(Self(keys)),
            Some(_) | None => {
                let text = format!("the secret file {} does not hold one to {MOST} secrets", path.display());
                Err(Error::new(Kind::Invalid, text).hint(
                    "on each line whsec_ and the base64 of 24 to 64 bytes: \
                     (umask 077; echo \"whsec_$(openssl rand -base64 32)\" > FILE)",
                ))
            }
        }
    }

    /// The signatures of a message, by each secret.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let sign = |key| {
            let mut mac = hmac::Context::with_key(key);
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.sign()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

fn parse(line: &str) -> Option<hmac::Key> {
    let bytes = Zeroizing::new(STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?);
    LENGTH.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Secrets> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Secrets::read(&path)
    }

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_that_of_the_reference() {
        let signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let sign = |text: &str| {
            let body = br#"{"test": 2432232314}"#;
            read(text, 0o600).unwrap().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
        };
        assert_eq!(sign(SECRET), signed);
        // By the new one and the old one.
        let both = sign(&format!("whsec_{}\n{SECRET}\n\n", STANDARD.encode([7; 64])));
        assert!(both.ends_with(&format!(" {signed}")) && both.matches("v1,").count() == 2, "{both}");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        let many = format!("{SECRET}\n").repeat(5);
        for text in ["", "\n", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***", &short, &many] {
            let error = read(text, 0o600).err().unwrap();
            assert!(error.mend().is_some() && !error.chain().contains("MfKQ"), "{}", error.chain());
        }
        let error = read(SECRET, 0o640).err().unwrap();
        assert!(error.public().contains("others can read") && error.mend().unwrap().starts_with("chmod 600"));
    }
}
