//! The table of rules, against good certificates and against samples.

use std::collections::BTreeSet;

use signet::x509::lint::{self, Kind, RULES, Rule, Severity, Subjectmatter};

use crate::draft::{common, relatives};
use crate::good::{good, issuer_certificate, issuer_of, matter, sign};
use crate::samples::{Sample, samples};

fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().flat_map(|(_, rules)| *rules)
}

#[test]
fn names_are_used_once_and_rules_apply() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        assert!(names.insert(rule.name), "{} stands there twice", rule.name);
        assert!(!rule.applies_to.is_empty() && rule.says.ends_with('.') && rule.source.contains(','), "{rule:?}");
    }
    assert!(names.len() >= 60, "{}", names.len());
}

#[test]
fn good_certificates_break_no_rule() {
    for kind in Kind::ALL {
        let issuer = issuer_certificate(*kind);
        let matter = matter(*kind, issuer.as_deref());
        let draft = good(*kind);
        for bytes in [draft.to_be_signed(), sign(&draft, *kind)] {
            let findings = lint::lint(&bytes, &matter);
            assert!(findings.is_empty(), "{kind:?}: {findings:#?}");
            assert!(lint::check(&bytes, &matter).unwrap().is_empty());
        }
    }
}

#[test]
fn every_rule_has_a_sample_that_breaks_it() {
    let samples = samples();
    for rule in rules() {
        assert!(samples.iter().any(|sample| sample.rule == rule.name), "{} has no sample", rule.name);
    }
    let mut silent = Vec::new();
    for sample in &samples {
        let (bytes, issuer) = sample.write();
        let found = lint::lint(&bytes, &Subjectmatter { kind: sample.kind, issuer: issuer.as_deref() });
        if !found.iter().any(|finding| finding.rule.name == sample.rule) {
            silent.push(format!("{}: {found:?}", sample.rule));
        }
    }
    assert!(silent.is_empty(), "these samples do not break their rules:\n{}", silent.join("\n"));
}

#[test]
fn what_breaks_a_rule_is_not_signed_and_a_notice_is_told() {
    for sample in samples() {
        let (bytes, issuer) = sample.write();
        let matter = Subjectmatter { kind: sample.kind, issuer: issuer.as_deref() };
        let severity = rules().find(|rule| rule.name == sample.rule).unwrap().severity;
        match (severity, lint::check(&bytes, &matter)) {
            (Severity::Error, Ok(notices)) => panic!("{} is let through with {notices:?}", sample.rule),
            (Severity::Error, Err(error)) => assert!(error.chain().contains(sample.rule), "{}", error.chain()),
            (Severity::Notice, Ok(notices)) => assert!(notices.iter().any(|notice| notice.rule.name == sample.rule)),
            (Severity::Notice, Err(_)) => {}
        }
    }
}

/// A sample breaks its own rule; what else it breaks is named beside it, so that a rule that fires too often is seen.
#[test]
fn a_sample_breaks_little_else() {
    let mut loud = Vec::new();
    for sample in samples() {
        let Sample { rule, also, .. } = sample;
        let (bytes, issuer) = sample.write();
        let found = lint::lint(&bytes, &Subjectmatter { kind: sample.kind, issuer: issuer.as_deref() });
        let others: Vec<_> = found
            .iter()
            .map(|finding| finding.rule.name)
            .filter(|name| *name != rule && !also.contains(name))
            .collect();
        if !others.is_empty() {
            loud.push(format!("{rule}: {others:?}"));
        }
    }
    assert!(loud.is_empty(), "these samples break more than is said beside them:\n{}", loud.join("\n"));
}

/// Names that lie within constraints: a name as tag and bytes, and what is permitted and excluded, likewise.
#[test]
fn names_within_constraints_break_no_rule() {
    type Name = (u8, &'static [u8]);
    let organization = crate::der::sequence(&relatives(&common("billing"))[..2]);
    let cases: &[(Name, &[Name], &[Name])] = &[
        ((0x82, b"web.example.com"), &[(0x82, b"example.com")], &[(0x82, b"com.example")]),
        ((0x82, b"web.example.com"), &[(0x82, b"example.org"), (0x82, b"WEB.example.com")], &[]),
        ((0x82, b"*.example.com"), &[(0x82, b"example.com")], &[(0x82, b"a.secret.example.com")]),
        ((0x82, b"web.example.com"), &[(0x82, b"")], &[(0x82, b"eb.example.com")]),
        ((0x82, b"web.example.com"), &[(0x81, b"example.org")], &[(0x87, &[0; 8])]),
        (
            (0x87, &[10, 1, 2, 3]),
            &[(0x87, &[10, 0, 0, 0, 255, 0, 0, 0])],
            &[(0x87, &[10, 1, 2, 0, 255, 255, 255, 254])],
        ),
        ((0x81, b"a@example.com"), &[(0x81, b"example.com")], &[(0x81, b".example.com")]),
        ((0x81, b"a@sub.example.com"), &[(0x81, b".example.com")], &[(0x81, b"example.com")]),
        ((0x81, b"a@example.com"), &[(0x81, b"a@EXAMPLE.com")], &[(0x81, b"A@example.com")]),
        ((0x86, b"https://a.example.com:8443/x"), &[(0x86, b".example.com")], &[(0x86, b"example.com")]),
        ((0x86, b"spiffe://example.com/billing"), &[(0x86, b"example.com")], &[(0x86, b".example.com")]),
    ];
    for (name, permitted, excluded) in cases {
        let (mut draft, mut issuer) = (good(Kind::Client), issuer_of(Kind::Client).unwrap());
        draft.names(&[*name]);
        let mut permitted = permitted.to_vec();
        permitted.push((0xa4, organization.as_slice()));
        issuer.constraints(&permitted, excluded);
        let issuer = sign(&issuer, Kind::Intermediate);
        let findings = lint::lint(&draft.to_be_signed(), &matter(Kind::Client, Some(&issuer)));
        assert!(findings.is_empty(), "{name:?}: {findings:?}");
    }
}
