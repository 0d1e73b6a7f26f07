//! pkilint agrees.

use std::collections::BTreeSet;

use signet::x509::lint::Kind;

use crate::good::{good, issuer_certificate, sign};
use crate::pkilint::{Complaint, Subject, pkilint};
use crate::samples::samples;

/// How pkilint can be asked about a certificate.
const WAYS: &[&str] = &["pkix", "public", "chain"];

/// The type of the Baseline Requirements that a kind is closest to.
fn public(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Root => Some("ROOT-CA"),
        Kind::Intermediate => Some("INTERNAL-UNCONSTRAINED-TLS-CA"),
        Kind::Server | Kind::Peer => Some("DV-FINAL-CERTIFICATE"),
        Kind::OcspResponder => Some("OCSP-RESPONDER"),
        Kind::Client | Kind::CodeSigning | Kind::Svid => None,
    }
}

/// A question to pkilint, where this way suits the kind.
fn subject(way: &str, kind: Kind, der: &[u8], issuer: Option<&[u8]>) -> Option<Subject> {
    match way {
        "pkix" => Some(Subject::Certificate(der.to_vec())),
        "public" => public(kind).map(|public| Subject::Public(public, der.to_vec())),
        _ => issuer.map(|issuer| Subject::Chain(issuer.to_vec(), der.to_vec())),
    }
}

/// Good certificates of all kinds, and questions about them.
fn good_subjects(way: &str) -> Vec<(String, Subject)> {
    let of = |kind: &Kind| {
        let issuer = issuer_certificate(*kind);
        let subject = subject(way, *kind, &sign(&good(*kind), *kind), issuer.as_deref())?;
        Some((kind.as_str().to_owned(), subject))
    };
    Kind::ALL.iter().filter_map(of).collect()
}

/// What pkilint says of good certificates, and why we differ.
const TOLERATED: &[(&str, &str)] = &[
    // It takes a URI for one only where the scheme is one of the web's.
    ("svid", "pkix.invalid_uri_syntax"),
];

#[test]
fn pkilint_finds_no_error_in_good_certificates() {
    let mut errors = Vec::new();
    for way in WAYS {
        let Some(answers) = pkilint(&good_subjects(way)) else { return };
        for (name, complaints) in answers {
            let tolerated = |complaint: &Complaint| TOLERATED.contains(&(name.as_str(), complaint.code.as_str()));
            let found = complaints.iter().filter(|complaint| complaint.is_error() && !tolerated(complaint));
            errors.extend(found.map(|complaint| format!("{way} {name}: {} at {}", complaint.code, complaint.path)));
        }
    }
    assert!(errors.is_empty(), "{errors:#?}");
}

const CHAIN: &str = "its linter of chains compares names, key identifiers, policies and the signature";
const SPIFFE: &str = "it knows no SPIFFE";

/// Rules of whose samples pkilint says nothing, and why. That it says something need not mean that it has the rule: a sample of a
/// name outside the issuer's constraints, say, may have a URI that it does not take.
#[rustfmt::skip]
const UNKNOWN_TO_PKILINT: &[(&str, &str)] = &[
    ("attribute_blank", "it reads no sense into attributes"),
    ("attribute_control", "it reads no sense into attributes"),
    ("attribute_known", "it leaves unknown attributes to its EV rules"),
    ("attribute_once", "it asks it of public servers with an organization alone"),
    ("attribute_order", "it asks it of public servers with an organization alone"),
    ("attribute_single", "it asks it of public servers with an organization alone"),
    ("attribute_trimmed", "it asks it of public servers with an organization alone"),
    ("code_extended_only", "it has no rules for code signing"),
    ("country_code", "it takes small letters for large ones"),
    ("der_identifiers", "its decoder drops the padding"),
    ("dns_lower_case", "names differ in case only to those who compare bytes"),
    ("ec_form", "it takes compressed points, which RFC 5480 allows"),
    ("extended_once", "it does not look for repetition"),
    ("issuer_at_hand", "it is about what we are given"),
    ("issuer_is_authority", CHAIN),
    ("key_not_the_issuers", CHAIN),
    ("no_check_critical", "it has no rule for it"),
    ("path_length_left", CHAIN),
    ("path_length_shrinks", CHAIN),
    ("san_once", "it does not look for repetition"),
    ("serial_entropy", "it cannot tell how a number was drawn"),
    ("signer_usage_only", "it has no rules for code signing"),
    ("staple_of_tls", "it has no rule for it"),
    ("subject_key_id_own", CHAIN),
    ("subject_key_id_structure", "it has no bounds for it"),
    ("svid_leaf_path", SPIFFE),
    ("svid_length", SPIFFE),
    ("svid_one_uri", SPIFFE),
    ("svid_path", SPIFFE),
    ("svid_scheme", SPIFFE),
    ("svid_trust_domain", SPIFFE),
    ("validity_within_issuer", CHAIN),
];

#[test]
fn pkilint_complains_of_the_samples_too() {
    let samples: Vec<_> = samples().into_iter().map(|sample| (sample.write(), sample)).collect();
    let mut complained = BTreeSet::new();
    for way in WAYS {
        // Each is asked about only until pkilint complains: it takes a while.
        let mut subjects = good_subjects(way);
        for (number, ((der, issuer), sample)) in samples.iter().enumerate() {
            let subject = subject(way, sample.kind, der, issuer.as_deref());
            subjects.extend(subject.filter(|_| !complained.contains(sample.rule)).map(|it| (number.to_string(), it)));
        }
        let Some(answers) = pkilint(&subjects) else { return };
        let codes = |name: &str| -> BTreeSet<&str> {
            answers.get(name).into_iter().flatten().map(|complaint| complaint.code.as_str()).collect()
        };
        for (number, (_, sample)) in samples.iter().enumerate() {
            if !codes(&number.to_string()).is_subset(&codes(sample.kind.as_str())) {
                complained.insert(sample.rule);
            }
        }
    }
    let silent: BTreeSet<_> =
        samples.iter().map(|(_, sample)| sample.rule).filter(|rule| !complained.contains(rule)).collect();
    let known = UNKNOWN_TO_PKILINT.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(silent, known, "which rules pkilint does not know has changed");
}
