//! Convolution of small images in batches, with the activation and the 2 x 2 pooling that follow it: as many images as a
//! register has lanes stand side by side, number by number, so that lanes are images.
//!
//! Every lane then counts whatever the sizes of maps and filters, padding and pooling are plain steps between whole
//! registers, and nothing is packed: a window is read where it lies. Images are turned on their way in and maps on their
//! way out, which costs little beside the convolution. All three passes are sums over windows of such interleaved images;
//! the gradient of the input is one over the gradient of the outputs with turned filters, that of the weights sums over
//! pixels and lanes.

use super::few::FEW_CHANNELS;
use super::geometry::Geometry;
use super::{Pass, at_once, in_turn, sum, whole_lines};
use crate::kernels::functions::sigmoid;
use crate::kernels::isa::interleaved::{self as kernels, MAX_FILTERS, MAX_GRADIENT_FILTERS, Windows};
use crate::kernels::{elementwise, isa, pooling};
use crate::shape::Padding;

/// Least batch for which lanes are filled well enough.
const LEAST_BATCH: usize = 8;

/// Numbers of a chunk of images, its padding included, or of its outputs, up to which their rows stay near the cores.
const LARGEST: usize = 640 * 1024;

/// Numbers up to which this way is ahead of the weights' gradient that follows a max pooling's winners, where an image has
/// few channels.
const LARGEST_OF_FEW: usize = 256 * 1024;

/// Pixels whose gradients, of the filters worked on at once, stay in the L1 cache while the weights' gradient passes over the
/// places of their windows, and whose windows stay in the L2 cache while it passes over the filters.
const PIXELS: usize = 64;

/// Numbers of a band of outputs that are turned together.
const BAND: usize = 32 * 1024;

/// Rows of outputs computed together where there is no pooling.
const ROWS: usize = 2;

/// What is applied to each output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// `max(0, z)`.
    Relu,
    /// `1 / (1 + e^-z)`.
    Sigmoid,
}

/// How maps become smaller after the activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The largest of 2 x 2.
    Max,
    /// The mean of 2 x 2.
    Average,
}

/// Which number of its window won a maximum, in row order; a maximum that ReLU stopped has none.
const NO_WINNER: f32 = 4.0;

/// A convolution with what follows it, its sizes fixed.
#[derive(Clone, Debug)]
pub(crate) struct Interleaved {
    g: Geometry,
    batch: usize,
    activation: Activation,
    pool: Option<(Pool, pooling::Geometry)>,
    /// Where the window of each output pixel starts in a padded channel, and where its places are from there.
    starts: Vec<u32>,
    taps: Vec<u32>,
    /// Where each output pixel's gradient is in a plane without a margin, and in one with the margin that the input's
    /// gradient reads; and, of that plane, where the window of each input pixel starts and its places are.
    plain: Vec<u32>,
    wide: Vec<u32>,
    input_starts: Vec<u32>,
    input_taps: Vec<u32>,
}

/// Places of a grid in rows `pitch` apart.
fn grid(height: usize, width: usize, pitch: usize, first: usize) -> Vec<u32> {
    (0..height * width).map(|i| (first + i / width * pitch + i % width) as u32).collect()
}

/// `count` in as few equal parts of at most `most` as can be: first and length of each.
fn parts(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = count.div_ceil(most).max(1);
    (0..parts).map(move |i| {
        let (from, to) = (i * count / parts, (i + 1) * count / parts);
        (from, to - from)
    })
}

impl Interleaved {
    /// The way, if it is one for these sizes.
    pub(crate) fn new(g: &Geometry, batch: usize) -> Option<Self> {
        let lanes = kernels::interleaved().lanes;
        let Padding { top, left, bottom, right } = g.window.padding;
        let (height, width) = g.window.kernel;
        let plain = g.groups == 1 && g.window.stride == (1, 1) && g.window.dilation == (1, 1);
        let inside = top.max(bottom) < height && left.max(right) < width;
        if !plain || !inside || batch < LEAST_BATCH {
            return None;
        }
        let (padded, wide) = (padded(g), wide(g));
        if extent(g) * lanes > LARGEST {
            return None;
        }
        Some(Self {
            g: *g,
            batch,
            activation: Activation::None,
            pool: None,
            starts: grid(g.output.height, g.output.width, padded.1, 0),
            taps: grid(height, width, padded.1, 0),
            plain: grid(g.output.height, g.output.width, g.output.width, 0),
            wide: grid(g.output.height, g.output.width, wide.1, (height - 1 - top) * wide.1 + width - 1 - left),
            input_starts: grid(g.input.height, g.input.width, wide.1, 0),
            input_taps: grid(height, width, wide.1, 0),
        })
    }

    /// Whether nothing follows the convolution yet.
    pub(crate) fn is_bare(&self) -> bool {
        self.activation == Activation::None && self.pool.is_none()
    }

    /// Whether a max pooling that follows is better undone number by number, by the way for one image at a time.
    pub(crate) fn yields_to_winners(&self) -> bool {
        let lanes = kernels::interleaved().lanes;
        self.g.input.channels <= FEW_CHANNELS && extent(&self.g) * lanes > LARGEST_OF_FEW
    }

    /// The activation taken in so far.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Takes in an activation; `false` if it can't.
    pub(crate) fn activate(&mut self, activation: Activation) -> bool {
        let takes = self.is_bare();
        if takes {
            self.activation = activation;
        }
        takes
    }

    /// Takes in a pooling; `false` if it can't.
    pub(crate) fn pool(&mut self, pool: Pool, geometry: pooling::Geometry) -> bool {
        // The winner's own output would have to be kept beside its place.
        let fits = pool == Pool::Average || self.activation != Activation::Sigmoid;
        let takes = self.pool.is_none() && fits && geometry.is_two_by_two();
        if takes {
            self.pool = Some((pool, geometry));
        }
        takes
    }

    /// One output sample.
    pub(crate) fn output(&self) -> crate::shape::Shape {
        self.pool.map_or(self.g.output, |(_, pool)| pool.output)
    }

    fn chunks(&self) -> usize {
        self.batch.div_ceil(kernels::interleaved().lanes)
    }

    fn padded_len(&self) -> usize {
        let (height, width) = padded(&self.g);
        self.g.input.channels * height * width
    }

    /// Rows of outputs that are turned together.
    fn band(&self) -> usize {
        let row = self.g.filters() * self.output().width * kernels::interleaved().lanes;
        (BAND / row.max(1)).max(1).next_multiple_of(ROWS).min(self.output().height)
    }

    /// What the backward pass needs of each chunk, in numbers of one image: outputs before an average, winners of a maximum.
    fn saved_of_image(&self) -> usize {
        match (self.activation, self.pool) {
            (_, Some((Pool::Max, pool))) => pool.output.len(),
            (Activation::None, _) => 0,
            _ => self.g.output.len(),
        }
    }

    /// Numbers to keep from forward to backward.
    pub(crate) fn saved(&self) -> usize {
        self.chunks() * self.saved_of_image() * kernels::interleaved().lanes
    }

    /// Brings filters into the order in which a pass reads them: as many numbers.
    pub(crate) fn prepare(&self, pass: Pass, w: &[f32], prepared: &mut [f32]) {
        let (filters, channels, taps) = (self.g.filters(), self.g.input.channels, self.g.taps());
        let (outer, inner) = match pass {
            Pass::Forward => (filters, channels),
            Pass::BackwardInput => (channels, filters),
        };
        for (first, count) in parts(outer, MAX_FILTERS) {
            let packed = &mut prepared[first * inner * taps..][..count * inner * taps];
            for (k, packed) in packed.chunks_exact_mut(count).enumerate() {
                let (i, tap) = (k / taps, k % taps);
                packed.iter_mut().enumerate().for_each(|(o, p)| {
                    *p = match pass {
                        Pass::Forward => w[(first + o) * channels * taps + k],
                        Pass::BackwardInput => w[(i * channels + first + o) * taps + taps - 1 - tap],
                    };
                });
            }
        }
    }

    /// Numbers of a chunk's task in the forward pass: padded images, rows before pooling, a band of outputs.
    fn forward_task(&self) -> [usize; 3] {
        let lanes = kernels::interleaved().lanes;
        let rows = if self.pool.is_some() { MAX_FILTERS * 2 * self.g.output.width } else { 0 };
        let band = self.g.filters() * self.band() * self.output().width;
        [self.padded_len() * lanes, rows * lanes, band * lanes]
    }

    /// Numbers of a chunk's task in the backward pass: padded images, gradients as they come, gradients before pooling and
    /// activation, gradients of the images.
    fn backward_task(&self) -> [usize; 4] {
        let (g, lanes) = (&self.g, kernels::interleaved().lanes);
        let (height, width) = wide(g);
        let outputs = g.filters() * height * width;
        let arrived = self.output().len();
        let input = g.input.len() * lanes;
        [self.padded_len() * lanes, arrived * lanes, outputs * lanes, input]
    }

    /// Numbers of workspace the forward pass needs.
    pub(crate) fn forward_workspace(&self) -> usize {
        at_once(self.chunks()) * self.forward_task().iter().sum::<usize>()
    }

    /// Numbers of workspace the backward pass needs: prepared filters, each chunk's gradients of filters and biases, tasks.
    pub(crate) fn backward_workspace(&self) -> usize {
        let [prepared, sums] = self.backward_sums();
        prepared + sums + at_once(self.chunks()) * self.backward_task().iter().sum::<usize>()
    }

    /// The first two, in whole cache lines.
    fn backward_sums(&self) -> [usize; 2] {
        let sums = self.g.weights() + self.g.filters();
        [self.g.weights(), self.chunks() * sums].map(whole_lines)
    }

    /// `y` = the maps of each image; `saved` is empty if there will be no backward pass.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        prepared: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        saved: &mut [f32],
        workspace: &mut [f32],
    ) {
        let lanes = kernels::interleaved().lanes;
        let (input, output) = (lanes * self.g.input.len(), lanes * self.output().len());
        let task: usize = self.forward_task().iter().sum();
        let saved_len = lanes * self.saved_of_image();
        let mut saved = (!saved.is_empty() && saved_len > 0).then(|| saved.chunks_mut(saved_len));
        let chunks = x.chunks(input).zip(y.chunks_mut(output));
        let chunks = chunks.map(move |(x, y)| (x, y, saved.as_mut().and_then(Iterator::next)));
        in_turn(workspace, task, chunks, |(x, y, saved), workspace| {
            self.forward_chunk(x, prepared, bias, y, saved, workspace);
        });
    }

    fn forward_chunk(
        &self,
        x: &[f32],
        prepared: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        saved: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) {
        let (g, set) = (&self.g, kernels::interleaved());
        let (lanes, pixels) = (set.lanes, g.pixels());
        let [padded_len, rows_len, band_len] = self.forward_task();
        let (images, workspace) = workspace.split_at_mut(padded_len);
        let (rows_buffer, workspace) = workspace.split_at_mut(rows_len);
        let band_buffer = &mut workspace[..band_len];
        self.interleave_padded(x, images);
        let (_, plane_width) = padded(g);
        let plane = padded(g).0 * plane_width;
        let (width, output) = (g.output.width, self.output());
        let keeps = self.pool.is_none_or(|(pool, _)| pool == Pool::Average) && self.activation != Activation::None;
        let (mut kept, mut winners) = if keeps { (saved, None) } else { (None, saved) };
        let step = if self.pool.is_some() { 1 } else { ROWS };
        let no_bias = [0.0; MAX_FILTERS];
        for start in (0..output.height).step_by(self.band()) {
            let band = start..output.height.min(start + self.band());
            let area = band.len() * output.width;
            for row in band.clone().step_by(step) {
                let rows = row..band.end.min(row + step);
                // Rows of the convolution's own output.
                let own = if self.pool.is_some() { 2 * row..2 * row + 2 } else { rows.clone() };
                let at = (row - start) * output.width;
                for (first, filters) in parts(g.filters(), MAX_FILTERS) {
                    let windows = Windows {
                        images,
                        starts: &self.starts[own.start * width..own.end * width],
                        taps: &self.taps,
                        channels: g.input.channels,
                        plane,
                    };
                    let weights = (&prepared[first * g.depth()..], filters * g.taps());
                    let bias = bias.map_or(&no_bias[..], |bias| &bias[first..]);
                    let out = &mut band_buffer[first * area * lanes..];
                    // Straight to where they stay, or else to where pooling reads them.
                    let (target, pitch) = match &mut kept {
                        Some(kept) => (&mut kept[(first * pixels + own.start * width) * lanes..], pixels),
                        _ if self.pool.is_some() => (&mut *rows_buffer, own.len() * width),
                        _ => {
                            let out = &mut out[at * lanes..];
                            set.outputs(&windows, weights, bias, filters, out, area);
                            for out in out.chunks_mut(area * lanes).take(filters) {
                                activate(self.activation, &mut out[..own.len() * width * lanes]);
                            }
                            continue;
                        }
                    };
                    set.outputs(&windows, weights, bias, filters, target, pitch);
                    for f in 0..filters {
                        let own = &mut target[f * pitch * lanes..][..own.len() * width * lanes];
                        let out = &mut out[(f * area + at) * lanes..][..rows.len() * output.width * lanes];
                        match self.pool {
                            None => {
                                activate(self.activation, own);
                                out.copy_from_slice(own);
                            }
                            Some((Pool::Average, _)) => {
                                activate(self.activation, own);
                                by_lanes!(lanes, L => average::<L>(own.as_chunks().0, width, out.as_chunks_mut().0));
                            }
                            Some((Pool::Max, _)) => {
                                let place = ((first + f) * output.height + row) * output.width * lanes;
                                let winners = winners.as_deref_mut().map(|w| &mut w[place..][..out.len()]);
                                let relu = self.activation == Activation::Relu;
                                by_lanes!(lanes, L => {
                                    let winners = winners.map(|winners| winners.as_chunks_mut().0);
                                    largest::<L>(own.as_chunks().0, width, relu, out.as_chunks_mut().0, winners);
                                });
                            }
                        }
                    }
                }
            }
            let count = x.len() / g.input.len();
            for (f, out) in band_buffer.chunks_exact(area * lanes).take(g.filters()).enumerate() {
                let y = &mut y[f * output.area() + start * output.width..];
                isa::transpose(out, lanes, (area, count), y, output.len());
            }
        }
    }

    /// Writes a chunk's images side by side, with their padding.
    fn interleave_padded(&self, x: &[f32], images: &mut [f32]) {
        let (input, lanes) = (self.g.input, kernels::interleaved().lanes);
        let Padding { top, left, .. } = self.g.window.padding;
        let (height, width) = padded(&self.g);
        let count = x.len() / input.len();
        let plain = (height, width) == (input.height, input.width);
        if !plain || count < lanes {
            images.fill(0.0);
        }
        if plain {
            return isa::transpose(x, input.len(), (count, input.len()), images, lanes);
        }
        for (c, plane) in images.chunks_exact_mut(height * width * lanes).enumerate() {
            for row in 0..input.height {
                let from = (c * input.height + row) * input.width;
                let target = &mut plane[((top + row) * width + left) * lanes..];
                isa::transpose(&x[from..], input.len(), (count, input.width), target, lanes);
            }
        }
    }

    /// Gradients of filters, biases and (unless `dx` is empty) images from the gradient of the output; adds to `dx` if told
    /// to accumulate, and overwrites the others.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        w: &[f32],
        dy: &[f32],
        saved: &[f32],
        (dx, accumulate): (&mut [f32], bool),
        (dw, db): (&mut [f32], Option<&mut [f32]>),
        workspace: &mut [f32],
    ) {
        let (g, lanes) = (&self.g, kernels::interleaved().lanes);
        let (input, output) = (lanes * g.input.len(), lanes * self.output().len());
        let task: usize = self.backward_task().iter().sum();
        let saved_len = lanes * self.saved_of_image();
        let [prepared_len, sums_len] = self.backward_sums();
        let (prepared, workspace) = workspace.split_at_mut(prepared_len);
        let (sums, workspace) = workspace.split_at_mut(sums_len);
        if !dx.is_empty() {
            self.prepare(Pass::BackwardInput, w, prepared);
        }
        let (prepared, of_chunk) = (&*prepared, g.weights() + g.filters());
        let sums = &mut sums[..self.chunks() * of_chunk];
        let mut dx = (!dx.is_empty()).then(|| dx.chunks_mut(input));
        let chunks = x.chunks(input).zip(dy.chunks(output)).zip(sums.chunks_exact_mut(of_chunk)).enumerate();
        let chunks = chunks.map(move |(i, ((x, dy), sums))| (i, x, dy, sums, dx.as_mut().and_then(Iterator::next)));
        in_turn(workspace, task, chunks, |(i, x, dy, sums, dx), workspace| {
            let saved = &saved[i * saved_len..(i + 1) * saved_len];
            let dx = dx.map(|dx| (dx, accumulate));
            self.backward_chunk(x, prepared, dy, saved, dx, sums.split_at_mut(g.weights()), workspace);
        });
        add_chunks(sums, of_chunk, 0, dw);
        if let Some(db) = db {
            add_chunks(sums, of_chunk, g.weights(), db);
        }
    }

    fn backward_chunk(
        &self,
        x: &[f32],
        prepared: &[f32],
        dy: &[f32],
        saved: &[f32],
        dx: Option<(&mut [f32], bool)>,
        (dw, db): (&mut [f32], &mut [f32]),
        workspace: &mut [f32],
    ) {
        let (g, set) = (&self.g, kernels::interleaved());
        let lanes = set.lanes;
        let [padded_len, arrived_len, outputs_len, _] = self.backward_task();
        let (images, workspace) = workspace.split_at_mut(padded_len);
        let (arrived, workspace) = workspace.split_at_mut(arrived_len);
        let (outputs, workspace) = workspace.split_at_mut(outputs_len);
        let turned = workspace;
        let (count, output) = (x.len() / g.input.len(), self.output().len());
        self.interleave_padded(x, images);
        if count < lanes {
            arrived.fill(0.0);
        }
        isa::transpose(dy, output, (count, output), arrived, lanes);
        // Only the gradient of the images reads beyond the maps.
        let ((height, width), places) = match dx {
            Some(_) => (wide(g), &self.wide),
            None => ((g.output.height, g.output.width), &self.plain),
        };
        let plane = height * width;
        let outputs = &mut outputs[..g.filters() * plane * lanes];
        // A margin stays zero, and so does what no pooling window saw.
        let windows_see_all = self.pool.is_none_or(|(_, pool)| 4 * pool.output.area() == g.pixels());
        if dx.is_some() || !windows_see_all {
            outputs.fill(0.0);
        }
        let first = places.first().map_or(0, |&p| p as usize);
        self.undo(arrived, saved, outputs, (plane, width, first));
        let outputs = &*outputs;
        for (db, outputs) in db.iter_mut().zip(outputs.chunks_exact(plane * lanes)) {
            *db = isa::vectorize(|| sum(outputs));
        }
        let (padded_height, padded_width) = padded(g);
        for (i, (starts, places)) in self.starts.chunks(PIXELS).zip(places.chunks(PIXELS)).enumerate() {
            let (taps, channels) = (&self.taps, g.input.channels);
            let windows = Windows { images, starts, taps, channels, plane: padded_height * padded_width };
            for (first, filters) in parts(g.filters(), MAX_GRADIENT_FILTERS) {
                let dw = (&mut dw[first * g.depth()..], i > 0);
                set.gradients(&windows, &outputs[first * plane * lanes..], places, plane, filters, dw);
            }
        }
        let Some((dx, accumulate)) = dx else { return };
        self.input_gradient(outputs, prepared, images);
        let images = &images[..g.input.len() * lanes];
        if !accumulate {
            return isa::transpose(images, lanes, (g.input.len(), count), dx, g.input.len());
        }
        isa::transpose(images, lanes, (g.input.len(), count), turned, g.input.len());
        isa::vectorize(|| dx.iter_mut().zip(&*turned).for_each(|(d, t)| *d += t));
    }

    /// The gradient of the convolution's own outputs from that of what was made of them, into planes of so many numbers, in
    /// rows `width` apart from `first` on; what no pooling window saw is left alone.
    fn undo(&self, arrived: &[f32], saved: &[f32], outputs: &mut [f32], (plane, width, first): (usize, usize, usize)) {
        let (g, output, lanes) = (&self.g, self.output(), kernels::interleaved().lanes);
        let row_len = output.width * lanes;
        for (i, arrived) in arrived.chunks_exact(row_len).enumerate() {
            let (f, row) = (i / output.height, i % output.height);
            let target = &mut outputs[(f * plane + first) * lanes..];
            let own = g.output.width * lanes;
            match self.pool {
                None => {
                    let target = &mut target[row * width * lanes..][..own];
                    let y = if saved.is_empty() { &[][..] } else { &saved[i * own..(i + 1) * own] };
                    undo_activation(self.activation, arrived, y, target);
                }
                Some((Pool::Average, _)) => {
                    for row in 2 * row..2 * row + 2 {
                        let target = &mut target[row * width * lanes..][..own];
                        let at = (f * g.output.height + row) * own;
                        let y = if saved.is_empty() { &[][..] } else { &saved[at..at + own] };
                        by_lanes!(lanes, L => {
                            let (dy, y) = (arrived.as_chunks().0, y.as_chunks().0);
                            spread::<L>(self.activation, dy, y, target.as_chunks_mut().0);
                        });
                    }
                }
                Some((Pool::Max, _)) => {
                    let winners = &saved[i * row_len..(i + 1) * row_len];
                    for down in 0..2 {
                        let target = &mut target[(2 * row + down) * width * lanes..][..own];
                        by_lanes!(lanes, L => {
                            to_winners::<L>(arrived.as_chunks().0, winners.as_chunks().0, down, target.as_chunks_mut().0);
                        });
                    }
                }
            }
        }
    }

    /// The gradient of the images, interleaved and without padding, from that of the outputs in [`wide`] planes.
    fn input_gradient(&self, outputs: &[f32], prepared: &[f32], images: &mut [f32]) {
        let (g, set) = (&self.g, kernels::interleaved());
        let (rows, columns) = g.window.kernel;
        let (height, width) = wide(g);
        // Rows of the margin are zeros, and need not be read.
        let margin = rows - 1 - g.window.padding.top;
        for row in 0..g.input.height {
            let from = margin.saturating_sub(row).min(rows);
            let to = (margin + g.output.height).saturating_sub(row).clamp(from, rows);
            let windows = Windows {
                images: outputs,
                starts: &self.input_starts[row * g.input.width..][..g.input.width],
                taps: &self.input_taps[from * columns..to * columns],
                channels: g.filters(),
                plane: height * width,
            };
            for (first, channels) in parts(g.input.channels, MAX_FILTERS) {
                let weights = &prepared[first * g.filters() * g.taps() + from * columns * channels..];
                let target = &mut images[(first * g.input.area() + row * g.input.width) * set.lanes..];
                let step = channels * g.taps();
                set.outputs(&windows, (weights, step), &[0.0; MAX_FILTERS], channels, target, g.input.area());
            }
        }
    }
}

/// Height and width of a padded channel.
fn padded(g: &Geometry) -> (usize, usize) {
    let Padding { top, left, bottom, right } = g.window.padding;
    (g.input.height + top + bottom, g.input.width + left + right)
}

/// Height and width of a plane of the outputs' gradient with zeros around it as far as an input pixel's window reaches.
fn wide(g: &Geometry) -> (usize, usize) {
    (g.input.height + g.window.kernel.0 - 1, g.input.width + g.window.kernel.1 - 1)
}

/// Numbers of one image with its padding, or of its outputs with theirs, whichever are more.
fn extent(g: &Geometry) -> usize {
    let (padded, wide) = (padded(g), wide(g));
    (g.input.channels * padded.0 * padded.1).max(g.filters() * wide.0 * wide.1)
}

/// Sums what each chunk's task has from `at` on, in order.
fn add_chunks(workspace: &[f32], task: usize, at: usize, target: &mut [f32]) {
    isa::vectorize(|| {
        target.fill(0.0);
        for chunk in workspace.chunks_exact(task) {
            target.iter_mut().zip(&chunk[at..]).for_each(|(t, c)| *t += c);
        }
    });
}

/// Runs an expression with the number of lanes as a constant.
macro_rules! by_lanes {
    ($lanes:expr, $name:ident => $body:expr) => {
        match $lanes {
            16 => {
                const $name: usize = 16;
                $body
            }
            8 => {
                const $name: usize = 8;
                $body
            }
            _ => {
                const $name: usize = 4;
                $body
            }
        }
    };
}
use by_lanes;

#[inline(always)]
fn activate_body(activation: Activation, z: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Relu => elementwise::relu_in_place(z),
        Activation::Sigmoid => z.iter_mut().for_each(|z| *z = sigmoid(*z)),
    }
}

isa::vectorized!(fn activate(activation: Activation, z: &mut [f32]) = activate_body);

/// `target` = the gradient `dy` of outputs `y` through the activation.
#[inline(always)]
fn undo_activation_body(activation: Activation, dy: &[f32], y: &[f32], target: &mut [f32]) {
    match activation {
        Activation::None => target.copy_from_slice(dy),
        _ => target.iter_mut().zip(dy).zip(y).for_each(|((t, &dy), &y)| *t = through(activation, dy, y)),
    }
}

isa::vectorized!(
    fn undo_activation(activation: Activation, dy: &[f32], y: &[f32], target: &mut [f32]) = undo_activation_body
);

/// The gradient `dy` of an output `y`, before the activation.
#[inline(always)]
fn through(activation: Activation, dy: f32, y: f32) -> f32 {
    match activation {
        Activation::None => dy,
        Activation::Relu => {
            if y > 0.0 {
                dy
            } else {
                0.0
            }
        }
        Activation::Sigmoid => dy * (1.0 - y) * y,
    }
}

/// Ends a turn of a loop over windows, in which lanes are images. The compiler would else take windows for lanes, gather and scatter
/// them: with this it leaves the loop as it is, and lanes together.
#[inline(always)]
fn next_window() {
    std::hint::black_box(());
}

/// The means of the 2 x 2 windows of two rows of `width` numbers.
#[inline(always)]
fn average_body<const L: usize>(rows: &[[f32; L]], width: usize, out: &mut [[f32; L]]) {
    let (top, bottom) = rows.split_at(width);
    let windows = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
    for (out, ([a, b], [c, d])) in out.iter_mut().zip(windows) {
        let mut mean = [0.0; L];
        for n in 0..L {
            mean[n] = ((a[n] + b[n]) + (c[n] + d[n])) * 0.25;
        }
        *out = mean;
        next_window();
    }
}

isa::vectorized!(
    fn average[const L: usize](rows: &[[f32; L]], width: usize, out: &mut [[f32; L]]) = average_body
);

/// The largest numbers of the 2 x 2 windows of two rows of `width` numbers, and which they were; NaN wins, of equals the
/// first.
#[inline(always)]
fn largest_body<const L: usize>(
    rows: &[[f32; L]],
    width: usize,
    relu: bool,
    out: &mut [[f32; L]],
    mut winners: Option<&mut [[f32; L]]>,
) {
    let (top, bottom) = rows.split_at(width);
    let wins = |a: f32, b: f32| (a > b) | a.is_nan();
    let windows = top.as_chunks::<2>().0.iter().zip(bottom.as_chunks::<2>().0);
    for (i, (out, ([a, b], [c, d]))) in out.iter_mut().zip(windows).enumerate() {
        let (mut most, mut which) = ([0.0; L], [0.0; L]);
        for n in 0..L {
            let (upper, u) = if wins(b[n], a[n]) { (b[n], 1.0) } else { (a[n], 0.0) };
            let (lower, l) = if wins(d[n], c[n]) { (d[n], 3.0) } else { (c[n], 2.0) };
            let (best, place) = if wins(lower, upper) { (lower, l) } else { (upper, u) };
            most[n] = if relu { elementwise::relu(best) } else { best };
            which[n] = if !relu | (best > 0.0) { place } else { NO_WINNER };
        }
        *out = most;
        next_window();
        if let Some(winners) = &mut winners {
            winners[i] = which;
        }
    }
}

isa::vectorized!(
    fn largest[const L: usize](
        rows: &[[f32; L]],
        width: usize,
        relu: bool,
        out: &mut [[f32; L]],
        winners: Option<&mut [[f32; L]]>,
    ) = largest_body
);

/// A quarter of each gradient for both numbers of a row that its window saw, through the activation.
#[inline(always)]
fn spread_body<const L: usize>(activation: Activation, dy: &[[f32; L]], y: &[[f32; L]], row: &mut [[f32; L]]) {
    let pairs = row.as_chunks_mut::<2>().0;
    let y = y.as_chunks::<2>().0;
    match activation {
        Activation::None => {
            for (dy, pair) in dy.iter().zip(pairs) {
                let mut share = [0.0; L];
                for n in 0..L {
                    share[n] = dy[n] * 0.25;
                }
                *pair = [share; 2];
                next_window();
            }
        }
        // One loop for each, in whose body the activation is known.
        Activation::Relu => {
            for ((dy, pair), y) in dy.iter().zip(pairs).zip(y) {
                *pair = shares_through(Activation::Relu, dy, y);
                next_window();
            }
        }
        Activation::Sigmoid => {
            for ((dy, pair), y) in dy.iter().zip(pairs).zip(y) {
                *pair = shares_through(Activation::Sigmoid, dy, y);
                next_window();
            }
        }
    }
}

/// The shares of a window's gradient in two of its numbers.
#[inline(always)]
fn shares_through<const L: usize>(activation: Activation, dy: &[f32; L], y: &[[f32; L]; 2]) -> [[f32; L]; 2] {
    let mut shares = [[0.0; L]; 2];
    for (share, y) in shares.iter_mut().zip(y) {
        for n in 0..L {
            share[n] = through(activation, dy[n] * 0.25, y[n]);
        }
    }
    shares
}

isa::vectorized!(
    fn spread[const L: usize](activation: Activation, dy: &[[f32; L]], y: &[[f32; L]], row: &mut [[f32; L]])
        = spread_body
);

/// Each gradient to the winner of its window, where that lies in the upper (0) or lower (1) row.
#[inline(always)]
fn to_winners_body<const L: usize>(dy: &[[f32; L]], winners: &[[f32; L]], down: usize, row: &mut [[f32; L]]) {
    let first = 2.0 * down as f32;
    for ((dy, winner), pair) in dy.iter().zip(winners).zip(row.as_chunks_mut::<2>().0) {
        let mut shares = [[0.0; L]; 2];
        for n in 0..L {
            // By bits: a choice between the gradient and zero became a branch a number.
            let keep = |place: f32| f32::from_bits(dy[n].to_bits() & u32::from(winner[n] == place).wrapping_neg());
            (shares[0][n], shares[1][n]) = (keep(first), keep(first + 1.0));
        }
        *pair = shares;
        next_window();
    }
}

isa::vectorized!(
    fn to_winners[const L: usize](dy: &[[f32; L]], winners: &[[f32; L]], down: usize, row: &mut [[f32; L]])
        = to_winners_body
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use crate::shape::{Rounding, Shape, Window};
    use proptest::prelude::*;

    fn numbers(stream: u64, len: usize) -> Vec<f32> {
        let random = Random::new(10, Purpose::Test, stream);
        (0..len).map(|i| random.normal(i as u64)).collect()
    }

    /// What the passes should give, in f64 and by definition.
    struct Truth {
        y: Vec<f64>,
        dx: Vec<f64>,
        dw: Vec<f64>,
        db: Vec<f64>,
    }

    fn truth(way: &Interleaved, x: &[f32], w: &[f32], b: &[f32], dy: &[f32]) -> Truth {
        let (g, output) = (&way.g, way.output());
        let (rows, columns) = g.window.kernel;
        let (filters, channels) = (g.filters(), g.input.channels);
        let mut truth = Truth { y: Vec::new(), dx: vec![0.0; x.len()], dw: vec![0.0; w.len()], db: vec![0.0; filters] };
        for n in 0..way.batch {
            for f in 0..filters {
                // Every product of the window of a pixel: places in x and w.
                let window = |pixel: usize| {
                    let (row, column) = (pixel / g.output.width, pixel % g.output.width);
                    (0..g.depth()).filter_map(move |k| {
                        let (c, i, j) = (k / (rows * columns), k / columns % rows, k % columns);
                        let y = (row + i).checked_sub(g.window.padding.top).filter(|&y| y < g.input.height)?;
                        let x = (column + j).checked_sub(g.window.padding.left).filter(|&x| x < g.input.width)?;
                        Some((((n * channels + c) * g.input.height + y) * g.input.width + x, f * g.depth() + k))
                    })
                };
                let z = |pixel: usize| {
                    f64::from(b[f]) + window(pixel).map(|(i, k)| f64::from(x[i]) * f64::from(w[k])).sum::<f64>()
                };
                let act = |z: f64| match way.activation {
                    Activation::None => z,
                    Activation::Relu => z.max(0.0),
                    Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
                };
                let slope = |z: f64| match way.activation {
                    Activation::None => 1.0,
                    Activation::Relu => f64::from(u8::from(z > 0.0)),
                    Activation::Sigmoid => (-z).exp() / (1.0 + (-z).exp()).powi(2),
                };
                for at in 0..output.area() {
                    // The pixels that an output is made of, each with its share.
                    let corner = 2 * (at / output.width) * g.output.width + 2 * (at % output.width);
                    let four = [corner, corner + 1, corner + g.output.width, corner + g.output.width + 1];
                    let shares: Vec<(usize, f64)> = match way.pool {
                        None => vec![(at, 1.0)],
                        Some((Pool::Average, _)) => four.map(|pixel| (pixel, 0.25)).to_vec(),
                        Some((Pool::Max, _)) => {
                            let best = four.into_iter().reduce(|a, b| if z(b) > z(a) { b } else { a });
                            vec![(best.expect("four"), 1.0)]
                        }
                    };
                    truth.y.push(shares.iter().map(|&(pixel, share)| share * act(z(pixel))).sum());
                    let dy = f64::from(dy[(n * filters + f) * output.area() + at]);
                    for (pixel, share) in shares {
                        let dz = dy * share * slope(z(pixel));
                        truth.db[f] += dz;
                        for (i, k) in window(pixel) {
                            truth.dx[i] += dz * f64::from(w[k]);
                            truth.dw[k] += dz * f64::from(x[i]);
                        }
                    }
                }
            }
        }
        truth
    }

    fn close(what: &str, found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(a) - b).abs() < 1e-4 * scale, "{what}, {i}: {a}, expected {b}");
        }
    }

    fn check(g: Geometry, batch: usize, activation: Activation, pool: Option<Pool>) {
        let mut way = Interleaved::new(&g, batch).expect("small enough");
        assert!(way.is_bare());
        assert!(activation == Activation::None || way.activate(activation));
        if let Some(pool) = pool {
            let window = Window::square(2, 2, 0).rounding(Rounding::Floor);
            let Ok(geometry) = pooling::Geometry::new(g.output, window) else { return };
            let takes = way.pool(pool, geometry);
            assert_eq!(takes, pool == Pool::Average || activation != Activation::Sigmoid);
        }
        let (x, w, b) = (numbers(1, batch * g.input.len()), numbers(2, g.weights()), numbers(3, g.filters()));
        let dy = numbers(4, batch * way.output().len());
        let truth = truth(&way, &x, &w, &b, &dy);
        let mut prepared = vec![f32::NAN; w.len()];
        way.prepare(Pass::Forward, &w, &mut prepared);
        let nan = |len: usize| vec![f32::NAN; len];
        let (mut y, mut saved) = (nan(truth.y.len()), nan(way.saved()));
        way.forward(&x, &prepared, Some(&b), &mut y, &mut saved, &mut nan(way.forward_workspace()));
        close("y", &y, &truth.y);
        let mut again = nan(y.len());
        way.forward(&x, &prepared, Some(&b), &mut again, &mut [], &mut nan(way.forward_workspace()));
        assert_eq!(y, again, "with and without a backward pass");
        let (mut dx, mut dw, mut db) = (nan(x.len()), nan(w.len()), nan(b.len()));
        let gradients = (&mut dw[..], Some(&mut db[..]));
        way.backward(&x, &w, &dy, &saved, (&mut dx, false), gradients, &mut nan(way.backward_workspace()));
        close("dx", &dx, &truth.dx);
        close("dw", &dw, &truth.dw);
        close("db", &db, &truth.db);
        let before = numbers(5, dx.len());
        let mut added = before.clone();
        let gradients = (&mut dw[..], None);
        way.backward(&x, &w, &dy, &saved, (&mut added, true), gradients, &mut nan(way.backward_workspace()));
        let expected: Vec<f64> = truth.dx.iter().zip(before).map(|(d, b)| d + f64::from(b)).collect();
        close("dx, added", &added, &expected);
        way.backward(&x, &w, &dy, &saved, (&mut [], false), (&mut dw, None), &mut nan(way.backward_workspace()));
        close("dw alone", &dw, &truth.dw);
    }

    #[test]
    fn lenets_layers() {
        let g = |shape, filters, padding| Geometry::new(shape, filters, 1, Window::square(5, 1, padding)).unwrap();
        check(g(Shape::new(1, 28, 28), 6, 2), 17, Activation::Sigmoid, Some(Pool::Average));
        check(g(Shape::new(6, 14, 14), 16, 0), 17, Activation::Relu, Some(Pool::Max));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let g = |window| Geometry::new(Shape::new(2, 9, 9), 4, 1, window).unwrap();
        assert!(Interleaved::new(&g(Window::square(3, 1, 1)), LEAST_BATCH).is_some());
        assert!(Interleaved::new(&g(Window::square(3, 1, 1)), LEAST_BATCH - 1).is_none());
        assert!(Interleaved::new(&g(Window::square(3, 2, 1)), 64).is_none(), "stride");
        assert!(Interleaved::new(&g(Window::square(3, 1, 3)), 64).is_none(), "padding beyond the kernel");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_sizes(
            channels in 1usize..4, height in 4usize..9, width in 4usize..9, filters in 1usize..9, rows in 1usize..5,
            columns in 1usize..5, padding in 0usize..3, batch in 8usize..19, what in 0usize..9,
        ) {
            let padding = padding.min(rows.min(columns) - 1);
            let window = Window { kernel: (rows, columns), ..Window::square(1, 1, padding) };
            let g = Geometry::new(Shape::new(channels, height, width), filters, 1, window).unwrap();
            let activation = [Activation::None, Activation::Relu, Activation::Sigmoid][what % 3];
            check(g, batch, activation, [None, Some(Pool::Max), Some(Pool::Average)][what / 3]);
        }
    }
}
