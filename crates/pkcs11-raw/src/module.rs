//! A loaded library and the tokens it shows.

use std::fmt;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

use cryptoki_sys::{
    CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_2, CK_INFO, CK_INTERFACE, CK_MECHANISM_INFO,
    CK_MECHANISM_TYPE, CK_RV, CK_SLOT_ID, CK_TOKEN_INFO, CK_TRUE, CK_ULONG, CK_UNAVAILABLE_INFORMATION, CK_UTF8CHAR,
    CK_VERSION, CKF_OS_LOCKING_OK, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY,
    CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED,
    CKR_BUFFER_TOO_SMALL,
};
use libloading::Library;

use crate::{Error, Result, call, check};

/// How often a list that grows while it is read is read again.
const LIST_TRIES: usize = 4;

/// A PKCS#11 library, loaded and initialised. It is finalised when the last owner is dropped; since each session is an
/// owner, that is never under a call.
pub struct Module {
    functions: CK_FUNCTION_LIST,
    /// What version 3.2 of the standard added, where the library has it.
    newer: Option<CK_FUNCTION_LIST_3_2>,
    /// Never unloaded: libraries leave threads and exit handlers behind that would then run in unmapped memory.
    _library: ManuallyDrop<Library>,
}

/// Why a library could not be used.
#[derive(Debug)]
pub enum LoadError {
    /// No such file, not a shared library, or one that lacks something itself.
    Library(libloading::Error),
    /// It has no `C_GetFunctionList`, or that gives nothing.
    NotPkcs11,
    /// It refused to start.
    Call(Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(error) => write!(f, "{error}"),
            Self::NotPkcs11 => f.write_str("the library is not a PKCS#11 module: it offers no C_GetFunctionList"),
            Self::Call(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Where a token is. The number changes with each start: choose by serial or label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(crate) CK_SLOT_ID);

/// The state of a token and its PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFlags {
    /// The token was initialised.
    pub initialised: bool,
    /// The user's PIN was set.
    pub pin_set: bool,
    /// A wrong PIN was given since the last right one.
    pub pin_count_low: bool,
    /// One try is left.
    pub pin_final_try: bool,
    /// No try is left.
    pub pin_locked: bool,
    /// The PIN is the maker's, or has expired.
    pub pin_to_be_changed: bool,
    /// Nothing can be stored.
    pub write_protected: bool,
}

/// What a token says of itself. Texts lose their padding, what is not UTF-8 is replaced, and the clock is not read at all:
/// tokens fill these fields in every way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// The label given at initialisation.
    pub label: String,
    /// The maker.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The version of the firmware, `major.minor`.
    pub firmware: String,
    /// The state.
    pub flags: TokenFlags,
    /// Sessions open, where the token says.
    pub sessions: Option<u64>,
    /// Free memory for private objects in bytes, where the token says.
    pub free_private_memory: Option<u64>,
}

/// The key sizes of a mechanism, in its own unit (bits for RSA and curves, bytes for AES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySizes {
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

impl Module {
    /// Loads and initialises the library at `path`, with locks of the operating system.
    ///
    /// # Errors
    /// [`LoadError`]; `CKR_CRYPTOKI_ALREADY_INITIALIZED` where the process has it open already.
    pub fn load(path: &Path) -> Result<Arc<Self>, LoadError> {
        // SAFETY: loading runs the library's constructors; the operator chose the library, and it runs in a process of its own.
        let library = unsafe { Library::new(path) }.map_err(LoadError::Library)?;
        let functions = function_list(&library)?;
        let newer = newer_functions(&library);
        let module = Self { functions, newer, _library: ManuallyDrop::new(library) };
        // From here on a failure must not finalise what this call did not initialise.
        let module = ManuallyDrop::new(module);
        module.initialise().map_err(LoadError::Call)?;
        Ok(Arc::new(ManuallyDrop::into_inner(module)))
    }

    fn initialise(&self) -> Result<()> {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK,
            pReserved: null_mut(),
        };
        // SAFETY: the arguments are a CK_C_INITIALIZE_ARGS that outlives the call.
        unsafe { call!(self, C_Initialize(std::ptr::from_mut(&mut arguments).cast())) }
    }

    pub(crate) const fn functions(&self) -> &CK_FUNCTION_LIST {
        &self.functions
    }

    pub(crate) const fn newer_functions(&self) -> Option<&CK_FUNCTION_LIST_3_2> {
        self.newer.as_ref()
    }

    /// The library's description and version, such as `Implementation of PKCS11 2.6`.
    ///
    /// # Errors
    /// What `C_GetInfo` returned.
    pub fn description(&self) -> Result<String> {
        let mut info = CK_INFO::default();
        // SAFETY: `info` is a CK_INFO to write to.
        unsafe { call!(self, C_GetInfo(&raw mut info)) }?;
        let version = info.libraryVersion;
        Ok(format!("{} {}.{}", text(&info.libraryDescription), version.major, version.minor))
    }

    /// The slots that hold a token.
    ///
    /// # Errors
    /// What `C_GetSlotList` returned.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let slots = list("C_GetSlotList", |pointer, length| {
            // SAFETY: null, or room for `length` slot numbers.
            unsafe { call!(self, C_GetSlotList(CK_TRUE, pointer, length)) }
        })?;
        Ok(slots.into_iter().map(Slot).collect())
    }

    /// What the token in `slot` says of itself.
    ///
    /// # Errors
    /// What `C_GetTokenInfo` returned.
    pub fn token_info(&self, slot: Slot) -> Result<TokenInfo> {
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` is a CK_TOKEN_INFO to write to.
        unsafe { call!(self, C_GetTokenInfo(slot.0, &raw mut info)) }?;
        Ok(TokenInfo::parse(&info))
    }

    /// The mechanisms of the token in `slot`.
    ///
    /// # Errors
    /// What `C_GetMechanismList` returned.
    pub fn mechanisms(&self, slot: Slot) -> Result<Vec<CK_MECHANISM_TYPE>> {
        list("C_GetMechanismList", |pointer, length| {
            // SAFETY: null, or room for `length` mechanism numbers.
            unsafe { call!(self, C_GetMechanismList(slot.0, pointer, length)) }
        })
    }

    /// The key sizes of a mechanism.
    ///
    /// # Errors
    /// What `C_GetMechanismInfo` returned: `CKR_MECHANISM_INVALID` where the token has no such mechanism.
    pub fn key_sizes(&self, slot: Slot, mechanism: CK_MECHANISM_TYPE) -> Result<KeySizes> {
        let mut info = CK_MECHANISM_INFO::default();
        // SAFETY: `info` is a CK_MECHANISM_INFO to write to.
        unsafe { call!(self, C_GetMechanismInfo(slot.0, mechanism, &raw mut info)) }?;
        Ok(KeySizes { min: info.ulMinKeySize, max: info.ulMaxKeySize })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: no session is left, since each owns this module; the argument must be null.
        // An error here has nobody to act on it: the process is about to end.
        let _ = unsafe { call!(self, C_Finalize(null_mut())) };
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.functions.version;
        write!(f, "Module(PKCS#11 {}.{})", version.major, version.minor)
    }
}

impl TokenInfo {
    fn parse(info: &CK_TOKEN_INFO) -> Self {
        let has = |flag| info.flags & flag != 0;
        Self {
            label: text(&info.label),
            manufacturer: text(&info.manufacturerID),
            model: text(&info.model),
            serial: text(&info.serialNumber),
            firmware: format!("{}.{}", info.firmwareVersion.major, info.firmwareVersion.minor),
            flags: TokenFlags {
                initialised: has(CKF_TOKEN_INITIALIZED),
                pin_set: has(CKF_USER_PIN_INITIALIZED),
                pin_count_low: has(CKF_USER_PIN_COUNT_LOW),
                pin_final_try: has(CKF_USER_PIN_FINAL_TRY),
                pin_locked: has(CKF_USER_PIN_LOCKED),
                pin_to_be_changed: has(CKF_USER_PIN_TO_BE_CHANGED),
                write_protected: has(CKF_WRITE_PROTECTED),
            },
            sessions: known(info.ulSessionCount),
            free_private_memory: known(info.ulFreePrivateMemory),
        }
    }
}

/// A count, unless the token says that it does not know.
fn known(value: CK_ULONG) -> Option<u64> {
    (value != CK_UNAVAILABLE_INFORMATION).then_some(value)
}

/// A fixed field as text: padded with spaces by the standard, with zeros by some.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

/// The functions of version 3.2, or of a later one, which has them in the same places.
fn newer_functions(library: &Library) -> Option<CK_FUNCTION_LIST_3_2> {
    type GetInterface =
        unsafe extern "C" fn(*mut CK_UTF8CHAR, *mut CK_VERSION, *mut *mut CK_INTERFACE, CK_FLAGS) -> CK_RV;
    // SAFETY: the standard gives the symbol this type.
    let entry = unsafe { library.get::<GetInterface>(c"C_GetInterface") }.ok()?;
    let (mut version, mut interface) = (CK_VERSION { major: 3, minor: 2 }, null_mut());
    let name = c"PKCS 11".as_ptr().cast_mut().cast();
    // SAFETY: the name ends in a zero and is only read, as is the version; `interface` is a pointer to write to.
    check("C_GetInterface", unsafe { entry(name, &raw mut version, &raw mut interface, 0) }).ok()?;
    // SAFETY: null, or by the standard a CK_INTERFACE that lives as long as the library.
    let list = unsafe { interface.as_ref() }?.pFunctionList.cast_const().cast::<CK_VERSION>();
    // SAFETY: null, or by the standard a function list, which begins with its version.
    let found = unsafe { list.as_ref() }?;
    if (found.major, found.minor) < (3, 2) {
        return None;
    }
    // SAFETY: not null, and by its own version a CK_FUNCTION_LIST_3_2 at least.
    Some(unsafe { *list.cast::<CK_FUNCTION_LIST_3_2>() })
}

fn function_list(library: &Library) -> Result<CK_FUNCTION_LIST, LoadError> {
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    // SAFETY: the standard gives the symbol this type.
    let entry = unsafe { library.get::<GetFunctionList>(c"C_GetFunctionList") }.map_err(|_| LoadError::NotPkcs11)?;
    let mut list = null_mut();
    // SAFETY: `list` is a pointer to write to.
    check("C_GetFunctionList", unsafe { entry(&raw mut list) }).map_err(LoadError::Call)?;
    if list.is_null() {
        return Err(LoadError::NotPkcs11);
    }
    // SAFETY: not null, and by the standard a CK_FUNCTION_LIST that lives as long as the library.
    Ok(unsafe { *list })
}

/// Reads a list by the standard's two calls: how many, then which. It may grow in between.
fn list(function: &'static str, read: impl Fn(*mut CK_ULONG, *mut CK_ULONG) -> Result<()>) -> Result<Vec<CK_ULONG>> {
    for _ in 0..LIST_TRIES {
        let mut length = 0;
        read(null_mut(), &raw mut length)?;
        let mut items: Vec<CK_ULONG> = vec![0; usize::try_from(length).unwrap_or(0)];
        match read(items.as_mut_ptr(), &raw mut length) {
            Ok(()) => {
                items.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(items);
            }
            Err(error) if error.code == CKR_BUFFER_TOO_SMALL => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error { function, code: CKR_BUFFER_TOO_SMALL })
}
