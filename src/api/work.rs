//! What all protocols share of a request: its id, and that its work is not cut in two.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName};
use tokio::sync::mpsc;

use crate::error::Error;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// The longest id that a client may give its request.
pub const MAX_REQUEST_ID: usize = 64;

/// Held by a router and by all of its operations.
pub(super) type Alive = mpsc::Sender<()>;

/// The operations under way.
#[derive(Debug)]
pub struct Running(mpsc::Receiver<()>);

impl Running {
    /// Waits until the router is dropped and every operation has ended, also those whose client has gone.
    pub async fn finished(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// What operations hold, and what waits for it to be gone.
pub(super) fn running() -> (Alive, Running) {
    let (alive, running) = mpsc::channel(1);
    (alive, Running(running))
}

/// Runs `work` to its end, whatever becomes of the connection. A panic costs one answer.
pub(super) async fn unbroken<T, E, Work>(alive: Alive, work: Work) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    Work: Future<Output = Result<T, E>> + Send + 'static,
{
    let work = async move {
        let outcome = work.await;
        drop(alive);
        outcome
    };
    // Nothing of the work is looked at after a panic.
    let outcome = Whole(Some(Box::pin(AssertUnwindSafe(work).catch_unwind()))).await;
    // The panic's own words are left out: they may quote what was being worked on.
    outcome.map_err(|_| E::from(Error::internal("the handler panicked"))).flatten()
}

/// Work that cannot be stopped half-way: where nobody waits for it any more, it goes on in a task of its own. It does not
/// begin in one, because that costs each request two trips between threads, for the sake of the few whose client hangs up.
struct Whole<Work: Future<Output: Send> + Send + 'static>(Option<Pin<Box<Work>>>);

impl<Work: Future<Output: Send> + Send + 'static> Future for Whole<Work> {
    type Output = Work::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Work::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let outcome = ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(outcome)
    }
}

impl<Work: Future<Output: Send> + Send + 'static> Drop for Whole<Work> {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(rest), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

/// The id that a client gave, where it is one; a random one otherwise.
pub(super) fn request_id(headers: &HeaderMap) -> Arc<str> {
    let good = |text: &&str| {
        (1..=MAX_REQUEST_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if let Some(id) = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(good) {
        return id.into();
    }
    let mut bytes = [0; 8];
    // An id that is not unique is no reason to fail.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Result};

    #[tokio::test]
    async fn a_panic_costs_one_answer() {
        let (alive, running) = running();
        let outcome: Result<()> = unbroken(alive, async { panic!("sgt_secret") }).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(!error.chain().contains("sgt_"));
        running.finished().await;
    }

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let ((alive, running), (go_on, wait)) = (running(), tokio::sync::oneshot::channel::<()>());
        let (done, result) = tokio::sync::oneshot::channel();
        let work = async {
            wait.await.unwrap();
            done.send("done").unwrap();
            Result::<()>::Ok(())
        };
        // Asked once, and given up.
        assert!(unbroken(alive, work).now_or_never().is_none());
        go_on.send(()).unwrap();
        assert_eq!(result.await.unwrap(), "done");
        running.finished().await;
    }

    #[test]
    fn a_request_keeps_its_own_id_where_it_is_one() {
        let headers = |id: &str| HeaderMap::from_iter([(REQUEST_ID, id.parse().unwrap())]);
        assert_eq!(&*request_id(&headers("Build-7.a_b")), "Build-7.a_b");
        let long = "a".repeat(65);
        for bad in ["", "a b", "a/b", "\u{e9}", &long] {
            let id = request_id(&headers(bad));
            assert_eq!(id.len(), 16, "{bad}");
            assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}
