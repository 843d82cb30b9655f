//! The micro-kernel, written once over [`Vector`].

/// A register of [`Vector::LANES`] floats.
///
/// # Safety
/// Every method may only be called on a machine that has the instruction set of the implementing type.
pub(crate) trait Vector: Copy {
    /// Floats in a register.
    const LANES: usize;
    /// All lanes zero.
    unsafe fn zero() -> Self;
    /// All lanes the number at `p`, which must be readable.
    unsafe fn splat(p: *const f32) -> Self;
    /// `LANES` numbers from `p`, which must be readable; no alignment is needed.
    unsafe fn load(p: *const f32) -> Self;
    /// `LANES` numbers to `p`, which must be writable; no alignment is needed.
    unsafe fn store(self, p: *mut f32);
    /// Lane by lane `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Lane by lane `self + a * b`, fused where the set has it.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// Lane by lane `other` with its tag where it is larger or NaN, else `self` with its own. Tags are any bits.
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self);
    /// The sum of all lanes, halves added first.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0f32; 16];
        // SAFETY: no set has more than 16 lanes; the caller vouches for the instructions.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut count = Self::LANES;
        while count > 1 {
            count /= 2;
            let (low, high) = lanes.split_at_mut(count);
            low.iter_mut().zip(high).for_each(|(a, b)| *a += *b);
        }
        lanes[0]
    }
}

/// `c (+)= a · b` for a block of `ROWS` rows and `WIDE * V::LANES` columns, kept in registers over the whole depth. Packed
/// panels of the left side are `PITCH` rows wide.
///
/// # Safety
/// The machine has `V`'s instructions; `a + i * steps.0 + k * steps.1` is readable for each of the `ROWS` rows `i` and
/// each `k` below `depth`; `b` holds `depth * WIDE * LANES` numbers, and each of the rows at `c + i * stride` holds
/// `WIDE * LANES`.
#[inline(always)]
pub(crate) unsafe fn tile<V: Vector, const ROWS: usize, const PITCH: usize, const WIDE: usize>(
    depth: usize,
    mut a: *const f32,
    steps: (usize, usize),
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: all reads are those the caller vouches for: `a` (each row of it) and `b` advance by one depth exactly `depth`
    // times (with `wrapping_add`, as the last step may leave the array), and rows of `c` are written WIDE * LANES long.
    unsafe {
        let mut sums = [[V::zero(); WIDE]; ROWS];
        if steps == (1, PITCH) {
            // A packed panel: the rows' places are constants, where a step known only now would make each wait for the last.
            for _ in 0..depth {
                step(&mut sums, |i| V::splat(a.add(i)), b);
                a = a.wrapping_add(PITCH);
                b = b.add(WIDE * V::LANES);
            }
        } else {
            let mut rows = [a; ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = a.wrapping_add(i * steps.0);
            }
            for _ in 0..depth {
                step(&mut sums, |i| V::splat(rows[i]), b);
                for row in &mut rows {
                    *row = row.wrapping_add(steps.1);
                }
                b = b.add(WIDE * V::LANES);
            }
        }
        store(&sums, c, stride, accumulate);
    }
}

/// One step of the depth: adds row by row the number that `left` gives, times what lies at `b`.
///
/// # Safety
/// The machine has `V`'s instructions, and `b` holds `WIDE * LANES` numbers.
#[inline(always)]
unsafe fn step<V: Vector, const ROWS: usize, const WIDE: usize>(
    sums: &mut [[V; WIDE]; ROWS],
    left: impl Fn(usize) -> V,
    b: *const f32,
) {
    // SAFETY: reads WIDE * LANES numbers, which the caller vouches for.
    unsafe {
        let mut right = [V::zero(); WIDE];
        for (j, r) in right.iter_mut().enumerate() {
            *r = V::load(b.add(j * V::LANES));
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let left = left(i);
            for (sum, &r) in row.iter_mut().zip(&right) {
                *sum = sum.mul_add(left, r);
            }
        }
    }
}

/// The same where the depth is a rectangle of a larger picture: row `i` of the left side at depth `(y, x)` is at
/// `a + offsets[i] + y * pitch + x`.
///
/// # Safety
/// The machine has `V`'s instructions; those places are readable for each of the `ROWS` numbers at `offsets`, each `y`
/// below `size.0` and each `x` below `size.1`; `b` holds `size.0 * size.1 * WIDE * LANES` numbers, and each of the rows
/// at `c + i * stride` holds `WIDE * LANES`.
#[inline(always)]
pub(crate) unsafe fn strips<V: Vector, const ROWS: usize, const WIDE: usize>(
    size: (usize, usize),
    pitch: usize,
    a: *const f32,
    offsets: *const usize,
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: all reads are those the caller vouches for: a row's pointer only moves past the picture (with
    // `wrapping_add`) after its last read, and `b` advances by one depth exactly `size.0 * size.1` times.
    unsafe {
        let mut sums = [[V::zero(); WIDE]; ROWS];
        let mut rows = [a; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = a.add(*offsets.add(i));
        }
        for _ in 0..size.0 {
            for x in 0..size.1 {
                step(&mut sums, |i| V::splat(rows[i].add(x)), b);
                b = b.add(WIDE * V::LANES);
            }
            for row in &mut rows {
                *row = row.wrapping_add(pitch);
            }
        }
        store(&sums, c, stride, accumulate);
    }
}

/// `c = a · b` where the right side lies where it was made: at depth `k` its columns are the numbers from
/// `source + offsets[k]` on. `a` is a packed panel (depth x ROWS).
///
/// # Safety
/// The machine has `V`'s instructions; `offsets` holds `depth` numbers and `a` `depth * ROWS`; `WIDE * LANES` numbers from
/// `source + offsets[k]` on are readable for each `k` below `depth`, and each of the rows at `c + i * stride` holds as many.
#[inline(always)]
pub(crate) unsafe fn shifted<V: Vector, const ROWS: usize, const WIDE: usize>(
    depth: usize,
    mut a: *const f32,
    source: *const f32,
    offsets: *const u32,
    c: *mut f32,
    stride: usize,
) {
    // SAFETY: all reads are those the caller vouches for: `a` advances by one depth exactly `depth` times, and rows of `c`
    // are written WIDE * LANES long.
    unsafe {
        let mut sums = [[V::zero(); WIDE]; ROWS];
        for k in 0..depth {
            step(&mut sums, |i| V::splat(a.add(i)), source.add(*offsets.add(k) as usize));
            a = a.add(ROWS);
        }
        store(&sums, c, stride, false);
    }
}

/// Writes a block, or adds it to what is there.
///
/// # Safety
/// The machine has `V`'s instructions; each of the rows at `c + i * stride` holds `WIDE * LANES` numbers.
#[inline(always)]
unsafe fn store<V: Vector, const ROWS: usize, const WIDE: usize>(
    sums: &[[V; WIDE]; ROWS],
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: rows are written WIDE * LANES long, which the caller vouches for.
    unsafe {
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let target = c.add(i * stride + j * V::LANES);
                let value = if accumulate { V::load(target).add(sum) } else { sum };
                value.store(target);
            }
        }
    }
}

/// Does nothing but multiply-adds, in as many registers as the micro-kernel sums in: the machine's arithmetic ceiling.
///
/// # Safety
/// The machine has `V`'s instructions; `numbers` holds two, and `sums` `ROWS * WIDE * LANES`.
#[inline(always)]
pub(crate) unsafe fn multiply_adds<V: Vector, const ROWS: usize, const WIDE: usize>(
    rounds: usize,
    numbers: *const f32,
    sums: *mut f32,
) {
    // SAFETY: reads two numbers and writes ROWS * WIDE * LANES, which the caller vouches for.
    unsafe {
        let (a, b) = (V::splat(numbers), V::splat(numbers.add(1)));
        let mut registers = [[V::zero(); WIDE]; ROWS];
        for _ in 0..rounds {
            for sum in registers.as_flattened_mut() {
                *sum = sum.mul_add(a, b);
            }
        }
        store(&registers, sums, WIDE * V::LANES, false);
    }
}

/// A [`Tile`](super::Tile) of `$rows` rows and `$wide` registers: the functions above, compiled for a set.
macro_rules! tile_for {
    ($vector:ty, $rows:literal rows, $short:literal last rows, $wide:literal wide, shifted $few:literal rows $(, $feature:literal)?) => {
        pub(super) static TILE: crate::kernels::isa::Tile = {
            use crate::kernels::isa::generic::{Vector, multiply_adds, shifted, strips, tile};
            use crate::kernels::isa::shifted::Shifted;

            $(#[target_feature(enable = $feature)])?
            unsafe fn product(
                depth: usize,
                a: *const f32,
                steps: (usize, usize),
                b: *const f32,
                c: *mut f32,
                stride: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller keeps the contract of `tile`; this function is only reached where the set is.
                unsafe { tile::<$vector, $rows, $rows, $wide>(depth, a, steps, b, c, stride, accumulate) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn short(
                depth: usize,
                a: *const f32,
                steps: (usize, usize),
                b: *const f32,
                c: *mut f32,
                stride: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller keeps the contract of `tile`; this function is only reached where the set is.
                unsafe { tile::<$vector, $short, $rows, $wide>(depth, a, steps, b, c, stride, accumulate) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn narrow(
                depth: usize,
                a: *const f32,
                steps: (usize, usize),
                b: *const f32,
                c: *mut f32,
                stride: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller keeps the contract of `tile`; this function is only reached where the set is.
                unsafe { tile::<$vector, $rows, $rows, 1>(depth, a, steps, b, c, stride, accumulate) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn product_of_strips(
                size: (usize, usize),
                pitch: usize,
                a: *const f32,
                offsets: *const usize,
                b: *const f32,
                c: *mut f32,
                stride: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller keeps the contract of `strips`; this function is only reached where the set is.
                unsafe { strips::<$vector, $rows, $wide>(size, pitch, a, offsets, b, c, stride, accumulate) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn product_of_shifted<const WIDE: usize>(
                depth: usize,
                a: *const f32,
                source: *const f32,
                offsets: *const u32,
                c: *mut f32,
                stride: usize,
            ) {
                // SAFETY: the caller keeps the contract of `shifted`; this function is only reached where the set is.
                unsafe { shifted::<$vector, $few, WIDE>(depth, a, source, offsets, c, stride) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn ceiling(rounds: usize, numbers: *const f32, sums: *mut f32) {
                // SAFETY: the caller keeps the contract of `multiply_adds`; only reached where the set is.
                unsafe { multiply_adds::<$vector, $rows, $wide>(rounds, numbers, sums) }
            }

            crate::kernels::isa::Tile {
                rows: $rows,
                columns: $wide * <$vector as Vector>::LANES,
                kernel: product,
                short: ($short, short),
                narrow: (<$vector as Vector>::LANES, narrow),
                strips: product_of_strips,
                shifted: Shifted {
                    rows: $few,
                    lanes: <$vector as Vector>::LANES,
                    kernels: [product_of_shifted::<1>, product_of_shifted::<2>, product_of_shifted::<3>],
                },
                ceiling,
            }
        };
    };
}
pub(super) use tile_for;
