//! One conversation with a token.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_ECDH1_DERIVE_PARAMS, CK_GCM_PARAMS, CK_MECHANISM, CK_OBJECT_HANDLE,
    CK_SESSION_HANDLE, CK_ULONG, CK_UNAVAILABLE_INFORMATION, CK_USER_TYPE, CKA_VALUE, CKD_NULL, CKF_RW_SESSION,
    CKF_SERIAL_SESSION, CKM_SHA256, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_FUNCTION_NOT_SUPPORTED,
    CKR_GENERAL_ERROR, CKU_SO, CKU_USER,
};
use zeroize::Zeroizing;

use crate::attribute::RawTemplate;
use crate::module::Slot;
use crate::{Attribute, Error, Mechanism, Module, Result, call, check};

/// Room for the largest signature: ML-DSA-87 has 4,627 bytes, RSA 8192 has 1,024.
const SIGNATURE_ROOM: usize = 5120;
/// Room for the largest wrapped key: RSA 8192 in PKCS#8 takes some 4.8 KB.
const BLOB_ROOM: usize = 8192;
/// How much longer than its plaintext a ciphertext may be.
const CIPHER_ROOM: usize = 64;
/// The length of a nonce of AES-GCM in bytes, and of its tag in bits.
const GCM_NONCE: usize = 12;
const GCM_TAG_BITS: CK_ULONG = 128;
/// How many handles one `C_FindObjects` may answer.
const FIND_AT_ONCE: usize = 256;
/// The largest attribute that is believed; what is longer is a fault of the library.
const ATTRIBUTE_ROOM: usize = 1 << 20;

/// The token's number for an object. It means something only while the token is logged in, and may be given to another
/// object later: never trust an old one blindly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object(CK_OBJECT_HANDLE);

/// The attributes within an attribute, each with its value.
pub type InnerTemplate = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// A read-write session: `Send`, not `Sync`, closed on drop. Its session objects go with it.
pub struct Session {
    module: Arc<Module>,
    handle: CK_SESSION_HANDLE,
    /// A session is one conversation: two threads in it at once would mix up each other's operations.
    _not_sync: PhantomData<Cell<()>>,
}

impl Session {
    /// Opens a session with the token in `slot`.
    ///
    /// # Errors
    /// What `C_OpenSession` returned.
    pub fn open(module: &Arc<Module>, slot: Slot) -> Result<Self> {
        let mut handle = 0;
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        // SAFETY: no callback; `handle` is a number to write to.
        unsafe { call!(module, C_OpenSession(slot.0, flags, null_mut(), None, &raw mut handle)) }?;
        Ok(Self { module: Arc::clone(module), handle, _not_sync: PhantomData })
    }

    /// Logs the user in, for all sessions of this process. The PIN is zeroed afterwards, whatever happened.
    ///
    /// # Errors
    /// What `C_Login` returned. The caller must not try a refused PIN again: tokens lock.
    pub fn login(&self, pin: Zeroizing<Vec<u8>>) -> Result<()> {
        self.login_as(CKU_USER, pin)
    }

    /// Logs the security officer in, for all sessions of this process, of which none may be the user's then.
    ///
    /// # Errors
    /// As [`Self::login`].
    pub fn login_officer(&self, pin: Zeroizing<Vec<u8>>) -> Result<()> {
        self.login_as(CKU_SO, pin)
    }

    fn login_as(&self, who: CK_USER_TYPE, mut pin: Zeroizing<Vec<u8>>) -> Result<()> {
        let length = pin.len() as CK_ULONG;
        // SAFETY: `pin` holds `length` bytes.
        unsafe { call!(self.module, C_Login(self.handle, who, pin.as_mut_ptr(), length)) }
    }

    /// Logs out, for all sessions of this process. No handle of a private object is good afterwards.
    ///
    /// # Errors
    /// What `C_Logout` returned.
    pub fn logout(&self) -> Result<()> {
        // SAFETY: a session handle by value.
        unsafe { call!(self.module, C_Logout(self.handle)) }
    }

    /// All objects that agree with `template`.
    ///
    /// # Errors
    /// What the three calls of a search returned.
    pub fn find(&self, template: &[Attribute]) -> Result<Vec<Object>> {
        let mut raw = RawTemplate::new(template);
        // SAFETY: `raw` is a template of `raw.len()` attributes, alive during the call.
        unsafe { call!(self.module, C_FindObjectsInit(self.handle, raw.as_mut_ptr(), raw.len())) }?;
        let found = self.collect();
        // SAFETY: a session handle by value.
        let ended = unsafe { call!(self.module, C_FindObjectsFinal(self.handle)) };
        let found = found?;
        ended?;
        Ok(found)
    }

    fn collect(&self) -> Result<Vec<Object>> {
        let mut all = Vec::new();
        let mut some: [CK_OBJECT_HANDLE; FIND_AT_ONCE] = [0; FIND_AT_ONCE];
        loop {
            let mut count: CK_ULONG = 0;
            let room = FIND_AT_ONCE as CK_ULONG;
            // SAFETY: `some` has room for `room` handles.
            unsafe { call!(self.module, C_FindObjects(self.handle, some.as_mut_ptr(), room, &raw mut count)) }?;
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(FIND_AT_ONCE);
            if count == 0 {
                return Ok(all);
            }
            all.extend(some.iter().take(count).copied().map(Object));
        }
    }

    /// The values of attributes, in the order of `kinds`; `None` for one that the object does not have or does not show.
    ///
    /// # Errors
    /// What `C_GetAttributeValue` returned, other than that some values are not to be had.
    pub fn attributes(&self, object: Object, kinds: &[CK_ATTRIBUTE_TYPE]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut raw: Vec<CK_ATTRIBUTE> =
            kinds.iter().map(|kind| CK_ATTRIBUTE { type_: *kind, pValue: null_mut(), ulValueLen: 0 }).collect();
        self.read(object, &mut raw)?;
        let mut values: Vec<Option<Vec<u8>>> = raw.iter().map(room).collect();
        // Only what can be had is asked for again, since some libraries stop at the first attribute that cannot.
        let mut wanted: Vec<CK_ATTRIBUTE> = raw
            .iter()
            .zip(values.iter_mut())
            .filter_map(|(attribute, value)| {
                let value = value.as_mut().filter(|value| !value.is_empty())?;
                Some(CK_ATTRIBUTE {
                    pValue: value.as_mut_ptr().cast(),
                    ulValueLen: value.len() as CK_ULONG,
                    ..*attribute
                })
            })
            .collect();
        self.read(object, &mut wanted)?;
        let filled = values.iter_mut().flatten().filter(|value| !value.is_empty());
        for (value, attribute) in filled.zip(&wanted) {
            value.truncate(usize::try_from(attribute.ulValueLen).unwrap_or(usize::MAX));
        }
        Ok(values)
    }

    fn read(&self, object: Object, raw: &mut [CK_ATTRIBUTE]) -> Result<()> {
        if raw.is_empty() {
            return Ok(());
        }
        let count = raw.len() as CK_ULONG;
        // SAFETY: `raw` holds `count` attributes; each points to null or to `ulValueLen` bytes to write to.
        match unsafe { call!(self.module, C_GetAttributeValue(self.handle, object.0, raw.as_mut_ptr(), count)) } {
            Err(error) if matches!(error.code, CKR_ATTRIBUTE_SENSITIVE | CKR_ATTRIBUTE_TYPE_INVALID) => Ok(()),
            other => other,
        }
    }

    /// The attributes within an attribute that is a template, such as `CKA_UNWRAP_TEMPLATE`, with their values.
    ///
    /// # Errors
    /// What `C_GetAttributeValue` returned.
    pub fn inner_template(&self, object: Object, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<InnerTemplate>> {
        // How many; then which and how long each; then the values: three calls by the standard.
        let mut outer = [CK_ATTRIBUTE { type_: kind, pValue: null_mut(), ulValueLen: 0 }];
        self.read(object, &mut outer)?;
        let [CK_ATTRIBUTE { ulValueLen: length, .. }] = outer;
        if length == CK_UNAVAILABLE_INFORMATION {
            return Ok(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(ATTRIBUTE_ROOM);
        // A type that is none: version 3.2 tells by it that which ones there are is the question, and older tokens do not look.
        let empty = CK_ATTRIBUTE { type_: CK_UNAVAILABLE_INFORMATION, pValue: null_mut(), ulValueLen: 0 };
        let mut inner = vec![empty; length / size_of::<CK_ATTRIBUTE>()];
        self.read_inner(object, kind, &mut inner)?;
        let mut values: Vec<Vec<u8>> = inner.iter().map(|attribute| room(attribute).unwrap_or_default()).collect();
        for (attribute, value) in inner.iter_mut().zip(values.iter_mut()) {
            attribute.pValue = value.as_mut_ptr().cast();
            attribute.ulValueLen = value.len() as CK_ULONG;
        }
        self.read_inner(object, kind, &mut inner)?;
        Ok(Some(inner.iter().map(|attribute| attribute.type_).zip(values).collect()))
    }

    fn read_inner(&self, object: Object, kind: CK_ATTRIBUTE_TYPE, inner: &mut [CK_ATTRIBUTE]) -> Result<()> {
        let length = size_of_val(inner) as CK_ULONG;
        self.read(object, &mut [CK_ATTRIBUTE { type_: kind, pValue: inner.as_mut_ptr().cast(), ulValueLen: length }])
    }

    /// Makes a secret key.
    ///
    /// # Errors
    /// What `C_GenerateKey` returned.
    pub fn generate(&self, mechanism: Mechanism, template: &[Attribute]) -> Result<Object> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        let mut raw = RawTemplate::new(template);
        let mut key = 0;
        // SAFETY: mechanism, parameter and template are alive during the call; `key` is a number to write to.
        unsafe {
            call!(
                self.module,
                C_GenerateKey(self.handle, &raw mut mechanism, raw.as_mut_ptr(), raw.len(), &raw mut key)
            )
        }?;
        Ok(Object(key))
    }

    /// Makes a key pair: public, private.
    ///
    /// # Errors
    /// What `C_GenerateKeyPair` returned.
    pub fn generate_pair(
        &self,
        mechanism: Mechanism,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Result<(Object, Object)> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        let (mut public, mut private) = (RawTemplate::new(public), RawTemplate::new(private));
        let (mut public_key, mut private_key) = (0, 0);
        // SAFETY: mechanism, parameter and templates are alive during the call; the handles are numbers to write to.
        unsafe {
            call!(
                self.module,
                C_GenerateKeyPair(
                    self.handle,
                    &raw mut mechanism,
                    public.as_mut_ptr(),
                    public.len(),
                    private.as_mut_ptr(),
                    private.len(),
                    &raw mut public_key,
                    &raw mut private_key,
                )
            )
        }?;
        Ok((Object(public_key), Object(private_key)))
    }

    /// Signs, or makes a MAC: `C_SignInit` and one `C_Sign` with room for any answer, so that a network HSM is asked twice
    /// and not three times.
    ///
    /// # Errors
    /// What the two calls returned. Afterwards the session may be stuck with the operation: close it.
    pub fn sign(&self, mechanism: Mechanism, key: Object, data: &[u8]) -> Result<Vec<u8>> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        // SAFETY: mechanism and parameter are alive during the call.
        unsafe { call!(self.module, C_SignInit(self.handle, &raw mut mechanism, key.0)) }?;
        answer("C_Sign", SIGNATURE_ROOM, |pointer, length| {
            // SAFETY: `data` is only read; `pointer` has room for `*length` bytes.
            unsafe {
                let (data, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                call!(self.module, C_Sign(self.handle, data, size, pointer, length))
            }
        })
    }

    /// Wraps `key` under `wrapper`, in one call.
    ///
    /// # Errors
    /// What `C_WrapKey` returned.
    pub fn wrap(&self, mechanism: Mechanism, wrapper: Object, key: Object) -> Result<Vec<u8>> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        answer("C_WrapKey", BLOB_ROOM, |pointer, length| {
            // SAFETY: mechanism and parameter are alive during the call; `pointer` has room for `*length` bytes.
            unsafe { call!(self.module, C_WrapKey(self.handle, &raw mut mechanism, wrapper.0, key.0, pointer, length)) }
        })
    }

    /// Unwraps `blob` under `wrapper` as `template` says.
    ///
    /// # Errors
    /// What `C_UnwrapKey` returned. Many tokens answer `CKR_GENERAL_ERROR` to a damaged blob.
    pub fn unwrap(&self, mechanism: Mechanism, wrapper: Object, blob: &[u8], template: &[Attribute]) -> Result<Object> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        let mut raw = RawTemplate::new(template);
        let mut key = 0;
        let (data, size) = (blob.as_ptr().cast_mut(), blob.len() as CK_ULONG);
        // SAFETY: mechanism, parameter and template are alive during the call; `blob` is only read; `key` is written to.
        unsafe {
            call!(
                self.module,
                C_UnwrapKey(
                    self.handle,
                    &raw mut mechanism,
                    wrapper.0,
                    data,
                    size,
                    raw.as_mut_ptr(),
                    raw.len(),
                    &raw mut key
                )
            )
        }?;
        Ok(Object(key))
    }

    /// What the private key `key` and `point` agree on (ECDH, without a derivation of keys): `C_DeriveKey` to a session object by
    /// `template`, its value, and its end. Where one of them fails, the object goes with its session.
    ///
    /// # Errors
    /// What the calls returned; `CKR_ATTRIBUTE_SENSITIVE` where the token does not show the value.
    pub fn agree(&self, key: Object, point: &[u8], template: &[Attribute]) -> Result<Vec<u8>> {
        let mut parameter = CK_ECDH1_DERIVE_PARAMS {
            kdf: CKD_NULL,
            ulSharedDataLen: 0,
            pSharedData: null_mut(),
            ulPublicDataLen: point.len() as CK_ULONG,
            pPublicData: point.as_ptr().cast_mut(),
        };
        let mut mechanism = CK_MECHANISM {
            mechanism: Mechanism::Ecdh1Derive.number(),
            pParameter: (&raw mut parameter).cast(),
            ulParameterLen: size_of::<CK_ECDH1_DERIVE_PARAMS>() as CK_ULONG,
        };
        let mut raw = RawTemplate::new(template);
        let mut secret = 0;
        // SAFETY: mechanism, parameter and template are alive during the call; `point` is only read; `secret` is written to.
        unsafe {
            call!(
                self.module,
                C_DeriveKey(self.handle, &raw mut mechanism, key.0, raw.as_mut_ptr(), raw.len(), &raw mut secret)
            )
        }?;
        self.take_value(Object(secret))
    }

    /// The secret that `ciphertext` holds for the private key `key`: `C_DecapsulateKey` to a session object by `template`, its value, and its
    /// end. Where one of them fails, the object goes with its session.
    ///
    /// # Errors
    /// What the calls returned; `CKR_FUNCTION_NOT_SUPPORTED` for a library older than version 3.2; `CKR_ATTRIBUTE_SENSITIVE` where the token
    /// does not show the value.
    pub fn decapsulate(
        &self,
        mechanism: Mechanism,
        key: Object,
        ciphertext: &[u8],
        template: &[Attribute],
    ) -> Result<Vec<u8>> {
        const NAME: &str = "C_DecapsulateKey";
        let Some(function) = self.module.newer_functions().and_then(|list| list.C_DecapsulateKey) else {
            return Err(Error { function: NAME, code: CKR_FUNCTION_NOT_SUPPORTED });
        };
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        let mut raw = RawTemplate::new(template);
        let mut secret = 0;
        let (data, size) = (ciphertext.as_ptr().cast_mut(), ciphertext.len() as CK_ULONG);
        // SAFETY: mechanism and template are alive during the call; `ciphertext` is only read; `secret` is written to.
        let code = unsafe {
            function(self.handle, &raw mut mechanism, key.0, raw.as_mut_ptr(), raw.len(), data, size, &raw mut secret)
        };
        check(NAME, code)?;
        self.take_value(Object(secret))
    }

    /// The value of a secret, which is destroyed.
    fn take_value(&self, secret: Object) -> Result<Vec<u8>> {
        let value = self.attributes(secret, &[CKA_VALUE])?.pop().flatten();
        self.destroy(secret)?;
        value.ok_or(Error { function: "C_GetAttributeValue", code: CKR_ATTRIBUTE_SENSITIVE })
    }

    /// Makes an object of what `template` says: for data, never for keys.
    ///
    /// # Errors
    /// What `C_CreateObject` returned.
    pub fn create(&self, template: &[Attribute]) -> Result<Object> {
        let mut raw = RawTemplate::new(template);
        let mut object = 0;
        // SAFETY: the template is alive during the call; `object` is a number to write to.
        unsafe { call!(self.module, C_CreateObject(self.handle, raw.as_mut_ptr(), raw.len(), &raw mut object)) }?;
        Ok(Object(object))
    }

    /// Changes attributes of an object.
    ///
    /// # Errors
    /// What `C_SetAttributeValue` returned. Some tokens answer `CKR_OK` and change nothing.
    pub fn set(&self, object: Object, attributes: &[Attribute]) -> Result<()> {
        let mut raw = RawTemplate::new(attributes);
        // SAFETY: the template is alive during the call.
        unsafe { call!(self.module, C_SetAttributeValue(self.handle, object.0, raw.as_mut_ptr(), raw.len())) }
    }

    /// Copies an object, with the attributes of `template` in the place of its own.
    ///
    /// # Errors
    /// What `C_CopyObject` returned.
    pub fn copy(&self, object: Object, template: &[Attribute]) -> Result<Object> {
        let mut raw = RawTemplate::new(template);
        let mut copy = 0;
        // SAFETY: the template is alive during the call; `copy` is a number to write to.
        unsafe { call!(self.module, C_CopyObject(self.handle, object.0, raw.as_mut_ptr(), raw.len(), &raw mut copy)) }?;
        Ok(Object(copy))
    }

    /// Encrypts in one piece.
    ///
    /// # Errors
    /// What the two calls returned. Afterwards the session may be stuck with the operation: close it.
    pub fn encrypt(&self, mechanism: Mechanism, key: Object, data: &[u8]) -> Result<Vec<u8>> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        // SAFETY: mechanism and parameter are alive during the call.
        unsafe { call!(self.module, C_EncryptInit(self.handle, &raw mut mechanism, key.0)) }?;
        answer("C_Encrypt", data.len() + CIPHER_ROOM, |pointer, length| {
            // SAFETY: `data` is only read; `pointer` has room for `*length` bytes.
            unsafe {
                let (data, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                call!(self.module, C_Encrypt(self.handle, data, size, pointer, length))
            }
        })
    }

    /// Decrypts in one piece.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn decrypt(&self, mechanism: Mechanism, key: Object, data: &[u8]) -> Result<Vec<u8>> {
        let mut parameter = mechanism.parameter();
        let mut mechanism = mechanism.raw(&mut parameter);
        // SAFETY: mechanism and parameter are alive during the call.
        unsafe { call!(self.module, C_DecryptInit(self.handle, &raw mut mechanism, key.0)) }?;
        answer("C_Decrypt", data.len() + CIPHER_ROOM, |pointer, length| {
            // SAFETY: `data` is only read; `pointer` has room for `*length` bytes.
            unsafe {
                let (data, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                call!(self.module, C_Decrypt(self.handle, data, size, pointer, length))
            }
        })
    }

    /// Encrypts by AES-GCM. The tag of 128 bits stands at the end. Tokens take any nonce, any number of times: that none comes
    /// twice is the caller's to see to.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn seal(&self, key: Object, nonce: &[u8; GCM_NONCE], aad: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        let mut parameter = gcm(nonce, aad);
        let mut mechanism = gcm_mechanism(&mut parameter);
        // SAFETY: mechanism, parameter, nonce and aad are alive during the call.
        unsafe { call!(self.module, C_EncryptInit(self.handle, &raw mut mechanism, key.0)) }?;
        answer("C_Encrypt", data.len() + CIPHER_ROOM, |pointer, length| {
            // SAFETY: `data` is only read, and what the parameter points to is alive still; `pointer` has room for `*length` bytes.
            unsafe {
                let (data, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                call!(self.module, C_Encrypt(self.handle, data, size, pointer, length))
            }
        })
    }

    /// Decrypts what [`Self::seal`] made.
    ///
    /// # Errors
    /// As [`Self::encrypt`]. Many tokens answer `CKR_GENERAL_ERROR` to a tag that does not hold.
    pub fn open_sealed(&self, key: Object, nonce: &[u8; GCM_NONCE], aad: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        let mut parameter = gcm(nonce, aad);
        let mut mechanism = gcm_mechanism(&mut parameter);
        // SAFETY: mechanism, parameter, nonce and aad are alive during the call.
        unsafe { call!(self.module, C_DecryptInit(self.handle, &raw mut mechanism, key.0)) }?;
        answer("C_Decrypt", data.len() + CIPHER_ROOM, |pointer, length| {
            // SAFETY: `data` is only read, and what the parameter points to is alive still; `pointer` has room for `*length` bytes.
            unsafe {
                let (data, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
                call!(self.module, C_Decrypt(self.handle, data, size, pointer, length))
            }
        })
    }

    /// SHA-256 of the value of a secret key.
    ///
    /// # Errors
    /// What the three calls returned. Afterwards the session may be stuck with the operation: close it.
    pub fn digest_key(&self, key: Object) -> Result<Vec<u8>> {
        let mut mechanism = Mechanism::Other(CKM_SHA256).raw(&mut None);
        // SAFETY: the mechanism is alive during the call.
        unsafe { call!(self.module, C_DigestInit(self.handle, &raw mut mechanism)) }?;
        // SAFETY: two numbers.
        unsafe { call!(self.module, C_DigestKey(self.handle, key.0)) }?;
        answer("C_DigestFinal", SIGNATURE_ROOM, |pointer, length| {
            // SAFETY: `pointer` has room for `*length` bytes.
            unsafe { call!(self.module, C_DigestFinal(self.handle, pointer, length)) }
        })
    }

    /// Destroys an object.
    ///
    /// # Errors
    /// What `C_DestroyObject` returned.
    pub fn destroy(&self, object: Object) -> Result<()> {
        // SAFETY: two numbers.
        unsafe { call!(self.module, C_DestroyObject(self.handle, object.0)) }
    }

    /// Fills `bytes` from the token's generator.
    ///
    /// # Errors
    /// What `C_GenerateRandom` returned.
    pub fn random(&self, bytes: &mut [u8]) -> Result<()> {
        let length = bytes.len() as CK_ULONG;
        // SAFETY: `bytes` has room for `length` bytes.
        unsafe { call!(self.module, C_GenerateRandom(self.handle, bytes.as_mut_ptr(), length)) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: a number. An error means that the session is closed already, which is what is wanted.
        let _ = unsafe { call!(self.module, C_CloseSession(self.handle)) };
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.handle)
    }
}

/// The parameters of AES-GCM. Length of nonce and tag are fixed here, since tokens accept worse: a nonce of one byte, no tag at all.
fn gcm(nonce: &[u8; GCM_NONCE], aad: &[u8]) -> CK_GCM_PARAMS {
    CK_GCM_PARAMS {
        pIv: nonce.as_ptr().cast_mut(),
        ulIvLen: GCM_NONCE as CK_ULONG,
        ulIvBits: 8 * GCM_NONCE as CK_ULONG,
        pAAD: aad.as_ptr().cast_mut(),
        ulAADLen: aad.len() as CK_ULONG,
        ulTagBits: GCM_TAG_BITS,
    }
}

/// The mechanism that points to them.
fn gcm_mechanism(parameter: &mut CK_GCM_PARAMS) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism: Mechanism::AesGcm.number(),
        pParameter: std::ptr::from_mut(parameter).cast(),
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
    }
}

/// Room for a value of the length a first call gave; `None` for one that is not to be had.
fn room(attribute: &CK_ATTRIBUTE) -> Option<Vec<u8>> {
    if attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION {
        return None;
    }
    let length = usize::try_from(attribute.ulValueLen).ok().filter(|length| *length <= ATTRIBUTE_ROOM)?;
    Some(vec![0; length])
}

/// Calls with a buffer of `room` bytes and cuts it to what was answered.
fn answer(
    function: &'static str,
    room: usize,
    call: impl FnOnce(*mut u8, *mut CK_ULONG) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut out = vec![0; room];
    let mut length = room as CK_ULONG;
    match call(out.as_mut_ptr(), &raw mut length) {
        // A length beyond the buffer with CKR_OK is a defect of the library.
        Ok(()) if length > room as CK_ULONG => Err(Error { function, code: CKR_GENERAL_ERROR }),
        Ok(()) => {
            out.truncate(usize::try_from(length).unwrap_or(0));
            Ok(out)
        }
        Err(error) => Err(error),
    }
}
