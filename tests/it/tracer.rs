//! A service that is killed before the n-th system call that leaves something behind: a write, a sync, a message, a rename.
//!
//! The calls of all its threads and device workers are counted together, from the moment that a test says. So a sweep over n
//! dies at every place where the outside can tell a difference, whether or not somebody thought of naming it.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process::{Installation, eventually};
use crate::server::PROGRAM;

/// What leaves something behind. Opening, where it creates, is followed by one of them or leaves an empty file, which the next of
/// them finds as well.
const CALLS: &[(i64, &str)] = &[
    (libc::SYS_write, "write"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
];

/// The calls without a file, whose first argument is a path.
const BY_PATH: &[&str] =
    &["renameat", "renameat2", "unlinkat", "linkat", "mkdirat", "rename", "unlink", "link", "mkdir", "rmdir"];

/// Where a service died.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// Of the service, or of a device worker.
    worker: bool,
    name: &'static str,
    /// The file, without folder and numbers; or what else the descriptor is.
    file: String,
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", if self.worker { "worker" } else { "service" }, self.name, self.file)
    }
}

/// What tracer and test tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// How many calls are left until the death; 0 where none is wanted.
    left: AtomicU64,
    /// How many calls were counted since it was last armed.
    seen: AtomicU64,
    said: Mutex<String>,
    died: Mutex<Option<Call>>,
    ended: Mutex<bool>,
}

/// A service under a tracer. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Traced {
    shared: Arc<Shared>,
    pid: Pid,
    tracer: Option<JoinHandle<()>>,
}

impl Traced {
    /// Starts a service that dies before the `death`-th call from its first instruction on; 0 is never.
    pub(crate) async fn start(t: &Installation, death: u64) -> Self {
        let shared = Arc::new(Shared::default());
        shared.left.store(death, Ordering::SeqCst);
        let config = t.config();
        let (to_us, from_tracer) = tokio::sync::oneshot::channel();
        let theirs = shared.clone();
        // A process is traced, and waited for, by one and the same thread.
        let tracer = std::thread::spawn(move || {
            let mut command = Command::new("sh");
            // It stops itself, so that it is traced before it becomes the service.
            command.args(["-c", r#"kill -STOP $$; exec "$0" "$@""#, PROGRAM, "serve", "--config"]).arg(config);
            command.env_remove("SIGNET_CRASH_POINT").env_remove("SIGNET_CONFIG").env("RUST_LOG", "info");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let said = child.stderr.take().unwrap();
            let listening = theirs.clone();
            let listener = std::thread::spawn(move || {
                for line in BufReader::new(said).lines().map_while(Result::ok) {
                    let mut said = listening.said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push_str(&line);
                    said.push('\n');
                }
            });
            let pid = Pid::from_raw(child.id().cast_signed());
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_EXITKILL;
            ptrace::seize(pid, options).unwrap();
            to_us.send(pid).unwrap();
            trace(&theirs, pid);
            // Its end was waited for already; this closes the books of the library.
            let _ = child.wait();
            listener.join().unwrap();
            *theirs.ended.lock().unwrap() = true;
        });
        Self { shared, pid: from_tracer.await.unwrap(), tracer: Some(tracer) }
    }

    /// From now on: it dies before the `death`-th call.
    pub(crate) fn arm(&self, death: u64) {
        self.shared.seen.store(0, Ordering::SeqCst);
        self.shared.left.store(death, Ordering::SeqCst);
    }

    /// How many calls there were since then.
    pub(crate) fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        self.shared.said.lock().unwrap().clone()
    }

    fn ended(&self) -> bool {
        *self.shared.ended.lock().unwrap()
    }

    /// Waits until it serves; otherwise it has died, and all is over with it.
    pub(crate) async fn serves(&self) -> Result<(), Option<Call>> {
        eventually("the traced service serves or ends", async || {
            // In this order: what it said last is there once it has ended.
            let ended = self.ended();
            if self.said().contains("signet serves on") {
                return Some(Ok(()));
            }
            ended.then(|| Err(self.shared.died.lock().unwrap().clone()))
        })
        .await
    }

    /// The call that it died before, once it has; `None` if it lives on for `patience`.
    pub(crate) async fn died(&self, patience: Duration) -> Option<Call> {
        let begin = std::time::Instant::now();
        while !self.ended() {
            if begin.elapsed() > patience && self.shared.died.lock().unwrap().is_none() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.died.lock().unwrap().clone()
    }

    /// Kills it, as `kill -9` does, and waits for the end of all of it.
    pub(crate) async fn kill(self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        eventually("the end of a killed service", async || self.ended().then_some(())).await;
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

/// Follows all threads of the process and of those that it starts, until none is left.
fn trace(shared: &Shared, first: Pid) {
    let mut processes = BTreeSet::from([first]);
    // Only what this thread traces: every other child is somebody else's to wait for.
    let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let status = match waitpid(None, Some(own)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        // Whoever is gone in the meantime needs no going on.
        let _ = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if let Some(call) = counted(thread, first) {
                    shared.seen.fetch_add(1, Ordering::SeqCst);
                    let left = shared.left.load(Ordering::SeqCst);
                    shared.left.store(left.saturating_sub(1), Ordering::SeqCst);
                    if left == 1 {
                        *shared.died.lock().unwrap() = Some(call);
                        // It and all its workers, as when the power is cut.
                        for process in &processes {
                            let _ = kill(*process, Signal::SIGKILL);
                        }
                        continue;
                    }
                }
                ptrace::syscall(thread, None)
            }
            WaitStatus::PtraceEvent(thread, signal, event) => {
                if [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK].contains(&event)
                    && let Ok(child) = ptrace::getevent(thread)
                {
                    processes.insert(Pid::from_raw(i32::try_from(child).unwrap()));
                }
                if signal == Signal::SIGSTOP {
                    let _ = kill(thread, Signal::SIGCONT);
                }
                ptrace::syscall(thread, None)
            }
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => ptrace::syscall(thread, None),
            WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, signal),
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _) => {
                processes.remove(&thread);
                Ok(())
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => Ok(()),
        };
    }
}

/// Which call a thread is about to make, where it is one that counts.
fn counted(thread: Pid, first: Pid) -> Option<Call> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    let (number, argument) = entry(thread)?;
    let (_, name) = CALLS.iter().find(|(known, _)| *known == number)?;
    let file = match BY_PATH.contains(name) {
        true => String::new(),
        false => match std::fs::read_link(format!("/proc/{thread}/fd/{argument}")) {
            // How threads wake each other, and what goes to us.
            Ok(file) if argument < 3 || file.to_string_lossy().starts_with("anon_inode") => return None,
            Ok(file) => plain(&file.file_name().unwrap_or(file.as_os_str()).to_string_lossy()),
            // Who may not look counts it.
            Err(_) => "?".to_owned(),
        },
    };
    Some(Call { worker: process(thread) != Some(first), name, file })
}

/// The process of a thread.
fn process(thread: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Some(Pid::from_raw(line.trim().parse().ok()?))
}

/// A name without its numbers, so that a million sockets are one.
fn plain(name: &str) -> String {
    let name = name.split(':').next().unwrap_or_default();
    match name.len() > 20 {
        true => "...".to_owned() + name.rsplit('.').next().unwrap_or_default(),
        false => name.to_owned(),
    }
}

/// Number and first argument of the call that a thread is about to make.
#[cfg(target_arch = "x86_64")]
fn entry(thread: Pid) -> Option<(i64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    Some((registers.orig_rax.cast_signed(), registers.rdi))
}

/// Number and first argument of the call that a thread is about to make.
#[cfg(target_arch = "aarch64")]
fn entry(thread: Pid) -> Option<(i64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    Some((registers.regs[8].cast_signed(), registers.regs[0]))
}
