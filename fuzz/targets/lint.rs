//! A certificate before it is signed, and its issuer's, which may come from outside: the lint answers whatever they are.
#![no_main]

use signet::x509::lint::{self, Kind, Subjectmatter};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The certificate is its own issuer: names and constraints, lengths of paths and usages meet within one input.
    for kind in Kind::ALL {
        for issuer in [None, Some(bytes)] {
            let matter = Subjectmatter { kind: *kind, issuer };
            let refused = lint::check(bytes, &matter).is_err();
            let errors = lint::lint(bytes, &matter).iter().any(|finding| finding.rule.severity == lint::Severity::Error);
            assert_eq!(refused, errors);
        }
    }
});
