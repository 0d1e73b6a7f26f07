//! Whether names lie within the constraints of an authority ([RFC 5280, 4.2.1.10](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10)).

use std::net::IpAddr;

use super::template::{NameConstraints, Subtree};
use super::{San, SanKind};

impl NameConstraints {
    /// Whether `name` may stand in a certificate below: in none of the excluded parts, and in one of the permitted parts of
    /// its kind, where there is one.
    #[must_use]
    pub fn permit(&self, name: &San) -> bool {
        let Self { permitted, excluded } = self;
        let mut own = permitted.iter().filter(|tree| tree.kind() == name.kind()).peekable();
        // What is said of URIs is about hosts, so one without a host, or with an address for it, lies outside of all.
        if let San::Uri(uri) = name {
            let bound = permitted.iter().chain(excluded).any(|tree| tree.kind() == SanKind::Uri);
            if bound && host_of(uri).is_none_or(|host| host.parse::<IpAddr>().is_ok()) {
                return false;
            }
        }
        let allowed = own.peek().is_none() || own.any(|tree| tree.holds(name));
        // A wildcard stands for names that an excluded part below it may hold.
        allowed && !excluded.iter().any(|tree| tree.holds(name) || tree.is_below_wildcard(name))
    }
}

impl Subtree {
    /// Which names it is about.
    #[must_use]
    pub const fn kind(&self) -> SanKind {
        match self {
            Self::Dns(_) => SanKind::Dns,
            Self::Ip(..) => SanKind::Ip,
            Self::Email(_) => SanKind::Email,
            Self::Uri(_) => SanKind::Uri,
        }
    }

    /// Whether `name` lies in it.
    #[must_use]
    pub fn holds(&self, name: &San) -> bool {
        match (self, name) {
            (Self::Dns(base), San::Dns(name)) => {
                let name = name.strip_prefix("*.").unwrap_or(name);
                name == base || below(name, base)
            }
            (Self::Ip(network, length), San::Ip(address)) => within(*address, *network, *length),
            (Self::Email(base), San::Email(mailbox)) => {
                mailbox.rsplit_once('@').is_some_and(|(_, host)| host_in(host, base))
            }
            (Self::Uri(base), San::Uri(uri)) => host_of(uri).is_some_and(|host| host_in(host, base)),
            (Self::Dns(_) | Self::Ip(..) | Self::Email(_) | Self::Uri(_), _) => false,
        }
    }

    fn is_below_wildcard(&self, name: &San) -> bool {
        let (Self::Dns(base), San::Dns(name)) = (self, name) else { return false };
        name.strip_prefix("*.").is_some_and(|name| below(base, name))
    }
}

/// Whether `address` lies in the network.
#[must_use]
pub fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let same = |difference: u128, width: u32| {
        // A shift by all bits is one too many.
        difference.checked_shr(width.saturating_sub(u32::from(length))).unwrap_or(0) == 0
    };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => same(u128::from(address.to_bits() ^ network.to_bits()), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => same(address.to_bits() ^ network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// "When the constraint begins with a period, it MAY be expanded with one or more labels"; else it is one host.
fn host_in(host: &str, base: &str) -> bool {
    base.strip_prefix('.').map_or(host == base, |base| below(host, base))
}

fn below(name: &str, base: &str) -> bool {
    name.strip_suffix(base).is_some_and(|before| before.ends_with('.'))
}

/// The host of a URI that has an authority, which is what constraints are about.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.starts_with('[') { None } else { authority.split(':').next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_in_subtrees_as_the_standard_says() {
        for (tree, name, holds) in [
            ("dns:example.com", "dns:example.com", true),
            ("dns:example.com", "dns:a.b.example.com", true),
            ("dns:example.com", "dns:*.example.com", true),
            ("dns:example.com", "dns:bexample.com", false),
            ("dns:example.com", "dns:com.example", false),
            ("dns:example.com", "email:a@example.com", false),
            ("ip:10.0.0.0/8", "ip:10.255.0.1", true),
            ("ip:10.0.0.0/8", "ip:11.0.0.1", false),
            ("ip:0.0.0.0/0", "ip:11.0.0.1", true),
            ("ip:0.0.0.0/0", "ip:2001:db8::1", false),
            ("ip:2001:db8::/32", "ip:2001:db8:1::1", true),
            ("ip:::/0", "ip:2001:db8:1::1", true),
            ("ip:10.0.0.1/32", "ip:10.0.0.2", false),
            ("email:b.example", "email:a@b.example", true),
            ("email:b.example", "email:a@c.b.example", false),
            ("email:.b.example", "email:a@c.b.example", true),
            ("email:.b.example", "email:a@b.example", false),
            ("uri:td", "uri:spiffe://td/x", true),
            ("uri:td", "uri:spiffe://other.td/x", false),
            ("uri:.td", "uri:spiffe://other.td/x", true),
            ("uri:a.example", "uri:https://a.example:8443/x", true),
        ] {
            assert_eq!(tree.parse::<Subtree>().unwrap().holds(&name.parse().unwrap()), holds, "{tree} {name}");
        }
    }

    #[test]
    fn kinds_without_a_permitted_part_are_free() {
        let constraints = NameConstraints {
            permitted: vec!["dns:example.com".parse().unwrap()],
            excluded: vec!["dns:secret.example.com".parse().unwrap(), "ip:10.0.0.0/8".parse().unwrap()],
        };
        for (name, permitted) in [
            ("dns:web.example.com", true),
            ("dns:web.example.net", false),
            ("dns:secret.example.com", false),
            ("dns:a.secret.example.com", false),
            ("dns:*.example.com", false),
            ("dns:*.web.example.com", true),
            ("ip:10.0.0.1", false),
            ("ip:11.0.0.1", true),
            ("email:a@b.example", true),
        ] {
            assert_eq!(constraints.permit(&name.parse().unwrap()), permitted, "{name}");
        }
        assert!(NameConstraints::default().permit(&"dns:a.b".parse().unwrap()));
    }

    #[test]
    fn a_uri_without_a_host_is_outside_of_whatever_is_said_of_uris() {
        let excluded = NameConstraints { excluded: vec!["uri:a.example".parse().unwrap()], ..Default::default() };
        for (name, permitted) in [
            ("uri:https://b.example/x", true),
            ("uri:https://a.example/x", false),
            ("uri:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", false),
            ("uri:https://10.0.0.1/x", false),
            ("uri:https://[2001:db8::1]/x", false),
        ] {
            let name = name.parse().unwrap();
            assert_eq!(excluded.permit(&name), permitted, "{name}");
            assert!(NameConstraints::default().permit(&name));
        }
    }
}
