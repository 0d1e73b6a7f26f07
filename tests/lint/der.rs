//! Writes DER, and anything near it: what our own encoder would never write.

/// One value: tag, length, content.
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=0x7f => bytes.push(short.try_into().unwrap()),
        long => {
            let length: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | u8::try_from(length.len()).unwrap());
            bytes.extend(length);
        }
    }
    bytes.extend(content);
    bytes
}

pub(crate) fn of(tag: u8, values: &[Vec<u8>]) -> Vec<u8> {
    value(tag, &values.concat())
}

pub(crate) fn sequence(values: &[Vec<u8>]) -> Vec<u8> {
    of(0x30, values)
}

pub(crate) fn set(values: &[Vec<u8>]) -> Vec<u8> {
    of(0x31, values)
}

pub(crate) fn integer(content: &[u8]) -> Vec<u8> {
    value(2, content)
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    value(4, content)
}

pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    value(3, &[&[0], content].concat())
}

pub(crate) fn null() -> Vec<u8> {
    vec![5, 0]
}

pub(crate) fn truth() -> Vec<u8> {
    vec![1, 1, 0xff]
}

pub(crate) fn utf8(text: &str) -> Vec<u8> {
    value(12, text.as_bytes())
}

pub(crate) fn printable(text: &str) -> Vec<u8> {
    value(19, text.as_bytes())
}

pub(crate) fn utc(text: &str) -> Vec<u8> {
    value(23, text.as_bytes())
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    let arcs: Vec<u64> = text.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut content = Vec::new();
    for arc in std::iter::once(arcs[0] * 40 + arcs[1]).chain(arcs[2..].iter().copied()) {
        let mut groups = vec![u8::try_from(arc & 0x7f).unwrap()];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.insert(0, 0x80 | u8::try_from(rest & 0x7f).unwrap());
            rest >>= 7;
        }
        content.extend(groups);
    }
    value(6, &content)
}

/// The values that stand in `bytes`, one after the other, each whole.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (header, length) = header(bytes);
        let (value, rest) = bytes.split_at(header + length);
        values.push(value.to_vec());
        bytes = rest;
    }
    values
}

/// What is in a value.
pub(crate) fn content(value: &[u8]) -> &[u8] {
    let (header, length) = header(value);
    &value[header..header + length]
}

fn header(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        short @ 0..=0x7f => (2, short.into()),
        long => {
            let count = usize::from(long & 0x7f);
            (2 + count, bytes[2..2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
        }
    }
}
