//! When a certificate should be renewed ([RFC 9773](https://www.rfc-editor.org/rfc/rfc9773)).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::problem::{ProblemKind, refuse};
use crate::error::Error;
use crate::x509::{Serial, Validity};

/// How a certificate is named: by its issuer's key identifier and its serial number
/// ([RFC 9773, 4.1](https://www.rfc-editor.org/rfc/rfc9773#section-4.1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateId {
    /// The key identifier of the authority.
    pub authority: Vec<u8>,
    /// The serial number.
    pub serial: Serial,
}

/// Why a certificate must be renewed before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    Age,
    /// Its issuer is to be replaced, or it is to be revoked: told at the first time, to be done by the second.
    Announced(Timestamp, Timestamp),
    /// It is revoked since then.
    Revoked(Timestamp),
}

/// When to renew: a client draws a moment in between, which spreads many clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: Timestamp,
    /// The last one.
    pub end: Timestamp,
}

/// The window of a certificate. By age it is a twelfth of the lifetime, around its second third; where something was announced,
/// all of the time between, if that is earlier.
#[must_use]
pub fn window(validity: &Validity, reason: Reason) -> Window {
    let lifetime = validity.not_after.duration_since(validity.not_before);
    let at = |part: SignedDuration| validity.not_before.checked_add(part).unwrap_or(validity.not_after);
    let usual = Window { start: at(lifetime / 24 * 15), end: at(lifetime / 24 * 17) };
    match reason {
        Reason::Age => usual,
        Reason::Announced(told, until) if until < usual.end => {
            let start = told.max(validity.not_before).min(until);
            Window { start, end: until.max(start) }
        }
        Reason::Announced(..) => usual,
        // "If the selected time is in the past, attempt renewal immediately."
        Reason::Revoked(since) => {
            Window { start: since.checked_sub(SignedDuration::from_hours(1)).unwrap_or(since), end: since }
        }
    }
}

/// When to ask again: a 24th of the lifetime, at least a minute and at most six hours.
#[must_use]
pub fn ask_again(validity: &Validity) -> Duration {
    let lifetime = validity.not_after.duration_since(validity.not_before).unsigned_abs();
    (lifetime / 24).clamp(Duration::from_secs(60), Duration::from_secs(6 * 3600))
}

impl FromStr for CertificateId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || refuse(ProblemKind::Malformed, "this is no identifier of a certificate");
        let (authority, serial) = text.split_once('.').ok_or_else(wrong)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| (1..=64).contains(&bytes.len()));
        let authority = decode(authority).ok_or_else(wrong)?;
        let serial = decode(serial).ok_or_else(wrong)?;
        // The bytes of a DER INTEGER: as few as can be, and positive.
        let minimal = match serial.as_slice() {
            [0, 128..=255, ..] | [1..=127, ..] => true,
            [..] => false,
        };
        let mut bytes = [0; 20];
        let start = bytes.len().checked_sub(serial.len()).filter(|_| minimal).ok_or_else(wrong)?;
        for (to, from) in bytes.iter_mut().skip(start).zip(&serial) {
            *to = *from;
        }
        Ok(Self { authority, serial: Serial::from_bytes(bytes) })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.serial.as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(zeros..).unwrap_or_default();
        let sign: &[u8] = if significant.first().is_none_or(|byte| *byte >= 128) { &[0] } else { &[] };
        let serial = [sign, significant].concat();
        write!(f, "{}.{}", URL_SAFE_NO_PAD.encode(&self.authority), URL_SAFE_NO_PAD.encode(serial))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifiers_are_those_of_the_standard() {
        // RFC 9773, 4.1
        let id: CertificateId = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".parse().unwrap();
        assert_eq!(hex::encode(&id.authority), "69885b6b87464041e1b37b847ba0ae2cde01c8d4");
        assert!(id.serial.to_string().ends_with("0087654321"));
        assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        for bad in
            ["", ".", "AA.", ".AA", "aYhb", "aYhb.AAAB", "aYhb.gAAA", "aYhb.AA", "aYhb.AQ==", "a b.AQ", "aYhb.AQ.AQ"]
        {
            assert!(bad.parse::<CertificateId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn windows_follow_age_and_announcements() {
        let time = |hours: i64| Timestamp::from_second(1_000_000 + hours * 3600).unwrap();
        let validity = Validity { not_before: time(0), not_after: time(24) };
        let usual = Window { start: time(15), end: time(17) };
        assert_eq!(window(&validity, Reason::Age), usual);
        assert_eq!(window(&validity, Reason::Announced(time(2), time(10))), Window { start: time(2), end: time(10) });
        assert_eq!(window(&validity, Reason::Announced(time(-5), time(-1))), Window { start: time(-1), end: time(-1) });
        assert_eq!(window(&validity, Reason::Announced(time(-5), time(4))), Window { start: time(0), end: time(4) });
        assert_eq!(window(&validity, Reason::Announced(time(2), time(20))), usual);
        assert_eq!(window(&validity, Reason::Revoked(time(3))).end, time(3));
        assert_eq!(ask_again(&validity), Duration::from_secs(3600));
    }

    proptest! {
        #[test]
        fn identifiers_have_one_spelling(authority in proptest::collection::vec(any::<u8>(), 1..40), mut serial: [u8; 20]) {
            serial[0] &= 0x7f;
            prop_assume!(serial != [0; 20]);
            let id = CertificateId { authority, serial: Serial::from_bytes(serial) };
            prop_assert_eq!(id.to_string().parse::<CertificateId>().unwrap(), id);
        }
    }
}
