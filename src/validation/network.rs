//! Where this service may connect to when somebody else names the place: public addresses, and networks that are allowed by name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// A network, as `10.0.0.0/8` or `fd00::/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Networks that are allowed beside the public ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// The most networks of one list.
    pub const MAX: usize = 64;

    /// These, beside the public ones.
    ///
    /// # Errors
    /// [`Kind::Limit`] for more than [`Self::MAX`].
    pub fn new(networks: Vec<Network>) -> Result<Self> {
        if networks.len() > Self::MAX {
            return Err(Error::new(Kind::Limit, format!("at most {} networks", Self::MAX)));
        }
        Ok(Self(networks))
    }

    /// The networks.
    #[must_use]
    pub fn list(&self) -> &[Network] {
        &self.0
    }

    /// Whether this service may connect to `address`.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        // `::ffff:127.0.0.1` is 127.0.0.1 to the operating system.
        let address = address.to_canonical();
        public(address) || self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |own: &[u8], other: &[u8]| {
            let bits = usize::from(self.prefix);
            let (whole, rest) = (bits / 8, bits % 8);
            let mask = if rest == 0 { 0 } else { 0xff_u8 << (8 - rest) };
            let last = |bytes: &[u8]| bytes.get(whole).map_or(0, |byte| byte & mask);
            own.get(..whole) == other.get(..whole) && last(own) == last(other)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(&own.octets(), &other.octets()),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(&own.octets(), &other.octets()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            Error::new(Kind::Invalid, format!("{shown:?} is not a network"))
                .hint("write 10.0.0.0/8, fd00::/8 or 10.1.2.3")
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        if prefix > most || address.to_canonical() != address {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether an address is one that everybody reaches: what is not in the special-purpose registries of
/// [RFC 6890](https://www.rfc-editor.org/rfc/rfc6890), as far as they are not reached globally.
fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => public_v4(address),
        IpAddr::V6(address) => public_v6(address),
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, carrier-grade NAT, protocol assignments, 6to4 relays, benchmarks, the reserved rest.
        [0, ..] | [240..=255, ..] | [192, 0, 0, _] | [192, 88, 99, _] => true,
        [100, second, ..] => (64..128).contains(&second),
        [198, second, ..] => second == 18 || second == 19,
        [..] => false,
    };
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation())
}

/// Global unicast is `2000::/3`. Of it, what leads to IPv4 addresses (6to4, Teredo) is left out: it would lead round the rules.
const fn public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x2001, second, ..] => second >= 0x0200 && second != 0x0db8,
        [0x2002, ..] => false,
        [0x3fff, second, ..] => second >= 0x1000,
        [first, ..] => first >= 0x2000 && first < 0x4000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_refused() {
        let none = Networks::default();
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "172.15.0.1",
            "198.17.0.1",
            "2606:4700::1",
            "2a00::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(none.allow(public.parse().unwrap()), "{public}");
        }
        let private = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 \
            172.31.0.1 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 \
            255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 fe80::1 fc00::1 fd12::1 ff02::1 \
            2001::1 2001:db8::1 2002:7f00:1::1 3fff::1 100::1 fec0::1";
        for private in private.split_whitespace() {
            assert!(!none.allow(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn networks_are_allowed_by_name() {
        let networks = ["127.0.0.0/8", "10.1.2.3", "fd00:1::/31"].map(|text| text.parse().unwrap());
        let networks = Networks::new(networks.to_vec()).unwrap();
        for good in ["127.0.0.1", "10.1.2.3", "fd00:1::5", "fd00:0:ffff::1", "::ffff:127.0.0.1", "9.9.9.9"] {
            assert!(networks.allow(good.parse().unwrap()), "{good}");
        }
        for bad in ["10.1.2.4", "fd00:2::1", "::1", "192.168.0.1"] {
            assert!(!networks.allow(bad.parse().unwrap()), "{bad}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/+8", "10.0.0.0/", "::ffff:1.2.3.4/128", "x"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
    }
}
