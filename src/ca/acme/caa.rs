//! What CAA records say ([RFC 8659](https://www.rfc-editor.org/rfc/rfc8659), [RFC 8657](https://www.rfc-editor.org/rfc/rfc8657)).

use super::ChallengeKind;
use super::problem::{ProblemKind, Recorded};
use crate::validation::CaaRecord;

/// Whether the records that count for a name let one of `ours` issue, to the account at that address, after that kind of proof.
///
/// # Errors
/// Which record forbids it.
pub fn permit(
    records: &[CaaRecord],
    ours: &[String],
    wildcard: bool,
    account: &str,
    method: ChallengeKind,
) -> Result<(), Recorded> {
    let forbidden = |detail: &str| Err(Recorded { kind: ProblemKind::Caa, detail: detail.to_owned() });
    let known = |record: &CaaRecord| matches!(record.tag.as_str(), "issue" | "issuewild" | "iodef");
    // "the CA MUST NOT issue certificates … if … the Relevant RRset contains a Property that has its Critical Flag set with a Tag
    // that the CA does not understand."
    if records.iter().any(|record| record.critical && !known(record)) {
        return forbidden("a critical CAA record is not understood");
    }
    let of = |tag: &str| records.iter().filter(|record| record.tag == tag).collect::<Vec<_>>();
    let mut counting = of("issuewild");
    if !wildcard || counting.is_empty() {
        counting = of("issue");
    }
    if counting.is_empty() || counting.iter().any(|record| names(&record.value, ours, account, method)) {
        return Ok(());
    }
    forbidden("the CAA records name other authorities, or other conditions")
}

/// `ca.example; accounturi=…; validationmethods=…`
fn names(value: &str, ours: &[String], account: &str, method: ChallengeKind) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let authority = parts.next().unwrap_or_default();
    if !ours.iter().any(|own| own.eq_ignore_ascii_case(authority)) {
        return false;
    }
    parts.filter(|part| !part.is_empty()).all(|part| {
        let Some((name, value)) = part.split_once('=') else { return false };
        match name.trim().to_ascii_lowercase().as_str() {
            "accounturi" => value.trim() == account,
            "validationmethods" => value.split(',').any(|one| one.trim() == method.as_str()),
            // Parameters that nobody has defined for us bind nobody.
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(critical: bool, tag: &str, value: &str) -> CaaRecord {
        CaaRecord { critical, tag: tag.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn records_are_obeyed() {
        let ask = |records: &[CaaRecord], wildcard| {
            permit(records, &["ca.test".to_owned()], wildcard, "https://ca.test/a/1", ChallengeKind::Http01).is_ok()
        };
        let issue = |value: &str| record(false, "issue", value);
        assert!(ask(&[], false) && ask(&[record(false, "iodef", "mailto:a@b.c")], false));
        assert!(ask(&[issue("ca.test")], false) && ask(&[issue("other.test"), issue(" CA.test ; x=y ")], true));
        assert!(!ask(&[issue("other.test")], false) && !ask(&[issue(";")], false) && !ask(&[issue("")], true));
        assert!(!ask(&[issue("ca.test"), record(true, "tbs", "x")], false));
        assert!(ask(&[issue("ca.test"), record(false, "tbs", "x")], false));
        let wild = [issue("ca.test"), record(false, "issuewild", ";")];
        assert!(ask(&wild, false) && !ask(&wild, true));
        let wild = [issue("other.test"), record(false, "issuewild", "ca.test")];
        assert!(!ask(&wild, false) && ask(&wild, true));
        assert!(ask(&[issue("ca.test; accounturi=https://ca.test/a/1; validationmethods=dns-01,http-01")], false));
        assert!(!ask(&[issue("ca.test; accounturi=https://ca.test/a/2")], false));
        assert!(!ask(&[issue("ca.test; validationmethods=dns-01")], false));
        assert!(!ask(&[issue("ca.test; crooked")], false));
    }
}
