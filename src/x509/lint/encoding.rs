//! DER, and the frame of a certificate.

use der::Tag;

use super::rule::{ALL, Rule, Seen, Verdict, must};
use super::value::Value;
use super::view::BASIC_CONSTRAINTS;

/// What the reader itself finds; nothing else can be said of such bytes.
pub(super) const STRUCTURE: Rule = Rule::error(
    "structure",
    "RFC 5280, 4.1",
    ALL,
    "The fields of a certificate stand in their order, each of its type, the list of extensions is not empty, and nothing follows.",
    |_| Ok(()),
);

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    STRUCTURE,
    Rule::error("der_lengths", "X.690, 10.1; RFC 5280, 4.1", ALL,
        "Each value has a known tag and a length in its shortest form, also within extensions, and no extension holds more than one value.", lengths),
    Rule::error("der_booleans", "X.690, 11.1", ALL,
        "True is 0xff and false is 0x00.", booleans),
    Rule::error("der_integers", "X.690, 8.3.2", ALL,
        "Integers have no byte that says nothing.", integers),
    Rule::error("der_identifiers", "X.690, 8.19", ALL,
        "Object identifiers end, and none of their arcs starts with zeros.", identifiers),
    Rule::error("der_bits", "X.690, 11.2", ALL,
        "The unused bits of a bit string are zero, and fewer than eight.", bits),
    Rule::error("der_named_bits", "X.690, 11.2.2", ALL,
        "The key usage ends with a bit that is set.", named_bits),
    Rule::error("der_sets", "X.690, 11.6", ALL,
        "The elements of a set stand in the order of their bytes.", sets),
    Rule::error("der_defaults", "X.690, 11.5", ALL,
        "What is false by default is left out: that an extension is critical, that a subject is an authority.", defaults),
    Rule::error("der_null", "X.690, 8.8.2", ALL,
        "NULL is empty.", nulls),
    Rule::error("algorithms_agree", "RFC 5280, 4.1.1.2", ALL,
        "The algorithm beside the signature is, byte for byte, the one within what is signed.", algorithms_agree),
    Rule::error("signature_bits", "RFC 3279, 2.2.3; RFC 8017, 8; RFC 8410, 6", ALL,
        "The signature is a bit string of whole bytes, and not empty.", signature_bits),
];

/// Whether all values of one tag are good; what could not be read is told by [`lengths`] alone.
fn each(seen: &Seen<'_>, tag: Tag, good: fn(&[u8]) -> bool, wrong: &str) -> Verdict {
    must(seen.values.iter().filter_map(|value| value.of(tag)).all(good), wrong)
}

fn lengths(seen: &Seen<'_>) -> Verdict {
    seen.unread.clone().map_or(Ok(()), Err)
}

fn booleans(seen: &Seen<'_>) -> Verdict {
    each(seen, Tag::Boolean, |content| matches!(content, [0 | 0xff]), "a BOOLEAN is neither 0x00 nor 0xff")
}

fn integers(seen: &Seen<'_>) -> Verdict {
    let minimal = |content: &[u8]| match content {
        [] => false,
        [0x00, second, ..] => *second >= 0x80,
        [0xff, second, ..] => *second < 0x80,
        _ => true,
    };
    each(seen, Tag::Integer, minimal, "an INTEGER is empty or padded")
}

fn identifiers(seen: &Seen<'_>) -> Verdict {
    let sound = |content: &[u8]| {
        let ends = content.last().is_some_and(|last| *last < 0x80);
        let mut begins = true;
        let unpadded = content.iter().all(|byte| {
            let padded = begins && *byte == 0x80;
            begins = *byte < 0x80;
            !padded
        });
        ends && unpadded
    };
    each(seen, Tag::ObjectIdentifier, sound, "an OBJECT IDENTIFIER does not end or is padded")
}

fn bits(seen: &Seen<'_>) -> Verdict {
    let clean = |content: &[u8]| match content {
        [] => false,
        [unused] => *unused == 0,
        [unused, .., last] => *unused < 8 && last & ((1u8 << unused) - 1) == 0,
    };
    each(seen, Tag::BitString, clean, "a BIT STRING has unused bits that are set, or too many of them")
}

fn named_bits(seen: &Seen<'_>) -> Verdict {
    let usage = seen.certificate.value(super::view::KEY_USAGE).and_then(|value| value.of(Tag::BitString));
    match usage {
        Some([unused @ 0..8, .., last]) => {
            must(last >> unused & 1 == 1, "the key usage ends with a bit that is not set")
        }
        _ => Ok(()),
    }
}

fn sets(seen: &Seen<'_>) -> Verdict {
    let sorted = |content: &[u8]| {
        Value::read_all(content).is_none_or(|values| values.is_sorted_by(|one, next| one.whole <= next.whole))
    };
    each(seen, Tag::Set, sorted, "a SET is not in order")
}

fn defaults(seen: &Seen<'_>) -> Verdict {
    let flags = seen.certificate.extensions.iter().filter_map(|extension| extension.flag);
    must(!flags.into_iter().any(|flag| flag == [0]), "an extension is written to be not critical")?;
    let basic = seen.certificate.elements(BASIC_CONSTRAINTS);
    must(!basic.iter().any(|field| field.of(Tag::Boolean) == Some(&[0])), "cA is written to be false")
}

fn nulls(seen: &Seen<'_>) -> Verdict {
    each(seen, Tag::Null, <[u8]>::is_empty, "a NULL holds something")
}

fn algorithms_agree(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    let agree = view.signed.is_none_or(|(algorithm, _)| algorithm.whole == view.algorithm.whole);
    must(agree, "the algorithm beside the signature is not the one that is signed")
}

fn signature_bits(seen: &Seen<'_>) -> Verdict {
    let whole = seen
        .certificate
        .signed
        .is_none_or(|(_, signature)| signature.whole_bits().is_some_and(|bytes| !bytes.is_empty()));
    must(whole, "the signature is empty or does not end with a byte")
}
