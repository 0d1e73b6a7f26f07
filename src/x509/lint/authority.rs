//! Who is an authority, and whether it may certify this.

use der::Tag;

use super::rule::{ALL, AUTHORITIES, INTERMEDIATE, ISSUED, Kind, LEAVES, ROOT, Rule, Seen, Verdict, must};
use super::sans::{DNS, EMAIL, IP, URI, host, is_host, mailbox};
use super::value::{Value, nested};
use super::view::{BASIC_CONSTRAINTS, NAME_CONSTRAINTS, View, bit};

const DIRECTORY: Tag = nested(4);

/// What nothing can be said about without it.
pub(super) const ISSUER_AT_HAND: Rule = Rule::error(
    "issuer_at_hand",
    "RFC 5280, 6.1",
    ISSUED,
    "The issuer's certificate is known and can be read.",
    |seen| must(seen.issuer.is_some(), "there is no certificate of the issuer to compare with"),
);

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    ISSUER_AT_HAND,
    Rule::error("issuer_is_authority", "RFC 5280, 6.1.4", ISSUED,
        "The issuer is an authority, and its key may sign certificates.", issuer_is_authority),
    Rule::error("basic_structure", "RFC 5280, 4.2.1.9", ALL,
        "Basic constraints are whether, and how far; the length is no negative number.", basic_structure),
    Rule::error("authority_flag", "RFC 5280, 4.2.1.9", AUTHORITIES,
        "An authority has basic constraints that say so.", authority_flag),
    Rule::error("authority_flag_critical", "RFC 5280, 4.2.1.9", AUTHORITIES,
        "The basic constraints of an authority are critical.", authority_flag_critical),
    Rule::error("leaf_flag", "RFC 5280, 4.2.1.9; X509-SVID, 4.1", LEAVES,
        "A leaf is no authority.", leaf_flag),
    Rule::error("path_length_of_authorities", "RFC 5280, 4.2.1.9", ALL,
        "Only an authority that signs certificates has a path length.", path_length_of_authorities),
    Rule::notice("path_length_of_root", "CA/B BR, 7.1.2.1.4", ROOT,
        "A root has no path length.", path_length_of_root),
    Rule::error("path_length_left", "RFC 5280, 6.1.4", INTERMEDIATE,
        "The issuer's path length leaves room for another authority.", path_length_left),
    Rule::notice("path_length_shrinks", "RFC 5280, 4.2.1.9 and 6.1.4", INTERMEDIATE,
        "Where the issuer has a path length, the authority has a smaller one: what it says is what counts.", path_length_shrinks),
    Rule::error("constraints_of_authorities", "RFC 5280, 4.2.1.10", LEAVES,
        "Only authorities have name constraints.",
        |s| must(s.certificate.extension(NAME_CONSTRAINTS).is_none(), "a leaf has name constraints")),
    Rule::error("constraints_critical", "RFC 5280, 4.2.1.10", ALL,
        "Name constraints are critical.", constraints_critical),
    Rule::error("constraints_structure", "RFC 5280, 4.2.1.10", ALL,
        "Name constraints permit or exclude something, and each list of them has a subtree of a kind of names that is issued.", constraints_structure),
    Rule::error("constraints_bounds", "RFC 5280, 4.2.1.10", ALL,
        "Subtrees have no minimum and no maximum.", constraints_bounds),
    Rule::error("constraints_dns", "RFC 5280, 4.2.1.10", ALL,
        "A DNS subtree is a host name without a dot before it, or empty for all.", constraints_dns),
    Rule::error("constraints_host", "RFC 5280, 4.2.1.10", ALL,
        "A subtree of mailboxes or URIs is a host, or a dot and a domain; of mailboxes it may be one.", constraints_host),
    Rule::error("constraints_network", "RFC 5280, 4.2.1.10; RFC 4632, 3.1", ALL,
        "A subtree of addresses is an address and a mask of ones and then zeros, with no bits of the address outside it.", constraints_network),
    Rule::notice("constraints_within_issuer", "RFC 5280, 6.1.4", INTERMEDIATE,
        "What the authority's constraints permit, the issuer's permit too: what they say is what counts.", constraints_within_issuer),
    Rule::error("names_within_constraints", "RFC 5280, 4.2.1.10 and 6.1.3", ISSUED,
        "All names lie within the name constraints of the issuer.", names_within_constraints),
];

fn issuer_is_authority(seen: &Seen<'_>) -> Verdict {
    let Some(issuer) = seen.issuer else { return Ok(()) };
    must(issuer.basic().is_some_and(|basic| basic.authority), "the issuer is no authority")?;
    must(issuer.usage().is_none_or(|bits| bits & bit::CERT_SIGN != 0), "the issuer's key may not sign certificates")
}

fn basic_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(BASIC_CONSTRAINTS) else { return Ok(()) };
    let fields = Value::read(extension.value).and_then(|value| value.sequence());
    let sound = match fields.as_deref() {
        Some([]) => true,
        Some([one]) => one.tag == Tag::Boolean || one.small(Tag::Integer).is_some(),
        Some([flag, length]) => flag.tag == Tag::Boolean && length.small(Tag::Integer).is_some(),
        _ => false,
    };
    must(sound, "the basic constraints are not a flag and a length")
}

fn authority_flag(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.basic().is_some_and(|basic| basic.authority), "the subject is not said to be an authority")
}

fn authority_flag_critical(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    let good = view.extension(BASIC_CONSTRAINTS).is_none() || view.is_critical(BASIC_CONSTRAINTS);
    must(good, "the basic constraints are not critical")
}

fn leaf_flag(seen: &Seen<'_>) -> Verdict {
    must(!seen.certificate.basic().is_some_and(|basic| basic.authority), "a leaf is said to be an authority")
}

fn path_length_of_authorities(seen: &Seen<'_>) -> Verdict {
    let Some(basic) = seen.certificate.basic() else { return Ok(()) };
    let signs = seen.certificate.usage().is_none_or(|bits| bits & bit::CERT_SIGN != 0);
    must(basic.path_length.is_none() || basic.authority && signs, "what certifies nothing has a path length")
}

fn path_length(view: &View<'_>) -> Option<u64> {
    view.basic()?.path_length
}

fn path_length_of_root(seen: &Seen<'_>) -> Verdict {
    must(path_length(seen.certificate).is_none(), "the root has a path length")
}

/// The issuer's path length, where it counts: an authority that is issued to itself, to change its key, is not counted.
fn left(seen: &Seen<'_>) -> Option<u64> {
    let itself = seen.certificate.subject.whole == seen.certificate.issuer.whole;
    seen.issuer.filter(|_| !itself).and_then(path_length)
}

fn path_length_left(seen: &Seen<'_>) -> Verdict {
    must(left(seen) != Some(0), "the issuer's path length is 0: it certifies leaves alone")
}

fn path_length_shrinks(seen: &Seen<'_>) -> Verdict {
    let Some(most) = left(seen) else { return Ok(()) };
    let own = path_length(seen.certificate);
    must(own.is_some_and(|own| own < most), format_args!("the path length is not below the issuer's {most}"))
}

fn constraints_critical(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    let good = view.extension(NAME_CONSTRAINTS).is_none() || view.is_critical(NAME_CONSTRAINTS);
    must(good, "the name constraints are not critical")
}

/// The fields of the subtrees, permitted and excluded.
fn subtrees<'a>(view: &View<'a>) -> Vec<Vec<Value<'a>>> {
    let both = view.subtrees(0).into_iter().chain(view.subtrees(1));
    both.map(|subtree| subtree.sequence().unwrap_or_default()).collect()
}

/// The bases of all subtrees of a kind, those that are no text being something that no rule takes.
fn bases<'a>(view: &View<'a>, tag: Tag) -> Vec<&'a str> {
    let bases = subtrees(view).into_iter().filter_map(|fields| fields.first().copied());
    bases.filter(|base| base.tag == tag).map(|base| base.ascii().unwrap_or("\u{fffd}")).collect()
}

fn constraints_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(NAME_CONSTRAINTS) else { return Ok(()) };
    let known = |subtree: &Value<'_>| {
        let fields = subtree.sequence().unwrap_or_default();
        fields.first().is_some_and(|base| [DNS, IP, EMAIL, URI, DIRECTORY].contains(&base.tag))
    };
    let list =
        |list: &Value<'_>| Value::read_all(list.content).is_some_and(|all| !all.is_empty() && all.iter().all(known));
    let lists = Value::read(extension.value).and_then(|value| value.sequence()).unwrap_or_default();
    let tags: Vec<_> = lists.iter().map(|list| list.tag).collect();
    let order = [&[nested(0)][..], &[nested(1)], &[nested(0), nested(1)]].contains(&tags.as_slice());
    must(order && lists.iter().all(list), "the name constraints are empty, or hold an empty list or an unknown kind")
}

fn constraints_bounds(seen: &Seen<'_>) -> Verdict {
    must(subtrees(seen.certificate).iter().all(|fields| fields.len() <= 1), "a subtree has a minimum or maximum")
}

fn constraints_dns(seen: &Seen<'_>) -> Verdict {
    match bases(seen.certificate, DNS).into_iter().find(|base| !base.is_empty() && !is_host(base)) {
        Some(base) => Err(format!("the subtree {base:?} is no host name")),
        None => Ok(()),
    }
}

fn constraints_host(seen: &Seen<'_>) -> Verdict {
    let domain = |base: &str| is_host(base.strip_prefix('.').unwrap_or(base));
    let mut all = bases(seen.certificate, URI);
    all.extend(bases(seen.certificate, EMAIL).into_iter().filter(|base| mailbox(base).is_none()));
    match all.into_iter().find(|base| !domain(base)) {
        Some(base) => Err(format!("the subtree {base:?} is no host or domain")),
        None => Ok(()),
    }
}

fn constraints_network(seen: &Seen<'_>) -> Verdict {
    for base in subtrees(seen.certificate).iter().filter_map(|fields| fields.first()?.of(IP)) {
        let (address, mask) = base.split_at(base.len() / 2);
        let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
        let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let sorted = mask.is_sorted_by(|one, next| one >= next && (*one == 0xff || *next == 0));
        let clean = address.iter().zip(mask).all(|(byte, mask)| byte & !mask == 0);
        must([8, 32].contains(&base.len()) && ones == set && sorted && clean, "a subtree of addresses is no network")?;
    }
    Ok(())
}

/// Whether a name lies in a subtree of its own kind ([RFC 5280, 4.2.1.10](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10)).
fn lies_in(name: &Value<'_>, base: &Value<'_>) -> bool {
    let text = |value: &Value<'_>| value.ascii().map(str::to_ascii_lowercase);
    // "any DNS name that can be constructed by simply adding zero or more labels to the left-hand side"
    let below = |host: &str, domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    // A host for itself, a dot and a domain for all below it.
    let at = |host: &str, base: &str| if base.starts_with('.') { host.ends_with(base) } else { host == base };
    if name.tag == IP {
        let (network, mask) = base.content.split_at(base.content.len() / 2);
        let masked = || name.content.iter().zip(network).zip(mask);
        return name.content.len() == network.len() && masked().all(|((own, net), mask)| own & mask == net & mask);
    }
    if let (true, Some((own, host)), Some((local, at))) =
        (name.tag == EMAIL, name.ascii().and_then(mailbox), base.ascii().and_then(mailbox))
    {
        // A host is the same in any case, a local part is not (RFC 5280, 7.5).
        return own == local && host.eq_ignore_ascii_case(at);
    }
    let (Some(name_text), Some(base)) = (text(name), text(base)) else { return false };
    if name.tag == DNS {
        base.is_empty() || name_text == base || below(&name_text, base.trim_start_matches('.'))
    } else if name.tag == EMAIL {
        mailbox(&name_text).is_some_and(|(_, host)| at(host, &base))
    } else {
        host(&name_text).is_some_and(|host| at(host, &base))
    }
}

/// Whether what a name stands for meets an excluded subtree: a wildcard stands for what is below it, too.
fn meets(name: &Value<'_>, base: &Value<'_>) -> bool {
    let over = || {
        let domain = name.ascii()?.strip_prefix('*')?.to_ascii_lowercase();
        let (label, rest) = base.ascii()?.split_once('.')?;
        Some(!label.is_empty() && domain.strip_prefix('.')?.eq_ignore_ascii_case(rest))
    };
    lies_in(name, base) || name.tag == DNS && over() == Some(true)
}

/// The bases of the subtrees of one list that have this tag.
fn list<'a>(view: &View<'a>, which: u32, tag: Tag) -> Vec<Value<'a>> {
    let subtrees = view.subtrees(which).into_iter();
    subtrees.filter_map(|subtree| subtree.sequence()?.first().copied()).filter(|base| base.tag == tag).collect()
}

fn names_within_constraints(seen: &Seen<'_>) -> Verdict {
    let Some(issuer) = seen.issuer else { return Ok(()) };
    for name in seen.certificate.sans() {
        let (permitted, excluded) = (list(issuer, 0, name.tag), list(issuer, 1, name.tag));
        let bound = !permitted.is_empty() || !excluded.is_empty();
        let shown = String::from_utf8_lossy(name.content);
        // "... applied to a URI that does not include an authority component with a host name ... MUST be rejected"
        let nowhere = name.tag == URI
            && bound
            && name.ascii().and_then(host).is_none_or(|host| host.parse::<std::net::IpAddr>().is_ok());
        must(!nowhere, format_args!("{shown:?} has no host, and the issuer's constraints are about hosts"))?;
        let inside = permitted.is_empty() || permitted.iter().any(|base| lies_in(&name, base));
        must(inside, format_args!("{shown:?} is not within what the issuer may certify"))?;
        must(
            !excluded.iter().any(|base| meets(&name, base)),
            format!("{shown:?} is excluded from what the issuer may certify"),
        )?;
    }
    let subject = &seen.certificate.subject;
    // An authority that is issued to itself keeps its name.
    if subject.content.is_empty() || seen.kind == Kind::Intermediate && subject.whole == seen.certificate.issuer.whole {
        return Ok(());
    }
    // Compared byte for byte: what is equal only after normalisation is refused, which errs on the safe side of permitting.
    let begins =
        |base: &Value<'_>| Value::read(base.content).is_some_and(|name| subject.content.starts_with(name.content));
    let permitted = list(issuer, 0, DIRECTORY);
    must(
        permitted.is_empty() || permitted.iter().any(begins),
        "the subject is not within what the issuer may certify",
    )?;
    must(!list(issuer, 1, DIRECTORY).iter().any(begins), "the subject is excluded from what the issuer may certify")
}

fn constraints_within_issuer(seen: &Seen<'_>) -> Verdict {
    let Some(issuer) = seen.issuer else { return Ok(()) };
    for tag in [DNS, IP] {
        let (own, bounds) = (list(seen.certificate, 0, tag), list(issuer, 0, tag));
        let within = |base: &Value<'_>| bounds.iter().any(|bound| base_lies_in(base, bound));
        must(
            bounds.is_empty() || !own.is_empty() && own.iter().all(within),
            "the constraints permit what the issuer's do not",
        )?;
    }
    Ok(())
}

fn base_lies_in(base: &Value<'_>, bound: &Value<'_>) -> bool {
    if base.tag != IP {
        return lies_in(base, bound);
    }
    let (address, mask) = base.content.split_at(base.content.len() / 2);
    let (_, wider) = bound.content.split_at(bound.content.len() / 2);
    let first = Value { content: address, ..*base };
    lies_in(&first, bound) && mask.iter().zip(wider).all(|(own, wide)| own & wide == *wide)
}
