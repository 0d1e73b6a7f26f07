//! Named places where a test may end the process as `kill -9` would.
//!
//! [`crash_point!`](crate::crash_point) stands before and after each device, store and file call of a change. In a debug
//! build the process kills itself at the point that `SIGNET_CRASH_POINT` names, the `n`th time it gets there where the value
//! ends in `:n`; a release build has none of it. `tests/it/crash.rs` ends the service at each point, and
//! `tests/crash_points.rs` fails for a call of a change without one.

/// Ends the process here where the environment asks for it. See the module.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::types::crash_here($name);
    };
}

/// Kills the process if the environment names `point`.
#[cfg(debug_assertions)]
#[doc(hidden)]
pub fn crash_here(point: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("SIGNET_CRASH_POINT").ok()?;
        let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    static REACHED: AtomicU32 = AtomicU32::new(0);

    if let Some((name, count)) = &*WANTED
        && name == point
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        let itself = rustix::process::getpid();
        let _ = rustix::process::kill_process(itself, rustix::process::Signal::KILL);
        std::process::abort();
    }
}
