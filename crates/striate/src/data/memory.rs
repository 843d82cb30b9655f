//! How much memory there is.

use crate::clock::Instant;
use rayon::prelude::*;
use std::fs;

/// Bytes of memory that programs can still have, if the system tells (Linux: `MemAvailable` of /proc/meminfo).
///
/// A container's own limit (control groups, version 2) counts where it is lower.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    Some(limit.map_or(machine, |limit| machine.min(limit.saturating_sub(used))))
}

/// Whether so many bytes can be had in one piece now; nothing is kept. Asked before work that takes them in many pieces, each
/// of which would end the process if it failed: under a limit of address space (`ulimit -v`) that is told here.
pub fn is_free(bytes: usize) -> bool {
    let mut probe: Vec<u8> = Vec::new();
    // An allocation that nobody looks at is left out by the compiler.
    std::hint::black_box(&mut probe).try_reserve_exact(bytes).is_ok()
        && std::hint::black_box(&probe).capacity() >= bytes
}

/// Bytes read and written a second by copying, with the threads of the current rayon pool; takes about 0.1 s and 64 MiB
/// a thread, at most 1 GiB.
pub fn bandwidth() -> f64 {
    const BYTES: usize = 32 << 20;
    let threads = rayon::current_num_threads().min(16);
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..threads).map(|i| (vec![i as u8; BYTES], vec![1; BYTES])).collect();
    // The first round maps the pages; of the others the fastest counts.
    (0..4).fold(0.0, |best: f64, _| {
        let begun = Instant::now();
        pairs.par_iter_mut().for_each(|(from, to)| to.copy_from_slice(std::hint::black_box(from)));
        best.max((2 * BYTES * threads) as f64 / begun.elapsed().as_secs_f64())
    })
}
