//! X.509-SVIDs ([the standard](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)) and the ids in them
//! ([theirs](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md)).

use super::rule::{Rule, SVID, Seen, Verdict, must};
use super::sans::{URI, texts};

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("svid_one_uri", "X509-SVID, 2", SVID,
        "An SVID has exactly one URI.", svid_one_uri),
    Rule::error("svid_scheme", "SPIFFE-ID, 2", SVID,
        "Its URI is a SPIFFE id, without query and fragment.", svid_scheme),
    Rule::error("svid_trust_domain", "SPIFFE-ID, 2.1", SVID,
        "The trust domain is lower-case letters, digits, dots, hyphens and underscores, at most 255, without user and port.", svid_trust_domain),
    Rule::error("svid_path", "SPIFFE-ID, 2.2", SVID,
        "The segments of the path are letters, digits, dots, hyphens and underscores, none empty or of dots alone.", svid_path),
    Rule::error("svid_leaf_path", "X509-SVID, 5.2", SVID,
        "A workload has a path: the trust domain alone names the authority.", svid_leaf_path),
    Rule::error("svid_length", "SPIFFE-ID, 2.3", SVID,
        "The id has at most 2048 bytes.", svid_length),
];

/// Trust domain and path of each SPIFFE id; the path is absent, or begins with a slash.
fn ids<'a>(seen: &Seen<'a>) -> Vec<(&'a str, &'a str)> {
    let rest = texts(seen.certificate, URI).into_iter().filter_map(|uri| uri.strip_prefix("spiffe://"));
    rest.map(|rest| rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""))).collect()
}

fn svid_one_uri(seen: &Seen<'_>) -> Verdict {
    let count = texts(seen.certificate, URI).len();
    must(count == 1, format_args!("there are {count} URIs"))
}

fn svid_scheme(seen: &Seen<'_>) -> Verdict {
    let is_id = |uri: &str| uri.starts_with("spiffe://") && !uri.contains(['?', '#']);
    must(texts(seen.certificate, URI).into_iter().all(is_id), "the URI is no SPIFFE id")
}

fn svid_trust_domain(seen: &Seen<'_>) -> Verdict {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let sound = |domain: &str| (1..=255).contains(&domain.len()) && domain.bytes().all(allowed);
    must(
        ids(seen).iter().all(|(domain, _)| sound(domain)),
        "the trust domain has a character or length that it may not have",
    )
}

fn svid_path(seen: &Seen<'_>) -> Verdict {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let sound = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(allowed);
    let good = |path: &str| path.is_empty() || path.split('/').skip(1).all(sound);
    must(
        ids(seen).iter().all(|(_, path)| good(path)),
        "a segment of the path is empty, of dots, or has other characters",
    )
}

fn svid_leaf_path(seen: &Seen<'_>) -> Verdict {
    must(ids(seen).iter().all(|(_, path)| path.len() > 1), "the id is that of the trust domain itself")
}

fn svid_length(seen: &Seen<'_>) -> Verdict {
    must(texts(seen.certificate, URI).into_iter().all(|uri| uri.len() <= 2048), "the id is too long")
}
