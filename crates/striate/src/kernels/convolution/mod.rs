//! Convolution (sections 7.2 and 7.4), forward and both backwards, by whichever way is fastest for the shapes:
//!
//! - `depthwise`: where every channel has filters of its own, directly, a row of output at a time;
//! - `interleaved`: small maps in batches, with lanes for images and what follows in the same pass (a network's plan asks for
//!   it; the functions here, which also serve a single image, do not);
//! - `winograd`: 3x3 and 5x5 filters at stride 1 with enough channels, tiles of 4x4 outputs at a fraction of the
//!   multiplications;
//! - `turned`: one image of few pixels, forward, with lanes for filters;
//! - `shifted`: forward, and the input's gradient at stride 1, with the padded map read where it lies;
//! - `gather` (forward), `input` and `strips` (gradients): everything else, as matrix products that never store the
//!   im2col matrix ("implicit GEMM").
//!
//! All but `interleaved` see an image through a `padded` copy. Which way is taken depends on the shapes alone ([`method`]), and so
//! does the cut into pieces: the bits do not depend on the number of threads.

mod depthwise;
mod few;
mod forward;
mod gather;
mod geometry;
mod input;
mod interleaved;
mod padded;
mod probe;
mod shifted;
mod strips;
mod turned;
mod weights;
mod winograd;

pub(crate) use forward::{Epilogue, forward, forward_workspace};
pub(crate) use geometry::Geometry;
pub(crate) use input::{backward_input, input_workspace};
pub(crate) use interleaved::{Activation, Interleaved, Pool};
pub use probe::Probe;
pub(crate) use weights::{OutputGradient, backward_weights, weights_workspace};

use super::direct::DirectConvolution;
use super::isa;
use super::matmul::{Matrix, pack_all, packed_len};
use crate::buffer::CACHE_LINE;
use rayon::prelude::*;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use winograd::Form;

/// Pieces that a batch is cut into.
const PIECES: usize = 8;

/// Numbers of workspace that all pieces would take together, as far as their number can keep to it: 64 MiB.
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
    /// The padded map read where it lies, shifted for each weight.
    Shifted,
    /// The same turned over: windows packed as rows, lanes are filters.
    Turned,
    /// Tiles of outputs at a fraction of the multiplications.
    Winograd(Form),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Depthwise => f.write_str("depthwise, direct (every channel has its own filters)"),
            Method::ImplicitGemm => f.write_str("implicit GEMM (windows packed straight into the product)"),
            Method::Shifted => f.write_str("shifted maps (read where they lie, nothing packed)"),
            Method::Turned => {
                f.write_str("implicit GEMM turned over (one image of few pixels: lanes are filters, each read once)")
            }
            Method::Winograd(form) => form.fmt(f),
        }
    }
}

/// How `pass` of `g` is computed for batches of `batch`; depends on nothing else.
pub(crate) fn method(g: &Geometry, batch: usize, pass: Pass) -> Method {
    if depthwise::fits(g) {
        Method::Depthwise
    } else if turned::fits(g, batch, pass) {
        Method::Turned
    } else if let Some(form) = Form::of(g, batch) {
        Method::Winograd(form)
    } else if shifted::fits(g, pass) {
        Method::Shifted
    } else {
        Method::ImplicitGemm
    }
}

/// The pass without packing, where few channels or few weights make it the fastest way forward.
fn direct<'a>(g: &'a Geometry, batch: usize, epilogue: &'a Epilogue) -> Option<DirectConvolution<'a>> {
    // Where filters would leave most lanes empty, pixels fill them better.
    let shifted = 2 * g.filters() <= isa::tile().shifted.lanes && shifted::fits(g, Pass::Forward);
    if epilogue.residual || g.groups != 1 || shifted || Form::of(g, batch).is_some() {
        return None;
    }
    DirectConvolution::new(g, batch, epilogue)
}

/// How the forward and the backward passes work, in words.
pub(crate) fn describe(g: &Geometry, batch: usize, epilogue: &Epilogue) -> String {
    let forward = match direct(g, batch, epilogue) {
        Some(_) => "direct (few channels: filters in lanes, nothing packed)".to_owned(),
        None => method(g, batch, Pass::Forward).to_string(),
    };
    let input = method(g, batch, Pass::BackwardInput).to_string();
    let weights = weights::describe(g, batch);
    let input = if input == forward { "the same".to_owned() } else { input };
    format!("{forward}; input's gradient: {input}; weights' gradient: {weights}")
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
    match (method(g, batch, pass), pass) {
        (Method::Depthwise, _) => g.weights(),
        (Method::Shifted, _) => shifted::prepared_len(g, pass),
        (Method::Turned, _) => turned::prepared_len(g),
        (Method::Winograd(form), _) => winograd::prepared_len(g, form, pass),
        (Method::ImplicitGemm, Pass::Forward) => g.groups * packed_len(g.group_filters(), g.depth(), rows),
        (Method::ImplicitGemm, Pass::BackwardInput) => input::prepared_len(g),
    }
}

/// Brings weights (FN, C / groups, FH, FW) into the form that `pass` reads for batches of `batch`; once is enough until
/// they change.
pub(crate) fn prepare(g: &Geometry, batch: usize, pass: Pass, epilogue: &Epilogue, w: &[f32], prepared: &mut [f32]) {
    let prepared = &mut prepared[..prepared_len(g, batch, pass, epilogue)];
    if pass == Pass::Forward && direct(g, batch, epilogue).is_some() {
        return prepared.copy_from_slice(w);
    }
    let how = method(g, batch, pass);
    let rows = if how == Method::Shifted { isa::tile().shifted.rows } else { isa::tile().rows };
    match (how, pass) {
        (Method::Depthwise, _) => prepared.copy_from_slice(w),
        (Method::Turned, _) => turned::prepare(g, w, prepared),
        (Method::Winograd(form), _) => winograd::prepare(g, form, pass, w, prepared),
        (_, Pass::Forward) => {
            let (filters, depth) = (g.group_filters(), g.depth());
            let groups = prepared.chunks_exact_mut(packed_len(filters, depth, rows));
            for (w, packed) in w.chunks_exact(filters * depth).zip(groups) {
                pack_all(&Matrix::contiguous(w, depth), filters, depth, rows, packed);
            }
        }
        (_, Pass::BackwardInput) => input::prepare(g, w, rows, prepared),
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

    /// Workspace for pieces that need `len` numbers each: as many as can be worked on at once where the plan is made.
    fn workspace(&self, len: usize) -> usize {
        at_once(self.pieces) * len
    }

    /// The same for pieces with `sums` numbers of their own that are added up at the end: see [`in_turn_with_sums`].
    fn workspace_with_sums(&self, sums: usize, len: usize) -> usize {
        self.pieces * sums + self.workspace(len)
    }
}

/// How many of so many pieces can be worked on at once where the plan is made.
fn at_once(pieces: usize) -> usize {
    pieces.min(rayon::current_num_threads())
}

/// Runs `body(piece, workspace)` for all pieces, in `len` numbers of `workspace` each: as many at once as it has room for, the
/// next where the last was, which the caches still hold. What a piece computes must not depend on what it finds there.
fn in_turn<I>(workspace: &mut [f32], len: usize, pieces: I, body: impl Fn(I::Item, &mut [f32]) + Sync + Send)
where
    I: Iterator + Send,
{
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    workspace.par_chunks_exact_mut(len).for_each(|workspace| {
        while let Some(piece) = next() {
            body(piece, workspace);
        }
    });
}

fn round_up(n: usize, to: usize) -> usize {
    n.next_multiple_of(to)
}

/// So many numbers, with the rest of a cache line: what lies behind them begins where a register is loaded fastest.
fn whole_lines(n: usize) -> usize {
    n.next_multiple_of(CACHE_LINE)
}

/// [`in_turn`] for the pieces of the images `x`, each `image` numbers: `body(piece, x, sums, workspace)`, where `sums` numbers are each
/// piece's own. Gives those of all pieces.
fn in_turn_with_sums<'w>(
    cut: &Cut,
    (x, image): (&[f32], usize),
    workspace: &'w mut [f32],
    (sums, len): (usize, usize),
    body: impl Fn(usize, &[f32], &mut [f32], &mut [f32]) + Sync + Send,
) -> &'w [f32] {
    let (all, workspace) = workspace.split_at_mut(cut.pieces * sums);
    let pieces = x.chunks(cut.images * image).zip(all.chunks_exact_mut(sums)).enumerate();
    in_turn(workspace, len, pieces, |(piece, (x, sums)), workspace| body(piece, x, sums, workspace));
    all
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::pooling;
    use crate::random::{Purpose, Random};
    use crate::shape::{Padding, Shape, ShapeError, Window};

    fn numbers(stream: u64, len: usize) -> Vec<f32> {
        let random = Random::new(9, Purpose::Test, stream);
        (0..len).map(|i| random.normal(i as u64)).collect()
    }

    /// A convolution for each way of computing it, with the batch and the way.
    fn one_of_each() -> [(Geometry, usize, Method); 10] {
        let g = |channels, filters, groups, window| {
            Geometry::new(Shape::new(channels, 13, 10), filters, groups, window).unwrap()
        };
        let floor = |window: Window| window.rounding(crate::shape::Rounding::Floor);
        [
            (g(5, 7, 1, Window::square(3, 1, 1)), 3, Method::Shifted),
            (g(9, 20, 1, Window::square(5, 1, 2)), 2, Method::Shifted),
            (g(5, 7, 1, floor(Window::square(3, 2, 1))), 3, Method::Shifted),
            (g(17, 7, 1, floor(Window::square(3, 2, 1))), 3, Method::ImplicitGemm),
            (g(6, 9, 3, floor(Window::square(3, 2, 1))), 2, Method::ImplicitGemm),
            (g(6, 12, 6, Window::square(3, 1, 1)), 3, Method::Depthwise),
            (g(18, 17, 1, Window::square(3, 1, 1)), 3, Method::Winograd(Form::Three)),
            (g(18, 17, 1, Window::square(5, 1, 2)), 3, Method::Winograd(Form::Five)),
            (g(34, 36, 2, Window::square(5, 1, 2)), 3, Method::Winograd(Form::Five)),
            (g(34, 40, 1, floor(Window::square(3, 2, 1))), 1, Method::Turned),
        ]
    }

    fn run(g: &Geometry, batch: usize, residual: Option<&[f32]>, epilogue: &Epilogue) -> Vec<f32> {
        let (x, w, b) = (numbers(1, batch * g.input.len()), numbers(2, g.weights()), numbers(3, g.filters()));
        let mut prepared = vec![f32::NAN; prepared_len(g, batch, Pass::Forward, epilogue)];
        prepare(g, batch, Pass::Forward, epilogue, &w, &mut prepared);
        let mut workspace = vec![f32::NAN; forward_workspace(g, batch, epilogue)];
        let len = batch * epilogue.pool.map_or(g.output, |pool| pool.output).len();
        let (mut y, mut winner) = (vec![f32::NAN; len], vec![u32::MAX; len]);
        let winner = epilogue.pool.map(|_| &mut winner[..]);
        forward(g, &x, &prepared, Some(&b), residual, &mut y, winner, &mut workspace, epilogue);
        y
    }

    fn close(what: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 1e-3, "{what}, {i}: {a}, expected {b}");
        }
    }

    #[test]
    fn a_residual_is_added_before_relu_and_pooling() {
        // Maps that are pooled a few rows at a time as well, by one thread and by several.
        let strided = Window::square(3, 2, 1).rounding(crate::shape::Rounding::Floor);
        let wide = |side, batch| {
            (Geometry::new(Shape::new(17, side, side), 5, 1, strided).unwrap(), batch, Method::ImplicitGemm)
        };
        for (g, batch, how) in one_of_each().into_iter().chain([wide(41, 9), wide(134, 1)]) {
            assert_eq!(method(&g, batch, Pass::Forward), how);
            assert!(!how.to_string().is_empty());
            let plain = run(&g, batch, None, &Epilogue::NONE);
            let residual = numbers(4, plain.len());
            let relu = |v: f32| v.max(0.0);
            let sum: Vec<f32> = plain.iter().zip(&residual).map(|(a, b)| relu(a + b)).collect();
            close("sum", &run(&g, batch, Some(&residual), &Epilogue { relu: true, pool: None, residual: true }), &sum);
            let window = Window::square(2, 2, 0).rounding(crate::shape::Rounding::Floor);
            let pool = pooling::Geometry::new(g.output, window).unwrap();
            for residual in [None, Some(&residual[..])] {
                let whole =
                    run(&g, batch, residual, &Epilogue { relu: true, pool: None, residual: residual.is_some() });
                let pooled =
                    run(&g, batch, residual, &Epilogue { relu: true, pool: Some(pool), residual: residual.is_some() });
                let mut expected = Vec::new();
                for map in whole.chunks_exact(g.pixels()) {
                    for y in 0..pool.output.height {
                        for x in 0..pool.output.width {
                            let at = 2 * y * g.output.width + 2 * x;
                            let below = at + g.output.width;
                            expected.push(
                                [map[at], map[at + 1], map[below], map[below + 1]].into_iter().fold(0.0, f32::max),
                            );
                        }
                    }
                }
                close("pooled", &pooled, &expected);
            }
        }
    }

    #[test]
    fn the_gradient_of_the_input_can_be_added_to_what_is_there() {
        for (g, batch, _) in one_of_each() {
            let (w, dy) = (numbers(2, g.weights()), numbers(5, batch * g.output.len()));
            let mut prepared = vec![f32::NAN; prepared_len(&g, batch, Pass::BackwardInput, &Epilogue::NONE)];
            prepare(&g, batch, Pass::BackwardInput, &Epilogue::NONE, &w, &mut prepared);
            let gradient = OutputGradient { dy: &dy, y: None, pool: None };
            let run = |dx: &mut [f32], accumulate| {
                let mut workspace = vec![f32::NAN; input_workspace(&g, batch)];
                backward_input(&g, &prepared, gradient, dx, accumulate, &mut workspace);
            };
            let mut fresh = vec![f32::NAN; batch * g.input.len()];
            run(&mut fresh, false);
            let before = numbers(6, fresh.len());
            let mut added = before.clone();
            run(&mut added, true);
            let sum: Vec<f32> = fresh.iter().zip(&before).map(|(a, b)| a + b).collect();
            close("dx", &added, &sum);
        }
    }

    /// Calls `term(output, input, weight)` for every product of a convolution, from its definition.
    fn each_product(g: &Geometry, batch: usize, mut term: impl FnMut(usize, usize, usize)) {
        let (w, p) = (&g.window, &g.window.padding);
        for (n, f) in (0..batch * g.filters()).map(|i| (i / g.filters(), i % g.filters())) {
            for (pixel, k) in (0..g.pixels() * g.depth()).map(|i| (i / g.depth(), i % g.depth())) {
                let (c, tap) = (k / g.taps(), k % g.taps());
                let (i, j) = (tap / w.kernel.1, tap % w.kernel.1);
                let y = pixel / g.output.width * w.stride.0 + i * w.dilation.0;
                let x = pixel % g.output.width * w.stride.1 + j * w.dilation.1;
                let c = f / g.group_filters() * g.group_channels() + c;
                let (Some(y), Some(x)) = (y.checked_sub(p.top), x.checked_sub(p.left)) else { continue };
                if y < g.input.height && x < g.input.width {
                    let input = (n * g.input.channels + c) * g.input.area() + y * g.input.width + x;
                    term((n * g.filters() + f) * g.pixels() + pixel, input, f * g.depth() + k);
                }
            }
        }
    }

    #[test]
    fn every_way_agrees_with_the_definition_for_any_number_of_threads() {
        let more = |shape, filters, window, batch, how| (Geometry::new(shape, filters, 1, window).unwrap(), batch, how);
        let dilated = Window {
            dilation: (2, 1),
            padding: Padding { top: 0, left: 3, bottom: 2, right: 1 },
            ..Window::square(3, 1, 0)
        };
        let cases = one_of_each().into_iter().chain([
            more(Shape::new(9, 5, 6), 3, Window::square(1, 1, 0), 11, Method::Shifted),
            more(Shape::new(3, 8, 21), 9, dilated, 9, Method::Shifted),
            more(Shape::new(17, 7, 7), 67, Window::square(3, 1, 1), 1, Method::Turned),
            more(
                Shape::new(35, 13, 11),
                40,
                Window::square(3, 2, 1).rounding(crate::shape::Rounding::Floor),
                1,
                Method::Turned,
            ),
            more(Shape::new(2, 70, 40), 5, Window::square(3, 1, 1), 1, Method::Shifted),
        ]);
        for (g, batch, how) in cases {
            assert_eq!(method(&g, batch, Pass::Forward), how);
            let (x, w) = (numbers(1, batch * g.input.len()), numbers(2, g.weights()));
            let (b, dy) = (numbers(3, g.filters()), numbers(5, batch * g.output.len()));
            let mut expected = [vec![0.0f64; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]];
            expected[0].iter_mut().enumerate().for_each(|(i, y)| *y = f64::from(b[i / g.pixels() % g.filters()]));
            each_product(&g, batch, |o, i, k| {
                expected[0][o] += f64::from(x[i]) * f64::from(w[k]);
                expected[1][i] += f64::from(dy[o]) * f64::from(w[k]);
                expected[2][k] += f64::from(dy[o]) * f64::from(x[i]);
            });
            let passes = || {
                let y = run(&g, batch, None, &Epilogue::NONE);
                let gradient = OutputGradient { dy: &dy, y: None, pool: None };
                let mut prepared = vec![f32::NAN; prepared_len(&g, batch, Pass::BackwardInput, &Epilogue::NONE)];
                prepare(&g, batch, Pass::BackwardInput, &Epilogue::NONE, &w, &mut prepared);
                let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
                let len = input_workspace(&g, batch).max(weights_workspace(&g, batch));
                let mut workspace = vec![f32::NAN; len];
                backward_input(&g, &prepared, gradient, &mut dx, false, &mut workspace);
                workspace.fill(f32::NAN);
                backward_weights(&g, &x, gradient, &mut dw, None, &mut workspace);
                [y, dx, dw]
            };
            let threads = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            let found = threads(1).install(passes);
            assert!(found == threads(3).install(passes), "{how}: other bits with three threads");
            for ((name, found), expected) in ["y", "dx", "dw"].into_iter().zip(&found).zip(&expected) {
                let most = expected.iter().fold(1.0f64, |most, v| most.max(v.abs()));
                for (i, (&a, b)) in found.iter().zip(expected).enumerate() {
                    assert!((f64::from(a) - b).abs() < 1e-4 * most, "{how}, {name} {i}: {a}, expected {b}");
                }
            }
        }
    }

    #[test]
    fn groups_that_do_not_divide_say_which_would() {
        let error = Geometry::new(Shape::new(6, 5, 5), 12, 4, Window::square(3, 1, 1)).unwrap_err();
        assert_eq!(error, ShapeError::Groups { channels: 6, filters: 12, groups: 4 });
        assert!(error.to_string().contains("1, 2, 3 or 6 groups would do"), "{error}");
        assert!(Geometry::new(Shape::new(6, 5, 5), 12, 0, Window::square(3, 1, 1)).is_err());
    }
}
