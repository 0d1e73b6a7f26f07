//! For each rule a good certificate with one thing wrong.

use signet::x509::lint::Kind::{self, Client, CodeSigning, Intermediate, OcspResponder, Peer, Root, Server, Svid};

use crate::der::{
    bits, content, integer, null, octets, of, oid, printable, sequence, set, split, truth, utc, utf8, value,
};
use crate::draft::{
    ACCESS, AUTHORITY_KEY_ID, BASIC, CLIENT_AUTH, CODE_SIGNING, CONSTRAINTS, Draft, EXTENDED, FEATURE, KEY_USAGE,
    LISTS, NAMES, NO_CHECK, OCSP_SIGNING, POLICIES, SERVER_AUTH, SUBJECT_KEY_ID, access, common, name, point,
    relatives,
};
use crate::good::{ISSUERS, OCSP, good, issuer_of, keys, rsa_numbers, sign};

pub(crate) struct Sample {
    /// The rule that it breaks.
    pub(crate) rule: &'static str,
    pub(crate) kind: Kind,
    /// Breaks a good certificate, or its issuer's.
    change: fn(&mut Draft, &mut Draft),
    /// Other rules that are broken with it.
    pub(crate) also: &'static [&'static str],
}

impl Sample {
    /// The certificate, and that of its issuer.
    pub(crate) fn write(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut draft = good(self.kind);
        let mut issuer = issuer_of(self.kind).unwrap_or_else(|| good(Root));
        (self.change)(&mut draft, &mut issuer);
        let above = if self.kind == Intermediate { Root } else { Intermediate };
        let known = self.kind != Root && self.rule != "issuer_at_hand";
        (sign(&draft, self.kind), known.then(|| sign(&issuer, above)))
    }
}

const EC: &str = "1.2.840.10045.2.1";
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";
const P256: &str = "1.2.840.10045.3.1.7";
const COUNTRY: &str = "2.5.4.6";
const ORGANIZATION: &str = "2.5.4.10";
const UNIT: &str = "2.5.4.11";
const COMMON_NAME: &str = "2.5.4.3";

fn key(algorithm: &[Vec<u8>], key: &[u8]) -> Vec<u8> {
    sequence(&[sequence(algorithm), bits(key)])
}

/// An RSA key of these numbers, as contents of INTEGERs.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    key(&[oid(RSA), null()], &sequence(&[integer(modulus), integer(exponent)]))
}

/// The good modulus, with its last byte changed.
fn modulus(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let [modulus, _] = rsa_numbers();
    let mut modulus = content(&modulus).to_vec();
    change(&mut modulus);
    rsa(&modulus, &[1, 0, 1])
}

/// The uncompressed point of the good key.
fn point_of_leaf() -> Vec<u8> {
    content(&split(content(&keys().leaf))[1])[1..].to_vec()
}

fn spiffe(draft: &mut Draft, id: &str) {
    draft.names(&[(0x86, id.as_bytes())]);
}

fn list_with(id: &str, fields: Vec<u8>) -> Vec<u8> {
    sequence(&[sequence(&[oid(id), fields])])
}

/// Name constraints of one permitted subtree.
fn permitted(draft: &mut Draft, tag: u8, base: &[u8]) {
    draft.constraints(&[(tag, base)], &[]);
}

#[rustfmt::skip]
pub(crate) fn samples() -> Vec<Sample> {
    let it = |rule, kind, change| Sample { rule, kind, change, also: &[] };
    let with = |rule, kind, also, change| Sample { rule, kind, change, also };
    vec![
        // Encoding.
        it("structure", Server, |d, _| d.tail = null()),
        with("der_lengths", Server, &["subject_key_id_structure"], |d, _| d.extension(SUBJECT_KEY_ID).value.extend(null())),
        with("der_lengths", Server, &["san_structure", "san_present", "subject_somewhere"], |d, _| {
            // A length of two bytes where one is enough.
            let extension = d.extension(NAMES);
            extension.value = [&[0x30, 0x81][..], &extension.value[1..]].concat();
        }),
        it("der_booleans", Intermediate, |d, _| d.extension(KEY_USAGE).flag = vec![1, 1, 1]),
        it("der_integers", Server, |d, _| d.serial = integer(&[&[0, 0x35][..], &[0x35; 8]].concat())),
        with("der_identifiers", Server, &["extended_fits", "server_extended_only", "extended_within_issuer"],
            |d, _| d.put(EXTENDED, false, sequence(&[value(6, b"\x2b\x80\x06\x01\x05\x05\x07\x03\x01")]))),
        with("der_bits", Server, &["usage_needs_agreement"], |d, _| d.extension(KEY_USAGE).value = vec![3, 2, 7, 0x81]),
        it("der_named_bits", Server, |d, _| d.extension(KEY_USAGE).value = vec![3, 2, 0, 0x80]),
        with("der_sets", Client, &["attribute_single"], |d, _| {
            let pair = |id, text| sequence(&[oid(id), utf8(text)]);
            d.subject = sequence(&[set(&[pair(ORGANIZATION, "Example"), pair(COMMON_NAME, "billing")])]);
        }),
        it("der_defaults", Server, |d, _| d.extension(SUBJECT_KEY_ID).flag = vec![1, 1, 0]),
        it("der_defaults", Server, |d, _| d.put(BASIC, true, sequence(&[vec![1, 1, 0]]))),
        with("der_null", OcspResponder, &["no_check_null"], |d, _| d.put(NO_CHECK, false, vec![5, 1, 0])),
        it("algorithms_agree", Server, |d, _| d.outer = Some(sequence(&[oid("1.2.840.10045.4.3.3")]))),
        it("signature_bits", Server, |d, _| d.signature = Some(bits(&[]))),
        // Version, serial number, algorithm and validity.
        it("version_three", Server, |d, _| d.version = value(0xa0, &integer(&[1]))),
        it("version_three", Server, |d, _| d.version = Vec::new()),
        it("no_unique_identifiers", Server, |d, _| d.unique = value(0x81, &[0, 1])),
        with("serial_positive", Server, &["serial_entropy"], |d, _| d.serial = integer(&[0])),
        it("serial_positive", Server, |d, _| d.serial = integer(&[0x85; 20])),
        it("serial_length", Server, |d, _| d.serial = integer(&[0x35; 21])),
        it("serial_entropy", Server, |d, _| d.serial = integer(&[0x35; 7])),
        it("algorithm_known", Server, |d, _| d.algorithm = sequence(&[oid("1.2.840.10045.4.1")])),
        it("algorithm_known", Server, |d, _| d.algorithm = sequence(&[oid("1.2.840.10045.4.3.2"), null()])),
        it("algorithm_fits_issuer", Server, |d, _| d.algorithm = sequence(&[oid("1.2.840.10045.4.3.3")])),
        it("algorithm_fits_issuer", Root, |d, _| d.algorithm = sequence(&[oid(ED25519)])),
        it("time_syntax", Server, |d, _| d.validity[1] = utc("261122120000+0000")),
        it("time_syntax", Server, |d, _| d.validity[1] = value(24, b"20261122120000.5Z")),
        it("time_syntax", Server, |d, _| d.validity[1] = utc("260230120000Z")),
        it("time_type", Server, |d, _| d.validity[1] = value(24, b"20261122120000Z")),
        it("validity_ordered", Server, |d, _| d.valid("261121120000Z", "261121115959Z")),
        it("validity_within_issuer", Server, |_, i| i.valid("260101000000Z", "261129000000Z")),
        it("validity_within_issuer", Server, |_, i| i.valid("261121120001Z", "351231235959Z")),
        it("server_validity", Server, |d, _| d.valid("261121120000Z", "270609120000Z")),
        it("root_validity", Root, |d, _| d.valid("200101000000Z", "460101000000Z")),
        // Names of issuer and subject.
        with("name_structure", Client, &["der_lengths"], |d, _| d.subject = sequence(&[set(&[]), null()])),
        with("issuer_named", Server, &["issuer_matches"], |d, _| d.issuer = sequence(&[])),
        it("issuer_matches", Server, |d, _| d.issuer = common("Example  Intermediate")),
        it("root_names_itself", Root, |d, _| d.issuer = common("Another Root")),
        with("authority_named", Intermediate, &["subject_somewhere"], |d, _| d.subject = sequence(&[])),
        it("subject_somewhere", Server, |d, _| d.critical(NAMES, false)),
        it("subject_somewhere", Client, |d, _| d.subject = sequence(&[])),
        it("attribute_type", Client, |d, _| d.subject = name(&[(COMMON_NAME, value(20, b"billing"))])),
        it("attribute_type", Client, |d, _| d.subject = name(&[(COUNTRY, utf8("DE")), (COMMON_NAME, utf8("billing"))])),
        it("attribute_alphabet", Client, |d, _| d.subject = name(&[(COMMON_NAME, printable("b_lling"))])),
        it("attribute_alphabet", Client, |d, _| d.subject = name(&[(COMMON_NAME, value(12, b"b\xffx"))])),
        it("attribute_length", Client, |d, _| d.subject = common(&"b".repeat(65))),
        it("attribute_control", Client, |d, _| d.subject = common("billing\0.example.com")),
        with("attribute_blank", Client, &["attribute_trimmed"], |d, _| d.subject = common(" ")),
        it("attribute_blank", Client, |d, _| d.subject = common("-")),
        it("attribute_trimmed", Client, |d, _| d.subject = common("billing ")),
        with("attribute_single", Client, &["attribute_order"], |d, _| {
            let pair = |id, text| sequence(&[oid(id), utf8(text)]);
            d.subject = sequence(&[set(&[pair(COMMON_NAME, "billing"), pair(ORGANIZATION, "Example")])]);
        }),
        it("attribute_once", Client, |d, _| {
            let mut all = relatives(&d.subject);
            all.push(all[2].clone());
            d.subject = sequence(&all);
        }),
        it("attribute_known", Client, |d, _| d.subject = name(&[("2.5.4.13", utf8("a description"))])),
        it("attribute_order", Client, |d, _| d.subject = name(&[(COMMON_NAME, utf8("billing")), (ORGANIZATION, utf8("Example"))])),
        it("country_code", Client, |d, _| d.subject = name(&[(COUNTRY, printable("de")), (COMMON_NAME, utf8("billing"))])),
        it("email_in_subject", Client, |d, _| {
            d.subject = name(&[(COMMON_NAME, utf8("billing")), ("1.2.840.113549.1.9.1", value(22, b"a@example.com"))]);
        }),
        with("common_name_among_sans", Server, &["san_critical"], |d, _| d.subject = common("other.example.com")),
        with("common_name_among_sans", Peer, &["san_critical"], |d, _| d.subject = common("10.0.0.1")),
        with("unit_in_subject", Server, &["san_critical"],
            |d, _| d.subject = name(&[(ORGANIZATION, utf8("Example")), (UNIT, utf8("Billing"))])),
        // Alternative names.
        it("san_structure", Server, |d, _| d.names(&[])),
        with("san_present", Server, &["subject_somewhere"], |d, _| d.remove(NAMES)),
        it("san_critical", Server, |d, _| d.subject = common("web.example.com")),
        it("san_kind", Client, |d, _| d.names(&[(0x88, b"\x2a\x03")])),
        it("server_san_kind", Server, |d, _| d.names(&[(0x82, b"web.example.com"), (0x81, b"a@example.com")])),
        it("server_reachable", Peer, |d, _| d.names(&[(0x81, b"a@example.com")])),
        it("san_once", Server, |d, _| d.names(&[(0x82, b"web.example.com"), (0x82, b"web.example.com")])),
        it("dns_syntax", Server, |d, _| d.dns("web_1.example.com")),
        it("dns_syntax", Server, |d, _| d.dns("web.example.com.")),
        it("dns_syntax", Server, |d, _| d.dns(" ")),
        it("dns_syntax", Server, |d, _| d.dns("web\0.example.com")),
        it("dns_syntax", Server, |d, _| d.names(&[(0x82, "wéb.example.com".as_bytes())])),
        it("dns_label_length", Server, |d, _| d.dns(&format!("{}.example.com", "w".repeat(64)))),
        it("dns_length", Server, |d, _| d.dns(&format!("{}example.com", "web.".repeat(61)))),
        it("dns_lower_case", Server, |d, _| d.dns("Web.example.com")),
        it("dns_wildcard", Server, |d, _| d.dns("w*.example.com")),
        it("dns_wildcard", Server, |d, _| d.dns("web.*.example.com")),
        it("dns_wildcard_depth", Server, |d, _| d.dns("*.com")),
        it("dns_reserved_label", Server, |d, _| d.dns("aa--web.example.com")),
        it("dns_no_address", Server, |d, _| d.dns("10.0.0.1")),
        it("ip_length", Server, |d, _| d.names(&[(0x87, &[10, 0, 0])])),
        it("ip_length", Server, |d, _| d.names(&[(0x87, b"\x0a\0\0\0\xff\0\0\0")])),
        it("email_syntax", Client, |d, _| d.names(&[(0x81, b"Billing <billing@example.com>")])),
        it("email_syntax", Client, |d, _| d.names(&[(0x81, b"billing")])),
        it("uri_absolute", Client, |d, _| d.names(&[(0x86, b"/billing")])),
        it("uri_absolute", Client, |d, _| d.names(&[(0x86, b"http://example.com/a b")])),
        it("uri_host", Client, |d, _| d.names(&[(0x86, b"http:///billing")])),
        // The certified key.
        it("key_known", Server, |d, _| d.key = key(&[oid("1.2.840.10040.4.1")], &[0; 32])),
        with("key_bits", Server, &["der_bits"], |d, _| {
            d.key = sequence(&[sequence(&[oid(EC), oid(P256)]), value(3, &[&[1], point_of_leaf().as_slice()].concat())]);
        }),
        it("key_not_the_issuers", Server, |d, i| d.key = i.key.clone()),
        it("rsa_parameters", Server, |d, _| {
            let numbers = rsa_numbers();
            d.key = key(&[oid(RSA)], &sequence(&numbers));
        }),
        it("rsa_structure", Server, |d, _| d.key = key(&[oid(RSA), null()], &sequence(&[integer(&[5])]))),
        it("rsa_structure", Server, |d, _| d.key = modulus(|modulus| modulus[0] = 0x80)),
        with("rsa_size", Server, &["rsa_modulus"], |d, _| {
            let [one, _] = rsa_numbers();
            d.key = rsa(&[&[0], &content(&one)[1..128], &[0xfb, 0x9f]].concat(), &[1, 0, 1]);
        }),
        with("rsa_whole_bytes", Server, &["rsa_modulus"], |d, _| d.key = modulus(|modulus| modulus[0] = 1)),
        it("rsa_exponent", Server, |d, _| {
            let [modulus, _] = rsa_numbers();
            d.key = rsa(content(&modulus), &[3]);
        }),
        it("rsa_exponent", Server, |d, _| {
            let [modulus, _] = rsa_numbers();
            d.key = rsa(content(&modulus), &[1, 0, 0]);
        }),
        it("rsa_modulus", Server, |d, _| d.key = modulus(|modulus| *modulus.last_mut().unwrap() &= 0xfe)),
        it("ec_curve", Server, |d, _| d.key = key(&[oid(EC), oid("1.3.132.0.10")], &point_of_leaf())),
        it("ec_curve", Server, |d, _| d.key = key(&[oid(EC), null()], &point_of_leaf())),
        it("ec_form", Server, |d, _| d.key = key(&[oid(EC), oid(P256)], &[&[3], &point_of_leaf()[1..33]].concat())),
        it("ec_on_curve", Server, |d, _| {
            let mut point = point_of_leaf();
            point[64] ^= 1;
            d.key = key(&[oid(EC), oid(P256)], &point);
        }),
        it("edwards_parameters", Server, |d, _| d.key = key(&[oid(ED25519), null()], &[9; 32])),
        it("edwards_length", Server, |d, _| d.key = key(&[oid(ED25519)], &[9; 31])),
        // Extensions and key identifiers.
        it("extension_once", Server, |d, _| {
            let again = d.extension(SUBJECT_KEY_ID).clone();
            d.extensions.push(again);
        }),
        with("extension_critical", Server, &["extension_known"], |d, _| d.put("1.3.6.1.4.1.99999.1", true, null())),
        it("extension_known", Server, |d, _| d.put("1.3.6.1.4.1.99999.1", false, null())),
        it("authority_key_id", Server, |d, _| d.remove(AUTHORITY_KEY_ID)),
        it("authority_key_id", Server, |d, _| d.put(AUTHORITY_KEY_ID, false, sequence(&[]))),
        it("authority_key_id_matches", Server, |d, _| d.put(AUTHORITY_KEY_ID, false, sequence(&[value(0x80, &[9; 20])]))),
        it("authority_key_id_of_root", Root, |d, _| d.put(AUTHORITY_KEY_ID, false, sequence(&[value(0x80, &[9; 20])]))),
        it("authority_key_id_alone", Server, |d, i| {
            let issuer = of(0xa1, &[of(0xa4, std::slice::from_ref(&i.issuer))]);
            let serial = value(0x82, content(&i.serial));
            let id = value(0x80, content(&i.extension(SUBJECT_KEY_ID).value));
            d.put(AUTHORITY_KEY_ID, false, sequence(&[id, issuer, serial]));
        }),
        it("authority_key_id_critical", Server, |d, _| d.critical(AUTHORITY_KEY_ID, true)),
        it("subject_key_id", Intermediate, |d, _| d.remove(SUBJECT_KEY_ID)),
        it("subject_key_id_structure", Server, |d, _| d.put(SUBJECT_KEY_ID, false, octets(&[]))),
        it("subject_key_id_critical", Server, |d, _| d.critical(SUBJECT_KEY_ID, true)),
        it("subject_key_id_own", Server, |d, i| d.put(SUBJECT_KEY_ID, false, i.extension(SUBJECT_KEY_ID).value.clone())),
        // Usages.
        it("key_usage", Server, |d, _| d.remove(KEY_USAGE)),
        with("key_usage_structure", Server, &["leaf_signs"], |d, _| d.put(KEY_USAGE, true, vec![3, 1, 0])),
        it("key_usage_critical", Server, |d, _| d.critical(KEY_USAGE, false)),
        with("authority_signs_certificates", Intermediate, &["path_length_of_authorities"], |d, _| d.usage(&[6])),
        it("authority_signs_lists", Intermediate, |d, _| d.usage(&[5])),
        it("authority_usage_only", Intermediate, |d, _| d.usage(&[4, 5, 6])),
        it("leaf_certifies_nothing", Server, |d, _| d.usage(&[0, 5])),
        it("leaf_signs", Server, |d, _| d.usage(&[4])),
        it("usage_of_curve", Server, |d, _| d.usage(&[0, 2])),
        it("usage_of_edwards", Server, |d, _| { d.key = keys().ed25519.clone(); d.usage(&[0, 4]); }),
        it("usage_of_rsa", Server, |d, _| { d.key = keys().rsa.clone(); d.usage(&[0, 4]); }),
        it("usage_needs_agreement", Server, |d, _| d.usage(&[0, 8])),
        it("signer_usage_only", CodeSigning, |d, _| { d.key = keys().rsa.clone(); d.usage(&[0, 2]); }),
        with("extended_structure", Server, &["extended_fits", "extended_within_issuer"], |d, _| d.extended(&[])),
        it("extended_once", Server, |d, _| d.extended(&[SERVER_AUTH, SERVER_AUTH])),
        it("extended_fits", Server, |d, _| d.extended(&[CLIENT_AUTH])),
        with("extended_any", Server, &["extended_within_issuer"], |d, _| d.extended(&[SERVER_AUTH, "2.5.29.37.0"])),
        with("server_extended_only", Server, &["extended_within_issuer"], |d, _| d.extended(&[SERVER_AUTH, CODE_SIGNING])),
        it("code_extended_only", CodeSigning, |d, _| d.extended(&[CODE_SIGNING, SERVER_AUTH])),
        it("responder_extended_only", OcspResponder, |d, _| d.extended(&[OCSP_SIGNING, CLIENT_AUTH])),
        it("extended_critical", Server, |d, _| d.critical(EXTENDED, true)),
        it("root_extended", Root, |d, _| d.extended(&[SERVER_AUTH])),
        it("authority_extended", Intermediate, |d, _| d.extended(&[SERVER_AUTH, OCSP_SIGNING])),
        it("extended_within_issuer", Peer, |_, i| i.extended(&[CLIENT_AUTH])),
        it("extended_within_issuer", Intermediate, |d, i| { i.extended(&[SERVER_AUTH]); d.remove(EXTENDED); }),
        // Authorities and what they may certify.
        it("issuer_at_hand", Server, |_, _| ()),
        it("issuer_is_authority", Server, |_, i| i.remove(BASIC)),
        it("issuer_is_authority", Server, |_, i| i.usage(&[6])),
        it("basic_structure", Intermediate, |d, _| d.put(BASIC, true, sequence(&[truth(), integer(&[0xff])]))),
        it("authority_flag", Intermediate, |d, _| d.remove(BASIC)),
        it("authority_flag", Intermediate, |d, _| d.put(BASIC, true, sequence(&[]))),
        it("authority_flag_critical", Intermediate, |d, _| d.critical(BASIC, false)),
        it("leaf_flag", Server, |d, _| d.authority(None)),
        it("path_length_of_authorities", Server, |d, _| d.put(BASIC, true, sequence(&[integer(&[0])]))),
        it("path_length_of_root", Root, |d, _| d.authority(Some(2))),
        with("path_length_left", Intermediate, &["path_length_shrinks"], |_, i| i.authority(Some(0))),
        it("path_length_shrinks", Intermediate, |d, i| { i.authority(Some(2)); d.authority(Some(2)); }),
        it("constraints_of_authorities", Server, |d, _| permitted(d, 0x82, b"example.com")),
        it("constraints_critical", Intermediate, |d, _| { permitted(d, 0x82, b"example.com"); d.critical(CONSTRAINTS, false); }),
        it("constraints_structure", Intermediate, |d, _| d.constraints(&[], &[])),
        it("constraints_structure", Intermediate, |d, _| d.put(CONSTRAINTS, true, sequence(&[value(0xa0, &[])]))),
        it("constraints_structure", Intermediate, |d, _| permitted(d, 0x88, b"\x2a\x03")),
        it("constraints_bounds", Intermediate, |d, _| {
            let subtree = sequence(&[value(0x82, b"example.com"), value(0x80, &[1])]);
            d.put(CONSTRAINTS, true, sequence(&[of(0xa0, &[subtree])]));
        }),
        it("constraints_dns", Intermediate, |d, _| permitted(d, 0x82, b".example.com")),
        it("constraints_host", Intermediate, |d, _| permitted(d, 0x86, b"https://example.com/")),
        it("constraints_host", Intermediate, |d, _| permitted(d, 0x81, b"@example.com")),
        it("constraints_network", Intermediate, |d, _| permitted(d, 0x87, &[10, 0, 0, 0])),
        it("constraints_network", Intermediate, |d, _| permitted(d, 0x87, &[10, 0, 0, 0, 255, 0, 255, 0])),
        it("constraints_network", Intermediate, |d, _| permitted(d, 0x87, &[10, 0, 0, 1, 255, 0, 0, 0])),
        it("constraints_within_issuer", Intermediate, |d, i| { permitted(i, 0x82, b"a.example"); permitted(d, 0x82, b"example"); }),
        it("constraints_within_issuer", Intermediate, |d, i| {
            permitted(i, 0x87, &[10, 1, 0, 0, 255, 255, 0, 0]);
            permitted(d, 0x87, &[10, 0, 0, 0, 255, 0, 0, 0]);
        }),
        it("names_within_constraints", Server, |_, i| permitted(i, 0x82, b"example.org")),
        it("names_within_constraints", Server, |_, i| permitted(i, 0x82, b"eb.example.com")),
        it("names_within_constraints", Server, |_, i| i.constraints(&[], &[(0x82, b"example.com")])),
        it("names_within_constraints", Server, |d, i| {
            d.dns("*.web.example.com");
            i.constraints(&[], &[(0x82, b"secret.web.example.com")]);
        }),
        it("names_within_constraints", Server, |d, i| {
            d.names(&[(0x87, &[10, 1, 0, 1])]);
            permitted(i, 0x87, &[10, 0, 0, 0, 255, 255, 0, 0]);
        }),
        it("names_within_constraints", Client, |d, i| {
            d.names(&[(0x81, b"a@sub.example.com")]);
            permitted(i, 0x81, b"example.com");
        }),
        it("names_within_constraints", Client, |d, i| {
            d.names(&[(0x81, b"billing@example.com")]);
            permitted(i, 0x81, b"Billing@example.com");
        }),
        it("names_within_constraints", Svid, |_, i| permitted(i, 0x86, b".example.com")),
        it("names_within_constraints", Client, |d, i| {
            d.names(&[(0x86, b"urn:example:billing")]);
            permitted(i, 0x86, b"example.com");
        }),
        it("names_within_constraints", Client, |_, i| {
            permitted(i, 0xa4, &name(&[(ORGANIZATION, utf8("Another"))]));
        }),
        // Revocation, policies and other services.
        it("access_structure", Server, |d, _| d.put(ACCESS, false, sequence(&[]))),
        it("access_critical", Server, |d, _| d.critical(ACCESS, true)),
        it("access_method", Server, |d, _| d.put(ACCESS, false, access(&[("1.3.6.1.5.5.7.48.3", 0x86, "http://pki.example.com/")]))),
        it("access_url", Server, |d, _| d.put(ACCESS, false, access(&[(OCSP, 0x86, "https://pki.example.com/ocsp")]))),
        it("access_url", Server, |d, _| d.put(ACCESS, false, access(&[(ISSUERS, 0x82, "pki.example.com")]))),
        it("lists_structure", Server, |d, _| d.put(LISTS, false, sequence(&[]))),
        it("lists_critical", Server, |d, _| d.critical(LISTS, true)),
        it("lists_named", Server, |d, _| d.put(LISTS, false, sequence(&[sequence(&[value(0x81, &[1, 6])])]))),
        it("lists_url", Server, |d, _| d.put(LISTS, false, sequence(&[point(&["ldap://pki.example.com/cn=1"])]))),
        it("lists_one_point", Server, |d, _| {
            d.put(LISTS, false, sequence(&[point(&["http://a.example.com/"]), point(&["http://b.example.com/"])]));
        }),
        it("revocable", Server, |d, _| { d.remove(LISTS); d.remove(ACCESS); }),
        it("root_services", Root, |d, _| d.put(LISTS, false, sequence(&[point(&["http://pki.example.com/1.crl"])]))),
        it("policies_structure", Server, |d, _| d.put(POLICIES, false, sequence(&[]))),
        it("policies_once", Server, |d, _| {
            let policy = sequence(&[oid("2.23.140.1.2.1")]);
            d.put(POLICIES, false, sequence(&[policy.clone(), policy]));
        }),
        it("policies_critical", Server, |d, _| d.critical(POLICIES, true)),
        with("policies_any", Server, &["policies_within_issuer"], |d, _| d.put(POLICIES, false, sequence(&[sequence(&[oid("2.5.29.32.0")])]))),
        it("policies_plain", Server, |d, _| {
            let qualifier = sequence(&[oid("1.3.6.1.5.5.7.2.1"), value(22, b"http://pki.example.com/cps")]);
            d.put(POLICIES, false, list_with("2.23.140.1.2.1", sequence(&[qualifier])));
        }),
        it("policies_within_issuer", Server, |_, i| i.put(POLICIES, false, sequence(&[sequence(&[oid("2.23.140.1.2.2")])]))),
        it("no_check", OcspResponder, |d, _| d.remove(NO_CHECK)),
        it("no_check_of_responders", Server, |d, _| d.put(NO_CHECK, false, null())),
        it("no_check_null", OcspResponder, |d, _| d.put(NO_CHECK, false, sequence(&[]))),
        it("no_check_critical", OcspResponder, |d, _| d.critical(NO_CHECK, true)),
        it("responder_lists", OcspResponder, |d, _| d.put(LISTS, false, sequence(&[point(&["http://pki.example.com/1.crl"])]))),
        it("responder_access", OcspResponder, |d, _| d.put(ACCESS, false, access(&[(OCSP, 0x86, "http://pki.example.com/")]))),
        it("staple_structure", Server, |d, _| d.put(FEATURE, false, sequence(&[integer(&[17])]))),
        it("staple_critical", Server, |d, _| d.put(FEATURE, true, sequence(&[integer(&[5])]))),
        it("staple_of_tls", CodeSigning, |d, _| d.put(FEATURE, false, sequence(&[integer(&[5])]))),
        it("staple_responder", Server, |d, _| { d.put(FEATURE, false, sequence(&[integer(&[5])])); d.remove(ACCESS); }),
        // SPIFFE.
        it("svid_one_uri", Svid, |d, _| d.names(&[(0x86, b"spiffe://example.com/a"), (0x86, b"spiffe://example.com/b")])),
        it("svid_scheme", Svid, |d, _| spiffe(d, "https://example.com/billing")),
        with("svid_scheme", Svid, &["svid_path"], |d, _| spiffe(d, "spiffe://example.com/billing?a=b")),
        it("svid_trust_domain", Svid, |d, _| spiffe(d, "spiffe://Example.com/billing")),
        it("svid_trust_domain", Svid, |d, _| spiffe(d, "spiffe://example.com:8443/billing")),
        it("svid_path", Svid, |d, _| spiffe(d, "spiffe://example.com/a//b")),
        it("svid_path", Svid, |d, _| spiffe(d, "spiffe://example.com/a/../b")),
        it("svid_path", Svid, |d, _| spiffe(d, "spiffe://example.com/a/")),
        it("svid_leaf_path", Svid, |d, _| spiffe(d, "spiffe://example.com")),
        it("svid_length", Svid, |d, _| spiffe(d, &format!("spiffe://example.com/{}", "a".repeat(2048)))),
    ]
}
