//! Patterns of names: which alternative names a profile lets a certificate have.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::x509::constraints::within;
use crate::x509::{San, SanKind, Subtree};

/// Names that there may be, written as a kind and a shape of names:
///
/// ```text
/// dns:web.example.com   this one          dns:*.example.com   all below it       dns:*    all
/// ip:10.0.0.1           this one          ip:10.0.0.0/8       all in it          ip:*     all
/// email:a@b.example     this one          email:*@b.example   all of this host   email:*  all
/// uri:spiffe://td/x     this one          uri:spiffe://td/*   all that begin so  uri:*    all
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(pub(super) SanKind, pub(super) Shape);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shape {
    /// All of the kind.
    Any,
    /// This one.
    One(San),
    /// Hosts below this one, mailboxes of this host, or URIs that begin so.
    Under(String),
    /// Addresses of this network.
    Network(IpAddr, u8),
}

impl Pattern {
    /// Whether `name` is one of those.
    #[must_use]
    pub fn matches(&self, name: &San) -> bool {
        let Self(kind, shape) = self;
        *kind == name.kind()
            && match (shape, name) {
                (Shape::Any, _) => true,
                (Shape::One(one), _) => one == name,
                (Shape::Under(base), San::Dns(host)) => {
                    host.strip_suffix(base.as_str()).is_some_and(|before| before.ends_with('.'))
                }
                (Shape::Under(base), San::Email(mailbox)) => {
                    mailbox.rsplit_once('@').is_some_and(|(_, host)| host == base)
                }
                (Shape::Under(base), San::Uri(uri)) => uri.len() > base.len() && uri.starts_with(base.as_str()),
                (Shape::Network(network, length), San::Ip(address)) => within(*address, *network, *length),
                (Shape::Under(_) | Shape::Network(..), _) => false,
            }
    }

    /// Whether SPIFFE ids are among them.
    #[must_use]
    pub(super) fn is_spiffe(&self) -> bool {
        match self {
            Self(SanKind::Uri, Shape::Under(base)) => base.starts_with("spiffe://"),
            Self(SanKind::Uri, Shape::One(one)) => one.value().starts_with("spiffe://"),
            Self(SanKind::Uri, Shape::Any) => true,
            Self(SanKind::Dns | SanKind::Ip | SanKind::Email | SanKind::Uri, _) => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::Invalid, "not a pattern of names").hint(
                "a name such as dns:web.example.com; or dns:*.example.com, ip:10.0.0.0/8, email:*@example.com, uri:spiffe://td/*; or dns:* for all",
            )
        };
        let (kind, value) = text.split_once(':').ok_or_else(wrong)?;
        let kind: SanKind = kind.parse().map_err(|_| wrong())?;
        let shape = match (kind, value) {
            (_, "*") => Shape::Any,
            (SanKind::Dns, value) if value.starts_with("*.") => {
                Shape::Under(host(value.strip_prefix("*.").unwrap_or_default())?)
            }
            (SanKind::Email, value) if value.starts_with("*@") => {
                Shape::Under(host(value.strip_prefix("*@").unwrap_or_default())?)
            }
            (SanKind::Uri, value) if value.ends_with('*') => {
                let base = value.strip_suffix('*').unwrap_or_default();
                // Cut within a host, `spiffe://td*` would hold `spiffe://td.evil`.
                let whole = base == "spiffe://" || base.contains("://") && base.matches('/').count() > 2;
                let good = base == "spiffe://" || San::uri(&format!("{base}x")).is_ok();
                if !whole || !good {
                    return Err(
                        wrong().hint("a URI pattern is cut after the slash that follows its host: uri:spiffe://td/*")
                    );
                }
                Shape::Under(base.to_owned())
            }
            (SanKind::Ip, value) if value.contains('/') => {
                let Subtree::Ip(network, length) = format!("ip:{value}").parse()? else { return Err(wrong()) };
                Shape::Network(network, length)
            }
            // In a pattern a `*` is never itself.
            (_, value) if value.contains('*') => return Err(wrong()),
            (SanKind::Dns | SanKind::Ip | SanKind::Email | SanKind::Uri, _) => Shape::One(text.parse()?),
        };
        Ok(Self(kind, shape))
    }
}

/// The host below which a pattern lies: a name without a wildcard.
fn host(name: &str) -> Result<String> {
    match format!("dns:{name}").parse()? {
        San::Dns(host) if !host.starts_with("*.") => Ok(host),
        San::Dns(_) | San::Ip(_) | San::Email(_) | San::Uri(_) => {
            Err(Error::new(Kind::Invalid, "a pattern has one wildcard").hint("write dns:*.example.com"))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, shape) = self;
        match (kind, shape) {
            (kind, Shape::Any) => write!(f, "{kind}:*"),
            (_, Shape::One(name)) => write!(f, "{name}"),
            (SanKind::Uri, Shape::Under(base)) => write!(f, "uri:{base}*"),
            (SanKind::Email, Shape::Under(base)) => write!(f, "email:*@{base}"),
            (SanKind::Dns | SanKind::Ip, Shape::Under(base)) => write!(f, "{kind}:*.{base}"),
            (kind, Shape::Network(network, length)) => write!(f, "{kind}:{network}/{length}"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in [
            "dns:*",
            "ip:*",
            "email:*",
            "uri:*",
            "dns:web.example.com",
            "dns:*.example.com",
            "dns:*.fleet",
            "ip:10.0.0.1",
            "ip:10.0.0.0/8",
            "email:a@b.example",
            "email:*@b.example",
            "uri:spiffe://td/x",
            "uri:spiffe://td/*",
            "uri:spiffe://td/a/b*",
            "uri:spiffe://*",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "*",
            "x:*",
            "dns:",
            "dns:*.*.a.b",
            "dns:a*.b.c",
            "dns:*b.c",
            "dns:*.B.c",
            "ip:10.0.0.1/8",
            "email:a*@b.example",
            "email:*@*.a.b",
            "uri:spiffe*",
            "uri:spiffe://td*",
            "uri:https://a.example*",
            "uri:*x",
            "uri:spiffe://TD/*",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
