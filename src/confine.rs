//! What a process gives up at its start, so that less is lost when it goes wrong.
//!
//! | process | gives up |
//! | --- | --- |
//! | every one | being read by other processes of its user, core files with it; and freed memory is zeroed (`main.rs`) |
//! | the service | besides: rights by set-user-id programs |
//! | `device-worker`, which holds the PIN and a vendor's library | besides: starting programs, looking into other processes, changing the system, and the network where its device needs none |
//!
//! The system-call filter names what is refused and allows the rest: a vendor's library calls what it likes, and a list of what it
//! may would break with its next release. What is refused fails with `EPERM`, which a library reports instead of dying of it.

use std::collections::BTreeMap;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Error, Result};

/// Starting programs.
const PROGRAMS: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];
/// Looking into other processes, or lending them our memory.
const OTHERS: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
];
/// Changing the system, or what this process sees of it.
const SYSTEM: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];
#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &[i64] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_MACHINE: &[i64] = &[];
/// Calls of the x32 interface have this bit beside the number of the call.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Closes this process to the other processes of its user: no debugger, no reading of its memory, no core file.
///
/// # Errors
/// [`crate::error::Kind::Internal`] where the system refuses, which no Linux does.
pub fn close() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| Error::internal(format!("closing this process to others: {e}")))
}

/// Gives up, for good, to start programs with more rights than this process has.
///
/// # Errors
/// As [`close`].
pub fn keep_rights() -> Result<()> {
    set_no_new_privs(true).map_err(|e| Error::internal(format!("giving up more rights: {e}")))
}

/// Gives up what a device worker never needs, for this thread and those that it starts: call it before there are others.
/// `network` is whether the device is reached over the network.
///
/// # Errors
/// [`crate::error::Kind::Internal`] where the system has no filters for system calls.
pub fn confine_worker(network: bool) -> Result<()> {
    let refused = |e: &dyn std::fmt::Display| {
        Error::internal(format!("the filter of system calls: {e}"))
            .hint("the kernel must have CONFIG_SECCOMP_FILTER, as all distributions do")
    };
    let program = filter(network).map_err(|e| refused(&e))?;
    seccompiler::apply_filter(&program).map_err(|e| refused(&e))
}

fn filter(network: bool) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let always = [PROGRAMS, OTHERS, SYSTEM, OF_THIS_MACHINE].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = always.into_iter().map(|call| (call, Vec::new())).collect();
    if !network {
        // Sockets to processes of this machine stay: some libraries speak to a daemon of their own.
        let local = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, LOCAL)?;
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![local])?]);
    }
    #[cfg(target_arch = "x86_64")]
    {
        let again: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(again);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// The address family of sockets within this machine.
const LOCAL: u64 = 1;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// A filter holds for the thread that took it, so each test gives up a thread.
    fn confined<T: Send + 'static>(network: bool, act: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(move || {
            confine_worker(network).unwrap();
            act()
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_worker_starts_no_program_and_changes_no_namespace() {
        let (program, namespace) = confined(true, || {
            let program = Command::new("/bin/true").status().unwrap_err().kind();
            (program, rustix::process::chroot("/").unwrap_err())
        });
        assert_eq!(program, ErrorKind::PermissionDenied);
        assert_eq!(namespace, rustix::io::Errno::PERM);
        // Elsewhere it goes on.
        assert!(Command::new("/bin/true").status().unwrap().success());
    }

    #[test]
    fn the_network_is_there_only_where_the_device_needs_it() {
        let tcp = || TcpListener::bind("127.0.0.1:0").map(drop).map_err(|e| e.kind());
        assert_eq!(confined(false, tcp), Err(ErrorKind::PermissionDenied));
        assert_eq!(confined(true, tcp), Ok(()));
        assert!(confined(false, || UnixStream::pair().is_ok()));
    }

    #[test]
    fn threads_of_a_worker_are_bound_as_well() {
        let kind =
            confined(false, || thread::spawn(|| TcpListener::bind("127.0.0.1:0").unwrap_err().kind()).join().unwrap());
        assert_eq!(kind, ErrorKind::PermissionDenied);
    }
}
