//! Platform configuration registers (PCRs) of a TPM: which ones, what stands in them, and the policy that binds a key to that.
//!
//! ```text
//! sha256:0,2,7      a bank and registers of it
//!
//! policy = H( H( 0^32 || TPM_CC_PolicyPCR || selection || H(values) ) || TPM_CC_PolicyAuthValue )         H = SHA-256
//! selection = 00000001 || id of the bank || 03 || a bit for each register, the lowest first
//! ```
//!
//! So a use needs the values *and* the authorisation value of the key
//! ([TPM 2.0 Library, Part 3, 23.7 and 23.17](https://trustedcomputinggroup.org/resource/tpm-library-specification/)). What firmware and
//! boot loader measure into which register is in the
//! [TCG PC Client Platform Firmware Profile](https://trustedcomputinggroup.org/resource/pc-client-specific-platform-firmware-profile-specification/), 3.3.4.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Hash, sha256};
use crate::error::{Error, Kind, Result};

/// How many registers a bank has.
const COUNT: u8 = 24;

/// Registers of one bank: at least one, each once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pcrs {
    bank: Hash,
    mask: u32,
}

impl Pcrs {
    /// The bank.
    #[must_use]
    pub const fn bank(self) -> Hash {
        self.bank
    }

    /// The registers, the lowest first.
    pub fn registers(self) -> impl Iterator<Item = u8> {
        (0..COUNT).filter(move |register| self.mask & (1 << register) != 0)
    }

    /// TPML_PCR_SELECTION.
    fn selection(self) -> [u8; 10] {
        let id = match self.bank {
            Hash::Sha256 => 0x0b,
            Hash::Sha384 => 0x0c,
            Hash::Sha512 => 0x0d,
        };
        let [low, middle, high, _] = self.mask.to_le_bytes();
        [0, 0, 0, 1, 0, id, 3, low, middle, high]
    }
}

impl FromStr for Pcrs {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (name, list) = text.split_once(':')?;
            let (bank, mut mask) = (name.parse().ok()?, 0_u32);
            for register in list.split(',') {
                let digits = (1..=2).contains(&register.len()) && register.bytes().all(|byte| byte.is_ascii_digit());
                let number = register.parse::<u8>().ok().filter(|number| digits && *number < COUNT)?;
                let bit = 1 << number;
                if mask & bit != 0 {
                    return None;
                }
                mask |= bit;
            }
            Some(Self { bank, mask })
        };
        parse().ok_or_else(|| {
            Error::new(Kind::Invalid, "not a list of PCRs")
                .hint("write a bank and numbers from 0 to 23, each once, such as sha256:0,2,7; banks are sha256, sha384 and sha512")
        })
    }
}

impl fmt::Display for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers: Vec<_> = self.registers().map(|register| register.to_string()).collect();
        write!(f, "{}:{}", self.bank, registers.join(","))
    }
}

impl fmt::Debug for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Pcrs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pcrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What stands, or stood, in registers of one bank: at least in one.
///
/// As JSON: `{"bank": "sha256", "values": {"0": "…", "7": "…"}}`, values in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PcrValues {
    of: Pcrs,
    /// One for each register, in their order, of the length of the bank's hash.
    values: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    bank: Hash,
    values: BTreeMap<Register, String>,
}

/// The number of a register as the name of a member, in the order of numbers. As a number, it could not be read where a record has its
/// members together with those of another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Register(u8);

impl Serialize for Register {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl PcrValues {
    /// The values of these registers, in their order; `None` where one is missing or of another length than the bank's.
    #[must_use]
    pub fn new(of: Pcrs, values: Vec<Vec<u8>>) -> Option<Self> {
        let whole = values.iter().all(|value| value.len() == of.bank.size());
        (whole && values.len() == of.registers().count()).then_some(Self { of, values })
    }

    /// Which registers.
    #[must_use]
    pub const fn registers(&self) -> Pcrs {
        self.of
    }

    /// The policy of a key that is used only while these values stand in their registers, and with its authorisation value.
    #[must_use]
    pub fn policy(&self) -> [u8; 32] {
        const POLICY_PCR: [u8; 4] = [0, 0, 0x01, 0x7f];
        const POLICY_AUTH_VALUE: [u8; 4] = [0, 0, 0x01, 0x6b];
        let values: Vec<_> = self.values.iter().map(Vec::as_slice).collect();
        let bound = sha256(&[&[0; 32], &POLICY_PCR, &self.of.selection(), &sha256(&values)]);
        sha256(&[&bound, &POLICY_AUTH_VALUE])
    }

    /// The registers in which something else stands `now`.
    #[must_use]
    pub fn changed(&self, now: &Self) -> Vec<u8> {
        if self.of != now.of {
            return self.of.registers().collect();
        }
        let pairs = self.of.registers().zip(self.values.iter().zip(&now.values));
        pairs.filter(|(_, (then, now))| then != now).map(|(register, _)| register).collect()
    }
}

impl TryFrom<Written> for PcrValues {
    type Error = Error;
    fn try_from(Written { bank, values }: Written) -> Result<Self> {
        let read = || {
            let registers: Vec<_> = values.keys().map(|Register(register)| register.to_string()).collect();
            let of = format!("{bank}:{}", registers.join(",")).parse().ok()?;
            let lower = |text: &String| hex::decode(text).ok().filter(|bytes| hex::encode(bytes) == *text);
            Self::new(of, values.values().map(lower).collect::<Option<_>>()?)
        };
        read().ok_or_else(|| Error::new(Kind::Invalid, "these are no values of PCRs"))
    }
}

impl From<PcrValues> for Written {
    fn from(PcrValues { of, values }: PcrValues) -> Self {
        let values = of.registers().map(Register).zip(values.into_iter().map(hex::encode)).collect();
        Self { bank: of.bank, values }
    }
}

impl fmt::Debug for PcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_one_spelling_and_nothing_else_is_taken() {
        for (text, written) in
            [("sha256:0,2,7", "sha256:0,2,7"), ("sha384:23,0", "sha384:0,23"), ("sha512:11", "sha512:11")]
        {
            assert_eq!(text.parse::<Pcrs>().unwrap().to_string(), written);
        }
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha1:0",
            "0,2,7",
            "sha256:24",
            "sha256:7,7",
            "sha256:7,",
            "sha256:+7",
            "sha256:007",
            "sha256: 7",
            "sha256:1-3",
            "SHA256:7",
            "sha256:0,2+sha384:7",
        ] {
            assert_eq!(bad.parse::<Pcrs>().unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let of: Pcrs = "sha256:2,10".parse().unwrap();
        let values = PcrValues::new(of, vec![vec![2; 32], vec![10; 32]]).unwrap();
        let text = serde_json::to_string(&values).unwrap();
        assert!(text.starts_with(r#"{"bank":"sha256","values":{"2":"0202"#), "{text}");
        assert_eq!(serde_json::from_str::<PcrValues>(&text).unwrap(), values);
        // As a member of a record that is read together with another's.
        #[derive(Deserialize)]
        struct Place {
            pcrs: PcrValues,
        }
        #[derive(Deserialize)]
        struct Copy {
            #[serde(flatten)]
            place: Place,
        }
        let copy: Copy = serde_json::from_str(&format!(r#"{{"device":"tpm","pcrs":{text}}}"#)).unwrap();
        assert_eq!(copy.place.pcrs, values);
        assert!(PcrValues::new(of, vec![vec![2; 32]]).is_none());
        assert!(PcrValues::new(of, vec![vec![2; 32], vec![10; 31]]).is_none());
        for bad in [r#"{"bank":"sha256","values":{}}"#, r#"{"bank":"sha256","values":{"2":"02"}}"#] {
            assert!(serde_json::from_str::<PcrValues>(bad).is_err(), "{bad}");
        }
        let now = PcrValues::new(of, vec![vec![2; 32], vec![11; 32]]).unwrap();
        assert_eq!((values.changed(&now), values.changed(&values)), (vec![10], vec![]));
    }

    /// As `tpm2_policypcr` and `tpm2_policyauthvalue` say of registers that are zero; tests/tpm_driver.rs asks them each time.
    #[test]
    fn the_policy_is_that_of_the_standard() {
        let values = PcrValues::new("sha256:0,2,7".parse().unwrap(), vec![vec![0; 32]; 3]).unwrap();
        assert_eq!(hex::encode(values.policy()), "e99abd6d2d44b0735eae38dbeb8c8f609b95df5be40170c347f1a7492406b4c8");
    }
}
