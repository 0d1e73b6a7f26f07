#![deny(unsafe_op_in_unsafe_fn)]
//! A PKCS#11 module for tests: it forwards each call to a real module, and on the way fails, delays or falsifies the calls
//! that a plan names. It shows what a service makes of a device on a bad day, with a real token behind it.
//!
//! It has every function of the standard: the list of version 2.40, and by `C_GetInterface` and `C_GetInterfaceList` those of 3.0 to 3.2,
//! as far as the real module has them. A fault is put on a function, whichever list it is called by.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SIGNET_FAULT_REAL` | the real module; absent: `/usr/lib/softhsm/libsofthsm2.so` |
//! | `SIGNET_FAULT_PARAMETERS` | what the real module is told at its start, as NSS wants it; absent: nothing |
//! | `SIGNET_FAULT_PLAN` | the plan, a text file, read again whenever it changes; absent, or no such file: no faults |
//! | `SIGNET_FAULT_TRACE` | a file to which a line per call is appended, such as `C_Sign 0x00000000`; absent: no trace |
//!
//! # The plan
//!
//! One rule per line: a function, or `*` for any, and then words. Empty lines and lines that start with `#` mean nothing.
//!
//! ```text
//! C_Sign after=3 count=1 pre=0x30     # the fourth signature fails without reaching the token (CKR_DEVICE_ERROR)
//! C_GenerateKeyPair post=0x30         # each key pair is made, yet reported as failed
//! C_Sign delay_ms=300                 # slow
//! C_Login pre=0xA4                    # CKR_PIN_LOCKED
//! C_FindObjects empty                 # the token shows nothing, and says CKR_OK
//! C_Sign every=50 replay              # now and then the signature of the call before
//! C_SignInit once close_sessions      # the token has ended all sessions, and its login with them
//! C_Sign once stuck=0x30              # from here on nothing works before C_Finalize
//! C_GenerateKeyPair without=0x170     # the token ignores CKA_MODIFIABLE
//! * after=17 count=1 pre=0x05         # the eighteenth call, whichever it is
//! ```
//!
//! | word | what happens |
//! | --- | --- |
//! | `after=N` | the rule sleeps for the first N calls that its function gets since the plan was read; absent: 0 |
//! | `every=N` | after that it holds for each Nth call, the first of them included; absent: 1 |
//! | `count=N` | it holds so many times; absent: for ever |
//! | `once` | it holds for one call of all processes together, so that the one that replaces a dead one lives; the mark is a file beside the plan |
//! | `delay_ms=N` | the call waits first |
//! | `hang` | the call never returns |
//! | `abort` | the process dies before the real call |
//! | `abort_after` | the process dies after the real call |
//! | `pre=CODE` | the real call is not made, the code is returned |
//! | `post=CODE` | the real call is made, the code is returned instead of its own |
//! | `flip` | the lowest bit of the first byte of the output is flipped, where the real call succeeded |
//! | `short` | the output lacks its last byte, where the real call succeeded |
//! | `empty` | the output has length zero, where the real call succeeded |
//! | `replay` | the output is that of the last call of the same function in this process, where the real call succeeded and it is no longer than the real one |
//! | `close_sessions` | the real token ends all sessions of the process before the real call |
//! | `stuck=CODE` | this call and all after it in this process return the code, but for `C_Finalize`, which mends it |
//! | `without=TYPE` | the templates lack the attribute of this number, as if the token ignored it |
//! | `flags=BITS` | the token shows these flags too, such as `0x40000` for a locked PIN; for `C_GetTokenInfo` |
//!
//! Of several rules that hold for one call, the first is taken. Numbers are decimal, or hexadecimal with `0x`. `flip` works on
//! all bytes that come out, and the first value of `C_GetAttributeValue`; `short`, `empty` and `replay` on those whose length the token chooses,
//! and `empty` on the lists of slots, mechanisms and found objects too. A line that is not understood, or names a function or word that does not
//! work, is printed and ends the process: a fault that silently does not happen makes a test pass that should not.
//!
//! The trace holds names and codes, never data. It is written with one `write` per line in append mode, so several processes
//! may share one file.

mod forward;
mod interfaces;
mod parameters;
mod plan;
mod real;
mod spoil;
mod trace;

pub use interfaces::{C_GetFunctionList, C_GetInterface, C_GetInterfaceList};

/// Says something to the one who runs the test.
fn report(text: &str) {
    use std::io::Write;
    // Nobody is left to tell where standard error does not work.
    let _ = writeln!(std::io::stderr(), "signet_fault_module: {text}");
}
