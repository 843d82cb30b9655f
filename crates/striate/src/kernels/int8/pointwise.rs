//! Passes that take byte by byte, and changes of order.

use super::{CHUNK, to_byte};
use crate::kernels::isa::vectorized;
use crate::shape::Shape;
use rayon::prelude::*;

/// Numbers (N, C, H, W) as bytes (N, H, W, C): the nearest of `x / scale + zero`.
pub(crate) fn quantize(shape: Shape, x: &[f32], (scale, zero): (f32, u8), y: &mut [u8]) {
    let (channels, area) = (shape.channels, shape.area());
    // One image a task: they are read by channels and written by pixels.
    y.par_chunks_exact_mut(shape.len()).zip(x.par_chunks_exact(shape.len())).for_each(|(y, x)| {
        if channels == 1 {
            return bytes(x, scale, zero, y);
        }
        let mut piece = [0; 1024];
        for (channel, x) in x.chunks_exact(area).enumerate() {
            for (at, x) in x.chunks(piece.len()).enumerate() {
                let (first, piece) = (at * piece.len(), &mut piece[..x.len()]);
                bytes(x, scale, zero, piece);
                let target = y[first * channels + channel..].iter_mut().step_by(channels);
                target.zip(&*piece).for_each(|(y, &byte)| *y = byte);
            }
        }
    });
}

vectorized! {
    fn bytes(x: &[f32], scale: f32, zero: u8, y: &mut [u8]) = bytes_of
}

#[inline(always)]
fn bytes_of(x: &[f32], scale: f32, zero: u8, y: &mut [u8]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = to_byte(x / scale, zero));
}

/// Bytes (N, H, W, C) as numbers (N, C, H, W).
pub(crate) fn dequantize(shape: Shape, x: &[u8], (scale, zero): (f32, u8), y: &mut [f32]) {
    let area = shape.area();
    y.par_chunks_exact_mut(shape.len()).zip(x.par_chunks_exact(shape.len())).for_each(|(y, x)| {
        for (channel, y) in y.chunks_exact_mut(area).enumerate() {
            let x = x[channel..].iter().step_by(shape.channels);
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = scale * (i32::from(x) - i32::from(zero)) as f32);
        }
    });
}

/// Bytes (N, H, W, C) as bytes (N, C, H, W).
pub(crate) fn move_channels(shape: Shape, x: &[u8], y: &mut [u8]) {
    let area = shape.area();
    y.par_chunks_exact_mut(shape.len()).zip(x.par_chunks_exact(shape.len())).for_each(|(y, x)| {
        for (channel, y) in y.chunks_exact_mut(area).enumerate() {
            y.iter_mut().zip(x[channel..].iter().step_by(shape.channels)).for_each(|(y, &x)| *y = x);
        }
    });
}

/// Every byte by the same table.
pub(crate) fn lookup(table: &[u8; 256], x: &[u8], y: &mut [u8]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = table[usize::from(x)]);
    });
}

/// Every byte by the table of its channel.
pub(crate) fn lookup_channels(tables: &[[u8; 256]], x: &[u8], y: &mut [u8]) {
    let chunk = (CHUNK / tables.len()).max(1) * tables.len();
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(tables.len()).zip(x.chunks_exact(tables.len())) {
            y.iter_mut().zip(x).zip(tables).for_each(|((y, &x), table)| *y = table[usize::from(x)]);
        }
    });
}

/// The sum of two values: `a` and `b` each with its factor (its scale over the output's) and its zero.
pub(crate) fn add((a, of_a): (&[u8], (f32, u8)), (b, of_b): (&[u8], (f32, u8)), zero: u8, y: &mut [u8]) {
    y.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK))
        .zip(b.par_chunks(CHUNK))
        .for_each(|((y, a), b)| sums(a, of_a, b, of_b, zero, y));
}

vectorized! {
    fn sums(a: &[u8], of_a: (f32, u8), b: &[u8], of_b: (f32, u8), zero: u8, y: &mut [u8]) = sums_of
}

#[inline(always)]
fn sums_of(a: &[u8], of_a: (f32, u8), b: &[u8], of_b: (f32, u8), zero: u8, y: &mut [u8]) {
    let term = |x: u8, (factor, zero): (f32, u8)| (i32::from(x) - i32::from(zero)) as f32 * factor;
    y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = to_byte(term(a, of_a) + term(b, of_b), zero));
}

/// Puts the channels of `x` (N, H, W, C) at `first` among those of `y` (N, H, W, `channels`), each by the table.
pub(crate) fn place(table: &[u8; 256], x: &[u8], count: usize, y: &mut [u8], channels: usize, first: usize) {
    let pixels = (CHUNK / channels).max(1);
    y.par_chunks_mut(pixels * channels).zip(x.par_chunks(pixels * count)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(count)) {
            y[first..first + count].iter_mut().zip(x).for_each(|(y, &x)| *y = table[usize::from(x)]);
        }
    });
}
