//! Instruction sets: the only room with `unsafe` code.
//!
//! The matrix micro-kernel is written once in `generic`, over the small `generic::Vector` trait; each instruction
//! set is a thin instance of it. The best set the machine has is chosen once, at the first use. `STRIATE_ISA` forces
//! one (`avx512`, `avx2`, `neon`, `simd128`, `portable`), which [`check`] refuses if the machine lacks it.
#![allow(unsafe_code)]

pub(crate) mod bf16;
pub(crate) mod direct;
pub(crate) mod generic;
pub(crate) mod int8;
pub(crate) mod interleaved;
mod portable;
mod rectangle;
pub(crate) mod shifted;
mod transpose;
pub(crate) mod winners;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "wasm32")]
mod simd128;

pub(crate) use rectangle::Rectangle;
pub(crate) use transpose::transpose;

use std::fmt;
use std::sync::OnceLock;

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AVX-512F: 16 lanes, 32 registers.
    Avx512,
    /// x86-64 with AVX2 and FMA: 8 lanes, 16 registers.
    Avx2,
    /// AArch64: 4 lanes, 32 registers.
    Neon,
    /// WebAssembly with simd128: 4 lanes.
    Simd128,
    /// Plain Rust; the compiler vectorises as far as the build target allows.
    Portable,
}

impl Isa {
    /// Every set, widest first.
    pub const ALL: [Isa; 5] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Simd128, Isa::Portable];

    /// The name that `STRIATE_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Simd128 => "simd128",
            Isa::Portable => "portable",
        }
    }

    /// Whether this machine runs it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            // The lengths of VL are what lets the compiler take numbers 16 to 31 for the halves of a register, too.
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => cfg!(target_feature = "simd128"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The sets this machine runs, widest first; never empty.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The micro-kernel of this set, or `None` if the machine lacks it.
    pub(crate) fn tile(self) -> Option<&'static Tile> {
        if !self.is_available() {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&avx512::TILE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&avx2::TILE),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::TILE),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => Some(&simd128::TILE),
            Isa::Portable => Some(&portable::TILE),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `STRIATE_ISA` asks for what can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "STRIATE_ISA is {found:?}, which this machine can't run; it runs {}; unset STRIATE_ISA to use the best",
    Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ")
)]
pub struct IsaError {
    /// What the variable holds.
    pub found: String,
}

/// The set that every kernel uses, or what is wrong with `STRIATE_ISA`. Programs call this first, so that a wrong
/// value is an error rather than silently the default.
pub fn check() -> Result<Isa, IsaError> {
    match std::env::var_os("STRIATE_ISA") {
        None => Ok(Isa::available().next().unwrap_or(Isa::Portable)),
        Some(wanted) => {
            let wanted = wanted.to_string_lossy();
            Isa::available().find(|isa| isa.name() == wanted).ok_or_else(|| IsaError { found: wanted.into_owned() })
        }
    }
}

/// The set that every kernel uses; chosen at the first call, for the life of the process.
#[inline]
pub fn active() -> Isa {
    static ACTIVE: OnceLock<Isa> = OnceLock::new();
    *ACTIVE.get_or_init(|| check().unwrap_or_else(|_| Isa::available().next().unwrap_or(Isa::Portable)))
}

/// The active set's micro-kernel.
#[inline]
pub(crate) fn tile() -> &'static Tile {
    active().tile().unwrap_or(&portable::TILE)
}

/// Runs `body` compiled for the active set, so that plain loops in it vectorise to the machine's full width.
///
/// Rust neither fuses nor reorders float operations on its own, so the bits are the same on every set. For a short
/// loop: the compiler leaves a long closure out of line, and so out of the set; `vectorized!` is for those.
#[inline(always)]
pub fn vectorize<T>(body: impl FnOnce() -> T) -> T {
    match active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `active` returns only sets whose features were detected on this machine.
        Isa::Avx512 => unsafe { avx512::call(body) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::call(body) },
        _ => body(),
    }
}

/// Makes a function that runs another one, marked `#[inline(always)]`, compiled for the active set. `eights fn` is for
/// bodies that work on arrays of eight numbers: for AVX-512 the compiler would put two of them together in a register and
/// spend its time on taking them apart, so they keep to AVX2.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::kernels::isa::vectorized! { "avx512f,avx512vl,avx2,fma", $(#[$meta])* $vis fn $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis eights fn $($rest:tt)*) => {
        $crate::kernels::isa::vectorized! { "avx2,fma", $(#[$meta])* $vis fn $($rest)* }
    };
    (
        $widest:literal, $(#[$meta:meta])* $vis:vis fn $name:ident $([$($generics:tt)*])?
        ($($arg:ident: $ty:ty),* $(,)?) = $body:path
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name $(<$($generics)*>)? ($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = $widest)]
            fn avx512 $(<$($generics)*>)? ($($arg: $ty),*) {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($generics)*>)? ($($arg: $ty),*) {
                $body($($arg),*)
            }
            match $crate::kernels::isa::active() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `active` returns only sets whose features were detected on this machine.
                $crate::kernels::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::kernels::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use vectorized;

/// One micro-kernel: a block of a matrix product held in registers.
pub(crate) struct Tile {
    /// Rows of the block, the width of a packed panel of the left matrix.
    pub(crate) rows: usize,
    /// Columns of the block, the width of a packed panel of the right matrix.
    pub(crate) columns: usize,
    /// See [`generic::tile`].
    kernel: Kernel,
    /// Rows of a block for a left side's last rows, and its kernel, which reads panels as wide as the others'.
    short: (usize, Kernel),
    /// Columns of a block one register wide, for a right side's last columns, and its kernel.
    narrow: (usize, Kernel),
    /// See [`generic::strips`].
    strips: Strips,
    /// For right sides that are not packed.
    pub(crate) shifted: shifted::Shifted,
    /// See [`generic::multiply_adds`].
    ceiling: Ceiling,
}

/// The left side of a block: row `i` at depth `k` is `data[i * steps.0 + k * steps.1]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) steps: (usize, usize),
}

/// `depth, a, steps of a, b, c, stride of c, accumulate`.
type Kernel = unsafe fn(usize, *const f32, (usize, usize), *const f32, *mut f32, usize, bool);

/// `size of the depth, pitch, a, offsets, b, c, stride of c, accumulate`.
type Strips = unsafe fn((usize, usize), usize, *const f32, *const usize, *const f32, *mut f32, usize, bool);

/// `rounds, two numbers, sums`.
type Ceiling = unsafe fn(usize, *const f32, *mut f32);

/// Multiply-adds in registers, `rounds` of as many as the active set's micro-kernel has under way at once; returns the
/// floating-point operations done (a multiply-add counts two). Timing it gives the rate that no kernel can beat.
///
/// ```
/// let begun = std::time::Instant::now();
/// let operations = striate::kernels::isa::ceiling(10_000);
/// println!("{:.0} GFLOP/s", operations as f64 / begun.elapsed().as_secs_f64() / 1e9);
/// # assert!(operations >= 10_000);
/// ```
pub fn ceiling(rounds: usize) -> u64 {
    let tile = tile();
    let mut sums = [0.0; MAX_TILE];
    let numbers = std::hint::black_box([0.5f32, 1e-3]);
    // SAFETY: a `Tile` is only handed out for a detected instruction set, no tile is larger than MAX_TILE, and there are
    // two numbers.
    unsafe { (tile.ceiling)(rounds, numbers.as_ptr(), sums.as_mut_ptr()) };
    std::hint::black_box(sums);
    2 * rounds as u64 * (tile.rows * tile.columns) as u64
}

/// The largest tile of any set, for temporaries on the stack.
pub(crate) const MAX_TILE: usize = MAX_ROWS * 32;

/// The most rows of any set's tile.
pub(crate) const MAX_ROWS: usize = 12;

impl Tile {
    /// A packed panel (depth x rows) as a left side.
    #[inline]
    pub(crate) fn panel<'a>(&self, data: &'a [f32]) -> Left<'a> {
        Left { data, steps: (1, self.rows) }
    }

    /// `c (+)= a · b` for one block: `b` is a packed panel (depth x columns); row `i` of the block starts at
    /// `c[i * stride]`. Only so many rows as stand beside `c` are wanted: those after them may be left as they are.
    #[inline]
    pub(crate) fn run(
        &self,
        depth: usize,
        a: Left<'_>,
        b: &[f32],
        (c, rows): (&mut [f32], usize),
        stride: usize,
        accumulate: bool,
    ) {
        let last = (self.rows - 1) * a.steps.0 + depth.saturating_sub(1) * a.steps.1;
        assert!(depth == 0 || last < a.data.len(), "the left side is too short");
        assert!(b.len() >= depth * self.columns, "the right panel is shorter than the depth");
        assert!(stride >= self.columns && c.len() >= (self.rows - 1) * stride + self.columns, "block is too small");
        let kernel = if rows <= self.short.0 { self.short.1 } else { self.kernel };
        // SAFETY: a `Tile` is only handed out for a detected instruction set, and the lengths were checked just now for
        // the higher of the two blocks.
        unsafe { kernel(depth, a.data.as_ptr(), a.steps, b.as_ptr(), c.as_mut_ptr(), stride, accumulate) }
    }

    /// `c (+)= a · b` where the depth is a rectangle of `size` in a picture with rows `pitch` apart: row `i` of the left
    /// side at depth `(y, x)` is `a[offsets[i] + y * pitch + x]`. `b` is a packed panel as for [`Tile::run`].
    #[inline]
    pub(crate) fn run_strips(
        &self,
        size: (usize, usize),
        pitch: usize,
        a: &[f32],
        offsets: &[usize],
        b: &[f32],
        c: &mut [f32],
        stride: usize,
        accumulate: bool,
    ) {
        let depth = size.0 * size.1;
        let offsets = &offsets[..self.rows];
        let furthest = offsets.iter().max().map_or(0, |&o| o + (size.0.max(1) - 1) * pitch + size.1.max(1) - 1);
        assert!(depth == 0 || furthest < a.len(), "the left side is too short");
        assert!(b.len() >= depth * self.columns, "the right panel is shorter than the depth");
        assert!(stride >= self.columns && c.len() >= (self.rows - 1) * stride + self.columns, "block is too small");
        // SAFETY: a `Tile` is only handed out for a detected instruction set, and the lengths were checked just now.
        unsafe {
            let (a, o) = (a.as_ptr(), offsets.as_ptr());
            (self.strips)(size, pitch, a, o, b.as_ptr(), c.as_mut_ptr(), stride, accumulate)
        }
    }

    /// As [`Tile::run`], for a block of which only `rows x columns` lie inside `c`.
    #[inline]
    pub(crate) fn run_edge(
        &self,
        depth: usize,
        a: Left<'_>,
        b: &[f32],
        c: &mut [f32],
        stride: usize,
        accumulate: bool,
        (rows, columns): (usize, usize),
    ) {
        if rows == self.rows && columns == self.columns {
            return self.run(depth, a, b, (c, rows), stride, accumulate);
        }
        let mut block = [0.0; MAX_TILE];
        self.run(depth, a, b, (&mut block, rows), self.columns, false);
        for (i, source) in block.chunks_exact(self.columns).take(rows).enumerate() {
            let target = &mut c[i * stride..][..columns];
            if accumulate {
                target.iter_mut().zip(source).for_each(|(c, s)| *c += s);
            } else {
                target.copy_from_slice(&source[..columns]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn every_available_tile_agrees_with_f64() {
        let random = Random::new(5, Purpose::Test, 0);
        for isa in Isa::available() {
            let tile = isa.tile().expect("available");
            assert!(tile.rows * tile.columns <= MAX_TILE);
            let depths = [0, 1, 2, 7, 25, 256];
            // Miri takes a millisecond for what takes a microsecond.
            for &depth in if cfg!(miri) { &depths[..4] } else { &depths[..] } {
                let a: Vec<f32> = (0..depth * tile.rows).map(|i| random.normal(i as u64)).collect();
                let b: Vec<f32> = (0..depth * tile.columns).map(|i| random.normal(9999 + i as u64)).collect();
                let stride = tile.columns + 3;
                for (accumulate, rows, columns) in [
                    (false, tile.rows, tile.columns),
                    (true, tile.rows, tile.columns),
                    (true, 1, 1),
                    (false, tile.short.0, tile.columns),
                    (true, tile.short.0, tile.columns - 1),
                    (false, tile.rows - 1, tile.columns - 1),
                ] {
                    let mut c = vec![0.5; tile.rows * stride];
                    tile.run_edge(depth, tile.panel(&a), &b, &mut c, stride, accumulate, (rows, columns));
                    for i in 0..tile.rows {
                        for j in 0..stride {
                            let inside = i < rows && j < columns;
                            let sum: f64 = (0..depth)
                                .map(|k| {
                                    f64::from(a[k * tile.rows + i])
                                        * f64::from(*b.get(k * tile.columns + j).unwrap_or(&0.0))
                                })
                                .sum();
                            let expected = match (inside, accumulate) {
                                (false, _) => 0.5,
                                (true, true) => 0.5 + sum,
                                (true, false) => sum,
                            };
                            let found = f64::from(c[i * stride + j]);
                            assert!(
                                (found - expected).abs() < 1e-4,
                                "{isa} depth {depth} ({i}, {j}): {found} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn strips_of_a_picture_are_rows_of_the_left_side() {
        let random = Random::new(6, Purpose::Test, 0);
        let picture: Vec<f32> = (0..40 * 30).map(|i| random.normal(i as u64)).collect();
        for isa in Isa::available() {
            let tile = isa.tile().expect("available");
            let offsets: Vec<usize> = (0..tile.rows).map(|i| i * 37 % 200).collect();
            for (size, pitch) in [((0, 5), 7), ((1, 1), 30), ((3, 9), 30), ((13, 13), 15)] {
                let depth = size.0 * size.1;
                let b: Vec<f32> = (0..depth * tile.columns).map(|i| random.normal(9999 + i as u64)).collect();
                let stride = tile.columns + 1;
                let mut c = vec![0.5; tile.rows * stride];
                tile.run_strips(size, pitch, &picture, &offsets, &b, &mut c, stride, true);
                for (i, offset) in offsets.iter().enumerate() {
                    for j in 0..tile.columns {
                        let at = |k: usize| picture[offset + k / size.1 * pitch + k % size.1];
                        let term = |k: usize| f64::from(at(k)) * f64::from(b[k * tile.columns + j]);
                        let expected = 0.5 + (0..depth).map(term).sum::<f64>();
                        let found = f64::from(c[i * stride + j]);
                        assert!((found - expected).abs() < 1e-4, "{isa} {size:?} ({i}, {j}): {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_resort_is_always_there() {
        assert!(Isa::Portable.is_available());
        assert_eq!(vectorize(|| (1..=4).sum::<i32>()), 10);
    }
}
