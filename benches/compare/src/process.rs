//! CPU and memory of processes, from `/proc`.
//!
//! Not for: finding child processes; the caller names every process.
//! Called by: `load`.

/// Nanoseconds on CPU of all threads that are alive in these processes.
#[must_use]
pub fn cpu_ns(pids: &[u32]) -> u64 {
    let mut sum = 0;
    for pid in pids {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            if let Ok(s) = std::fs::read_to_string(thread.path().join("schedstat")) {
                sum += s
                    .split(' ')
                    .next()
                    .and_then(|n| n.parse::<u64>().ok())
                    .unwrap_or(0);
            }
        }
    }
    sum
}

/// Resident memory in KiB, files and shared pages included.
#[must_use]
pub fn rss_kib(pids: &[u32]) -> u64 {
    status_kib(pids, "VmRSS:")
}

/// Resident memory in KiB that no file backs.
#[must_use]
pub fn anon_kib(pids: &[u32]) -> u64 {
    status_kib(pids, "RssAnon:")
}

fn status_kib(pids: &[u32], key: &str) -> u64 {
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|s| {
            s.lines()
                .find(|l| l.starts_with(key))?
                .split_whitespace()
                .nth(1)?
                .parse::<u64>()
                .ok()
        })
        .sum()
}
