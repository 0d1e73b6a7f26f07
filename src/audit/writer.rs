//! The one thread that touches the files: group commit.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::files::Files;
use super::queue::{Errand, Failure, Group, Queue};
use crate::error::{Error, Kind, Result};

/// The most bytes that a buffer for lines keeps between two groups.
const KEPT: usize = 1 << 20;

/// Starts the writer. It ends after [`Queue::close`], and unlocks the folder before it says so.
pub(super) fn spawn(files: Files, queue: Arc<Queue>) -> Result<()> {
    thread::Builder::new()
        .name("audit-log".into())
        .spawn(move || {
            // Dropped last, so that who waits for the end finds the folder unlocked; and also if the thread panics.
            let ended = Ended(queue);
            run(files, &ended.0);
        })
        .map(drop)
        .map_err(|e| Error::new(Kind::Unavailable, "the audit log cannot start its writer").because(e))
}

struct Ended(Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn run(mut files: Files, queue: &Queue) {
    let mut group = Group::default();
    while queue.take(&mut group) {
        if !group.entries.is_empty() {
            append(&mut files, queue, &mut group);
        }
        for errand in group.errands.drain(..) {
            // Who no longer waits for an answer gets none.
            match errand {
                Errand::Inspect(reply) => drop(reply.send(act(queue, || files.check()))),
                Errand::Keep(signed, reply) => drop(reply.send(act(queue, || {
                    files.keep(&signed)?;
                    queue.publish_head(files.signed(), files.head_bytes());
                    Ok(())
                }))),
                Errand::Prune(pruned, reply) => drop(reply.send(act(queue, || {
                    let gone = files.prune(&pruned);
                    // Also where it is not known whether that is durable: it begins there for all who read.
                    queue.publish_begin(files.begin());
                    gone
                }))),
                Errand::Reopen => reopen(&mut files, queue),
            }
        }
    }
}

/// Writes a group, and answers each of its members.
fn append(files: &mut Files, queue: &Queue, group: &mut Group) {
    let first = files.point().size();
    let result = act(queue, || files.append(group));
    // The queue gets the buffer back: kept, so that it need not grow each time, unless it grew for something rare.
    group.bytes.clear();
    group.bytes.shrink_to(KEPT);
    if result.is_ok() {
        queue.publish(files.point());
    }
    for (index, entry) in (first..).zip(group.entries.drain(..)) {
        drop(entry.reply.send(result.clone().map(|()| index)));
    }
}

/// Opens the files again; where they do not hold all that was acknowledged, everything stays as it is.
fn reopen(files: &mut Files, queue: &Queue) {
    let began = Instant::now();
    match files.reopen() {
        Ok(mended) => queue.reopened(files.extent(), mended),
        Err(error) => {
            tracing::warn!(cause = error.chain(), "the audit log cannot go on yet");
            // What is found missing or changed now says more than the failure that came before.
            if error.kind() == Kind::Tampered {
                queue.condemn(Failure::from(&error));
            }
            queue.not_reopened(began.elapsed());
        }
    }
}

/// Does something unless the log is refused, and remembers a failure that lasts.
fn act<T>(queue: &Queue, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if let Some(failure) = queue.failure() {
        return Err(failure);
    }
    let result = act();
    if let Err(failure) = &result
        && failure.lasting()
    {
        queue.condemn(failure.clone());
    }
    result
}
