//! From a request to a template, by a profile.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Kind, MIN_LIFETIME, Profile, SubjectRule, refuse};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::types::{Period, PublicKey, SpiffeId};
use crate::x509::{
    Authority, Csr, Distribution, KeyKind, KeyUsage, NameConstraints, San, SanKind, Subject, Template, Validity,
};

/// What is asked for, by whatever protocol.
#[derive(Clone, Debug)]
pub struct Requested<'a> {
    /// The key that is to be certified.
    pub public_key: PublicKey,
    /// The CSR that proved it, where there is one.
    pub csr: Option<&'a Csr>,
    /// Names that are asked for beside the CSR.
    pub names: Vec<San>,
    /// A subject that is asked for beside the CSR.
    pub subject: Subject,
    /// How long it is to live.
    pub lifetime: Option<Period>,
    /// When it is to begin.
    pub not_before: Option<Timestamp>,
    /// When it is to end, in place of a lifetime.
    pub not_after: Option<Timestamp>,
    /// Whether the service made the key, outside the device.
    pub software: bool,
}

impl<'a> Requested<'a> {
    /// A request for what the profile says, by this CSR.
    #[must_use]
    pub fn by_csr(csr: &'a Csr) -> Self {
        Self { csr: Some(csr), ..Self::for_key(csr.public_key().clone()) }
    }

    /// A request for what the profile says, for a key of ours.
    #[must_use]
    pub const fn for_key(public_key: PublicKey) -> Self {
        Self {
            public_key,
            csr: None,
            names: Vec::new(),
            subject: Subject {
                country: None,
                province: None,
                locality: None,
                organization: None,
                organizational_unit: None,
                common_name: None,
            },
            lifetime: None,
            not_before: None,
            not_after: None,
            software: false,
        }
    }
}

/// What the issuer leaves to the certificates below it.
#[derive(Clone, Debug)]
pub struct IssuerBounds {
    /// Its own time.
    pub validity: Validity,
    /// How many authorities may stand below it; any number where absent.
    pub path_length: Option<u8>,
    /// Its own, and those of whatever stands above it: a name has to be permitted by each.
    pub constraints: Vec<NameConstraints>,
    /// Where to look for the revocation of what it issues.
    pub distribution: Distribution,
}

impl Profile {
    /// The certificate that answers `requested` at `now`, under an issuer with these bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what the profile or the issuer does not allow, [`ErrorKind::Limit`] for too many names,
    /// [`ErrorKind::State`] for an issuer whose time is over or that may certify no authority.
    pub fn apply(&self, requested: &Requested<'_>, now: Timestamp, issuer: &IssuerBounds) -> Result<Template> {
        let key = KeyKind::of(&requested.public_key)?;
        if !self.keys.contains(&key) {
            let known: Vec<_> = self.keys.iter().map(|key| key.as_str()).collect();
            return refuse(
                format!("the profile does not certify keys of {key}"),
                format!("one of: {}", known.join(", ")),
            );
        }
        if requested.software && !self.software {
            return refuse("the profile does not let the service make the key", "send a CSR");
        }
        self.wishes_of_csr(requested)?;
        let sans = self.sans(requested, issuer)?;
        let subject = self.subject(requested, &sans)?;
        Ok(Template {
            subject,
            sans,
            public_key: requested.public_key.clone(),
            validity: self.validity(requested, now, issuer)?,
            usages: self.usages(key),
            extended: self.extended.clone().unwrap_or_else(|| self.kind.extended().to_vec()),
            authority: self.authority_under(issuer)?,
            policies: self.policies.clone(),
            distribution: issuer.distribution.clone(),
            must_staple: self.must_staple,
            no_check: false,
        })
    }

    /// To become an authority by a profile for leaves is refused aloud, whatever counts.
    fn wishes_of_csr(&self, requested: &Requested<'_>) -> Result<()> {
        let Some(csr) = requested.csr else { return Ok(()) };
        if csr.wants_ca() && self.kind != Kind::Intermediate {
            return refuse(
                "the request asks to be an authority",
                "leave basicConstraints out, or use a profile of the kind intermediate",
            );
        }
        if !self.from_csr {
            return Ok(());
        }
        let granted = self.extended.as_deref().unwrap_or_else(|| self.kind.extended());
        if csr.wants_other_usages() || !csr.extended().iter().all(|usage| granted.contains(usage)) {
            let granted: Vec<_> = granted.iter().map(|usage| usage.as_str()).collect();
            return refuse(
                "the request asks for extended usages that the profile does not have",
                format!("it has: {}", granted.join(", ")),
            );
        }
        if csr.must_staple() && !self.must_staple {
            return refuse(
                "the request asks for stapling, which the profile does not have",
                "leave the TLS feature out",
            );
        }
        Ok(())
    }

    /// The names that are asked for, each once: those of the CSR where they count, and those beside it.
    #[must_use]
    pub fn names_of(&self, requested: &Requested<'_>) -> Vec<San> {
        let of_csr = requested.csr.filter(|_| self.from_csr).map_or(&[][..], Csr::sans);
        let mut known = BTreeSet::new();
        let all = of_csr.iter().chain(&requested.names);
        all.filter(|name| known.insert(name.to_string())).cloned().collect()
    }

    fn sans(&self, requested: &Requested<'_>, issuer: &IssuerBounds) -> Result<Vec<San>> {
        let names = self.names_of(requested);
        if names.len() > self.most_names {
            return Err(Error::new(ErrorKind::Limit, format!("the profile allows {} names", self.most_names)));
        }
        for name in &names {
            name.check()?;
            if name.is_wildcard() && !self.wildcards {
                return refuse(
                    format!("the profile has no wildcards: {name}"),
                    "ask for each host, or set wildcards in the profile",
                );
            }
            if !self.names.iter().any(|pattern| pattern.matches(name)) {
                let known: Vec<_> = self.names.iter().take(5).map(ToString::to_string).collect();
                return refuse(
                    format!("the profile does not allow the name {name}"),
                    format!("it allows: {}", known.join(", ")),
                );
            }
            if !issuer.constraints.iter().all(|constraints| constraints.permit(name)) {
                return refuse(
                    format!("the issuer may not certify the name {name}"),
                    "its certificate, or one above it, constrains names: use another issuer",
                );
            }
        }
        if names.is_empty() && matches!(self.kind, Kind::Server | Kind::Peer | Kind::Spiffe) {
            let mend = if self.from_csr {
                "put it into the CSR"
            } else {
                "send names beside the CSR, or set from_csr in the profile"
            };
            return refuse("a name is missing", mend);
        }
        self.spiffe(&names)?;
        Ok(names)
    }

    /// [X509-SVID, 2](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id): "MUST contain exactly one URI SAN". So
    /// does whatever else has a SPIFFE id.
    fn spiffe(&self, names: &[San]) -> Result<()> {
        let uris: Vec<_> = names.iter().filter(|name| name.kind() == SanKind::Uri).map(San::value).collect();
        let ids = uris.iter().filter(|uri| uri.starts_with("spiffe:")).count();
        if ids > 0 && uris.len() != 1 {
            return refuse("a certificate with a SPIFFE id has no other URI", "ask for one");
        }
        let domain = uris.iter().any(|uri| uri.starts_with("spiffe:") && uri.parse::<SpiffeId>().is_err());
        match self.kind {
            Kind::Spiffe if ids != 1 => {
                refuse("a SPIFFE id is missing", "ask for the name uri:spiffe://trust-domain/path")
            }
            Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Spiffe if domain => {
                refuse("a trust domain is the id of an authority", "ask for a workload: uri:spiffe://trust-domain/path")
            }
            Kind::Intermediate if ids == 1 && !domain => refuse(
                "an authority has no path in its SPIFFE id",
                "ask for the trust domain: uri:spiffe://trust-domain",
            ),
            Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Intermediate | Kind::Spiffe => Ok(()),
        }
    }

    /// The subject that answers a request with this CSR and this subject beside it: what is fixed, and what is asked for and may be. What
    /// else is asked for is passed over.
    #[must_use]
    pub fn subject_of(&self, csr: Option<&Csr>, beside: &Subject) -> Subject {
        let SubjectRule { fixed, asked, required: _ } = &self.subject;
        let mut subject = fixed.clone();
        let of_csr = csr.filter(|_| self.from_csr).map(Csr::subject);
        for field in asked.iter().copied() {
            let value = beside.get(field).or_else(|| of_csr.and_then(|subject| subject.get(field)));
            if let Some(value) = value {
                subject.set(field, Some(value.to_owned()));
            }
        }
        subject
    }

    /// As [`Self::subject_of`], where what is asked for beside the CSR may be.
    fn subject(&self, requested: &Requested<'_>, sans: &[San]) -> Result<Subject> {
        let SubjectRule { fixed, asked, required } = &self.subject;
        let odd = requested
            .subject
            .attributes()
            .find(|(field, value)| !asked.contains(field) && fixed.get(*field) != Some(*value));
        if let Some((field, _)) = odd {
            return refuse(format!("the profile does not let {field} be asked for"), "leave it out of the subject");
        }
        let subject = self.subject_of(requested.csr, &requested.subject);
        subject.check()?;
        if let Some(field) = required.iter().find(|field| subject.get(**field).is_none()) {
            return refuse(format!("{field} is missing in the subject"), "the profile requires it");
        }
        let asked = subject.common_name.as_ref().filter(|name| fixed.common_name.as_ref() != Some(*name));
        let kinds = self.kind.common_names();
        let lone = |name: &String| !sans.iter().any(|san| kinds.contains(&san.kind()) && san.value() == *name);
        if !kinds.is_empty() && asked.is_some_and(lone) {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            return refuse(
                "the common name is none of the names",
                format!("leave it out, or ask for it as a name, too, of one of these kinds: {}", kinds.join(", ")),
            );
        }
        Ok(subject)
    }

    fn validity(&self, requested: &Requested<'_>, now: Timestamp, issuer: &IssuerBounds) -> Result<Validity> {
        let time = || Error::new(ErrorKind::Invalid, "the validity cannot be written");
        let now = Timestamp::from_second(now.as_second()).map_err(|_| time())?;
        let Validity { not_before: first, not_after: last } = issuer.validity;
        if now > last || now < first {
            return Err(Error::new(ErrorKind::State, "the issuer's certificate is not valid now")
                .hint("rotate the issuer, or look at the clock"));
        }
        let earliest = now.checked_sub(self.backdate.as_signed()).map_err(|_| time())?;
        let not_before = match requested.not_before {
            None => earliest,
            Some(wish) if (earliest..=now).contains(&wish) => {
                Timestamp::from_second(wish.as_second()).map_err(|_| time())?
            }
            Some(_) => {
                return refuse(
                    "it may not begin then",
                    format!("at most {} ago, and not later than now", self.backdate),
                );
            }
        };
        let not_before = not_before.max(first);
        // Both ends belong to it, so it ends a second earlier.
        let after = |period: Period| {
            not_before.checked_add(period.as_signed() - SignedDuration::from_secs(1)).map_err(|_| time())
        };
        let longest = after(self.longest())?;
        let asked = match (requested.not_after, requested.lifetime) {
            (Some(_), Some(_)) => return refuse("both an end and a lifetime are asked for", "one of both"),
            (Some(end), None) => Some(Timestamp::from_second(end.as_second()).map_err(|_| time())?),
            (None, Some(lifetime)) if lifetime < MIN_LIFETIME => {
                return refuse("the lifetime is too short", "at least 5m");
            }
            (None, Some(lifetime)) => Some(after(lifetime)?),
            (None, None) => None,
        };
        if asked.is_some_and(|end| end > longest) {
            return refuse("the lifetime is longer than the profile allows", format!("at most {}", self.longest()));
        }
        if asked.is_some_and(|end| end > last) {
            return refuse("it would outlive its issuer", format!("the issuer's certificate ends at {last}"));
        }
        let not_after = asked.map_or_else(|| after(self.lifetime), Ok)?.min(last);
        if not_after <= now {
            refuse("it would end before it is made", "ask for a later end")
        } else {
            Ok(Validity { not_before, not_after })
        }
    }

    fn usages(&self, key: KeyKind) -> Vec<KeyUsage> {
        match self.kind {
            // A list may be signed by whoever certifies; OCSP answers of ours are signed by responders.
            Kind::Intermediate => vec![KeyUsage::CertSign, KeyUsage::CrlSign],
            Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Spiffe => {
                let transports = self.key_encipherment && key.is_rsa();
                let transport = transports.then_some(KeyUsage::KeyEncipherment);
                std::iter::once(KeyUsage::DigitalSignature).chain(transport).collect()
            }
        }
    }

    /// The path shrinks below each authority ([RFC 5280, 4.2.1.9](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.9)).
    fn authority_under(&self, issuer: &IssuerBounds) -> Result<Option<Authority>> {
        if self.kind != Kind::Intermediate {
            return Ok(None);
        }
        let own = self
            .authority
            .clone()
            .unwrap_or(Authority { path_length: Some(0), constraints: NameConstraints::default() });
        let below = match issuer.path_length {
            Some(0) => {
                return Err(Error::new(ErrorKind::State, "the issuer may certify no further authority")
                    .hint("its path length is 0: use the issuer above it"));
            }
            Some(length) => Some(length.saturating_sub(1)),
            None => None,
        };
        let path_length = match (own.path_length, below) {
            (Some(own), Some(below)) => Some(own.min(below)),
            (own, below) => own.or(below),
        };
        Ok(Some(Authority { path_length, ..own }))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::super::DAY;
    use super::*;
    use crate::types::Curve;
    use crate::x509::ExtendedUsage;

    fn p256() -> PublicKey {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        PublicKey::ec(Curve::P256, key.public_key().as_ref()).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-21T12:00:00.5Z".parse().unwrap()
    }

    fn issuer() -> IssuerBounds {
        IssuerBounds {
            validity: Validity {
                not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
                not_after: "2026-12-31T23:59:59Z".parse().unwrap(),
            },
            path_length: Some(1),
            constraints: Vec::new(),
            distribution: Distribution { crl: vec!["http://a.example/1.crl".to_owned()], ..Distribution::default() },
        }
    }

    fn profile(json: &str) -> Profile {
        let profile: Profile = serde_json::from_str(json).unwrap();
        profile.check().unwrap();
        profile
    }

    fn asked(names: &[&str]) -> Requested<'static> {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Requested { names, ..Requested::for_key(p256()) }
    }

    #[test]
    fn a_server_gets_what_its_profile_says_for_a_day() {
        let profile = profile(r#"{"kind": "server", "names": ["dns:*.fleet.example"]}"#);
        let template = profile.apply(&asked(&["dns:web.fleet.example"]), now(), &issuer()).unwrap();
        assert_eq!(template.validity.not_before.to_string(), "2026-11-21T11:59:00Z");
        assert_eq!(template.validity.not_after.to_string(), "2026-11-22T11:58:59Z");
        assert_eq!(
            (template.usages, template.extended),
            (vec![KeyUsage::DigitalSignature], vec![ExtendedUsage::ServerAuth])
        );
        assert_eq!(template.distribution, issuer().distribution);
        assert!(template.subject.is_empty() && template.authority.is_none());
    }

    #[test]
    fn what_the_profile_does_not_allow_is_refused() {
        let json = r#"{"kind": "server", "keys": ["ecdsa-p256"], "names": ["dns:*.fleet.example", "ip:10.0.0.0/8"],
            "most_names": 2, "longest": "2d", "subject": {"asked": ["common_name"], "fixed": {"organization": "Example"}}}"#;
        let profile = profile(json);
        let good = || asked(&["dns:web.fleet.example", "ip:10.1.2.3"]);
        profile.apply(&good(), now(), &issuer()).unwrap();
        type Change = fn(&mut Requested<'_>);
        let changes: [(&str, Change); 19] = [
            ("no name", |r| r.names.clear()),
            ("another name", |r| r.names = vec!["dns:web.example".parse().unwrap()]),
            ("the base of a pattern", |r| r.names = vec!["dns:fleet.example".parse().unwrap()]),
            ("the end of a pattern", |r| r.names = vec!["dns:evilfleet.example".parse().unwrap()]),
            ("a wildcard", |r| r.names = vec!["dns:*.fleet.example".parse().unwrap()]),
            ("another address", |r| r.names = vec!["ip:11.1.2.3".parse().unwrap()]),
            ("another kind of name", |r| r.names = vec!["email:a@web.fleet.example".parse().unwrap()]),
            ("too many names", |r| r.names.push("ip:10.0.0.1".parse().unwrap())),
            ("a name by hand", |r| r.names = vec![San::Dns("WEB.fleet.example".to_owned())]),
            ("a lone common name", |r| r.subject = Subject::common("db.fleet.example")),
            ("another organisation", |r| r.subject.organization = Some("Other".to_owned())),
            ("an attribute", |r| r.subject.locality = Some("Görlitz".to_owned())),
            ("a software key", |r| r.software = true),
            ("a long life", |r| r.lifetime = Some(Period::seconds(3 * DAY))),
            ("a short life", |r| r.lifetime = Some(Period::seconds(299))),
            ("a late end", |r| r.not_after = Some("2026-11-24T00:00:00Z".parse().unwrap())),
            ("an end in the past", |r| r.not_after = Some("2026-11-21T11:59:59Z".parse().unwrap())),
            ("an early beginning", |r| r.not_before = Some("2026-11-21T11:58:59Z".parse().unwrap())),
            ("a late beginning", |r| r.not_before = Some("2026-11-21T12:00:01Z".parse().unwrap())),
        ];
        for (what, change) in changes {
            let mut requested = good();
            change(&mut requested);
            let refused = profile.apply(&requested, now(), &issuer()).expect_err(what);
            assert!(matches!(refused.kind(), ErrorKind::Invalid | ErrorKind::Limit), "{what}: {refused:?}");
        }
        let key = Ed25519KeyPair::generate().unwrap();
        let other = Requested { public_key: PublicKey::ed25519(key.public_key().as_ref()).unwrap(), ..good() };
        assert!(profile.apply(&other, now(), &issuer()).is_err());
    }

    /// Who reads the common name as the name of a peer reads what policy has decided on.
    #[test]
    fn the_common_name_of_a_peer_is_one_of_its_names() {
        let common_name = r#""subject": {"asked": ["common_name"]}"#;
        let client = format!(r#"{{"kind": "client", "names": ["dns:*", "email:*", "uri:*", "ip:*"], {common_name}}}"#);
        let spiffe = format!(r#"{{"kind": "spiffe", "names": ["uri:spiffe://td/*", "dns:*"], {common_name}}}"#);
        let peer = format!(r#"{{"kind": "peer", "names": ["dns:*", "uri:*"], {common_name}}}"#);
        for (json, name, common, fits) in [
            (&client, "dns:a.fleet.example", "postgres", false),
            (&client, "dns:app", "app", true),
            (&client, "email:joe@b.example", "joe@b.example", true),
            (&client, "email:joe@b.example", "joe", false),
            (&client, "uri:https://a.example/x", "https://a.example/x", true),
            (&spiffe, "uri:spiffe://td/x", "postgres", false),
            (&spiffe, "uri:spiffe://td/x", "spiffe://td/x", true),
            (&peer, "dns:a.b", "a.b", true),
            (&peer, "uri:https://a.example/x", "https://a.example/x", false),
        ] {
            let requested = Requested { subject: Subject::common(common), ..asked(&[name]) };
            assert_eq!(profile(json).apply(&requested, now(), &issuer()).is_ok(), fits, "{name} {common}");
        }
        let lone = Requested { subject: Subject::common("postgres"), ..asked(&[]) };
        assert!(profile(&client).apply(&lone, now(), &issuer()).is_err());
        // One that stands in the profile was chosen by whoever may write profiles.
        let fixed = profile(r#"{"kind": "client", "names": ["dns:*"], "subject": {"fixed": {"common_name": "app"}}}"#);
        let template = fixed.apply(&asked(&["dns:a.b"]), now(), &issuer()).unwrap();
        assert_eq!(template.subject, Subject::common("app"));
    }

    #[test]
    fn no_certificate_outlives_its_issuer() {
        let profile = profile(r#"{"kind": "server", "names": ["dns:*"], "longest": "90d"}"#);
        let late: Timestamp = "2026-12-31T20:00:00Z".parse().unwrap();
        let template = profile.apply(&asked(&["dns:a.b"]), late, &issuer()).unwrap();
        assert_eq!(template.validity.not_after, issuer().validity.not_after);
        let long = Requested { lifetime: Some(Period::seconds(2 * DAY)), ..asked(&["dns:a.b"]) };
        assert!(profile.apply(&long, late, &issuer()).unwrap_err().public().contains("outlive"));
        for outside in ["2027-01-01T00:00:00Z", "2025-12-31T23:59:59Z"] {
            let refused = profile.apply(&asked(&["dns:a.b"]), outside.parse().unwrap(), &issuer()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::State);
        }
        // The first certificates of a new issuer do not begin before it.
        let first = profile.apply(&asked(&["dns:a.b"]), "2026-01-01T00:00:10Z".parse().unwrap(), &issuer()).unwrap();
        assert_eq!(first.validity.not_before, issuer().validity.not_before);
    }

    #[test]
    fn the_bounds_of_the_issuer_hold() {
        let server = profile(r#"{"kind": "server", "names": ["dns:*", "ip:*"]}"#);
        let mut bounds = issuer();
        let permit = |text: &str| NameConstraints { permitted: vec![text.parse().unwrap()], ..Default::default() };
        bounds.constraints = vec![permit("dns:fleet.example")];
        server.apply(&asked(&["dns:a.fleet.example", "ip:10.0.0.1"]), now(), &bounds).unwrap();
        assert!(server.apply(&asked(&["dns:a.example"]), now(), &bounds).is_err());
        // Those of each certificate above count.
        bounds.constraints.push(permit("dns:west.fleet.example"));
        server.apply(&asked(&["dns:a.west.fleet.example"]), now(), &bounds).unwrap();
        assert!(server.apply(&asked(&["dns:a.fleet.example"]), now(), &bounds).is_err());

        let json = r#"{"kind": "intermediate", "subject": {"asked": ["common_name"], "required": ["common_name"]},
            "lifetime": "365d", "authority": {"path_length": 3}}"#;
        let intermediate = profile(json);
        let request = Requested { subject: Subject::common("CA 2"), ..asked(&[]) };
        for (above, below) in
            [(None, Some(Some(3))), (Some(9), Some(Some(3))), (Some(2), Some(Some(1))), (Some(0), None)]
        {
            bounds.path_length = above;
            let made = intermediate.apply(&request, now(), &bounds).ok();
            assert_eq!(made.map(|template| template.authority.unwrap().path_length), below, "{above:?}");
        }
    }

    #[test]
    fn spiffe_ids_are_alone_and_in_their_place() {
        let spiffe =
            profile(r#"{"kind": "spiffe", "names": ["uri:spiffe://td/*", "uri:https://a.example/*", "dns:*"]}"#);
        spiffe.apply(&asked(&["uri:spiffe://td/x", "dns:a.b"]), now(), &issuer()).unwrap();
        for names in [
            &["dns:a.b"][..],
            &["uri:spiffe://td"],
            &["uri:spiffe://other/x"],
            &["uri:https://a.example/x"],
            &["uri:spiffe://td/x", "uri:spiffe://td/y"],
            &["uri:spiffe://td/x", "uri:https://a.example/x"],
        ] {
            assert!(spiffe.apply(&asked(names), now(), &issuer()).is_err(), "{names:?}");
        }
    }
}
