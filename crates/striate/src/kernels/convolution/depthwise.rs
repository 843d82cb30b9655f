//! Convolution where every channel has filters of its own: a row of output at a time, straight from the padded channel.
//! There is no sum over channels, so nothing is gained by packing.

use super::forward::{Addends, Part, windows};
use super::gather::Gather;
use super::geometry::Geometry;
use super::weights::{OutputGradient, sum_pieces};
use super::{Cut, PIXELS, each_chunk, in_turn_with_sums, sum};
use crate::kernels::isa;

/// Output pixels of a row that are summed at once, in registers.
const WIDE: usize = 16;

pub(super) fn fits(g: &Geometry) -> bool {
    g.groups > 1 && g.groups == g.input.channels
}

/// Numbers of a padded channel, with room after it to read a whole run at its last pixel.
fn channel_len(gather: &Gather) -> usize {
    gather.source.plane() + WIDE
}

/// How a batch is cut, and the numbers that a piece needs.
pub(super) fn forward_cut(g: &Geometry, batch: usize, pooled: bool) -> (Cut, usize) {
    let len = g.input.channels * channel_len(&windows(g)) + if pooled { g.output.len() } else { 0 };
    (Cut::new(batch, usize::MAX, PIXELS, |_| len), len)
}

pub(super) fn forward(
    part: &Part<'_>,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    mut winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let g = part.g;
    let gather = windows(g);
    let (padded, maps) = workspace.split_at_mut(g.input.channels * channel_len(&gather));
    let y_len = part.pool.map_or(g.output, |pool| pool.output).len();
    for (n, (x, y)) in x.chunks_exact(g.input.len()).zip(y.chunks_exact_mut(y_len)).enumerate() {
        pad(part.cut.parallel, g, &gather, x, padded);
        let padded = &*padded;
        // With pooling, ReLU comes after it, and so does the bias where there is no residual.
        let addends = match (part.pool, part.addends) {
            (None, addends) => addends,
            (Some(_), addends) if addends.residual.is_none() => Addends { bias: None, relu: false, ..addends },
            (Some(_), addends) => Addends { relu: false, ..addends },
        };
        let filter = |f: usize, map: &mut [f32]| {
            let channel = &padded[f / g.group_filters() * channel_len(&gather)..][..channel_len(&gather)];
            filter_plane(&gather, channel, &w[f * g.taps()..][..g.taps()], map);
            addends.finish_in_place(g, part.first + n, f, map);
        };
        match &part.pool {
            None => each_chunk(part.cut.parallel, y, g.pixels(), filter),
            Some(pool) => {
                let maps = &mut maps[..g.output.len()];
                each_chunk(part.cut.parallel, maps, g.pixels(), filter);
                let winner = winner.as_deref_mut().map(|w| &mut w[n * y_len..][..y_len]);
                part.pool(pool, 0..pool.output.height, y, winner, |_, f| &maps[f * g.pixels()..][..g.pixels()]);
            }
        }
    }
}

fn pad(parallel: bool, g: &Geometry, gather: &Gather, x: &[f32], padded: &mut [f32]) {
    let (len, area) = (channel_len(gather), g.input.area());
    each_chunk(parallel, padded, len, |c, copy| {
        gather.source.copy(&x[c * area..][..area], copy);
        copy[len - WIDE..].fill(0.0);
    });
}

/// One filter over one padded channel.
#[inline(always)]
fn filter_plane_body(gather: &Gather, channel: &[f32], w: &[f32], map: &mut [f32]) {
    let step = gather.row_stride * gather.source.row();
    for (y, row) in map.chunks_exact_mut(gather.grid.1).enumerate() {
        for (x, target) in row.chunks_mut(WIDE).enumerate() {
            let mut sums = [0.0f32; WIDE];
            let start = y * step + x * WIDE;
            for (tap, &w) in w.iter().enumerate() {
                if let Some(source) = channel[start + gather.offset(tap)..].first_chunk::<WIDE>() {
                    sums.iter_mut().zip(source).for_each(|(s, v)| *s += w * v);
                }
            }
            target.copy_from_slice(&sums[..target.len()]);
        }
    }
}

isa::vectorized!(fn filter_plane(gather: &Gather, channel: &[f32], w: &[f32], map: &mut [f32]) = filter_plane_body);

/// How a batch is cut, and the numbers that a piece needs.
pub(super) fn input_cut(g: &Geometry, batch: usize) -> (Cut, usize) {
    let len = g.output.len() + g.input.channels * windows(g).source.plane();
    (Cut::new(batch, usize::MAX, PIXELS, |_| len), len)
}

pub(super) fn backward_input(
    g: &Geometry,
    cut: Cut,
    first: usize,
    w: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let gather = windows(g);
    let (maps, padded) = workspace.split_at_mut(g.output.len());
    let plane = gather.source.plane();
    for (n, dx) in dx.chunks_exact_mut(g.input.len()).enumerate() {
        let maps = dy.images(g, first + n, 1, maps, cut.parallel);
        let padded = &mut padded[..g.input.channels * plane];
        each_chunk(cut.parallel, padded, plane, |c, channel| {
            channel.fill(0.0);
            for f in c * g.group_filters()..(c + 1) * g.group_filters() {
                let map = &maps[f * g.pixels()..][..g.pixels()];
                spread_plane(&gather, channel, &w[f * g.taps()..][..g.taps()], map);
            }
        });
        let padded = &*padded;
        each_chunk(cut.parallel, dx, g.input.area(), |c, dx| {
            gather.source.fold(&padded[c * plane..][..plane], dx, !accumulate);
        });
    }
}

/// Adds each row of the map's gradient, times each weight, to the row of the padded channel that the weight saw.
#[inline(always)]
fn spread_plane_body(gather: &Gather, channel: &mut [f32], w: &[f32], map: &[f32]) {
    let step = gather.row_stride * gather.source.row();
    for (y, row) in map.chunks_exact(gather.grid.1).enumerate() {
        for (tap, &w) in w.iter().enumerate() {
            let target = &mut channel[y * step + gather.offset(tap)..][..row.len()];
            target.iter_mut().zip(row).for_each(|(t, v)| *t += w * v);
        }
    }
}

isa::vectorized!(
    fn spread_plane(gather: &Gather, channel: &mut [f32], w: &[f32], map: &[f32]) = spread_plane_body
);

/// How a batch is cut, the numbers of a piece's gradients, and those that it needs besides.
fn weights_cut(g: &Geometry, batch: usize) -> (Cut, usize, usize) {
    let (sums, len) = (g.weights() + g.filters(), g.output.len() + g.input.channels * channel_len(&windows(g)));
    (Cut::new(batch, usize::MAX, PIXELS, |_| sums + len), sums, len)
}

pub(super) fn weights_workspace(g: &Geometry, batch: usize) -> usize {
    let (cut, sums, len) = weights_cut(g, batch);
    cut.workspace_with_sums(sums, len)
}

pub(super) fn backward_weights(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let gather = windows(g);
    let (cut, sums_len, len) = weights_cut(g, x.len() / g.input.len());
    let lens = (sums_len, len);
    let sums = in_turn_with_sums(&cut, (x, g.input.len()), workspace, lens, |piece, x, sums, workspace| {
        let (dw, db) = sums.split_at_mut(g.weights());
        let (maps, padded) = workspace.split_at_mut(g.output.len());
        dw.fill(0.0);
        db.fill(0.0);
        for (n, image) in x.chunks_exact(g.input.len()).enumerate() {
            let maps = dy.images(g, piece * cut.images + n, 1, maps, cut.parallel);
            OutputGradient::add_biases(g, maps, db, cut.parallel);
            pad(cut.parallel, g, &gather, image, padded);
            let padded = &*padded;
            each_chunk(cut.parallel, dw, g.taps(), |f, dw| {
                let channel = &padded[f / g.group_filters() * channel_len(&gather)..][..channel_len(&gather)];
                correlate_plane(&gather, channel, &maps[f * g.pixels()..][..g.pixels()], dw);
            });
        }
    });
    sum_pieces(sums, sums_len, 0, dw);
    if let Some(db) = db {
        sum_pieces(sums, sums_len, g.weights(), db);
    }
}

/// Adds to each weight the map's gradient times what the weight saw.
#[inline(always)]
fn correlate_plane_body(gather: &Gather, channel: &[f32], map: &[f32], dw: &mut [f32]) {
    let step = gather.row_stride * gather.source.row();
    for (tap, dw) in dw.iter_mut().enumerate() {
        let mut lanes = [0.0f32; WIDE];
        let mut rest = 0.0;
        for (y, row) in map.chunks_exact(gather.grid.1).enumerate() {
            let source = &channel[y * step + gather.offset(tap)..][..row.len()];
            let ((rows, row_rest), (sources, source_rest)) = (row.as_chunks::<WIDE>(), source.as_chunks::<WIDE>());
            for (row, source) in rows.iter().zip(sources) {
                for (lane, (r, s)) in lanes.iter_mut().zip(row.iter().zip(source)) {
                    *lane += r * s;
                }
            }
            rest += row_rest.iter().zip(source_rest).map(|(r, s)| r * s).sum::<f32>();
        }
        *dw += sum(&lanes) + rest;
    }
}

isa::vectorized!(
    fn correlate_plane(gather: &Gather, channel: &[f32], map: &[f32], dw: &mut [f32]) = correlate_plane_body
);
