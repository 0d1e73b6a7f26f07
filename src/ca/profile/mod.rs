//! Profiles: what may be issued, as data. Pure: a request, the time and the issuer's bounds go in, a template comes out.
//!
//! ```json
//! {"kind": "server", "keys": ["ecdsa-p256"], "names": ["dns:*.fleet.example", "ip:10.0.0.0/8"], "lifetime": "24h", "longest": "7d"}
//! ```
//!
//! A profile says what a certificate may look like; who may have one, and for which names, is for policies. What a request does
//! not say is decided here, and what it says counts only where the profile lets it: by default a CSR proves a key and nothing
//! else. No certificate outlives its issuer.

mod apply;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};

pub use super::pattern::Pattern;
use super::pattern::Shape;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::types::{Period, words};
use crate::x509::certificate::MAX_NAMES;
use crate::x509::{Authority, ExtendedUsage, KeyKind, NameConstraints, SanKind, Subject, SubjectField, lint};

pub use apply::{IssuerBounds, Requested};

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

    /// The kinds of names of which one has to be the common name, where that is asked for: programs read it as the name of whoever
    /// they talk to, and policy decides on names. For servers it is a host's (CA/B BR, 7.1.4.3). The others are not talked to.
    const fn common_names(self) -> &'static [SanKind] {
        match self {
            Self::Server | Self::Peer => &[SanKind::Dns],
            Self::Client | Self::Spiffe => &[SanKind::Dns, SanKind::Email, SanKind::Uri],
            Self::CodeSigning | Self::Intermediate => &[],
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
    pub fn built_in() -> &'static [(&'static str, Arc<Self>)] {
        static ALL: LazyLock<Vec<(&'static str, Arc<Profile>)>> =
            LazyLock::new(|| Profile::to_begin_with().into_iter().map(|(name, one)| (name, Arc::new(one))).collect());
        &ALL
    }

    fn to_begin_with() -> Vec<(&'static str, Self)> {
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

    /// Whether TLS servers can show its certificates.
    #[must_use]
    pub fn is_for_servers(&self) -> bool {
        let extended = self.extended.as_deref().unwrap_or_else(|| self.kind.extended());
        self.kind != Kind::Intermediate && extended.contains(&ExtendedUsage::ServerAuth)
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
    use super::*;

    #[test]
    fn the_built_in_profiles_make_sense_and_can_be_written() {
        for (name, profile) in Profile::built_in() {
            profile.check().unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let json = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), **profile, "{json}");
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
