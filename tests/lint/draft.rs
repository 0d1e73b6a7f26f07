//! A certificate in pieces of DER, to break one of them.

use crate::der::{content, integer, octets, of, oid, sequence, split, truth, utc, utf8, value};

#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: [Vec<u8>; 2],
    pub(crate) subject: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// What stands between key and extensions.
    pub(crate) unique: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
    /// What stands after the extensions.
    pub(crate) tail: Vec<u8>,
    /// The algorithm beside the signature, where it is not the one within.
    pub(crate) outer: Option<Vec<u8>>,
    /// In place of the signature.
    pub(crate) signature: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(crate) struct Extension {
    pub(crate) id: &'static str,
    /// The BOOLEAN, or nothing.
    pub(crate) flag: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

pub(crate) const SUBJECT_KEY_ID: &str = "2.5.29.14";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";
pub(crate) const NAMES: &str = "2.5.29.17";
pub(crate) const BASIC: &str = "2.5.29.19";
pub(crate) const CONSTRAINTS: &str = "2.5.29.30";
pub(crate) const LISTS: &str = "2.5.29.31";
pub(crate) const POLICIES: &str = "2.5.29.32";
pub(crate) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
pub(crate) const EXTENDED: &str = "2.5.29.37";
pub(crate) const ACCESS: &str = "1.3.6.1.5.5.7.1.1";
pub(crate) const FEATURE: &str = "1.3.6.1.5.5.7.1.24";
pub(crate) const NO_CHECK: &str = "1.3.6.1.5.5.7.48.1.5";

pub(crate) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
pub(crate) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
pub(crate) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
pub(crate) const OCSP_SIGNING: &str = "1.3.6.1.5.5.7.3.9";

impl Draft {
    /// The TBSCertificate.
    pub(crate) fn to_be_signed(&self) -> Vec<u8> {
        let extensions = self.extensions.iter().map(Extension::write).collect::<Vec<_>>();
        sequence(&[
            self.version.clone(),
            self.serial.clone(),
            self.algorithm.clone(),
            self.issuer.clone(),
            sequence(&self.validity),
            self.subject.clone(),
            self.key.clone(),
            self.unique.clone(),
            of(0xa3, &[sequence(&extensions)]),
            self.tail.clone(),
        ])
    }

    /// Puts an extension in place of the one with this identifier, or behind all.
    pub(crate) fn put(&mut self, id: &'static str, critical: bool, value: Vec<u8>) {
        let new = Extension { id, flag: if critical { truth() } else { Vec::new() }, value };
        match self.extensions.iter_mut().find(|extension| extension.id == id) {
            Some(old) => *old = new,
            None => self.extensions.push(new),
        }
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.extensions.retain(|extension| extension.id != id);
    }

    pub(crate) fn extension(&mut self, id: &str) -> &mut Extension {
        self.extensions.iter_mut().find(|extension| extension.id == id).unwrap()
    }

    /// Makes an extension critical, or not.
    pub(crate) fn critical(&mut self, id: &str, critical: bool) {
        self.extension(id).flag = if critical { truth() } else { Vec::new() };
    }

    /// Replaces the alternative names; a name is its tag and its bytes.
    pub(crate) fn names(&mut self, names: &[(u8, &[u8])]) {
        let names: Vec<_> = names.iter().map(|(tag, bytes)| value(*tag, bytes)).collect();
        let critical = content(&self.subject).is_empty();
        self.put(NAMES, critical, sequence(&names));
    }

    pub(crate) fn dns(&mut self, name: &str) {
        self.names(&[(0x82, name.as_bytes())]);
    }

    pub(crate) fn extended(&mut self, usages: &[&str]) {
        self.put(EXTENDED, false, sequence(&usages.iter().map(|usage| oid(usage)).collect::<Vec<_>>()));
    }

    /// Key usage of the bits named, which are those of RFC 5280 by number.
    pub(crate) fn usage(&mut self, set: &[u32]) {
        let sum = set.iter().fold(0u16, |sum, bit| sum | 0x8000 >> bit);
        let unused = sum.trailing_zeros() % 8;
        let [first, second] = sum.to_be_bytes();
        let unused = u8::try_from(unused).unwrap();
        let bytes = if second == 0 { vec![unused, first] } else { vec![unused, first, second] };
        self.put(KEY_USAGE, true, value(3, &bytes));
    }

    pub(crate) fn valid(&mut self, from: &str, until: &str) {
        self.validity = [utc(from), utc(until)];
    }

    /// Basic constraints of an authority.
    pub(crate) fn authority(&mut self, path_length: Option<u8>) {
        let length = path_length.map_or_else(Vec::new, |length| integer(&[length]));
        self.put(BASIC, true, sequence(&[truth(), length]));
    }

    /// Name constraints: subtrees as tag and bytes.
    pub(crate) fn constraints(&mut self, permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) {
        let subtrees = |tag, list: &[(u8, &[u8])]| match list {
            [] => Vec::new(),
            list => of(tag, &list.iter().map(|(tag, bytes)| sequence(&[value(*tag, bytes)])).collect::<Vec<_>>()),
        };
        self.put(CONSTRAINTS, true, sequence(&[subtrees(0xa0, permitted), subtrees(0xa1, excluded)]));
    }
}

impl Extension {
    fn write(&self) -> Vec<u8> {
        sequence(&[oid(self.id), self.flag.clone(), octets(&self.value)])
    }
}

/// A name of attributes, each with its value in DER.
pub(crate) fn name(attributes: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let relative = |(id, value): &(&str, Vec<u8>)| crate::der::set(&[sequence(&[oid(id), value.clone()])]);
    sequence(&attributes.iter().map(relative).collect::<Vec<_>>())
}

/// A name of country, organization and common name.
pub(crate) fn common(text: &str) -> Vec<u8> {
    name(&[("2.5.4.6", crate::der::printable("DE")), ("2.5.4.10", utf8("Example")), ("2.5.4.3", utf8(text))])
}

/// The parts of an RDN sequence again, to change one.
pub(crate) fn relatives(name: &[u8]) -> Vec<Vec<u8>> {
    split(content(name))
}

/// Information access of methods and URLs.
pub(crate) fn access(list: &[(&str, u8, &str)]) -> Vec<u8> {
    let one = |(method, tag, url): &(&str, u8, &str)| sequence(&[oid(method), value(*tag, url.as_bytes())]);
    sequence(&list.iter().map(one).collect::<Vec<_>>())
}

/// One distribution point with these URLs.
pub(crate) fn point(urls: &[&str]) -> Vec<u8> {
    let urls: Vec<_> = urls.iter().map(|url| value(0x86, url.as_bytes())).collect();
    sequence(&[of(0xa0, &[of(0xa0, &urls)])])
}
