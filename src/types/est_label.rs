//! Which issuer and which profile an address of EST means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{IssuerName, Name, ProfileName};
use crate::error::{Error, Kind, Result};

/// `NAMESPACE:ISSUER:PROFILE`, or `ISSUER:PROFILE` in the namespace `default`. The profile is one of the issuer's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EstLabel {
    /// Who signs.
    pub issuer: IssuerName,
    /// What certificates look like.
    pub profile: ProfileName,
}

impl FromStr for EstLabel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::Invalid, "this is no label of EST")
                .hint("write NAMESPACE:ISSUER:PROFILE, or ISSUER:PROFILE in the namespace default")
        };
        let parts: Vec<_> = text.splitn(4, ':').collect();
        let (namespace, issuer, profile) = match parts.as_slice() {
            [namespace, issuer, profile] => (*namespace, *issuer, *profile),
            [issuer, profile] => (IssuerName::DEFAULT_NAMESPACE, *issuer, *profile),
            _ => return Err(wrong()),
        };
        let name = |text: &str| text.parse::<Name>().map_err(|_| wrong());
        let namespace = name(namespace)?;
        Ok(Self {
            issuer: IssuerName { namespace: namespace.clone(), name: name(issuer)? },
            profile: ProfileName { namespace, name: name(profile)? },
        })
    }
}

impl fmt::Display for EstLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.issuer, self.profile.name)
    }
}

impl<'de> Deserialize<'de> for EstLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_an_issuer_and_a_profile_of_its_namespace() {
        let label: EstLabel = "fleet:devices.a:client".parse().unwrap();
        assert_eq!(
            (label.issuer.to_string(), label.profile.to_string()),
            ("fleet:devices.a".into(), "fleet:client".into())
        );
        assert_eq!(label.to_string().parse::<EstLabel>().unwrap(), label);
        assert_eq!("devices:client".parse::<EstLabel>().unwrap().to_string(), "default:devices:client");
        for wrong in
            ["", "devices", "a:b:c:d", ":devices:client", "fleet::client", "fleet:devices:", "Fleet:a:b", "a:b/c"]
        {
            assert_eq!(wrong.parse::<EstLabel>().unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }
}
