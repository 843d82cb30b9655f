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
}

/// `c (+)= a · b` for a block of `ROWS` rows and `WIDE * V::LANES` columns, kept in registers over the whole depth.
///
/// # Safety
/// The machine has `V`'s instructions; `a + i * steps.0 + k * steps.1` is readable for each of the `ROWS` rows `i` and
/// each `k` below `depth`; `b` holds `depth * WIDE * LANES` numbers, and each of the rows at `c + i * stride` holds
/// `WIDE * LANES`.
#[inline(always)]
pub(crate) unsafe fn tile<V: Vector, const ROWS: usize, const WIDE: usize>(
    depth: usize,
    mut a: *const f32,
    steps: (usize, usize),
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: all reads are those the caller vouches for: `a` and `b` advance by one depth exactly `depth` times (with
    // `wrapping_add`, as the last step may leave `a`'s array), and rows of `c` are written at most WIDE * LANES long.
    unsafe {
        let mut sums = [[V::zero(); WIDE]; ROWS];
        for _ in 0..depth {
            let mut right = [V::zero(); WIDE];
            for (j, r) in right.iter_mut().enumerate() {
                *r = V::load(b.add(j * V::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let left = V::splat(a.add(i * steps.0));
                for (sum, &r) in row.iter_mut().zip(&right) {
                    *sum = sum.mul_add(left, r);
                }
            }
            a = a.wrapping_add(steps.1);
            b = b.add(WIDE * V::LANES);
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let target = c.add(i * stride + j * V::LANES);
                let value = if accumulate { V::load(target).add(sum) } else { sum };
                value.store(target);
            }
        }
    }
}
