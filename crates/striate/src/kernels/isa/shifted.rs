//! The micro-kernel whose right side is not packed: each of its rows is the same picture, read from another place on.

/// `depth, a, source, offsets, c, stride of c`.
type Kernel = unsafe fn(usize, *const f32, *const f32, *const u32, *mut f32, usize);

/// The most registers of a block side by side.
pub(crate) const WIDEST: usize = 3;

/// Blocks of few rows and up to [`WIDEST`] registers of columns, for one set.
pub(crate) struct Shifted {
    /// Rows of a block, the width of a packed panel of the left side.
    pub(crate) rows: usize,
    /// Columns of a register.
    pub(crate) lanes: usize,
    /// For blocks of one, two and three registers: see [`shifted`](super::generic::shifted).
    pub(super) kernels: [Kernel; WIDEST],
}

/// Where each depth of the right side reads, from the first column on; the furthest is found once for all blocks.
#[derive(Clone, Copy)]
pub(crate) struct Offsets<'a> {
    places: &'a [u32],
    furthest: Option<usize>,
}

impl<'a> Offsets<'a> {
    pub(crate) fn new(places: &'a [u32]) -> Self {
        Self { places, furthest: places.iter().max().map(|&place| place as usize) }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

impl Shifted {
    /// `c = a · b` for a block of `wide` registers of columns, where `b` at depth `k` is `source` from its offset on; `a` is a packed panel
    /// (depth x rows), and row `i` of the block starts at `c[i * stride]`.
    ///
    /// # Panics
    /// If anything would be read or written outside the slices.
    #[inline]
    pub(crate) fn run(
        &self,
        a: &[f32],
        source: &[f32],
        offsets: Offsets<'_>,
        wide: usize,
        c: &mut [f32],
        stride: usize,
    ) {
        let (depth, columns) = (offsets.len(), wide * self.lanes);
        let furthest = offsets.furthest.map_or(0, |furthest| furthest + columns);
        assert!(furthest <= source.len(), "the source is too short");
        let offsets = offsets.places;
        assert!(a.len() >= depth * self.rows, "the left panel is shorter than the depth");
        assert!(stride >= columns && c.len() >= (self.rows - 1) * stride + columns, "block is too small");
        let kernel = self.kernels[wide - 1];
        // SAFETY: a `Shifted` is only handed out for a detected instruction set, and the lengths were checked just now.
        unsafe { kernel(depth, a.as_ptr(), source.as_ptr(), offsets.as_ptr(), c.as_mut_ptr(), stride) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::Offsets;
    use crate::random::{Purpose, Random};

    #[test]
    fn every_available_set_agrees_with_f64() {
        let random = Random::new(7, Purpose::Test, 0);
        let source: Vec<f32> = (0..1000).map(|i| random.normal(i)).collect();
        for isa in Isa::available() {
            let shifted = &isa.tile().expect("available").shifted;
            let sizes = [(0, 1), (1, 2), (27, 3), (300, 1), (40, 2)];
            for &(depth, wide) in if cfg!(miri) { &sizes[..3] } else { &sizes[..] } {
                let columns = wide * shifted.lanes;
                let a: Vec<f32> = (0..depth * shifted.rows).map(|i| random.normal(5000 + i as u64)).collect();
                // The last may end where the source does.
                let offsets: Vec<u32> = (0..depth).map(|k| ((1 + k * 37) % (1001 - columns)) as u32).collect();
                let stride = columns + 1;
                let mut c = vec![0.5; shifted.rows * stride];
                shifted.run(&a, &source, Offsets::new(&offsets), wide, &mut c, stride);
                for (at, found) in c.iter().enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    let product =
                        |k: usize| f64::from(a[k * shifted.rows + i]) * f64::from(source[offsets[k] as usize + j]);
                    let expected = if j < columns { (0..depth).map(product).sum() } else { 0.5 };
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{isa} {depth} {wide} ({i}, {j})");
                }
            }
        }
    }
}
