//! CPU time and memory of processes, from /proc.

use std::fs;

#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub rss_kb: u64,
}

impl Usage {
    /// Of all these processes together; one that is gone counts nothing.
    pub fn of(pids: &[u32]) -> Self {
        pids.iter().fold(Self::default(), |sum, pid| Self {
            cpu_ns: sum.cpu_ns + cpu_ns(*pid),
            rss_kb: sum.rss_kb + rss_kb(*pid).unwrap_or(0),
        })
    }
}

/// The first figure of a thread's schedstat is its time on a core in nanoseconds.
fn cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_thread = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    threads.flatten().filter_map(|thread| of_thread(thread.path())).sum()
}

fn rss_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse().ok()
}
