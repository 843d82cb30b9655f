//! `im2col` and `col2im` (section 7.4): the windows of a batch of images as the rows of a matrix, and back.
//!
//! These are exact and public, and the reference that the fast convolution is tested against. Nothing in a planned
//! network stores this matrix.

use crate::shape::{ShapeError, Window, checked_product};
use ndarray::{Array2, Array4, ArrayView2, ArrayView4};

/// Unrolls the windows of `x` (N, C, H, W) into a matrix with one row a window.
///
/// Rows are in the order (n, oh, ow), columns in the order (c, fh, fw): the result is (N·OH·OW, C·FH·FW). Padding is zero.
///
/// ```
/// use ndarray::Array4;
/// use striate::{kernels::im2col::im2col, shape::Window};
/// // Section 7.4.3.
/// let one = Array4::<f32>::zeros((1, 3, 7, 7));
/// assert_eq!(im2col(one.view(), Window::square(5, 1, 0)).unwrap().dim(), (9, 75));
/// let ten = Array4::<f32>::zeros((10, 3, 7, 7));
/// assert_eq!(im2col(ten.view(), Window::square(5, 1, 0)).unwrap().dim(), (90, 75));
/// ```
///
/// # Errors
/// A window that does not fit, an empty input, or a matrix too large for memory.
pub fn im2col(x: ArrayView4<'_, f32>, window: Window) -> Result<Array2<f32>, ShapeError> {
    let (n, c, h, w) = x.dim();
    let (rows, columns, (oh, ow)) = matrix_size((n, c, h, w), window)?;
    let (fh, fw) = window.kernel;
    let mut col = Array2::zeros((rows, columns));
    for ((row, column), value) in col.indexed_iter_mut() {
        let (n, y, x0) = (row / (oh * ow), row / ow % oh, row % ow);
        let (c, i, j) = (column / (fh * fw), column / fw % fh, column % fw);
        if let Some((y, x0)) = source((y, x0), (i, j), window, (h, w)) {
            *value = x[[n, c, y, x0]];
        }
    }
    Ok(col)
}

/// Adds the rows of an im2col matrix back to where they came from; where windows overlap, values add up.
///
/// `input` is (N, C, H, W) of the result. It is the transpose of [`im2col`] as a linear map, not its inverse.
///
/// # Errors
/// As for [`im2col`], or a matrix whose size is not that of `input` and `window`.
pub fn col2im(
    col: ArrayView2<'_, f32>,
    input: (usize, usize, usize, usize),
    window: Window,
) -> Result<Array4<f32>, ShapeError> {
    let (rows, columns, (oh, ow)) = matrix_size(input, window)?;
    if col.dim() != (rows, columns) {
        return Err(ShapeError::Mismatch {
            what: "the im2col matrix",
            expected: vec![rows, columns],
            found: col.shape().to_vec(),
        });
    }
    let (fh, fw) = window.kernel;
    let mut x = Array4::zeros(input);
    for ((row, column), value) in col.indexed_iter() {
        let (n, y, x0) = (row / (oh * ow), row / ow % oh, row % ow);
        let (c, i, j) = (column / (fh * fw), column / fw % fh, column % fw);
        if let Some((y, x0)) = source((y, x0), (i, j), window, (input.2, input.3)) {
            x[[n, c, y, x0]] += value;
        }
    }
    Ok(x)
}

fn matrix_size(
    (n, c, h, w): (usize, usize, usize, usize),
    window: Window,
) -> Result<(usize, usize, (usize, usize)), ShapeError> {
    if n == 0 || c == 0 {
        return Err(ShapeError::Empty { what: "the input", found: vec![n, c, h, w] });
    }
    let (oh, ow) = window.output((h, w))?;
    let rows = checked_product(&[n, oh, ow])?;
    let columns = checked_product(&[c, window.kernel.0, window.kernel.1])?;
    checked_product(&[rows, columns])?;
    Ok((rows, columns, (oh, ow)))
}

/// The pixel that element (i, j) of the window at (y, x) lies on, unless it is padding.
fn source(at: (usize, usize), within: (usize, usize), window: Window, size: (usize, usize)) -> Option<(usize, usize)> {
    let y = (at.0 * window.stride.0 + within.0 * window.dilation.0).checked_sub(window.padding.top)?;
    let x = (at.1 * window.stride.1 + within.1 * window.dilation.1).checked_sub(window.padding.left)?;
    (y < size.0 && x < size.1).then_some((y, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array, s};

    #[test]
    fn order_of_rows_and_columns() {
        let x = Array::from_iter((0..2 * 2 * 3 * 3).map(|v| v as f32)).into_shape_with_order((2, 2, 3, 3)).unwrap();
        let col = im2col(x.view(), Window::square(2, 1, 0)).unwrap();
        assert_eq!(col.dim(), (8, 8));
        assert_eq!(col.row(0), array![0., 1., 3., 4., 9., 10., 12., 13.]);
        assert_eq!(col.row(1), array![1., 2., 4., 5., 10., 11., 13., 14.]);
        assert_eq!(col.row(2), array![3., 4., 6., 7., 12., 13., 15., 16.]);
        assert_eq!(col.row(4), array![18., 19., 21., 22., 27., 28., 30., 31.]);
    }

    #[test]
    fn padding_is_zero_and_overlaps_add() {
        let x = Array4::ones((1, 1, 3, 3));
        let window = Window::square(3, 1, 1);
        let col = im2col(x.view(), window).unwrap();
        assert_eq!(col.row(0), array![0., 0., 0., 0., 1., 1., 0., 1., 1.]);
        let back = col2im(col.view(), (1, 1, 3, 3), window).unwrap();
        // The corner lies in 4 windows, the edge in 6, the middle in 9.
        assert_eq!(back.slice(s![0, 0, .., ..]), array![[4., 6., 4.], [6., 9., 6.], [4., 6., 4.]]);
    }

    #[test]
    fn wrong_sizes_are_errors() {
        assert!(im2col(Array4::zeros((0, 1, 3, 3)).view(), Window::square(3, 1, 0)).is_err());
        assert!(im2col(Array4::zeros((1, 1, 3, 3)).view(), Window::square(4, 1, 0)).is_err());
        let col = Array2::zeros((3, 9));
        assert!(matches!(col2im(col.view(), (1, 1, 3, 3), Window::square(3, 1, 1)), Err(ShapeError::Mismatch { .. })));
    }
}
