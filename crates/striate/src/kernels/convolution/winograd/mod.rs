//! Winograd's minimal filtering F(4x4, 3x3) and F(4x4, 5x5) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016): a 4x4 tile of outputs costs 36 multiplications a channel instead of 144, or 64 instead of 400.
//!
//! With `d` a tile of the input (6x6 or 8x8) and `g` a filter, a tile of the output is `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The sum
//! over channels stands inside the brackets, so each place of a tile is a matrix product over all tiles and filters. The
//! input's gradient is the same with turned filters; the weights' gradient is the formula's own adjoint,
//! `Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ d B)] G`.

mod lines;

use super::forward::{Finish, Part};
use super::gather::{Gather, Side, Taps, multiply};
use super::geometry::Geometry;
use super::input::pad_gradient;
use super::padded::Padded;
use super::weights::OutputGradient;
use super::{Cut, PIECES, Pass, each_chunk, round_up, whole_lines};
use crate::buffer::CACHE_LINE;
use crate::kernels::isa::{self, Left, Tile};
use crate::kernels::matmul::{DEPTH_BLOCK, copy_short, packed_len};
use lines::{Five, Lines, Three, both_ways};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;

/// Side of a tile of outputs.
const OUT: usize = 4;
/// Numbers gathered of a channel, for the widest panel of any set and the largest tile, with room for a run after the last.
const RAW: usize = (Form::Five.places() + 1) * MOST_COLUMNS;
/// Columns of the widest panel of any set.
const MOST_COLUMNS: usize = 32;
/// Numbers between a panel's places. Without them the places would often be a multiple of 4 KiB apart, and what a transform writes to
/// all of them would fall into one set of the L1 cache, which holds 8 or 12.
const GAP: usize = CACHE_LINE;
/// Channels whose filters are transformed at once.
const FEW: usize = 8;
/// The most lanes that the transforms work on at once.
const MOST_LANES: usize = 16;

/// The size of the filters, and with it of all that is transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// F(4x4, 3x3).
    Three,
    /// F(4x4, 5x5).
    Five,
}

impl Form {
    /// The form for the shapes, if they allow one and it pays: the transforms are spread over enough channels and filters, and
    /// the weights, larger than before, over enough tiles, which also fill a panel of the products.
    pub(super) fn of(g: &Geometry, batch: usize) -> Option<Self> {
        let (w, p) = (&g.window, &g.window.padding);
        let form = match w.kernel {
            (3, 3) => Self::Three,
            (5, 5) => Self::Five,
            _ => return None,
        };
        let plain = w.stride == (1, 1) && w.dilation == (1, 1);
        let narrow = p.top.max(p.left).max(p.bottom).max(p.right) < form.taps();
        let tiles = g.output.height.div_ceil(OUT) * g.output.width.div_ceil(OUT);
        // Lanes in the tiles' last rows and columns are wasted.
        let full = 4 * g.output.area() >= 2 * tiles * OUT * OUT;
        let many = g.group_channels() >= 16 && g.group_filters() >= 16;
        (plain && narrow && full && many && batch * tiles >= isa::tile().panel_width(1).max(16)).then_some(form)
    }

    /// The form for the weights' gradient: its sums, several times as large as the weights, are read and written for every
    /// block of tiles, of which there have to be enough.
    pub(super) fn of_gradient(g: &Geometry, batch: usize) -> Option<Self> {
        Self::of(g, batch).filter(|form| batch * Direction::forward(g, *form).tiles() >= 64)
    }

    /// Side of a filter.
    const fn taps(self) -> usize {
        match self {
            Form::Three => 3,
            Form::Five => 5,
        }
    }

    /// Side of a tile of inputs, and of the products.
    const fn side(self) -> usize {
        OUT + self.taps() - 1
    }

    /// Products of a tile.
    const fn places(self) -> usize {
        self.side() * self.side()
    }

    /// Numbers gathered of a channel, see [`RAW`].
    const fn raw(self) -> usize {
        (self.places() + 1) * MOST_COLUMNS
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taps = self.taps();
        let saved = (taps * taps * OUT * OUT) as f64 / self.places() as f64;
        write!(f, "Winograd F({OUT}x{OUT}, {taps}x{taps}) (stride 1: {saved:.2} times fewer multiplications)")
    }
}

/// One direction of a convolution: what is read, and what comes out.
struct Direction {
    form: Form,
    groups: usize,
    /// Channels are those of one group.
    gather: Gather,
    /// Filters of one group.
    filters: usize,
    /// Rows and columns that come out.
    size: (usize, usize),
}

impl Direction {
    fn new(
        form: Form,
        groups: usize,
        channels: usize,
        input: (usize, usize),
        before: (usize, usize),
        filters: usize,
        size: (usize, usize),
    ) -> Self {
        let grid = (size.0.div_ceil(OUT), size.1.div_ceil(OUT));
        let after =
            |tiles: usize, input: usize, before: usize| (OUT * tiles + form.taps() - 1).saturating_sub(input + before);
        let after = (after(grid.0, input.0, before.0), after(grid.1, input.1, before.1));
        let taps = Taps { count: form.side(), first: 0, step: 1 };
        let source = Padded::new(input, before, after, OUT);
        let gather = Gather { source, channels, taps: (taps, taps), row_stride: OUT, grid };
        Self { form, groups, gather, filters, size }
    }

    fn forward(g: &Geometry, form: Form) -> Self {
        let p = &g.window.padding;
        let (input, output) = ((g.input.height, g.input.width), (g.output.height, g.output.width));
        Self::new(form, g.groups, g.group_channels(), input, (p.top, p.left), g.group_filters(), output)
    }

    fn backward(g: &Geometry, form: Form) -> Self {
        let (p, last) = (&g.window.padding, form.taps() - 1);
        let (input, output) = ((g.input.height, g.input.width), (g.output.height, g.output.width));
        let before = (last - p.top, last - p.left);
        Self::new(form, g.groups, g.group_filters(), output, before, g.group_channels(), input)
    }

    fn tiles(&self) -> usize {
        self.gather.pixels()
    }

    /// Numbers of a padded image.
    fn image(&self) -> usize {
        self.groups * self.gather.channels * self.gather.source.plane()
    }

    /// What group `group` of the images in `source` reads.
    fn group<'a>(&self, source: &'a [f32], group: usize) -> &'a [f32] {
        &source[group * self.gather.channels * self.gather.source.plane()..]
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

/// Numbers of products that are worked on at once: with the tiles they come from they stay in the L2 cache.
const PRODUCTS: usize = 64 * 1024;

/// A piece's buffers.
struct Lens {
    padded: usize,
    /// Transformed tiles of a group: panel after panel, each [`Self::depth`] channels after as many others, of which each is
    /// all places of channels by tiles, with a [`GAP`] after every place.
    tiles: usize,
    /// Numbers of a panel of them.
    panel: usize,
    block: usize,
    /// Tiles of a panel: few where one narrow panel holds them all.
    width: usize,
    /// Channels that are transformed and multiplied at once.
    depth: usize,
    /// Numbers from one filter's products to the next.
    pitch: usize,
    /// Filters whose products are worked on at once, in whole tiles of the micro-kernel.
    share: usize,
    /// How many shares of a group have a place for their products.
    shares: usize,
    /// Products of a share: all places of filters by tiles.
    products: usize,
}

impl Lens {
    fn new(d: &Direction, together: usize, parallel: bool) -> Self {
        let (tile, places) = (isa::tile(), d.form.places());
        let (all, at_once) = (together * d.tiles(), tiles_at_once(d));
        // A panel for each of several threads.
        let at_once = if parallel { at_once.max(PIECES * tile.columns) } else { at_once };
        let block = if all <= at_once { all } else { round_up(at_once, tile.columns).min(all) };
        let width = tile.panel_width(block);
        let pitch = round_up(block, width);
        // Where there are few panels for several threads, they share their channels.
        let few = parallel && block <= PIECES / 2 * width;
        let depth = if few { d.gather.channels.div_ceil(PIECES / 2).max(32) } else { DEPTH_BLOCK };
        let at_once = PRODUCTS / (places * pitch);
        let at_once = if parallel { at_once.min(d.filters.div_ceil(PIECES)) } else { at_once };
        let share = round_up(at_once.clamp(1, d.filters), tile.rows);
        let panel = places * (d.gather.channels * width + d.gather.channels.div_ceil(depth) * GAP);
        Self {
            padded: whole_lines(together * d.image()),
            tiles: pitch / width * panel,
            panel,
            block,
            width,
            depth,
            pitch,
            share,
            shares: if parallel { d.filters.div_ceil(share) } else { 1 },
            products: places * share * pitch,
        }
    }

    fn total(&self) -> usize {
        // With room to read a whole run at the end of the products.
        self.padded + self.tiles + self.shares * self.products + MOST_LANES
    }
}

/// How a batch is cut, and the numbers that a piece needs; `more` of them for so many images together.
fn cut(d: &Direction, batch: usize, more: impl Fn(usize) -> usize) -> (Cut, usize) {
    let total = |together, parallel| Lens::new(d, together, parallel).total() + more(together);
    let cut = Cut::new(batch, d.tiles(), tiles_at_once(d), |together| total(together, false));
    (cut, total(cut.together, cut.parallel))
}

/// With pooling the whole maps are kept before they are pooled.
fn maps_len(g: &Geometry, together: usize, pooled: bool) -> usize {
    if pooled { together * g.output.len() } else { 0 }
}

pub(super) fn forward_cut(g: &Geometry, form: Form, batch: usize, pooled: bool) -> (Cut, usize) {
    cut(&Direction::forward(g, form), batch, |together| maps_len(g, together, pooled))
}

pub(super) fn input_cut(g: &Geometry, form: Form, batch: usize) -> (Cut, usize) {
    cut(&Direction::backward(g, form), batch, |together| maps_len(g, together, true))
}

/// Numbers that [`prepare`] writes.
pub(super) fn prepared_len(g: &Geometry, form: Form, pass: Pass) -> usize {
    g.groups * group_prepared_len(g, form, pass)
}

/// Numbers of one group's transformed filters.
fn group_prepared_len(g: &Geometry, form: Form, pass: Pass) -> usize {
    let (filters, channels) = match pass {
        Pass::Forward => (g.group_filters(), g.group_channels()),
        Pass::BackwardInput => (g.group_channels(), g.group_filters()),
    };
    form.places() * packed_len(filters, channels, isa::tile().rows)
}

/// Transforms the filters: panels of the micro-kernel's rows, each all places of channels by filters.
pub(super) fn prepare(g: &Geometry, form: Form, pass: Pass, w: &[f32], prepared: &mut [f32]) {
    let rows = isa::tile().rows;
    let sizes = (g.group_filters(), g.group_channels());
    let channels = if pass == Pass::Forward { sizes.1 } else { sizes.0 };
    let groups = prepared.chunks_exact_mut(group_prepared_len(g, form, pass));
    for (prepared, w) in groups.zip(w.chunks_exact(sizes.0 * sizes.1 * g.taps())) {
        prepared.par_chunks_mut(form.places() * channels * rows).enumerate().for_each(|(i, panel)| {
            transform_filters(form, w, sizes, pass == Pass::BackwardInput, i * rows, rows, panel);
        });
    }
}

#[inline(always)]
fn transform_filters_body<const LANES: usize>(
    form: Form,
    w: &[f32],
    sizes: (usize, usize),
    turned: bool,
    first: usize,
    rows: usize,
    panel: &mut [f32],
) {
    match form {
        Form::Three => transform_panel::<Three, 6, 3, LANES>(w, sizes, turned, first, rows, panel),
        Form::Five => transform_panel::<Five, 8, 5, LANES>(w, sizes, turned, first, rows, panel),
    }
}

isa::vectorized!(
    lanes fn transform_filters(
        form: Form,
        w: &[f32],
        sizes: (usize, usize),
        turned: bool,
        first: usize,
        rows: usize,
        panel: &mut [f32],
    ) = transform_filters_body
);

#[inline(always)]
fn transform_panel<F: Lines<SIDE, TAPS>, const SIDE: usize, const TAPS: usize, const L: usize>(
    w: &[f32],
    (filters, channels): (usize, usize),
    turned: bool,
    first: usize,
    rows: usize,
    panel: &mut [f32],
) {
    // Turned, channels take the place of filters and each filter is read backwards.
    let (outer, inner) = if turned { (channels, filters) } else { (filters, channels) };
    let taps = TAPS * TAPS;
    let (outer_step, inner_step) = if turned { (taps, channels * taps) } else { (channels * taps, taps) };
    let (mut square, mut half) = ([[[0.0; L]; TAPS]; TAPS], [[[0.0; L]; TAPS]; SIDE]);
    // A few channels at a time, whose places go on together: as in [`GAP`], they would push each other out of the cache.
    let mut places = [[[[0.0; L]; FEW]; SIDE]; SIDE];
    for start in (0..inner).step_by(FEW) {
        let count = FEW.min(inner - start);
        for k in 0..count {
            let lines = square.as_flattened_mut();
            let filters = &w[first * outer_step + (start + k) * inner_step..];
            isa::transpose(filters, outer_step, (rows.min(outer - first), taps), lines.as_flattened_mut(), L);
            if turned {
                lines.reverse();
            }
            let target = places.as_flattened_mut().as_flattened_mut().as_flattened_mut();
            both_ways((lines.as_flattened(), L), &mut half, (&mut target[k * L..], FEW * L), F::filter);
        }
        for (place, numbers) in places.as_flattened().iter().enumerate() {
            let panel = &mut panel[(place * inner + start) * rows..][..count * rows];
            for (panel, numbers) in panel.chunks_exact_mut(rows).zip(numbers) {
                copy_short(panel, &numbers[..rows]);
            }
        }
    }
}

/// Calls a function for a form, on `LANES` lanes where a panel's width is whole registers of them, else on 4.
macro_rules! by_form {
    ($form:expr, $width:expr, $body:ident($($argument:expr),*)) => {
        match ($form, $width.is_multiple_of(LANES)) {
            (Form::Three, true) => $body::<Three, 6, 3, LANES>($($argument),*),
            (Form::Three, false) => $body::<Three, 6, 3, 4>($($argument),*),
            (Form::Five, true) => $body::<Five, 8, 5, LANES>($($argument),*),
            (Form::Five, false) => $body::<Five, 8, 5, 4>($($argument),*),
        }
    };
}

/// Transforms the tiles `tiles` (a panel of the micro-kernel's columns or fewer) of `channels`. The numbers of place `p`,
/// channel `c` go to `panel[c * steps.0 + p * steps.1..]`. `raw` is [`Form::raw`] numbers for each channel gathered at once.
#[inline(always)]
fn transform_tiles_body<const LANES: usize>(
    form: Form,
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
    let gathered = raw.len() / form.raw();
    by_form!(
        form,
        width,
        transform_channels(gather, source, image, tiles, channels, width, steps, gathered, raw, panel)
    );
}

#[inline(always)]
fn transform_channels<F: Lines<SIDE, TAPS>, const SIDE: usize, const TAPS: usize, const L: usize>(
    gather: &Gather,
    source: &[f32],
    image: usize,
    tiles: Range<usize>,
    channels: Range<usize>,
    width: usize,
    steps: (usize, usize),
    gathered: usize,
    raw: &mut [f32],
    panel: &mut [f32],
) {
    let places = SIDE * SIDE;
    let mut half = [[[0.0; L]; SIDE]; SIDE];
    for (at, c) in channels.clone().enumerate() {
        if at % gathered == 0 {
            let depths = c * places..channels.end.min(c + gathered) * places;
            gather.pack(source, image, tiles.clone(), depths, width, raw);
        }
        let raw = &raw[at % gathered * places * width..];
        let panel = &mut panel[at * steps.0..];
        for lane in (0..width).step_by(L) {
            both_ways((&raw[lane..], width), &mut half, (&mut panel[lane..], steps.1), F::input);
        }
    }
}

isa::vectorized!(
    lanes fn transform_tiles(
        form: Form,
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

/// Transforms the tiles `block` of a group.
fn block_tiles(d: &Direction, lens: &Lens, source: &[f32], block: Range<usize>, tiles: &mut [f32], parallel: bool) {
    let (width, places) = (lens.width, d.form.places());
    let tiles = &mut tiles[..block.len().div_ceil(width) * lens.panel];
    each_chunk(parallel, tiles, lens.panel, |i, panel| {
        let start = block.start + i * width;
        let range = start..block.end.min(start + width);
        each_chunk(parallel, panel, places * (lens.depth * width + GAP), |j, panel| {
            let place = panel.len() / places;
            let channels = j * lens.depth..j * lens.depth + (place - GAP) / width;
            let (steps, mut raw) = ((width, place), [0.0; 2 * RAW]);
            transform_tiles(
                d.form,
                &d.gather,
                source,
                d.image(),
                range.clone(),
                channels,
                width,
                steps,
                &mut raw,
                panel,
            );
        });
    });
}

/// Multiplies `count` panels of transformed tiles with a share of the filters, place by place.
fn share_products(
    d: &Direction,
    tile: &Tile,
    lens: &Lens,
    prepared: &[f32],
    (tiles, count): (&[f32], usize),
    filters: usize,
    products: &mut [f32],
) {
    let (channels, places) = (d.gather.channels, d.form.places());
    let rows = lens.share.min(prepared.len() / (places * channels));
    let filters = rows.min(filters);
    for (place, out) in products.chunks_exact_mut(lens.share * lens.pitch).enumerate() {
        for (j, k) in (0..channels).step_by(lens.depth).enumerate() {
            let depth = lens.depth.min(channels - k);
            let left = &prepared[(place * channels + k) * tile.rows..];
            let before = j * places * (lens.depth * lens.width + GAP);
            let right = &tiles[before + place * (depth * lens.width + GAP)..];
            let left = Side { data: left, width: tile.rows, pitch: places * channels * tile.rows };
            let right = Side { data: right, width: lens.width, pitch: lens.panel };
            let out = &mut out[..rows * lens.pitch];
            multiply(tile, depth, left, right, (filters, count), out, (lens.pitch, 0), k > 0, false);
        }
    }
}

/// A filter's products of some tiles of one image, which are to become outputs.
struct Products<'a> {
    /// Those of the first place; the next place's are [`Self::place_len`] further.
    data: &'a [f32],
    place_len: usize,
    tiles: Range<usize>,
    /// Tiles in a row of the map, and the map's size.
    columns: usize,
    size: (usize, usize),
    finish: Finish<'a>,
}

/// Turns products into outputs of the map `y`.
fn finish_plane(form: Form, products: Products<'_>, y: &mut [f32]) {
    match form {
        Form::Three => finish_threes(products, y),
        Form::Five => finish_fives(products, y),
    }
}

#[inline(always)]
fn finish_tiles<F: Lines<SIDE, TAPS>, const SIDE: usize, const TAPS: usize, const LANES: usize>(
    products: Products<'_>,
    y: &mut [f32],
) {
    let Products { data, place_len, tiles, columns, size, finish } = products;
    // Lanes are tiles, whether or not they stand in one row of tiles.
    let (mut half, mut outputs) = ([[[0.0; LANES]; SIDE]; OUT], [[[0.0; LANES]; OUT]; OUT]);
    let mut lines = [[[0.0f32; OUT]; LANES]; OUT];
    for first in tiles.clone().step_by(LANES) {
        let target = outputs.as_flattened_mut().as_flattened_mut();
        both_ways((&data[first - tiles.start..], place_len), &mut half, (target, LANES), F::output);
        for (line, output) in lines.iter_mut().zip(&outputs) {
            turn(output, line);
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
fn turn<const LANES: usize>(lanes: &[[f32; LANES]; OUT], rows: &mut [[f32; OUT]; LANES]) {
    for l in 0..LANES {
        for j in 0..OUT {
            rows[l][j] = lanes[j][l];
        }
    }
}

#[inline(always)]
fn finish_threes_body(products: Products<'_>, y: &mut [f32]) {
    finish_tiles::<Three, 6, 3, 8>(products, y);
}

isa::vectorized!(
    /// Sixteen lanes would often be more than an image has tiles.
    eights fn finish_threes(products: Products<'_>, y: &mut [f32]) = finish_threes_body
);

#[inline(always)]
fn finish_fives_body<const LANES: usize>(products: Products<'_>, y: &mut [f32]) {
    finish_tiles::<Five, 8, 5, LANES>(products, y);
}

isa::vectorized!(
    lanes fn finish_fives(products: Products<'_>, y: &mut [f32]) = finish_fives_body
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
    let (tile, places) = (isa::tile(), d.form.places());
    let area = d.size.0 * d.size.1;
    let filters = d.groups * d.filters;
    let all = y.len() / (area * filters) * d.tiles();
    let share_len = places * d.gather.channels * lens.share;
    for (group, prepared) in prepared.chunks_exact(prepared.len() / d.groups).enumerate() {
        for start in (0..all).step_by(lens.block) {
            let block = start..all.min(start + lens.block);
            block_tiles(d, lens, d.group(source, group), block.clone(), tiles, parallel);
            let tiles = (&*tiles, block.len().div_ceil(lens.width));
            // The maps that the block's tiles lie in.
            let images = block.start / d.tiles()..block.end.div_ceil(d.tiles());
            let y = &mut y[images.start * filters * area..images.end * filters * area];
            for (step, prepared) in prepared.chunks(lens.shares * share_len).enumerate() {
                let first = step * lens.shares * lens.share;
                let shares = &mut products[..lens.shares * lens.products];
                each_chunk(parallel, shares, lens.products, |i, products| {
                    if let Some(prepared) = prepared.chunks(share_len).nth(i) {
                        let filters = d.filters - first - i * lens.share;
                        share_products(d, tile, lens, prepared, tiles, filters, products);
                    }
                });
                let count = (lens.shares * lens.share).min(d.filters - first);
                let products = &*products;
                each_chunk(parallel, y, filters * area, |i, y| {
                    let n = images.start + i;
                    let (from, to) = (block.start.max(n * d.tiles()), block.end.min((n + 1) * d.tiles()));
                    let tiles = from - n * d.tiles()..to - n * d.tiles();
                    let y = &mut y[(group * d.filters + first) * area..][..count * area];
                    each_chunk(parallel, y, area, |at, y| {
                        let data = &products[at / lens.share * lens.products + at % lens.share * lens.pitch..];
                        let products = Products {
                            data: &data[from - block.start..],
                            place_len: lens.share * lens.pitch,
                            tiles: tiles.clone(),
                            columns: d.gather.grid.1,
                            size: d.size,
                            finish: finish(n, group * d.filters + first + at),
                        };
                        finish_plane(d.form, products, y);
                    });
                });
            }
        }
    }
}

pub(super) fn forward(
    part: &Part<'_>,
    form: Form,
    x: &[f32],
    prepared: &[f32],
    y: &mut [f32],
    mut winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let Part { g, cut, addends, .. } = *part;
    let d = Direction::forward(g, form);
    let lens = Lens::new(&d, cut.together, cut.parallel);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (products, maps) = workspace.split_at_mut(lens.shares * lens.products + MOST_LANES);
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
                part.pool(pool, 0..pool.output.height, y, winner, |n, f| {
                    &maps[(n * g.filters() + f) * g.pixels()..][..g.pixels()]
                });
            }
        }
    }
}

pub(super) fn backward_input(
    g: &Geometry,
    form: Form,
    cut: Cut,
    first: usize,
    prepared: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let d = Direction::backward(g, form);
    let lens = Lens::new(&d, cut.together, cut.parallel);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (products, maps) = workspace.split_at_mut(lens.shares * lens.products + MOST_LANES);
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
    /// A group's channels in whole tiles of the micro-kernel, and their transformed tiles: channels by places by tiles.
    rows: usize,
    tiles: usize,
    /// A group's filters in whole tiles, and the transformed gradients: panels of places of tiles by filters, with a [`GAP`] after
    /// every place.
    columns: usize,
    gradients: usize,
    /// Numbers from one place to the next.
    place: usize,
    sums: usize,
    pitch: usize,
}

impl GradientLens {
    fn new(g: &Geometry, d: &Direction, batch: usize) -> Self {
        let (tile, places) = (isa::tile(), d.form.places());
        let together = (GRADIENT_TILES / d.tiles()).clamp(1, batch.max(1));
        let block = (together * d.tiles()).min(GRADIENT_TILES);
        let pitch = round_up(block, tile.columns);
        let (rows, columns) = (round_up(d.gather.channels, tile.rows), round_up(d.filters, tile.columns));
        Self {
            together,
            block,
            maps: whole_lines(together * g.output.len()),
            padded: whole_lines(together * d.image()),
            rows,
            tiles: rows * places * pitch,
            columns,
            gradients: columns / tile.columns * places * (pitch * tile.columns + GAP),
            place: pitch * tile.columns + GAP,
            sums: places * rows * columns,
            pitch,
        }
    }
}

pub(super) fn weights_workspace(g: &Geometry, form: Form, batch: usize) -> usize {
    let lens = GradientLens::new(g, &Direction::forward(g, form), batch);
    lens.maps + lens.padded + lens.tiles + lens.gradients + lens.sums
}

pub(super) fn backward_weights(
    g: &Geometry,
    form: Form,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    mut db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let (tile, places) = (isa::tile(), form.places());
    let d = Direction::forward(g, form);
    let lens = GradientLens::new(g, &d, x.len() / g.input.len());
    let (maps, workspace) = workspace.split_at_mut(lens.maps);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (tiles, workspace) = workspace.split_at_mut(lens.tiles);
    let (gradients, sums) = workspace.split_at_mut(lens.gradients);
    let sums = &mut sums[..lens.sums];
    let (channels, filters) = (d.gather.channels, d.filters);
    let (plane, area) = (d.gather.source.plane(), g.input.area());
    if let Some(db) = db.as_deref_mut() {
        db.fill(0.0);
    }
    for (group, dw) in dw.chunks_exact_mut(filters * channels * g.taps()).enumerate() {
        for (step, x) in x.chunks(lens.together * g.input.len()).enumerate() {
            let images = x.len() / g.input.len();
            let maps = dy.images(g, step * lens.together, images, maps, true);
            if let Some(db) = db.as_deref_mut().filter(|_| group == 0) {
                OutputGradient::add_biases(g, maps, db, true);
            }
            let padded = &mut padded[..images * d.image()];
            padded.par_chunks_mut(plane).enumerate().for_each(|(i, copy)| {
                d.gather.source.copy(&x[i * area..][..area], copy);
            });
            let padded = d.group(padded, group);
            let all = images * d.tiles();
            for start in (0..all).step_by(lens.block) {
                let block = start..all.min(start + lens.block);
                let channel_len = places * lens.pitch;
                tiles[..channels * channel_len].par_chunks_mut(channel_len).enumerate().for_each(|(c, tiles)| {
                    let mut raw = [0.0; RAW];
                    let (raw, steps, width) = (&mut raw[..form.raw()], (0, lens.pitch), tile.columns);
                    for at in (0..block.len()).step_by(width) {
                        let range = block.start + at..block.end.min(block.start + at + width);
                        let tiles = &mut tiles[at..];
                        transform_tiles(form, &d.gather, padded, d.image(), range, c..c + 1, width, steps, raw, tiles);
                    }
                });
                let panel_len = places * lens.place;
                gradients[..lens.columns / tile.columns * panel_len].par_chunks_mut(panel_len).enumerate().for_each(
                    |(i, panel)| {
                        let fs = i * tile.columns..filters.min((i + 1) * tile.columns);
                        let fs = group * filters + fs.start..group * filters + fs.end;
                        transform_gradients(&d, maps, block.clone(), fs, lens.place, tile.columns, panel);
                    },
                );
                let (tiles, gradients) = (&*tiles, &*gradients);
                let accumulate = step > 0 || start > 0;
                sums.par_chunks_mut(lens.rows * lens.columns).enumerate().for_each(|(place, sums)| {
                    for (j, panel) in gradients.chunks_exact(panel_len).enumerate() {
                        let right = &panel[place * lens.place..][..block.len() * tile.columns];
                        for (p, sums) in sums.chunks_exact_mut(tile.rows * lens.columns).enumerate() {
                            let data = &tiles[p * tile.rows * channel_len + place * lens.pitch..];
                            let left = Left { data, steps: (channel_len, 1) };
                            let target = &mut sums[j * tile.columns..];
                            let rows = (channels - p * tile.rows).min(tile.rows);
                            tile.run(block.len(), left, right, (target, rows), lens.columns, accumulate);
                        }
                    }
                });
            }
        }
        let sums = &*sums;
        dw.par_chunks_mut(tile.columns * channels * g.taps()).enumerate().for_each(|(i, dw)| {
            finish_gradient(form, &sums[i * tile.columns..], (lens.rows, lens.columns), channels, tile.columns, dw);
        });
    }
}

/// `A dy Aᵀ` of the tiles `block` for the filters `fs`: `panel` gets all places, `place` numbers apart, of tiles by `width` filters.
#[inline(always)]
fn transform_gradients_body<const LANES: usize>(
    d: &Direction,
    maps: &[f32],
    block: Range<usize>,
    fs: Range<usize>,
    place: usize,
    width: usize,
    panel: &mut [f32],
) {
    by_form!(d.form, width, transform_panel_of_gradients(d, maps, block, fs, place, width, panel));
}

#[inline(always)]
fn transform_panel_of_gradients<F: Lines<SIDE, TAPS>, const SIDE: usize, const TAPS: usize, const L: usize>(
    d: &Direction,
    maps: &[f32],
    block: Range<usize>,
    fs: Range<usize>,
    place: usize,
    width: usize,
    panel: &mut [f32],
) {
    let (height, columns) = d.size;
    let area = height * columns;
    let (mut square, mut half) = ([[[0.0; L]; OUT]; OUT], [[[0.0; L]; OUT]; SIDE]);
    for (t, tile) in block.enumerate() {
        let (n, at) = (tile / d.tiles(), tile % d.tiles());
        let (y, x) = (at / d.gather.grid.1 * OUT, at % d.gather.grid.1 * OUT);
        let (rows, run) = (OUT.min(height - y), OUT.min(columns - x));
        let origin = &maps[(n * d.groups * d.filters + fs.start) * area + y * columns + x..];
        for first in (0..width).step_by(L) {
            let lanes = fs.len().saturating_sub(first).min(L);
            if (rows, run, lanes) != (OUT, OUT, L) {
                square = [[[0.0; L]; OUT]; OUT];
            }
            gather_gradients(
                origin.get(first * area..).unwrap_or_default(),
                area,
                columns,
                (rows, run),
                lanes,
                &mut square,
            );
            let target = &mut panel[t * width + first..];
            both_ways((square.as_flattened().as_flattened(), L), &mut half, (target, place), F::gradient);
        }
    }
}

/// One tile of `lanes` filters: they begin at `origin` and are `area` apart.
#[inline(always)]
fn gather_gradients<const L: usize>(
    origin: &[f32],
    area: usize,
    columns: usize,
    (rows, run): (usize, usize),
    lanes: usize,
    square: &mut [[[f32; L]; OUT]; OUT],
) {
    for l in 0..lanes {
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
}

isa::vectorized!(
    lanes fn transform_gradients(
        d: &Direction,
        maps: &[f32],
        block: Range<usize>,
        fs: Range<usize>,
        place: usize,
        width: usize,
        panel: &mut [f32],
    ) = transform_gradients_body
);

/// `Gᵀ u G` for `width` filters or fewer: `sums` are all places of rows (channels) by columns (filters).
#[inline(always)]
fn finish_gradient_body<const LANES: usize>(
    form: Form,
    sums: &[f32],
    sizes: (usize, usize),
    channels: usize,
    width: usize,
    dw: &mut [f32],
) {
    by_form!(form, width, finish_filters(sums, sizes, channels, width, dw));
}

#[inline(always)]
fn finish_filters<F: Lines<SIDE, TAPS>, const SIDE: usize, const TAPS: usize, const L: usize>(
    sums: &[f32],
    (rows, columns): (usize, usize),
    channels: usize,
    width: usize,
    dw: &mut [f32],
) {
    let (filters, taps) = (dw.len() / (channels * TAPS * TAPS), TAPS * TAPS);
    let (mut half, mut turned) = ([[[0.0; L]; SIDE]; TAPS], [[[0.0; L]; TAPS]; TAPS]);
    for c in 0..channels {
        for first in (0..width.min(filters)).step_by(L) {
            let target = turned.as_flattened_mut().as_flattened_mut();
            both_ways((&sums[c * columns + first..], rows * columns), &mut half, (target, L), F::filter_gradient);
            for l in 0..L.min(filters - first) {
                let target = &mut dw[((first + l) * channels + c) * taps..][..taps];
                target.iter_mut().zip(turned.as_flattened()).for_each(|(t, lanes)| *t = lanes[l]);
            }
        }
    }
}

isa::vectorized!(
    lanes fn finish_gradient(
        form: Form,
        sums: &[f32],
        sizes: (usize, usize),
        channels: usize,
        width: usize,
        dw: &mut [f32],
    ) = finish_gradient_body
);
