//! Convolution, ReLU and 2 x 2 max pooling in one pass, for filters of few weights (the first layers of small networks).
//!
//! The four pixels of a pooling window are summed in registers whose lanes are filters, so that neither the windows of
//! the image nor the maps before pooling are ever stored. A group of filters is pooled for a whole image; then its
//! columns are turned into maps.

use super::convolution::{Epilogue, Geometry};
use super::isa::{self, pooled::Pooled, pooled::WindowRow};
use super::pooling;
use crate::shape::Padding;
use rayon::prelude::*;

/// Weights of a filter above which the packed filters would leave the L1 cache.
const MAX_DEPTH: usize = 256;

/// Tasks of a batch: each output is one task's own, so the cut does not show in the bits.
const TASKS: usize = 32;

/// The pass for one convolution, its sizes fixed.
pub(crate) struct PooledConvolution<'a> {
    g: &'a Geometry,
    pool: &'a pooling::Geometry,
    relu: bool,
    kernels: &'static Pooled,
}

impl<'a> PooledConvolution<'a> {
    /// The pass, if it is one for this convolution and what follows it.
    pub(crate) fn new(g: &'a Geometry, epilogue: &'a Epilogue) -> Option<Self> {
        let pool = epilogue.pool.as_ref().filter(|pool| pool.is_two_by_two())?;
        (g.groups == 1 && g.depth() <= MAX_DEPTH).then(|| Self {
            g,
            pool,
            relu: epilogue.relu,
            kernels: isa::pooled::pooled(),
        })
    }

    /// Filters with those that fill up the last group.
    fn lanes(&self) -> usize {
        let whole = self.g.filters() - self.g.filters() % self.kernels.group(usize::MAX);
        let rest = self.g.filters() - whole;
        whole + if rest == 0 { 0 } else { self.kernels.group(rest) }
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

    /// Numbers that a task works on: the padded image, and a group's maxima and winners.
    fn task_len(&self) -> usize {
        self.padded_len() + 2 * self.pool.output.area() * self.kernels.group(usize::MAX)
    }

    fn tasks(&self, batch: usize) -> usize {
        // A single image is cut by groups of filters.
        batch.min(TASKS).max(self.groups().count())
    }

    /// Numbers of workspace [`PooledConvolution::forward`] needs.
    pub(crate) fn workspace(&self, batch: usize) -> usize {
        self.g.depth() + self.lanes() * (self.g.depth() + 1) + self.tasks(batch) * self.task_len()
    }

    /// `y` = the pooled maps of each image; `winner`, if given, gets the place of each maximum in its map.
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
        let (map, group) = (self.pool.output.area(), self.kernels.group(usize::MAX));
        let task_len = self.task_len();
        // Images a task takes; a single one is cut by groups of filters.
        let images = batch.div_ceil(TASKS);
        let (inputs, outputs) = if batch == 1 { (1, group * map) } else { (images, images * self.pool.output.len()) };
        let task = |i: usize, y: &mut [f32], mut winner: Option<&mut [u32]>, workspace: &mut [f32]| {
            if batch == 1 {
                return self.group(&shared, i * group, x, y, winner, workspace);
            }
            let x = x[i * inputs * g.input.len()..].chunks_exact(g.input.len());
            for (n, (x, y)) in x.zip(y.chunks_exact_mut(self.pool.output.len())).enumerate() {
                for (first, group) in self.groups() {
                    let range = first * map..g.filters().min(first + group) * map;
                    let winner = winner.as_deref_mut().map(|w| &mut w[n * self.pool.output.len()..][range.clone()]);
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

    /// First filter and width of each group.
    fn groups(&self) -> impl Iterator<Item = (usize, usize)> {
        let filters = self.g.filters();
        (0..filters).step_by(self.kernels.group(usize::MAX)).map(move |f| (f, self.kernels.group(filters - f)))
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

    /// The pooled maps of one group of filters of one image.
    fn group(
        &self,
        shared: &Shared<'_>,
        first: usize,
        image: &[f32],
        y: &mut [f32],
        winner: Option<&mut [u32]>,
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
        let group = self.kernels.group(g.filters() - first);
        let filters = group.min(g.filters() - first);
        let (map, width) = (self.pool.output.area(), self.pool.output.width);
        let (maxima, winners) = workspace.split_at_mut(map * self.kernels.group(usize::MAX));
        let winners: &mut [u32] = bytemuck::cast_slice_mut(winners);
        let weights = &shared.packed[first * g.depth()..];
        let (down, right) = (g.window.stride.0 * self.padded().1, g.window.stride.1);
        for (row, maxima) in maxima[..map * group].chunks_exact_mut(width * group).enumerate() {
            let (corner, place) = (2 * row * down, 2 * row * g.output.width);
            let windows = WindowRow {
                image,
                offsets: shared.offsets,
                corners: [corner, corner + right, corner + down, corner + down + right],
                step: 2 * right,
                places: [place, place + 1, place + g.output.width, place + g.output.width + 1].map(|p| p as u32),
                count: width,
            };
            let winners = winner.is_some().then(|| &mut winners[row * width * group..][..width * group]);
            self.kernels.run(&windows, weights, &shared.bias[first..], self.relu, maxima, winners, group);
        }
        isa::transpose(&maxima[..map * group], group, (map, filters), y, map);
        if let Some(winner) = winner {
            let winners: &[f32] = bytemuck::cast_slice(&winners[..map * group]);
            isa::transpose(winners, group, (map, filters), bytemuck::cast_slice_mut(winner), map);
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
