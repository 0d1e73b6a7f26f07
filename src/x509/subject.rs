//! The name of a subject ([RFC 5280, 4.1.2.4](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.4)): few attributes, each at most once.

use std::fmt;
use std::net::IpAddr;

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};

use super::san::quoted;
use crate::error::{Error, Kind, Result};
use crate::types::{Subject, words};

/// The most attributes of a stranger's name that are looked at.
const MAX_ATTRIBUTES: usize = 16;

words! {
    /// An attribute of a subject, in the order in which they are encoded.
    SubjectField: "attribute of a subject" {
        /// `C`
        Country = "country",
        /// `ST`
        Province = "province",
        /// `L`
        Locality = "locality",
        /// `O`
        Organization = "organization",
        /// `OU`
        OrganizationalUnit = "organizational_unit",
        /// `CN`
        CommonName = "common_name",
    }
}

impl SubjectField {
    /// The object identifier, and the longest value in characters ([RFC 5280, appendix A](https://www.rfc-editor.org/rfc/rfc5280#appendix-A.1)).
    const fn rule(self) -> (ObjectIdentifier, usize) {
        match self {
            Self::Country => (ObjectIdentifier::new_unwrap("2.5.4.6"), 2),
            Self::Province => (ObjectIdentifier::new_unwrap("2.5.4.8"), 128),
            Self::Locality => (ObjectIdentifier::new_unwrap("2.5.4.7"), 128),
            Self::Organization => (ObjectIdentifier::new_unwrap("2.5.4.10"), 64),
            Self::OrganizationalUnit => (ObjectIdentifier::new_unwrap("2.5.4.11"), 64),
            Self::CommonName => (ObjectIdentifier::new_unwrap("2.5.4.3"), 64),
        }
    }

    const fn short(self) -> &'static str {
        match self {
            Self::Country => "C",
            Self::Province => "ST",
            Self::Locality => "L",
            Self::Organization => "O",
            Self::OrganizationalUnit => "OU",
            Self::CommonName => "CN",
        }
    }
}

impl Subject {
    /// A subject that has a common name and nothing else.
    #[must_use]
    pub fn common(name: impl Into<String>) -> Self {
        Self { common_name: Some(name.into()), ..Self::default() }
    }

    /// Whether it has no attribute at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attributes().next().is_none()
    }

    /// The attributes that it has, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (SubjectField, &str)> {
        SubjectField::ALL.iter().filter_map(|field| self.get(*field).map(|value| (*field, value)))
    }

    /// One attribute.
    #[must_use]
    pub fn get(&self, field: SubjectField) -> Option<&str> {
        let Self { country, province, locality, organization, organizational_unit, common_name } = self;
        match field {
            SubjectField::Country => country,
            SubjectField::Province => province,
            SubjectField::Locality => locality,
            SubjectField::Organization => organization,
            SubjectField::OrganizationalUnit => organizational_unit,
            SubjectField::CommonName => common_name,
        }
        .as_deref()
    }

    /// Sets or takes away one attribute.
    pub fn set(&mut self, field: SubjectField, value: Option<String>) {
        match field {
            SubjectField::Country => self.country = value,
            SubjectField::Province => self.province = value,
            SubjectField::Locality => self.locality = value,
            SubjectField::Organization => self.organization = value,
            SubjectField::OrganizationalUnit => self.organizational_unit = value,
            SubjectField::CommonName => self.common_name = value,
        }
    }

    /// That every value may stand in a certificate: neither empty nor too long, of letters, digits, spaces and ASCII marks,
    /// without spaces at its edges; the common name in ASCII, because people take it for a host name, and not an address.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason and the mend.
    pub fn check(&self) -> Result<()> {
        self.attributes().try_for_each(|(field, value)| check(field, value))
    }

    /// DER of the Name: one attribute per RelativeDistinguishedName, the country as PrintableString, the others as UTF8String.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn to_der(&self) -> Result<Vec<u8>> {
        self.check()?;
        let defect = |e: der::Error| Error::internal(format!("der of a name: {e}"));
        let mut names = Vec::new();
        for (field, value) in self.attributes() {
            let tag = if field == SubjectField::Country { Tag::PrintableString } else { Tag::Utf8String };
            let value = AnyRef::new(tag, value.as_bytes()).and_then(|value| value.to_der()).map_err(defect)?;
            let pair = [field.rule().0.to_der().map_err(defect)?, value].concat();
            let pair = AnyRef::new(Tag::Sequence, &pair).and_then(|pair| pair.to_der()).map_err(defect)?;
            AnyRef::new(Tag::Set, &pair).and_then(|set| set.encode_to_vec(&mut names)).map_err(defect)?;
        }
        AnyRef::new(Tag::Sequence, &names).and_then(|names| names.to_der()).map_err(defect)
    }

    /// Reads a Name that consists of what a subject can have and nothing else.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not DER, for attributes we do not know or have seen already, for several in one
    /// RelativeDistinguishedName, for other types of string than PrintableString and UTF8String, and as [`Self::check`].
    pub fn from_der(name: &[u8]) -> Result<Self> {
        let malformed = |e: der::Error| Error::new(Kind::Invalid, "the subject is not DER of a name").because(e);
        let names = AnyRef::from_der(name).and_then(|names| content(names, Tag::Sequence)).map_err(malformed)?;
        let mut reader = SliceReader::new(names).map_err(malformed)?;
        let mut subject = Self::default();
        for _ in 0..MAX_ATTRIBUTES {
            if reader.is_finished() {
                subject.check()?;
                return Ok(subject);
            }
            let set = AnyRef::decode(&mut reader).and_then(|set| content(set, Tag::Set)).map_err(malformed)?;
            let mut set = SliceReader::new(set).map_err(malformed)?;
            let pair = AnyRef::decode(&mut set).and_then(|pair| content(pair, Tag::Sequence)).map_err(malformed)?;
            if !set.is_finished() {
                return Err(Error::new(Kind::Invalid, "the subject has several attributes in one part of its name")
                    .hint("join them by commas, not by +"));
            }
            let mut pair = SliceReader::new(pair).map_err(malformed)?;
            let oid = ObjectIdentifier::decode(&mut pair).map_err(malformed)?;
            let value = AnyRef::decode(&mut pair).map_err(malformed)?;
            pair.finish().map_err(malformed)?;
            subject.take(oid, value)?;
        }
        Err(Error::new(Kind::Limit, format!("the subject has more than {MAX_ATTRIBUTES} attributes")))
    }

    fn take(&mut self, oid: ObjectIdentifier, value: AnyRef<'_>) -> Result<()> {
        let field = SubjectField::ALL.iter().copied().find(|field| field.rule().0 == oid).ok_or_else(|| {
            Error::new(Kind::Invalid, format!("the subject has an attribute that we do not issue: {oid}"))
                .hint("leave it out: C, ST, L, O, OU and CN are known; mailboxes are names of the kind email")
        })?;
        if self.get(field).is_some() {
            return Err(Error::new(Kind::Invalid, format!("the subject has two attributes {}", field.short())));
        }
        if !matches!(value.tag(), Tag::PrintableString | Tag::Utf8String) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} of the subject is of an old type of string", field.short()),
            )
            .hint("UTF8String or PrintableString"));
        }
        let text = std::str::from_utf8(value.value())
            .map_err(|_| Error::new(Kind::Invalid, format!("{} of the subject is not UTF-8", field.short())))?;
        if value.tag() == Tag::PrintableString && !text.bytes().all(printable) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} of the subject is not a PrintableString", field.short()),
            ));
        }
        self.set(field, Some(text.to_owned()));
        Ok(())
    }
}

/// The bytes within `any`, where it has this tag.
fn content(any: AnyRef<'_>, tag: Tag) -> der::Result<&[u8]> {
    any.tag().assert_eq(tag)?;
    Ok(any.value())
}

const fn printable(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b' ' | b'\'' | b'(' | b')' | b'+' | b',' | b'-' | b'.' | b'/' | b':' | b'=' | b'?')
}

fn check(field: SubjectField, value: &str) -> Result<()> {
    let refuse = |why: &str, mend: String| {
        Err(Error::new(Kind::Invalid, format!("{} of the subject {} {why}", field.short(), quoted(value))).hint(mend))
    };
    let (_, longest) = field.rule();
    if value.is_empty() || value.chars().count() > longest {
        return refuse("is empty or too long", format!("1 to {longest} characters"));
    }
    if value.trim() != value {
        return refuse("has spaces at its edge", "leave them out".to_owned());
    }
    // Neither controls nor what is invisible or turns the direction of writing: two names that look the same are the same.
    let good = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_graphic();
    if !value.chars().all(good) {
        return refuse("has a character that is not to be seen", "letters, digits, spaces and ASCII marks".to_owned());
    }
    match field {
        SubjectField::Country if !value.bytes().all(|b| b.is_ascii_uppercase()) || value.len() != 2 => {
            refuse("is not a country", "two letters of ISO 3166, in upper case".to_owned())
        }
        SubjectField::CommonName if !value.is_ascii() => {
            refuse("is not ASCII", "write international host names as A-labels: xn--...".to_owned())
        }
        SubjectField::CommonName if value.parse::<IpAddr>().is_ok() => {
            refuse("is an address", "addresses are alternative names of the kind ip".to_owned())
        }
        SubjectField::Country
        | SubjectField::Province
        | SubjectField::Locality
        | SubjectField::Organization
        | SubjectField::OrganizationalUnit
        | SubjectField::CommonName => Ok(()),
    }
}

/// For people, the most specific first, as in `CN=web, O=Example, C=DE`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<_> = self.attributes().collect();
        parts.reverse();
        for (at, (field, value)) in parts.into_iter().enumerate() {
            write!(f, "{}{}=", if at == 0 { "" } else { ", " }, field.short())?;
            for c in value.chars() {
                write!(
                    f,
                    "{}{c}",
                    if matches!(c, ',' | '\\' | '+' | '=' | '"' | '<' | '>' | ';') { "\\" } else { "" }
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Subject {
        Subject {
            country: Some("DE".to_owned()),
            province: Some("Sachsen".to_owned()),
            locality: Some("Görlitz".to_owned()),
            organization: Some("A, B & C".to_owned()),
            organizational_unit: Some("Café".to_owned()),
            common_name: Some("web.example.com".to_owned()),
        }
    }

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for subject in [full(), Subject::default(), Subject::common("root 1")] {
            assert_eq!(Subject::from_der(&subject.to_der().unwrap()).unwrap(), subject);
        }
        assert_eq!(full().to_string(), "CN=web.example.com, OU=Café, O=A\\, B & C, L=Görlitz, ST=Sachsen, C=DE");
        assert_eq!(Subject::default().to_der().unwrap(), [0x30, 0]);
    }

    #[test]
    fn doubtful_values_are_refused() {
        for (field, value) in [
            (SubjectField::CommonName, ""),
            (SubjectField::CommonName, " a"),
            (SubjectField::CommonName, "a\0b"),
            (SubjectField::CommonName, "a\nb"),
            (SubjectField::CommonName, "аpple.com"),
            (SubjectField::CommonName, "10.0.0.1"),
            (SubjectField::CommonName, "2001:db8::1"),
            (SubjectField::Organization, "a\u{202e}b"),
            (SubjectField::Organization, "a\u{200b}b"),
            (SubjectField::Organization, "a\u{a0}b"),
            (SubjectField::Country, "de"),
            (SubjectField::Country, "DEU"),
        ] {
            let mut subject = Subject::default();
            subject.set(field, Some(value.to_owned()));
            assert_eq!(subject.check().unwrap_err().kind(), Kind::Invalid, "{value:?}");
            assert!(subject.to_der().is_err());
        }
        assert!(Subject::common("a".repeat(65)).check().is_err());
        let mut twice = Subject::common("a").to_der().unwrap();
        let inner = twice[2..].to_vec();
        twice.extend(inner);
        twice[1] *= 2;
        assert!(Subject::from_der(&twice).unwrap_err().public().contains("two attributes CN"));
    }
}
