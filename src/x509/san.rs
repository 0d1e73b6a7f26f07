//! Subject alternative names ([RFC 5280, 4.2.1.6](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6)): four kinds, each in one spelling.
//!
//! ```text
//! dns:web.example.com   dns:*.example.com   ip:10.0.0.1   ip:2001:db8::1   email:a@b.example   uri:spiffe://td/x
//! ```
//!
//! Two spellings of one name are two rows in a policy and one name on the wire, so what is not spelt that way is refused. The
//! one thing that is changed is the case of host names in what strangers send ([`San::dns`]), because DNS knows no case.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::types::{SpiffeId, words};

words! {
    /// A kind of name.
    SanKind: "kind of name" {
        /// Host names.
        Dns = "dns",
        /// Addresses.
        Ip = "ip",
        /// Mailboxes.
        Email = "email",
        /// URIs.
        Uri = "uri",
    }
}

/// One subject alternative name, in the one spelling that certificates carry.
///
/// The variants can be filled by hand; [`super::certificate::to_be_signed`] checks them again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    /// A host name: A-labels in lower case, the first perhaps `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mailbox, in ASCII.
    Email(String),
    /// A URI; a SPIFFE id is one.
    Uri(String),
}

impl San {
    /// The longest name of any kind, in bytes.
    pub const MAX: usize = 2048;

    /// A host name as others write it: upper case becomes lower case.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason and the mend.
    pub fn dns(text: &str) -> Result<Self> {
        let name = text.to_ascii_lowercase();
        pattern(&name).map_err(|why| why.error("host name", text))?;
        Ok(Self::Dns(name))
    }

    /// An address of one host.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for addresses that are nobody's or everybody's, and for IPv4 addresses in IPv6 clothes.
    pub fn ip(address: IpAddr) -> Result<Self> {
        let why = match address {
            _ if address.is_unspecified() => "is no host's",
            _ if address.is_multicast() => "is a group's, not a host's",
            IpAddr::V4(four) if four.is_broadcast() => "is every host's",
            IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => "is an IPv4 address: write it as one",
            IpAddr::V4(_) | IpAddr::V6(_) => return Ok(Self::Ip(address)),
        };
        Err(Error::new(Kind::Invalid, format!("the address {address} {why}")))
    }

    /// A mailbox in ASCII: a dot-atom, `@`, and a host ([RFC 5321, 4.1.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2)). The
    /// host's case is lost, the mailbox's is kept.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason and the mend.
    pub fn email(text: &str) -> Result<Self> {
        let wrong = |why: Wrong| why.error("mailbox", text);
        let (mailbox, at) = text.rsplit_once('@').ok_or_else(|| wrong(Wrong("has no @", "write it as name@host")))?;
        if text.len() > 254 || mailbox.len() > 64 {
            return Err(wrong(Wrong("is too long", "64 bytes before the @, 254 in all")));
        }
        let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
        if !mailbox.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext)) {
            return Err(wrong(Wrong(
                "has characters that need quotes",
                "letters, digits and !#$%&'*+-/=?^_`{|}~, with single dots between",
            )));
        }
        let at = at.to_ascii_lowercase();
        host(&at).map_err(wrong)?;
        Ok(Self::Email(format!("{mailbox}@{at}")))
    }

    /// A URI: absolute, ASCII, without user and without steps through the path; a `spiffe:` one is the id of a workload or of
    /// a trust domain.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason and the mend.
    pub fn uri(text: &str) -> Result<Self> {
        uri(text).map_err(|why| why.error("URI", text))?;
        Ok(Self::Uri(text.to_owned()))
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> SanKind {
        match self {
            Self::Dns(_) => SanKind::Dns,
            Self::Ip(_) => SanKind::Ip,
            Self::Email(_) => SanKind::Email,
            Self::Uri(_) => SanKind::Uri,
        }
    }

    /// The name without its kind.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) => text.clone(),
            Self::Ip(address) => address.to_string(),
        }
    }

    /// Whether it stands for many hosts.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Dns(name) if name.starts_with("*."))
    }

    /// That this is a value that parsing would have made.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not.
    pub fn check(&self) -> Result<()> {
        let parsed = match self {
            Self::Dns(text) => Self::dns(text),
            Self::Ip(address) => Self::ip(*address),
            Self::Email(text) => Self::email(text),
            Self::Uri(text) => Self::uri(text),
        }?;
        if parsed == *self { Ok(()) } else { Err(spelling(&parsed)) }
    }
}

impl FromStr for San {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::new(Kind::Invalid, format!("{} is not a name of a known kind", quoted(text)))
                .hint("write dns:host, ip:address, email:mailbox or uri:URI")
        };
        let (kind, value) = text.split_once(':').ok_or_else(unknown)?;
        let name = match kind.parse().map_err(|_| unknown())? {
            SanKind::Dns => Self::dns(value),
            SanKind::Ip => {
                let address = value
                    .parse()
                    .map_err(|_| Error::new(Kind::Invalid, format!("{} is not an address", quoted(value))))?;
                Self::ip(address)
            }
            SanKind::Email => Self::email(value),
            SanKind::Uri => Self::uri(value),
        }?;
        if name.to_string() == text { Ok(name) } else { Err(spelling(&name)) }
    }
}

fn spelling(name: &San) -> Error {
    Error::new(Kind::Invalid, "the name has another spelling").hint(format!("write {name}"))
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) => write!(f, "dns:{text}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Email(text) => write!(f, "email:{text}"),
            Self::Uri(text) => write!(f, "uri:{text}"),
        }
    }
}

impl Serialize for San {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for San {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a name is refused, and what to do about it.
pub(super) struct Wrong(&'static str, &'static str);

impl Wrong {
    /// As an error about `text`, which is a `what`.
    pub(super) fn error(self, what: &str, text: &str) -> Error {
        let Self(why, mend) = self;
        Error::new(Kind::Invalid, format!("the {what} {} {why}", quoted(text))).hint(mend)
    }
}

/// What a stranger wrote, escaped and cut, for an error text.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(80).flat_map(char::escape_default).collect();
    format!("\"{cut}\"")
}

/// A host name, or one with `*` as the whole of its first label
/// ([RFC 6125, 6.4.3](https://www.rfc-editor.org/rfc/rfc6125#section-6.4.3)).
fn pattern(name: &str) -> Result<(), Wrong> {
    let Some(rest) = name.strip_prefix("*.") else { return host(name) };
    host(rest)?;
    // `*.com` is everybody.
    if rest.contains('.') {
        Ok(())
    } else {
        Err(Wrong("stands for a whole top-level domain", "at least two labels follow *."))
    }
}

/// A host name in the preferred syntax ([RFC 1034, 3.5](https://www.rfc-editor.org/rfc/rfc1034#section-3.5)), in lower case.
pub(super) fn host(name: &str) -> Result<(), Wrong> {
    if name.bytes().any(|b| b.is_ascii_control()) {
        return Err(Wrong("has a control character", "letters, digits, hyphens and dots"));
    }
    if !name.is_ascii() {
        return Err(Wrong("is not ASCII", "write international names as A-labels: xn--..."));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(Wrong("is an address", "addresses are names of the kind ip"));
    }
    if name.is_empty() || name.len() > 253 {
        return Err(Wrong("is empty or too long", "1 to 253 bytes"));
    }
    if name.ends_with('.') {
        return Err(Wrong("ends with a dot", "leave out the last dot"));
    }
    if name.contains('*') {
        return Err(Wrong(
            "has a wildcard in a wrong place",
            "* can only be the whole first label, as in *.example.com",
        ));
    }
    name.split('.').try_for_each(label)?;
    // Some resolvers read `1.2.3` and `0x7f.1` as addresses.
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if number(last) || hexadecimal {
        return Err(Wrong("ends in a number, as addresses do", "no top-level domain is a number"));
    }
    Ok(())
}

fn label(label: &str) -> Result<(), Wrong> {
    if label.is_empty() || label.len() > 63 {
        return Err(Wrong("has a label that is empty or too long", "labels have 1 to 63 bytes"));
    }
    if !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(Wrong(
            "has a character that host names do not have",
            "letters, digits, hyphens and dots, in lower case",
        ));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(Wrong("has a label with a hyphen at its edge", "labels begin and end with a letter or digit"));
    }
    match label.get(2..4) {
        Some("--") if label.starts_with("xn") => a_label(label),
        Some("--") => Err(Wrong("has a label of a reserved form", "only xn-- has two hyphens there")),
        Some(_) | None => Ok(()),
    }
}

/// [RFC 5890, 2.3.2.1](https://www.rfc-editor.org/rfc/rfc5890#section-2.3.2.1): an A-label is what its own U-label becomes again.
fn a_label(label: &str) -> Result<(), Wrong> {
    let wrong = || Wrong("has a label that is not a valid A-label", "make it from the Unicode name with an IDNA tool");
    let (unicode, outcome) = idna::domain_to_unicode(label);
    outcome.map_err(|_| wrong())?;
    let again = idna::domain_to_ascii_strict(&unicode).map_err(|_| wrong())?;
    if again == label && !unicode.is_ascii() { Ok(()) } else { Err(wrong()) }
}

/// [RFC 3986, 3](https://www.rfc-editor.org/rfc/rfc3986#section-3), without what gives one resource two spellings.
fn uri(text: &str) -> Result<(), Wrong> {
    if text.len() > San::MAX {
        return Err(Wrong("is too long", "at most 2048 bytes"));
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    if !text.bytes().all(known) {
        return Err(Wrong("has a character that URIs do not have", "ASCII without spaces; the rest as %XX"));
    }
    let scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
    };
    let (scheme, rest) = text
        .split_once(':')
        .filter(|(before, rest)| scheme(before) && !rest.is_empty())
        .ok_or(Wrong("has no scheme in lower case", "write it whole, such as spiffe://trust-domain/path"))?;
    if text.starts_with("spiffe:") {
        return spiffe(text);
    }
    text.split('%').skip(1).try_for_each(escape)?;
    let (authority, path) = match rest.strip_prefix("//") {
        None => (None, rest),
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
            (Some(authority), path)
        }
    };
    if path.split(['/', '?', '#']).any(|step| step == "." || step == "..") {
        return Err(Wrong("has . or .. as a step of its path", "write the path without steps"));
    }
    match authority {
        Some(authority) => authority_of(authority),
        // Readers differ in where the host of `https:/a` is.
        None if matches!(scheme, "http" | "https") => Err(Wrong("has no host", "two slashes follow its scheme")),
        None => Ok(()),
    }
}

/// What follows a `%`: two digits in upper case, of a byte that could not stand there by itself
/// ([RFC 3986, 6.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2)).
fn escape(rest: &str) -> Result<(), Wrong> {
    let two = rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = two.and_then(|two| u8::from_str_radix(two, 16).ok());
    let (Some(two), Some(byte)) = (two, byte) else {
        return Err(Wrong("has a % without two hexadecimal digits", "write the sign itself as %25"));
    };
    if two.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(Wrong("has a % with digits in lower case", "write them in upper case, such as %2F"));
    }
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        return Err(Wrong("has a % before what needs none", "letters, digits and -._~ stand for themselves"));
    }
    Ok(())
}

/// A host and perhaps a port: "URIs that include an authority MUST include a fully qualified domain name or IP address as the
/// host" ([RFC 5280, 4.2.1.6](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6)).
fn authority_of(authority: &str) -> Result<(), Wrong> {
    if authority.contains('@') {
        return Err(Wrong("has a user", "leave out what stands before the @"));
    }
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (authority, None),
    };
    let number = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
    if port.is_some_and(|port| !number(port)) {
        return Err(Wrong("has a port that is no number", "1 to 65535, without zeros before it"));
    }
    let six = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match six {
        Some(six) => match six.parse::<std::net::Ipv6Addr>() {
            Ok(address) if address.to_string() == six => Ok(()),
            Ok(_) => Err(Wrong("has an address in another spelling", "the short one, in lower case: [2001:db8::1]")),
            Err(_) => Err(Wrong("has an address that is none", "IPv6 addresses stand in brackets")),
        },
        None if name.parse::<std::net::Ipv4Addr>().is_ok() => Ok(()),
        None => host(name),
    }
}

/// The id of a workload, or of a trust domain, which only authorities carry
/// ([X509-SVID, 2](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id)).
fn spiffe(text: &str) -> Result<(), Wrong> {
    // A trust domain is what may stand before the path of a workload.
    let domain = !text.strip_prefix("spiffe://").is_some_and(|rest| rest.contains('/'));
    let id = if domain { format!("{text}/x").parse::<SpiffeId>() } else { text.parse::<SpiffeId>() };
    id.map(drop).map_err(|_| Wrong("is not a SPIFFE id", "write it as spiffe://trust-domain/path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_read() {
        for text in [
            "dns:web.example.com",
            "dns:*.example.com",
            "dns:localhost",
            "dns:xn--bcher-kva.example",
            "dns:1.example",
            "ip:10.0.0.1",
            "ip:127.0.0.1",
            "ip:2001:db8::1",
            "email:a.b+c@b.example",
            "uri:spiffe://td/x",
            "uri:spiffe://td",
            "uri:https://a.example:8443/x?y=%20#z",
            "uri:https://[2001:db8::1]/",
            "uri:https://a.example/x%2Fy%C3%A9",
            "uri:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ] {
            let name: San = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            name.check().unwrap();
        }
    }

    #[test]
    fn other_spellings_are_refused_with_a_mend() {
        for text in [
            "",
            "web.example.com",
            "DNS:a.b",
            "dns:",
            "dns:WEB.example.com",
            "dns:web.example.com.",
            "dns:a..b",
            "dns:-a.b",
            "dns:a-.b",
            "dns:a_b.c",
            "dns:a b",
            "dns:a\0.b",
            "dns:bücher.example",
            "dns:xn--.b",
            "dns:xn--a.b",
            "dns:xn--abc-.b",
            "dns:ab--c.d",
            "dns:xn--BCHER-KVA.example",
            "dns:10.0.0.1",
            "dns:1.2.3",
            "dns:0x7f.0x1",
            "dns:::1",
            "dns:*",
            "dns:*.com",
            "dns:**.b.c",
            "dns:a*.b.c",
            "dns:a.*.c",
            "dns:*.*.b.c",
            "dns:*.10.0.0.1",
            "ip:10.0.0.01",
            "ip:10.0.0.1/8",
            "ip:2001:DB8::1",
            "ip:0.0.0.0",
            "ip:::",
            "ip:::ffff:10.0.0.1",
            "ip:224.0.0.1",
            "ip:255.255.255.255",
            "ip:fe80::1%eth0",
            "email:a",
            "email:@b.c",
            "email:a@",
            "email:a b@c.d",
            "email:a..b@c.d",
            "email:é@c.d",
            "email:a@C.d",
            "email:\"a\"@c.d",
            "email:a@10.0.0.1",
            "uri:a",
            "uri:/a",
            "uri:HTTP://a.b/",
            "uri:http://u@a.b/",
            "uri:http://a.b/../c",
            "uri:http://a.b/%zz",
            "uri:http://a.b/%2",
            "uri:http://a.b/%2f",
            "uri:http://a.b/%41",
            "uri:http://a.b/ok/%2e%2e/secret",
            "uri:http://a.b/ok/%2E%2E/secret",
            "uri:http://a.b:0443/",
            "uri:http://a.b:0/",
            "uri:http://a.b:/",
            "uri:https://[2001:DB8::1]/",
            "uri:https://[2001:db8:0::1]/",
            "uri:https:/a.b/../c",
            "uri:https:/a.b/c",
            "uri:https:a.b",
            "uri:urn:a/../b",
            "uri:http://a b/",
            "uri:http:///a",
            "uri:http://a.b:x/",
            "uri:spiffe://TD/x",
            "uri:spiffe://td/",
            "uri:spiffe://td/a//b",
            "uri:spiffe:td",
            "uri:spiffe://td/a?b",
            "other:x",
        ] {
            let refused = text.parse::<San>().expect_err(text);
            assert_eq!(refused.kind(), Kind::Invalid, "{text}");
        }
        let long = format!("dns:{}.example", "a".repeat(64));
        assert!(long.parse::<San>().is_err());
        let long = format!("dns:{}example", "abcdefg.".repeat(32));
        assert!(long.parse::<San>().is_err());
    }

    #[test]
    fn host_names_of_strangers_lose_their_case() {
        assert_eq!(San::dns("Web.EXAMPLE.com").unwrap(), San::Dns("web.example.com".to_owned()));
        assert_eq!(San::email("Joe@B.Example").unwrap(), San::Email("Joe@b.example".to_owned()));
        assert!(San::Dns("Web.example.com".to_owned()).check().is_err());
    }
}
