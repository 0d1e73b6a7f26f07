//! What a process costs, as the kernel counts it: processor time and resident memory.

use std::fs;
use std::time::Duration;

/// The kernel's unit in `/proc/PID/stat`, fixed at 100 per second for programs whatever it uses itself.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used so far, of all its threads, those that ended included.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name stands in parentheses and may hold anything; `utime` and `stime` are fields 14 and 15 of the whole.
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks = |at: usize| rest.split(' ').nth(at - 3).and_then(|text| text.parse::<u32>().ok()).expect("a number");
    TICK * (ticks(14) + ticks(15))
}

/// The processor time of this process.
pub(crate) fn own_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there");
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process that has just ended is nobody's child.
    numbers.filter(|child| parent(*child) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
