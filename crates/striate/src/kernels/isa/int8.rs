//! Sums of products of bytes: unsigned inputs times signed weights, exact in i32.
//!
//! One micro-kernel, written once over [`Dot`]: four bytes of an input row, repeated over the lanes, times four weights of
//! each column. With VNNI that is one instruction; AVX2 widens to i16 first, because its own multiply-add of bytes
//! saturates. Whole numbers have no order of summation, so every set gives the same sums to the bit.

use super::Isa;

/// Columns of a packed panel of weights, the same for every set.
pub(crate) const COLUMNS: usize = 16;

/// Consecutive bytes of a row that one step takes.
pub(crate) const QUAD: usize = 4;

/// Four weights of each column of a panel: weight `k` of column `j` at `QUAD * j + k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Quad(pub(crate) [i8; COLUMNS * QUAD]);

impl Quad {
    pub(crate) const ZERO: Quad = Quad([0; COLUMNS * QUAD]);
}

/// The most rows of any set's block.
const MAX_ROWS: usize = 12;

/// The most numbers of any kernel's block.
pub(crate) const MAX_BLOCK: usize = MAX_ROWS * 2 * COLUMNS;

/// A register of i32 sums.
trait Dot: Copy {
    /// Sums of a register.
    const LANES: usize;
    /// Four weights of each lane, ready to multiply.
    type Weights: Copy;
    /// Four inputs, the same for each lane, ready to multiply.
    type Inputs: Copy;

    /// # Safety
    /// The machine has the instruction set of the implementing type.
    unsafe fn zero() -> Self;

    /// # Safety
    /// As above, and `QUAD * LANES` bytes are readable at `p`.
    unsafe fn weights(p: *const i8) -> Self::Weights;

    /// # Safety
    /// As above, and `QUAD` bytes are readable at `p`.
    unsafe fn inputs(p: *const u8) -> Self::Inputs;

    /// This plus the four products of each lane.
    ///
    /// # Safety
    /// As for [`Dot::zero`].
    unsafe fn dot(self, inputs: Self::Inputs, weights: Self::Weights) -> Self;

    /// # Safety
    /// As for [`Dot::zero`].
    unsafe fn add(self, other: Self) -> Self;

    /// # Safety
    /// As for [`Dot::zero`], and `LANES` numbers are writable at `p`.
    unsafe fn store(self, p: *mut i32);
}

/// What a kernel reads: rows of bytes, each in the same pieces, and panels of weights.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Where the rows lie.
    pub(crate) data: &'a [u8],
    /// Where each row begins.
    pub(crate) offsets: &'a [usize],
    /// Where each piece of a row begins, from the row's own beginning.
    pub(crate) pieces: &'a [usize],
    /// Length of a piece, in fours of bytes. What of the last four is beyond the piece meets weights of zero.
    pub(crate) quads: usize,
}

/// `data, offsets, pieces, number of pieces, quads, panels, quads between panels, c`: writes a whole block of `c`.
type Kernel = unsafe fn(*const u8, *const usize, *const usize, usize, usize, *const Quad, usize, *mut i32);

/// The kernels of a set.
pub(crate) struct Int8 {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Rows of a block with the kernel for one panel and the one for two, most rows first, one row last.
    kernels: &'static [(usize, [Kernel; 2])],
}

impl Int8 {
    /// The most rows of a block.
    pub(crate) fn rows(&self) -> usize {
        self.kernels[0].0
    }

    /// Sums of `rows` with `panels` panels (1 or 2), which begin at `weights` and are `weights.len() / panels` long:
    /// `c[i * panels * COLUMNS + j]` is that of row `i` and column `j`. At most [`Int8::rows`] rows.
    #[inline]
    pub(crate) fn run(&self, rows: Rows<'_>, weights: &[Quad], panels: usize, c: &mut [i32; MAX_BLOCK]) {
        let Rows { data, offsets, pieces, quads } = rows;
        let depth = pieces.len() * quads;
        assert!((1..=2).contains(&panels) && weights.len() >= depth * panels, "the panels are too short");
        assert!((1..=self.rows()).contains(&offsets.len()), "too many rows for a block");
        let furthest = |places: &[usize]| places.iter().copied().max().unwrap_or(0);
        let end = furthest(offsets).saturating_add(furthest(pieces)).saturating_add(quads * QUAD);
        assert!(depth == 0 || end <= data.len(), "the rows are too short");
        let between = weights.len() / panels;
        let (data, weights) = (data.as_ptr(), weights.as_ptr());
        let mut done = 0;
        while done < offsets.len() {
            let rest = offsets.len() - done;
            // The largest block of which no more than a third would be for nothing; the last has one row.
            let of = self.kernels.iter().find(|(of, _)| *of <= rest + rest / 2).or(self.kernels.last());
            let Some(&(of, ref kernels)) = of else { return };
            assert!(done + of <= MAX_ROWS, "a block of more rows than there is room for");
            let target = c[done * panels * COLUMNS..].as_mut_ptr();
            // A block of more rows than are left reads the last one again.
            let mut places = [0; MAX_ROWS];
            for (i, place) in places.iter_mut().enumerate().take(of) {
                *place = offsets[(done + i).min(offsets.len() - 1)];
            }
            // SAFETY: `Int8` is only handed out for a detected instruction set; the rows lie in `data` and the panels in
            // `weights`, and MAX_BLOCK has room for `done + of` rows of two panels, as was checked.
            unsafe {
                let pieces_at = pieces.as_ptr();
                kernels[panels - 1](data, places.as_ptr(), pieces_at, pieces.len(), quads, weights, between, target);
            }
            done += of;
        }
    }
}

/// One kernel: `ROWS` rows and `WIDE` registers, whose sums stay in registers over the whole depth.
///
/// # Safety
/// The machine has `D`'s instructions, and the pointers have the sizes that [`Int8::run`] checks; `WIDE` registers are
/// one panel or two, and `c` has room for `ROWS * WIDE * LANES` numbers.
#[inline(always)]
unsafe fn block<D: Dot, const ROWS: usize, const WIDE: usize>(
    data: *const u8,
    offsets: *const usize,
    pieces: *const usize,
    piece_count: usize,
    quads: usize,
    weights: *const Quad,
    between: usize,
    c: *mut i32,
) {
    // SAFETY: reads `ROWS` rows of `piece_count * quads` fours and as many quads of each panel, all vouched for.
    unsafe {
        let mut sums = [[D::zero(); WIDE]; ROWS];
        let rows: [*const u8; ROWS] = std::array::from_fn(|i| data.add(*offsets.add(i)));
        let mut panel: *const i8 = weights.cast();
        let registers = COLUMNS / D::LANES;
        for piece in 0..piece_count {
            let start = *pieces.add(piece);
            for quad in 0..quads {
                let at = start + QUAD * quad;
                let columns: [D::Weights; WIDE] = std::array::from_fn(|j| {
                    D::weights(panel.add((j / registers * between * COLUMNS + j % registers * D::LANES) * QUAD))
                });
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let inputs = D::inputs(row.add(at));
                    for (sum, &weights) in sums.iter_mut().zip(&columns) {
                        *sum = sum.dot(inputs, weights);
                    }
                }
                panel = panel.add(COLUMNS * QUAD);
            }
        }
        for (i, &sum) in sums.as_flattened().iter().enumerate() {
            sum.store(c.add(i * D::LANES));
        }
    }
}

/// [`block`] for one row: four sums of every lane take turns, so that one need not wait for the other.
///
/// # Safety
/// As for [`block`].
#[inline(always)]
unsafe fn row<D: Dot, const WIDE: usize>(
    data: *const u8,
    offsets: *const usize,
    pieces: *const usize,
    piece_count: usize,
    quads: usize,
    weights: *const Quad,
    between: usize,
    c: *mut i32,
) {
    const TURNS: usize = 4;
    // SAFETY: as in `block`.
    unsafe {
        let mut sums = [[D::zero(); WIDE]; TURNS];
        let start = data.add(*offsets);
        let mut panel: *const i8 = weights.cast();
        let registers = COLUMNS / D::LANES;
        for piece in 0..piece_count {
            let piece = start.add(*pieces.add(piece));
            let mut quad = 0;
            while quad < quads {
                let turns = TURNS.min(quads - quad);
                for (turn, sums) in sums.iter_mut().enumerate() {
                    if turn < turns {
                        let inputs = D::inputs(piece.add(QUAD * (quad + turn)));
                        for (j, sum) in sums.iter_mut().enumerate() {
                            let column = j / registers * between * COLUMNS + j % registers * D::LANES;
                            *sum = sum.dot(inputs, D::weights(panel.add(column * QUAD)));
                        }
                        panel = panel.add(COLUMNS * QUAD);
                    }
                }
                quad += turns;
            }
        }
        let [first, rest @ ..] = sums;
        for (j, mut sum) in first.into_iter().enumerate() {
            for turn in &rest {
                sum = sum.add(turn[j]);
            }
            sum.store(c.add(j * D::LANES));
        }
    }
}

/// The [`Int8`] of a set, for blocks of `$rows` rows and fewer.
macro_rules! int8_for {
    ($name:ident, $label:literal, $vector:ty, [$($rows:literal),*] rows $(, $feature:literal)?) => {
        pub(super) static $name: Int8 = {
            const ONE: usize = COLUMNS / <$vector as Dot>::LANES;
            $(#[target_feature(enable = $feature)])?
            unsafe fn kernel<const ROWS: usize, const WIDE: usize>(
                data: *const u8,
                offsets: *const usize,
                pieces: *const usize,
                piece_count: usize,
                quads: usize,
                weights: *const Quad,
                between: usize,
                c: *mut i32,
            ) {
                // SAFETY: the caller keeps the contract of `block`; this function is only reached where the set is.
                unsafe {
                    if ROWS == 1 {
                        row::<$vector, WIDE>(data, offsets, pieces, piece_count, quads, weights, between, c)
                    } else {
                        block::<$vector, ROWS, WIDE>(data, offsets, pieces, piece_count, quads, weights, between, c)
                    }
                }
            }
            Int8 {
                name: $label,
                kernels: &[$(($rows, [kernel::<$rows, ONE>, kernel::<$rows, { 2 * ONE }>])),*],
            }
        };
    };
}

/// Every set of kernels that the machine runs with this instruction set or a lesser one, best first.
pub(crate) fn available(isa: Isa) -> Vec<&'static Int8> {
    let mut sets: Vec<&'static Int8> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if isa == Isa::Avx512
            && isa.is_available()
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bw")
        {
            sets.push(&x86::VNNI);
        }
        if matches!(isa, Isa::Avx512 | Isa::Avx2) && Isa::Avx2.is_available() {
            if is_x86_feature_detected!("avxvnni") {
                sets.push(&x86::AVX_VNNI);
            }
            sets.push(&x86::AVX2);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    sets.push(&portable::PORTABLE);
    sets
}

/// The active set's kernels.
#[inline]
pub(crate) fn int8() -> &'static Int8 {
    static ACTIVE: std::sync::OnceLock<&'static Int8> = std::sync::OnceLock::new();
    ACTIVE.get_or_init(|| available(super::active()).into_iter().next().unwrap_or(&portable::PORTABLE))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    impl Dot for __m512i {
        const LANES: usize = 16;
        type Weights = __m512i;
        type Inputs = __m512i;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn weights(p: *const i8) -> __m512i {
            // SAFETY: the caller vouches for the instruction set and for 64 bytes at `p`.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn inputs(p: *const u8) -> __m512i {
            // SAFETY: the caller vouches for the instruction set and for 4 bytes at `p`.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn dot(self, inputs: __m512i, weights: __m512i) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm512_dpbusd_epi32(self, inputs, weights) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm512_add_epi32(self, other) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut i32) {
            // SAFETY: the caller vouches for the instruction set and for 16 numbers at `p`.
            unsafe { _mm512_storeu_si512(p.cast(), self) }
        }
    }

    /// 256 bits with AVX-VNNI.
    #[derive(Clone, Copy)]
    pub(super) struct Narrow(__m256i);

    impl Dot for Narrow {
        const LANES: usize = 8;
        type Weights = __m256i;
        type Inputs = __m256i;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm256_setzero_si256()) }
        }

        #[inline(always)]
        unsafe fn weights(p: *const i8) -> __m256i {
            // SAFETY: the caller vouches for the instruction set and for 32 bytes at `p`.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }

        #[inline(always)]
        unsafe fn inputs(p: *const u8) -> __m256i {
            // SAFETY: the caller vouches for the instruction set and for 4 bytes at `p`.
            unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn dot(self, inputs: __m256i, weights: __m256i) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm256_dpbusd_avx_epi32(self.0, inputs, weights)) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm256_add_epi32(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut i32) {
            // SAFETY: the caller vouches for the instruction set and for 8 numbers at `p`.
            unsafe { _mm256_storeu_si256(p.cast(), self.0) }
        }
    }

    /// 256 bits with AVX2 alone: bytes with even and those with odd places apart, as i16, whose products and sums of two
    /// fit an i32.
    #[derive(Clone, Copy)]
    pub(super) struct Widened(__m256i);

    impl Dot for Widened {
        const LANES: usize = 8;
        type Weights = (__m256i, __m256i);
        type Inputs = (__m256i, __m256i);

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm256_setzero_si256()) }
        }

        #[inline(always)]
        unsafe fn weights(p: *const i8) -> (__m256i, __m256i) {
            // SAFETY: the caller vouches for the instruction set and for 32 bytes at `p`.
            unsafe {
                let bytes = _mm256_loadu_si256(p.cast());
                (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes))
            }
        }

        #[inline(always)]
        unsafe fn inputs(p: *const u8) -> (__m256i, __m256i) {
            // SAFETY: the caller vouches for the instruction set and for 4 bytes at `p`.
            unsafe {
                let bytes = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
                (_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes))
            }
        }

        #[inline(always)]
        unsafe fn dot(self, inputs: (__m256i, __m256i), weights: (__m256i, __m256i)) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let even = _mm256_madd_epi16(inputs.0, weights.0);
                let odd = _mm256_madd_epi16(inputs.1, weights.1);
                Self(_mm256_add_epi32(self.0, _mm256_add_epi32(even, odd)))
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm256_add_epi32(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut i32) {
            // SAFETY: the caller vouches for the instruction set and for 8 numbers at `p`.
            unsafe { _mm256_storeu_si256(p.cast(), self.0) }
        }
    }

    int8_for!(VNNI, "avx512-vnni", __m512i, [12, 4, 1] rows, "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma");
    int8_for!(AVX_VNNI, "avx-vnni", Narrow, [3, 1] rows, "avx2,fma,avxvnni");
    int8_for!(AVX2, "avx2", Widened, [2, 1] rows, "avx2,fma");
}

mod portable {
    use super::*;

    /// Plain Rust.
    #[derive(Clone, Copy)]
    pub(super) struct Plain([i32; COLUMNS]);

    impl Dot for Plain {
        const LANES: usize = COLUMNS;
        type Weights = [[i8; QUAD]; COLUMNS];
        type Inputs = [u8; QUAD];

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self([0; COLUMNS])
        }

        #[inline(always)]
        unsafe fn weights(p: *const i8) -> [[i8; QUAD]; COLUMNS] {
            // SAFETY: the caller vouches for 64 bytes at `p`, and bytes need no alignment.
            unsafe { *p.cast() }
        }

        #[inline(always)]
        unsafe fn inputs(p: *const u8) -> [u8; QUAD] {
            // SAFETY: the caller vouches for 4 bytes at `p`.
            unsafe { *p.cast() }
        }

        #[inline(always)]
        unsafe fn dot(mut self, inputs: [u8; QUAD], weights: [[i8; QUAD]; COLUMNS]) -> Self {
            for (sum, weights) in self.0.iter_mut().zip(&weights) {
                let product = |k: usize| i32::from(inputs[k]) * i32::from(weights[k]);
                *sum = sum.wrapping_add(product(0) + product(1) + product(2) + product(3));
            }
            self
        }

        #[inline(always)]
        unsafe fn add(mut self, other: Self) -> Self {
            self.0.iter_mut().zip(&other.0).for_each(|(sum, other)| *sum = sum.wrapping_add(*other));
            self
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut i32) {
            // SAFETY: the caller vouches for 16 numbers at `p`.
            unsafe { p.cast::<[i32; COLUMNS]>().write_unaligned(self.0) }
        }
    }

    int8_for!(PORTABLE, "portable", Plain, [2, 1] rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    /// The sums by definition.
    fn naive(rows: Rows<'_>, weights: &[Quad], panels: usize) -> Vec<i32> {
        let between = weights.len() / panels;
        let mut sums = Vec::new();
        for &offset in rows.offsets {
            for j in 0..panels * COLUMNS {
                let mut sum = 0i32;
                for (p, piece) in rows.pieces.iter().enumerate() {
                    for k in 0..rows.quads * QUAD {
                        let quad = weights[j / COLUMNS * between + p * rows.quads + k / QUAD];
                        let weight = quad.0[j % COLUMNS * QUAD + k % QUAD];
                        sum += i32::from(rows.data[offset + piece + k]) * i32::from(weight);
                    }
                }
                sums.push(sum);
            }
        }
        sums
    }

    fn check(data: &[u8], offsets: &[usize], pieces: &[usize], quads: usize, panels: usize, weights: &[Quad]) {
        for set in Isa::available().flat_map(available) {
            let offsets = &offsets[..offsets.len().min(set.rows())];
            let rows = Rows { data, offsets, pieces, quads };
            let mut c = [i32::MIN; MAX_BLOCK];
            set.run(rows, weights, panels, &mut c);
            let expected = naive(rows, weights, panels);
            assert_eq!(c[..expected.len()], expected, "{}", set.name);
        }
    }

    #[test]
    fn the_largest_products_do_not_saturate() {
        // Pairs of 255 * 127 or 255 * -128 are beyond an i16, where vpmaddubsw would stop.
        for weight in [127, -128] {
            let quads = if cfg!(miri) { 16 } else { 1024 };
            let data = vec![255u8; quads * QUAD];
            let weights = vec![Quad([weight; COLUMNS * QUAD]); 2 * quads];
            check(&data, &[0; 12], &[0], quads, 2, &weights);
        }
    }

    proptest! {
        #[test]
        fn every_set_gives_the_sums_of_the_definition(
            rows in 1usize..=12, pieces in 0usize..5, quads in 0usize..9, panels in 1usize..=2, extra in 0usize..3,
            seed in any::<u64>(),
        ) {
            let random = Random::new(seed, Purpose::Test, 0);
            let mut place = 0u64;
            let mut draw = |below: u64| { place += 1; (f64::from(random.uniform(place)) * below as f64) as u64 };
            let data: Vec<u8> = (0..400).map(|_| draw(256) as u8).collect();
            let offsets: Vec<usize> = (0..rows).map(|_| draw(250) as usize).collect();
            let places: Vec<usize> = (0..pieces).map(|_| draw(100) as usize).collect();
            let weights: Vec<Quad> = (0..panels * (pieces * quads + extra))
                .map(|_| Quad(std::array::from_fn(|_| draw(256) as u8 as i8)))
                .collect();
            check(&data, &offsets, &places, quads, panels, &weights);
        }
    }
}
