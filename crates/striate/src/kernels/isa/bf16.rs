//! Rows times weights in bfloat16: half the bytes to read where memory is the limit.
//!
//! A bfloat16 is the upper half of an f32, so that widening is a shift, in registers; sums are f32.

use super::Isa;
use super::generic::Vector;

/// A register of floats that can be filled with bfloat16.
pub(super) trait Widen: Vector {
    /// `LANES` numbers in bfloat16 from `p`.
    ///
    /// # Safety
    /// The machine has the instruction set of the implementing type, and `p` is readable; no alignment is needed.
    unsafe fn load_bf16(p: *const u16) -> Self;
}

/// The kernels of a set.
pub(crate) struct Bf16 {
    /// Columns of a packed panel of weights.
    pub(crate) columns: usize,
    /// For one row, two, three and four.
    kernels: [Kernel; MAX_ROWS],
}

/// The most rows of a call.
pub(crate) const MAX_ROWS: usize = 4;

/// `depth, x, stride of x, panel (depth x columns), y (rows x columns)`.
type Kernel = unsafe fn(usize, *const f32, usize, *const u16, *mut f32);

impl Bf16 {
    /// `y = x · panel`: row `i` of `x` starts at `x[i * stride]`, `panel` is (depth x columns), and `y` (rows x columns)
    /// says how many rows there are, at most [`MAX_ROWS`].
    #[inline]
    pub(crate) fn run(&self, depth: usize, x: &[f32], stride: usize, panel: &[u16], y: &mut [f32]) {
        let rows = y.len() / self.columns;
        assert!((1..=MAX_ROWS).contains(&rows) && y.len() == rows * self.columns, "too many rows, or half a one");
        assert!(panel.len() == depth * self.columns, "the panel is not of this depth");
        assert!(x.len() >= (rows - 1) * stride + depth, "the rows are too short");
        // SAFETY: kernels are only handed out for a detected instruction set, and all lengths were checked just now.
        unsafe { self.kernels[rows - 1](depth, x.as_ptr(), stride, panel.as_ptr(), y.as_mut_ptr()) }
    }
}

impl Isa {
    /// The kernels of this set, or `None` if the machine lacks it.
    pub(crate) fn bf16(self) -> Option<&'static Bf16> {
        if !self.is_available() {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&x86::AVX512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&x86::AVX2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::NEON),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => Some(&simd128::SIMD128),
            Isa::Portable => Some(&portable::PORTABLE),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The active set's kernels.
#[inline]
pub(crate) fn bf16() -> &'static Bf16 {
    super::active().bf16().unwrap_or(&portable::PORTABLE)
}

/// A [`Kernel`] for `ROWS` rows and panels of `WIDE` registers, whose sums stay in registers over the whole depth.
///
/// # Safety
/// The machine has `V`'s instructions, and the pointers have the sizes that [`Kernel`] says.
#[inline(always)]
unsafe fn rows<V: Widen, const ROWS: usize, const WIDE: usize>(
    depth: usize,
    x: *const f32,
    stride: usize,
    mut panel: *const u16,
    y: *mut f32,
) {
    // SAFETY: reads `depth` numbers of each row and of each column of the panel, and writes ROWS * WIDE * LANES numbers.
    unsafe {
        let mut sums = [[V::zero(); WIDE]; ROWS];
        for k in 0..depth {
            let mut weights = [V::zero(); WIDE];
            for (j, w) in weights.iter_mut().enumerate() {
                *w = V::load_bf16(panel.add(j * V::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = V::splat(x.add(i * stride + k));
                for (sum, &w) in sums.iter_mut().zip(&weights) {
                    *sum = sum.mul_add(left, w);
                }
            }
            panel = panel.add(WIDE * V::LANES);
        }
        for (i, &sum) in sums.as_flattened().iter().enumerate() {
            sum.store(y.add(i * V::LANES));
        }
    }
}

/// The [`Bf16`] of a set, with panels of `$wide` registers.
macro_rules! bf16_for {
    ($name:ident, $vector:ty, $wide:literal wide $(, $feature:literal)?) => {
        pub(super) static $name: Bf16 = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn kernel<const ROWS: usize>(
                depth: usize,
                x: *const f32,
                stride: usize,
                panel: *const u16,
                y: *mut f32,
            ) {
                // SAFETY: the caller keeps the contract of `rows`; this function is only reached where the set is.
                unsafe { rows::<$vector, ROWS, $wide>(depth, x, stride, panel, y) }
            }
            Bf16 {
                columns: $wide * <$vector as Vector>::LANES,
                kernels: [kernel::<1>, kernel::<2>, kernel::<3>, kernel::<4>],
            }
        };
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    impl Widen for __m512 {
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller vouches for the instruction set and for 16 numbers at `p`.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }

    impl Widen for __m256 {
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller vouches for the instruction set and for 8 numbers at `p`.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }

    bf16_for!(AVX512, __m512, 4 wide, "avx512f,avx512vl,avx2,fma");
    bf16_for!(AVX2, __m256, 2 wide, "avx2,fma");
}

#[cfg(target_arch = "aarch64")]
mod neon {
    // Where the build target itself has the set, the compiler counts its instructions as safe.
    #![allow(unused_unsafe)]
    use super::*;
    use std::arch::aarch64::*;

    impl Widen for float32x4_t {
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller vouches for the instruction set and for 4 numbers at `p`.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
        }
    }

    bf16_for!(NEON, float32x4_t, 4 wide, "neon");
}

#[cfg(target_arch = "wasm32")]
mod simd128 {
    // Where the build target itself has the set, the compiler counts its instructions as safe.
    #![allow(unused_unsafe)]
    use super::*;
    use std::arch::wasm32::*;

    impl Widen for v128 {
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller vouches for the instruction set and for 4 numbers at `p`.
            unsafe { u32x4_shl(u32x4_load_extend_u16x4(p), 16) }
        }
    }

    bf16_for!(SIMD128, v128, 2 wide, "simd128");
}

mod portable {
    use super::super::portable::Four;
    use super::*;

    impl Widen for Four {
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller vouches for four numbers at `p`.
            let halves = unsafe { p.cast::<[u16; 4]>().read_unaligned() };
            Four(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
        }
    }

    bf16_for!(PORTABLE, Four, 2 wide);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn every_available_set_agrees_with_f64() {
        let random = Random::new(7, Purpose::Test, 0);
        for isa in Isa::available() {
            let kernels = isa.bf16().expect("available");
            let sizes = [(1, 1), (2, 4), (33, 3), (257, 2), (1000, 1)];
            for &(depth, rows) in if cfg!(miri) { &sizes[..3] } else { &sizes[..] } {
                let stride = depth + 3;
                let x: Vec<f32> = (0..rows * stride).map(|i| random.normal(i as u64)).collect();
                let bits = |i: usize| (random.normal(1 << 20 | i as u64).to_bits() >> 16) as u16;
                let panel: Vec<u16> = (0..depth * kernels.columns).map(bits).collect();
                let mut y = vec![f32::NAN; rows * kernels.columns];
                kernels.run(depth, &x, stride, &panel, &mut y);
                for (at, &found) in y.iter().enumerate() {
                    let (i, j) = (at / kernels.columns, at % kernels.columns);
                    let wide = |k: usize| f32::from_bits(u32::from(panel[k * kernels.columns + j]) << 16);
                    let product = |k: usize| f64::from(x[i * stride + k]) * f64::from(wide(k));
                    let expected: f64 = (0..depth).map(product).sum();
                    assert!((f64::from(found) - expected).abs() < 1e-3, "{isa} {depth} ({i}, {j}): {found} {expected}");
                }
            }
        }
    }
}
