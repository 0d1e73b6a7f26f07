//! A certificate as its bytes show it: fields and extensions in place, their contents unjudged.
//!
//! What is read here is read leniently where a rule must be able to say what is wrong with it, and strictly where nothing
//! sensible could be said otherwise.

use der::Tag;
use der::asn1::ObjectIdentifier;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::value::{Value, context, nested};

pub(super) const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

pub(super) const SUBJECT_KEY_ID: ObjectIdentifier = oid("2.5.29.14");
pub(super) const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
pub(super) const ALTERNATIVE_NAMES: ObjectIdentifier = oid("2.5.29.17");
pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
pub(super) const NAME_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.30");
pub(super) const CRL_POINTS: ObjectIdentifier = oid("2.5.29.31");
pub(super) const POLICIES: ObjectIdentifier = oid("2.5.29.32");
pub(super) const AUTHORITY_KEY_ID: ObjectIdentifier = oid("2.5.29.35");
pub(super) const EXTENDED_USAGE: ObjectIdentifier = oid("2.5.29.37");
pub(super) const INFORMATION_ACCESS: ObjectIdentifier = oid("1.3.6.1.5.5.7.1.1");
pub(super) const TLS_FEATURE: ObjectIdentifier = oid("1.3.6.1.5.5.7.1.24");
pub(super) const OCSP_NO_CHECK: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1.5");

/// How deep values may be nested. Ours are no deeper than ten.
const DEEPEST: usize = 16;

/// Bits of the key usage, the first as the lowest.
pub(super) mod bit {
    pub(in super::super) const DIGITAL_SIGNATURE: u16 = 1;
    pub(in super::super) const CONTENT_COMMITMENT: u16 = 1 << 1;
    pub(in super::super) const KEY_ENCIPHERMENT: u16 = 1 << 2;
    pub(in super::super) const DATA_ENCIPHERMENT: u16 = 1 << 3;
    pub(in super::super) const KEY_AGREEMENT: u16 = 1 << 4;
    pub(in super::super) const CERT_SIGN: u16 = 1 << 5;
    pub(in super::super) const CRL_SIGN: u16 = 1 << 6;
    pub(in super::super) const ENCIPHER_ONLY: u16 = 1 << 7;
    pub(in super::super) const DECIPHER_ONLY: u16 = 1 << 8;
}

/// One extension.
#[derive(Debug)]
pub(super) struct Extension<'a> {
    pub(super) id: &'a [u8],
    /// The BOOLEAN, where it is written.
    pub(super) flag: Option<&'a [u8]>,
    /// The bytes within the OCTET STRING.
    pub(super) value: &'a [u8],
}

/// A TBSCertificate, and around it perhaps a certificate.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) whole: Value<'a>,
    /// Algorithm and signature of a whole certificate.
    pub(super) signed: Option<(Value<'a>, Value<'a>)>,
    pub(super) version: Option<Value<'a>>,
    pub(super) serial: Value<'a>,
    pub(super) algorithm: Value<'a>,
    pub(super) issuer: Value<'a>,
    pub(super) not_before: Value<'a>,
    pub(super) not_after: Value<'a>,
    /// The instants of the two, where they can be read.
    pub(super) begins: Option<Timestamp>,
    pub(super) ends: Option<Timestamp>,
    pub(super) subject: Value<'a>,
    pub(super) key: Value<'a>,
    /// The same, where it could be taken apart.
    pub(super) public_key: Option<Key<'a>>,
    pub(super) unique_ids: bool,
    pub(super) extensions: Vec<Extension<'a>>,
}

/// A SubjectPublicKeyInfo, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) algorithm: &'a [u8],
    pub(super) parameters: Option<Value<'a>>,
    pub(super) bits: Value<'a>,
}

/// What basic constraints say.
pub(super) struct Basic {
    pub(super) authority: bool,
    pub(super) path_length: Option<u64>,
}

/// One attribute of a name: its type, and its value.
pub(super) type Attribute<'a> = (&'a [u8], Value<'a>);

impl<'a> View<'a> {
    /// Reads a TBSCertificate or a certificate ([RFC 5280, 4.1](https://www.rfc-editor.org/rfc/rfc5280#section-4.1)).
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let outer = Value::read(bytes).ok_or("this is not one value of DER")?;
        let parts = outer.sequence().ok_or("this is not a SEQUENCE of DER")?;
        let (whole, signed) = match parts.as_slice() {
            [tbs, algorithm, signature] if signature.tag == Tag::BitString => (*tbs, Some((*algorithm, *signature))),
            _ => (outer, None),
        };
        let mut fields =
            whole.sequence().ok_or("the certificate's body is not a SEQUENCE of DER")?.into_iter().peekable();
        let version = match fields.next_if(|field| field.tag == nested(0)) {
            Some(version) => Some(Value::read(version.content).ok_or("the version is not one value")?),
            None => None,
        };
        let mut next = |tag, name| {
            fields.next_if(|field| field.tag == tag).ok_or_else(|| format!("the {name} is missing or of another type"))
        };
        let serial = next(Tag::Integer, "serial number")?;
        let algorithm = next(Tag::Sequence, "algorithm")?;
        let issuer = next(Tag::Sequence, "issuer")?;
        let validity = next(Tag::Sequence, "validity")?;
        let subject = next(Tag::Sequence, "subject")?;
        let key = next(Tag::Sequence, "public key")?;
        let (not_before, not_after) = match validity.sequence().as_deref() {
            Some([before, after]) => (*before, *after),
            _ => return Err("the validity is not two times".to_owned()),
        };
        let mut unique_ids = false;
        while fields.next_if(|field| [context(1), context(2), nested(1), nested(2)].contains(&field.tag)).is_some() {
            unique_ids = true;
        }
        let extensions = match fields.next_if(|field| field.tag == nested(3)) {
            Some(field) => read_extensions(&field).ok_or("the extensions are not a SEQUENCE of extensions")?,
            None => Vec::new(),
        };
        if fields.next().is_some() {
            return Err("there is something after the last field".to_owned());
        }
        Ok(Self {
            whole,
            signed,
            version,
            serial,
            algorithm,
            issuer,
            not_before,
            not_after,
            begins: time(&not_before),
            ends: time(&not_after),
            subject,
            key,
            public_key: Key::read(&key),
            unique_ids,
            extensions,
        })
    }

    pub(super) fn extension(&self, id: ObjectIdentifier) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|extension| extension.id == id.as_bytes())
    }

    /// The value of an extension, where it is one value of DER.
    pub(super) fn value(&self, id: ObjectIdentifier) -> Option<Value<'a>> {
        Value::read(self.extension(id)?.value)
    }

    /// Whether an extension is there and critical.
    pub(super) fn is_critical(&self, id: ObjectIdentifier) -> bool {
        self.extension(id).is_some_and(Extension::is_critical)
    }

    /// The elements of an extension that is a SEQUENCE; none where it is absent or something else.
    pub(super) fn elements(&self, id: ObjectIdentifier) -> Vec<Value<'a>> {
        self.value(id).and_then(|value| value.sequence()).unwrap_or_default()
    }

    /// The alternative names, as GeneralName.
    pub(super) fn sans(&self) -> Vec<Value<'a>> {
        self.elements(ALTERNATIVE_NAMES)
    }

    /// Puts all its values, those within extensions as well, into `values`.
    pub(super) fn everything(&self, values: &mut Vec<Value<'a>>) -> Result<(), String> {
        self.whole.everything(DEEPEST, values)?;
        if let Some((algorithm, _)) = &self.signed {
            algorithm.everything(DEEPEST, values)?;
        }
        for extension in &self.extensions {
            let value = Value::read(extension.value).ok_or("an extension is not one value of DER")?;
            value.everything(DEEPEST, values)?;
        }
        Ok(())
    }

    /// The extended usages, as bytes of OIDs.
    pub(super) fn extended(&self) -> Vec<&'a [u8]> {
        self.elements(EXTENDED_USAGE).iter().map(|usage| usage.content).collect()
    }

    /// The bits of the key usage.
    pub(super) fn usage(&self) -> Option<u16> {
        let (_, bytes) = self.value(KEY_USAGE)?.of(Tag::BitString)?.split_first()?;
        let bits = bytes.iter().take(2).flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
        Some(bits.enumerate().fold(0, |sum, (at, bit)| sum | u16::from(bit) << at))
    }

    /// The basic constraints.
    pub(super) fn basic(&self) -> Option<Basic> {
        let mut fields = self.value(BASIC_CONSTRAINTS)?.sequence()?.into_iter().peekable();
        let authority = fields.next_if(|field| field.tag == Tag::Boolean).is_some_and(|flag| flag.content != [0]);
        let path_length = fields.next().map(|length| length.small(Tag::Integer).unwrap_or(u64::MAX));
        Some(Basic { authority, path_length })
    }

    /// The subject key identifier.
    pub(super) fn key_id(&self) -> Option<&'a [u8]> {
        self.value(SUBJECT_KEY_ID)?.of(Tag::OctetString)
    }

    /// The key identifier within the authority key identifier.
    pub(super) fn authority_key_id(&self) -> Option<&'a [u8]> {
        self.elements(AUTHORITY_KEY_ID).iter().find_map(|field| field.of(context(0)))
    }

    /// The subtrees of the name constraints: `0` for what is permitted, `1` for what is excluded.
    pub(super) fn subtrees(&self, which: u32) -> Vec<Value<'a>> {
        let list = self.elements(NAME_CONSTRAINTS).into_iter().find_map(|list| list.within(nested(which)));
        list.unwrap_or_default()
    }
}

impl<'a> Key<'a> {
    fn read(key: &Value<'a>) -> Option<Self> {
        let (algorithm, bits) = match key.sequence()?.as_slice() {
            [algorithm, bits] if bits.tag == Tag::BitString => (algorithm.sequence()?, *bits),
            _ => return None,
        };
        let (id, parameters) = match algorithm.as_slice() {
            [id] => (id, None),
            [id, parameters] => (id, Some(*parameters)),
            _ => return None,
        };
        Some(Self { algorithm: id.of(Tag::ObjectIdentifier)?, parameters, bits })
    }
}

impl Extension<'_> {
    pub(super) fn is_critical(&self) -> bool {
        self.flag.is_some_and(|flag| flag != [0])
    }
}

fn read_extensions<'a>(field: &Value<'a>) -> Option<Vec<Extension<'a>>> {
    let list = Value::read(field.content)?.sequence()?;
    let read = |extension: &Value<'a>| match extension.sequence()?.as_slice() {
        [id, value] => {
            Some(Extension { id: id.of(Tag::ObjectIdentifier)?, flag: None, value: value.of(Tag::OctetString)? })
        }
        [id, flag, value] => Some(Extension {
            id: id.of(Tag::ObjectIdentifier)?,
            flag: Some(flag.of(Tag::Boolean)?),
            value: value.of(Tag::OctetString)?,
        }),
        _ => None,
    };
    // "Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension"
    if list.is_empty() { None } else { list.iter().map(read).collect() }
}

/// The attributes of a name, relative name by relative name.
pub(super) fn attributes<'a>(name: &Value<'a>) -> Option<Vec<Vec<Attribute<'a>>>> {
    let attribute = |pair: &Value<'a>| match pair.sequence()?.as_slice() {
        [id, value] => Some((id.of(Tag::ObjectIdentifier)?, *value)),
        _ => None,
    };
    name.sequence()?.iter().map(|relative| relative.within(Tag::Set)?.iter().map(attribute).collect()).collect()
}

/// The instant of a time in the one form that DER and RFC 5280 allow.
fn time(value: &Value<'_>) -> Option<Timestamp> {
    let text = value.ascii()?.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let full = match (value.tag, text.len()) {
        (Tag::UtcTime, 12) => format!("{}{text}", if text < "5" { "20" } else { "19" }),
        (Tag::GeneralizedTime, 14) => text.to_owned(),
        _ => return None,
    };
    DateTime::strptime("%Y%m%d%H%M%S", &full).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}
