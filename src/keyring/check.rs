//! Whether a secret key is still itself.
//!
//! A wrap or a MAC cannot be checked by a public key. So each secret version keeps the HMAC (or the encryption) of a fixed text
//! from its birth, and a result is released only after the device has given that again *after* it gave the result. One check
//! serves all that wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::device::{KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::same;

pub(super) use crate::device::{check_back as back, check_input as input, check_text as text};

/// The checks of one version.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Waiting>);

/// Protected by the lock of [`Gate`], which is held for a few instructions.
#[derive(Debug, Default)]
struct Waiting {
    running: bool,
    next: Vec<oneshot::Sender<Result<(), Failed>>>,
}

/// Why a check failed, for each of those who waited for it.
#[derive(Clone, Debug)]
enum Failed {
    Device(crate::device::Fault),
    Different,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Device(fault) => fault.into(),
            Failed::Different => Self::new(Kind::Tampered, "the key in the device gives wrong results")
                .hint("its check value does not match: look at the device, and rotate the key once it is sound"),
        }
    }
}

impl Gate {
    /// Waits for a check that begins from now on.
    pub(super) async fn check(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        key: &Arc<KeyRef>,
        expected: &Arc<[u8]>,
    ) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.lock();
            waiting.next.push(sender);
            !std::mem::replace(&mut waiting.running, true)
        };
        if first {
            // A task of its own: whoever came first must neither wait for those who come later nor take them down.
            tokio::spawn(run(self.clone(), worker.clone(), key.clone(), expected.clone()));
        }
        receiver.await.map_err(|_| Error::internal("a check was dropped"))?.map_err(Error::from)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks until nobody waits.
async fn run(gate: Arc<Gate>, worker: Arc<Worker>, key: Arc<KeyRef>, expected: Arc<[u8]>) {
    loop {
        let served = {
            let mut waiting = gate.lock();
            if waiting.next.is_empty() {
                waiting.running = false;
                return;
            }
            std::mem::take(&mut waiting.next)
        };
        let outcome = match worker.use_key(&key, input(&key)).await {
            Ok(check) if same(check.expose(), &expected) => Ok(()),
            Ok(_) => Err(Failed::Different),
            Err(fault) => Err(Failed::Device(fault)),
        };
        for waiting in served {
            let _ = waiting.send(outcome.clone());
        }
    }
}
