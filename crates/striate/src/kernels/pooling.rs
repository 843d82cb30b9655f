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

/// The largest number of each window of one plane; `winner` gets its place in the plane (the first of equals in row
/// order). NaN wins, so that a fault shows up in the loss.
#[inline(always)]
pub(crate) fn max_plane_body(g: &Geometry, x: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) {
    match winner {
        Some(winner) if g.is_two_by_two() => max_two_by_two(g, x, y, |i, place| winner[i] = place),
        None if g.is_two_by_two() => max_two_by_two(g, x, y, |_, _| ()),
        winner if g.window.stride.1 == 1 => max_rows::<1>(g, x, y, winner),
        winner if g.window.stride.1 == 2 => max_rows::<2>(g, x, y, winner),
        winner if g.window.stride.1 == 3 => max_rows::<3>(g, x, y, winner),
        Some(winner) => max_any(g, x, y, |i, place| winner[i] = place),
        None => max_any(g, x, y, |_, _| ()),
    }
}

#[inline(always)]
fn max_any(g: &Geometry, x: &[f32], y: &mut [f32], mut note: impl FnMut(usize, u32)) {
    for (i, out) in y.iter_mut().enumerate() {
        let (best, place) = max_one(g, x, (i / g.output.width, i % g.output.width));
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

/// [`max_any`] row by row of outputs, `STRIDE` columns apart: one place of the window after the other is compared for all of
/// them, which vectorises. Windows that leave the input to the left or right are done one by one.
#[inline(always)]
fn max_rows<const STRIDE: usize>(g: &Geometry, x: &[f32], y: &mut [f32], mut winner: Option<&mut [u32]>) {
    let (width, out_width) = (g.input.width, g.output.width);
    let across = g.window.along(Axis::Width);
    let reach = (across.kernel - 1) * across.dilation + 1;
    // Outputs whose windows lie inside: at * STRIDE >= padding, and at * STRIDE - padding + reach <= width.
    let from = across.padding.0.div_ceil(STRIDE).min(out_width);
    let to = (width + across.padding.0).checked_sub(reach).map_or(0, |last| last / STRIDE + 1);
    let inside = from..to.clamp(from, out_width);
    // Outputs compared at a time: their maxima and places stay in the L1 cache.
    const RUN: usize = 32;
    for (row, y) in y.chunks_exact_mut(out_width).enumerate() {
        let mut winner = winner.as_deref_mut().map(|w| &mut w[row * out_width..][..out_width]);
        for at in (0..inside.start).chain(inside.end..out_width) {
            let (best, place) = max_one(g, x, (row, at));
            y[at] = best;
            if let Some(winner) = &mut winner {
                winner[at] = place;
            }
        }
        let rows = g.under(row, 0).0;
        for start in inside.clone().step_by(RUN) {
            let run = RUN.min(inside.end - start);
            let column = start * STRIDE - across.padding.0;
            let (mut best, mut place) = ([f32::NEG_INFINITY; RUN], [0u32; RUN]);
            place[..run]
                .iter_mut()
                .zip((rows.start * width + column..).step_by(STRIDE))
                .for_each(|(p, at)| *p = at as u32);
            let (best, place) = (&mut best[..run], &mut place[..run]);
            for r in rows.clone().step_by(g.window.dilation.0) {
                for j in 0..across.kernel {
                    let first = r * width + column + j * across.dilation;
                    let values = &x[first..][..(run - 1) * STRIDE + 1];
                    for i in 0..run {
                        let value = values[i * STRIDE];
                        let wins = (value > best[i]) | (value.is_nan() & !best[i].is_nan());
                        best[i] = if wins { value } else { best[i] };
                        place[i] = if wins { (first + i * STRIDE) as u32 } else { place[i] };
                    }
                }
            }
            y[start..start + run].copy_from_slice(best);
            if let Some(winner) = &mut winner {
                winner[start..start + run].copy_from_slice(place);
            }
        }
    }
}

#[inline(always)]
fn max_two_by_two(g: &Geometry, x: &[f32], y: &mut [f32], mut note: impl FnMut(usize, u32)) {
    let (width, out_width) = (g.input.width, g.output.width);
    // Without branches, so that it vectorises: a place is a number of steps from the window's first pixel.
    let wins = |a: f32, b: f32| (a > b) | (a.is_nan());
    for (row, out) in y.chunks_exact_mut(out_width).enumerate() {
        let at = 2 * row * width;
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

isa::vectorized!(fn max_plane(g: &Geometry, x: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) = max_plane_body);

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
            planes.zip(winner.par_chunks_exact_mut(to)).for_each(|((x, y), winner)| max_plane(g, x, y, Some(winner)))
        }
        None => planes.for_each(|(x, y)| max_plane(g, x, y, None)),
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
