//! Pooling (section 7.3), plane by plane. Padding never wins a maximum and, unless asked, does not count in an average.

use super::isa;
use crate::shape::{Axis, Padding, Shape, ShapeError, Span, Window};
use rayon::prelude::*;
use std::ops::Range;

/// A pooling with every size fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) input: Shape,
    pub(crate) window: Window,
    pub(crate) output: Shape,
}

impl Geometry {
    pub(crate) fn new(input: Shape, window: Window) -> Result<Self, ShapeError> {
        if input.channels == 0 {
            return Err(ShapeError::Empty { what: "the input", found: <[usize; 3]>::from(input).to_vec() });
        }
        let (height, width) = window.output((input.height, input.width))?;
        let geometry = Self { input, window, output: Shape::new(input.channels, height, width) };
        for (what, axis, size, windows) in [
            ("the pooling padding (height)", Axis::Height, input.height, height),
            ("the pooling padding (width)", Axis::Width, input.width, width),
        ] {
            let span = window.along(axis);
            // A window that lies in the padding alone would have nothing to choose from.
            if (0..windows).any(|at| under(span, at, size).is_empty()) {
                let found = format!("{} before and {} after", span.padding.0, span.padding.1);
                return Err(ShapeError::Option { what, found, expected: "smaller, so that every window sees a pixel" });
            }
        }
        Ok(geometry)
    }

    /// Rows and columns of the input under the window at (y, x), without the padding; every `dilation`-th counts.
    #[inline(always)]
    pub(crate) fn under(&self, y: usize, x: usize) -> (Range<usize>, Range<usize>) {
        (
            under(self.window.along(Axis::Height), y, self.input.height),
            under(self.window.along(Axis::Width), x, self.input.width),
        )
    }

    /// How many rows of outputs, from the first on, have windows within the first `rows` rows of the input.
    pub(crate) fn rows_within(&self, rows: usize) -> usize {
        (0..self.output.height).take_while(|&row| self.under(row, 0).0.end <= rows).count()
    }

    /// How many numbers an average at (y, x) divides by: those under the window, or with `padding` also the padded ones
    /// (but never beyond the padded input).
    #[inline(always)]
    pub(crate) fn count(&self, y: usize, x: usize, padding: bool) -> f32 {
        let count = |span: Span, at: usize, size: usize| {
            if padding {
                span.kernel.min((size + span.padding.0 + span.padding.1 - at * span.stride).div_ceil(span.dilation))
            } else {
                under(span, at, size).len().div_ceil(span.dilation)
            }
        };
        let rows = count(self.window.along(Axis::Height), y, self.input.height);
        (rows * count(self.window.along(Axis::Width), x, self.input.width)) as f32
    }

    /// Whether every window is 2 x 2, none shares a pixel with another, and all lie in the input.
    pub(crate) fn is_two_by_two(&self) -> bool {
        self.window.kernel == (2, 2)
            && self.window.stride == (2, 2)
            && self.window.dilation == (1, 1)
            && self.window.padding == Padding::NONE
            && self.output.height * 2 <= self.input.height
            && self.output.width * 2 <= self.input.width
    }
}

/// Places of an axis of length `size` under the window at `at`; every `dilation`-th counts.
#[inline(always)]
fn under(span: Span, at: usize, size: usize) -> Range<usize> {
    let (start, pad) = (at * span.stride, span.padding.0);
    let skipped = pad.saturating_sub(start).div_ceil(span.dilation) * span.dilation;
    let end = (start + (span.kernel - 1) * span.dilation + 1).saturating_sub(pad).min(size);
    start + skipped - pad..end.max(start + skipped - pad)
}

/// The largest number of each window of one plane, for as many rows of outputs from `first` on as `y` holds; `winner` gets its
/// place in the plane (the first of equals in row order). NaN wins, so that a fault shows up in the loss.
#[inline(always)]
pub(crate) fn max_plane_body(g: &Geometry, first: usize, x: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) {
    let across = g.window.along(Axis::Width);
    let (stride, reach) = (across.stride, (across.kernel - 1) * across.dilation + 1);
    let fits = (RUN - 1) * stride + reach <= SEEN && g.input.area() < PADDING as usize;
    match winner {
        Some(winner) if g.is_two_by_two() => max_two_by_two(g, first, x, y, |i, place| winner[i] = place),
        None if g.is_two_by_two() => max_two_by_two(g, first, x, y, |_, _| ()),
        Some(winner) if fits && stride == 1 => max_rows::<1, true>(g, first, x, y, winner),
        Some(winner) if fits && stride == 2 => max_rows::<2, true>(g, first, x, y, winner),
        Some(winner) if fits && stride == 3 => max_rows::<3, true>(g, first, x, y, winner),
        None if fits && stride == 1 => max_rows::<1, false>(g, first, x, y, &mut []),
        None if fits && stride == 2 => max_rows::<2, false>(g, first, x, y, &mut []),
        None if fits && stride == 3 => max_rows::<3, false>(g, first, x, y, &mut []),
        Some(winner) => max_any(g, first, x, y, |i, place| winner[i] = place),
        None => max_any(g, first, x, y, |_, _| ()),
    }
}

#[inline(always)]
fn max_any(g: &Geometry, first: usize, x: &[f32], y: &mut [f32], mut note: impl FnMut(usize, u32)) {
    for (i, out) in y.iter_mut().enumerate() {
        let (best, place) = max_one(g, x, (first + i / g.output.width, i % g.output.width));
        *out = best;
        note(i, place);
    }
}

/// The largest number under one window, and its place.
#[inline(always)]
fn max_one(g: &Geometry, x: &[f32], at: (usize, usize)) -> (f32, u32) {
    let (rows, columns) = g.under(at.0, at.1);
    let mut place = rows.start * g.input.width + columns.start;
    let mut best = x[place];
    for row in rows.step_by(g.window.dilation.0) {
        let first = row * g.input.width + columns.start;
        for (i, &value) in x[first..][..columns.len()].iter().enumerate().step_by(g.window.dilation.1) {
            if value > best || (value.is_nan() && !best.is_nan()) {
                (best, place) = (value, first + i);
            }
        }
    }
    (best, place as u32)
}

/// Outputs of [`max_rows`] at a time, the most columns that their windows may see together, and how many of these are compared at
/// once.
const RUN: usize = 32;
const SEEN: usize = 128;
const LANES: usize = 16;
/// The row of what is padding: after all others, so that of equals a pixel is taken.
const PADDING: u32 = u32::MAX / 2;

/// [`max_any`] row by row of outputs, `STRIDE` columns apart: first the rows under the windows are compared, column by column of
/// the input, then the columns of each window. Padding is minus infinity: every window sees a pixel, and that is as large.
#[inline(always)]
fn max_rows<const STRIDE: usize, const PLACES: bool>(
    g: &Geometry,
    first: usize,
    x: &[f32],
    y: &mut [f32],
    winner: &mut [u32],
) {
    let (width, out_width) = (g.input.width, g.output.width);
    let across = g.window.along(Axis::Width);
    let reach = (across.kernel - 1) * across.dilation + 1;
    let (mut tall, mut rows_of) = ([f32::NEG_INFINITY; SEEN], [0u32; SEEN]);
    for (row, y) in y.chunks_exact_mut(out_width).enumerate() {
        let rows = g.under(first + row, 0).0;
        for start in (0..out_width).step_by(RUN) {
            let run = RUN.min(out_width - start);
            // Columns under the windows of this run, counted with the padding; the input's own among them.
            let column = start * STRIDE;
            let seen = (run - 1) * STRIDE + reach;
            let from = column.max(across.padding.0);
            let own = from - column..(column + seen).min(across.padding.0 + width).max(from) - column;
            if own.len() < seen {
                tall[..own.start].fill(f32::NEG_INFINITY);
                rows_of[..own.start].fill(PADDING);
            }
            for at in own.clone().step_by(LANES) {
                let count = LANES.min(own.end - at);
                let place = column + at - across.padding.0;
                let (mut best, mut best_row) = ([f32::NEG_INFINITY; LANES], [(rows.start * width) as u32; LANES]);
                for r in rows.clone().step_by(g.window.dilation.0) {
                    let source = &x[r * width + place..];
                    let values = match source.first_chunk::<LANES>() {
                        Some(values) => *values,
                        None => {
                            let mut values = [0.0; LANES];
                            values[..count].copy_from_slice(&source[..count]);
                            values
                        }
                    };
                    for l in 0..LANES {
                        let wins = (values[l] > best[l]) | (values[l].is_nan() & !best[l].is_nan());
                        best[l] = if wins { values[l] } else { best[l] };
                        if PLACES {
                            best_row[l] = if wins { (r * width) as u32 } else { best_row[l] };
                        }
                    }
                }
                // Whole registers; what is too much lies beyond the columns that are read, or is overwritten.
                if let (Some(tall), Some(rows_of)) =
                    (tall[at..].first_chunk_mut::<LANES>(), rows_of[at..].first_chunk_mut::<LANES>())
                {
                    (*tall, *rows_of) = (best, best_row);
                } else {
                    tall[at..at + count].copy_from_slice(&best[..count]);
                    rows_of[at..at + count].copy_from_slice(&best_row[..count]);
                }
            }
            if own.end < seen {
                tall[own.end..seen].fill(f32::NEG_INFINITY);
                rows_of[own.end..seen].fill(PADDING);
            }
            let (mut best, mut place) = ([f32::NEG_INFINITY; RUN], [u32::MAX; RUN]);
            for j in 0..across.kernel {
                // The column that the first window of the run sees at its place `j`, in the input; before its begin for padding.
                let at = j * across.dilation;
                let input = (column + at).wrapping_sub(across.padding.0) as u32;
                let places = at..at + (RUN - 1) * STRIDE + 1;
                let (tall, rows_of) = (&tall[places.clone()], &rows_of[places]);
                // Columns first, then comparisons: strides within these would be done one by one.
                let (mut values, mut here) = ([0.0f32; RUN], [0u32; RUN]);
                for l in 0..RUN {
                    values[l] = tall[l * STRIDE];
                }
                if PLACES {
                    for l in 0..RUN {
                        here[l] = rows_of[l * STRIDE];
                    }
                    for (l, here) in here.iter_mut().enumerate() {
                        *here = here.wrapping_add(input).wrapping_add((l * STRIDE) as u32);
                    }
                }
                for l in 0..RUN {
                    let (value, most) = (values[l], best[l]);
                    let larger = (value > most) | (value.is_nan() & !most.is_nan());
                    // Of equals the first in row order.
                    let equal = (value == most) | (value.is_nan() & most.is_nan());
                    let wins = if PLACES { larger | (equal & (here[l] < place[l])) } else { larger };
                    best[l] = if wins { value } else { most };
                    if PLACES {
                        place[l] = if wins { here[l] } else { place[l] };
                    }
                }
            }
            y[start..start + run].copy_from_slice(&best[..run]);
            if PLACES {
                winner[row * out_width + start..][..run].copy_from_slice(&place[..run]);
            }
        }
    }
}

#[inline(always)]
fn max_two_by_two(g: &Geometry, first: usize, x: &[f32], y: &mut [f32], mut note: impl FnMut(usize, u32)) {
    let (width, out_width) = (g.input.width, g.output.width);
    // Without branches, so that it vectorises: a place is a number of steps from the window's first pixel.
    let wins = |a: f32, b: f32| (a > b) | (a.is_nan());
    for (row, out) in y.chunks_exact_mut(out_width).enumerate() {
        let at = 2 * (first + row) * width;
        let top = x[at..][..2 * out_width].as_chunks::<2>().0;
        let bottom = x[at + width..][..2 * out_width].as_chunks::<2>().0;
        for (j, ((out, &[a, b]), &[c, d])) in out.iter_mut().zip(top).zip(bottom).enumerate() {
            let (upper, u) = if wins(b, a) { (b, 1) } else { (a, 0) };
            let (lower, l) = if wins(d, c) { (d, width as u32 + 1) } else { (c, width as u32) };
            let (best, place) = if wins(lower, upper) { (lower, l) } else { (upper, u) };
            *out = best;
            note(row * out_width + j, (at + 2 * j) as u32 + place);
        }
    }
}

isa::vectorized!(
    fn max_plane(g: &Geometry, first: usize, x: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) = max_plane_body
);

/// Planes that make a task worth handing to another thread.
fn planes_a_task(g: &Geometry) -> usize {
    (16 * 1024 / g.input.area().max(1)).max(1)
}

/// [`max_plane`] for a batch: `planes` is N·C.
pub(crate) fn max_forward(g: &Geometry, x: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) {
    let (from, to) = (g.input.area(), g.output.area());
    let planes = x.par_chunks_exact(from).zip(y.par_chunks_exact_mut(to)).with_min_len(planes_a_task(g));
    match winner {
        Some(winner) => {
            planes.zip(winner.par_chunks_exact_mut(to)).for_each(|((x, y), winner)| max_plane(g, 0, x, y, Some(winner)))
        }
        None => planes.for_each(|(x, y)| max_plane(g, 0, x, y, None)),
    }
}

/// Gives each output's gradient to the winner of its window: overwrites `dx`, or adds to it.
pub(crate) fn max_backward(g: &Geometry, winner: &[u32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
    let (from, to) = (g.input.area(), g.output.area());
    dx.par_chunks_exact_mut(from)
        .zip(dy.par_chunks_exact(to).zip(winner.par_chunks_exact(to)))
        .with_min_len(planes_a_task(g))
        .for_each(|(dx, (dy, winner))| {
            if !accumulate {
                dx.fill(0.0);
            }
            dy.iter().zip(winner).for_each(|(&g, &place)| dx[place as usize] += g);
        });
}

/// The mean of each window of one plane.
#[inline(always)]
fn average_plane_body(g: &Geometry, count_padding: bool, x: &[f32], y: &mut [f32]) {
    if g.is_two_by_two() {
        let width = g.output.width;
        let rows = x.chunks_exact(2 * g.input.width).map(|rows| rows.split_at(g.input.width));
        for (y, (top, bottom)) in y.chunks_exact_mut(width).zip(rows) {
            let (top, bottom) = (top.as_chunks::<2>().0, bottom.as_chunks::<2>().0);
            for ((y, [a, b]), [c, d]) in y.iter_mut().zip(top).zip(bottom) {
                *y = ((a + b) + (c + d)) * 0.25;
            }
        }
        return;
    }
    for (i, out) in y.iter_mut().enumerate() {
        let at = (i / g.output.width, i % g.output.width);
        let (rows, columns) = g.under(at.0, at.1);
        let row_sum =
            |r: usize| -> f32 { x[r * g.input.width..][columns.clone()].iter().step_by(g.window.dilation.1).sum() };
        let sum: f32 = rows.step_by(g.window.dilation.0).map(row_sum).sum();
        *out = sum / g.count(at.0, at.1, count_padding);
    }
}

isa::vectorized!(fn average_plane(g: &Geometry, count_padding: bool, x: &[f32], y: &mut [f32]) = average_plane_body);

/// The mean of each window; `count_padding` also divides by the padded places.
pub(crate) fn average_forward(g: &Geometry, count_padding: bool, x: &[f32], y: &mut [f32]) {
    x.par_chunks_exact(g.input.area())
        .zip(y.par_chunks_exact_mut(g.output.area()))
        .with_min_len(planes_a_task(g))
        .for_each(|(x, y)| average_plane(g, count_padding, x, y));
}

/// Spreads each output's gradient over its window: overwrites one plane, or adds to it.
#[inline(always)]
fn spread_plane_body(g: &Geometry, count_padding: bool, dy: &[f32], dx: &mut [f32], accumulate: bool) {
    if !accumulate && g.is_two_by_two() && g.output.height * 2 == g.input.height && g.output.width * 2 == g.input.width
    {
        for (dy, rows) in dy.chunks_exact(g.output.width).zip(dx.chunks_exact_mut(2 * g.input.width)) {
            for row in rows.chunks_exact_mut(g.input.width) {
                row.as_chunks_mut::<2>().0.iter_mut().zip(dy).for_each(|(d, g)| *d = [g * 0.25; 2]);
            }
        }
        return;
    }
    if !accumulate {
        dx.fill(0.0);
    }
    for (i, gradient) in dy.iter().enumerate() {
        let at = (i / g.output.width, i % g.output.width);
        let (rows, columns) = g.under(at.0, at.1);
        let share = gradient / g.count(at.0, at.1, count_padding);
        for r in rows.step_by(g.window.dilation.0) {
            let row = &mut dx[r * g.input.width..][columns.clone()];
            row.iter_mut().step_by(g.window.dilation.1).for_each(|d| *d += share);
        }
    }
}

isa::vectorized!(
    fn spread_plane(g: &Geometry, count_padding: bool, dy: &[f32], dx: &mut [f32], accumulate: bool) = spread_plane_body
);

/// Spreads each output's gradient over its window: overwrites `dx`, or adds to it.
pub(crate) fn average_backward(g: &Geometry, count_padding: bool, dy: &[f32], dx: &mut [f32], accumulate: bool) {
    dx.par_chunks_exact_mut(g.input.area())
        .zip(dy.par_chunks_exact(g.output.area()))
        .with_min_len(planes_a_task(g))
        .for_each(|(dx, dy)| spread_plane(g, count_padding, dy, dx, accumulate));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Rounding;
    use proptest::prelude::*;

    proptest! {
        /// Against one window after the other, with few different numbers, so that many are equal.
        #[test]
        fn of_equals_the_first_wins_and_nan_before_all(
            size in (1usize..12, 1usize..90), kernel in (1usize..5, 1usize..5), stride in (1usize..4, 1usize..5),
            padding in (0usize..4, 0usize..4), dilation in (1usize..3, 1usize..3), seed in any::<u64>(), skipped in 0usize..3,
        ) {
            let (down, across) = (padding.0.min(kernel.0 - 1), padding.1.min(kernel.1 - 1));
            let padding = Padding { top: down, left: across, bottom: down, right: across };
            let window = Window { kernel, stride, padding, dilation, ..Window::square(1, 1, 0).rounding(Rounding::Floor) };
            let Ok(g) = Geometry::new(Shape::new(1, size.0, size.1), window) else { return Ok(()) };
            let random = crate::random::Random::new(seed, crate::random::Purpose::Test, 0);
            let kinds = [f32::NEG_INFINITY, 0.0, 1.0, 2.0, f32::NAN];
            let x: Vec<f32> = (0..size.0 * size.1).map(|i| kinds[random.below(i as u64, 5) as usize]).collect();
            let first = skipped.min(g.output.height - 1);
            let len = (g.output.height - first) * g.output.width;
            let (mut y, mut alone, mut winner) = (vec![0.0; len], vec![0.0; len], vec![0; len]);
            max_plane(&g, first, &x, &mut y, Some(&mut winner));
            max_plane(&g, first, &x, &mut alone, None);
            for i in 0..len {
                let (best, place) = max_one(&g, &x, (first + i / g.output.width, i % g.output.width));
                let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
                // Of several that are not numbers any will do.
                let found = if best.is_nan() && x[winner[i] as usize].is_nan() { place } else { winner[i] };
                prop_assert_eq!(found, place, "output {} of {:?}", i, &g);
                prop_assert!(same(y[i], best) && same(alone[i], best), "output {}: {} and {}, not {}", i, y[i], alone[i], best);
            }
        }
    }

    #[test]
    fn rows_are_ready_when_their_windows_are() {
        let window = Window::square(3, 2, 1).rounding(Rounding::Floor);
        let g = Geometry::new(Shape::new(1, 9, 9), window).unwrap();
        let ready: Vec<usize> = (0..=9).map(|rows| g.rows_within(rows)).collect();
        assert_eq!(ready, [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]);
    }
}
