//! Where the TPM is: the one line of configuration, checked before any library sees it.
//!
//! Two forms are taken, and nothing else that the loader of tpm2-tss would open, since a TCTI is a shared library by
//! name:
//!
//! ```text
//! device:/dev/tpmrm0
//! swtpm:host=127.0.0.1,port=2321
//! ```

use std::path::{Component, Path};
use std::str::FromStr;

use tss_esapi::tcti_ldr::TctiNameConf;

use crate::device::{Class, Fault};

/// A checked address of a TPM.
#[derive(Clone, Debug)]
pub(super) struct Address {
    conf: TctiNameConf,
    /// Whether nobody tidies up after a client that died: true of a software TPM, which has no resource manager.
    pub(super) unmanaged: bool,
}

impl Address {
    /// Checks `text`.
    pub(super) fn new(text: &str) -> Result<Self, Fault> {
        let unmanaged = match text.split_once(':') {
            Some(("device", path)) if is_device(path) => false,
            Some(("swtpm", place)) if is_place(place) => true,
            Some(_) | None => return Err(malformed()),
        };
        let conf = TctiNameConf::from_str(text).map_err(|_| malformed())?;
        Ok(Self { conf, unmanaged })
    }

    /// The form the wrapper crate takes.
    pub(super) fn conf(&self) -> TctiNameConf {
        self.conf.clone()
    }
}

fn malformed() -> Fault {
    Fault::new(Class::Config, "the address of the TPM is neither a device file nor a software TPM")
        .hint("write tcti = \"device:/dev/tpmrm0\" or tcti = \"swtpm:host=127.0.0.1,port=2321\"")
}

fn is_device(path: &str) -> bool {
    let plain = Path::new(path).components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    path.starts_with("/dev/") && path.len() > "/dev/".len() && plain && !path.contains(',')
}

/// `host=…,port=…`, in this order: the library also takes other orders, and half of them by silent defaults.
fn is_place(place: &str) -> bool {
    let Some((host, port)) = place.strip_prefix("host=").and_then(|rest| rest.split_once(",port=")) else {
        return false;
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    named
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| (1..u16::MAX).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn only_the_two_documented_forms_are_taken() {
        for good in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:host=tpm.example,port=1"] {
            assert!(Address::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "device",
            "device:",
            "device:/dev/",
            "device:/dev/../etc/passwd",
            "device:tpmrm0",
            "swtpm",
            "swtpm:host=,port=2321",
            "swtpm:host=127.0.0.1",
            "swtpm:port=2321,host=127.0.0.1",
            "swtpm:host=127.0.0.1,port=65535",
            "swtpm:host=127.0.0.1,port=+1",
            "swtpm:host=127.0.0.1,port=1,path=/tmp/x",
            "mssim:host=127.0.0.1,port=2321",
            "tabrmd:bus_type=session",
            "/usr/lib/libevil.so:x",
        ] {
            assert!(Address::new(bad).is_err(), "{bad}");
        }
    }
}
