//! The function lists of version 3: a fault that is put on one of their functions happens, on a token that has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    non_snake_case,
    missing_docs,
    reason = "a test may end in a panic, and says what it saw"
)]

#[path = "../../../tests/support/skip.rs"]
mod skip;

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::{env, fs};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_FALSE, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_FUNCTION_LIST_3_2, CK_GCM_MESSAGE_PARAMS,
    CK_INTERFACE, CK_MECHANISM, CK_RV, CK_TRUE, CK_ULONG, CK_VERSION, CKA_ENCRYPT, CKA_TOKEN, CKA_VALUE_LEN,
    CKF_RW_SESSION, CKF_SERIAL_SESSION, CKG_NO_GENERATE, CKM_AES_GCM, CKM_AES_KEY_GEN, CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY, CKR_FUNCTION_FAILED, CKR_OK, CKU_SO, CKU_USER,
};
use libloading::Library;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &[u8] = b"20398457";
/// Tells the copy of this program where everything is.
const FOLDER: &str = "SIGNET_TEST_INTERFACES";

type Interfaces = unsafe extern "C" fn(*mut CK_INTERFACE, *mut CK_ULONG) -> CK_RV;
type Interface = unsafe extern "C" fn(*mut u8, *mut CK_VERSION, *mut *mut CK_INTERFACE, CK_ULONG) -> CK_RV;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The library that cargo builds beside the tests.
fn ours() -> &'static Library {
    let folder = env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = "libsignet_fault_module.so";
    let path = [folder.join(name), folder.join("..").join(name)].into_iter().find(|path| path.exists()).unwrap();
    open(&path)
}

fn open(path: &Path) -> &'static Library {
    // SAFETY: a PKCS#11 library.
    Box::leak(Box::new(unsafe { Library::new(path) }.unwrap()))
}

/// Runs a test in a process of its own, with a folder and the environment that the module is told by.
fn in_own_process(name: &str, real: &Path, test: impl FnOnce(&Path)) {
    if let Some(folder) = env::var_os(FOLDER) {
        return test(Path::new(&folder));
    }
    let folder = folder_of(name);
    let copy = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(FOLDER, &folder)
        .env("SIGNET_FAULT_REAL", real)
        .env("SIGNET_FAULT_PLAN", folder.join("plan"))
        .env("KRYOPTIC_CONF", folder.join("token.conf"))
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&copy.stdout).into_owned();
    let right = copy.status.success() && out.contains("1 passed");
    fs::remove_dir_all(&folder).unwrap();
    assert!(right, "{}\n{out}\n{}", copy.status, String::from_utf8_lossy(&copy.stderr));
    print!("{out}");
}

fn folder_of(test: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("signet-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn plan(folder: &Path, rules: &str) {
    fs::write(folder.join("plan.new"), rules).unwrap();
    fs::rename(folder.join("plan.new"), folder.join("plan")).unwrap();
}

/// What a library says to `C_GetInterfaceList`.
fn interfaces(library: &Library) -> Vec<CK_INTERFACE> {
    // SAFETY: the standard gives the symbol this type; first null for the number, then room for so many.
    unsafe {
        let list = library.get::<Interfaces>(c"C_GetInterfaceList").unwrap();
        let mut count = 0;
        assert_eq!(list(null_mut(), &raw mut count), CKR_OK);
        let mut all = vec![CK_INTERFACE::default(); count as usize];
        assert_eq!(list(all.as_mut_ptr(), &raw mut count), CKR_OK);
        all
    }
}

fn interface(library: &Library, version: Option<(u8, u8)>) -> Result<CK_INTERFACE, CK_RV> {
    let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
    let wanted = version.as_mut().map_or(null_mut(), std::ptr::from_mut);
    let mut found = null_mut();
    let name = c"PKCS 11".as_ptr().cast_mut().cast();
    // SAFETY: the standard gives the symbol this type; the arguments live as long as the call.
    match unsafe { library.get::<Interface>(c"C_GetInterface").unwrap()(name, wanted, &raw mut found, 0) } {
        // SAFETY: after a success an interface.
        CKR_OK => Ok(unsafe { *found }),
        code => Err(code),
    }
}

fn name(interface: &CK_INTERFACE) -> &CStr {
    // SAFETY: by the standard a text that ends with a zero.
    unsafe { CStr::from_ptr(interface.pInterfaceName.cast()) }
}

fn version(interface: &CK_INTERFACE) -> (u8, u8) {
    // SAFETY: by the standard what any list of functions begins with.
    let CK_VERSION { major, minor } = unsafe { *interface.pFunctionList.cast() };
    (major, minor)
}

/// The functions of a list as numbers, zero for one that is not there.
fn functions(interface: &CK_INTERFACE) -> Vec<usize> {
    let size = match version(interface) {
        (2, _) => size_of::<CK_FUNCTION_LIST>(),
        (3, 0 | 1) => size_of::<CK_FUNCTION_LIST_3_0>(),
        _ => size_of::<CK_FUNCTION_LIST_3_2>(),
    };
    // SAFETY: the list has this size by its version, and is a version of one word and pointers.
    let words =
        unsafe { std::slice::from_raw_parts(interface.pFunctionList.cast::<usize>(), size / size_of::<usize>()) };
    words[1..].to_vec()
}

#[test]
fn a_module_that_knows_of_no_interfaces_is_offered_as_one() {
    if !Path::new(SOFTHSM).exists() {
        return skip::skipped("no softhsm2");
    }
    in_own_process("a_module_that_knows_of_no_interfaces_is_offered_as_one", Path::new(SOFTHSM), |folder| {
        let library = ours();
        let all = interfaces(library);
        assert_eq!(all.iter().map(|one| (name(one), version(one))).collect::<Vec<_>>(), [(c"PKCS 11", (2, 40))]);
        assert_eq!(interface(library, None).unwrap().pFunctionList, all[0].pFunctionList);
        assert_eq!(interface(library, Some((2, 40))).unwrap().pFunctionList, all[0].pFunctionList);
        assert_eq!(interface(library, Some((3, 0))).err(), Some(CKR_FUNCTION_FAILED));
        plan(folder, "C_GetInterface count=1 pre=0x30");
        assert_eq!(interface(library, None).err(), Some(CKR_DEVICE_ERROR));
        assert!(interface(library, None).is_ok());
    });
}

#[test]
fn a_fault_is_put_on_a_function_of_version_3() {
    let real = root().join("target/kryoptic/release/libkryoptic.so");
    if !real.exists() {
        return skip::skipped("no Kryoptic in target/kryoptic; tests/kryoptic/install builds it");
    }
    in_own_process("a_fault_is_put_on_a_function_of_version_3", &real, |folder| {
        let database = folder.join("token.sql");
        fs::write(
            folder.join("token.conf"),
            format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {database:?}\n"),
        )
        .unwrap();
        let library = ours();
        // 1. The same interfaces, each with the same functions, and none of them the real one.
        let (all, theirs) = (interfaces(library), interfaces(open(&real)));
        assert_eq!(all.len(), theirs.len());
        let mut replaced = 0;
        for (ours, theirs) in all.iter().zip(&theirs) {
            assert_eq!((name(ours), version(ours), ours.flags), (name(theirs), version(theirs), theirs.flags));
            if name(ours) == c"PKCS 11" {
                for (ours, theirs) in functions(ours).into_iter().zip(functions(theirs)) {
                    assert_eq!(ours == 0, theirs == 0);
                    assert!(ours == 0 || ours != theirs);
                    replaced += usize::from(ours != 0);
                }
            }
        }
        let versions: Vec<_> = all.iter().filter(|one| name(one) == c"PKCS 11").map(version).collect();
        println!("{replaced} functions in the lists of {versions:?}");
        assert!([(2, 40), (3, 0)].iter().all(|wanted| versions.contains(wanted)), "{versions:?}");
        // 2. What a version-3 function does, does happen; and a fault that is put on it happens too.
        for wanted in versions.into_iter().filter(|(major, _)| *major == 3) {
            let list = interface(library, Some(wanted)).unwrap().pFunctionList;
            plan(folder, "");
            // SAFETY: a list of version 3.0 or later begins with the functions of 3.0.
            let v3 = unsafe { &*list.cast::<CK_FUNCTION_LIST_3_0>() };
            Token::new(v3).speaks(folder);
        }
    });
}

/// A token that is made and used by a list of version 3 alone.
struct Token<'l> {
    v3: &'l CK_FUNCTION_LIST_3_0,
    session: CK_ULONG,
    key: CK_ULONG,
}

macro_rules! ok {
    ($v3:expr, $name:ident($($argument:expr),*)) => {
        // SAFETY: the arguments live as long as the call.
        assert_eq!(unsafe { $v3.$name.unwrap()($($argument),*) }, CKR_OK, stringify!($name))
    };
}

impl<'l> Token<'l> {
    fn new(v3: &'l CK_FUNCTION_LIST_3_0) -> Self {
        let (mut pin, mut label) = (PIN.to_vec(), [b' '; 32]);
        let (pin, size, label) = (pin.as_mut_ptr(), pin.len() as CK_ULONG, label.as_mut_ptr());
        ok!(v3, C_Initialize(null_mut()));
        ok!(v3, C_InitToken(1, pin, size, label));
        let (mut session, mut key) = (0, 0);
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        ok!(v3, C_OpenSession(1, flags, null_mut(), None, &raw mut session));
        ok!(v3, C_Login(session, CKU_SO, pin, size));
        ok!(v3, C_InitPIN(session, pin, size));
        ok!(v3, C_Logout(session));
        ok!(v3, C_Login(session, CKU_USER, pin, size));
        let (mut yes, mut no, mut length): (u8, u8, CK_ULONG) = (CK_TRUE, CK_FALSE, 32);
        let mut template =
            [attribute(CKA_TOKEN, &mut no), attribute(CKA_ENCRYPT, &mut yes), attribute(CKA_VALUE_LEN, &mut length)];
        let mut mechanism = CK_MECHANISM { mechanism: CKM_AES_KEY_GEN, pParameter: null_mut(), ulParameterLen: 0 };
        let count = template.len() as CK_ULONG;
        ok!(v3, C_GenerateKey(session, &raw mut mechanism, template.as_mut_ptr(), count, &raw mut key));
        Self { v3, session, key }
    }

    /// Encrypts by the calls that came with version 3.0.
    fn encrypt(&self) -> Result<Vec<u8>, CK_RV> {
        let (mut iv, mut tag) = ([7_u8; 12], [0_u8; 16]);
        let mut parameter = CK_GCM_MESSAGE_PARAMS {
            pIv: iv.as_mut_ptr(),
            ulIvLen: 12,
            ulIvFixedBits: 0,
            ivGenerator: CKG_NO_GENERATE,
            pTag: tag.as_mut_ptr(),
            ulTagBits: 128,
        };
        let size = size_of::<CK_GCM_MESSAGE_PARAMS>() as CK_ULONG;
        let parameter: *mut c_void = (&raw mut parameter).cast();
        let mut mechanism = CK_MECHANISM { mechanism: CKM_AES_GCM, pParameter: parameter, ulParameterLen: size };
        let (mut data, mut out, mut length) = ([0_u8; 32], [0_u8; 64], 64);
        ok!(self.v3, C_MessageEncryptInit(self.session, &raw mut mechanism, self.key));
        // SAFETY: the arguments live as long as the call.
        let code = unsafe {
            let encrypt = self.v3.C_EncryptMessage.unwrap();
            let (data, out) = (data.as_mut_ptr(), out.as_mut_ptr());
            encrypt(self.session, parameter, size, null_mut(), 0, data, 32, out, &raw mut length)
        };
        ok!(self.v3, C_MessageEncryptFinal(self.session));
        if code == CKR_OK { Ok(out[..length as usize].to_vec()) } else { Err(code) }
    }

    fn speaks(self, folder: &Path) {
        let right = self.encrypt().unwrap();
        assert_eq!((right.len(), self.encrypt().as_ref()), (32, Ok(&right)));
        plan(
            folder,
            "C_EncryptMessage count=1 flip\nC_EncryptMessage count=2 short\nC_EncryptMessage count=3 pre=0x30\n",
        );
        let flipped = self.encrypt().unwrap();
        assert_eq!((flipped[0] ^ 1, &flipped[1..]), (right[0], &right[1..]));
        assert_eq!(self.encrypt().unwrap(), right[..31]);
        assert_eq!(self.encrypt().unwrap_err(), CKR_DEVICE_ERROR);
        assert_eq!(self.encrypt().as_ref(), Ok(&right));
        // The session is ended by the token; and a call that never reaches it.
        plan(folder, "C_SessionCancel pre=0x31\n");
        // SAFETY: two numbers.
        assert_eq!(unsafe { self.v3.C_SessionCancel.unwrap()(self.session, 0) }, CKR_DEVICE_MEMORY);
        plan(folder, "");
        ok!(self.v3, C_Finalize(null_mut()));
        println!("{:?}: faults on C_EncryptMessage and C_SessionCancel happened", self.v3.version);
    }
}

fn attribute<T>(kind: CK_ULONG, value: &mut T) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE { type_: kind, pValue: std::ptr::from_mut(value).cast(), ulValueLen: size_of::<T>() as CK_ULONG }
}
