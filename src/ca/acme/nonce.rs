//! Nonces: each is taken once, none is remembered before it is used, and no number of them fills the memory.
//!
//! ```text
//! nonce = BASE64URL(number (8) || HMAC-SHA-256(key of this process, number) (first 16))
//! ```
//!
//! The numbers are counted up. One bit for each of the last [`WINDOW`] numbers says whether it was used, so memory is the same
//! whatever strangers ask for: a mebibyte. A nonce ages only when eight million others were given out after it.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::{ProblemKind, refuse};
use super::random;
use crate::error::Result;
use crate::types::same;

/// How many nonces can be outstanding.
const WINDOW: u64 = 1 << 23;
const CODE: usize = 16;

/// The nonces of one process: those of another, or of the time before a restart, are refused.
pub struct Nonces {
    key: hmac::Key,
    window: u64,
    /// Protects the count and the bits, which must fit each other; held for one number.
    state: Mutex<State>,
}

struct State {
    next: u64,
    used: Vec<u64>,
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}

impl Nonces {
    /// A fresh key, and nothing used.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] where the generator fails.
    pub fn new() -> Result<Self> {
        Self::with_window(WINDOW)
    }

    /// `window` is a multiple of 64.
    fn with_window(window: u64) -> Result<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?);
        let words = usize::try_from(window / 64).unwrap_or(0);
        Ok(Self { key, window, state: Mutex::new(State { next: 0, used: vec![0; words] }) })
    }

    /// A nonce that was never given out.
    #[must_use]
    pub fn draw(&self) -> String {
        let number = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let number = state.next;
            state.next += 1;
            // The bit was that of a number that is too old now.
            let (word, bit) = self.place(number);
            if let Some(word) = state.used.get_mut(word) {
                *word &= !bit;
            }
            number
        };
        URL_SAFE_NO_PAD.encode([number.to_be_bytes().as_slice(), &self.code(number)].concat())
    }

    /// Takes a nonce: it is gone, whatever becomes of its request.
    ///
    /// # Errors
    /// `badNonce` for one that was not given out by this process, is too old, or was used.
    pub fn take(&self, nonce: &str) -> Result<()> {
        let taken = self.read(nonce).is_some_and(|number| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let current = number < state.next && state.next - number <= self.window;
            let (word, bit) = self.place(number);
            match state.used.get_mut(word) {
                Some(word) if current && *word & bit == 0 => {
                    *word |= bit;
                    true
                }
                Some(_) | None => false,
            }
        });
        if taken {
            Ok(())
        } else {
            Err(refuse(ProblemKind::BadNonce, "the nonce is unknown here, or used up: take a new one"))
        }
    }

    fn read(&self, nonce: &str) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok().filter(|bytes| bytes.len() == 8 + CODE)?;
        let (number, code) = bytes.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        same(code, &self.code(number)).then_some(number)
    }

    fn code(&self, number: u64) -> [u8; CODE] {
        let mut code = [0; CODE];
        for (to, from) in code.iter_mut().zip(hmac::sign(&self.key, &number.to_be_bytes()).as_ref()) {
            *to = *from;
        }
        code
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let at = number % self.window;
        (usize::try_from(at / 64).unwrap_or(usize::MAX), 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_is_taken_once_by_whoever_gave_it_out() {
        let (nonces, others) = (Nonces::with_window(64).unwrap(), Nonces::with_window(64).unwrap());
        let first = nonces.draw();
        let second = nonces.draw();
        assert!(others.take(&first).is_err());
        for _ in 0..62 {
            let _ = nonces.draw();
        }
        nonces.take(&first).unwrap();
        assert_eq!(ProblemKind::of(&nonces.take(&first).unwrap_err()), ProblemKind::BadNonce);
        // One more, and the second is the oldest that still counts; another one, and it is too old.
        let _ = nonces.draw();
        nonces.take(&second).unwrap();
        let third = nonces.draw();
        for _ in 0..64 {
            let _ = nonces.draw();
        }
        assert!(nonces.take(&third).is_err());
        for bad in ["", "x", "AAAA", &"A".repeat(32), &format!("{first}A")] {
            assert!(nonces.take(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_million_are_different_and_cost_no_memory() {
        let nonces = Nonces::new().unwrap();
        let seen: HashSet<_> = (0..100_000).map(|_| nonces.draw()).collect();
        assert_eq!(seen.len(), 100_000);
        let early = nonces.draw();
        for _ in 0..1_000_000 {
            let _ = nonces.draw();
        }
        nonces.take(&early).unwrap();
        let words = nonces.state.lock().unwrap().used.capacity();
        assert_eq!(words * 8, 1 << 20);
    }

    #[test]
    fn of_many_who_take_one_at_once_one_gets_it() {
        let nonces = Nonces::new().unwrap();
        for _ in 0..200 {
            let nonce = nonces.draw();
            let won: usize = std::thread::scope(|scope| {
                let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(nonces.take(&nonce).is_ok()))).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).sum()
            });
            assert_eq!(won, 1);
        }
    }
}
