//! Convolution and the affine layer as products of packed weights with rows that are read where they lie.
//!
//! A row of the left side is the window of one output pixel. Its bytes lie in pieces (a row of the window each, or all of
//! it), which the micro-kernel walks through, so no im2col matrix is made. An affine layer is a convolution
//! whose window is the whole input.

use super::{Bands, SLACK, Scaling, TASK, pad_rows, to_byte};
use crate::kernels::convolution::Geometry;
use crate::kernels::isa::int8::{COLUMNS, Int8, MAX_BLOCK, QUAD, Quad, Rows, int8};
use crate::kernels::isa::vectorized;
use crate::shape::Padding;
use rayon::prelude::*;

/// Tasks of a padded convolution, each with a band of its own to pad.
const TASKS: usize = 32;

/// A convolution with packed weights.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    g: Geometry,
    /// Where each piece of a window begins, from its first byte.
    pieces: Vec<usize>,
    quads: usize,
    /// Panels one after the other, group by group.
    packed: Vec<Quad>,
    scaling: Scaling,
    /// The byte of 0 in the input, which padding holds.
    input_zero: u8,
}

/// Where the results go.
pub(crate) enum Target<'a> {
    /// Bytes, (N, OH, OW, FN).
    Bytes(&'a mut [u8]),
    /// The numbers themselves, likewise.
    Numbers(&'a mut [f32]),
}

impl Product {
    /// With filters `w` (FN, C / groups, FH, FW). `scaling.bias` is that of the layer, in steps of the products.
    pub(crate) fn new(g: Geometry, w: &[i8], mut scaling: Scaling, input_zero: u8) -> Self {
        let (channels, filters) = (g.group_channels(), g.group_filters());
        let (rows, columns) = g.window.kernel;
        let Padding { left, right, .. } = g.window.padding;
        let pitch = (g.input.width + left + right) * g.input.channels;
        let (down, across) = (g.window.dilation.0 * pitch, g.window.dilation.1 * g.input.channels);
        // As few pieces as the bytes lie in: whole rows where a window's columns are neighbours, the whole window where
        // its rows are.
        let joined = g.groups == 1 && g.window.dilation.1 == 1;
        let whole = joined && g.window.dilation.0 == 1 && columns * channels == pitch;
        let (of_piece, pieces): (usize, Vec<usize>) = if whole {
            (rows * columns, vec![0])
        } else if joined {
            (columns, (0..rows).map(|y| y * down).collect())
        } else {
            (1, (0..rows * columns).map(|tap| tap / columns * down + tap % columns * across).collect())
        };
        let quads = (of_piece * channels).div_ceil(QUAD);
        let panels = filters.div_ceil(COLUMNS);
        let mut packed = vec![Quad::ZERO; g.groups * panels * pieces.len() * quads];
        for (filter, w) in w.chunks_exact(g.depth()).enumerate() {
            let (group, within) = (filter / filters, filter % filters);
            let panel = (group * panels + within / COLUMNS) * pieces.len() * quads;
            for (channel, w) in w.chunks_exact(g.taps()).enumerate() {
                for (tap, &w) in w.iter().enumerate() {
                    let byte = tap % of_piece * channels + channel;
                    let quad = &mut packed[panel + tap / of_piece * quads + byte / QUAD];
                    quad.0[within % COLUMNS * QUAD + byte % QUAD] = w;
                }
            }
        }
        for (bias, w) in scaling.bias.iter_mut().zip(w.chunks_exact(g.depth())) {
            let sum: i32 = w.iter().map(|&w| i32::from(w)).sum();
            *bias = bias.wrapping_sub(sum.wrapping_mul(input_zero.into()));
        }
        Self { g, pieces, quads, packed, scaling, input_zero }
    }

    /// Bytes of packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        size_of_val(self.packed.as_slice())
    }

    /// Multiply-adds of one output pixel.
    fn products(&self) -> usize {
        self.g.depth() * self.g.filters()
    }

    fn is_padded(&self) -> bool {
        self.g.window.padding != Padding::NONE
    }

    /// Bytes of workspace that [`Product::forward`] needs for a batch.
    pub(crate) fn workspace(&self, batch: usize) -> usize {
        if !self.is_padded() {
            return 0;
        }
        let bands = Bands::new(&self.g, self.products() * self.g.output.width);
        (batch * bands.count).min(TASKS) * bands.bytes
    }

    /// `y` of `x` (N, H, W, C), with [`SLACK`] bytes more after its end.
    pub(crate) fn forward(&self, x: &[u8], batch: usize, y: Target<'_>, workspace: &mut [u8]) {
        self.forward_with(int8(), x, batch, y, workspace);
    }

    /// [`Product::forward`] with these kernels.
    pub(super) fn forward_with(&self, kernels: &Int8, x: &[u8], batch: usize, y: Target<'_>, workspace: &mut [u8]) {
        match y {
            Target::Bytes(y) => self.forward_to(kernels, x, batch, y, workspace, requantize),
            Target::Numbers(y) => self.forward_to(kernels, x, batch, y, workspace, rescale),
        }
    }

    fn forward_to<T: Send>(
        &self,
        kernels: &Int8,
        x: &[u8],
        batch: usize,
        y: &mut [T],
        workspace: &mut [u8],
        finish: fn(&Block<'_>, &Scaling, &mut [T]),
    ) {
        let g = &self.g;
        let (pixels, filters, products) = (g.output.area(), g.filters(), self.products());
        if self.is_padded() {
            return self.forward_padded(kernels, x, y, workspace, finish);
        }
        let rows = batch * pixels;
        let view = View { x, pitch: g.input.width * g.input.channels, image: g.input.len() };
        if rows <= kernels.rows() && products * rows >= 2 * TASK {
            return self.forward_by_columns(kernels, &view, rows, y, finish);
        }
        // Whole blocks, large enough to be worth a task, and not many more of them than threads are likely.
        let least = TASK.div_ceil(products).max(rows.div_ceil(64));
        let of_task = least.next_multiple_of(kernels.rows());
        let run = |(task, y): (usize, &mut [T])| {
            let first = task * of_task;
            self.rows(kernels, &view, first..(first + of_task).min(rows), y, finish);
        };
        y.par_chunks_mut(of_task * filters).enumerate().for_each(run);
    }

    /// Bands of output rows, whose input rows are padded first.
    fn forward_padded<T: Send>(
        &self,
        kernels: &Int8,
        x: &[u8],
        y: &mut [T],
        workspace: &mut [u8],
        finish: fn(&Block<'_>, &Scaling, &mut [T]),
    ) {
        let g = &self.g;
        let bands = Bands::new(g, self.products() * g.output.width);
        let batch = y.len() / g.output.len();
        let of_band = bands.rows * g.output.width * g.filters();
        // An image's bands are equal but for the last, so they are cut image by image.
        let mut cuts: Vec<(usize, &mut [T])> = Vec::with_capacity(batch * bands.count);
        for (n, y) in y.chunks_exact_mut(g.output.len()).enumerate() {
            cuts.extend(y.chunks_mut(of_band).enumerate().map(|(band, y)| (n * bands.count + band, y)));
        }
        let of_task = cuts.len().div_ceil(TASKS);
        cuts.par_chunks_mut(of_task.max(1)).zip(workspace.par_chunks_mut(bands.bytes)).for_each(|(cuts, padded)| {
            for (cut, y) in cuts {
                let (n, first) = (*cut / bands.count, *cut % bands.count * bands.rows);
                pad_rows(&x[n * g.input.len()..], g, bands.inputs(g, first), self.input_zero, padded);
                let view = View { x: padded, pitch: bands.pitch, image: 0 };
                self.rows(kernels, &view, 0..y.len() / g.filters(), y, finish);
            }
        });
    }

    /// Output pixels `range`, counted from the first of the view, to `y`.
    fn rows<T>(
        &self,
        kernels: &Int8,
        view: &View<'_>,
        range: std::ops::Range<usize>,
        y: &mut [T],
        finish: fn(&Block<'_>, &Scaling, &mut [T]),
    ) {
        let (g, filters) = (&self.g, self.g.filters());
        let mut sums = [0; MAX_BLOCK];
        let mut places = [0; 16];
        // Columns outside, so that two panels stay in the cache while all rows pass.
        for columns in self.columns() {
            for first in range.clone().step_by(kernels.rows()) {
                let rows = kernels.rows().min(range.end - first);
                for (i, place) in places.iter_mut().enumerate().take(rows) {
                    *place = view.window(g, first + i) + columns.channel;
                }
                let weights = &self.packed[columns.packed.clone()];
                kernels.run(self.left(view, &places[..rows]), weights, columns.panels, &mut sums);
                let y = &mut y[(first - range.start) * filters..];
                finish(&Block { sums: &sums, rows, columns: &columns, stride: filters }, &self.scaling, y);
            }
        }
    }

    /// One block of rows, its columns shared out among the threads.
    fn forward_by_columns<T: Send>(
        &self,
        kernels: &Int8,
        view: &View<'_>,
        rows: usize,
        y: &mut [T],
        finish: fn(&Block<'_>, &Scaling, &mut [T]),
    ) {
        let g = &self.g;
        let mut places = [0; 16];
        places.iter_mut().enumerate().take(rows).for_each(|(i, place)| *place = view.window(g, i));
        let blocks: Vec<Columns> = self.columns().collect();
        let sums: Vec<[i32; MAX_BLOCK]> = blocks
            .par_iter()
            .map(|columns| {
                let mut sums = [0; MAX_BLOCK];
                let moved: [usize; 16] = std::array::from_fn(|i| places[i] + columns.channel);
                let weights = &self.packed[columns.packed.clone()];
                kernels.run(self.left(view, &moved[..rows]), weights, columns.panels, &mut sums);
                sums
            })
            .collect();
        for (columns, sums) in blocks.iter().zip(&sums) {
            finish(&Block { sums, rows, columns, stride: g.filters() }, &self.scaling, y);
        }
    }

    fn left<'a>(&'a self, view: &View<'a>, offsets: &'a [usize]) -> Rows<'a> {
        Rows { data: view.x, offsets, pieces: &self.pieces, quads: self.quads }
    }

    /// The columns in runs of two panels or one.
    fn columns(&self) -> impl Iterator<Item = Columns> {
        let (filters, channels) = (self.g.group_filters(), self.g.group_channels());
        let (panels, depth) = (filters.div_ceil(COLUMNS), self.pieces.len() * self.quads);
        (0..self.g.groups).flat_map(move |group| {
            (0..panels).step_by(2).map(move |panel| {
                let (first, count) = (panel * COLUMNS, (panels - panel).min(2));
                let start = (group * panels + panel) * depth;
                Columns {
                    first: group * filters + first,
                    count: (filters - first).min(count * COLUMNS),
                    panels: count,
                    packed: start..start + count * depth,
                    channel: group * channels,
                }
            })
        })
    }
}

/// The bytes that windows are cut from.
struct View<'a> {
    x: &'a [u8],
    /// Bytes of a row.
    pitch: usize,
    /// Bytes of an image.
    image: usize,
}

impl View<'_> {
    /// Where the window of output pixel `at` begins.
    #[inline(always)]
    fn window(&self, g: &Geometry, at: usize) -> usize {
        let (row, column) = (at / g.output.width, at % g.output.width);
        let (image, row) = if self.image == 0 { (0, row) } else { (row / g.output.height, row % g.output.height) };
        image * self.image + row * g.window.stride.0 * self.pitch + column * g.window.stride.1 * g.input.channels
    }
}

/// A run of output channels.
struct Columns {
    first: usize,
    count: usize,
    panels: usize,
    packed: std::ops::Range<usize>,
    /// The first input channel that they see.
    channel: usize,
}

/// Sums of some rows and a run of columns.
struct Block<'a> {
    sums: &'a [i32; MAX_BLOCK],
    rows: usize,
    columns: &'a Columns,
    /// From row to row of the result.
    stride: usize,
}

impl Block<'_> {
    /// Gives every sum with its channel's bias to `finish`, and the results to their places.
    #[inline(always)]
    fn each<T: Copy + Default>(&self, scaling: &Scaling, y: &mut [T], finish: impl Fn(i32, f32) -> T) {
        let &Columns { first, count, panels, .. } = self.columns;
        for panel in 0..panels {
            let here = (count - panel * COLUMNS).min(COLUMNS);
            let channels = first + panel * COLUMNS..first + panel * COLUMNS + here;
            let (mut bias, mut factors) = ([0; COLUMNS], [0.0; COLUMNS]);
            bias[..here].copy_from_slice(&scaling.bias[channels.clone()]);
            factors[..here].copy_from_slice(&scaling.factors[channels.clone()]);
            for row in 0..self.rows {
                let sums = &self.sums[(row * panels + panel) * COLUMNS..][..COLUMNS];
                let mut results = [T::default(); COLUMNS];
                for (((result, &sum), &bias), &factor) in results.iter_mut().zip(sums).zip(&bias).zip(&factors) {
                    *result = finish(sum.wrapping_add(bias), factor);
                }
                let y = &mut y[row * self.stride + channels.start..][..here];
                match <&mut [T; COLUMNS]>::try_from(&mut *y) {
                    Ok(y) => *y = results,
                    // A loop: a call of memcpy for a few numbers took longer than the copy.
                    Err(_) => y.iter_mut().zip(&results).for_each(|(y, result)| *y = *result),
                }
            }
        }
    }
}

vectorized! {
    fn requantize(block: &Block<'_>, scaling: &Scaling, y: &mut [u8]) = requantize_block
}

#[inline(always)]
fn requantize_block(block: &Block<'_>, scaling: &Scaling, y: &mut [u8]) {
    let zero = scaling.zero;
    block.each(scaling, y, |sum, factor| to_byte(sum as f32 * factor, zero));
}

vectorized! {
    fn rescale(block: &Block<'_>, scaling: &Scaling, y: &mut [f32]) = rescale_block
}

#[inline(always)]
fn rescale_block(block: &Block<'_>, scaling: &Scaling, y: &mut [f32]) {
    block.each(scaling, y, |sum, factor| sum as f32 * factor);
}

const _: () = assert!(QUAD <= SLACK);
