//! What an order asks a certificate for: host names and addresses.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::problem::{ProblemKind, refuse};
use crate::error::Result;
use crate::validation::Host;
use crate::x509::San;

/// A host name, perhaps with a wildcard, or an address ([RFC 8738](https://www.rfc-editor.org/rfc/rfc8738)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum Identifier {
    /// A host name in lower case; the first label may be `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl Identifier {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// `unsupportedIdentifier` for other types, `malformed` for what is no name of its type, `rejectedIdentifier` for names that
    /// are never certified.
    pub fn parse(kind: &str, value: &str) -> Result<Self> {
        match kind {
            "dns" => {
                let malformed = |e: crate::error::Error| refuse(ProblemKind::Malformed, e.public().to_owned());
                let San::Dns(name) = San::dns(value).map_err(malformed)? else {
                    return Err(refuse(ProblemKind::Malformed, "this is no host name"));
                };
                // An address in the clothes of a name, and names that no resolver outside knows.
                let last = name.rsplit('.').next().unwrap_or_default();
                if !name.contains('.') || last.bytes().all(|b| b.is_ascii_digit()) || last == "arpa" {
                    let text = format!("{name} is not a name that a certificate is issued for by ACME");
                    return Err(refuse(ProblemKind::RejectedIdentifier, text));
                }
                Ok(Self::Dns(name))
            }
            "ip" => {
                let text = || "this is no address in its usual spelling".to_owned();
                let address: IpAddr = value.parse().map_err(|_| refuse(ProblemKind::Malformed, text()))?;
                // "the textual form … specified in Section 2.1 of RFC 1123 for IPv4 and in Section 4 of RFC 5952 for IPv6"
                if address.to_string() != value || San::ip(address).is_err() {
                    return Err(refuse(ProblemKind::Malformed, text()));
                }
                Ok(Self::Ip(address))
            }
            _ => {
                Err(refuse(ProblemKind::UnsupportedIdentifier, "only names of the types dns and ip are certified here"))
            }
        }
    }

    /// Whether it stands for many names.
    #[must_use]
    pub fn wildcard(&self) -> bool {
        matches!(self, Self::Dns(name) if name.starts_with("*."))
    }

    /// The name without its wildcard: what control is shown of.
    #[must_use]
    pub fn base(&self) -> Self {
        match self {
            Self::Dns(name) => Self::Dns(name.strip_prefix("*.").unwrap_or(name).to_owned()),
            Self::Ip(address) => Self::Ip(*address),
        }
    }

    /// Where control is looked for.
    #[must_use]
    pub fn host(&self) -> Host {
        match self.base() {
            Self::Dns(name) => Host::Name(name),
            Self::Ip(address) => Host::Address(address),
        }
    }

    /// The name as it stands in a certificate.
    #[must_use]
    pub fn san(&self) -> San {
        match self {
            Self::Dns(name) => San::Dns(name.clone()),
            Self::Ip(address) => San::Ip(*address),
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling_and_are_public_in_form() {
        for (kind, value) in [("dns", "a.test"), ("dns", "*.a.test"), ("ip", "192.0.2.1"), ("ip", "2001:db8::1")] {
            assert_eq!(Identifier::parse(kind, value).unwrap().to_string(), value);
        }
        assert_eq!(Identifier::parse("dns", "A.Test").unwrap(), Identifier::Dns("a.test".to_owned()));
        let bad = [
            ("dns", ""),
            ("dns", "a"),
            ("dns", "localhost"),
            ("dns", "192.0.2.1"),
            ("dns", "*.*.a.test"),
            ("dns", "a.*.test"),
            ("dns", "a..test"),
            ("dns", "a.test."),
            ("dns", "a b.test"),
            ("dns", "a\u{0}.test"),
            ("dns", "\u{e9}.test"),
            ("dns", "*"),
            ("dns", "1.2.0.192.in-addr.arpa"),
            ("dns", "a/b.test"),
            ("dns", "-a.test"),
            ("ip", "192.0.2.01"),
            ("ip", "::ffff:192.0.2.1"),
            ("ip", "2001:DB8::1"),
            ("ip", "*.1"),
            ("email", "a@b.test"),
            ("DNS", "a.test"),
            ("", ""),
        ];
        for (kind, value) in bad {
            assert!(Identifier::parse(kind, value).is_err(), "{kind} {value}");
        }
    }

    #[test]
    fn it_is_stored_as_it_is_sent() {
        let name = Identifier::Dns("*.a.test".to_owned());
        assert_eq!(serde_json::to_string(&name).unwrap(), r#"{"type":"dns","value":"*.a.test"}"#);
        assert!(name.wildcard() && name.base() == Identifier::Dns("a.test".to_owned()));
        let address = Identifier::Ip("192.0.2.1".parse().unwrap());
        assert_eq!(serde_json::to_string(&address).unwrap(), r#"{"type":"ip","value":"192.0.2.1"}"#);
    }
}
