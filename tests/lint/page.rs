//! `docs/lint.md` is made from the table.

use std::fmt::Write as _;

use signet::x509::lint::{Kind, RULES, Severity};

const HEAD: &str = "\
# Lint

Before a certificate is signed, its bytes are read again and held against these rules, with the issuer's certificate beside them. A
broken rule of severity *error* refuses: nothing is signed. A *notice* is logged and told: it is advice of a standard, or
what is asked of public authorities alone. This page is made from the table in `src/x509/lint/` by `make golden`.

Sources: RFCs by number; CA/B BR are the Baseline Requirements for TLS server certificates (2.2), CA/B CSBR those for code signing,
X509-SVID and SPIFFE-ID the standards of SPIFFE, X.509 and X.690 those of the ITU.

Not checked, on purpose: what the Baseline Requirements ask of names that everybody can look up (no internal names, no reserved
addresses, validated owners, reserved policy identifiers, SCTs). A fleet's names are its own; which of them a caller may have is
policy.
";

#[test]
fn the_page_shows_the_table() {
    let mut page = HEAD.to_owned();
    for (subject, rules) in RULES {
        write!(
            page,
            "\n## {subject}\n\n| rule | what must hold | of | severity | source |\n| --- | --- | --- | --- | --- |\n"
        )
        .unwrap();
        for rule in *rules {
            let severity = match rule.severity {
                Severity::Error => "error",
                Severity::Notice => "notice",
            };
            let (name, says, source) = (rule.name, rule.says, rule.source);
            writeln!(page, "| `{name}` | {says} | {} | {severity} | {source} |", kinds(rule.applies_to)).unwrap();
        }
    }
    let count = RULES.iter().map(|(_, rules)| rules.len()).sum::<usize>();
    write!(page, "\nThese are {count} rules.\n").unwrap();
    crate::golden::check("../../docs/lint.md", &page);
}

/// The shortest way to say which kinds.
fn kinds(of: &[Kind]) -> String {
    let authorities: Vec<_> = Kind::ALL.iter().copied().filter(|kind| kind.is_authority()).collect();
    let leaves: Vec<_> = Kind::ALL.iter().copied().filter(|kind| !kind.is_authority()).collect();
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !of.contains(kind)).map(|kind| kind.as_str()).collect();
    match missing.as_slice() {
        [] => "all".to_owned(),
        [one] => format!("all but {one}"),
        _ if of == authorities => "authorities".to_owned(),
        _ if of == leaves => "leaves".to_owned(),
        _ => of.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "),
    }
}
