//! A copy of a feature map with its padding written out and its columns sorted by their rest modulo the stride, so that
//! neighbouring output pixels read neighbouring numbers at any stride, and nobody asks whether a pixel is real. Rows can be sorted the same
//! way.

use super::whole_lines;
use crate::kernels::isa;

/// Rows of a map copied at a time.
const BAND: usize = 8;

/// Layout of such a copy: rows of `phases` runs of `pitch` numbers; padded column `x` is number `x / phases` of run
/// `x % phases`. With `row_phases` other than 0 it is a grid of as many by `phases` maps of their own: padded row `y` is row
/// `y / row_phases` of those in line `y % row_phases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Padded {
    size: (usize, usize),
    before: (usize, usize),
    rows: usize,
    phases: usize,
    row_phases: usize,
    pitch: usize,
}

impl Padded {
    /// For maps of `size` with rows and columns of zeros `before` and `after`, and a column stride of `phases`.
    pub(super) fn new(size: (usize, usize), before: (usize, usize), after: (usize, usize), phases: usize) -> Self {
        let rows = before.0 + size.0 + after.0;
        let pitch = (before.1 + size.1 + after.1).div_ceil(phases);
        Self { size, before, rows, phases, row_phases: 0, pitch }
    }

    /// The same with rows sorted as well, by their rest modulo `phases`.
    pub(super) fn sorting_rows(&self, phases: usize) -> Self {
        Self { rows: self.rows.next_multiple_of(phases), row_phases: phases, ..*self }
    }

    /// The same with the zeros after a row being those before the next. A row more at the end holds the last row's.
    pub(super) fn sharing_padding(&self) -> Self {
        let after = self.pitch - self.before.1 - self.size.1;
        let saved = self.before.1.min(after);
        Self { rows: self.rows + usize::from(saved > 0), pitch: self.pitch - saved, ..*self }
    }

    /// Whether the copy would be the map itself.
    pub(super) fn is_plain(&self) -> bool {
        self.phases == 1 && self.row_phases <= 1 && (self.rows, self.pitch) == self.size
    }

    /// Numbers of one map's copy.
    pub(super) fn plane(&self) -> usize {
        self.rows * self.phases * self.pitch
    }

    /// Numbers from one row to the next: of the padded map, or if rows are sorted, of those of one rest.
    pub(super) fn row(&self) -> usize {
        if self.row_phases == 0 { self.phases * self.pitch } else { self.pitch }
    }

    /// Numbers from one run of a row to the next.
    #[inline(always)]
    fn run_step(&self) -> usize {
        self.rows.checked_div(self.row_phases).unwrap_or(1) * self.pitch
    }

    /// Where padded row `y` begins.
    #[inline(always)]
    pub(super) fn line(&self, y: usize) -> usize {
        match self.row_phases {
            0 => y * self.phases * self.pitch,
            phases => y % phases * self.phases * self.run_step() + y / phases * self.pitch,
        }
    }

    /// Where padded column `x` is in its row.
    #[inline(always)]
    pub(super) fn column(&self, x: usize) -> usize {
        // A division costs more than the copy of a run.
        match self.phases {
            1 => x,
            2 => x % 2 * self.run_step() + x / 2,
            4 => x % 4 * self.run_step() + x / 4,
            phases => x % phases * self.run_step() + x / phases,
        }
    }

    /// Numbers for the copies of so many maps, in whole cache lines: none if they would be the maps themselves.
    pub(super) fn copies(&self, maps: usize) -> usize {
        if self.is_plain() { 0 } else { whole_lines(maps * self.plane()) }
    }

    /// Writes a map's copy.
    pub(super) fn copy(&self, map: &[f32], copy: &mut [f32]) {
        copy_plane(self, map, copy)
    }

    /// Adds a copy back to the map (or with `overwrite` replaces the map by it), without the padding.
    pub(super) fn fold(&self, copy: &[f32], map: &mut [f32], overwrite: bool) {
        fold_plane(self, copy, map, overwrite)
    }

    /// The run of row `y` that holds columns of rest `phase`: where it starts in the copy, the first of the map's columns
    /// in it, and how many there are.
    #[inline(always)]
    fn run(&self, y: usize, phase: usize) -> (usize, usize, usize) {
        // The first x with (x + before) % phases == phase.
        let x = (phase + self.phases - self.before.1 % self.phases) % self.phases;
        let start = self.line(y + self.before.0) + phase * self.run_step() + (x + self.before.1) / self.phases;
        (start, x, self.size.1.saturating_sub(x).div_ceil(self.phases))
    }
}

#[inline(always)]
fn copy_plane_body(p: &Padded, map: &[f32], copy: &mut [f32]) {
    let copy = &mut copy[..p.plane()];
    if (p.rows, p.pitch * p.phases) != p.size {
        copy.fill(0.0);
    }
    if p.phases == 4 {
        return copy_by_fours(p, map, copy);
    }
    if p.row_phases > 0 {
        for (y, row) in map.chunks_exact(p.size.1).enumerate() {
            for phase in 0..p.phases {
                let (start, x, len) = p.run(y, phase);
                match p.phases {
                    2 => spread(row, x, 2, &mut copy[start..start + len]),
                    n => spread(row, x, n, &mut copy[start..start + len]),
                }
            }
        }
        return;
    }
    // A few rows stay in the cache while they are read once for each phase.
    for (band, rows) in map.chunks(BAND * p.size.1).enumerate() {
        for phase in 0..p.phases {
            let (start, x, len) = p.run(band * BAND, phase);
            for (row, copy) in rows.chunks_exact(p.size.1).zip(copy[start..].chunks_mut(p.row())) {
                match p.phases {
                    1 => copy[..len].copy_from_slice(row),
                    2 => spread(row, x, 2, &mut copy[..len]),
                    n => spread(row, x, n, &mut copy[..len]),
                }
            }
        }
    }
}

/// Every `step`-th number of a row, from `first` on.
#[inline(always)]
fn spread(row: &[f32], first: usize, step: usize, target: &mut [f32]) {
    target.iter_mut().zip(row[first.min(row.len())..].iter().step_by(step)).for_each(|(t, &s)| *t = s);
}

/// Rows whose columns are sorted by their rest modulo four: whole fours of columns at a time.
#[inline(always)]
fn copy_by_fours(p: &Padded, map: &[f32], copy: &mut [f32]) {
    // The columns up to the first multiple of four in the copy, and where the fours after them go.
    let head = ((4 - p.before.1 % 4) % 4).min(p.size.1);
    let first = (p.before.1 + head) / 4;
    for (y, row) in map.chunks_exact(p.size.1).enumerate() {
        let copy = &mut copy[p.line(p.before.0 + y)..];
        let (start, row) = row.split_at(head);
        for (x, &value) in start.iter().enumerate() {
            copy[p.column(p.before.1 + x)] = value;
        }
        let (fours, rest) = row.as_chunks::<4>();
        let (one, others) = copy.split_at_mut(p.run_step());
        let (two, others) = others.split_at_mut(p.run_step());
        let (three, four) = others.split_at_mut(p.run_step());
        let targets = one[first..].iter_mut().zip(&mut two[first..]).zip(&mut three[first..]).zip(&mut four[first..]);
        for (&[a, b, c, d], (((one, two), three), four)) in fours.iter().zip(targets) {
            (*one, *two, *three, *four) = (a, b, c, d);
        }
        for (x, &value) in rest.iter().enumerate() {
            copy[x * p.run_step() + first + fours.len()] = value;
        }
    }
}

isa::vectorized!(fn copy_plane(p: &Padded, map: &[f32], copy: &mut [f32]) = copy_plane_body);

#[inline(always)]
fn fold_plane_body(p: &Padded, copy: &[f32], map: &mut [f32], overwrite: bool) {
    for (y, row) in map.chunks_exact_mut(p.size.1).enumerate() {
        for phase in 0..p.phases {
            let (start, x, len) = p.run(y, phase);
            let source = &copy[start..start + len];
            let from = x.min(row.len());
            let target = row[from..].iter_mut().step_by(p.phases).zip(source);
            if overwrite {
                target.for_each(|(t, &s)| *t = s);
            } else {
                target.for_each(|(t, &s)| *t += s);
            }
        }
    }
}

isa::vectorized!(fn fold_plane(p: &Padded, copy: &[f32], map: &mut [f32], overwrite: bool) = fold_plane_body);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_pixel_has_its_place_and_the_rest_is_zero(
            size in (1usize..9, 1usize..20), before in (0usize..4, 0usize..4), after in (0usize..4, 0usize..4),
            phases in 1usize..6, row_phases in 0usize..6
        ) {
            let p = Padded::new(size, before, after, phases);
            let p = if row_phases == 0 { p } else { p.sorting_rows(row_phases) };
            let map: Vec<f32> = (1..=size.0 * size.1).map(|i| i as f32).collect();
            let mut copy = vec![f32::NAN; p.plane()];
            p.copy(&map, &mut copy);
            let mut seen = 0;
            for y in 0..before.0 + size.0 + after.0 {
                for x in 0..before.1 + size.1 + after.1 {
                    let inside = (before.0..before.0 + size.0).contains(&y) && (before.1..before.1 + size.1).contains(&x);
                    let expected = if inside { map[(y - before.0) * size.1 + x - before.1] } else { 0.0 };
                    prop_assert_eq!(copy[p.line(y) + p.column(x)], expected);
                    seen += usize::from(inside);
                }
            }
            prop_assert_eq!(copy.iter().filter(|&&v| v != 0.0).count(), seen);
            let mut back = vec![1.0; map.len()];
            p.fold(&copy, &mut back, false);
            prop_assert!(back.iter().zip(&map).all(|(b, m)| *b == m + 1.0));
            p.fold(&copy, &mut back, true);
            prop_assert_eq!(&back, &map);
            if p.is_plain() {
                prop_assert_eq!(copy, map);
            }
        }
    }
}
