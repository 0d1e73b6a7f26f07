//! Whatever the bytes, the lint answers.

use proptest::collection::vec;
use proptest::prelude::*;
use signet::x509::lint::{self, Kind, Severity, Subjectmatter};

use crate::good::{good, issuer_certificate, sign};

/// Changes, cuts, doubles and inserts bytes.
fn damage(mut bytes: Vec<u8>, changes: &[(usize, u8, u8)]) -> Vec<u8> {
    for (at, how, byte) in changes {
        let at = at % (bytes.len() + 1);
        match how % 5 {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, *byte),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.truncate(at.max(1)),
            _ => {}
        }
    }
    bytes
}

proptest! {
    #[test]
    fn damaged_certificates_are_answered(
        kind in 0..Kind::ALL.len(),
        changes in vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
        issuers in vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..4),
    ) {
        let kind = Kind::ALL[kind];
        let issuer = issuer_certificate(kind).map(|bytes| damage(bytes, &issuers));
        let bytes = damage(sign(&good(kind), kind), &changes);
        for kind in Kind::ALL {
            for finding in lint::lint(&bytes, &Subjectmatter { kind: *kind, issuer: issuer.as_deref() }) {
                prop_assert!(finding.detail.chars().count() <= 201);
            }
        }
    }

    /// Names and constraints, lengths of paths and usages meet where a certificate is its own issuer.
    #[test]
    fn damaged_certificates_may_be_their_own_issuers(
        kind in 0..Kind::ALL.len(),
        changes in vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
    ) {
        let bytes = damage(sign(&good(Kind::ALL[kind]), Kind::ALL[kind]), &changes);
        for kind in Kind::ALL {
            let matter = Subjectmatter { kind: *kind, issuer: Some(&bytes) };
            let refused = lint::check(&bytes, &matter).is_err();
            let errors = lint::lint(&bytes, &matter).iter().any(|finding| finding.rule.severity == Severity::Error);
            prop_assert_eq!(refused, errors);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let matter = Subjectmatter { kind: *kind, issuer: Some(&bytes) };
            prop_assert!(!lint::lint(&bytes, &matter).is_empty());
        }
    }
}
