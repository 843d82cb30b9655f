//! What this machine can do at most: multiply-adds in registers, and bytes from each level of its memory.

use crate::clock::Instant;
use crate::kernels::isa::{self, vectorized};
use rayon::prelude::*;
use serde::Serialize;
use std::time::Duration;

/// Working sets whose bandwidth is measured, in bytes over all threads: the second-level caches, the third, and memory.
const WORKING_SETS: [usize; 4] = [512 << 10, 4 << 20, 32 << 20, 256 << 20];

/// What the threads of the pool that measured it can do together, at most.
///
/// A pass that does `f` floating-point operations on `b` bytes takes at least `max(f / arithmetic, b / bandwidth)`: the
/// roofline model (Williams, Waterman and Patterson, 2009).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ceilings {
    /// How many threads.
    pub threads: usize,
    /// Floating-point operations a second (a multiply-add is two), by [`isa::ceiling`].
    pub flops_per_second: f64,
    /// Bytes a second by the size of what is worked on, smallest first.
    pub bandwidths: Vec<Bandwidth>,
}

/// How fast bytes come from where a working set of a size lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bandwidth {
    /// Bytes of the working set, over all threads.
    pub working_set: usize,
    /// Bytes a second, reading or copying (which counts both ways), whichever is faster.
    pub bytes_per_second: f64,
}

impl Ceilings {
    /// Measures for about a second, on the threads of the current rayon pool. What else runs on the machine lowers them:
    /// the best of many short runs counts.
    pub fn measure() -> Self {
        let threads = rayon::current_num_threads();
        let rounds = 200_000;
        let operations = isa::ceiling(rounds) as f64 * threads as f64;
        let arithmetic = least_time(Duration::from_millis(300), || {
            rayon::broadcast(|_| isa::ceiling(rounds));
        });
        let bandwidths =
            WORKING_SETS.map(|working_set| Bandwidth { working_set, bytes_per_second: bandwidth(working_set) });
        Self { threads, flops_per_second: operations / arithmetic, bandwidths: bandwidths.to_vec() }
    }

    /// Bytes a second for a working set of `bytes`: of the smallest measured one that is not smaller.
    pub fn bandwidth(&self, bytes: usize) -> f64 {
        let fits = self.bandwidths.iter().find(|b| b.working_set >= bytes).or(self.bandwidths.last());
        fits.map_or(f64::INFINITY, |b| b.bytes_per_second)
    }

    /// The least seconds for so many operations on so many bytes that pass through the caches and `cold` bytes of a
    /// working set of `all`, which come from wherever that much lies.
    pub(super) fn floor(&self, flops: u64, warm: usize, cold: usize, all: usize) -> f64 {
        let memory = warm as f64 / self.bandwidth(warm) + cold as f64 / self.bandwidth(all);
        (flops as f64 / self.flops_per_second).max(memory)
    }
}

fn least_time(time: Duration, mut run: impl FnMut()) -> f64 {
    let (begun, mut least) = (Instant::now(), f64::INFINITY);
    while begun.elapsed() < time || least.is_infinite() {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

fn bandwidth(working_set: usize) -> f64 {
    let len = working_set / size_of::<f32>();
    let mut numbers = vec![1.0f32; len];
    // A small set again and again within one timing, as the clock and handing out work take time too.
    let rounds = ((8 << 20) / working_set).max(1);
    let time = Duration::from_millis(120);
    let threads = rayon::current_num_threads();
    let reading = least_time(time, || {
        let part = len.div_ceil(threads);
        numbers.par_chunks(part).for_each(|part| {
            for _ in 0..rounds {
                let mut total = 0.0;
                read(part, &mut total);
                std::hint::black_box(total);
            }
        });
    });
    let (from, to) = numbers.split_at_mut(len / 2);
    let part = (len / 2).div_ceil(threads);
    let copying = least_time(time, || {
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| {
            for _ in 0..rounds {
                to.copy_from_slice(from);
                std::hint::black_box(&mut *to);
            }
        });
    });
    (rounds * working_set) as f64 / reading.min(copying)
}

vectorized! {
    fn read(numbers: &[f32], total: &mut f32) = read_in_lanes
}

/// The sum of all numbers, in enough sums side by side that the additions never wait.
#[inline(always)]
fn read_in_lanes(numbers: &[f32], total: &mut f32) {
    let mut sums = [0.0f32; 128];
    for numbers in numbers.chunks_exact(128) {
        for (sum, n) in sums.iter_mut().zip(numbers) {
            *sum += n;
        }
    }
    *total = sums.iter().sum();
}
