//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016):
//! a 4x4 tile of outputs costs 36 multiplications a channel instead of 144.
//!
//! With `d` a 6x6 tile of the input and `g` a filter, a tile of the output is `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The sum over
//! channels stands inside the brackets, so each of the 36 places is a matrix product over all tiles and filters. The
//! input's gradient is the same with turned filters; the weights' gradient is the formula's own adjoint,
//! `Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ d B)] G`.

use super::forward::{Finish, Part};
use super::gather::{Gather, Side, Taps, multiply};
use super::geometry::Geometry;
use super::input::pad_gradient;
use super::padded::Padded;
use super::weights::OutputGradient;
use super::{Cut, Pass, each_chunk, round_up};
use crate::kernels::isa::{self, Left, Tile};
use crate::kernels::matmul::{DEPTH_BLOCK, copy_short, packed_len};
use rayon::prelude::*;
use std::ops::Range;

/// Side of a tile of outputs.
pub(super) const OUT: usize = 4;
/// Side of a tile of inputs, and of the products.
const SIDE: usize = OUT + 2;
/// Products of a tile.
const PLACES: usize = SIDE * SIDE;
/// Numbers gathered of a channel, for the widest panel of any set, with room for a run after the last.
const RAW: usize = (PLACES + 1) * 32;
/// Lanes that the transforms work on at once.
const LANES: usize = 8;

/// Whether the shapes allow it and it pays: the transforms are spread over enough channels and filters, and the weights,
/// four times as large as before, over enough tiles, which also fill a panel of the products.
pub(super) fn fits(g: &Geometry, batch: usize) -> bool {
    let (w, p) = (&g.window, &g.window.padding);
    let plain = w.kernel == (3, 3) && w.stride == (1, 1) && w.dilation == (1, 1) && g.groups == 1;
    let narrow = p.top.max(p.left).max(p.bottom).max(p.right) <= 2;
    let tiles = g.output.height.div_ceil(OUT) * g.output.width.div_ceil(OUT);
    // Lanes in the tiles' last rows and columns are wasted.
    let full = 4 * g.output.area() >= 2 * tiles * OUT * OUT;
    plain
        && narrow
        && full
        && g.input.channels >= 16
        && g.filters() >= 16
        && batch * tiles >= isa::tile().columns.max(16)
}

/// Whether the weights' gradient pays too: its sums, four times as large as the weights, are read and written for every
/// block of tiles.
pub(super) fn gradient_fits(g: &Geometry, batch: usize) -> bool {
    batch * Direction::forward(g).tiles() >= 64
}

/// `Bᵀ d` for one line of six.
#[inline(always)]
fn input_line<const L: usize>(d: [[f32; L]; 6]) -> [[f32; L]; 6] {
    let mut out = [[0.0; L]; 6];
    for l in 0..L {
        let [d0, d1, d2, d3, d4, d5] = [d[0][l], d[1][l], d[2][l], d[3][l], d[4][l], d[5][l]];
        let (even, odd) = (d4 - 4.0 * d2, d3 - 4.0 * d1);
        let (near, far) = (d4 - d2, 2.0 * (d3 - d1));
        let line = [4.0 * d0 - 5.0 * d2 + d4, even + odd, even - odd, near + far, near - far, 4.0 * d1 - 5.0 * d3 + d5];
        for i in 0..6 {
            out[i][l] = line[i];
        }
    }
    out
}

/// `Aᵀ m` for one line of six.
#[inline(always)]
fn output_line<const L: usize>(m: [[f32; L]; 6]) -> [[f32; L]; 4] {
    let mut out = [[0.0; L]; 4];
    for l in 0..L {
        let [m0, m1, m2, m3, m4, m5] = [m[0][l], m[1][l], m[2][l], m[3][l], m[4][l], m[5][l]];
        let (plus, minus, plus2, minus2) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
        let line = [m0 + plus + plus2, minus + 2.0 * minus2, plus + 4.0 * plus2, minus + 8.0 * minus2 + m5];
        for i in 0..4 {
            out[i][l] = line[i];
        }
    }
    out
}

/// `A y` for one line of four.
#[inline(always)]
fn gradient_line<const L: usize>(y: [[f32; L]; 4]) -> [[f32; L]; 6] {
    let mut out = [[0.0; L]; 6];
    for l in 0..L {
        let [y0, y1, y2, y3] = [y[0][l], y[1][l], y[2][l], y[3][l]];
        let (even, odd, even4, odd8) = (y0 + y2, y1 + y3, y0 + 4.0 * y2, 2.0 * y1 + 8.0 * y3);
        let line = [y0, even + odd, even - odd, even4 + odd8, even4 - odd8, y3];
        for i in 0..6 {
            out[i][l] = line[i];
        }
    }
    out
}

/// `G g` for one line of three.
#[inline(always)]
fn filter_line<const L: usize>(g: [[f32; L]; 3]) -> [[f32; L]; 6] {
    let mut out = [[0.0; L]; 6];
    for l in 0..L {
        let [g0, g1, g2] = [g[0][l], g[1][l], g[2][l]];
        let (even, even4) = ((g0 + g2) * (-1.0 / 6.0), (g0 + 4.0 * g2) * (1.0 / 24.0));
        let (odd, odd2) = (g1 * (1.0 / 6.0), g1 * (1.0 / 12.0));
        let line = [g0 * 0.25, even - odd, even + odd, even4 + odd2, even4 - odd2, g2];
        for i in 0..6 {
            out[i][l] = line[i];
        }
    }
    out
}

/// `Gᵀ u` for one line of six.
#[inline(always)]
fn filter_gradient_line<const L: usize>(u: [[f32; L]; 6]) -> [[f32; L]; 3] {
    let mut out = [[0.0; L]; 3];
    for l in 0..L {
        let [u0, u1, u2, u3, u4, u5] = [u[0][l], u[1][l], u[2][l], u[3][l], u[4][l], u[5][l]];
        let (near, far) = ((u1 + u2) * (1.0 / 6.0), u3 + u4);
        let line = [
            u0 * 0.25 - near + far * (1.0 / 24.0),
            (u2 - u1) * (1.0 / 6.0) + (u3 - u4) * (1.0 / 12.0),
            far * (1.0 / 6.0) - near + u5,
        ];
        for i in 0..3 {
            out[i][l] = line[i];
        }
    }
    out
}

/// `T s Tᵀ` for a square of lanes, where `line` is `T` on one line.
#[inline(always)]
fn both_ways<const IN: usize, const TO: usize, const L: usize>(
    square: &[[[f32; L]; IN]; IN],
    line: impl Fn([[f32; L]; IN]) -> [[f32; L]; TO],
) -> [[[f32; L]; TO]; TO] {
    let mut half = [[[0.0; L]; IN]; TO];
    // Plain loops: what closures and iterators leave out of line is not compiled for the active set.
    for j in 0..IN {
        let mut column = [[0.0; L]; IN];
        for i in 0..IN {
            column[i] = square[i][j];
        }
        let column = line(column);
        for i in 0..TO {
            half[i][j] = column[i];
        }
    }
    let mut whole = [[[0.0; L]; TO]; TO];
    for i in 0..TO {
        whole[i] = line(half[i]);
    }
    whole
}

/// One direction of a convolution: what is read, and what comes out.
struct Direction {
    gather: Gather,
    filters: usize,
    /// Rows and columns that come out.
    size: (usize, usize),
}

impl Direction {
    fn new(
        channels: usize,
        input: (usize, usize),
        before: (usize, usize),
        filters: usize,
        size: (usize, usize),
    ) -> Self {
        let grid = (size.0.div_ceil(OUT), size.1.div_ceil(OUT));
        let after = |tiles: usize, input: usize, before: usize| (OUT * tiles + 2).saturating_sub(input + before);
        let after = (after(grid.0, input.0, before.0), after(grid.1, input.1, before.1));
        let taps = Taps { count: SIDE, first: 0, step: 1 };
        let source = Padded::new(input, before, after, OUT);
        Self { gather: Gather { source, channels, taps: (taps, taps), row_stride: OUT, grid }, filters, size }
    }

    fn forward(g: &Geometry) -> Self {
        let p = &g.window.padding;
        let (input, output) = ((g.input.height, g.input.width), (g.output.height, g.output.width));
        Self::new(g.input.channels, input, (p.top, p.left), g.filters(), output)
    }

    fn backward(g: &Geometry) -> Self {
        let p = &g.window.padding;
        let (input, output) = ((g.input.height, g.input.width), (g.output.height, g.output.width));
        Self::new(g.filters(), output, (2 - p.top, 2 - p.left), g.input.channels, input)
    }

    fn tiles(&self) -> usize {
        self.gather.pixels()
    }
}

/// Tiles worked on at once: few enough that they stay in the L2 cache, or where the transformed weights are too large for
/// it, many enough that those are read seldom.
fn tiles_at_once(d: &Direction) -> usize {
    match d.gather.channels + d.filters {
        0..=160 => 16,
        161..=320 => 32,
        _ => 64,
    }
}

/// A piece's buffers.
struct Lens {
    padded: usize,
    /// Transformed tiles: panel after panel, each 36 places of channels by tiles.
    tiles: usize,
    /// Numbers from one filter's products to the next.
    pitch: usize,
    /// Products: 36 places of filters by tiles, and room to read a whole run at the end.
    products: usize,
    /// Rows of filters in whole tiles of the micro-kernel.
    rows: usize,
    block: usize,
}

impl Lens {
    fn new(d: &Direction, together: usize, whole: bool) -> Self {
        let tile = isa::tile();
        let (all, at_once) = (together * d.tiles(), tiles_at_once(d));
        let block = if whole || all <= at_once { all } else { round_up(at_once, tile.columns).min(all) };
        let pitch = round_up(block, tile.columns);
        let rows = round_up(d.filters, tile.rows);
        let padded = together * d.gather.channels * d.gather.source.plane();
        let tiles = PLACES * d.gather.channels * pitch;
        Self { padded, tiles, pitch, products: PLACES * rows * pitch + LANES, rows, block }
    }

    fn total(&self) -> usize {
        self.padded + self.tiles + self.products
    }
}

fn cut(d: &Direction, batch: usize, whole: bool, more: impl Fn(usize) -> usize) -> Cut {
    Cut::new(batch, d.tiles(), tiles_at_once(d), |together| Lens::new(d, together, whole).total() + more(together))
}

/// With pooling the whole maps are kept before they are pooled.
fn maps_len(g: &Geometry, together: usize, pooled: bool) -> usize {
    if pooled { together * g.output.len() } else { 0 }
}

pub(super) fn forward_cut(g: &Geometry, batch: usize, pooled: bool) -> Cut {
    cut(&Direction::forward(g), batch, false, |together| maps_len(g, together, pooled))
}

pub(super) fn forward_workspace(g: &Geometry, batch: usize, pooled: bool) -> usize {
    let cut = forward_cut(g, batch, pooled);
    let lens = Lens::new(&Direction::forward(g), cut.together, false);
    cut.pieces * (lens.total() + maps_len(g, cut.together, pooled))
}

pub(super) fn input_cut(g: &Geometry, batch: usize) -> Cut {
    cut(&Direction::backward(g), batch, false, |together| maps_len(g, together, true))
}

pub(super) fn input_workspace(g: &Geometry, batch: usize) -> usize {
    let cut = input_cut(g, batch);
    let lens = Lens::new(&Direction::backward(g), cut.together, false);
    cut.pieces * (lens.total() + maps_len(g, cut.together, true))
}

/// Numbers that [`prepare`] writes.
pub(super) fn prepared_len(g: &Geometry, pass: Pass) -> usize {
    let (filters, channels) = match pass {
        Pass::Forward => (g.filters(), g.input.channels),
        Pass::BackwardInput => (g.input.channels, g.filters()),
    };
    PLACES * packed_len(filters, channels, isa::tile().rows)
}

/// Transforms the filters: panels of the micro-kernel's rows, each 36 places of channels by filters.
pub(super) fn prepare(g: &Geometry, pass: Pass, w: &[f32], prepared: &mut [f32]) {
    let rows = isa::tile().rows;
    let channels = if pass == Pass::Forward { g.input.channels } else { g.filters() };
    prepared.par_chunks_mut(PLACES * channels * rows).enumerate().for_each(|(i, panel)| {
        transform_filters(w, (g.filters(), g.input.channels), pass == Pass::BackwardInput, i * rows, rows, panel);
    });
}

#[inline(always)]
fn transform_filters_body(
    w: &[f32],
    (filters, channels): (usize, usize),
    turned: bool,
    first: usize,
    rows: usize,
    panel: &mut [f32],
) {
    if rows <= 8 {
        transform_panel::<8>(w, (filters, channels), turned, first, rows, panel);
    } else {
        transform_panel::<16>(w, (filters, channels), turned, first, rows, panel);
    }
}

isa::vectorized!(
    eights fn transform_filters(
        w: &[f32],
        sizes: (usize, usize),
        turned: bool,
        first: usize,
        rows: usize,
        panel: &mut [f32],
    ) = transform_filters_body
);

#[inline(always)]
fn transform_panel<const L: usize>(
    w: &[f32],
    (filters, channels): (usize, usize),
    turned: bool,
    first: usize,
    rows: usize,
    panel: &mut [f32],
) {
    // Turned, channels take the place of filters and each filter is read backwards.
    let (outer, inner) = if turned { (channels, filters) } else { (filters, channels) };
    let (outer_step, inner_step) = if turned { (9, channels * 9) } else { (channels * 9, 9) };
    for k in 0..inner {
        let mut square = [[[0.0f32; L]; 3]; 3];
        for l in 0..rows.min(outer - first) {
            let filter = &w[(first + l) * outer_step + k * inner_step..][..9];
            for (t, &v) in filter.iter().enumerate() {
                let t = if turned { 8 - t } else { t };
                square[t / 3][t % 3][l] = v;
            }
        }
        let places = both_ways::<3, 6, L>(&square, filter_line);
        for (place, numbers) in places.as_flattened().iter().enumerate() {
            copy_short(&mut panel[(place * inner + k) * rows..][..rows], &numbers[..rows]);
        }
    }
}

/// Transforms the tiles `tiles` (a panel of the micro-kernel's columns or fewer) of `channels`. The numbers of place `p`,
/// channel `c` go to `panel[c * steps.0 + p * steps.1..]`. `raw` is [`RAW`] numbers for each channel gathered at once.
#[inline(always)]
fn transform_tiles_body(
    gather: &Gather,
    source: &[f32],
    image: usize,
    tiles: Range<usize>,
    channels: Range<usize>,
    width: usize,
    steps: (usize, usize),
    raw: &mut [f32],
    panel: &mut [f32],
) {
    let gathered = raw.len() / RAW;
    for (at, c) in channels.clone().enumerate() {
        if at % gathered == 0 {
            let depths = c * PLACES..channels.end.min(c + gathered) * PLACES;
            gather.pack(source, image, tiles.clone(), depths, width, raw);
        }
        let raw = &raw[at % gathered * PLACES * width..];
        let panel = &mut panel[at * steps.0..];
        let mut lane = 0;
        while lane < width {
            if width.is_multiple_of(LANES) {
                transform_lanes::<LANES>(&raw[lane..], width, steps.1, &mut panel[lane..]);
                lane += LANES;
            } else {
                transform_lanes::<4>(&raw[lane..], width, steps.1, &mut panel[lane..]);
                lane += 4;
            }
        }
    }
}

isa::vectorized!(
    eights fn transform_tiles(
        gather: &Gather,
        source: &[f32],
        image: usize,
        tiles: Range<usize>,
        channels: Range<usize>,
        width: usize,
        steps: (usize, usize),
        raw: &mut [f32],
        panel: &mut [f32],
    ) = transform_tiles_body
);

#[inline(always)]
fn transform_lanes<const L: usize>(raw: &[f32], width: usize, step: usize, panel: &mut [f32]) {
    let mut square = [[[0.0f32; L]; SIDE]; SIDE];
    for i in 0..SIDE {
        for j in 0..SIDE {
            load(&mut square[i][j], &raw[(i * SIDE + j) * width..]);
        }
    }
    let places = both_ways::<SIDE, SIDE, L>(&square, input_line);
    for i in 0..SIDE {
        for j in 0..SIDE {
            store(&places[i][j], &mut panel[(i * SIDE + j) * step..]);
        }
    }
}

/// The first numbers of a slice.
#[inline(always)]
fn load<const L: usize>(lanes: &mut [f32; L], source: &[f32]) {
    if let Some(source) = source.first_chunk::<L>() {
        *lanes = *source;
    }
}

#[inline(always)]
fn store<const L: usize>(lanes: &[f32; L], target: &mut [f32]) {
    if let Some(target) = target.first_chunk_mut::<L>() {
        *target = *lanes;
    }
}

/// Transforms the block's tiles and multiplies them with the filters, place by place.
fn block_products(
    d: &Direction,
    tile: &Tile,
    lens: &Lens,
    source: &[f32],
    block: Range<usize>,
    prepared: &[f32],
    tiles: &mut [f32],
    products: &mut [f32],
    parallel: bool,
) {
    let channels = d.gather.channels;
    let panel_len = PLACES * channels * tile.columns;
    let image = channels * d.gather.source.plane();
    let count = block.len().div_ceil(tile.columns);
    let tiles = &mut tiles[..count * panel_len];
    each_chunk(parallel, tiles, panel_len, |i, panel| {
        let start = block.start + i * tile.columns;
        let range = start..block.end.min(start + tile.columns);
        let steps = (tile.columns, channels * tile.columns);
        let mut raw = [0.0; 4 * RAW];
        transform_tiles(&d.gather, source, image, range, 0..channels, tile.columns, steps, &mut raw, panel);
    });
    let tiles = &*tiles;
    let place_len = lens.rows * lens.pitch;
    each_chunk(parallel, &mut products[..PLACES * place_len], place_len, |place, out| {
        for k in (0..channels).step_by(DEPTH_BLOCK) {
            let depth = DEPTH_BLOCK.min(channels - k);
            let left = &prepared[(place * channels + k) * tile.rows..];
            let right = &tiles[(place * channels + k) * tile.columns..];
            let left = Side { data: left, pitch: PLACES * channels * tile.rows };
            let right = Side { data: right, pitch: panel_len };
            multiply(tile, depth, left, right, count, out, lens.pitch, k > 0, false);
        }
    });
}

/// Turns a filter's products of the tiles `tiles` of one image into outputs. Place `p` of them starts at `products[p *
/// place_len]`.
#[inline(always)]
fn finish_plane_body(
    products: &[f32],
    place_len: usize,
    tiles: Range<usize>,
    columns: usize,
    size: (usize, usize),
    finish: Finish<'_>,
    y: &mut [f32],
) {
    // Lanes are tiles, whether or not they stand in one row of tiles.
    for first in tiles.clone().step_by(LANES) {
        let mut square = [[[0.0f32; LANES]; SIDE]; SIDE];
        for (place, lanes) in square.as_flattened_mut().iter_mut().enumerate() {
            load(lanes, &products[place * place_len + first - tiles.start..]);
        }
        let outputs = both_ways::<SIDE, OUT, LANES>(&square, output_line);
        let mut lines = [[[0.0f32; OUT]; LANES]; OUT];
        for (line, output) in lines.iter_mut().zip(&outputs) {
            *line = turned(output);
        }
        let (mut next, last) = (first, tiles.end.min(first + LANES));
        while next < last {
            let (row, column) = (next / columns, next % columns);
            let count = (columns - column).min(last - next);
            let width = (count * OUT).min(size.1 - column * OUT);
            for (i, line) in lines.iter().enumerate().take(size.0 - row * OUT) {
                let at = (row * OUT + i) * size.1 + column * OUT;
                let (target, sums) = (&mut y[at..][..width], &line[next - first..].as_flattened()[..width]);
                finish.run(at, sums, target);
            }
            next += count;
        }
    }
}

/// Lanes become rows.
#[inline(always)]
fn turned(lanes: &[[f32; LANES]; OUT]) -> [[f32; OUT]; LANES] {
    let mut rows = [[0.0; OUT]; LANES];
    for l in 0..LANES {
        for j in 0..OUT {
            rows[l][j] = lanes[j][l];
        }
    }
    rows
}

isa::vectorized!(
    eights fn finish_plane(
        products: &[f32],
        place_len: usize,
        tiles: Range<usize>,
        columns: usize,
        size: (usize, usize),
        finish: Finish<'_>,
        y: &mut [f32],
    ) = finish_plane_body
);

/// Computes all maps of the images in `source`; `finish(n, f)` says what becomes of the sums of filter `f` of image `n`.
fn convolve<'a>(
    d: &Direction,
    lens: &Lens,
    parallel: bool,
    source: &[f32],
    prepared: &[f32],
    (tiles, products): (&mut [f32], &mut [f32]),
    y: &mut [f32],
    finish: impl Fn(usize, usize) -> Finish<'a> + Sync,
) {
    let tile = isa::tile();
    let area = d.size.0 * d.size.1;
    let all = y.len() / (area * d.filters) * d.tiles();
    for start in (0..all).step_by(lens.block) {
        let block = start..all.min(start + lens.block);
        block_products(d, tile, lens, source, block.clone(), prepared, tiles, products, parallel);
        let products = &*products;
        each_chunk(parallel, y, area, |i, y| {
            let (n, f) = (i / d.filters, i % d.filters);
            let (from, to) = (block.start.max(n * d.tiles()), block.end.min((n + 1) * d.tiles()));
            if from < to {
                let products = &products[f * lens.pitch + from - block.start..];
                let tiles = from - n * d.tiles()..to - n * d.tiles();
                finish_plane(products, lens.rows * lens.pitch, tiles, d.gather.grid.1, d.size, finish(n, f), y);
            }
        });
    }
}

pub(super) fn forward(
    part: &Part<'_>,
    x: &[f32],
    prepared: &[f32],
    y: &mut [f32],
    mut winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let Part { g, cut, addends, .. } = *part;
    let d = Direction::forward(g);
    let lens = Lens::new(&d, cut.together, false);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (products, maps) = workspace.split_at_mut(lens.products);
    let y_len = part.pool.map_or(g.output, |pool| pool.output).len();
    let images = x.chunks(cut.together * g.input.len()).zip(y.chunks_mut(cut.together * y_len));
    for (step, (x, y)) in images.enumerate() {
        let first = step * cut.together;
        let source = part.pad(&d.gather.source, x, padded);
        let residual = |n: usize, f: usize| addends.residual_map(g, part.first + first + n, f);
        let buffers = (&mut *tiles, &mut *products);
        match &part.pool {
            None => convolve(&d, &lens, cut.parallel, source, prepared, buffers, y, |n, f| Finish::Outputs {
                bias: addends.bias(f),
                residual: residual(n, f),
                relu: addends.relu,
            }),
            Some(pool) => {
                let maps = &mut maps[..x.len() / g.input.len() * g.output.len()];
                // Without a residual the bias comes after the pooling.
                convolve(&d, &lens, cut.parallel, source, prepared, buffers, maps, |n, f| match residual(n, f) {
                    None => Finish::Write,
                    residual => Finish::Outputs { bias: addends.bias(f), residual, relu: false },
                });
                let maps = &*maps;
                let winner = winner.as_deref_mut().map(|w| &mut w[first * y_len..][..y.len()]);
                part.pool(pool, y, winner, |n, f| &maps[(n * g.filters() + f) * g.pixels()..][..g.pixels()]);
            }
        }
    }
}

pub(super) fn backward_input(
    g: &Geometry,
    cut: Cut,
    first: usize,
    prepared: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let d = Direction::backward(g);
    let lens = Lens::new(&d, cut.together, false);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (products, maps) = workspace.split_at_mut(lens.products);
    for (step, dx) in dx.chunks_mut(cut.together * g.input.len()).enumerate() {
        let range = (first + step * cut.together, dx.len() / g.input.len());
        let source = pad_gradient(g, cut.parallel, &d.gather.source, &dy, range, maps, padded);
        let finish = if accumulate { Finish::Add } else { Finish::Write };
        convolve(&d, &lens, cut.parallel, source, prepared, (tiles, products), dx, |_, _| finish);
    }
}

/// Tiles of the weights' gradient worked on at once: its sums are read and written once for each.
const GRADIENT_TILES: usize = 128;

/// Buffers of the weights' gradient.
struct GradientLens {
    together: usize,
    block: usize,
    maps: usize,
    padded: usize,
    /// Channels in whole tiles of the micro-kernel, and their transformed tiles: channels by 36 places by tiles.
    rows: usize,
    tiles: usize,
    /// Filters in whole tiles, and the transformed gradients: panels of 36 places of tiles by filters.
    columns: usize,
    gradients: usize,
    sums: usize,
    pitch: usize,
}

impl GradientLens {
    fn new(g: &Geometry, batch: usize) -> Self {
        let tile = isa::tile();
        let d = Direction::forward(g);
        let together = (GRADIENT_TILES / d.tiles()).clamp(1, batch.max(1));
        let block = (together * d.tiles()).min(GRADIENT_TILES);
        let pitch = round_up(block, tile.columns);
        let (rows, columns) = (round_up(g.input.channels, tile.rows), round_up(g.filters(), tile.columns));
        Self {
            together,
            block,
            maps: together * g.output.len(),
            padded: together * g.input.channels * d.gather.source.plane(),
            rows,
            tiles: rows * PLACES * pitch,
            columns,
            gradients: columns * PLACES * pitch,
            sums: PLACES * rows * columns,
            pitch,
        }
    }
}

pub(super) fn weights_workspace(g: &Geometry, batch: usize) -> usize {
    let lens = GradientLens::new(g, batch);
    lens.maps + lens.padded + lens.tiles + lens.gradients + lens.sums
}

pub(super) fn backward_weights(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    mut db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let tile = isa::tile();
    let d = Direction::forward(g);
    let batch = x.len() / g.input.len();
    let lens = GradientLens::new(g, batch);
    let (maps, workspace) = workspace.split_at_mut(lens.maps);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (gradients, sums) = workspace.split_at_mut(lens.gradients);
    let sums = &mut sums[..lens.sums];
    let (channels, filters) = (g.input.channels, g.filters());
    let (plane, area) = (d.gather.source.plane(), g.input.area());
    if let Some(db) = db.as_deref_mut() {
        db.fill(0.0);
    }
    for (step, x) in x.chunks(lens.together * g.input.len()).enumerate() {
        let images = x.len() / g.input.len();
        let maps = dy.images(g, step * lens.together, images, maps, true);
        if let Some(db) = db.as_deref_mut() {
            OutputGradient::add_biases(g, maps, db, true);
        }
        let padded = &mut padded[..images * channels * plane];
        padded.par_chunks_mut(plane).enumerate().for_each(|(i, copy)| {
            d.gather.source.copy(&x[i * area..][..area], copy);
        });
        let padded = &*padded;
        let all = images * d.tiles();
        for start in (0..all).step_by(lens.block) {
            let block = start..all.min(start + lens.block);
            let channel_len = PLACES * lens.pitch;
            tiles[..channels * channel_len].par_chunks_mut(channel_len).enumerate().for_each(|(c, tiles)| {
                let mut raw = [0.0; RAW];
                for at in (0..block.len()).step_by(tile.columns) {
                    let range = block.start + at..block.end.min(block.start + at + tile.columns);
                    let (image, steps, width) = (channels * plane, (0, lens.pitch), tile.columns);
                    let tiles = &mut tiles[at..];
                    transform_tiles(&d.gather, padded, image, range, c..c + 1, width, steps, &mut raw, tiles);
                }
            });
            let panel_len = PLACES * lens.pitch * tile.columns;
            gradients[..lens.columns / tile.columns * panel_len].par_chunks_mut(panel_len).enumerate().for_each(
                |(i, panel)| {
                    let fs = i * tile.columns..filters.min((i + 1) * tile.columns);
                    transform_gradients(&d, maps, block.clone(), fs, lens.pitch, tile.columns, panel);
                },
            );
            let (tiles, gradients) = (&*tiles, &*gradients);
            let accumulate = step > 0 || start > 0;
            sums.par_chunks_mut(lens.rows * lens.columns).enumerate().for_each(|(place, sums)| {
                for (j, panel) in gradients.chunks_exact(panel_len).enumerate() {
                    let right = &panel[place * lens.pitch * tile.columns..][..block.len() * tile.columns];
                    for (p, sums) in sums.chunks_exact_mut(tile.rows * lens.columns).enumerate() {
                        let data = &tiles[p * tile.rows * channel_len + place * lens.pitch..];
                        let left = Left { data, steps: (channel_len, 1) };
                        let target = &mut sums[j * tile.columns..];
                        tile.run(block.len(), left, right, target, lens.columns, accumulate);
                    }
                }
            });
        }
    }
    let sums = &*sums;
    dw.par_chunks_mut(tile.columns * channels * 9).enumerate().for_each(|(i, dw)| {
        finish_gradient(&sums[i * tile.columns..], (lens.rows, lens.columns), channels, tile.columns, dw);
    });
}

/// `A dy Aᵀ` of the tiles `block` for the filters `fs`: `panel` gets 36 places of `pitch` tiles by `width` filters.
#[inline(always)]
fn transform_gradients_body(
    d: &Direction,
    maps: &[f32],
    block: Range<usize>,
    fs: Range<usize>,
    pitch: usize,
    width: usize,
    panel: &mut [f32],
) {
    let (height, columns) = d.size;
    let area = height * columns;
    for (t, tile) in block.enumerate() {
        let (n, at) = (tile / d.tiles(), tile % d.tiles());
        let (y, x) = (at / d.gather.grid.1 * OUT, at % d.gather.grid.1 * OUT);
        let (rows, run) = (OUT.min(height - y), OUT.min(columns - x));
        let origin = &maps[(n * d.filters + fs.start) * area + y * columns + x..];
        let mut first = 0;
        while first < width {
            let lanes = fs.len().saturating_sub(first);
            let origin = origin.get(first * area..).unwrap_or_default();
            let target = &mut panel[t * width + first..];
            if width.is_multiple_of(LANES) {
                gradient_lanes::<LANES>(origin, area, columns, (rows, run), lanes, pitch * width, target);
                first += LANES;
            } else {
                gradient_lanes::<4>(origin, area, columns, (rows, run), lanes, pitch * width, target);
                first += 4;
            }
        }
    }
}

/// One tile of `L` filters, `lanes` of which there are: they begin at `origin` and are `area` apart.
#[inline(always)]
fn gradient_lanes<const L: usize>(
    origin: &[f32],
    area: usize,
    columns: usize,
    (rows, run): (usize, usize),
    lanes: usize,
    step: usize,
    panel: &mut [f32],
) {
    let mut square = [[[0.0f32; L]; OUT]; OUT];
    for l in 0..lanes.min(L) {
        let map = &origin[l * area..];
        for i in 0..rows {
            let line = &map[i * columns..];
            if let (true, Some(line)) = (run == OUT, line.first_chunk::<OUT>()) {
                for j in 0..OUT {
                    square[i][j][l] = line[j];
                }
            } else {
                for j in 0..run {
                    square[i][j][l] = line[j];
                }
            }
        }
    }
    let places = both_ways::<OUT, SIDE, L>(&square, gradient_line);
    for i in 0..SIDE {
        for j in 0..SIDE {
            store(&places[i][j], &mut panel[(i * SIDE + j) * step..]);
        }
    }
}

isa::vectorized!(
    eights fn transform_gradients(
        d: &Direction,
        maps: &[f32],
        block: Range<usize>,
        fs: Range<usize>,
        pitch: usize,
        width: usize,
        panel: &mut [f32],
    ) = transform_gradients_body
);

/// `Gᵀ u G` for `width` filters or fewer: `sums` are 36 places of rows (channels) by columns (filters).
#[inline(always)]
fn finish_gradient_body(sums: &[f32], (rows, columns): (usize, usize), channels: usize, width: usize, dw: &mut [f32]) {
    let filters = dw.len() / (channels * 9);
    for c in 0..channels {
        for first in (0..width).step_by(4) {
            let mut square = [[[0.0f32; 4]; SIDE]; SIDE];
            for (place, lanes) in square.as_flattened_mut().iter_mut().enumerate() {
                load(lanes, &sums[(place * rows + c) * columns + first..]);
            }
            let taps = both_ways::<SIDE, 3, 4>(&square, filter_gradient_line);
            for l in 0..4.min(filters.saturating_sub(first)) {
                let target = &mut dw[((first + l) * channels + c) * 9..][..9];
                target.iter_mut().zip(taps.as_flattened()).for_each(|(t, lanes)| *t = lanes[l]);
            }
        }
    }
}

isa::vectorized!(
    eights fn finish_gradient(sums: &[f32], sizes: (usize, usize), channels: usize, width: usize, dw: &mut [f32])
        = finish_gradient_body
);
