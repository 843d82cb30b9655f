//! Convolution (sections 7.2 and 7.4), forward and both backwards, by whichever way is fastest for the shapes:
//!
//! - `depthwise`: where every channel has filters of its own, directly, a row of output at a time;
//! - `winograd`: 3x3 filters at stride 1 with enough channels, tiles of 4x4 outputs at a quarter of the multiplications;
//! - `gather` (forward), `input` and `strips` (gradients): everything else, as matrix products that never store the
//!   im2col matrix ("implicit GEMM").
//!
//! All three see an image through a `padded` copy. Which way is taken depends on the shapes alone ([`method`]), and so
//! does the cut into pieces: the bits do not depend on the number of threads.

mod depthwise;
mod few;
mod forward;
mod gather;
mod geometry;
mod input;
mod padded;
mod probe;
mod strips;
mod weights;
mod winograd;

pub(crate) use forward::{Epilogue, forward, forward_workspace};
pub(crate) use geometry::Geometry;
pub(crate) use input::{backward_input, input_workspace};
pub use probe::Probe;
pub(crate) use weights::{OutputGradient, backward_weights, weights_workspace};

use super::direct::DirectConvolution;
use super::isa;
use super::matmul::{Matrix, pack_all, packed_len};
use rayon::prelude::*;
use std::fmt;

/// Pieces that a batch is cut into, each with a workspace of its own.
const PIECES: usize = 8;

/// Numbers of workspace that all pieces together may take, as far as their number can keep to it: 64 MiB.
const WORKSPACE: usize = 16 << 20;

/// Output pixels worked on at once: their windows, 256 deep, take 256 KiB.
const PIXELS: usize = 256;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Each channel by itself.
    Depthwise,
    /// A matrix product with the windows packed on the way.
    ImplicitGemm,
    /// Winograd's tiles of `0` x `0` outputs.
    Winograd(usize),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Depthwise => f.write_str("depthwise, direct (every channel has its own filters)"),
            Method::ImplicitGemm => f.write_str("implicit GEMM (windows packed straight into the product)"),
            Method::Winograd(side) => {
                let saved = (9 * side * side) as f64 / ((side + 2) * (side + 2)) as f64;
                write!(f, "Winograd F({side}x{side}, 3x3) (3x3 at stride 1: {saved:.2} times fewer multiplications)")
            }
        }
    }
}

/// How `g` is computed for batches of `batch`; depends on nothing else.
pub(crate) fn method(g: &Geometry, batch: usize) -> Method {
    if depthwise::fits(g) {
        Method::Depthwise
    } else if winograd::fits(g, batch) {
        Method::Winograd(winograd::OUT)
    } else {
        Method::ImplicitGemm
    }
}

/// The pass without packing, where few channels or few weights make it the fastest way forward.
fn direct<'a>(g: &'a Geometry, batch: usize, epilogue: &'a Epilogue) -> Option<DirectConvolution<'a>> {
    if epilogue.residual || g.groups != 1 || winograd::fits(g, batch) {
        return None;
    }
    DirectConvolution::new(g, epilogue)
}

/// How the forward and the backward passes work, in words.
pub(crate) fn describe(g: &Geometry, batch: usize, epilogue: &Epilogue) -> String {
    match direct(g, batch, epilogue) {
        Some(_) => {
            format!("forward direct (few channels: filters in lanes, nothing packed); backward {}", method(g, batch))
        }
        None => method(g, batch).to_string(),
    }
}

/// The passes that read the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// [`forward`].
    Forward,
    /// [`backward_input`].
    BackwardInput,
}

/// Numbers of prepared weights that `pass` reads.
pub(crate) fn prepared_len(g: &Geometry, batch: usize, pass: Pass, epilogue: &Epilogue) -> usize {
    if pass == Pass::Forward && direct(g, batch, epilogue).is_some() {
        return g.weights();
    }
    let rows = isa::tile().rows;
    match (method(g, batch), pass) {
        (Method::Depthwise, _) => g.weights(),
        (Method::Winograd(_), _) => winograd::prepared_len(g, pass),
        (Method::ImplicitGemm, Pass::Forward) => g.groups * packed_len(g.group_filters(), g.depth(), rows),
        (Method::ImplicitGemm, Pass::BackwardInput) => input::prepared_len(g),
    }
}

/// Brings weights (FN, C / groups, FH, FW) into the form that `pass` reads for batches of `batch`; once is enough until
/// they change.
pub(crate) fn prepare(g: &Geometry, batch: usize, pass: Pass, epilogue: &Epilogue, w: &[f32], prepared: &mut [f32]) {
    let rows = isa::tile().rows;
    let prepared = &mut prepared[..prepared_len(g, batch, pass, epilogue)];
    if pass == Pass::Forward && direct(g, batch, epilogue).is_some() {
        return prepared.copy_from_slice(w);
    }
    match (method(g, batch), pass) {
        (Method::Depthwise, _) => prepared.copy_from_slice(w),
        (Method::Winograd(_), _) => winograd::prepare(g, pass, w, prepared),
        (Method::ImplicitGemm, Pass::Forward) => {
            let (filters, depth) = (g.group_filters(), g.depth());
            let groups = prepared.chunks_exact_mut(packed_len(filters, depth, rows));
            for (w, packed) in w.chunks_exact(filters * depth).zip(groups) {
                pack_all(&Matrix::contiguous(w, depth), filters, depth, rows, packed);
            }
        }
        (Method::ImplicitGemm, Pass::BackwardInput) => input::prepare(g, w, prepared),
    }
}

/// How a batch is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Images of a piece; the last piece may have fewer.
    images: usize,
    /// Images whose pixels stand side by side.
    together: usize,
    /// Whether there are too few pieces to keep threads busy, so that pieces are cut again inside.
    parallel: bool,
    pieces: usize,
}

impl Cut {
    /// For images of so many pixels; `workspace(together)` is what a piece needs.
    fn new(batch: usize, pixels: usize, at_once: usize, workspace: impl Fn(usize) -> usize) -> Self {
        let together = (at_once / pixels).clamp(1, batch.max(1));
        let pieces = (WORKSPACE / workspace(together).max(1)).clamp(1, PIECES).min(batch.div_ceil(together)).max(1);
        let images = batch.div_ceil(pieces).max(1);
        let together = together.min(images);
        let pieces = batch.div_ceil(images);
        Self { images, together, parallel: pieces < PIECES, pieces }
    }
}

fn round_up(n: usize, to: usize) -> usize {
    n.next_multiple_of(to)
}

/// Runs `body(i, chunk)` for each chunk of `data`.
fn each_chunk<T: Send>(parallel: bool, data: &mut [T], len: usize, body: impl Fn(usize, &mut [T]) + Sync + Send) {
    if parallel {
        data.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| body(i, chunk));
    } else {
        data.chunks_mut(len).enumerate().for_each(|(i, chunk)| body(i, chunk));
    }
}

/// A sum in sixteen lanes: fast, and the same on every instruction set.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, v)| *l += v);
    }
    lanes.iter().chain(rest).sum()
}
