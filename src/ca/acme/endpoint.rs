//! A place where ACME is spoken: one issuer, some of its profiles, and on whose behalf.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ChallengeKind;
use crate::error::{Error, Kind, Result};
use crate::types::{EndpointName, IssuerName, Name, ProfileName};
use crate::validation::Networks;

/// On whose behalf certificates are asked for. Policies decide by it which names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// The identity.
    pub identity: Name,
    /// Its groups.
    pub groups: Arc<[Name]>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    format: u32,
    /// Its name, which stands in its address.
    pub name: EndpointName,
    /// Who signs.
    pub issuer: IssuerName,
    /// What may be asked for; the first where nothing is said.
    pub profiles: Vec<ProfileName>,
    /// Who speaks for every account. Where absent, an account needs an external account binding, which says who.
    pub open_to: Option<Speaker>,
    /// The kinds of proof.
    pub challenges: Vec<ChallengeKind>,
    /// Private networks where proofs are looked for.
    pub networks: Networks,
    /// The terms of service that an account must agree to.
    pub terms: Option<String>,
    /// Where people read about it.
    pub website: Option<String>,
    /// The names of this authority in CAA records. Where there are none, CAA records are not looked at.
    pub caa: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
}

/// The longest address of terms or website.
const MAX_URL: usize = 512;
/// The most profiles and CAA names.
const MAX_LIST: usize = 16;

impl Endpoint {
    /// An endpoint with the usual rules: all kinds of proof, public networks, an external account binding for each account.
    #[must_use]
    pub fn new(name: EndpointName, issuer: IssuerName, profiles: Vec<ProfileName>, created: Timestamp) -> Self {
        Self {
            format: 1,
            name,
            issuer,
            profiles,
            open_to: None,
            challenges: ChallengeKind::ALL.to_vec(),
            networks: Networks::default(),
            terms: None,
            website: None,
            caa: Vec::new(),
            created,
        }
    }

    /// Looks whether it makes sense.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with what does not.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &'static str| Err(Error::new(Kind::Invalid, text));
        let distinct = |count: usize, names: &mut dyn Iterator<Item = &Name>| {
            names.collect::<std::collections::BTreeSet<_>>().len() == count
        };
        if self.profiles.is_empty() || self.profiles.len() > MAX_LIST {
            return wrong("an ACME endpoint has 1 to 16 profiles");
        }
        // Clients name a profile by the last part of its name.
        if !distinct(self.profiles.len(), &mut self.profiles.iter().map(|profile| &profile.name)) {
            return wrong("two profiles of an ACME endpoint have the same name");
        }
        if self.challenges.is_empty() {
            return wrong("an ACME endpoint has at least one kind of challenge");
        }
        let url = |url: &String| {
            url.len() <= MAX_URL && url.starts_with("https://") && url.bytes().all(|b| b.is_ascii_graphic())
        };
        if !self.terms.iter().chain(&self.website).all(url) {
            return wrong("terms and website are https addresses of at most 512 characters");
        }
        let host =
            |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if self.caa.len() > MAX_LIST || !self.caa.iter().all(|name| !name.is_empty() && name.len() <= 253 && host(name))
        {
            return wrong("a name in CAA records is a host name in lower case, and there are at most 16");
        }
        Ok(())
    }

    /// The profile that a client names, or the first.
    #[must_use]
    pub fn profile(&self, name: Option<&str>) -> Option<&ProfileName> {
        match name {
            None => self.profiles.first(),
            Some(name) => self.profiles.iter().find(|profile| profile.name.as_str() == name),
        }
    }

    /// Where all records of an endpoint stand.
    #[must_use]
    pub fn folder(name: &EndpointName) -> String {
        format!("acme/{}/{}", name.namespace, name.name)
    }

    /// Where its own record stands.
    #[must_use]
    pub fn path(name: &EndpointName) -> String {
        format!("{}/endpoint", Self::folder(name))
    }
}
