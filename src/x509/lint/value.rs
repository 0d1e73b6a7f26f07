//! DER as values: a tag, and what is in it. Nothing is known here of what it means.

use der::{AnyRef, Decode, Tag, TagNumber, Tagged};

/// One value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) tag: Tag,
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
}

/// `[number]` around something primitive.
pub(super) const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: false, number: TagNumber(number) }
}

/// `[number]` around other values.
pub(super) const fn nested(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

impl<'a> Value<'a> {
    /// Reads one value and nothing after it.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        match Self::read_all(bytes)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Reads value after value to the end.
    pub(super) fn read_all(bytes: &'a [u8]) -> Option<Vec<Self>> {
        let (mut rest, mut values) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (any, after) = AnyRef::from_der_partial(rest).ok()?;
            let whole = rest.get(..rest.len() - after.len())?;
            values.push(Self { tag: any.tag(), content: any.value(), whole });
            rest = after;
        }
        Some(values)
    }

    /// What is in a value of this tag.
    pub(super) fn within(&self, tag: Tag) -> Option<Vec<Self>> {
        if self.tag == tag { Self::read_all(self.content) } else { None }
    }

    /// What is in a SEQUENCE.
    pub(super) fn sequence(&self) -> Option<Vec<Self>> {
        self.within(Tag::Sequence)
    }

    /// The content of a value of this tag.
    pub(super) fn of(&self, tag: Tag) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// The bytes of a BIT STRING with no unused bits.
    pub(super) fn whole_bits(&self) -> Option<&'a [u8]> {
        match self.of(Tag::BitString)? {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    /// A small INTEGER that is not negative.
    pub(super) fn small(&self, tag: Tag) -> Option<u64> {
        let content = self.of(tag)?;
        match content {
            [first, ..] if *first < 0x80 && content.len() <= 8 => {
                Some(content.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            }
            _ => None,
        }
    }

    /// Its text, where it is ASCII.
    pub(super) fn ascii(&self) -> Option<&'a str> {
        std::str::from_utf8(self.content).ok().filter(|text| text.is_ascii())
    }

    /// Puts it and all values in it into `values`. Deeper than `depth` is an error.
    pub(super) fn everything(&self, depth: usize, values: &mut Vec<Self>) -> Result<(), String> {
        values.push(*self);
        if self.tag.is_constructed() {
            let depth = depth.checked_sub(1).ok_or("values are nested too deep")?;
            for value in Self::read_all(self.content).ok_or("a length or tag is not DER")? {
                value.everything(depth, values)?;
            }
        }
        Ok(())
    }
}
