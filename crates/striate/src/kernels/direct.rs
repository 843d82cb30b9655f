//! Direct convolution, with its ReLU and 2 x 2 max pooling, for filters of few weights: the layers of small networks.
//!
//! Four output pixels are summed in registers whose lanes are filters, so that the windows of the image are never stored; if the
//! four are a window of the pooling, neither are the maps before it. A group of filters does a band of rows, whose columns are
//! then turned into maps.

use super::convolution::{Epilogue, Geometry};
use super::isa::{self, direct::Direct, direct::PixelRow};
use super::pooling;
use crate::shape::Padding;
use rayon::prelude::*;

/// Weights of a filter above which the packed filters would leave the L1 cache.
const MAX_DEPTH: usize = 256;

/// Tasks of a batch: each output is one task's own, so the cut does not show in the bits.
const TASKS: usize = 32;

/// Channels above which a convolution without pooling is better off as a product.
const MAX_CHANNELS: usize = 8;

/// Outputs of a band: with a group of filters and their winners they stay in the L1 cache.
const BAND: usize = 128;

/// The pass for one convolution, its sizes fixed.
pub(crate) struct DirectConvolution<'a> {
    g: &'a Geometry,
    pool: Option<&'a pooling::Geometry>,
    /// One output map, after pooling if there is any.
    map: (usize, usize),
    relu: bool,
    kernels: &'static Direct,
    /// The most filters of a group.
    widest: usize,
}

impl<'a> DirectConvolution<'a> {
    /// The pass, if it is one for this convolution and what follows it.
    pub(crate) fn new(g: &'a Geometry, batch: usize, epilogue: &'a Epilogue) -> Option<Self> {
        let kernels = isa::direct::direct();
        // The only group of a single image is halved, for two threads.
        let one = batch == 1 && g.filters() <= kernels.group(usize::MAX);
        let widest = kernels.group(if one { 1 } else { usize::MAX });
        let pool = epilogue.pool.as_ref();
        let output = pool.map_or(g.output, |pool| pool.output);
        let fits = match pool {
            Some(pool) => pool.is_two_by_two(),
            // Fours are cut from rows.
            None => g.input.channels <= MAX_CHANNELS && g.output.width >= 4,
        };
        (fits && g.groups == 1 && g.depth() <= MAX_DEPTH).then_some(Self {
            g,
            pool,
            map: (output.height, output.width),
            relu: epilogue.relu,
            kernels,
            widest,
        })
    }

    /// Outputs of one map.
    fn area(&self) -> usize {
        self.map.0 * self.map.1
    }

    /// Rows of a band: whole eights of outputs, so that columns turn into maps a register at a time.
    fn band(&self) -> usize {
        let eights = 8 >> self.map.1.trailing_zeros().min(3);
        (BAND / self.map.1).max(1).next_multiple_of(eights).min(self.map.0)
    }

    /// Filters with those that fill up the last group.
    fn lanes(&self) -> usize {
        let whole = self.g.filters() - self.g.filters() % self.widest;
        let rest = self.g.filters() - whole;
        whole + if rest == 0 { 0 } else { self.group_of(rest) }
    }

    /// Height and width of an image with its padding.
    fn padded(&self) -> (usize, usize) {
        let Padding { top, left, bottom, right } = self.g.window.padding;
        (self.g.input.height + top + bottom, self.g.input.width + left + right)
    }

    fn padded_len(&self) -> usize {
        let (height, width) = self.padded();
        if self.g.window.padding == Padding::NONE { 0 } else { self.g.input.channels * height * width }
    }

    /// Numbers that a task works on: the padded image, and a group's outputs and winners of a band.
    fn task_len(&self) -> usize {
        self.padded_len() + 2 * self.band() * self.map.1 * self.widest
    }

    fn tasks(&self, batch: usize) -> usize {
        // A single image is cut by groups of filters.
        batch.min(TASKS).max(self.groups().count())
    }

    /// Numbers of workspace [`DirectConvolution::forward`] needs.
    pub(crate) fn workspace(&self, batch: usize) -> usize {
        self.g.depth() + self.lanes() * (self.g.depth() + 1) + self.tasks(batch) * self.task_len()
    }

    /// `y` = the maps of each image, after pooling if there is any; `winner`, if given, gets the place of each maximum in its map before it.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        w: &[f32],
        b: &[f32],
        y: &mut [f32],
        winner: Option<&mut [u32]>,
        workspace: &mut [f32],
    ) {
        let (g, lanes) = (self.g, self.lanes());
        let (offsets, workspace) = workspace.split_at_mut(g.depth());
        let (packed, workspace) = workspace.split_at_mut(lanes * g.depth());
        let (bias, workspace) = workspace.split_at_mut(lanes);
        let offsets: &mut [u32] = bytemuck::cast_slice_mut(offsets);
        self.offsets(offsets);
        packed.fill(0.0);
        for (first, group) in self.groups() {
            let weights = &w[first * g.depth()..];
            let filters = group.min(g.filters() - first);
            isa::transpose(weights, g.depth(), (filters, g.depth()), &mut packed[first * g.depth()..], group);
        }
        bias.fill(0.0);
        bias[..b.len()].copy_from_slice(b);
        let shared = Shared { offsets, packed, bias };

        let batch = x.len() / g.input.len();
        let (map, group) = (self.area(), self.widest);
        let output = map * g.filters();
        let task_len = self.task_len();
        // Images a task takes; a single one is cut by groups of filters.
        let images = batch.div_ceil(TASKS);
        let (inputs, outputs) = if batch == 1 { (1, group * map) } else { (images, images * output) };
        let task = |i: usize, y: &mut [f32], mut winner: Option<&mut [u32]>, workspace: &mut [f32]| {
            if batch == 1 {
                return self.group(&shared, i * group, x, y, winner, workspace);
            }
            let x = x[i * inputs * g.input.len()..].chunks_exact(g.input.len());
            for (n, (x, y)) in x.zip(y.chunks_exact_mut(output)).enumerate() {
                for (first, group) in self.groups() {
                    let range = first * map..g.filters().min(first + group) * map;
                    let winner = winner.as_deref_mut().map(|w| &mut w[n * output..][range.clone()]);
                    self.group(&shared, first, x, &mut y[range], winner, workspace);
                }
            }
        };
        let work = y.par_chunks_mut(outputs).zip(workspace.par_chunks_mut(task_len)).enumerate();
        match winner {
            Some(winner) => work
                .zip(winner.par_chunks_mut(outputs))
                .for_each(|((i, (y, workspace)), winner)| task(i, y, Some(winner), workspace)),
            None => work.for_each(|(i, (y, workspace))| task(i, y, None, workspace)),
        }
    }

    /// Filters of the next group when `rest` are left.
    fn group_of(&self, rest: usize) -> usize {
        self.kernels.group(rest).min(self.widest)
    }

    /// First filter and width of each group.
    fn groups(&self) -> impl Iterator<Item = (usize, usize)> {
        let filters = self.g.filters();
        (0..filters).step_by(self.widest).map(move |f| (f, self.group_of(filters - f)))
    }

    /// Where in the padded image each weight reads, counted from where the first one does.
    fn offsets(&self, offsets: &mut [u32]) {
        let (height, width) = self.padded();
        let (rows, columns) = self.g.window.kernel;
        let (down, right) = self.g.window.dilation;
        for (k, offset) in offsets.iter_mut().enumerate() {
            let (c, i, j) = (k / (rows * columns), k / columns % rows, k % columns);
            *offset = ((c * height + i * down) * width + j * right) as u32;
        }
    }

    /// The maps of one group of filters of one image.
    fn group(
        &self,
        shared: &Shared<'_>,
        first: usize,
        image: &[f32],
        y: &mut [f32],
        mut winner: Option<&mut [u32]>,
        workspace: &mut [f32],
    ) {
        let g = self.g;
        let (padded, workspace) = workspace.split_at_mut(self.padded_len());
        let image = if padded.is_empty() {
            image
        } else {
            self.pad(image, padded);
            padded
        };
        let group = self.group_of(g.filters() - first);
        let filters = group.min(g.filters() - first);
        let (outputs, winners) = workspace.split_at_mut(self.band() * self.map.1 * self.widest);
        let winners: &mut [u32] = bytemuck::cast_slice_mut(winners);
        let row_len = self.map.1 * group;
        for start in (0..self.map.0).step_by(self.band()) {
            let rows = start..self.map.0.min(start + self.band());
            for (i, row) in rows.clone().enumerate() {
                let winners = winner.is_some().then(|| &mut winners[i * row_len..][..row_len]);
                self.row(shared, (first, group), image, row, &mut outputs[i * row_len..][..row_len], winners);
            }
            let (at, len) = (start * self.map.1, rows.len() * self.map.1);
            isa::transpose(&outputs[..len * group], group, (len, filters), &mut y[at..], self.area());
            if let Some(winner) = &mut winner {
                let winners: &[f32] = bytemuck::cast_slice(&winners[..len * group]);
                let winner = bytemuck::cast_slice_mut(&mut winner[at..]);
                isa::transpose(winners, group, (len, filters), winner, self.area());
            }
        }
    }

    /// One row of the outputs of a group of filters, (width x group).
    fn row(
        &self,
        shared: &Shared<'_>,
        (first, group): (usize, usize),
        image: &[f32],
        row: usize,
        outputs: &mut [f32],
        winners: Option<&mut [u32]>,
    ) {
        let g = self.g;
        let (down, right) = (g.window.stride.0 * self.padded().1, g.window.stride.1);
        let (weights, bias) = (&shared.packed[first * g.depth()..], &shared.bias[first..]);
        let run = |corners, step, count, pool, outputs: &mut [f32], winners: Option<&mut [u32]>| {
            let row = PixelRow { image, offsets: shared.offsets, corners, step, count, pool };
            self.kernels.run(&row, weights, bias, self.relu, outputs, winners, group);
        };
        if self.pool.is_some() {
            let (corner, place) = (2 * row * down, 2 * row * g.output.width);
            let corners = [corner, corner + right, corner + down, corner + down + right];
            let places = [place, place + 1, place + g.output.width, place + g.output.width + 1].map(|p| p as u32);
            return run(corners, 2 * right, self.map.1, Some(places), outputs, winners);
        }
        let corners = |column: usize| [0, 1, 2, 3].map(|i| row * down + (column + i) * right);
        run(corners(0), 4 * right, self.map.1 / 4, None, outputs, None);
        if !self.map.1.is_multiple_of(4) {
            // The last four overlap those before, and come to the same.
            let column = self.map.1 - 4;
            run(corners(column), 0, 1, None, &mut outputs[column * group..], None);
        }
    }

    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let (height, width) = self.padded();
        let Padding { top, left, .. } = self.g.window.padding;
        padded.fill(0.0);
        let planes = image.chunks_exact(self.g.input.area()).zip(padded.chunks_exact_mut(height * width));
        for (plane, padded) in planes {
            let rows = plane.chunks_exact(self.g.input.width).zip(padded[top * width..].chunks_exact_mut(width));
            rows.for_each(|(row, padded)| padded[left..][..row.len()].copy_from_slice(row));
        }
    }
}

/// What all tasks read.
struct Shared<'a> {
    offsets: &'a [u32],
    packed: &'a [f32],
    bias: &'a [f32],
}
