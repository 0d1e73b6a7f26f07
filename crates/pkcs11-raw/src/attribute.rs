//! Attributes of objects: what a template is made of.

use cryptoki_sys::{CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_BBOOL, CK_FALSE, CK_TRUE, CK_ULONG};

/// One attribute with its value, as a template states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    kind: CK_ATTRIBUTE_TYPE,
    value: Value,
}

/// The forms a value has. Numbers are kept as numbers, since libraries read them in place and want them aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Flag(CK_BBOOL),
    Bytes(Vec<u8>),
    Numbers(Vec<CK_ULONG>),
    Template(Vec<Attribute>),
}

impl Attribute {
    /// A `CK_BBOOL`.
    #[must_use]
    pub const fn flag(kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        Self { kind, value: Value::Flag(if value { CK_TRUE } else { CK_FALSE }) }
    }

    /// A `CK_ULONG`, such as a class or a key type.
    #[must_use]
    pub fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        Self { kind, value: Value::Numbers(vec![value]) }
    }

    /// An array of `CK_ULONG`, such as `CKA_ALLOWED_MECHANISMS`.
    #[must_use]
    pub fn numbers(kind: CK_ATTRIBUTE_TYPE, values: &[CK_ULONG]) -> Self {
        Self { kind, value: Value::Numbers(values.to_vec()) }
    }

    /// A byte string, such as `CKA_ID`, `CKA_LABEL` or a big integer.
    #[must_use]
    pub fn bytes(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        Self { kind, value: Value::Bytes(value.to_vec()) }
    }

    /// A template within a template, such as `CKA_UNWRAP_TEMPLATE`.
    #[must_use]
    pub const fn template(kind: CK_ATTRIBUTE_TYPE, value: Vec<Self>) -> Self {
        Self { kind, value: Value::Template(value) }
    }

    /// Which attribute this is.
    #[must_use]
    pub const fn kind(&self) -> CK_ATTRIBUTE_TYPE {
        self.kind
    }

    /// The attributes of a template within a template.
    #[must_use]
    pub fn inner(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Template(inner) => Some(inner),
            Value::Flag(_) | Value::Bytes(_) | Value::Numbers(_) => None,
        }
    }

    /// Whether `read`, as `C_GetAttributeValue` gave it, means the same. Arrays are sets: a token may sort them. A template
    /// within a template is read with [`crate::Session::inner_template`] instead, and never the same here.
    #[must_use]
    pub fn agrees(&self, read: &[u8]) -> bool {
        match &self.value {
            Value::Flag(flag) => matches!(read, [one] if (*one != CK_FALSE) == (*flag != CK_FALSE)),
            Value::Bytes(bytes) => bytes == read,
            Value::Numbers(numbers) => {
                let mut wanted = numbers.clone();
                let mut found = numbers_of(read);
                wanted.sort_unstable();
                found.sort_unstable();
                read.len() == size_of_val(numbers.as_slice()) && wanted == found
            }
            Value::Template(_) => false,
        }
    }
}

/// The `CK_ULONG`s in a value; a remainder is left out.
pub(crate) fn numbers_of(bytes: &[u8]) -> Vec<CK_ULONG> {
    bytes
        .chunks_exact(size_of::<CK_ULONG>())
        .filter_map(|chunk| chunk.try_into().ok().map(CK_ULONG::from_ne_bytes))
        .collect()
}

/// The C form of a template, which borrows from the attributes it was made of.
pub(crate) struct RawTemplate<'a> {
    raw: Vec<CK_ATTRIBUTE>,
    /// Keeps the arrays alive that `raw` points into.
    _inner: Vec<Self>,
    _borrowed: std::marker::PhantomData<&'a [Attribute]>,
}

impl<'a> RawTemplate<'a> {
    pub(crate) fn new(attributes: &'a [Attribute]) -> Self {
        let mut inner = Vec::new();
        let mut raw = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            // A library takes templates as input only; the pointers are `*mut` because C has one struct for both ways.
            let (pointer, length) = match &attribute.value {
                Value::Flag(flag) => (std::ptr::from_ref(flag).cast_mut().cast(), size_of::<CK_BBOOL>()),
                Value::Bytes(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
                Value::Numbers(numbers) => (numbers.as_ptr().cast_mut().cast(), size_of_val(numbers.as_slice())),
                Value::Template(attributes) => {
                    let mut template = RawTemplate::new(attributes);
                    let place = (template.as_mut_ptr().cast(), size_of_val(template.raw.as_slice()));
                    // Moving the struct leaves its heap array where it is.
                    inner.push(template);
                    place
                }
            };
            raw.push(CK_ATTRIBUTE { type_: attribute.kind, pValue: pointer, ulValueLen: length as CK_ULONG });
        }
        Self { raw, _inner: inner, _borrowed: std::marker::PhantomData }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut CK_ATTRIBUTE {
        self.raw.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> CK_ULONG {
        self.raw.len() as CK_ULONG
    }
}
