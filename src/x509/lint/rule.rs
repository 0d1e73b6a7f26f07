//! What a rule is, and what it is asked about.

use std::fmt;

use super::value::Value;
use super::view::View;

/// What a certificate is issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An authority that signs itself.
    Root,
    /// An authority below another.
    Intermediate,
    /// A TLS server.
    Server,
    /// A TLS client.
    Client,
    /// Both ends of mutual TLS.
    Peer,
    /// Signed programs.
    CodeSigning,
    /// An X.509-SVID of SPIFFE.
    Svid,
    /// A delegated OCSP responder.
    OcspResponder,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::Root,
        Self::Intermediate,
        Self::Server,
        Self::Client,
        Self::Peer,
        Self::CodeSigning,
        Self::Svid,
        Self::OcspResponder,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Intermediate => "intermediate",
            Self::Server => "server",
            Self::Client => "client",
            Self::Peer => "peer",
            Self::CodeSigning => "code-signing",
            Self::Svid => "svid",
            Self::OcspResponder => "ocsp-responder",
        }
    }

    /// Whether the subject is to be an authority.
    #[must_use]
    pub const fn is_authority(self) -> bool {
        matches!(self, Self::Root | Self::Intermediate)
    }
}

/// What must hold of every certificate.
pub(super) const ALL: &[Kind] = Kind::ALL;
/// Of authorities.
pub(super) const AUTHORITIES: &[Kind] = &[Kind::Root, Kind::Intermediate];
/// Of the root alone.
pub(super) const ROOT: &[Kind] = &[Kind::Root];
/// Of authorities below another.
pub(super) const INTERMEDIATE: &[Kind] = &[Kind::Intermediate];
/// Of all that another certificate vouches for.
pub(super) const ISSUED: &[Kind] =
    &[Kind::Intermediate, Kind::Server, Kind::Client, Kind::Peer, Kind::CodeSigning, Kind::Svid, Kind::OcspResponder];
/// Of all that certify nothing.
pub(super) const LEAVES: &[Kind] =
    &[Kind::Server, Kind::Client, Kind::Peer, Kind::CodeSigning, Kind::Svid, Kind::OcspResponder];
/// Of what names hosts.
pub(super) const SERVERS: &[Kind] = &[Kind::Server, Kind::Peer];
/// Of both ends of TLS.
pub(super) const TLS: &[Kind] = &[Kind::Server, Kind::Client, Kind::Peer, Kind::Svid];
/// Of SPIFFE ids.
pub(super) const SVID: &[Kind] = &[Kind::Svid];
/// Of OCSP responders.
pub(super) const RESPONDER: &[Kind] = &[Kind::OcspResponder];

/// Whether a certificate that breaks a rule may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It may not.
    Error,
    /// It may, and somebody should know: what standards advise, and what they ask of public authorities alone.
    Notice,
}

/// What the bytes are meant to be.
#[derive(Clone, Copy, Debug)]
pub struct Subjectmatter<'a> {
    /// What the certificate is issued for.
    pub kind: Kind,
    /// The issuer's certificate, in DER; a root has none but itself.
    pub issuer: Option<&'a [u8]>,
}

/// The parsed bytes that a rule looks at.
pub(super) struct Seen<'a> {
    pub(super) certificate: &'a View<'a>,
    /// Absent for a root, and where the caller gave none, which a rule of its own reports.
    pub(super) issuer: Option<&'a View<'a>>,
    pub(super) kind: Kind,
    /// Every value of the certificate, those within extensions as well, as far as they could be read.
    pub(super) values: Vec<Value<'a>>,
    /// Why not all could be read.
    pub(super) unread: Option<String>,
}

impl<'a> Seen<'a> {
    /// Takes all values apart once, for all rules.
    pub(super) fn new(certificate: &'a View<'a>, issuer: Option<&'a View<'a>>, kind: Kind) -> Self {
        let mut values = Vec::new();
        let unread = certificate.everything(&mut values).err();
        Self { certificate, issuer, kind, values, unread }
    }

    /// Whose key signs: the issuer's, or a root's own.
    pub(super) fn signer(&self) -> Option<&'a View<'a>> {
        if self.kind == Kind::Root { Some(self.certificate) } else { self.issuer }
    }
}

/// How a rule answers: what is wrong, in words.
pub(super) type Verdict = Result<(), String>;

/// One thing that must hold.
pub struct Rule {
    /// Its stable name.
    pub name: &'static str,
    /// The standard that asks for it, with the section.
    pub source: &'static str,
    /// Whether it refuses.
    pub severity: Severity,
    /// The kinds of certificate that it is about.
    pub applies_to: &'static [Kind],
    /// What must hold, as a sentence.
    pub says: &'static str,
    check: fn(&Seen<'_>) -> Verdict,
}

impl Rule {
    /// A rule that refuses.
    pub(super) const fn error(
        name: &'static str,
        source: &'static str,
        applies_to: &'static [Kind],
        says: &'static str,
        check: fn(&Seen<'_>) -> Verdict,
    ) -> Self {
        Self { name, source, severity: Severity::Error, applies_to, says, check }
    }

    /// A rule that advises.
    pub(super) const fn notice(
        name: &'static str,
        source: &'static str,
        applies_to: &'static [Kind],
        says: &'static str,
        check: fn(&Seen<'_>) -> Verdict,
    ) -> Self {
        Self { name, source, severity: Severity::Notice, applies_to, says, check }
    }

    /// Whether it is about this kind.
    #[must_use]
    pub fn applies(&self, kind: Kind) -> bool {
        self.applies_to.contains(&kind)
    }

    pub(super) fn broken(&self, seen: &Seen<'_>) -> Option<String> {
        (self.check)(seen).err()
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A rule that does not hold.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong. Names of the certificate are quoted and escaped.
    pub detail: String,
}

impl Finding {
    /// The longest detail, in characters: names are as long as whoever asked made them.
    const LONGEST: usize = 200;

    pub(super) fn new(rule: &'static Rule, detail: String) -> Self {
        let short = match detail.char_indices().nth(Self::LONGEST) {
            None => detail,
            Some(_) => detail.chars().take(Self::LONGEST).chain(['…']).collect(),
        };
        Self { rule, detail: short }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.detail, self.rule.name, self.rule.source)
    }
}

/// `Ok` where `good`; otherwise `wrong`, which is only written then.
pub(super) fn must(good: bool, wrong: impl fmt::Display) -> Verdict {
    if good { Ok(()) } else { Err(wrong.to_string()) }
}
