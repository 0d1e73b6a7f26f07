//! Wrapping: a ciphertext names the key version that opens it.

pub mod format;
