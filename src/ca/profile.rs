//! Profiles: what may be issued, as data. Pure: a request, the time and the issuer's bounds go in, a template comes out.
//!
//! ```json
//! {"kind": "server", "keys": ["ecdsa-p256"], "names": ["dns:*.fleet.example", "ip:10.0.0.0/8"], "lifetime": "24h", "longest": "7d"}
//! ```
//!
//! A profile says what a certificate may look like; who may have one, and for which names, is for policies. What a request does
//! not say is decided here, and what it says counts only where the profile lets it: by default a CSR proves a key and nothing
//! else. No certificate outlives its issuer.

use std::collections::BTreeSet;

use der::asn1::ObjectIdentifier;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use super::pattern::Pattern;
use super::pattern::Shape;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::types::{Period, PublicKey, SpiffeId, words};
use crate::x509::certificate::MAX_NAMES;
use crate::x509::{
    Authority, Csr, Distribution, ExtendedUsage, KeyKind, KeyUsage, NameConstraints, San, SanKind, Subject,
    SubjectField, Template, Validity, lint,
};

words! {
    /// What certificates of a profile are for.
    Kind: "kind of certificate" {
        /// TLS servers.
        Server = "server",
        /// TLS clients.
        Client = "client",
        /// Both ends of mutual TLS.
        Peer = "peer",
        /// Signed programs.
        CodeSigning = "code-signing",
        /// Authorities below the issuer.
        Intermediate = "intermediate",
        /// X.509-SVIDs of workloads ([SPIFFE](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)).
        Spiffe = "spiffe",
    }
}

impl Kind {
    /// The rules that the linter holds certificates of this kind to.
    #[must_use]
    pub const fn rules(self) -> lint::Kind {
        match self {
            Self::Server => lint::Kind::Server,
            Self::Client => lint::Kind::Client,
            Self::Peer => lint::Kind::Peer,
            Self::CodeSigning => lint::Kind::CodeSigning,
            Self::Intermediate => lint::Kind::Intermediate,
            Self::Spiffe => lint::Kind::Svid,
        }
    }

    /// The extended usages that make it what it is.
    const fn extended(self) -> &'static [ExtendedUsage] {
        match self {
            Self::Server => &[ExtendedUsage::ServerAuth],
            Self::Client => &[ExtendedUsage::ClientAuth],
            // X509-SVID, 4.4: where there are any, both of these are set.
            Self::Peer | Self::Spiffe => &[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth],
            Self::CodeSigning => &[ExtendedUsage::CodeSigning],
            Self::Intermediate => &[],
        }
    }

    /// The kinds of names that make sense.
    const fn names(self) -> &'static [SanKind] {
        match self {
            Self::Server => &[SanKind::Dns, SanKind::Ip],
            Self::Client => &[SanKind::Dns, SanKind::Ip, SanKind::Email, SanKind::Uri],
            Self::Peer => &[SanKind::Dns, SanKind::Ip, SanKind::Uri],
            Self::CodeSigning => &[SanKind::Email, SanKind::Uri],
            // The trust domain of a SPIFFE authority.
            Self::Intermediate => &[SanKind::Uri],
            Self::Spiffe => &[SanKind::Uri, SanKind::Dns],
        }
    }

    /// The longest life that a profile may allow.
    const fn bound(self) -> Period {
        match self {
            // CA/B CSBR, 6.3.2: 460 days; for TLS the Baseline Requirements of 2020 allowed 398.
            Self::CodeSigning => Period::seconds(460 * DAY),
            Self::Server | Self::Client | Self::Peer | Self::Spiffe => Period::seconds(398 * DAY),
            Self::Intermediate => Period::seconds(20 * 366 * DAY),
        }
    }
}

const DAY: u64 = 86_400;
/// CA/B BR, 7.1.2.7: within 48 hours of signing.
const MAX_BACKDATE: Period = Period::seconds(2 * DAY);
/// Shorter ones end before they are installed.
const MIN_LIFETIME: Period = Period::seconds(300);
const MAX_POLICIES: usize = 16;
const MAX_PATTERNS: usize = 256;
const ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32.0");

/// What may be issued. Made from JSON; [`Profile::check`] tells whether it makes sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the certificates are for.
    pub kind: Kind,
    /// The kinds of keys that are certified.
    #[serde(default = "all_keys")]
    pub keys: Vec<KeyKind>,
    /// The alternative names that there may be.
    #[serde(default)]
    pub names: Vec<Pattern>,
    /// How many of them at most.
    #[serde(default = "most_names")]
    pub most_names: usize,
    /// Whether there may be DNS names with a wildcard; each has to match a pattern, too.
    #[serde(default)]
    pub wildcards: bool,
    /// The subject.
    #[serde(default)]
    pub subject: SubjectRule,
    /// The lifetime of a certificate when none is asked for.
    #[serde(default = "one_day")]
    pub lifetime: Period,
    /// The longest lifetime that may be asked for; [`Self::lifetime`] where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<Period>,
    /// How long before its making a certificate begins, for clocks that are late; it may not be asked to begin earlier.
    #[serde(default = "one_minute")]
    pub backdate: Period,
    /// The extended usages, in place of those of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<Vec<ExtendedUsage>>,
    /// Whether RSA keys may transport others, for servers that still exchange keys so.
    #[serde(default)]
    pub key_encipherment: bool,
    /// Whether names and subject of the CSR count, in place of those beside it.
    #[serde(default)]
    pub from_csr: bool,
    /// Whether the service may make the key, outside the device, and hand it out once.
    #[serde(default)]
    pub software: bool,
    /// Under which policies is issued.
    #[serde(default, with = "policy_list", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ObjectIdentifier>,
    /// Whether servers must staple an OCSP response.
    #[serde(default)]
    pub must_staple: bool,
    /// What an intermediate may certify; no further authority and any name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

/// Which attributes a subject has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectRule {
    /// Attributes that are always the same.
    #[serde(default, skip_serializing_if = "Subject::is_empty")]
    pub fixed: Subject,
    /// Attributes that may be asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<SubjectField>,
    /// Attributes that there must be in the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<SubjectField>,
}

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
    /// What it may certify.
    pub authority: Authority,
    /// Where to look for the revocation of what it issues.
    pub distribution: Distribution,
}

impl Profile {
    /// A profile of this kind that says nothing more.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            keys: all_keys(),
            names: Vec::new(),
            most_names: most_names(),
            wildcards: false,
            subject: SubjectRule::default(),
            lifetime: one_day(),
            longest: None,
            backdate: one_minute(),
            extended: None,
            key_encipherment: false,
            from_csr: false,
            software: false,
            policies: Vec::new(),
            must_staple: false,
            authority: None,
        }
    }

    /// The profiles to start with, by name. Their names are any of their kinds: which of them, is for policies.
    #[must_use]
    pub fn built_in() -> Vec<(&'static str, Self)> {
        let any = |kinds: &[SanKind]| kinds.iter().map(|kind| Pattern(*kind, Shape::Any)).collect();
        let profile = |kind: Kind, longest: u64| Self {
            names: any(kind.names()),
            longest: Some(Period::seconds(longest * DAY)),
            ..Self::new(kind)
        };
        let named = |fields: &[SubjectField]| SubjectRule { asked: fields.to_vec(), ..SubjectRule::default() };
        let common_name = named(&[SubjectField::CommonName]);
        let required = SubjectRule { required: vec![SubjectField::CommonName], ..named(SubjectField::ALL) };
        vec![
            ("server", Self { subject: common_name.clone(), ..profile(Kind::Server, 90) }),
            ("client", Self { subject: common_name.clone(), ..profile(Kind::Client, 90) }),
            ("peer", Self { subject: common_name, ..profile(Kind::Peer, 90) }),
            ("code-signing", Self { subject: required.clone(), names: Vec::new(), ..profile(Kind::CodeSigning, 365) }),
            (
                "intermediate",
                Self {
                    subject: required,
                    names: Vec::new(),
                    lifetime: Period::seconds(5 * 365 * DAY),
                    authority: Some(Authority { path_length: Some(0), constraints: NameConstraints::default() }),
                    ..profile(Kind::Intermediate, 10 * 365)
                },
            ),
            (
                "spiffe",
                Self {
                    names: vec![Pattern(SanKind::Uri, Shape::Under("spiffe://".to_owned()))],
                    lifetime: Period::seconds(3600),
                    ..profile(Kind::Spiffe, 1)
                },
            ),
        ]
    }

    /// That it makes sense, before it is stored.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the reason and the mend.
    pub fn check(&self) -> Result<()> {
        self.check_names()?;
        self.check_times()?;
        let Self { kind, keys, extended, key_encipherment, software, policies, must_staple, authority, .. } = self;
        if keys.is_empty() || repeats(keys) {
            return nonsense(
                "the list of keys is empty or names one twice",
                "leave it out to certify all kinds of keys",
            );
        }
        if *key_encipherment && (!keys.iter().any(|key| key.is_rsa()) || !self.is_tls()) {
            return nonsense(
                "no key of this profile transports keys",
                "key_encipherment is for RSA keys of servers, clients and peers",
            );
        }
        if let Some(extended) = extended {
            let all = kind.extended().iter().all(|usage| extended.contains(usage));
            if !all || repeats(extended) || extended.contains(&ExtendedUsage::OcspSigning) {
                let own: Vec<_> = kind.extended().iter().map(|usage| usage.as_str()).collect();
                return nonsense(
                    "the extended usages are not those of the kind",
                    &format!("there have to be: {}; ocsp_signing is for the service alone", own.join(", ")),
                );
            }
        }
        if *must_staple && !matches!(kind, Kind::Server | Kind::Peer) {
            return nonsense("only servers staple", "leave must_staple out");
        }
        if policies.len() > MAX_POLICIES
            || repeats(policies)
            || policies.contains(&ANY_POLICY) && *kind != Kind::Intermediate
        {
            return nonsense(
                "the policies are too many, or name one twice or any at all",
                "at most 16 object identifiers of yours",
            );
        }
        match (kind, authority) {
            (Kind::Intermediate, _) if *software => {
                nonsense("the key of an authority is not made outside a device", "send a CSR of its own device")
            }
            (Kind::Intermediate, Some(Authority { path_length: _, constraints })) => {
                constraints.permitted.iter().chain(&constraints.excluded).try_for_each(crate::x509::Subtree::check)
            }
            (Kind::Intermediate, None) => Ok(()),
            (Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Spiffe, None) => Ok(()),
            (Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Spiffe, Some(_)) => {
                nonsense("only intermediates are authorities", "leave authority out, or make the kind intermediate")
            }
        }
    }

    const fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Server | Kind::Client | Kind::Peer)
    }

    fn check_names(&self) -> Result<()> {
        let Self { kind, names, most_names, wildcards, subject, .. } = self;
        if !(1..=MAX_NAMES).contains(most_names) || names.len() > MAX_PATTERNS {
            return nonsense(
                "that many names do not fit",
                &format!("most_names is 1 to {MAX_NAMES}, with at most {MAX_PATTERNS} patterns"),
            );
        }
        if let Some(Pattern(odd, _)) = names.iter().find(|Pattern(one, _)| !kind.names().contains(one)) {
            let own: Vec<_> = kind.names().iter().map(|kind| kind.as_str()).collect();
            return nonsense(
                &format!("a {kind} certificate has no names of the kind {odd}"),
                &format!("it has: {}", own.join(", ")),
            );
        }
        let needed = matches!(kind, Kind::Server | Kind::Peer | Kind::Spiffe);
        if needed && names.is_empty() {
            return nonsense(
                "no name is allowed, and each certificate needs one",
                "add a pattern such as dns:*.fleet.example, or dns:* for all",
            );
        }
        if *kind == Kind::Spiffe && !names.iter().any(Pattern::is_spiffe) {
            return nonsense("no SPIFFE id is allowed", "add uri:spiffe://trust-domain/*");
        }
        if *wildcards && !matches!(kind, Kind::Server | Kind::Peer) {
            return nonsense("only servers have wildcards", "leave wildcards out");
        }
        let SubjectRule { fixed, asked, required } = subject;
        fixed.check()?;
        let lost = required.iter().find(|field| fixed.get(**field).is_none() && !asked.contains(field));
        if let Some(field) = lost {
            return nonsense(&format!("{field} is required, and nobody can give it"), "add it to asked, or to fixed");
        }
        if let Some(field) = asked.iter().find(|field| fixed.get(**field).is_some()) {
            return nonsense(&format!("{field} is fixed and can be asked for"), "one of both");
        }
        if fixed.common_name.is_some() && matches!(kind, Kind::Server | Kind::Peer) {
            return nonsense("the common name of a server is one of its names", "add common_name to asked");
        }
        let named = fixed.attributes().next().is_some() || !required.is_empty();
        if matches!(kind, Kind::Intermediate | Kind::CodeSigning) && !named {
            return nonsense(
                "the subject may be empty, and this kind needs one",
                "add common_name to asked and required",
            );
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        let Self { kind, lifetime, backdate, .. } = self;
        let longest = self.longest();
        if longest < *lifetime || *lifetime < MIN_LIFETIME {
            return nonsense(
                "the lifetime is shorter than five minutes or longer than the longest",
                "lifetime <= longest",
            );
        }
        if longest > kind.bound() {
            return nonsense(
                &format!("a {kind} certificate does not live that long"),
                &format!("longest is at most {}", kind.bound()),
            );
        }
        if *backdate > MAX_BACKDATE || *backdate >= *lifetime {
            return nonsense(
                "certificates begin too long before they are made",
                "backdate is less than the lifetime, and at most 48h",
            );
        }
        Ok(())
    }

    /// The longest lifetime that may be asked for.
    #[must_use]
    pub fn longest(&self) -> Period {
        self.longest.unwrap_or(self.lifetime)
    }

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
        let mut names = Vec::new();
        for name in of_csr.iter().chain(&requested.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
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
            if !issuer.authority.constraints.permit(name) {
                return refuse(
                    format!("the issuer may not certify the name {name}"),
                    "its certificate constrains names: use another issuer",
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

    /// What is fixed, and what is asked for and may be. What is asked for beside the CSR and may not be is refused; what the CSR
    /// says besides is passed over.
    fn subject(&self, requested: &Requested<'_>, sans: &[San]) -> Result<Subject> {
        let SubjectRule { fixed, asked, required } = &self.subject;
        let mut subject = fixed.clone();
        let of_csr = requested.csr.filter(|_| self.from_csr).map(Csr::subject);
        for field in SubjectField::ALL.iter().copied() {
            let beside = requested.subject.get(field);
            if !asked.contains(&field) {
                if beside.is_some_and(|value| fixed.get(field) != Some(value)) {
                    return refuse(
                        format!("the profile does not let {field} be asked for"),
                        "leave it out of the subject",
                    );
                }
                continue;
            }
            let value = beside.or_else(|| of_csr.and_then(|subject| subject.get(field)));
            if let Some(value) = value {
                subject.set(field, Some(value.to_owned()));
            }
        }
        subject.check()?;
        if let Some(field) = required.iter().find(|field| subject.get(**field).is_none()) {
            return refuse(format!("{field} is missing in the subject"), "the profile requires it");
        }
        // CA/B BR, 7.1.4.3: where there is one, it is one of the alternative names.
        let host = matches!(self.kind, Kind::Server | Kind::Peer);
        let lone = |name: &String| !sans.iter().any(|san| san.kind() == SanKind::Dns && san.value() == *name);
        if host && subject.common_name.as_ref().is_some_and(lone) {
            return refuse(
                "the common name is none of the DNS names",
                "leave it out, or ask for it as a name of the kind dns, too",
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
        let below = match issuer.authority.path_length {
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

fn refuse<T>(why: impl Into<String>, mend: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, why.into()).hint(mend.into()))
}

fn nonsense<T>(why: &str, mend: &str) -> Result<T> {
    refuse(format!("this profile makes no sense: {why}"), mend)
}

fn repeats<T: Ord>(items: &[T]) -> bool {
    items.iter().collect::<BTreeSet<_>>().len() != items.len()
}

fn all_keys() -> Vec<KeyKind> {
    KeyKind::ALL.to_vec()
}

const fn most_names() -> usize {
    MAX_NAMES
}

const fn one_day() -> Period {
    Period::seconds(DAY)
}

const fn one_minute() -> Period {
    Period::seconds(60)
}

/// Object identifiers as texts with dots.
mod policy_list {
    use der::asn1::ObjectIdentifier;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(oids: &[ObjectIdentifier], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(oids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ObjectIdentifier>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse = |text: &String| {
            ObjectIdentifier::new(text)
                .map_err(|_| serde::de::Error::custom(format!("{text:?} is not an object identifier")))
        };
        texts.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::types::Curve;

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
            authority: Authority { path_length: Some(1), constraints: NameConstraints::default() },
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
    fn the_built_in_profiles_make_sense_and_can_be_written() {
        for (name, profile) in Profile::built_in() {
            profile.check().unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let json = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile, "{json}");
        }
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
        bounds.authority.constraints.permitted = vec!["dns:fleet.example".parse().unwrap()];
        server.apply(&asked(&["dns:a.fleet.example", "ip:10.0.0.1"]), now(), &bounds).unwrap();
        assert!(server.apply(&asked(&["dns:a.example"]), now(), &bounds).is_err());

        let json = r#"{"kind": "intermediate", "subject": {"asked": ["common_name"], "required": ["common_name"]},
            "lifetime": "365d", "authority": {"path_length": 3}}"#;
        let intermediate = profile(json);
        let request = Requested { subject: Subject::common("CA 2"), ..asked(&[]) };
        for (above, below) in
            [(None, Some(Some(3))), (Some(9), Some(Some(3))), (Some(2), Some(Some(1))), (Some(0), None)]
        {
            bounds.authority.path_length = above;
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

    #[test]
    fn nonsense_is_refused_with_the_mend() {
        for json in [
            r#"{"kind": "server"}"#,
            r#"{"kind": "server", "names": ["email:*"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "keys": []}"#,
            r#"{"kind": "server", "names": ["dns:*"], "keys": ["ed25519", "ed25519"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "keys": ["ed25519"], "key_encipherment": true}"#,
            r#"{"kind": "server", "names": ["dns:*"], "lifetime": "2d", "longest": "1d"}"#,
            r#"{"kind": "server", "names": ["dns:*"], "longest": "399d"}"#,
            r#"{"kind": "server", "names": ["dns:*"], "lifetime": "1m"}"#,
            r#"{"kind": "server", "names": ["dns:*"], "backdate": "1d"}"#,
            r#"{"kind": "server", "names": ["dns:*"], "most_names": 0}"#,
            r#"{"kind": "server", "names": ["dns:*"], "most_names": 101}"#,
            r#"{"kind": "server", "names": ["dns:*"], "extended": ["client_auth"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "extended": ["server_auth", "ocsp_signing"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "policies": ["2.5.29.32.0"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "policies": ["1.2.3", "1.2.3"]}"#,
            r#"{"kind": "server", "names": ["dns:*"], "authority": {}}"#,
            r#"{"kind": "server", "names": ["dns:*"], "subject": {"fixed": {"common_name": "a"}}}"#,
            r#"{"kind": "server", "names": ["dns:*"], "subject": {"fixed": {"country": "de"}}}"#,
            r#"{"kind": "server", "names": ["dns:*"], "subject": {"required": ["country"]}}"#,
            r#"{"kind": "server", "names": ["dns:*"], "subject": {"asked": ["country"], "fixed": {"country": "DE"}}}"#,
            r#"{"kind": "client", "wildcards": true}"#,
            r#"{"kind": "client", "must_staple": true}"#,
            r#"{"kind": "code-signing"}"#,
            r#"{"kind": "intermediate"}"#,
            r#"{"kind": "intermediate", "subject": {"fixed": {"common_name": "a"}}, "software": true}"#,
            r#"{"kind": "spiffe", "names": ["dns:*"]}"#,
        ] {
            let refused = serde_json::from_str::<Profile>(json).unwrap().check().expect_err(json);
            assert!(refused.kind() == ErrorKind::Invalid && refused.mend().is_some(), "{json}");
        }
        for json in
            [r#"{"kind": "server", "life": "1d"}"#, r#"{"kind": "x"}"#, r#"{"kind": "server", "policies": ["x"]}"#]
        {
            assert!(serde_json::from_str::<Profile>(json).is_err(), "{json}");
        }
    }
}
