//! The gradient of the input: a convolution of the output's gradient with turned filters.
//!
//! At stride S a pixel of the input meets only every S-th place of a filter, and which ones depends on its row and column
//! modulo S. So the input falls into S x S phases, each a convolution at stride 1 with a part of the filter, and every
//! pixel is summed at once: nothing is added back where it came from.

use super::gather::{Gather, Taps};
use super::geometry::Geometry;
use super::padded::Padded;
use super::weights::OutputGradient;
use super::{
    Cut, Method, PIXELS, Pass, depthwise, each_chunk, in_turn, method, round_up, shifted, whole_lines, winograd,
};
use crate::kernels::isa;
use crate::kernels::matmul::packed_len;
use crate::shape::{Axis, Span};
use rayon::prelude::*;

/// One axis of a phase: pixels `first + at * stride` of the input, and the filter's places they meet.
#[derive(Clone, Copy, Debug)]
struct Line {
    first: usize,
    stride: usize,
    /// How many pixels.
    pixels: usize,
    taps: Taps,
    /// The filter's place of tap `t` is `place.0 - t * place.1`.
    place: (usize, usize),
}

/// Zeros before and after the output's gradient that all phases together read.
fn margins(span: Span, input: usize, output: usize) -> (usize, usize) {
    let reach = (span.kernel - 1) * span.dilation;
    let before = reach.saturating_sub(span.padding.0).div_ceil(span.stride);
    let after = ((input - 1 + span.padding.0) / span.stride).saturating_sub(output - 1);
    (before, after)
}

fn line(span: Span, first: usize, input: usize, output: usize) -> Line {
    let Span { kernel, stride, dilation, padding } = span;
    let start = first + padding.0;
    // Output `o` meets input `first + at * stride` at place `i` if `o * stride + i * dilation == start + at * stride`.
    let meets = |i: &usize| (start + kernel * dilation * stride - i * dilation).is_multiple_of(stride);
    let mut places = (0..kernel).filter(meets);
    let (lowest, second) = (places.next(), places.next());
    // A place by itself needs no distance to the next.
    let between = lowest.zip(second).map_or(kernel, |(a, b)| b - a);
    let count = lowest.map_or(0, |i| (kernel - i).div_ceil(between));
    let highest = lowest.map_or(0, |i| i + (count.max(1) - 1) * between);
    // The first tap has the highest place and so the earliest output.
    let before = margins(span, input, output).0;
    let earliest = (start + before * stride).saturating_sub(highest * dilation) / stride;
    let taps = Taps { count, first: earliest, step: between * dilation / stride };
    Line { first, stride, pixels: (input - first).div_ceil(stride), taps, place: (highest, between) }
}

/// One phase: its rows and its columns.
struct Phase {
    rows: Line,
    columns: Line,
    gather: Gather,
}

fn source(g: &Geometry) -> Padded {
    let rows = margins(g.window.along(Axis::Height), g.input.height, g.output.height);
    let columns = margins(g.window.along(Axis::Width), g.input.width, g.output.width);
    Padded::new((g.output.height, g.output.width), (rows.0, columns.0), (rows.1, columns.1), 1)
}

fn phases(g: &Geometry) -> impl Iterator<Item = Phase> {
    let g = *g;
    let (down, across) = (g.window.stride.0.min(g.input.height), g.window.stride.1.min(g.input.width));
    (0..down * across).map(move |i| {
        let rows = line(g.window.along(Axis::Height), i / across, g.input.height, g.output.height);
        let columns = line(g.window.along(Axis::Width), i % across, g.input.width, g.output.width);
        let gather = Gather {
            source: source(&g),
            channels: g.group_filters(),
            taps: (rows.taps, columns.taps),
            row_stride: 1,
            grid: (rows.pixels, columns.pixels),
        };
        Phase { rows, columns, gather }
    })
}

/// At stride 1: all there is to read.
pub(super) fn one_phase(g: &Geometry) -> Gather {
    let rows = line(g.window.along(Axis::Height), 0, g.input.height, g.output.height);
    let columns = line(g.window.along(Axis::Width), 0, g.input.width, g.output.width);
    Gather {
        source: source(g),
        channels: g.group_filters(),
        taps: (rows.taps, columns.taps),
        row_stride: 1,
        grid: (rows.pixels, columns.pixels),
    }
}

/// Numbers that [`prepare`] writes.
pub(super) fn prepared_len(g: &Geometry) -> usize {
    let rows = isa::tile().rows;
    phases(g).map(|p| g.groups * packed_len(g.group_channels(), p.gather.depth(), rows)).sum()
}

/// Packs each phase's part of the filters, group by group: left sides with a row for each channel, panels of `width`.
pub(super) fn prepare(g: &Geometry, w: &[f32], width: usize, prepared: &mut [f32]) {
    let mut rest = prepared;
    for phase in phases(g) {
        let depth = phase.gather.depth();
        let len = packed_len(g.group_channels(), depth, width);
        let packed;
        (packed, rest) = rest.split_at_mut(g.groups * len);
        if depth == 0 {
            continue;
        }
        let panels = len / (depth * width);
        packed.par_chunks_mut(depth * width).enumerate().for_each(|(i, panel)| {
            let (group, first) = (i / panels, i % panels * width);
            let channels = first..g.group_channels().min(first + width);
            let w = &w[group * g.group_filters() * g.depth()..];
            let (columns, taps) = (phase.gather.taps.1.count, phase.gather.taps());
            for (k, target) in panel.chunks_exact_mut(width).enumerate() {
                let (f, tap) = (k / taps, k % taps);
                let i = phase.rows.place.0 - tap / columns * phase.rows.place.1;
                let j = phase.columns.place.0 - tap % columns * phase.columns.place.1;
                let at = f * g.depth() + i * g.window.kernel.1 + j;
                target.fill(0.0);
                let weights = w[at + channels.start * g.taps()..].iter().step_by(g.taps());
                target.iter_mut().zip(weights).take(channels.len()).for_each(|(t, &w)| *t = w);
            }
        });
    }
}

/// A piece's buffers for so many images side by side.
struct Lens {
    maps: usize,
    padded: usize,
    right: usize,
    group_rows: usize,
    pitch: usize,
    out: usize,
    block: usize,
}

impl Lens {
    fn new(g: &Geometry, together: usize) -> Self {
        let tile = isa::tile();
        let pixels = together * phases(g).map(|p| p.gather.pixels()).max().unwrap_or(0);
        let block = if pixels <= PIXELS { pixels } else { round_up(PIXELS, tile.columns).min(pixels) };
        let right = phases(g).map(|p| p.gather.right_len(tile, block)).max().unwrap_or(0);
        let group_rows = round_up(g.group_channels(), tile.rows);
        let pitch = round_up(block, tile.columns);
        let maps = together * g.output.len();
        let padded = together * g.filters() * source(g).plane();
        let [maps, padded, right] = [maps, padded, right].map(whole_lines);
        Self { maps, padded, right, group_rows, pitch, out: g.groups * group_rows * pitch, block }
    }

    fn total(&self) -> usize {
        self.maps + self.padded + self.right + self.out
    }
}

/// How a batch is cut, and the numbers that a piece needs.
fn cut(g: &Geometry, how: Method, batch: usize) -> (Cut, usize) {
    match how {
        Method::Depthwise => depthwise::input_cut(g, batch),
        Method::Shifted => shifted::input_cut(g, batch),
        Method::Winograd(form) => winograd::input_cut(g, form, batch),
        Method::ImplicitGemm | Method::Turned => {
            let pixels = g.input.area().div_ceil(g.window.stride.0 * g.window.stride.1);
            let cut = Cut::new(batch, pixels, PIXELS, |together| Lens::new(g, together).total());
            (cut, Lens::new(g, cut.together).total())
        }
    }
}

/// Numbers of workspace [`backward_input`] needs.
pub(crate) fn input_workspace(g: &Geometry, batch: usize) -> usize {
    let (cut, len) = cut(g, method(g, batch, Pass::BackwardInput), batch);
    cut.workspace(len)
}

/// Gradient of the input, from weights that [`prepare`](super::prepare) made for
/// [`Pass::BackwardInput`](super::Pass::BackwardInput); overwrites `dx`, or adds to it with `accumulate`.
pub(crate) fn backward_input(
    g: &Geometry,
    prepared: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let batch = dx.len() / g.input.len();
    let how = method(g, batch, Pass::BackwardInput);
    let (cut, len) = cut(g, how, batch);
    let pieces = dx.chunks_mut(cut.images * g.input.len()).enumerate();
    in_turn(workspace, len, pieces, |(piece, dx), workspace| {
        let first = piece * cut.images;
        match how {
            Method::Depthwise => depthwise::backward_input(g, cut, first, prepared, dy, dx, accumulate, workspace),
            Method::Shifted => shifted::backward_input(g, cut, first, prepared, dy, dx, accumulate, workspace),
            Method::Winograd(form) => {
                winograd::backward_input(g, form, cut, first, prepared, dy, dx, accumulate, workspace)
            }
            Method::ImplicitGemm | Method::Turned => {
                piece_backward(g, cut, first, prepared, dy, dx, accumulate, workspace)
            }
        }
    });
}

/// Writes the padded copies of the convolution's own output gradient of `images` images from `first` on. `maps` holds
/// as many outputs; it is not touched if there is nothing to undo.
pub(super) fn pad_gradient<'a>(
    g: &Geometry,
    parallel: bool,
    source: &Padded,
    dy: &'a OutputGradient<'_>,
    (first, images): (usize, usize),
    maps: &'a mut [f32],
    padded: &'a mut [f32],
) -> &'a [f32] {
    let maps = dy.images(g, first, images, maps, parallel);
    if source.is_plain() {
        return maps;
    }
    let padded = &mut padded[..images * g.filters() * source.plane()];
    let area = g.pixels();
    each_chunk(parallel, padded, source.plane(), |i, copy| source.copy(&maps[i * area..][..area], copy));
    padded
}

fn piece_backward(
    g: &Geometry,
    cut: Cut,
    first: usize,
    prepared: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let tile = isa::tile();
    let lens = Lens::new(g, cut.together);
    let (maps, workspace) = workspace.split_at_mut(lens.maps);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (right, out) = workspace.split_at_mut(lens.right);
    let out = &mut out[..lens.out];
    let layout = source(g);
    let image = g.filters() * layout.plane();
    for (step, dx) in dx.chunks_mut(cut.together * g.input.len()).enumerate() {
        let images = dx.len() / g.input.len();
        let range = (first + step * cut.together, images);
        let source = pad_gradient(g, cut.parallel, &layout, &dy, range, maps, padded);
        let mut weights = prepared;
        for Phase { rows, columns, gather } in phases(g) {
            let packed = packed_len(g.group_channels(), gather.depth(), tile.rows);
            let (here, rest) = weights.split_at(g.groups * packed);
            weights = rest;
            let (pixels, all) = (gather.pixels(), images * gather.pixels());
            for start in (0..all).step_by(lens.block) {
                let block = start..all.min(start + lens.block);
                for (group, out) in out.chunks_exact_mut(lens.group_rows * lens.pitch).enumerate() {
                    if gather.depth() == 0 {
                        out.fill(0.0);
                        continue;
                    }
                    let source = &source[group * g.group_filters() * layout.plane()..];
                    let weights = &here[group * packed..][..packed];
                    let (pixels, out) = (block.clone(), (out, g.group_channels()));
                    gather.multiply(tile, source, image, pixels, weights, right, out, (lens.pitch, 0), cut.parallel);
                }
                let out = &*out;
                each_chunk(cut.parallel, dx, g.input.area(), |i, dx| {
                    let (n, c) = (i / g.input.channels, i % g.input.channels);
                    let (from, to) = (block.start.max(n * pixels), block.end.min((n + 1) * pixels));
                    if from < to {
                        let row = c / g.group_channels() * lens.group_rows + c % g.group_channels();
                        let sums = &out[row * lens.pitch + from - block.start..][..to - from];
                        place(&rows, &columns, from - n * pixels, sums, g.input.width, accumulate, dx);
                    }
                });
            }
        }
    }
}

/// Writes (or adds) the sums of a phase's pixels from `first` on where they belong in a channel of the input.
#[inline(always)]
fn place_body(rows: &Line, columns: &Line, first: usize, sums: &[f32], width: usize, accumulate: bool, dx: &mut [f32]) {
    let (mut at, mut sums) = (first, sums);
    while !sums.is_empty() {
        let (y, x) = (at / columns.pixels, at % columns.pixels);
        let (run, rest) = sums.split_at(sums.len().min(columns.pixels - x));
        let start = (rows.first + y * rows.stride) * width + columns.first + x * columns.stride;
        let target = &mut dx[start..];
        match (columns.stride, accumulate) {
            (1, false) => target[..run.len()].copy_from_slice(run),
            (1, true) => target.iter_mut().zip(run).for_each(|(t, s)| *t += s),
            (stride, false) => target.iter_mut().step_by(stride).zip(run).for_each(|(t, &s)| *t = s),
            (stride, true) => target.iter_mut().step_by(stride).zip(run).for_each(|(t, s)| *t += s),
        }
        (at, sums) = (at + run.len(), rest);
    }
}

isa::vectorized!(
    fn place(
        rows: &Line,
        columns: &Line,
        first: usize,
        sums: &[f32],
        width: usize,
        accumulate: bool,
        dx: &mut [f32],
    ) = place_body
);
