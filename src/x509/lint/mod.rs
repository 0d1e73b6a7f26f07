//! Linting before signing: is this, byte for byte, a certificate that standards allow and relying parties take?
//!
//! ```text
//! to-be-signed bytes ─▶ View (only what DER says) ─▶ every Rule of RULES that applies to the kind ─▶ findings
//!          issuer's certificate ─▶ View ──────────────┘
//! ```
//!
//! The bytes are read here with `der` and not with the types that wrote them: an encoder that errs would err alike when it
//! reads. Nothing is normalised, nothing is repaired, and what cannot be read is a finding. A rule looks only at bytes; there
//! is no clock, no store and no caller. The rules are written down in `docs/lint.md`.

mod authority;
mod encoding;
mod extensions;
mod frame;
mod key;
mod names;
mod rule;
mod sans;
mod services;
mod spiffe;
mod usage;
mod value;
mod view;

use std::fmt::Write as _;

use crate::error::{Error, Kind as ErrorKind, Result};

pub use rule::{Finding, Kind, Rule, Severity, Subjectmatter};

use rule::Seen;
use view::View;

/// All rules, by subject.
pub const RULES: &[(&str, &[Rule])] = &[
    ("Encoding", encoding::RULES),
    ("Version, serial number, algorithm and validity", frame::RULES),
    ("Names of issuer and subject", names::RULES),
    ("Alternative names", sans::RULES),
    ("The certified key", key::RULES),
    ("Extensions and key identifiers", extensions::RULES),
    ("Usages", usage::RULES),
    ("Authorities and what they may certify", authority::RULES),
    ("Revocation, policies and other services", services::RULES),
    ("SPIFFE", spiffe::RULES),
];

/// The longest certificate that is read, in bytes.
const LONGEST: usize = 1 << 16;

/// What the rules find in `bytes`, a TBSCertificate or a whole certificate.
#[must_use]
pub fn lint(bytes: &[u8], matter: &Subjectmatter<'_>) -> Vec<Finding> {
    let certificate = match read(bytes) {
        Ok(certificate) => certificate,
        Err(detail) => return vec![Finding::new(&encoding::STRUCTURE, detail)],
    };
    let issuer = match matter.issuer.map(read).transpose() {
        Ok(issuer) => issuer,
        Err(detail) => return vec![Finding::new(&authority::ISSUER_AT_HAND, format!("the issuer's: {detail}"))],
    };
    let seen = Seen::new(&certificate, issuer.as_ref(), matter.kind);
    let rules = RULES.iter().flat_map(|(_, rules)| *rules).filter(|rule| rule.applies(matter.kind));
    rules.filter_map(|rule| rule.broken(&seen).map(|detail| Finding::new(rule, detail))).collect()
}

/// Refuses what breaks a rule of [`Severity::Error`]; answers the notices.
///
/// # Errors
/// [`ErrorKind::Invalid`] with the first three findings in its sentence and all of them as its cause.
pub fn check(bytes: &[u8], matter: &Subjectmatter<'_>) -> Result<Vec<Finding>> {
    const SHOWN: usize = 3;
    let (errors, notices): (Vec<_>, Vec<_>) =
        lint(bytes, matter).into_iter().partition(|finding| finding.rule.severity == Severity::Error);
    if errors.is_empty() {
        return Ok(notices);
    }
    let mut sentence = String::from("this certificate would break rules and is not signed");
    for (number, finding) in errors.iter().take(SHOWN).enumerate() {
        let _ = write!(sentence, "{} {finding}", if number == 0 { ":" } else { ";" });
    }
    let all = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Error::new(ErrorKind::Invalid, sentence)
        .hint("each rule is explained in docs/lint.md; change the request or the profile")
        .because(all))
}

fn read(bytes: &[u8]) -> Result<View<'_>, String> {
    if bytes.len() > LONGEST {
        return Err(format!("{} bytes are more than the {LONGEST} that are read", bytes.len()));
    }
    View::read(bytes)
}
